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
}

/// A decoded picture: 4:2:0 planes without padding.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub width: usize,
    pub height: usize,
    pub y: Vec<u8>,
    pub u: Vec<u8>,
    pub v: Vec<u8>,
    /// As the bitstream signals it.
    pub matrix: Option<ColorMatrix>,
    pub full_range: Option<bool>,
    /// Output order within a run that starts at a clean start, where the bitstream states it (H.264 picture order count).
    pub order: Option<i32>,
}

/// A codec. Packets go in one by one in decoding order; a packet's picture comes out of the same call.
///
/// No reordering happens here: presentation order is known from the container's timestamps.
pub(crate) trait Backend: Send {
    /// Width and height of the pictures, before decoding any.
    fn size(&self) -> (usize, usize);

    /// Forget every reference.
    fn reset(&mut self) -> Result<(), Fault>;

    /// Read the packet's headers; an error when they are damaged.
    fn look(&self, packet: &[u8]) -> Result<Look, Fault>;

    /// Decode one packet; `None` when it shows nothing.
    fn decode(&mut self, packet: &[u8]) -> Result<Option<Picture>, Fault>;

    /// After `Fault::Unsupported`: change to a slower decoder that knows more. True when there is one; the caller then
    /// starts again from a key frame.
    fn fall_back(&mut self) -> bool;
}

/// Refuse pictures larger than this crate allocates for.
pub(crate) fn check_size(width: usize, height: usize) -> Result<(), Fault> {
    let fits = width <= crate::MAX_SIDE && height <= crate::MAX_SIDE && width * height <= crate::MAX_AREA;
    if fits { Ok(()) } else { Err(Fault::TooLarge(width, height)) }
}
