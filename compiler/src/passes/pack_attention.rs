//! Lets attention read queries, keys and values from the rows a linear layer produced, and write rows for the next one.

use super::rewrite::{Rewriter, as_rows, producer, row_count, use_counts};
use super::{Changed, Pass};
use crate::ir::{Dim, Graph, GraphError, Node, ValueId};
use crate::ops::Op;

/// See the module's first line.
///
/// Forward this saves views only. Backward, the gradients of queries, keys and values would be written separately and then
/// concatenated, and those of several batches stacked; attention over rows writes them in place. It is also one operation
/// for all the batches that [`super::MergeRows`] stacked.
///
/// Runs before differentiation and after [`super::MergeRows`].
pub struct PackAttention;

impl Pass for PackAttention {
    fn name(&self) -> &'static str {
        "pack-attention"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let uses = use_counts(graph);
        let mut rewriter = Rewriter::start(graph)?;
        for node in &graph.nodes {
            let Some(Packed { source, heads, scale, parts, tables }) = packed(graph, &uses, node) else {
                rewriter.copy(node)?;
                continue;
            };
            let matrix = as_rows(&graph.ty(source).shape);
            let source = rewriter.get(source)?;
            let rows = rewriter.new.reshape(source, &matrix)?;
            let mut operands = vec![rows];
            for table in tables {
                operands.push(rewriter.get(table)?);
            }
            let y = rewriter.new.push1(Op::PackedAttention { heads, scale, parts, sums: false }, &operands)?;
            let y = rewriter.new.reshape(y, &graph.ty(node.outputs[0]).shape)?;
            let why = format!("%{}: attention from rows to rows", node.outputs[0].0);
            rewriter.replace(&node.outputs, &[y], why)?;
        }
        rewriter.finish()
    }
}

/// Attention over all rows of one value `[.., 3·H·d]`.
struct Packed {
    source: ValueId,
    heads: usize,
    scale: f64,
    parts: Vec<Dim>,
    /// Angles of each part, where queries and keys are rotated.
    tables: Vec<ValueId>,
}

/// What `node` computes, if that is attention over all rows of one value.
fn packed(graph: &Graph, uses: &[usize], node: &Node) -> Option<Packed> {
    let parts: Vec<Part> = match &node.op {
        Op::Concat { axis: 0 } => {
            let read_once = |id: &&ValueId| uses.get(id.0) == Some(&1);
            let part =
                |id: &ValueId| Part::of(graph, uses, Some(id).filter(read_once).and_then(|id| producer(graph, *id))?);
            node.inputs.iter().map(part).collect::<Option<_>>()?
        }
        // Where rows are merged, a part of them is reshaped to a matrix and goes into a concatenation.
        Op::Reshape { shape } if shape.len() == 3 => vec![Part::of(graph, uses, node)?],
        _ => return None,
    };
    let first = parts.first()?;
    let mut at = Dim::default();
    for part in &parts {
        let alike = part.source == first.source
            && part.heads == first.heads
            && part.scale == first.scale
            && part.table.is_some() == first.table.is_some();
        if !alike || part.start != at {
            return None;
        }
        at = &at + &Dim::product(&part.size);
    }
    let all = at == row_count(&graph.ty(first.source).shape);
    let sizes = parts.iter().flat_map(|part| part.size.clone()).collect();
    let tables = parts.iter().filter_map(|part| part.table).collect();
    let Part { source, heads, scale, .. } = *first;
    all.then_some(Packed { source, heads, scale, parts: sizes, tables })
}

/// Attention of one batch.
struct Part {
    /// The value that queries, keys and values are slices of.
    source: ValueId,
    /// Its first row there.
    start: Dim,
    /// B and N.
    size: [Dim; 2],
    heads: usize,
    scale: f64,
    /// Angles that queries and keys are rotated by.
    table: Option<ValueId>,
}

const SWAP: [usize; 4] = [0, 2, 1, 3];

impl Part {
    /// `reshape(permute(attention(q, k, v)))` as heads are merged, with nothing in between read elsewhere.
    fn of(graph: &Graph, uses: &[usize], merged: &Node) -> Option<Self> {
        let only = |id: &ValueId| producer(graph, *id).filter(|_| uses.get(id.0) == Some(&1));
        let attention = only(swapped(only(merged.inputs.first()?)?)?)?;
        let (Op::Reshape { shape }, Op::Attention { scale }) = (&merged.op, &attention.op) else { return None };
        let [batch, heads, tokens, width] = graph.ty(attention.outputs[0]).shape.as_slice() else { return None };
        let count = usize::try_from(heads.as_const()?).ok().filter(|heads| *heads > 0)?;
        if width.as_const().is_none_or(|width| width <= 0) || shape.last() != Some(&(heads * width)) {
            return None;
        }
        let mut whole = None;
        let tables = [0, 1].map(|which| rotated(graph, attention.inputs[which]).map(|(_, table)| table));
        if tables[0] != tables[1] {
            return None;
        }
        for (third, id) in attention.inputs.iter().enumerate() {
            let plain = rotated(graph, *id).filter(|_| third < 2).map_or(*id, |(x, _)| x);
            let slice = producer(graph, *swapped(producer(graph, plain)?)?)?;
            let range = [third, third + 1].map(|third| Dim::from(third * count));
            let Op::Slice { axis: 2, start, end } = &slice.op else { return None };
            if [start, end] != [&range[0], &range[1]] || *whole.get_or_insert(slice.inputs[0]) != slice.inputs[0] {
                return None;
            }
        }
        let whole = whole?;
        let expected = [batch.clone(), tokens.clone(), Dim::from(3 * count), width.clone()];
        let cut = producer(graph, whole).filter(|node| matches!(node.op, Op::Reshape { .. }))?;
        if graph.ty(whole).shape != expected {
            return None;
        }
        let size = [batch.clone(), tokens.clone()];
        let (source, start) = match producer(graph, cut.inputs[0]) {
            Some(Node { op: Op::Slice { axis: 0, start, .. }, inputs, .. }) if graph.ty(inputs[0]).rank() == 2 => {
                (inputs[0], start.clone())
            }
            _ => (cut.inputs[0], Dim::default()),
        };
        let fits = graph.ty(source).shape.last() == Some(&(&Dim::from(3 * count) * width));
        fits.then_some(Self { source, start, size, heads: count, scale: *scale, table: tables[0] })
    }
}

/// What a rotation turns, and by which table.
fn rotated(graph: &Graph, id: ValueId) -> Option<(ValueId, ValueId)> {
    let node = producer(graph, id)?;
    match (&node.op, node.inputs.as_slice()) {
        (Op::Rotate { transposed: false }, [x, table]) => Some((*x, *table)),
        _ => None,
    }
}

/// The operand of a permutation that exchanges heads and tokens.
fn swapped(node: &Node) -> Option<&ValueId> {
    match &node.op {
        Op::Permute { axes } if *axes == SWAP => node.inputs.first(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::{CleanUp, DeadCode, MergeRows, Pipeline};
    use crate::testing::{
        Case, Rng, assert_close, exact, random_sources, roots_of, sizes, weighted_sum, with_gradients,
    };
    use crate::text::parse;

    /// Two batches through one attention block, width 8, two heads.
    fn block() -> Case {
        let tower = |name: &str, n: &str, at: usize| {
            let v = |i: usize| format!("%{}", at + i);
            format!(
                "  {}: f32[B, {n}, 24] = linear({name}, qkv)
  {}: f32[B, {n}, 6, 4] = reshape({}) {{shape: [B, {n}, 6, 4]}}
  {}: f32[B, {n}, 2, 4] = slice({}) {{axis: 2, start: 0, end: 2}}
  {}: f32[B, 2, {n}, 4] = permute({}) {{axes: [0, 2, 1, 3]}}
  {}: f32[B, {n}, 2, 4] = slice({}) {{axis: 2, start: 2, end: 4}}
  {}: f32[B, 2, {n}, 4] = permute({}) {{axes: [0, 2, 1, 3]}}
  {}: f32[B, {n}, 2, 4] = slice({}) {{axis: 2, start: 4, end: 6}}
  {}: f32[B, 2, {n}, 4] = permute({}) {{axes: [0, 2, 1, 3]}}
  {}: f32[B, 2, {n}, 4] = attention({}, {}, {}) {{scale: 0.5}}
  {}: f32[B, {n}, 2, 4] = permute({}) {{axes: [0, 2, 1, 3]}}
  {}: f32[B, {n}, 8] = reshape({}) {{shape: [B, {n}, 8]}}
  {}: f32[B, {n}, 8] = linear({}, proj)
",
                v(0),
                v(1),
                v(0),
                v(2),
                v(1),
                v(3),
                v(2),
                v(4),
                v(1),
                v(5),
                v(4),
                v(6),
                v(1),
                v(7),
                v(6),
                v(8),
                v(3),
                v(5),
                v(7),
                v(9),
                v(8),
                v(10),
                v(9),
                v(11),
                v(10)
            )
        };
        let text = format!(
            "graph block[B, N]
  input x: f32[B, N, 8]
  input y: f32[B, 5, 8]
  param qkv: f32[24, 8]
  param proj: f32[8, 8]
{}{}  output first = %11
  output second = %23
",
            tower("x", "N", 0),
            tower("y", "5", 12)
        );
        let graph = parse(&text).unwrap();
        let sources = random_sources(&graph, &sizes(), &mut Rng(1));
        Case { graph, sizes: sizes(), sources }
    }

    fn count(graph: &Graph, name: &str) -> usize {
        graph.nodes.iter().filter(|node| node.op.name() == name).count()
    }

    #[test]
    fn batches_apart_and_together_are_packed() {
        let case = block();
        let expected = exact(&case);
        let passes: Vec<Box<dyn Pass>> = vec![Box::new(PackAttention), Box::new(DeadCode)];
        let apart = Pipeline::new(passes).run(&case.graph).unwrap().graph;
        assert_eq!((count(&apart, "packed_attention"), count(&apart, "permute")), (2, 0));
        assert_close(&expected, &roots_of(&apart, &case.sizes, &case.sources), 1e-12);
        let passes: Vec<Box<dyn Pass>> = vec![
            Box::new(MergeRows),
            Box::new(CleanUp),
            Box::new(DeadCode),
            Box::new(PackAttention),
            Box::new(CleanUp),
            Box::new(DeadCode),
        ];
        let together = Pipeline::new(passes).run(&case.graph).unwrap().graph;
        let counts = ["packed_attention", "linear", "permute", "concat"].map(|name| count(&together, name));
        assert_eq!(counts, [1, 2, 0, 1], "{together}");
        assert_close(&expected, &roots_of(&together, &case.sizes, &case.sources), 1e-12);
    }

    #[test]
    fn gradients_are_written_where_they_belong() {
        let mut plain = block();
        let mut loss = None;
        for (_, id) in plain.graph.outputs.clone() {
            let sum = weighted_sum(&mut plain.graph, id);
            loss = Some(loss.map_or(sum, |loss| plain.graph.add(loss, sum).unwrap()));
        }
        plain.graph.output("loss", loss.unwrap());
        let gradients = |graph: Graph| {
            let graph = with_gradients(graph, &["x", "y", "qkv", "proj"]);
            Pipeline::standard().run(&graph).unwrap().graph
        };
        let expected = roots_of(&gradients(plain.graph.clone()), &plain.sizes, &plain.sources);
        let packed = gradients(Pipeline::forward().run(&plain.graph).unwrap().graph);
        assert_eq!((count(&packed, "packed_attention_grad"), count(&packed, "attention_grad")), (1, 0));
        assert_close(&expected, &roots_of(&packed, &plain.sizes, &plain.sources), 1e-9);
    }

    #[test]
    fn heads_of_symbolic_width_stay() {
        let text = "graph g[B, N]
  input x: f32[B, 5, 6*N]
  %0: f32[B, 5, 6, N] = reshape(x) {shape: [B, 5, 6, N]}
  %1: f32[B, 5, 2, N] = slice(%0) {axis: 2, start: 0, end: 2}
  %2: f32[B, 2, 5, N] = permute(%1) {axes: [0, 2, 1, 3]}
  %3: f32[B, 5, 2, N] = slice(%0) {axis: 2, start: 2, end: 4}
  %4: f32[B, 2, 5, N] = permute(%3) {axes: [0, 2, 1, 3]}
  %5: f32[B, 5, 2, N] = slice(%0) {axis: 2, start: 4, end: 6}
  %6: f32[B, 2, 5, N] = permute(%5) {axes: [0, 2, 1, 3]}
  %7: f32[B, 2, 5, N] = attention(%2, %4, %6) {scale: 0.5}
  %8: f32[B, 5, 2, N] = permute(%7) {axes: [0, 2, 1, 3]}
  %9: f32[B, 5, 2*N] = reshape(%8) {shape: [B, 5, 2*N]}
  output y = %9
";
        assert!(PackAttention.run(&parse(text).unwrap()).unwrap().is_none());
        let known = parse(
            &text
                .replace("*N]", "*7]")
                .replace("6*7", "42")
                .replace("2*7", "14")
                .replace(", N]", ", 7]")
                .replace("g[B, 7]", "g[B]"),
        );
        assert!(PackAttention.run(&known.unwrap()).unwrap().is_some());
    }

    #[test]
    fn what_is_read_elsewhere_too_stays() {
        let mut case = block();
        case.graph.output("attention", ValueId(case.graph.find("proj").unwrap().0 + 1 + 8));
        let kept = PackAttention.run(&case.graph).unwrap().unwrap().graph;
        assert_eq!((count(&kept, "packed_attention"), count(&kept, "attention")), (1, 2));
    }
}
