//! NumPy's format of one array, and the list of its rows.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Line;

/// The header of a little-endian `f32` array in C order, version 1.0, padded so that values begin at a multiple of 64.
pub(super) fn header(shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", sizes.trim_end());
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The shape of such an array and where its values begin; none for another file.
pub(super) fn parse(bytes: &[u8]) -> Option<(Vec<usize>, usize)> {
    let rest = bytes.strip_prefix(b"\x93NUMPY\x01\x00")?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    let text = std::str::from_utf8(rest.get(..length)?).ok()?;
    if !text.contains("'descr': '<f4'") || !text.contains("'fortran_order': False") {
        return None;
    }
    let (_, shape) = text.split_once("'shape': (")?;
    let (shape, _) = shape.split_once(')')?;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    Some((sizes.map(|size| size.parse().ok()).collect::<Option<_>>()?, 10 + length))
}

/// The list of rows beside an array.
pub(super) fn list_path(array: &Path) -> PathBuf {
    array.with_extension("csv")
}

/// A line of that list.
pub(super) fn line(out: &mut dyn Write, path: &str, window: i64, time: f64) -> io::Result<()> {
    let mut text = String::new();
    match path.contains([',', '"', '\n', '\r']) {
        true => write!(text, "\"{}\"", path.replace('"', "\"\"")),
        false => write!(text, "{path}"),
    }
    .map_err(io::Error::other)?;
    let time = if time.is_nan() { String::new() } else { time.to_string() };
    writeln!(out, "{text},{window},{time}")
}

/// Path and window of each line but the first; none for another file.
pub(super) fn lines(text: &str) -> Option<Vec<Line>> {
    let text = text.strip_prefix("path,window,time\n")?;
    let one = |line: &str| {
        let (rest, time) = line.rsplit_once(',')?;
        let (path, window) = rest.rsplit_once(',')?;
        let path = match path.strip_prefix('"').and_then(|path| path.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => path.to_owned(),
        };
        let time = if time.is_empty() { f64::NAN } else { time.parse().ok()? };
        Some((path, window.parse().ok()?, time))
    };
    text.lines().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_lists_read_back() {
        for shape in [&[3usize][..], &[2, 5], &[100, 8, 384]] {
            let bytes = header(shape);
            assert_eq!(bytes.len() % 64, 0);
            assert_eq!(parse(&bytes), Some((shape.to_vec(), bytes.len())));
        }
        // What NumPy writes for a row of three.
        assert!(
            header(&[3])
                .starts_with(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }")
        );
        let mut text = b"path,window,time\n".to_vec();
        line(&mut text, "a, \"b\".mp4", 2, 0.25).unwrap();
        line(&mut text, "c.mp4", 0, f64::NAN).unwrap();
        let read = lines(std::str::from_utf8(&text).unwrap()).unwrap();
        assert_eq!((read[0].0.as_str(), read[0].1, read[0].2), ("a, \"b\".mp4", 2, 0.25));
        assert!(read[1].0 == "c.mp4" && read[1].2.is_nan());
        assert!(lines("x\n").is_none() && parse(b"PK").is_none());
    }
}
