//! Operations that read and write 16 bits, as between products of a step in bf16: what a kernel rounds is what the interpreter
//! rounds.

use super::*;

/// Results are rounded once, so a kernel in f32 differs from the interpreter where the two are on either side of a rounding.
/// Lowered, the parts of an operation on 16 bits are rounded as well, and small differences of large values are coarse.
const LIMITS: [(DType, [f64; 2]); 2] = [(DType::BF16, [1e-3, 0.4]), (DType::F16, [2e-4, 0.1])];

/// A graph of one operation, whose operands are inputs of these shapes in the type or, where `wide`, in f32.
fn one(op: &Op, operands: &[(&[usize], bool)], dtype: DType) -> Graph {
    let mut graph = Graph::new("narrow", &[]);
    let mut ids = Vec::new();
    for (i, (shape, wide)) in operands.iter().enumerate() {
        let x = graph.input(&format!("x{i}"), ty(shape)).unwrap();
        ids.push(if *wide { x } else { graph.cast(x, dtype).unwrap() });
    }
    for (i, result) in graph.push(op.clone(), &ids).unwrap().into_iter().enumerate() {
        let result = graph.cast(result, DType::F32).unwrap();
        graph.output(&format!("y{i}"), result);
    }
    graph
}

fn check_narrow(op: impl Fn(DType) -> Op, operands: &[(&[usize], bool)]) {
    for (dtype, limits) in LIMITS {
        let op = op(dtype);
        // The CPU has no kernels for some of them, and rounds their parts.
        let limits = if devices()[0].is_cpu() { [limits[1]; 2] } else { limits };
        let name = format!("{} {operands:?} {}", op.name(), dtype.name());
        compare_within(&name, &one(&op, operands, dtype), &BTreeMap::new(), limits);
    }
}

#[test]
fn activations() {
    // A single value, an odd number, and several shares of a bias's gradient.
    for shape in [vec![1, 1], vec![3, 31, 17], vec![257, 33]] {
        let (x, width): (&[usize], _) = (&shape, [shape[shape.len() - 1]]);
        check_narrow(|_| Op::Unary(Unary::Gelu), &[(x, false)]);
        check_narrow(|_| Op::GeluGrad, &[(x, false); 2]);
        check_narrow(|_| Op::GeluWithGrad, &[(x, false); 2]);
        for wide in [false, true] {
            check_narrow(|_| Op::BiasGelu, &[(x, false), (&width, wide)]);
            for result in [false, true] {
                check_narrow(|_| Op::BiasGeluGrad { result }, &[(x, false), (&width, wide), (x, false)]);
            }
        }
        check_narrow(|_| Op::AddWidened, &[(x, true), (x, false)]);
    }
}

#[test]
fn norms() {
    let eps = 1e-3;
    for shape in [vec![1, 3], vec![3, 31, 17], vec![131, 301]] {
        let (x, width): (&[usize], _) = (&shape, [shape[shape.len() - 1]]);
        for affine in [false, true] {
            let operands = [(x, true), (&width[..], true), (&width[..], true)];
            check_narrow(|to| Op::NarrowLayerNorm { eps, to }, &operands[..if affine { 3 } else { 1 }]);
            let operands = [(x, false), (&width[..], false), (&width[..], false)];
            check_narrow(|_| Op::LayerNorm { eps }, &operands[..if affine { 3 } else { 1 }]);
            let operands = [(x, true), (x, false), (&width[..], true)];
            check_narrow(|_| Op::LayerNormGrad { eps }, &operands[..if affine { 3 } else { 2 }]);
            let operands = [(x, false), (x, false), (&width[..], false)];
            check_narrow(|_| Op::LayerNormGrad { eps }, &operands[..if affine { 3 } else { 2 }]);
        }
    }
}

/// Over rows, turned and not, with the sums kept and computed again.
#[test]
fn attention_over_rows() {
    let [heads, width, rows] = [2, 16, 2 * 5 + 19];
    let parts = || [2usize, 5, 1, 19].map(Dim::from).to_vec();
    let columns = heads * width;
    for tables in [false, true] {
        for sums in [false, true] {
            for (dtype, _) in LIMITS {
                let mut graph = Graph::new("rows", &[]);
                let narrow = |graph: &mut Graph, name: &str, columns: usize| {
                    let x = graph.input(name, ty(&[rows, columns])).unwrap();
                    graph.cast(x, dtype).unwrap()
                };
                let [qkv, dy] = [("qkv", 3 * columns), ("dy", columns)].map(|(n, c)| narrow(&mut graph, n, c));
                let angles: Vec<ValueId> = [("t0", [2, 5]), ("t1", [1, 19])]
                    .into_iter()
                    .filter(|_| tables)
                    .map(|(name, [clips, tokens])| {
                        let table = graph.input(name, ty(&[clips, tokens, 2 * width])).unwrap();
                        graph.cast(table, dtype).unwrap()
                    })
                    .collect();
                let (scale, forward) = (0.3, [&[qkv], angles.as_slice()].concat());
                let op = Op::PackedAttention { heads, scale, parts: parts(), sums };
                let results = graph.push(op, &forward).unwrap();
                let operands = [&[qkv, results[0], dy], &results[1..], angles.as_slice()].concat();
                let op = Op::PackedAttentionGrad { heads, scale, parts: parts(), sums };
                let gradient = graph.push(op, &operands).unwrap();
                for (i, value) in results.into_iter().chain(gradient).enumerate() {
                    let wide = graph.cast(value, DType::F32).unwrap();
                    graph.output(&format!("y{i}"), wide);
                }
                // Results are rounded before the gradient reads them.
                let limits = if dtype == DType::BF16 { [8e-3, 2e-2] } else { [1e-3, 4e-3] };
                let name = format!("rows in {}, tables {tables}, sums {sums}", dtype.name());
                compare_within(&name, &graph, &BTreeMap::new(), limits);
            }
        }
    }
}
