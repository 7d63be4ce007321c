//! Reads one section of a configuration key by key: types are checked, and keys that nobody asked for are errors.

use serde_norway::{Mapping, Value};

use super::error::ConfigError;
use super::locate::line_of;

/// The text a configuration came from, to say where a key stands.
pub(crate) struct Source<'a> {
    /// The YAML text, before overrides.
    pub text: &'a str,
    /// Its name in messages; empty for none.
    pub name: &'a str,
    /// The `key.sub` and the whole argument of every `--set`.
    pub overrides: Vec<(String, String)>,
}

impl Source<'_> {
    /// `"FILE, line N: "`, `"--set ...: "`, `"FILE: "` or empty.
    pub fn place(&self, key: &str) -> String {
        let inside = |set: &str| {
            key == set
                || key.strip_prefix(set).is_some_and(|rest| rest.starts_with('.'))
                || set.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
        };
        if let Some((_, argument)) = self.overrides.iter().rev().find(|(set, _)| inside(set)) {
            return format!("--set {argument}: ");
        }
        match (self.name, line_of(self.text, key)) {
            ("", Some(line)) => format!("line {line}: "),
            ("", None) => String::new(),
            (name, Some(line)) => format!("{name}, line {line}: "),
            (name, None) => format!("{name}: "),
        }
    }
}

/// A value of a configuration: what is accepted, in words, and how it is read.
pub(crate) trait Field: Sized {
    /// Worded to follow "must be".
    fn expected() -> String;
    /// None where the value is of another type.
    fn read(value: &Value) -> Option<Self>;
}

impl Field for bool {
    fn expected() -> String {
        "true or false".into()
    }
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for u64 {
    fn expected() -> String {
        "a whole number, 0 or more".into()
    }
    fn read(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

impl Field for usize {
    fn expected() -> String {
        u64::expected()
    }
    fn read(value: &Value) -> Option<Self> {
        usize::try_from(value.as_u64()?).ok()
    }
}

impl Field for f64 {
    fn expected() -> String {
        "a finite number".into()
    }
    fn read(value: &Value) -> Option<Self> {
        // `.nan` and `.inf` are numbers to YAML.
        value.as_f64().filter(|x| x.is_finite())
    }
}

impl Field for String {
    fn expected() -> String {
        "a text".into()
    }
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl<T: Field> Field for Vec<T> {
    fn expected() -> String {
        format!("a list, each entry {}", T::expected())
    }
    fn read(value: &Value) -> Option<Self> {
        value.as_sequence()?.iter().map(T::read).collect()
    }
}

impl<T: Field, const N: usize> Field for [T; N] {
    fn expected() -> String {
        format!("a list of {N}, each entry {}", T::expected())
    }
    fn read(value: &Value) -> Option<Self> {
        Vec::<T>::read(value)?.try_into().ok()
    }
}

/// Implements [`Field`] and the YAML name for an enum of plain words.
macro_rules! words {
    ($kind:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $kind {
            /// The word that stands for this value in a configuration.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl $crate::config::reader::Field for $kind {
            fn expected() -> String {
                let words = [$(concat!("`", $word, "`")),+];
                format!("one of {}", words.join(", "))
            }
            fn read(value: &serde_norway::Value) -> Option<Self> {
                match value.as_str()? { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <String as serde::Deserialize>::deserialize(deserializer)?;
                match word.as_str() {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(serde::de::Error::unknown_variant(&word, &[$($word),+])),
                }
            }
        }
    };
}
pub(crate) use words;

/// One section: hands out its values, remembers what was asked for, and refuses the rest.
pub(crate) struct Section<'a> {
    path: String,
    entries: Mapping,
    asked: Vec<&'static str>,
    source: &'a Source<'a>,
}

impl<'a> Section<'a> {
    /// Opens `value` as the section `path`; null is an empty section.
    pub fn open(source: &'a Source<'a>, path: &str, value: Value) -> Result<Self, ConfigError> {
        let entries = match value {
            Value::Null => Mapping::new(),
            Value::Mapping(entries) => entries,
            other => {
                let key = if path.is_empty() { "the configuration" } else { path };
                return Err(ConfigError::Type {
                    at: source.place(path),
                    key: key.into(),
                    expected: "a mapping of keys to values".into(),
                    found: describe(&other),
                });
            }
        };
        Ok(Self { path: path.into(), entries, asked: Vec::new(), source })
    }

    /// The full name of a key of this section.
    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// Takes the value of `key` as it stands.
    pub fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.entries.remove(key)
    }

    /// The value of `key`, or `default` where the key is absent. Null is refused.
    pub fn or<T: Field>(&mut self, key: &'static str, default: T) -> Result<T, ConfigError> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => self.typed(key, &value, ""),
        }
    }

    /// The value of `key`; null means none, and so does absence unless `default` says otherwise.
    pub fn opt<T: Field>(&mut self, key: &'static str, default: Option<T>) -> Result<Option<T>, ConfigError> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(value) => self.typed(key, &value, " or null").map(Some),
        }
    }

    fn typed<T: Field>(&self, key: &str, value: &Value, also: &str) -> Result<T, ConfigError> {
        // A YAML tag (`!name`) means nothing here, and the reader would pass over it.
        let plain = !matches!(value, Value::Tagged(_));
        plain.then(|| T::read(value)).flatten().ok_or_else(|| {
            let key = self.full(key);
            ConfigError::Type {
                at: self.source.place(&key),
                key,
                expected: T::expected() + also,
                found: describe(value),
            }
        })
    }

    /// Ends the section: an error for the first key that nobody asked for.
    pub fn finish(self) -> Result<(), ConfigError> {
        let Some((key, _)) = self.entries.iter().next() else {
            return Ok(());
        };
        let Some(name) = key.as_str() else {
            return Err(ConfigError::Type {
                at: self.source.place(&self.path),
                key: if self.path.is_empty() { "the configuration".into() } else { self.path.clone() },
                expected: "a mapping whose keys are names".into(),
                found: format!("{} as a key", describe(key)),
            });
        };
        let full = self.full(name);
        Err(ConfigError::Unknown { at: self.source.place(&full), key: full, nearest: nearest(name, &self.asked) })
    }
}

/// "did you mean ..." for a name close to a known one, otherwise the list of known names.
fn nearest(name: &str, known: &[&str]) -> String {
    let best = known.iter().map(|word| (distance(name, word), *word)).min();
    match best {
        Some((far, word)) if far <= 1 + word.len() / 3 => format!("did you mean `{word}`?"),
        _ => format!("known keys here are {}", known.join(", ")),
    }
}

/// Levenshtein distance over characters; long names are cut, they are typos of nothing.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (above, cb) in row.iter_mut().skip(1).zip(&b) {
            let cost = (diagonal + usize::from(ca != *cb)).min(left + 1).min(*above + 1);
            diagonal = *above;
            *above = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A value in words, cut to a readable length.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing (null)".into(),
        Value::Bool(b) => format!("{b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => {
            let short: String = s.chars().take(40).collect();
            let dots = if short.len() < s.len() { "..." } else { "" };
            format!("the text \"{short}{dots}\"")
        }
        Value::Sequence(list) => format!("a list of {}", list.len()),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(tagged) => format!("a value tagged {}", tagged.tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levenshtein() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("warmpu", "warmup"), 2);
    }

    #[test]
    fn far_names_list_the_known_ones() {
        assert_eq!(nearest("warmpu", &["warmup", "epochs"]), "did you mean `warmup`?");
        assert_eq!(nearest("zzzzzz", &["warmup", "epochs"]), "known keys here are warmup, epochs");
    }
}
