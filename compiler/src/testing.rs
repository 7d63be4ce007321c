//! Shared by the unit tests: random small graphs, random tensors, finite differences.

use crate::grad::differentiate;
use crate::interp::{Array, run_arrays};
use crate::ir::{DType, Dim, Graph, Sizes, TensorType, ValueId};
use crate::ops::{Binary, Op, Unary};
use crate::verify::verify;
use std::collections::BTreeMap;

/// A small random number generator (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// In −1 .. 1.
    pub fn float(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// A graph and what it is run on.
pub struct Case {
    pub graph: Graph,
    pub sizes: Sizes,
    pub sources: BTreeMap<String, Array>,
}

/// `N`, `4`, ... as dimensions.
pub fn dims(text: &str) -> Vec<Dim> {
    let dim = |word: &str| word.parse::<usize>().map_or_else(|_| Dim::symbol(word), Dim::from);
    text.split_whitespace().map(dim).collect()
}

pub fn ty(text: &str) -> TensorType {
    TensorType::f32(dims(text))
}

pub fn sizes() -> Sizes {
    Sizes::from([("B".to_owned(), 2), ("N".to_owned(), 3)])
}

/// Random sources for every input and parameter; indices are tokens of `N`.
pub fn random_sources(graph: &Graph, sizes: &Sizes, rng: &mut Rng) -> BTreeMap<String, Array> {
    let sources = graph.inputs.iter().chain(&graph.params);
    sources
        .map(|id| {
            let ty = graph.ty(*id);
            let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.eval(sizes).unwrap()).collect();
            let tokens = sizes["N"];
            let draw = |_| if ty.dtype == DType::I32 { rng.below(tokens) as f64 } else { rng.float() };
            (graph.source_name(*id).unwrap().to_owned(), Array::from_fn(&shape, draw))
        })
        .collect()
}

/// A verified graph of up to 25 nodes with all kinds of operations, some outputs and perhaps an update.
pub fn random_graph(seed: u64) -> Case {
    random(seed, false)
}

/// As [`random_graph`], but twice differentiable everywhere and with bounded values.
pub fn random_smooth_graph(seed: u64) -> Case {
    random(seed, true)
}

fn random(seed: u64, smooth: bool) -> Case {
    let mut rng = Rng(seed);
    let mut graph = Graph::new("random", &["B", "N"]);
    for (name, shape) in [("x", "B N 4"), ("q", "B 2 N 2"), ("clip", "B 1 2 4 4")] {
        graph.input(name, ty(shape)).unwrap();
    }
    graph.input("index", TensorType::new(DType::I32, dims("B 2"))).unwrap();
    for (name, shape) in [("w", "4 4"), ("b", "4"), ("pos", "1 N 4"), ("kernel", "4 1 2 2 2"), ("rate", "")] {
        graph.param(name, ty(shape)).unwrap();
    }
    let steps = 5 + rng.below(20);
    let mut tries = 0;
    // What is computed of indices alone is nothing to look at.
    let floats =
        |graph: &Graph| graph.nodes.iter().flat_map(|node| &node.outputs).any(|id| graph.ty(*id).dtype.is_float());
    while (graph.nodes.len() < steps || !floats(&graph)) && tries < 2000 {
        tries += 1;
        let op = propose(&mut rng, &graph, smooth);
        let inputs = operands(&mut rng, &graph, &op);
        let (values, nodes) = (graph.values.len(), graph.nodes.len());
        if inputs.first().is_some_and(|x| out_of_range(&graph, &op, *x)) {
            continue;
        }
        let large = |graph: &Graph, id: &ValueId| {
            graph.ty(*id).elements().eval(&sizes()).is_none_or(|n| n == 0 || n > 2000) || graph.ty(*id).rank() > 6
        };
        if let Ok(results) = graph.push(op, &inputs)
            && results.iter().any(|id| large(&graph, id))
        {
            graph.values.truncate(values);
            graph.nodes.truncate(nodes);
        }
    }
    finish(graph, &mut rng)
}

/// True when the operation would fail on the numbers of [`sizes`]: a type cannot say that.
fn out_of_range(graph: &Graph, op: &Op, x: ValueId) -> bool {
    let size = |axis: usize| graph.ty(x).shape.get(axis).cloned().unwrap_or_default();
    match op {
        Op::Slice { axis, end, .. } => (&size(*axis) - end).eval(&sizes()).is_none(),
        Op::GatherTokens => size(1) != Dim::symbol("N"),
        _ => false,
    }
}

fn finish(mut graph: Graph, rng: &mut Rng) -> Case {
    let results = graph.nodes.iter().flat_map(|node| node.outputs.clone());
    let floats: Vec<ValueId> = results.filter(|id| graph.ty(*id).dtype.is_float()).collect();
    for name in ["y", "z"] {
        let value = rng.pick(&floats);
        graph.output(name, value);
    }
    graph.output("last", *floats.last().unwrap());
    let w = graph.find("w").unwrap();
    if let Some(new) = (0..graph.values.len()).rev().map(ValueId).find(|id| *id != w && graph.ty(*id) == graph.ty(w)) {
        graph.update(w, new).unwrap();
    }
    verify(&graph).unwrap();
    let sources = random_sources(&graph, &sizes(), rng);
    Case { graph, sizes: sizes(), sources }
}

/// An operation with random attributes, tailored to a random value so that it often fits.
fn propose(rng: &mut Rng, graph: &Graph, smooth: bool) -> Op {
    let x = graph.ty(ValueId(rng.below(graph.values.len()))).clone();
    let axis = rng.below(x.rank());
    let smooth_unary = [Unary::Neg, Unary::Tanh, Unary::Sin, Unary::Cos, Unary::Erf, Unary::Gelu];
    // Powers of two, so that passes which multiply them out change no bit.
    let c = rng.pick(&[0.0, 1.0, 0.5, -1.0, -0.25]);
    match rng.below(24) {
        0 if smooth => Op::Unary(rng.pick(&smooth_unary)),
        0 => Op::Unary(rng.pick(&Unary::ALL)),
        1 | 2 if smooth => Op::Binary(rng.pick(&[Binary::Add, Binary::Sub, Binary::Mul])),
        1 | 2 => Op::Binary(rng.pick(&Binary::ALL)),
        3 => Op::AddScalar(c.into()),
        4 => Op::MulScalar(c.into()),
        5 if smooth => Op::PowScalar(2.0),
        5 => Op::PowScalar(rng.pick(&[0.0, 1.0, 2.0, -0.5])),
        // Backward operations have no gradient rule.
        6 if smooth => rng.pick(&[Op::Softmax, Op::LogSoftmax]),
        6 => rng.pick(&[
            Op::GeluGrad,
            Op::GeluWithGrad,
            Op::BiasGeluGrad { result: rng.0.is_multiple_of(2) },
            Op::SoftmaxGrad,
            Op::LayerNormGrad { eps: 0.5 },
            Op::AttentionGrad { scale: 0.5 },
        ]),
        7 if smooth => Op::Softmax,
        7 => Op::Cast(rng.pick(&[DType::F32, DType::BF16])),
        8 => Op::Sum { axes: vec![axis] },
        9 => Op::Mean { axes: (0..=axis).collect() },
        10 => rng.pick(&[Op::Softmax, Op::LogSoftmax, Op::SquaredNorm]),
        11 if rng.below(4) == 0 => Op::Iota { size: x.shape.get(axis).cloned().unwrap_or_default() },
        11 => Op::Full { value: c.into(), ty: TensorType::f32(x.shape) },
        12 => Op::Reshape { shape: rng.pick(&[vec![x.elements()], x.shape.clone(), dims("B N 4"), dims("B 2 N 2")]) },
        13 => {
            let mut axes: Vec<usize> = (0..x.rank()).collect();
            if rng.below(3) > 0 {
                axes.reverse();
            }
            Op::Permute { axes }
        }
        14 => Op::Broadcast {
            shape: x.shape.iter().map(|d| if d.is_one() { Dim::symbol("B") } else { d.clone() }).collect(),
        },
        15 => Op::Slice { axis, start: Dim::default(), end: x.shape.get(axis).cloned().unwrap_or_default() },
        16 => Op::Slice { axis, start: rng.pick(&dims("0 1")), end: rng.pick(&dims("1 2")) },
        17 => Op::Pad { axis, before: rng.pick(&dims("0 1")), after: rng.pick(&dims("0 1")) },
        18 => Op::Concat { axis },
        19 => rng.pick(&[Op::GatherTokens, Op::GatherTokens, Op::ScatterTokens { tokens: Dim::symbol("N") }]),
        20 => rng.pick(&[Op::Tubelets { tubelet: 2, patch: 2 }, Op::PatchEmbed { tubelet: 2, patch: 2 }]),
        21 => rng.pick(&[Op::Linear, Op::MatMul { ta: rng.0.is_multiple_of(2), tb: rng.0.is_multiple_of(3) }]),
        22 if !smooth && rng.below(4) == 0 => Op::BiasGelu,
        22 => rng.pick(&[Op::LayerNorm { eps: 0.5 }, Op::Attention { scale: 0.5 }]),
        _ if smooth => Op::Unary(Unary::Gelu),
        _ => rng.pick(&[Op::Ema, Op::AdamW { beta1: 0.5, beta2: 0.25, eps: 0.5 }, Op::AllReduce]),
    }
}

/// Random operands; where the operation wants a particular shape, values of that shape.
fn operands(rng: &mut Rng, graph: &Graph, op: &Op) -> Vec<ValueId> {
    let any = |rng: &mut Rng| ValueId(rng.below(graph.values.len()));
    let x = any(rng);
    let named = |name: &str| graph.find(name).unwrap();
    let alike = |rng: &mut Rng| {
        let same: Vec<ValueId> =
            (0..graph.values.len()).map(ValueId).filter(|id| graph.ty(*id) == graph.ty(x)).collect();
        rng.pick(&same)
    };
    match op {
        Op::Full { .. } | Op::Iota { .. } => Vec::new(),
        Op::MatMul { .. } if rng.below(2) == 0 => vec![x, alike(rng), any(rng)],
        Op::Binary(_) if rng.below(2) == 0 => vec![x, any(rng)],
        Op::Binary(_) | Op::GeluGrad | Op::GeluWithGrad | Op::SoftmaxGrad => vec![x, alike(rng)],
        Op::BiasGelu => vec![x, named("b")],
        Op::BiasGeluGrad { .. } => vec![x, named("b"), alike(rng)],
        Op::Concat { .. } | Op::MatMul { .. } => vec![x, alike(rng)],
        Op::AllReduce => vec![x, any(rng)],
        Op::GatherTokens | Op::ScatterTokens { .. } => vec![x, named("index")],
        Op::PatchEmbed { .. } => vec![x, named("kernel"), named("b")],
        Op::Linear | Op::LayerNorm { .. } if rng.below(4) == 0 => {
            vec![x, named("w"), named("b")][..if *op == Op::Linear { 2 } else { 1 }].to_vec()
        }
        Op::Linear => vec![x, named("w"), named("b")],
        Op::LayerNorm { .. } => vec![x, named("b"), named("b")],
        Op::LayerNormGrad { .. } => vec![x, alike(rng), named("b")],
        Op::Attention { .. } => vec![x, alike(rng), alike(rng)],
        Op::AttentionGrad { .. } => vec![x, alike(rng), alike(rng), alike(rng), alike(rng)],
        Op::Ema => vec![x, alike(rng), named("rate")],
        Op::AdamW { .. } => {
            let rate = named("rate");
            vec![x, alike(rng), alike(rng), alike(rng), rate, rate, rate, rate, rate]
        }
        _ => vec![x],
    }
}

/// The graph with the gradients of its output `loss` as outputs `d NAME`.
pub fn with_gradients(mut graph: Graph, of: &[&str]) -> Graph {
    let loss = graph.find_output("loss").unwrap();
    let wrt: Vec<ValueId> = of.iter().map(|name| graph.find(name).unwrap()).collect();
    for (name, gradient) in of.iter().zip(differentiate(&mut graph, loss, &wrt).unwrap()) {
        graph.output(&format!("d {name}"), gradient);
    }
    verify(&graph).unwrap();
    graph
}

/// Outputs and updates by name, computed in `f64` without rounding.
pub fn exact(case: &Case) -> BTreeMap<String, Array> {
    roots_of(&case.graph, &case.sizes, &case.sources)
}

pub fn roots_of(graph: &Graph, sizes: &Sizes, sources: &BTreeMap<String, Array>) -> BTreeMap<String, Array> {
    let values = run_arrays(graph, sizes, sources.clone(), false).unwrap();
    let outputs = graph.outputs.iter().map(|(name, id)| (name.clone(), *id));
    let updates = graph.updates.iter().map(|(p, id)| (format!("update {}", graph.source_name(*p).unwrap()), *id));
    outputs.chain(updates).map(|(name, id)| (name, values[id.0].clone().unwrap())).collect()
}

/// Panics with the first element where two sets of results differ by more than `tolerance`, relative above 1.
pub fn assert_close(a: &BTreeMap<String, Array>, b: &BTreeMap<String, Array>, tolerance: f64) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, a) in a {
        let b = &b[name];
        assert_eq!(a.shape, b.shape, "{name}");
        for (i, (x, y)) in a.data.iter().zip(&b.data).enumerate() {
            let same = x == y || (x.is_nan() && y.is_nan());
            let close = (x - y).abs() <= tolerance * (1.0 + x.abs().max(y.abs()));
            assert!(same || close, "{name}[{i}]: {x} and {y}");
        }
    }
}

/// As [`assert_close`] for a decomposed graph, unless it overflowed: softmaxes in parts are not shifted by the maximum.
pub fn assert_close_unless_overflowed(whole: &BTreeMap<String, Array>, parts: &BTreeMap<String, Array>) {
    if parts.values().flat_map(|array| &array.data).all(|x| x.is_finite()) {
        assert_close(whole, parts, 1e-6);
    }
}

/// The loss `Σ weight·y` with fixed irregular weights, appended.
pub fn weighted_sum(graph: &mut Graph, y: ValueId) -> ValueId {
    let scaled = graph.mul_scalar(y, 0.7).unwrap();
    let wave = graph.unary(Unary::Tanh, scaled).unwrap();
    let mixed = graph.mul(wave, y).unwrap();
    let both = graph.add(mixed, y).unwrap();
    graph.sum_to(both, &[]).unwrap()
}

/// Compares the gradient of output `loss` with respect to every float source with central differences.
pub fn check_gradients(case: &Case, rng: &mut Rng) {
    let graph = &case.graph;
    let sources: Vec<ValueId> = graph.inputs.iter().chain(&graph.params).copied().collect();
    let wrt: Vec<ValueId> = sources.into_iter().filter(|id| graph.ty(*id).dtype.is_float()).collect();
    let names: Vec<String> = wrt.iter().map(|id| graph.source_name(*id).unwrap().to_owned()).collect();
    let graph = with_gradients(graph.clone(), &names.iter().map(String::as_str).collect::<Vec<_>>());
    for (id, name) in wrt.iter().zip(&names) {
        assert_eq!(graph.ty(*id), graph.ty(graph.find_output(&format!("d {name}")).unwrap()));
    }
    let results = roots_of(&graph, &case.sizes, &case.sources);
    for id in &wrt {
        let name = graph.source_name(*id).unwrap();
        let gradient = &results[&format!("d {name}")];
        for _ in 0..6 {
            let i = rng.below(gradient.data.len());
            let step = 1e-5;
            let at = |offset: f64| {
                let mut sources = case.sources.clone();
                sources.get_mut(name).unwrap().data[i] += offset;
                roots_of(&case.graph, &case.sizes, &sources)["loss"].data[0]
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let error = (slope - gradient.data[i]).abs();
            assert!(
                error <= 1e-5 * (1.0 + slope.abs()),
                "d {name}[{i}]: {} but differences say {slope}\n{graph}",
                gradient.data[i]
            );
        }
    }
}
