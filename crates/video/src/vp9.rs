//! VP9 through `rusty_vp9`, with our own look at frame headers: which packets are key frames and which show anything.

use std::io::{Read, Seek, SeekFrom};

use rusty_vp9::{BitReader, DecodedFrame, Error, Vp9Decoder, parse_uncompressed_header};

use crate::backend::{Backend, Coded, Look, Picture, Pictures, Start, check_size};
use crate::error::Fault;
use crate::frame::ColorMatrix;
use crate::table::Sample;
use crate::vp9_check::Slots;

/// The first fields of a frame header (VP9 bitstream specification, 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    profile: u32,
    key: bool,
    shown: bool,
    /// Key frames only.
    color: Option<(u32, bool)>,
    width: usize,
    height: usize,
}

fn head(frame: &[u8]) -> Option<Head> {
    let mut bits = Bits { bytes: frame, at: 0 };
    if bits.take(2)? != 2 {
        return None;
    }
    let profile = bits.take(1)? | bits.take(1)? << 1;
    if profile == 3 {
        bits.take(1)?;
    }
    let mut head = Head { profile, key: false, shown: true, color: None, width: 0, height: 0 };
    if bits.take(1)? == 1 {
        return Some(head); // show_existing_frame
    }
    head.key = bits.take(1)? == 0;
    head.shown = bits.take(1)? == 1;
    bits.take(1)?;
    if head.key {
        if bits.take(24)? != 0x49_8342 {
            return None;
        }
        if profile >= 2 {
            bits.take(1)?;
        }
        let space = bits.take(3)?;
        // RGB has full range always; profiles 1 and 3 state the subsampling.
        let full = if space == 7 { true } else { bits.take(1)? == 1 };
        if profile & 1 == 1 {
            bits.take(if space == 7 { 1 } else { 3 })?;
        }
        if profile == 0 {
            head.color = Some((space, full));
        }
        head.width = bits.take(16)? as usize + 1;
        head.height = bits.take(16)? as usize + 1;
    }
    Some(head)
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, n: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..n {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }
}

/// The frames inside a packet: several when it ends in a superframe index (specification, annex B).
fn split(packet: &[u8]) -> Vec<&[u8]> {
    let parse = || {
        let &marker = packet.last()?;
        if marker & 0xE0 != 0xC0 {
            return None;
        }
        let (frames, mag) = (usize::from(marker & 7) + 1, usize::from(marker >> 3 & 3) + 1);
        let index_at = packet.len().checked_sub(2 + frames * mag)?;
        if packet.get(index_at) != Some(&marker) {
            return None;
        }
        let sizes = packet.get(index_at + 1..packet.len() - 1)?;
        let (mut rest, mut out) = (packet, Vec::with_capacity(frames));
        for size in sizes.chunks_exact(mag) {
            let size = size.iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b));
            let (frame, tail) = rest.split_at_checked(size)?;
            out.push(frame);
            rest = tail;
        }
        Some(out)
    };
    parse().unwrap_or_else(|| vec![packet])
}

/// Correct the container's key flags by the bitstream, and mark packets that hold hidden references only.
///
/// What precedes the first key frame cannot be decoded and is not shown; returns how many pictures that is.
pub(crate) fn inspect(file: &mut (impl Read + Seek), len: u64, samples: &mut [Sample]) -> Result<usize, Fault> {
    for sample in samples.iter_mut() {
        if sample.offset.saturating_add(u64::from(sample.size)) > len {
            sample.key = false;
            continue;
        }
        let mut bytes = Vec::with_capacity(16);
        file.seek(SeekFrom::Start(sample.offset))?;
        file.take(u64::from(sample.size.min(16))).read_to_end(&mut bytes)?;
        let Some(first) = head(&bytes) else {
            // Damaged; the decoder will say so if the packet is needed.
            continue;
        };
        sample.key = first.key;
        if !first.shown && sample.visible {
            file.take(u64::from(sample.size).saturating_sub(bytes.len() as u64)).read_to_end(&mut bytes)?;
            sample.visible = split(&bytes).iter().any(|frame| head(frame).is_none_or(|h| h.shown));
        }
    }
    let first = samples.iter().position(|sample| sample.key).unwrap_or(0);
    let mut left_out = 0;
    for sample in samples.iter_mut().take(first) {
        left_out += usize::from(std::mem::take(&mut sample.visible));
    }
    Ok(left_out)
}

/// Read the headers of a packet. With `wide`, profiles that only FFmpeg decodes are no fault.
pub(crate) fn look(packet: &[u8], wide: bool) -> Result<Look, Fault> {
    for frame in split(packet) {
        let Some(head) = head(frame) else { return Err(Fault::corrupt("a VP9 packet without frame header")) };
        if head.profile != 0 && wide {
            continue;
        }
        if head.profile != 0 {
            return Err(Fault::Unsupported(profile_name(head.profile)));
        }
        // Sizes taken over from a reference read as zero here; those were checked when the reference came.
        let parsed = parse_uncompressed_header(&mut BitReader::new(frame), &[(0, 0); 8]);
        let h = parsed.map_err(|e| Fault::corrupt(e.to_string()))?;
        check_size(h.width as usize, h.height as usize)?;
    }
    let clean_start = split(packet).first().and_then(|f| head(f)).is_some_and(|h| h.key);
    // Later frames adapt to the probabilities and motion of the one before, shown or not.
    let start = if clean_start { Start::Clean } else { Start::No };
    Ok(Look { clean_start, droppable: false, start, number: None })
}

/// Check the frames of a packet against the reference slots. Profiles other than 0 are left to the decoder.
#[cfg(feature = "ffmpeg")]
pub(crate) fn check(packet: &[u8], slots: &mut Slots) -> Result<(), Fault> {
    let frames = split(packet);
    if frames.iter().any(|frame| head(frame).is_some_and(|head| head.profile != 0)) {
        return Ok(());
    }
    frames.into_iter().filter(|frame| !frame.is_empty()).try_for_each(|frame| slots.check(frame))
}

/// Does a packet show a picture?
#[cfg(feature = "ffmpeg")]
pub(crate) fn is_shown(packet: &[u8]) -> bool {
    split(packet).iter().any(|frame| head(frame).is_none_or(|h| h.shown))
}

/// Width and height, from the first key packet.
#[cfg(feature = "ffmpeg")]
pub(crate) fn size(first: &[u8]) -> Result<(usize, usize), Fault> {
    let head = split(first).first().and_then(|f| head(f));
    let Some(head) = head.filter(|h| h.key) else {
        return Err(Fault::corrupt("it has no VP9 key frame"));
    };
    check_size(head.width, head.height)?;
    Ok((head.width, head.height))
}

pub(crate) struct Vp9 {
    decoder: Vp9Decoder,
    size: (usize, usize),
    color: Option<(u32, bool)>,
    slots: Slots,
}

impl Vp9 {
    /// `first` is the first key packet, for size and profile.
    pub(crate) fn new(first: &[u8]) -> Result<Self, Fault> {
        let head = split(first).first().and_then(|f| head(f));
        let Some(head) = head.filter(|h| h.key) else {
            return Err(Fault::corrupt("it has no VP9 key frame"));
        };
        if head.profile != 0 {
            return Err(Fault::Unsupported(profile_name(head.profile)));
        }
        check_size(head.width, head.height)?;
        let (decoder, slots) = (Vp9Decoder::new(), Slots::default());
        Ok(Vp9 { decoder, size: (head.width, head.height), color: head.color, slots })
    }
}

impl Backend for Vp9 {
    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn reset(&mut self, _fill: bool) -> Result<(), Fault> {
        self.decoder = Vp9Decoder::new();
        self.slots = Slots::default();
        Ok(())
    }

    fn look(&self, packet: &[u8], _entry: u16) -> Result<Look, Fault> {
        look(packet, false)
    }

    fn decode(&mut self, packet: Coded<'_>, out: &mut Pictures) -> Result<(), Fault> {
        let frames = split(packet.bytes);
        if let Some(color) = frames.iter().filter_map(|f| head(f)?.color).next_back() {
            self.color = Some(color);
        }
        // A superframe whose index claims an empty frame: the decoder has its own view of those.
        for frame in frames.iter().filter(|frame| !frame.is_empty()) {
            self.slots.check(frame)?;
        }
        self.decoder.push(packet.bytes, None).map_err(fault)?;
        let mut shown = None;
        // One call per frame: a hidden one answers `Again` although others wait in the queue.
        for _ in &frames {
            match self.decoder.next_frame() {
                Ok(frame) => shown = Some(frame),
                Err(Error::Again) => {}
                Err(e) => return Err(fault(e)),
            }
        }
        if let Some(frame) = shown {
            out.push((packet.sample, self.picture(frame)?));
        }
        Ok(())
    }

    fn fall_back(&mut self) -> bool {
        false
    }
}

impl Vp9 {
    fn picture(&self, frame: DecodedFrame) -> Result<Picture, Fault> {
        if (frame.bit_depth, frame.subsampling_x, frame.subsampling_y) != (8, 1, 1) {
            return Err(Fault::Unsupported("VP9 that is not 8-bit 4:2:0".into()));
        }
        let (width, height) = (frame.width as usize, frame.height as usize);
        let Ok([y, u, v]) = <[Vec<u8>; 3]>::try_from(frame.planes) else {
            return Err(Fault::corrupt("a picture without three planes"));
        };
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        if (y.len(), u.len(), v.len()) != (width * height, chroma, chroma) {
            return Err(Fault::corrupt("planes of the wrong size"));
        }
        let (space, full) = self.color.unwrap_or((0, false));
        // Table of color_space in the VP9 specification, 7.2.2.
        let matrix = match space {
            1 | 3 => Some(ColorMatrix::Bt601),
            2 => Some(ColorMatrix::Bt709),
            4 => Some(ColorMatrix::Smpte240),
            5 => Some(ColorMatrix::Bt2020),
            _ => None,
        };
        let full_range = self.color.map(|_| full);
        Ok(Picture { width, height, y, u, v, chroma_shift: (1, 1), matrix, full_range, order: None })
    }
}

fn profile_name(profile: u32) -> String {
    let what = match profile {
        1 => "not 4:2:0",
        2 => "10 or 12 bits",
        _ => "10 or 12 bits and not 4:2:0",
    };
    format!("VP9 profile {profile}, {what}")
}

fn fault(e: Error) -> Fault {
    match e {
        Error::Unsupported(_) | Error::Unimplemented(_) => Fault::Unsupported(format!("VP9: {e}")),
        _ => Fault::corrupt(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superframes_are_split_by_their_index() {
        // Two frames of 3 and 1 bytes, one byte per size.
        let marker = 0xC0 | 1;
        let packet = [1, 2, 3, 4, marker, 3, 1, marker];
        assert_eq!(split(&packet), [&[1u8, 2, 3][..], &[4]]);
        // A size beyond the packet is no index.
        let bad = [1, 2, 3, 4, marker, 9, 1, marker];
        assert_eq!(split(&bad), [&bad[..]]);
        assert_eq!(split(&[]), [&[][..] as &[u8]]);
    }

    #[test]
    fn headers_tell_key_and_hidden_frames() {
        // marker 10, profile 00, show_existing 0, key 0, shown 1, error_resilient 0, sync code, BT.709 limited, 2x3.
        let key = [0b1000_0010, 0x49, 0x83, 0x42, 0b0100_0000, 0, 0b0001_0000, 0, 0b0010_0000];
        let h = head(&key).unwrap();
        assert_eq!((h.key, h.shown, h.color, h.width, h.height), (true, true, Some((2, false)), 2, 3));
        let hidden = head(&[0b1000_0100]).unwrap();
        assert_eq!((hidden.key, hidden.shown), (false, false));
        assert_eq!(head(&[0b0100_0000]), None);
        assert_eq!(head(&[]), None);
    }
}
