//! Several probes of one pass of an encoder, side by side: kinds, learning rates and weight decays, on the same features.

use vjepa_graphs::{NamedTensors, ProbeConfig};
use vjepa_metrics::aggregate::mean_of_views;
use vjepa_metrics::knn;
use vjepa_runtime::plan::Device;

use super::videos::{linear, predict};
use crate::attentive::{ProbeOptions, ProbeRun, ProbeTrainer, order};
use crate::features::{Features, Keep};
use crate::probe_file::linear_weights;
use crate::{EvalError, OnProgress, Progress};
use vjepa_programs::Probe;

/// What reads the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Attentive pooling and a linear layer, trained through the compiled step.
    Attentive,
    /// The mean token and a linear layer, trained through the compiled step.
    Average,
    /// Logistic regression on the mean token, to its minimum, its C chosen on a part of the samples.
    Linear,
    /// A vote of the nearest training samples, by the cosine of mean tokens, as DINO weighs it.
    Neighbours,
}

impl HeadKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Attentive, Self::Average, Self::Linear, Self::Neighbours];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attentive => "attentive",
            Self::Average => "average",
            Self::Linear => "linear",
            Self::Neighbours => "knn",
        }
    }

    /// What it is.
    pub fn about(self) -> &'static str {
        match self {
            Self::Attentive => "Cross-attention pooling and a linear layer",
            Self::Average => "The mean token and a linear layer, trained like the attentive probe",
            Self::Linear => "Logistic regression on the mean token, trained to convergence",
            Self::Neighbours => {
                "Vote of the nearest training samples by the cosine of mean tokens; has no weights to write"
            }
        }
    }

    /// Whether it is trained step by step, at a learning rate.
    pub fn is_stepped(self) -> bool {
        matches!(self, Self::Attentive | Self::Average)
    }

    /// How much of the features it reads.
    pub fn keep(self) -> Keep {
        if self == Self::Attentive { Keep::Tokens } else { Keep::Mean }
    }
}

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// What it is.
    pub kind: HeadKind,
    /// Learning rate and weight decay, of those that are trained step by step.
    pub rates: Option<[f64; 2]>,
    /// All of its own training, where it shares none with the others.
    pub own: Option<ProbeOptions>,
}

impl Head {
    /// Every kind with every learning rate and weight decay that it takes, in this order.
    pub fn all(kinds: &[HeadKind], lrs: &[f64], decays: &[f64]) -> Vec<Self> {
        let of = |kind: &HeadKind| -> Vec<Self> {
            let kind = *kind;
            if !kind.is_stepped() {
                return vec![Self { kind, rates: None, own: None }];
            }
            lrs.iter()
                .flat_map(|lr| decays.iter().map(move |wd| Self { kind, rates: Some([*lr, *wd]), own: None }))
                .collect()
        };
        kinds.iter().flat_map(of).collect()
    }

    /// Every kind once for each of these trainings where it is trained step by step, in this order.
    pub fn each(kinds: &[HeadKind], trainings: &[ProbeOptions]) -> Vec<Self> {
        let of = |kind: &HeadKind| -> Vec<Self> {
            let kind = *kind;
            if !kind.is_stepped() {
                return vec![Self { kind, rates: None, own: None }];
            }
            let own = |own: &ProbeOptions| Self { kind, rates: Some([own.lr, own.weight_decay]), own: Some(*own) };
            trainings.iter().map(own).collect()
        };
        kinds.iter().flat_map(of).collect()
    }

    /// In words: `attentive, lr 0.001, wd 0.01`.
    pub fn in_words(&self) -> String {
        match self.rates {
            Some([lr, wd]) => format!("{}, lr {lr}, wd {wd}", self.kind.name()),
            None => self.kind.name().to_owned(),
        }
    }

    fn options(&self, shared: &ProbeOptions) -> ProbeOptions {
        if let Some(own) = self.own {
            return own;
        }
        let [lr, weight_decay] = self.rates.unwrap_or([shared.lr, shared.weight_decay]);
        // A warm-up starts at the same share of every learning rate.
        let start_lr = if shared.lr > 0.0 { shared.start_lr / shared.lr * lr } else { lr };
        ProbeOptions { lr, start_lr, weight_decay, ..*shared }
    }
}

/// Features of samples with the class of each: `rows` rows of features are one sample.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// `[samples · rows, N, D]`.
    pub features: &'a Features,
    /// Classes of the samples.
    pub classes: &'a [usize],
    /// Rows of a sample.
    pub rows: usize,
}

/// What all heads share.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeTask {
    /// Where they run.
    pub device: Device,
    /// Number of classes.
    pub classes: usize,
    /// The attentive probe, which says how wide the features are.
    pub attentive: ProbeConfig,
    /// Training; learning rate and weight decay are each head's own.
    pub options: ProbeOptions,
    /// Neighbours that vote.
    pub neighbours: usize,
}

impl ProbeTask {
    fn probe(&self, kind: HeadKind) -> Probe {
        match kind {
            HeadKind::Attentive => Probe::Attentive(self.attentive.clone()),
            HeadKind::Average | HeadKind::Linear | HeadKind::Neighbours => {
                Probe::Linear { embed_dim: self.attentive.embed_dim, num_classes: self.classes }
            }
        }
    }
}

/// What a head has learned.
#[derive(Clone, Debug)]
pub enum Learned {
    /// A probe with its weights, plain names; the C of a logistic regression.
    Probe {
        /// Its kind and sizes.
        probe: Probe,
        /// Its weights.
        weights: NamedTensors,
        /// Strength of a logistic regression's fit.
        c: Option<f64>,
    },
    /// Unit vectors of the training samples, `[samples, D]`, and their classes.
    Neighbours {
        /// Rows.
        rows: Vec<f32>,
        /// Classes.
        classes: Vec<usize>,
    },
    /// Nothing: its loss was not a number.
    Diverged(String),
}

/// Trains all heads on features that stay as they are.
///
/// # Errors
/// [`EvalError`]: as [`Stepped::new`], labels that do not fit. A head that diverges beside others is [`Learned::Diverged`].
pub fn train(
    task: &ProbeTask,
    heads: &[Head],
    samples: Samples<'_>,
    progress: OnProgress<'_>,
) -> Result<Vec<Learned>, EvalError> {
    let count = samples.classes.len();
    if task.classes < 2 {
        return Err(EvalError::setup("a probe needs videos of at least two classes"));
    }
    let options = &task.options;
    if options.batch == 0 || options.epochs == 0 {
        return Err(EvalError::setup("a probe needs at least one epoch and a batch of one"));
    }
    let pooled = heads.iter().any(|head| !head.kind.is_stepped()).then(|| samples.features.pooled());
    let mut stepped = Stepped::new(task, heads, count.div_ceil(options.batch) as u64)?;
    if stepped.any() {
        for epoch in 0..options.epochs {
            for batch in order(count, options.seed, epoch as u64).chunks(options.batch) {
                let rows: Vec<usize> = batch.iter().flat_map(|at| at * samples.rows..(at + 1) * samples.rows).collect();
                let class = |at: &usize| samples.classes.get(*at).copied().unwrap_or(0);
                let classes: Vec<usize> =
                    batch.iter().flat_map(|at| std::iter::repeat_n(class(at), samples.rows)).collect();
                stepped.step(&samples.features.select(&rows), &classes)?;
            }
            progress(Progress { what: "training the probe", done: epoch + 1, total: options.epochs });
        }
    }
    let of = |head: &Head, stepped: &mut Stepped| match (head.kind, &pooled) {
        (HeadKind::Linear, Some(pooled)) => {
            let classes: Vec<usize> =
                samples.classes.iter().flat_map(|class| std::iter::repeat_n(*class, samples.rows)).collect();
            let (model, c) = linear(pooled, &classes, task.classes, options.seed)?;
            let (probe, weights) = (task.probe(head.kind), linear_weights(&model));
            Ok(Learned::Probe { probe, weights, c: Some(c) })
        }
        (HeadKind::Neighbours, Some(pooled)) => {
            let mut rows = mean_of_views(&pooled.values, pooled.dim, samples.rows);
            knn::normalise(&mut rows, pooled.dim);
            Ok(Learned::Neighbours { rows, classes: samples.classes.to_vec() })
        }
        _ => stepped.next_learned(),
    };
    heads.iter().map(|head| of(head, &mut stepped)).collect()
}

/// Heads that are trained step by step, all on the same batches: one compiled step for each kind.
pub struct Stepped {
    attentive: Option<ProbeTrainer>,
    average: Option<ProbeTrainer>,
    runs: Vec<Run>,
    /// The next of [`Stepped::next_learned`].
    taken: usize,
}

struct Run {
    kind: HeadKind,
    probe: Probe,
    state: Result<ProbeRun, String>,
}

impl Stepped {
    /// Those of the heads that are trained step by step, from first weights, `steps` an epoch.
    ///
    /// # Errors
    /// [`EvalError::Compile`], [`EvalError::Run`]; [`EvalError::Setup`] for a learning rate that is not positive.
    pub fn new(task: &ProbeTask, heads: &[Head], steps: u64) -> Result<Self, EvalError> {
        let mut trainers = Self { attentive: None, average: None, runs: Vec::new(), taken: 0 };
        for head in heads.iter().filter(|head| head.kind.is_stepped()) {
            let options = head.options(&task.options);
            if !(options.lr.is_finite() && options.lr > 0.0) {
                return Err(EvalError::setup("a probe needs a positive learning rate"));
            }
            let probe = task.probe(head.kind);
            let slot = trainers.slot(head.kind);
            let trainer = match slot {
                Some(trainer) => trainer,
                None => slot.insert(ProbeTrainer::on(task.device, &probe)?),
            };
            let state = Ok(trainer.start(&options, steps));
            trainers.runs.push(Run { kind: head.kind, probe, state });
        }
        Ok(trainers)
    }

    fn slot(&mut self, kind: HeadKind) -> &mut Option<ProbeTrainer> {
        if kind == HeadKind::Attentive { &mut self.attentive } else { &mut self.average }
    }

    /// Whether there is one.
    pub fn any(&self) -> bool {
        !self.runs.is_empty()
    }

    /// One step of each on a batch; the mean of the losses of those that have not diverged.
    ///
    /// # Errors
    /// As [`ProbeTrainer::step`]; a head diverging is an error where no other is left.
    pub fn step(&mut self, features: &Features, classes: &[usize]) -> Result<f32, EvalError> {
        let mut runs = std::mem::take(&mut self.runs);
        let pooled = self.average.is_some().then(|| features.pooled());
        let mut outcome = Ok(());
        let (mut sum, mut left) = (0.0, 0);
        for run in &mut runs {
            let Ok(state) = &mut run.state else { continue };
            let features = match (run.kind, &pooled) {
                (HeadKind::Average, Some(pooled)) => pooled,
                _ => features,
            };
            let Some(trainer) = self.slot(run.kind) else { continue };
            match trainer.step(state, features, classes) {
                Ok(loss) => (sum, left) = (sum + loss, left + 1),
                Err(error @ EvalError::Diverged { .. }) => {
                    run.state = Err(error.to_string());
                    outcome = Err(error);
                }
                Err(error) => {
                    self.runs = runs;
                    return Err(error);
                }
            }
        }
        self.runs = runs;
        match (outcome, left) {
            (Err(error), 0) => Err(error),
            _ => Ok(sum / left.max(1) as f32),
        }
    }

    /// What the heads have learned, one after the other in their order.
    ///
    /// # Errors
    /// [`EvalError::Setup`] when all have been taken.
    pub fn next_learned(&mut self) -> Result<Learned, EvalError> {
        let run = self.runs.get(self.taken).ok_or_else(|| EvalError::setup("there are fewer probes than asked for"))?;
        self.taken += 1;
        Ok(match &run.state {
            Ok(state) => Learned::Probe { probe: run.probe.clone(), weights: state.weights(), c: None },
            Err(why) => Learned::Diverged(why.clone()),
        })
    }
}

/// Scores of samples, `[samples, classes]`: probabilities, or votes of neighbours; none of a head that has diverged.
///
/// # Errors
/// [`EvalError`]: features that do not fit.
pub fn scores(task: &ProbeTask, learned: &Learned, samples: Samples<'_>) -> Result<Option<Vec<f32>>, EvalError> {
    let Samples { features, classes, rows } = samples;
    match learned {
        Learned::Diverged(_) => Ok(None),
        Learned::Probe { probe, weights, .. } => {
            predict(task.device, probe, weights, features, (classes.len(), rows)).map(Some)
        }
        Learned::Neighbours { rows: references, classes: known } => {
            let pooled = features.pooled();
            let mut queries = mean_of_views(&pooled.values, pooled.dim, rows);
            knn::normalise(&mut queries, pooled.dim);
            let sizes = [pooled.dim, task.classes];
            let votes = knn::classify(&queries, (references, known), sizes, task.neighbours, knn::Weight::DINO);
            votes.map(Some).map_err(|error| EvalError::setup(error.to_string()))
        }
    }
}
