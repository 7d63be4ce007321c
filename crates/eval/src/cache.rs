//! Features kept on disk, so that trying another probe does not run the encoder again.
//!
//! A file is named by the SHA-256 of everything its values follow from: the checkpoint's bytes, the videos (path, size, time
//! of change; in shards those of the shard), their labels, clips, views and preprocessing. It is written whole or not at all; one
//! that is damaged or does not fit is made again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vjepa_runtime::files::{self, hex};

use super::features::{ClipEncoder, Features, Keep};
use super::protocols::videos::SampleSet;
use super::videos::{VideoFeatures, video_features};
use super::{EvalError, OnProgress};
use vjepa_collective::any;
use vjepa_data::VideoEntry;
use vjepa_data::shards::split_path;
use vjepa_data::{BadVideo, SamplePlan};
use vjepa_weights as weights;
use vjepa_weights::Tensors;

/// Version of the features: raised when equal files would give other features.
const VERSION: &str = "vjepa-features-2";

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// [`EvalError::File`].
pub fn file_digest(path: &Path) -> Result<String, EvalError> {
    files::sha256(path).map_err(|error| EvalError::file(path, format!("cannot be read: {error}")))
}

/// Name of the cached features of some videos under an encoder whose checkpoint has the digest `checkpoint`.
fn key(checkpoint: &str, model: &str, plan: &SamplePlan, entries: &[VideoEntry], keep: (Keep, bool)) -> String {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    };
    add(VERSION);
    add(checkpoint);
    add(model);
    add(&format!("{plan:?} {keep:?}"));
    for entry in entries {
        // A sample of a shard changes with its shard.
        let file = split_path(&entry.path).map_or(entry.path.as_path(), |(shard, _)| shard);
        let meta = std::fs::metadata(file);
        let stamp = meta.as_ref().ok().map(|meta| (meta.len(), meta.modified().ok()));
        add(&format!("{} {:?} {stamp:?}", entry.path.display(), entry.label));
    }
    hex(&digest.finalize())
}

/// [`video_features`] of a set by an encoder whose file has the digest `checkpoint`, through the set's cache folder, which rank 0
/// alone reads and writes. The second value says whether they were found there; none on ranks other than 0.
///
/// # Errors
/// As [`video_features`]; a cache that cannot be written is an error, too, one that cannot be read is not.
pub fn cached_video_features(
    checkpoint: &str,
    encoder: &mut dyn ClipEncoder,
    set: &SampleSet<'_>,
    keep: Keep,
    progress: OnProgress<'_>,
) -> Result<Option<(VideoFeatures, bool)>, EvalError> {
    let SampleSet { entries, plan, attend, cache, ranks } = set;
    let keep = (keep, *attend);
    let name = || format!("{}.safetensors", key(checkpoint, &encoder.describe(), plan, entries, keep));
    let path = cache.as_deref().filter(|_| ranks.rank() == 0).map(|folder| folder.join(name()));
    let [_, dim] = encoder.tokens();
    let found = path.as_deref().and_then(|path| read(path, dim, set.predictions()));
    if any(*ranks, found.is_some())? {
        return Ok(found.map(|found| (found, true)));
    }
    let made = video_features(encoder, plan, entries, keep, *ranks, progress)?;
    if let (Some(path), Some(made)) = (&path, &made) {
        write(path, made)?;
    }
    Ok(made.map(|made| (made, false)))
}

fn read(path: &Path, dim: usize, per_sample: usize) -> Option<VideoFeatures> {
    let weights = weights::load(path).ok()?;
    let (shape, values) = weights.get("features").ok()?;
    let of = |key: &str| weights.metadata().get(key);
    let labels: Vec<i64> = serde_json::from_str(of("labels")?).ok()?;
    let paths: Vec<PathBuf> = serde_json::from_str(of("paths")?).ok()?;
    let bad: Vec<(PathBuf, String)> = serde_json::from_str(of("bad")?).ok()?;
    let bad = bad.into_iter().map(|(path, reason)| BadVideo { path, reason }).collect();
    let &[rows, tokens, width] = shape.as_slice() else { return None };
    let fits = width == dim && rows == labels.len() * per_sample && paths.len() == labels.len();
    fits.then_some(VideoFeatures { features: Features { tokens, dim, values }, labels, paths, bad })
}

fn write(path: &Path, made: &VideoFeatures) -> Result<(), EvalError> {
    let features = &made.features;
    let shape = vec![features.len(), features.tokens, features.dim];
    let tensors = Tensors::from([("features".to_owned(), (shape, features.values.clone()))]);
    let bad: Vec<_> = made.bad.iter().map(|bad| (&bad.path, &bad.reason)).collect();
    let json = |value: serde_json::Result<String>| value.map_err(|error| EvalError::file(path, error));
    let metadata = BTreeMap::from([
        ("labels".to_owned(), json(serde_json::to_string(&made.labels))?),
        ("paths".to_owned(), json(serde_json::to_string(&made.paths))?),
        ("bad".to_owned(), json(serde_json::to_string(&bad))?),
    ]);
    Ok(weights::save_safetensors(path, &tensors, &metadata)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_data::ViewPlan;
    use vjepa_recipe::config::DataConfig;

    const MEAN: (Keep, bool) = (Keep::Mean, true);

    fn plan(clips: usize) -> SamplePlan {
        let preprocessing = DataConfig::default().preprocessing();
        SamplePlan::Videos(ViewPlan { preprocessing, clips, views: 1, random: None })
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x").join("f.safetensors");
        let made = VideoFeatures {
            features: Features { tokens: 2, dim: 3, values: (0..12).map(|i| i as f32).collect() },
            labels: vec![4, -1],
            paths: vec!["a.mp4".into(), "b c.webm".into()],
            bad: vec![BadVideo { path: "d.mp4".into(), reason: "is \"cut off\"".into() }],
        };
        write(&path, &made).unwrap();
        let found = read(&path, 3, 1).unwrap();
        assert_eq!((found.features, found.labels, found.bad), (made.features, made.labels, made.bad));
        assert!(read(&path, 4, 1).is_none());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        assert!(read(&path, 3, 1).is_none());
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let entries = [VideoEntry { path: "none.mp4".into(), label: Some(1) }];
        let own = key("a", "m", &plan(1), &entries, MEAN);
        assert_eq!(own, key("a", "m", &plan(1), &entries, MEAN));
        let other_label = [VideoEntry { path: "none.mp4".into(), label: Some(2) }];
        let others = [
            key("b", "m", &plan(1), &entries, MEAN),
            key("a", "n", &plan(1), &entries, MEAN),
            key("a", "m", &plan(2), &entries, MEAN),
            key("a", "m", &plan(1), &entries, (Keep::Tokens, true)),
            key("a", "m", &plan(1), &other_label, MEAN),
            key("a", "m", &plan(1), &[], MEAN),
            key("a", "m", &plan(1), &entries, (Keep::Mean, false)),
        ];
        assert!(others.iter().all(|other| *other != own));
        assert!(file_digest(Path::new("none.mp4")).is_err());
    }

    /// A shard that is packed anew keeps the names of its samples.
    #[test]
    fn samples_of_a_shard_change_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("a.tar");
        let entries = [VideoEntry { path: shard.join("0_clip.mp4"), label: Some(1) }];
        let of = |bytes: &[u8]| {
            std::fs::write(&shard, bytes).unwrap();
            key("a", "m", &plan(1), &entries, MEAN)
        };
        assert_ne!(of(b"before"), of(b"afterwards"));
    }
}
