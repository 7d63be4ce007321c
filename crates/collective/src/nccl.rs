//! Ranks on NVIDIA GPUs, through NCCL and the CUDA driver, both opened when they are needed.
//!
//! The ranks meet over TCP (`rendezvous.rs`) or, where an MPI's launcher started them and `MASTER_ADDR` is not set, over MPI:
//! there rank 0 hands out NCCL's identifier, and there everything but sums travels. Gradients are summed where they lie on the
//! device, on a stream of the engine's own beside the step's; sums of what lies on the host are staged through a buffer. Tested
//! with a stand-in for both libraries (`tests/stand_in.c`); it has not run on several GPUs yet.
#![allow(unsafe_code)]

use crate::beside::{Beside, Ending};
use crate::rendezvous::{Lines, Meeting};
use crate::{CollectiveError, Communicator, Control, Launch, Launcher, OnDevice};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Id([u8; 128]);

/// `ncclFloat32` and `ncclSum`.
const FLOAT: c_int = 7;
const SUM: c_int = 0;

/// `CU_STREAM_NON_BLOCKING`: beside the work of other streams.
const BESIDE: c_uint = 1;

type Comm = *mut c_void;
type Stream = *mut c_void;
type Device = u64;

/// The two libraries, where they are to be found.
#[derive(Clone, Debug)]
pub struct Libraries {
    /// NCCL.
    pub nccl: PathBuf,
    /// The CUDA driver.
    pub cuda: PathBuf,
}

impl Default for Libraries {
    /// By their usual names, which the system's loader resolves.
    fn default() -> Self {
        Self { nccl: "libnccl.so.2".into(), cuda: "libcuda.so.1".into() }
    }
}

/// Functions of the libraries; the libraries stay open as long.
struct Functions {
    unique_id: unsafe extern "C" fn(*mut Id) -> c_int,
    init_rank: unsafe extern "C" fn(*mut Comm, c_int, Id, c_int) -> c_int,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    destroy: unsafe extern "C" fn(Comm) -> c_int,
    error: unsafe extern "C" fn(c_int) -> *const c_char,
    init: unsafe extern "C" fn(c_int) -> c_int,
    retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int,
    current: unsafe extern "C" fn(*mut c_void) -> c_int,
    allocate: unsafe extern "C" fn(*mut Device, usize) -> c_int,
    free: unsafe extern "C" fn(Device) -> c_int,
    upload: unsafe extern "C" fn(Device, *const c_void, usize) -> c_int,
    download: unsafe extern "C" fn(*mut c_void, Device, usize) -> c_int,
    wait: unsafe extern "C" fn() -> c_int,
    stream: unsafe extern "C" fn(*mut Stream, c_uint) -> c_int,
    wait_for: unsafe extern "C" fn(Stream) -> c_int,
    end_stream: unsafe extern "C" fn(Stream) -> c_int,
    _libraries: [Library; 2],
}

fn failed(why: String) -> CollectiveError {
    CollectiveError::Start { engine: "NCCL", why }
}

impl Functions {
    fn open(libraries: &Libraries) -> Result<Self, CollectiveError> {
        let open = |path: &Path, what: &str| {
            // SAFETY: opening runs the library's initialisers; NCCL's and the driver's do nothing to this process.
            unsafe { Library::new(path) }.map_err(|error| {
                failed(format!("{what} cannot be opened ({error}); install it, or train with one process"))
            })
        };
        let (nccl, cuda) = (open(&libraries.nccl, "NCCL")?, open(&libraries.cuda, "the NVIDIA driver")?);
        macro_rules! find {
            ($library:ident, $name:literal) => {
                // SAFETY: the field's type is the function's, from NCCL's and CUDA's headers.
                *unsafe { $library.get($name) }
                    .map_err(|error| failed(format!("the library is too old or another one ({error})")))?
            };
        }
        Ok(Self {
            unique_id: find!(nccl, b"ncclGetUniqueId\0"),
            init_rank: find!(nccl, b"ncclCommInitRank\0"),
            all_reduce: find!(nccl, b"ncclAllReduce\0"),
            group_start: find!(nccl, b"ncclGroupStart\0"),
            group_end: find!(nccl, b"ncclGroupEnd\0"),
            destroy: find!(nccl, b"ncclCommDestroy\0"),
            error: find!(nccl, b"ncclGetErrorString\0"),
            init: find!(cuda, b"cuInit\0"),
            retain: find!(cuda, b"cuDevicePrimaryCtxRetain\0"),
            current: find!(cuda, b"cuCtxSetCurrent\0"),
            allocate: find!(cuda, b"cuMemAlloc_v2\0"),
            free: find!(cuda, b"cuMemFree_v2\0"),
            upload: find!(cuda, b"cuMemcpyHtoD_v2\0"),
            download: find!(cuda, b"cuMemcpyDtoH_v2\0"),
            wait: find!(cuda, b"cuCtxSynchronize\0"),
            stream: find!(cuda, b"cuStreamCreate\0"),
            wait_for: find!(cuda, b"cuStreamSynchronize\0"),
            end_stream: find!(cuda, b"cuStreamDestroy_v2\0"),
            _libraries: [nccl, cuda],
        })
    }

    /// An error unless NCCL returned 0.
    fn nccl(&self, code: c_int) -> Result<(), CollectiveError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NCCL returns a text of its own for any code.
        let text = unsafe { (self.error)(code) };
        let text = if text.is_null() {
            format!("error {code}")
        } else {
            // SAFETY: not null, and NCCL's texts end with a zero and are never freed.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(failed(format!("it says: {text}; set NCCL_DEBUG=WARN to see more")))
    }

    /// An error unless the driver returned 0.
    fn cuda(code: c_int) -> Result<(), CollectiveError> {
        if code == 0 { Ok(()) } else { Err(failed(format!("the NVIDIA driver returned error {code}"))) }
    }
}

/// Device memory for sums on their way.
struct Staging {
    memory: Device,
    bytes: usize,
}

/// The ranks of a launch on the GPUs of their numbers, met where the environment says: at `MASTER_ADDR`, or, without it, over
/// the MPI whose launcher started them.
///
/// # Errors
/// As [`Nccl::start`] and [`Lines::open`].
pub fn ranks(launch: Launch, libraries: Libraries, limit: Duration) -> Result<Beside, CollectiveError> {
    let ending = Ending::new();
    let asked = ending.clone();
    let meet = move || control(launch, limit, asked);
    Beside::with(ending, move || Nccl::start(launch, meet, launch.local, &libraries))
}

fn control(launch: Launch, limit: Duration, asked: Ending) -> Result<Box<dyn Control>, CollectiveError> {
    let by_mpi = matches!(launch.launcher, Launcher::OpenMpi | Launcher::Pmi | Launcher::Slurm);
    let variable = |name: &str| std::env::var(name).ok();
    if Meeting::find(variable)?.is_none() && by_mpi && cfg!(feature = "mpi") {
        return over_mpi(launch, limit, asked);
    }
    Ok(Box::new(Lines::open(launch, &Meeting::from(variable)?, limit)?))
}

#[cfg(feature = "mpi")]
fn over_mpi(launch: Launch, limit: Duration, asked: Ending) -> Result<Box<dyn Control>, CollectiveError> {
    Ok(Box::new(crate::mpi::Mpi::start(launch, limit, asked)?))
}

#[cfg(not(feature = "mpi"))]
fn over_mpi(launch: Launch, _limit: Duration, _asked: Ending) -> Result<Box<dyn Control>, CollectiveError> {
    Err(CollectiveError::NoEngine { launch })
}

/// A sum over the GPU numbered `device` alone, which is what it was before, and how long that took: libraries, context and
/// communicator work then, as far as one GPU shows it.
///
/// # Errors
/// As [`Nccl::start`]; [`CollectiveError::Start`] for a sum that is wrong.
pub fn sum_alone(device: usize, libraries: &Libraries, floats: usize) -> Result<Duration, CollectiveError> {
    let launch = Launch { launcher: Launcher::Torch, rank: 0, world: 1, local: device };
    // Nobody calls at any port.
    let meeting = Meeting { address: "127.0.0.1".to_owned(), port: 0 };
    let meet = || Ok(Box::new(Lines::open(launch, &meeting, Duration::from_secs(1))?) as Box<dyn Control>);
    let ranks = Nccl::start(launch, meet, device, libraries)?;
    let mut values: Vec<f32> = (0..floats).map(|i| (i % 8191) as f32).collect();
    // What is made when it is first needed is made here.
    ranks.all_reduce(&mut values)?;
    let began = Instant::now();
    ranks.all_reduce(&mut values)?;
    let took = began.elapsed();
    match values.iter().enumerate().find(|(i, value)| **value != (*i % 8191) as f32) {
        None => Ok(took),
        Some((i, value)) => Err(failed(format!("a sum over one rank made {value} of {}", i % 8191))),
    }
}

/// NCCL's ranks.
pub struct Nccl {
    control: Box<dyn Control>,
    functions: Functions,
    comm: Comm,
    /// The number of its GPU on this machine.
    device: usize,
    context: *mut c_void,
    /// For what is summed where it lies.
    stream: Stream,
    staging: Mutex<Staging>,
}

impl Nccl {
    /// Connects the GPU numbered `device` of this machine with those of the ranks that `meet` finds.
    ///
    /// # Errors
    /// [`CollectiveError::Start`] for libraries or GPUs that do not work, and what `meet` fails with.
    pub fn start(
        launch: Launch,
        meet: impl FnOnce() -> Result<Box<dyn Control>, CollectiveError>,
        device: usize,
        libraries: &Libraries,
    ) -> Result<Self, CollectiveError> {
        let functions = Functions::open(libraries)?;
        let control = meet()?;
        let number = |number: usize| c_int::try_from(number).map_err(|_| failed(format!("{number} is too large")));
        let (gpu, world, rank) = (number(device)?, number(launch.world)?, number(launch.rank)?);
        let mut context = ptr::null_mut();
        // SAFETY: the driver is initialised first; `context` is written before it is used.
        unsafe {
            Functions::cuda((functions.init)(0))?;
            Functions::cuda((functions.retain)(&mut context, gpu))?;
            Functions::cuda((functions.current)(context))?;
        }
        let mut id = Id([0; 128]);
        if launch.rank == 0 {
            // SAFETY: `id` has the size of NCCL's identifier.
            functions.nccl(unsafe { (functions.unique_id)(&mut id) })?;
        }
        control.broadcast(&mut id.0, 0)?;
        let mut comm = ptr::null_mut();
        // SAFETY: every rank has the identifier of rank 0, and the context of its GPU is current.
        functions.nccl(unsafe { (functions.init_rank)(&mut comm, world, id, rank) })?;
        let mut stream = ptr::null_mut();
        // SAFETY: the context of the GPU is current; `stream` is written before it is used.
        Functions::cuda(unsafe { (functions.stream)(&mut stream, BESIDE) })?;
        let staging = Mutex::new(Staging { memory: 0, bytes: 0 });
        Ok(Self { control, functions, comm, device, context, stream, staging })
    }

    /// Device memory of at least so many bytes.
    fn room(&self, staging: &mut Staging, bytes: usize) -> Result<Device, CollectiveError> {
        if staging.bytes < bytes {
            let mut memory = 0;
            // SAFETY: what is freed was allocated here and nothing reads it any more.
            unsafe {
                if staging.bytes > 0 {
                    Functions::cuda((self.functions.free)(staging.memory))?;
                }
                staging.bytes = 0;
                Functions::cuda((self.functions.allocate)(&mut memory, bytes))?;
            }
            (staging.memory, staging.bytes) = (memory, bytes);
        }
        Ok(staging.memory)
    }
}

impl Control for Nccl {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn world(&self) -> usize {
        self.control.world()
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), CollectiveError> {
        self.control.broadcast(bytes, root)
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.control.barrier()
    }

    fn abort(&self, code: i32) {
        self.control.abort(code);
    }
}

impl Communicator for Nccl {
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        // NCCL would wait for ever: who is missing is found out here.
        self.control.barrier()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = size_of_val(values);
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the context is this GPU's; `memory` holds `bytes` bytes, `values` as many; the sum is complete after `wait`.
        unsafe {
            Functions::cuda((self.functions.current)(self.context))?;
            let memory = self.room(&mut staging, bytes)?;
            Functions::cuda((self.functions.upload)(memory, values.as_ptr().cast(), bytes))?;
            let buffer = memory as *mut c_void;
            let (count, stream) = (values.len(), ptr::null_mut());
            let code = (self.functions.all_reduce)(buffer, buffer, count, FLOAT, SUM, self.comm, stream);
            self.functions.nccl(code)?;
            Functions::cuda((self.functions.wait)())?;
            Functions::cuda((self.functions.download)(values.as_mut_ptr().cast(), memory, bytes))
        }
    }

    fn sums_on_device(&self) -> Option<usize> {
        Some(self.device)
    }

    fn all_reduce_on(&self, floats: &[OnDevice]) -> Result<(), CollectiveError> {
        self.control.barrier()?;
        let functions = &self.functions;
        // SAFETY: the context is this GPU's. Whoever made `floats` vouches for their memory until this returns, which is when all
        // that was put on the stream is done, whatever failed.
        let codes = unsafe {
            Functions::cuda((functions.current)(self.context))?;
            functions.nccl((functions.group_start)())?;
            let sum = |floats: &OnDevice| {
                let memory = floats.address() as *mut c_void;
                (functions.all_reduce)(memory, memory, floats.len(), FLOAT, SUM, self.comm, self.stream)
            };
            let summed = floats.iter().filter(|floats| floats.len() > 0).map(sum).find(|code| *code != 0);
            [summed.unwrap_or(0), (functions.group_end)(), (functions.wait_for)(self.stream)]
        };
        let [summed, ended, waited] = codes;
        functions.nccl(summed)?;
        functions.nccl(ended)?;
        Functions::cuda(waited)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        let staging = self.staging.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: nothing uses the memory or the communicator after this. What the libraries return cannot be acted on here.
        unsafe {
            let _ = (self.functions.current)(self.context);
            if staging.bytes > 0 {
                let _ = (self.functions.free)(staging.memory);
            }
            let _ = (self.functions.destroy)(self.comm);
            let _ = (self.functions.end_stream)(self.stream);
        }
    }
}
