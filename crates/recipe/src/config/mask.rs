//! The `mask` section: a list of mask generators, each of which yields one (context, target) pair per step.

use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::error::ConfigError;
use crate::masks::{Geometry, MaskCollator, MaskError, MaskGenerator, MaskStrategy, MaskType, MultiBlockConfig};
use crate::yaml::{Misfit, Node, Value};

/// The entries of `mask`, all of the strategy that `data.mask_type` names. Serialises as the list of its entries.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskConfig {
    kind: MaskType,
    /// The parameters of each generator, defaults filled in.
    entries: Vec<Json>,
}

impl Default for MaskConfig {
    /// The two official generators: eight short-range blocks, two long-range ones.
    fn default() -> Self {
        Self::of(MaskType::default())
    }
}

impl MaskConfig {
    /// The default generators of a strategy.
    pub fn of(kind: MaskType) -> Self {
        Self { kind, entries: kind.defaults() }
    }

    /// The generator of images in V-JEPA 2.1's recipes: ten blocks of 15 % of the area.
    pub fn images() -> Self {
        Self::new::<MaskCollator>(&[MultiBlockConfig::blocks(10, 0.15)])
    }

    /// Generators of the strategy `S`.
    pub fn new<S: MaskStrategy>(entries: &[S::Params]) -> Self {
        // Structs of numbers serialise; what JSON has no number for (NaN) becomes null, which building refuses.
        let entries = entries.iter().map(|entry| serde_json::to_value(entry).unwrap_or_default());
        Self { kind: MaskType::of::<S>(), entries: entries.collect() }
    }

    /// Reads the list; absent or null means the defaults of the strategy.
    pub(super) fn read(kind: MaskType, node: Option<&Node>) -> Result<Self, Misfit> {
        match node.map(|node| &node.value) {
            Some(Value::List(list)) => Ok(Self { kind, entries: kind.read(list)? }),
            _ => Ok(Self::of(kind)),
        }
    }

    /// The strategy of all entries.
    pub fn kind(&self) -> MaskType {
        self.kind
    }

    /// The parameters of each generator; none where they are those of another strategy.
    pub fn entries<P: DeserializeOwned>(&self) -> Option<Vec<P>> {
        self.entries.iter().map(|entry| serde_json::from_value(entry.clone()).ok()).collect()
    }

    /// Mask generators: the (context, target) pairs of a step, and the mask tokens of the predictor.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True for an empty list, which validation refuses.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What draws the masks of clips of this geometry.
    ///
    /// # Errors
    /// [`MaskError::Invalid`] for parameters out of range.
    pub fn build(&self, geometry: Geometry) -> Result<Box<dyn MaskGenerator>, MaskError> {
        self.kind.build(geometry, &self.entries)
    }

    /// Builds the generators and draws from them: parameters out of range and masks that leave no context show up here.
    pub(super) fn check(&self, section: &str, geometry: Geometry) -> Result<(), ConfigError> {
        let own = |key: &str| match key.strip_prefix("mask") {
            Some(inner) => format!("{section}{inner}"),
            None => key.to_owned(),
        };
        self.build(geometry).and_then(|masks| masks.check()).map_err(|error| match error {
            // `mask[0].ratio` is `mask.0.ratio` in overrides and here.
            MaskError::Invalid { key, rule } => ConfigError::rule(own(&key.replace('[', ".").replace(']', "")), rule),
            MaskError::NoContext { generator, .. } => ConfigError::rule(
                own(&format!("mask.{generator}")),
                "leaves no context: its masks cover every token; make them smaller or fewer",
            ),
        })
    }
}

impl Serialize for MaskConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}
