//! The graph itself and the builder that keeps it well typed.

use super::TensorType;
use crate::ops::{Op, TypeError};

/// Index of a value in [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// Index of a node in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Def {
    /// Fed at each run, under this name.
    Input(String),
    /// Kept between runs, under this (official) name.
    Param(String),
    /// The `output`-th result of a node.
    Node {
        /// The defining node.
        node: NodeId,
        /// Which of its results.
        output: usize,
    },
}

/// One SSA value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Type of the value.
    pub ty: TensorType,
    /// Where it comes from.
    pub def: Def,
    /// A name for the reader of the text form, on results of nodes only; see [`Graph::name_value`].
    pub name: Option<String>,
}

/// One operation applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// Operands, in the order the operation documents.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
}

/// Building or changing a graph failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// The operands do not fit the operation.
    #[error("{op}: {source}")]
    Type {
        /// Operation name.
        op: &'static str,
        /// What does not fit.
        source: TypeError,
    },
    /// Two inputs or parameters share a name.
    #[error("the name `{0}` is used twice in the graph")]
    DuplicateName(String),
    /// A value id of another graph, or of a value that is not defined yet.
    #[error("value %{0} is not defined in this graph")]
    UnknownValue(usize),
    /// A parameter would get two new values in one run.
    #[error("parameter `{0}` is updated twice")]
    DuplicateUpdate(String),
    /// Anything else that a pass or an importer cannot do.
    #[error("{0}")]
    Other(String),
}

/// A computation: see the [module documentation](super).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    /// What the graph computes, `encoder`, `step`, ...
    pub name: String,
    /// Symbols its shapes may use, in the order they are printed.
    pub symbols: Vec<String>,
    /// All values.
    pub values: Vec<Value>,
    /// All nodes, in topological order.
    pub nodes: Vec<Node>,
    /// Input values, in order.
    pub inputs: Vec<ValueId>,
    /// Parameter values, in order.
    pub params: Vec<ValueId>,
    /// Named results, in order.
    pub outputs: Vec<(String, ValueId)>,
    /// `(parameter, its value after the run)`.
    pub updates: Vec<(ValueId, ValueId)>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str, symbols: &[&str]) -> Self {
        Self { name: name.to_owned(), symbols: symbols.iter().map(|s| (*s).to_owned()).collect(), ..Self::default() }
    }

    /// The value `id`. Ids come from this graph's own builder, so an unknown one is a bug of the caller.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// Type of the value `id`.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.values[id.0].ty
    }

    /// Declares an input.
    ///
    /// # Errors
    /// [`GraphError::DuplicateName`]; [`GraphError::Other`] when the shape is not [tame](TensorType::is_tame).
    pub fn input(&mut self, name: &str, ty: TensorType) -> Result<ValueId, GraphError> {
        self.check_source(name, &ty)?;
        let id = self.push_value(ty, Def::Input(name.to_owned()));
        self.inputs.push(id);
        Ok(id)
    }

    /// Declares a parameter.
    ///
    /// # Errors
    /// [`GraphError::DuplicateName`]; [`GraphError::Other`] when the shape is not [tame](TensorType::is_tame).
    pub fn param(&mut self, name: &str, ty: TensorType) -> Result<ValueId, GraphError> {
        self.check_source(name, &ty)?;
        let id = self.push_value(ty, Def::Param(name.to_owned()));
        self.params.push(id);
        Ok(id)
    }

    /// Appends a node; result types are inferred by the operation.
    ///
    /// # Errors
    /// [`GraphError::Type`] when the operands do not fit, [`GraphError::UnknownValue`].
    pub fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
        let mut types = Vec::with_capacity(inputs.len());
        for id in inputs {
            types.push(&self.values.get(id.0).ok_or(GraphError::UnknownValue(id.0))?.ty);
        }
        let results = op.infer(&types).map_err(|source| GraphError::Type { op: op.name(), source })?;
        let node = NodeId(self.nodes.len());
        let outputs: Vec<ValueId> = results
            .into_iter()
            .enumerate()
            .map(|(output, ty)| self.push_value(ty, Def::Node { node, output }))
            .collect();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        Ok(outputs)
    }

    /// [`Graph::push`] for operations with one result.
    ///
    /// # Errors
    /// As [`Graph::push`]; [`GraphError::Other`] when the operation has several results.
    pub fn push1(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        let name = op.name();
        match self.push(op, inputs)?.as_slice() {
            [single] => Ok(*single),
            several => Err(GraphError::Other(format!("{name} has {} results, one was expected", several.len()))),
        }
    }

    /// Gives a node's result a name, which the text form prints as `%name` in place of a number. Passes keep the names of
    /// the values they keep; a serialised graph has none.
    ///
    /// # Errors
    /// [`GraphError::Other`] when `id` is not a node's result; [`GraphError::DuplicateName`].
    pub fn name_value(&mut self, id: ValueId, name: &str) -> Result<(), GraphError> {
        if self.values.iter().any(|value| value.name.as_deref() == Some(name)) {
            return Err(GraphError::DuplicateName(format!("%{name}")));
        }
        let value = self.values.get_mut(id.0).ok_or(GraphError::UnknownValue(id.0))?;
        match value.def {
            Def::Node { .. } => value.name = Some(name.to_owned()),
            Def::Input(_) | Def::Param(_) => {
                return Err(GraphError::Other(format!("`{name}` would rename an input or a parameter")));
            }
        }
        Ok(())
    }

    /// Declares an output, a result under this name.
    pub fn output(&mut self, name: &str, value: ValueId) {
        self.outputs.push((name.to_owned(), value));
    }

    /// Gives `param` the value `new` after the run.
    ///
    /// # Errors
    /// [`GraphError::DuplicateUpdate`]; [`GraphError::Other`] when `param` is not a parameter or the types differ.
    pub fn update(&mut self, param: ValueId, new: ValueId) -> Result<(), GraphError> {
        let Def::Param(name) = &self.value(param).def else {
            return Err(GraphError::Other(format!("%{} is updated but is not a parameter", param.0)));
        };
        if self.updates.iter().any(|(p, _)| *p == param) {
            return Err(GraphError::DuplicateUpdate(name.clone()));
        }
        if self.ty(param) != self.ty(new) {
            let (from, to) = (self.ty(param), self.ty(new));
            return Err(GraphError::Other(format!("parameter `{name}` is {from} but its update is {to}")));
        }
        self.updates.push((param, new));
        Ok(())
    }

    /// The parameter or input called `name`.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.params.iter().chain(&self.inputs).copied().find(|id| self.source_name(*id) == Some(name))
    }

    /// The result called `name`.
    pub fn find_output(&self, name: &str) -> Option<ValueId> {
        self.outputs.iter().find(|(n, _)| n == name).map(|(_, id)| *id)
    }

    /// The name of an input or parameter.
    pub fn source_name(&self, id: ValueId) -> Option<&str> {
        match &self.value(id).def {
            Def::Input(name) | Def::Param(name) => Some(name),
            Def::Node { .. } => None,
        }
    }

    /// Values that must be computed: outputs and updates.
    pub fn roots(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.outputs.iter().map(|(_, id)| *id).chain(self.updates.iter().map(|(_, id)| *id))
    }

    fn push_value(&mut self, ty: TensorType, def: Def) -> ValueId {
        self.values.push(Value { ty, def, name: None });
        ValueId(self.values.len() - 1)
    }

    fn check_source(&self, name: &str, ty: &TensorType) -> Result<(), GraphError> {
        if !ty.is_tame() {
            return Err(GraphError::Other(format!("the shape of `{name}` is too complicated")));
        }
        match self.find(name) {
            Some(_) => Err(GraphError::DuplicateName(name.to_owned())),
            None => Ok(()),
        }
    }
}
