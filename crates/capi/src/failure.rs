//! What a caller gets when something is wrong: a code, and a sentence kept for its thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use vjepa_runtime::{ClassifyError, PreprocessError, SessionError};

/// Done.
pub const VJEPA_OK: i32 = 0;
/// A null pointer, a size that does not fit, an unknown word: the caller's mistake.
pub const VJEPA_ERROR_ARGUMENT: i32 = 1;
/// The model cannot be opened: missing, damaged, or its runtime is not there.
pub const VJEPA_ERROR_OPEN: i32 = 2;
/// The model cannot be run.
pub const VJEPA_ERROR_RUN: i32 = 3;
/// A mistake in the library; please report it.
pub const VJEPA_ERROR_INTERNAL: i32 = 4;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("`{0}` is null; give a pointer to it")]
    Null(&'static str),
    #[error("`{0}` is not aligned for its type; give the address of an array of that type")]
    Misaligned(&'static str),
    #[error("`{name}` is said to hold {count} values, more than memory can; give its true length")]
    Length { name: &'static str, count: usize },
    #[error("`{0}` is not UTF-8; give it in that encoding")]
    NotUtf8(&'static str),
    #[error("`{name}` has room for {room} values but {needed} are written; give a larger buffer")]
    Room { name: &'static str, room: usize, needed: usize },
    #[error("{frames} frames of {width}x{height} pixels are {needed} bytes of RGB, but {got} were given")]
    Frames { frames: usize, height: usize, width: usize, needed: u128, got: usize },
    #[error("there is no result {index} among {count}; count from 0")]
    NoOutput { index: usize, count: usize },
    #[error("the model's input is not a clip; export it with vjepa")]
    NoClip,
    #[error(transparent)]
    Open(SessionError),
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    #[error(transparent)]
    Run(SessionError),
    #[error(transparent)]
    Classify(ClassifyError),
    #[error("the library failed inside ({0}); please report it")]
    Panic(String),
}

impl Failure {
    fn code(&self) -> i32 {
        match self {
            Self::Open(SessionError::UnknownRuntime(_)) => VJEPA_ERROR_ARGUMENT,
            Self::Open(_) => VJEPA_ERROR_OPEN,
            Self::Run(error) => run_code(error),
            Self::Preprocess(error) => prepare_code(error),
            Self::Classify(ClassifyError::Session(error)) => run_code(error),
            Self::Classify(ClassifyError::Preprocess(error)) => prepare_code(error),
            Self::Classify(_) => VJEPA_ERROR_RUN,
            Self::Panic(_) => VJEPA_ERROR_INTERNAL,
            _ => VJEPA_ERROR_ARGUMENT,
        }
    }
}

fn run_code(error: &SessionError) -> i32 {
    match error {
        SessionError::Shape { .. } | SessionError::Values { .. } => VJEPA_ERROR_ARGUMENT,
        _ => VJEPA_ERROR_RUN,
    }
}

fn prepare_code(error: &PreprocessError) -> i32 {
    match error {
        PreprocessError::FrameCount { .. } | PreprocessError::FrameSides { .. } | PreprocessError::FrameSize { .. } => {
            VJEPA_ERROR_ARGUMENT
        }
        _ => VJEPA_ERROR_RUN,
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// What was wrong in this thread's last call that failed; empty when none has. The text is the library's and stays until
/// the thread's next failure.
#[unsafe(no_mangle)]
pub extern "C" fn vjepa_last_error() -> *const c_char {
    // A thread that is ending has no text any more.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Text for C, where a NUL would end it early.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Runs the body of a function that returns a code.
pub(crate) fn status(body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    caught(body).map_or_else(|code| code, |()| VJEPA_OK)
}

/// Runs the body of a function that returns a value, or `otherwise` when it fails.
pub(crate) fn value<R>(otherwise: R, body: impl FnOnce() -> Result<R, Failure>) -> R {
    caught(body).unwrap_or(otherwise)
}

fn caught<R>(body: impl FnOnce() -> Result<R, Failure>) -> Result<R, i32> {
    let result = vjepa_runtime::caught(body).unwrap_or_else(|panic| Err(Failure::Panic(panic)));
    result.map_err(|failure| {
        let text = c_text(&failure.to_string());
        // A thread that is ending keeps no text.
        let _ = LAST.try_with(|last| *last.borrow_mut() = text);
        failure.code()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last() -> String {
        // SAFETY: the pointer is to a string that this thread keeps until its next failure.
        unsafe { CStr::from_ptr(vjepa_last_error()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn panics_become_codes() {
        assert_eq!(status(|| panic!("on purpose")), VJEPA_ERROR_INTERNAL);
        assert!(last().contains("on purpose"), "{}", last());
        assert_eq!(value(7, || panic!("{}", 1)), 7);
    }

    #[test]
    fn the_last_failure_stays_and_belongs_to_its_thread() {
        assert_eq!(status(|| Err(Failure::Null("path"))), VJEPA_ERROR_ARGUMENT);
        assert_eq!(status(|| Ok(())), VJEPA_OK);
        assert!(last().contains("`path` is null"), "{}", last());
        assert_eq!(std::thread::spawn(last).join().unwrap(), "");
        assert_eq!(c_text("a\0b").to_str(), Ok("a\u{fffd}b"));
    }
}
