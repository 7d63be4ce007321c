//! Whole numbers on the command line, refused in words: `at least 2`.

use std::ops::{Bound, RangeBounds};

/// Reads a whole number of this range.
pub(super) fn whole<T: TryFrom<u64>>(
    range: impl RangeBounds<u64> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |word| {
        let number: u64 = word.parse().map_err(|_| match word.parse::<i128>() {
            Ok(_) => in_words(&range),
            Err(_) => format!("a whole number, {}", in_words(&range)),
        })?;
        if !range.contains(&number) {
            return Err(in_words(&range));
        }
        T::try_from(number).map_err(|_| "too large".to_owned())
    }
}

/// `at least 2`, `1 to 64`.
fn in_words(range: &impl RangeBounds<u64>) -> String {
    let least = match range.start_bound() {
        Bound::Included(least) => *least,
        Bound::Excluded(below) => below.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(most) => format!("{least} to {most}"),
        Bound::Excluded(above) => format!("{least} to {}", above.saturating_sub(1)),
        Bound::Unbounded => format!("at least {least}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_said_in_words() {
        assert_eq!(whole::<u64>(2..)("2"), Ok(2));
        assert_eq!(whole::<u16>(1..=64)("64"), Ok(64));
        for (word, why) in [("1", "at least 2"), ("-3", "at least 2"), ("x", "a whole number, at least 2")] {
            assert_eq!(whole::<u64>(2..)(word), Err(why.to_owned()), "{word}");
        }
        assert_eq!(whole::<u32>(1..=3)("4"), Err("1 to 3".to_owned()));
        assert_eq!(whole::<u32>(1..4)("4"), Err("1 to 3".to_owned()));
        assert_eq!(whole::<u16>(1..)("70000"), Err("too large".to_owned()));
        assert_eq!(whole::<usize>(..)("1.5"), Err("a whole number, at least 0".to_owned()));
    }

    /// No flag shows a range of the programming language.
    #[test]
    fn every_flag_says_its_range_so() {
        fn walk(command: &clap::Command, words: &mut Vec<String>, seen: &mut usize) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let mut line = words.clone();
                line.extend([format!("--{}", arg.get_long().unwrap_or_default()), "0".to_owned()]);
                let told =
                    crate::cli::command().try_get_matches_from(&line).map_or_else(|e| e.to_string(), |_| String::new());
                assert!(!told.contains(" is not in "), "{line:?}: {told}");
                *seen += usize::from(told.contains(": at least 1\n"));
            }
            for inner in command.get_subcommands() {
                words.push(inner.get_name().to_owned());
                walk(inner, words, seen);
                words.pop();
            }
        }
        let mut seen = 0;
        walk(&crate::cli::command(), &mut vec!["vjepa".to_owned()], &mut seen);
        assert!(seen > 10, "{seen}");
    }
}
