//! Checks of VP9 frames that the decoder leaves out: are the frames there that a frame refers to, and do they fit?
//!
//! A frame that fails is an error, and so is what follows until the next key frame (specification, 7.2 and 9.2.1).

use rusty_vp9::{BitReader, FrameHeader, parse_uncompressed_header};

use crate::error::Fault;

/// The eight reference slots: width and height of the frame in each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots([Option<(u32, u32)>; 8]);

impl Slots {
    /// Check a frame against the slots, then let it refresh them.
    pub(crate) fn check(&mut self, frame: &[u8]) -> Result<(), Fault> {
        let sizes = self.0.map(|size| size.unwrap_or((0, 0)));
        let header = parse_uncompressed_header(&mut BitReader::new(frame), &sizes);
        let header = header.map_err(|e| Fault::corrupt(e.to_string()))?;
        if header.show_existing_frame {
            return match self.slot(header.frame_to_show as usize) {
                Some(_) => Ok(()),
                None => Err(Fault::corrupt("it shows again a frame that is missing")),
            };
        }
        if !header.key_frame && !header.intra_only {
            self.check_references(&header)?;
        }
        check_data(frame, &header)?;
        let refreshed = if header.key_frame { 0xFF } else { header.refresh_frame_flags };
        for (i, slot) in self.0.iter_mut().enumerate() {
            if refreshed >> i & 1 == 1 {
                *slot = Some((header.width, header.height));
            }
        }
        Ok(())
    }

    fn slot(&self, i: usize) -> Option<(u32, u32)> {
        self.0.get(i).copied().flatten()
    }

    fn check_references(&self, header: &FrameHeader) -> Result<(), Fault> {
        for &i in &header.ref_frame_idx {
            let Some((width, height)) = self.slot(i) else {
                return Err(Fault::corrupt("it refers to a frame that is missing"));
            };
            // A reference may be up to twice as large and 16 times as small, per side.
            let fits = |new: u32, old: u32| 2 * u64::from(new) >= u64::from(old) && new <= old.saturating_mul(16);
            if !fits(header.width, width) || !fits(header.height, height) {
                let sizes = format!("{}x{} from {width}x{height}", header.width, header.height);
                return Err(Fault::corrupt(format!("it cannot be predicted from a frame of that size ({sizes})")));
            }
        }
        Ok(())
    }
}

/// The compressed header and the first tile must be there, and begin with a marker bit of zero.
fn check_data(frame: &[u8], header: &FrameHeader) -> Result<(), Fault> {
    let compressed = header.uncompressed_bytes;
    let first = compressed.saturating_add(header.header_size as usize);
    let sized = header.tile_cols_log2 + header.tile_rows_log2 > 0;
    let tile = if sized { first.saturating_add(4) } else { first };
    let marked = |at: usize| frame.get(at).is_none_or(|byte| byte & 0x80 != 0);
    if header.header_size == 0 || marked(compressed) || marked(tile) {
        return Err(Fault::corrupt("a VP9 frame whose data is cut off or damaged"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_slot_is_a_missing_frame() {
        // marker 10, profile 00, show_existing 1, slot 3.
        let again = [0b1000_1011];
        let mut slots = Slots::default();
        assert!(slots.check(&again).is_err());
        slots.0[3] = Some((8, 8));
        assert!(slots.check(&again).is_ok());
    }

    #[test]
    fn references_must_fit() {
        let mut slots = Slots::default();
        let mut header = FrameHeader { width: 64, height: 64, ..FrameHeader::default() };
        assert!(slots.check_references(&header).is_err());
        slots.0 = [Some((128, 64)); 8];
        assert!(slots.check_references(&header).is_ok());
        header.width = 63;
        assert!(slots.check_references(&header).is_err());
        slots.0 = [Some((4, 64)); 8];
        assert!(slots.check_references(&header).is_ok());
        header.width = 65;
        assert!(slots.check_references(&header).is_err());
    }
}
