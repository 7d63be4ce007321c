//! Pre-training on a mixture: clips of several lengths, images beside videos, or both (V-JEPA 2 and 2.1).

use std::sync::Arc;

use super::TrainError;
use super::task::{Group, Supply, Task};
use vjepa_data::{ClipBatch, ClipSource, Contents, DataSets, VideoDataset};
use vjepa_programs::{Variant, variants};
use vjepa_recipe::config::{Config, SampleKind};
use vjepa_recipe::masks::{Bucket, LengthBuckets, MaskGenerator, MaskPair};

/// The task of a configuration whose steps are of more than clips of one length.
pub struct Mixture<'a> {
    config: &'a Config,
    kinds: Vec<SampleKind>,
    variants: Vec<Variant>,
    /// Masks of clips, by their length.
    buckets: LengthBuckets,
    /// Masks of images.
    image_masks: Option<Box<dyn MaskGenerator>>,
    videos: Arc<dyn ClipSource>,
    /// The same, where the lengths of their clips differ.
    of_lengths: Option<Arc<VideoDataset>>,
    images: Option<Arc<dyn ClipSource>>,
}

impl<'a> Mixture<'a> {
    /// That of a configuration; `data` and `images` are its data sets, where they have been read already.
    ///
    /// # Errors
    /// [`TrainError::Config`], [`TrainError::Mask`], [`TrainError::Data`].
    pub fn new(config: &'a Config, data: Option<DataSets>, images: Option<DataSets>) -> Result<Self, TrainError> {
        let Config { data: of_videos, data_aug, .. } = config;
        let sets = data.map_or_else(|| DataSets::read(of_videos), Ok)?;
        let of_lengths = match of_videos.lengths().len() {
            0 | 1 => None,
            _ => Some(Arc::new(sets.of_lengths(of_videos, data_aug)?)),
        };
        let videos = match &of_lengths {
            Some(videos) => Arc::clone(videos) as Arc<dyn ClipSource>,
            None => sets.source(of_videos, data_aug)?,
        };
        let images = match config.image_data() {
            Some(data) => {
                let images = images.map_or_else(|| DataSets::read(&data), Ok)?;
                Some(images.source(&data, data_aug)?)
            }
            None => None,
        };
        Ok(Self {
            config,
            kinds: config.kinds()?,
            variants: variants(config)?,
            buckets: config.length_buckets()?,
            image_masks: config.image_masks()?,
            videos,
            of_lengths,
            images,
        })
    }

    /// The number of the variant that computes samples of a length as a length bucket.
    fn variant(&self, images: bool, frames: usize, bucket: usize) -> Result<usize, TrainError> {
        let same = |v: &Variant| (v.images, v.frames, v.bucket) == (images, frames, bucket);
        let missing = || TrainError::Unsupported(format!("no step was compiled for samples of {frames} frames"));
        self.variants.iter().position(same).ok_or_else(missing)
    }

    /// The images of a group.
    fn of_images(&self, batch: ClipBatch, masks: &dyn MaskGenerator) -> Result<Vec<Group>, TrainError> {
        let pairs = masks.pairs(self.config.meta.seed, batch.step, batch.group, batch.infos.len())?;
        let variant = self.variant(true, 1, 0)?;
        Ok(vec![Group { variant, ..Group::masked(batch.clips, batch.shape, pairs) }])
    }

    /// The length buckets of a group's clips, all of which count alike, as officially the terms of all do.
    fn of_videos(&self, batch: ClipBatch) -> Result<Vec<Group>, TrainError> {
        let longest = self.config.data.num_frames;
        let length = |index: u64| self.of_lengths.as_ref().map_or(longest, |videos| videos.frames_of(index));
        let frames: Vec<usize> = batch.infos.iter().map(|info| length(info.index)).collect();
        let buckets = self.buckets.draw(self.config.meta.seed, batch.step, batch.group, &frames)?;
        let weight = 1.0 / buckets.len().max(1) as f64;
        let ClipBatch { clips, shape, .. } = batch;
        if let [Bucket { frames, pairs, .. }] = buckets.as_slice()
            && *frames == shape[2]
        {
            let pairs = self.of_all_clips(pairs.clone());
            let variant = self.variant(false, *frames, 0)?;
            return Ok(vec![Group { variant, ..Group::masked(clips, shape, pairs) }]);
        }
        let parts = buckets.into_iter().enumerate().map(|(number, Bucket { frames, samples, pairs })| {
            let (clips, shape) = clips.cut(shape, frames, &samples);
            let variant = self.variant(false, frames, number)?;
            Ok(Group { variant, weight, ..Group::masked(clips, shape, pairs) })
        });
        parts.collect()
    }

    /// The masks of every clip, those of one video alike.
    fn of_all_clips(&self, pairs: Vec<MaskPair>) -> Vec<MaskPair> {
        match self.config.data.num_clips {
            1 => pairs,
            clips => pairs.iter().map(|pair| pair.repeated(clips)).collect(),
        }
    }
}

impl Task for Mixture<'_> {
    fn source(&self) -> Result<Arc<dyn ClipSource>, TrainError> {
        Ok(Arc::clone(&self.videos))
    }

    fn supplies(&self, _: &Config) -> Result<Vec<Supply>, TrainError> {
        let supply = |kind: &SampleKind| {
            let source = self.images.as_ref().filter(|_| kind.images).unwrap_or(&self.videos);
            Supply { source: Arc::clone(source), kind: kind.clone() }
        };
        Ok(self.kinds.iter().map(supply).collect())
    }

    fn parts(&self, kind: usize, batch: ClipBatch) -> Result<Vec<Group>, TrainError> {
        match (&self.image_masks, self.kinds.get(kind)) {
            (Some(masks), Some(SampleKind { images: true, .. })) => self.of_images(batch, masks.as_ref()),
            _ => self.of_videos(batch),
        }
    }
}

/// What all kinds of samples hold, for a run's record; none where one of them is made on the fly.
pub(super) fn contents(supplies: &[Supply]) -> Option<Contents> {
    let all: Option<Vec<Contents>> = supplies.iter().map(|supply| supply.source.contents()).collect();
    Contents::joined(&all?)
}
