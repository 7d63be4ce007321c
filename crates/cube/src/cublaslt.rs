//! Matrix products by cuBLASLt, NVIDIA's library, which is opened at run time and never linked.
//!
//! It is what CubeCL's products are to be measured against, and is asked only where `VJEPA_KERNELS` says so. It works on a stream
//! of its own, since CubeCL shows nobody its streams: events of the whole context order the two, for which the driver of CUDA
//! 12.5 is needed. Nothing waits on the host.
#![allow(unsafe_code)]

use crate::cuda::CudaRuntime;
use burn_backend::ops::FloatTensorOps as _;
use burn_backend::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cudarc::cublaslt::result::create_handle;
use cudarc::cublaslt::sys::{self as blas, cublasComputeType_t as Compute, cudaDataType_t as Element};
use cudarc::cublaslt::{Matmul, MatmulConfig, MatmulShared, Workspace};
use cudarc::driver::sys::{self as driver, CUdeviceptr, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use vjepa_compiler::ops::Op;
use vjepa_lower::{KernelError, Lowered, Lowering, Operand};

type Tensor = CubeTensor<CudaRuntime>;

/// The product of an operation, by cuBLASLt.
pub(crate) fn kernel(op: &Op) -> Option<Lowering<'_, CubeBackend<CudaRuntime>>> {
    match op {
        Op::Linear => Some(Box::new(|mut node: Lowered<'_, CubeBackend<CudaRuntime>>| {
            let (operands, bias) = node.floats_and_one()?;
            let ([x, weight], bias) = (operands.map(into_contiguous), bias.map(into_contiguous));
            let mut shape = x.meta.shape().clone();
            let [outputs, inputs] = sides(&weight)?;
            let rows = x.meta.num_elements().checked_div(inputs).unwrap_or(0);
            if let Some(last) = shape.last_mut() {
                *last = outputs;
            }
            let size = Size { batch: 1, m: rows, n: outputs, k: inputs, ta: false, tb: true };
            Ok(vec![Operand::Float(product(size, [x, weight], bias, shape)?)])
        })),
        Op::MatMul { ta, tb } => Some(Box::new(move |mut node: Lowered<'_, CubeBackend<CudaRuntime>>| {
            let (operands, addend) = node.floats_and_one()?;
            let [a, b]: [Tensor; 2] = operands.map(into_contiguous);
            let ([a0, a1], [b0, b1]) = (sides(&a)?, sides(&b)?);
            let (m, k) = if *ta { (a1, a0) } else { (a0, a1) };
            let n = if *tb { b0 } else { b1 };
            let mut shape = a.meta.shape().clone();
            let rank = shape.len();
            shape.iter_mut().skip(rank - 2).zip([m, n]).for_each(|(side, size)| *side = size);
            let batch = a.meta.num_elements().checked_div(m * k).unwrap_or(0);
            let size = Size { batch, m, n, k, ta: *ta, tb: *tb };
            let product = product(size, [a, b], None, shape)?;
            Ok(vec![Operand::Float(match addend {
                Some(addend) => CubeBackend::<CudaRuntime>::float_add(product, addend),
                None => product,
            })])
        })),
        _ => None,
    }
}

/// Looks for the library, and for the driver's events of a context.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn find(device: usize) -> Result<(), String> {
    Library::on(device).map(drop)
}

/// The last two sides.
fn sides(tensor: &Tensor) -> Result<[usize; 2], KernelError> {
    let shape = tensor.meta.shape();
    let last = shape.len().checked_sub(2).and_then(|first| shape.get(first..)?.try_into().ok());
    last.ok_or_else(|| KernelError::Shape { expected: "matrices", got: shape.to_vec() })
}

/// `c[m, n] = op(a)·op(b)`, row by row; a transposed operand is given as it is stored.
#[derive(Clone, Copy, Debug)]
struct Size {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    ta: bool,
    tb: bool,
}

impl Size {
    /// As cuBLASLt counts, column by column: what it takes for `b`ᵀ`·a`ᵀ is `c`ᵀ.
    fn config(self) -> Result<MatmulConfig, KernelError> {
        let Self { batch, m, n, k, ta, tb } = self;
        let int = |size: usize| i64::try_from(size).map_err(|_| KernelError::Size(size.to_string()));
        Ok(MatmulConfig {
            transa: tb,
            transb: ta,
            transc: false,
            m: n as u64,
            n: m as u64,
            k: k as u64,
            alpha: 1.0,
            beta: 0.0,
            lda: int(if tb { k } else { n })?,
            ldb: int(if ta { m } else { k })?,
            ldc: int(n)?,
            stride_a: Some(int(k * n)?),
            stride_b: Some(int(m * k)?),
            stride_c: Some(int(m * n)?),
            stride_bias: None,
            batch_size: Some(i32::try_from(batch).map_err(|_| KernelError::Size(batch.to_string()))?),
        })
    }
}

fn product(size: Size, [a, b]: [Tensor; 2], bias: Option<Tensor>, shape: Shape) -> Result<Tensor, KernelError> {
    let dtype = a.dtype;
    if let Some(other) = [Some(&b), bias.as_ref()].into_iter().flatten().find(|tensor| tensor.dtype != dtype) {
        let got = format!("{:?}", other.dtype);
        return Err(KernelError::DType { operand: 1, expected: "of the first operand's type", got });
    }
    let c = empty_device_contiguous_dtype(a.client.clone(), a.device.clone(), shape, dtype);
    let config = size.config()?;
    if [size.batch, size.m, size.n].contains(&0) {
        return Ok(c);
    }
    if size.k == 0 {
        return Err(KernelError::Shape { expected: "an inner side above 0", got: vec![size.m, size.n, size.k] });
    }
    let library = Library::on(a.device.index).map_err(KernelError::Library)?;
    let operands = [Some(&a), Some(&b), Some(&c), bias.as_ref()].map(|tensor| tensor.map(address).transpose());
    let [a_at, b_at, c_at, bias_at] = operands;
    let at = [a_at?.unwrap_or(0), b_at?.unwrap_or(0), c_at?.unwrap_or(0)];
    // SAFETY: the tensors are alive until the call is over, contiguous and of these sizes; what CubeCL does with their memory
    // later waits for the product.
    let sent = unsafe {
        match dtype {
            DType::F32 => library.send::<f32>(config, at, bias_at?),
            DType::BF16 => library.send::<Bf16>(config, at, bias_at?),
            DType::F16 => library.send::<F16>(config, at, bias_at?),
            other => {
                let got = format!("{other:?}");
                return Err(KernelError::DType { operand: 0, expected: "f32, bf16 or f16", got });
            }
        }
    };
    sent.map_err(KernelError::Library)?;
    Ok(c)
}

/// Where a tensor's memory begins. What has been asked of CubeCL before is in its streams when this returns.
fn address(tensor: &Tensor) -> Result<u64, KernelError> {
    let memory = tensor.client.get_resource(tensor.handle.clone());
    Ok(memory.map_err(|error| KernelError::Library(format!("{error:?}")))?.resource().ptr)
}

/// An element type that has no counterpart in Rust.
struct Bf16;
struct F16;

/// cuBLASLt on one device.
struct Library {
    handle: blas::cublasLtHandle_t,
    workspace: Workspace,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    record: OfContext,
    wait: OfContext,
}

/// `cuCtxRecordEvent` and `cuCtxWaitEvent`: an event of all streams of a context.
type OfContext = unsafe extern "C" fn(driver::CUcontext, driver::CUevent) -> CUresult;

// SAFETY: a handle of cuBLASLt may be used by several threads at a time, as NVIDIA's documentation has it.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// The one of a device, opened when it is first asked for.
    fn on(device: usize) -> Result<Arc<Self>, String> {
        static OPEN: Mutex<BTreeMap<usize, Arc<Library>>> = Mutex::new(BTreeMap::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = open.get(&device) {
            return Ok(library.clone());
        }
        let library = Arc::new(Self::open(device)?);
        open.insert(device, library.clone());
        Ok(library)
    }

    fn open(device: usize) -> Result<Self, String> {
        // SAFETY: opens libcublasLt and closes it; its initialisers run in every program that uses it.
        if !unsafe { blas::is_culib_present() } {
            return Err("cuBLASLt (libcublasLt) was not found: install it with the CUDA toolkit".to_owned());
        }
        let failed =
            |error: cudarc::driver::DriverError| format!("the driver refuses cuBLASLt a stream ({:?})", error.0);
        let context = CudaContext::new(device).map_err(failed)?;
        let stream = context.new_stream().map_err(failed)?;
        let workspace = Workspace::new(stream.clone()).map_err(failed)?;
        let handle = create_handle().map_err(|error| format!("cuBLASLt does not start ({error})"))?;
        let [record, wait] = [&b"cuCtxRecordEvent\0"[..], b"cuCtxWaitEvent\0"].map(of_context);
        Ok(Self { handle, workspace, stream, context, record: record?, wait: wait? })
    }

    /// Sends a product to the device, after all that was sent before and before all that is sent from now on.
    ///
    /// # Safety
    /// `a`, `b` and `c` are where matrices of these sizes lie in the device's memory, and `bias` has as many values as `c` has
    /// columns.
    unsafe fn send<T>(&self, config: MatmulConfig, [a, b, c]: [u64; 3], bias: Option<u64>) -> Result<(), String>
    where
        Self: Matmul<T>,
    {
        let failed =
            |error: cudarc::driver::DriverError| format!("the driver refuses a product's events ({:?})", error.0);
        self.context.bind_to_thread().map_err(failed)?;
        let before = self.context.new_event(None).map_err(failed)?;
        self.of_context(self.record, &before)?;
        self.stream.wait(&before).map_err(failed)?;
        let place = |address| Place { address, stream: &self.stream };
        // SAFETY: the caller's.
        unsafe { self.matmul(config, &place(b), &place(a), &mut place(c), bias.map(place).as_ref(), None) }
            .map_err(|error| format!("cuBLASLt refuses a product ({error})"))?;
        let after = self.stream.record_event(None).map_err(failed)?;
        self.of_context(self.wait, &after)
    }

    fn of_context(&self, call: OfContext, event: &CudaEvent) -> Result<(), String> {
        // SAFETY: both handles are alive, and the event is of this context.
        match unsafe { call(self.context.cu_ctx(), event.cu_event()) } {
            CUresult::CUDA_SUCCESS => Ok(()),
            refused => Err(format!("the driver refuses to order a product among other work ({refused:?})")),
        }
    }
}

/// A function of the driver that is younger than the oldest driver this program runs on.
fn of_context(name: &[u8]) -> Result<OfContext, String> {
    // SAFETY: the driver has been opened; the type is that of NVIDIA's header.
    let found = unsafe { driver::culib().get::<OfContext>(name).map(|function| *function) };
    found.map_err(|_| "products by cuBLASLt need a driver of CUDA 12.5 or newer".to_owned())
}

impl MatmulShared for Library {
    fn handle(&self) -> &blas::cublasLtHandle_t {
        &self.handle
    }

    fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

/// Sums are in f32, whatever the operands are; operands of f32 are TF32, as they are for every other program on a GPU.
macro_rules! element {
    ($type:ty, $element:ident, $compute:ident) => {
        impl Matmul<$type> for Library {
            fn matrix_type() -> blas::cudaDataType {
                Element::$element
            }

            fn compute_type() -> Compute {
                Compute::$compute
            }
        }
    };
}
element!(f32, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32);
element!(Bf16, CUDA_R_16BF, CUBLAS_COMPUTE_32F);
element!(F16, CUDA_R_16F, CUBLAS_COMPUTE_32F);

/// Where a matrix lies: its sizes are the product's.
struct Place<'a> {
    address: CUdeviceptr,
    stream: &'a Arc<CudaStream>,
}

impl<T> DeviceSlice<T> for Place<'_> {
    fn len(&self) -> usize {
        0
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.stream
    }
}

impl<T> DevicePtr<T> for Place<'_> {
    fn device_ptr<'a>(&'a self, stream: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.address, SyncOnDrop::record_event(&None, stream))
    }
}

impl<T> DevicePtrMut<T> for Place<'_> {
    fn device_ptr_mut<'a>(&'a mut self, stream: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.address, SyncOnDrop::record_event(&None, stream))
    }
}
