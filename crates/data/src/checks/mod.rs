//! What is done to a data set before it is used: decoded once to find what is broken ([`scan()`]), split into parts
//! ([`split()`]), compared with another ([`overlap()`]).

mod journal;
mod overlap;
mod scan;
mod split;

pub use journal::Journal;
pub use overlap::{Fingerprint, Overlap, Same, fingerprints, overlap};
pub use scan::{Scanned, scan, table};
pub use split::{Parts, split};
