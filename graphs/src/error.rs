//! Errors about configurations and inputs.

/// A configuration that does not describe a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {rule}")]
pub struct ConfigError {
    /// The offending key.
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
    /// The expected shape, in words.
    pub expected: String,
    /// The actual shape.
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
