//! Parquet files of the plainest kind: no compression, no dictionaries, one page per column and row group.
//!
//! Written and read here, since the crate `parquet` turns on features of crates that Burn stands on. Footers and page headers are
//! Thrift's compact protocol (parquet-format's `parquet.thrift`); a list of floats is a repeated group, whose levels are runs.

mod read;
mod thrift;

use std::io::{self, Write};

pub(super) use read::Reader;
use thrift::{Struct, varint};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int64,
    Double,
    /// Lists of this many floats, one or more; 0 where only the shape says it.
    Floats(usize),
}

impl Kind {
    /// Parquet's number of the values' type.
    fn number(self) -> i64 {
        match self {
            Self::Int64 => 2,
            Self::Floats(_) => 4,
            Self::Double => 5,
            Self::Text => 6,
        }
    }

    fn path(self, name: &str) -> Vec<&str> {
        match self {
            Self::Floats(_) => vec![name, "list", "element"],
            Self::Text | Self::Int64 | Self::Double => vec![name],
        }
    }
}

/// A column chunk that has been written.
struct Chunk {
    offset: i64,
    bytes: i64,
    values: i64,
}

/// A file that is being written.
pub(super) struct File<'a, W: Write> {
    out: W,
    at: i64,
    columns: Vec<(&'a str, Kind)>,
    groups: Vec<(i64, Vec<Chunk>)>,
}

impl<'a, W: Write> File<'a, W> {
    pub fn begin(mut out: W, columns: Vec<(&'a str, Kind)>) -> io::Result<Self> {
        out.write_all(b"PAR1")?;
        Ok(Self { out, at: 4, columns, groups: Vec::new() })
    }

    /// A row group; `values` holds each column's, little-endian, texts with their lengths before them.
    pub fn group(&mut self, rows: usize, values: &[&[u8]]) -> io::Result<()> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let mut chunks = Vec::with_capacity(values.len());
        for ((_, kind), values) in self.columns.iter().zip(values) {
            let levels = levels(*kind, rows);
            let size = i32::try_from(levels.len() + values.len()).map_err(|_| too_large())?;
            let count = match kind {
                Kind::Floats(each) => rows.checked_mul(*each),
                Kind::Text | Kind::Int64 | Kind::Double => Some(rows),
            };
            let count = count.and_then(|count| i32::try_from(count).ok()).ok_or_else(too_large)?;
            let header = page_header(i64::from(size), i64::from(count));
            for part in [header.as_slice(), &levels, values] {
                self.out.write_all(part)?;
            }
            let bytes = (header.len() + levels.len() + values.len()) as i64;
            chunks.push(Chunk { offset: self.at, bytes, values: i64::from(count) });
            self.at += bytes;
        }
        self.groups.push((rows as i64, chunks));
        Ok(())
    }

    /// The footer, with these words about the file.
    pub fn end(mut self, metadata: &[(String, String)]) -> io::Result<()> {
        let footer = self.footer(metadata);
        self.out.write_all(&footer)?;
        self.out.write_all(&u32::try_from(footer.len()).map_err(|_| io::ErrorKind::FileTooLarge)?.to_le_bytes())?;
        self.out.write_all(b"PAR1")
    }

    fn footer(&self, metadata: &[(String, String)]) -> Vec<u8> {
        let mut schema = vec![Struct::new().text(4, "rows").int(5, self.columns.len() as i64)];
        for (name, kind) in &self.columns {
            match kind {
                Kind::Floats(_) => {
                    schema.push(Struct::new().int(3, 0).text(4, name).int(5, 1).int(6, 3));
                    schema.push(Struct::new().int(3, 2).text(4, "list").int(5, 1));
                    schema.push(Struct::new().int(1, kind.number()).int(3, 0).text(4, "element"));
                }
                Kind::Text => schema.push(Struct::new().int(1, kind.number()).int(3, 0).text(4, name).int(6, 0)),
                Kind::Int64 | Kind::Double => schema.push(Struct::new().int(1, kind.number()).int(3, 0).text(4, name)),
            }
        }
        let chunk = |((name, kind), chunk): (&(&str, Kind), &Chunk)| {
            let described = Struct::new()
                .int(1, kind.number())
                // PLAIN, RLE.
                .ints(2, &[0, 3])
                .texts(3, &kind.path(name))
                .int(4, 0)
                .long(5, chunk.values)
                .long(6, chunk.bytes)
                .long(7, chunk.bytes)
                .long(9, chunk.offset);
            Struct::new().long(2, chunk.offset).child(3, described)
        };
        let group = |(rows, chunks): &(i64, Vec<Chunk>)| {
            let bytes = chunks.iter().map(|chunk| chunk.bytes).sum();
            Struct::new().structs(1, self.columns.iter().zip(chunks).map(chunk).collect()).long(2, bytes).long(3, *rows)
        };
        let words = metadata.iter().map(|(key, value)| Struct::new().text(1, key).text(2, value)).collect();
        Struct::new()
            .int(1, 1)
            .structs(2, schema)
            .long(3, self.groups.iter().map(|(rows, _)| rows).sum())
            .structs(4, self.groups.iter().map(group).collect())
            .structs(5, words)
            .text(6, "vjepa")
            .bytes()
    }
}

fn page_header(size: i64, values: i64) -> Vec<u8> {
    // A data page of PLAIN values whose levels are runs.
    let data = Struct::new().int(1, values).int(2, 0).int(3, 3).int(4, 3);
    Struct::new().int(1, 0).int(2, size).int(3, size).child(5, data).bytes()
}

/// Where lists begin, and that nothing is missing from them; nothing for columns without lists.
fn levels(kind: Kind, rows: usize) -> Vec<u8> {
    let Kind::Floats(each) = kind else { return Vec::new() };
    let run = |out: &mut Vec<u8>, count: usize, value: u8| {
        if count > 0 {
            varint(out, (count as u64) << 1);
            out.push(value);
        }
    };
    let (mut repeated, mut defined) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        run(&mut repeated, 1, 0);
        run(&mut repeated, each.saturating_sub(1), 1);
    }
    run(&mut defined, rows.saturating_mul(each), 1);
    let mut out = Vec::with_capacity(repeated.len() + defined.len() + 8);
    for part in [repeated, defined] {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(&part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What pyarrow 26 read as two groups of two rows was written by this code; here the parts are looked at.
    #[test]
    fn pages_and_footer_stand_where_they_should() {
        let columns =
            vec![("path", Kind::Text), ("window", Kind::Int64), ("time", Kind::Double), ("features", Kind::Floats(3))];
        let mut bytes = Vec::new();
        let mut file = File::begin(&mut bytes, columns).unwrap();
        for group in 0..2i64 {
            let mut texts = Vec::new();
            for name in ["a.mp4", "ü b.mp4"] {
                texts.extend_from_slice(&(name.len() as u32).to_le_bytes());
                texts.extend_from_slice(name.as_bytes());
            }
            let windows: Vec<u8> = [group, group + 1].iter().flat_map(|x| x.to_le_bytes()).collect();
            let times: Vec<u8> = [0.5f64, f64::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
            let floats: Vec<u8> = (0..6).flat_map(|x| (x as f32 + group as f32 * 10.0).to_le_bytes()).collect();
            file.group(2, &[&texts, &windows, &times, &floats]).unwrap();
        }
        file.end(&[("vjepa.encoder".into(), "target_encoder".into())]).unwrap();
        assert!(bytes.starts_with(b"PAR1"));
        let end = bytes.strip_suffix(b"PAR1").unwrap();
        let (rest, length) = end.split_last_chunk::<4>().unwrap();
        let footer = &rest[rest.len() - u32::from_le_bytes(*length) as usize..];
        // Version 1, and a schema of four columns under the root: 1 + 4 + 2 elements.
        assert!(footer.starts_with(&[0x15, 2, 0x19, 0x7C]), "{:?}", &footer[..8]);
        for name in ["path", "window", "time", "features", "list", "element", "vjepa.encoder", "target_encoder"] {
            assert!(footer.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
        }
        // A list of three begins each time: levels 0, 1, 1, and six values that are there.
        assert_eq!(levels(Kind::Floats(3), 2), [8, 0, 0, 0, 2, 0, 4, 1, 2, 0, 4, 1, 2, 0, 0, 0, 12, 1]);
        assert_eq!(levels(Kind::Floats(1), 1), [2, 0, 0, 0, 2, 0, 2, 0, 0, 0, 2, 1]);
        assert!(levels(Kind::Text, 2).is_empty());
    }
}
