//! JSON annotations: entries with their place in the file.

use std::path::Path;

use serde_json::Value;

use super::error::{AnnotationError, read};

/// A JSON file, with its text to find lines in.
pub(super) struct Json<'a> {
    pub path: &'a Path,
    text: String,
}

/// An entry of a list, or of an object.
pub(super) struct Entry<'a> {
    file: &'a Json<'a>,
    value: &'a Value,
    /// From 1.
    number: usize,
}

impl<'a> Json<'a> {
    pub fn read(path: &'a Path) -> Result<(Self, Value), AnnotationError> {
        let text = read(path)?;
        let value = serde_json::from_str(&text).map_err(|error| {
            AnnotationError::line(path, error.line().max(1), format!("is not JSON ({error}): download the file again"))
        })?;
        Ok((Self { path, text }, value))
    }

    /// The entries of a list.
    pub fn entries(&'a self, value: &'a Value, what: &str) -> Result<Vec<Entry<'a>>, AnnotationError> {
        let Value::Array(values) = value else {
            return Err(AnnotationError::file(self.path, format!("must hold a list of {what}: is it another file?")));
        };
        Ok(values.iter().enumerate().map(|(i, value)| Entry { file: self, value, number: i + 1 }).collect())
    }

    pub fn entry(&'a self, value: &'a Value, number: usize) -> Entry<'a> {
        Entry { file: self, value, number }
    }

    /// The line of the first occurrence of a quoted text, from 1.
    pub fn line_of(&self, quoted: &str) -> Option<usize> {
        let quoted = serde_json::to_string(quoted).ok()?;
        let at = self.text.find(&quoted)?;
        Some(1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count())
    }
}

impl Entry<'_> {
    /// An error about this entry; `id` is the text that its line is found by.
    pub fn fail(&self, id: Option<&str>, why: impl std::fmt::Display) -> AnnotationError {
        let why = format!("entry {}: {why}", self.number);
        match id.and_then(|id| self.file.line_of(id)) {
            Some(line) => AnnotationError::line(self.file.path, line, why),
            None => AnnotationError::file(self.file.path, why),
        }
    }

    /// A text; numbers count as their text.
    pub fn text(&self, key: &str, id: Option<&str>) -> Result<String, AnnotationError> {
        match self.value.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(self.fail(id, format!("`{key}` must be a text"))),
            None => Err(self.fail(id, format!("has no `{key}`: {}", remedy(self.value)))),
        }
    }

    /// A whole number, also as text.
    pub fn whole(&self, key: &str, id: Option<&str>) -> Result<i64, AnnotationError> {
        let text = self.text(key, id)?;
        text.parse().map_err(|_| self.fail(id, format!("`{key}` must be a whole number, got `{text}`")))
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key)
    }

    /// The line that a text first stands in; 0 where it is not found.
    pub fn line(&self, id: &str) -> usize {
        self.file.line_of(id).unwrap_or(0)
    }
}

/// What to do about an entry without a key.
fn remedy(value: &Value) -> String {
    let keys: Vec<String> =
        value.as_object().into_iter().flatten().take(6).map(|(key, _)| format!("`{key}`")).collect();
    match keys.is_empty() {
        true => "every entry must be an object".into(),
        false => format!("it has {}; use the data set's own annotation file", keys.join(", ")),
    }
}
