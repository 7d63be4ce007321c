//! Probes trained with augmentation: every step decodes, augments and encodes its samples anew, once for all heads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::heads::{Head, Learned, Stepped, Task};
use crate::attentive::order;
use crate::features::{ClipEncoder, Features, FrozenEncoder};
use crate::{EvalError, OnProgress, Progress};
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

/// Trains heads, all of which are trained step by step. `estimate` is called once, after the first step, with the time that all of
/// them will take.
///
/// # Errors
/// [`EvalError`]: an encoder that takes other clips, a head that needs features that stay, no usable sample; as [`Stepped::step`].
pub fn train_online(
    task: &Task,
    heads: &[Head],
    encoder: &mut dyn ClipEncoder,
    set: &OnlineSet<'_>,
    estimate: &mut dyn FnMut(Duration),
    progress: OnProgress<'_>,
) -> Result<Online, EvalError> {
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
    let mut stepped = Stepped::new(task, heads, steps as u64)?;
    let mut bad: BTreeMap<PathBuf, String> = BTreeMap::new();
    let total = steps * options.epochs;
    let began = Instant::now();
    let mut done = 0;
    for epoch in 0..options.epochs as u64 {
        let shuffled = order(set.entries.len(), options.seed, epoch);
        for (number, batch) in shuffled.chunks(options.batch).enumerate() {
            let first = (number * options.batch) as u64;
            let (clips, classes) = prepared(set, batch, [options.seed, epoch, first], &mut bad);
            if !classes.is_empty() {
                let (features, classes) = encoded(encoder, set, clips, &classes)?;
                stepped.step(&features, &classes)?;
            }
            done += 1;
            if done == 1 {
                estimate(began.elapsed().mul_f64(total as f64));
            }
            progress(Progress { what: "training with augmentation", done, total });
        }
        if bad.len() == set.entries.len() {
            let first = bad.iter().next().map(|(path, why)| format!("; the first, {}: {why}", path.display()));
            let count = set.entries.len();
            let first = first.unwrap_or_default();
            return Err(EvalError::setup(format!("none of the {count} samples can be used{first}")));
        }
    }
    let learned = heads.iter().map(|_| stepped.next_learned()).collect::<Result<_, _>>()?;
    let bad = bad.into_iter().map(|(path, reason)| BadVideo { path, reason }).collect();
    Ok(Online { learned, bad })
}

/// The clips of a batch, and the class of each of its samples that can be used.
fn prepared(
    set: &OnlineSet<'_>,
    batch: &[usize],
    [seed, epoch, first]: [u64; 3],
    bad: &mut BTreeMap<PathBuf, String>,
) -> (Vec<f32>, Vec<usize>) {
    let sample = |(place, index): (usize, &usize)| {
        let (entry, class) = (set.entries.get(*index)?, set.classes.get(*index)?);
        let key = SampleKey { seed, epoch, position: first + place as u64, retry: 0 };
        let clips = refuse_stub(&entry.path).and_then(|()| set.plan.prepare(key, &entry.path));
        Some((entry, *class, clips))
    };
    let samples: Vec<_> = batch.par_iter().enumerate().filter_map(sample).collect();
    let (mut clips, mut classes) = (Vec::new(), Vec::new());
    for (entry, class, prepared) in samples {
        match prepared {
            Ok(prepared) => {
                clips.extend(prepared);
                classes.push(class);
            }
            Err(why) => drop(bad.insert(entry.path.clone(), why)),
        }
    }
    (clips, classes)
}

/// Features of a batch, and the class of each of their rows.
fn encoded(
    encoder: &mut dyn ClipEncoder,
    set: &OnlineSet<'_>,
    clips: Vec<f32>,
    classes: &[usize],
) -> Result<(Features, Vec<usize>), EvalError> {
    let [tokens, dim] = encoder.tokens();
    let mut features = Features::empty(tokens, dim);
    let clip: usize = encoder.clip().iter().product();
    for part in clips.chunks((clip * FrozenEncoder::BATCH).max(1)) {
        features.values.extend(encoder.encode(part.to_vec())?.values);
    }
    match set.attend {
        true => Ok((features.join_segments(set.clips)?, classes.to_vec())),
        false => {
            let of_clips = classes.iter().flat_map(|class| std::iter::repeat_n(*class, set.clips)).collect();
            Ok((features, of_clips))
        }
    }
}
