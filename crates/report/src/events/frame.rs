//! The framing of TFRecord files: length, sum of the length, data, sum of the data, all little-endian.

/// Of sums that are stored beside what they are the sum of, so that a sum of sums stays meaningful.
const MASK: u32 = 0xa282_ead8;

/// CRC-32C, rotated by 15 bits and moved by a constant.
pub(super) fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK)
}

/// A record around `data`.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_tensorboard() {
        // What TensorBoard's own `masked_crc32c` gives for these bytes.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
        let record = framed(b"ab");
        assert_eq!(record.len(), 8 + 4 + 2 + 4);
        assert_eq!(record[..8], [2, 0, 0, 0, 0, 0, 0, 0]);
    }
}
