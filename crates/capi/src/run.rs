//! Frames to labels, clips to tensors.
// The header's first comment says what callers owe.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

use crate::failure::{Failure, c_text, status, value};
use crate::pointer;
use crate::session::SessionHandle;
use std::ffi::{CString, c_char};
use vjepa_runtime::{ClipBatch, NamedOutput};

/// A class and how probable it is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Prediction {
    /// Index of the class.
    pub class_index: usize,
    /// Between 0 and 1; all classes together give 1.
    pub probability: f64,
    /// Name of the class, in UTF-8; null when it has none. The text is the session's.
    pub label: *const c_char,
}

/// The results of a run.
pub struct Outputs(Vec<Output>);

struct Output {
    name: CString,
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// Classifies one clip: `num_frames` frames one behind the other, each `height` by `width` pixels of interleaved RGB bytes,
/// `frames_size` bytes in all. The most probable classes, at most `room`, come to `predictions`, the most probable first;
/// `*count` is how many. Frames are resized, cropped and scaled as in training; which frames of a video belong in a clip
/// says `vjepa_frame_offsets`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_classify(
    session: *const SessionHandle,
    frames: *const u8,
    frames_size: usize,
    num_frames: usize,
    height: usize,
    width: usize,
    predictions: *mut Prediction,
    room: usize,
    count: *mut usize,
) -> i32 {
    status(|| {
        // SAFETY: the caller gives room for one number.
        unsafe { pointer::write(&[0], count, 1, "count") }?;
        // SAFETY: a session of `vjepa_open`, and as many bytes as the caller says.
        let (session, bytes) =
            unsafe { (pointer::reference(session, "session")?, pointer::values(frames, frames_size, "frames")?) };
        let frames = split(bytes, num_frames, height, width)?;
        let found = session.session.classify(&frames, height, width).map_err(Failure::Classify)?;
        let best = found.iter().take(room).map(|prediction| Prediction {
            class_index: prediction.class,
            probability: prediction.probability,
            label: session.label(prediction.class),
        });
        let best: Vec<Prediction> = best.collect();
        // SAFETY: room for as many as the caller says, and for one number.
        unsafe {
            pointer::write(&best, predictions, room, "predictions")?;
            pointer::write(&[best.len()], count, 1, "count")
        }
    })
}

/// Prepares one clip for `vjepa_run`: f32 [3, T, S, S], row-major, at `clip`, which has room for `room` values. Frames are
/// given as to `vjepa_classify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_prepare(
    session: *const SessionHandle,
    frames: *const u8,
    frames_size: usize,
    num_frames: usize,
    height: usize,
    width: usize,
    clip: *mut f32,
    room: usize,
) -> i32 {
    status(|| {
        // SAFETY: a session of `vjepa_open`, and as many bytes as the caller says.
        let (session, bytes) =
            unsafe { (pointer::reference(session, "session")?, pointer::values(frames, frames_size, "frames")?) };
        let record = session.record()?;
        if record.clip_len() > room {
            return Err(Failure::Room { name: "clip", room, needed: record.clip_len() });
        }
        let prepared = record.prepare(&split(bytes, num_frames, height, width)?, height, width)?;
        // SAFETY: room for as many values as the caller says.
        unsafe { pointer::write(&prepared, clip, room, "clip") }
    })
}

/// Runs a batch of prepared clips, f32 [B, 3, T, H, W] row-major, `count` values in all; `shape` has the five sizes. The
/// results come to `*outputs`, which is null when this fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_run(
    session: *const SessionHandle,
    clips: *const f32,
    count: usize,
    shape: *const usize,
    outputs: *mut *mut Outputs,
) -> i32 {
    status(|| {
        // SAFETY: the caller gives room for one pointer.
        unsafe { pointer::write(&[std::ptr::null_mut()], outputs, 1, "outputs") }?;
        // SAFETY: a session of `vjepa_open`, as many values as the caller says, and five sizes.
        let (session, clips, shape) = unsafe {
            let session = pointer::reference(session, "session")?;
            (session, pointer::values(clips, count, "clips")?, pointer::reference(shape.cast::<[usize; 5]>(), "shape")?)
        };
        let batch = ClipBatch::new(*shape, clips).map_err(Failure::Run)?;
        let found = session.session.run(&batch).map_err(Failure::Run)?;
        let found =
            found.into_iter().map(|NamedOutput { name, shape, data }| Output { name: c_text(&name), shape, data });
        let results = Outputs(found.collect());
        // SAFETY: as above.
        unsafe { pointer::write(&[Box::into_raw(Box::new(results))], outputs, 1, "outputs") }
    })
}

/// Frees results; null is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_outputs_free(outputs: *mut Outputs) {
    value((), || {
        if !outputs.is_null() {
            // SAFETY: they came from `vjepa_run`, and the caller frees them once.
            drop(unsafe { Box::from_raw(outputs) });
        }
        Ok(())
    });
}

/// How many results there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_outputs_count(outputs: *const Outputs) -> usize {
    // SAFETY: results of `vjepa_run`.
    value(0, || Ok(unsafe { pointer::reference(outputs, "outputs") }?.0.len()))
}

/// Name of a result ("logits"); null when there is no such one. The text, as all below, belongs to the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_outputs_name(outputs: *const Outputs, index: usize) -> *const c_char {
    // SAFETY: results of `vjepa_run`.
    unsafe { of(outputs, index, std::ptr::null(), |output| output.name.as_ptr()) }
}

/// Number of a result's dimensions; 0 when there is no such one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_outputs_rank(outputs: *const Outputs, index: usize) -> usize {
    // SAFETY: results of `vjepa_run`.
    unsafe { of(outputs, index, 0, |output| output.shape.len()) }
}

/// A result's dimensions, `vjepa_outputs_rank` of them; null when there is no such one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_outputs_shape(outputs: *const Outputs, index: usize) -> *const usize {
    // SAFETY: results of `vjepa_run`.
    unsafe { of(outputs, index, std::ptr::null(), |output| output.shape.as_ptr()) }
}

/// Number of a result's values, the product of its dimensions; 0 when there is no such one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_outputs_size(outputs: *const Outputs, index: usize) -> usize {
    // SAFETY: results of `vjepa_run`.
    unsafe { of(outputs, index, 0, |output| output.data.len()) }
}

/// A result's values, row-major, `vjepa_outputs_size` of them; null when there is no such one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vjepa_outputs_values(outputs: *const Outputs, index: usize) -> *const f32 {
    // SAFETY: results of `vjepa_run`.
    unsafe { of(outputs, index, std::ptr::null(), |output| output.data.as_ptr()) }
}

/// # Safety
/// `outputs` is null or results of [`vjepa_run`].
unsafe fn of<R>(outputs: *const Outputs, index: usize, otherwise: R, get: impl FnOnce(&Output) -> R) -> R {
    value(otherwise, || {
        // SAFETY: the caller's promise.
        let outputs = unsafe { pointer::reference(outputs, "outputs") }?;
        let output = outputs.0.get(index).ok_or(Failure::NoOutput { index, count: outputs.0.len() })?;
        Ok(get(output))
    })
}

/// The frames in `bytes`.
fn split(bytes: &[u8], frames: usize, height: usize, width: usize) -> Result<Vec<&[u8]>, Failure> {
    let frame = (height as u128 * width as u128).saturating_mul(3);
    let needed = frame.saturating_mul(frames as u128);
    if needed != bytes.len() as u128 {
        return Err(Failure::Frames { frames, height, width, needed, got: bytes.len() });
    }
    // A frame without pixels is refused where frames are prepared.
    Ok(bytes.chunks_exact(usize::try_from(frame).unwrap_or(usize::MAX).max(1)).collect())
}
