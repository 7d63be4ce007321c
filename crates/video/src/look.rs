//! What an index needs from the bitstream, whatever the codec and the container.

use std::io::{Read, Seek};

use crate::error::Fault;
use crate::h264_index::{self, Inspection};
use crate::table::{Edit, Sample, Setup, Shown, shown_frames, shown_in_order};
use crate::vp9;

/// The frames shown, in order, and how many pictures at the start cannot be decoded.
pub(crate) fn index(
    source: SampleFile<impl Read + Seek>,
    setup: &Setup,
    other_sets: &[Vec<Vec<u8>>],
    samples: &mut [Sample],
    edits: &[Edit],
) -> Result<(Vec<Shown>, usize), Fault> {
    let seconds_per_tick = source.seconds_per_tick;
    let found = look_into(source, setup, other_sets, samples)?;
    let shown = match &found.places {
        None => shown_frames(samples, edits, seconds_per_tick)?,
        Some(places) => shown_in_order(samples, places, edits, seconds_per_tick)?,
    };
    Ok((shown, found.left_out))
}

/// The file that samples lie in, and how far their timestamps go.
pub(crate) struct SampleFile<'a, F> {
    pub file: &'a mut F,
    /// Bytes.
    pub len: u64,
    pub seconds_per_tick: f64,
    /// The container gives every sample a timestamp of its own.
    pub complete: bool,
    /// FFmpeg decodes it: what the pure-Rust decoders lack is no fault.
    pub wide: bool,
}

/// Mark those that show nothing or cannot be decoded, and find the display order if need be.
fn look_into(
    source: SampleFile<impl Read + Seek>,
    setup: &Setup,
    other_sets: &[Vec<Vec<u8>>],
    samples: &mut [Sample],
) -> Result<Inspection, Fault> {
    let SampleFile { file, len, complete, wide, .. } = source;
    match setup {
        Setup::Vp9 => {
            let left_out = vp9::inspect(file, len, samples)?;
            Ok(Inspection { places: None, left_out })
        }
        #[cfg(feature = "ffmpeg")]
        Setup::Other(other) => {
            Ok(Inspection { places: None, left_out: crate::ffmpeg::inspect(file, len, other, samples)? })
        }
        #[cfg(not(feature = "ffmpeg"))]
        Setup::Other(other) => Err(Fault::Unsupported(other.name.clone())),
        Setup::H264 { length_size, parameter_sets } => {
            let entries: Vec<&[Vec<u8>]> =
                std::iter::once(parameter_sets).chain(other_sets).map(Vec::as_slice).collect();
            h264_index::inspect(file, len, *length_size, &entries, samples, complete, wide)
        }
    }
}
