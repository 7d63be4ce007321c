//! Random access: which packets to decode for the frames asked for.
//!
//! Frames are decoded in decoding order from the right key frame to the last packet wanted, and the container's
//! timestamps say which picture is which frame. Packets that nothing is predicted from are left out unless wanted.

mod packets;
mod run;
mod start;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::ClipDecoder;
use crate::backend::{Backend, Look, Picture, Pictures, Start};
use crate::error::{Fault, VideoError};
use crate::frame::{ColorSpace, Frame};
use crate::guard::contained;
use crate::info::{ClipInfo, Codec};
use crate::table::{Sample, Track};

use packets::{Packets, backend, read};
use run::Run;

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
    /// Which decoder it has, and whether that may change.
    choice: DecoderChoice,
}

/// Which decoder a clip is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecoderChoice {
    Pure,
    /// FFmpeg's from the moment on where the pure one lacks a tool.
    PureFirst,
    #[cfg_attr(not(feature = "ffmpeg"), allow(dead_code))]
    Ffmpeg,
}

impl Clip {
    pub(crate) fn open(
        path: &Path,
        mut file: File,
        len: u64,
        track: Track,
        choice: DecoderChoice,
    ) -> Result<Self, VideoError> {
        let end = |s: &Sample| s.offset.saturating_add(u64::from(s.size));
        if !track.cut && track.samples.iter().any(|s| end(s) > len) {
            return Err(Fault::corrupt("its index points past its end").at(path, None));
        }
        let first = track.samples.iter().position(|s| s.key).unwrap_or(0);
        let mut packet = Vec::new();
        let made = read(&mut file, len, &track.samples, first, &mut packet)
            .and_then(|()| contained(|| backend(&track, &packet, choice)));
        let (backend, codec) = made.map_err(|fault| fault.at(path, None))?;
        let mut clip = Self::with(path, Packets::Placed(file), len, track, backend, codec);
        clip.choice = choice;
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
            lost_end: track.lost_end,
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
            choice: DecoderChoice::Ffmpeg,
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
                fault if self.choice == DecoderChoice::Pure => {
                    fault.at(&self.path, self.frame_of(stop.sample)).of_pure()
                }
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

fn indices(samples: &[Sample], keep: impl Fn(&Sample) -> bool) -> Vec<usize> {
    samples.iter().enumerate().filter(|(_, s)| keep(s)).map(|(i, _)| i).collect()
}
