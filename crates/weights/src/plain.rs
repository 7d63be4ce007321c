//! Plain Python values: the counters and settings that an official checkpoint holds beside its tensors.

use serde::{Deserialize, Serialize};

use super::heap::{Heap, Id, Value};

/// Deepest nesting of a plain value, and most values in one: optimiser groups have a few hundred.
const DEEPEST: usize = 16;
const MOST: usize = 1 << 20;

/// A Python value without tensors or objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plain {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float; as text it keeps every bit.
    Float(#[serde(with = "as_text")] f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Plain>),
    /// A tuple.
    Tuple(Vec<Plain>),
    /// A dictionary, in order.
    Dict(Vec<(Plain, Plain)>),
}

mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Plain {
    /// A value of a pickle; none where it is or holds something else. Entries of dictionaries that are something else are
    /// left out.
    pub(super) fn of(heap: &Heap, id: Id) -> Option<Self> {
        read(heap, id, DEEPEST, &mut 0)
    }

    /// A key of a dictionary.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(items) = self else { return None };
        items.iter().rev().find(|(name, _)| matches!(name, Self::Text(text) if text == key)).map(|(_, value)| value)
    }

    /// The number, where it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The count, where it is one.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A dictionary with keys of text.
    pub fn dict<const N: usize>(items: [(&str, Self); N]) -> Self {
        Self::Dict(items.into_iter().map(|(key, value)| (Self::Text(key.to_owned()), value)).collect())
    }
}

fn read(heap: &Heap, id: Id, depth: usize, seen: &mut usize) -> Option<Plain> {
    *seen += 1;
    if *seen > MOST {
        return None;
    }
    let inner = depth.checked_sub(1);
    let mut all = |elements: &[Id]| -> Option<Vec<Plain>> {
        let depth = inner?;
        elements.iter().map(|element| read(heap, *element, depth, seen)).collect()
    };
    Some(match heap.value(id) {
        Value::None => Plain::None,
        Value::Bool(value) => Plain::Bool(*value),
        Value::Int(number) => Plain::Int(i64::try_from(*number).ok()?),
        Value::Float(number) => Plain::Float(*number),
        Value::Text(text) => Plain::Text(text.to_string()),
        Value::List(elements) => Plain::List(all(elements)?),
        Value::Tuple(elements) => Plain::Tuple(all(elements)?),
        Value::Dict(items) => {
            let depth = inner?;
            let item =
                |(key, value): &(Id, Id)| Some((read(heap, *key, depth, seen)?, read(heap, *value, depth, seen)?));
            Plain::Dict(items.iter().filter_map(item).collect())
        }
        Value::Global(_) | Value::Object(_) | Value::Persistent(_) | Value::Opaque => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_a_value_survives_json() {
        for value in [0.1, 6.058669775501642e-05, f64::MIN_POSITIVE, f64::INFINITY, -0.0, 1.0 / 3.0] {
            let text = serde_json::to_string(&Plain::Float(value)).unwrap();
            let Plain::Float(back) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
            assert_eq!(back.to_bits(), value.to_bits(), "{text}");
        }
        let whole = Plain::dict([
            ("betas", Plain::Tuple(vec![Plain::Float(0.9), Plain::Int(1)])),
            ("params", Plain::List(vec![Plain::Int(-3)])),
            ("foreach", Plain::None),
            ("amsgrad", Plain::Bool(false)),
        ]);
        assert_eq!(serde_json::from_str::<Plain>(&serde_json::to_string(&whole).unwrap()).unwrap(), whole);
        assert_eq!(whole.get("foreach"), Some(&Plain::None));
    }
}
