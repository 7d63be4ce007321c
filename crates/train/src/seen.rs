//! How many clips a run has learned from.

use vjepa_recipe::config::Config;

use crate::Continuation;

/// The settings whose product is the number of clips of a step.
fn sizes(config: &Config) -> [(&'static str, u64); 3] {
    [
        ("data.batch_size", config.data.batch_size as u64),
        ("data.num_clips", config.data.num_clips as u64),
        ("optimization.groups", config.optimization.groups()),
    ]
}

/// Clips that a run had learned from after `step` steps: those of each part by the sizes that part was run with, which
/// `history` tells, from the last part back to the first. What a recorded size cannot be read from counts as it is now.
pub fn clips_seen(step: u64, config: &Config, history: &[Continuation]) -> u64 {
    let mut sizes = sizes(config);
    let clips = |sizes: &[(&str, u64)]| sizes.iter().map(|(_, size)| *size).fold(1, u64::saturating_mul);
    let (mut seen, mut end) = (0u64, step);
    for part in history.iter().rev() {
        let steps = end.saturating_sub(part.from);
        seen = seen.saturating_add(steps.saturating_mul(clips(&sizes)));
        end = end.min(part.from);
        for (key, size) in &mut sizes {
            let was = part.changed.iter().find(|change| change.key == *key).and_then(|change| change.was.parse().ok());
            *size = was.unwrap_or(*size);
        }
    }
    seen.saturating_add(end.saturating_mul(clips(&sizes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;

    #[test]
    fn every_part_counts_with_its_own_batch() {
        let mut config = Config::default();
        config.data.batch_size = 8;
        let part = |from, was: Option<&str>| Continuation {
            from,
            vjepa: "0.1.0".into(),
            changed: was
                .map(|was| Change { key: "data.batch_size".into(), was: was.into(), now: "8".into() })
                .into_iter()
                .collect(),
        };
        assert_eq!(clips_seen(10, &config, &[]), 80);
        // 4 clips for 3 steps, 16 up to step 5, then 8.
        let history = [part(3, Some("4")), part(5, Some("16"))];
        assert_eq!(clips_seen(10, &config, &history), 3 * 4 + 2 * 16 + 5 * 8);
        assert_eq!(clips_seen(10, &config, &[part(5, None)]), 80);
        assert_eq!(clips_seen(0, &config, &[]), 0);
        config.data.num_clips = 3;
        config.optimization.groups = Some(2);
        assert_eq!(clips_seen(10, &config, &[]), 10 * 8 * 3 * 2);
    }
}
