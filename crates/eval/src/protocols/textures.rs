//! The protocol on drifting textures: how much more a pretrained encoder knows than a random one, from few labels.
//!
//! Fresh clips from a seed that is never trained on: probe clips, of which a part is a validation split, and test clips. A
//! draw takes some labels per class from the rest of the probe clips. The linear figure is logistic regression on
//! standardised mean tokens; its C is the one best on the validation split on average over the draws. The attentive probe
//! is trained through the compiled step on all tokens; its learning rate is chosen on the validation split of the first
//! draw. Both encoders get the same clips, draws and grids. Figures are means over draws, on the test clips.

mod attentive;
mod clips;

use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;
use vjepa_graphs::{EncoderConfig, NamedTensors};

use crate::features::{Features, FrozenEncoder, Keep};
use crate::logistic::{C_GRID, Labelled, first_best, fit_path, fit_tuned};
use crate::{EvalError, OnProgress, Progress};
use attentive::Attentive;
use clips::LabelledClips;
use vjepa_data::DriftingTextures;
use vjepa_data::textures::{DIRECTIONS, TEXTURES};
use vjepa_metrics::Figure;
use vjepa_recipe::config::Normalization;

/// Sizes of the protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextureProtocol {
    /// Clips that labels are drawn from, validation split included.
    pub probe_clips: usize,
    /// Of these, the validation split.
    pub validation_clips: usize,
    /// Clips that are tested on.
    pub test_clips: usize,
    /// Labels a class of each draw.
    pub labels_per_class: usize,
    /// Draws of the linear figures.
    pub draws: usize,
    /// Draws of the attentive figures; 0 leaves them out.
    pub attentive_draws: usize,
    /// The tasks that have attentive figures.
    pub attentive_tasks: Tasks<bool>,
    /// Learning rates the attentive probe is tuned over.
    pub attentive_lr: Vec<f64>,
    /// Passes of the attentive probe over its labels.
    pub attentive_epochs: usize,
    /// Whether the linear figures with the labels of all probe clips are made, too.
    pub all_labels: bool,
    /// Seed of the run; the clips come from seeds made of it that training never uses.
    pub seed: u64,
}

impl TextureProtocol {
    /// The recipe's: 1,600 probe clips, 1,000 test clips, 16 labels per class, 10 draws.
    pub fn recipe(seed: u64) -> Self {
        Self {
            probe_clips: 1600,
            validation_clips: 400,
            test_clips: 1000,
            labels_per_class: 16,
            draws: 10,
            attentive_draws: 3,
            attentive_tasks: Tasks { texture: true, motion: true },
            attentive_lr: vec![1e-3, 3e-3],
            attentive_epochs: 30,
            all_labels: false,
            seed,
        }
    }

    /// What one encoder is made to do.
    pub fn work(&self) -> Work {
        let tasks =
            [self.attentive_tasks.texture, self.attentive_tasks.motion].into_iter().filter(|asked| *asked).count();
        let classes = TEXTURES.len().max(DIRECTIONS);
        // The first draw chooses the learning rate.
        let trainings = match self.attentive_draws {
            0 => 0,
            draws => tasks * (self.attentive_lr.len() + draws - 1),
        };
        let steps = (self.labels_per_class * classes).div_ceil(attentive::BATCH) * self.attentive_epochs;
        let validated = trainings * attentive::VALIDATION.min(self.validation_clips);
        Work {
            clips: self.probe_clips + self.test_clips,
            batch: attentive::BATCH,
            steps: trainings * steps,
            classified: validated + tasks * self.attentive_draws * self.test_clips,
            classes,
        }
    }

    fn check(&self) -> Result<(), EvalError> {
        let pool = self.probe_clips.saturating_sub(self.validation_clips);
        let sizes = [self.validation_clips, self.test_clips, self.labels_per_class, self.draws, pool];
        if sizes.contains(&0) || (self.attentive_draws > 0 && self.attentive_lr.is_empty()) {
            return Err(EvalError::setup(
                "the texture protocol needs probe, validation and test clips, labels, draws and learning rates",
            ));
        }
        Ok(())
    }
}

/// What the protocol makes one encoder do, beside logistic regressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Clips that are encoded.
    pub clips: usize,
    /// Clips of a step of an attentive probe.
    pub batch: usize,
    /// Steps of all attentive probes.
    pub steps: usize,
    /// Clips that attentive probes classify.
    pub classified: usize,
    /// Classes of a task.
    pub classes: usize,
}

/// One value for each task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tasks<T> {
    /// Which of 8 textures.
    pub texture: T,
    /// Which of 8 directions.
    pub motion: T,
}

/// One value for each encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Encoders<T> {
    /// With its first weights.
    pub random: T,
    /// After pre-training.
    pub pretrained: T,
}

/// Numbers of one encoder on one task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Logistic regression on mean tokens.
    pub linear: f64,
    /// Attentive probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attentive: Option<f64>,
    /// Logistic regression with the labels of all probe clips.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_all_labels: Option<f64>,
}

/// The results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextureReport {
    /// Shares of test clips classified right.
    pub accuracy: Tasks<Encoders<Scores>>,
    /// Standard errors of those means over the draws of labels.
    pub standard_error: Tasks<Encoders<Scores>>,
    /// How they were made.
    pub protocol: TextureProtocol,
    /// Seconds it took.
    pub seconds: f64,
}

impl TextureReport {
    /// Pretrained minus random of the linear figure: the gate is .20 for texture and .05 for motion.
    pub fn linear_gain(&self) -> Tasks<f64> {
        let gain = |scores: &Encoders<Scores>| scores.pretrained.linear - scores.random.linear;
        Tasks { texture: gain(&self.accuracy.texture), motion: gain(&self.accuracy.motion) }
    }
}

/// Runs the protocol for two sets of encoder weights (names without prefix). `normalization` is that of training.
///
/// # Errors
/// [`EvalError`]: weights or clips that do not fit the configuration, or a protocol with empty parts.
pub fn evaluate_textures(
    config: &EncoderConfig,
    random: &NamedTensors,
    pretrained: &NamedTensors,
    normalization: Normalization,
    protocol: &TextureProtocol,
    progress: OnProgress<'_>,
) -> Result<TextureReport, EvalError> {
    protocol.check()?;
    let started = Instant::now();
    let source = DriftingTextures::new(config.num_frames, config.height, normalization);
    let clips = LabelledClips::new(&source, protocol);
    let random = evaluate_one(config, random, &source, &clips, protocol, "random", progress)?;
    let pretrained = evaluate_one(config, pretrained, &source, &clips, protocol, "pretrained", progress)?;
    let figures = Tasks {
        texture: Encoders { random: random.texture, pretrained: pretrained.texture },
        motion: Encoders { random: random.motion, pretrained: pretrained.motion },
    };
    let pick = |of: fn(Figure) -> f64| {
        let scores = |f: Figures| Scores {
            linear: of(f.linear),
            attentive: f.attentive.map(of),
            linear_all_labels: f.all_labels.map(of),
        };
        let encoders = |e: Encoders<Figures>| Encoders { random: scores(e.random), pretrained: scores(e.pretrained) };
        Tasks { texture: encoders(figures.texture), motion: encoders(figures.motion) }
    };
    Ok(TextureReport {
        accuracy: pick(|figure| figure.mean),
        standard_error: pick(|figure| figure.se),
        protocol: protocol.clone(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Runs the protocol for one encoder (names without prefix, or under `encoder.`) on a stream of clips of its size: its means over
/// draws.
///
/// # Errors
/// As [`evaluate_textures`].
pub fn evaluate_encoder(
    config: &EncoderConfig,
    weights: &NamedTensors,
    source: &DriftingTextures,
    protocol: &TextureProtocol,
    progress: OnProgress<'_>,
) -> Result<Tasks<Scores>, EvalError> {
    protocol.check()?;
    let clips = LabelledClips::new(source, protocol);
    let figures = evaluate_one(config, weights, source, &clips, protocol, "the", progress)?;
    let scores = |figures: Figures| Scores {
        linear: figures.linear.mean,
        attentive: figures.attentive.map(|figure| figure.mean),
        linear_all_labels: figures.all_labels.map(|figure| figure.mean),
    };
    Ok(Tasks { texture: scores(figures.texture), motion: scores(figures.motion) })
}

/// Figures of one encoder on one task.
#[derive(Clone, Copy)]
struct Figures {
    linear: Figure,
    attentive: Option<Figure>,
    all_labels: Option<Figure>,
}

fn evaluate_one(
    config: &EncoderConfig,
    weights: &NamedTensors,
    source: &DriftingTextures,
    clips: &LabelledClips,
    protocol: &TextureProtocol,
    name: &str,
    progress: OnProgress<'_>,
) -> Result<Tasks<Figures>, EvalError> {
    let mut encoder = FrozenEncoder::new(config, weights)?;
    let count = clips.probe + clips.test.len();
    // Only the attentive probe needs every token.
    let keep = if protocol.attentive_draws > 0 { Keep::Tokens } else { Keep::Mean };
    let fill = |i: usize, clip: &mut [f32]| clips.sample(source, i, clip);
    let features = encoder.extract(count, keep, fill, &format!("encoding test clips, {name} encoder"), progress)?;
    let pooled = features.pooled();
    let mut attentive = match protocol.attentive_draws {
        0 => None,
        _ => Some(Attentive::new(config, clips, &features)?),
    };
    let mut one = |task: usize, classes: usize, word: &str, asked: bool| -> Result<Figures, EvalError> {
        let what = format!("{word} probes, {name} encoder");
        progress(Progress { what: &what, done: 0, total: 1 + protocol.attentive_draws });
        let linear = linear(&pooled, clips, task, classes, protocol)?;
        let all_labels = if protocol.all_labels { Some(all_labels(&pooled, clips, task, classes)?) } else { None };
        progress(Progress { what: &what, done: 1, total: 1 + protocol.attentive_draws });
        let attentive = match &mut attentive {
            Some(probes) if asked => Some(probes.figure(&features, clips, task, protocol, &mut |done| {
                progress(Progress { what: &what, done: 1 + done, total: 1 + protocol.attentive_draws });
            })?),
            Some(_) | None => None,
        };
        Ok(Figures { linear, attentive, all_labels })
    };
    let asked = protocol.attentive_tasks;
    Ok(Tasks {
        texture: one(0, TEXTURES.len(), "texture", asked.texture)?,
        motion: one(1, DIRECTIONS, "motion", asked.motion)?,
    })
}

/// The mean tokens of some rows with their labels.
struct Rows {
    features: Vec<f32>,
    dim: usize,
    labels: Vec<usize>,
}

impl Rows {
    fn new(pooled: &Features, clips: &LabelledClips, task: usize, rows: &[usize]) -> Self {
        Self { features: pooled.select(rows).values, dim: pooled.dim, labels: clips.labels_of(task, rows) }
    }

    fn labelled(&self) -> Labelled<'_> {
        Labelled { features: &self.features, dim: self.dim, labels: &self.labels }
    }
}

/// The linear figure: C by the mean accuracy on the validation split, then the test clips.
fn linear(
    pooled: &Features,
    clips: &LabelledClips,
    task: usize,
    classes: usize,
    protocol: &TextureProtocol,
) -> Result<Figure, EvalError> {
    let [validation, test] = [&clips.validation, &clips.test].map(|rows| Rows::new(pooled, clips, task, rows));
    let results = clips.draws[task][..protocol.draws]
        .par_iter()
        .map(|draw| {
            let models = fit_path(Rows::new(pooled, clips, task, draw).labelled(), classes, &C_GRID)?;
            let accuracies = |rows: &Rows| models.iter().map(|model| model.accuracy(rows.labelled())).collect();
            Ok((accuracies(&validation), accuracies(&test)))
        })
        .collect::<Result<Vec<(Vec<f64>, Vec<f64>)>, EvalError>>()?;
    let sums: Vec<f64> = (0..C_GRID.len()).map(|c| results.iter().map(|(validation, _)| validation[c]).sum()).collect();
    let best = first_best(&sums);
    Ok(Figure::of(&results.iter().map(|(_, test)| test[best]).collect::<Vec<_>>()))
}

/// The linear figure with all labels.
fn all_labels(pooled: &Features, clips: &LabelledClips, task: usize, classes: usize) -> Result<Figure, EvalError> {
    let pool: Vec<usize> = (0..clips.probe - clips.validation.len()).collect();
    let [train, held_out, test] =
        [&pool, &clips.validation, &clips.test].map(|rows| Rows::new(pooled, clips, task, rows));
    let (model, _, _) = fit_tuned(train.labelled(), held_out.labelled(), classes)?;
    Ok(Figure::of(&[model.accuracy(test.labelled())]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_graphs::init::{Init, encoder};

    #[test]
    fn equal_encoders_get_equal_figures() {
        let config = EncoderConfig { patch: 8, depth: 1, num_heads: 2, embed_dim: 24, ..EncoderConfig::tiny() }
            .with_clip(4, 24, 24);
        let protocol = TextureProtocol {
            probe_clips: 160,
            validation_clips: 40,
            test_clips: 80,
            labels_per_class: 4,
            draws: 2,
            attentive_draws: 1,
            attentive_epochs: 2,
            all_labels: true,
            ..TextureProtocol::recipe(0)
        };
        let weights = encoder(&config, Init::Xavier, 0);
        let mut told = Vec::new();
        let mut progress = |p: Progress<'_>| told.push((p.what.to_owned(), p.done <= p.total));
        let report =
            evaluate_textures(&config, &weights, &weights, Normalization::PerClip, &protocol, &mut progress).unwrap();
        assert_eq!(report.accuracy.texture.random, report.accuracy.texture.pretrained);
        assert_eq!(report.linear_gain(), Tasks { texture: 0.0, motion: 0.0 });
        assert!(report.accuracy.texture.random.linear > 0.0, "{report:?}");
        assert!(told.iter().all(|(_, sane)| *sane) && told.iter().any(|(what, _)| what.contains("motion")));
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["accuracy"]["texture"]["random"]["attentive"].is_number());
        assert!(protocol.check().is_ok() && TextureProtocol { draws: 0, ..protocol }.check().is_err());
    }
}
