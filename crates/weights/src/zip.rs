//! The zip archives that `torch.save` writes: entries that are stored, not compressed.
//!
//! Only the directory at the end and one header per entry are read. Every offset in the file is checked against its length,
//! so that what an archive claims never makes anything large. (The `zip` crate, which writes archives here, allocates by the
//! number of entries that an archive claims to have.)

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

/// First bytes of an archive.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR_64: &[u8; 4] = b"PK\x06\x07";
const ENTRY: &[u8; 4] = b"PK\x01\x02";
/// Length of the record at the end, and of the longest comment after it.
const END_LENGTH: u64 = 22;
const LONGEST_COMMENT: u64 = 0xffff;
/// Longest directory that is read: about half a million storages.
const LONGEST_DIRECTORY: u64 = 1 << 26;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZipError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The record at the end is missing.
    #[error("its archive has no end, it is cut off")]
    CutOff,
    /// Its own description is impossible.
    #[error("its archive is damaged ({0})")]
    Damaged(&'static str),
}

/// An entry of an archive.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Offset of its header.
    header: u64,
    /// Its bytes in the archive.
    pub length: u64,
    /// Checksum of its content; 0 where none was computed.
    pub crc: u32,
    /// Whether it is compressed, which `torch.save` never does.
    pub compressed: bool,
}

/// An archive's entries by name; of equal names the last counts.
pub(super) struct Directory {
    records: BTreeMap<String, Record>,
    length: u64,
}

impl Directory {
    /// Reads the directory of a file of `length` bytes.
    ///
    /// # Errors
    /// [`ZipError`].
    pub fn read<F: Read + Seek>(file: &mut F, length: u64) -> Result<Self, ZipError> {
        let tail_length = length.min(END_LENGTH + LONGEST_COMMENT);
        let tail = part(file, length - tail_length, tail_length)?;
        let end = tail.windows(4).rposition(|window| window == END).ok_or(ZipError::CutOff)?;
        let end = tail.get(end..).unwrap_or_default();
        let offset = length - end.len() as u64;
        let (mut size, mut start) = (u64::from(word(end, 12)?), u64::from(word(end, 16)?));
        if offset >= 20 {
            let locator = part(file, offset - 20, 20)?;
            if locator.starts_with(LOCATOR_64) {
                let record = part(file, within(long(&locator, 8)?, 56, length)?, 56)?;
                if !record.starts_with(END_64) {
                    return Err(ZipError::Damaged("its 64-bit end record is missing"));
                }
                (size, start) = (long(&record, 40)?, long(&record, 48)?);
            }
        }
        if size > LONGEST_DIRECTORY {
            return Err(ZipError::Damaged("its directory is too long"));
        }
        let directory = part(file, within(start, size, length)?, size)?;
        let mut records = BTreeMap::new();
        let mut rest = directory.as_slice();
        while !rest.is_empty() {
            let (name, record, after) = entry(rest)?;
            within(record.header, record.length, length)?;
            records.insert(name, record);
            rest = after;
        }
        Ok(Self { records, length })
    }

    /// Names of all entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    /// An entry.
    pub fn get(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    /// Where the content of an entry begins.
    ///
    /// # Errors
    /// [`ZipError`].
    pub fn start<F: Read + Seek>(&self, file: &mut F, record: &Record) -> Result<u64, ZipError> {
        let header = part(file, within(record.header, 30, self.length)?, 30)?;
        if !header.starts_with(MAGIC) {
            return Err(ZipError::Damaged("an entry has no header"));
        }
        let names = u64::from(half(&header, 26)?) + u64::from(half(&header, 28)?);
        within(record.header + 30 + names, record.length, self.length)
    }

    /// The content of an entry of at most `most` bytes, checked by its checksum.
    ///
    /// # Errors
    /// [`ZipError`].
    pub fn content<F: Read + Seek>(&self, file: &mut F, record: &Record, most: u64) -> Result<Vec<u8>, ZipError> {
        if record.compressed {
            return Err(ZipError::Damaged(
                "it was compressed after saving: unpack it and save it with torch.save again",
            ));
        }
        if record.length > most {
            return Err(ZipError::Damaged("its pickle is too long"));
        }
        let start = self.start(file, record)?;
        let content = part(file, start, record.length)?;
        if record.crc != 0 && crc32fast::hash(&content) != record.crc {
            return Err(ZipError::Damaged("its pickle does not have its checksum"));
        }
        Ok(content)
    }
}

/// The first entry of a directory, and what follows it.
fn entry(bytes: &[u8]) -> Result<(String, Record, &[u8]), ZipError> {
    if !bytes.starts_with(ENTRY) {
        return Err(ZipError::Damaged("its directory is cut off"));
    }
    let (method, crc) = (half(bytes, 10)?, word(bytes, 16)?);
    let (stored, plain, header) = (word(bytes, 20)?, word(bytes, 24)?, word(bytes, 42)?);
    let [name, extra, comment] = [28, 30, 32].map(|at| half(bytes, at).map(usize::from));
    let (name, extra, comment) = (name?, extra?, comment?);
    let cut = || ZipError::Damaged("its directory is cut off");
    let (text, rest) = bytes.get(46..).and_then(|rest| rest.split_at_checked(name)).ok_or_else(cut)?;
    let (extra, rest) = rest.split_at_checked(extra).ok_or_else(cut)?;
    let rest = rest.get(comment..).ok_or_else(cut)?;
    // Sizes and offsets above 4 GiB are in an extra field, those only that do not fit.
    let mut wide = extra_64(extra).chunks_exact(8);
    let mut full = |short: u32| match short {
        u32::MAX => wide.next().map_or(Err(cut()), |word| long(word, 0)),
        short => Ok(u64::from(short)),
    };
    let (plain, length, header) = (full(plain)?, full(stored)?, full(header)?);
    let compressed = method != 0 || plain != length;
    Ok((String::from_utf8_lossy(text).into_owned(), Record { header, length, crc, compressed }, rest))
}

/// The 64-bit extra field among the extra fields.
fn extra_64(mut extra: &[u8]) -> &[u8] {
    while let (Ok(kind), Ok(length)) = (half(extra, 0), half(extra, 2)) {
        let Some(field) = extra.get(4..4 + usize::from(length)) else { break };
        if kind == 1 {
            return field;
        }
        extra = extra.get(4 + usize::from(length)..).unwrap_or_default();
    }
    &[]
}

/// `start`, where `length` bytes from there are inside a file of `all` bytes.
fn within(start: u64, length: u64, all: u64) -> Result<u64, ZipError> {
    let inside = start.checked_add(length).is_some_and(|end| end <= all);
    if inside { Ok(start) } else { Err(ZipError::Damaged("an entry lies outside the file")) }
}

/// A part of a file, which is known to be there.
fn part<F: Read + Seek>(file: &mut F, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    let found = file.take(length).read_to_end(&mut bytes)?;
    if found as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn half(bytes: &[u8], at: usize) -> Result<u16, ZipError> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, ZipError> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Result<u64, ZipError> {
    array(bytes, at).map(u64::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ZipError> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.copied().ok_or(ZipError::Damaged("its directory is cut off"))
}
