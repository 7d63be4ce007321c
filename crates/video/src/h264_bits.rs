//! Bits of an H.264 unit: fixed-length and Exp-Golomb codes (ITU-T H.264, 7.2 and 9.1).

/// The payload of a unit, without its header byte and without emulation prevention.
pub(crate) struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    /// At most `limit` bytes of `nal` are looked at.
    pub(crate) fn of_unit(nal: &[u8], limit: usize) -> Self {
        let payload = nal.get(1..nal.len().min(limit)).unwrap_or(&[]);
        Bits { bytes: unescape(payload), at: 0 }
    }

    /// All of `bytes`, as they are.
    #[cfg(feature = "ffmpeg")]
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Bits { bytes: bytes.to_vec(), at: 0 }
    }

    /// Bits read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// `n` bits, at most 32.
    pub(crate) fn take(&mut self, n: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..n {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    /// An unsigned Exp-Golomb code.
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// A signed Exp-Golomb code.
    pub(crate) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        i32::try_from(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) }).ok()
    }
}

/// Removes the emulation prevention bytes.
fn unescape(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len());
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// A copy of `nal` whose payload bit `bit` is set.
pub(crate) fn with_bit_set(nal: &[u8], bit: usize) -> Vec<u8> {
    let Some((&header, payload)) = nal.split_first() else { return Vec::new() };
    let mut bytes = unescape(payload);
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte |= 0x80 >> (bit % 8);
    }
    let mut out = vec![header];
    let mut zeros = 0;
    for byte in bytes {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes() {
        // 1 | 010 | 011 | 00100 | 00101
        let mut bits = Bits::of_unit(&[0x67, 0b1010_0110, 0b0100_0010, 0b1000_0000], 9);
        assert_eq!([bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2)]);
        assert_eq!([bits.se(), bits.se()], [Some(2), Some(-2)]);
        assert_eq!(bits.position(), 17);
        assert_eq!(Bits::of_unit(&[0x67], 9).ue(), None);
        assert_eq!(Bits::of_unit(&[0x67, 0, 0, 3, 0, 0, 3, 0], 9).ue(), None);
    }

    #[test]
    fn a_set_bit_keeps_the_rest() {
        // Bit 17 is in the third payload byte; the escape before it stays valid.
        let nal = [0x67, 0, 0, 3, 1, 0xFF];
        assert_eq!(with_bit_set(&nal, 17), [0x67, 0, 0, 0x41, 0xFF]);
        assert_eq!(with_bit_set(&nal, 24), nal);
        assert_eq!(with_bit_set(&[0x67, 0, 0], 15), [0x67, 0, 1]);
        assert_eq!(with_bit_set(&[], 3), [] as [u8; 0]);
    }
}
