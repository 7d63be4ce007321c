//! Errors in JSON, in this server's words: where, what was found, and what to write instead.

use crate::state::shortened;
use serde_json::error::Category;

/// A sentence for JSON that was refused with `error`.
pub(super) fn of(bytes: &[u8], error: &serde_json::Error) -> String {
    if let Some(sentence) = other_than_json(bytes) {
        return sentence;
    }
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => format!("the request is not valid: {} ({place})", content(error)),
        Category::Eof => format!(
            "the request is not valid JSON: it ends after {} bytes with a bracket, a brace or a quote open; is it cut off, \
             or Inference-Header-Content-Length too small?",
            bytes.len()
        ),
        Category::Syntax | Category::Io => {
            format!("the request is not valid JSON: {} ({place})", syntax(bytes, error))
        }
    }
}

/// What the first bytes of something other than JSON say.
fn other_than_json(bytes: &[u8]) -> Option<String> {
    let told = match bytes {
        [] => "the body is empty; send an inference request as JSON",
        [0xEF, 0xBB, 0xBF, ..] => {
            "the body begins with a byte order mark, which JSON has not; write it as UTF-8 without one (in Python `utf-8`, \
             not `utf-8-sig`)"
        }
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [_, 0, ..] | [0, ..] => "the body is not UTF-8; send JSON as UTF-8",
        [0x1F, 0x8B, ..] => "the body is gzip data; send it with the header `Content-Encoding: gzip`",
        [b'-', b'-', ..] => "the body is a form; send JSON, as `curl --data @request.json` does",
        [b'<', ..] => "the body is markup; send an inference request as JSON",
        _ => return None,
    };
    Some(told.to_owned())
}

/// What is wrong with the meaning, of JSON that can be read. Serde's sentences have few forms; those of this server's own
/// visitors are left as they are.
fn content(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let end = format!(" at line {} column {}", error.line(), error.column());
    let text = whole.strip_suffix(&end).unwrap_or(&whole);
    if let Some(field) = text.strip_prefix("duplicate field ") {
        return format!("{} is given twice", shortened(field));
    }
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let Some(rest) = kinds.iter().find_map(|kind| text.strip_prefix(kind)) else { return text.to_owned() };
    let (found, wanted) = rest.rsplit_once(", expected ").unwrap_or((rest, "something else"));
    let found = match found.split_once(' ') {
        _ if text.starts_with("invalid length") => format!("{found} elements"),
        Some(("floating", number)) => number.trim_start_matches("point ").to_owned(),
        Some(("string", text)) => format!("the text {}", shortened(text)),
        _ => shortened(found),
    };
    let found = match found.as_str() {
        "sequence" => "an array",
        "map" => "an object",
        other => other,
    };
    format!("expected {wanted}, got {found}")
}

/// What is wrong with the writing.
fn syntax(bytes: &[u8], error: &serde_json::Error) -> String {
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    // Columns count from one, and some errors are one behind.
    let at = error.column().saturating_sub(1).min(line.len().saturating_sub(1));
    let text = error.to_string();
    if std::str::from_utf8(bytes).is_err() {
        return "it is not UTF-8; binary tensors go after the JSON, with Inference-Header-Content-Length".to_owned();
    }
    if text.starts_with("trailing characters") {
        return "there is more after its end; binary data after the JSON needs Inference-Header-Content-Length"
            .to_owned();
    }
    if text.starts_with("recursion limit") {
        return "its arrays are nested too deeply; no tensor has that many dimensions".to_owned();
    }
    if text.starts_with("number out of range") {
        return "a number is out of range".to_owned();
    }
    if text.starts_with("control character") {
        return "a string contains a line break or another control character; write it as \\n or \\u000a".to_owned();
    }
    let word = word_at(line, at);
    match word.trim_start_matches(['-', '+']) {
        "NaN" | "nan" | "Infinity" | "inf" | "Inf" | "INF" | "NAN" => {
            format!("`{word}` is not a JSON number; send finite values, or a binary tensor after the JSON")
        }
        "None" | "True" | "False" | "undefined" => {
            format!("`{word}` is not JSON; use null, true and false, as Python's json.dumps writes them")
        }
        _ => mark(line, at, &word),
    }
}

/// The word at a column of a line, if there is one.
fn word_at(line: &[u8], at: usize) -> String {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'.');
    let before = line.get(..at).unwrap_or_default().iter().rev().take(32).take_while(|byte| part(byte)).count();
    let rest = line.get(at - before..).unwrap_or_default();
    let word: Vec<u8> = rest.iter().take(64).copied().take_while(|byte| part(byte)).collect();
    String::from_utf8_lossy(&word).into_owned()
}

/// What was found where JSON expects something else.
fn mark(line: &[u8], at: usize, word: &str) -> String {
    let before = line.get(..at).unwrap_or_default().trim_ascii_end().last();
    match line.get(at) {
        Some(b'\'') => "strings need double quotes, not single ones".to_owned(),
        Some(b']' | b'}') if before == Some(&b',') => "there is a comma before a closing bracket".to_owned(),
        Some(b'/' | b'#') => "JSON has no comments".to_owned(),
        _ if !word.is_empty() => format!("unexpected `{}`", shortened(word)),
        Some(byte) if byte.is_ascii_graphic() => format!("unexpected `{}`", char::from(*byte)),
        _ => "unexpected character".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Object, Request};
    use super::*;

    #[test]
    fn no_sentence_is_a_parsers() {
        let cut = "{\"inputs\": [{\"name\": \"a";
        let text = |text: &'static str| text.as_bytes();
        let cases: &[(&[u8], &str)] = &[
            (b"", "is empty"),
            (b"\xEF\xBB\xBF{}", "byte order mark"),
            (b"\xFF\xFE{\0}\0", "not UTF-8"),
            (b"{\0}\0", "not UTF-8"),
            (b"\x1F\x8B\x08", "Content-Encoding: gzip"),
            (b"--x\r\n", "is a form"),
            (b"<html>", "is markup"),
            (b"{\"id\": \"\xFF\"}", "not UTF-8"),
            (text("{\"inputs\": [{\"data\": [NaN]}]}"), "`NaN` is not a JSON number"),
            (text("{\"inputs\": [{\"data\": [1, nan]}]}"), "`nan` is not a JSON number"),
            (text("{\"inputs\": [{\"data\": [Infinity]}]}"), "`Infinity` is not"),
            (text("{\"inputs\": [{\"data\": [-Infinity]}]}"), "`-Infinity` is not"),
            (text("{\"id\": None}"), "`None` is not JSON"),
            (text("{\"id\": True}"), "`True` is not JSON"),
            (text("{'id': 1}"), "double quotes"),
            (text("{\"id\": \"a\",}"), "comma before a closing"),
            (text("{\"inputs\": [{\"data\": [1,]}]}"), "comma before a closing"),
            (text("{\"id\": \"a\" // mine\n}"), "no comments"),
            (text("{\"id\": \"a\nb\"}"), "control character"),
            (text("{} {}"), "more after its end"),
            (text("{\"inputs\": [{\"data\": [1e999]}]}"), "out of range"),
            (text("{\"id\": \"a\" \"b\"}"), "unexpected"),
            (text(cut), "ends after"),
            (text("[]"), "expected an object with `inputs`, got an array"),
            (text("{\"inputs\": [[\"a\"]]}"), "an input as an object"),
            (text("{\"parameters\": [1]}"), "expected an object as `parameters`, got an array"),
            (text("{\"id\": 7}"), "expected a string, got integer `7`"),
            (text("{\"inputs\": 7}"), "expected an array of at most 64"),
            (text("{\"inputs\": [{\"shape\": [1.5]}]}"), "expected an integer in `shape`, got `1.5`"),
            (text("{\"inputs\": [{\"shape\": [\"1\"]}]}"), "got the text \"1\""),
            (text("{\"inputs\": [{\"data\": [true]}]}"), "a number in the range of FP32"),
            (text("{\"inputs\": [{\"data\": [1e300]}]}"), "`data` has 1e300, which FP32 cannot hold"),
            (text("{\"inputs\": [{\"data\": [[1], 2]}]}"), "mixes numbers and arrays"),
            (text("{\"id\": \"a\", \"id\": \"b\"}"), "`id` is given twice"),
        ];
        for (bytes, words) in cases.iter().copied() {
            let sentence = match serde_json::from_slice::<Object<Request>>(bytes) {
                Ok(_) => panic!("{words} was not refused"),
                Err(error) => of(bytes, &error),
            };
            assert!(sentence.contains(words), "{words}: {sentence}");
            for foreign in [
                "expected value",
                "expected `,`",
                "EOF",
                "invalid type",
                "struct",
                "u64",
                "f32",
                "sequence",
                "expected ident",
            ] {
                assert!(!sentence.contains(foreign), "{foreign}: {sentence}");
            }
            assert!(sentence.len() < 400, "{sentence}");
        }
        let deep = "[".repeat(200);
        let deep = format!("{{\"inputs\": [{{\"data\": {deep}");
        let error = serde_json::from_slice::<Object<Request>>(deep.as_bytes()).err().unwrap();
        assert!(of(deep.as_bytes(), &error).contains("nested too deeply"));
    }
}
