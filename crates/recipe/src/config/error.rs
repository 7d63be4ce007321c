//! What can be wrong with a configuration, each in one sentence that names the key.

use std::path::PathBuf;

/// Why a configuration was refused. Every message names the file and line (or the `--set`) it came from, the key, and the
/// rule that was broken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}{elsewhere}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
        /// Where one of that name is, or where it was looked for: `; did you mean configs/tiny.yaml?`.
        elsewhere: String,
    },
    /// The file is not text.
    #[error("the configuration {} {why}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, to follow its name.
        why: String,
    },
    /// The configuration of another official program.
    #[error("{name} is {what}")]
    Official {
        /// The file, or "this".
        name: String,
        /// What it is, and what to do instead.
        what: String,
    },
    /// The text is not YAML, or not a mapping of sections.
    #[error("{at}not a valid configuration: {message}")]
    Syntax {
        /// `"FILE: "` or empty.
        at: String,
        /// The YAML reader's message, with line and column.
        message: String,
    },
    /// A section or key that does not exist.
    #[error("{at}unknown key `{key}`{}", hint(at, key, nearest))]
    Unknown {
        /// `"FILE, line N: "`, `"--set ...: "` or empty.
        at: String,
        /// `section.key`.
        key: String,
        /// The known key with the closest spelling, or the list of known keys.
        nearest: String,
    },
    /// A value of the wrong type.
    #[error("{at}`{key}` must be {expected}, found {found}{}", as_list(at, key, expected, found))]
    Type {
        /// Where it was written.
        at: String,
        /// `section.key`.
        key: String,
        /// What is accepted.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A required key.
    #[error("{at}`{key}` is missing: {rule}")]
    Missing {
        /// Where it was looked for.
        at: String,
        /// `section.key`.
        key: String,
        /// What to write there.
        rule: String,
    },
    /// A value that breaks a rule: shapes that do not divide, empty ranges, sizes out of bounds.
    #[error("{at}`{key}` {rule}")]
    Rule {
        /// Where it was written.
        at: String,
        /// `section.key`.
        key: String,
        /// The rule, to follow the key.
        rule: String,
    },
    /// A value that the official code accepts and this program cannot honour; refused, never ignored silently.
    #[error("{at}`{key}` is not supported: {why}")]
    Unsupported {
        /// Where it was written.
        at: String,
        /// `section.key`.
        key: String,
        /// What to write instead.
        why: String,
    },
    /// A `--set` that is not `key.sub=value`, or leads nowhere.
    #[error("--set {text}: {why}")]
    Override {
        /// The argument as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

fn hint(at: &str, key: &str, nearest: &str) -> String {
    if nearest.is_empty() {
        return String::new();
    }
    // On the command line a key is written with its section.
    match (key.rsplit_once('.'), nearest.strip_prefix("did you mean `")) {
        (Some((section, _)), Some(name)) if at.starts_with(SET) && !name.contains('.') => {
            format!(": did you mean `{section}.{name}")
        }
        _ => format!(": {nearest}"),
    }
}

/// How errors of an argument begin.
const SET: &str = "--set ";

/// How to write one entry where a list is wanted: brackets, and quotes for the shell.
fn as_list(at: &str, key: &str, expected: &str, found: &str) -> String {
    let one = expected.starts_with("a list,") && found.starts_with("the string");
    if one && at.starts_with(SET) { format!("; write {SET}{key}='[a, b]', also for one") } else { String::new() }
}

impl ConfigError {
    /// A broken rule without a place; [`super::Config::from_yaml`] adds the place.
    pub fn rule(key: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Rule { at: String::new(), key: key.into(), rule: rule.into() }
    }

    /// A refused value without a place.
    pub fn unsupported(key: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported { at: String::new(), key: key.into(), why: why.into() }
    }

    /// A missing key without a place.
    pub fn missing(key: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Missing { at: String::new(), key: key.into(), rule: rule.into() }
    }

    /// The key that this error is about, `section.key`, where there is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Unknown { key, .. }
            | Self::Type { key, .. }
            | Self::Missing { key, .. }
            | Self::Rule { key, .. }
            | Self::Unsupported { key, .. } => Some(key),
            Self::Read { .. }
            | Self::Text { .. }
            | Self::Official { .. }
            | Self::Syntax { .. }
            | Self::Override { .. } => None,
        }
    }

    /// Fills in the place where none is set yet.
    pub(crate) fn placed(mut self, place: impl FnOnce(&str) -> String) -> Self {
        match &mut self {
            Self::Missing { at, key, .. } | Self::Rule { at, key, .. } | Self::Unsupported { at, key, .. }
                if at.is_empty() =>
            {
                *at = place(key);
            }
            _ => {}
        }
        self
    }
}
