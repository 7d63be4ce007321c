//! Attention, forward and backward, of heads and of rows as a linear layer makes them.

use super::*;

#[test]
fn attention_in_blocks() {
    // The CPU takes 2 to 32 queries and 64 keys at a time, a GPU at most 32 of each, fewer where heads are wide: below, exactly,
    // just above, and more than one.
    for [rows, keys, width] in
        [[1, 1, 8], [32, 64, 16], [33, 65, 24], [131, 131, 5], [20, 300, 4], [40, 17, 64], [17, 33, 88]]
    {
        let (q, k): (&[usize], &[usize]) = (&[2, 3, rows, width], &[2, 3, keys, width]);
        let scale = 1.0 / (width as f64).sqrt();
        both(&Op::Attention { scale }, &[q, k, k]);
    }
}

#[test]
fn attention_backward() {
    for [rows, keys, width] in [[3, 5, 4], [129, 129, 8], [100, 70, 6], [33, 40, 64], [20, 17, 88]] {
        let (q, k): (&[usize], &[usize]) = (&[1, 2, rows, width], &[1, 2, keys, width]);
        let scale = 1.0 / (width as f64).sqrt();
        // y must be the forward's result: built in the graph, not an input.
        let mut graph = Graph::new("kernel", &[]);
        let shapes = [("q", q), ("k", k), ("v", k), ("dy", q)];
        let [q, k, v, dy] = shapes.map(|(name, shape)| graph.input(name, ty(shape)).unwrap());
        let y = graph.push1(Op::Attention { scale }, &[q, k, v]).unwrap();
        let grads = graph.push(Op::AttentionGrad { scale }, &[q, k, v, y, dy]).unwrap();
        for (name, grad) in ["dq", "dk", "dv"].iter().zip(grads) {
            graph.output(name, grad);
        }
        compare(&format!("attention_grad {rows}x{keys}x{width}"), &graph, &BTreeMap::new());
    }
}

#[test]
fn packed_attention() {
    // Clips of several lengths below each other, an empty part, one row, more rows than a block.
    for (parts, heads, width) in
        [(vec![2, 7, 3, 5], 2, 4), (vec![1, 1], 3, 5), (vec![2, 0, 1, 9], 1, 8), (vec![1, 131, 2, 33], 2, 16)]
    {
        let rows: usize = parts.chunks(2).map(|part| part[0] * part[1]).sum();
        let parts: Vec<Dim> = parts.into_iter().map(Dim::from).collect();
        let scale = 1.0 / (width as f64).sqrt();
        both(&Op::PackedAttention { heads, scale, parts: parts.clone(), sums: false }, &[&[rows, 3 * heads * width]]);
        let mut graph = Graph::new("kernel", &[]);
        let qkv = graph.input("qkv", ty(&[rows, 3 * heads * width])).unwrap();
        let turned = graph.input("dy", ty(&[heads * width, rows])).unwrap();
        let dy = graph.push1(Op::Permute { axes: vec![1, 0] }, &[turned]).unwrap();
        let y = graph.push1(Op::PackedAttention { heads, scale, parts: parts.clone(), sums: false }, &[qkv]).unwrap();
        let dqkv = graph.push1(Op::PackedAttentionGrad { heads, scale, parts, sums: false }, &[qkv, y, dy]).unwrap();
        graph.output("dqkv", dqkv);
        compare(&format!("packed_attention_grad {rows}x{heads}x{width}"), &graph, &BTreeMap::new());
    }
}

/// The sums that a forward keeps for its gradient, which reads them or, as above, computes them itself.
#[test]
fn attention_with_sums() {
    for (parts, heads, width) in [(vec![2, 7, 3, 5], 2, 4), (vec![2, 0, 1, 9], 1, 8), (vec![1, 67, 2, 33], 3, 22)] {
        let rows: usize = parts.chunks(2).map(|part| part[0] * part[1]).sum();
        let parts: Vec<Dim> = parts.into_iter().map(Dim::from).collect();
        let scale = 1.0 / (width as f64).sqrt();
        let mut graph = Graph::new("kernel", &[]);
        let qkv = graph.input("qkv", ty(&[rows, 3 * heads * width])).unwrap();
        let dy = graph.input("dy", ty(&[rows, heads * width])).unwrap();
        let forward = Op::PackedAttention { heads, scale, parts: parts.clone(), sums: true };
        let [y, sums] = graph.push(forward, &[qkv]).unwrap()[..] else { panic!("two results") };
        let backward = Op::PackedAttentionGrad { heads, scale, parts, sums: true };
        let dqkv = graph.push1(backward, &[qkv, y, dy, sums]).unwrap();
        for (name, value) in [("y", y), ("sums", sums), ("dqkv", dqkv)] {
            graph.output(name, value);
        }
        compare(&format!("attention with sums {rows}x{heads}x{width}"), &graph, &BTreeMap::new());
    }
}

/// Queries and keys rotated on the way, each clip by its own angles or all of a part by the same.
#[test]
fn rotated_attention() {
    for (parts, heads, width, shared) in [
        (vec![2, 7, 3, 5], 2, 4, [true, false]),
        (vec![1, 1, 1, 3], 3, 6, [false, true]),
        (vec![1, 131, 2, 33], 2, 16, [false, false]),
    ] {
        let rows: usize = parts.chunks(2).map(|part| part[0] * part[1]).sum();
        let table = |part: &[usize], shared: bool| [if shared { 1 } else { part[0] }, part[1], 2 * width];
        let tables: Vec<[usize; 3]> = parts.chunks(2).zip(shared).map(|(part, shared)| table(part, shared)).collect();
        let parts: Vec<Dim> = parts.into_iter().map(Dim::from).collect();
        let scale = 1.0 / (width as f64).sqrt();
        let mut graph = Graph::new("kernel", &[]);
        let qkv = graph.input("qkv", ty(&[rows, 3 * heads * width])).unwrap();
        let dy = graph.input("dy", ty(&[rows, heads * width])).unwrap();
        let named = tables.iter().enumerate();
        let tables: Vec<ValueId> =
            named.map(|(i, shape)| graph.input(&format!("table{i}"), ty(shape)).unwrap()).collect();
        let forward = Op::PackedAttention { heads, scale, parts: parts.clone(), sums: false };
        let y = graph.push1(forward, &[&[qkv], &tables[..]].concat()).unwrap();
        let backward = Op::PackedAttentionGrad { heads, scale, parts, sums: false };
        let dqkv = graph.push1(backward, &[&[qkv, y, dy], &tables[..]].concat()).unwrap();
        graph.output("y", y);
        graph.output("dqkv", dqkv);
        compare(&format!("rotated attention {rows}x{heads}x{width}"), &graph, &BTreeMap::new());
    }
    for transposed in [false, true] {
        both(&Op::Rotate { transposed }, &[&[2, 3, 5, 8], &[2, 5, 16]]);
        both(&Op::Rotate { transposed }, &[&[2, 3, 5, 8], &[1, 5, 16]]);
    }
}

#[test]
fn scores_of_any_size() {
    // Unshifted, e^300 is infinite in f32 and so is every share.
    let mut graph = Graph::new("large", &[]);
    let x = graph.input("x", ty(&[3, 40])).unwrap();
    let x = graph.push1(Op::MulScalar(Scalar::from(300.0)), &[x]).unwrap();
    for (name, op) in [("softmax", Op::Softmax), ("log_softmax", Op::LogSoftmax)] {
        let y = graph.push1(op, &[x]).unwrap();
        graph.output(name, y);
    }
    let [q, k, v, dy] = ["q", "k", "v", "dy"].map(|name| graph.input(name, ty(&[2, 2, 9, 8])).unwrap());
    let q = graph.push1(Op::MulScalar(Scalar::from(400.0)), &[q]).unwrap();
    let y = graph.push1(Op::Attention { scale: 1.0 }, &[q, k, v]).unwrap();
    graph.output("y", y);
    let grads = graph.push(Op::AttentionGrad { scale: 1.0 }, &[q, k, v, y, dy]).unwrap();
    for (name, grad) in ["dq", "dk", "dv"].iter().zip(grads) {
        graph.output(name, grad);
    }
    // Scores near 1000 are only known to 1e-4 in f32, and exponentials turn that into relative errors.
    // (In TF32 they are known to 1.)
    let lowered = if is_cuda() { 1.0 } else { 2e-3 };
    compare_within("large scores", &graph, &BTreeMap::new(), [2e-3, lowered]);
}
