//! Finds, through any arrangement of reshapes, permutations and slices, which rows of a projection an attention operand
//! reads.
//!
//! The official `linear(D, 3·D) → reshape [B, N, 3, H, d] → permute → slice` and every equivalent of it end at the same
//! answer: operand `[b, h, n, d]` is channel `rows[h·size + d]` of token `(b, n)`. With it the exporter writes one `Gemm`
//! per operand.

use crate::fold::Constants;
use vjepa_compiler::ir::{Def, Dim, Graph, ValueId};
use vjepa_compiler::ops::Op;

/// An operand of attention that is a projection of tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Projection {
    /// What is projected.
    pub x: ValueId,
    /// The projection's weight `[out, in]`.
    pub weight: ValueId,
    /// Its bias.
    pub bias: Option<ValueId>,
    /// Row of the weight for each `(head, feature)`, heads outermost.
    pub rows: Vec<usize>,
}

/// A run of indices of one source axis: `extent` of them, `stride` apart.
#[derive(Clone, Debug, PartialEq)]
struct Atom {
    axis: usize,
    stride: usize,
    extent: Dim,
}

/// The projection behind the attention operand `operand` (`[B, H, N, d]`), if it is one by constants.
pub(crate) fn projection(graph: &Graph, constants: &Constants<'_>, operand: ValueId) -> Option<Projection> {
    let mut moves = Vec::new();
    let mut at = operand;
    let linear = loop {
        let Def::Node { node, .. } = graph.value(at).def else { return None };
        let node = graph.nodes.get(node.0)?;
        match &node.op {
            Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. } => {
                moves.push(&node.op);
                at = *node.inputs.first()?;
            }
            Op::Linear => break node,
            _ => return None,
        }
    };
    let (x, weight, bias) = (*linear.inputs.first()?, *linear.inputs.get(1)?, linear.inputs.get(2).copied());
    if !constants.contains(weight) || !bias.is_none_or(|bias| constants.contains(bias)) {
        return None;
    }
    let source = &graph.ty(at).shape;
    let mut layout = Layout::of(source);
    for step in moves.iter().rev() {
        layout.apply(step)?;
    }
    Some(Projection { x, weight, bias, rows: layout.rows(source)? })
}

/// How a rearranged tensor's axes run over the source's.
struct Layout {
    axes: Vec<Vec<Atom>>,
    offsets: Vec<usize>,
}

impl Layout {
    fn of(source: &[Dim]) -> Self {
        let whole = |(axis, dim): (usize, &Dim)| {
            if dim.is_one() { vec![] } else { vec![Atom { axis, stride: 1, extent: dim.clone() }] }
        };
        Self { axes: source.iter().enumerate().map(whole).collect(), offsets: vec![0; source.len()] }
    }

    fn apply(&mut self, op: &Op) -> Option<()> {
        match op {
            Op::Permute { axes } => {
                self.axes = axes.iter().map(|axis| self.axes.get(*axis).cloned()).collect::<Option<_>>()?;
            }
            Op::Slice { axis, start, end } => {
                let (start, end) = (size(start)?, size(end)?);
                let atoms = self.axes.get_mut(*axis)?;
                match atoms.as_mut_slice() {
                    [] => (start == 0 && end == 1).then_some(())?,
                    [atom] => {
                        *self.offsets.get_mut(atom.axis)? += start * atom.stride;
                        atom.extent = Dim::from(end.checked_sub(start)?);
                    }
                    _ => return None,
                }
                atoms.retain(|atom| !atom.extent.is_one());
            }
            Op::Reshape { shape } => self.axes = regroup(self.axes.concat(), shape)?,
            _ => return None,
        }
        Some(())
    }

    /// The rows, when the layout is `[batch, heads, tokens, features]` of a source `[leading.., channels]`.
    fn rows(&self, source: &[Dim]) -> Option<Vec<usize>> {
        let [batch, heads, tokens, features] = self.axes.as_slice() else { return None };
        let channels = source.len().checked_sub(1)?;
        let tokens: Vec<&Atom> = batch.iter().chain(tokens).collect();
        let leading = source[..channels].iter().enumerate().filter(|(_, dim)| !dim.is_one());
        let unmoved = leading.map(|(axis, dim)| Atom { axis, stride: 1, extent: dim.clone() });
        if !tokens.into_iter().cloned().eq(unmoved) || self.offsets[..channels].iter().any(|offset| *offset != 0) {
            return None;
        }
        let mut rows = vec![*self.offsets.get(channels)?];
        for atom in heads.iter().chain(features) {
            if atom.axis != channels {
                return None;
            }
            let extent = size(&atom.extent)?;
            rows = rows.iter().flat_map(|row| (0..extent).map(move |i| row + i * atom.stride)).collect();
        }
        Some(rows)
    }
}

/// Distributes atoms over the axes of a new shape, splitting one where an axis ends inside it.
fn regroup(atoms: Vec<Atom>, shape: &[Dim]) -> Option<Vec<Vec<Atom>>> {
    let mut left = atoms.into_iter().collect::<std::collections::VecDeque<_>>();
    let mut axes = Vec::with_capacity(shape.len());
    for dim in shape {
        let mut taken: Vec<Atom> = Vec::new();
        let mut product = Dim::from(1usize);
        while product != *dim {
            let mut atom = left.pop_front()?;
            if let (Some(extent), Some(wanted), Some(have)) =
                (size(&atom.extent), size(dim), size(&product).filter(|have| *have > 0))
            {
                if wanted % have != 0 {
                    return None;
                }
                let wanted = wanted / have;
                if wanted < extent {
                    if extent % wanted != 0 {
                        return None;
                    }
                    let inner = extent / wanted;
                    left.push_front(Atom { extent: Dim::from(inner), ..atom.clone() });
                    atom = Atom { extent: Dim::from(wanted), stride: atom.stride * inner, axis: atom.axis };
                }
            }
            product = &product * &atom.extent;
            match taken.last_mut().zip(size(&atom.extent)) {
                Some((last, inner)) if last.axis == atom.axis && last.stride == atom.stride * inner => {
                    *last = Atom { extent: &last.extent * &atom.extent, ..atom };
                }
                _ => taken.push(atom),
            }
        }
        axes.push(taken);
    }
    left.is_empty().then_some(axes)
}

fn size(dim: &Dim) -> Option<usize> {
    dim.as_const().and_then(|size| usize::try_from(size).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_compiler::ir::TensorType;

    fn d(size: usize) -> Dim {
        Dim::from(size)
    }

    fn graph(width: usize) -> (Graph, ValueId) {
        let mut g = Graph::new("test", &["B"]);
        let x = g.input("x", TensorType::f32([Dim::symbol("B"), d(5), d(6)])).unwrap();
        let weight = g.param("w", TensorType::f32([d(width), d(6)])).unwrap();
        let y = g.push1(Op::Linear, &[x, weight]).unwrap();
        (g, y)
    }

    fn shape(sizes: &[usize]) -> Vec<Dim> {
        [Dim::symbol("B")].into_iter().chain(sizes.iter().map(|s| d(*s))).collect()
    }

    #[test]
    fn the_official_arrangement() {
        let (mut g, y) = graph(18);
        let y = g.push1(Op::Reshape { shape: shape(&[5, 3, 2, 3]) }, &[y]).unwrap();
        let y = g.push1(Op::Permute { axes: vec![2, 0, 3, 1, 4] }, &[y]).unwrap();
        let k = g.push1(Op::Slice { axis: 0, start: d(1), end: d(2) }, &[y]).unwrap();
        let k = g.push1(Op::Reshape { shape: shape(&[2, 5, 3]) }, &[k]).unwrap();
        assert_eq!(projection(&g, &Constants::of(&g), k).unwrap().rows, (6..12).collect::<Vec<_>>());
    }

    #[test]
    fn slices_of_the_last_axis_and_interleaved_heads() {
        let (mut g, y) = graph(12);
        let v = g.push1(Op::Slice { axis: 2, start: d(6), end: d(12) }, &[y]).unwrap();
        // Features outermost in the projection: heads are every second channel.
        let v = g.push1(Op::Reshape { shape: shape(&[5, 3, 2]) }, &[v]).unwrap();
        let v = g.push1(Op::Permute { axes: vec![0, 3, 1, 2] }, &[v]).unwrap();
        assert_eq!(projection(&g, &Constants::of(&g), v).unwrap().rows, [6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn what_mixes_tokens_and_channels_is_no_projection() {
        let (mut g, y) = graph(6);
        let y = g.push1(Op::Reshape { shape: shape(&[3, 2, 5]) }, &[y]).unwrap();
        assert_eq!(projection(&g, &Constants::of(&g), y), None);
    }
}
