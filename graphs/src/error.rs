//! What can be wrong with a configuration, an input or a set of weights.

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
