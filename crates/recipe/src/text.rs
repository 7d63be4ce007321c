//! Text files as editors write them: UTF-8 with or without a byte order mark, UTF-16, any line ends.
//!
//! Lists, class names and configurations are all read here, so they accept the same encodings.

use std::path::Path;

/// A text and its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text without a byte order mark; lines end in `\n` alone.
    pub text: String,
    /// Its encoding, where that is not UTF-8.
    pub encoding: Option<&'static str>,
    /// What else is not as plain text has it, in words: a byte order mark, other ends of lines.
    pub departures: Vec<&'static str>,
}

/// A text cut to this many characters, for messages; `...` stands for what was cut.
pub fn short(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

/// Why a file cannot be read as text, to follow the file's name.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The system could not read it.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is not text, or its encoding could only be guessed.
    #[error("{0}")]
    Encoding(String),
}

/// Reads a text file.
///
/// # Errors
/// [`TextError::Io`]; as [`decode`].
pub fn read(path: &Path) -> Result<Text, TextError> {
    decode(&std::fs::read(path)?)
}

/// Decodes a text file's bytes: UTF-8, or UTF-16 with a byte order mark or with so many zero bytes that it cannot be
/// anything else.
///
/// # Errors
/// [`TextError::Encoding`] naming the line, for anything else: binary data, UTF-32, Latin-1.
pub fn decode(bytes: &[u8]) -> Result<Text, TextError> {
    if matches!(bytes, [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..]) {
        return Err(TextError::Encoding("is UTF-32 text; save it as UTF-8".into()));
    }
    let (text, encoding) = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => (utf8(rest)?, None),
        [0xFF, 0xFE, rest @ ..] => (utf16(rest, u16::from_le_bytes)?, Some("UTF-16")),
        [0xFE, 0xFF, rest @ ..] => (utf16(rest, u16::from_be_bytes)?, Some("UTF-16")),
        _ => match unmarked(bytes) {
            Some(order) => (utf16(bytes, order)?, Some("UTF-16")),
            None => (utf8(bytes)?, None),
        },
    };
    let marked = matches!(bytes, [0xEF, 0xBB, 0xBF, ..] | [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]);
    let departures = marked.then_some("a byte order mark").into_iter().chain(ends(&text)).collect();
    Ok(Text { text: text.replace("\r\n", "\n").replace('\r', "\n"), encoding, departures })
}

/// Ends of lines that are not `\n`.
fn ends(text: &str) -> Option<&'static str> {
    let count = |end: &str| text.matches(end).count();
    let windows = count("\r\n");
    match (windows, count("\r") - windows, count("\n") - windows) {
        (_, 0, _) if windows == 0 => None,
        (_, 0, 0) => Some("CRLF ends of lines"),
        (0, _, 0) => Some("CR ends of lines"),
        _ => Some("mixed ends of lines"),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, TextError> {
    let line = |at: usize| 1 + bytes.iter().take(at).filter(|&&byte| byte == b'\n').count();
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        let why = format!("is not a text file (line {} holds a zero byte)", line(at));
        return Err(TextError::Encoding(why));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let line = line(error.valid_up_to());
            Err(TextError::Encoding(format!("is not UTF-8 text (line {line}); save it as UTF-8")))
        }
    }
}

/// How two bytes make a UTF-16 unit.
type Order = fn([u8; 2]) -> u16;

fn utf16(bytes: &[u8], order: Order) -> Result<String, TextError> {
    let broken = || TextError::Encoding("is damaged or cut off UTF-16 text; save it as UTF-8".into());
    if !bytes.len().is_multiple_of(2) {
        return Err(broken());
    }
    let units = bytes.chunks_exact(2).filter_map(|pair| Some(order(pair.try_into().ok()?)));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|text| !text.contains('\0')).ok_or_else(broken)
}

/// The byte order of UTF-16 without a mark: its ASCII characters (line ends, digits, slashes) leave every second byte zero.
fn unmarked(bytes: &[u8]) -> Option<Order> {
    if bytes.len() < 4 || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let zeros = |from: usize| bytes.iter().skip(from).step_by(2).filter(|&&byte| byte == 0).count();
    let half = bytes.len() / 2;
    match (zeros(0), zeros(1)) {
        (0, odd) if 2 * odd > half => Some(u16::from_le_bytes),
        (even, 0) if 2 * even > half => Some(u16::from_be_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16_bytes(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn every_way_of_writing_gives_the_same_text() {
        let wanted = "a/ü.mp4 0\nb.mp4 1\n";
        let windows = wanted.replace('\n', "\r\n");
        let marked = format!("\u{feff}{windows}");
        for bytes in [
            wanted.as_bytes().to_vec(),
            windows.clone().into_bytes(),
            wanted.replace('\n', "\r").into_bytes(),
            marked.clone().into_bytes(),
            utf16_bytes(&marked, u16::to_le_bytes),
            utf16_bytes(&marked, u16::to_be_bytes),
            utf16_bytes(&windows, u16::to_le_bytes),
            utf16_bytes(&windows, u16::to_be_bytes),
        ] {
            let read = decode(&bytes).unwrap();
            assert_eq!(read.text, wanted, "{bytes:?}");
            assert_eq!(read.encoding.is_some(), bytes.contains(&0));
            assert_eq!(read.departures.is_empty(), bytes == wanted.as_bytes(), "{:?}", read.departures);
        }
        let said = |text: &str| decode(text.as_bytes()).unwrap().departures;
        assert_eq!(said("\u{feff}a\r\nb"), ["a byte order mark", "CRLF ends of lines"]);
        assert_eq!((said("a\rb\r"), said("a\r\nb\nc\r\n")), (vec!["CR ends of lines"], vec!["mixed ends of lines"]));
        assert_eq!(decode(b"").unwrap().text, "");
        assert_eq!(decode(b"\xEF\xBB\xBF").unwrap().text, "");
    }

    #[test]
    fn what_is_not_text_is_named_with_its_line() {
        let say = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert!(say(b"one\ntw\xE9\n").contains("line 2"), "{}", say(b"one\ntw\xE9\n"));
        assert!(say(b"one\ntwo\0three\n").contains("line 2 holds a zero byte"));
        assert!(say(&[0xFF, 0xFE, 0x61]).contains("UTF-8"));
        assert!(say(&[0xFF, 0xFE, 0, 0, 0x61, 0, 0, 0]).contains("UTF-32"));
        // Half of a pair of surrogates.
        assert!(say(&[0xFF, 0xFE, 0x00, 0xD8]).contains("cut off"));
    }
}
