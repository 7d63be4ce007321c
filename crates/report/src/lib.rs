//! What a run leaves for people and for trackers, and what is made of it afterwards.
//!
//! Written during a run: TensorBoard's event files ([`events`]) and the record of how it was started (`run.json`,
//! [`starts`]), both through one [`Recorder`]. Read afterwards, or while it goes on: the whole folder ([`run`]), from which a page is made ([`page`]) and
//! a view in the terminal ([`watch`]). Nothing here trains or knows Burn: a run's
//! folder can be read on any machine.

#![warn(missing_docs)]

mod error;
pub mod events;
mod page;
mod recorder;
pub mod run;
pub mod starts;
pub mod watch;

pub use error::ReportError;
pub use page::{ShownProbe, page};
pub use recorder::Recorder;
