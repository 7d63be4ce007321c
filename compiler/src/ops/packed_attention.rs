//! Attention over the rows of one linear layer, `[R, 3·H·d]`, with the rows of several batches stacked.

use super::attention::{attend, log_sums};
use super::rotary::turned;
use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, Unary, arity, require};
use crate::interp::Array;
use crate::ir::{DType, Dim, Graph, GraphError, TensorType, ValueId};

/// The operations of this file: forward and backward have the same attributes.
#[derive(Clone, Copy)]
pub(super) struct Kind<'a> {
    pub backward: bool,
    pub heads: usize,
    pub scale: f64,
    pub parts: &'a [Dim],
    pub sums: bool,
}

pub(super) fn infer(op: Kind<'_>, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let Kind { backward, heads, parts, sums, .. } = op;
    // Without tables, or with one for each part.
    let own = op.own_operands();
    let expected = match own {
        1 => "1, and a table for each part",
        3 => "3, and a table for each part",
        _ => "4, and a table for each part",
    };
    arity(operands, own, own + parts.len() / 2, expected)?;
    let tables = &operands[own..];
    require(tables.is_empty() || tables.len() == parts.len() / 2, || {
        format!("needs a table for each of {} parts, got {}", parts.len() / 2, tables.len())
    })?;
    let qkv = operands[0];
    let width = head_width(qkv, heads);
    let Some(width) = width.filter(|_| qkv.rank() == 2 && qkv.dtype.is_float()) else {
        return Err(TypeError::Mismatch(format!("needs floats [R, 3·H·d] with H = {heads} heads, got {qkv}")));
    };
    let tame = parts.chunks(2).all(|part| TensorType::new(qkv.dtype, part.iter().cloned()).is_tame());
    let rows = |part: &[Dim]| Dim::product(part);
    let fits = tame
        && !parts.is_empty()
        && parts.len().is_multiple_of(2)
        && parts.chunks(2).fold(Dim::default(), |sum, part| &sum + &rows(part)) == qkv.shape[0];
    require(fits, || format!("the parts, B and N in turn, are not the rows of {qkv}"))?;
    for (part, table) in parts.chunks(2).zip(tables) {
        let angles = match table.shape.as_slice() {
            [batch, rows, columns] => {
                (batch.is_one() || *batch == part[0]) && *rows == part[1] && *columns == Dim::from(2 * width)
            }
            _ => false,
        };
        require(angles && width % 2 == 0 && table.dtype == qkv.dtype, || {
            format!("needs a table [B or 1, N, 2d] of the angles of [{}, {}] tokens, got {table}", part[0], part[1])
        })?;
    }
    let y = TensorType::new(qkv.dtype, [qkv.shape[0].clone(), Dim::from(heads * width)]);
    let of_rows = TensorType::f32([qkv.shape[0].clone(), Dim::from(heads)]);
    if backward {
        require(*operands[1] == y && *operands[2] == y, || format!("y and dy must be {y}"))?;
        require(!sums || *operands[3] == of_rows, || format!("the sums must be {of_rows}, got {}", operands[3]))?;
        return Ok(vec![qkv.clone()]);
    }
    Ok(if sums { vec![y, of_rows] } else { vec![y] })
}

/// d, where the last axis of `qkv` is 3·H·d.
fn head_width(qkv: &TensorType, heads: usize) -> Option<usize> {
    let width = usize::try_from(qkv.shape.last()?.as_const()?).ok()?;
    let all = heads.checked_mul(3).filter(|all| *all > 0)?;
    (width > 0 && width.is_multiple_of(all)).then_some(width / all)
}

impl Kind<'_> {
    /// How many operands come before the tables.
    fn own_operands(self) -> usize {
        if self.backward { 3 + usize::from(self.sums) } else { 1 }
    }
}

/// As attention on each part: two products of `2·N²·d` per head forward and five backward, and 5 or 9 per score.
pub(super) fn cost(op: Kind<'_>, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let (y, products, softmax): (_, usize, usize) = if op.backward { (operands[1], 10, 9) } else { (results[0], 4, 5) };
    let per_score = &(&y.shape[1] * &Dim::from(products)) + &Dim::from(op.heads.saturating_mul(softmax));
    let scores = op.parts.chunks_exact(2).fold(Dim::default(), |sum, part| {
        let (batch, rows) = (&part[0], &part[1]);
        &sum + &Dim::product([batch, rows, rows])
    });
    let mut cost = Cost::streaming(0, &scores, operands, results);
    cost.flops = &scores * &per_score;
    cost
}

pub(super) fn eval(op: Kind<'_>, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let Kind { backward, heads, scale, parts, sums } = op;
    let mut result = Array::zeros(&e.results[0]);
    let mut of_rows = (sums && !backward).then(|| Array::zeros(&e.results[1]));
    let mut first = 0;
    for (number, part) in parts.chunks_exact(2).enumerate() {
        let (clips, rows) = (e.size(&part[0])?, e.size(&part[1])?);
        let table = e.inputs.get(op.own_operands() + number);
        for clip in 0..if rows == 0 { 0 } else { clips } {
            let place = Clip { first: first + clip * rows, rows, heads };
            let [q, k, v] = [0, 1, 2].map(|of| place.read(e.inputs[0], of, 3));
            let angles = table.map(|table| of_clip(table, clip));
            let turn = |x: Array, transposed: bool| match &angles {
                Some(table) => turned(&x, table, transposed),
                None => x,
            };
            let [q, k] = [q, k].map(|x| turn(x, false));
            if backward {
                let dy = place.read(e.inputs[2], 0, 1);
                for (third, grad) in attend([&q, &k, &v], Some(&dy), scale).into_iter().enumerate() {
                    let grad = if third < 2 { turn(grad, true) } else { grad };
                    place.write(&mut result, &grad, third, 3);
                }
            } else {
                place.write(&mut result, &attend([&q, &k, &v], None, scale)[0], 0, 1);
                if let Some(of_rows) = &mut of_rows {
                    place.write(of_rows, &log_sums(&q, &k, scale), 0, 1);
                }
            }
        }
        first += clips * rows;
    }
    Ok(std::iter::once(result).chain(of_rows).collect())
}

/// The angles of one clip, `[1, N, 2d]`.
fn of_clip(table: &Array, clip: usize) -> Array {
    let one = table.data.len() / table.shape[0].max(1);
    let at = if table.shape[0] == 1 { 0 } else { clip };
    Array { shape: vec![1, table.shape[1], table.shape[2]], data: table.data[at * one..(at + 1) * one].to_vec() }
}

/// Rows `first..first + rows` of a matrix whose columns are `H·d`, or several times that.
struct Clip {
    first: usize,
    rows: usize,
    heads: usize,
}

impl Clip {
    /// Indices of part `of` of `parts` of the columns, in the order `[H, N, d]`, and d.
    fn places(&self, width: usize, of: usize, parts: usize) -> (impl Iterator<Item = usize>, usize) {
        let (first, rows, features) = (self.first, self.rows, width / parts);
        let d = features / self.heads;
        let at = move |head: usize, row: usize| (first + row) * width + of * features + head * d;
        let places =
            (0..self.heads).flat_map(move |head| (0..rows).flat_map(move |row| at(head, row)..at(head, row) + d));
        (places, d)
    }

    /// `[1, H, N, d]`.
    fn read(&self, matrix: &Array, of: usize, parts: usize) -> Array {
        let (places, d) = self.places(matrix.last(), of, parts);
        Array { shape: vec![1, self.heads, self.rows, d], data: places.map(|place| matrix.data[place]).collect() }
    }

    fn write(&self, matrix: &mut Array, values: &Array, of: usize, parts: usize) {
        let (places, _) = self.places(matrix.last(), of, parts);
        places.zip(&values.data).for_each(|(place, value)| matrix.data[place] = *value);
    }
}

const SWAP: [usize; 4] = [0, 2, 1, 3];

/// As attention (or its gradient) on the heads of each part, sliced out and concatenated again.
pub(super) fn decompose(op: Kind<'_>, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    let Kind { backward, heads, scale, parts, sums } = op;
    let (own, tables) = inputs.split_at(op.own_operands().min(inputs.len()));
    let (mut results, mut of_rows) = (Vec::new(), Vec::new());
    let mut first = Dim::default();
    for (number, part) in parts.chunks_exact(2).enumerate() {
        let end = &first + &Dim::product(part);
        let mut rows = Vec::with_capacity(3);
        // The sums are computed again.
        for input in own.iter().take(3) {
            rows.push(g.slice(*input, 0, first.clone(), end.clone())?);
        }
        let [mut q, mut k, v] = thirds(g, rows[0], (part, heads))?;
        let table = tables.get(number).copied();
        if let Some(table) = table {
            q = g.push1(Op::Rotate { transposed: false }, &[q, table])?;
            k = g.push1(Op::Rotate { transposed: false }, &[k, table])?;
        }
        let made = if backward {
            let [y, dy] = [split(g, rows[1], (part, heads))?, split(g, rows[2], (part, heads))?];
            let mut grads = g.push(Op::AttentionGrad { scale }, &[q, k, v, y, dy])?;
            if let Some(table) = table {
                for grad in grads.iter_mut().take(2) {
                    *grad = g.push1(Op::Rotate { transposed: true }, &[*grad, table])?;
                }
            }
            grads
        } else {
            if sums {
                of_rows.push(decomposed_sums(g, [q, k], scale)?);
            }
            g.push(Op::Attention { scale }, &[q, k, v])?
        };
        let mut columns = Vec::with_capacity(made.len());
        for value in made {
            columns.push(g.permute(value, &SWAP)?);
        }
        let joined = if columns.len() == 1 { columns[0] } else { g.push1(Op::Concat { axis: 2 }, &columns)? };
        let shape = g.ty(joined).shape.clone();
        results.push(g.reshape(joined, &[Dim::product(part), Dim::product(&shape[2..])])?);
        first = end;
    }
    let mut joined = Vec::with_capacity(2);
    for parts in [results, of_rows] {
        match parts.as_slice() {
            [] => {}
            [one] => joined.push(*one),
            _ => joined.push(g.push1(Op::Concat { axis: 0 }, &parts)?),
        }
    }
    Ok(Some(joined))
}

/// `f32[B·N, H]`, the logarithms of the sums of exponentials of `q[B, H, N, d]` and `k`, past each row's highest score.
fn decomposed_sums(g: &mut Graph, [q, k]: [ValueId; 2], scale: f64) -> Result<ValueId, GraphError> {
    let products = g.matmul(q, k, false, true)?;
    let mut scores = g.mul_scalar(products, scale)?;
    if g.ty(scores).dtype != DType::F32 {
        scores = g.cast(scores, DType::F32)?;
    }
    let highest = g.push1(Op::ReduceMax { axes: vec![3] }, &[scores])?;
    let below = g.sub(scores, highest)?;
    let exponentials = g.unary(Unary::Exp, below)?;
    let total = g.push1(Op::Sum { axes: vec![3] }, &[exponentials])?;
    let logarithm = g.unary(Unary::Log, total)?;
    let sums = g.add(logarithm, highest)?;
    let by_row = g.permute(sums, &SWAP)?;
    let [clips, rows, heads, _] = g.ty(by_row).shape.as_slice() else {
        return Err(GraphError::Other(format!("{} are not scores", g.ty(by_row))));
    };
    let shape = [clips * rows, heads.clone()];
    g.reshape(by_row, &shape)
}

/// Rows `[B·N, 3·H·d]` as queries, keys and values `[B, H, N, d]`.
fn thirds(g: &mut Graph, rows: ValueId, (part, heads): (&[Dim], usize)) -> Result<[ValueId; 3], GraphError> {
    let cut = heads_of(g, rows, (part, 3 * heads))?;
    let mut third = |i: usize| {
        let part = g.slice(cut, 2, Dim::from(i * heads), Dim::from((i + 1) * heads))?;
        g.permute(part, &SWAP)
    };
    Ok([third(0)?, third(1)?, third(2)?])
}

/// Rows `[B·N, H·d]` as `[B, H, N, d]`.
fn split(g: &mut Graph, rows: ValueId, part: (&[Dim], usize)) -> Result<ValueId, GraphError> {
    let cut = heads_of(g, rows, part)?;
    g.permute(cut, &SWAP)
}

/// Rows `[B·N, heads·d]` as `[B, N, heads, d]`.
fn heads_of(g: &mut Graph, rows: ValueId, (part, heads): (&[Dim], usize)) -> Result<ValueId, GraphError> {
    let width = g.ty(rows).shape.last().and_then(Dim::as_const).and_then(|width| usize::try_from(width).ok());
    let d = width.filter(|_| heads > 0).map(|width| width / heads);
    let d = d.ok_or_else(|| GraphError::Other(format!("{} does not split into {heads} heads", g.ty(rows))))?;
    let mut shape = part.to_vec();
    shape.extend([Dim::from(heads), Dim::from(d)]);
    g.reshape(rows, &shape)
}

pub(super) fn grad(op: Kind<'_>, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let Kind { backward, heads, scale, parts, sums } = op;
    // Sums are kept where a graph is planned, after it has been differentiated.
    if backward || sums {
        return Ok(None);
    }
    if (1..r.inputs.len()).any(|table| r.need(table)) {
        return Err(GraphError::Other("packed attention has no gradient for its tables of angles".to_owned()));
    }
    let backward = Op::PackedAttentionGrad { heads, scale, parts: parts.to_vec(), sums: false };
    let operands = [&[r.inputs[0], r.y, r.dy], &r.inputs[1..]].concat();
    let mut grads = vec![None; r.inputs.len()];
    grads[0] = Some(r.graph.push1(backward, &operands)?);
    Ok(Some(grads))
}
