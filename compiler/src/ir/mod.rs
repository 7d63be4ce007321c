//! The intermediate representation: SSA, one block, typed values, a closed set of operations.
//!
//! A [`Graph`] owns its values and nodes; nodes stand in topological order. Sources are named inputs (fed at each run)
//! and named parameters (kept between runs; official state-dict names). Results are named outputs, and `updates`, which
//! give parameters their new value when the run is over: a training step is a graph whose updates are the new weights.

mod build;
mod dim;
mod graph;
mod types;

pub use dim::{Dim, Scalar, Sizes};
pub use graph::{Def, Graph, GraphError, Node, NodeId, Value, ValueId};
pub use types::{DType, TensorType};
