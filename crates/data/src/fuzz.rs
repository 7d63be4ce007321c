//! The readers as plain functions of bytes, for fuzzing: what they return or refuse does not matter, only that they do.

use std::io::Cursor;
use std::path::Path;

use vjepa_recipe::text;

use crate::images::Picture;
use crate::shards::{self, Member, ShardIndex};

/// What messages call the bytes.
const NAME: &str = "input";

fn named(why: String) -> String {
    format!("{NAME}: {why}")
}

/// A tar archive; gives the number of its samples. Every sample's place is checked against its header, as when it is read.
///
/// # Errors
/// What is wrong with it.
pub fn archive(bytes: &[u8]) -> Result<usize, String> {
    let indexed = shards::index_archive(Cursor::new(bytes), bytes.len() as u64).map_err(named)?;
    Ok(members(bytes, &indexed.index))
}

/// The index of a shard; gives the number of its samples. What it says is looked for in `archive`.
///
/// # Errors
/// What is wrong with it.
pub fn index(bytes: &[u8], archive: &[u8]) -> Result<usize, String> {
    let index = ShardIndex::parse(bytes).map_err(named)?;
    Ok(members(archive, &index))
}

fn members(archive: &[u8], index: &ShardIndex) -> usize {
    let whole = |member: &&Member| {
        let range = member.range();
        let ends = (usize::try_from(range.start), usize::try_from(range.end));
        let (Ok(start), Ok(end)) = ends else { return false };
        archive.get(start..end).is_some_and(|bytes| shards::check_header(bytes, member).is_ok())
    };
    index.members().iter().filter(whole).count()
}

/// A list of videos; gives the number of its lines.
///
/// # Errors
/// What is wrong with it.
pub fn list(bytes: &[u8]) -> Result<usize, String> {
    let read = text::decode(bytes).map_err(|error| named(error.to_string()))?;
    let list = crate::list::resolve(&read, Path::new("/no/such/folder")).map_err(named)?;
    Ok(list.entries.len())
}

/// A JPEG or PNG; gives the number of its pixels.
///
/// # Errors
/// What is wrong with it.
pub fn picture(bytes: &[u8]) -> Result<usize, String> {
    let (_, width, height) = Picture::header(bytes).map_err(named)?;
    // What is larger is read, too, but only its memory is in the way of finding faults.
    if width.saturating_mul(height) > 1 << 22 {
        return Err(named("is larger than pictures for fuzzing are".into()));
    }
    let picture = Picture::decode(bytes).map_err(named)?;
    Ok(picture.rgb.len() / 3)
}
