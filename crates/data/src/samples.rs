//! The samples of a frozen evaluation, videos or still pictures, as the clips that an encoder gets: the fixed ones that are
//! evaluated ([`SamplePlan`]), and those of a training step, drawn by the sample's key ([`TrainPlan`]).

use std::path::Path;

use vjepa_recipe::rng::{NumpyRng, Stream};
use vjepa_runtime::preprocess::to_luma;
use vjepa_runtime::{Normalization, Preprocessing, Sampling};

use crate::augment::{ClipAugment, Keyed, PictureAugment};
use crate::images::{Picture, PictureTransform};
use crate::media::Opener;
use crate::sampling::ClipSampler;
use crate::source::SampleKey;
use crate::views::ViewPlan;

/// Pictures that stand still for the length of a clip: the official code repeats them to 16 frames, the paper finds 2 enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StillPlan {
    /// Frames of the clip.
    pub frames: usize,
    /// Side of the square picture in pixels.
    pub size: usize,
    /// Centring and scaling.
    pub normalization: Normalization,
    /// Whether colours are replaced by their luma.
    pub grayscale: bool,
}

impl StillPlan {
    /// Pictures for a model that takes clips of this preparation.
    ///
    /// # Errors
    /// Why there are none, for clips that are not square.
    pub fn of(record: &Preprocessing) -> Result<Self, String> {
        Ok(Self {
            frames: record.num_frames,
            size: square(record)?,
            normalization: record.normalization,
            grayscale: record.grayscale,
        })
    }

    /// The clip of a picture, `[3, T, S, S]`.
    ///
    /// # Errors
    /// Why it cannot be used, without its name.
    pub fn prepare(&self, path: &Path) -> Result<Vec<f32>, String> {
        let transform = PictureTransform::Eval { size: self.size, normalization: self.normalization };
        // Nothing is drawn.
        let key = SampleKey { seed: 0, epoch: 0, position: 0, retry: 0 };
        still(path, &transform, key, (self.frames, self.grayscale))
    }
}

/// The side of square clips.
fn square(record: &Preprocessing) -> Result<usize, String> {
    match record.size() {
        [height, width] if height == width => Ok(height),
        [height, width] => Err(format!(
            "the model takes clips of {height}x{width}; pictures and augmented clips are square: give videos, without augmentation"
        )),
    }
}

/// What of a sample is evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum SamplePlan {
    /// Clips and views of a video.
    Videos(ViewPlan),
    /// The centre of a picture.
    Pictures(StillPlan),
}

impl SamplePlan {
    /// Clips of a sample; a picture is one.
    pub fn clips(&self) -> usize {
        match self {
            Self::Videos(plan) => plan.clips,
            Self::Pictures(_) => 1,
        }
    }

    /// Views of a clip.
    pub fn views(&self) -> usize {
        match self {
            Self::Videos(plan) => plan.views,
            Self::Pictures(_) => 1,
        }
    }

    /// Values of one clip.
    pub fn clip_len(&self) -> usize {
        match self {
            Self::Videos(plan) => plan.clip_len(),
            Self::Pictures(StillPlan { frames, size, .. }) => 3 * frames * size * size,
        }
    }

    /// Frames, height and width of a clip.
    pub fn clip_size(&self) -> [usize; 3] {
        match self {
            Self::Videos(plan) => {
                let [_, size @ ..] = plan.preprocessing.clip_shape();
                size
            }
            Self::Pictures(StillPlan { frames, size, .. }) => [*frames, *size, *size],
        }
    }

    /// All views of all clips of sample `number`, view-major: `[views, clips, 3, T, S, S]`.
    ///
    /// # Errors
    /// Why the sample cannot be used, without its name.
    pub fn prepare(&self, number: u64, path: &Path) -> Result<Vec<f32>, String> {
        match self {
            Self::Videos(plan) => plan.prepare(number, path),
            Self::Pictures(plan) => plan.prepare(path),
        }
    }
}

/// What of a sample a training step gets, augmented as the official probes have it.
#[derive(Clone, Debug, PartialEq)]
pub enum TrainPlan {
    /// Clips of a video, each augmented on its own.
    Videos {
        /// Which frames; clips of a sample begin at random in their parts.
        sampler: ClipSampler,
        /// The transform.
        augment: ClipAugment,
        /// Whether frames are taken as their luma.
        grayscale: bool,
    },
    /// A picture, repeated.
    Pictures {
        /// The transform.
        augment: PictureAugment,
        /// Frames that it is repeated to.
        frames: usize,
        /// Whether it is taken as its luma.
        grayscale: bool,
    },
}

impl TrainPlan {
    /// The training samples that belong to an evaluation: of its size and preparation, augmented. `flip` mirrors half of the
    /// videos, which the official video probe does not.
    ///
    /// # Errors
    /// Why there are none, for clips that are not square.
    pub fn of(plan: &SamplePlan, flip: bool) -> Result<Self, String> {
        Ok(match plan {
            SamplePlan::Videos(ViewPlan { preprocessing, clips, .. }) => Self::Videos {
                sampler: ClipSampler {
                    num_clips: *clips,
                    random: true,
                    allow_overlap: true,
                    exact: preprocessing.sampling == Sampling::Exact,
                    ..ClipSampler::pretrain(preprocessing.num_frames, preprocessing.sampling_rate)
                },
                augment: ClipAugment {
                    normalization: preprocessing.normalization,
                    flip,
                    ..ClipAugment::probe(square(preprocessing)?)
                },
                grayscale: preprocessing.grayscale,
            },
            SamplePlan::Pictures(StillPlan { frames, size, normalization, grayscale }) => Self::Pictures {
                augment: PictureAugment { normalization: *normalization, ..PictureAugment::probe(*size) },
                frames: *frames,
                grayscale: *grayscale,
            },
        })
    }

    /// The clips of one sample, `[clips, 3, T, S, S]`, a function of its key.
    ///
    /// # Errors
    /// Why the sample cannot be used, without its name.
    pub fn prepare(&self, key: SampleKey, path: &Path) -> Result<Vec<f32>, String> {
        match self {
            Self::Pictures { augment, frames, grayscale } => {
                still(path, &PictureTransform::Train(augment.clone()), key, (*frames, *grayscale))
            }
            Self::Videos { sampler, augment, grayscale } => {
                let mut video = Opener::shared().open(path).map_err(|error| error.reason(path))?;
                let mut starts = NumpyRng::keyed(key.seed, Stream::Clips, key.draw());
                let draw = |low, high| starts.randint(low, high);
                let clips = sampler.sample(video.info().frames, draw).map_err(|error| error.to_string())?;
                let len = 3 * sampler.frames_per_clip * augment.size * augment.size;
                let mut out = vec![0.0; clips.len() * len];
                for (number, (indices, out)) in (0..).zip(clips.iter().zip(out.chunks_exact_mut(len.max(1)))) {
                    let clip = video.decode(indices)?;
                    let (mut frames, size) = (clip.rgb(), (clip.height, clip.width));
                    if *grayscale {
                        frames.iter_mut().for_each(|frame| to_luma(frame));
                    }
                    let mut draws = Keyed::new(key, number);
                    augment.apply(frames, size, &mut draws, out).map_err(|error| error.to_string())?;
                }
                Ok(out)
            }
        }
    }
}

/// A picture as a clip `[3, T, S, S]`.
fn still(
    path: &Path,
    transform: &PictureTransform,
    key: SampleKey,
    (frames, grayscale): (usize, bool),
) -> Result<Vec<f32>, String> {
    let bytes = Opener::shared().sample(path).map_err(|error| error.to_string())?;
    let mut picture = Picture::decode(&bytes)?;
    if grayscale {
        to_luma(&mut picture.rgb);
    }
    let plane = transform.size() * transform.size();
    let mut still = vec![0.0; 3 * plane];
    transform.apply(&picture, key, &mut still).map_err(|error| error.to_string())?;
    let channels = still.chunks_exact(plane.max(1));
    Ok(channels.flat_map(|channel| std::iter::repeat_n(channel, frames).flatten()).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("a.png");
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 40, 30);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> = (0..40 * 30 * 3).map(|i| (i * 7 % 251) as u8).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        path
    }

    #[test]
    fn a_still_repeats_one_picture_and_training_draws_by_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = picture(folder.path());
        let plan = SamplePlan::Pictures(StillPlan {
            frames: 3,
            size: 16,
            normalization: Normalization::Imagenet,
            grayscale: false,
        });
        let fixed = plan.prepare(0, &path).unwrap();
        assert_eq!((fixed.len(), plan.clip_len()), (3 * 3 * 256, 3 * 3 * 256));
        assert!(
            fixed
                .chunks_exact(256)
                .collect::<Vec<_>>()
                .chunks(3)
                .all(|times| times[0] == times[1] && times[1] == times[2])
        );
        assert_eq!(plan.prepare(5, &path).unwrap(), fixed, "nothing of what is evaluated is drawn");

        let train = TrainPlan::of(&plan, false).unwrap();
        let key = |position| SampleKey { seed: 1, epoch: 0, position, retry: 0 };
        let drawn = train.prepare(key(0), &path).unwrap();
        assert_eq!(train.prepare(key(0), &path).unwrap(), drawn);
        assert_ne!(train.prepare(key(1), &path).unwrap(), drawn);
        assert!(drawn.iter().all(|value| value.is_finite()));
        std::fs::write(&path, "text").unwrap();
        assert!(train.prepare(key(0), &path).unwrap_err().contains("is text"));
    }
}
