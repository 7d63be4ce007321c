//! Containers that this crate does not read itself: libavformat finds the packets.
//!
//! One walk through the file makes the index, as for the others: place, size, times. Packets stay in the file. To read one,
//! libavformat is sent to the key frame before it, and what comes back is compared with the index; where a container's
//! own seeking does not lead there, it is read again from the start. Either way the packet is the one that was indexed.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use ffmpeg_sys_next::AVCodecID as Id;

use super::inspect::{leading, shows};
use super::sys::{Container, Packet, Stream};
use super::units::{Units, between_start_codes, look_h264, look_hevc};
use super::{Ffmpeg, Syntax, planes, vop};
use crate::backend::{Backend, Coded, Start};
use crate::error::Fault;
use crate::foreign::Foreign;
use crate::h264::kind;
use crate::h264_params::Sets;
use crate::h264_survey::survey;
use crate::table::{Other, Sample, Setup, Stated, Track, shown_frames, shown_in_order, typical_step};
use crate::vp9_check::Slots;

/// Packets in an index, at most: one takes 56 bytes, and a file of this many frames plays for a week.
const MOST: usize = 1 << 24;

/// Packets looked through after seeking.
const SEARCHED: usize = 4096;

/// A file read through libavformat.
pub(crate) struct Demuxed {
    path: PathBuf,
    len: u64,
    format: &'static CStr,
    container: Container,
    marks: Vec<Mark>,
    /// The packet that is read next.
    at: usize,
    /// That packet, where it has been read already.
    ahead: Option<(Mark, Vec<u8>)>,
    /// Seek by bytes, for containers without an index of their own.
    by_bytes: bool,
    /// The container's seeking leads where it should.
    seeks: bool,
}

/// What tells a packet from its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    position: i64,
    size: usize,
    dts: Option<i64>,
}

impl Mark {
    fn of(packet: &Packet<'_>) -> Self {
        Mark { position: packet.position, size: packet.bytes.len(), dts: packet.dts }
    }

    /// After seeking a demuxer may not know the time of the first packets.
    fn is(&self, other: &Mark) -> bool {
        (self.position, self.size) == (other.position, other.size)
    }
}

/// A track, how to read its packets, how to decode them, and what decoding can make of the stream from each key frame on.
pub(crate) struct Opened {
    pub track: Track,
    pub packets: Demuxed,
    pub backend: Ffmpeg,
    pub starts: Vec<(usize, Start)>,
}

fn format(foreign: Foreign) -> (&'static CStr, bool) {
    match foreign {
        Foreign::Avi => (c"avi", false),
        Foreign::MpegTs => (c"mpegts", true),
        Foreign::MpegPs => (c"mpeg", true),
        Foreign::Flv => (c"flv", false),
        Foreign::Ogg => (c"ogg", false),
        Foreign::Asf => (c"asf", false),
        Foreign::Ivf => (c"ivf", false),
        Foreign::Mxf => (c"mxf", false),
    }
}

/// Index a file and set up its decoder.
pub(crate) fn open(path: &Path, len: u64, foreign: Foreign) -> Result<Opened, Fault> {
    let (format, by_bytes) = format(foreign);
    let (container, stream) = Container::open(File::open(path)?, len, format)?;
    let mut packets = Demuxed {
        path: path.to_path_buf(),
        len,
        format,
        container,
        marks: Vec::new(),
        at: 0,
        ahead: None,
        by_bytes,
        seeks: true,
    };
    let mut walk = Walk::new(&stream);
    // AVI has no times of display, and libavformat takes those of decoding for them.
    walk.timed = foreign != Foreign::Avi || !matches!(walk.codec, Id::AV_CODEC_ID_H264 | Id::AV_CODEC_ID_HEVC);
    packets.walk(&mut walk)?;
    packets.rewind()?;
    let Walk { mut samples, mut starts, timed, cut, kept, .. } = walk;
    if samples.is_empty() {
        return Err(if cut { Fault::Cut("no frame of it is left".into()) } else { Fault::corrupt("it has no frames") });
    }
    let codec = stream.spec.codec;
    let units = Units::StartCodes;
    let head = |i: usize, _: &Sample| Ok(kept.get(&i).cloned().unwrap_or_default());
    let mut left_out = leading(codec, units, &mut samples, head)?;
    let mut backend = decoder(&stream, &samples)?;
    let shown = if timed {
        shown_frames(&samples, &[], stream.seconds_per_tick)?
    } else {
        let places = packets.places(&mut backend, &mut samples, &mut left_out)?;
        shown_in_order(&mut samples, &places, &[], stream.seconds_per_tick)?
    };
    starts.retain(|(key, _)| samples.get(*key).is_some_and(|sample| sample.key));
    let (matrix, full_range) = planes::color(stream.color, false, "");
    let setup = Setup::Other(Other { size: (stream.spec.width, stream.spec.height), ..Other::default() });
    let duration = shown.last().map_or(0.0, |s| s.time) + typical_step(&shown);
    let track = Track {
        setup,
        other_sets: Vec::new(),
        orientation: Default::default(),
        color: Stated { matrix, full_range },
        samples,
        shown,
        duration,
        cut,
        // A packet that was cut is among the samples.
        lost_end: false,
        left_out,
    };
    Ok(Opened { track, packets, backend, starts })
}

fn decoder(stream: &Stream, samples: &[Sample]) -> Result<Ffmpeg, Fault> {
    let mut spec = stream.spec.clone();
    spec.reorder = super::reorder(samples);
    let size = (spec.width, spec.height);
    crate::backend::check_size(size.0, size.1)?;
    let syntax = match spec.codec {
        Id::AV_CODEC_ID_H264 => h264_syntax(&spec.extradata)?,
        Id::AV_CODEC_ID_HEVC => Syntax::Hevc(Units::StartCodes),
        Id::AV_CODEC_ID_VP9 => Syntax::Vp9(Slots::default()),
        _ => Syntax::Opaque,
    };
    if let Syntax::H264 { entries, .. } = &syntax {
        // The packets are rewritten with start codes, so the description has to be, too.
        spec.extradata = entries.first().map(|sets| super::with_start_codes(sets)).unwrap_or_default();
    }
    Ffmpeg::with(spec, syntax, size)
}

/// FLV describes H.264 as mp4 does; the others carry parameter sets between start codes.
fn h264_syntax(extradata: &[u8]) -> Result<Syntax, Fault> {
    let (units, own) = match extradata.first() {
        Some(1) => match crate::mkv::avc_setup(extradata)? {
            Setup::H264 { length_size, parameter_sets } => (Units::Prefixed(length_size), parameter_sets),
            _ => (Units::StartCodes, Vec::new()),
        },
        _ => {
            let sets = between_start_codes(extradata).filter(|nal| matches!(kind(nal), 7 | 8 | 15));
            (Units::StartCodes, sets.map(<[u8]>::to_vec).collect())
        }
    };
    let mut sets = Sets::default();
    own.iter().for_each(|nal| sets.add(nal));
    Ok(Syntax::H264 { units, entries: vec![own], sets })
}

/// The first walk through a file.
struct Walk {
    codec: Id,
    samples: Vec<Sample>,
    starts: Vec<(usize, Start)>,
    /// Every packet that shows a picture has a time of its own.
    timed: bool,
    cut: bool,
    /// The heads of the first packets from the first key frame on.
    kept: BTreeMap<usize, Vec<u8>>,
    vops: vop::Vops,
    h264: Option<(Units, Sets)>,
    /// The last packet held one field of a picture.
    field: bool,
    last_dts: Option<i64>,
}

impl Walk {
    fn new(stream: &Stream) -> Self {
        let mut vops = vop::Vops::default();
        vops.header(&stream.spec.extradata);
        let h264 = match (stream.spec.codec, h264_syntax(&stream.spec.extradata)) {
            (Id::AV_CODEC_ID_H264, Ok(Syntax::H264 { units, sets, .. })) => Some((units, sets)),
            _ => None,
        };
        let (samples, starts, kept) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (timed, cut, field, last_dts) = (true, false, false, None);
        Walk { codec: stream.spec.codec, samples, starts, timed, cut, kept, vops, h264, field, last_dts }
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Fault> {
        let number = self.samples.len();
        let mut visible = !packet.hidden && shows(self.codec, packet.bytes, &mut self.vops);
        let (mut key, mut start) = (packet.key, Start::Open);
        if let Some((units, sets)) = &mut self.h264 {
            let nals: Vec<&[u8]> = match *units {
                Units::Prefixed(size) => crate::h264::units(packet.bytes, size).collect(),
                Units::StartCodes => between_start_codes(packet.bytes).collect(),
            };
            nals.iter().for_each(|nal| sets.add(nal));
            let one_field = survey(nals.iter().copied(), sets).field;
            // The second field completes the picture of the first.
            visible &= !(one_field && self.field);
            self.field = one_field && !self.field;
            start = look_h264(nals, sets).map_or(Start::No, |look| look.start);
            key = matches!(start, Start::Clean | Start::Recovery | Start::Intra) && visible;
        } else if self.codec == Id::AV_CODEC_ID_HEVC {
            start = look_hevc(packet.bytes, Units::StartCodes).start;
            key = start != Start::No;
        } else if self.codec == Id::AV_CODEC_ID_VP9 {
            start = crate::vp9::look(packet.bytes, true).map_or(Start::No, |look| look.start);
            key = start == Start::Clean;
            visible &= crate::vp9::is_shown(packet.bytes);
        }
        if key {
            self.starts.push((number, start));
        }
        let keys = self.starts.len();
        if keys == 1 && self.kept.len() < 64 {
            let head = packet.bytes.get(..packet.bytes.len().min(4096)).unwrap_or(&[]);
            self.kept.insert(number, head.to_vec());
        }
        let back = self.last_dts.zip(packet.dts).is_some_and(|(last, dts)| dts < last);
        self.last_dts = packet.dts.or(self.last_dts);
        let pts = packet.pts.or(packet.dts);
        self.timed &= !back && (packet.pts.is_some() || !visible);
        let offset = u64::try_from(packet.position).unwrap_or(0);
        let size = u32::try_from(packet.bytes.len()).map_err(|_| Fault::corrupt("a packet of more than 4 GiB"))?;
        self.samples.push(Sample { offset, size, pts: pts.unwrap_or(number as i64), key, visible, entry: 0 });
        Ok(())
    }

    fn end(&mut self) {
        let mut times: Vec<i64> = self.samples.iter().filter(|s| s.visible).map(|s| s.pts).collect();
        times.sort_unstable();
        self.timed &= times.windows(2).all(|w| matches!(w, [a, b] if a < b));
    }
}

impl Demuxed {
    fn walk(&mut self, walk: &mut Walk) -> Result<(), Fault> {
        let mut corrupt = false;
        loop {
            match self.container.next() {
                Ok(Some(packet)) => {
                    if walk.samples.len() >= MOST {
                        return Err(Fault::corrupt("it has more frames than an index may hold"));
                    }
                    corrupt = packet.corrupt;
                    walk.packet(&packet)?;
                    self.marks.push(Mark::of(&packet));
                }
                Ok(None) => break,
                // What was found before counts, as in a file that is cut off.
                Err(_) if !walk.samples.is_empty() => {
                    walk.cut = true;
                    break;
                }
                Err(fault) => return Err(fault),
            }
        }
        // A last packet that ends early was cut; damage before it is left to the decoder.
        if corrupt && let Some(last) = walk.samples.last_mut() {
            walk.cut = true;
            (last.offset, last.size) = (u64::MAX, u32::MAX);
        }
        walk.end();
        Ok(())
    }

    /// Start reading from the beginning.
    fn rewind(&mut self) -> Result<(), Fault> {
        let (container, _) = Container::open(File::open(&self.path)?, self.len, self.format)?;
        self.container = container;
        (self.at, self.ahead) = (0, None);
        Ok(())
    }

    /// Read packet `i` of `samples` into `packet`.
    pub(crate) fn read(&mut self, samples: &[Sample], i: usize, packet: &mut Vec<u8>) -> Result<(), Fault> {
        if samples.get(i).is_some_and(|sample| sample.offset == u64::MAX) {
            return Err(Fault::Cut("the packets at its end are missing".into()));
        }
        let key = samples.iter().take(i + 1).rposition(|sample| sample.key).unwrap_or(0);
        if self.at > i || self.at < key {
            self.go_to(key)?;
        }
        while self.at <= i {
            let Some(mark) = self.marks.get(self.at).copied() else {
                return Err(Fault::corrupt("its index ends early"));
            };
            let found = match self.ahead.take() {
                Some(found) => Some(found),
                None => self.container.next()?.map(|found| (Mark::of(&found), found.bytes.to_vec())),
            };
            match found {
                Some((found, bytes)) if mark.is(&found) => {
                    self.at += 1;
                    if self.at == i + 1 {
                        *packet = bytes;
                    }
                }
                // The container led us astray: read from the start once and for all.
                _ if self.seeks => {
                    self.seeks = false;
                    self.rewind()?;
                }
                _ => return Err(Fault::corrupt("it changed while it was read")),
            }
        }
        Ok(())
    }

    /// Be ready to read packet `key`, by seeking or from the start.
    fn go_to(&mut self, key: usize) -> Result<(), Fault> {
        let Some(mark) = self.marks.get(key).copied() else { return Ok(()) };
        let position = self.by_bytes.then_some(mark.position);
        let known = if self.by_bytes { mark.position >= 0 } else { mark.dts.is_some() };
        if key > 0 && self.seeks && known {
            self.container.refill();
            if self.container.seek(mark.dts.unwrap_or(0), position) {
                for _ in 0..SEARCHED {
                    let Some(found) = self.container.next()? else { break };
                    if mark.is(&Mark::of(&found)) {
                        self.ahead = Some((mark, found.bytes.to_vec()));
                        self.at = key;
                        return Ok(());
                    }
                }
            }
            self.seeks = false;
            return self.rewind();
        }
        if self.at > key { self.rewind() } else { Ok(()) }
    }

    /// Where the container does not say when pictures are shown: decode all of them once and see.
    fn places(
        &mut self,
        backend: &mut Ffmpeg,
        samples: &mut [Sample],
        left_out: &mut usize,
    ) -> Result<Vec<u32>, Fault> {
        let mut pictures = Vec::new();
        let mut order = Vec::with_capacity(samples.len());
        let mut packet = Vec::new();
        let first = samples.iter().position(|sample| sample.key).unwrap_or(0);
        backend.reset(false)?;
        for sample in first..samples.len() {
            match self.read(samples, sample, &mut packet) {
                Err(Fault::Cut(_)) => break,
                result => result?,
            }
            let wanted = samples.get(sample).is_some_and(|s| s.visible);
            backend.decode(Coded { bytes: &packet, entry: 0, sample, wanted }, &mut pictures)?;
            order.extend(pictures.drain(..).map(|(sample, _)| sample));
        }
        backend.finish(&mut pictures)?;
        order.extend(pictures.drain(..).map(|(sample, _)| sample));
        self.rewind()?;
        let mut places = vec![u32::MAX; samples.len()];
        for (place, sample) in order.into_iter().enumerate() {
            if let Some(slot) = places.get_mut(sample) {
                *slot = u32::try_from(place).unwrap_or(u32::MAX);
            }
        }
        for (sample, place) in samples.iter_mut().zip(&places) {
            if *place == u32::MAX && sample.offset != u64::MAX {
                *left_out += usize::from(std::mem::take(&mut sample.visible));
            }
        }
        Ok(places)
    }
}
