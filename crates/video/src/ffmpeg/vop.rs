//! MPEG-4 part 2: which packets show a picture (ISO/IEC 14496-2, 6.2.3 and 6.2.5).
//!
//! An encoder that has nothing new writes a plane that is "not coded", which players skip. DivX and Xvid pack two pictures
//! into one packet and follow it by such a plane, which then stands for the second of them.

use crate::h264_bits::Bits;

/// Bytes of a header that are looked at.
const HEADER: usize = 64;

/// What the packets so far said.
#[derive(Debug, Default)]
pub(super) struct Vops {
    /// Bits of a time in units of a picture; known from the layer's header.
    time_bits: Option<u32>,
    /// A packed picture waits for its place.
    packed: bool,
}

impl Vops {
    /// Read headers that stand outside of packets.
    pub(super) fn header(&mut self, bytes: &[u8]) {
        for (code, rest) in units(bytes) {
            if (0x20..=0x2F).contains(&code) {
                self.time_bits = time_bits(rest).or(self.time_bits);
            }
        }
    }

    /// Does the next packet show a picture?
    pub(super) fn shows(&mut self, packet: &[u8]) -> bool {
        self.header(packet);
        let mut coded = 0;
        let mut planes = 0;
        for (_, rest) in units(packet).filter(|(code, _)| *code == 0xB6) {
            planes += 1;
            // What cannot be read is left to the decoder.
            coded += usize::from(self.time_bits.and_then(|bits| is_coded(rest, bits)).unwrap_or(true));
        }
        let shows = coded > 0 || planes == 0 || self.packed;
        self.packed = coded > 1;
        shows
    }
}

/// Start codes and what follows each.
fn units(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let starts = bytes.windows(4).enumerate().filter(|(_, w)| matches!(w, [0, 0, 1, _]));
    starts.filter_map(|(at, w)| Some((*w.last()?, bytes.get(at + 4..)?)))
}

fn bits(bytes: &[u8]) -> Bits {
    Bits::of_bytes(bytes.get(..bytes.len().min(HEADER)).unwrap_or(&[]))
}

fn time_bits(layer: &[u8]) -> Option<u32> {
    let mut b = bits(layer);
    b.take(9)?;
    let mut version = 1;
    if b.flag()? {
        version = b.take(4)?;
        b.take(3)?;
    }
    if b.take(4)? == 15 {
        b.take(16)?;
    }
    if b.flag()? {
        b.take(3)?;
        if b.flag()? {
            b.take(32)?;
            b.take(32)?;
            b.take(15)?;
        }
    }
    if b.take(2)? == 3 && version != 1 {
        b.take(4)?;
    }
    b.take(1)?;
    let resolution = b.take(16)?;
    Some((32 - resolution.saturating_sub(1).leading_zeros()).max(1))
}

fn is_coded(plane: &[u8], time_bits: u32) -> Option<bool> {
    let mut b = bits(plane);
    b.take(2)?;
    while b.flag()? {}
    b.take(1)?;
    b.take(time_bits)?;
    b.take(1)?;
    b.flag()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer with 25 units a second, then planes.
    fn layer() -> Vec<u8> {
        // vol start; random 0, type 1 (8 bits), identifier 0, aspect 1, control 0, shape 0, marker 1, resolution 25.
        let bits = String::from("0") + "00000001" + "0" + "0001" + "0" + "00" + "1" + "0000000000011001" + "1" + "0";
        [vec![0, 0, 1, 0x20], pack(&bits)].concat()
    }

    fn plane(kind: &str, coded: bool) -> Vec<u8> {
        let bits = format!("{kind}01{:05b}1{}000", 3, u8::from(coded));
        [vec![0, 0, 1, 0xB6], pack(&bits), vec![0xFF]].concat()
    }

    fn pack(bits: &str) -> Vec<u8> {
        let padded = format!("{bits}{}", "1".repeat((8 - bits.len() % 8) % 8));
        padded.as_bytes().chunks(8).map(|c| c.iter().fold(0, |n, &b| n << 1 | (b - b'0'))).collect()
    }

    #[test]
    fn planes_that_are_not_coded_show_nothing() {
        let mut vops = Vops::default();
        vops.header(&layer());
        assert_eq!(vops.time_bits, Some(5));
        let shown = [("00", true), ("01", false), ("01", true), ("10", true)].map(|(k, c)| vops.shows(&plane(k, c)));
        assert_eq!(shown, [true, false, true, true]);
    }

    #[test]
    fn a_packed_picture_is_shown_in_place_of_the_next() {
        let mut vops = Vops::default();
        vops.header(&layer());
        assert!(vops.shows(&[plane("01", true), plane("10", true)].concat()));
        assert!(vops.shows(&plane("01", false)));
        assert!(!vops.shows(&plane("01", false)));
    }

    #[test]
    fn without_headers_every_packet_counts() {
        assert!(Vops::default().shows(&plane("01", false)));
        assert!(Vops::default().shows(b"\0\0"));
    }
}
