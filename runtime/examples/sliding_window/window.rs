//! The frames of a stream that a clip needs, and the one clip that waits to be classified.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A frame's bytes.
pub type Frame = Arc<[u8]>;

/// A clip that is due.
pub struct Clip {
    pub frames: Vec<Frame>,
    /// Number of its last frame in the stream.
    pub last: usize,
}

/// The frames of a stream that a clip may still need.
pub struct Window {
    offsets: Vec<usize>,
    stride: usize,
    frames: VecDeque<Frame>,
    seen: usize,
}

impl Window {
    /// For clips of frames at these offsets, one every `stride` frames.
    pub fn new(offsets: Vec<usize>, stride: usize) -> Self {
        Self { offsets, stride, frames: VecDeque::new(), seen: 0 }
    }

    /// Takes the next frame; gives a clip when one is due.
    pub fn push(&mut self, frame: Frame) -> Option<Clip> {
        let span = self.offsets.last()? + 1;
        self.frames.push_back(frame);
        self.seen += 1;
        if self.frames.len() > span {
            self.frames.pop_front();
        }
        let due = self.seen.checked_sub(span)?.is_multiple_of(self.stride);
        let clip = || self.offsets.iter().map(|offset| self.frames.get(*offset).cloned()).collect::<Option<_>>();
        due.then(clip).flatten().map(|frames| Clip { frames, last: self.seen - 1 })
    }
}

/// What reader and classifier share: one clip that waits.
#[derive(Default)]
struct Slot {
    clip: Option<Clip>,
    left_out: usize,
    /// The stream has ended, and how.
    ended: Option<io::Result<()>>,
    closed: bool,
}

#[derive(Default)]
pub struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, slot: MutexGuard<'a, Slot>) -> MutexGuard<'a, Slot> {
        self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream has ended.
    pub fn end(&self, how: io::Result<()>) {
        self.lock().ended = Some(how);
        self.changed.notify_all();
    }

    /// Nobody takes clips any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Leaves a clip for the classifier; false when nobody takes it.
    fn put(&self, clip: Clip, live: bool) -> bool {
        let mut slot = self.lock();
        while slot.clip.is_some() && !live && !slot.closed {
            slot = self.wait(slot);
        }
        slot.left_out += usize::from(slot.clip.replace(clip).is_some());
        self.changed.notify_all();
        !slot.closed
    }

    /// The next clip and how many were left out before it; none when the stream has ended.
    pub fn take(&self) -> io::Result<Option<(Clip, usize)>> {
        let mut slot = self.lock();
        loop {
            if let Some(clip) = slot.clip.take() {
                self.changed.notify_all();
                return Ok(Some((clip, std::mem::take(&mut slot.left_out))));
            }
            if let Some(ended) = slot.ended.take() {
                return ended.map(|()| None);
            }
            slot = self.wait(slot);
        }
    }
}

/// Reads frames until the stream ends; part of a frame at its end is an error.
pub fn read(mut stream: impl Read, size: usize, mut window: Window, live: bool, shared: &Shared) -> io::Result<()> {
    loop {
        let mut frame = Vec::with_capacity(size);
        let got = stream.by_ref().take(size as u64).read_to_end(&mut frame)?;
        if got == 0 {
            return Ok(());
        }
        if got < size {
            let what = format!("the stream ends with {got} bytes of a frame of {size}; check --width and --height");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        if window.push(frame.into()).is_some_and(|clip| !shared.put(clip, live)) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of the frames of each clip of a stream of `count` one-byte frames.
    fn clips(offsets: &[usize], stride: usize, count: u8) -> Vec<Vec<u8>> {
        let mut window = Window::new(offsets.to_vec(), stride);
        let pushed = (0..count).filter_map(|i| window.push(Arc::new([i])));
        pushed.map(|clip| clip.frames.iter().map(|frame| frame[0]).collect()).collect()
    }

    #[test]
    fn clips_are_due_every_stride_frames() {
        assert_eq!(clips(&[0, 2, 4], 3, 12), [[0, 2, 4], [3, 5, 7], [6, 8, 10]]);
        assert_eq!(clips(&[0], 5, 11), [[0], [5], [10]]);
        assert!(clips(&[0, 4], 1, 4).is_empty());
    }

    #[test]
    fn a_slow_classifier_gets_all_clips_or_the_newest() {
        for (live, expected) in [(false, vec![(1, 0), (2, 0), (3, 0)]), (true, vec![(3, 2)])] {
            let shared = Shared::default();
            let stream: &[u8] = &[1, 2, 3];
            let taken = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let ended = read(stream, 1, Window::new(vec![0], 1), live, &shared);
                    shared.end(ended);
                });
                if live {
                    // All frames are read although nobody took a clip.
                    reader.join().unwrap();
                }
                let next = || shared.take().unwrap().map(|(clip, left_out)| (clip.frames[0][0], left_out));
                std::iter::from_fn(next).collect::<Vec<_>>()
            });
            assert_eq!(taken, expected, "live: {live}");
        }
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let error = read(&[0u8; 10][..], 4, Window::new(vec![0], 1), true, &Shared::default()).unwrap_err();
        assert!(error.to_string().contains("2 bytes of a frame of 4"), "{error}");
    }
}
