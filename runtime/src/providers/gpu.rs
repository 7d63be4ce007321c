//! The GPU, its driver and TensorRT, asked through their own libraries.

use libloading::{Library, Symbol};
use std::ffi::{c_char, c_int, c_uint};

/// What an engine is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability without its point: `90`.
    pub capability: String,
    /// CUDA version the driver supports, `12080` for 12.8.
    pub driver: String,
    /// Version of TensorRT: `10.13.2`.
    pub tensorrt: String,
}

const DRIVER: &str = "libcuda.so.1";
const TENSORRT: &str = "libnvinfer.so.10";
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

/// GPU number `index`.
pub(super) fn describe(index: usize) -> Result<Machine, String> {
    ask(DRIVER, TENSORRT, index)
}

fn ask(driver: &str, tensorrt: &str, index: usize) -> Result<Machine, String> {
    // SAFETY: NVIDIA's driver library has no initialiser with preconditions; loading it is how every CUDA program starts.
    let cuda =
        unsafe { Library::new(driver) }.map_err(|_| format!("{driver} was not found: there is no NVIDIA driver"))?;
    let Gpu { name, capability, driver } = gpu(&cuda, index)?;
    // SAFETY: as above, for TensorRT's library.
    let nvinfer = unsafe { Library::new(tensorrt) }.map_err(|_| format!("{tensorrt} was not found"))?;
    // SAFETY: `int32_t getInferLibVersion()` is exported with C linkage by every libnvinfer and has no preconditions.
    let version = unsafe {
        let version: Symbol<'_, unsafe extern "C" fn() -> c_int> = symbol(&nvinfer, b"getInferLibVersion\0")?;
        version()
    };
    Ok(Machine { name, capability, driver, tensorrt: version_text(version) })
}

struct Gpu {
    name: String,
    capability: String,
    driver: String,
}

fn gpu(cuda: &Library, index: usize) -> Result<Gpu, String> {
    let failed = |call: &str, code: c_int| format!("{call} failed with CUDA error {code}");
    let ordinal = c_int::try_from(index).map_err(|_| format!("there is no GPU {index}"))?;
    // SAFETY: these are the driver API's functions with the signatures of cuda.h; cuInit comes first, every pointer is to a
    // local that outlives the call, and the name's length is that of its buffer.
    unsafe {
        let init: Symbol<'_, unsafe extern "C" fn(c_uint) -> c_int> = symbol(cuda, b"cuInit\0")?;
        let version: Symbol<'_, unsafe extern "C" fn(*mut c_int) -> c_int> = symbol(cuda, b"cuDriverGetVersion\0")?;
        let count: Symbol<'_, unsafe extern "C" fn(*mut c_int) -> c_int> = symbol(cuda, b"cuDeviceGetCount\0")?;
        let attribute: Symbol<'_, unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int> =
            symbol(cuda, b"cuDeviceGetAttribute\0")?;
        let name: Symbol<'_, unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int> =
            symbol(cuda, b"cuDeviceGetName\0")?;
        let checked = |call: &str, code: c_int| if code == 0 { Ok(()) } else { Err(failed(call, code)) };
        checked("cuInit", init(0))?;
        let (mut driver, mut gpus, mut parts) = (0, 0, [0; 2]);
        checked("cuDriverGetVersion", version(&raw mut driver))?;
        checked("cuDeviceGetCount", count(&raw mut gpus))?;
        if ordinal >= gpus {
            return Err(format!("there is no GPU {index}: this machine has {gpus}, counted from 0"));
        }
        for (part, which) in parts.iter_mut().zip(CAPABILITY) {
            checked("cuDeviceGetAttribute", attribute(part, which, ordinal))?;
        }
        let mut text = [0_u8; 128];
        checked("cuDeviceGetName", name(text.as_mut_ptr().cast(), text.len() as c_int, ordinal))?;
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let name = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
        Ok(Gpu { name, capability: format!("{}{}", parts[0], parts[1]), driver: driver.to_string() })
    }
}

/// # Safety
/// `T` must be the type of the symbol.
unsafe fn symbol<'a, T>(library: &'a Library, name: &[u8]) -> Result<Symbol<'a, T>, String> {
    // SAFETY: the caller's.
    let found = unsafe { library.get::<T>(name) };
    found.map_err(|_| format!("no function {}", String::from_utf8_lossy(name).trim_end_matches('\0')))
}

/// `101302` is 10.13.2; before TensorRT 10 `8601` was 8.6.1.
fn version_text(version: c_int) -> String {
    let (major, step) = if version >= 10_000 { (10_000, 100) } else { (1000, 100) };
    format!("{}.{}.{}", version / major, version % major / step, version % step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_tensorrt() {
        assert_eq!(version_text(101_302), "10.13.2");
        assert_eq!(version_text(8601), "8.6.1");
    }

    #[test]
    fn missing_libraries_are_named() {
        let error = ask("libno-such-driver.so.1", TENSORRT, 0).unwrap_err();
        assert_eq!(error, "libno-such-driver.so.1 was not found: there is no NVIDIA driver");
    }

    /// Stand-ins for the driver and TensorRT, with their signatures.
    #[cfg(target_os = "linux")]
    const STAND_INS: &str = r#"
        #include <string.h>
        int cuInit(unsigned flags) { return 0; }
        int cuDriverGetVersion(int *v) { *v = 12080; return 0; }
        int cuDeviceGetCount(int *n) { *n = 2; return 0; }
        int cuDeviceGetAttribute(int *v, int which, int gpu) { *v = which == 75 ? 9 : gpu; return 0; }
        int cuDeviceGetName(char *to, int len, int gpu) { strncpy(to, "Stand-in", len); return 0; }
        int getInferLibVersion(void) { return 101302; }
    "#;

    #[test]
    #[cfg(target_os = "linux")]
    fn libraries_are_asked_through_their_c_interface() {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("gpu.c"), folder.path().join("libgpu.so"));
        std::fs::write(&source, STAND_INS).unwrap();
        let built =
            std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        assert!(built.is_ok_and(|status| status.success()), "the C compiler is needed");
        let library = library.to_str().unwrap();
        let machine = ask(library, library, 1).unwrap();
        let expected = Machine {
            name: "Stand-in".to_owned(),
            capability: "91".to_owned(),
            driver: "12080".to_owned(),
            tensorrt: "10.13.2".to_owned(),
        };
        assert_eq!(machine, expected);
        assert_eq!(ask(library, library, 2).unwrap_err(), "there is no GPU 2: this machine has 2, counted from 0");
        assert_eq!(ask(library, "libno-such.so", 0).unwrap_err(), "libno-such.so was not found");
    }
}
