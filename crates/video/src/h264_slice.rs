//! Headers of H.264 slices, and where a picture stands: its number, its place in display order, what decoding it needs.

use crate::h264_bits::Bits;
use crate::h264_params::{PocType, Pps, Sets, Sps};

/// Bytes of a slice that can belong to its header (weights for 32 references included).
const LIMIT: usize = 768;

/// The header of a slice (7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub first_mb: u32,
    pub pps: u32,
    /// 0 P, 1 B, 2 I, 3 SP, 4 SI.
    pub kind: u32,
    pub idr: bool,
    pub reference: bool,
    pub frame_num: u32,
    /// For a field: is it the bottom one?
    pub bottom: Option<bool>,
    pub lsb: u32,
    pub delta: [i32; 2],
    /// Forgets all references and starts counting anew (memory management operation 5).
    pub forgets: bool,
    pub qp: i32,
    /// A repetition of another slice in case that one is lost.
    pub redundant: bool,
}

impl Slice {
    pub(crate) fn intra(&self) -> bool {
        matches!(self.kind, 2 | 4)
    }
}

/// Parse the header of a slice; `None` when it is damaged or its parameter sets are not known.
pub(crate) fn parse_slice<'a>(nal: &[u8], sets: &'a Sets) -> Option<(Slice, &'a Sps)> {
    let &header = nal.first()?;
    let (idr, reference) = (header & 0x1F == 5, header & 0x60 != 0);
    let mut b = Bits::of_unit(nal, LIMIT);
    let first_mb = b.ue()?;
    let kind = b.ue()? % 5;
    let pps_id = b.ue()?;
    let (sps, pps) = sets.of(pps_id)?;
    if sps.separate_planes {
        b.take(2)?;
    }
    let frame_num = b.take(sps.log2_max_frame_num)?;
    let bottom = if !sps.frames_only && b.flag()? { Some(b.flag()?) } else { None };
    if idr {
        b.ue()?;
    }
    let (mut lsb, mut delta) = (0, [0; 2]);
    match &sps.poc {
        PocType::Lsb { log2_max } => {
            lsb = b.take(*log2_max)?;
            if pps.bottom_field_order && bottom.is_none() {
                delta[1] = b.se()?;
            }
        }
        PocType::Cycle { always_zero: false, .. } => {
            delta[0] = b.se()?;
            if pps.bottom_field_order && bottom.is_none() {
                delta[1] = b.se()?;
            }
        }
        PocType::Cycle { .. } | PocType::Decoding => {}
    }
    let redundant = pps.redundant && b.ue()? > 0;
    skip_references(&mut b, kind, sps, pps)?;
    let forgets = reference && parse_marking(&mut b, idr)?;
    let qp = parse_qp(&mut b, nal, kind, pps)?;
    let pps = pps_id;
    Some((Slice { first_mb, pps, kind, idr, reference, frame_num, bottom, lsb, delta, forgets, qp, redundant }, sps))
}

/// Reference counts, reordering and weights (7.3.3.1, 7.3.3.2).
fn skip_references(b: &mut Bits, kind: u32, sps: &Sps, pps: &Pps) -> Option<()> {
    let lists = match kind {
        0 | 3 => 1,
        1 => 2,
        _ => 0,
    };
    if kind == 1 {
        b.flag()?; // direct_spatial_mv_pred_flag
    }
    let mut counts = pps.references;
    if lists > 0 && b.flag()? {
        for count in counts.iter_mut().take(lists) {
            *count = b.ue()?.saturating_add(1);
        }
    }
    for _ in 0..lists {
        if b.flag()? {
            while b.ue()? != 3 {
                b.ue()?;
            }
        }
    }
    if (pps.weighted && matches!(kind, 0 | 3)) || (pps.weighted_bi == 1 && kind == 1) {
        let chroma = sps.chroma_format != 0 && !sps.separate_planes;
        b.ue()?;
        if chroma {
            b.ue()?;
        }
        for &count in counts.iter().take(lists) {
            for _ in 0..count.min(32) {
                if b.flag()? {
                    b.se()?;
                    b.se()?;
                }
                if chroma && b.flag()? {
                    for _ in 0..4 {
                        b.se()?;
                    }
                }
            }
        }
    }
    Some(())
}

/// Reference marking (7.3.3.3); true when it holds operation 5.
fn parse_marking(b: &mut Bits, idr: bool) -> Option<bool> {
    if idr {
        b.take(2)?;
        return Some(false);
    }
    let mut forgets = false;
    if b.flag()? {
        loop {
            match b.ue()? {
                0 => break,
                3 => {
                    b.ue()?;
                    b.ue()?;
                }
                1 | 2 | 4 | 6 => {
                    b.ue()?;
                }
                5 => forgets = true,
                _ => return None,
            }
        }
    }
    Some(forgets)
}

fn parse_qp(b: &mut Bits, nal: &[u8], kind: u32, pps: &Pps) -> Option<i32> {
    // cabac_init_idc comes first where the entropy coder is CABAC; it does not in I slices, whose quantiser is all that
    // is asked for here. Data partitions end their header in another way.
    if !matches!(kind, 2 | 4) || nal.first().is_some_and(|b| b & 0x1F == 2) {
        return Some(pps.qp);
    }
    Some(pps.qp.saturating_add(b.se()?))
}

/// Counts pictures in display order (8.2.1).
#[derive(Debug, Default)]
pub(crate) struct Counter {
    /// Coded video sequences so far: counts of a later one come after all of an earlier one.
    sequence: u32,
    msb: i64,
    lsb: i64,
    frame_num: i64,
    offset: i64,
}

impl Counter {
    /// The place of the picture that starts with `slice`: its sequence, and its count within that.
    pub(crate) fn place(&mut self, slice: &Slice, sps: &Sps) -> (u32, i64) {
        if slice.idr {
            *self = Counter { sequence: self.sequence.saturating_add(1), ..Counter::default() };
        }
        let max_frame_num = 1i64 << sps.log2_max_frame_num;
        let frame_num = i64::from(slice.frame_num);
        if self.frame_num > frame_num {
            self.offset += max_frame_num;
        }
        self.frame_num = frame_num;
        let [top, bottom] = match &sps.poc {
            PocType::Lsb { log2_max } => self.lsb_order(slice, 1i64 << log2_max),
            PocType::Cycle { non_reference, bottom, offsets, .. } => {
                let top = self.cycle_order(slice, *non_reference, offsets) + i64::from(slice.delta[0]);
                [top, top + i64::from(*bottom) + i64::from(slice.delta[1])]
            }
            PocType::Decoding => [2 * (self.offset + frame_num) - i64::from(!slice.reference); 2],
        };
        let count = match slice.bottom {
            None => top.min(bottom),
            Some(false) => top,
            Some(true) => bottom,
        };
        if !slice.forgets {
            return (self.sequence, count);
        }
        // All pictures before it are shown before it, and counting goes on from it.
        let lsb = if slice.bottom == Some(true) { 0 } else { top - count };
        *self = Counter { sequence: self.sequence.saturating_add(1), lsb, ..Counter::default() };
        (self.sequence, 0)
    }

    fn lsb_order(&mut self, slice: &Slice, max: i64) -> [i64; 2] {
        let lsb = i64::from(slice.lsb);
        let msb = if lsb < self.lsb && self.lsb - lsb >= max / 2 {
            self.msb + max
        } else if lsb > self.lsb && lsb - self.lsb > max / 2 {
            self.msb - max
        } else {
            self.msb
        };
        if slice.reference {
            (self.msb, self.lsb) = (msb, lsb);
        }
        [msb + lsb, msb + lsb + i64::from(slice.delta[1])]
    }

    fn cycle_order(&self, slice: &Slice, non_reference: i32, offsets: &[i32]) -> i64 {
        let mut number = if offsets.is_empty() { 0 } else { self.offset + i64::from(slice.frame_num) };
        if !slice.reference && number > 0 {
            number -= 1;
        }
        let mut count = 0;
        if number > 0 {
            let (cycles, rest) = ((number - 1) / offsets.len() as i64, (number - 1) as usize % offsets.len());
            count = cycles * offsets.iter().map(|&o| i64::from(o)).sum::<i64>();
            count += offsets.iter().take(rest + 1).map(|&o| i64::from(o)).sum::<i64>();
        }
        if slice.reference { count } else { count + i64::from(non_reference) }
    }
}

/// `recovery_frame_cnt` of a recovery point message (annex D.1.8) in a unit of supplemental information.
pub(crate) fn recovery_point(nal: &[u8]) -> Option<u32> {
    let mut b = Bits::of_unit(nal, 1 << 16);
    let varied = |b: &mut Bits| {
        let mut n = 0usize;
        loop {
            let byte = b.take(8)?;
            n += byte as usize;
            if byte != 255 {
                return Some(n);
            }
        }
    };
    loop {
        let (kind, size) = (varied(&mut b)?, varied(&mut b)?);
        if kind == 6 {
            return b.ue();
        }
        for _ in 0..size {
            b.take(8)?;
        }
    }
}
