//! Where packets come from, and the decoder that a track needs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::DecoderChoice;
use crate::backend::Backend;
use crate::error::Fault;
use crate::h264::H264;
use crate::info::Codec;
use crate::table::{Sample, Setup, Track};
use crate::vp9::Vp9;

/// Where packets come from.
pub(super) enum Packets {
    /// From places in a file.
    Placed(File),
    #[cfg(feature = "ffmpeg")]
    Demuxed(crate::ffmpeg::Demuxed),
}

impl Packets {
    /// Read packet `i` into `packet`, which grows to the largest packet and no further.
    pub(super) fn read(&mut self, len: u64, samples: &[Sample], i: usize, packet: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Packets::Placed(file) => read(file, len, samples, i, packet),
            #[cfg(feature = "ffmpeg")]
            Packets::Demuxed(demuxed) => demuxed.read(samples, i, packet),
        }
    }
}

/// A decoder for `track`, and what it decodes; `first` is the first key packet.
pub(super) fn backend(track: &Track, first: &[u8], choice: DecoderChoice) -> Result<(Box<dyn Backend>, Codec), Fault> {
    #[cfg(feature = "ffmpeg")]
    if choice == DecoderChoice::Ffmpeg {
        let ffmpeg = crate::ffmpeg::Ffmpeg::new(track, first)?;
        let codec = ffmpeg.codec();
        return Ok((Box::new(ffmpeg), codec));
    }
    match (&track.setup, choice) {
        (Setup::H264 { length_size, parameter_sets }, DecoderChoice::Pure | DecoderChoice::PureFirst) => {
            let h264 = H264::new(*length_size, parameter_sets, first)?.with_entries(&track.other_sets);
            Ok((Box::new(h264), Codec::H264))
        }
        (Setup::Vp9, DecoderChoice::Pure | DecoderChoice::PureFirst) => Ok((Box::new(Vp9::new(first)?), Codec::Vp9)),
        (setup, _) => Err(setup.unsupported().unwrap_or_else(|| Fault::Unsupported("video".into()))),
    }
}

/// Read packet `i` into `packet`, which grows to the largest packet and no further.
pub(super) fn read(file: &mut File, len: u64, samples: &[Sample], i: usize, packet: &mut Vec<u8>) -> Result<(), Fault> {
    let sample = samples.get(i).ok_or_else(|| Fault::corrupt("it has no frames"))?;
    if sample.offset.saturating_add(u64::from(sample.size)) > len {
        return Err(Fault::Cut("the packets at its end are missing".into()));
    }
    packet.resize(sample.size as usize, 0);
    file.seek(SeekFrom::Start(sample.offset))?;
    file.read_exact(packet)?;
    Ok(())
}
