//! How failures of a device become errors.

use super::RunError;
use super::device::{Device, DeviceError};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f` on a device, which may fail in three ways: back ends of GPUs panic where their library fails (a full memory, a
/// kernel that does not compile), a result cannot be read, or `failure` says afterwards that what was read means nothing.
pub(super) fn on<T>(
    device: Device,
    failure: impl Fn() -> Option<String>,
    f: impl FnOnce() -> Result<T, RunError>,
) -> Result<T, RunError> {
    if device.is_cpu() {
        return f();
    }
    let fail = |said: &str| Err(DeviceError::from_message(device, said).into());
    if let Some(said) = failure() {
        return fail(&said);
    }
    let done = catch_unwind(AssertUnwindSafe(f));
    match (done, failure()) {
        // Refused before anything ran.
        (Ok(Err(error @ RunError::Device(_))), None) => Err(error),
        (_, Some(said)) => fail(&said),
        (Ok(Err(RunError::Lost { why, .. })), None) => fail(&why),
        (Ok(result), None) => result,
        (Err(panic), None) => fail(crate::quiet::panic_text(&*panic).unwrap_or("its library gave up without a word")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::back_ends::{BackEnd, all};

    /// A device that is not the CPU, whatever this build has.
    fn gpu() -> Device {
        let cpu = all().next().unwrap();
        let BackEnd { open, plan, lower, by_kernel, take, params, unused, lay_out, .. } = *cpu;
        let gpu = BackEnd { name: "gpu", numbered: true, open, plan, lower, by_kernel, take, params, unused, lay_out };
        let back_end = Box::leak(Box::new(gpu));
        Device { back_end, index: 1 }
    }

    #[test]
    fn a_panic_of_the_device_is_an_error() {
        let run = || -> Result<(), RunError> { crate::without_panic_message(|| panic!("CUDA_ERROR_OUT_OF_MEMORY")) };
        let error = on(gpu(), || None, run).unwrap_err().to_string();
        assert!(error.starts_with("gpu:1 is out of memory"), "{error}");
        let lost = || -> Result<(), RunError> { Err(RunError::Lost { name: "loss".into(), why: "bad kernel".into() }) };
        assert_eq!(on(gpu(), || None, lost).unwrap_err().to_string(), "gpu:1 failed: bad kernel");
    }

    #[test]
    fn a_run_on_a_device_that_failed_is_an_error_and_its_result_is_not_used() {
        use std::cell::Cell;
        let failed = Cell::new(false);
        let failure = || failed.get().then(|| "its thread panicked: no such type".to_owned());
        let fails_unseen = || {
            failed.set(true);
            Ok("what the memory held")
        };
        let error = on(gpu(), failure, fails_unseen).unwrap_err().to_string();
        assert_eq!(error, "gpu:1 failed: its thread panicked: no such type");
        let again = on(gpu(), failure, || -> Result<(), RunError> { unreachable!() });
        assert_eq!(again.unwrap_err().to_string(), error);
    }
}
