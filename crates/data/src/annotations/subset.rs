//! A few labels per class: the 5 %, 10 % and 50 % protocols.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use vjepa_recipe::counter::mix;

use super::error::AnnotationError;
use crate::list::VideoList;
use crate::stream::Permutation;

/// Keeps the shuffle apart from other uses of a seed.
const SUBSET: u64 = 0x7375_6273_6574;

/// Share of the samples of each class: `5%`, or `0.05`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

impl Share {
    /// A share between 0, which it is not, and 1.
    ///
    /// # Errors
    /// What a share must be.
    pub fn new(fraction: f64) -> Result<Self, String> {
        match fraction > 0.0 && fraction <= 1.0 {
            true => Ok(Self(fraction)),
            false => Err(format!("a share must be more than 0 and at most 1, got {fraction}")),
        }
    }

    /// Between 0 and 1.
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// That many of `count`, rounded.
    fn of(self, count: usize) -> usize {
        (self.0 * count as f64).round() as usize
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
        match number.trim().parse::<f64>() {
            Ok(share) if share > 0.0 && share <= scale => Ok(Self(share / scale)),
            _ => Err(format!("a share must be like `5%` or `0.05`, more than 0 and at most 100%, got `{text}`")),
        }
    }
}

/// A class-balanced choice of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Places in the list, in its order.
    pub indices: Vec<usize>,
    /// What to say of classes that are too small, worded as whole sentences.
    pub notes: Vec<String>,
}

impl Subset {
    /// The list with the chosen entries alone.
    pub fn of(&self, list: &VideoList) -> VideoList {
        let mut chosen = list.clone();
        chosen.entries = self.indices.iter().filter_map(|&index| list.entries.get(index).cloned()).collect();
        chosen.lines = self.indices.iter().filter_map(|&index| list.lines.get(index).copied()).collect();
        chosen
    }
}

/// Chooses a share of what has no class, as the videos of key frames: of `count` of them, shuffled with `split`, the first
/// max(1, round(share * count)), by their numbers in order. None of none.
pub fn share_of(count: usize, share: Share, split: u64) -> BTreeSet<usize> {
    drawn(count, share, mix(&[SUBSET, split])).collect()
}

/// The first of `count`, shuffled with a seed, that are a share: at least one.
fn drawn(count: usize, share: Share, seed: u64) -> impl Iterator<Item = usize> {
    let order = Permutation::new(count as u64, seed);
    (0..share.of(count).max(1).min(count) as u64).map(move |n| order.at(n) as usize)
}

/// Chooses a share of each class: of its n samples, sorted by path and shuffled with the class and `split`, the first
/// max(1, round(share * n)). So a smaller share of the same split is part of a larger one, and neither the order of the list
/// nor other classes matter. The protocol has three splits, 0 to 2; the published ones are not known.
///
/// # Errors
/// [`AnnotationError`] for samples without a label.
pub fn subset(list: &VideoList, share: Share, split: u64) -> Result<Subset, AnnotationError> {
    let mut classes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (index, entry) in list.entries.iter().enumerate() {
        let Some(label) = entry.label else {
            let why = format!(
                "{}: a subset takes a share of each class, but this has no label: add one, or make a labelled list with `vjepa data \
                 list`",
                list.location(index)
            );
            return Err(AnnotationError::file(&list.path, why));
        };
        classes.entry(label).or_default().push(index);
    }
    let mut indices = Vec::new();
    // Classes too small for the share, and of these the ones of a single sample.
    let (mut small, mut single) = (0, Vec::new());
    for (label, mut members) in classes {
        members.sort_by(|&a, &b| list.entries.get(a).map(|e| &e.path).cmp(&list.entries.get(b).map(|e| &e.path)));
        if share.of(members.len()) == 0 {
            small += 1;
        }
        if let [only] = members[..] {
            single.push((label, only));
        }
        let chosen = drawn(members.len(), share, mix(&[SUBSET, split, label as u64]));
        indices.extend(chosen.filter_map(|n| members.get(n).copied()));
    }
    indices.sort_unstable();
    let mut notes = Vec::new();
    let plural = |count: usize| if count == 1 { "class has" } else { "classes have" };
    let (path, percent) = (list.path.display(), share.0 * 100.0);
    if small > 0 {
        notes.push(format!(
            "{path}: {small} {} too few samples for {percent} % and give one each: take a larger share for balanced classes",
            plural(small)
        ));
    }
    if let Some((label, index)) = single.first().filter(|_| share.0 < 1.0) {
        notes.push(format!(
            "{path}: {}: class {label} has this sample alone, so that every split holds it{}: add samples of it",
            list.location(*index),
            match single.len() {
                1 => String::new(),
                count => format!(", as {} other classes do", count - 1),
            }
        ));
    }
    Ok(Subset { indices, notes })
}
