//! How lines of "path label" are written: separators and quotes, for what is said of a list, and quotes that are not closed.

use super::{Line, Row, SEPARATORS, is_video, short, unquoted};

/// What stands between path and label, and around them.
#[derive(Debug, Default)]
pub(super) struct Form {
    spaces: bool,
    commas: bool,
    tabs: bool,
    quotes: bool,
}

impl Form {
    /// Looks at a line that is read.
    pub fn see(&mut self, line: Line<'_>, row: &Row) {
        let separated = row.label.and_then(|_| line.text.rsplit_once(SEPARATORS));
        let Some((before, label)) = separated else {
            self.quotes |= unquoted(line.text) != line.text;
            return;
        };
        let path = before.trim_end_matches(SEPARATORS);
        let between = line.text.get(path.len()..line.text.len() - label.len()).unwrap_or_default();
        match (between.contains(','), between.contains('\t')) {
            (true, _) => self.commas = true,
            (false, true) => self.tabs = true,
            (false, false) => self.spaces = true,
        }
        self.quotes |= unquoted(path) != path || unquoted(label) != label;
    }

    /// What departs from a space and no quotes.
    pub fn departures(&self) -> Vec<String> {
        let named = [(self.spaces, "spaces"), (self.tabs, "tabs"), (self.commas, "commas")];
        let found: Vec<&str> = named.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect();
        let separators = (self.tabs || self.commas).then(|| {
            let mixed = if found.len() > 1 { ", not the same in all lines," } else { "" };
            format!("{}{mixed} between path and label", found.join(" and "))
        });
        separators.into_iter().chain(self.quotes.then(|| "quotes".to_owned())).collect()
    }
}

/// An error for a path with a quote at one end alone, unless a file is called so.
pub(super) fn closed(row: &Row, exists: &dyn Fn(&str) -> bool) -> Result<(), String> {
    match row.path.starts_with('"') == row.path.ends_with('"') || exists(&row.path) {
        true => Ok(()),
        false => Err(unclosed(row.line, &row.path)),
    }
}

/// What to say of a line, or a path, whose quote has no other end.
pub(super) fn unclosed(line: usize, text: &str) -> String {
    format!("line {line} has a quote (`\"`) that is not closed in `{}`: close it or take it out", short(text))
}

/// A line without separators, or empty quotes, at its end.
pub(super) fn without_label(text: &str) -> &str {
    let bare = text.strip_suffix("\"\"").unwrap_or(text);
    bare.trim_end_matches(SEPARATORS).trim()
}

/// The word before a path, where they stand in the other order; a space may belong to a path, unless another begins behind it.
pub(super) fn swapped(text: &str) -> Option<&str> {
    let begins = |rest: &str| ["/", "./", "../", "~/"].iter().any(|root| rest.starts_with(root));
    let (first, rest) = text
        .split_once([',', '\t'])
        .or_else(|| text.split_once(' ').filter(|(_, rest)| begins(rest)))
        .map(|(first, rest)| (unquoted(first.trim()), unquoted(rest.trim())))?;
    (!first.is_empty() && !first.contains('/') && !is_video(first) && is_video(rest)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::swapped;

    #[test]
    fn a_label_before_its_path_is_seen() {
        for (text, label) in [("cat,/a/b.mp4", "cat"), ("'big dog'\tb.webm", "big dog"), ("cat ./b.mp4", "cat")] {
            assert_eq!(swapped(text), Some(label), "{text}");
        }
        for text in ["my clip.mp4", "my videos/clip.mp4", "a/b,c.mp4", "a.mp4,b.mp4", "a.mp4", ",a.mp4", "cat,dog"] {
            assert_eq!(swapped(text), None, "{text}");
        }
    }
}
