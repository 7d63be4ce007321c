//! Ranks on CPUs, through the system's MPI.
//!
//! Every call begins with a roll call: the other ranks tell rank 0 that they are here, so that rank 0 can name those that are
//! not when the time is up. MPI itself would wait for ever. What follows does not block either, for the same reason; who waits in
//! it for long tells rank 0 now and then that it is alive.

use crate::beside::{Communicator, Control, Ending};
use crate::{CollectiveError, Launch};
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::request::{Request, Scope, scope};
use mpi::topology::{Communicator as _, SimpleCommunicator};
use mpi::{Rank, Tag, Threading};
use std::time::{Duration, Instant};

/// Tag of the roll call's messages.
const HERE: Tag = 7;

/// Tag of signs of life.
const ALIVE: Tag = 8;

/// Rank 0 speaks first when a rank is late: the others wait this much longer.
const AFTER: Duration = Duration::from_secs(5);

/// MPI's ranks.
pub(crate) struct Mpi {
    world: SimpleCommunicator,
    limit: Duration,
    ending: Ending,
    /// Ends MPI when the job is done.
    _universe: Universe,
}

impl Mpi {
    /// Starts MPI in this process, for this thread.
    ///
    /// # Errors
    /// [`CollectiveError::Start`], or [`CollectiveError::World`] where MPI does not know of the launcher's ranks.
    pub(crate) fn start(launch: Launch, limit: Duration, ending: Ending) -> Result<Self, CollectiveError> {
        // Calls are made by this thread alone; kernels run on others.
        let started = mpi::initialize_with_threading(Threading::Funneled);
        let Some((universe, threading)) = started else {
            let why = "it was started before in this process".to_owned();
            return Err(CollectiveError::Start { engine: "MPI", why });
        };
        if threading < Threading::Funneled {
            let why = "it does not allow threads beside it; install an MPI built with thread support".to_owned();
            return Err(CollectiveError::Start { engine: "MPI", why });
        }
        let ranks = Self { world: universe.world(), limit, ending, _universe: universe };
        if ranks.world() != launch.world {
            return Err(CollectiveError::World { launch, engine: "MPI", world: ranks.world() });
        }
        Ok(ranks)
    }

    /// Rank 0 waits for all others.
    fn roll_call(&self) -> Result<(), CollectiveError> {
        let first = self.world.process_at_rank(0);
        if self.rank() != 0 {
            // So short a message is sent at once, whether rank 0 waits for it or not.
            first.send_with_tag(&0u8, HERE);
            return Ok(());
        }
        let began = Instant::now();
        let mut wait = Wait::new();
        let mut missing: Vec<usize> = (1..self.world()).collect();
        while !missing.is_empty() {
            missing.retain(|rank| {
                match self.world.process_at_rank(index(*rank)).immediate_matched_probe_with_tag(HERE) {
                    Some((message, _)) => {
                        message.matched_receive::<u8>();
                        false
                    }
                    None => true,
                }
            });
            if began.elapsed() > self.limit {
                return Err(CollectiveError::Lost { ranks: missing, limit: self.limit });
            }
            if !missing.is_empty() {
                self.end_if_asked();
                wait.once();
            }
        }
        Ok(())
    }

    /// Waits for an operation that all ranks have begun.
    fn finish<'a, D: ?Sized, S: Scope<'a>>(&self, request: Request<'a, D, S>) -> Result<(), CollectiveError> {
        // Rank 0 speaks first.
        let limit = if self.rank() == 0 { self.limit } else { self.limit + AFTER };
        let (mut request, mut wait, mut signs) = (request, Wait::new(), Signs::new(self));
        loop {
            match request.test() {
                Ok(_) => return Ok(()),
                Err(open) => request = open,
            }
            if signs.began.elapsed() > limit {
                // MPI keeps the buffers: what was begun can only end with the process. In one piece, for the launcher.
                let said = format!("error: {}\n", signs.late());
                eprint!("{said}");
                self.world.abort(1);
            }
            signs.exchange();
            self.end_if_asked();
            wait.once();
        }
    }

    /// Ends the job where this process is to end while its ranks are waited for.
    fn end_if_asked(&self) {
        if let Some(code) = self.ending.code() {
            self.world.abort(code);
        }
    }
}

impl Control for Mpi {
    fn rank(&self) -> usize {
        usize::try_from(self.world.rank()).unwrap_or(0)
    }

    fn world(&self) -> usize {
        usize::try_from(self.world.size()).unwrap_or(1)
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), CollectiveError> {
        self.roll_call()?;
        // MPI counts in 32 bits.
        for part in bytes.chunks_mut(1 << 28) {
            scope(|scope| {
                let root = self.world.process_at_rank(index(root));
                self.finish(root.immediate_broadcast_into(scope, &mut *part))
            })?;
        }
        Ok(())
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.roll_call()?;
        self.finish(self.world.immediate_barrier())
    }

    fn abort(&self, code: i32) {
        self.world.abort(code);
    }
}

impl Communicator for Mpi {
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.roll_call()?;
        let mine = values.to_vec();
        scope(|scope| {
            let sum = SystemOperation::sum();
            self.finish(self.world.immediate_all_reduce_into(scope, &mine[..], &mut *values, sum))
        })
    }
}

fn index(rank: usize) -> Rank {
    Rank::try_from(rank).unwrap_or(Rank::MAX)
}

/// Signs of life that ranks send rank 0 while they wait for an operation, so that it can name those that stopped within it.
struct Signs<'a> {
    ranks: &'a Mpi,
    began: Instant,
    /// When the last sign was sent, or looked for.
    last: Instant,
    /// On rank 0, when the others' last signs were seen.
    seen: Vec<Option<Instant>>,
}

impl<'a> Signs<'a> {
    fn new(ranks: &'a Mpi) -> Self {
        let now = Instant::now();
        Self { ranks, began: now, last: now, seen: vec![None; ranks.world()] }
    }

    /// Sends a sign, or on rank 0 looks for the others'; now and then, so that a short wait does neither.
    fn exchange(&mut self) {
        if self.last.elapsed() < self.ranks.limit / 8 {
            return;
        }
        self.last = Instant::now();
        if self.ranks.rank() != 0 {
            self.ranks.world.process_at_rank(0).send_with_tag(&0u8, ALIVE);
            return;
        }
        for (rank, seen) in self.seen.iter_mut().enumerate().skip(1) {
            // Those of earlier waits go too.
            while let Some((message, _)) =
                self.ranks.world.process_at_rank(index(rank)).immediate_matched_probe_with_tag(ALIVE)
            {
                message.matched_receive::<u8>();
                *seen = Some(self.last);
            }
        }
    }

    /// Why the operation is not over.
    fn late(&self) -> CollectiveError {
        let (rank, limit) = (self.ranks.rank(), self.ranks.limit);
        let silent = |seen: &Option<Instant>| seen.is_none_or(|seen| seen.elapsed() > limit / 2);
        let silent = self.seen.iter().enumerate().skip(1).filter(|(_, seen)| silent(seen));
        let ranks: Vec<usize> = silent.map(|(rank, _)| rank).collect();
        match (rank, ranks.is_empty()) {
            (0, false) => CollectiveError::Lost { ranks, limit },
            _ => CollectiveError::Waited { rank, limit: self.began.elapsed() },
        }
    }
}

/// Asks often at first and seldom later: the other ranks may need this processor.
struct Wait {
    asked: u32,
}

impl Wait {
    fn new() -> Self {
        Self { asked: 0 }
    }

    fn once(&mut self) {
        self.asked = self.asked.saturating_add(1);
        match self.asked {
            ..100 => std::thread::yield_now(),
            100..1000 => std::thread::sleep(Duration::from_micros(50)),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
