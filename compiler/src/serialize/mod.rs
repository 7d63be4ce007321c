//! Compiled graphs as bytes (`*.vjg`): protocol buffers, decoded strictly.
//!
//! A file holds a graph, the plan that runs it, and a record of what it was compiled for: text by key, which means
//! something to who writes and reads the file and nothing here. Values are numbered as the [text form](crate::text)
//! numbers them, inputs and parameters first. `message.rs` is the format, `graph.rs` the way from and to a [`Graph`].
//!
//! Bytes from outside are read in time and memory proportional to their number, and what comes out holds: the graph
//! [verifies](crate::verify::verify) and the plan [fits it](Plan::check).

mod graph;
mod message;

use crate::ir::{Graph, GraphError, NodeId, ValueId};
use crate::plan::{Plan, PlanError, Step};
use crate::verify::{VerifyError, verify};
use message::{FileMessage, StepMessage};
use prost::Message;
use std::collections::BTreeMap;

/// First field of every file.
const FORMAT: &str = "vjepa graph";
/// Version of the format, raised when readers of the version before would misread a new file.
pub const VERSION: u32 = 2;

/// What a file was compiled for: text by key.
pub type Record = BTreeMap<String, String>;

/// A compiled graph: all that is needed to run it, but for the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// The graph, in [canonical](Graph::canonical) numbering.
    pub graph: Graph,
    /// How it is run.
    pub plan: Plan,
    /// What it was compiled for.
    pub record: Record,
}

impl Artifact {
    /// Plans a graph.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn new(graph: &Graph, record: Record) -> Result<Self, PlanError> {
        let graph = graph.canonical();
        let plan = Plan::new(&graph)?;
        Ok(Self { graph, plan, record })
    }
}

/// Bytes that are not a compiled graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// No protocol buffer.
    #[error("not a compiled graph: {0}")]
    Protobuf(String),
    /// A protocol buffer of something else.
    #[error("not a compiled graph")]
    Format,
    /// A file of another version of the format.
    #[error("a compiled graph of format {version}, and this program reads format {VERSION}")]
    Version {
        /// The file's version.
        version: u32,
    },
    /// A field without which the graph cannot be built.
    #[error("{at}: {why}")]
    Field {
        /// The node or source, in words.
        at: String,
        /// What is missing or unknown.
        why: String,
    },
    /// Operands that do not fit.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A graph that is not well formed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A plan that does not run the graph.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// The bytes of a compiled graph, the same at every call. The graph must be in canonical numbering, as
/// [`Artifact::new`] leaves it.
pub fn encode(artifact: &Artifact) -> Vec<u8> {
    let mut message = graph::encode(&artifact.graph);
    message.format = FORMAT.to_owned();
    message.version = VERSION;
    message.steps = artifact.plan.steps.iter().map(encode_step).collect();
    message.record = artifact.record.clone();
    message.encode_to_vec()
}

fn encode_step(step: &Step) -> StepMessage {
    StepMessage {
        node: step.node.0 as u64,
        in_place: step.in_place.iter().flat_map(|(operand, result)| [*operand as u64, *result as u64]).collect(),
        frees: step.frees.iter().map(|id| id.0 as u64).collect(),
    }
}

/// Reads what [`encode`] wrote. Every declared type is checked, the graph verified, and the plan checked against it.
///
/// # Errors
/// [`DecodeError`]; no input panics.
pub fn decode(bytes: &[u8]) -> Result<Artifact, DecodeError> {
    let message = FileMessage::decode(bytes).map_err(|error| DecodeError::Protobuf(error.to_string()))?;
    if message.format != FORMAT {
        return Err(DecodeError::Format);
    }
    if message.version != VERSION {
        return Err(DecodeError::Version { version: message.version });
    }
    let graph = graph::decode(&message)?;
    verify(&graph)?;
    let plan = Plan { steps: message.steps.iter().map(decode_step).collect::<Result<_, _>>()? };
    plan.check(&graph)?;
    Ok(Artifact { graph, plan, record: message.record })
}

fn decode_step(step: &StepMessage) -> Result<Step, DecodeError> {
    let wrong = |why: &str| field(format!("the plan's step for node {}", step.node), why);
    let number = |n: u64| usize::try_from(n).map_err(|_| wrong("a number is too large"));
    let (pairs, rest) = step.in_place.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong("an operand to overwrite has no result"));
    }
    Ok(Step {
        node: NodeId(number(step.node)?),
        in_place: pairs
            .iter()
            .map(|[operand, result]| Ok((number(*operand)?, number(*result)?)))
            .collect::<Result<_, DecodeError>>()?,
        frees: step.frees.iter().map(|id| number(*id).map(ValueId)).collect::<Result<_, _>>()?,
    })
}

fn field(at: impl Into<String>, why: impl Into<String>) -> DecodeError {
    DecodeError::Field { at: at.into(), why: why.into() }
}

#[cfg(test)]
mod tests;
