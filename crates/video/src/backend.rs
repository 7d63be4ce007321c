//! What the clip asks of a codec: look at a packet, decode a packet, start afresh.

use crate::error::Fault;
use crate::frame::ColorMatrix;

/// What a packet is, read from its headers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Decoding can start here without anything before it (an IDR picture, a VP9 key frame).
    pub clean_start: bool,
    /// Nothing else is predicted from it, so it may be left out when it is not wanted.
    pub droppable: bool,
    /// What decoding can make of the stream from here on.
    pub start: Start,
    /// Where the bitstream numbers its pictures (H.264): this one's number.
    pub number: Option<Number>,
}

/// What decoding can make of a stream that begins with this packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Everything that follows.
    Clean,
    /// Everything shown from this picture on, exactly. Pictures decoded later and shown before it lack references (HEVC,
    /// MPEG-2, MPEG-4).
    #[cfg_attr(not(feature = "ffmpeg"), allow(dead_code))]
    Open,
    /// Everything shown from this picture on: the stream says so. Pictures shown before it lack references.
    Recovery,
    /// The picture itself; of what follows nothing is promised.
    Intra,
    /// Everything shown from the picture on that comes so many numbers later (gradual refresh).
    Gradual(u32),
    /// Nothing.
    No,
}

/// `frame_num` of an H.264 picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub frame_num: u32,
    /// Numbers wrap around here.
    pub modulus: u32,
    /// The stream may skip numbers on purpose.
    pub gaps_allowed: bool,
    pub reference: bool,
    /// An IDR picture: numbers start anew.
    pub restarts: bool,
    /// Numbers start anew after it.
    pub forgets: bool,
}

impl Number {
    /// The number of the last reference picture once this one is decoded.
    pub(crate) fn after(self, last: Option<u32>) -> Option<u32> {
        if !self.reference {
            return last;
        }
        Some(if self.forgets { 0 } else { self.frame_num })
    }

    /// Is a picture missing between the last reference picture and this one?
    pub(crate) fn misses_one(self, last: Option<u32>) -> bool {
        let Some(last) = last else { return false };
        let next = (last + 1) % self.modulus.max(1);
        !self.restarts && !self.gaps_allowed && self.frame_num != last && self.frame_num != next
    }
}

/// A decoded picture: planes without padding.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub width: usize,
    pub height: usize,
    pub y: Vec<u8>,
    pub u: Vec<u8>,
    pub v: Vec<u8>,
    /// As [`Frame::chroma_shift`](crate::Frame::chroma_shift).
    pub chroma_shift: (u8, u8),
    /// As the bitstream signals it.
    pub matrix: Option<ColorMatrix>,
    pub full_range: Option<bool>,
    /// Output order within a run that starts at a clean start, where the bitstream states it (H.264 picture order count).
    pub order: Option<i32>,
}

/// A packet on its way into a decoder.
#[derive(Clone, Copy)]
pub(crate) struct Coded<'a> {
    pub bytes: &'a [u8],
    /// [`Sample::entry`](crate::table::Sample::entry).
    pub entry: u16,
    /// Its number, which its picture will carry.
    pub sample: usize,
    /// Somebody asked for its picture.
    #[cfg_attr(not(feature = "ffmpeg"), allow(dead_code))]
    pub wanted: bool,
}

/// Pictures that came out of a decoder, each with the number of its sample.
pub(crate) type Pictures = Vec<(usize, Picture)>;

/// A codec. Packets go in one by one in decoding order. Their pictures come out of the same call, or later and in another
/// order: presentation order is known from the container's timestamps.
pub(crate) trait Backend: Send {
    /// Width and height of the pictures, before decoding any.
    fn size(&self) -> (usize, usize);

    /// Forget every reference. With `fill`, references that the stream names and nobody has decoded are made up, so that
    /// those which are there keep their places in the lists: what precedes a [`Start::Recovery`] is not there.
    fn reset(&mut self, fill: bool) -> Result<(), Fault>;

    /// Read the packet's headers; an error when they are damaged. `entry` is the sample's [`Sample::entry`].
    ///
    /// [`Sample::entry`]: crate::table::Sample::entry
    fn look(&self, packet: &[u8], entry: u16) -> Result<Look, Fault>;

    /// Decode one packet; whatever pictures are ready go to `out`.
    fn decode(&mut self, packet: Coded<'_>, out: &mut Pictures) -> Result<(), Fault>;

    /// How many packets a picture may come late.
    fn delay(&self) -> usize {
        0
    }

    /// Hand over what is held back. False when decoding cannot go on from here but has to start afresh.
    fn finish(&mut self, _out: &mut Pictures) -> Result<bool, Fault> {
        Ok(true)
    }

    /// After `Fault::Unsupported`: change to a slower decoder that knows more. True when there is one; the caller then
    /// starts again from a key frame.
    fn fall_back(&mut self) -> bool;
}

/// Refuse pictures larger than this crate allocates for.
pub(crate) fn check_size(width: usize, height: usize) -> Result<(), Fault> {
    let fits = width <= crate::MAX_SIDE && height <= crate::MAX_SIDE && width * height <= crate::MAX_AREA;
    if fits { Ok(()) } else { Err(Fault::TooLarge(width, height)) }
}
