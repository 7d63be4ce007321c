//! Probes measured on other samples a part at a time, so that their features need not fit into memory.

use std::path::PathBuf;

use vjepa_collective::Collective;
use vjepa_data::{SamplePlan, VideoEntry};
use vjepa_eval::OnProgress;
use vjepa_eval::features::Keep;
use vjepa_eval::protocols::heads::{Learned, ProbeTask, Samples, scores};
use vjepa_eval::protocols::videos::{SampleSet, Tally, classes_of, evaluated, in_parts};
use vjepa_eval::videos::VideoFeatures;

use super::work::{Outcome, Work};
use crate::cli::CliError;
use crate::cli::frozen::Opened;

impl Work<'_> {
    /// Measures the heads of all splits on other samples, a part at a time.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn evaluate(
        &mut self,
        entries: &[VideoEntry],
        keep: Keep,
        task: &ProbeTask,
        (from, names): (i64, &[String]),
        learned: &[Vec<Learned>],
        outcome: &mut Outcome,
        progress: OnProgress<'_>,
    ) -> Result<(), CliError> {
        let mut tallies = vec![vec![Tally::default(); outcome.runs.len()]; learned.len()];
        let mut take = |part: &VideoFeatures| {
            let zero_based: Vec<i64> = part.labels.iter().map(|label| label - from).collect();
            let classes = classes_of(&zero_based, names, names.len())?;
            let pairs = learned.iter().zip(&mut tallies).flat_map(|(heads, tallies)| heads.iter().zip(tallies));
            for (learned, tally) in pairs {
                let samples = Samples { features: &part.features, classes: &classes, rows: part.rows() };
                if let Some(scores) = scores(task, learned, samples)? {
                    tally.add(&scores, task.classes, &classes)?;
                }
            }
            Ok(())
        };
        let (set, opened) = Self::set(&mut self.encoder, &self.plans, (self.attend, &self.cache, self.ranks), entries)?;
        let found = evaluated(opened.encoder.as_mut(), &opened.id, &set, keep, &mut take, progress)?;
        outcome.bad.extend(found.into_iter().flat_map(|(bad, _)| bad));
        for (number, of_split) in tallies.into_iter().enumerate() {
            for (run, tally) in outcome.runs.iter_mut().zip(of_split) {
                run.val.extend(tally.accuracy());
                if number == 0 {
                    run.confusion = tally.into_confusion();
                }
            }
        }
        Ok(())
    }

    /// Whether other samples are measured a part at a time.
    pub(super) fn in_parts(&mut self, entries: &[VideoEntry], keep: Keep) -> Result<bool, CliError> {
        if self.encoder.is_none() {
            return Ok(false);
        }
        let (set, opened) = Self::set(&mut self.encoder, &self.plans, (self.attend, &self.cache, self.ranks), entries)?;
        Ok(in_parts(opened.encoder.as_ref(), &set, keep)?)
    }

    /// Other samples as they are evaluated, with the encoder.
    fn set<'s>(
        encoder: &'s mut Option<Opened>,
        plans: &Option<[SamplePlan; 2]>,
        (attend, cache, ranks): (bool, &Option<PathBuf>, &'s dyn Collective),
        entries: &'s [VideoEntry],
    ) -> Result<(SampleSet<'s>, &'s mut Opened), CliError> {
        let (Some(opened), Some([_, plan])) = (encoder, plans) else { return Err("there is no encoder".into()) };
        Ok((SampleSet { entries, plan: plan.clone(), attend, cache: cache.clone(), ranks }, opened))
    }
}
