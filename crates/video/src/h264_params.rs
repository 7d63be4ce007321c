//! H.264 parameter sets, as far as order, continuity and support of pictures depend on them (ITU-T H.264, 7.3.2).

use std::collections::BTreeMap;

use crate::h264_bits::Bits;

/// Parameter sets are small; whatever lies beyond is damage.
const LIMIT: usize = 4096;

/// How pictures state their place in display order (8.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PocType {
    /// The low bits of the count stand in every slice.
    Lsb { log2_max: u32 },
    /// A cycle of offsets per reference picture.
    Cycle { always_zero: bool, non_reference: i32, bottom: i32, offsets: Vec<i32> },
    /// Display order is decoding order.
    Decoding,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sps {
    pub id: u32,
    pub profile: u32,
    /// 4:0:0, 4:2:0, 4:2:2, 4:4:4. Separate planes count as monochrome for the syntax of slices.
    pub chroma_format: u32,
    pub separate_planes: bool,
    pub extra_luma_bits: u32,
    /// Macroblocks with a quantiser of zero bypass the transform.
    pub bypass: bool,
    pub log2_max_frame_num: u32,
    pub poc: PocType,
    /// `frame_num` may skip values (temporal layers dropped on purpose).
    pub gaps_allowed: bool,
    /// Where that flag stands in the payload, in bits.
    pub gaps_bit: usize,
    pub frames_only: bool,
    /// How far pictures are reordered at most, where the stream says.
    pub reorder: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pps {
    pub id: u32,
    pub sps: u32,
    pub bottom_field_order: bool,
    pub slice_groups: u32,
    pub references: [u32; 2],
    pub weighted: bool,
    pub weighted_bi: u32,
    pub qp: i32,
    pub redundant: bool,
}

/// The parameter sets seen so far, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sets {
    sps: BTreeMap<u32, Sps>,
    pps: BTreeMap<u32, Pps>,
}

impl Sets {
    /// Take note of a unit that is a parameter set; damaged ones are left to the decoder to complain about.
    pub(crate) fn add(&mut self, nal: &[u8]) {
        match nal.first().map(|b| b & 0x1F) {
            Some(7) => {
                if let Some(sps) = parse_sps(nal) {
                    self.sps.insert(sps.id, sps);
                }
            }
            Some(8) => {
                if let Some(pps) = parse_pps(nal) {
                    self.pps.insert(pps.id, pps);
                }
            }
            _ => {}
        }
    }

    /// The parameter sets that a slice with this `pic_parameter_set_id` uses.
    pub(crate) fn of(&self, pps: u32) -> Option<(&Sps, &Pps)> {
        let pps = self.pps.get(&pps)?;
        Some((self.sps.get(&pps.sps)?, pps))
    }

    pub(crate) fn all_sps(&self) -> impl Iterator<Item = &Sps> {
        self.sps.values()
    }

    /// A coding tool announced here that neither decoder has.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        let slice_groups = self.pps.values().any(|pps| pps.slice_groups > 1);
        slice_groups.then_some("H.264 with slice groups (FMO)")
    }
}

pub(crate) fn parse_sps(nal: &[u8]) -> Option<Sps> {
    let mut b = Bits::of_unit(nal, LIMIT);
    let profile = b.take(8)?;
    b.take(16)?;
    let id = b.ue()?;
    let (mut chroma_format, mut separate_planes, mut extra_luma_bits, mut bypass) = (1, false, 0, false);
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma_format = b.ue()?;
        if chroma_format == 3 {
            separate_planes = b.flag()?;
        }
        extra_luma_bits = b.ue()?;
        b.ue()?;
        bypass = b.flag()?;
        if b.flag()? {
            for i in 0..if chroma_format == 3 { 12 } else { 8 } {
                if b.flag()? {
                    skip_scaling_list(&mut b, if i < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    let log2_max_frame_num = b.ue()?.checked_add(4).filter(|&n| n <= 16)?;
    let poc = parse_poc_type(&mut b)?;
    b.ue()?; // max_num_ref_frames
    let gaps_bit = b.position();
    let gaps_allowed = b.flag()?;
    b.ue()?;
    b.ue()?;
    let frames_only = b.flag()?;
    let reorder = parse_reorder(&mut b, frames_only);
    Some(Sps {
        id,
        profile,
        chroma_format,
        separate_planes,
        extra_luma_bits,
        bypass,
        log2_max_frame_num,
        poc,
        gaps_allowed,
        gaps_bit,
        frames_only,
        reorder,
    })
}

fn parse_poc_type(b: &mut Bits) -> Option<PocType> {
    match b.ue()? {
        0 => Some(PocType::Lsb { log2_max: b.ue()?.checked_add(4).filter(|&n| n <= 16)? }),
        1 => {
            let always_zero = b.flag()?;
            let (non_reference, bottom) = (b.se()?, b.se()?);
            let n = b.ue()?;
            if n > 255 {
                return None;
            }
            let offsets = (0..n).map(|_| b.se()).collect::<Option<_>>()?;
            Some(PocType::Cycle { always_zero, non_reference, bottom, offsets })
        }
        2 => Some(PocType::Decoding),
        _ => None,
    }
}

/// `max_num_reorder_frames` at the end of the usability information (annex E.1.1).
fn parse_reorder(b: &mut Bits, frames_only: bool) -> Option<u32> {
    if !frames_only {
        b.flag()?; // mb_adaptive_frame_field_flag
    }
    b.flag()?; // direct_8x8_inference_flag
    if b.flag()? {
        for _ in 0..4 {
            b.ue()?;
        }
    }
    if !b.flag()? {
        return None;
    }
    if b.flag()? && b.take(8)? == 255 {
        b.take(32)?;
    }
    if b.flag()? {
        b.flag()?;
    }
    if b.flag()? {
        b.take(4)?;
        if b.flag()? {
            b.take(24)?;
        }
    }
    if b.flag()? {
        b.ue()?;
        b.ue()?;
    }
    if b.flag()? {
        b.take(32)?;
        b.take(32)?;
        b.flag()?;
    }
    let nal = b.flag()?;
    if nal {
        skip_hrd(b)?;
    }
    let vcl = b.flag()?;
    if vcl {
        skip_hrd(b)?;
    }
    if nal || vcl {
        b.flag()?;
    }
    b.flag()?; // pic_struct_present_flag
    if !b.flag()? {
        return None;
    }
    b.flag()?;
    for _ in 0..4 {
        b.ue()?;
    }
    b.ue()
}

fn skip_hrd(b: &mut Bits) -> Option<()> {
    let n = b.ue()?;
    b.take(8)?;
    for _ in 0..=n.min(31) {
        b.ue()?;
        b.ue()?;
        b.flag()?;
    }
    b.take(20)?;
    Some(())
}

fn skip_scaling_list(b: &mut Bits, size: usize) -> Option<()> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..size {
        if next != 0 {
            next = (last + b.se()? + 256).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

fn parse_pps(nal: &[u8]) -> Option<Pps> {
    let mut b = Bits::of_unit(nal, LIMIT);
    let (id, sps) = (b.ue()?, b.ue()?);
    b.flag()?; // entropy_coding_mode_flag
    let bottom_field_order = b.flag()?;
    let slice_groups = b.ue()?.saturating_add(1);
    if slice_groups > 1 {
        // The rest is of no use: slice groups are not decoded.
        let (references, weighted, weighted_bi, qp, redundant) = ([1; 2], false, 0, 26, false);
        return Some(Pps {
            id,
            sps,
            bottom_field_order,
            slice_groups,
            references,
            weighted,
            weighted_bi,
            qp,
            redundant,
        });
    }
    let references = [b.ue()?.saturating_add(1), b.ue()?.saturating_add(1)];
    let weighted = b.flag()?;
    let weighted_bi = b.take(2)?;
    let qp = b.se()?.saturating_add(26);
    b.se()?;
    b.se()?;
    b.flag()?;
    b.flag()?;
    let redundant = b.flag()?;
    Some(Pps { id, sps, bottom_field_order, slice_groups, references, weighted, weighted_bi, qp, redundant })
}
