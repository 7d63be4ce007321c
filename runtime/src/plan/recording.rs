//! Launches recorded once and replayed: a plan under sizes that repeat sends a device the same launches, with the same
//! operands, every time.
//!
//! A recording is bound to memory. Parameters are written over in place, so theirs stays; inputs get memory that each run is
//! copied into, and outputs are copied out of theirs. What lies between belongs to the recording for as long as it is kept,
//! and no value's memory is used again within it: the warm-up that CubeCL asks for before a recording keeps everything that
//! it allocates. So sizes are recorded when they come for the second time, as long as the device has that much memory left.

use super::outputs::Outputs;
use super::{Executor, Operand, Params, PlanBackend, RunError};
use burn_backend::tensor::Device;
use burn_backend::{BackendGraph, ExecutionError, Scalar, Shape, Slice, TensorMetadata};
use std::collections::BTreeMap;
use vjepa_compiler::ir::{Sizes, ValueId};
use vjepa_compiler::ops::Op;
use vjepa_compiler::plan::bytes_in_f32;

/// Sizes that are told apart; what comes later is launched node by node.
const MOST: usize = 64;

/// Where a tensor's memory is: two tensors of one address share it.
pub type Address = (u64, u64);

/// What has been recorded, by the sizes of the symbols.
pub(super) struct Recordings<B: PlanBackend> {
    of: BTreeMap<Sizes, Tried<B>>,
    replays: u64,
}

/// What is known of a run under some sizes.
enum Tried<B: PlanBackend> {
    /// It has been run once, so that its kernels are compiled.
    Once,
    Recorded(Recording<B>),
    /// Why it is not recorded.
    Refused(String),
}

struct Recording<B: PlanBackend> {
    launches: BackendGraph<B>,
    inputs: Vec<Fixed<B>>,
    outputs: Outputs<B>,
    /// Where the parameters were, in the graph's order.
    params: Vec<Address>,
    /// State of the store when its parameters were last looked for.
    looked: u64,
}

/// How runs of an executor were launched that records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// How many sizes have been recorded.
    pub sizes: usize,
    /// How many runs were replays.
    pub replays: u64,
    /// Sizes that cannot be recorded, and the first reason.
    pub refused: Option<(usize, String)>,
}

impl<B: PlanBackend> Default for Recordings<B> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), replays: 0 }
    }
}

impl<B: PlanBackend> Recordings<B> {
    pub(super) fn summary(&self) -> Recorded {
        let sizes = self.of.values().filter(|tried| matches!(tried, Tried::Recorded(_))).count();
        let mut why = self.of.values().filter_map(|tried| match tried {
            Tried::Refused(why) => Some(why.clone()),
            Tried::Once | Tried::Recorded(_) => None,
        });
        let refused = why.next().map(|first| (1 + why.count(), first));
        Recorded { sizes, replays: self.replays, refused }
    }
}

impl<B: PlanBackend> Executor<B> {
    /// Runs the plan on inputs that have been sent, by a recording where there is one.
    pub(super) fn run_recorded(
        &mut self,
        recordings: &mut Recordings<B>,
        params: &mut Params<B>,
        inputs: Vec<(ValueId, Operand<B>)>,
        sizes: &Sizes,
    ) -> Result<Outputs<B>, RunError> {
        let Recordings { of, replays } = recordings;
        if let Some(Tried::Recorded(recording)) = of.get_mut(sizes) {
            if self.still_holds(recording, params) {
                *replays += 1;
                return recording.replay(params.device(), inputs);
            }
            // It is of no use any more, and whoever moves parameters once does so again.
            of.insert(sizes.clone(), Tried::Refused("its parameters were moved between two runs".to_owned()));
        }
        match of.get_mut(sizes) {
            Some(tried @ Tried::Once) => {
                let (outputs, now) = self.record(params, inputs, sizes)?;
                *tried = now;
                Ok(outputs)
            }
            Some(Tried::Refused(_) | Tried::Recorded(_)) => self.walk(params, inputs, sizes, None),
            None => {
                if of.len() < MOST {
                    of.insert(sizes.clone(), Tried::Once);
                }
                self.walk(params, inputs, sizes, None)
            }
        }
    }

    /// Runs the plan, and records it if that is possible.
    fn record(
        &mut self,
        params: &mut Params<B>,
        inputs: Vec<(ValueId, Operand<B>)>,
        sizes: &Sizes,
    ) -> Result<(Outputs<B>, Tried<B>), RunError> {
        let device = params.device().clone();
        let possible = self.in_one_stream().and_then(|()| self.has_room(sizes, &device));
        let possible = possible.and_then(|()| self.addresses(params).ok_or_else(no_address));
        let prepared = possible.and_then(|before| {
            B::graph_prepare(&device).map_err(|error| first_line(&error))?;
            Ok(before)
        });
        let before = match prepared {
            Ok(before) => before,
            Err(why) => return Ok((self.walk(params, inputs, sizes, None)?, Tried::Refused(why))),
        };
        // This run is the step itself; the one that is recorded after it computes nothing. Both share their inputs' memory with
        // somebody, so that neither writes over them.
        let fixed = inputs.clone();
        let outputs = self.walk(params, inputs, sizes, None);
        let stayed = outputs.is_ok() && self.addresses(params).as_ref() == Some(&before);
        // What has been prepared is ended by a recording, be it of nothing.
        if let Err(error) = B::graph_start_capture(&device) {
            return Ok((outputs?, Tried::Refused(first_line(&error))));
        }
        let recorded = stayed.then(|| self.walk(params, fixed.clone(), sizes, None)).transpose();
        let launches = B::graph_stop_capture(&device);
        let outputs = outputs?;
        let Some(recorded) = recorded? else {
            return Ok((outputs, Tried::Refused("its update is not written over the parameters".to_owned())));
        };
        if self.addresses(params).as_ref() != Some(&before) {
            let why = "recording a run moved a parameter that running it had left in place".to_owned();
            return Err(RunError::Lost { name: self.graph().name.clone(), why });
        }
        let tried = match launches {
            Ok(launches) => {
                let looked = params.changes();
                match fixed.into_iter().map(Fixed::new).collect() {
                    Some(inputs) => {
                        Tried::Recorded(Recording { launches, inputs, outputs: recorded, params: before, looked })
                    }
                    None => Tried::Refused(no_address()),
                }
            }
            Err(error) => Tried::Refused(first_line(&error)),
        };
        Ok((outputs, tried))
    }

    /// Whether the parameters are where they were when a recording was made.
    fn still_holds(&self, recording: &mut Recording<B>, params: &Params<B>) -> bool {
        if recording.looked == params.changes() {
            return true;
        }
        let holds = self.addresses(params).as_ref() == Some(&recording.params);
        if holds {
            recording.looked = params.changes();
        }
        holds
    }

    /// Where the graph's parameters are; none where one is not there, or the device has no addresses.
    fn addresses(&self, params: &Params<B>) -> Option<Vec<Address>> {
        let name = |id: &ValueId| self.graph().source_name(*id);
        self.graph().params.iter().map(|id| B::address(params.operand(name(id)?)?)).collect()
    }

    /// Refuses products by a library that has a stream of its own: what is sent there is not in a recording.
    fn in_one_stream(&self) -> Result<(), String> {
        let mut nodes = self.graph().nodes.iter().enumerate();
        let product = |op: &Op| matches!(op, Op::Linear | Op::MatMul { .. });
        match nodes.any(|(position, node)| product(&node.op) && self.is_by_kernel(position)) {
            true => Err("cuBLASLt's products (VJEPA_KERNELS) are not in the stream that is recorded".to_owned()),
            false => Ok(()),
        }
    }

    /// Refuses what does not leave half as much again of the device's memory as the values of a run take, each in its own.
    fn has_room(&self, sizes: &Sizes, device: &Device<B>) -> Result<(), String> {
        let Some(unused) = B::unused(device) else { return Ok(()) };
        let values = self.graph().nodes.iter().flat_map(|node| &node.outputs);
        let bytes = |id: &ValueId| bytes_in_f32(&self.graph().ty(*id).shape, sizes).unwrap_or(u64::MAX);
        let needed = values.map(bytes).fold(0u64, u64::saturating_add);
        match needed.saturating_add(needed / 2) <= unused {
            true => Ok(()),
            false => Err(format!("it keeps {} MiB and a half more, of {} MiB unused", needed >> 20, unused >> 20)),
        }
    }
}

impl<B: PlanBackend> Recording<B> {
    /// Computes with new inputs; the outputs are the caller's, the next replay leaves them alone.
    fn replay(&mut self, device: &Device<B>, inputs: Vec<(ValueId, Operand<B>)>) -> Result<Outputs<B>, RunError> {
        for (fixed, (_, given)) in self.inputs.iter_mut().zip(inputs) {
            fixed.write(given)?;
        }
        // SAFETY: what the recorded launches read and write is alive: parameters are where they were (`still_holds`), inputs and
        // outputs are this recording's, and what lies between belongs to `launches`. One thread sends everything that touches
        // it, as one stream. (`crates/lab/tests/gpu.rs` compares with a run that is not recorded.)
        let sent = unsafe { B::graph_replay(device, &self.launches) };
        sent.map_err(|error| RunError::Lost { name: "a replay".to_owned(), why: first_line(&error) })?;
        let copy = |(name, shape, value): &(String, Vec<usize>, Operand<B>)| {
            let value = match value.clone() {
                Operand::Float(tensor) => Operand::Float(B::float_mul_scalar(tensor, Scalar::from(1f32))),
                Operand::Int(tensor) => Operand::Int(B::int_mul_scalar(tensor, Scalar::from(1i32))),
            };
            (name.clone(), shape.clone(), value)
        };
        Ok(self.outputs.iter().map(copy).collect())
    }
}

/// An input's memory, which nobody else holds between two runs.
struct Fixed<B: PlanBackend> {
    id: ValueId,
    address: Address,
    memory: Option<Operand<B>>,
}

impl<B: PlanBackend> Fixed<B> {
    /// None where the device has no addresses.
    fn new((id, memory): (ValueId, Operand<B>)) -> Option<Self> {
        Some(Self { id, address: B::address(&memory)?, memory: Some(memory) })
    }

    fn write(&mut self, given: Operand<B>) -> Result<(), RunError> {
        let whole = |shape: Shape| shape.iter().map(|&size| Slice::from(0..size)).collect::<Vec<_>>();
        let written = match (self.memory.take(), given) {
            (Some(Operand::Float(to)), Operand::Float(from)) => {
                let all = whole(to.shape());
                Some(Operand::Float(B::float_slice_assign(to, &all, from)))
            }
            (Some(Operand::Int(to)), Operand::Int(from)) => {
                let all = whole(to.shape());
                Some(Operand::Int(B::int_slice_assign(to, &all, from)))
            }
            (_, _) => None,
        };
        match written.filter(|written| B::address(written) == Some(self.address)) {
            Some(written) => {
                self.memory = Some(written);
                Ok(())
            }
            None => {
                let why = "the memory that recorded launches read it from was not written over".to_owned();
                Err(RunError::Lost { name: format!("input {}", self.id.0), why })
            }
        }
    }
}

fn no_address() -> String {
    "memory of this device has no address".to_owned()
}

/// What a device's library says, without the traces below.
fn first_line(error: &ExecutionError) -> String {
    let said = error.to_string();
    said.lines().next().unwrap_or_default().trim().to_owned()
}
