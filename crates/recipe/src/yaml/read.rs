//! Typed structs from a tree, by their serde derives; the schema of the same structs words what was expected.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value as Json;

use super::{Misfit, Node, Value};

/// Reads a struct. Unknown keys and values of another type are refused, whatever serde would make of them.
///
/// # Errors
/// The first key that does not fit.
pub(crate) fn read<T: DeserializeOwned + JsonSchema>(node: &Node) -> Result<T, Misfit> {
    serde_path_to_error::deserialize(node).map_err(|error| {
        let path = error.path().iter().filter_map(|segment| match segment {
            serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
            serde_path_to_error::Segment::Map { key } => Some(key.clone()),
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
        });
        Misfit::find(node, &schema::<T>(), path.collect())
    })
}

/// The JSON schema of a type, nested types spelled out.
pub(crate) fn schema<T: JsonSchema>() -> Json {
    SchemaSettings::default()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// What a schema accepts, in words, to follow "must be". A schema may bring its own words as `x-expected`.
pub(crate) fn expected(schema: &Json) -> String {
    let own = |name: &str| schema.get(name).and_then(Json::as_str);
    if let Some(words) = own("x-expected") {
        return words.into();
    }
    if let Some(words) = words(schema) {
        return format!("one of {}", words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "));
    }
    if let Some(any) = schema.get("anyOf").and_then(Json::as_array) {
        return any.iter().map(expected).collect::<Vec<_>>().join(" or ");
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    let one = |kind: &str| match kind {
        "null" => "null".into(),
        "boolean" => "true or false".into(),
        "integer" => "a whole number, 0 or more".into(),
        "number" => "a finite number".into(),
        "string" => "a string".into(),
        "array" => list(schema),
        _ => "a mapping whose keys are names".to_owned(),
    };
    types.into_iter().map(one).collect::<Vec<_>>().join(" or ")
}

fn list(schema: &Json) -> String {
    let entry = schema.get("items").filter(|items| items.is_object());
    let entry = entry.or_else(|| schema.get("prefixItems")?.get(0)).map(expected).unwrap_or_default();
    match schema.get("maxItems").and_then(Json::as_u64) {
        Some(count) => format!("a list of {count}, each entry {entry}"),
        None => format!("a list, each entry {entry}"),
    }
}

/// The words of an enum, each as the configuration spells it; none for other schemas.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return words.iter().map(Json::as_str).collect();
    }
    let variants = schema.get("oneOf").and_then(Json::as_array)?;
    let word = |variant| match words(variant) {
        Some(words) => Some(words),
        None => Some(vec![variant.get("const")?.as_str()?]),
    };
    variants.iter().map(word).collect::<Option<Vec<_>>>().map(|lists| lists.concat())
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, Some(value)) => visitor.visit_f64(value),
                (None, None, None) => Err(Error::custom("a number beyond 64 bits")),
            },
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(list) => {
                let mut entries = SeqDeserializer::new(list.iter());
                let value = visitor.visit_seq(&mut entries)?;
                entries.end()?;
                Ok(value)
            }
            Value::Map(entries) => {
                visitor.visit_map(MapDeserializer::new(entries.iter().map(|(key, node)| (key.as_str(), node))))
            }
            Value::Foreign(what) => Err(Error::custom(what)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    // A derived struct would also accept a list of its values.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => Err(Error::custom("not a mapping")),
        }
    }

    // A derived enum would also accept `{word: null}`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Text(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            _ => Err(Error::custom("not a word")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

impl<'de> IntoDeserializer<'de, Error> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
