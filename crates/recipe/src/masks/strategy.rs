//! What a mask strategy is, and the table of them.
//!
//! A new one is a file beside `tube.rs` and an entry in [`STRATEGIES`]: see `docs/adding-a-mask.md`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::{Geometry, MaskCollator, MaskError, MaskPair, TubeCollator};
use crate::yaml::{self, Misfit, Node, Value};

/// The strategies that `data.mask_type` names, the default first.
const STRATEGIES: &[&Entry] = &[&Entry::of::<MaskCollator>(), &Entry::of::<TubeCollator>()];

/// Draws the masks of training steps.
///
/// They are a function of the arguments alone, so a resumed run continues with the masks it would have had.
pub trait MaskGenerator: fmt::Debug + Send + Sync {
    /// The pairs of one step, one per entry of the `mask` list, each truncated to the shortest sample of the batch.
    ///
    /// `group` numbers the parts of a step's batch that draw independently of each other, such as the members of a
    /// data-parallel run. Group 0 draws the numbers of a run without groups.
    ///
    /// # Errors
    /// [`MaskError::NoContext`] when every draw of a sample covers the whole clip; [`MaskError::Invalid`] when `batch` is 0.
    fn pairs(&self, seed: u64, step: u64, group: u64, batch: usize) -> Result<Vec<MaskPair>, MaskError>;

    /// Looks for generators that can never leave a context, where building them has not shown it yet.
    ///
    /// # Errors
    /// [`MaskError::NoContext`].
    fn check(&self) -> Result<(), MaskError> {
        Ok(())
    }
}

/// A mask generator that a configuration can name.
pub trait MaskStrategy: MaskGenerator + Sized + 'static {
    /// The keys of one entry of the `mask` list, read by serde. Their doc comments are their documentation.
    type Params: Serialize + DeserializeOwned + JsonSchema;
    /// What `data.mask_type` calls it.
    const NAME: &'static str;
    /// What it draws, in one sentence.
    const DOC: &'static str;

    /// The entries where the configuration has no `mask` section.
    fn defaults() -> Vec<Self::Params>;

    /// Generators over the token grid of `geometry`, in the order of the `mask` list.
    ///
    /// # Errors
    /// [`MaskError::Invalid`] naming the key, such as `mask[0].ratio`, and the rule it breaks.
    fn new(geometry: Geometry, entries: Vec<Self::Params>) -> Result<Self, MaskError>;
}

/// A strategy without its types: entries of the list are kept as JSON, defaults filled in.
struct Entry {
    name: &'static str,
    doc: &'static str,
    schema: fn() -> Json,
    defaults: fn() -> Vec<Json>,
    read: fn(&Node) -> Result<Json, Misfit>,
    build: Build,
}

/// Builds a strategy from entries that it has read.
type Build = fn(Geometry, &[Json]) -> Result<Box<dyn MaskGenerator>, MaskError>;

impl Entry {
    const fn of<S: MaskStrategy>() -> Self {
        Self {
            name: S::NAME,
            doc: S::DOC,
            schema: yaml::schema::<S::Params>,
            defaults: || S::defaults().iter().map(json).collect(),
            read: |node| yaml::read::<S::Params>(node).map(|entry| json(&entry)),
            build: |geometry, entries| {
                let typed = entries.iter().enumerate().map(|(index, entry)| {
                    serde_json::from_value(entry.clone()).map_err(|error| {
                        MaskError::invalid(format!("mask[{index}]"), format!("cannot be read: {error}"))
                    })
                });
                Ok(Box::new(S::new(geometry, typed.collect::<Result<_, _>>()?)?))
            },
        }
    }
}

/// Structs of numbers serialise; what JSON has no number for (NaN) becomes null, which building refuses.
fn json(entry: &impl Serialize) -> Json {
    serde_json::to_value(entry).unwrap_or_default()
}

/// The name of a mask strategy, as `data.mask_type` has it.
#[derive(Clone, Copy)]
pub struct MaskType(&'static Entry);

impl MaskType {
    /// All strategies, the default first.
    pub fn all() -> impl Iterator<Item = Self> {
        STRATEGIES.iter().copied().map(Self)
    }

    /// The strategy `S`.
    pub fn of<S: MaskStrategy>() -> Self {
        Self(const { &Entry::of::<S>() })
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    pub(crate) fn schema(self) -> Json {
        (self.0.schema)()
    }

    pub(crate) fn defaults(self) -> Vec<Json> {
        (self.0.defaults)()
    }

    /// Reads the entries of a `mask` list; the path of a misfit begins with the entry's number.
    pub(crate) fn read(self, list: &[Node]) -> Result<Vec<Json>, Misfit> {
        let one = |(index, node): (usize, &Node)| {
            // An entry without keys (`- `) is null to YAML.
            let node = match node.value {
                Value::Null => &Node { origin: node.origin, value: Value::Map(Vec::new()) },
                _ => node,
            };
            (self.0.read)(node).map_err(|mut misfit| {
                misfit.path.insert(0, index.to_string());
                misfit
            })
        };
        list.iter().enumerate().map(one).collect()
    }

    pub(crate) fn build(self, geometry: Geometry, entries: &[Json]) -> Result<Box<dyn MaskGenerator>, MaskError> {
        (self.0.build)(geometry, entries)
    }
}

impl Default for MaskType {
    fn default() -> Self {
        Self::of::<MaskCollator>()
    }
}

impl PartialEq for MaskType {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for MaskType {}

impl fmt::Debug for MaskType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "MaskType({})", self.name())
    }
}

impl Serialize for MaskType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for MaskType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::all()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| D::Error::custom(format!("no mask strategy is called `{name}`")))
    }
}

impl JsonSchema for MaskType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MaskType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<Json> =
            Self::all().map(|kind| serde_json::json!({"const": kind.name(), "description": kind.0.doc})).collect();
        json_schema!({"oneOf": words})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_builds_its_defaults_and_depends_on_seed_step_and_group() {
        let clip = Geometry { frames: 16, height: 224, width: 224, tubelet: 2, patch: 16 };
        let mut names = std::collections::BTreeSet::new();
        for kind in MaskType::all() {
            assert!(names.insert(kind.name()), "two strategies are called {}", kind.name());
            let defaults = kind.defaults();
            let masks = kind.build(clip, &defaults).unwrap();
            masks.check().unwrap();
            let draw = |seed, step, group| masks.pairs(seed, step, group, 2).unwrap();
            assert_eq!(draw(1, 9, 0).len(), defaults.len());
            assert_eq!(draw(1, 9, 3), draw(1, 9, 3));
            for other in [draw(2, 9, 0), draw(1, 10, 0), draw(1, 9, 1), draw(1, 9, 1 << 32)] {
                assert_ne!(draw(1, 9, 0), other, "{}", kind.name());
            }
            for pair in draw(1, 9, 1) {
                for (context, target) in pair.context.rows().zip(pair.target.rows()) {
                    assert!(!context.is_empty() && context.iter().all(|token| !target.contains(token)));
                }
            }
        }
        assert_eq!(MaskType::all().next(), Some(MaskType::default()));
    }

    #[test]
    fn entries_that_cannot_be_built_name_their_number() {
        let clip = Geometry { frames: 2, height: 32, width: 32, tubelet: 2, patch: 8 };
        let said = MaskType::default().build(clip, &[Json::Null]).unwrap_err().to_string();
        assert!(said.starts_with("`mask[0]` cannot be read"), "{said}");
    }
}
