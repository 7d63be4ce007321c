//! Keys by which the official launcher starts the processes of an evaluation: files of every layout have them, and here they
//! decide nothing.

use crate::yaml::{Node, Value};

const PROCESSES: &str = "the launcher decides how many processes run";
const OF_A_PROCESS: &str = "the launcher decides what a process gets";

/// Each with the reason.
pub(super) const KEYS: [(&str, &str); 5] = [
    ("nodes", PROCESSES),
    ("tasks_per_node", PROCESSES),
    ("cpus_per_task", OF_A_PROCESS),
    ("mem_per_gpu", OF_A_PROCESS),
    ("folder", "probes are written to --out"),
];

/// A file without them.
pub(super) fn without(root: &Node) -> Node {
    let mut root = root.clone();
    if let Value::Map(sections) = &mut root.value {
        sections.retain(|(name, _)| !KEYS.iter().any(|(key, _)| name == key));
    }
    root
}
