//! Windows over videos: clips one after the other in time, of videos one after the other, prepared ahead on worker threads.
//!
//! A window starts every so many seconds, as long as it lies within the video as a whole; each video has one at least, from its
//! beginning, which repeats frames where the video is shorter. Windows come in order whatever the number of workers, and a
//! stream may begin at any of them, so that long work goes on where it was stopped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use vjepa_runtime::preprocess::View;
use vjepa_runtime::{Preprocessing, Sampling};
use vjepa_video::ClipInfo;

use crate::frames::is_picture;
use crate::media::{Media, Opener};
use crate::samples::StillPlan;
use crate::sampling::ClipSampler;
use crate::source::DataError;

/// Clips that a worker may be ahead.
const AHEAD: usize = 2;

/// Where windows lie, and how they are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowPlan {
    /// How clips are prepared.
    pub preprocessing: Preprocessing,
    /// Seconds from the start of one window to that of the next; none takes the first alone.
    pub every: Option<f64>,
}

/// A window of a video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Its number in the video, from 0.
    pub number: usize,
    /// Its first frame.
    pub start: usize,
    /// When that is shown, in seconds.
    pub time: f64,
}

impl WindowPlan {
    fn sampler(&self) -> ClipSampler {
        let record = &self.preprocessing;
        ClipSampler {
            random: false,
            // As evaluations take a single clip, of short videos too.
            allow_overlap: true,
            exact: record.sampling == Sampling::Exact,
            ..ClipSampler::pretrain(record.num_frames, record.sampling_rate)
        }
    }

    /// The windows of a video.
    pub fn windows(&self, info: &ClipInfo) -> Vec<Window> {
        let time = |start: usize| info.timestamps.get(start).copied().unwrap_or(0.0);
        let first = Window { number: 0, start: 0, time: time(0) };
        let Some(every) = self.every.filter(|every| every.is_finite() && *every > 0.0) else { return vec![first] };
        let span = self.preprocessing.num_frames.saturating_mul(self.preprocessing.sampling_rate);
        let later = (1..).map_while(|number| {
            let at = time(0) + every * number as f64;
            // By the time each frame is shown: the rate may vary.
            let start = info.timestamps.partition_point(|shown| *shown < at - 1e-6);
            (start.saturating_add(span) <= info.frames).then(|| Window { number, start, time: time(start) })
        });
        std::iter::once(first).chain(later).collect()
    }

    /// The prepared clip of a window, `[3, T, S, S]`.
    ///
    /// # Errors
    /// Why it cannot be had, without the video's name.
    pub fn prepare(&self, media: &mut Media, window: &Window) -> Result<Vec<f32>, String> {
        let left = media.info().frames.saturating_sub(window.start);
        let clips = self.sampler().sample(left, |low, _| low).map_err(|error| error.to_string())?;
        let indices: Vec<usize> = clips.iter().flatten().map(|index| window.start + index).collect();
        let clip = media.decode(&indices)?;
        let mut out = vec![0f32; self.preprocessing.clip_len()];
        let prepared = self.preprocessing.prepare_view(&clip.rgb(), clip.height, clip.width, View::SINGLE, &mut out);
        prepared.map_err(|error| error.to_string())?;
        Ok(out)
    }
}

/// What a stream of windows gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// A window of the video of this number.
    Clip {
        /// Which video, from 0.
        video: usize,
        /// Where in it.
        window: Window,
        /// `[3, T, S, S]`.
        values: Vec<f32>,
    },
    /// A video that cannot be used, from here on.
    Bad {
        /// Which video, from 0.
        video: usize,
        /// Why, without its name.
        reason: String,
    },
}

/// What a worker sends.
enum Sent {
    Is(Prepared),
    /// Neither this video nor another can be had.
    Failed(DataError),
    /// The video has no more windows.
    End,
}

/// Windows of videos, in order.
pub struct WindowStream {
    /// Worker `n` has the `n`-th, the `n + workers`-th, ... of the videos.
    workers: Vec<Receiver<Sent>>,
    next: usize,
    videos: usize,
}

impl WindowStream {
    /// Starts workers on `paths`, from window `from.1` of video `from.0` on.
    ///
    /// # Errors
    /// [`DataError::Setup`] where the system gives no threads.
    pub fn start(
        paths: Arc<Vec<PathBuf>>,
        plan: &WindowPlan,
        from: (usize, usize),
        workers: usize,
    ) -> Result<Self, DataError> {
        let videos = (0..paths.len()).collect();
        Self::of_videos(paths, videos, plan, from, workers)
    }

    /// As [`WindowStream::start`], of some of the videos: those of the numbers `videos`, ascending.
    ///
    /// # Errors
    /// As [`WindowStream::start`].
    pub fn of_videos(
        paths: Arc<Vec<PathBuf>>,
        mut videos: Vec<usize>,
        plan: &WindowPlan,
        from: (usize, usize),
        workers: usize,
    ) -> Result<Self, DataError> {
        videos.retain(|video| *video >= from.0);
        let count = workers.max(1);
        let mut receivers = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, receiver) = sync_channel(AHEAD);
            let (paths, plan) = (Arc::clone(&paths), plan.clone());
            let own: Vec<usize> = videos.iter().copied().skip(number).step_by(count).collect();
            let work = move || {
                for video in own {
                    let skipped = if video == from.0 { from.1 } else { 0 };
                    let Some(path) = paths.get(video) else { return };
                    // Nobody listens any more.
                    if one_video(&sender, &plan, video, path, skipped).is_none() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("windows-{number}")).spawn(work);
            thread.map_err(|error| DataError::Setup(format!("cannot start a thread: {error}")))?;
            receivers.push(receiver);
        }
        Ok(Self { workers: receivers, next: 0, videos: videos.len() })
    }
}

/// Sends the windows of a video; none where nobody listens.
fn one_video(sender: &SyncSender<Sent>, plan: &WindowPlan, video: usize, path: &Path, skipped: usize) -> Option<()> {
    let send = |what: Sent| sender.send(what).ok();
    let bad = |reason: String| Sent::Is(Prepared::Bad { video, reason });
    match Opener::shared().open(path).map_err(|error| error.of(path)) {
        Err(DataError::Bad { reason, .. }) => send(bad(reason))?,
        Err(error) => send(Sent::Failed(error))?,
        Ok(mut media) => {
            for window in plan.windows(media.info()).into_iter().skip(skipped) {
                let prepared = match is_picture(path) {
                    true => StillPlan::of(&plan.preprocessing).and_then(|still| still.prepare(path)),
                    false => plan.prepare(&mut media, &window),
                };
                match prepared {
                    Ok(values) => send(Sent::Is(Prepared::Clip { video, window, values }))?,
                    Err(reason) => {
                        send(bad(reason))?;
                        break;
                    }
                }
            }
        }
    }
    send(Sent::End)
}

impl Iterator for WindowStream {
    type Item = Result<Prepared, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.videos {
            let worker = self.workers.get(self.next % self.workers.len().max(1))?;
            match worker.recv() {
                Ok(Sent::Is(prepared)) => return Some(Ok(prepared)),
                Ok(Sent::End) => self.next += 1,
                Ok(Sent::Failed(error)) => {
                    self.next = self.videos;
                    return Some(Err(error));
                }
                Err(_) => {
                    self.next = self.videos;
                    return Some(Err(DataError::Setup("a thread that decodes videos has ended".into())));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VideoEntry;

    fn plan(every: Option<f64>) -> WindowPlan {
        let data =
            vjepa_recipe::config::DataConfig { num_frames: 2, sampling_rate: 1, crop_size: 32, ..Default::default() };
        WindowPlan { preprocessing: data.preprocessing(), every }
    }

    fn textures() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/textures");
        let entries = crate::read_videos(&folder).unwrap().into_iter();
        entries.map(|entry: VideoEntry| entry.path).take(5).collect()
    }

    fn all(paths: &[PathBuf], every: Option<f64>, from: (usize, usize), workers: usize) -> Vec<Prepared> {
        let stream = WindowStream::start(Arc::new(paths.to_vec()), &plan(every), from, workers).unwrap();
        stream.map(Result::unwrap).collect()
    }

    #[test]
    fn windows_lie_within_the_video_and_by_its_times() {
        let media = Opener::shared().open(&textures()[0]).unwrap();
        let info = media.info();
        let (frames, rate) = (info.frames, info.average_fps());
        assert_eq!(plan(None).windows(info).len(), 1);
        let windows = plan(Some(2.0 / rate)).windows(info);
        assert_eq!(windows.len(), (frames - 2) / 2 + 1);
        assert!(windows.iter().all(|w| w.start == 2 * w.number && w.start + 2 <= frames));
        assert_eq!(plan(Some(1e6)).windows(info).len(), 1);
        assert_eq!(plan(Some(f64::NAN)).windows(info).len(), 1);
    }

    #[test]
    fn the_order_is_the_same_for_any_number_of_workers_and_from_any_start() {
        let mut paths = textures();
        paths.insert(2, "no/such.mp4".into());
        let one = all(&paths, Some(0.3), (0, 0), 1);
        assert!(one.len() > 8, "{}", one.len());
        assert_eq!(all(&paths, Some(0.3), (0, 0), 3), one);
        let place = |p: &Prepared| match p {
            Prepared::Clip { video, window, .. } => (*video, window.number),
            Prepared::Bad { video, .. } => (*video, 0),
        };
        assert!(one.iter().map(place).is_sorted());
        for (skip, first) in one.iter().enumerate() {
            assert_eq!(all(&paths, Some(0.3), place(first), 2), one[skip..], "{skip}");
        }
        let bad: Vec<_> = one.iter().filter(|p| matches!(p, Prepared::Bad { video: 2, .. })).collect();
        assert_eq!(bad.len(), 1);
    }
}
