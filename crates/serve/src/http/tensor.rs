//! Tensors as JSON arrays, flat or nested, read and written without a tree of values in between.

use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// Numbers of an array, row-major.
#[derive(Debug, Default)]
pub(super) struct Floats(pub Vec<f32>);

impl<'de> Deserialize<'de> for Floats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Vec::new();
        deserializer.deserialize_seq(Flat(&mut all))?;
        Ok(Self(all))
    }
}

/// Collects numbers at any depth; serde_json bounds the depth.
struct Flat<'a>(&'a mut Vec<f32>);

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number that FP32 can hold, or an array of such")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Flat(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let narrow = value as f32;
        if !narrow.is_finite() {
            return Err(E::invalid_value(Unexpected::Float(value), &self));
        }
        self.0.push(narrow);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.push(value as f32);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.push(value as f32);
        Ok(())
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Flat<'_> {
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
        let read = |text: &str| serde_json::from_str::<Floats>(text).map(|floats| floats.0);
        assert_eq!(read("[1, -2.5, 3e2]").unwrap(), [1.0, -2.5, 300.0]);
        assert_eq!(read("[[[1], [2]], [[3], [4]]]").unwrap(), [1.0, 2.0, 3.0, 4.0]);
        for bad in ["1", "[\"1\"]", "[null]", "[1e300]", "[true]", "[{}]", "[1", "[NaN]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
        assert_eq!(serde_json::to_string(&Written(&[0.1, f32::NAN])).unwrap(), "[0.1,null]");
    }
}
