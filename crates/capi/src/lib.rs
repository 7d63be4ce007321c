//! Sessions for C, C++ and everything that calls C: `include/vjepa.h`, which is made from this crate.
//!
//! Nothing unwinds across the boundary, pointers and sizes are checked as far as they can be, and handles are opaque. A
//! function's meaning and the layout of [`Prediction`] do not change while [`VJEPA_ABI_VERSION`] is the same; functions
//! may be added.
//!
//! `session` opens models and describes them, `run` runs them, `failure` is what a caller gets when something is wrong,
//! `pointer` turns what callers hand over into references.

#![warn(missing_docs)]

mod failure;
mod pointer;
mod run;
mod session;

pub use failure::{
    VJEPA_ERROR_ARGUMENT, VJEPA_ERROR_INTERNAL, VJEPA_ERROR_OPEN, VJEPA_ERROR_RUN, VJEPA_OK, vjepa_last_error,
};
pub use run::{
    Outputs, Prediction, vjepa_classify, vjepa_outputs_count, vjepa_outputs_free, vjepa_outputs_name,
    vjepa_outputs_rank, vjepa_outputs_shape, vjepa_outputs_size, vjepa_outputs_values, vjepa_prepare, vjepa_run,
};
pub use session::{
    SessionHandle, vjepa_close, vjepa_crop_size, vjepa_crop_width, vjepa_frame_offsets, vjepa_input_shape, vjepa_label,
    vjepa_label_count, vjepa_num_frames, vjepa_open, vjepa_runtime, vjepa_views,
};

/// Version of this interface. A program compares it with `vjepa_abi_version()` of the library it runs with.
pub const VJEPA_ABI_VERSION: u32 = 1;

/// The library's version of the interface; use the library only when it is `VJEPA_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn vjepa_abi_version() -> u32 {
    VJEPA_ABI_VERSION
}
