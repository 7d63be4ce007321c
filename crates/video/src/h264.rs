//! H.264 through `rusty_h264-decoder`, or `rust_h264` for interlaced and other streams the first one refuses.

use rust_h264::nal::{NalUnit, NalUnitType, SpsInfo, parse_annex_b, parse_sps_info};

use crate::backend::{Backend, Coded, Look, Picture, Pictures, Start, check_size};
use crate::error::Fault;
use crate::frame::ColorMatrix;
use crate::h264_bits::with_bit_set;
use crate::h264_params::{Sets, parse_sps};
use crate::h264_survey::survey;

const SLICE: u8 = 1;
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Which library decodes.
enum H264Decoder {
    /// Fast: progressive 8-bit 4:2:0.
    Fast(Box<rusty_h264_decoder::Decoder>),
    /// Also interlaced, monochrome, explicit bi-prediction weights, crops at the left or top.
    Wide(Box<rust_h264::decoder::Decoder>),
}

pub(crate) struct H264 {
    decoder: H264Decoder,
    length_size: usize,
    parameter_sets: Vec<Vec<u8>>,
    /// Parameter sets of further sample entries, from entry 1 on.
    others: Vec<(Vec<Vec<u8>>, Sets)>,
    /// The entry whose parameter sets were fed last.
    entry: u16,
    size: (usize, usize),
    matrix: Option<ColorMatrix>,
    full_range: Option<bool>,
    /// The fast decoder's picture order counts are exact (types 0 and 2).
    states_order: bool,
    /// The fast decoder met a tool that only the wide one knows.
    wants_wide: bool,
    /// Parameter sets decoded so far.
    sets: Sets,
    /// References that are not there are made up.
    fill: bool,
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
        let mut sets = Sets::default();
        parameter_sets.iter().for_each(|nal| sets.add(nal));
        if let Some(what) = sets.unsupported() {
            return Err(Fault::Unsupported(what.into()));
        }
        let mut h264 = H264 {
            decoder: if fast_enough(sps, &info) { fast() } else { wide() },
            length_size,
            parameter_sets,
            others: Vec::new(),
            entry: 0,
            size: (info.width as usize, info.height as usize),
            // Code 2 of H.273 is "unspecified".
            matrix: (info.matrix != 2).then(|| ColorMatrix::from_h273(u64::from(info.matrix))),
            full_range: info.full_range.then_some(true),
            states_order: rusty_h264_decoder::Sps::parse(&unit(sps).rbsp).is_ok_and(|s| s.pic_order_cnt_type != 1),
            wants_wide: false,
            sets,
            fill: false,
            annex_b: Vec::new(),
        };
        h264.reset(false)?;
        Ok(h264)
    }

    /// Further sample entries: each brings parameter sets of its own.
    pub(crate) fn with_entries(mut self, others: &[Vec<Vec<u8>>]) -> Self {
        self.others = others
            .iter()
            .map(|units| {
                let mut sets = Sets::default();
                units.iter().for_each(|nal| sets.add(nal));
                (units.clone(), sets)
            })
            .collect();
        self
    }

    fn sets_of(&self, entry: u16) -> &Sets {
        let other = usize::from(entry).checked_sub(1).and_then(|i| self.others.get(i));
        match other {
            Some((_, sets)) if entry != self.entry => sets,
            _ => &self.sets,
        }
    }

    /// Hand the decoder the parameter sets of `entry` if others are in force.
    fn enter(&mut self, entry: u16) -> Result<(), Fault> {
        if entry == self.entry {
            return Ok(());
        }
        self.entry = entry;
        let units = match usize::from(entry).checked_sub(1) {
            None => self.parameter_sets.clone(),
            Some(i) => self.others.get(i).map(|(units, _)| units.clone()).unwrap_or_default(),
        };
        self.feed(units.iter().map(Vec::as_slice)).map(|_| ())
    }
}

fn fast() -> H264Decoder {
    H264Decoder::Fast(Box::new(rusty_h264_decoder::Decoder::new()))
}

fn wide() -> H264Decoder {
    H264Decoder::Wide(Box::new(rust_h264::decoder::Decoder::new()))
}

pub(crate) fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |b| b & 0x1F)
}

/// Parse a sequence parameter set and refuse sizes not worth allocating.
pub(crate) fn sps_info(nal: &[u8]) -> Result<SpsInfo, Fault> {
    let unit = unit(nal);
    let info = parse_sps_info(&unit).map_err(|e| Fault::corrupt(format!("its H.264 parameters: {e}")))?;
    check_size(info.coded_width as usize, info.coded_height as usize)?;
    Ok(info)
}

/// Refuse what neither library decodes as well.
fn check_sps(nal: &[u8]) -> Result<SpsInfo, Fault> {
    let info = sps_info(nal)?;
    if info.bit_depth_luma != 8 || info.bit_depth_chroma != 8 {
        return Err(Fault::Unsupported(format!("H.264 {}-bit", info.bit_depth_luma.max(info.bit_depth_chroma))));
    }
    match info.chroma_format {
        0 | 1 => Ok(info),
        2 => Err(Fault::Unsupported("H.264 4:2:2".into())),
        _ => Err(Fault::Unsupported("H.264 4:4:4".into())),
    }
}

/// Why streams with these parameter sets are not decoded, if so.
pub(crate) fn unsupported(parameter_sets: &[Vec<u8>]) -> Option<Fault> {
    let mut sets = Sets::default();
    parameter_sets.iter().for_each(|nal| sets.add(nal));
    let faults = parameter_sets.iter().filter(|nal| kind(nal) == SPS).filter_map(|nal| check_sps(nal).err());
    let tool = sets.unsupported().map(|what| Fault::Unsupported(what.into()));
    faults.chain(tool).find(|fault| matches!(fault, Fault::Unsupported(_)))
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

/// The fast decoder crops only at the right and bottom, and takes progressive frames only.
fn fast_enough(sps: &[u8], info: &SpsInfo) -> bool {
    let parsed = rusty_h264_decoder::Sps::parse(&unit(sps).rbsp);
    info.progressive && parsed.is_ok_and(|s| s.frame_crop_left == 0 && s.frame_crop_top == 0)
}

/// Split a length-prefixed packet. The units must tile it exactly, and none may contain a start code: both are signs of
/// damage that a decoder would not notice.
pub(crate) fn nals(packet: &[u8], length_size: usize) -> Result<Vec<&[u8]>, Fault> {
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

/// The units of a packet as far as they are there: the last may be incomplete.
pub(crate) fn units(packet: &[u8], length_size: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_at_checked(length_size)?;
        let length = length.iter().fold(0usize, |n, &b| n << 8 | usize::from(b)).min(tail.len());
        let (nal, tail) = tail.split_at_checked(length)?;
        rest = tail;
        Some(nal)
    })
}

impl Backend for H264 {
    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn reset(&mut self, fill: bool) -> Result<(), Fault> {
        self.decoder = match self.decoder {
            H264Decoder::Fast(_) => fast(),
            H264Decoder::Wide(_) => wide(),
        };
        self.fill = fill;
        self.entry = 0;
        let sets = std::mem::take(&mut self.parameter_sets);
        let fed = self.feed(sets.iter().map(Vec::as_slice));
        self.parameter_sets = sets;
        fed.map(|_| ())
    }

    fn look(&self, packet: &[u8], entry: u16) -> Result<Look, Fault> {
        let nals = nals(packet, self.length_size)?;
        let mut own = None;
        for nal in nals.iter().filter(|nal| matches!(kind(nal), SPS | PPS)) {
            if kind(nal) == SPS {
                check_sps(nal)?;
            }
            own.get_or_insert_with(|| self.sets_of(entry).clone()).add(nal);
        }
        let survey = survey(nals.into_iter(), own.as_ref().unwrap_or(self.sets_of(entry)));
        if let Some(what) = survey.unsupported {
            return Err(Fault::Unsupported(what.into()));
        }
        if survey.slices == 0 {
            return Err(Fault::corrupt("a packet without picture"));
        }
        let clean_start = survey.start == Start::Clean;
        Ok(Look { clean_start, droppable: survey.droppable, start: survey.start, number: survey.number })
    }

    fn decode(&mut self, packet: Coded<'_>, out: &mut Pictures) -> Result<(), Fault> {
        self.enter(packet.entry)?;
        let nals = nals(packet.bytes, self.length_size)?;
        match self.feed(nals.into_iter())? {
            Some(picture) => out.push((packet.sample, picture)),
            None => return Err(Fault::corrupt("an incomplete picture")),
        }
        Ok(())
    }

    fn fall_back(&mut self) -> bool {
        if std::mem::take(&mut self.wants_wide) {
            self.decoder = wide();
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
            if matches!(kind(nal), SPS | PPS) {
                self.sets.add(nal);
            }
            // Both decoders make up references where the stream allows gaps in its numbers.
            let filled = if self.fill && kind(nal) == SPS { parse_sps(nal) } else { None };
            match filled {
                Some(sps) => self.annex_b.extend_from_slice(&with_bit_set(nal, sps.gaps_bit)),
                None => self.annex_b.extend_from_slice(nal),
            }
        }
        let (width, height, y, u, v, order) = match &mut self.decoder {
            H264Decoder::Fast(decoder) => match decoder.decode(&self.annex_b) {
                Ok(None) => return Ok(None),
                Ok(Some(f)) => {
                    let order = self.states_order.then(|| decoder.last_poc());
                    (f.width, f.height, f.y, f.u, f.v, order)
                }
                Err(rusty_h264_decoder::DecodeError::Unsupported(what)) => {
                    // The weights are announced in the picture parameters, so this is no damaged slice.
                    self.wants_wide = what == "explicit B weighted prediction";
                    return Err(fast_fault(what));
                }
                Err(e) => return Err(Fault::corrupt(e.to_string())),
            },
            H264Decoder::Wide(decoder) => {
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
        let (matrix, full_range) = (self.matrix, self.full_range);
        Ok(Some(Picture { width, height, y, u, v, chroma_shift: (1, 1), matrix, full_range, order }))
    }
}

/// The fast decoder uses one word for tools it lacks and for values that no stream may hold.
fn fast_fault(what: &'static str) -> Fault {
    const TOOLS: [&str; 7] =
        ["weighted prediction", "transform-bypass", "SP/SI", "FMO", "interlace", "non-4:2:0", "bit depth"];
    match TOOLS.iter().any(|tool| what.contains(tool)) {
        true => Fault::Unsupported(format!("H.264 with {what}")),
        false => Fault::corrupt(what),
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
