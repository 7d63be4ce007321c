//! Panics of foreign libraries as errors, without the standard message on the terminal.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, which catches its panics itself, without the panic hook's message on this thread.
pub fn without_panic_message<R>(f: impl FnOnce() -> R) -> R {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = f();
    QUIET.set(before);
    result
}

/// Runs `f`; a panic becomes its text. What `f` was changing when it panicked is the caller's to give up.
///
/// # Errors
/// The text of the panic.
pub fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    without_panic_message(|| catch_unwind(AssertUnwindSafe(f)))
        .map_err(|panic| panic_text(&*panic).unwrap_or("no reason given").to_owned())
}

/// Longest reason of a foreign library that goes into a message, in characters.
const LONGEST_REASON: usize = 300;

/// What a foreign library says in one line, cut in the middle where it prints half a model: what failed stands first, and
/// why stands last.
#[cfg_attr(not(any(feature = "tract", feature = "ort")), allow(dead_code))]
pub(crate) fn shortened(reason: &str) -> String {
    let words: Vec<char> = reason.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    if words.len() <= LONGEST_REASON {
        return words.into_iter().collect();
    }
    let (first, _) = words.split_at(LONGEST_REASON / 2);
    let (_, last) = words.split_at(words.len() - LONGEST_REASON / 2);
    first.iter().chain(&[' ', '.', '.', '.', ' ']).chain(last).collect()
}

/// The message of a panic, if it has one.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_keep_both_ends() {
        assert_eq!(shortened("a\n  b"), "a b");
        let long = format!("first {} last", "x".repeat(5000));
        let short = shortened(&long);
        assert!(short.starts_with("first x") && short.ends_with("x last") && short.len() < 320, "{short}");
        assert!(shortened(&"ü".repeat(1000)).chars().count() < 320);
    }
}
