//! The steps of a run, and what comes after each and after the last.

use super::diverged::Replay;
use super::feeds::Feeds;
use super::profile::Profiler;
use super::reports::{Reports, announcement};
use super::run::{Asked, Folder};
use super::saver::Saver;
use super::state::TrainState;
use super::{Metrics, Observer, StepReport, Supply, TrainError, TrainOutcome};
use std::path::Path;
use std::time::{Duration, Instant};
use vjepa_collective::shares;
use vjepa_data::ClipValues;
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::StepPlan;

/// A run that has begun.
pub(super) struct Steps<'a> {
    asked: Asked<'a>,
    plan: StepPlan,
    /// Groups of a step that this rank computes.
    own: u64,
    /// The step that this part of the run begins with, and the one that it ends before.
    pub(super) first: u64,
    last: u64,
    state: TrainState,
    feeds: Feeds,
    replay: Replay<'a>,
    reports: Reports,
    saver: Saver<'a>,
    profiler: Profiler<'a>,
}

/// What is due after a step.
#[derive(Clone, Copy)]
struct Due {
    measure: bool,
    save: bool,
    judge: bool,
}

impl<'a> Steps<'a> {
    pub(super) fn open(
        asked: Asked<'a>,
        folder: &'a Folder,
        supplies: Vec<Supply>,
        plan: StepPlan,
        state: TrainState,
    ) -> Result<Self, TrainError> {
        let Asked { config, task, run, ranks } = asked;
        let (first, last) = (state.step(), run.stop_at.unwrap_or(plan.steps).min(plan.steps));
        let metrics = match ranks.rank() {
            0 => {
                let (tag, columns) = (&config.logging.write_tag, state.objective().declaration());
                Some(Metrics::open(&folder.path, tag, columns, first, config.logging.metrics_every)?)
            }
            _ => None,
        };
        let (rank, world) = (ranks.rank(), ranks.world());
        let feeds = Feeds::open(&supplies, config, first, (rank, world), |settings| settings)?;
        Ok(Self {
            asked,
            plan,
            own: shares(ranks, config.optimization.groups())?,
            first,
            last,
            state,
            feeds,
            replay: Replay { config, supplies, task, rank, world, folder: &folder.path },
            reports: Reports::to(metrics),
            saver: Saver::new(config, folder.files.clone()),
            profiler: Profiler::new(run.profile.as_ref(), first, last),
        })
    }

    /// Whether there are more.
    pub(super) fn remain(&self) -> bool {
        self.state.step() < self.last
    }

    /// One step, and whatever is due after it.
    pub(super) fn step(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let began = Instant::now();
        self.profiler.before(&mut self.state);
        let mut waited = Duration::ZERO;
        for done in 0..self.own {
            waited += self.group(done + 1 == self.own)?;
            if self.own > 1 {
                observer.group(done + 1, self.own);
            }
            let Asked { config, ranks, .. } = self.asked;
            if config.optimization.groups() > 1 && self.state.step() == self.first && done == 0 {
                observer.note(&announcement(config, ranks.world() as u64, began.elapsed()));
            }
        }
        let ended = self.state.end_step(self.asked.ranks);
        let ended = ended.map_err(|error| self.replay.explain(error, &mut self.state))?;
        self.reports.took([waited, began.elapsed()]);
        let due = self.due();
        // Nothing is saved or judged before it is known to be sound.
        let settled = if due.measure || due.save || due.judge { self.settle()? } else { None };
        for report in [ended, settled].into_iter().flatten() {
            self.reports.tell(report, self.asked.config, &self.state, observer);
        }
        self.profiler.after(&mut self.state, observer)?;
        self.follow(due, observer)
    }

    /// Computes a group of this rank's, the `last` of the step with what comes with it; how long clips were waited for.
    fn group(&mut self, last: bool) -> Result<Duration, TrainError> {
        let Asked { task, ranks, .. } = self.asked;
        let asked = Instant::now();
        let (kind, clips) = self.feeds.next()?;
        let waited = asked.elapsed();
        let values = clips.shape.iter().product();
        let parts = task.parts(kind, clips)?;
        let computed = if last { self.state.add_last(parts, ranks) } else { self.state.add_parts(parts) };
        computed.map_err(|error| self.replay.explain(error, &mut self.state))?;
        // Bytes become floats in the executor, which keeps their memory itself.
        if let Some(loader) = self.feeds.takes_back(kind)
            && let Some(memory) = self.state.spare(values)
        {
            loader.recycle(ClipValues::Floats(memory));
        }
        Ok(waited)
    }

    fn due(&self) -> Due {
        let Asked { config, ranks, .. } = self.asked;
        let step = self.state.step();
        let due = |every: u64| step < self.last && step.is_multiple_of(every.max(1));
        let save_every = config.logging.checkpoint_every.unwrap_or(self.plan.checkpoint_every());
        Due {
            measure: config.logging.diagnostics_every.is_some_and(due),
            save: due(save_every),
            judge: due(self.plan.steps / 20) && ranks.rank() == 0,
        }
    }

    fn settle(&mut self) -> Result<Option<StepReport>, TrainError> {
        let settled = self.state.settle();
        settled.map_err(|error| self.replay.explain(error, &mut self.state))
    }

    /// Saves, measures and judges where that is due.
    fn follow(&mut self, due: Due, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let ranks = self.asked.ranks;
        let sent = if due.save { self.state.sent_moments(ranks)? } else { NamedTensors::new() };
        let told = match due.save && ranks.rank() == 0 {
            true => self.saver.begin(&mut self.state, sent),
            false => self.saver.settled(&mut self.state, false),
        };
        if let Some(note) = told {
            observer.note(&note);
        }
        if due.measure && ranks.rank() == 0 {
            observer.diagnose(&mut self.state)?;
        }
        if due.judge {
            observer.judge(&mut self.state)?;
        }
        Ok(())
    }

    /// After the last step, or the last before a signal.
    pub(super) fn end(mut self, observer: &mut dyn Observer) -> Result<TrainOutcome, TrainError> {
        if let Some(report) = self.settle()? {
            self.reports.tell(report, self.asked.config, &self.state, observer);
        }
        let Self { asked: Asked { config, ranks, .. }, first, last, mut state, feeds, reports, mut saver, .. } = self;
        let (metrics, travel) = reports.end(observer);
        // A run without a step has nothing new to save.
        let sent = if state.step() > first { state.sent_moments(ranks)? } else { NamedTensors::new() };
        if state.step() > first && ranks.rank() == 0 {
            saver.last(&mut state, sent)?;
            if state.step() == last {
                if config.logging.diagnostics_every.is_some() {
                    observer.diagnose(&mut state)?;
                }
                observer.ends(&mut state)?;
            }
        }
        Ok(TrainOutcome {
            steps: state.step(),
            loss: state.loss(),
            checkpoint: state.saved().map(Path::to_owned),
            metrics,
            bad_videos: feeds.bad(),
            skipped: state.skipped(),
            interrupted: state.step() < last,
            travel: (ranks.world() > 1).then_some(travel),
            recorded: state.recorded(),
        })
    }
}
