//! Several files by one name: `train-{000000..000127}.tar`, `train-*.tar`.

use std::path::{Path, PathBuf};

use crate::media::Opener;
use crate::storage::is_url;

/// Names that a pattern may stand for.
const MOST_NAMES: u64 = 1 << 20;

/// True for a name with a range in braces, or with `*`, `?` or `[` where no file has that very name.
pub fn is_pattern(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let question_is_a_query = is_url(path);
    let wild = text.contains(['*', '[']) || (text.contains('?') && !question_is_a_query);
    (range(&text).is_some() || wild) && (is_url(path) || !path.exists())
}

/// The files that a pattern names, sorted.
///
/// # Errors
/// What is wrong with it, to follow the pattern.
pub fn expand(pattern: &Path, opener: &Opener) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_str().ok_or("is a pattern that is not UTF-8")?;
    if let Some((before, first, last, width, after)) = range(text) {
        if last < first || last - first >= MOST_NAMES {
            return Err(format!(
                "counts from {first} to {last}: write the smaller number first, at most {MOST_NAMES} in all"
            ));
        }
        return Ok((first..=last).map(|n| PathBuf::from(format!("{before}{n:0width$}{after}"))).collect());
    }
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let bad = |error: glob::PatternError| format!("is not a pattern ({error}): write `*`, `?` or `[0-9]`");
    let mut found: Vec<PathBuf> = if is_url(pattern) {
        let parsed = glob::Pattern::new(text).map_err(bad)?;
        let fixed = text.split(['*', '[']).next().unwrap_or_default();
        let folder = fixed.rfind('/').map_or(fixed, |slash| fixed.get(..=slash).unwrap_or(fixed));
        let listed = opener.list(Path::new(folder)).map_err(|error| error.to_string())?;
        listed.into_iter().filter(|path| path.to_str().is_some_and(|text| parsed.matches_with(text, options))).collect()
    } else {
        let paths = glob::glob_with(text, options).map_err(bad)?;
        paths.collect::<Result<_, _>>().map_err(|error| format!("cannot be searched: {error}"))?
    };
    found.sort();
    match found.is_empty() {
        true => Err("is a pattern that no file has: check it, and that the disk is there".into()),
        false => Ok(found),
    }
}

/// `{first..last}` in a text: what stands before, both numbers, how many digits at least, and what stands after.
fn range(text: &str) -> Option<(&str, u64, u64, usize, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (range, after) = rest.split_once('}')?;
    let (first, last) = range.split_once("..")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    // As in a shell: zeros in front of either end fill every number up.
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 1 };
    Some((before, first.parse().ok()?, last.parse().ok()?, width, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_count_and_stars_search() {
        let opener = Opener::default();
        let names = |pattern: &str| {
            expand(Path::new(pattern), &opener)
                .map(|paths| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(
            names("s3://b/t-{008..011}.tar").unwrap().join(" "),
            "s3://b/t-008.tar s3://b/t-009.tar s3://b/t-010.tar s3://b/t-011.tar"
        );
        assert_eq!(names("a{9..10}.tar").unwrap(), ["a9.tar", "a10.tar"]);
        assert!(names("a{9..1}.tar").unwrap_err().contains("smaller number first"));
        assert!(names("a{0..99999999999}.tar").is_err());
        assert!(!is_pattern(Path::new("a{b}.tar")) && !is_pattern(Path::new("https://h/a?b=c")));
        let folder = tempfile::tempdir().unwrap();
        for name in ["t2.tar", "t1.tar", "other.txt"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let stars = folder.path().join("t*.tar");
        assert!(is_pattern(&stars));
        assert_eq!(expand(&stars, &opener).unwrap(), [folder.path().join("t1.tar"), folder.path().join("t2.tar")]);
        assert!(expand(&folder.path().join("x*.tar"), &opener).unwrap_err().contains("no file has"));
        std::fs::write(folder.path().join("[odd].tar"), "x").unwrap();
        assert!(!is_pattern(&folder.path().join("[odd].tar")), "a file of that very name is that file");
    }
}
