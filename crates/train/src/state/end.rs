//! How a step ends: what it changed, and what is known of it when.
//!
//! A step that is one graph has changed everything when its only group has been sent to the device. Where losses are read late
//! ([`TrainState::read_late`]), it is reported when the next one has been sent: the device never waits for the host, and clips
//! travel while it computes. A step that diverged is found one step later then; whoever saves settles first.

use super::pending::{norms, scalar};
use super::{Pending, TrainState};
use crate::{StepReport, TrainError};
use std::time::Duration;
use vjepa_collective::{Collective, totals};
use vjepa_runtime::plan::{Recorded, RunError};

impl TrainState {
    /// From now on [`TrainState::end_step`] reports the step before, where the step is one graph; see there.
    pub fn read_late(&mut self) {
        self.late = self.step_executor.read_late();
    }

    /// From now on the launches of a step of one graph are recorded once for each of its sizes and replayed
    /// ([`DeviceExecutor::record_launches`](vjepa_runtime::plan::DeviceExecutor::record_launches)); other steps are as they were.
    pub fn record_launches(&mut self) {
        self.step_executor.record_launches();
    }

    /// How steps were launched, where launches are recorded.
    pub fn recorded(&self) -> Option<Recorded> {
        self.step_executor.main().recorded()
    }

    /// Whether the losses of a step are read late.
    pub(crate) fn reads_late(&self) -> bool {
        self.late
    }

    /// Ends a step: the mean over its groups on all `ranks` is applied. What it reports is the same on every rank, but for the
    /// mask lengths, which are the mean over this rank's groups. Where losses are read late, a report that is still to come goes
    /// unread: [`TrainState::settle`] first.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss or a gradient is NaN or infinite; [`TrainError::Collective`];
    /// [`TrainError::Unsupported`] where the last group was added without these ranks.
    pub fn finish_step(&mut self, ranks: &dyn Collective) -> Result<StepReport, TrainError> {
        let lost = || TrainError::Unsupported("the losses of a step were lost".to_owned());
        match self.end_step(ranks)? {
            Some(report) if !self.late => Ok(report),
            _ => self.settle()?.ok_or_else(lost),
        }
    }

    /// As [`TrainState::finish_step`]; where losses are read late, the report is that of the step before, none of the first.
    ///
    /// # Errors
    /// As [`TrainState::finish_step`], of the step that is reported.
    pub fn end_step(&mut self, ranks: &dyn Collective) -> Result<Option<StepReport>, TrainError> {
        let pending = std::mem::take(&mut self.pending);
        if pending.over != ranks.world() && !self.step_executor.sums_late() {
            return Err(TrainError::Unsupported(
                "the gradients were not summed over the ranks of this step".to_owned(),
            ));
        }
        if !self.late {
            return self.end_now(pending, ranks).map(Some);
        }
        let report = self.begun_report(&pending);
        self.step += 1;
        match self.unread.replace(report) {
            None => Ok(None),
            Some(before) => self.completed(before, &pending.earlier).map(Some),
        }
    }

    /// The report of the last step, where it has not been given yet.
    ///
    /// # Errors
    /// As [`TrainState::finish_step`]; [`TrainError::Run`] when the device has failed.
    pub fn settle(&mut self) -> Result<Option<StepReport>, TrainError> {
        let Some(report) = self.unread.take() else { return Ok(None) };
        let outputs = self.step_executor.unread(&self.params)?.unwrap_or_default();
        self.completed(report, &outputs).map(Some)
    }

    fn end_now(&mut self, pending: Pending, ranks: &dyn Collective) -> Result<StepReport, TrainError> {
        let mut report = self.begun_report(&pending);
        let sums: Vec<f64> = [pending.groups as f64, pending.loss].into_iter().chain(pending.terms).collect();
        let sums = totals(ranks, &sums)?;
        let [groups, means @ ..] = sums.as_slice() else { return Err(TrainError::Unsupported("no group".to_owned())) };
        let means: Vec<f64> = means.iter().map(|sum| sum / groups).collect();
        let (loss, terms) = means.split_first().map_or((f64::NAN, &[][..]), |(loss, terms)| (*loss, terms));
        report.skipped = loss.is_finite() && loss > self.skip_above && self.step_executor.adds_up();
        let grad_norms = match self.step_executor.adds_up() {
            false => pending.grad_norms,
            true if report.skipped || !loss.is_finite() => self.trained().map(|_| 0.0).collect(),
            true => self.apply(loss, *groups, ranks)?,
        };
        let report = self.with_losses(report, loss, terms, grad_norms)?;
        self.step_executor.forget(&mut self.params);
        self.skipped += u64::from(report.skipped);
        self.step += 1;
        Ok(report)
    }

    /// What is known of a step before its losses.
    fn begun_report(&self, pending: &Pending) -> StepReport {
        let rates = self.schedule.at(self.step);
        StepReport {
            step: self.step,
            epoch: self.step / self.plan.steps_per_epoch,
            of: self.plan.steps,
            loss: f64::NAN,
            terms: Vec::new(),
            lr: rates.lr,
            wd: rates.wd,
            momentum: rates.momentum,
            monitored_norm: f64::NAN,
            grad_norms: Vec::new(),
            clipping: rates.clip_active,
            tokens: Pending::mean_tokens(&pending.tokens),
            skipped: false,
            waited: Duration::ZERO,
            took: Duration::ZERO,
            clips: 0,
            travel: pending.travel,
        }
    }

    /// A report with the outputs of its step, which was one graph.
    fn completed(
        &mut self,
        report: StepReport,
        outputs: &crate::step_executor::Named,
    ) -> Result<StepReport, TrainError> {
        let declaration = self.objective.declaration();
        let terms: Vec<f64> = declaration.terms.iter().map(|term| scalar(outputs, term)).collect();
        let norms = norms(outputs, declaration);
        self.with_losses(report, scalar(outputs, "loss"), &terms, norms)
    }

    /// A report with its losses, unless they say that the step diverged.
    fn with_losses(
        &mut self,
        mut report: StepReport,
        loss: f64,
        terms: &[f64],
        grad_norms: Vec<f64>,
    ) -> Result<StepReport, TrainError> {
        let grad_norms: Vec<(&'static str, f64)> = self.trained().zip(grad_norms).collect();
        if !loss.is_finite() || grad_norms.iter().any(|(_, norm)| !norm.is_finite()) {
            let (step, lr, saved) = (report.step, report.lr, self.saved.clone());
            return Err(TrainError::Diverged { step, loss, grad_norms, lr, saved, culprit: Box::default() });
        }
        let declaration = self.objective.declaration();
        let monitored = declaration.monitor.gradient;
        report.loss = loss;
        report.terms = declaration.terms.iter().copied().zip(terms.iter().copied()).collect();
        report.monitored_norm =
            grad_norms.iter().find(|(set, _)| *set == monitored).map_or(f64::NAN, |(_, norm)| *norm);
        report.grad_norms = grad_norms;
        self.loss = Some(loss);
        Ok(report)
    }

    /// Applies the mean gradient of `groups` groups whose mean loss is `loss`; its norms, one a trained set.
    fn apply(&mut self, loss: f64, groups: f64, ranks: &dyn Collective) -> Result<Vec<f64>, TrainError> {
        let inputs = self.rate_inputs(self.schedule.at(self.step));
        let outputs = match self.step_executor.apply(&mut self.params, groups, inputs, ranks) {
            Err(TrainError::Run(RunError::NotFinite { seen, .. })) => return Err(self.diverged(loss, &seen)),
            outputs => outputs?,
        };
        Ok(norms(&outputs, self.objective.declaration()))
    }

    /// The divergence that a run's guarded outputs tell of.
    pub(super) fn diverged(&self, loss: f64, seen: &[(String, f64)]) -> TrainError {
        let value = |name: &str| seen.iter().find(|(seen, _)| seen == name).map(|(_, value)| *value);
        let trained = self.objective.declaration().trained();
        let norm = |set: &'static str| Some((set, value(&format!("grad_norm.{set}"))?));
        TrainError::Diverged {
            step: self.step,
            loss: value("loss").unwrap_or(loss),
            grad_norms: trained.filter_map(|set| norm(set.name)).collect(),
            lr: self.schedule.at(self.step).lr,
            saved: self.saved.clone(),
            culprit: Box::default(),
        }
    }
}
