//! Labels of lists and names of classes: which label means which class, and what to say where that is not plain.
//!
//! A class without a name of its own is called by its label, so that no name can be wrong. Names of one's own are a file
//! with one name per line, and the label of the first is 0 unless said otherwise. Many lists number their classes from 1:
//! with those every name would be that of the next class. So names meet only labels that leave no other reading; where
//! they leave one, the label of the first name must be given.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::EvalError;
use vjepa_data::VideoList;
use vjepa_recipe::text;

/// Names of classes, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassNames {
    /// The names; empty for classes that have only numbers.
    pub names: Vec<String>,
    /// How many classes there are.
    pub count: usize,
    /// The label of the first, where it is known.
    pub from: Option<i64>,
    /// The file, or the probe.
    pub source: PathBuf,
}

impl ClassNames {
    /// Reads a file of names, one per line; it may end in blank lines, which name nothing. Lines that begin with a number
    /// each, counting up by one, have the labels of their names (`1 ApplyEyeMakeup`, as in UCF101's `classInd.txt`).
    ///
    /// # Errors
    /// [`EvalError::File`] for a file that cannot be read, a blank line, a name that stands twice, less than two names, or
    /// numbers alone.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = text::read(path).map_err(|error| EvalError::file(path, error))?.text;
        let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
        if let Some(label) = lines.iter().position(|line| line.is_empty()) {
            return Err(EvalError::file(
                path,
                format!(
                    "line {} is blank, but would be the name of label {label}: name it, or take the line out",
                    label + 1
                ),
            ));
        }
        let (names, from) = match numbered(&lines) {
            Some((from, names)) => (names, Some(from)),
            None => (lines.iter().map(|line| (*line).to_owned()).collect(), None),
        };
        let distinct: BTreeSet<&String> = names.iter().collect();
        if names.len() < 2 || distinct.len() != names.len() {
            return Err(EvalError::file(path, "must hold at least two different names, one per line"));
        }
        let read = Self { count: names.len(), names, from, source: path.into() };
        if read.are_labels() {
            return Err(EvalError::file(
                path,
                "holds numbers, not names: without it, classes are called by their labels",
            ));
        }
        Ok(read)
    }

    /// Whether classes are called by their labels.
    pub fn are_labels(&self) -> bool {
        !self.names.is_empty() && self.names.iter().all(|name| name.parse::<i64>().is_ok())
    }

    /// The name of the class of a label, where the first label is `from`.
    fn name(&self, label: i64, from: i64) -> String {
        let index = label.checked_sub(from).and_then(|index| usize::try_from(index).ok());
        match index.map(|index| (index, self.names.get(index))) {
            Some((_, Some(name))) => format!("`{}`", name.chars().take(60).collect::<String>()),
            Some((index, None)) => format!("class {index}"),
            None => "no class".into(),
        }
    }

    /// The label of the first name in `list`, where `asked` is what `--labels-from` says: 0 only where a video has that label.
    ///
    /// # Errors
    /// [`EvalError::File`] naming the line of a label that has no name, or the two readings of the list.
    pub fn numbering(&self, list: &VideoList, asked: Option<i64>) -> Result<i64, EvalError> {
        let Some(labels) = Range::of(list) else { return Ok(0) };
        let count = self.count as i64;
        let Self { source, .. } = self;
        let (first, named) = (source.display(), format!("{count} classes"));
        if let Some(from) = asked.or(self.from) {
            let last = from.saturating_add(count - 1);
            let Some((place, label)) = labels.outside(from, last) else { return Ok(from) };
            let fits = |other: &i64| labels.least >= *other && labels.most < other.saturating_add(count);
            let remedy = match [from.saturating_add(1), from.saturating_sub(1)].into_iter().find(fits) {
                Some(other) if asked.is_none() => {
                    format!("; if this list counts from {other}, add --labels-from {other}")
                }
                _ => String::new(),
            };
            return Err(EvalError::file(
                &list.path,
                format!(
                    "{place} has the label {label}, but {first} names the labels {from} to {last} ({named}){remedy}"
                ),
            ));
        }
        match labels {
            Range { least: 0, most, .. } if most < count => Ok(0),
            Range { least: 1.., most, .. } if most == count => Err(EvalError::file(
                &list.path,
                format!(
                    "its labels run from {} to {most} and {first} has {named}, which would be the labels 0 to {}: add \
                     --labels-from 1 if label 1 is the first, {}",
                    labels.least,
                    count - 1,
                    self.name(0, 0)
                ),
            )),
            Range { least: 1.., most, .. } if most < count => Err(EvalError::file(
                &list.path,
                format!(
                    "no video has the label 0: add --labels-from 1 if label 1 is the first class of {first}, {}, or \
                     --labels-from 0 if it is the second, {}",
                    self.name(0, 0),
                    self.name(1, 0)
                ),
            )),
            _ => {
                let (place, label) = labels.outside(0, count - 1).unwrap_or_default();
                Err(EvalError::file(
                    &list.path,
                    format!(
                        "{place} has the label {label}, but {first} has only {named}, for the labels 0 to {}",
                        count - 1
                    ),
                ))
            }
        }
    }

    /// Checks that each label of `list` is the name of a class.
    ///
    /// # Errors
    /// [`EvalError::File`] naming the line of one that is not.
    pub fn check_called(&self, list: &VideoList) -> Result<(), EvalError> {
        let known: BTreeSet<&str> = self.names.iter().map(String::as_str).collect();
        for (index, entry) in list.entries.iter().enumerate() {
            let Some(label) = entry.label else { continue };
            if !known.contains(label.to_string().as_str()) {
                return Err(EvalError::file(
                    &list.path,
                    format!(
                        "{} has the label {label}, which is not one of the classes of {}: {}",
                        list.location(index),
                        self.source.display(),
                        some(self.names.iter())
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Checks the labels of `list`, where `asked` is what `--labels-from` says: the label of the first class (0 where classes are
    /// called by their labels), and remarks on the list.
    ///
    /// # Errors
    /// As [`ClassNames::check_called`] where classes are called by their labels, else as [`ClassNames::numbering`].
    pub fn meet(&self, list: &VideoList, asked: Option<i64>) -> Result<(i64, Vec<String>), EvalError> {
        let from = match self.are_labels() {
            true => self.check_called(list).map(|()| 0)?,
            false => self.numbering(list, asked)?,
        };
        Ok((from, self.remarks(list, from)))
    }

    /// A note on a list whose labels fit, the first being `from`: classes that none of its videos shows.
    pub fn remarks(&self, list: &VideoList, from: i64) -> Vec<String> {
        let shown = distinct(list);
        let class = |index: usize| match self.are_labels() {
            true => self.names.get(index).and_then(|name| name.parse().ok()).unwrap_or_default(),
            false => from.saturating_add(index as i64),
        };
        let absent: Vec<i64> = (0..self.count).map(class).filter(|label| !shown.contains(label)).collect();
        if absent.is_empty() || shown.is_empty() {
            return Vec::new();
        }
        let named = absent.iter().map(|label| match self.are_labels() {
            true => format!("{label}"),
            false => format!("{label} ({})", self.name(*label, from)),
        });
        let mut remark =
            format!("none of its videos has {} of the {} labels: {}", absent.len(), self.count, some(named));
        if !self.are_labels() && absent.first() == Some(&from) && !shown.contains(&from) {
            remark += &format!("; if it counts from {}, add --labels-from {0}", from + 1);
        }
        vec![remark]
    }
}

/// Lines that begin with numbers that count up by one: the first number, and the rest of each line.
fn numbered(lines: &[&str]) -> Option<(i64, Vec<String>)> {
    let split = |line: &&str| {
        let (number, name) = line.split_once([' ', '\t', ','])?;
        Some((number.parse::<i64>().ok()?, name.trim().to_owned())).filter(|(_, name)| !name.is_empty())
    };
    let pairs: Vec<(i64, String)> = lines.iter().map(split).collect::<Option<_>>()?;
    let first = pairs.first()?.0;
    let counting = (0i64..).zip(&pairs).all(|(index, (number, _))| first.checked_add(index) == Some(*number));
    counting.then(|| (first, pairs.into_iter().map(|(_, name)| name).collect()))
}

/// The first few of some names.
fn some(names: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let all: Vec<String> = names.map(|name| name.to_string()).collect();
    let shown = all.iter().take(5).map(|name| name.chars().take(60).collect::<String>()).collect::<Vec<_>>().join(", ");
    if all.len() > 5 { format!("{shown}, ...") } else { shown }
}

fn distinct(list: &VideoList) -> BTreeSet<i64> {
    list.entries.iter().filter_map(|entry| entry.label).collect()
}

/// The labels of a list.
struct Range<'a> {
    list: &'a VideoList,
    least: i64,
    most: i64,
}

impl<'a> Range<'a> {
    fn of(list: &'a VideoList) -> Option<Self> {
        let labels = || list.entries.iter().filter_map(|entry| entry.label);
        Some(Self { list, least: labels().min()?, most: labels().max()? })
    }

    /// The first label that is not within `low..=high`, and where it stands.
    fn outside(&self, low: i64, high: i64) -> Option<(String, i64)> {
        let mut labels = self.list.entries.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.label?)));
        labels.find(|(_, label)| !(low..=high).contains(label)).map(|(index, label)| (self.list.location(index), label))
    }
}

/// Refuses labels below 0, which lists give to videos that have none.
///
/// # Errors
/// [`EvalError::File`] naming the first line with one.
pub fn check_not_negative(list: &VideoList) -> Result<(), EvalError> {
    match Range::of(list).and_then(|labels| labels.outside(0, i64::MAX)) {
        None => Ok(()),
        Some((place, label)) => Err(EvalError::file(
            &list.path,
            format!("{place} has the label {label}; labels are 0 or more: leave out the videos that have none"),
        )),
    }
}

/// A note on labels that are the names of their classes: that they do not count up from 0, or hardly repeat.
pub fn remarks(list: &VideoList) -> Vec<String> {
    let shown = distinct(list);
    let (Some(&least), Some(&most)) = (shown.first(), shown.last()) else { return Vec::new() };
    let mut remarks = Vec::new();
    if shown.len() == list.entries.len() && list.entries.len() > 9 {
        remarks.push("each of its videos has a label of its own: make sure that the last column holds labels".into());
    }
    let span = most.abs_diff(least).saturating_add(1);
    let classes = shown.len();
    if span > classes as u64 {
        remarks.push(format!(
            "its labels lie between {least} and {most}, but only {classes} of them occur: there are {classes} classes, called by \
             their labels"
        ));
    } else if least != 0 {
        remarks.push(format!(
            "its labels run from {least} to {most}, not from 0: classes are called by these numbers (with --names, give \
             --labels-from {least} too)"
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_data::VideoEntry;

    fn list(labels: &[i64]) -> VideoList {
        let entry = |label: &i64| VideoEntry { path: "a.mp4".into(), label: Some(*label) };
        let mut list = VideoList::default();
        list.path = "list.csv".into();
        list.entries = labels.iter().map(entry).collect();
        list.lines = (1..=labels.len()).collect();
        list
    }

    fn names(names: &[&str]) -> ClassNames {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ClassNames { count: names.len(), names, from: None, source: "names.txt".into() }
    }

    #[test]
    fn names_meet_only_labels_that_leave_no_other_reading() {
        let four = names(&["Archery", "Baby", "Ball", "Bike"]);
        let say = |labels: &[i64], asked| four.numbering(&list(labels), asked).map_err(|error| error.to_string());
        assert_eq!(say(&[0, 3, 1], None), Ok(0));
        // Subsets without class 0, numbered from 0 or from 1: only the flag can tell.
        for labels in [&[1, 2, 3][..], &[2, 3], &[1]] {
            let said = say(labels, None).unwrap_err();
            assert!(said.contains("--labels-from 1 if label 1 is the first") && said.contains("`Baby`"), "{said}");
            assert_eq!((say(labels, Some(1)), say(labels, Some(0))), (Ok(1), Ok(0)));
        }
        let said = say(&[1, 2, 3, 4], None).unwrap_err();
        assert!(said.contains("run from 1 to 4") && said.contains("names.txt has 4 classes"), "{said}");
        assert!(said.contains("--labels-from 1") && said.contains("`Archery`"), "{said}");
        assert_eq!(say(&[1, 2, 3, 4], Some(1)), Ok(1));
        let said = say(&[0, 1, 9, 4], None).unwrap_err();
        assert!(said.contains("line 3 has the label 9") && said.contains("0 to 3"), "{said}");
        assert!(say(&[0, 1], Some(1)).unwrap_err().contains("line 1 has the label 0"));
        assert!(say(&[1, 5], None).unwrap_err().contains("line 2 has the label 5"));
    }

    #[test]
    fn a_numbering_that_is_known_is_kept_and_its_shift_noticed() {
        let known = ClassNames { from: Some(0), ..names(&["a", "b", "c"]) };
        assert_eq!(known.numbering(&list(&[1, 2]), None).unwrap(), 0);
        let said = known.numbering(&list(&[1, 2, 3]), None).unwrap_err().to_string();
        assert!(said.contains("line 3 has the label 3") && said.contains("add --labels-from 1"), "{said}");
        let said = known.remarks(&list(&[1, 2]), 0).join("\n");
        assert!(said.contains("1 of the 3 labels: 0 (`a`)") && said.contains("--labels-from 1"), "{said}");
        assert!(known.remarks(&list(&[0, 1, 2]), 0).is_empty());
        assert_eq!(known.remarks(&list(&[0, 1]), 0), ["none of its videos has 1 of the 3 labels: 2 (`c`)"]);
    }

    #[test]
    fn classes_called_by_their_labels_are_checked_by_name() {
        let called = names(&["1", "2", "7"]);
        assert!(called.are_labels() && called.check_called(&list(&[7, 1])).is_ok());
        let said = called.check_called(&list(&[7, 0])).unwrap_err().to_string();
        assert!(said.contains("line 2 has the label 0") && said.contains("1, 2, 7"), "{said}");
        assert_eq!(called.remarks(&list(&[7, 1]), 0), ["none of its videos has 1 of the 3 labels: 2"]);
    }

    #[test]
    fn gaps_and_odd_labels_are_said() {
        assert!(remarks(&list(&[0, 1, 2, 1])).is_empty());
        assert!(remarks(&list(&[1, 2, 3, 1]))[0].contains("run from 1 to 3, not from 0"));
        assert!(remarks(&list(&[0, 1, 4000, 1]))[0].contains("between 0 and 4000, but only 3 of them occur"));
        assert!(remarks(&list(&(0..12).collect::<Vec<_>>()))[0].contains("a label of its own"));
        assert!(check_not_negative(&list(&[0, -1])).unwrap_err().to_string().contains("line 2 has the label -1"));
    }

    #[test]
    fn numbered_names_bring_their_numbering() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = folder.path().join("names.txt");
            std::fs::write(&path, text).unwrap();
            ClassNames::read(&path).map(|read| (read.names.join("|"), read.from))
        };
        assert_eq!(read("1 Apply Makeup\r\n2 Archery\r\n").unwrap(), ("Apply Makeup|Archery".into(), Some(1)));
        assert_eq!(read("0,Apply\n1,Archery\n").unwrap(), ("Apply|Archery".into(), Some(0)));
        assert_eq!(read("1 a\n3 b\n").unwrap(), ("1 a|3 b".into(), None));
        assert_eq!(read("\u{feff}cat\ndog\n\n").unwrap(), ("cat|dog".into(), None));
        assert!(read("cat\n\ndog").unwrap_err().to_string().contains("line 2 is blank"));
        assert!(read("cat\ncat").is_err() && read("cat").is_err());
        assert!(read("1\n2\n").unwrap_err().to_string().contains("numbers, not names"));
    }
}
