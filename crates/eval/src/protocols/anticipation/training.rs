//! Probes of actions trained on features that stay as they are, or on clips that every epoch draws and augments anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use vjepa_collective::{Collective, turn};
use vjepa_data::SampleKey;
use vjepa_data::annotations::ActionSegment;
use vjepa_data::anticipation::AnticipationDraws;
use vjepa_data::media::Opener;
use vjepa_graphs::NamedTensors;
use vjepa_programs::{self as compile, ACTION_HEADS};
use vjepa_recipe::schedules::ProbeSchedule;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};

use super::future::BATCH;
use super::{Anticipated, AnticipationRecord, FutureEncoder};
use crate::attentive::{ProbeOptions, finite_loss, one_hot, order, rates, untrained};
use crate::features::Features;
use crate::{EvalError, OnProgress, Progress};

/// The compiled step of probes of a record.
struct Step {
    plan: DeviceExecutor,
    classes: [usize; 3],
}

/// A probe in training.
struct Learning {
    params: DeviceParams,
    first: NamedTensors,
    schedule: ProbeSchedule,
    max_norm: f32,
    /// Steps done.
    number: u64,
}

impl Step {
    fn new(device: Device, record: &AnticipationRecord) -> Result<Self, EvalError> {
        let classes = record.classes();
        Ok(Self { plan: device.plan(&compile::actions_step(&record.probe(), classes)?)?, classes })
    }

    /// One step of a probe on the features of a batch, whose labels are verbs, nouns and actions.
    fn run(&mut self, probe: &mut Learning, features: Features, labels: &[[usize; 3]]) -> Result<(), EvalError> {
        let shape = vec![labels.len(), features.tokens, features.dim];
        let names = ACTION_HEADS.map(|name| format!("labels.{name}"));
        let mut inputs = vec![("features", HostTensor::F32 { shape, data: features.values })];
        for (head, (name, classes)) in names.iter().zip(self.classes).enumerate() {
            inputs.push((name, one_hot(labels.iter().map(|labels| labels[head]), labels.len(), classes)?));
        }
        inputs.extend(rates(probe.schedule.at(probe.number), probe.number, probe.max_norm));
        let outputs = self.plan.run(&mut probe.params, inputs)?;
        finite_loss(&outputs, probe.number)?;
        probe.number += 1;
        Ok(())
    }
}

impl Learning {
    /// First weights, to be trained for `batches` steps an epoch.
    fn new(device: Device, record: &AnticipationRecord, options: &ProbeOptions, batches: u64) -> Self {
        let first = compile::first_action_weights(&record.probe(), record.classes(), options.seed);
        let warmup = (options.warmup * batches as f64) as u64;
        let total = batches * options.epochs as u64;
        let mut schedule = ProbeSchedule::new(total, warmup, options.start_lr, options.lr, options.weight_decay);
        (schedule.lr.end, schedule.wd.end) = (options.final_lr, options.final_weight_decay);
        Self { params: untrained(device, &first), first, schedule, max_norm: options.max_norm, number: 0 }
    }

    fn trained(self) -> NamedTensors {
        let Self { params, first, .. } = self;
        let trained = first.into_iter().map(|(name, (shape, values))| {
            let values = params.get(&format!("probe.{name}")).map_or(values, |(_, values)| values);
            (name, (shape, values))
        });
        trained.collect()
    }
}

/// Trains a probe of verb, noun and action from first weights, on features that stay as they are.
///
/// # Errors
/// [`EvalError::Setup`] for actions that the record does not know, [`EvalError::Run`], [`EvalError::Diverged`].
pub fn train_actions(
    device: Device,
    record: &AnticipationRecord,
    found: &Anticipated,
    options: &ProbeOptions,
    progress: OnProgress<'_>,
) -> Result<NamedTensors, EvalError> {
    let (labels, batch) = (known(record, &found.segments)?, options.batch.max(1));
    let mut step = Step::new(device, record)?;
    let mut probe = Learning::new(device, record, options, labels.len().div_ceil(batch) as u64);
    for epoch in 0..options.epochs {
        for rows in order(labels.len(), options.seed, epoch as u64).chunks(batch) {
            let own: Vec<[usize; 3]> = rows.iter().filter_map(|row| labels.get(*row).copied()).collect();
            step.run(&mut probe, found.features.select(rows), &own)?;
        }
        progress(Progress { what: "training the probe of actions", done: epoch + 1, total: options.epochs });
    }
    Ok(probe.trained())
}

/// Probes that were trained on augmented clips.
#[derive(Debug)]
pub struct AugmentedActions {
    /// Their weights, in the order of their options.
    pub probes: Vec<NamedTensors>,
    /// Why videos could not be used, by their path.
    pub bad: BTreeMap<PathBuf, String>,
}

/// Trains a probe by each of `options`, all with the epochs, batch and seed of the first, on clips that every epoch draws,
/// augments and encodes anew, once for all of them. `ranks` share the clips of each step; rank 0 trains, and the others get
/// nothing. `estimate` is called once, after the first step, with the time that all of them will take.
///
/// # Errors
/// [`EvalError::Setup`] for actions that the record does not know, no probe, and where no clip can be used in an epoch;
/// [`EvalError::Data`] where videos cannot be reached; [`EvalError::Collective`] where a rank is lost; [`EvalError::Run`],
/// [`EvalError::Diverged`].
#[allow(clippy::too_many_arguments)]
pub fn train_actions_augmented(
    device: Device,
    record: &AnticipationRecord,
    options: &[ProbeOptions],
    encoder: &mut FutureEncoder,
    (draws, segments): (&AnticipationDraws, &[ActionSegment]),
    ranks: &dyn Collective,
    estimate: &mut dyn FnMut(Duration),
    progress: OnProgress<'_>,
) -> Result<Option<AugmentedActions>, EvalError> {
    let labels = known(record, segments)?;
    let Some(&ProbeOptions { epochs, batch, seed, .. }) = options.first() else {
        return Err(EvalError::setup("there is no probe to train"));
    };
    let batch = batch.max(1);
    let batches = segments.len().div_ceil(batch);
    let first = ranks.rank() == 0;
    let mut step = first.then(|| Step::new(device, record)).transpose()?;
    let learning = |options| Learning::new(device, record, options, batches as u64);
    let mut probes: Vec<Learning> = options.iter().filter(|_| first).map(learning).collect();
    let (mut bad, mut done, began) = (BTreeMap::new(), 0, Instant::now());
    for epoch in 0..epochs as u64 {
        let mut used = 0;
        for (number, rows) in order(segments.len(), seed, epoch).chunks(batch).enumerate() {
            let at = (number * batch) as u64;
            let (features, kept) = encoded(encoder, (draws, segments), rows, [seed, epoch, at], ranks, &mut bad)?;
            let own: Vec<[usize; 3]> = kept.iter().filter_map(|row| labels.get(*row).copied()).collect();
            used += own.len();
            if let Some(step) = step.as_mut().filter(|_| !own.is_empty()) {
                for probe in &mut probes {
                    step.run(probe, features.clone(), &own)?;
                }
            }
            done += 1;
            if done == 1 {
                estimate(began.elapsed().mul_f64((batches * epochs) as f64));
            }
            progress(Progress { what: "training with augmentation", done, total: batches * epochs });
        }
        if first && used == 0 {
            let why = bad.iter().next().map(|(path, why): (&PathBuf, &String)| format!(": {}: {why}", path.display()));
            return Err(EvalError::setup(format!("no clip could be read{}", why.unwrap_or_default())));
        }
    }
    Ok(first.then(|| AugmentedActions { probes: probes.into_iter().map(Learning::trained).collect(), bad }))
}

/// Features of the usable actions of a batch, and their numbers, on rank 0; nothing elsewhere.
fn encoded(
    encoder: &mut FutureEncoder,
    (draws, segments): (&AnticipationDraws, &[ActionSegment]),
    rows: &[usize],
    [seed, epoch, first]: [u64; 3],
    ranks: &dyn Collective,
    bad: &mut BTreeMap<PathBuf, String>,
) -> Result<(Features, Vec<usize>), EvalError> {
    let [tokens, dim] = encoder.tokens();
    let (mut features, mut kept) = (Features::empty(tokens, dim), Vec::new());
    let (opener, turns) = (Opener::shared(), BATCH * ranks.world());
    for (number, units) in rows.chunks(turns).enumerate() {
        let mine = match units.chunks(BATCH).nth(ranks.rank()) {
            None => None,
            Some(unit) => {
                let from = first + (number * turns + ranks.rank() * BATCH) as u64;
                let keyed: Vec<(u64, &usize)> = (from..).zip(unit).collect();
                let read = keyed.par_iter().filter_map(|(position, row)| {
                    let key = SampleKey { seed, epoch, position: *position, retry: 0 };
                    segments.get(**row).map(|segment| draws.prepare(opener, key, segment))
                });
                Some(encoder.portion_of(read.collect())?)
            }
        };
        for (unit, portion) in units.chunks(BATCH).zip(turn(ranks, mine)?) {
            features.values.extend(portion.values);
            for (row, why) in unit.iter().zip(portion.samples) {
                match (why, segments.get(*row)) {
                    (Some(why), Some(segment)) => drop(bad.insert(segment.path.clone(), why)),
                    (Some(_), None) => {}
                    (None, _) => kept.push(*row),
                }
            }
        }
    }
    Ok((features, kept))
}

/// The labels of actions, all of which the record knows.
fn known(record: &AnticipationRecord, segments: &[ActionSegment]) -> Result<Vec<[usize; 3]>, EvalError> {
    let strange = |segment: &ActionSegment| {
        let (verb, noun) = segment.action();
        EvalError::setup(format!("the probe does not know the action of verb {verb} and noun {noun}"))
    };
    segments.iter().map(|segment| record.labels(segment).ok_or_else(|| strange(segment))).collect()
}
