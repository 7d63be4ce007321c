//! Probes trained with augmentation: every step decodes, augments and encodes its samples anew, once for all heads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::heads::{Head, Learned, ProbeTask, Stepped};
use crate::attentive::order;
use crate::features::{ClipEncoder, Features, FrozenEncoder};
use crate::{EvalError, OnProgress, Progress};
use vjepa_collective::{Collective, Portion, turn};
use vjepa_data::{BadVideo, SampleKey, TrainPlan, VideoEntry, refuse_stub};

/// Samples to train on.
#[derive(Clone, Debug)]
pub struct OnlineSet<'a> {
    /// The samples of the list.
    pub entries: &'a [VideoEntry],
    /// Class of each.
    pub classes: &'a [usize],
    /// Which clips, and how they are augmented.
    pub plan: TrainPlan,
    /// Clips of a sample.
    pub clips: usize,
    /// Whether a probe reads the tokens of all clips at once; otherwise each clip counts on its own.
    pub attend: bool,
}

/// What training with augmentation gave.
#[derive(Debug)]
pub struct Online {
    /// What each head has learned, in their order.
    pub learned: Vec<Learned>,
    /// Samples that could not be used.
    pub bad: Vec<BadVideo>,
}

/// Trains heads, all of which are trained step by step. `ranks` share the samples of each step; rank 0 trains the heads, and the
/// others get nothing. `estimate` is called once, after the first step, with the time that all of them will take.
///
/// # Errors
/// [`EvalError`]: an encoder that takes other clips, a head that needs features that stay, no usable sample, a rank that is lost;
/// as [`Stepped::step`].
pub fn train_online(
    task: &ProbeTask,
    heads: &[Head],
    encoder: &mut dyn ClipEncoder,
    set: &OnlineSet<'_>,
    ranks: &dyn Collective,
    estimate: &mut dyn FnMut(Duration),
    progress: OnProgress<'_>,
) -> Result<Option<Online>, EvalError> {
    if let Some(head) = heads.iter().find(|head| !head.kind.is_stepped()) {
        let name = head.kind.name();
        return Err(EvalError::setup(format!(
            "{name} needs features that stay the same: use --cached, or leave it out"
        )));
    }
    let options = &task.options;
    if options.batch == 0 || options.epochs == 0 || set.entries.len() != set.classes.len() {
        return Err(EvalError::setup("a probe needs at least one epoch, a batch of one, and a class for each sample"));
    }
    let steps = set.entries.len().div_ceil(options.batch);
    let first = ranks.rank() == 0;
    let mut stepped = if first { Some(Stepped::new(task, heads, steps as u64)?) } else { None };
    let mut bad: BTreeMap<PathBuf, String> = BTreeMap::new();
    let total = steps * options.epochs;
    let began = Instant::now();
    let mut done = 0;
    for epoch in 0..options.epochs as u64 {
        let shuffled = order(set.entries.len(), options.seed, epoch);
        for (number, batch) in shuffled.chunks(options.batch).enumerate() {
            let at = (number * options.batch) as u64;
            let (features, classes) = encoded(encoder, set, batch, [options.seed, epoch, at], ranks, &mut bad)?;
            if let Some(stepped) = stepped.as_mut().filter(|_| !classes.is_empty()) {
                stepped.step(&features, &classes)?;
            }
            done += 1;
            if done == 1 {
                estimate(began.elapsed().mul_f64(total as f64));
            }
            progress(Progress { what: "training with augmentation", done, total });
        }
        if first && bad.len() == set.entries.len() {
            let first = bad.iter().next().map(|(path, why)| format!("; the first, {}: {why}", path.display()));
            let count = set.entries.len();
            let first = first.unwrap_or_default();
            return Err(EvalError::setup(format!("none of the {count} samples can be used{first}")));
        }
    }
    let Some(mut stepped) = stepped else { return Ok(None) };
    let learned = heads.iter().map(|_| stepped.next_learned()).collect::<Result<_, _>>()?;
    let bad = bad.into_iter().map(|(path, reason)| BadVideo { path, reason }).collect();
    Ok(Some(Online { learned, bad }))
}

/// Features of a batch on rank 0, and the class of each of their rows; nothing elsewhere.
fn encoded(
    encoder: &mut dyn ClipEncoder,
    set: &OnlineSet<'_>,
    batch: &[usize],
    [seed, epoch, first]: [u64; 3],
    ranks: &dyn Collective,
    bad: &mut BTreeMap<PathBuf, String>,
) -> Result<(Features, Vec<usize>), EvalError> {
    // As many samples as are encoded at once: the same for any number of ranks.
    let unit = (FrozenEncoder::BATCH / set.clips.max(1)).max(1);
    let mine = batch.chunks(unit).enumerate().filter(|(number, _)| number % ranks.world() == ranks.rank());
    let mine: Vec<(u64, &[usize])> = mine.map(|(number, unit_of)| (first + (number * unit) as u64, unit_of)).collect();
    let mut made = portions(encoder, set, [seed, epoch], &mine)?.into_iter();
    let [tokens, dim] = encoder.tokens();
    let (mut features, mut classes) = (Features::empty(tokens, dim), Vec::new());
    for units in batch.chunks(unit * ranks.world()) {
        let mine = units.chunks(unit).nth(ranks.rank()).and_then(|_| made.next());
        for (unit, portion) in units.chunks(unit).zip(turn(ranks, mine)?) {
            features.values.extend(portion.values);
            for (index, why) in unit.iter().zip(portion.samples) {
                let (Some(entry), Some(class)) = (set.entries.get(*index), set.classes.get(*index)) else { continue };
                match why {
                    Some(why) => drop(bad.insert(entry.path.clone(), why)),
                    None => classes.extend(std::iter::repeat_n(*class, if set.attend { 1 } else { set.clips })),
                }
            }
        }
    }
    let features = if set.attend && !classes.is_empty() { features.join_segments(set.clips)? } else { features };
    Ok((features, classes))
}

/// Features of units of samples, each with the position of its first in the epoch. All are decoded together.
fn portions(
    encoder: &mut dyn ClipEncoder,
    set: &OnlineSet<'_>,
    [seed, epoch]: [u64; 2],
    units: &[(u64, &[usize])],
) -> Result<Vec<Portion>, EvalError> {
    let samples = units.iter().flat_map(|(first, unit)| (*first..).zip(unit.iter()));
    let samples: Vec<(u64, &usize)> = samples.collect();
    let prepare = |(position, index): &(u64, &usize)| -> Result<Vec<f32>, String> {
        let entry = set.entries.get(**index).ok_or("is not in the list")?;
        let key = SampleKey { seed, epoch, position: *position, retry: 0 };
        refuse_stub(&entry.path).and_then(|()| set.plan.prepare(key, &entry.path))
    };
    let mut prepared = samples.par_iter().map(prepare).collect::<Vec<_>>().into_iter();
    let clip: usize = encoder.clip().iter().product();
    let mut made = Vec::with_capacity(units.len());
    for (_, unit) in units {
        let (mut portion, mut clips) = (Portion::default(), Vec::new());
        for sample in prepared.by_ref().take(unit.len()) {
            portion.samples.push(match sample {
                Ok(sample) => {
                    clips.extend(sample);
                    None
                }
                Err(why) => Some(why),
            });
        }
        for part in clips.chunks((clip * FrozenEncoder::BATCH).max(1)) {
            portion.values.extend(encoder.encode(part.to_vec())?.values);
        }
        made.push(portion);
    }
    Ok(made)
}
