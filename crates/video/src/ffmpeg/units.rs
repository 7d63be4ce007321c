//! Units within packets of H.264, HEVC and MPEG-2, as far as they are read before decoding.

use crate::backend::{Look, Start};
use crate::error::Fault;
use crate::h264::{kind, sps_info};
use crate::h264_params::Sets;
use crate::h264_survey::survey;

/// How units lie in a packet of H.264 or HEVC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Units {
    /// Each after its length of so many bytes.
    Prefixed(usize),
    /// Each after a start code.
    StartCodes,
}

pub(super) fn look_h264(nals: Vec<&[u8]>, sets: &Sets) -> Result<Look, Fault> {
    let mut own = None;
    for nal in nals.iter().filter(|nal| matches!(kind(nal), 7 | 8)) {
        if kind(nal) == 7 {
            sps_info(nal)?;
        }
        own.get_or_insert_with(|| sets.clone()).add(nal);
    }
    let survey = survey(nals.into_iter(), own.as_ref().unwrap_or(sets));
    if survey.slices == 0 && survey.unsupported.is_none() {
        return Err(Fault::corrupt("a packet without picture"));
    }
    // One of two fields: the other one, which belongs to the same picture, must not be left out.
    let droppable = survey.droppable && !survey.field;
    // The number of a picture is that of both its fields.
    let number = survey.number.filter(|_| !survey.field);
    Ok(Look { clean_start: survey.start == Start::Clean, droppable, start: survey.start, number })
}

/// The type of the first slice of an HEVC picture (ITU-T H.265, 7.4.2.2).
fn hevc_kind(packet: &[u8], units: Units) -> Option<u8> {
    let kind = |nal: &[u8]| nal.first().map(|b| b >> 1 & 0x3F).filter(|&kind| kind < 32);
    match units {
        Units::Prefixed(size) => crate::h264::units(packet, size).find_map(kind),
        Units::StartCodes => between_start_codes(packet).find_map(kind),
    }
}

pub(super) fn look_hevc(packet: &[u8], units: Units) -> Look {
    let start = match hevc_kind(packet, units) {
        Some(19 | 20) => Start::Clean,
        Some(16..=18 | 21) => Start::Open,
        _ => Start::No,
    };
    Look { clean_start: start == Start::Clean, droppable: false, start, number: None }
}

/// HEVC pictures that refer to what comes before the random access point they follow (RASL).
pub(super) fn hevc_skipped(packet: &[u8], units: Units) -> bool {
    matches!(hevc_kind(packet, units), Some(8 | 9))
}

/// MPEG-2: nothing in the group refers to what precedes it (ISO/IEC 13818-2, 6.2.2.6).
pub(super) fn closed_group(packet: &[u8]) -> bool {
    let at = packet.windows(4).position(|w| w == [0, 0, 1, 0xB8]);
    at.and_then(|at| packet.get(at + 7)).is_some_and(|b| b & 0x40 != 0)
}

pub(super) fn with_start_codes(nals: &[Vec<u8>]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [0, 0, 0, 1].into_iter().chain(nal.iter().copied())).collect()
}

/// The units between start codes.
pub(super) fn between_start_codes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = next_unit(bytes);
    std::iter::from_fn(move || {
        let unit = rest?;
        rest = next_unit(unit);
        let end = unit.windows(3).position(|w| matches!(w, [0, 0, 0 | 1])).unwrap_or(unit.len());
        unit.get(..end)
    })
}

/// What follows the first start code.
fn next_unit(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.windows(3).position(|w| w == [0, 0, 1])?;
    bytes.get(at + 3..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_lie_between_start_codes() {
        let units: Vec<&[u8]> = between_start_codes(&[0, 0, 0, 1, 7, 8, 0, 0, 1, 9, 0, 0, 0, 1, 5]).collect();
        assert_eq!(units, [&[7u8, 8][..], &[9], &[5]]);
        assert_eq!(between_start_codes(&[1, 2, 3]).count(), 0);
    }

    #[test]
    fn random_access_points_of_hevc() {
        let packet = |kind: u8| [0, 0, 0, 2, 35 << 1, 0, 0, 0, 0, 2, kind << 1, 1];
        let start = |kind| look_hevc(&packet(kind), Units::Prefixed(4)).start;
        assert_eq!([start(19), start(21), start(1)], [Start::Clean, Start::Open, Start::No]);
        assert!(hevc_skipped(&packet(9), Units::Prefixed(4)) && !hevc_skipped(&packet(7), Units::Prefixed(4)));
        assert!(hevc_skipped(&[0, 0, 1, 8 << 1, 1], Units::StartCodes));
    }

    #[test]
    fn closed_groups_of_mpeg2() {
        assert!(closed_group(&[0, 0, 1, 0xB8, 0, 8, 0, 0x40, 0]));
        assert!(!closed_group(&[0, 0, 1, 0xB8, 0, 8, 0, 0, 0]) && !closed_group(&[0, 0, 1, 0xB3]));
    }
}
