//! Tensors as JSON arrays, flat or nested, without an intermediate tree of values.

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// Numbers of an array, row-major, and how the array was nested.
#[derive(Debug, Default)]
pub(super) struct Floats {
    pub values: Vec<f32>,
    /// Elements of the arrays at each depth; one number for a flat array.
    pub nesting: Vec<usize>,
}

impl<'de> Deserialize<'de> for Floats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Collected::default();
        deserializer.deserialize_any(Element { all: &mut all, depth: 0 })?;
        let nesting = all.nesting.into_iter().map(|elements| elements.unwrap_or(0)).collect();
        Ok(Self { values: all.values, nesting })
    }
}

/// State of reading.
#[derive(Default)]
struct Collected {
    values: Vec<f32>,
    /// Elements of the arrays at each depth; none until the first of them ended.
    nesting: Vec<Option<usize>>,
    /// The depth of numbers, once there was one.
    leaves: Option<usize>,
}

/// A number, or an array of elements one deeper; serde_json bounds the depth.
struct Element<'a> {
    all: &'a mut Collected,
    depth: usize,
}

impl Element<'_> {
    fn push<E: Error>(self, value: f32) -> Result<(), E> {
        let Self { all, depth } = self;
        if depth == 0 {
            return Err(E::custom("`data` is a number; it must be an array of the tensor's values"));
        }
        if all.nesting.len() != depth || all.leaves.is_some_and(|leaves| leaves != depth) {
            return Err(E::custom("`data` mixes numbers and arrays; write it flat, or nested as `shape` says"));
        }
        all.leaves = Some(depth);
        all.values.push(value);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number in the range of FP32, or an array of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { all, depth } = self;
        if all.leaves == Some(depth) {
            return Err(A::Error::custom("`data` mixes numbers and arrays; write it flat, or nested as `shape` says"));
        }
        if all.nesting.len() == depth {
            all.nesting.push(None);
        }
        let mut count = 0;
        while items.next_element_seed(Element { all: &mut *all, depth: depth + 1 })?.is_some() {
            count += 1;
        }
        match all.nesting.get_mut(depth) {
            Some(Some(other)) if *other != count => Err(A::Error::custom(format!(
                "the arrays of `data` are ragged: at depth {} one has {other} elements and another {count}",
                depth + 1
            ))),
            Some(elements) => {
                *elements = Some(count);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let narrow = value as f32;
        if !narrow.is_finite() {
            return Err(E::custom(format!("`data` has {value:e}, which FP32 cannot hold")));
        }
        self.push(narrow)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.push(value as f32)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.push(value as f32)
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Values of a result; JSON has no NaN and no infinity, they become `null`.
pub(super) struct Written<'a>(pub &'a [f32]);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_flat_and_nested() {
        let read = |text: &str| serde_json::from_str::<Floats>(text).map(|floats| (floats.values, floats.nesting));
        assert_eq!(read("[1, -2.5, 3e2]").unwrap(), (vec![1.0, -2.5, 300.0], vec![3]));
        assert_eq!(read("[[[1], [2]], [[3], [4]]]").unwrap(), (vec![1.0, 2.0, 3.0, 4.0], vec![2, 2, 1]));
        assert_eq!(read("[[], []]").unwrap(), (vec![], vec![2, 0]));
        for bad in ["1", "[\"1\"]", "[null]", "[1e300]", "[true]", "[{}]", "[1", "[NaN]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        for ragged in ["[[1], [2, 3]]", "[[1], []]", "[[[1]], [[2], [3]]]", "[[1, 2], [3]]"] {
            assert!(read(ragged).unwrap_err().to_string().contains("are ragged"), "{ragged}");
        }
        for mixed in ["[1, [2]]", "[[1], 2]", "[[], 1]", "[[1], [[2]]]", "[[[1]], [2]]"] {
            assert!(read(mixed).unwrap_err().to_string().contains("mixes numbers and arrays"), "{mixed}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
        assert_eq!(serde_json::to_string(&Written(&[0.1, f32::NAN])).unwrap(), "[0.1,null]");
    }
}
