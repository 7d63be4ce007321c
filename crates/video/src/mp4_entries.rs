//! Sample entries (`stsd`) of an mp4 video track: there may be several, and H.264 goes by four names.
//!
//! `re_mp4` keeps the first entry only and knows one of the names, so this walk is ours.

use crate::error::Fault;
use crate::frame::ColorMatrix;
use crate::mkv::avc_setup;
use crate::mp4::children;
use crate::table::{Other, Sample, Setup, Stated};

/// Bytes of a visual sample entry before the boxes inside it (ISO/IEC 14496-12, 12.1.3), header included.
const VISUAL: usize = 8 + 78;

/// A sample entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// What it asks of the decoder.
    setup: Result<Setup, Fault>,
    color: Stated,
}

/// The sample entries of a track, in order. `trak` has its 8-byte header.
pub(crate) fn sample_entries(trak: &[u8]) -> Vec<Entry> {
    let mut found = trak;
    for name in [b"mdia", b"minf", b"stbl", b"stsd"] {
        match child(found.get(8..).unwrap_or(&[]), name) {
            Some(child) => found = child,
            None => return Vec::new(),
        }
    }
    // Header, version and flags, count of entries.
    let entries = children(found.get(16..).unwrap_or(&[]));
    let entry = |(name, entry): ([u8; 4], Result<&[u8], Fault>)| match entry {
        Ok(entry) => Entry { setup: setup(&name, entry), color: color(entry) },
        Err(fault) => Entry { setup: Err(fault), color: Stated::default() },
    };
    entries.map(entry).collect()
}

/// The first box of this name in a payload, with its header.
fn child<'a>(payload: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    children(payload).filter_map(|(name, child)| if &name == wanted { child.ok() } else { None }).next()
}

fn setup(name: &[u8; 4], entry: &[u8]) -> Result<Setup, Fault> {
    match name {
        // Parameter sets stand in the entry (1, 2) or, perhaps, in the packets only (3, 4).
        b"avc1" | b"avc2" | b"avc3" | b"avc4" => {
            let Some(record) = child(entry.get(VISUAL..).unwrap_or(&[]), b"avcC") else {
                return Err(Fault::corrupt("its H.264 track has no description (avcC)"));
            };
            avc_setup(record.get(8..).unwrap_or(&[]))
        }
        b"vp09" => Ok(Setup::Vp9),
        b"encv" => Err(Fault::Unsupported("encrypted video".into())),
        _ => Ok(Setup::Other(other(name, entry))),
    }
}

/// What only FFmpeg decodes.
fn other(name: &[u8; 4], entry: &[u8]) -> Other {
    let words = match name {
        b"vp08" => "VP8",
        b"av01" => "AV1",
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => "HEVC",
        b"vvc1" | b"vvi1" => "VVC",
        b"mp4v" => "MPEG-4 part 2",
        b"s263" | b"h263" => "H.263",
        b"jpeg" | b"mjpa" | b"mjpb" => "Motion JPEG",
        b"png " => "PNG",
        b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => "ProRes",
        _ => "",
    };
    let boxes = entry.get(VISUAL..).unwrap_or(&[]);
    let payload = |name: &[u8; 4]| child(boxes, name).and_then(|found| found.get(8..)).map(<[u8]>::to_vec);
    let (stated, described) = match child(boxes, b"esds").and_then(|found| elementary(found.get(12..)?)) {
        Some((kind, described)) => (kind, Some(described)),
        None => (0, None),
    };
    // ISO/IEC 14496-1, table 5: the same box describes other codecs of MPEG's.
    let (words, tag) = match stated {
        0x60..=0x65 => ("MPEG-2", *b"mp2v"),
        0x6A => ("MPEG-1", *b"mp1v"),
        0x6C => ("Motion JPEG", *b"jpeg"),
        _ => (words, *name),
    };
    let side = |at: usize| entry.get(at..at + 2).map_or(0, |b| b.iter().fold(0, |n, &b| n << 8 | usize::from(b)));
    Other {
        name: if words.is_empty() { String::from_utf8_lossy(name).into_owned() } else { words.into() },
        tag,
        riff: false,
        extradata: described.or_else(|| [b"hvcC", b"av1C", b"glbl"].into_iter().find_map(payload)).unwrap_or_default(),
        size: (side(32), side(34)),
    }
}

/// From an elementary stream descriptor (ISO/IEC 14496-1, 7.2.6.5): which codec, and what its decoder needs.
fn elementary(mut bytes: &[u8]) -> Option<(u8, Vec<u8>)> {
    let mut kind = 0;
    loop {
        let (&tag, mut rest) = bytes.split_first()?;
        let mut length = 0usize;
        loop {
            let (&byte, tail) = rest.split_first()?;
            rest = tail;
            length = length << 7 | usize::from(byte & 0x7F);
            if byte & 0x80 == 0 || length > 1 << 24 {
                break;
            }
        }
        match tag {
            // The stream: its number, and flags for three optional fields.
            3 => {
                let &flags = rest.get(2)?;
                let mut skip = 3 + 2 * usize::from(flags >> 7 & 1) + 2 * usize::from(flags >> 5 & 1);
                if flags & 0x40 != 0 {
                    skip += 1 + usize::from(*rest.get(skip)?);
                }
                bytes = rest.get(skip..)?;
            }
            // The decoder's configuration.
            4 => {
                kind = *rest.first()?;
                // An entry without specific information is complete after its 13 bytes.
                bytes = rest.get(13..)?;
                if bytes.first() != Some(&5) {
                    return Some((kind, Vec::new()));
                }
            }
            5 => return Some((kind, rest.get(..length)?.to_vec())),
            _ => bytes = rest.get(length..)?,
        }
    }
}

/// The colours that a sample entry states (ISO/IEC 14496-12, 12.1.5; `nclc` is QuickTime's).
fn color(entry: &[u8]) -> Stated {
    let stated = || {
        let found = child(entry.get(VISUAL..)?, b"colr")?.get(8..)?;
        let matrix = u64::from(u16::from_be_bytes([*found.get(8)?, *found.get(9)?]));
        let full_range = match found.get(..4)? {
            b"nclx" => found.get(10).map(|flags| flags & 0x80 != 0),
            b"nclc" => None,
            _ => return None,
        };
        Some(Stated { matrix: (!matches!(matrix, 0 | 2 | 3)).then(|| ColorMatrix::from_h273(matrix)), full_range })
    };
    stated().unwrap_or_default()
}

/// What the sample entries that are used have in common.
pub(crate) struct Common {
    pub setup: Setup,
    /// The parameter sets of each entry after the first.
    pub other_sets: Vec<Vec<Vec<u8>>>,
    /// Of the first.
    pub color: Stated,
}

/// One decoder for all entries that `samples` use. Samples refer to those afterwards.
pub(crate) fn common_setup(entries: &[Entry], samples: &mut [Sample]) -> Result<Common, Fault> {
    let mut used: Vec<u16> = Vec::new();
    for sample in samples.iter_mut() {
        let at = used.iter().position(|&entry| entry == sample.entry).unwrap_or(used.len());
        if at == used.len() {
            used.push(sample.entry);
        }
        sample.entry = u16::try_from(at).unwrap_or(0);
    }
    let missing = || Err(Fault::corrupt("its frames refer to a description (stsd) that it does not have"));
    let entry = |entry: &u16| entries.get(usize::from(*entry));
    let color = used.first().and_then(entry).map_or(Stated::default(), |entry| entry.color);
    let mut used = used.iter().map(|number| entry(number).map_or_else(missing, |entry| entry.setup.clone()));
    let first = used.next().unwrap_or_else(missing)?;
    let mut other_sets = Vec::new();
    for entry in used {
        match (&first, entry?) {
            (Setup::H264 { length_size, .. }, Setup::H264 { length_size: other, parameter_sets })
                if *length_size == other =>
            {
                other_sets.push(parameter_sets);
            }
            (Setup::Vp9, Setup::Vp9) => {}
            (Setup::Other(first), Setup::Other(other)) if *first == other => {}
            _ => return Err(Fault::Unsupported("a track whose codec changes".into())),
        }
    }
    Ok(Common { setup: first, other_sets, color })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32 + 8).to_be_bytes()[..], name, payload].concat()
    }

    fn entry(boxes: &[u8]) -> Vec<u8> {
        let mut entry = vec![0; VISUAL];
        (entry[33], entry[35]) = (64, 48);
        [entry, boxes.to_vec()].concat()
    }

    #[test]
    fn descriptors_name_codec_and_configuration() {
        let specific = [5, 3, 7, 8, 9];
        let decoder = [&[4, 18, 0x20][..], &[0; 12], &specific].concat();
        let stream = [&[3, 0x80, 0x80, 0x80, 23, 0, 1, 0][..], &decoder].concat();
        let esds = boxed(b"esds", &[&[0; 4][..], &stream].concat());
        let found = other(b"mp4v", &entry(&esds));
        assert_eq!(
            (found.name.as_str(), &found.extradata[..], found.size),
            ("MPEG-4 part 2", &[7, 8, 9][..], (64, 48))
        );
        let mut mpeg2 = esds;
        mpeg2[8 + 4 + 8 + 2] = 0x61;
        assert_eq!(other(b"mp4v", &entry(&mpeg2)).name, "MPEG-2");
        assert_eq!(other(b"abcd", &entry(&[])).name, "abcd");
    }

    #[test]
    fn colours_are_read_where_they_are_stated() {
        let colr = |payload: &[u8]| color(&entry(&boxed(b"colr", payload)));
        let nclx = colr(b"nclx\0\x09\0\x10\0\x09\x80");
        assert_eq!(nclx, Stated { matrix: Some(ColorMatrix::Bt2020), full_range: Some(true) });
        let nclc = colr(b"nclc\0\x01\0\x01\0\x01");
        assert_eq!(nclc, Stated { matrix: Some(ColorMatrix::Bt709), full_range: None });
        assert_eq!(colr(b"prof"), Stated::default());
        assert_eq!(colr(b"nclx\0\x02\0\x02\0\x02\0").matrix, None);
        assert_eq!(color(&[]), Stated::default());
    }
}
