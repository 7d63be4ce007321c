//! Operations that other ranks take part in: what they are handed, and what comes back.

use super::RunError;
use super::params::upload;
use super::{HostTensor, Operand, PlanBackend};
use burn_backend::FloatDType;
use burn_backend::tensor::Device;
use vjepa_compiler::ir::{Node, Sizes, TensorType};
use vjepa_compiler::ops::Op;
use vjepa_lower::read_floats;

/// Sums over the ranks of a run, as its graph asks for them. All ranks run the same graph, so all ask in the same order.
pub trait Exchange: Send {
    /// Begins to sum `values`, element by element, with those of all other ranks. `bucket` tells the sums of a run apart.
    ///
    /// # Errors
    /// Why the ranks cannot go on, in words.
    fn begin(&mut self, bucket: usize, values: Vec<f32>) -> Result<(), String>;

    /// The sums of a bucket that was begun, once they are there.
    ///
    /// # Errors
    /// As [`Exchange::begin`].
    fn end(&mut self, bucket: usize) -> Result<Vec<f32>, String>;

    /// Whether floats can be summed where they lie on a device; else they travel over the host.
    fn on_device(&self) -> bool {
        false
    }

    /// As [`Exchange::begin`], of floats on a device, which the sums replace. They stay where they are, and no work of the run's
    /// reads or writes them, until the bucket has ended.
    ///
    /// # Errors
    /// As [`Exchange::begin`].
    fn begin_on(&mut self, _bucket: usize, _floats: &[Resident]) -> Result<(), String> {
        Err("nothing is summed on a device".to_owned())
    }

    /// Waits for the sums of a bucket that was begun on a device.
    ///
    /// # Errors
    /// As [`Exchange::begin`].
    fn end_on(&mut self, _bucket: usize) -> Result<(), String> {
        Err("nothing is summed on a device".to_owned())
    }
}

/// Floats of a run in the memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    address: u64,
    len: usize,
}

impl Resident {
    #[cfg(feature = "cube")]
    pub(super) fn new(address: u64, len: usize) -> Self {
        Self { address, len }
    }

    /// Where they begin.
    pub fn address(self) -> u64 {
        self.address
    }

    /// How many they are.
    pub fn count(self) -> usize {
        self.len
    }
}

/// Runs a node that sums over ranks. Without other ranks its operands are its results.
pub(super) fn run<B: PlanBackend>(
    node: &Node,
    operands: Vec<Operand<B>>,
    (types, sizes): (&[&TensorType], &Sizes),
    device: &Device<B>,
    exchange: Option<&mut (dyn Exchange + '_)>,
) -> Result<Vec<Operand<B>>, RunError> {
    let Some(exchange) = exchange else { return Ok(operands) };
    let apart = |why: String| RunError::Exchange(why);
    // What was begun is known by its first result, which its end reads.
    let of = |id: Option<&vjepa_compiler::ir::ValueId>| id.map_or(usize::MAX, |id| id.0);
    if exchange.on_device() && B::IS_DEVICE {
        return run_on_device::<B>(node, operands, device, exchange, of);
    }
    match node.op {
        Op::AllReduceDone => {
            let sums = exchange.end(of(node.inputs.first())).map_err(apart)?;
            split::<B>(sums, types, sizes, device)
        }
        Op::AllReduceStart => {
            exchange.begin(of(node.outputs.first()), joined::<B>(operands)?).map_err(apart)?;
            // Only the end reads what stands for them, and it does not look.
            let nothing = || B::float_zeros([1].into(), device, FloatDType::F32);
            Ok(types.iter().map(|_| Operand::Float(nothing())).collect())
        }
        _ => {
            let bucket = of(node.outputs.first());
            exchange.begin(bucket, joined::<B>(operands)?).map_err(apart)?;
            split::<B>(exchange.end(bucket).map_err(apart)?, types, sizes, device)
        }
    }
}

/// As [`run`], on memory that stays where it is.
fn run_on_device<B: PlanBackend>(
    node: &Node,
    operands: Vec<Operand<B>>,
    device: &Device<B>,
    exchange: &mut (dyn Exchange + '_),
    of: impl Fn(Option<&vjepa_compiler::ir::ValueId>) -> usize,
) -> Result<Vec<Operand<B>>, RunError> {
    if matches!(node.op, Op::AllReduceDone) {
        exchange.end_on(of(node.inputs.first())).map_err(RunError::Exchange)?;
        return Ok(operands);
    }
    let (mut kept, mut floats) = (Vec::with_capacity(operands.len()), Vec::with_capacity(operands.len()));
    for operand in operands {
        let Operand::Float(tensor) = operand else {
            return Err(RunError::Exchange("indices cannot be summed over ranks".to_owned()));
        };
        let lost = |why| RunError::Lost { name: "a sum over ranks".to_owned(), why };
        let (tensor, place) = B::resident(tensor).map_err(lost)?;
        kept.push(Operand::Float(tensor));
        floats.push(place);
    }
    // What computes them is done before anything else reads them.
    let lost = |error| RunError::Lost { name: "a sum over ranks".to_owned(), why: format!("{error}") };
    B::sync(device).map_err(lost)?;
    let bucket = of(node.outputs.first());
    exchange.begin_on(bucket, &floats).map_err(RunError::Exchange)?;
    if !matches!(node.op, Op::AllReduceStart) {
        exchange.end_on(bucket).map_err(RunError::Exchange)?;
    }
    Ok(kept)
}

/// All values one after the other. The operands' memory is free afterwards.
fn joined<B: PlanBackend>(operands: Vec<Operand<B>>) -> Result<Vec<f32>, RunError> {
    let mut values = Vec::new();
    for operand in operands {
        let Operand::Float(tensor) = operand else {
            return Err(RunError::Exchange("indices cannot be summed over ranks".to_owned()));
        };
        let read = read_floats::<B>(tensor);
        values.extend(read.map_err(|why| RunError::Lost { name: "a sum over ranks".to_owned(), why })?);
    }
    Ok(values)
}

/// Tensors of these types out of their values.
fn split<B: PlanBackend>(
    values: Vec<f32>,
    types: &[&TensorType],
    sizes: &Sizes,
    device: &Device<B>,
) -> Result<Vec<Operand<B>>, RunError> {
    let mut rest = values.as_slice();
    let mut results = Vec::with_capacity(types.len());
    for ty in types {
        let shape: Option<Vec<usize>> = ty.shape.iter().map(|dim| dim.eval(sizes)).collect();
        let cut = shape.and_then(|shape| Some((rest.split_at_checked(shape.iter().product())?, shape)));
        let Some(((data, after), shape)) = cut else {
            return Err(RunError::Exchange(format!("{} sums came back from the ranks, too few", values.len())));
        };
        rest = after;
        results.push(upload::<B>(HostTensor::F32 { shape, data: data.to_vec() }, device));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Cpu, Executor, Params};
    use vjepa_compiler::ir::{Dim, Graph};
    use vjepa_compiler::passes::Pipeline;

    /// Another rank with the same values, and a record of what was asked.
    #[derive(Default)]
    struct Twin {
        begun: Vec<(usize, Vec<f32>)>,
        said: Vec<String>,
        lost: bool,
    }

    impl Exchange for Twin {
        fn begin(&mut self, bucket: usize, values: Vec<f32>) -> Result<(), String> {
            self.said.push(format!("begin {}", values.len()));
            self.begun.push((bucket, values.iter().map(|value| 2.0 * value).collect()));
            Ok(())
        }

        fn end(&mut self, bucket: usize) -> Result<Vec<f32>, String> {
            if self.lost {
                return Err("rank 1 did not answer".to_owned());
            }
            let at = self.begun.iter().position(|(begun, _)| *begun == bucket).ok_or("never begun")?;
            let values = self.begun.remove(at).1;
            self.said.push(format!("end {}", values.len()));
            Ok(values)
        }
    }

    /// Two sums of gradients, `grad/a + x` and `grad/b + x·x`.
    fn graph(limit: usize, overlap: bool) -> Graph {
        let mut g = Graph::new("gradients", &[]);
        let two = || TensorType::f32([Dim::from(2usize)]);
        let x = g.input("x", two()).unwrap();
        let [a, b] = ["grad/a", "grad/b"].map(|name| g.param(name, two()).unwrap());
        let square = g.mul(x, x).unwrap();
        for (sum, gradient) in [(a, x), (b, square)] {
            let new = g.add(sum, gradient).unwrap();
            g.update(sum, new).unwrap();
        }
        Pipeline::ranks(limit, overlap).with_verify(true).run(&g).unwrap().graph
    }

    fn run(graph: &Graph, exchange: Option<&mut dyn Exchange>) -> Result<[Vec<f32>; 2], RunError> {
        let mut params = Params::<Cpu>::new(Default::default());
        for name in ["grad/a", "grad/b"] {
            params.set(name, HostTensor::f32([2], vec![10.0, 20.0]).unwrap());
        }
        let inputs = vec![("x", HostTensor::f32([2], vec![1.0, 3.0]).unwrap())];
        Executor::<Cpu>::new(graph)?.run_among(&mut params, inputs, exchange)?;
        Ok(["grad/a", "grad/b"].map(|name| params.get(name).unwrap().1))
    }

    #[test]
    fn sums_are_begun_as_they_are_made_and_ended_where_they_are_read() {
        for (limit, overlap, order) in [
            (2, true, ["begin 2", "begin 2", "end 2", "end 2"].as_slice()),
            (2, false, &["begin 2", "end 2", "begin 2", "end 2"]),
            (4, true, &["begin 4", "end 4"]),
        ] {
            let graph = graph(limit, overlap);
            let mut twin = Twin::default();
            assert_eq!(run(&graph, Some(&mut twin)).unwrap(), [vec![22.0, 46.0], vec![22.0, 58.0]]);
            assert_eq!(twin.said, order);
            // This rank alone.
            assert_eq!(run(&graph, None).unwrap(), [vec![11.0, 23.0], vec![11.0, 29.0]]);
        }
    }

    #[test]
    fn a_rank_that_is_lost_is_an_error() {
        let mut twin = Twin { lost: true, ..Twin::default() };
        let error = run(&graph(4, true), Some(&mut twin)).unwrap_err();
        assert_eq!(error.to_string(), "rank 1 did not answer");
    }
}
