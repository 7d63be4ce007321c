//! `vjepa compile --graph GRAPH`, as `vjepa graph GRAPH` was spelled before.

use std::ffi::OsString;

/// The words of a command line in today's spelling, and a line about it where they had another.
pub(in crate::cli) fn respelled(mut words: Vec<OsString>) -> (Vec<OsString>, Option<String>) {
    if words.get(1).is_none_or(|command| command != "compile") {
        return (words, None);
    }
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let flag = |word: &OsString| word == "--graph" || word.to_str().is_some_and(|word| word.starts_with("--graph="));
    let Some(at) = words.iter().take(end).position(flag) else { return (words, None) };
    let name = match words.remove(at).to_str().and_then(|word| word.strip_prefix("--graph=")) {
        Some(name) => Some(OsString::from(name)),
        None => (at < words.len()).then(|| words.remove(at)),
    };
    let shown = name.as_ref().map_or("GRAPH".into(), |name| name.to_string_lossy());
    let note = format!("note: `vjepa compile --graph {shown}` is called `vjepa graph {shown}` now");
    words.splice(1..2, std::iter::once(OsString::from("graph")).chain(name));
    (words, Some(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_old_spelling_is_changed() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (old, new) in [
            ("vjepa compile --graph step --config c", "vjepa graph step --config c"),
            ("vjepa compile --config c --graph=probe --json", "vjepa graph probe --config c --json"),
            ("vjepa compile --graph", "vjepa graph"),
        ] {
            let (changed, note) = respelled(words(old));
            assert_eq!(changed, words(new));
            assert_eq!(note.unwrap().lines().count(), 1);
        }
        for kept in ["vjepa", "vjepa compile --export onnx", "vjepa run --graph a", "vjepa compile -- --graph step"] {
            assert_eq!(respelled(words(kept)), (words(kept), None), "{kept}");
        }
    }
}
