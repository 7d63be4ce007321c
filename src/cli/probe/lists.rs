//! The lists of a probe: samples, labels that match each other, names of classes.

use std::path::Path;

use vjepa_data::VideoList;
use vjepa_data::shards::refuse_foreign;
use vjepa_eval::labels::{ClassNames, remarks};
use vjepa_eval::protocols::videos::class_names;

use crate::cli::CliError;
use crate::cli::frozen::samples;

/// The lists of a probe, with labels that match each other and the names.
pub(super) struct Lists {
    pub train: VideoList,
    pub val: Option<VideoList>,
    /// The names of the classes, and the label of the first.
    pub names: Option<(ClassNames, i64)>,
    /// Remarks on the lists.
    pub notes: Vec<String>,
}

impl Lists {
    /// Reads the lists and collects what is odd about them.
    pub fn read(
        data: &Path,
        val: Option<&Path>,
        names: Option<&Path>,
        labels_from: Option<i64>,
    ) -> Result<Self, CliError> {
        // All of them before the first is read, which looks for its videos.
        for file in [Some(data), val, names].into_iter().flatten() {
            refuse_foreign(file)?;
        }
        let (train, folders) = samples(data)?;
        let val = val.map(samples).transpose()?;
        if let (Some(own), Some((list, Some(other)))) = (&folders, &val)
            && own.names != other.names
        {
            let missing = own.names.iter().find(|name| !other.names.contains(name));
            let new = other.names.iter().find(|name| !own.names.contains(name));
            let which = missing.map(|name| format!("`{name}` is only in the former"));
            let which = which.or_else(|| new.map(|name| format!("`{name}` is only in the latter"))).unwrap_or_default();
            let (train, val) = (data.display(), list.path.display());
            return Err(format!("{train} and {val} have different class folders ({which}): make them the same").into());
        }
        let names = names.map(ClassNames::read).transpose()?.or(folders);
        Self::of(train, val.map(|(list, _)| list), names, labels_from)
    }

    /// Of lists that are read already.
    pub fn of(
        train: VideoList,
        val: Option<VideoList>,
        names: Option<ClassNames>,
        labels_from: Option<i64>,
    ) -> Result<Self, CliError> {
        let both = std::iter::once(&train).chain(&val);
        let mut notes: Vec<String> = both.flat_map(read_notes).collect();
        let names = match names {
            Some(names) => {
                let (from, remarks) = names.meet(&train, labels_from)?;
                let names = ClassNames { from: Some(from), ..names };
                notes.extend(of(&train, remarks));
                if let Some(val) = &val {
                    notes.extend(of(val, names.meet(val, None)?.1));
                }
                Some((names, from))
            }
            None => {
                let called = called_by_label(&train);
                if called.count < 2 {
                    return Err(
                        format!("{}: a probe needs videos of at least two classes", train.path.display()).into()
                    );
                }
                notes.extend(of(&train, remarks(&train)));
                if let Some(val) = &val {
                    notes.extend(of(val, called.meet(val, None)?.1));
                }
                None
            }
        };
        Ok(Self { train, val, names, notes })
    }

    /// The label of the first class: 0 unless names say otherwise.
    pub fn from(&self) -> i64 {
        self.names.as_ref().map_or(0, |(_, from)| *from)
    }

    /// The names of all classes.
    pub fn classes(&self) -> Vec<String> {
        let labels: Vec<i64> = self.train.entries.iter().filter_map(|entry| entry.label).collect();
        class_names(&labels, self.names.as_ref().map(|(names, _)| names.names.clone()))
    }
}

/// The classes of a list, each called by its label.
fn called_by_label(list: &VideoList) -> ClassNames {
    let labels: Vec<i64> = list.entries.iter().filter_map(|entry| entry.label).collect();
    let names = class_names(&labels, None);
    ClassNames { count: names.len(), names, from: None, source: list.path.clone() }
}

/// Remarks from reading a list.
pub(in crate::cli) fn read_notes(list: &VideoList) -> Vec<String> {
    of(list, list.notes.clone())
}

/// Remarks with the name of the list they are about.
pub(in crate::cli) fn of(list: &VideoList, remarks: Vec<String>) -> Vec<String> {
    remarks.into_iter().map(|remark| format!("{}: {remark}", list.path.display())).collect()
}
