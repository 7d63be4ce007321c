//! Which key frame decoding starts from.

use super::Clip;
use crate::backend::Start;
use crate::error::Fault;

/// Which key frame to start from.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum From {
    /// One before the last where that one opens a group whose leading pictures refer to the group before.
    Usual,
    /// One that everything after it can be decoded from.
    Clean,
    /// The last that the frame wanted can be decoded from: what precedes it is damaged.
    Nearest,
}

impl Clip {
    pub(super) fn start_at(&mut self, key: usize) -> Result<Start, Fault> {
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
    pub(super) fn start_for(&mut self, target: usize, from: From) -> Result<usize, Fault> {
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

    pub(super) fn first_key(&self, target: usize) -> usize {
        self.keys.first().copied().filter(|&k| k <= target).unwrap_or(0)
    }

    /// Does a call whose first sample is `first` go on where the last one stopped?
    pub(super) fn in_order_from(&mut self, stopped: usize, first: usize) -> bool {
        // A picture shown next may have been decoded a little earlier.
        first + 2 * self.backend.delay() >= stopped
            && (first <= stopped || self.start_for(first, From::Usual).is_ok_and(|start| start <= stopped))
    }
}
