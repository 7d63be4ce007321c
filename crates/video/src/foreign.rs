//! Containers that this crate does not read itself: only enough of each to say which codec a file holds.
//!
//! The first bytes are looked at and nothing is guessed: where they do not tell, its name is called unknown.

use std::io::{Read, Seek, SeekFrom};

use crate::avi;
use crate::error::Fault;

/// Bytes that are looked at: tables of programs come within the first packets of a stream, and video soon after a header.
const HEAD: u64 = 256 << 10;

/// A container that only FFmpeg reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    Avi,
    MpegTs,
    MpegPs,
    Flv,
    Ogg,
    Asf,
    Ivf,
    Mxf,
}

impl Foreign {
    fn name(self) -> &'static str {
        match self {
            Self::Avi => "AVI",
            Self::MpegTs => "MPEG-TS",
            Self::MpegPs => "MPEG-PS",
            Self::Flv => "FLV",
            Self::Ogg => "Ogg",
            Self::Asf => "WMV",
            Self::Ivf => "IVF",
            Self::Mxf => "MXF",
        }
    }

    /// "CODEC in CONTAINER".
    ///
    /// # Errors
    /// [`Fault::Io`] where the file cannot be read.
    pub(crate) fn described(self, file: &mut (impl Read + Seek)) -> Result<String, Fault> {
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(HEAD).read_to_end(&mut head)?;
        Ok(match self.codec(&head) {
            Some(codec) => format!("{codec} in {}", self.name()),
            None => format!("of unknown name in {}", self.name()),
        })
    }

    /// The codec, from the first bytes of a file.
    fn codec(self, head: &[u8]) -> Option<String> {
        match self {
            Self::Avi => avi::codec(head),
            Self::MpegTs => transport(head).map(str::to_owned),
            Self::MpegPs => program(head).map(str::to_owned),
            Self::Flv => flash(head),
            Self::Ogg => ogg(head).map(str::to_owned),
            Self::Asf => windows_media(head),
            Self::Ivf => four(head, 8).map(|four| of_four(&four)),
            Self::Mxf => exchange(head).map(str::to_owned),
        }
    }
}

fn four(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok()
}

/// A number of two bytes, the upper first.
fn two(bytes: &[u8], at: usize) -> Option<usize> {
    let pair = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(usize::from(u16::from_be_bytes(pair)))
}

/// A codec by four characters.
fn of_four(four: &[u8; 4]) -> String {
    match four {
        b"VP80" => "VP8",
        b"VP90" | b"vp09" => "VP9",
        b"AV01" | b"av01" => "AV1",
        b"H264" | b"avc1" => "H.264",
        b"HEVC" | b"hvc1" => "HEVC",
        b"WMV1" | b"WMV2" | b"WMV3" => return format!("Windows Media Video ({})", avi::printable(four)),
        b"WVC1" => "VC-1",
        other => return avi::printable(other),
    }
    .to_owned()
}

/// MPEG-TS (ISO/IEC 13818-1): the stream type that the table of the first program gives its first video.
fn transport(head: &[u8]) -> Option<&'static str> {
    let sync = |at: usize| head.get(at) == Some(&0x47);
    // Packets of 188 bytes; Blu-ray puts a clock of four before each.
    let (first, size) = if sync(0) && sync(188) { (0, 188) } else { (4, 192) };
    let packets = || (first..head.len()).step_by(size).map_while(|at| head.get(at..at.checked_add(188)?));
    let table = |id: usize, kind: u8| packets().find_map(|packet| section(packet, id, kind));
    let programs = table(0, 0)?;
    // Program 0 is the network.
    let program = programs.as_chunks::<4>().0.iter().find(|entry| !entry.starts_with(&[0, 0]))?;
    let streams = table(two(program, 2)? & 0x1FFF, 2)?;
    // The clock's packets and descriptors of the program come first.
    let mut at = 4 + (two(streams, 2)? & 0xFFF);
    while let (Some(&kind), Some(length)) = (streams.get(at), two(streams, at + 3)) {
        if let Some(name) = stream_type(kind) {
            return Some(name);
        }
        at += 5 + (length & 0xFFF);
    }
    None
}

/// What a table says, if the packet begins one of this kind under this identifier: without header and checksum.
fn section(packet: &[u8], id: usize, kind: u8) -> Option<&[u8]> {
    let flags = two(packet, 1)?;
    // The beginning of a table.
    if flags & 0x1FFF != id || flags & 0x4000 == 0 {
        return None;
    }
    let adaptation = match packet.get(3)? & 0x30 {
        0x30 => 1 + usize::from(*packet.get(4)?),
        0x10 => 0,
        _ => return None,
    };
    let pointer = 4 + adaptation;
    let table = packet.get(pointer + 1 + usize::from(*packet.get(pointer)?)..)?;
    let length = two(table, 1)? & 0xFFF;
    // Five more bytes of header follow the length, a checksum of four ends it; what does not fit in the packet is not looked at.
    let end = table.len().min((3 + length).checked_sub(4)?);
    (table.first() == Some(&kind)).then(|| table.get(8..end))?
}

fn stream_type(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0x01 => "MPEG-1",
        0x02 => "MPEG-2",
        0x10 => "MPEG-4 part 2",
        0x1B => "H.264",
        0x24 => "HEVC",
        0x33 => "VVC",
        0x42 => "AVS",
        0xEA => "VC-1",
        _ => return None,
    })
}

/// MPEG-PS: MPEG-2 extends the sequence header, MPEG-1 does not.
fn program(head: &[u8]) -> Option<&'static str> {
    let codes = head.windows(4).filter(|code| code.starts_with(&[0, 0, 1]));
    let mut codes = codes.filter_map(|code| code.last()).skip_while(|code| **code != 0xB3);
    codes.next()?;
    // Packets of sound may come between.
    match codes.find(|code| matches!(code, 0x00..=0xAF | 0xB5 | 0xB8))? {
        0xB5 => Some("MPEG-2"),
        _ => Some("MPEG-1"),
    }
}

/// FLV: the codec's number in the first tag of video, or its four characters where the tag is an enhanced one.
fn flash(head: &[u8]) -> Option<String> {
    let header = u32::from_be_bytes(four(head, 5)?) as usize;
    let mut at = header.checked_add(4)?;
    loop {
        let [kind, high, mid, low] = four(head, at)?;
        let data = at.checked_add(11)?;
        if kind & 0x1F == 9 {
            let first = *head.get(data)?;
            if first & 0x80 != 0 {
                return four(head, data + 1).map(|four| of_four(&four));
            }
            return Some(match first & 0x0F {
                2 => "Sorenson H.263".into(),
                3 | 6 => "Screen video".into(),
                4 | 5 => "VP6".into(),
                7 => "H.264".into(),
                12 => "HEVC".into(),
                other => format!("number {other}"),
            });
        }
        at = data.checked_add(u32::from_be_bytes([0, high, mid, low]) as usize)?.checked_add(4)?;
    }
}

/// Ogg: the first packet of each stream says what it is; those come before everything else.
fn ogg(head: &[u8]) -> Option<&'static str> {
    let mut at = 0;
    loop {
        let page = head.get(at..)?;
        // The first page of a stream.
        if !page.starts_with(b"OggS") || page.get(5)? & 2 == 0 {
            return None;
        }
        let sizes = page.get(27..27 + usize::from(*page.get(26)?))?;
        let packet = page.get(27 + sizes.len()..)?;
        let known: [(&[u8], &str); 3] = [(b"\x80theora", "Theora"), (b"OVP80", "VP8"), (b"BBCD", "Dirac")];
        if let Some((_, name)) = known.into_iter().find(|(magic, _)| packet.starts_with(magic)) {
            return Some(name);
        }
        at += 27 + sizes.len() + sizes.iter().map(|&size| usize::from(size)).sum::<usize>();
    }
}

/// WMV (ASF): the compression of the first stream that is called video.
fn windows_media(head: &[u8]) -> Option<String> {
    const VIDEO: [u8; 16] =
        [0xC0, 0xEF, 0x19, 0xBC, 0x4D, 0x5B, 0xCF, 0x11, 0xA8, 0xFD, 0x00, 0x80, 0x5F, 0x5C, 0x44, 0x2B];
    // 54 bytes of stream properties, 11 of the window, and 16 of the bitmap's header.
    let at = head.windows(VIDEO.len()).position(|bytes| bytes == VIDEO)?;
    four(head, at.checked_add(54 + 11 + 16)?).map(|four| of_four(&four))
}

/// MXF: the essence container that the first partition names (SMPTE RP 224).
fn exchange(head: &[u8]) -> Option<&'static str> {
    let label =
        |bytes: &[u8]| bytes.starts_with(&[6, 14, 43, 52, 4, 1, 1]) && bytes.get(8..13) == Some(&[13, 1, 3, 1, 2]);
    head.windows(16).filter(|bytes| label(bytes)).find_map(|bytes| {
        Some(match bytes.get(13)? {
            0x01 => "MPEG-2",
            0x02 => "DV",
            0x04 => "MPEG",
            0x05 => "uncompressed",
            0x0C => "JPEG 2000",
            0x10 => "H.264",
            0x11 => "VC-3",
            0x1C => "ProRes",
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests;
