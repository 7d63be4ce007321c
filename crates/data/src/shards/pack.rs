//! Packs a data set into shards: files as they are, or made small by the `ffmpeg` program on the way.
//!
//! Which samples go into which shard is decided once, by the sizes of the files, and written down in `pack.json`. A shard is
//! written beside its name and renamed, its index after it, so a pack that was stopped goes on with the first shard that has no
//! index. What cannot be read is left out and listed in `left-out.jsonl`. The archives of one data set are the same bytes
//! whenever they are packed as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ShardIndex, Transcode, index_path, index_shard};
use crate::dialect::extension;
use crate::frames::is_picture;
use crate::list::{VideoEntry, VideoList};
use crate::media::{OpenError, Opener};
use crate::quarantine::Quarantine;
use crate::source::Contents;
use vjepa_video::VideoError;

/// How to pack.
#[derive(Debug)]
pub struct PackPlan<'a> {
    /// What is packed, in this order.
    pub list: &'a VideoList,
    /// Folder of the shards.
    pub out: &'a Path,
    /// Begins the name of each shard: `train` gives `train-000000.tar`.
    pub name: &'a str,
    /// Bytes of source files in a shard, about.
    pub shard_bytes: u64,
    /// How videos are made small; none packs files as they are.
    pub transcode: Option<Transcode>,
    /// Opens the samples.
    pub opener: &'a Opener,
}

/// What was decided when the pack began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    vjepa_pack: u32,
    samples: u64,
    /// SHA-256 of the samples' paths.
    sha256: String,
    transcode: Option<Transcode>,
    name: String,
    /// The first sample of each shard.
    begins: Vec<usize>,
}

/// A shard that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packed {
    /// The archive.
    pub shard: PathBuf,
    /// Its samples.
    pub samples: usize,
    /// Its size.
    pub bytes: u64,
    /// True where an earlier run made it.
    pub earlier: bool,
}

/// What a pack came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackReport {
    /// The shards, in order.
    pub shards: Vec<Packed>,
    /// Samples in them.
    pub samples: usize,
    /// Samples that could not be read; `left-out.jsonl` lists those of all runs.
    pub left_out: usize,
    /// Bytes of the source files.
    pub source_bytes: u64,
    /// Bytes of the shards.
    pub bytes: u64,
    /// Seconds that this run took.
    pub seconds: f64,
}

/// Packs a data set. `progress` is told each shard that is done.
///
/// # Errors
/// One sentence: an output folder that holds another pack or cannot be written, or a data set of which nothing can be read.
pub fn pack(plan: &PackPlan<'_>, progress: &(dyn Fn(&Packed) + Sync)) -> Result<PackReport, String> {
    let began = Instant::now();
    if !vjepa_runtime::files::is_name(plan.name) {
        return Err(format!("`{}` cannot begin a file's name: use letters, digits, `-` and `_`", plan.name));
    }
    fs::create_dir_all(plan.out).map_err(|error| format!("{}: cannot be made: {error}", plan.out.display()))?;
    // What is missing has no size, and is left out with its reason when its turn comes.
    let sizes: Vec<u64> =
        plan.list.entries.par_iter().map(|entry| plan.opener.size(&entry.path).unwrap_or(0)).collect();
    let record = decide(plan, &sizes)?;
    let left_out = Quarantine::open(Some(&plan.out.join("left-out.jsonl"))).map_err(|error| error.to_string())?;
    let (left_out, count) = (Mutex::new(left_out), plan.list.entries.len());
    let shard = |(number, &first): (usize, &usize)| {
        let end = record.begins.get(number + 1).copied().unwrap_or(count);
        let entries = plan.list.entries.get(first..end).unwrap_or_default();
        let path = plan.out.join(format!("{}-{number:06}.tar", plan.name));
        let packed = match done(&path) {
            Some(packed) => packed,
            None => one_shard(plan, &path, first, entries, &left_out)?,
        };
        progress(&packed);
        Ok(packed)
    };
    let shards = record.begins.par_iter().enumerate().map(shard).collect::<Result<Vec<Packed>, String>>()?;
    let samples = shards.iter().map(|packed| packed.samples).sum();
    let left_out = left_out.into_inner().unwrap_or_else(PoisonError::into_inner);
    if samples == 0 {
        return Err(format!("none of the {count} samples can be read; {}", plan.out.join("left-out.jsonl").display()));
    }
    if let Some(why) = left_out.failure() {
        return Err(format!("{}: cannot be written: {why}", plan.out.join("left-out.jsonl").display()));
    }
    Ok(PackReport {
        samples,
        left_out: count.saturating_sub(samples),
        source_bytes: sizes.iter().sum(),
        bytes: shards.iter().map(|packed| packed.bytes).sum(),
        shards,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// The record of this pack: that of the folder, or a new one.
fn decide(plan: &PackPlan<'_>, sizes: &[u64]) -> Result<Record, String> {
    let path = plan.out.join("pack.json");
    let (mut begins, mut filled) = (Vec::new(), u64::MAX);
    for (place, &size) in sizes.iter().enumerate() {
        if filled >= plan.shard_bytes {
            begins.push(place);
            filled = 0;
        }
        filled = filled.saturating_add(size);
    }
    let contents = Contents::of(&plan.list.entries);
    let record = Record {
        vjepa_pack: 1,
        samples: contents.videos,
        sha256: contents.sha256,
        transcode: plan.transcode.clone(),
        name: plan.name.into(),
        begins,
    };
    let failed = |error: &dyn std::fmt::Display| format!("{}: cannot be used: {error}", path.display());
    if !path.exists() {
        let text = serde_json::to_string(&record).map_err(|error| failed(&error))?;
        vjepa_runtime::write_atomically(&path, |file| std::io::Write::write_all(file, text.as_bytes()))
            .map_err(|error| failed(&error))?;
        return Ok(record);
    }
    let text = fs::read(&path).map_err(|error| failed(&error))?;
    let old: Record = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    let ascending = old.begins.first().is_none_or(|&first| first == 0) && old.begins.is_sorted();
    // The limits of the shards may be others than today's sizes would give.
    if !ascending || (Record { begins: Vec::new(), ..old.clone() }) != (Record { begins: Vec::new(), ..record }) {
        return Err(format!(
            "{} holds a pack of other samples or settings ({}): choose another folder, or remove that one",
            plan.out.display(),
            path.display()
        ));
    }
    Ok(old)
}

/// The shard, if an earlier run made it.
fn done(shard: &Path) -> Option<Packed> {
    let bytes = fs::metadata(shard).ok()?.len();
    let index = ShardIndex::parse(&fs::read(index_path(shard)).ok()?).ok()?;
    let samples = index.members().len();
    (index.bytes == bytes).then(|| Packed { shard: shard.into(), samples, bytes, earlier: true })
}

fn one_shard(
    plan: &PackPlan<'_>,
    shard: &Path,
    first: usize,
    entries: &[VideoEntry],
    left_out: &Mutex<Quarantine>,
) -> Result<Packed, String> {
    let mut samples = 0;
    let written = vjepa_runtime::write_atomically(shard, |file| {
        let mut archive = tar::Builder::new(file);
        for (place, entry) in (first..).zip(entries) {
            match content(plan, entry) {
                Ok((bytes, ending)) => {
                    let key = format!("{place:08}_{}", plain(&entry.path));
                    append(&mut archive, &format!("{key}.{ending}"), &bytes)?;
                    if let Some(label) = entry.label {
                        append(&mut archive, &format!("{key}.cls"), label.to_string().as_bytes())?;
                    }
                    samples += 1;
                }
                Err(Failure::Sample(why)) => {
                    left_out.lock().unwrap_or_else(PoisonError::into_inner).add(&entry.path, &why);
                }
                Err(Failure::Storage(why)) => return Err(std::io::Error::other(why)),
            }
        }
        archive.finish()
    });
    written.map_err(|error| format!("{}: cannot be written: {error}", shard.display()))?;
    if samples == 0 {
        // An archive without samples has no index; an empty one says that it is done.
        let bytes = fs::metadata(shard).map_err(|error| format!("{}: {error}", shard.display()))?.len();
        super::write_index(shard, &ShardIndex::new(bytes, Vec::new())?)?;
        return Ok(Packed { shard: shard.into(), samples, bytes, earlier: false });
    }
    let indexed = index_shard(shard)?;
    Ok(Packed { shard: shard.into(), samples, bytes: indexed.index.bytes, earlier: false })
}

/// Why a sample does not go into a shard.
enum Failure {
    /// It is left out.
    Sample(String),
    /// Other samples would fare no better.
    Storage(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Sample(why)
    }
}

impl Failure {
    fn of(path: &Path, error: &OpenError) -> Self {
        match error.is_storage() {
            true => Self::Storage(format!("{}: {error}", path.display())),
            false => Self::Sample(error.reason(path)),
        }
    }
}

/// The bytes of a sample as they go into the archive, with the ending of their name.
fn content(plan: &PackPlan<'_>, entry: &VideoEntry) -> Result<(Vec<u8>, String), Failure> {
    let path = &entry.path;
    let opened = plan.opener.open_keeping(path);
    // What our decoders do not know, the ffmpeg program may.
    if let (Err(error), Some(transcode)) = (&opened, &plan.transcode)
        && matches!(error.video(), Some(VideoError::UnsupportedCodec { .. }))
    {
        let bytes = plan.opener.bytes(path).map_err(|error| Failure::of(path, &error.into()))?;
        return Ok((transcode.unknown(path, bytes.as_deref())?, "mp4".into()));
    }
    let (mut media, bytes) = opened.map_err(|error| Failure::of(path, &error))?;
    match &plan.transcode {
        Some(transcode) if !is_picture(path) => Ok((transcode.run(&mut media, path, bytes.as_deref())?, "mp4".into())),
        _ if path.is_dir() => {
            let why = "is a folder of frames, which is packed as a video: name the ffmpeg program with --ffmpeg";
            Err(Failure::Sample(why.into()))
        }
        _ => {
            let none = || "has no file name ending, which readers of shards go by: rename it".to_owned();
            let ending = extension(path).ok_or_else(none)?;
            let bytes = match bytes {
                Some(bytes) => bytes,
                None => plan.opener.sample(path).map_err(|error| Failure::of(path, &error.into()))?,
            };
            Ok((bytes, ending))
        }
    }
}

fn append(archive: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // Neither time nor owner, so that the same samples give the same archive.
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes)
}

/// A file's name without its ending, as the key of a sample: no dots, nothing outside of ASCII, not long.
fn plain(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let letter = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    stem.chars().take(60).map(letter).collect()
}
