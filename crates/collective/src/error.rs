//! Why ranks cannot go on together.

use crate::launch::Launch;
use std::time::Duration;

/// Ranks that cannot start or go on together. Every message is one sentence with a remedy.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CollectiveError {
    /// A launcher's variable that is no number, or a rank outside its world.
    #[error(
        "{variable} is `{value}`, which is no {what}: start the program by mpirun, srun or torchrun, or unset {variable}"
    )]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// Several ranks were started by a build that cannot connect them.
    #[error(
        "{launch}, but this build cannot connect ranks: build it with --features mpi, or start one process \
         (`optimization.groups` are then computed one after another)"
    )]
    NoEngine {
        /// What the launcher says.
        launch: Launch,
    },
    /// The launcher and the engine count differently.
    #[error(
        "{launch}, but {engine} counts {world}: start the ranks with the launcher that belongs to {engine} (mpirun or srun \
         --mpi=pmix)"
    )]
    World {
        /// What the launcher says.
        launch: Launch,
        /// `MPI`, `NCCL`.
        engine: &'static str,
        /// What the engine says.
        world: usize,
    },
    /// The engine does not start.
    #[error("{engine} does not start here: {why}")]
    Start {
        /// `MPI`, `NCCL`.
        engine: &'static str,
        /// What it says, and what to do.
        why: String,
    },
    /// Ranks that took no part in time.
    #[error(
        "{} did not answer within {} s: look at the end of {} output for the reason, or allow more time with --rank-timeout",
        named(ranks), limit.as_secs(), if ranks.len() == 1 { "its" } else { "their" }
    )]
    Lost {
        /// The ranks.
        ranks: Vec<usize>,
        /// The time limit.
        limit: Duration,
    },
    /// Rank 0 has heard of all ranks, or should have, and this rank still waits.
    #[error("rank {rank} waited more than {} s for the others; rank 0 says which was late, or is late itself", limit.as_secs())]
    Waited {
        /// This rank.
        rank: usize,
        /// The time limit.
        limit: Duration,
    },
    /// Ranks that mean another run.
    #[error("{} had another {what} than rank 0: give every rank the same files and arguments", named(ranks))]
    Differs {
        /// What differs.
        what: &'static str,
        /// The ranks.
        ranks: Vec<usize>,
    },
    /// Groups that cannot be shared evenly.
    #[error(
        "{groups} groups of clips a step cannot be shared evenly by {world} ranks: start {} ranks, or set `optimization.groups` \
         to a multiple of {world}",
        listed(possible)
    )]
    Uneven {
        /// Groups of a step.
        groups: u64,
        /// Ranks.
        world: u64,
        /// Numbers of ranks that share them evenly.
        possible: Vec<u64>,
    },
}

/// `rank 3`, `ranks 1, 2 and 5`.
fn named(ranks: &[usize]) -> String {
    let words: Vec<String> = ranks.iter().take(8).map(usize::to_string).collect();
    let more = ranks.len().saturating_sub(words.len());
    match (words.as_slice(), more) {
        ([one], 0) => format!("rank {one}"),
        ([first @ .., last], 0) => format!("ranks {} and {last}", first.join(", ")),
        (some, more) => format!("ranks {} and {more} more", some.join(", ")),
    }
}

/// `1, 2 or 4`.
fn listed(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    match words.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        words => words.join(", "),
    }
}
