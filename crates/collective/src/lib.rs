//! Processes that train together, as one small trait over existing engines.
//!
//! A *rank* is one process among `world`. [`Alone`] is the only one; with the feature `mpi`, `mpi.rs` has ranks on CPUs
//! through the system's MPI, and with `nccl`, `nccl.rs` has ranks on NVIDIA GPUs, which meet over TCP (`rendezvous.rs`) or MPI. A
//! [`Communicator`] works on a thread of its own ([`Beside`]), so that sums travel while the rank computes. Which rank a process
//! is comes from its launcher ([`Launch`]). What every engine has in common is here: collecting bytes of each rank ([`gather`])
//! and checking that all mean the same run ([`agree`]); `share.rs` deals samples out to ranks.
//!
//! Every call is made by all ranks in the same order. A rank that does not take part within the time limit is an error that
//! names it, and whoever sees an error ends the job by [`Collective::abort`].

#![warn(missing_docs)]
#![deny(unsafe_code)]

mod beside;
mod error;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod on_device;
mod rendezvous;
mod share;

pub use beside::{Beside, Communicator, Control};
pub use error::CollectiveError;
pub use launch::{Launch, Launcher};
#[cfg(feature = "nccl")]
pub use nccl::{Libraries, Nccl, ranks as ranks_on_gpus, sum_alone};
pub use on_device::OnDevice;
pub use rendezvous::{Lines, Meeting};
pub use share::{Portion, collect, turn};

use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Processes that compute one run together.
pub trait Collective: Sync {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// Begins to sum `values` over all ranks, element by element; every rank gets the same bits. Calls are done in the order in
    /// which they are made.
    fn begin_sum(&self, values: Vec<f32>) -> Sum;

    /// The number, on this machine, of the GPU on which floats can be summed where they lie; none where they cannot.
    fn sums_on_device(&self) -> Option<usize> {
        None
    }

    /// As [`Collective::begin_sum`], of floats on a GPU, which are replaced by their sums; [`Summed`] has no values then.
    fn begin_sum_on(&self, _floats: Vec<OnDevice>) -> Sum {
        Sum::There(Err(beside::not_on_device()))
    }

    /// Replaces `values` by their sums over all ranks, as [`Collective::begin_sum`].
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost or late.
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        values.copy_from_slice(&self.begin_sum(values.to_vec()).wait()?.values);
        Ok(())
    }

    /// Overwrites `bytes` with those of rank `root`; all ranks give equally many.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost or late.
    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), CollectiveError>;

    /// Returns when all ranks are here.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost or late.
    fn barrier(&self) -> Result<(), CollectiveError>;

    /// Ends every rank's process with this exit code, as far as the engine can; returns where there is only this one.
    fn abort(&self, code: i32);
}

/// A sum that was begun.
#[derive(Debug)]
pub enum Sum {
    /// It is on its way.
    Begun(Receiver<Result<Summed, CollectiveError>>),
    /// It is there.
    There(Result<Summed, CollectiveError>),
}

/// A sum that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Summed {
    /// The sums; none of floats that stayed on a GPU.
    pub values: Vec<f32>,
    /// How long the engine was at it, waiting for other ranks included.
    pub took: Duration,
}

impl Sum {
    /// Waits for it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost or late.
    pub fn wait(self) -> Result<Summed, CollectiveError> {
        match self {
            Self::Begun(answer) => answer.recv().unwrap_or_else(|_| Err(beside::gone())),
            Self::There(sum) => sum,
        }
    }
}

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn begin_sum(&self, values: Vec<f32>) -> Sum {
        Sum::There(Ok(Summed { values, took: Duration::ZERO }))
    }

    fn broadcast(&self, _bytes: &mut [u8], _root: usize) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn abort(&self, _code: i32) {}
}

/// The ranks this process was started among, on CPUs; alone where no launcher says otherwise. `limit` is how long a rank may
/// keep the others waiting.
///
/// # Errors
/// [`CollectiveError`] where several ranks were started and this build cannot connect them.
pub fn on_cpus(limit: Duration) -> Result<Box<dyn Collective>, CollectiveError> {
    match Launch::from_env()? {
        Some(launch) if launch.world > 1 => connect(launch, limit),
        _ => Ok(Box::new(Alone)),
    }
}

/// Ranks on GPUs, and the number of this one's GPU on its machine.
pub type OnGpu = (Box<dyn Collective>, usize);

/// The ranks this process was started among, on NVIDIA GPUs: each takes the one of its number on its machine, which is
/// returned; none where no launcher says that there are several.
///
/// # Errors
/// [`CollectiveError`] where this build cannot connect them, or they do not meet.
pub fn on_gpus(limit: Duration) -> Result<Option<OnGpu>, CollectiveError> {
    match Launch::from_env()? {
        Some(launch) if launch.world > 1 => connect_gpus(launch, limit).map(|ranks| Some((ranks, launch.local))),
        _ => Ok(None),
    }
}

#[cfg(feature = "nccl")]
fn connect_gpus(launch: Launch, limit: Duration) -> Result<Box<dyn Collective>, CollectiveError> {
    Ok(Box::new(nccl::ranks(launch, Libraries::default(), limit)?))
}

#[cfg(not(feature = "nccl"))]
fn connect_gpus(launch: Launch, _limit: Duration) -> Result<Box<dyn Collective>, CollectiveError> {
    Err(CollectiveError::NoEngine { launch })
}

/// How long a sum of so many floats takes through NCCL on one GPU alone, to see whether it works; none where this build has no
/// NCCL.
///
/// # Errors
/// As [`on_gpus`].
#[cfg(feature = "nccl")]
pub fn try_nccl(device: usize, floats: usize) -> Result<Option<Duration>, CollectiveError> {
    sum_alone(device, &Libraries::default(), floats).map(Some)
}

/// How long a sum of so many floats takes through NCCL on one GPU alone, to see whether it works; none where this build has no
/// NCCL.
///
/// # Errors
/// None in this build.
#[cfg(not(feature = "nccl"))]
pub fn try_nccl(_device: usize, _floats: usize) -> Result<Option<Duration>, CollectiveError> {
    Ok(None)
}

#[cfg(feature = "mpi")]
fn connect(launch: Launch, limit: Duration) -> Result<Box<dyn Collective>, CollectiveError> {
    let ending = beside::Ending::new();
    let asked = ending.clone();
    Ok(Box::new(Beside::with(ending, move || mpi::Mpi::start(launch, limit, asked))?))
}

#[cfg(not(feature = "mpi"))]
fn connect(launch: Launch, _limit: Duration) -> Result<Box<dyn Collective>, CollectiveError> {
    Err(CollectiveError::NoEngine { launch })
}

/// What every rank has to say, in the order of ranks.
///
/// # Errors
/// [`CollectiveError`] when a rank is lost or late.
pub fn gather(ranks: &dyn Collective, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
    (0..ranks.world()).map(|root| broadcast_all(ranks, if root == ranks.rank() { mine } else { &[] }, root)).collect()
}

/// The bytes of rank `root`, however many they are; other ranks' `mine` is not read.
///
/// # Errors
/// [`CollectiveError`] when a rank is lost or late.
pub fn broadcast_all(ranks: &dyn Collective, mine: &[u8], root: usize) -> Result<Vec<u8>, CollectiveError> {
    let mut length = (mine.len() as u64).to_le_bytes();
    ranks.broadcast(&mut length, root)?;
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    let mut bytes = if ranks.rank() == root { mine.to_vec() } else { vec![0; length] };
    ranks.broadcast(&mut bytes, root)?;
    Ok(bytes)
}

/// Overwrites `values` with those of rank `root`, bit for bit; all ranks give equally many.
///
/// # Errors
/// [`CollectiveError`] when a rank is lost or late.
pub fn broadcast_floats(ranks: &dyn Collective, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let mut bytes = vec![0; size_of_val(values)];
    if ranks.rank() == root {
        bytes.as_chunks_mut().0.iter_mut().zip(&*values).for_each(|(word, value)| *word = value.to_le_bytes());
    }
    ranks.broadcast(&mut bytes, root)?;
    values.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, word)| *value = f32::from_le_bytes(*word));
    Ok(())
}

/// The sums of a few numbers over all ranks, in double precision and in the order of ranks.
///
/// # Errors
/// [`CollectiveError`] when a rank is lost or late.
pub fn totals(ranks: &dyn Collective, mine: &[f64]) -> Result<Vec<f64>, CollectiveError> {
    if ranks.world() == 1 {
        return Ok(mine.to_vec());
    }
    let bytes: Vec<u8> = mine.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut totals = vec![0.0; mine.len()];
    for theirs in gather(ranks, &bytes)? {
        for (total, word) in totals.iter_mut().zip(theirs.as_chunks::<8>().0) {
            *total += f64::from_le_bytes(*word);
        }
    }
    Ok(totals)
}

/// Whether any rank says so.
///
/// # Errors
/// [`CollectiveError`] when a rank is lost or late.
pub fn any(ranks: &dyn Collective, mine: bool) -> Result<bool, CollectiveError> {
    Ok(totals(ranks, &[f64::from(u8::from(mine))])?.iter().any(|count| *count > 0.0))
}

/// Checks that all ranks give the same value under each name, which is a phrase such as `configuration`.
///
/// # Errors
/// [`CollectiveError::Differs`] names the first fact that differs from rank 0's and the ranks that have another.
pub fn agree(ranks: &dyn Collective, facts: &[(&'static str, String)]) -> Result<(), CollectiveError> {
    for (what, mine) in facts {
        let all = gather(ranks, mine.as_bytes())?;
        let first = all.first().cloned().unwrap_or_default();
        let others: Vec<usize> = (0..all.len()).filter(|rank| all.get(*rank) != Some(&first)).collect();
        if !others.is_empty() {
            return Err(CollectiveError::Differs { what, ranks: others });
        }
    }
    Ok(())
}

/// The ranks that may share `groups`: its divisors.
pub fn divisors(groups: u64) -> Vec<u64> {
    (1..=groups).filter(|ranks| groups.is_multiple_of(*ranks)).collect()
}

/// Checks that this many ranks can share `groups` groups of a step evenly.
///
/// # Errors
/// [`CollectiveError::Uneven`] names the numbers of ranks that can.
pub fn shares(ranks: &dyn Collective, groups: u64) -> Result<u64, CollectiveError> {
    let world = ranks.world() as u64;
    if groups.is_multiple_of(world) {
        Ok(groups / world)
    } else {
        Err(CollectiveError::Uneven { groups, world, possible: divisors(groups) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rank_agrees_with_itself() {
        let ranks = Alone;
        let mut values = [1.5, -2.0];
        ranks.all_reduce(&mut values).unwrap();
        assert_eq!(values, [1.5, -2.0]);
        assert_eq!(gather(&ranks, b"ab").unwrap(), [b"ab"]);
        assert_eq!(totals(&ranks, &[0.25, 1.0]).unwrap(), [0.25, 1.0]);
        assert!(any(&ranks, true).unwrap() && !any(&ranks, false).unwrap());
        agree(&ranks, &[("configuration", "a".into())]).unwrap();
    }

    #[test]
    fn numbers_of_ranks_that_would_do_are_named() {
        struct Of(usize);
        impl Collective for Of {
            fn rank(&self) -> usize {
                0
            }
            fn world(&self) -> usize {
                self.0
            }
            fn begin_sum(&self, values: Vec<f32>) -> Sum {
                Alone.begin_sum(values)
            }
            fn broadcast(&self, _: &mut [u8], _: usize) -> Result<(), CollectiveError> {
                Ok(())
            }
            fn barrier(&self) -> Result<(), CollectiveError> {
                Ok(())
            }
            fn abort(&self, _: i32) {}
        }
        assert_eq!(shares(&Of(4), 12), Ok(3));
        let error = shares(&Of(8), 12).unwrap_err().to_string();
        assert!(error.contains("12 groups") && error.contains("1, 2, 3, 4, 6 or 12"), "{error}");
        let error = shares(&Of(2), 1).unwrap_err().to_string();
        assert!(error.contains("optimization.groups"), "{error}");
    }
}
