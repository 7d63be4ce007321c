//! How a run begins: its folder, its compiled step, its weights, on all ranks alike.

use super::lock::Lock;
use super::state::{self, StepSource, TrainState};
use super::{Checkpoint, Observer, Supply, Task, TrainError, TrainRun, mixture, together};
use std::path::{Path, PathBuf};
use vjepa_collective::{Collective, shares};
use vjepa_programs::{TrainGraph, load_step};
use vjepa_recipe::config::{Config, StepPlan};

/// What somebody asks to be trained.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) config: &'a Config,
    pub(super) task: &'a dyn Task,
    pub(super) run: &'a TrainRun,
    pub(super) ranks: &'a dyn Collective,
}

/// The folder of a run; rank 0 has it locked until this is dropped.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) files: Checkpoint,
    _lock: Option<Lock>,
}

impl Asked<'_> {
    /// Makes the folder, which must be the run's own. Ranks among which the groups cannot be shared leave none behind.
    pub(super) fn folder(&self, observer: &mut dyn Observer) -> Result<Folder, TrainError> {
        let Self { config, run, ranks, .. } = *self;
        shares(ranks, config.optimization.groups())?;
        let path = PathBuf::from(config.logging.folder.clone().ok_or(TrainError::NoFolder)?);
        std::fs::create_dir_all(&path).map_err(|source| TrainError::Folder { path: path.clone(), source })?;
        let lock = if ranks.rank() == 0 { Some(Lock::take(&path, &config.logging.write_tag)?) } else { None };
        if let Some(note) = lock.as_ref().and_then(|lock| lock.note.as_ref()) {
            observer.note(note);
        }
        let files = Checkpoint::new(&path, &config.logging.write_tag);
        if ranks.rank() == 0 {
            state::check_folder(config, &files, run.resume)?;
        }
        Ok(Folder { path, files, _lock: lock })
    }

    /// Steps and epochs, where these are the samples.
    pub(super) fn plan(&self, supplies: &[Supply]) -> Result<StepPlan, TrainError> {
        let videos = supplies.iter().find(|supply| !supply.kind.images).and_then(|supply| supply.source.len());
        let batch = self.config.optimization.groups().saturating_mul(self.config.data.batch_size as u64);
        Ok(self.config.optimization.plan(videos.map(|clips| clips / batch))?)
    }

    /// Compiles the step and sets its weights, which are then the same on every rank.
    pub(super) fn begin(
        &self,
        folder: &Folder,
        supplies: &[Supply],
        plan: StepPlan,
        observer: &mut dyn Observer,
    ) -> Result<TrainState, TrainError> {
        let Self { config, run, ranks, .. } = *self;
        observer.phase("compiling the training step");
        let mut state = TrainState::of_rank(run.device, config, plan, self.source()?, ranks)?;
        let contents = mixture::contents(supplies);
        together::agree(ranks, config, &state, contents.clone(), run.commit)?;
        state.learns_from(contents);
        if ranks.rank() == 0 {
            self.weigh(&mut state, &folder.files)?;
        }
        together::begin_alike(ranks, &mut state)?;
        if let Some(note) = together::sharing(ranks, config, &state)? {
            observer.note(&note);
        }
        state.take_notes().iter().for_each(|note| observer.note(note));
        if let Some(continuation) = state.history().last() {
            observer.resumed(continuation);
        }
        if run.read_late.unwrap_or(!run.device.is_cpu()) {
            state.read_late();
        }
        if run.record_launches {
            state.record_launches();
        }
        Ok(state)
    }

    /// Weights from wherever the run has them from.
    fn weigh(&self, state: &mut TrainState, files: &Checkpoint) -> Result<(), TrainError> {
        let Self { config, task, run, .. } = self;
        match &run.resume_from {
            Some(path) => state.begin_from_official(config, files, path),
            None if run.resume => state.begin(config, files, true),
            None => match task.weights(state.objective())? {
                Some(weights) => state.begin_with(files, weights),
                None => state.begin(config, files, false),
            },
        }
    }

    /// Where the step comes from; in two halves where gradients are added up, or steps may be skipped.
    fn source(&self) -> Result<StepSource, TrainError> {
        let Self { config, run, .. } = self;
        let halves = config.adds_up();
        let load = |path: &Path, graph| load_step(path, config, run.device, graph).map(Box::new);
        Ok(match (&run.plan, halves) {
            _ if run.eager => StepSource::Eager,
            (None, _) if config.is_mixed() => StepSource::Mixed(run.passes.clone(), Box::new((*config).clone())),
            (Some(path), false) => StepSource::Compiled(load(path, TrainGraph::Step)?),
            (Some(path), true) => StepSource::CompiledHalf(load(path, TrainGraph::Gradients)?),
            (None, false) => StepSource::Passes(run.passes.clone()),
            (None, true) => StepSource::Halves(run.passes.clone()),
        })
    }
}
