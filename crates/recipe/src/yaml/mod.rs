//! YAML as a tree in which every value knows where it was written.
//!
//! serde reads typed structs from the tree ([`read`]), so that a value set on the command line is checked like one in the
//! file, and a complaint about a key found long after parsing can still name its line.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::{NonFiniteFloatPolicy, Spanned, Tagged};

use crate::text::short;

mod misfit;
mod read;

pub(crate) use misfit::{Misfit, Wrong, called, nearest};
pub(crate) use read::{expected, read, schema};

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A 1-based line of the text.
    Line(u64),
    /// The n-th `--set`, from 0.
    Set(usize),
}

/// A value and where its key, or the list entry, was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub origin: Origin,
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text.
    Map(Vec<(String, Node)>),
    /// What no key accepts, in words: a tagged value, a mapping whose keys are not names.
    Foreign(String),
}

/// Parses a text, which may have a byte order mark; merge keys (`<<`) and anchors are resolved.
///
/// # Errors
/// The YAML reader's message in one line, with line and column.
pub(crate) fn parse(text: &str) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_saphyr::from_str_with_options(text, options).map_err(|error| one_line(&error.to_string()))
}

/// A message without line breaks, cut to a readable length.
fn one_line(message: &str) -> String {
    short(&message.split_whitespace().collect::<Vec<_>>().join(" "), 400)
}

impl Node {
    /// A tree of JSON values, all of one origin.
    pub fn from_json(json: &serde_json::Value, origin: Origin) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(number.clone()),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(list) => Value::List(list.iter().map(|entry| Self::from_json(entry, origin)).collect()),
            Json::Object(map) => {
                Value::Map(map.iter().map(|(key, value)| (key.clone(), Self::from_json(value, origin))).collect())
            }
        };
        Self { origin, value }
    }

    /// The value of a key, or the entry of a list by its number.
    pub fn get(&self, step: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == step).map(|(_, value)| value),
            Value::List(list) => list.get(step.parse::<usize>().ok()?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Foreign(_) => None,
        }
    }

    /// The value at `section.key`, unless it is null.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, Self::get).filter(|node| node.value != Value::Null)
    }

    /// Where `path` was written: the last `--set` in it, else its line; for a missing key, where the enclosing one was
    /// written.
    pub fn origin_of(&self, path: &str) -> Option<Origin> {
        let mut here = self;
        let mut found = None;
        for step in path.split('.') {
            match here.get(step) {
                Some(next) => here = next,
                None => return found,
            }
            found = Some(here.origin);
        }
        Some(here.latest())
    }

    /// The last `--set` among this node and those below it, else this node's own origin.
    fn latest(&self) -> Origin {
        let below: Vec<&Self> = match &self.value {
            Value::List(list) => list.iter().collect(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Foreign(_) => Vec::new(),
        };
        let sets = below.into_iter().map(Self::latest).filter(|origin| matches!(origin, Origin::Set(_)));
        sets.max().map_or(self.origin, |set| set.max(self.origin))
    }

    /// Gives the node and everything below it one origin.
    pub fn relocate(&mut self, origin: Origin) {
        self.origin = origin;
        match &mut self.value {
            Value::List(list) => list.iter_mut().for_each(|node| node.relocate(origin)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.relocate(origin)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Foreign(_) => {}
        }
    }

    /// The value in words, cut to a readable length, to follow "found".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing (null)".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => format!("the number {number}"),
            Value::Text(text) => format!("the string \"{}\"", short(text, 40)),
            Value::List(list) => format!("a list of {}", list.len()),
            Value::Map(_) => "a mapping".into(),
            Value::Foreign(what) => what.clone(),
        }
    }
}

/// The value as `--set` takes it, in one line.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) | Value::Foreign(text) => f.write_str(text),
            Value::List(list) => {
                let entries: Vec<String> = list.iter().map(Self::to_string).collect();
                write!(f, "[{}]", entries.join(", "))
            }
            Value::Map(entries) => {
                let entries: Vec<String> = entries.iter().map(|(key, node)| format!("{key}: {node}")).collect();
                write!(f, "{{{}}}", entries.join(", "))
            }
        }
    }
}

/// Only from `serde_saphyr`, which knows the lines.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value: Tagged(value, tag), referenced, .. } =
            Spanned::<Tagged<Value>>::deserialize(deserializer)?;
        // YAML's own types (`!!str`) and the plain `!` are no different from writing the value without them.
        let foreign = tag.filter(|tag| tag != "!" && !tag.starts_with("tag:yaml.org,2002:"));
        let value = foreign.map_or(value, |tag| Value::Foreign(format!("a value tagged {}", short(&tag, 40))));
        Ok(Self { origin: Origin::Line(referenced.line()), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    // Beyond 64 bits no key accepts an integer; some accept the nearest f64.
    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or_else(|| Value::Foreign(format!("the number {value}")), Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        let mut foreign = None;
        while let Some(key) = map.next_key::<Node>()? {
            match key.value {
                Value::Text(name) => entries.push((name, Node { origin: key.origin, ..map.next_value()? })),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    foreign.get_or_insert_with(|| format!("a mapping with {} as a key", key.describe()));
                }
            }
        }
        Ok(foreign.map_or(Value::Map(entries), Value::Foreign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "app: vjepa\nmask:\n  - num_blocks: 8\n    max_keep: null\n  - num_blocks: 2\nmodel: {depth: 1,\n  num_heads: 2}\nema: [1,\n  2]\n";

    #[test]
    fn keys_in_mappings_lists_and_flow_style_know_their_line() {
        let root = parse(TEXT).unwrap();
        let line = |path| match root.origin_of(path) {
            Some(Origin::Line(line)) => line,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(line("app"), 1);
        assert_eq!(line("mask"), 2);
        assert_eq!(line("mask.0.max_keep"), 4);
        assert_eq!(line("mask.1.num_blocks"), 5);
        assert_eq!(line("model.num_heads"), 7);
        assert_eq!(line("ema.1"), 9);
        // A missing key is where the enclosing one is.
        assert_eq!(line("model.embed_dim"), 6);
        assert_eq!(root.origin_of("nothing"), None);
    }

    #[test]
    fn the_last_set_below_a_key_is_its_origin() {
        let mut root = parse("a:\n  b: 1\n  c: 2\n").unwrap();
        let Value::Map(entries) = &mut root.value else { panic!() };
        let Value::Map(inner) = &mut entries[0].1.value else { panic!() };
        inner[0].1.relocate(Origin::Set(1));
        assert_eq!(root.origin_of("a.b"), Some(Origin::Set(1)));
        assert_eq!(root.origin_of("a"), Some(Origin::Set(1)));
        assert_eq!(root.origin_of("a.c"), Some(Origin::Line(3)));
        assert_eq!(root.origin_of("a.missing"), Some(Origin::Line(1)));
    }

    #[test]
    fn merge_keys_and_anchors_are_resolved() {
        let root = parse("base: &b {x: 1, y: [1, 2]}\nown:\n  <<: *b\n  x: 2\nsame: *b\n").unwrap();
        assert_eq!(root.at("own").unwrap().to_string(), "{x: 2, y: [1, 2]}");
        assert_eq!(root.at("same.y.1").unwrap().to_string(), "2");
    }

    #[test]
    fn values_that_no_key_accepts_are_described() {
        let found = |text: &str| parse(text).unwrap().get("k").unwrap().describe();
        assert_eq!(found("k: !odd 1"), "a value tagged !odd");
        assert_eq!(found("k: !odd {a: 1}"), "a value tagged !odd");
        assert_eq!(found("k: {1: 2}"), "a mapping with the number 1 as a key");
        assert_eq!(found("k: .nan"), "the string \".nan\"");
        assert_eq!(found("k: yes"), "the string \"yes\"");
        assert_eq!(found("k: !!str 1"), "the string \"1\"");
        assert_eq!(found("k: 99999999999999999999"), "the number 1e+20");
        assert_eq!(found("k: -3"), "the number -3");
        assert_eq!(found("k: ~"), "nothing (null)");
    }

    #[test]
    fn broken_text_is_one_line() {
        for text in ["a: [1", "a: 1\na: 2", "a: b: c", "\"", "a: &x [*x]", "a: *nothing", "a: 1\n---\nb: 2"] {
            let said = parse(text).unwrap_err();
            assert!(!said.contains('\n') && said.len() < 500, "{text:?}: {said}");
        }
    }
}
