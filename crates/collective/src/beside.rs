//! A communicator on a thread of its own, so that sums travel while this process computes.
//!
//! The communicator is started, used and ended on that thread alone, which is what MPI asks of a program by default and what
//! a GPU's context is bound to. Calls are done in the order in which they are made, so that all ranks do them in the same
//! order.

use crate::{Collective, CollectiveError, OnDevice, Sum, Summed};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How ranks tell one another what is no sum: a communicator's identifier, comparisons, roll calls.
pub trait Control {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

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

    /// Ends every rank's process with this exit code, as far as it can.
    fn abort(&self, code: i32);
}

/// What connects ranks, used from one thread.
pub trait Communicator: Control {
    /// Sums `values` over all ranks, element by element; every rank gets the same bits.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is lost or late.
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// The number, on this machine, of the GPU on which it sums floats where they lie; none where it does not.
    fn sums_on_device(&self) -> Option<usize> {
        None
    }

    /// As [`Communicator::all_reduce`], of floats on a GPU.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`]; [`CollectiveError::Start`] for a communicator that does not.
    fn all_reduce_on(&self, _floats: &[OnDevice]) -> Result<(), CollectiveError> {
        Err(not_on_device())
    }
}

/// A communicator was asked for what it said it has not.
pub(crate) fn not_on_device() -> CollectiveError {
    CollectiveError::Start { engine: "the engine between ranks", why: "it sums nothing on a GPU".to_owned() }
}

/// Whether, and with which exit code, the process is to end: a communicator that waits for other ranks asks.
#[derive(Clone, Debug)]
pub(crate) struct Ending(Arc<AtomicI32>);

impl Ending {
    /// No exit code.
    const NONE: i32 = i32::MIN;

    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI32::new(Self::NONE)))
    }

    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "asked by MPI's waiting"))]
    pub(crate) fn code(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|code| *code != Self::NONE)
    }

    fn set(&self, code: i32) {
        self.0.store(code, Ordering::Relaxed);
    }
}

/// How long a communicator may take to end the job before this process ends by itself.
const ENDING: Duration = Duration::from_secs(5);

/// A call, with where its result goes.
enum Call {
    Sum(Vec<f32>, Sender<Result<Summed, CollectiveError>>),
    SumOn(Vec<OnDevice>, Sender<Result<Summed, CollectiveError>>),
    Broadcast(Vec<u8>, usize, Sender<Result<Vec<u8>, CollectiveError>>),
    Barrier(Sender<Result<(), CollectiveError>>),
    Abort(i32),
}

/// Ranks whose communicator runs beside this process's other work.
pub struct Beside {
    rank: usize,
    world: usize,
    sums_on_device: Option<usize>,
    calls: Option<Sender<Call>>,
    thread: Option<JoinHandle<()>>,
    ending: Ending,
}

impl Beside {
    /// Starts a communicator on a thread of its own.
    ///
    /// # Errors
    /// What `start` fails with, and [`CollectiveError::Start`] where there can be no thread.
    pub fn start<E: Communicator>(
        start: impl FnOnce() -> Result<E, CollectiveError> + Send + 'static,
    ) -> Result<Self, CollectiveError> {
        Self::with(Ending::new(), start)
    }

    /// [`Beside::start`], with what the communicator asks while it waits.
    pub(crate) fn with<E: Communicator>(
        ending: Ending,
        start: impl FnOnce() -> Result<E, CollectiveError> + Send + 'static,
    ) -> Result<Self, CollectiveError> {
        let (calls, received) = channel();
        let (started, starting) = channel();
        let run = move || match start() {
            Ok(communicator) => {
                let _ = started.send(Ok((communicator.rank(), communicator.world(), communicator.sums_on_device())));
                serve(&communicator, &received);
            }
            Err(error) => drop(started.send(Err(error))),
        };
        let no_thread = |why: String| CollectiveError::Start { engine: "the thread for sums", why };
        let thread = std::thread::Builder::new().name("ranks".to_owned()).spawn(run);
        let thread = thread.map_err(|error| no_thread(error.to_string()))?;
        let (rank, world, sums_on_device) = starting.recv().map_err(|_| no_thread("it ended at once".to_owned()))??;
        Ok(Self { rank, world, sums_on_device, calls: Some(calls), thread: Some(thread), ending })
    }

    /// Makes a call and waits for its result.
    fn ask<T>(&self, call: impl FnOnce(Sender<Result<T, CollectiveError>>) -> Call) -> Result<T, CollectiveError> {
        let (answer, answered) = channel();
        self.send(call(answer));
        answered.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Makes a call whose sum is waited for later.
    fn begin(&self, call: impl FnOnce(Sender<Result<Summed, CollectiveError>>) -> Call) -> Sum {
        let (answer, answered) = channel();
        self.send(call(answer));
        Sum::Begun(answered)
    }

    /// A call that nobody takes any more is found out by whoever waits for its result.
    fn send(&self, call: Call) {
        if let Some(calls) = &self.calls {
            let _ = calls.send(call);
        }
    }
}

/// The communicator's thread has ended: it panicked.
pub(crate) fn gone() -> CollectiveError {
    CollectiveError::Start { engine: "the engine between ranks", why: "it has failed; start the job again".to_owned() }
}

fn serve(communicator: &impl Communicator, calls: &Receiver<Call>) {
    // Whoever does not wait for a result any more does not need it.
    while let Ok(call) = calls.recv() {
        match call {
            Call::Sum(mut values, answer) => {
                let began = Instant::now();
                let summed = communicator.all_reduce(&mut values);
                let _ = answer.send(summed.map(|()| Summed { values, took: began.elapsed() }));
            }
            Call::SumOn(floats, answer) => {
                let began = Instant::now();
                let summed = communicator.all_reduce_on(&floats);
                let _ = answer.send(summed.map(|()| Summed { values: Vec::new(), took: began.elapsed() }));
            }
            Call::Broadcast(mut bytes, root, answer) => {
                let sent = communicator.broadcast(&mut bytes, root);
                let _ = answer.send(sent.map(|()| bytes));
            }
            Call::Barrier(answer) => drop(answer.send(communicator.barrier())),
            Call::Abort(code) => communicator.abort(code),
        }
    }
}

impl Collective for Beside {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn begin_sum(&self, values: Vec<f32>) -> Sum {
        self.begin(|answer| Call::Sum(values, answer))
    }

    fn sums_on_device(&self) -> Option<usize> {
        self.sums_on_device
    }

    fn begin_sum_on(&self, floats: Vec<OnDevice>) -> Sum {
        self.begin(|answer| Call::SumOn(floats, answer))
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), CollectiveError> {
        let sent = self.ask(|answer| Call::Broadcast(bytes.to_vec(), root, answer))?;
        bytes.copy_from_slice(&sent);
        Ok(())
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.ask(Call::Barrier)
    }

    fn abort(&self, code: i32) {
        self.ending.set(code);
        self.send(Call::Abort(code));
        // The communicator ends this process. One that is stuck does not, and the launcher then ends the others.
        std::thread::sleep(ENDING);
        std::process::exit(code);
    }
}

impl Drop for Beside {
    /// Communicators say goodbye to one another on the thread that started them.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};

    /// Two ranks in one process.
    struct Pair {
        rank: usize,
        shared: Arc<(Barrier, Mutex<Vec<Vec<f32>>>)>,
        calls: Arc<Mutex<Vec<usize>>>,
    }

    impl Communicator for Pair {
        fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
            let (barrier, given) = &*self.shared;
            self.calls.lock().unwrap().push(values.len());
            given.lock().unwrap()[self.rank] = values.to_vec();
            barrier.wait();
            let sums: Vec<f32> = {
                let given = given.lock().unwrap();
                given[0].iter().zip(&given[1]).map(|(a, b)| a + b).collect()
            };
            barrier.wait();
            values.copy_from_slice(&sums);
            Ok(())
        }
    }

    impl Control for Pair {
        fn rank(&self) -> usize {
            self.rank
        }

        fn world(&self) -> usize {
            2
        }

        fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), CollectiveError> {
            let mut values: Vec<f32> = bytes.iter().map(|byte| f32::from(*byte)).collect();
            if self.rank != root {
                values.fill(0.0);
            }
            self.all_reduce(&mut values)?;
            bytes.iter_mut().zip(values).for_each(|(byte, value)| *byte = value as u8);
            Ok(())
        }

        fn barrier(&self) -> Result<(), CollectiveError> {
            Err(CollectiveError::Lost { ranks: vec![1], limit: Duration::from_secs(1) })
        }

        fn abort(&self, _: i32) {}
    }

    #[test]
    fn calls_are_made_in_order_beside_the_rank() {
        let shared = Arc::new((Barrier::new(2), Mutex::new(vec![Vec::new(); 2])));
        let ranks = [0, 1].map(|rank| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let calls = Arc::new(Mutex::new(Vec::new()));
                let communicator = Pair { rank, shared, calls: Arc::clone(&calls) };
                let ranks = Beside::start(move || Ok(communicator)).unwrap();
                assert_eq!((ranks.rank(), ranks.world()), (rank, 2));
                // Begun one after the other, waited for the other way round.
                let begun: Vec<Sum> = (1..4).map(|length| ranks.begin_sum(vec![length as f32; length])).collect();
                for (length, sum) in (1..4).zip(begun).rev() {
                    assert_eq!(sum.wait().unwrap().values, vec![2.0 * length as f32; length]);
                }
                let mut floats = [f32::NAN, -0.0, 1.5].map(|value| if rank == 1 { value } else { 7.0 });
                crate::broadcast_floats(&ranks, &mut floats, 1).unwrap();
                assert_eq!(floats.map(f32::to_bits), [f32::NAN, -0.0, 1.5].map(f32::to_bits));
                assert_eq!(crate::gather(&ranks, &[rank as u8; 2]).unwrap(), [[0, 0], [1, 1]]);
                assert!(ranks.barrier().unwrap_err().to_string().starts_with("rank 1 did not answer"));
                drop(ranks);
                assert!(calls.lock().unwrap().starts_with(&[1, 2, 3]));
            })
        });
        ranks.into_iter().for_each(|rank| rank.join().unwrap());
    }

    #[test]
    fn what_does_not_start_is_said() {
        let error = || CollectiveError::Start { engine: "MPI", why: "no".to_owned() };
        assert_eq!(Beside::start::<Pair>(move || Err(error())).err(), Some(error()));
        let gone = Beside::start::<Pair>(|| panic!("on purpose"));
        assert!(gone.err().unwrap().to_string().contains("the thread for sums"));
    }
}
