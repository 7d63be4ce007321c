//! What the headers of one H.264 packet say, without decoding it.

use crate::backend::{Number, Start};
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
    /// The packet holds one field only.
    pub field: bool,
    /// A tool that the pure-Rust decoders lack.
    pub unsupported: Option<&'static str>,
}

/// Survey a packet given as units; those that end early are taken as far as they go.
pub(crate) fn survey<'a>(nals: impl Iterator<Item = &'a [u8]>, sets: &Sets) -> Survey {
    let (start, first, number, unsupported) = (Start::No, None, None, None);
    let mut survey = Survey { slices: 0, start, droppable: true, first, number, field: false, unsupported };
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
                survey.unsupported = survey.unsupported.or(unsupported_slice(&slice, sps.bypass));
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
            n if PARTITIONS.contains(&n) => survey.unsupported = Some("H.264 data partitioning"),
            _ => {}
        }
    }
    if late_start {
        survey.unsupported = survey.unsupported.or(Some("H.264 with slices in arbitrary order (ASO)"));
    }
    if !frame && fields[0] != fields[1] {
        survey.field = true;
        survey.unsupported = survey.unsupported.or(Some(FIELD));
    }
    survey.start = match recovery {
        _ if idr => Start::Clean,
        Some(0) if intra => Start::Recovery,
        Some(pictures) => Start::Gradual(pictures),
        None if intra && survey.slices > 0 => Start::Intra,
        None => Start::No,
    };
    survey
}

/// Why packets that hold one field are not decoded.
pub(crate) const FIELD: &str = "H.264 with one field per packet";

fn unsupported_slice(slice: &Slice, bypass: bool) -> Option<&'static str> {
    // The flag alone changes nothing: only a quantiser of zero bypasses the transform.
    match slice.kind {
        3.. => Some("H.264 switching slices (SP, SI)"),
        _ if bypass && slice.qp == 0 => Some("H.264 lossless (transform bypass)"),
        _ => None,
    }
}
