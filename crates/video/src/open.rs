//! Tell the container from the first bytes, and open it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::clip::Clip;
use crate::error::{Fault, VideoError};
use crate::guard::contained;
use crate::info::ClipInfo;
use crate::{ClipDecoder, avi, mkv, mp4};

/// Open a clip: one pass over the container's tables, no decoding.
///
/// # Errors
/// Every way a file can be unusable has its own [`VideoError`]; all of them come within milliseconds.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn ClipDecoder + Send>, VideoError> {
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
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let track = sniff(&head).and_then(|container| match container {
        Container::Mp4 => contained(|| mp4::read_track(&mut file, len)),
        Container::Matroska => contained(|| mkv::read_track(&mut file, len)),
    });
    let track = track.map_err(|fault| fault.at(path, None))?;
    Ok(Box::new(Clip::open(path, file, len, track)?))
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
}

fn sniff(head: &[u8]) -> Result<Container, Fault> {
    let unsupported = |what: &str| Err(Fault::Unsupported(format!("in a container of type {what}")));
    if head.starts_with(&[0x1A, 0x45, 0xDF, 0xA3]) {
        return Ok(Container::Matroska);
    }
    if matches!(head.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free" | b"skip" | b"styp" | b"pnot")) {
        return Ok(Container::Mp4);
    }
    let sync = |at: usize| head.get(at) == Some(&0x47);
    if (sync(0) && sync(188)) || (sync(4) && sync(196)) {
        return unsupported("MPEG-TS");
    }
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Err(Fault::AudioOnly),
        [b'R', b'I', b'F', b'F', ..] => Err(Fault::Unsupported(avi::describe(head))),
        [b'F', b'L', b'V', ..] => unsupported("FLV"),
        [b'O', b'g', b'g', b'S', ..] => unsupported("Ogg"),
        [0x30, 0x26, 0xB2, 0x75, ..] => unsupported("WMV"),
        [0, 0, 1, 0xBA | 0xB3, ..] => unsupported("MPEG-PS"),
        [b'D', b'K', b'I', b'F', ..] => unsupported("IVF"),
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
        assert!(matches!(sniff(b"RIFF...."), Err(Fault::Unsupported(_))));
        let mut ts = [0u8; 400];
        (ts[0], ts[188]) = (0x47, 0x47);
        assert!(matches!(sniff(&ts), Err(Fault::Unsupported(_))));
    }
}
