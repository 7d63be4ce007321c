//! What of a track is shown: packets that show nothing, and pictures that cannot be decoded.

use std::io::{Read, Seek, SeekFrom};

use super::units::{Units, closed_group, hevc_skipped};
use super::{Id, codec_of, vop};
use crate::error::Fault;
use crate::table::{Other, Sample};

/// Mark samples that show nothing or cannot be decoded; returns how many pictures of the latter kind there are.
pub(crate) fn inspect(
    file: &mut (impl Read + Seek),
    len: u64,
    other: &Other,
    samples: &mut [Sample],
) -> Result<usize, Fault> {
    let codec = codec_of(other)?;
    let mut packet = Vec::new();
    let mut read = |sample: &Sample, most: u64| -> Result<Vec<u8>, Fault> {
        packet.clear();
        if sample.offset.saturating_add(u64::from(sample.size)) <= len {
            file.seek(SeekFrom::Start(sample.offset))?;
            file.by_ref().take(most.min(u64::from(sample.size))).read_to_end(&mut packet)?;
        }
        Ok(packet.clone())
    };
    let mut vops = vop::Vops::default();
    vops.header(&other.extradata);
    if matches!(codec, Id::AV_CODEC_ID_VP8 | Id::AV_CODEC_ID_MPEG4) {
        for sample in samples.iter_mut() {
            let bytes = read(sample, if codec == Id::AV_CODEC_ID_VP8 { 1 } else { u64::MAX })?;
            sample.visible &= bytes.is_empty() || shows(codec, &bytes, &mut vops);
        }
    }
    let units = match other.extradata.get(21) {
        Some(bits) if other.extradata.first() == Some(&1) => Units::Prefixed(usize::from(bits & 3) + 1),
        _ => Units::StartCodes,
    };
    leading(codec, units, samples, |_, sample| read(sample, 4096))
}

/// Does a packet show a picture?
pub(super) fn shows(codec: Id, packet: &[u8], vops: &mut vop::Vops) -> bool {
    match codec {
        // RFC 6386, 9.1: the fifth bit.
        Id::AV_CODEC_ID_VP8 => packet.first().is_none_or(|b| b >> 4 & 1 == 1),
        Id::AV_CODEC_ID_MPEG4 => vops.shows(packet),
        _ => true,
    }
}

/// Hide what precedes the first key frame, and what follows it, is shown before it and needs what came before.
pub(super) fn leading(
    codec: Id,
    units: Units,
    samples: &mut [Sample],
    mut read: impl FnMut(usize, &Sample) -> Result<Vec<u8>, Fault>,
) -> Result<usize, Fault> {
    let Some(first) = samples.iter().position(|sample| sample.key) else {
        return Err(Fault::corrupt("it has no picture that decoding could start from"));
    };
    let key = samples.get(first).copied();
    let closed = match (codec, key) {
        (Id::AV_CODEC_ID_MPEG1VIDEO | Id::AV_CODEC_ID_MPEG2VIDEO, Some(key)) => closed_group(&read(first, &key)?),
        _ => false,
    };
    let mut left_out = 0;
    for (i, sample) in samples.iter_mut().enumerate() {
        // Leading pictures follow at once; the next key frame ends them.
        if i > first && sample.key {
            break;
        }
        let before = i < first;
        let early = i > first && key.is_some_and(|key| sample.pts < key.pts) && !closed;
        let lacks = early && (codec != Id::AV_CODEC_ID_HEVC || hevc_skipped(&read(i, sample)?, units));
        if before || lacks {
            left_out += usize::from(std::mem::take(&mut sample.visible));
        }
    }
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_pictures_are_left_out() {
        let mut samples: Vec<Sample> =
            [(5, false), (10, true), (8, false), (9, false), (14, false), (20, true), (18, false)]
                .map(|(pts, key)| Sample { offset: 0, size: 1, pts, key, visible: true, entry: 0 })
                .to_vec();
        let hidden = leading(Id::AV_CODEC_ID_MPEG4, Units::StartCodes, &mut samples, |_, _| Ok(Vec::new())).unwrap();
        let visible: Vec<bool> = samples.iter().map(|s| s.visible).collect();
        assert_eq!((hidden, visible), (3, vec![false, true, false, false, true, true, true]));
    }
}
