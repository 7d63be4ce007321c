//! Operands of 16 bits.

use super::*;

#[test]
fn products_in_16_bits() {
    // bf16 keeps 8 bits, f16 11; lowered, a product is rounded before its bias is added.
    for (dtype, limits) in [(DType::BF16, [4e-3; 2]), (DType::F16, [1e-3; 2])] {
        compare_within(dtype.name(), &products_in(dtype), &BTreeMap::new(), limits);
    }
}

/// Products and attention of operands of a type, with results in f32.
fn products_in(dtype: DType) -> Graph {
    let mut graph = Graph::new("narrow", &[]);
    let narrow = |graph: &mut Graph, name: &str, shape: &[usize]| {
        let wide = graph.input(name, ty(shape)).unwrap();
        graph.cast(wide, dtype).unwrap()
    };
    let out = |graph: &mut Graph, name: &str, value: ValueId| {
        let wide = graph.cast(value, DType::F32).unwrap();
        graph.output(name, wide);
    };
    let [x, weight] = [("x", vec![2, 31, 40]), ("weight", vec![24, 40])].map(|(name, s)| narrow(&mut graph, name, &s));
    let bias = narrow(&mut graph, "bias", &[24]);
    let y = graph.push1(Op::Linear, &[x, weight, bias]).unwrap();
    out(&mut graph, "linear", y);
    let y = graph.push1(Op::MatMul { ta: true, tb: false }, &[x, x]).unwrap();
    out(&mut graph, "matmul", y);
    let clip = narrow(&mut graph, "clip", &[2, 3, 4, 6, 9]);
    let kernel = narrow(&mut graph, "kernel", &[11, 3, 2, 3, 3]);
    let y = graph.push1(Op::PatchEmbed { tubelet: 2, patch: 3 }, &[clip, kernel]).unwrap();
    out(&mut graph, "patch_embed", y);
    let [q, k, v, dy] = ["q", "k", "v", "dy"].map(|name| narrow(&mut graph, name, &[2, 2, 19, 16]));
    for (prefix, scale) in [("usual", 0.25), ("own", 0.4)] {
        let y = graph.push1(Op::Attention { scale }, &[q, k, v]).unwrap();
        out(&mut graph, &format!("{prefix} attention"), y);
        for (i, grad) in graph.push(Op::AttentionGrad { scale }, &[q, k, v, y, dy]).unwrap().into_iter().enumerate() {
            out(&mut graph, &format!("{prefix} gradient {i}"), grad);
        }
    }
    graph
}
