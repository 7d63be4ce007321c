//! Frame-exact video decoding behind one trait: in pure Rust, and with the feature `ffmpeg` through the system's libavcodec.
//!
//! A clip is opened once and asked for frames by number, in any order:
//!
//! ```no_run
//! let mut clip = vjepa_video::open("clip.mp4")?;
//! let last = clip.info().frames - 1;
//! let indices: Vec<usize> = (0..16).map(|i| (4 * i).min(last)).collect();
//! for frame in clip.frames(&indices)? {
//!     let rgb = frame.rgb(); // display_height x display_width x 3
//! }
//! # Ok::<(), vjepa_video::VideoError>(())
//! ```
//!
//! Frame `i` is the `i`-th picture a player shows, whatever the frame rate does and wherever decoding starts: reading at
//! random gives bit for bit what reading from the start gives. How:
//!
//! Frame 0 is the first picture that can be decoded, as ffmpeg and its players count: pictures before the first key frame,
//! and those around it that refer to a group of pictures cut away (an open GOP), are left out in every container and
//! counted in [`ClipInfo::left_out`]; so is what an edit list hides. Indices do not count them.
//!
//! 1. [`open`] tells the container from its first bytes and makes one pass over its tables (`mp4`, `mkv`): every packet's
//!    place, size and timestamp in decoding order. Edit lists hide pre-roll. Frame counts and rates that the container
//!    merely claims are not used. Packets stay in the file. Of H.264 the headers of the first packet are read; those of
//!    all packets only where timestamps do not settle the order of display, which then is the bitstream's.
//! 2. [`ClipDecoder::frames`] finds for each frame the key frame to start from, decodes up to the last packet wanted and
//!    leaves out packets that nothing is predicted from (`clip`). A run that the next call continues is continued.
//! 3. `h264`, `vp9` and `ffmpeg` turn packets into pictures.
//!
//! [`open`] uses the pure-Rust decoders for what they decode and, in builds with the feature `ffmpeg`, libavcodec for the
//! rest; [`open_with`] and the environment variable `VJEPA_DECODER` choose otherwise. Both count, show and colour frames
//! alike. `docs/video.md` of the repository says which file is read by which path, and what the limits are.
//!
//! | pure Rust | decoded | refused with [`VideoError::UnsupportedCodec`], or left to FFmpeg |
//! |---|---|---|
//! | containers | mp4, mov (also fragmented), webm, mkv | MPEG-TS, AVI, FLV, Ogg, WMV, IVF |
//! | H.264 | 8-bit 4:2:0 and monochrome, progressive and interlaced | 10-bit, 4:2:2, 4:4:4, lossless, FMO, ASO, data partitions, SP and SI |
//! | VP9 | profile 0 (8-bit 4:2:0) | profiles 1 to 3 |
//! | others | | AV1, HEVC, VP8, MPEG-4 part 2, ... |
//!
//! **Colour.** A [`Frame`] keeps the decoded planes, of more than 8 bits the upper 8, rounded. Matrix and range are what the bitstream signals, else what the
//! container does, else BT.601 limited range, which is what libswscale assumes and so what published checkpoints saw.
//!
//! **Untrusted input.** What libavcodec does with a file is not contained: it is C, and a fault there ends the process.
//! Otherwise every error is a [`VideoError`] that names the file and the remedy. Third-party parsers see bounded
//! copies of the headers through a reader that ends loops; panics in parsers and decoders are contained (so a program
//! that aborts on panic loses this); allocation is bounded by the file's length, [`MAX_SIDE`] and [`MAX_AREA`].
//! Damage is reported where the container or a decoder notices it: a missing H.264 reference picture shows in the numbers
//! of those after it, a missing VP9 reference in its slot; frames up to the next key frame are then errors. H.264 and VP9 carry no checksums: a flipped bit that
//! leaves a valid stream decodes to a wrong picture that no decoder can tell from a right one.

#![cfg_attr(not(feature = "ffmpeg"), forbid(unsafe_code))]
#![cfg_attr(feature = "ffmpeg", deny(unsafe_code))]
#![warn(missing_docs)]

mod avi;
mod backend;
mod chroma;
mod clip;
mod error;
#[cfg(feature = "ffmpeg")]
mod ffmpeg;
mod film;
mod foreign;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod h264;
mod h264_bits;
mod h264_index;
mod h264_params;
mod h264_slice;
mod h264_survey;
mod info;
mod look;
mod mkv;
mod mkv_cut;
mod mp4;
mod mp4_entries;
mod mp4_samples;
mod open;
mod rgb;
mod table;
mod upright;
mod vp9;
mod vp9_check;

use std::path::Path;

pub use error::VideoError;
pub use film::{Film, FilmError};
pub use frame::{ColorMatrix, ColorSpace, Frame, Orientation};
pub use info::{ClipInfo, Codec};
pub use open::{Decoder, open, open_with, probe};

/// Largest width or height in pixels of a coded picture.
pub const MAX_SIDE: usize = 16384;

/// Largest number of pixels of a coded picture.
pub const MAX_AREA: usize = 1 << 26;

/// The FFmpeg libraries that builds with the feature `ffmpeg` decode by, e.g. `libavcodec 59.37.100`; none in other builds.
pub fn ffmpeg_version() -> Option<String> {
    #[cfg(feature = "ffmpeg")]
    return Some(ffmpeg::version());
    #[cfg(not(feature = "ffmpeg"))]
    None
}

/// An opened clip that yields frames by number. [`open`] makes one.
pub trait ClipDecoder {
    /// The file, as it was given to [`open`].
    fn path(&self) -> &Path;

    /// What is known about the clip.
    fn info(&self) -> &ClipInfo;

    /// The frames at `indices`, in this order; duplicates are allowed.
    ///
    /// Either all of them are returned, each exactly the picture at that place in presentation order, or none.
    ///
    /// # Errors
    /// [`VideoError::FrameOutOfRange`] for an index not below [`ClipInfo::frames`], [`VideoError::Truncated`] when the
    /// data of a frame is cut off, [`VideoError::Corrupt`] (or [`VideoError::Panicked`]) when a picture on the way is
    /// damaged. The clip stays usable for other frames.
    fn frames(&mut self, indices: &[usize]) -> Result<Vec<Frame>, VideoError>;
}
