//! How many threads there is work for.

pub(crate) use vjepa_runtime::cores;
