//! Splits a list in two, such as training and validation.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use vjepa_recipe::counter::mix;

use crate::annotations::Share;
use crate::list::VideoList;
use crate::stream::Permutation;

/// Keeps the shuffle apart from other uses of a seed.
const SPLIT: u64 = 0x73_706C_6974;

/// The places of a list in each part, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// The larger part.
    pub train: Vec<usize>,
    /// The share that was asked for.
    pub val: Vec<usize>,
    /// What to say of classes that could not be split.
    pub notes: Vec<String>,
}

/// Puts a share of each class into the second part, all of the rest into the first. A class of two or more videos has one at
/// least on each side, one of a single video stays in the first. A video that is listed twice is on one side. The choice
/// depends on the seed, the paths and the labels, not on the order of the list.
///
/// # Errors
/// One sentence: a list too short to split, or one where some videos have labels and others none.
pub fn split(list: &VideoList, share: Share, seed: u64) -> Result<Parts, String> {
    let unlabelled = list.entries.iter().filter(|entry| entry.label.is_none()).count();
    if unlabelled > 0 && unlabelled < list.entries.len() {
        return Err(format!(
            "{}: {unlabelled} of its {} videos have no label, so classes cannot be balanced: add the labels, or remove all",
            list.path.display(),
            list.entries.len()
        ));
    }
    // The class of a video that is listed several times is that of its first line.
    let mut class_of: HashMap<&Path, i64> = HashMap::new();
    let mut classes: BTreeMap<i64, Vec<&Path>> = BTreeMap::new();
    for entry in &list.entries {
        let label = entry.label.unwrap_or(0);
        if class_of.insert(&entry.path, label).is_none() {
            classes.entry(label).or_default().push(&entry.path);
        }
    }
    let mut chosen: HashMap<&Path, bool> = HashMap::new();
    let mut single = 0;
    for (label, mut members) in classes {
        members.sort_unstable();
        let count = members.len();
        let wanted = (share.fraction() * count as f64).round() as usize;
        let wanted = if count < 2 { 0 } else { wanted.clamp(1, count - 1) };
        single += usize::from(count < 2);
        let order = Permutation::new(count as u64, mix(&[SPLIT, seed, label as u64]));
        for place in 0..count {
            if let Some(path) = members.get(order.at(place as u64) as usize) {
                chosen.insert(path, place < wanted);
            }
        }
    }
    let mut parts = Parts::default();
    for (index, entry) in list.entries.iter().enumerate() {
        let second = chosen.get(entry.path.as_path()).copied().unwrap_or_default();
        if second { parts.val.push(index) } else { parts.train.push(index) }
    }
    if parts.val.is_empty() || parts.train.is_empty() {
        return Err(format!("{}: has too few videos to split", list.path.display()));
    }
    if single > 0 {
        let classes = if single == 1 { "1 class has" } else { &format!("{single} classes have") };
        parts.notes.push(format!("{}: {classes} a single video, which stays in the first part", list.path.display()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::VideoEntry;

    fn list(labels: &[Option<i64>]) -> VideoList {
        let entry = |(i, label): (usize, &Option<i64>)| VideoEntry { path: format!("{i}.mp4").into(), label: *label };
        VideoList::of(Path::new("list.csv"), labels.iter().enumerate().map(entry).collect())
    }

    #[test]
    fn classes_are_balanced_and_the_choice_is_the_seeds() {
        let mut labels = vec![Some(0); 40];
        labels.extend([Some(1); 10]);
        labels.extend([Some(2); 2]);
        labels.push(Some(3));
        let list = list(&labels);
        let share: Share = "20%".parse().unwrap();
        let parts = split(&list, share, 5).unwrap();
        let counts = |part: &[usize]| {
            (0..4).map(|class| part.iter().filter(|&&i| labels[i] == Some(class)).count()).collect::<Vec<_>>()
        };
        assert_eq!((counts(&parts.val), counts(&parts.train)), (vec![8, 2, 1, 0], vec![32, 8, 1, 1]));
        assert_eq!(parts.notes.len(), 1);
        assert_eq!(split(&list, share, 5).unwrap(), parts);
        assert_ne!(split(&list, share, 6).unwrap().val, parts.val);
        let mut turned = list.clone();
        turned.entries.reverse();
        let paths = |list: &VideoList, part: &[usize]| {
            part.iter().map(|&i| list.entries[i].path.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(paths(&turned, &split(&turned, share, 5).unwrap().val), paths(&list, &parts.val));
    }

    #[test]
    fn a_video_is_on_one_side_and_labels_are_all_or_none() {
        let share: Share = "50%".parse().unwrap();
        let mut twice = list(&[None; 12]);
        twice.entries.extend(twice.entries.clone());
        let parts = split(&twice, share, 0).unwrap();
        assert!(parts.val.iter().all(|&i| parts.val.contains(&((i + 12) % 24))));
        assert_eq!(parts.val.len(), 12);
        assert!(split(&list(&[Some(1), None]), share, 0).unwrap_err().contains("1 of its 2 videos have no label"));
        assert!(split(&list(&[None]), share, 0).unwrap_err().contains("too few"));
    }
}
