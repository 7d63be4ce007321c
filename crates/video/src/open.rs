//! Tell the container from the first bytes, and open it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::clip::{Clip, DecoderChoice};
use crate::error::{Fault, VideoError};
use crate::foreign::Foreign;
use crate::guard::contained;
use crate::info::ClipInfo;
use crate::table::Track;
use crate::{ClipDecoder, avi, mkv, mp4};

/// Which decoders a clip may be read with. Frame numbers, pictures and colours do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decoder {
    /// The pure-Rust decoders for what they decode; FFmpeg for the rest, with the feature `ffmpeg`.
    #[default]
    Auto,
    /// The pure-Rust decoders alone.
    Pure,
    /// FFmpeg for everything. Needs the feature `ffmpeg`.
    Ffmpeg,
}

impl Decoder {
    /// The environment variable that [`open`] asks: `auto`, `pure` or `ffmpeg`.
    pub const VARIABLE: &'static str = "VJEPA_DECODER";

    fn from_environment(path: &Path) -> Result<Self, VideoError> {
        let asked = match std::env::var_os(Self::VARIABLE) {
            None => return Ok(Self::Auto),
            Some(asked) => asked.to_string_lossy().into_owned(),
        };
        match asked.as_str() {
            "" | "auto" => Ok(Self::Auto),
            "pure" => Ok(Self::Pure),
            "ffmpeg" if cfg!(feature = "ffmpeg") => Ok(Self::Ffmpeg),
            _ => Err(VideoError::NoSuchDecoder { path: path.to_path_buf(), asked }),
        }
    }
}

/// Open a clip with the decoder that the environment variable [`Decoder::VARIABLE`] names, [`Decoder::Auto`] without it: one
/// pass over the container's tables, no decoding.
///
/// # Errors
/// Every way a file can be unusable has its own [`VideoError`]; all of them come within milliseconds.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn ClipDecoder + Send>, VideoError> {
    let path = path.as_ref();
    open_with(path, Decoder::from_environment(path)?)
}

/// Open a clip with a decoder of one's choice.
///
/// # Errors
/// As [`open`]; [`VideoError::NoSuchDecoder`] for [`Decoder::Ffmpeg`] in a build without it.
pub fn open_with(path: impl AsRef<Path>, decoder: Decoder) -> Result<Box<dyn ClipDecoder + Send>, VideoError> {
    let path = path.as_ref();
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => VideoError::Missing { path: path.to_path_buf() },
        _ => VideoError::Io { path: path.to_path_buf(), source },
    };
    let mut file = File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(Fault::NotAVideo("a folder or device".into()).at(path, None));
    }
    let len = meta.len();
    if len == 0 {
        return Err(VideoError::Empty { path: path.to_path_buf() });
    }
    let mut head = Vec::with_capacity(400);
    file.by_ref().take(400).read_to_end(&mut head).map_err(io)?;
    let container = sniff(&head).map_err(|fault| fault.at(path, None))?;
    let input = Input { path, file, len, container };
    let clip = match decoder {
        Decoder::Auto if cfg!(feature = "ffmpeg") => match input.pure(true) {
            Err(VideoError::UnsupportedCodec { .. }) => input.ffmpeg()?,
            result => result?,
        },
        Decoder::Pure | Decoder::Auto => input.pure(false).map_err(VideoError::of_pure)?,
        Decoder::Ffmpeg => input.ffmpeg()?,
    };
    Ok(Box::new(clip))
}

/// A file whose container is known.
struct Input<'a> {
    path: &'a Path,
    file: File,
    len: u64,
    container: Container,
}

impl Input<'_> {
    fn file(&self) -> Result<File, VideoError> {
        let at = |source| VideoError::Io { path: self.path.to_path_buf(), source };
        let mut file = self.file.try_clone().map_err(at)?;
        file.seek(SeekFrom::Start(0)).map_err(at)?;
        Ok(file)
    }

    /// The film's track; with `wide`, also one that only FFmpeg decodes.
    fn track(&self, wide: bool) -> Result<Track, VideoError> {
        let mut file = self.file()?;
        let track = match &self.container {
            Container::Mp4 => contained(|| mp4::read_track(&mut file, self.len, wide)),
            Container::Matroska => contained(|| mkv::read_track(&mut file, self.len, wide)),
            Container::Foreign(foreign) => foreign.described(&mut file).and_then(|what| Err(Fault::Unsupported(what))),
        };
        track.map_err(|fault| fault.at(self.path, None))
    }

    /// With `and_others`, FFmpeg takes over where the pure-Rust decoders meet a tool they lack.
    fn pure(&self, and_others: bool) -> Result<Clip, VideoError> {
        let choice = if and_others { DecoderChoice::PureFirst } else { DecoderChoice::Pure };
        Clip::open(self.path, self.file()?, self.len, self.track(false)?, choice)
    }

    #[cfg(feature = "ffmpeg")]
    fn ffmpeg(&self) -> Result<Clip, VideoError> {
        if let Container::Foreign(foreign) = &self.container {
            return match crate::ffmpeg::open(self.path, self.len, *foreign) {
                Ok(opened) => Clip::demuxed(self.path, self.len, opened),
                Err(fault) => Err(fault.at(self.path, None)),
            };
        }
        // The track that the pure-Rust decoders would take, if there is one: frame numbers then are the same.
        let track = match self.track(false) {
            Err(VideoError::UnsupportedCodec { .. }) => self.track(true)?,
            result => result?,
        };
        Clip::open(self.path, self.file()?, self.len, track, DecoderChoice::Ffmpeg)
    }

    #[cfg(not(feature = "ffmpeg"))]
    fn ffmpeg(&self) -> Result<Clip, VideoError> {
        Err(VideoError::NoSuchDecoder { path: self.path.to_path_buf(), asked: "ffmpeg".into() })
    }
}

/// Describe a clip without keeping it open.
///
/// # Errors
/// As [`open`].
pub fn probe(path: impl AsRef<Path>) -> Result<ClipInfo, VideoError> {
    open(path).map(|clip| clip.info().clone())
}

#[derive(Debug, PartialEq)]
enum Container {
    Mp4,
    Matroska,
    /// One that only FFmpeg reads.
    Foreign(Foreign),
}

fn sniff(head: &[u8]) -> Result<Container, Fault> {
    if head.starts_with(&[0x1A, 0x45, 0xDF, 0xA3]) {
        return Ok(Container::Matroska);
    }
    if matches!(head.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free" | b"skip" | b"styp" | b"pnot")) {
        return Ok(Container::Mp4);
    }
    let sync = |at: usize| head.get(at) == Some(&0x47);
    if (sync(0) && sync(188)) || (sync(4) && sync(196)) {
        return Ok(Container::Foreign(Foreign::MpegTs));
    }
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Err(Fault::AudioOnly),
        [b'R', b'I', b'F', b'F', ..] if avi::has_only_sound(head) => Err(Fault::AudioOnly),
        [b'R', b'I', b'F', b'F', ..] => Ok(Container::Foreign(Foreign::Avi)),
        [b'F', b'L', b'V', ..] => Ok(Container::Foreign(Foreign::Flv)),
        [b'O', b'g', b'g', b'S', ..] => Ok(Container::Foreign(Foreign::Ogg)),
        [0x30, 0x26, 0xB2, 0x75, ..] => Ok(Container::Foreign(Foreign::Asf)),
        [0, 0, 1, 0xBA | 0xB3, ..] => Ok(Container::Foreign(Foreign::MpegPs)),
        [b'D', b'K', b'I', b'F', ..] => Ok(Container::Foreign(Foreign::Ivf)),
        [0x06, 0x0E, 0x2B, 0x34, ..] => Ok(Container::Foreign(Foreign::Mxf)),
        _ if head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
            Err(Fault::NotAVideo("it holds text".into()))
        }
        _ => Err(Fault::NotAVideo("its first bytes belong to no known container".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_apart() {
        assert_eq!(sniff(b"\0\0\0\x20ftypisom"), Ok(Container::Mp4));
        assert_eq!(sniff(&[0x1A, 0x45, 0xDF, 0xA3, 0x9F]), Ok(Container::Matroska));
        assert!(matches!(sniff(b"hello"), Err(Fault::NotAVideo(_))));
        assert!(matches!(sniff(b"RIFF...."), Ok(Container::Foreign(Foreign::Avi))));
        let mut ts = [0u8; 400];
        (ts[0], ts[188]) = (0x47, 0x47);
        assert!(matches!(sniff(&ts), Ok(Container::Foreign(Foreign::MpegTs))));
    }
}
