//! The index of a weights file: what can be known before a tensor is read.

use std::collections::{BTreeMap, BTreeSet};

use super::Entry;

/// Names, shapes and extents.
#[derive(Default)]
pub(super) struct Index {
    /// Tensors of floats, by their official names.
    pub entries: BTreeMap<String, Entry>,
    /// Names and types of tensors that are not floats.
    pub others: BTreeMap<String, String>,
    /// Keys of tensors that belong to no model (PyTorch files, which also hold the state of a training run).
    pub foreign: BTreeSet<String>,
    /// Texts stored with the tensors (safetensors).
    pub metadata: BTreeMap<String, String>,
}
