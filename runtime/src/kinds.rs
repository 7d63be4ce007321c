//! What a file is by its first bytes, for what is said of one that was given in place of another.

use std::fmt;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Weights: a safetensors file, or PyTorch's archive or pickle.
    Checkpoint,
    /// An ONNX model.
    Onnx,
    /// A film in MP4 or Matroska.
    Video,
    /// A picture, of this format.
    Picture(&'static str),
    /// Something else that is well known: `a PDF document`.
    Other(&'static str),
    /// Text of any kind.
    Text,
}

impl FileKind {
    /// The kind of a file that begins with these bytes, 16 or more of them where the file has so many; none for one that is not
    /// known.
    pub fn of(head: &[u8]) -> Option<Self> {
        Some(match head {
            // The length of a header, then JSON; an archive; a pickle of protocol 2 to 5.
            [_, _, _, _, _, 0, 0, 0, b'{', ..] | [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => Self::Checkpoint,
            [_, _, _, _, b'f', b't', b'y', b'p', ..] | [0x1a, 0x45, 0xdf, 0xa3, ..] => Self::Video,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', ..] => Self::Picture("PNG"),
            [0xff, 0xd8, 0xff, ..] => Self::Picture("JPEG"),
            [b'G', b'I', b'F', b'8', ..] => Self::Picture("GIF"),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::Picture("WebP"),
            [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => Self::Picture("TIFF"),
            [b'%', b'P', b'D', b'F', b'-', ..] => Self::Other("a PDF document"),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Self::Other("a NumPy array"),
            [b'P', b'A', b'R', b'1', ..] => Self::Other("a Parquet table"),
            // Its version, then one of its texts.
            [8, 3..=20, 0x12 | 0x1a | 0x22 | 0x32, ..] => Self::Onnx,
            _ if is_text(head) => Self::Text,
            _ => return None,
        })
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint => f.write_str("a checkpoint"),
            Self::Onnx => f.write_str("an ONNX model"),
            Self::Video => f.write_str("a video"),
            Self::Picture(format) => write!(f, "a {format} picture"),
            Self::Other(what) => f.write_str(what),
            Self::Text => f.write_str("a text file"),
        }
    }
}

/// Whether the first bytes of a file read as text: every format of tensors has bytes among its first 16 that no text has.
fn is_text(head: &[u8]) -> bool {
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let whole = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character that the end of the head cuts in two.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !whole.is_empty() && whole.chars().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        let header = [&36u64.to_le_bytes()[..], br#"{"a":{"dtype":"F32"}}"#].concat();
        for (head, said) in [
            (&header[..], "a checkpoint"),
            (b"PK\x03\x04", "a checkpoint"),
            (b"\x80\x02}q", "a checkpoint"),
            (b"\0\0\0\x20ftypisom", "a video"),
            (b"\x1a\x45\xdf\xa3\x9f", "a video"),
            (b"\x89PNG\r\n\x1a\n\0\0", "a PNG picture"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG picture"),
            (b"GIF89a", "a GIF picture"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP picture"),
            (b"%PDF-1.7\n", "a PDF document"),
            (b"\x93NUMPY\x01\0", "a NumPy array"),
            (b"\x08\x07\x12\x07pytorch", "an ONNX model"),
            (b"path label\n", "a text file"),
        ] {
            assert_eq!(FileKind::of(head).map(|kind| kind.to_string()).as_deref(), Some(said), "{head:?}");
        }
        for head in [b"".as_slice(), &[0xff; 40], b"\x08\0\0\0\0\0\0\0", b"RIFF....AVI "] {
            assert!(
                !matches!(FileKind::of(head), Some(FileKind::Checkpoint | FileKind::Onnx | FileKind::Video)),
                "{head:?}"
            );
        }
        // A header as long as the marks of other formats say.
        for mark in [b"II*\0", b"GIF8"] {
            assert_eq!(FileKind::of(&[&mark[..], b"\0\0\0\0{\"a\""].concat()), Some(FileKind::Checkpoint));
        }
    }

    #[test]
    fn text_is_told_from_tensors() {
        for text in [b"# Readme\r\n".as_slice(), b"a", "caf\u{e9}".as_bytes(), b"caf\xc3"] {
            assert!(is_text(text), "{text:?}");
        }
        for other in
            [b"".as_slice(), b"PK\x03\x04", b"\x80\x02}q", b"\x08\0\0\0\0\0\0\0{\"a\":1}", b"\xff\xfea\0", b"caf\xe9 "]
        {
            assert!(!is_text(other), "{other:?}");
        }
    }
}
