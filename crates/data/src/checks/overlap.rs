//! Videos of one list that are in another, too: by name, and by what their frames look like.
//!
//! A video's fingerprint is the difference hash (64 bits, of luma averaged to 9 by 8) of eight frames at the middles of equal
//! parts. It stays about the same when a video is scaled or encoded again; it does not find a part of a video, a mirrored or a
//! cropped one. Frames without contrast have none, since all black frames look alike.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use vjepa_video::{ColorMatrix, Frame};

use super::journal::{Journal, Line};
use crate::list::VideoList;
use crate::media::{Media, Opener};

/// Frames of a fingerprint.
const FRAMES: usize = 8;
/// Bits in which frames of the same picture may differ.
const NEAR: u32 = 10;
/// Frames that have to agree, of those with contrast in both.
const AGREEING: usize = 6;
/// Frames with contrast that both videos need, to be compared at all.
const COMPARED: usize = 4;
/// Mean difference of neighbouring averages below which a frame has no contrast, of 255.
const CONTRAST: f64 = 1.5;
/// Blocks of bits by which candidates are found: two hashes that differ in fewer bits than there are blocks share one.
const BLOCKS: u32 = 8;

/// What a video looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The hash of each frame; none for one without contrast.
    pub hashes: Vec<Option<u64>>,
    /// Why it has no fingerprint.
    pub fault: Option<String>,
}

impl Line for Fingerprint {
    fn path(&self) -> &Path {
        &self.path
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The fingerprints of a list's videos, in parallel; `journal` has those of an earlier run.
///
/// # Errors
/// One sentence, where the journal cannot be written, or the files lie where nothing can be reached.
pub fn fingerprints(
    list: &VideoList,
    journal: &Journal<Fingerprint>,
    opener: &Opener,
    progress: &(dyn Fn(&Fingerprint) + Sync),
) -> Result<Vec<Fingerprint>, String> {
    let one = |entry: &crate::list::VideoEntry| {
        let bytes = opener.size(&entry.path).unwrap_or(0);
        if let Some(known) = journal.get(&entry.path, bytes) {
            return Ok(known.clone());
        }
        let (hashes, fault) = match opener.open(&entry.path) {
            // A store that cannot be reached says nothing of the file.
            Err(error) if error.is_storage() => return Err(format!("{}: {error}", entry.path.display())),
            Err(error) => (Vec::new(), Some(error.reason(&entry.path))),
            Ok(media) => match hashes(media) {
                Ok(hashes) => (hashes, None),
                Err(why) => (Vec::new(), Some(why)),
            },
        };
        let made = Fingerprint { path: entry.path.clone(), bytes, hashes, fault };
        journal.add(&made)?;
        progress(&made);
        Ok(made)
    };
    list.entries.par_iter().map(one).collect()
}

fn hashes(mut media: Media) -> Result<Vec<Option<u64>>, String> {
    let frames = media.info().frames;
    if frames == 0 {
        return Err("has no frames".into());
    }
    let places: Vec<usize> = (0..FRAMES).map(|part| frames * (2 * part + 1) / (2 * FRAMES)).collect();
    Ok(media.frames(&places)?.iter().map(hash).collect())
}

/// The difference hash of a frame's luma.
fn hash(frame: &Frame) -> Option<u64> {
    const ACROSS: usize = 9;
    const DOWN: usize = 8;
    // Averages over whole pixels: cells overlap where the frame is small.
    let span = |cell: usize, cells: usize, side: usize| {
        let begin = cell * side / cells;
        (begin, ((cell + 1) * side).div_ceil(cells).max(begin + 1).min(side))
    };
    // The pictures of frame folders have no luma.
    let luma = |place: usize| -> u64 {
        let of = |plane: &[u8]| plane.get(place).copied().map_or(0, u64::from);
        match frame.color.matrix {
            ColorMatrix::Rgb => (299 * of(&frame.v) + 587 * of(&frame.y) + 114 * of(&frame.u)) / 1000,
            _ => of(&frame.y),
        }
    };
    let mut cells = [[0f64; ACROSS]; DOWN];
    for (y, row) in cells.iter_mut().enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            let ((top, bottom), (left, right)) = (span(y, DOWN, frame.height), span(x, ACROSS, frame.width));
            let sum: u64 = (top..bottom).flat_map(|y| (left..right).map(move |x| y * frame.width + x)).map(luma).sum();
            *value = sum as f64 / (((bottom - top) * (right - left)).max(1)) as f64;
        }
    }
    let steps = || cells.iter().flat_map(|row| row.windows(2).map(|two| two[1] - two[0]));
    let contrast = steps().map(f64::abs).sum::<f64>() / (8 * DOWN) as f64;
    let bits = steps().enumerate().filter(|(_, step)| *step > 0.0).fold(0, |bits, (bit, _)| bits | 1 << bit);
    (contrast >= CONTRAST).then_some(bits)
}

/// How a video is in the other list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Same {
    /// It has the name, without folder and ending.
    Name,
    /// It looks the same.
    Frames,
    /// Both.
    Both,
}

impl Same {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Frames => "frames",
            Self::Both => "name and frames",
        }
    }
}

/// A video of the first list and one of the second that are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// Its place in the first list.
    pub index: usize,
    /// In the first list.
    pub path: PathBuf,
    /// In the second.
    pub other: PathBuf,
    /// How they are the same.
    pub by: Same,
}

/// The videos of `first` that are in `second`, in the order of `first`, each once with the first that it equals.
pub fn overlap(first: &[Fingerprint], second: &[Fingerprint]) -> Vec<Overlap> {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut blocks: HashMap<(usize, u32, u8), Vec<usize>> = HashMap::new();
    for (place, other) in second.iter().enumerate() {
        names.entry(name(&other.path)).or_insert(place);
        for key in keys(other) {
            blocks.entry(key).or_default().push(place);
        }
    }
    let one = |(index, video): (usize, &Fingerprint)| {
        // How often each of the other list shares a block, so that only likely ones are compared.
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        for place in keys(video).filter_map(|key| blocks.get(&key)).flatten() {
            *shared.entry(*place).or_insert(0) += 1;
        }
        let looks = |place: &usize| second.get(*place).is_some_and(|other| alike(video, other));
        let by_frames =
            shared.into_iter().filter(|(_, count)| *count >= AGREEING.min(COMPARED)).map(|(p, _)| p).find(looks);
        let by_name = names.get(&name(&video.path)).copied();
        let (place, by) = match (by_name, by_frames) {
            (Some(place), Some(_)) => (place, Same::Both),
            (Some(place), None) => (place, Same::Name),
            (None, Some(place)) => (place, Same::Frames),
            (None, None) => return None,
        };
        let other = second.get(place)?.path.clone();
        Some(Overlap { index, path: video.path.clone(), other, by })
    };
    first.par_iter().enumerate().filter_map(one).collect()
}

/// The blocks of bits of each frame.
fn keys(video: &Fingerprint) -> impl Iterator<Item = (usize, u32, u8)> {
    let hashes = video.hashes.iter().enumerate().filter_map(|(frame, hash)| Some((frame, (*hash)?)));
    hashes.flat_map(|(frame, hash)| (0..BLOCKS).map(move |block| (frame, block, (hash >> (8 * block)) as u8)))
}

fn alike(one: &Fingerprint, other: &Fingerprint) -> bool {
    let pairs = one.hashes.iter().zip(&other.hashes).filter_map(|(a, b)| Some((*a)? ^ (*b)?));
    let near: Vec<bool> = pairs.map(|bits| bits.count_ones() <= NEAR).collect();
    let agreeing = near.iter().filter(|near| **near).count();
    near.len() >= COMPARED && agreeing * FRAMES >= AGREEING * near.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(path: &str, hashes: [u64; FRAMES]) -> Fingerprint {
        Fingerprint { path: path.into(), bytes: 1, hashes: hashes.map(Some).to_vec(), fault: None }
    }

    #[test]
    fn names_and_looks_are_found() {
        let picture: [u64; FRAMES] = std::array::from_fn(|i| mix(i as u64));
        let near = picture.map(|hash| hash ^ 0b1001_0010);
        let far: [u64; FRAMES] = std::array::from_fn(|i| mix(100 + i as u64));
        let first = [made("t/a.mp4", near), made("t/b.mp4", far), made("t/c.avi", far)];
        let mut black = made("v/black.mp4", picture);
        black.hashes = vec![None; FRAMES];
        let second = [black, made("v/x.mp4", picture), made("v/C.mp4", picture)];
        let found = overlap(&first, &second);
        assert_eq!(found.iter().map(|o| (o.index, o.by)).collect::<Vec<_>>(), [(0, Same::Frames), (2, Same::Name)]);
        assert_eq!(found[0].other, Path::new("v/x.mp4"));
        let both = overlap(&[made("c.mp4", picture)], &second);
        assert_eq!(both[0].by, Same::Both);
    }

    fn mix(number: u64) -> u64 {
        vjepa_recipe::counter::mix(&[number])
    }
}
