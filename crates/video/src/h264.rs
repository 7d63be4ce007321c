//! H.264 through `rusty_h264-decoder`, or `rust_h264` for interlaced and other streams the first one refuses.

use rust_h264::nal::{NalUnit, NalUnitType, SpsInfo, parse_annex_b, parse_sps_info};

use crate::backend::{Backend, Look, Picture, check_size};
use crate::error::Fault;
use crate::frame::ColorMatrix;

const SLICE: u8 = 1;
const PARTITIONS: std::ops::RangeInclusive<u8> = 2..=4;
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

enum Engine {
    /// Fast: progressive 8-bit 4:2:0.
    Fast(Box<rusty_h264_decoder::Decoder>),
    /// Also interlaced, monochrome, explicit bi-prediction weights, crops at the left or top.
    Wide(Box<rust_h264::decoder::Decoder>),
}

pub(crate) struct H264 {
    engine: Engine,
    length_size: usize,
    parameter_sets: Vec<Vec<u8>>,
    size: (usize, usize),
    matrix: Option<ColorMatrix>,
    full_range: Option<bool>,
    /// The fast engine's picture order counts are exact (types 0 and 2).
    states_order: bool,
    /// The fast engine met a tool that only the wide one knows.
    wants_wide: bool,
    annex_b: Vec<u8>,
}

impl H264 {
    /// `parameter_sets` as in the container; `first` is the first key packet, which holds them where the container does not.
    pub(crate) fn new(length_size: usize, parameter_sets: &[Vec<u8>], first: &[u8]) -> Result<Self, Fault> {
        let inband = nals(first, length_size)?;
        let all = || parameter_sets.iter().map(Vec::as_slice).chain(inband.iter().copied());
        let Some(sps) = all().find(|nal| kind(nal) == SPS) else {
            return Err(Fault::corrupt("it has no H.264 sequence parameters"));
        };
        let info = check_sps(sps)?;
        let parameter_sets: Vec<Vec<u8>> =
            all().filter(|nal| matches!(kind(nal), SPS | PPS)).map(<[u8]>::to_vec).collect();
        let mut h264 = H264 {
            engine: if fast_enough(sps, &info) { fast() } else { wide() },
            length_size,
            parameter_sets,
            size: (info.width as usize, info.height as usize),
            // Code 2 of H.273 is "unspecified".
            matrix: (info.matrix != 2).then(|| ColorMatrix::from_h273(u64::from(info.matrix))),
            full_range: info.full_range.then_some(true),
            states_order: rusty_h264_decoder::Sps::parse(&unit(sps).rbsp).is_ok_and(|s| s.pic_order_cnt_type != 1),
            wants_wide: false,
            annex_b: Vec::new(),
        };
        h264.reset()?;
        Ok(h264)
    }
}

fn fast() -> Engine {
    Engine::Fast(Box::new(rusty_h264_decoder::Decoder::new()))
}

fn wide() -> Engine {
    Engine::Wide(Box::new(rust_h264::decoder::Decoder::new()))
}

fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |b| b & 0x1F)
}

/// Refuse what neither engine decodes, and sizes not worth allocating.
fn check_sps(nal: &[u8]) -> Result<SpsInfo, Fault> {
    let unit = unit(nal);
    let info = parse_sps_info(&unit).map_err(|e| Fault::corrupt(format!("its H.264 parameters: {e}")))?;
    check_size(info.coded_width as usize, info.coded_height as usize)?;
    if info.bit_depth_luma != 8 || info.bit_depth_chroma != 8 {
        return Err(Fault::Unsupported(format!("H.264 {}-bit", info.bit_depth_luma.max(info.bit_depth_chroma))));
    }
    match info.chroma_format {
        0 | 1 => Ok(info),
        2 => Err(Fault::Unsupported("H.264 4:2:2".into())),
        _ => Err(Fault::Unsupported("H.264 4:4:4".into())),
    }
}

fn unit(nal: &[u8]) -> NalUnit<'_> {
    let annex_b = [&[0, 0, 0, 1], nal].concat();
    let parsed = parse_annex_b(&annex_b).into_iter().next();
    match parsed {
        Some(n) => NalUnit {
            nal_ref_idc: n.nal_ref_idc,
            nal_unit_type: n.nal_unit_type,
            rbsp: std::borrow::Cow::Owned(n.rbsp.into_owned()),
        },
        None => NalUnit { nal_ref_idc: 0, nal_unit_type: NalUnitType::Other(0), rbsp: Default::default() },
    }
}

/// The fast engine crops only at the right and bottom, and takes progressive frames only.
fn fast_enough(sps: &[u8], info: &SpsInfo) -> bool {
    let parsed = rusty_h264_decoder::Sps::parse(&unit(sps).rbsp);
    info.progressive && parsed.is_ok_and(|s| s.frame_crop_left == 0 && s.frame_crop_top == 0)
}

/// Split a length-prefixed packet. The units must tile it exactly, and none may contain a start code: both are signs of
/// damage that a decoder would not notice.
fn nals(packet: &[u8], length_size: usize) -> Result<Vec<&[u8]>, Fault> {
    let mut rest = packet;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let cut = || Fault::corrupt("a packet whose H.264 units do not fit");
        let (length, tail) = rest.split_at_checked(length_size).ok_or_else(cut)?;
        let length = length.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
        let (nal, tail) = tail.split_at_checked(length).ok_or_else(cut)?;
        rest = tail;
        if nal.first().is_some_and(|b| b & 0x80 != 0) {
            return Err(Fault::corrupt("an H.264 unit with its forbidden bit set"));
        }
        // Zero bytes at the end are padding that some writers leave.
        let end = nal.iter().rposition(|&b| b != 0).map_or(0, |p| p + 1);
        let nal = nal.get(..end).unwrap_or(nal);
        if nal.windows(3).any(|w| matches!(w, [0, 0, 0..=2])) {
            return Err(Fault::corrupt("an H.264 unit with a start code inside"));
        }
        if !nal.is_empty() {
            out.push(nal);
        }
    }
    Ok(out)
}

impl Backend for H264 {
    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn reset(&mut self) -> Result<(), Fault> {
        self.engine = match self.engine {
            Engine::Fast(_) => fast(),
            Engine::Wide(_) => wide(),
        };
        let sets = std::mem::take(&mut self.parameter_sets);
        let fed = self.feed(sets.iter().map(Vec::as_slice));
        self.parameter_sets = sets;
        fed.map(|_| ())
    }

    fn look(&self, packet: &[u8]) -> Result<Look, Fault> {
        let mut look = Look { clean_start: false, droppable: true };
        let mut slices = 0;
        for nal in nals(packet, self.length_size)? {
            match kind(nal) {
                SLICE | IDR => {
                    slices += 1;
                    look.clean_start |= kind(nal) == IDR;
                    look.droppable &= nal.first().is_some_and(|b| b & 0x60 == 0);
                }
                SPS => {
                    check_sps(nal)?;
                    look.droppable = false;
                }
                PPS => look.droppable = false,
                n if PARTITIONS.contains(&n) => return Err(Fault::Unsupported("H.264 data partitioning".into())),
                _ => {}
            }
        }
        if slices == 0 {
            return Err(Fault::corrupt("a packet without picture"));
        }
        Ok(look)
    }

    fn decode(&mut self, packet: &[u8]) -> Result<Option<Picture>, Fault> {
        let nals = nals(packet, self.length_size)?;
        match self.feed(nals.into_iter())? {
            Some(picture) => Ok(Some(picture)),
            None => Err(Fault::corrupt("an incomplete picture")),
        }
    }

    fn fall_back(&mut self) -> bool {
        if std::mem::take(&mut self.wants_wide) {
            self.engine = wide();
            true
        } else {
            false
        }
    }
}

impl H264 {
    fn feed<'a>(&mut self, nals: impl Iterator<Item = &'a [u8]>) -> Result<Option<Picture>, Fault> {
        self.annex_b.clear();
        for nal in nals.filter(|nal| matches!(kind(nal), SLICE | IDR | SPS | PPS)) {
            self.annex_b.extend_from_slice(&[0, 0, 0, 1]);
            self.annex_b.extend_from_slice(nal);
        }
        let (width, height, y, u, v, order) = match &mut self.engine {
            Engine::Fast(decoder) => match decoder.decode(&self.annex_b) {
                Ok(None) => return Ok(None),
                Ok(Some(f)) => {
                    let order = self.states_order.then(|| decoder.last_poc());
                    (f.width, f.height, f.y, f.u, f.v, order)
                }
                Err(rusty_h264_decoder::DecodeError::Unsupported(what)) => {
                    // The weights are announced in the picture parameters, so this is no damaged slice.
                    self.wants_wide = what == "explicit B weighted prediction";
                    return Err(if self.wants_wide {
                        Fault::Unsupported(format!("H.264 with {what}"))
                    } else {
                        Fault::corrupt(what)
                    });
                }
                Err(e) => return Err(Fault::corrupt(e.to_string())),
            },
            Engine::Wide(decoder) => {
                let mut frame = None;
                for nal in parse_annex_b(&self.annex_b) {
                    frame = decoder.decode_nal(&nal).map_err(wide_fault)?.or(frame);
                }
                // The packet is complete, so its picture is: `flush` hands it over and keeps the references.
                let Some(f) = decoder.flush().or(frame) else { return Ok(None) };
                let (width, height) = (f.width as usize, f.height as usize);
                if height != self.size.1 {
                    return Err(Fault::Unsupported("H.264 with one field per packet".into()));
                }
                (width, height, f.y, f.u, f.v, None)
            }
        };
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        if (y.len(), u.len(), v.len()) != (width * height, chroma, chroma) {
            return Err(Fault::corrupt("planes of the wrong size"));
        }
        Ok(Some(Picture { width, height, y, u, v, matrix: self.matrix, full_range: self.full_range, order }))
    }
}

fn wide_fault(e: rust_h264::error::DecodeError) -> Fault {
    match e {
        rust_h264::error::DecodeError::Unsupported(what) => Fault::Unsupported(format!("H.264 with {what}")),
        e => Fault::corrupt(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_must_tile_the_packet() {
        assert_eq!(nals(&[0, 2, 0x65, 1, 0, 1, 0x41], 2).unwrap(), [&[0x65u8, 1][..], &[0x41]]);
        assert!(nals(&[0, 9, 0x65, 1], 2).is_err());
        assert!(nals(&[0], 2).is_err());
    }

    #[test]
    fn start_codes_inside_and_forbidden_bits_are_damage() {
        assert!(nals(&[5, 0x65, 0, 0, 1, 7], 1).is_err());
        assert!(nals(&[2, 0xE5, 1], 1).is_err());
        // Emulation prevention and padding are fine.
        assert_eq!(nals(&[6, 0x65, 0, 0, 3, 1, 0], 1).unwrap(), [&[0x65u8, 0, 0, 3, 1][..]]);
    }
}
