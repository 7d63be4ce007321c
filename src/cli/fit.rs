//! What would make a step fit a memory: fewer clips at once, or activations that are computed again.

use std::fmt;

use super::CliError;
use vjepa_programs::CompileError;

/// Part of a memory that a step is planned for: something else is always there.
const SHARE: f64 = 0.95;

/// What fits. Both were planned, neither was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remedies {
    /// The most clips at once, of fewer than were asked for.
    pub clips: Option<usize>,
    /// Bytes to which the step can be compiled with all clips.
    pub budget: Option<u64>,
}

impl Remedies {
    /// Looks for what fits `memory` bytes: `peak` plans the step for a number of clips below `clips`, `compile` compiles it
    /// anew for a budget; both return the bytes it takes.
    pub(super) fn search(
        memory: u64,
        clips: usize,
        peak: impl Fn(usize) -> Result<u64, CliError>,
        compile: impl FnOnce(u64) -> Result<u64, CliError>,
    ) -> Result<Self, CliError> {
        let limit = (memory as f64 * SHARE) as u64;
        // The peak grows with the clips.
        let (mut fit, mut too_many) = (0, clips);
        while fit + 1 < too_many {
            let middle = fit.midpoint(too_many);
            if peak(middle)? <= limit {
                fit = middle;
            } else {
                too_many = middle;
            }
        }
        // Whole megabytes, as they are written.
        let limit = limit / 1_000_000 * 1_000_000;
        let budget = match compile(limit) {
            Ok(needs) => (needs <= limit).then_some(limit),
            Err(error) if matches!(error.downcast_ref(), Some(CompileError::Memory { .. })) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { clips: (fit > 0).then_some(fit), budget })
    }

    /// For a report as JSON.
    pub(super) fn json(self) -> serde_json::Value {
        serde_json::json!({"batch_size": self.clips, "memory_budget": self.budget})
    }
}

impl fmt::Display for Remedies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clips = self.clips.map(|clips| format!("--set data.batch_size={clips}"));
        let budget = |bytes: u64| format!("--memory-budget {}MB, which computes activations again", bytes / 1_000_000);
        match (clips, self.budget.map(budget)) {
            (Some(clips), Some(budget)) => write!(f, "what fits is {clips}, or {budget}"),
            (Some(fits), None) | (None, Some(fits)) => write!(f, "what fits is {fits}"),
            (None, None) => write!(f, "not even one clip fits: use a smaller model, shorter or smaller clips"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_clips_and_a_budget_that_compiles() {
        // A clip takes 10 MB, everything else 100 MB.
        let peak = |clips: usize| Ok(100_000_000 + 10_000_000 * clips as u64);
        let found = Remedies::search(200_000_000, 24, peak, Ok).unwrap();
        assert_eq!(found, Remedies { clips: Some(9), budget: Some(190_000_000) });
        assert_eq!(
            found.to_string(),
            "what fits is --set data.batch_size=9, or --memory-budget 190MB, which computes activations again"
        );
        let refuse = |budget| Err(CompileError::Memory { budget, least: 195_000_000 }.into());
        let none = Remedies::search(100_000_000, 24, peak, refuse).unwrap();
        assert_eq!(none, Remedies::default());
        assert!(none.to_string().starts_with("not even one clip fits"));
        assert!(Remedies::search(1, 2, |_| Err("no plan".into()), Ok).is_err());
    }
}
