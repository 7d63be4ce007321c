//! Opening a model and asking what it is.
// The header's first comment says what callers owe.
#![allow(clippy::missing_safety_doc)]

use crate::failure::{Failure, c_text, status, value};
use crate::pointer;
use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use vjepa_runtime::{Dimension, Options, Preprocessing, Runtime, Session, SessionError};

/// An open model.
pub struct SessionHandle {
    pub(crate) session: Session,
    pub(crate) labels: Vec<CString>,
    pub(crate) record: Option<Preprocessing>,
    runtime: CString,
}

// Callers share a session between threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<SessionHandle>();
};

/// Opens a model, an ONNX file as `vjepa compile --export onnx` writes it, and puts it at `*session`.
///
/// `runtime`: "tract", "ort", "cuda", "tensorrt" or "auto"; null is "auto". `ort_library`: ONNX Runtime's shared library;
/// null searches the usual places, and a process can use one only. `threads`: 0 is one for tract, and for ONNX Runtime as
/// many as it finds cores, within the process's CPU limits. When this fails `*session` is null. "auto" is tract; a model
/// that tract cannot load runs on ONNX Runtime where it is installed, and `vjepa_runtime` says which it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_open(
    path: *const c_char,
    runtime: *const c_char,
    ort_library: *const c_char,
    threads: usize,
    session: *mut *mut SessionHandle,
) -> i32 {
    status(|| {
        // SAFETY: the caller gives room for one pointer.
        unsafe { pointer::write(&[std::ptr::null_mut()], session, 1, "session") }?;
        // SAFETY: the caller gives strings that end with a NUL, or null.
        let (path, runtime, ort_lib) = unsafe {
            let optional = |text: *const c_char, name| (!text.is_null()).then(|| pointer::text(text, name)).transpose();
            (pointer::text(path, "path")?, optional(runtime, "runtime")?, optional(ort_library, "ort_library")?)
        };
        let runtime = match runtime {
            Some(word) => {
                word.to_str().map_err(|_| Failure::NotUtf8("runtime"))?.parse::<Runtime>().map_err(Failure::Open)?
            }
            None => Runtime::Auto,
        };
        let options = Options {
            runtime,
            ort_lib: ort_lib.map(|path| file_path(path, "ort_library")).transpose()?,
            threads: (threads > 0).then_some(threads),
            ..Options::default()
        };
        let handle = open(&file_path(path, "path")?, &options).map_err(Failure::Open)?;
        // SAFETY: as above.
        unsafe { pointer::write(&[Box::into_raw(Box::new(handle))], session, 1, "session") }
    })
}

fn open(path: &std::path::Path, options: &Options) -> Result<SessionHandle, SessionError> {
    let session = Session::open(path, options)?;
    let labels = session.labels().iter().map(|label| c_text(label)).collect();
    let runtime = c_text(&session.runtime());
    // A model without a record runs prepared clips; what needs the record says that it is missing.
    let record = session.preprocessing().ok();
    Ok(SessionHandle { session, labels, record, runtime })
}

/// Frees a session; null is nothing to free. In a child made by fork() a session of the parent is left as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_close(session: *mut SessionHandle) {
    value((), || {
        if !session.is_null() {
            // SAFETY: it came from `vjepa_open`, and the caller frees it once.
            drop(unsafe { Box::from_raw(session) });
        }
        Ok(())
    });
}

/// What runs the model, with its version: "tract (1 thread)". Null when `session` is null; else the session's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_runtime(session: *const SessionHandle) -> *const c_char {
    value(std::ptr::null(), || {
        // SAFETY: a session of `vjepa_open`.
        let session = unsafe { pointer::reference(session, "session") }?;
        Ok(session.runtime.as_ptr())
    })
}

/// Frames of a clip; 0 when the model does not say how clips are prepared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_num_frames(session: *const SessionHandle) -> usize {
    // SAFETY: a session of `vjepa_open`.
    value(0, || Ok(unsafe { record(session) }?.num_frames))
}

/// Side of a prepared clip in pixels, its height where it is not square; 0 when the model does not say how clips are prepared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_crop_size(session: *const SessionHandle) -> usize {
    // SAFETY: a session of `vjepa_open`.
    value(0, || Ok(unsafe { record(session) }?.crop_size))
}

/// Width of a prepared clip in pixels; 0 when the model does not say how clips are prepared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_crop_width(session: *const SessionHandle) -> usize {
    // SAFETY: a session of `vjepa_open`.
    value(0, || Ok(unsafe { record(session) }?.size()[1]))
}

/// Which frames of a video make a clip: counted from the clip's first one, `vjepa_num_frames` numbers, ascending, at
/// `offsets`, which has room for `room`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_frame_offsets(session: *const SessionHandle, offsets: *mut usize, room: usize) -> i32 {
    // SAFETY: a session of `vjepa_open`, and room for as many numbers as the caller says.
    status(|| unsafe { pointer::write(&record(session)?.frame_offsets(), offsets, room, "offsets") })
}

/// The five sizes of a batch of prepared clips, [B, 3, T, H, W], at `shape`; 0 for one that is chosen at each run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_input_shape(session: *const SessionHandle, shape: *mut usize) -> i32 {
    status(|| {
        // SAFETY: a session of `vjepa_open`.
        let session = unsafe { pointer::reference(session, "session") }?;
        let size = |dim: &Dimension| dim.size().unwrap_or(0);
        let dims: Vec<usize> = session.session.input().shape.iter().map(size).collect();
        let (Some(batch), Some(clip)) = (dims.first(), dims.last_chunk::<4>()) else { return Err(Failure::NoClip) };
        let [channels, frames, height, width] = *clip;
        let batch = batch.saturating_mul(session.session.views());
        // SAFETY: the caller gives room for five.
        unsafe { pointer::write(&[batch, channels, frames, height, width], shape, 5, "shape") }
    })
}

/// Clips that the model averages for one result, 1 for most; `vjepa_run` takes as many for each. 0 when `session` is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_views(session: *const SessionHandle) -> usize {
    // SAFETY: a session of `vjepa_open`.
    value(0, || Ok(unsafe { pointer::reference(session, "session") }?.session.views()))
}

/// How many classes have names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_label_count(session: *const SessionHandle) -> usize {
    // SAFETY: a session of `vjepa_open`.
    value(0, || Ok(unsafe { pointer::reference(session, "session") }?.labels.len()))
}

/// The name of a class, in UTF-8; null when it has none. The text is the session's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_label(session: *const SessionHandle, class_index: usize) -> *const c_char {
    value(std::ptr::null(), || {
        // SAFETY: a session of `vjepa_open`.
        let session = unsafe { pointer::reference(session, "session") }?;
        Ok(session.label(class_index))
    })
}

impl SessionHandle {
    pub(crate) fn label(&self, class: usize) -> *const c_char {
        self.labels.get(class).map_or(std::ptr::null(), |label| label.as_ptr())
    }

    pub(crate) fn record(&self) -> Result<&Preprocessing, Failure> {
        match &self.record {
            Some(record) => Ok(record),
            None => Err(self.session.preprocessing().err().map_or(Failure::Null("record"), Failure::from)),
        }
    }
}

/// # Safety
/// `session` is null or a session of [`vjepa_open`] that outlives `'a`.
unsafe fn record<'a>(session: *const SessionHandle) -> Result<&'a Preprocessing, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer::reference(session, "session") }?.record()
}

#[cfg(unix)]
fn file_path(text: &CStr, _: &'static str) -> Result<PathBuf, Failure> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(text.to_bytes()).into())
}

#[cfg(not(unix))]
fn file_path(text: &CStr, name: &'static str) -> Result<PathBuf, Failure> {
    text.to_str().map(PathBuf::from).map_err(|_| Failure::NotUtf8(name))
}
