//! The verifier: is this a well-formed graph?
//!
//! It runs after each pass in tests and with `--verify-ir`, and on every graph read from outside.

use crate::ir::{Def, Dim, Graph, NodeId, TensorType, ValueId};
use crate::ops::{Attribute, Op};
use crate::text::is_bare;
use std::collections::{BTreeMap, BTreeSet};

/// The first fault found in a graph, and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("graph `{graph}`, {at}: {why}")]
pub struct VerifyError {
    /// The graph.
    pub graph: String,
    /// The node, value, name or symbol, in words.
    pub at: String,
    /// What does not hold.
    pub why: String,
}

/// Checks that every value is defined once and before its use, that types are as inferred, that symbols are declared, that
/// names are unique, and that updates fit their parameters.
///
/// # Errors
/// [`VerifyError`] names the first place that is wrong and why.
pub fn verify(graph: &Graph) -> Result<(), VerifyError> {
    let check = Check { graph };
    check.symbols()?;
    check.sources()?;
    check.nodes()?;
    check.sums()?;
    check.names()?;
    check.roots()
}

/// True for what may be a symbol or stand as a bare name: a letter or `_`, then letters, digits and `_`.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

struct Check<'a> {
    graph: &'a Graph,
}

impl Check<'_> {
    fn fail<T>(&self, at: impl Into<String>, why: impl Into<String>) -> Result<T, VerifyError> {
        Err(VerifyError { graph: self.graph.name.clone(), at: at.into(), why: why.into() })
    }

    fn symbols(&self) -> Result<(), VerifyError> {
        if self.graph.name.is_empty() {
            return self.fail("its name", "is empty");
        }
        let mut seen = BTreeSet::new();
        for symbol in &self.graph.symbols {
            if !is_identifier(symbol) {
                return self.fail(format!("symbol `{symbol}`"), "is not an identifier");
            }
            if !seen.insert(symbol) {
                return self.fail(format!("symbol `{symbol}`"), "is declared twice");
            }
        }
        Ok(())
    }

    fn dim(&self, at: &str, dim: &Dim) -> Result<(), VerifyError> {
        match dim.symbols().find(|symbol| !self.graph.symbols.iter().any(|known| known == symbol)) {
            Some(symbol) => self.fail(at, format!("the symbol `{symbol}` is not declared")),
            None => Ok(()),
        }
    }

    fn ty(&self, at: &str, ty: &TensorType) -> Result<(), VerifyError> {
        if !ty.is_tame() {
            return self.fail(at, "its shape is too complicated");
        }
        for dim in &ty.shape {
            self.dim(at, dim)?;
            if dim.as_const().is_some_and(|n| n < 0) {
                return self.fail(at, format!("{ty} has a negative size"));
            }
        }
        Ok(())
    }

    fn sources(&self) -> Result<(), VerifyError> {
        let mut names = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let inputs = self.graph.inputs.iter().map(|id| (id, true));
        for (id, is_input) in inputs.chain(self.graph.params.iter().map(|id| (id, false))) {
            let Some(value) = self.graph.values.get(id.0) else {
                return self.fail(format!("value %{}", id.0), "does not exist");
            };
            let name = match (&value.def, is_input) {
                (Def::Input(name), true) | (Def::Param(name), false) => name,
                _ => return self.fail(format!("value %{}", id.0), "is listed as a source but is defined otherwise"),
            };
            if name.is_empty() {
                return self.fail(format!("value %{}", id.0), "has an empty name");
            }
            if !names.insert(name) || !seen.insert(*id) {
                return self.fail(format!("`{name}`"), "the name is used twice");
            }
            self.ty(&format!("`{name}`"), &value.ty)?;
        }
        let sources = self.graph.values.iter().filter(|value| !matches!(value.def, Def::Node { .. })).count();
        if sources != seen.len() {
            return self.fail("its sources", "some are in neither `inputs` nor `params`");
        }
        Ok(())
    }

    fn nodes(&self) -> Result<(), VerifyError> {
        let graph = self.graph;
        let mut defined: Vec<bool> = graph.values.iter().map(|value| !matches!(value.def, Def::Node { .. })).collect();
        for (position, node) in graph.nodes.iter().enumerate() {
            let at = format!("node {position} ({})", node.op.name());
            self.attributes(&at, &node.op)?;
            let mut types = Vec::with_capacity(node.inputs.len());
            for id in &node.inputs {
                match (defined.get(id.0), graph.values.get(id.0)) {
                    (Some(true), Some(value)) => types.push(&value.ty),
                    (Some(false), _) => return self.fail(at, format!("uses %{} before it is defined", id.0)),
                    _ => return self.fail(at, format!("uses %{}, which does not exist", id.0)),
                }
            }
            let inferred = match node.op.infer(&types) {
                Ok(inferred) => inferred,
                Err(error) => return self.fail(at, error.to_string()),
            };
            if inferred.len() != node.outputs.len() {
                return self.fail(at, format!("has {} results, not {}", inferred.len(), node.outputs.len()));
            }
            for (output, (id, ty)) in node.outputs.iter().zip(&inferred).enumerate() {
                self.result(&at, NodeId(position), output, *id, ty)?;
                match defined.get_mut(id.0) {
                    Some(defined) if !*defined => *defined = true,
                    _ => return self.fail(at, format!("defines %{} again", id.0)),
                }
            }
        }
        match defined.iter().position(|defined| !defined) {
            Some(value) => self.fail(format!("value %{value}"), "no node defines it"),
            None => Ok(()),
        }
    }

    /// A sum over ranks that was begun is ended once, whole, and read by nothing else.
    fn sums(&self) -> Result<(), VerifyError> {
        let nodes = || self.graph.nodes.iter().enumerate();
        let starts = || nodes().filter(|(_, node)| node.op == Op::AllReduceStart);
        let flying: BTreeMap<ValueId, usize> =
            starts().flat_map(|(start, node)| node.outputs.iter().map(move |id| (*id, start))).collect();
        let mut ended = BTreeSet::new();
        for (position, node) in nodes() {
            let at = || format!("node {position} ({})", node.op.name());
            if node.op == Op::AllReduceDone {
                let start = node.inputs.first().and_then(|id| flying.get(id));
                let whole = start.filter(|start| self.graph.nodes[**start].outputs == node.inputs);
                if !whole.is_some_and(|start| ended.insert(*start)) {
                    return self.fail(at(), "ends what was not begun, not whole, or twice");
                }
            } else if let Some(id) = node.inputs.iter().find(|id| flying.contains_key(id)) {
                return self.fail(at(), format!("reads %{}, which is on its way", id.0));
            }
        }
        if let Some(id) = self.graph.roots().find(|id| flying.contains_key(id)) {
            return self.fail(format!("%{}", id.0), "is an output or update, but only on its way");
        }
        match starts().find(|(start, _)| !ended.contains(start)) {
            Some((position, node)) => self.fail(format!("node {position} ({})", node.op.name()), "is never ended"),
            None => Ok(()),
        }
    }

    /// Names of results: printable after a `%`, and unique.
    fn names(&self) -> Result<(), VerifyError> {
        let mut seen = BTreeSet::new();
        for (id, value) in self.graph.values.iter().enumerate() {
            let Some(name) = &value.name else { continue };
            if !matches!(value.def, Def::Node { .. }) || !is_bare(name) {
                return self.fail(format!("value %{id}"), format!("cannot have the name `{name}`"));
            }
            if !seen.insert(name) {
                return self.fail(format!("`%{name}`"), "the name is used twice");
            }
        }
        Ok(())
    }

    fn attributes(&self, at: &str, op: &Op) -> Result<(), VerifyError> {
        for (_, attribute) in op.attributes() {
            match attribute {
                Attribute::Dim(dim) => self.dim(at, &dim)?,
                Attribute::Scalar(scalar) => self.dim(at, &scalar.over)?,
                Attribute::Dims(dims) => dims.iter().try_for_each(|dim| self.dim(at, dim))?,
                Attribute::Type(ty) => self.ty(at, &ty)?,
                Attribute::Number(_)
                | Attribute::Count(_)
                | Attribute::Flag(_)
                | Attribute::DType(_)
                | Attribute::Axes(_) => {}
            }
        }
        Ok(())
    }

    fn result(
        &self,
        at: &str,
        node: NodeId,
        output: usize,
        id: ValueId,
        inferred: &TensorType,
    ) -> Result<(), VerifyError> {
        let Some(value) = self.graph.values.get(id.0) else {
            return self.fail(at, format!("defines %{}, which does not exist", id.0));
        };
        if value.def != (Def::Node { node, output }) {
            return self.fail(at, format!("%{} does not say that this node defines it", id.0));
        }
        if value.ty != *inferred {
            return self.fail(at, format!("%{} is declared {} but is {inferred}", id.0, value.ty));
        }
        self.ty(at, inferred)
    }

    fn roots(&self) -> Result<(), VerifyError> {
        let mut names = BTreeSet::new();
        for (name, id) in &self.graph.outputs {
            let at = format!("output `{name}`");
            if id.0 >= self.graph.values.len() {
                return self.fail(at, format!("%{} does not exist", id.0));
            }
            if name.is_empty() || !names.insert(name) {
                return self.fail(at, "the name is empty or used twice");
            }
        }
        let mut updated = BTreeSet::new();
        for (param, new) in &self.graph.updates {
            let at = format!("update of %{}", param.0);
            let (Some(old), Some(value)) = (self.graph.values.get(param.0), self.graph.values.get(new.0)) else {
                return self.fail(at, "a value does not exist");
            };
            if !matches!(old.def, Def::Param(_)) {
                return self.fail(at, "is not a parameter");
            }
            if old.ty != value.ty {
                return self.fail(at, format!("the parameter is {} but its update is {}", old.ty, value.ty));
            }
            if !updated.insert(param) {
                return self.fail(at, "is updated twice");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::ops::Unary;

    fn graph() -> Graph {
        let mut g = Graph::new("g", &["B"]);
        let x = g.input("x", TensorType::f32([Dim::symbol("B")])).unwrap();
        let y = g.unary(Unary::Exp, x).unwrap();
        g.output("y", y);
        g
    }

    fn why(graph: &Graph) -> String {
        verify(graph).unwrap_err().to_string()
    }

    #[test]
    fn a_built_graph_verifies() {
        assert_eq!(verify(&graph()), Ok(()));
    }

    #[test]
    fn wrong_graphs_say_where_and_why() {
        let mut g = graph();
        g.symbols.clear();
        assert_eq!(why(&g), "graph `g`, `x`: the symbol `B` is not declared");
        let mut g = graph();
        g.nodes[0].inputs = vec![ValueId(1)];
        assert_eq!(why(&g), "graph `g`, node 0 (exp): uses %1 before it is defined");
        let mut g = graph();
        g.nodes[0].inputs = vec![ValueId(7)];
        assert_eq!(why(&g), "graph `g`, node 0 (exp): uses %7, which does not exist");
        let mut g = graph();
        g.values[1].ty.dtype = DType::F16;
        assert_eq!(why(&g), "graph `g`, node 0 (exp): %1 is declared f16[B] but is f32[B]");
        let mut g = graph();
        g.outputs.push(("y".into(), ValueId(0)));
        assert_eq!(why(&g), "graph `g`, output `y`: the name is empty or used twice");
        let begun = |ends: usize| {
            let mut g = graph();
            let flying = g.push(Op::AllReduceStart, &[ValueId(0), ValueId(1)]).unwrap();
            (0..ends).for_each(|_| drop(g.push(Op::AllReduceDone, &flying).unwrap()));
            (g, flying)
        };
        assert_eq!(verify(&begun(1).0), Ok(()));
        assert_eq!(why(&begun(0).0), "graph `g`, node 1 (all_reduce_start): is never ended");
        let twice = "graph `g`, node 3 (all_reduce_done): ends what was not begun, not whole, or twice";
        assert_eq!(why(&begun(2).0), twice);
        let (mut g, flying) = begun(0);
        g.push(Op::AllReduceDone, &flying[1..]).unwrap();
        assert!(why(&g).ends_with("not whole, or twice"));
        let (mut g, flying) = begun(1);
        g.unary(Unary::Neg, flying[0]).unwrap();
        assert_eq!(why(&g), "graph `g`, node 3 (neg): reads %2, which is on its way");
        let (mut g, flying) = begun(1);
        g.output("early", flying[0]);
        assert_eq!(why(&g), "graph `g`, %2: is an output or update, but only on its way");
        let mut g = graph();
        g.updates.push((ValueId(0), ValueId(1)));
        assert_eq!(why(&g), "graph `g`, update of %0: is not a parameter");
    }
}
