//! How many threads this process may use.

/// The cores this process may use; none where the system does not say.
pub fn cores() -> Option<usize> {
    std::thread::available_parallelism().ok().map(usize::from)
}
