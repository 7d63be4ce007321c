//! What can be wrong with a configuration, an input or a set of weights.

use std::fmt;

/// A configuration that no model can be built from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {rule}")]
pub struct ConfigError {
    /// The key at fault.
    pub key: &'static str,
    /// What it must be, and what it is.
    pub rule: String,
}

impl ConfigError {
    pub(crate) fn new(key: &'static str, rule: impl Into<String>) -> Self {
        Self { key, rule: rule.into() }
    }
}

/// An input whose shape does not fit the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{input} must be {expected}, got {got:?}")]
pub struct ShapeError {
    /// Which input.
    pub input: &'static str,
    /// The shape the model takes, in words.
    pub expected: String,
    /// The shape it was given.
    pub got: Vec<usize>,
}

impl ShapeError {
    pub(crate) fn require(
        holds: bool,
        input: &'static str,
        got: &[usize],
        expected: impl FnOnce() -> String,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { input, expected: expected(), got: got.to_vec() }) }
    }
}

/// A tensor of another shape than the parameter of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Name of the parameter.
    pub name: String,
    /// Shape of the parameter.
    pub expected: Vec<usize>,
    /// Shape of the tensor.
    pub got: Vec<usize>,
    /// Number of values of the tensor (which may differ from what its shape says).
    pub values: usize,
}

/// Weights that do not fit a module: every name at fault is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// Parameters for which there is no tensor.
    pub missing: Vec<String>,
    /// Tensors for which there is no parameter.
    pub unexpected: Vec<String>,
    /// Tensors of the wrong shape.
    pub misshapen: Vec<Misshapen>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the weights do not fit the model")?;
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        for Misshapen { name, expected, got, values } in &self.misshapen {
            write!(f, "; {name} must be {expected:?}, got {got:?} with {values} values")?;
        }
        Ok(())
    }
}
