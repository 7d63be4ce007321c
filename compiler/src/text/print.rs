//! The printer.

use crate::ir::{Dim, Graph, ValueId};
use crate::ops::{Attribute, Op};
use crate::verify::is_identifier;
use std::fmt;

/// The text of a graph. A graph that [verifies](crate::verify::verify) parses back to an equal one; of others as much is
/// printed as can be.
pub fn print(graph: &Graph) -> String {
    graph.to_string()
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Names::new(self);
        writeln!(f, "graph {}[{}]", Name(&self.name), self.symbols.join(", "))?;
        for (kind, ids) in [("input", &self.inputs), ("param", &self.params)] {
            for id in ids {
                writeln!(f, "  {kind} {}: {}", names.of(*id), names.ty(*id))?;
            }
        }
        for node in &self.nodes {
            let results: Vec<String> =
                node.outputs.iter().map(|id| format!("{}: {}", names.of(*id), names.ty(*id))).collect();
            let operands: Vec<String> = node.inputs.iter().map(|id| names.of(*id)).collect();
            writeln!(
                f,
                "  {} = {}({}){}",
                results.join(", "),
                node.op.name(),
                operands.join(", "),
                attributes(&node.op)
            )?;
        }
        for (name, id) in &self.outputs {
            writeln!(f, "  output {} = {}", Name(name), names.of(*id))?;
        }
        for (param, id) in &self.updates {
            writeln!(f, "  update {} = {}", names.of(*param), names.of(*id))?;
        }
        Ok(())
    }
}

/// How each value is referred to.
pub(crate) struct Names<'a> {
    graph: &'a Graph,
    numbers: Vec<Option<usize>>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Self {
        let mut numbers = vec![None; graph.values.len()];
        let results = graph.nodes.iter().flat_map(|node| &node.outputs);
        let unnamed = results.filter(|id| graph.values.get(id.0).is_some_and(|value| value.name.is_none()));
        for (number, id) in unnamed.enumerate() {
            if let Some(place) = numbers.get_mut(id.0) {
                *place = Some(number);
            }
        }
        Self { graph, numbers }
    }

    pub(crate) fn of(&self, id: ValueId) -> String {
        match self.numbers.get(id.0) {
            Some(Some(number)) => format!("%{number}"),
            Some(None) => match (self.graph.source_name(id), &self.graph.value(id).name) {
                (Some(source), _) => Name(source).to_string(),
                (None, Some(name)) => format!("%{name}"),
                (None, None) => "%?".to_owned(),
            },
            None => "%?".to_owned(),
        }
    }

    fn ty(&self, id: ValueId) -> String {
        self.graph.values.get(id.0).map_or("?".to_owned(), |value| value.ty.to_string())
    }
}

/// A name as it stands in the text: bare when it is identifiers joined by dots, else quoted.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_bare(self.0) { write!(f, "{}", self.0) } else { write!(f, "{:?}", self.0) }
    }
}

/// True for `encoder.blocks.0.attn.qkv.weight`: an identifier, then parts of letters, digits and `_`.
pub(crate) fn is_bare(name: &str) -> bool {
    let mut parts = name.split('.');
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    parts.next().is_some_and(is_identifier) && parts.all(word)
}

fn attributes(op: &Op) -> String {
    let list: Vec<String> = op.attributes().iter().map(|(name, value)| format!("{name}: {value}")).collect();
    if list.is_empty() { String::new() } else { format!(" {{{}}}", list.join(", ")) }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // `{:?}` prints the shortest digits that read back to the same bits.
            Attribute::Number(x) => write!(f, "{x:?}"),
            Attribute::Scalar(x) => write!(f, "{x}"),
            Attribute::Count(x) => write!(f, "{x}"),
            Attribute::Flag(x) => write!(f, "{x}"),
            Attribute::DType(x) => write!(f, "{}", x.name()),
            Attribute::Type(x) => write!(f, "{x}"),
            Attribute::Dim(x) => write!(f, "{x}"),
            Attribute::Dims(x) => write!(f, "[{}]", x.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ")),
            Attribute::Axes(x) => write!(f, "[{}]", x.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}
