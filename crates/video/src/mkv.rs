//! webm and mkv: walk the clusters for an exact index, and let `matroska-demuxer` parse the track headers.
//!
//! The walk reads block headers and skips the data, so opening a long file costs little and a file cut off anywhere keeps
//! its intact part. `matroska-demuxer` sees a small file in memory made of the `Info` and `Tracks` elements alone: its seek
//! tables and cues may point past the end of a cut file, and are not needed.

use std::io::{Read, Seek, SeekFrom};

use matroska_demuxer::{Info, MatrixCoefficients, MatroskaFile, Range, TrackEntry, TrackType};

use crate::error::Fault;
use crate::frame::{ColorMatrix, Orientation};
use crate::guard::{Budgeted, contained};
use crate::look::{SampleFile, index};
use crate::mkv_cut::Cut;
use crate::table::{Other, Sample, Setup, Stated, Track, typical_step};

const EBML: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_A966;
const TRACKS: u32 = 0x1654_AE6B;
const CLUSTER: u32 = 0x1F43_B675;
const TIMESTAMP: u32 = 0xE7;
const SIMPLE_BLOCK: u32 = 0xA3;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const REFERENCE_BLOCK: u32 = 0xFB;
/// What stands beside clusters and holds no frames: seek head, cues, chapters, tags, attachments, padding.
const BESIDE: [u32; 6] = [0x114D_9B74, 0x1C53_BB6B, 0x1043_A770, 0x1254_C367, 0x1941_A469, 0xEC];

/// Track headers larger than this are damage, not description.
const MAX_HEADER: u64 = 1 << 24;

/// Index the video track of a webm or mkv of `len` bytes.
pub(crate) fn read_track(file: &mut (impl Read + Seek), len: u64, wide: bool) -> Result<Track, Fault> {
    let mut walk = Walk { file: &mut *file, len, headers: Vec::new(), blocks: Vec::new(), cut: None };
    walk.run()?;
    let (headers, blocks, cut) = (walk.headers, walk.blocks, walk.cut);
    // The first decodable video track: cover pictures and other codecs may come before it. FFmpeg decodes them all.
    let mut first = None;
    for header in contained(|| parse_headers(&headers, cut.is_some(), wide))? {
        match header.and_then(|header| describe(file, len, header, &blocks, cut, wide)) {
            Err(fault @ Fault::Unsupported(_)) => first = first.or(Some(fault)),
            result => return result,
        }
    }
    Err(first.unwrap_or(Fault::AudioOnly))
}

fn describe(
    file: &mut (impl Read + Seek),
    len: u64,
    header: Header,
    blocks: &[Block],
    cut: Option<Cut>,
    wide: bool,
) -> Result<Track, Fault> {
    let mut samples = Vec::new();
    for block in blocks.iter().filter(|b| b.track == header.number && b.size > 0) {
        if block.laced {
            return Err(Fault::Unsupported("several frames laced into one Matroska block".into()));
        }
        let Ok(size) = u32::try_from(block.size) else { return Err(Fault::corrupt("a block of more than 4 GiB")) };
        let (offset, pts, key, visible) = (block.offset, block.time, block.key, !block.invisible);
        samples.push(Sample { offset, size, pts, key, visible, entry: 0 });
    }
    if samples.is_empty() {
        return Err(if cut.is_some() {
            Fault::Cut("no frame of it is left".into())
        } else {
            Fault::corrupt("it has no frames")
        });
    }
    let source = SampleFile { file, len, seconds_per_tick: header.seconds_per_tick, complete: true, wide };
    let (shown, left_out) = index(source, &header.setup, &[], &mut samples, &[])?;
    let last = shown.last().map_or(0.0, |s| s.time);
    let step = header.frame_seconds.unwrap_or_else(|| typical_step(&shown));
    let orientation = Orientation::default();
    let ends = blocks.iter().map(|block| block.time).max().unwrap_or(0) as f64 * header.seconds_per_tick;
    let lost_end = cut.is_some_and(|cut| cut.loses_frames(ends + step, header.duration));
    let Header { setup, color, .. } = header;
    let (other_sets, duration, cut) = (Vec::new(), last + step, cut.is_some());
    Ok(Track { setup, other_sets, orientation, color, samples, shown, duration, cut, lost_end, left_out })
}

struct Block {
    track: u64,
    /// Ticks.
    time: i64,
    offset: u64,
    size: u64,
    key: bool,
    invisible: bool,
    laced: bool,
}

struct Walk<'a, F> {
    file: &'a mut F,
    len: u64,
    /// `Info` and `Tracks`, as they stand in the file, as a segment of their own.
    headers: Vec<u8>,
    blocks: Vec<Block>,
    cut: Option<Cut>,
}

/// An element: id, where its data starts, and its size unless the writer left it open (live streams).
struct Element {
    id: u32,
    at: u64,
    size: Option<u64>,
}

impl<F: Read + Seek> Walk<'_, F> {
    fn run(&mut self) -> Result<(), Fault> {
        let Some(ebml) = self.element(0)? else { return Err(Fault::corrupt("it ends inside its header")) };
        if ebml.id != EBML {
            return Err(Fault::NotAVideo("no EBML header".into()));
        }
        self.copy(0, &ebml)?;
        // A segment of unknown size, so that it ends where our copy ends.
        self.headers.extend_from_slice(&SEGMENT.to_be_bytes());
        self.headers.extend_from_slice(&[0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        let mut at = ebml.at + ebml.size.unwrap_or(0);
        let mut cluster_time = 0i64;
        let mut group_end = 0u64;
        while at < self.len {
            let Some(e) = self.element(at)? else {
                self.cut = self.cut.or(Some(Cut::Between));
                break;
            };
            let end = e.size.and_then(|s| e.at.checked_add(s));
            let inside = end.is_some_and(|end| end <= self.len);
            match e.id {
                SEGMENT if end.is_some_and(|end| end > self.len) => {
                    self.cut = Some(Cut::Between);
                    at = e.at;
                    continue;
                }
                CLUSTER if end.is_some_and(|end| end > self.len) => {
                    self.cut = Some(Cut::Frames);
                    at = e.at;
                    continue;
                }
                SEGMENT | CLUSTER => {
                    at = e.at;
                    continue;
                }
                BLOCK_GROUP => {
                    if !inside {
                        self.cut = Some(Cut::Frames);
                    }
                    group_end = end.unwrap_or(e.at);
                    at = e.at;
                    continue;
                }
                _ if !inside => {
                    let beside = BESIDE.contains(&e.id) && self.cut != Some(Cut::Frames);
                    self.cut = Some(if beside { Cut::Beside } else { Cut::Frames });
                    break;
                }
                INFO | TRACKS => self.copy(at, &e)?,
                TIMESTAMP => cluster_time = i64::try_from(self.unsigned(&e)?).unwrap_or(i64::MAX),
                SIMPLE_BLOCK => self.block(&e, cluster_time, true)?,
                BLOCK => self.block(&e, cluster_time, false)?,
                REFERENCE_BLOCK if e.at < group_end => {
                    if let Some(block) = self.blocks.last_mut() {
                        block.key = false;
                    }
                }
                _ => {}
            }
            at = end.unwrap_or(self.len);
        }
        Ok(())
    }

    /// The element at `at`; `None` when the file ends inside its header.
    fn element(&mut self, at: u64) -> Result<Option<Element>, Fault> {
        self.file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::with_capacity(12);
        self.file.take(12).read_to_end(&mut bytes)?;
        let Some(&first) = bytes.first() else { return Ok(None) };
        let id_len = first.leading_zeros() as usize + 1;
        if id_len > 4 {
            return Err(Fault::corrupt(format!("no Matroska element at byte {at}")));
        }
        let Some(id) = bytes.get(..id_len) else { return Ok(None) };
        let id = id.iter().fold(0u32, |id, &b| id << 8 | u32::from(b));
        let rest = bytes.get(id_len..).unwrap_or(&[]);
        let Some((size, used)) = vint(rest) else {
            let damaged = rest.first() == Some(&0);
            return if damaged { Err(Fault::corrupt(format!("no Matroska element at byte {at}"))) } else { Ok(None) };
        };
        Ok(Some(Element { id, at: at + (id_len + used) as u64, size }))
    }

    /// Append the element, header included, to the headers.
    fn copy(&mut self, at: u64, e: &Element) -> Result<(), Fault> {
        let bytes = (e.at - at).saturating_add(e.size.unwrap_or(u64::MAX));
        if self.headers.len() as u64 + bytes > MAX_HEADER {
            return Err(Fault::corrupt("its track description is impossibly long"));
        }
        self.file.seek(SeekFrom::Start(at))?;
        if self.file.take(bytes).read_to_end(&mut self.headers)? as u64 != bytes {
            return Err(Fault::Cut("it ends inside its header".into()));
        }
        Ok(())
    }

    fn unsigned(&mut self, e: &Element) -> Result<u64, Fault> {
        let mut bytes = Vec::with_capacity(8);
        self.file.seek(SeekFrom::Start(e.at))?;
        self.file.take(e.size.unwrap_or(0).min(8)).read_to_end(&mut bytes)?;
        Ok(bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn block(&mut self, e: &Element, cluster_time: i64, simple: bool) -> Result<(), Fault> {
        let mut bytes = Vec::with_capacity(12);
        self.file.seek(SeekFrom::Start(e.at))?;
        self.file.take(e.size.unwrap_or(0).min(12)).read_to_end(&mut bytes)?;
        let parsed = vint(&bytes).and_then(|(track, used)| match bytes.get(used..used + 3) {
            Some(&[t0, t1, flags]) => Some((track?, i16::from_be_bytes([t0, t1]), flags, used as u64 + 3)),
            _ => None,
        });
        let Some((track, shift, flags, header)) = parsed else { return Err(Fault::corrupt("a block without header")) };
        self.blocks.push(Block {
            track,
            time: cluster_time.saturating_add(i64::from(shift)),
            offset: e.at + header,
            size: e.size.unwrap_or(0).saturating_sub(header),
            // A block in a group is a key frame unless a ReferenceBlock follows.
            key: !simple || flags & 0x80 != 0,
            invisible: flags & 0x08 != 0,
            laced: flags & 0x06 != 0,
        });
        Ok(())
    }
}

/// A variable-length integer and the bytes it takes; the integer is `None` for the reserved "unknown" value.
fn vint(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let &first = bytes.first()?;
    let n = first.leading_zeros() as usize + 1;
    let rest = bytes.get(1..n).filter(|_| n <= 8)?;
    let value = rest.iter().fold(u64::from(first) & (0x7F >> (n - 1)), |v, &b| v << 8 | u64::from(b));
    let unknown = value == (1u64 << (7 * n)) - 1;
    Some(((!unknown).then_some(value), n))
}

struct Header {
    number: u64,
    setup: Setup,
    color: Stated,
    seconds_per_tick: f64,
    frame_seconds: Option<f64>,
    /// Seconds that the longest track takes, where the file says it.
    duration: Option<f64>,
}

/// The video tracks.
fn parse_headers(headers: &[u8], cut: bool, wide: bool) -> Result<Vec<Result<Header, Fault>>, Fault> {
    // An empty cluster, which the parser insists on.
    let mut bytes = headers.to_vec();
    bytes.extend_from_slice(&CLUSTER.to_be_bytes());
    bytes.push(0x80);
    let file = MatroskaFile::open(Budgeted::new(&bytes)).map_err(|e| match cut {
        true => Fault::Cut(format!("its track description is missing ({e})")),
        false => Fault::corrupt(format!("its track description: {e}")),
    })?;
    let videos = file.tracks().iter().filter(|t| t.track_type() == TrackType::Video);
    Ok(videos.map(|track| video_track(track, file.info(), wide)).collect())
}

fn video_track(track: &TrackEntry, info: &Info, wide: bool) -> Result<Header, Fault> {
    let seconds_per_tick = info.timestamp_scale().get() as f64 * 1e-9;
    if track.content_encodings().is_some_and(|e| !e.is_empty()) {
        return Err(Fault::Unsupported("compressed or encrypted Matroska track".into()));
    }
    let setup = match track.codec_id() {
        "V_VP9" => Setup::Vp9,
        "V_MPEG4/ISO/AVC" => avc_setup(track.codec_private().unwrap_or(&[]))?,
        other => Setup::Other(other_setup(other, track)),
    };
    if let Some(fault) = setup.unsupported().filter(|_| !wide) {
        return Err(fault);
    }
    Ok(Header {
        number: track.track_number().get(),
        setup,
        color: color(track),
        seconds_per_tick,
        frame_seconds: track.default_duration().map(|ns| ns.get() as f64 * 1e-9),
        duration: info.duration().map(|ticks| ticks * seconds_per_tick).filter(|seconds| *seconds > 0.0),
    })
}

/// What only FFmpeg decodes, under the four characters that mp4 has for it.
fn other_setup(codec: &str, track: &TrackEntry) -> Other {
    let private = track.codec_private().unwrap_or(&[]);
    let four = |at: usize| private.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).unwrap_or_default();
    let own = private.to_vec();
    let (name, tag, extradata) = match codec {
        "V_AV1" => ("AV1", *b"av01", own),
        "V_MPEGH/ISO/HEVC" => ("HEVC", *b"hvc1", own),
        "V_VP8" => ("VP8", *b"vp08", own),
        "V_MJPEG" => ("Motion JPEG", *b"jpeg", own),
        "V_MPEG4/ISO/ASP" | "V_MPEG4/ISO/SP" | "V_MPEG4/ISO/AP" => ("MPEG-4 part 2", *b"mp4v", own),
        "V_MPEG2" => ("MPEG-2", *b"mp2v", own),
        "V_MPEG1" => ("MPEG-1", *b"mp1v", own),
        "V_PRORES" => ("ProRes", four(0), Vec::new()),
        // A bitmap header as AVI has it.
        "V_MS/VFW/FOURCC" => ("a codec of Video for Windows", four(16), own.get(40..).unwrap_or(&[]).to_vec()),
        other => (other, [0; 4], own),
    };
    let pixels = |n: std::num::NonZeroU64| usize::try_from(n.get()).unwrap_or(usize::MAX);
    let size = track.video().map_or((0, 0), |v| (pixels(v.pixel_width()), pixels(v.pixel_height())));
    Other { name: name.into(), tag, riff: codec == "V_MS/VFW/FOURCC", extradata, size }
}

/// Only what the container states; the bitstream speaks otherwise.
fn color(track: &TrackEntry) -> Stated {
    let Some(colour) = track.video().and_then(|video| video.colour()) else { return Stated::default() };
    let full_range = match colour.range() {
        Some(Range::Full) => Some(true),
        Some(Range::Broadcast) => Some(false),
        _ => None,
    };
    Stated { matrix: colour.matrix_coefficients().and_then(matrix), full_range }
}

fn matrix(coefficients: MatrixCoefficients) -> Option<ColorMatrix> {
    Some(match coefficients {
        MatrixCoefficients::Bt709 => ColorMatrix::Bt709,
        MatrixCoefficients::Bt470bg | MatrixCoefficients::Smpte170 => ColorMatrix::Bt601,
        MatrixCoefficients::Bt2020Ncl | MatrixCoefficients::Bt2020Cl => ColorMatrix::Bt2020,
        MatrixCoefficients::Smpte240 => ColorMatrix::Smpte240,
        MatrixCoefficients::Fcc73682 => ColorMatrix::Fcc,
        _ => return None,
    })
}

/// Take apart an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).
pub(crate) fn avc_setup(record: &[u8]) -> Result<Setup, Fault> {
    let parse = || {
        let (head, mut rest) = record.split_at_checked(5)?;
        let length_size = usize::from(head.last()? & 3) + 1;
        let mut parameter_sets = Vec::new();
        for mask in [0x1F, 0xFF] {
            let (count, tail) = rest.split_first()?;
            rest = tail;
            for _ in 0..count & mask {
                let (len, tail) = rest.split_first_chunk::<2>()?;
                let (set, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
                parameter_sets.push(set.to_vec());
                rest = tail;
            }
        }
        Some(Setup::H264 { length_size, parameter_sets })
    };
    parse().ok_or_else(|| Fault::corrupt("its H.264 parameters are incomplete"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_integers() {
        assert_eq!(vint(&[0x81]), Some((Some(1), 1)));
        assert_eq!(vint(&[0x40, 0x02]), Some((Some(2), 2)));
        assert_eq!(vint(&[0xFF]), Some((None, 1)));
        assert_eq!(vint(&[0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Some((None, 8)));
        assert_eq!(vint(&[0x40]), None);
        assert_eq!(vint(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), None);
    }

    #[test]
    fn a_short_avc_record_is_damage() {
        assert!(avc_setup(&[1, 100, 0, 31, 0xFF, 0xE1, 0, 9, 1]).is_err());
        let ok = avc_setup(&[1, 100, 0, 31, 0xFF, 0xE1, 0, 1, 0x67, 1, 0, 1, 0x68]).unwrap();
        assert_eq!(ok, Setup::H264 { length_size: 4, parameter_sets: vec![vec![0x67], vec![0x68]] });
    }
}
