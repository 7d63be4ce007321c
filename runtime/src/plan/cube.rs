//! Plans on the back ends built on CubeCL, one implementation for all of them.

use super::back_ends::Opened;
use super::{
    Address, Call, Device, DeviceError, Executor, Kernel, Lowering, Operand, Pixels, PlanBackend, Resident, RunError,
};
use burn_backend::DType as Element;
use burn_backend::ops::{FloatTensorOps as _, IntTensorOps as _};
use burn_backend::tensor::{Device as Place, FloatTensor};
use burn_backend::{Shape, TensorData};
use vjepa_compiler::ir::{DType, Sizes, TensorType};
use vjepa_compiler::ops::Op;
use vjepa_cube::{CubeBackend, Gpu};
use vjepa_lower::Lowered;

impl<R: Gpu> PlanBackend for CubeBackend<R> {
    type Memory = ();

    fn kernel(op: &Op) -> Option<Kernel<'_, Self>> {
        let kernel = R::kernel(op)?;
        Some(Box::new(move |call| {
            let Call { operands, results, sizes, device, .. } = call;
            kernel(Lowered { operands, results, sizes, device, largest: Self::largest_buffer(device) })
        }))
    }

    fn chooses(op: &Op, operands: &[&TensorType]) -> bool {
        vjepa_cube::chooses(op, operands)
    }

    const IS_DEVICE: bool = true;

    fn lowering(op: &Op) -> Option<Lowering<'_, Self>> {
        R::lowering(op)
    }

    fn largest_buffer(device: &Place<Self>) -> u64 {
        vjepa_cube::largest_buffer::<R>(device)
    }

    /// The bytes travel, and are scaled on the device.
    fn pixels(pixels: Pixels, device: &Place<Self>, (): &mut ()) -> FloatTensor<Self> {
        let Pixels { shape, data, scaling } = pixels;
        let word = |bytes: &[u8]| {
            let mut four = [0; 4];
            four.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
            i32::from_le_bytes(four)
        };
        let words: Vec<i32> = data.chunks(4).map(word).collect();
        let scaling: Vec<f32> = scaling.into_iter().flat_map(<[f32; 2]>::from).collect();
        let (count, pairs) = (words.len(), scaling.len());
        let words = Self::int_from_data(TensorData::new(words, [count]), device);
        let scaling = Self::float_from_data(TensorData::new(scaling, [pairs]), device);
        R::pixels(words, scaling, Shape::from(shape))
    }

    fn reserved(device: &Place<Self>) -> Option<u64> {
        vjepa_cube::reserved::<R>(device)
    }

    fn resident(tensor: FloatTensor<Self>) -> Result<(FloatTensor<Self>, Resident), String> {
        let (tensor, address, len) = R::resident(tensor)?;
        Ok((tensor, Resident::new(address, len)))
    }

    fn address(operand: &Operand<Self>) -> Option<Address> {
        match operand {
            Operand::Float(tensor) | Operand::Int(tensor) => R::address(tensor),
        }
    }

    fn lay_out(device: &Place<Self>, largest: u64) -> Result<bool, String> {
        R::lay_out(device, largest)
    }

    fn unused(device: &Place<Self>) -> Option<u64> {
        let all = vjepa_cube::memory::<R>(device)?;
        Some(all.saturating_sub(vjepa_cube::reserved::<R>(device)?))
    }

    fn failure(device: &Place<Self>) -> Option<String> {
        vjepa_cube::failure::<R>(device)
    }
}

impl<R: Gpu> Opened for CubeBackend<R> {
    fn open(index: usize) -> Result<(), DeviceError> {
        Ok(R::open(index)?)
    }

    fn place(index: usize) -> Place<Self> {
        R::device(index)
    }

    fn refuse(device: Device, plan: &Executor<Self>) -> Result<(), RunError> {
        let place = R::device(device.index);
        let values = &plan.graph().values;
        let types = [DType::F32, DType::I32, DType::F16, DType::BF16]
            .into_iter()
            .filter(|dtype| values.iter().any(|value| value.ty.dtype == *dtype));
        if let Some(missing) = vjepa_cube::without::<R>(&place, types.map(element)) {
            return Err(lacking(device, missing).into());
        }
        let ours = (0..plan.graph().nodes.len()).any(|position| plan.is_by_kernel(position));
        if let Some((needed, has)) = vjepa_cube::too_few_units::<R>(&place).filter(|_| ours) {
            return Err(DeviceError::WorkGroup { device: device.to_string(), needed, has }.into());
        }
        plan.fits(&Sizes::new(), &place)
    }
}

fn element(dtype: DType) -> Element {
    match dtype {
        DType::F32 => Element::F32,
        DType::BF16 => Element::BF16,
        DType::F16 => Element::F16,
        DType::I32 => Element::I32,
    }
}

fn lacking(device: Device, missing: Element) -> DeviceError {
    let remedy = match missing {
        Element::BF16 => "use f32 (--set meta.dtype=float32, --precision f32), or --device cpu, which emulates it",
        Element::F16 => "use f32 (--precision f32), bf16 where the device has it, or --device cpu, which emulates it",
        _ => "use another device",
    };
    DeviceError::Type { device: device.to_string(), dtype: missing.name().to_owned(), remedy }
}
