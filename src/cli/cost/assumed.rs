//! Numbers of samples: those of lists that are here, or those that were given for lists that are not.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use vjepa_data::shards::{is_pattern, split_path};
use vjepa_data::storage::is_url;

/// What was given for lists that are not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Assumed {
    /// Samples to train on: videos, pictures, or key frames.
    pub train: Option<u64>,
    /// Samples to evaluate on.
    pub val: Option<u64>,
    pub classes: Option<u64>,
}

impl Assumed {
    const KEYS: &'static str = "train=N, val=N or classes=N";

    /// Takes `KEY=N`.
    pub fn take(&mut self, word: &str) -> Result<(), String> {
        let (key, number) = word.split_once('=').ok_or_else(|| format!("`{word}` is not one of {}", Self::KEYS))?;
        let number = number.trim().parse::<u64>().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("`{word}` needs a whole number above 0"))?;
        let slot = match key.trim() {
            "train" => &mut self.train,
            "val" => &mut self.val,
            "classes" => &mut self.classes,
            _ => return Err(format!("`{word}` is not one of {}", Self::KEYS)),
        };
        match slot.replace(number) {
            None => Ok(()),
            Some(_) => Err(format!("`{}` is given twice", key.trim())),
        }
    }
}

/// How many samples there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Count {
    /// By a list that is here.
    Listed(u64),
    /// As it was given, as the list is not here.
    Given(u64),
    /// Not known, and why.
    Unknown(String),
}

impl Count {
    /// Of a list that is not here.
    pub fn absent(path: &Path, given: Option<u64>, key: &str) -> Self {
        match given {
            Some(count) => Self::Given(count),
            None => Self::Unknown(format!("{} is not here, and {key}=N is not given (--assume)", path.display())),
        }
    }

    /// The number, or why it is not known.
    pub fn known(&self) -> Result<u64, &str> {
        match self {
            Self::Listed(count) | Self::Given(count) => Ok(*count),
            Self::Unknown(why) => Err(why),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(count) => write!(f, "{count}"),
            Self::Given(count) => write!(f, "{count} (given)"),
            Self::Unknown(_) => f.write_str("an unknown number of"),
        }
    }
}

/// Whether a list is to be read: it exists, or lies where only reading it tells.
pub(in crate::cli) fn here(path: &Path) -> bool {
    is_url(path) || is_pattern(path) || split_path(path).is_some() || path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_give_numbers_each_once() {
        let mut assumed = Assumed::default();
        assert_eq!(["train=240000", "classes=400"].map(|word| assumed.take(word)), [Ok(()), Ok(())]);
        assert_eq!(assumed, Assumed { train: Some(240_000), val: None, classes: Some(400) });
        for (word, why) in [("train=2", "twice"), ("val=0", "above 0"), ("test=3", "val=N"), ("7", "train=N")] {
            let told = assumed.take(word).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        let count = Count::absent(Path::new("k400.csv"), None, "train");
        assert!(count.known().unwrap_err().contains("k400.csv is not here"));
        assert_eq!(Count::absent(Path::new("k400.csv"), Some(3), "train").to_string(), "3 (given)");
    }
}
