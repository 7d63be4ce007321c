//! How many threads there is work for.

/// The cores this process may use; none where the system does not say.
pub(crate) fn cores() -> Option<usize> {
    std::thread::available_parallelism().ok().map(usize::from)
}
