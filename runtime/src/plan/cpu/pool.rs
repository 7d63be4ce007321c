//! Memory of results, kept from node to node and from step to step.
//!
//! A fresh allocation of a few megabytes costs a page fault every 4 KiB and a pass of zeroing, both on one thread: a
//! third of a training step on two cores. Buffers that a plan frees are handed to the next node that needs one of about
//! that size. Their old values are still in them: a kernel writes every element of what it takes, or clears it.

use burn_backend::DType;
use burn_flex::FlexTensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Smaller buffers are left to the allocator, which is quick with them.
const SMALL: usize = 2048;
/// A request may get a buffer larger by one part in this many.
const SLACK: usize = 4;
/// Idle buffers may take one part in this many beyond what was needed at once.
const RESERVE: usize = 8;
/// Runs after which an unused buffer is given back.
const IDLE_RUNS: usize = 4;

/// Idle buffers by capacity.
#[derive(Default)]
pub struct Pool {
    idle: BTreeMap<usize, Vec<Idle>>,
    clock: u64,
    /// Floats handed out, the most there have been, and floats idle here.
    lent: usize,
    most: usize,
    kept: usize,
    /// Value of the clock at the end of each of the last runs.
    marks: std::collections::VecDeque<u64>,
}

struct Idle {
    buffer: Vec<f32>,
    since: u64,
}

impl Pool {
    /// `len` floats with arbitrary values.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        if len < SMALL {
            return vec![0.0; len];
        }
        let fits = self.idle.range(len..=len.saturating_add(len / SLACK)).next().map(|(capacity, _)| *capacity);
        let mut buffer = match fits {
            Some(capacity) => self.remove(capacity),
            None => {
                // Sizes vary with the masks: rounding up lets the next step's buffers fit.
                let capacity = len.next_multiple_of((len / 16).next_power_of_two().max(1024));
                self.make_room(capacity);
                Vec::with_capacity(capacity)
            }
        };
        self.lent += buffer.capacity();
        self.most = self.most.max(self.lent);
        // Only what has never been written is cleared here.
        buffer.resize(len, 0.0);
        buffer
    }

    /// An idle buffer of exactly this capacity, for whoever gave one in as a run's input; it comes back with the next.
    pub(super) fn spare(&mut self, capacity: usize) -> Option<Vec<f32>> {
        self.idle.contains_key(&capacity).then(|| {
            self.lent += capacity;
            self.remove(capacity)
        })
    }

    /// A contiguous tensor with arbitrary values.
    pub(super) fn empty(&mut self, shape: &[usize]) -> FlexTensor {
        super::tensor::tensor(self.take(shape.iter().product()), shape)
    }

    /// `len` zeros.
    pub(super) fn zeros(&mut self, len: usize) -> Vec<f32> {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    fn remove(&mut self, capacity: usize) -> Vec<f32> {
        let Some(list) = self.idle.get_mut(&capacity) else { return Vec::new() };
        let buffer = list.pop().map(|idle| idle.buffer).unwrap_or_default();
        if list.is_empty() {
            self.idle.remove(&capacity);
        }
        self.kept -= buffer.capacity();
        buffer
    }

    /// Gives the longest idle buffers back to the system until `len` more floats stay near what runs so far have needed
    /// at once.
    fn make_room(&mut self, len: usize) {
        let limit = self.most.max(self.lent + len) + self.most / RESERVE;
        while self.lent + self.kept + len > limit {
            let oldest = self.idle.iter().min_by_key(|(_, list)| list.first().map(|idle| idle.since));
            let Some(capacity) = oldest.map(|(capacity, _)| *capacity) else { return };
            self.kept -= capacity;
            if let Some(list) = self.idle.get_mut(&capacity) {
                list.remove(0);
                if list.is_empty() {
                    self.idle.remove(&capacity);
                }
            }
        }
    }

    /// Takes the memory of a tensor that nobody else reads.
    pub(super) fn recycle(&mut self, tensor: FlexTensor) {
        if tensor.dtype() != DType::F32 || tensor.bytes().len() < SMALL * size_of::<f32>() {
            return;
        }
        let shared = tensor.data_arc();
        drop(tensor);
        if let Some(buffer) = Arc::try_unwrap(shared).ok().and_then(|bytes| bytes.try_into_vec::<f32>().ok()) {
            self.give(buffer);
        }
    }

    /// Takes a buffer back.
    fn give(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() >= SMALL {
            self.clock += 1;
            self.lent = self.lent.saturating_sub(buffer.capacity());
            self.kept += buffer.capacity();
            self.idle.entry(buffer.capacity()).or_default().push(Idle { buffer, since: self.clock });
        }
    }

    /// A run is over: what has not been used for some runs goes back to the system.
    pub(super) fn end_run(&mut self) {
        self.marks.push_back(self.clock);
        if self.marks.len() <= IDLE_RUNS {
            return;
        }
        let oldest = self.marks.pop_front().unwrap_or_default();
        self.idle.retain(|_, list| {
            list.retain(|idle| idle.since > oldest);
            !list.is_empty()
        });
        self.kept = self.idle.iter().map(|(capacity, list)| capacity * list.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cpu::tensor::tensor;

    #[test]
    fn a_freed_buffer_is_used_again_and_an_idle_one_is_given_back() {
        let mut pool = Pool::default();
        let first = pool.take(10_000);
        let address = first.as_ptr();
        pool.recycle(tensor(first, &[100, 100]));
        let second = pool.take(9_000);
        assert_eq!((second.as_ptr(), second.len()), (address, 9_000));
        pool.recycle(tensor(second, &[9_000]));
        for _ in 0..=IDLE_RUNS {
            pool.end_run();
        }
        assert!(pool.idle.is_empty());
    }

    #[test]
    fn what_came_in_from_outside_can_be_had_back() {
        let mut pool = Pool::default();
        let input = vec![1.0; 10_007];
        let address = input.as_ptr();
        pool.recycle(tensor(input, &[10_007]));
        assert!(pool.spare(10_006).is_none());
        let spare = pool.spare(10_007).unwrap();
        assert_eq!(spare.as_ptr(), address);
        assert!(pool.spare(10_007).is_none() && pool.kept == 0);
    }

    #[test]
    fn a_shared_tensor_is_left_alone() {
        let mut pool = Pool::default();
        let tensor = tensor(pool.take(10_000), &[10_000]);
        pool.recycle(tensor.clone());
        assert!(pool.idle.is_empty() && tensor.is_unique());
    }
}
