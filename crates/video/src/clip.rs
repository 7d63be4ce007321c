//! Random access: which packets to decode for the frames asked for.
//!
//! Frames are decoded in decoding order from the right key frame to the last packet wanted, and the container's
//! timestamps say which picture is which frame. Packets that nothing is predicted from are left out unless wanted.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::ClipDecoder;
use crate::backend::{Backend, Coded, Look, Picture, Pictures, Start};
use crate::error::{Fault, VideoError};
use crate::frame::{ColorSpace, Frame};
use crate::guard::contained;
use crate::h264::H264;
use crate::info::{ClipInfo, Codec};
use crate::table::{Sample, Setup, Track};
use crate::vp9::Vp9;

pub(crate) struct Clip {
    path: PathBuf,
    packets: Packets,
    len: u64,
    track: Track,
    info: ClipInfo,
    /// Key samples in decoding order.
    keys: Vec<usize>,
    /// Key samples already looked at: what decoding makes of the stream from there on.
    starts: HashMap<usize, Start>,
    backend: Box<dyn Backend>,
    run: Option<Run>,
    /// Picture order count and timestamp of pictures decoded lately in this run.
    order: BTreeMap<i32, i64>,
    packet: Vec<u8>,
    /// Pictures that have come out of the decoder and wait to be told apart.
    out: Pictures,
    /// Samples decoded ahead of those asked for: their pictures, once they are out.
    ahead: BTreeMap<usize, Option<Picture>>,
    /// Where the last call stopped. One that begins there is one of many that read the clip in order.
    stopped: Option<usize>,
    in_order: bool,
    /// The decoder may be changed for FFmpeg's.
    replaceable: bool,
}

/// Which decoder a clip is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Pure,
    /// FFmpeg's from the moment on where the pure one lacks a tool.
    PureFirst,
    #[cfg_attr(not(feature = "ffmpeg"), allow(dead_code))]
    Ffmpeg,
}

/// Where packets come from.
enum Packets {
    /// From places in a file.
    Placed(File),
    #[cfg(feature = "ffmpeg")]
    Demuxed(crate::ffmpeg::Demuxed),
}

impl Packets {
    /// Read packet `i` into `packet`, which grows to the largest packet and no further.
    fn read(&mut self, len: u64, samples: &[Sample], i: usize, packet: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Packets::Placed(file) => read(file, len, samples, i, packet),
            #[cfg(feature = "ffmpeg")]
            Packets::Demuxed(demuxed) => demuxed.read(samples, i, packet),
        }
    }
}

/// A decoding run in progress: the decoder holds all references of samples before `next`.
#[derive(Clone, Copy)]
struct Run {
    next: usize,
    /// Set while decoding the pictures around a key frame that is no clean start: those before it in presentation order
    /// lack their references and are left out.
    not_before: Option<i64>,
    /// The number of the last reference picture, where the bitstream numbers them.
    number: Option<u32>,
}

/// Which key frame to start from.
#[derive(Clone, Copy, PartialEq)]
enum From {
    /// One before the last where that one opens a group whose leading pictures refer to the group before.
    Usual,
    /// One that everything after it can be decoded from.
    Clean,
    /// The last that the frame wanted can be decoded from: what precedes it is damaged.
    Nearest,
}

impl Clip {
    pub(crate) fn open(
        path: &Path,
        mut file: File,
        len: u64,
        track: Track,
        engine: Engine,
    ) -> Result<Self, VideoError> {
        let end = |s: &Sample| s.offset.saturating_add(u64::from(s.size));
        if !track.cut && track.samples.iter().any(|s| end(s) > len) {
            return Err(Fault::corrupt("its index points past its end").at(path, None));
        }
        let first = track.samples.iter().position(|s| s.key).unwrap_or(0);
        let mut packet = Vec::new();
        let made = read(&mut file, len, &track.samples, first, &mut packet)
            .and_then(|()| contained(|| backend(&track, &packet, engine)));
        let (backend, codec) = made.map_err(|fault| fault.at(path, None))?;
        let mut clip = Self::with(path, Packets::Placed(file), len, track, backend, codec);
        clip.replaceable = engine == Engine::PureFirst;
        // A damaged index shows in its first packet already: better to say so before training starts.
        clip.look(first).map_err(|fault| fault.at(&clip.path, None))?;
        Ok(clip)
    }

    /// A clip whose packets libavformat finds.
    #[cfg(feature = "ffmpeg")]
    pub(crate) fn demuxed(path: &Path, len: u64, opened: crate::ffmpeg::Opened) -> Result<Self, VideoError> {
        let crate::ffmpeg::Opened { track, packets, backend, starts } = opened;
        let codec = backend.codec();
        let mut clip = Self::with(path, Packets::Demuxed(packets), len, track, Box::new(backend), codec);
        clip.starts = starts.into_iter().collect();
        Ok(clip)
    }

    fn with(path: &Path, packets: Packets, len: u64, track: Track, backend: Box<dyn Backend>, codec: Codec) -> Self {
        let (coded_width, coded_height) = backend.size();
        let end = |s: &Sample| s.offset.saturating_add(u64::from(s.size));
        let missing = track.samples.iter().position(|s| end(s) > len);
        let intact = missing.and_then(|m| track.shown.iter().position(|s| s.sample as usize >= m));
        let info = ClipInfo {
            codec,
            coded_width,
            coded_height,
            orientation: track.orientation,
            frames: track.shown.len(),
            intact_frames: intact.unwrap_or(track.shown.len()),
            timestamps: track.shown.iter().map(|s| s.time).collect(),
            duration: track.duration,
            left_out: track.left_out,
        };
        Clip {
            path: path.to_path_buf(),
            packets,
            len,
            keys: indices(&track.samples, |s| s.key),
            track,
            info,
            starts: HashMap::new(),
            backend,
            run: None,
            order: BTreeMap::new(),
            packet: Vec::new(),
            out: Vec::new(),
            ahead: BTreeMap::new(),
            stopped: None,
            in_order: false,
            replaceable: false,
        }
    }

    fn sample(&self, i: usize) -> Result<Sample, Fault> {
        self.track.samples.get(i).copied().ok_or_else(|| Fault::corrupt("its index ends early"))
    }

    /// Read packet `i` into `self.packet` and look at it.
    fn look(&mut self, i: usize) -> Result<Look, Fault> {
        self.packets.read(self.len, &self.track.samples, i, &mut self.packet)?;
        let (backend, packet, entry) = (&self.backend, &self.packet, self.sample(i)?.entry);
        contained(|| backend.look(packet, entry))
    }

    fn start_at(&mut self, key: usize) -> Result<Start, Fault> {
        if let Some(&start) = self.starts.get(&key) {
            return Ok(start);
        }
        let start = match self.look(key)?.start {
            // Nothing shown earlier follows: the group is closed.
            Start::Open if !self.has_leading(key)? => Start::Clean,
            start => start,
        };
        self.starts.insert(key, start);
        Ok(start)
    }

    /// Are pictures decoded after key sample `key` shown before it?
    fn has_leading(&self, key: usize) -> Result<bool, Fault> {
        let pts = self.sample(key)?.pts;
        let following = self.track.samples.iter().skip(key + 1).take_while(|s| !s.key).take(32);
        Ok(following.into_iter().any(|s| s.pts < pts))
    }

    /// Where to start decoding for sample `target`.
    ///
    /// The last key frame at or before it, in decoding and presentation order. If that one opens a group whose leading
    /// pictures refer to the group before (open GOP), start one key frame earlier: then those pictures decode too, and
    /// the reference lists of all that follow are as the encoder saw them. Where a clip begins with such a group there is
    /// no earlier one: its leading pictures are never shown.
    fn start_for(&mut self, target: usize, from: From) -> Result<usize, Fault> {
        let pts = self.sample(target)?.pts;
        let before = self.keys.partition_point(|&k| k <= target);
        let mut skipped = 0;
        for n in (0..before).rev() {
            let Some(&key) = self.keys.get(n) else { break };
            if self.sample(key)?.pts > pts {
                continue;
            }
            let earlier = skipped > 0 && from == From::Usual;
            let (here, counts) = match self.start_at(key)? {
                Start::Clean | Start::Open => (true, true),
                Start::Recovery => (earlier || from == From::Nearest, true),
                Start::Intra => (earlier, true),
                Start::Gradual(_) | Start::No => (false, false),
            };
            if here {
                return Ok(key);
            }
            skipped += usize::from(counts);
        }
        Ok(self.first_key(target))
    }

    fn first_key(&self, target: usize) -> usize {
        self.keys.first().copied().filter(|&k| k <= target).unwrap_or(0)
    }

    /// Set the decoder up for a run from sample `start`.
    fn begin(&mut self, start: usize) -> Result<Run, Fault> {
        let kind = self.start_at(start)?;
        let nothing_before = start == self.first_key(start);
        let fill = kind == Start::Recovery || (kind != Start::Clean && nothing_before);
        contained(|| self.backend.reset(fill))?;
        self.order.clear();
        self.ahead.clear();
        self.out.clear();
        let leading = matches!(kind, Start::Recovery | Start::Intra | Start::Open);
        let not_before = if leading { Some(self.sample(start)?.pts) } else { None };
        Ok(Run { next: start, not_before, number: None })
    }

    /// Decode up to sample `target` and return its picture; pictures of `wanted` samples on the way are kept too.
    fn decode_to(&mut self, target: usize, wanted: &mut BTreeMap<usize, Option<Picture>>) -> Result<(), Stop> {
        let mut from = From::Usual;
        loop {
            let at_target = |fault| Stop { fault, sample: target };
            let start = self.start_for(target, from).map_err(at_target)?;
            let run = match self.run.take() {
                Some(run) if run.next <= target && run.next >= start && from == From::Usual => run,
                _ => self.begin(start).map_err(at_target)?,
            };
            let clean = matches!(self.start_at(start).map_err(at_target)?, Start::Clean | Start::Open);
            match self.decode_run(run, target, wanted) {
                Ok(()) => return Ok(()),
                Err(Stop { fault: Fault::Unsupported(_), .. }) if self.backend.fall_back() || self.replace() => {}
                Err(_) if !clean && from == From::Usual => from = From::Clean,
                Err(stop) => {
                    let nearest = self.start_for(target, From::Nearest).map_err(at_target)?;
                    if from == From::Nearest || nearest <= stop.sample {
                        return Err(stop);
                    }
                    from = From::Nearest;
                }
            }
        }
    }

    /// Does a call whose first sample is `first` go on where the last one stopped?
    fn in_order_from(&mut self, stopped: usize, first: usize) -> bool {
        // A picture shown next may have been decoded a little earlier.
        first + 2 * self.backend.delay() >= stopped
            && (first <= stopped || self.start_for(first, From::Usual).is_ok_and(|start| start <= stopped))
    }

    /// Change to FFmpeg's decoder, if that is allowed and possible.
    fn replace(&mut self) -> bool {
        if !std::mem::take(&mut self.replaceable) {
            return false;
        }
        let first = self.keys.first().copied().unwrap_or(0);
        let made = self
            .packets
            .read(self.len, &self.track.samples, first, &mut self.packet)
            .and_then(|()| backend(&self.track, &self.packet, Engine::Ffmpeg));
        match made {
            Ok((backend, _)) => {
                (self.backend, self.run) = (backend, None);
                self.starts.clear();
                true
            }
            Err(_) => false,
        }
    }

    /// Decode up to all of `targets`, which ascend, in as few runs as possible.
    fn decode_all(&mut self, targets: &[usize], wanted: &mut BTreeMap<usize, Option<Picture>>) -> Result<(), Stop> {
        let mut rest = targets;
        while let Some((&target, others)) = rest.split_first() {
            // A restart for an earlier target may have passed over this one already.
            if matches!(wanted.get(&target), Some(Some(_))) {
                rest = others;
                continue;
            }
            let mut last = target;
            let mut together = 1;
            for &next in others {
                let start = self.start_for(next, From::Usual);
                // Cheaper to go on than to start again.
                if !start.is_ok_and(|start| start <= last + 1) {
                    break;
                }
                (last, together) = (next, together + 1);
            }
            let at_target = |fault| Stop { fault, sample: target };
            let start = self.start_for(target, From::Usual).map_err(at_target)?;
            let run = match self.run.take() {
                Some(run) if self.ahead.contains_key(&target) || (run.next <= target && run.next >= start) => run,
                _ => self.begin(start).map_err(at_target)?,
            };
            let (group, after) = rest.split_at_checked(together).unwrap_or((rest, &[]));
            if self.decode_run(run, last, wanted).is_err() {
                // One by one, which finds other key frames to start from and the first frame that cannot be had.
                self.run = None;
                for &target in group {
                    if !matches!(wanted.get(&target), Some(Some(_))) {
                        self.decode_to(target, wanted)?;
                    }
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// Decode up to sample `last`; the pictures of `wanted` samples on the way are kept.
    fn decode_run(
        &mut self,
        mut run: Run,
        last: usize,
        wanted: &mut BTreeMap<usize, Option<Picture>>,
    ) -> Result<(), Stop> {
        let begin = run.next;
        // Pictures decoded ahead by the call before.
        let before: Vec<usize> = self.ahead.range(..=last).map(|(&sample, _)| sample).collect();
        for sample in before {
            // Those still inside the decoder come later.
            if let (Some(slot), Some(Some(picture))) = (wanted.get_mut(&sample), self.ahead.remove(&sample)) {
                *slot = Some(picture);
            }
        }
        for i in begin..=last {
            self.step(&mut run, i, begin, wanted, false)?;
        }
        let lacks = |wanted: &BTreeMap<usize, Option<Picture>>| {
            wanted.range(..=last).find(|(_, picture)| picture.is_none()).map(|(&sample, _)| sample)
        };
        let mut next = run.next.max(last + 1);
        if self.in_order {
            // The next call will want what follows: rather decode it now than start again then.
            let end = (last + 2 * self.backend.delay()).min(self.track.samples.len().saturating_sub(1));
            while next <= end && lacks(wanted).is_some() {
                self.ahead.insert(next, None);
                if self.step(&mut run, next, begin, wanted, true).is_err() {
                    self.ahead.clear();
                    break;
                }
                next += 1;
            }
        }
        let mut goes_on = true;
        if lacks(wanted).is_some() {
            let at = |fault| Stop { fault, sample: last };
            let (backend, out) = (&mut self.backend, &mut self.out);
            goes_on = contained(|| backend.finish(out)).map_err(at)?;
            self.deliver(wanted).map_err(at)?;
        }
        if let Some(sample) = lacks(wanted) {
            return Err(Stop { fault: Fault::corrupt("a packet without picture"), sample });
        }
        self.stopped = Some(last + 1);
        self.run = goes_on.then_some(Run { next, ..run });
        Ok(())
    }

    /// Decode sample `i` of a run that began with `begin`, unless nobody needs it.
    fn step(
        &mut self,
        run: &mut Run,
        i: usize,
        begin: usize,
        wanted: &mut BTreeMap<usize, Option<Picture>>,
        ahead: bool,
    ) -> Result<(), Stop> {
        let at = |fault| Stop { fault, sample: i };
        let sample = self.sample(i).map_err(at)?;
        if i > begin && sample.key {
            run.not_before = None;
        }
        let look = self.look(i).map_err(at)?;
        if let Some(number) = look.number {
            if number.misses_one(run.number) {
                return Err(at(Fault::corrupt(format!(
                    "a picture that it may depend on is missing (frame_num goes from {} to {})",
                    run.number.unwrap_or(0),
                    number.frame_num
                ))));
            }
            run.number = number.after(run.number);
        }
        // One that is here already, from a run before, may lack its references in this one.
        let asked = ahead || matches!(wanted.get(&i), Some(None));
        if (run.not_before.is_some_and(|pts| sample.pts < pts) || look.droppable) && !asked {
            return Ok(());
        }
        if look.clean_start {
            self.order.clear();
        }
        let (backend, out) = (&mut self.backend, &mut self.out);
        let packet = Coded { bytes: &self.packet, entry: sample.entry, sample: i, wanted: asked };
        contained(|| backend.decode(packet, out)).map_err(at)?;
        self.deliver(wanted).map_err(at)?;
        if look.number.is_some_and(|number| number.forgets) {
            self.order.clear();
        }
        Ok(())
    }

    /// Hand the pictures that came out to those who asked for them.
    fn deliver(&mut self, wanted: &mut BTreeMap<usize, Option<Picture>>) -> Result<(), Fault> {
        for (sample, picture) in std::mem::take(&mut self.out) {
            if let Some(order) = picture.order {
                let pts = self.sample(sample)?.pts;
                agree(&mut self.order, order, pts)?;
            }
            if let Some(slot) = wanted.get_mut(&sample) {
                slot.get_or_insert(picture);
            } else if let Some(slot) = self.ahead.get_mut(&sample) {
                *slot = Some(picture);
            }
        }
        Ok(())
    }

    /// The frame shown from `sample`, or the first one after it that it would have been needed for.
    fn frame_of(&self, sample: usize) -> Option<usize> {
        self.track.shown.iter().position(|s| s.sample as usize == sample)
    }

    fn cut_off(&self) -> VideoError {
        let detail = format!("{} bytes are left of it", self.len);
        VideoError::Truncated { path: self.path.clone(), first_bad_frame: self.info.intact_frames, detail }
    }

    fn frame(&self, index: usize, time: f64, picture: Picture) -> Frame {
        let Picture { width, height, y, u, v, chroma_shift, matrix, full_range, order: _ } = picture;
        let container = self.track.color;
        let color = ColorSpace {
            matrix: matrix.or(container.matrix).unwrap_or_default(),
            full_range: full_range.or(container.full_range).unwrap_or(false),
        };
        Frame { width, height, y, u, v, chroma_shift, color, orientation: self.track.orientation, index, time }
    }
}

/// A fault and the sample whose decoding met it.
struct Stop {
    fault: Fault,
    sample: usize,
}

impl ClipDecoder for Clip {
    fn path(&self) -> &Path {
        &self.path
    }

    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn frames(&mut self, indices: &[usize]) -> Result<Vec<Frame>, VideoError> {
        let mut wanted: BTreeMap<usize, Option<Picture>> = BTreeMap::new();
        let mut shown = Vec::with_capacity(indices.len());
        for &index in indices {
            let Some(&entry) = self.track.shown.get(index) else {
                let (path, frames) = (self.path.clone(), self.info.frames);
                let cut = self.track.cut || self.info.intact_frames < frames;
                return Err(if cut {
                    self.cut_off()
                } else {
                    VideoError::FrameOutOfRange { path, frame: index, frames }
                });
            };
            wanted.insert(entry.sample as usize, None);
            shown.push((index, entry));
        }
        let targets: Vec<usize> = wanted.keys().copied().collect();
        self.in_order = match (self.stopped, targets.first()) {
            (Some(stopped), Some(&first)) => self.in_order_from(stopped, first),
            _ => false,
        };
        if let Err(stop) = self.decode_all(&targets, &mut wanted) {
            (self.run, self.stopped) = (None, None);
            return Err(match stop.fault {
                Fault::Cut(_) => self.cut_off(),
                fault => fault.at(&self.path, self.frame_of(stop.sample)),
            });
        }
        let mut uses: HashMap<usize, usize> = HashMap::new();
        for (_, entry) in &shown {
            *uses.entry(entry.sample as usize).or_default() += 1;
        }
        let mut frames = Vec::with_capacity(shown.len());
        for (index, entry) in shown {
            let sample = entry.sample as usize;
            let left = uses.get_mut(&sample).map_or(0, |n| {
                *n -= 1;
                *n
            });
            // The last use takes the planes, earlier ones copy them.
            let picture = match wanted.get_mut(&sample) {
                Some(slot) if left == 0 => slot.take(),
                Some(slot) => slot.clone(),
                None => None,
            };
            let Some(picture) = picture else {
                return Err(Fault::corrupt("no picture").at(&self.path, Some(index)));
            };
            frames.push(self.frame(index, entry.time, picture));
        }
        Ok(frames)
    }
}

/// Check that timestamps order pictures as the bitstream does; a garbled index would show frames in the wrong order.
fn agree(seen: &mut BTreeMap<i32, i64>, order: i32, pts: i64) -> Result<(), Fault> {
    let before = seen.range(..order).next_back().is_none_or(|(_, &p)| p <= pts);
    let after = seen.range(order.saturating_add(1)..).next().is_none_or(|(_, &p)| pts <= p);
    if !(before && after) {
        return Err(Fault::corrupt("the timestamps contradict the order of the pictures"));
    }
    seen.insert(order, pts);
    // Reordering reaches back 16 pictures at most.
    if seen.len() > 64 {
        seen.pop_first();
    }
    Ok(())
}

fn indices(samples: &[Sample], keep: impl Fn(&Sample) -> bool) -> Vec<usize> {
    samples.iter().enumerate().filter(|(_, s)| keep(s)).map(|(i, _)| i).collect()
}

/// A decoder for `track`, and what it decodes; `first` is the first key packet.
fn backend(track: &Track, first: &[u8], engine: Engine) -> Result<(Box<dyn Backend>, Codec), Fault> {
    #[cfg(feature = "ffmpeg")]
    if engine == Engine::Ffmpeg {
        let ffmpeg = crate::ffmpeg::Ffmpeg::new(track, first)?;
        let codec = ffmpeg.codec();
        return Ok((Box::new(ffmpeg), codec));
    }
    match (&track.setup, engine) {
        (Setup::H264 { length_size, parameter_sets }, Engine::Pure | Engine::PureFirst) => {
            let h264 = H264::new(*length_size, parameter_sets, first)?.with_entries(&track.other_sets);
            Ok((Box::new(h264), Codec::H264))
        }
        (Setup::Vp9, Engine::Pure | Engine::PureFirst) => Ok((Box::new(Vp9::new(first)?), Codec::Vp9)),
        (setup, _) => Err(setup.unsupported().unwrap_or_else(|| Fault::Unsupported("video".into()))),
    }
}

/// Read packet `i` into `packet`, which grows to the largest packet and no further.
fn read(file: &mut File, len: u64, samples: &[Sample], i: usize, packet: &mut Vec<u8>) -> Result<(), Fault> {
    let sample = samples.get(i).ok_or_else(|| Fault::corrupt("it has no frames"))?;
    if sample.offset.saturating_add(u64::from(sample.size)) > len {
        return Err(Fault::Cut("the packets at its end are missing".into()));
    }
    packet.resize(sample.size as usize, 0);
    file.seek(SeekFrom::Start(sample.offset))?;
    file.read_exact(packet)?;
    Ok(())
}
