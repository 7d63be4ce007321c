//! Clips: where they come from, in which order, and how they reach the training loop.
//!
//! A data set is a [`ClipSource`], a function from a [`SampleKey`] (seed, epoch, position, retry) to a clip `[3, T, H, W]`:
//! [`VideoDataset`] decodes videos wherever they lie ([`media`] opens files, frame folders, pictures, members of [`shards`] and
//! objects of a [`storage`]; [`sampling`] chooses frames, [`transforms`] crops and normalises), [`DriftingTextures`]
//! makes labelled clips on the fly. [`SampleStream`] gives the key of every sample of a run in constant memory, and
//! [`Loader`] computes them ahead on worker threads and hands them out in order. So the clips of a step depend on the
//! configuration and the step number alone: not on the number of workers, nor on where a run was interrupted. Unreadable
//! videos are skipped, counted, and listed once by [`Quarantine`]. [`read_list`] reads lists, folders and shards; [`survey`] says
//! before a run what they hold and what of it cannot be used, [`checks`] decodes, splits and compares them.
//!
//! [`annotations`] turns the files that data sets come with into such lists, [`images`] makes clips of still pictures, and
//! [`augment`] is the training augmentation of the evaluations, [`detection`] has the clips and boxes of AVA, [`anticipation`] the
//! clips before an action. [`mod@bench`] compares the decoders with those of other libraries.

pub mod annotations;
pub mod anticipation;
pub mod augment;
mod batch;
pub mod bench;
pub mod checks;
pub mod clips;
mod dataset;
mod decode;
pub mod detection;
mod dialect;
mod frames;
pub mod fuzz;
mod held;
pub mod images;
mod list;
mod loader;
pub mod media;
mod occluders;
mod quarantine;
mod reading;
pub mod samples;
pub mod sampling;
mod sets;
pub mod shards;
mod source;
pub mod storage;
mod stream;
mod survey;
mod test_views;
mod texture_math;
pub mod textures;
pub mod transforms;
mod values;
mod views;
mod walk;
pub mod windows;

pub use batch::{ClipBatch, LoaderConfig, LoaderStats, default_workers};
pub use dataset::{AugmentedVideos, VideoDataset};
pub use decode::{SMALLEST_FILE, refuse_stub};
pub use frames::{FRAME_RATE, is_picture};
pub use list::{ENDINGS, EXTENSIONS, LeftOut, VideoEntry, VideoList, read_list, read_videos};
pub use loader::{JUDGED_FROM, Loader, MAX_TRIES};
pub use quarantine::{Quarantine, QuarantineLine};
pub use reading::{Reading, opener_of};
pub use samples::{SamplePlan, StillPlan, TrainPlan};
pub use sets::{DataSets, open_source, survey};
pub use source::{ClipSource, Contents, DataError, SampleInfo, SampleKey};
pub use stream::{Permutation, SampleStream};
pub use survey::{Reason, Survey};
pub use test_views::TestPlan;
pub use textures::{DriftingTextures, TextureLabels};
pub use values::{ClipValues, Scaling};
pub use views::{BadVideo, ViewPlan};
