//! Where the results of operations that work alike on all tokens have their padding.

use super::{Masker, Padding, Part, unknown};
use crate::ir::{Dim, GraphError, Node, ValueId};
use crate::ops::Op;

impl Masker<'_> {
    /// The padding of a copied node's first result.
    pub(super) fn kept(
        &self,
        node: &Node,
        results: &[ValueId],
        paddings: &[Option<Padding>],
    ) -> Result<Option<Padding>, GraphError> {
        let first = paddings.first().cloned().flatten();
        let last_axis = |id: ValueId| self.rewriter.new.ty(id).rank().saturating_sub(1);
        let inputs = self.rewriter.operands(node)?;
        if paddings.iter().all(Option::is_none) {
            return self.made(node, results);
        }
        match (&node.op, first) {
            (Op::GatherTokens, _) => Ok(paddings.get(1).cloned().flatten()),
            (Op::AddScalar(c), _) if self.is_padded(&c.over) => Err(unknown(node)),
            (Op::Unary(_) | Op::AddScalar(_) | Op::MulScalar(_) | Op::PowScalar(_) | Op::Cast(_), first) => Ok(first),
            (Op::Broadcast { shape }, Some(padding)) => match self.of_shape(shape) {
                Some(Padding { axis, .. }) if axis == padding.axis => Ok(Some(padding)),
                _ => Err(unknown(node)),
            },
            (Op::Binary(_), _) => self.aligned(node, &inputs, paddings, results),
            (Op::LayerNorm { .. } | Op::Softmax | Op::Linear, Some(padding))
                if padding.axis < last_axis(inputs[0]) && paddings.iter().skip(1).all(Option::is_none) =>
            {
                Ok(Some(padding))
            }
            (Op::Sum { axes } | Op::Mean { axes }, Some(padding)) if !axes.contains(&padding.axis) => Ok(Some(padding)),
            (Op::Reshape { shape }, Some(padding)) => {
                let from = &self.rewriter.new.ty(inputs[0]).shape;
                let same = from.get(..=padding.axis).is_some_and(|lead| shape.starts_with(lead));
                if same { Ok(Some(padding)) } else { Err(unknown(node)) }
            }
            (Op::Permute { axes }, Some(padding)) => {
                let axis = axes.iter().position(|axis| *axis == padding.axis);
                Ok(Some(Padding { axis: axis.ok_or_else(|| unknown(node))?, ..padding }))
            }
            (Op::Slice { axis, start, end }, Some(padding)) => {
                if *axis != padding.axis {
                    return Ok(Some(padding));
                }
                padding.cut(start, end).map(Some).ok_or_else(|| unknown(node))
            }
            // The angles of padding turn padding.
            (Op::Rotate { .. }, Some(padding)) if padding.axis == 2 => Ok(Some(padding)),
            (Op::Concat { axis }, _) => self.joined(node, *axis, &inputs, paddings),
            (Op::Attention { .. }, Some(padding))
                if padding.axis == 2 && paddings.iter().skip(1).all(Option::is_none) =>
            {
                Ok(Some(padding))
            }
            _ => Err(unknown(node)),
        }
    }

    /// Of a value whose operands have no padding: if it has an axis for the tokens of a list, then only as one that is the same
    /// for all of them, such as the mask token; as many count as count of the list.
    fn made(&self, node: &Node, results: &[ValueId]) -> Result<Option<Padding>, GraphError> {
        let number = match &node.op {
            Op::Full { value, .. } | Op::AddScalar(value) => Some(&value.over),
            _ => None,
        };
        if number.is_some_and(|over| self.is_padded(over)) {
            return Err(unknown(node));
        }
        let mut shapes = results.iter().map(|id| &self.rewriter.new.ty(*id).shape);
        if !shapes.clone().any(|shape| shape.iter().any(|dim| self.is_padded(dim))) {
            return Ok(None);
        }
        match (&node.op, shapes.next().and_then(|shape| self.of_shape(shape))) {
            (Op::Broadcast { .. } | Op::Full { .. }, Some(padding)) => Ok(Some(padding)),
            _ => Err(unknown(node)),
        }
    }

    /// Of a value of this shape that has as many tokens as one list and is no row of another; none for any other shape.
    pub(super) fn of_shape(&self, shape: &[Dim]) -> Option<Padding> {
        let mut padded = shape.iter().enumerate().filter(|(_, dim)| self.is_padded(dim));
        let (Some((axis, size)), None) = (padded.next(), padded.next()) else { return None };
        let (_, real) = self.lengths.iter().find(|(symbol, _)| Dim::symbol(symbol) == *size)?;
        Some(Padding { axis, parts: vec![Part { size: size.clone(), real: Some(*real) }] })
    }

    /// Of operands that are broadcast to each other.
    fn aligned(
        &self,
        node: &Node,
        inputs: &[ValueId],
        paddings: &[Option<Padding>],
        results: &[ValueId],
    ) -> Result<Option<Padding>, GraphError> {
        let rank = results.first().map_or(0, |id| self.rewriter.new.ty(*id).rank());
        let mut found: Option<Padding> = None;
        for (id, padding) in inputs.iter().zip(paddings) {
            let Some(padding) = padding else { continue };
            let axis = padding.axis + rank - self.rewriter.new.ty(*id).rank();
            let padding = Padding { axis, ..padding.clone() };
            if *found.get_or_insert_with(|| padding.clone()) != padding {
                return Err(unknown(node));
            }
        }
        Ok(found)
    }

    /// Of operands one after the other.
    fn joined(
        &self,
        node: &Node,
        axis: usize,
        inputs: &[ValueId],
        paddings: &[Option<Padding>],
    ) -> Result<Option<Padding>, GraphError> {
        if paddings.iter().flatten().all(|padding| padding.axis != axis) {
            let mut all = paddings.iter();
            let first = all.next().cloned().flatten();
            return if all.all(|padding| *padding == first) { Ok(first) } else { Err(unknown(node)) };
        }
        let mut parts = Vec::with_capacity(inputs.len());
        for (id, padding) in inputs.iter().zip(paddings) {
            let size = self.rewriter.new.ty(*id).shape.get(axis).cloned().ok_or_else(|| unknown(node))?;
            match padding {
                Some(padding) if padding.axis == axis => parts.extend(padding.parts.iter().cloned()),
                Some(_) => return Err(unknown(node)),
                None => parts.push(Part { size, real: None }),
            }
        }
        Ok(Some(Padding { axis, parts }))
    }
}
