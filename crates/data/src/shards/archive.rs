//! The samples of a tar file in WebDataset form.
//!
//! Members with the same name up to the first dot of its last part belong to one sample: `000007.mp4` and `000007.cls`. One of
//! them is the video or picture; the label is the whole number in `.cls`, or of the key `label` or `cls` in `.json`. Other
//! members are passed over and counted.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek};
use std::path::Path;

use super::index::{Member, ShardIndex};
use crate::dialect::{EXTENSIONS, extension};
use crate::frames::is_picture;

/// Largest `.cls` or `.json` that is read.
const MOST_LABEL_BYTES: u64 = 1 << 20;
/// Members of an archive, at most.
const MOST_MEMBERS: usize = 1 << 24;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// Its samples.
    pub index: ShardIndex,
    /// Members that are no part of a sample, by file name ending.
    pub passed_over: BTreeMap<String, usize>,
}

/// Finds the samples of an archive of `bytes` bytes.
///
/// # Errors
/// What is wrong with it, to follow its name.
pub fn index_archive(archive: impl Read + Seek, bytes: u64) -> Result<Indexed, String> {
    let fail = |error: std::io::Error| format!("cannot be read as a tar file: {error}; pack it again");
    let mut archive = tar::Archive::new(archive);
    let (mut media, mut labels) = (Vec::new(), HashMap::new());
    let mut passed_over = BTreeMap::new();
    for (count, entry) in archive.entries_with_seek().map_err(fail)?.enumerate() {
        let mut entry = entry.map_err(fail)?;
        if count >= MOST_MEMBERS {
            return Err(format!("has more than {MOST_MEMBERS} members: split it"));
        }
        let kind = entry.header().entry_type();
        if !kind.is_file() {
            if !kind.is_dir() {
                *passed_over.entry("link or other special member".to_owned()).or_insert(0) += 1;
            }
            continue;
        }
        let name = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| "has a member whose name is not UTF-8: rename it and pack again".to_owned())?;
        let path = Path::new(&name);
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        match extension(path).as_deref() {
            Some(ending) if !hidden && (EXTENSIONS.contains(&ending) || is_picture(path)) => {
                media.push(Member { offset: entry.raw_file_position(), length: entry.size(), label: None, name });
            }
            Some(ending @ ("cls" | "json")) if !hidden => {
                let mut text = String::new();
                let within = entry.size() <= MOST_LABEL_BYTES;
                let read = (&mut entry).take(MOST_LABEL_BYTES).read_to_string(&mut text);
                let label = if within && read.is_ok() { label(ending, &text) } else { Err("is not text".into()) };
                match label.map_err(|why| format!("has the member `{name}`, which {why}"))? {
                    Some(label) if labels.insert(key(&name).to_owned(), label).is_some_and(|other| other != label) => {
                        return Err(format!("gives the sample `{}` two labels: leave one", key(&name)));
                    }
                    Some(_) => {}
                    None => *passed_over.entry(ending.to_owned()).or_insert(0) += 1,
                }
            }
            other => *passed_over.entry(other.unwrap_or("without an ending").to_owned()).or_insert(0) += 1,
        }
    }
    let mut keys: HashMap<&str, &str> = HashMap::new();
    for member in &media {
        if let Some(other) = keys.insert(key(&member.name), &member.name) {
            return Err(format!("has `{other}` and `{}` in one sample: give one of them another name", member.name));
        }
    }
    for member in &mut media {
        member.label = labels.remove(key(&member.name));
    }
    if media.is_empty() {
        return Err(format!("holds no videos or pictures (of {}, jpg, jpeg, png)", EXTENSIONS.join(", ")));
    }
    if !labels.is_empty() {
        *passed_over.entry("label of no sample".into()).or_insert(0) += labels.len();
    }
    Ok(Indexed { index: ShardIndex::new(bytes, media)?, passed_over })
}

/// What the members of a sample share: the name up to the first dot of its last part.
fn key(name: &str) -> &str {
    let begin = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name.get(begin..).and_then(|last| last.find('.')).map_or(name.len(), |dot| begin + dot);
    name.get(..end).unwrap_or(name)
}

/// The label in a member of this ending; none where it has none.
fn label(ending: &str, text: &str) -> Result<Option<i64>, String> {
    if ending == "cls" {
        let label = text.trim().parse().map_err(|_| "must hold a whole number, the label, and holds another text");
        return Ok(Some(label?));
    }
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("is no JSON ({error})"))?;
    match value.get("label").or_else(|| value.get("cls")) {
        None => Ok(None),
        Some(label) => {
            let label = label.as_i64().ok_or("has a label that is not a whole number: number the classes")?;
            Ok(Some(label))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    pub(super) fn archive(members: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn index(members: &[(&str, &str)]) -> Result<Indexed, String> {
        let bytes = archive(members);
        index_archive(Cursor::new(&bytes), bytes.len() as u64)
    }

    #[test]
    fn samples_are_found_with_their_labels() {
        let long = format!("{}/clip.webm", "folder".repeat(30));
        let indexed = index(&[
            ("000.mp4", "abc"),
            ("000.cls", "7\n"),
            ("b/001.frames.png", "d"),
            ("b/001.json", r#"{"label": 3, "caption": "x"}"#),
            ("002.mp4", "efgh"),
            ("002.txt", "a caption"),
            ("._003.mp4", "x"),
            (&long, "ij"),
        ])
        .unwrap();
        let found: Vec<_> = indexed.index.members().iter().map(|m| (m.name.as_str(), m.label, m.length)).collect();
        assert_eq!(found[..3], [("000.mp4", Some(7), 3), ("b/001.frames.png", Some(3), 1), ("002.mp4", None, 4)]);
        assert_eq!(found[3], (long.as_str(), None, 2));
        assert_eq!(indexed.passed_over.into_iter().collect::<Vec<_>>(), [("mp4".to_owned(), 1), ("txt".to_owned(), 1)]);
    }

    #[test]
    fn the_header_of_each_is_recognised() {
        let members = [("a.mp4", "abc"), (&format!("{}/clip.webm", "folder".repeat(30)), "ij"), ("ü.mp4", "k")];
        let bytes = archive(&members);
        let indexed = index_archive(Cursor::new(&bytes), bytes.len() as u64).unwrap();
        for (member, (_, content)) in indexed.index.members().iter().zip(members) {
            let range = member.range();
            let part = &bytes[range.start as usize..range.end as usize];
            super::super::index::check_header(part, member).unwrap();
            assert_eq!(&part[512..], content.as_bytes());
            let other = Member { length: member.length + 1, ..member.clone() };
            assert!(super::super::index::check_header(part, &other).unwrap_err().contains("another size"));
            let moved = &bytes[range.start as usize + 1..];
            assert!(super::super::index::check_header(moved, member).unwrap_err().contains("no tar header"));
        }
        let member = Member { name: "b.mp4".into(), ..indexed.index.members()[0].clone() };
        assert!(super::super::index::check_header(&bytes, &member).unwrap_err().contains("another name"));
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        let why = |members: &[(&str, &str)]| index(members).unwrap_err();
        assert!(why(&[("a.txt", "x")]).contains("holds no videos"));
        assert!(why(&[("a.mp4", "x"), ("a.webm", "y")]).contains("`a.mp4` and `a.webm` in one sample"));
        assert!(why(&[("a.mp4", "x"), ("a.cls", "cat")]).contains("`a.cls`, which must hold a whole number"));
        assert!(why(&[("a.mp4", "x"), ("a.cls", "1"), ("a.json", r#"{"label":2}"#)]).contains("two labels"));
        assert!(why(&[("a.mp4", "x"), ("a.json", r#"{"cls":"cat"}"#)]).contains("number the classes"));
        assert!(index_archive(Cursor::new(b"not a tar file".repeat(100)), 1400).unwrap_err().contains("tar file"));
    }
}
