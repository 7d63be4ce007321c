//! Random graphs on the executor against the interpreter: whatever the plan frees, overwrites and recycles, results are
//! those of a computation that does nothing of the kind.
#![cfg(feature = "burn")]

use std::collections::BTreeMap;
use vjepa_compiler::interp::{self, Tensor};
use vjepa_compiler::ir::{Dim, Graph, Sizes, TensorType, ValueId};
use vjepa_compiler::ops::{Binary, Op, Unary};
use vjepa_compiler::serialize::{Artifact, Record, decode, encode};
use vjepa_runtime::plan::{Cpu, Executor, HostTensor, Params};

/// A small random number generator (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

fn ty(shape: &[usize]) -> TensorType {
    TensorType::f32(shape.iter().map(|n| Dim::from(*n)))
}

fn shape(graph: &Graph, id: ValueId) -> Vec<usize> {
    graph.ty(id).shape.iter().map(|dim| dim.eval(&Sizes::new()).unwrap()).collect()
}

/// An operation with operands that often fit. Values stay moderate: nothing but a contraction makes them grow, and that
/// is followed by a tanh now and then.
fn propose(rng: &mut Rng, graph: &Graph) -> (Op, Vec<ValueId>) {
    let any = |rng: &mut Rng| ValueId(rng.below(graph.values.len()));
    let x = any(rng);
    let alike: Vec<ValueId> = (0..graph.values.len()).map(ValueId).filter(|id| graph.ty(*id) == graph.ty(x)).collect();
    let y = rng.pick(&alike);
    let [weight, scale, shift] = ["weight", "scale", "shift"].map(|name| graph.find(name).unwrap());
    let dims = shape(graph, x);
    let axis = rng.below(dims.len());
    let whole = dims.iter().product::<usize>();
    match rng.below(18) {
        0 => (Op::Unary(rng.pick(&[Unary::Neg, Unary::Abs])), vec![x]),
        1 => (Op::Unary(rng.pick(&[Unary::Tanh, Unary::Gelu])), vec![x]),
        2 | 3 => (Op::Binary(rng.pick(&[Binary::Add, Binary::Sub, Binary::Mul])), vec![x, y]),
        4 => (Op::Binary(Binary::Add), vec![x, rng.pick(&[scale, shift])]),
        5 => (rng.pick(&[Op::AddScalar(0.5.into()), Op::MulScalar(0.25.into())]), vec![x]),
        6 => (Op::Softmax, vec![x]),
        7 => (Op::SoftmaxGrad, vec![x, y]),
        8 => (Op::GeluGrad, vec![x, y]),
        9 => (Op::LayerNorm { eps: 0.1 }, vec![x, scale, shift]),
        10 => (Op::LayerNormGrad { eps: 0.1 }, vec![x, y, scale]),
        11 => (Op::Linear, vec![x, weight, shift]),
        12 => (Op::MatMul { ta: rng.below(2) == 0, tb: rng.below(2) == 0 }, vec![x, y]),
        13 => {
            let shapes = [vec![whole], vec![1, whole], vec![whole / 4, 4], dims.clone()];
            (Op::Reshape { shape: rng.pick(&shapes).into_iter().map(Dim::from).collect() }, vec![x])
        }
        14 => (Op::Permute { axes: (0..dims.len()).rev().collect() }, vec![x]),
        15 => (Op::Slice { axis, start: Dim::default(), end: Dim::from(dims[axis].div_ceil(2)) }, vec![x]),
        16 => (Op::Concat { axis }, vec![x, y]),
        _ => (rng.pick(&[Op::Sum { axes: vec![axis] }, Op::Mean { axes: vec![axis] }]), vec![x]),
    }
}

/// Up to 40 nodes over inputs and parameters of width 4, some outputs, and an update where one fits.
fn random(seed: u64) -> Graph {
    let mut rng = Rng(seed);
    let mut graph = Graph::new("random", &[]);
    for (name, dims) in [("a", vec![3, 4]), ("b", vec![2, 3, 4])] {
        graph.input(name, ty(&dims)).unwrap();
    }
    for (name, dims) in [("weight", vec![4, 4]), ("scale", vec![4]), ("shift", vec![4])] {
        graph.param(name, ty(&dims)).unwrap();
    }
    let steps = 10 + rng.below(30);
    for _ in 0..400 {
        let (op, operands) = propose(&mut rng, &graph);
        let (values, nodes) = (graph.values.len(), graph.nodes.len());
        if nodes < steps
            && let Ok(results) = graph.push(op, &operands)
            && results.iter().any(|id| shape(&graph, *id).iter().product::<usize>() > 2000)
        {
            graph.values.truncate(values);
            graph.nodes.truncate(nodes);
        }
    }
    let results: Vec<ValueId> = graph.nodes.iter().flat_map(|node| node.outputs.clone()).collect();
    for i in 0..3 {
        let value = rng.pick(&results);
        graph.output(&format!("y{i}"), value);
    }
    for name in ["weight", "scale"] {
        let param = graph.find(name).unwrap();
        let new: Vec<ValueId> = results.iter().copied().filter(|id| graph.ty(*id) == graph.ty(param)).collect();
        if !new.is_empty() {
            graph.update(param, rng.pick(&new)).unwrap();
        }
    }
    graph
}

type Sources = BTreeMap<String, (Vec<usize>, Vec<f32>)>;
type Results = BTreeMap<String, Vec<f32>>;

/// Outputs and new parameters of one run from the given state.
fn execute(executor: &mut Executor<Cpu>, sources: &Sources) -> Results {
    let graph = executor.graph().clone();
    let mut params = Params::<Cpu>::new(Default::default());
    let tensor = |name: &str| {
        let (shape, data) = sources[name].clone();
        HostTensor::f32(shape, data).unwrap()
    };
    for id in &graph.params {
        let name = graph.source_name(*id).unwrap();
        params.set(name, tensor(name));
    }
    let inputs = graph.inputs.iter().map(|id| graph.source_name(*id).unwrap());
    let outputs = executor.run(&mut params, inputs.map(|name| (name, tensor(name))).collect()).unwrap();
    let mut results: Results = outputs.into_iter().map(|(name, tensor)| (name, tensor.into_floats())).collect();
    for id in &graph.params {
        let name = graph.source_name(*id).unwrap();
        results.insert(name.to_owned(), params.get(name).unwrap().1);
    }
    results
}

fn interpret(graph: &Graph, sources: &Sources) -> Results {
    let all = sources.iter().map(|(name, (shape, data))| (name.clone(), Tensor::f32(shape.clone(), data.clone())));
    let found = interp::run(graph, &Sizes::new(), &all.collect()).unwrap();
    let params = graph.params.iter().map(|id| graph.source_name(*id).unwrap());
    let kept = params.map(|name| (name.to_owned(), sources[name].1.clone()));
    let computed = found.outputs.iter().chain(&found.updates);
    kept.chain(computed.map(|(name, tensor)| (name.clone(), tensor.as_f32().unwrap().to_vec()))).collect()
}

#[test]
fn random_graphs_compute_what_the_interpreter_does() {
    let mut compared = 0;
    for seed in 0..400 {
        let graph = random(seed);
        let mut rng = Rng(seed ^ 0xabcd);
        let names = graph.inputs.iter().chain(&graph.params);
        let sources: Sources = names
            .map(|id| {
                let shape = shape(&graph, *id);
                let data = rng.values(shape.iter().product());
                (graph.source_name(*id).unwrap().to_owned(), (shape, data))
            })
            .collect();
        let expected = interpret(&graph, &sources);
        let mut executor = Executor::<Cpu>::new(&graph).unwrap();
        let first = execute(&mut executor, &sources);
        assert_eq!(first.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, values) in &expected {
            // Numbers that ran away compare nothing.
            let size = values.iter().fold(1.0f32, |most, x| most.max(x.abs()));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * size;
            if size.is_finite() && size < 1e4 {
                assert!(values.iter().zip(&first[name]).all(close), "seed {seed}, {name}\n{graph}");
                compared += 1;
            }
        }
        let bits = |results: &Results| -> Vec<u32> { results.values().flatten().map(|x| x.to_bits()).collect() };
        // Buffers of the first run are used again in the second.
        assert_eq!(bits(&execute(&mut executor, &sources)), bits(&first), "seed {seed}, second run\n{graph}");
        let lowered = Executor::<Cpu>::lower(&graph).unwrap();
        let file = decode(&encode(&Artifact::new(&lowered, Record::new()).unwrap())).unwrap();
        let mut loaded = Executor::<Cpu>::from_plan(file.graph, file.plan).unwrap();
        assert_eq!(bits(&execute(&mut loaded, &sources)), bits(&first), "seed {seed}, from a file\n{graph}");
    }
    assert!(compared > 800, "only {compared} results were compared");
}
