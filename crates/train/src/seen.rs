//! How many clips a run has learned from.

use vjepa_recipe::config::Config;

use crate::Continuation;

/// The settings that the number of samples of a step follows from.
#[derive(Clone, Copy)]
struct Sizes {
    batch: u64,
    clips: u64,
    groups: u64,
    images: u64,
    /// Share of the groups that are of images.
    ratio: f64,
}

impl Sizes {
    fn of(config: &Config) -> Self {
        let images = config.img_data.as_ref();
        Self {
            batch: config.data.batch_size as u64,
            clips: config.data.num_clips as u64,
            groups: config.optimization.groups(),
            images: images.map_or(0, |images| images.batch_size as u64),
            ratio: images.map_or(0.0, |images| images.rank_ratio),
        }
    }

    /// Clips of a step, those of all groups, and images, those of the groups that are of images.
    fn samples(&self) -> u64 {
        let clips = self.batch.saturating_mul(self.clips).saturating_mul(self.groups);
        clips.saturating_add(self.images.saturating_mul((self.groups as f64 * self.ratio) as u64))
    }

    /// As they were before a part of the run changed them.
    fn before(&mut self, part: &Continuation) {
        for change in &part.changed {
            let size = match change.key.as_str() {
                "data.batch_size" => &mut self.batch,
                "data.num_clips" => &mut self.clips,
                "optimization.groups" => &mut self.groups,
                "img_data.batch_size" => &mut self.images,
                "img_data.rank_ratio" => {
                    self.ratio = change.was.parse().unwrap_or(self.ratio);
                    continue;
                }
                _ => continue,
            };
            *size = change.was.parse().unwrap_or(*size);
        }
    }
}

/// Clips, and images beside them, that a run had learned from after `step` steps: those of each part by the sizes that part was
/// run with, which `history` tells, from the last part back to the first. What a recorded size cannot be read from counts as it
/// is now.
pub fn clips_seen(step: u64, config: &Config, history: &[Continuation]) -> u64 {
    let mut sizes = Sizes::of(config);
    let (mut seen, mut end) = (0u64, step);
    for part in history.iter().rev() {
        let steps = end.saturating_sub(part.from);
        seen = seen.saturating_add(steps.saturating_mul(sizes.samples()));
        end = end.min(part.from);
        sizes.before(part);
    }
    seen.saturating_add(end.saturating_mul(sizes.samples()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;
    use vjepa_recipe::config::ImageDataConfig;

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
        // One of the two groups is of images, and the other has the videos of both.
        config.img_data = Some(ImageDataConfig { batch_size: 5, ..ImageDataConfig::default() });
        assert_eq!(clips_seen(10, &config, &[]), 10 * (8 * 3 * 2 + 5));
        assert_eq!(clips_seen(10, &config, &[part(4, Some("4"))]), 6 * (48 + 5) + 4 * (24 + 5));
    }
}
