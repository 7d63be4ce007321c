//! Finds the line a key stands on, by asking the YAML reader itself.
//!
//! A parsed `Value` has no positions. The reader does attach one to an error raised while it reads, so the text is read a
//! second time by a visitor that walks to the wanted key and raises an error there. That is exact for every way of writing
//! YAML, and costs nothing when the configuration is right.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The 1-based line of the key `path` in `text`, or of its nearest enclosing key that exists; none where the text has
/// neither.
pub(crate) fn line_of(text: &str, path: &str) -> Option<usize> {
    let steps: Vec<&str> = path.split('.').collect();
    (1..=steps.len()).rev().find_map(|depth| {
        let walk = Walk { steps: steps.get(..depth)? };
        let error = walk.deserialize(serde_norway::Deserializer::from_str(text)).err()?;
        if !error.to_string().contains(FOUND) {
            return None;
        }
        error.location().map(|location| location.line())
    })
}

const FOUND: &str = "vjepa-located-key";

struct Walk<'a> {
    steps: &'a [&'a str],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.steps.split_first() else {
            return Ok(());
        };
        while let Some(hit) = map.next_key_seed(Key { wanted, last: rest.is_empty() })? {
            if hit {
                map.next_value_seed(Walk { steps: rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.steps.split_first() else {
            return Ok(());
        };
        let mut index = 0usize;
        let wanted = wanted.parse::<usize>().ok();
        loop {
            let more = if wanted == Some(index) {
                seq.next_element_seed(Element { steps: rest })?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    // Scalars end the walk without finding anything.
    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// One key of a mapping: raises the error on the wanted last key, says whether it is the wanted one otherwise.
struct Key<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        let hit = key == self.wanted;
        if hit && self.last { Err(E::custom(FOUND)) } else { Ok(hit) }
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// An element of a list: raises the error where the list index was the last step.
struct Element<'a> {
    steps: &'a [&'a str],
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            deserializer.deserialize_any(Stop)
        } else {
            Walk { steps: self.steps }.deserialize(deserializer)
        }
    }
}

struct Stop;

impl<'de> Visitor<'de> for Stop {
    type Value = ();

    // The reader asks for this text when a visitor refuses what it met, and attaches the position.
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(FOUND)
    }
}

#[cfg(test)]
mod tests {
    use super::line_of;

    const TEXT: &str = "app: vjepa\nmask:\n  - num_blocks: 8\n    max_keep: null\n  - num_blocks: 2\nmodel: {depth: 1,\n  num_heads: 2}\nema: [1,\n  2]\n";

    #[test]
    fn keys_in_mappings_lists_and_flow_style() {
        assert_eq!(line_of(TEXT, "app"), Some(1));
        assert_eq!(line_of(TEXT, "mask"), Some(2));
        assert_eq!(line_of(TEXT, "mask.0.max_keep"), Some(4));
        assert_eq!(line_of(TEXT, "mask.1.num_blocks"), Some(5));
        assert_eq!(line_of(TEXT, "model.num_heads"), Some(7));
        assert_eq!(line_of(TEXT, "ema.1"), Some(9));
    }

    #[test]
    fn a_missing_key_gives_the_enclosing_one() {
        assert_eq!(line_of(TEXT, "model.embed_dim"), Some(6));
        assert_eq!(line_of(TEXT, "nothing"), None);
        assert_eq!(line_of(": : :", "nothing"), None);
    }
}
