//! JSON of an inference request: unknown fields are skipped, lists are short, and only tensors take memory.

use super::tensor::Floats;
use crate::error::InferError;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// JSON of a request. Null means absent, everywhere.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    #[serde(deserialize_with = "text")]
    pub id: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub parameters: Parameters,
    #[serde(deserialize_with = "few")]
    pub inputs: Vec<Object<Input>>,
    #[serde(deserialize_with = "few")]
    pub outputs: Vec<Object<Output>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Input {
    #[serde(deserialize_with = "text")]
    pub name: Option<String>,
    #[serde(deserialize_with = "text")]
    pub datatype: Option<String>,
    #[serde(deserialize_with = "few")]
    pub shape: Vec<Size>,
    #[serde(deserialize_with = "nullable")]
    pub parameters: Parameters,
    pub data: Option<Floats>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Output {
    #[serde(deserialize_with = "text")]
    pub name: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub parameters: Parameters,
}

/// The JSON of a request for the index.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Index {
    pub ready: Parameter,
}

/// The supported parameters of a request, an input or an output.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    pub timeout: Parameter,
    pub binary_data_output: Parameter,
    pub binary_data_size: Parameter,
    pub binary_data: Parameter,
    pub shared_memory_region: Parameter,
    pub classification: Parameter,
    pub class_count: Parameter,
}

/// A parameter's value, as far as it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Parameter {
    #[default]
    Absent,
    Whole(u64),
    Flag(bool),
    Other,
}

impl Parameter {
    /// True if the request has it, with any value but null.
    pub fn is_there(self) -> bool {
        self != Self::Absent
    }

    /// A non-negative integer, if present.
    ///
    /// # Errors
    /// [`InferError::Invalid`] for anything else.
    pub fn whole(self, name: &str) -> Result<Option<u64>, InferError> {
        match self {
            Self::Absent => Ok(None),
            Self::Whole(number) => Ok(Some(number)),
            _ => Err(InferError::Invalid(format!("the parameter `{name}` must be a non-negative integer"))),
        }
    }

    /// A boolean, if present.
    ///
    /// # Errors
    /// [`InferError::Invalid`] for anything else.
    pub fn flag(self, name: &str) -> Result<Option<bool>, InferError> {
        match self {
            Self::Absent => Ok(None),
            Self::Flag(flag) => Ok(Some(flag)),
            _ => Err(InferError::Invalid(format!("the parameter `{name}` must be true or false"))),
        }
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Value)
    }
}

/// Keeps numbers and booleans, and skips the rest.
struct Value;

impl<'de> Visitor<'de> for Value {
    type Value = Parameter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Parameter, E> {
        Ok(Parameter::Whole(number))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Parameter, E> {
        Ok(Parameter::Flag(flag))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Parameter, E> {
        Ok(Parameter::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Parameter, E> {
        Ok(Parameter::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Parameter, E> {
        Ok(Parameter::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Parameter, E> {
        Ok(Parameter::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parameter, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Parameter::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parameter, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Parameter::Other)
    }
}

/// A dimension of a shape. Negative ones are refused later, where the model's input is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub i128);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeNumber)
    }
}

struct WholeNumber;

impl Visitor<'_> for WholeNumber {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer in `shape`")
    }

    fn visit_u64<E: Error>(self, size: u64) -> Result<Size, E> {
        Ok(Size(size.into()))
    }

    fn visit_i64<E: Error>(self, size: i64) -> Result<Size, E> {
        Ok(Size(size.into()))
    }
}

/// What a structure is called in error messages.
pub(super) trait Described {
    const WANTED: &'static str;
}

impl Described for Request {
    const WANTED: &'static str = "an object with `inputs`";
}

impl Described for Input {
    const WANTED: &'static str = "an input as an object with `name`, `shape`, `datatype` and `data`";
}

impl Described for Output {
    const WANTED: &'static str = "an output as an object with `name`";
}

impl Described for Index {
    const WANTED: &'static str = "an object, with `ready` or empty,";
}

impl Described for Parameters {
    const WANTED: &'static str = "an object as `parameters`";
}

/// A structure that is written as an object; serde would take an array of its fields too.
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de> + Described> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Described> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WANTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// Reads an object, or null.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de> + Described,
{
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0).unwrap_or_default())
}

/// Reads text, or null.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

/// Maximum length of a list that is not a tensor.
const FEW: usize = 64;

/// Reads a list that is short in any sensible request; null is an empty one.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(Few(PhantomData))
}

struct Few<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {FEW}")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            if all.len() == FEW {
                return Err(A::Error::invalid_length(FEW + 1, &self));
            }
            all.push(item);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_what_they_are_in_json() {
        let read = |text: &str| serde_json::from_str::<Parameters>(text).unwrap();
        for (value, whole, flag) in [
            ("7", Some(7), None),
            ("true", None, Some(true)),
            ("-1", None, None),
            ("1.5", None, None),
            ("\"7\"", None, None),
            ("[{\"\": [0]}]", None, None),
            ("{\"a\": {\"b\": null}}", None, None),
        ] {
            let timeout = read(&format!("{{\"other\": {value}, \"timeout\": {value}, \"\": {{}}}}")).timeout;
            assert!(timeout.is_there(), "{value}");
            assert_eq!((timeout.whole("x").ok().flatten(), timeout.flag("x").ok().flatten()), (whole, flag), "{value}");
        }
        assert_eq!(read("{}").timeout, Parameter::Absent);
        assert_eq!(read("{\"timeout\": null}").timeout, Parameter::Absent);
        assert_eq!(read("{}").timeout.whole("x").unwrap(), None);
    }

    #[test]
    fn lists_are_short() {
        let read = |outputs: usize, sizes: usize| {
            let outputs = vec!["{\"name\": \"\"}"; outputs].join(",");
            let shape = vec!["1"; sizes].join(",");
            let input = format!("{{\"name\": \"\", \"datatype\": \"\", \"shape\": [{shape}]}}");
            serde_json::from_str::<Request>(&format!("{{\"inputs\": [{input}], \"outputs\": [{outputs}]}}"))
        };
        assert!(read(64, 64).is_ok());
        assert!(read(65, 1).is_err_and(|error| error.to_string().contains("at most 64")));
        assert!(read(1, 65).is_err_and(|error| error.to_string().contains("at most 64")));
    }
}
