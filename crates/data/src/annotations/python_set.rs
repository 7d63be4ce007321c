//! The order in which Python lists a set: official code numbers classes by it.
//!
//! CPython keeps a set as an open-addressed table of hashes; nothing of it is random for numbers and for tuples of them. What
//! follows is the table of CPython 3.8 to 3.13.

/// Places that are looked at beside the first, where the table goes on so far.
const LINEAR_PROBES: usize = 9;
/// Bits of the hash that each further jump takes in.
const PERTURB_SHIFT: u32 = 5;
/// From so many elements on a table grows to twice instead of four times its elements.
const LARGE: usize = 50_000;

/// The distinct `items`, which are added one by one, in the order in which Python lists the set of them.
pub(super) fn in_set_order<T: PartialEq>(items: impl IntoIterator<Item = T>, hash: impl Fn(&T) -> u64) -> Vec<T> {
    let mut table: Vec<Option<(u64, T)>> = empty(8);
    let mut used = 0;
    for item in items {
        let own = hash(&item);
        let place = find(&table, own, |there| *there == item);
        let Some(slot) = table.get_mut(place).filter(|slot| slot.is_none()) else { continue };
        *slot = Some((own, item));
        used += 1;
        if used * 5 >= (table.len() - 1) * 3 {
            table = grown(table, if used > LARGE { used * 2 } else { used * 4 });
        }
    }
    table.into_iter().flatten().map(|(_, item)| item).collect()
}

fn empty<T>(size: usize) -> Vec<Option<(u64, T)>> {
    std::iter::repeat_with(|| None).take(size).collect()
}

/// The same in a table of more than `least` places.
fn grown<T: PartialEq>(old: Vec<Option<(u64, T)>>, least: usize) -> Vec<Option<(u64, T)>> {
    let mut table = empty((least + 1).next_power_of_two().max(8));
    for (hash, item) in old.into_iter().flatten() {
        let place = find(&table, hash, |_| false);
        if let Some(slot) = table.get_mut(place) {
            *slot = Some((hash, item));
        }
    }
    table
}

/// The place of what is `same`, or the first free one on the way to it. A table is never full.
fn find<T>(table: &[Option<(u64, T)>], hash: u64, same: impl Fn(&T) -> bool) -> usize {
    let mask = table.len() - 1;
    let (mut place, mut perturb) = (hash as usize & mask, hash);
    loop {
        let last = if place + LINEAR_PROBES <= mask { place + LINEAR_PROBES } else { place };
        let fits = |at: &usize| match table.get(*at) {
            Some(Some((own, item))) => *own == hash && same(item),
            _ => true,
        };
        if let Some(found) = (place..=last).find(fits) {
            return found;
        }
        perturb >>= PERTURB_SHIFT;
        place = place.wrapping_mul(5).wrapping_add(1).wrapping_add(perturb as usize) & mask;
    }
}

/// Python's hash of a number from 0 on.
pub(super) fn hash_of_number(number: i64) -> u64 {
    number as u64
}

/// Python's hash of a pair of numbers from 0 on (xxHash's mixing of theirs).
pub(super) fn hash_of_pair((a, b): (i64, i64)) -> u64 {
    const PRIMES: [u64; 3] = [11_400_714_785_074_694_791, 14_029_467_366_897_019_727, 2_870_177_450_012_600_261];
    let [first, second, fifth] = PRIMES;
    let mixed = [a, b].into_iter().fold(fifth, |sum, number| {
        sum.wrapping_add(hash_of_number(number).wrapping_mul(second)).rotate_left(31).wrapping_mul(first)
    });
    match mixed.wrapping_add(2 ^ fifth ^ 3_527_539) {
        u64::MAX => 1_546_275_796,
        hash => hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn pairs(count: i64) -> Vec<(i64, i64)> {
        (0..count).map(|i| (i * 7919 % 97, i * 104_729 % 300)).collect()
    }

    /// One number of an order.
    fn digest(order: &[(i64, i64)]) -> u64 {
        let numbers = order.iter().flat_map(|(a, b)| [*a, *b]);
        numbers.fold(0xcbf2_9ce4_8422_2325, |sum, number| (sum ^ number as u64).wrapping_mul(0x100_0000_01b3))
    }

    /// As Python 3.11 lists them.
    #[test]
    fn sets_are_listed_as_python_lists_them() {
        assert_eq!(hash_of_pair((3, 5)) as i64, 7_586_885_779_985_432_798);
        assert_eq!(hash_of_pair((0, 0)) as i64, -8_458_139_203_682_520_985);
        for (count, distinct, first, wanted) in [
            (5, 5, (54, 116), 11_933_575_975_696_866_779),
            (40, 40, (73, 261), 10_042_315_721_034_656_360),
            (4000, 4000, (11, 158), 188_933_939_375_062_016),
            (60_000, 29_100, (68, 283), 11_787_869_520_586_998_029),
        ] {
            let order = in_set_order(pairs(count), |pair| hash_of_pair(*pair));
            assert_eq!((order.len(), order[0], digest(&order)), (distinct, first, wanted), "{count}");
        }
        let numbers = in_set_order((0..30).map(|i| i * 37 % 1000), |number| hash_of_number(*number));
        assert_eq!(numbers[..12], [0, 259, 518, 777, 148, 407, 666, 925, 36, 37, 296, 555]);
        assert_eq!(numbers[26..], [111, 370, 629, 888]);
        assert!(in_set_order(Vec::<i64>::new(), |number| hash_of_number(*number)).is_empty());
    }
}
