//! Sample entries (`stsd`) of an mp4 video track: there may be several, and H.264 goes by four names.
//!
//! `re_mp4` keeps the first entry only and knows one of the names, so this walk is ours.

use crate::error::Fault;
use crate::mkv::avc_setup;
use crate::mp4::children;
use crate::table::{Sample, Setup};

/// Bytes of a visual sample entry before the boxes inside it (ISO/IEC 14496-12, 12.1.3), header included.
const VISUAL: usize = 8 + 78;

/// What each sample entry of a track asks of the decoder, in order. `trak` has its 8-byte header.
pub(crate) fn sample_entries(trak: &[u8]) -> Vec<Result<Setup, Fault>> {
    let mut found = trak;
    for name in [b"mdia", b"minf", b"stbl", b"stsd"] {
        let inside = children(found.get(8..).unwrap_or(&[]));
        match inside.filter_map(|(n, child)| if &n == name { child.ok() } else { None }).next() {
            Some(child) => found = child,
            None => return Vec::new(),
        }
    }
    // Header, version and flags, count of entries.
    children(found.get(16..).unwrap_or(&[])).map(|(name, entry)| setup(&name, entry?)).collect()
}

fn setup(name: &[u8; 4], entry: &[u8]) -> Result<Setup, Fault> {
    let unsupported = |codec: &str| Err(Fault::Unsupported(codec.into()));
    match name {
        // Parameter sets stand in the entry (1, 2) or, perhaps, in the packets only (3, 4).
        b"avc1" | b"avc2" | b"avc3" | b"avc4" => {
            let boxes = children(entry.get(VISUAL..).unwrap_or(&[]));
            let record = boxes.filter_map(|(name, child)| if &name == b"avcC" { child.ok() } else { None }).next();
            let Some(record) = record else { return Err(Fault::corrupt("its H.264 track has no description (avcC)")) };
            avc_setup(record.get(8..).unwrap_or(&[]))
        }
        b"vp09" => Ok(Setup::Vp9),
        b"vp08" => unsupported("VP8"),
        b"av01" => unsupported("AV1"),
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => unsupported("HEVC"),
        b"vvc1" | b"vvi1" => unsupported("VVC"),
        b"mp4v" => unsupported("MPEG-4 part 2"),
        b"s263" | b"h263" => unsupported("H.263"),
        b"jpeg" | b"mjpa" | b"mjpb" => unsupported("Motion JPEG"),
        b"png " => unsupported("PNG"),
        b"encv" => unsupported("encrypted video"),
        b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => unsupported("ProRes"),
        other => unsupported(&String::from_utf8_lossy(other)),
    }
}

/// The parameter sets of each sample entry after the first.
pub(crate) type LaterSets = Vec<Vec<Vec<u8>>>;

/// One decoder for all entries that `samples` use: its setup, and the parameter sets of the entries after the first.
/// Samples refer to those afterwards.
pub(crate) fn common_setup(
    entries: &[Result<Setup, Fault>],
    samples: &mut [Sample],
) -> Result<(Setup, LaterSets), Fault> {
    let mut used: Vec<u16> = Vec::new();
    for sample in samples.iter_mut() {
        let at = used.iter().position(|&entry| entry == sample.entry).unwrap_or(used.len());
        if at == used.len() {
            used.push(sample.entry);
        }
        sample.entry = u16::try_from(at).unwrap_or(0);
    }
    let missing = || Err(Fault::corrupt("its frames refer to a description (stsd) that it does not have"));
    let mut used = used.into_iter().map(|entry| entries.get(usize::from(entry)).cloned().unwrap_or_else(missing));
    let first = used.next().unwrap_or_else(missing)?;
    let mut others = Vec::new();
    for entry in used {
        match (&first, entry?) {
            (Setup::H264 { length_size, .. }, Setup::H264 { length_size: other, parameter_sets })
                if *length_size == other =>
            {
                others.push(parameter_sets);
            }
            (Setup::Vp9, Setup::Vp9) => {}
            _ => return Err(Fault::Unsupported("a track whose codec changes".into())),
        }
    }
    Ok((first, others))
}
