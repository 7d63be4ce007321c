//! What the headers of one H.264 packet say, without decoding it.

use crate::backend::{Number, Start};
use crate::error::Fault;
use crate::h264_params::Sets;
use crate::h264_slice::{Slice, parse_slice, recovery_point};

const SLICE: u8 = 1;
const PARTITIONS: std::ops::RangeInclusive<u8> = 2..=4;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// One packet, which holds one picture.
#[derive(Debug, Clone)]
pub(crate) struct Survey {
    pub slices: usize,
    pub start: Start,
    /// Nothing is predicted from it and it changes no parameters.
    pub droppable: bool,
    /// The first slice, unless its header or parameter sets are damaged.
    pub first: Option<Slice>,
    pub number: Option<Number>,
}

/// Survey a packet given as units; those that end early are taken as far as they go.
pub(crate) fn survey<'a>(nals: impl Iterator<Item = &'a [u8]>, sets: &Sets) -> Result<Survey, Fault> {
    let mut survey = Survey { slices: 0, start: Start::No, droppable: true, first: None, number: None };
    let (mut idr, mut intra, mut recovery) = (false, true, None);
    let mut fields = [false; 2];
    let (mut late_start, mut frame) = (false, false);
    for nal in nals {
        let Some(&header) = nal.first() else { continue };
        match header & 0x1F {
            kind @ (SLICE | IDR) => {
                survey.slices += 1;
                idr |= kind == IDR;
                survey.droppable &= header & 0x60 == 0;
                let Some((slice, sps)) = parse_slice(nal, sets) else {
                    intra = false;
                    continue;
                };
                check_slice(&slice, sps.bypass)?;
                intra &= slice.intra();
                frame |= slice.bottom.is_none();
                if let Some(bottom) = slice.bottom.and_then(|bottom| fields.get_mut(usize::from(bottom))) {
                    *bottom = true;
                }
                late_start |= slice.first_mb == 0 && survey.first.is_some_and(|first| first.first_mb != 0);
                if survey.first.is_none() {
                    survey.first = Some(slice);
                    survey.number = Some(Number {
                        frame_num: slice.frame_num,
                        modulus: 1 << sps.log2_max_frame_num,
                        gaps_allowed: sps.gaps_allowed,
                        reference: slice.reference,
                        restarts: slice.idr,
                        forgets: slice.forgets,
                    });
                }
            }
            SEI => recovery = recovery.or_else(|| recovery_point(nal)),
            SPS | PPS => survey.droppable = false,
            n if PARTITIONS.contains(&n) => return Err(Fault::Unsupported("H.264 data partitioning".into())),
            _ => {}
        }
    }
    if late_start {
        return Err(Fault::Unsupported("H.264 with slices in arbitrary order (ASO)".into()));
    }
    if !frame && fields[0] != fields[1] {
        return Err(Fault::Unsupported("H.264 with one field per packet".into()));
    }
    survey.start = match recovery {
        _ if idr => Start::Clean,
        Some(0) if intra => Start::Recovery,
        Some(pictures) => Start::Gradual(pictures),
        None if intra && survey.slices > 0 => Start::Intra,
        None => Start::No,
    };
    Ok(survey)
}

fn check_slice(slice: &Slice, bypass: bool) -> Result<(), Fault> {
    if slice.kind > 2 {
        return Err(Fault::Unsupported("H.264 switching slices (SP, SI)".into()));
    }
    // The flag alone changes nothing: only a quantiser of zero bypasses the transform.
    if bypass && slice.qp == 0 {
        return Err(Fault::Unsupported("H.264 lossless (transform bypass)".into()));
    }
    Ok(())
}
