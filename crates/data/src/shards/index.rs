//! The index of a shard: where in the tar file each sample lies, and its label.
//!
//! `train-000000.tar` has `train-000000.tar.index` beside it, a text file that the archive's name, size and samples are read
//! from without the archive:
//!
//! ```text
//! vjepa-shard-index 1
//! bytes 104857600
//! samples 2
//! 512 734003 4 00000000_clip.mp4
//! 736768 812377 - 00000001_other.mp4
//! ```
//!
//! A sample's line has its offset and length in bytes, its label or `-`, and the member's name to the end of the line. An index
//! is data from elsewhere: nothing in it is trusted beyond the archive's size, and the member's own header is compared when it
//! is read.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;

/// Ending of an index, after the archive's whole name.
pub const INDEX_ENDING: &str = "index";
/// Bytes of a tar header, which stands right before the member's bytes.
pub const HEADER: u64 = 512;
/// Largest index that is read: 256 MiB, some millions of samples.
pub const MOST_INDEX_BYTES: u64 = 1 << 28;

const MAGIC: &str = "vjepa-shard-index 1";

/// A sample of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its first byte in the archive.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Its label, where it has one.
    pub label: Option<i64>,
    /// Its name in the archive.
    pub name: String,
}

impl Member {
    /// Its header and bytes in the archive.
    pub fn range(&self) -> Range<u64> {
        self.offset.saturating_sub(HEADER)..self.offset.saturating_add(self.length)
    }
}

/// The samples of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardIndex {
    /// Size of the archive in bytes.
    pub bytes: u64,
    members: Vec<Member>,
    places: HashMap<String, usize>,
}

impl ShardIndex {
    /// An index of these members.
    ///
    /// # Errors
    /// What is wrong with them, to follow the archive's name: a name that occurs twice or fits on no line, or a place outside
    /// of the archive.
    pub fn new(bytes: u64, members: Vec<Member>) -> Result<Self, String> {
        let mut places = HashMap::with_capacity(members.len());
        for (place, Member { offset, length, name, .. }) in members.iter().enumerate() {
            let end = offset.checked_add(*length);
            if *offset < HEADER || end.is_none_or(|end| end > bytes) {
                return Err(format!(
                    "has {bytes} bytes, but `{}` is said to lie at {offset} with {length} bytes",
                    short(name)
                ));
            }
            if name.is_empty() || name.contains(['\n', '\r']) || name.trim() != name {
                return Err(format!("has a member of the name {name:?}, which fits on no line: rename it"));
            }
            if places.insert(name.clone(), place).is_some() {
                return Err(format!("has the member `{}` twice: which of them is meant is not known", short(name)));
            }
        }
        Ok(Self { bytes, members, places })
    }

    /// The samples, in the order of the archive.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The sample of this name.
    pub fn find(&self, name: &str) -> Option<&Member> {
        self.members.get(*self.places.get(name)?)
    }

    /// The index as text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\nbytes {}\nsamples {}\n", self.bytes, self.members.len());
        for Member { offset, length, label, name } in &self.members {
            let label = label.map_or_else(|| "-".to_owned(), |label| label.to_string());
            // Writing to a string does not fail.
            let _ = writeln!(text, "{offset} {length} {label} {name}");
        }
        text
    }

    /// Reads an index.
    ///
    /// # Errors
    /// What is wrong with it, to follow its name.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("is not UTF-8 text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            return Err(damaged("does not begin as an index does"));
        }
        let mut number = |key: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok());
            value.ok_or_else(|| damaged(&format!("has no line `{key} NUMBER` where one must stand")))
        };
        let (size, count) = (number("bytes")?, number("samples")?);
        let mut members = Vec::new();
        for (line, text) in (4..).zip(lines) {
            let member = parse_line(text).ok_or_else(|| {
                damaged(&format!("has the line {line} `{}`, which is not \"offset length label name\"", short(text)))
            })?;
            members.push(member);
        }
        if members.len() as u64 != count {
            return Err(damaged(&format!("says it has {count} samples and lists {}", members.len())));
        }
        Self::new(size, members).map_err(|why| damaged(&format!("says that the archive {why}")))
    }
}

fn parse_line(line: &str) -> Option<Member> {
    let mut parts = line.splitn(4, ' ');
    let mut next = || parts.next();
    let (offset, length) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let label = match next()? {
        "-" => None,
        label => Some(label.parse().ok()?),
    };
    Some(Member { offset, length, label, name: next()?.to_owned() })
}

fn damaged(what: &str) -> String {
    format!("{what}: make it again with `vjepa data index`")
}

fn short(text: &str) -> String {
    vjepa_recipe::text::short(text, 60)
}

/// Compares the header before a member's bytes with what the index says.
///
/// # Errors
/// How they differ, to follow the sample's name.
pub fn check_header(header: &[u8], member: &Member) -> Result<(), String> {
    let changed =
        |what: &str| Err(format!("{what}: the shard has changed since it was indexed; run `vjepa data index` again"));
    let Some(block) = header.first_chunk::<512>() else { return changed("has no tar header before it") };
    let mut parsed = tar::Header::new_old();
    parsed.as_mut_bytes().copy_from_slice(block);
    let sum: u64 =
        block.iter().enumerate().map(|(i, &byte)| u64::from(if (148..156).contains(&i) { b' ' } else { byte })).sum();
    if parsed.cksum().map(u64::from).ok() != Some(sum) {
        return changed("has no tar header before it");
    }
    // Names that are long or not ASCII stand in a header of their own, and here in part only.
    let written_whole = member.name.is_ascii() && member.name.len() <= 100;
    let renamed = written_whole && parsed.path_bytes().as_ref() != member.name.as_bytes();
    match parsed.entry_size() {
        Ok(size) if size != member.length => changed("has another size in the archive"),
        Ok(_) if renamed => changed("has another name in the archive"),
        Ok(_) => Ok(()),
        Err(_) => changed("has no size in the archive"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(offset: u64, length: u64, name: &str) -> Member {
        Member { offset, length, label: None, name: name.into() }
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let members = vec![Member { label: Some(-3), ..member(512, 7, "a b.mp4") }, member(2048, 0, "folder/ü.webm")];
        let index = ShardIndex::new(4096, members).unwrap();
        assert_eq!(ShardIndex::parse(index.to_text().as_bytes()).unwrap(), index);
        assert_eq!(index.find("folder/ü.webm").map(Member::range), Some(1536..2048));
        assert_eq!(index.find("other"), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        let why = |text: &str| ShardIndex::parse(text.as_bytes()).unwrap_err();
        let index = |lines: &str| format!("{MAGIC}\nbytes 4096\nsamples 1\n{lines}");
        assert!(why("").contains("does not begin as an index"));
        assert!(why(&format!("{MAGIC}\nbytes x\n")).contains("no line `bytes NUMBER`"));
        assert!(why(&index("")).contains("says it has 1 samples and lists 0: make it again with `vjepa data index`"));
        assert!(why(&index("512 7 cat a.mp4")).contains("the line 4 `512 7 cat a.mp4`"));
        assert!(why(&index("512 7 -")).contains("offset length label name"));
        assert!(why(&index("512 4000 - a.mp4")).contains("`a.mp4` is said to lie at 512 with 4000 bytes"));
        assert!(why(&index("511 4 - a.mp4")).contains("lie at 511"));
        assert!(why(&index("18446744073709551615 1 - a.mp4")).contains("is said to lie"));
        let twice = ShardIndex::new(4096, vec![member(512, 1, "a"), member(1024, 1, "a")]).unwrap_err();
        assert!(twice.contains("`a` twice"), "{twice}");
        assert!(ShardIndex::parse(&[0xFF]).unwrap_err().contains("UTF-8"));
    }
}
