//! Masks and random tubes against the official collator, exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::{Check, GoldenError, read_json};
use vjepa_recipe::masks::{Geometry, MaskCollator, MaskError, MaskPair, MultiBlockConfig};
use vjepa_recipe::masks::{MaskStrategy, TubeCollator, TubeConfig};
use vjepa_recipe::rng::{NumpyRng, TorchRng};
use vjepa_weights::TensorFile;

/// The 224-pixel, 16-frame clips of `masks/` and of the tube counts.
const CLIP: Geometry = Geometry { frames: 16, height: 224, width: 224, tubelet: 2, patch: 16 };

/// The clips and the position seed of the causal masks in `extra/`; the block size seed is 0.
const CAUSAL_CLIP: Geometry = Geometry { frames: 8, height: 64, width: 64, ..CLIP };
const CAUSAL_SEED: u64 = 4;

#[derive(Deserialize)]
struct MasksJson {
    block_sizes_by_seed: BlockSizes,
}

/// Seed, the three random numbers, and (t, h, w) of each generator's blocks.
type SizeRow = (u64, [f64; 3], [i64; 3], [i64; 3]);

#[derive(Deserialize)]
struct BlockSizes {
    rows: Vec<SizeRow>,
}

/// Seed of the positions behind the statistics of batches of 24.
const STATS_SEED: u64 = 1;

#[derive(Deserialize)]
struct StatsJson {
    /// By generator, then by size as text.
    block_size_histogram_seeds0_1999: BTreeMap<String, BTreeMap<String, i64>>,
    /// By generator: context, target.
    official_bs24_first100_mean: Vec<[f64; 2]>,
}

#[derive(Deserialize)]
struct ExtraJson {
    #[serde(rename = "random_tube_0.9_224_16f")]
    random_tube: TubeCounts,
}

#[derive(Deserialize)]
struct TubeCounts {
    enc_tokens: i64,
    pred_tokens: i64,
}

#[derive(Deserialize)]
struct TrainingJson {
    config: TrainingConfig,
}

#[derive(Deserialize)]
struct TrainingConfig {
    img: usize,
    frames: usize,
    patch: usize,
    tubelet: usize,
    masks: Vec<serde_json::Map<String, serde_json::Value>>,
    mask_global_seed: u64,
}

/// Options of V-JEPA 2's generators that are all off in the golden data.
const OFF: [&str; 3] = ["full_complement", "pred_full_complement", "inv_block"];

/// Generators as a folder's configuration lists them.
fn generators(
    listed: Vec<serde_json::Map<String, serde_json::Value>>,
    path: &Path,
) -> Result<Vec<MultiBlockConfig>, GoldenError> {
    let one = |mut keys: serde_json::Map<String, serde_json::Value>| {
        keys.retain(|key, value| !(OFF.contains(&key.as_str()) && *value == serde_json::Value::Bool(false)));
        serde_json::from_value(keys.into()).map_err(|source| GoldenError::Json { path: path.into(), source })
    };
    listed.into_iter().map(one).collect()
}

/// Compares with a folder of golden masks: `masks/` (block sizes of 500 seeds, batches of the official collator) or a
/// training configuration such as `tiny/` (the masks of its ten steps).
///
/// # Errors
/// [`GoldenError`] when a file is missing or malformed.
pub fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    if dir.join("config.json").exists() { check_training(dir) } else { check_collator(dir) }
}

fn check_collator(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let json_path = dir.join("masks.json");
    let golden: MasksJson = read_json(&json_path)?;
    let configs = vec![MultiBlockConfig::short_range(), MultiBlockConfig::long_range()];
    let collator = new_collator(CLIP, configs, &json_path)?;

    let rows = golden.block_sizes_by_seed.rows;
    let (mut got_rand, mut want_rand) = (Vec::new(), Vec::new());
    let mut sizes = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for (seed, randoms, short, long) in rows {
        let mut rng = TorchRng::new(seed);
        got_rand.extend([rng.rand(), rng.rand(), rng.rand()]);
        want_rand.extend(randoms.map(|x| x as f32));
        let drawn = collator.block_sizes(seed);
        for (((got, want), size), golden) in sizes.iter_mut().zip(drawn).zip([short, long]) {
            got.extend([size.t, size.h, size.w].map(|x| x as i64));
            want.extend(golden);
        }
    }
    let mut checks = vec![Check::max_abs("masks.block_size.rand", &got_rand, &want_rand, 0.0)];
    for (generator, (got, want)) in sizes.iter().enumerate() {
        checks.push(Check::exact(format!("masks.block_size.gen{generator}"), got, want));
    }

    let tensors = TensorFile::read(batches_file(dir)?)?;
    let mut positions = TorchRng::new(0);
    compare_batches(&tensors, &collator, "batch", ["enc", "pred"], &mut positions, &mut checks)?;
    let stats_path = dir.join("stats.json");
    if stats_path.exists() {
        check_stats(&collator, &read_json(&stats_path)?, &stats_path, &mut checks)?;
    }
    Ok(checks)
}

/// Compares with the statistics of longer official runs: block sizes of 2000 iterations, and the mean lengths of the
/// first 100 of 2000 batches of 24.
fn check_stats(
    collator: &MaskCollator,
    stats: &StatsJson,
    path: &Path,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let mut counts = vec![BTreeMap::<String, i64>::new(); 2];
    for counter in 0..2000 {
        for (counts, size) in counts.iter_mut().zip(collator.block_sizes(counter)) {
            *counts.entry(format!("({}, {}, {})", size.t, size.h, size.w)).or_default() += 1;
        }
    }
    for (generator, got) in counts.iter().enumerate() {
        let none = BTreeMap::new();
        let want = stats.block_size_histogram_seeds0_1999.get(&format!("gen{generator}")).unwrap_or(&none);
        let sizes: BTreeSet<&String> = got.keys().chain(want.keys()).collect();
        let column = |counts: &BTreeMap<String, i64>| -> Vec<i64> {
            sizes.iter().map(|&size| counts.get(size).copied().unwrap_or(0)).collect()
        };
        checks.push(Check::exact(format!("masks.block_size_histogram.gen{generator}"), &column(got), &column(want)));
    }

    let mut positions = TorchRng::new(STATS_SEED);
    let mut sums = [[0.0; 2]; 2];
    for counter in 0..100 {
        let pairs = collator.sample(24, counter, &mut positions).map_err(|error| config_error(path, &error))?;
        for (sum, pair) in sums.iter_mut().zip(pairs) {
            sum[0] += pair.context.len as f64;
            sum[1] += pair.target.len as f64;
        }
    }
    for (generator, (sum, want)) in sums.iter().zip(&stats.official_bs24_first100_mean).enumerate() {
        let got = sum.map(|sum| sum / 100.0);
        checks.push(Check::series_rel(format!("masks.mean_lengths.gen{generator}"), &got, want, 1e-12));
    }
    Ok(())
}

/// The file of collator batches; its name ends in how many it holds.
fn batches_file(dir: &Path) -> Result<PathBuf, GoldenError> {
    let read = |source| GoldenError::Read { path: dir.into(), source };
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("masks_224_16f_bs4_x") && name.ends_with(".safetensors") {
            return Ok(path);
        }
    }
    Err(read(std::io::Error::new(std::io::ErrorKind::NotFound, "it holds no masks_224_16f_bs4_x*.safetensors")))
}

fn check_training(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let json_path = dir.join("config.json");
    let TrainingJson { config } = read_json(&json_path)?;
    let geometry = Geometry {
        frames: config.frames,
        height: config.img,
        width: config.img,
        tubelet: config.tubelet,
        patch: config.patch,
    };
    let tensors = TensorFile::read(dir.join("masks_10steps.safetensors"))?;
    check_steps(&tensors, geometry, config.masks, config.mask_global_seed, "step")
}

/// Compares the masks `{label}0.mask_enc.0`, ... of a run with what these generators draw.
pub(super) fn check_steps(
    tensors: &TensorFile,
    geometry: Geometry,
    listed: Vec<serde_json::Map<String, serde_json::Value>>,
    seed: u64,
    label: &str,
) -> Result<Vec<Check>, GoldenError> {
    let collator = new_collator(geometry, generators(listed, tensors.path())?, tensors.path())?;
    let mut positions = TorchRng::new(seed);
    let mut checks = Vec::new();
    compare_batches(tensors, &collator, label, ["mask_enc", "mask_pred"], &mut positions, &mut checks)?;
    Ok(checks)
}

/// Compares with `extra/`: the counts of a random tube and a batch of causal masks.
///
/// # Errors
/// [`GoldenError`] when a file is missing or malformed.
pub fn check_extra(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let stats_path = dir.join("stats.json");
    let stats: ExtraJson = read_json(&stats_path)?;
    let wrong = |error: MaskError| config_error(&stats_path, &error);
    let tube = TubeCollator::new(CLIP, vec![TubeConfig { ratio: 0.9 }]).map_err(wrong)?;
    let pairs = tube.sample(1, &mut NumpyRng::new(0)).map_err(wrong)?;
    let got: Vec<i64> = pairs.iter().flat_map(|pair| [pair.context.len as i64, pair.target.len as i64]).collect();
    let want = stats.random_tube;
    let mut checks = vec![Check::exact("masks.random_tube", &got, &[want.enc_tokens, want.pred_tokens])];

    let tensors = TensorFile::read(dir.join("extra.safetensors"))?;
    let configs = [MultiBlockConfig::short_range(), MultiBlockConfig::long_range()].map(|mut config| {
        config.max_temporal_keep = 0.5;
        config
    });
    let collator = new_collator(CAUSAL_CLIP, configs.to_vec(), &stats_path)?;
    let samples = samples(&tensors, "causal.mask_enc.0")?;
    let pairs = collator.sample(samples, 0, &mut TorchRng::new(CAUSAL_SEED)).map_err(wrong)?;
    compare_pairs(&tensors, &pairs, "causal", ["mask_enc", "mask_pred"], &mut checks)?;
    Ok(checks)
}

fn new_collator(geometry: Geometry, configs: Vec<MultiBlockConfig>, path: &Path) -> Result<MaskCollator, GoldenError> {
    MaskCollator::new(geometry, configs).map_err(|error| config_error(path, &error))
}

fn config_error(path: &Path, error: &MaskError) -> GoldenError {
    GoldenError::Config { path: path.into(), why: error.to_string() }
}

/// Draws and compares the batches `{label}0`, `{label}1`, ... for as long as there are any.
fn compare_batches(
    tensors: &TensorFile,
    collator: &MaskCollator,
    label: &str,
    kinds: [&str; 2],
    positions: &mut TorchRng,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    for counter in 0u64.. {
        let prefix = format!("{label}{counter}");
        let name = format!("{prefix}.{}.0", kinds[0]);
        if !tensors.contains(&name) {
            break;
        }
        let samples = samples(tensors, &name)?;
        let pairs =
            collator.sample(samples, counter, positions).map_err(|error| config_error(tensors.path(), &error))?;
        compare_pairs(tensors, &pairs, &prefix, kinds, checks)?;
    }
    Ok(())
}

/// Rows of a tensor, never more than it has values, whatever an empty one claims.
fn samples(tensors: &TensorFile, name: &str) -> Result<usize, GoldenError> {
    let rows = tensors.shape(name)?.first().copied().unwrap_or(0);
    Ok(rows.min(tensors.bytes(name)?.len()))
}

/// Compares each generator's context and target with `{prefix}.{kind}.{generator}`.
fn compare_pairs(
    tensors: &TensorFile,
    pairs: &[MaskPair],
    prefix: &str,
    kinds: [&str; 2],
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    for (generator, pair) in pairs.iter().enumerate() {
        for (kind, indices) in kinds.iter().zip([&pair.context, &pair.target]) {
            let want = tensors.i64(&format!("{prefix}.{kind}.{generator}"))?;
            let kind = kind.trim_start_matches("mask_");
            checks.push(Check::exact(format!("masks.{prefix}.{kind}.{generator}"), &indices.indices, &want));
        }
    }
    Ok(())
}
