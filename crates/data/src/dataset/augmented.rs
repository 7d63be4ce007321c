//! Labelled videos as clips of fine-tuning: one decoded clip, augmented once or several times.

use vjepa_recipe::config::{AugmentConfig, DataConfig};
use vjepa_recipe::rng::{NumpyRng, Stream};
use vjepa_runtime::preprocess::to_luma;

use super::{VideoDataset, bad, crop_of, erasing_of, policy_of};
use crate::augment::{AugmentError, ClipAugment};
use crate::list::VideoEntry;
use crate::sets::DataSets;
use crate::source::{ClipSource, Contents, DataError, SampleInfo, SampleKey, check_out};

/// Videos whose clips are augmented as in the official evaluations ([`ClipAugment`]).
#[derive(Debug, Clone)]
pub struct AugmentedVideos {
    videos: VideoDataset,
    augment: ClipAugment,
    repeats: u32,
}

impl AugmentedVideos {
    /// The data sets of a configuration, all of whose videos have labels; each decoded clip is augmented `repeats` times.
    ///
    /// # Errors
    /// As [`DataSets::source`]; [`DataError::List`] naming a video without a label.
    pub fn of(sets: &DataSets, data: &DataConfig, augment: &AugmentConfig, repeats: u32) -> Result<Self, DataError> {
        let (lists, opener) = sets.shared();
        for list in lists.iter() {
            if let Some(index) = list.entries.iter().position(|entry| entry.label.is_none()) {
                let place = list.location(index);
                return Err(DataError::List(format!("{place} has no label; give a list of \"path label\" lines")));
            }
        }
        let clips = ClipAugment {
            size: data.crop_size,
            policy: policy_of(augment),
            crop: crop_of(augment),
            flip: augment.horizontal_flip,
            erase: erasing_of(augment),
            normalization: data.normalization,
        };
        Ok(Self { videos: VideoDataset::of(data, augment, lists, opener)?, augment: clips, repeats: repeats.max(1) })
    }

    /// The videos, data set after data set.
    pub fn entries(&self) -> impl Iterator<Item = &VideoEntry> {
        self.videos.lists.iter().flat_map(|list| &list.entries)
    }
}

impl ClipSource for AugmentedVideos {
    fn len(&self) -> Option<u64> {
        self.videos.len()
    }

    fn shape(&self) -> [usize; 4] {
        self.videos.shape()
    }

    fn contents(&self) -> Option<Contents> {
        self.videos.contents()
    }

    fn clips(&self) -> usize {
        self.repeats as usize
    }

    fn sample(&self, key: SampleKey, out: &mut [f32]) -> Result<SampleInfo, DataError> {
        check_out(self.shape(), self.clips(), out)?;
        let videos = &self.videos;
        let index = videos.choose(key);
        let entry = videos.entry(index)?;
        let mut media = videos.open_entry(entry)?;
        let starts = NumpyRng::keyed(key.seed, Stream::Clips, key.draw());
        let clips = videos.indices(entry, &media, videos.sampler, Some(starts))?;
        let indices = clips.first().map(Vec::as_slice).unwrap_or_default();
        let clip = media.decode(indices).map_err(|error| bad(&entry.path, error))?;
        let mut frames = clip.rgb();
        if videos.preprocessing.grayscale {
            frames.iter_mut().for_each(|frame| to_luma(frame));
        }
        let augmented = self.augment.apply_repeated(&frames, (clip.height, clip.width), key, self.repeats, out);
        match augmented {
            Ok(()) => Ok(videos.info(index, entry)),
            Err(AugmentError::Transform(error)) => Err(bad(&entry.path, error)),
            Err(error) => Err(DataError::Setup(error.to_string())),
        }
    }
}
