//! The clips and crops that a fine-tuned model is tested on, prepared.

use std::path::Path;

use vjepa_recipe::config::{FinetuneConfig, TestSampling};
use vjepa_runtime::preprocess::View;
use vjepa_runtime::{Framing, Preprocessing};

use super::media::Opener;
use super::sampling::{TestClips, crop_starts};
use super::views::ViewPlan;

/// Which clips and crops of a video a test reads.
#[derive(Clone, Debug, PartialEq)]
pub struct TestPlan {
    /// How clips are prepared.
    pub preprocessing: Preprocessing,
    /// How they are chosen.
    pub sampling: TestSampling,
    /// Clips of a video.
    pub clips: usize,
    /// Crops of a clip.
    pub crops: usize,
}

impl TestPlan {
    /// That of a `finetune` section.
    pub fn of(config: &FinetuneConfig, preprocessing: Preprocessing) -> Self {
        let FinetuneConfig { test_sampling: sampling, test_num_segment: clips, test_num_crop: crops, .. } = *config;
        Self { preprocessing, sampling, clips, crops }
    }

    /// Predictions of a video.
    pub fn count(&self) -> usize {
        self.clips * self.crops
    }

    /// All crops of all clips of a video, `[count, 3, T, S, S]`.
    ///
    /// # Errors
    /// Why the video cannot be used, without its name.
    pub fn prepare(&self, path: &Path) -> Result<Vec<f32>, String> {
        let record = &self.preprocessing;
        let (frames, step) = (record.num_frames, record.sampling_rate);
        let test = match self.sampling {
            TestSampling::Frozen => {
                let plan =
                    ViewPlan { preprocessing: record.clone(), clips: self.clips, views: self.crops, random: None };
                return plan.prepare(0, path);
            }
            TestSampling::Strided => TestClips::Strided { frames, step, clips: self.clips },
            TestSampling::Dealt => TestClips::Dealt { frames },
        };
        let mut video = Opener::shared().open(path).map_err(|error| error.reason(path))?;
        let clips = test.sample(video.info().frames).map_err(|error| error.to_string())?;
        let mut out = vec![0f32; clips.len() * self.crops * record.clip_len()];
        let mut slots = out.chunks_exact_mut(record.clip_len().max(1));
        for indices in &clips {
            let clip = video.decode(indices)?;
            let pictures = clip.rgb();
            for (view, framing) in self.views(clip.height, clip.width) {
                let Some(slot) = slots.next() else { return Err("has more clips than expected".to_owned()) };
                let record = Preprocessing { framing, ..record.clone() };
                record
                    .prepare_view(&pictures, clip.height, clip.width, view, slot)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(out)
    }

    /// The crops of a frame: the short side is resized to the crop, and crops begin at even distances along the long side.
    fn views(&self, height: usize, width: usize) -> Vec<(View, Framing)> {
        let size = self.preprocessing.crop_size;
        // As the frame is resized: the long side is truncated.
        let long = size * height.max(width) / height.min(width).max(1);
        // One view per pixel of the way, of which each crop is one.
        let positions = long.saturating_sub(size) + 1;
        let at = |start: usize| match positions {
            1 => (View::SINGLE, Framing::Whole),
            count => (View { index: start, count }, Framing::Centre),
        };
        crop_starts(long, size, self.crops).into_iter().map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_recipe::config::Config;

    #[test]
    fn crops_begin_where_the_rule_says() {
        let mut record = Config::default().preprocessing();
        record.crop_size = 32;
        let plan = TestPlan { preprocessing: record, sampling: TestSampling::Strided, clips: 2, crops: 3 };
        assert_eq!(plan.count(), 6);
        // 64 x 49 becomes 41 x 32: the ways are 0, 4.5 and 9 pixels.
        let starts: Vec<(usize, usize)> =
            plan.views(64, 49).iter().map(|(view, _)| view.corner((41, 32), [32; 2])).collect();
        assert_eq!(starts, [(0, 0), (4, 0), (9, 0)]);
        assert!(plan.views(20, 20).iter().all(|view| *view == (View::SINGLE, Framing::Whole)));
    }
}
