//! Reads what [`super::File`] wrote, and says of other Parquet files why they are not read.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::{Kind, levels, thrift::Value};
use crate::rows::{Line, SHAPE_KEY};

const MAGIC: &[u8; 4] = b"PAR1";

/// A file whose footer has been read.
pub(in crate::rows) struct Reader<F> {
    file: F,
    columns: Vec<(String, Kind)>,
    groups: Vec<Group>,
    /// Rows in all.
    rows: usize,
    /// Shape of a row, of each column of features.
    shapes: BTreeMap<String, Vec<usize>>,
    /// What else the file says of itself.
    pub metadata: BTreeMap<String, String>,
}

struct Group {
    rows: usize,
    /// Where each column lies in the file.
    chunks: Vec<(u64, usize)>,
}

/// For everything that no file of [`super::File`] is like.
fn foreign(what: impl std::fmt::Display) -> String {
    format!("{what}, which no table of `vjepa features` is: give the file as it was written, or .safetensors")
}

fn damaged() -> String {
    "is damaged or cut off: make it again with `vjepa features`".into()
}

impl<F: Read + Seek> Reader<F> {
    /// Reads the footer.
    ///
    /// # Errors
    /// What is wrong, to follow the file's name.
    pub fn open(mut file: F) -> Result<Self, String> {
        let size = file.seek(SeekFrom::End(0)).map_err(|error| format!("cannot be read: {error}"))?;
        let tail = size.checked_sub(8).ok_or("is no Parquet file")?;
        let end = bytes_at(&mut file, tail, 8)?;
        let (length, magic) = end.split_first_chunk::<4>().ok_or_else(damaged)?;
        if magic != MAGIC || bytes_at(&mut file, 0, 4)? != MAGIC {
            return Err("is no Parquet file, or was cut off: make it with `vjepa features`".into());
        }
        let length = u32::from_le_bytes(*length);
        let begin = tail.checked_sub(u64::from(length)).ok_or_else(damaged)?;
        let footer = bytes_at(&mut file, begin, length as usize)?;
        let (footer, _) = Value::read(&footer).ok_or_else(damaged)?;
        let columns = columns(footer.list(2).ok_or_else(damaged)?)?;
        let group = |group: &Value<'_>| Group::of(group, &columns, begin);
        let groups = footer.list(4).ok_or_else(damaged)?.iter().map(group).collect::<Result<Vec<_>, _>>()?;
        // Each byte belongs to one column at most: what is read is in proportion to the file.
        let lengths = groups.iter().flat_map(|group| &group.chunks).map(|(_, length)| *length as u64);
        if lengths.fold(0, u64::saturating_add) > begin {
            return Err(damaged());
        }
        let rows = groups.iter().try_fold(0usize, |sum, group| sum.checked_add(group.rows)).ok_or_else(damaged)?;
        let words = footer.list(5).unwrap_or_default().iter();
        let words = words.filter_map(|word| Some((word.text(1)?.to_owned(), word.text(2)?.to_owned())));
        let (shapes, metadata): (BTreeMap<_, _>, BTreeMap<_, _>) =
            words.partition(|(key, _)| key.starts_with(SHAPE_KEY));
        let shape = |(key, text): (String, String)| {
            let shape = serde_json::from_str(&text).map_err(|_| damaged())?;
            Ok((key.strip_prefix(SHAPE_KEY).unwrap_or(&key).to_owned(), shape))
        };
        let shapes = shapes.into_iter().map(shape).collect::<Result<_, String>>()?;
        Ok(Self { file, columns, groups, rows, shapes, metadata })
    }

    /// The columns of features.
    pub fn features(&self) -> Vec<&str> {
        let features = self.columns.iter().filter(|(_, kind)| matches!(kind, Kind::Floats(_)));
        features.map(|(name, _)| name.as_str()).collect()
    }

    /// Which window each row is of.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn lines(&mut self) -> Result<Vec<Line>, String> {
        let paths = self.texts("path")?;
        let windows = self.words("window", Kind::Int64)?.into_iter().map(i64::from_le_bytes);
        let times = self.words("time", Kind::Double)?.into_iter().map(f64::from_le_bytes);
        Ok(paths.into_iter().zip(windows).zip(times).map(|((path, window), time)| (path, window, time)).collect())
    }

    /// The values of a column of features, and the shape of a row.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn column(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
        let missing = || foreign(format!("does not say what shape the rows of `{name}` have"));
        let shape = self.shapes.get(name).cloned().ok_or_else(missing)?;
        let each = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size)).filter(|each| *each > 0);
        let each = each.ok_or_else(damaged)?;
        let mut values = Vec::new();
        self.chunks(
            name,
            |kind| matches!(kind, Kind::Floats(_)),
            |rows, page| {
                // Compared before levels are made, which take memory in proportion to it.
                let bytes =
                    rows.checked_mul(each).and_then(|count| count.checked_mul(4)).filter(|bytes| *bytes < page.len());
                let bytes = bytes.ok_or_else(damaged)?;
                let page = page.strip_prefix(levels(Kind::Floats(each), rows).as_slice());
                let words = page.filter(|page| page.len() == bytes).ok_or_else(damaged)?.as_chunks::<4>().0;
                values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
                Ok(())
            },
        )?;
        Ok((shape, values))
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let mut texts = Vec::new();
        self.chunks(
            name,
            |kind| kind == Kind::Text,
            |rows, mut page| {
                for _ in 0..rows {
                    let (length, rest) = page.split_first_chunk::<4>().ok_or_else(damaged)?;
                    let length = u32::from_le_bytes(*length) as usize;
                    let (text, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
                    texts.push(String::from_utf8(text.to_vec()).map_err(|_| damaged())?);
                    page = rest;
                }
                page.is_empty().then_some(()).ok_or_else(damaged)
            },
        )?;
        Ok(texts)
    }

    fn words(&mut self, name: &str, wanted: Kind) -> Result<Vec<[u8; 8]>, String> {
        let mut words = Vec::new();
        self.chunks(
            name,
            |kind| kind == wanted,
            |rows, page| {
                let (found, rest) = page.as_chunks::<8>();
                if found.len() != rows || !rest.is_empty() {
                    return Err(damaged());
                }
                words.extend_from_slice(found);
                Ok(())
            },
        )?;
        Ok(words)
    }

    /// Hands over the page of each row group: its rows and what follows the header.
    fn chunks(
        &mut self,
        name: &str,
        fits: impl Fn(Kind) -> bool,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let number = self.columns.iter().position(|(own, kind)| own == name && fits(*kind));
        let number = number.ok_or_else(|| foreign(format!("has no column `{name}` of the kind that it should be")))?;
        for group in &self.groups {
            let (offset, length) = *group.chunks.get(number).ok_or_else(damaged)?;
            let chunk = bytes_at(&mut self.file, offset, length)?;
            let (header, page) = Value::read(&chunk).ok_or_else(damaged)?;
            let data = header.field(5).filter(|_| header.number(1) == Some(0));
            let plain = data.is_some_and(|data| data.number(2) == Some(0));
            if !plain || header.number(3).and_then(|size| usize::try_from(size).ok()) != Some(page.len()) {
                return Err(foreign(format!("keeps column `{name}` in dictionaries or several pages")));
            }
            take(group.rows, page)?;
        }
        Ok(())
    }

    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Group {
    /// `end` is where the footer begins.
    fn of(group: &Value<'_>, columns: &[(String, Kind)], end: u64) -> Result<Self, String> {
        let chunks = group.list(1).filter(|chunks| chunks.len() == columns.len()).ok_or_else(damaged)?;
        let chunk = |chunk: &Value<'_>| {
            let described = chunk.field(3).ok_or_else(damaged)?;
            if described.number(4) != Some(0) {
                return Err(foreign("is compressed"));
            }
            let number = |id| described.number(id).and_then(|number| u64::try_from(number).ok());
            let (Some(offset), Some(length)) = (number(9), number(7)) else { return Err(damaged()) };
            let within = offset.checked_add(length).is_some_and(|last| last <= end);
            match usize::try_from(length) {
                Ok(length) if within => Ok((offset, length)),
                _ => Err(damaged()),
            }
        };
        let rows = group.number(3).and_then(|rows| usize::try_from(rows).ok()).ok_or_else(damaged)?;
        Ok(Self { rows, chunks: chunks.iter().map(chunk).collect::<Result<_, _>>()? })
    }
}

/// The columns of a schema, which lists its tree from the root: values that are always there, and lists of them.
fn columns(schema: &[Value<'_>]) -> Result<Vec<(String, Kind)>, String> {
    let mut elements = schema.iter().skip(1);
    let mut columns = Vec::new();
    while let Some(element) = elements.next() {
        let name = element.text(4).ok_or_else(damaged)?;
        let other = || foreign(format!("has a column `{name}` that may be empty or is of another kind"));
        let required = element.number(3) == Some(0);
        let kind = match (element.number(1), element.number(5)) {
            (Some(2), None) if required => Kind::Int64,
            (Some(5), None) if required => Kind::Double,
            (Some(6), None) if required => Kind::Text,
            (None, Some(1)) if required => {
                let (Some(list), Some(value)) = (elements.next(), elements.next()) else { return Err(damaged()) };
                let repeated = list.number(3) == Some(2) && list.number(5) == Some(1);
                if !repeated || value.number(1) != Some(4) || value.number(3) != Some(0) {
                    return Err(other());
                }
                // How many they are, the shape says.
                Kind::Floats(0)
            }
            _ => return Err(other()),
        };
        columns.push((name.to_owned(), kind));
    }
    Ok(columns)
}

fn bytes_at<F: Read + Seek>(file: &mut F, offset: u64, length: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged(),
        _ => format!("cannot be read: {error}"),
    };
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
