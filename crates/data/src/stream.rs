//! The order of samples: from a position in a run to the key of a sample, in constant memory.
//!
//! A run is one long line of samples. Step `s` takes `groups * batch` of them, group `g` the `g`-th `batch` of those; rank `r`
//! of `w` computes the groups `r`, `r + w`, ..., so the line does not depend on how many ranks share it. Where a step has
//! groups of several data sets (images beside videos), each set has a line of its own groups. The line goes through the data
//! set pass after pass, each in an order of its own, and steps do not stop at the end of a pass (the official loader drops a
//! pass's last, incomplete batch).

use super::source::SampleKey;
use vjepa_recipe::counter::{finalise, mix};

/// A shuffle of `0..len` of which any entry can be asked for without making the others.
///
/// A Feistel network over the next even power of two is a bijection; walking on from results outside the range
/// ("cycle walking", Black and Rogaway 2002) makes it one of the range. That takes fewer than four steps on average.
#[derive(Debug, Clone)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

const ROUNDS: usize = 6;

impl Permutation {
    /// The shuffle of `0..len` that belongs to `key`.
    pub fn new(len: u64, key: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let mut keys = [0; ROUNDS];
        for (round, slot) in keys.iter_mut().enumerate() {
            *slot = mix(&[key, round as u64]);
        }
        Self { len, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Where the shuffle sends `position`; a position beyond the range stays where it is.
    pub fn at(&self, position: u64) -> u64 {
        if position >= self.len {
            return position;
        }
        let mut value = position;
        loop {
            value = self.network(value);
            if value < self.len {
                return value;
            }
        }
    }

    /// The bijection of `0..2^(2 half_bits)`.
    fn network(&self, value: u64) -> u64 {
        let mask = u64::MAX >> (u64::BITS - self.half_bits);
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (finalise(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// The share of a run that one process sees.
#[derive(Debug, Clone, Copy)]
pub struct SampleStream {
    /// Seed of the run.
    pub seed: u64,
    /// Entries of the data set; none for an endless one.
    pub len: Option<u64>,
    /// Samples of a group.
    pub batch: u64,
    /// Groups of a step that are of this data set.
    pub groups: u64,
    /// Groups of the step before them, of other data sets.
    pub base: u64,
    /// This process.
    pub rank: u64,
    /// Processes.
    pub world: u64,
}

impl SampleStream {
    /// The first of these groups that this process computes, if there are so many.
    fn first_group(&self) -> u64 {
        let world = self.world.max(1);
        let ahead = (self.rank + world - self.base % world) % world;
        self.base.saturating_add(ahead)
    }

    /// Groups of a step that this process computes.
    pub fn own_groups(&self) -> u64 {
        let end = self.base.saturating_add(self.groups);
        end.saturating_sub(self.first_group()).div_ceil(self.world.max(1))
    }

    /// Step and group of this process's `number`-th batch, counted from the run's beginning.
    pub fn place(&self, number: u64) -> (u64, u64) {
        let own = self.own_groups().max(1);
        (number / own, (number % own).saturating_mul(self.world.max(1)).saturating_add(self.first_group()))
    }

    /// The key of the `ticket`-th sample of this process, counted from the run's beginning: sample `ticket % batch` of its
    /// batch `ticket / batch`.
    pub fn key(&self, ticket: u64) -> SampleKey {
        let batch = self.batch.max(1);
        let ((step, group), slot) = (self.place(ticket / batch), ticket % batch);
        // The loader refuses runs long enough to overflow; saturating keeps any other caller from a panic.
        let first = step.saturating_mul(batch).saturating_mul(self.groups.max(1));
        let within = group.saturating_sub(self.base).saturating_mul(batch);
        let global = first.saturating_add(within).saturating_add(slot);
        let (epoch, position) = match self.len {
            Some(len) => (global / len.max(1), global % len.max(1)),
            None => (0, global),
        };
        SampleKey { seed: self.seed, epoch, position, retry: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_entry_once(len in 1u64..3000, key: u64) {
            let permutation = Permutation::new(len, key);
            let mut seen = vec![false; len as usize];
            for position in 0..len {
                let entry = permutation.at(position) as usize;
                prop_assert!(!seen[entry]);
                seen[entry] = true;
            }
        }

        #[test]
        fn huge_ranges_stay_in_range(len in 1u64.., position: u64, key: u64) {
            let position = position % len;
            prop_assert!(Permutation::new(len, key).at(position) < len);
        }
    }

    #[test]
    fn shuffles_look_random() {
        // Over many keys, entry 0 of 8 lands everywhere equally often, and so does the pair (entry 0, entry 1).
        let mut counts = [0u32; 64];
        for key in 0..5600u64 {
            let p = Permutation::new(8, mix(&[key]));
            counts[(p.at(0) * 8 + p.at(1)) as usize] += 1;
        }
        for (i, &count) in counts.iter().enumerate() {
            if i % 9 == 0 {
                assert_eq!(count, 0, "two entries at one position");
            } else {
                assert!((60..145).contains(&count), "pair {i}: {count} of 100 expected");
            }
        }
    }

    #[test]
    fn ranks_share_one_line() {
        let one = SampleStream { seed: 1, len: Some(10), batch: 8, groups: 1, base: 0, rank: 0, world: 1 };
        let line: Vec<_> = (0..64).map(|t| one.key(t)).collect();
        let half = |rank| SampleStream { batch: 4, groups: 2, rank, world: 2, ..one };
        let mut joined = Vec::new();
        for step in 0..8 {
            for rank in 0..2 {
                joined.extend((0..4).map(|slot| half(rank).key(step * 4 + slot)));
            }
        }
        assert_eq!(line, joined);
        // Four groups of two: one process in a row, two processes in turns.
        let four = SampleStream { batch: 2, groups: 4, ..one };
        assert_eq!(line, (0..64).map(|t| four.key(t)).collect::<Vec<_>>());
        let turns = |rank| SampleStream { rank, world: 2, ..four };
        for number in 0..16 {
            for rank in 0..2 {
                let (step, group) = turns(rank).place(number);
                assert_eq!((step, group), (number / 2, number % 2 * 2 + rank));
                let first = (step * 8 + group * 2) as usize;
                assert_eq!(turns(rank).key(number * 2), line[first]);
            }
        }
        assert_eq!((line[9].epoch, line[10].epoch, line[10].position), (0, 1, 0));
    }

    /// Groups of the step, from any rank's batches.
    fn groups_of(stream: SampleStream, steps: u64) -> Vec<(u64, u64, SampleKey)> {
        let own = stream.own_groups();
        let place = |number: u64| {
            let (step, group) = stream.place(number);
            (step, group, stream.key(number * stream.batch))
        };
        (0..own * steps).map(place).collect()
    }

    #[test]
    fn groups_of_two_data_sets_share_a_step_however_many_ranks_there_are() {
        // Two groups of images, then four of videos.
        let images = SampleStream { seed: 1, len: Some(100), batch: 3, groups: 2, base: 0, rank: 0, world: 1 };
        let videos = SampleStream { batch: 5, groups: 4, base: 2, ..images };
        for kind in [images, videos] {
            let alone = groups_of(kind, 3);
            let numbered: Vec<_> = alone.iter().map(|(step, group, _)| (*step, *group)).collect();
            let all = |step: u64| (kind.base..kind.base + kind.groups).map(move |group| (step, group));
            assert_eq!(numbered, (0..3).flat_map(all).collect::<Vec<_>>());
            // Its line has no gaps for the groups of the other.
            let positions: Vec<u64> = alone.iter().map(|(.., key)| key.position).collect();
            assert_eq!(positions, (0..3 * kind.groups).map(|n| n * kind.batch).collect::<Vec<_>>());
            for world in [2, 3, 6] {
                let ranks = (0..world).flat_map(|rank| groups_of(SampleStream { rank, world, ..kind }, 3));
                let mut shared: Vec<_> = ranks.collect();
                shared.sort_by_key(|(step, group, _)| (*step, *group));
                assert_eq!(shared, alone, "{world} ranks");
            }
        }
        // With one group each, a rank may have none of a kind.
        assert_eq!(SampleStream { groups: 1, rank: 1, world: 2, ..images }.own_groups(), 0);
        assert_eq!(SampleStream { groups: 1, base: 1, rank: 1, world: 2, ..videos }.own_groups(), 1);
    }
}
