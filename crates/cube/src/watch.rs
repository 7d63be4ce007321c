//! Devices that have failed where no caller sees it.
//!
//! CubeCL runs each device on threads of its own, named `DSD-KIND-INDEX` (and `DSU-...`). A panic there is caught and
//! logged; the calls that follow succeed, on memory that nothing was written to. A hook keeps what it said instead.

use burn_cubecl::cubecl::device::DeviceId;
use std::collections::BTreeMap;
use std::panic::PanicHookInfo;
use std::sync::{Mutex, Once, PoisonError};

/// What each device that failed said first. Devices of two back ends may have one id: then both count as failed.
static FAILURES: Mutex<BTreeMap<(u16, u16), String>> = Mutex::new(BTreeMap::new());

/// From now on panics of device threads are kept. They are not printed: they are reported by who runs something.
pub(crate) fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match std::thread::current().name().and_then(device_of) {
            Some(id) => record(id, &said(info)),
            None => previous(info),
        }));
    });
}

/// Keeps why a device failed, unless it had failed before.
pub(crate) fn record(id: DeviceId, why: &str) {
    let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
    failures.entry((id.type_id, id.index_id)).or_insert_with(|| why.to_owned());
}

/// Why a device failed.
pub(crate) fn failure(id: DeviceId) -> Option<String> {
    let failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
    failures.get(&(id.type_id, id.index_id)).cloned()
}

/// The device of a thread by the thread's name.
fn device_of(thread: &str) -> Option<DeviceId> {
    let numbers = thread.strip_prefix("DSD-").or_else(|| thread.strip_prefix("DSU-"))?;
    let (kind, index) = numbers.split_once('-')?;
    Some(DeviceId::new(kind.parse().ok()?, index.parse().ok()?))
}

fn said(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("no reason given");
    match info.location() {
        Some(at) => format!("its thread panicked: {text} ({}:{})", file_name(at.file()), at.line()),
        None => format!("its thread panicked: {text}"),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_on_a_device_thread_is_kept() {
        install();
        let id = DeviceId::new(77, 3);
        let panic_on = |name: &str| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(|| panic!("no such type"));
            assert!(thread.unwrap().join().is_err());
        };
        assert_eq!(failure(id), None);
        panic_on("DSD-77-3");
        let said = failure(id).unwrap();
        assert!(said.starts_with("its thread panicked: no such type (watch.rs:"), "{said}");
        record(id, "later");
        assert_eq!(failure(id), Some(said));
        assert_eq!(failure(DeviceId::new(77, 4)), None);
    }

    #[test]
    fn other_threads_are_not_devices() {
        for name in ["main", "DSD-", "DSD-x-1", "DSD-1", "rayon-0"] {
            assert!(device_of(name).is_none(), "{name}");
        }
    }
}
