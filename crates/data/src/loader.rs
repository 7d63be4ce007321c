//! Computes clips ahead of the training loop and hands them out in order.
//!
//! Worker threads claim tickets, the numbers of samples in the run, and compute them in whatever order they get to. A bounded
//! window keeps them from running ahead without limit; the consumer takes results by ticket, so a batch is the same for
//! any number of workers, and for none. A run resumes from its step number alone.
//!
//! An unreadable video leaves no gap: the next stand-in for its position is tried. It is counted and listed when
//! the consumer reaches it, in order, so that counts and lists do not depend on the workers either. When too large a share
//! of tries is bad, or no stand-in can be read, the loader stops with a message that says so.

mod workers;

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::batch::{ClipBatch, LoaderConfig, LoaderStats};
use super::quarantine::Quarantine;
use super::source::{ClipSource, DataError, SampleInfo};
use super::stream::SampleStream;
use super::values::ClipValues;
use workers::{Outcome, Shared, State, work};

/// Samples tried per position before giving up. With half of all videos bad, one position in 10^19 is lost.
pub const MAX_TRIES: u32 = 64;

/// Tries before the share of bad ones is judged.
pub const JUDGED_FROM: u64 = 64;

/// Hands out the batches of a run in order.
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    config: LoaderConfig,
    /// Batches handed out since the run's beginning.
    number: u64,
    quarantine: Quarantine,
    stats: LoaderStats,
    first_bad: Option<DataError>,
    /// The bad videos met by this loader, each once; panics count by position.
    met: HashSet<PathBuf>,
    failed: Option<DataError>,
    spare: Vec<ClipValues>,
    began: Option<Instant>,
}

impl Loader {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`DataError::Setup`] for an empty data set, a batch of 0, a rank outside the world, groups that the world does not
    /// divide or of which this process has none, a list of bad videos that cannot be written, or a system that gives no
    /// threads.
    pub fn new(source: Arc<dyn ClipSource>, config: LoaderConfig) -> Result<Self, DataError> {
        let setup = |why: String| Err(DataError::Setup(why));
        if config.batch == 0 || config.world == 0 || config.rank >= config.world {
            return setup(format!(
                "a loader needs a batch of at least 1 and a rank below the world size; it has batch {}, rank {} of {}",
                config.batch, config.rank, config.world
            ));
        }
        let all = config.groups.saturating_add(config.base).saturating_add(config.after);
        if config.groups == 0 || !all.is_multiple_of(config.world) {
            return setup(format!("{all} groups cannot be shared by {} processes", config.world));
        }
        if source.len() == Some(0) {
            return setup("the data set is empty".into());
        }
        let (batch, world) = (config.batch as u64, config.world as u64);
        let stream = SampleStream {
            seed: config.seed,
            len: source.len(),
            batch,
            groups: config.groups as u64,
            base: config.base as u64,
            rank: config.rank as u64,
            world,
        };
        if stream.own_groups() == 0 {
            return setup(format!("rank {} has no group of this data set", config.rank));
        }
        // Half of the range is left for the run itself.
        let numbers = config.start_step.checked_mul(stream.own_groups());
        let tickets = numbers.and_then(|numbers| numbers.checked_mul(batch));
        let tickets = tickets.filter(|&n| n.checked_mul(world).is_some_and(|n| n < 1 << 62));
        let (Some(number), Some(first)) = (numbers, tickets) else {
            return setup(format!("step {} is too far to start from", config.start_step));
        };
        let shape = source.shape();
        let clip_len = shape.iter().try_fold(source.clips(), |n, &side| n.checked_mul(side));
        let Some((clip_len, _)) = clip_len.and_then(|n| Some((n, n.checked_mul(config.batch)?))) else {
            return setup(format!("a batch of {} clips of shape {shape:?} does not fit into memory", config.batch));
        };
        let quarantine = Quarantine::open(config.quarantine.as_deref())?;
        let window = match config.window {
            0 => 2 * config.batch + config.workers,
            given => given.max(config.workers),
        };
        let shared = Arc::new(Shared {
            stream,
            source,
            sample_len: clip_len,
            stop: AtomicBool::new(false),
            state: Mutex::new(State { first, window, slots: VecDeque::new(), free: Vec::new(), alive: config.workers }),
            room: Condvar::new(),
            ready: Condvar::new(),
        });
        let mut loader = Self {
            shared,
            workers: Vec::new(),
            number,
            config,
            quarantine,
            stats: LoaderStats::default(),
            first_bad: None,
            met: HashSet::new(),
            failed: None,
            spare: Vec::new(),
            began: None,
        };
        for number in 0..loader.config.workers {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new().name(format!("loader-{number}")).spawn(move || work(&shared));
            // Dropping the loader ends the workers that did start.
            loader.workers.push(thread.map_err(|e| DataError::Setup(format!("cannot start a loader thread: {e}")))?);
        }
        Ok(loader)
    }

    /// The step of the next batch.
    pub fn step(&self) -> u64 {
        self.shared.stream.place(self.number).0
    }

    /// Clips, bad tries and waiting time so far, since this loader started.
    pub fn stats(&self) -> &LoaderStats {
        &self.stats
    }

    /// The list of bad videos.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// The next group's batch, waiting for it if need be.
    ///
    /// # Errors
    /// [`DataError::TooBad`] when too much of the data is unusable, or what the source itself cannot go on after. The loader
    /// gives the same error from then on.
    pub fn next_batch(&mut self) -> Result<ClipBatch, DataError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        let result = self.fill();
        self.stats.took = began.elapsed();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            // Nobody will take what the workers still make.
            self.shared.stop();
        }
        result
    }

    /// Takes the memory of a batch back for one to come. Without it each batch is allocated anew, and so many megabytes go back
    /// to the system and come again at every step.
    pub fn recycle(&mut self, clips: ClipValues) {
        let floats = matches!(clips, ClipValues::Floats(_));
        if self.spare.len() < 2 && floats == self.hands_out_floats() {
            self.spare.push(clips);
        }
    }

    /// Whether batches are of floats, not of bytes.
    pub fn hands_out_floats(&self) -> bool {
        self.shared.source.scaling().is_none()
    }

    fn fill(&mut self) -> Result<ClipBatch, DataError> {
        let (len, batch) = (self.shared.sample_len, self.config.batch);
        let [channels, time, height, width] = self.shared.source.shape();
        let clip_len = channels * time * height * width;
        // What is left of an earlier batch is written over.
        let mut clips = self.spare.pop().unwrap_or_else(|| ClipValues::empty(self.shared.source.scaling()));
        clips.resize(len * batch);
        let mut infos = Vec::with_capacity(batch);
        for place in 0..batch {
            let began = Instant::now();
            let outcome = self.take()?;
            self.stats.waited += began.elapsed();
            let (info, sample) = self.judge(outcome)?;
            clips.put(&sample, clip_len, (place, batch))?;
            infos.push(info);
            self.shared.lock().free.push(sample);
        }
        let (step, group) = self.shared.stream.place(self.number);
        self.number += 1;
        let count = batch * self.shared.source.clips();
        Ok(ClipBatch { step, group, clips, shape: [count, channels, time, height, width], infos })
    }

    /// The result of the next ticket.
    fn take(&self) -> Result<Outcome, DataError> {
        let mut state = self.shared.lock();
        if self.config.workers == 0 {
            let (ticket, buffer) = (state.first, state.free.pop());
            state.first += 1;
            drop(state);
            return Ok(self.shared.compute(ticket, buffer));
        }
        loop {
            if let Some(Some(_)) = state.slots.front() {
                state.first += 1;
                let outcome = state.slots.pop_front().flatten();
                drop(state);
                self.shared.room.notify_one();
                return outcome.ok_or_else(|| DataError::Setup("the loader lost a clip".into()));
            }
            if state.alive == 0 {
                return Err(DataError::Setup("all loader threads have ended".into()));
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts and lists what was bad on the way to a clip, and stops the run when it is too much.
    fn judge(&mut self, outcome: Outcome) -> Result<(SampleInfo, ClipValues), DataError> {
        for error in outcome.bad {
            self.stats.bad += 1;
            match &error {
                DataError::Bad { path, reason } => {
                    self.quarantine.add(path, reason);
                    self.met.insert(path.clone());
                }
                error => {
                    self.met.insert(PathBuf::from(error.to_string()));
                }
            }
            self.first_bad.get_or_insert(error);
        }
        let (good, bad) = (self.stats.good, self.stats.bad);
        let info = match outcome.result {
            Ok(info) => info,
            Err(error) if error.is_bad_sample() && good == 0 => {
                return Err(self.too_bad(self.none_read()));
            }
            Err(error) if error.is_bad_sample() => {
                return Err(self.too_bad(format!("{MAX_TRIES} clips in a row could not be read ({})", self.videos())));
            }
            Err(error) => return Err(error),
        };
        let tries = good + 1 + bad;
        if tries >= JUDGED_FROM && bad as f64 > self.config.max_bad_fraction * tries as f64 {
            let share = self.config.max_bad_fraction;
            return Err(self.too_bad(format!(
                "{bad} of {tries} clips drawn ({}) could not be read, more than data.max_bad_fraction ({share}) allows",
                self.videos()
            )));
        }
        self.stats.good += 1;
        Ok((info, outcome.clip))
    }

    /// How many bad videos were met: tries are drawn with replacement, so they say little of a short list.
    fn videos(&self) -> String {
        match self.shared.source.len() {
            Some(len) => format!("{} of {len} videos", self.met.len()),
            None => format!("{} videos", self.met.len()),
        }
    }

    /// The message when no video could be read.
    fn none_read(&self) -> String {
        let met = self.met.len() as u64;
        match self.shared.source.len() {
            Some(1) => "the only video could not be read".into(),
            Some(len) if met >= len => format!("none of the {len} videos could be read"),
            Some(len) => format!("none of the {met} videos tried, of {len}, could be read"),
            None => format!("none of the {} clips tried could be read", self.stats.bad),
        }
    }

    fn too_bad(&self, what: String) -> DataError {
        let first = self.first_bad.as_ref().map(|error| format!("; the first was {error}")).unwrap_or_default();
        let list = match &self.config.quarantine {
            Some(path) => format!("; all are listed in {}", path.display()),
            None => String::new(),
        };
        DataError::TooBad(format!("{what}{first}{list}"))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.workers.drain(..) {
            // A worker ends after the clip it is at. Its panic, if any, has been reported by the missing result.
            let _ = worker.join();
        }
    }
}
