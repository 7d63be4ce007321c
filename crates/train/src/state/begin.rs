//! How a run begins: with fresh weights, those of a file, or where an earlier part of it stopped.

use super::super::checkpoint::{Checkpoint, FoundCheckpoint, TrainProgress};
use super::super::official;
use super::super::resume::{self, Changes, Continuation};
use super::{TrainError, TrainState};
use std::collections::BTreeMap;
use std::path::Path;
use vjepa_graphs::NamedTensors;
use vjepa_graphs::objectives::Role;
use vjepa_programs::first_weights;
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights as weights;

impl TrainState {
    /// Gives the run its weights: the latest checkpoint's, those a cool-down begins with, those of `meta.read_checkpoint`, or
    /// fresh ones.
    ///
    /// # Errors
    /// [`TrainError`] when weights are missing, misshapen, or of another configuration.
    pub fn begin(&mut self, config: &Config, files: &Checkpoint, resume: bool) -> Result<(), TrainError> {
        if resume || goes_on_cooling(config, files) {
            return self.go_on(config, files);
        }
        refuse_existing(files)?;
        if let Some(path) = &config.optimization.anneal_ckpt {
            return self.cool_down(config, Path::new(path));
        }
        let wanted = config.meta.read_checkpoint.as_ref().filter(|_| config.meta.load_checkpoint);
        let tensors = match wanted {
            Some(path) => {
                let loaded = weights::load(Path::new(path))?;
                loaded.check_generation(config.model.generation)?;
                let sets = self.objective.declaration().sets.iter();
                // Moving averages start as copies where the file has none.
                let wanted = sets.filter(|set| !matches!(set.role, Role::Average { .. }) || loaded.has(set.name));
                loaded.check(&wanted.map(|set| (set.name, set.shapes.clone())).collect::<Vec<_>>())?;
                let mut tensors = loaded.all()?;
                tensors.retain(|name, _| !name.starts_with("adam."));
                tensors
            }
            None => first_weights(config, &self.objective)?,
        };
        self.set_weights(tensors)
    }

    /// Begins with these weights.
    ///
    /// # Errors
    /// [`TrainError::Resume`] where the run has a checkpoint already; as [`TrainState::set_weights`].
    pub fn begin_with(&mut self, files: &Checkpoint, weights: NamedTensors) -> Result<(), TrainError> {
        refuse_existing(files)?;
        self.set_weights(weights)
    }

    /// Goes on from a checkpoint of the official code: its weights, moments and counters.
    ///
    /// # Errors
    /// As [`official::OfficialRun::read`], or [`TrainError::Resume`] where the run has a checkpoint of its own already.
    pub fn begin_from_official(&mut self, config: &Config, files: &Checkpoint, path: &Path) -> Result<(), TrainError> {
        refuse_existing(files)?;
        let run = official::OfficialRun::read(path, config, &self.plan)?;
        self.set_weights(run.tensors()?)?;
        let contents = self.contents.take();
        self.proceed(TrainProgress { contents, ..run.progress });
        Ok(())
    }

    /// Begins a cool-down with the weights, averages and moments of another run's checkpoint; the step is the first.
    fn cool_down(&mut self, config: &Config, path: &Path) -> Result<(), TrainError> {
        let run = official::OfficialRun::to_cool_down(path, config)?;
        self.set_weights(run.tensors()?)?;
        self.updates_before = run.progress.updates_before;
        self.notes.push(format!(
            "the cool-down begins with {}: its weights, averages and optimiser state after {} updates",
            path.display(),
            self.updates_before
        ));
        Ok(())
    }

    /// Counters and history of the run so far.
    pub(in super::super) fn progress(&self) -> TrainProgress {
        TrainProgress {
            step: self.step,
            loss: self.loss,
            skipped: self.skipped,
            updates_before: self.updates_before,
            contents: self.contents.clone(),
            history: self.history.clone(),
        }
    }

    /// Goes on from these counters.
    pub(in super::super) fn proceed(&mut self, progress: TrainProgress) {
        let TrainProgress { step, loss, skipped, updates_before, contents, history } = progress;
        (self.step, self.loss, self.skipped, self.updates_before) = (step, loss, skipped, updates_before);
        (self.contents, self.history) = (contents, history);
    }

    fn go_on(&mut self, config: &Config, files: &Checkpoint) -> Result<(), TrainError> {
        let FoundCheckpoint { path, tensors, record, passed_over } = files.newest()?;
        if !passed_over.is_empty() {
            let why = passed_over.join("; ");
            self.notes.push(format!("{why}: resuming from {}, after step {}", path.display(), record.step));
        }
        let was = Config::from_yaml(&record.config, "the checkpoint's configuration", &[])?;
        let Changes { refused, mut allowed } = resume::compare(&was, config)?;
        if !refused.is_empty() {
            return Err(TrainError::Resume { path, why: resume::refusal(&refused) });
        }
        // Other lists hold other videos; only the same lists are expected to hold the same videos.
        let images = |config: &Config| config.img_data.as_ref().map(|images| images.datasets.clone());
        if was.data.datasets == config.data.datasets && images(&was) == images(config) {
            allowed.extend(resume::of_contents(record.contents.as_ref(), self.contents.as_ref()));
        }
        self.set_weights(tensors)?;
        self.step = record.step;
        self.loss = record.loss;
        self.skipped = record.skipped;
        self.updates_before = record.updates_before;
        self.saved = Some((path, record.step));
        self.history = record.history;
        self.history.push(Continuation { from: record.step, vjepa: record.vjepa, changed: allowed });
        Ok(())
    }

    /// Sets weights and moments. Moving averages that are not given start as copies, moments at zero.
    ///
    /// # Errors
    /// [`TrainError::Run`] naming the first tensor that is missing or misshapen.
    pub fn set_weights(&mut self, mut tensors: NamedTensors) -> Result<(), TrainError> {
        self.objective.declaration().start_averages(&mut tensors);
        for (name, (shape, data)) in tensors {
            set(&mut self.params, &name, shape, data);
        }
        let graph = self.step_executor.optimiser();
        for id in &graph.params {
            let name = graph.source_name(*id).unwrap_or_default();
            if name.starts_with("adam.") && !self.params.names().any(|known| known == name) {
                let shape: Vec<usize> =
                    graph.ty(*id).shape.iter().filter_map(|dim| dim.eval(&BTreeMap::new())).collect();
                let zeros = vec![0.0; shape.iter().product()];
                set(&mut self.params, name, shape, zeros);
            }
        }
        Ok(())
    }
}

/// Whether a cool-down has begun in this folder, and is to go on.
fn goes_on_cooling(config: &Config, files: &Checkpoint) -> bool {
    config.optimization.resume_anneal && files.any().is_some()
}

/// Refuses a folder that a run can neither begin nor go on in, before anything is compiled for it.
///
/// # Errors
/// [`TrainError::Resume`], [`TrainError::NothingToResume`].
pub(in super::super) fn check_folder(config: &Config, files: &Checkpoint, resume: bool) -> Result<(), TrainError> {
    match files.any() {
        Some(_) if resume || config.optimization.resume_anneal => Ok(()),
        None if resume => Err(TrainError::NothingToResume { folder: files.folder().to_owned() }),
        _ => refuse_existing(files),
    }
}

/// Refuses to begin where there is a checkpoint already.
fn refuse_existing(files: &Checkpoint) -> Result<(), TrainError> {
    if let Some(path) = files.any() {
        let why = "exists already: add --resume to go on with it, or choose another `logging.folder`".to_owned();
        return Err(TrainError::Resume { path, why });
    }
    Ok(())
}

fn set(params: &mut DeviceParams, name: &str, shape: Vec<usize>, data: Vec<f32>) {
    params.set(name, HostTensor::F32 { shape, data });
}
