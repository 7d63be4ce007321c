use proptest::prelude::*;

use super::*;

const CLIP: Geometry = Geometry { frames: 16, height: 224, width: 224, tubelet: 2, patch: 16 };

fn official() -> MaskCollator {
    let configs = vec![MultiBlockConfig::short_range(), MultiBlockConfig::long_range()];
    MaskCollator::new(CLIP, configs).unwrap()
}

fn error(geometry: Geometry, config: MultiBlockConfig) -> String {
    MaskCollator::new(geometry, vec![MultiBlockConfig::short_range(), config]).unwrap_err().to_string()
}

#[test]
fn block_sizes_of_the_first_iterations() {
    let collator = official();
    let size = |t, h, w| BlockSize { t, h, w };
    assert_eq!(collator.block_sizes(0), [size(8, 5, 6), size(8, 11, 13)]);
    assert_eq!(collator.block_sizes(1), [size(8, 6, 5), size(8, 12, 11)]);
    assert_eq!(collator.block_sizes(2), [size(8, 6, 5), size(8, 13, 11)]);
}

#[test]
fn first_official_batch_has_the_official_lengths() {
    let pairs = official().sample(4, 0, &mut TorchRng::new(0)).unwrap();
    let lengths: Vec<_> = pairs.iter().map(|pair| (pair.context.len, pair.target.len)).collect();
    assert_eq!(lengths, [(416, 976), (112, 1232)]);
}

#[test]
fn pairs_are_a_function_of_seed_and_step() {
    let collator = official();
    assert_eq!(collator.pairs(1, 9, 0, 2), collator.pairs(1, 9, 0, 2));
    assert_ne!(collator.pairs(1, 9, 0, 2), collator.pairs(2, 9, 0, 2));
    assert_ne!(collator.pairs(1, 9, 0, 2), collator.pairs(1, 10, 0, 2));
}

#[test]
fn causal_context_stays_in_the_first_steps() {
    let mut config = MultiBlockConfig::short_range();
    config.max_temporal_keep = 0.5;
    let collator = MaskCollator::new(CLIP, vec![config]).unwrap();
    // One sample, so that nothing is truncated.
    let pair = collator.pairs(0, 0, 0, 1).unwrap().remove(0);
    assert!(pair.context.indices.iter().all(|&token| token < 4 * 196));
    for late in 4 * 196..8 * 196 {
        assert!(pair.target.indices.contains(&late));
    }
}

#[test]
fn causal_context_keeps_one_step_at_least() {
    let mut config = MultiBlockConfig::short_range();
    config.max_temporal_keep = 0.01;
    let collator = MaskCollator::new(CLIP, vec![config]).unwrap();
    let pair = collator.pairs(0, 0, 0, 1).unwrap().remove(0);
    assert!(pair.context.indices.iter().all(|&token| token < 196));
}

#[test]
fn max_keep_bounds_the_context_only() {
    let mut config = MultiBlockConfig::short_range();
    let free = MaskCollator::new(CLIP, vec![config.clone()]).unwrap();
    config.max_keep = Some(100);
    let bounded = MaskCollator::new(CLIP, vec![config]).unwrap();
    let (free, bounded) = (free.pairs(0, 0, 0, 2).unwrap(), bounded.pairs(0, 0, 0, 2).unwrap());
    assert_eq!(bounded[0].context.len, 100);
    assert_eq!(bounded[0].target, free[0].target);
}

#[test]
fn blocks_that_cover_everything_are_an_error() {
    let collator = MaskCollator::new(CLIP, vec![MultiBlockConfig::blocks(1, 1.0)]).unwrap();
    // Iteration 2 draws aspect 1.228: not the whole frame. A square grid is covered by aspect 1 alone.
    let mut config = MultiBlockConfig::blocks(1, 1.0);
    config.aspect_ratio = (1.0, 1.0);
    assert!(collator.pairs(0, 2, 0, 1).is_ok());
    let collator = MaskCollator::new(CLIP, vec![config]).unwrap();
    let error = collator.pairs(0, 0, 0, 1).unwrap_err();
    assert!(error.to_string().starts_with("masks leave no context"), "{error}");
}

#[test]
fn validation_names_key_and_rule() {
    let base = MultiBlockConfig::long_range;
    let with = |change: fn(&mut MultiBlockConfig)| {
        let mut config = base();
        change(&mut config);
        error(CLIP, config)
    };
    assert_eq!(
        with(|c| c.spatial_scale = (0.7, 0.2)),
        "`mask[1].spatial_scale` must be [min, max] with 0 < min <= max <= 1, but is [0.7, 0.2]"
    );
    assert!(with(|c| c.temporal_scale = (0.5, 1.5)).starts_with("`mask[1].temporal_scale` must be"));
    assert!(with(|c| c.aspect_ratio = (0.0, 1.5)).starts_with("`mask[1].aspect_ratio` must be"));
    assert!(with(|c| c.aspect_ratio = (f64::NAN, 1.5)).starts_with("`mask[1].aspect_ratio` must be"));
    assert_eq!(with(|c| c.num_blocks = 0), "`mask[1].num_blocks` must be at least 1");
    assert!(with(|c| c.max_temporal_keep = 0.0).starts_with("`mask[1].max_temporal_keep` must be"));
    assert!(with(|c| c.max_keep = Some(0)).starts_with("`mask[1].max_keep` must be"));
    assert!(with(|c| c.spatial_scale = (0.001, 0.2)).contains("gives blocks of 0x0 patches"));
    assert_eq!(MaskCollator::new(CLIP, vec![]).unwrap_err().to_string(), "`mask` must list at least one generator");
    assert!(official().pairs(0, 0, 0, 0).is_err());
}

#[test]
fn config_refuses_unknown_keys_and_fills_in_official_defaults() {
    let parsed: MultiBlockConfig = serde_json::from_str(r#"{"num_blocks": 8, "spatial_scale": [0.15, 0.15]}"#).unwrap();
    assert_eq!(parsed, MultiBlockConfig::short_range());
    let wrong = serde_json::from_str::<MultiBlockConfig>(r#"{"num_blocks": 8, "spatial_scal": [0.15, 0.15]}"#);
    assert!(wrong.unwrap_err().to_string().contains("spatial_scal"));
}

fn config_strategy() -> impl Strategy<Value = MultiBlockConfig> {
    let keep = prop_oneof![Just(1.0), 0.1..1.0f64];
    let max_keep = prop_oneof![Just(None), (1usize..40).prop_map(Some)];
    (0.5..2.0f64, 0.0..1.0f64, 1usize..6, 0.1..0.6f64, 0.2..1.0f64, keep, max_keep).prop_map(
        |(aspect, spread, num_blocks, spatial, temporal, max_temporal_keep, max_keep)| MultiBlockConfig {
            aspect_ratio: (aspect, aspect + spread),
            num_blocks,
            spatial_scale: (spatial, spatial + spread * 0.2),
            temporal_scale: (temporal, 1.0),
            max_temporal_keep,
            max_keep,
            ..MultiBlockConfig::default()
        },
    )
}

proptest! {
    #[test]
    fn pairs_are_disjoint_ascending_and_in_range(
        config in config_strategy(),
        (frames, height, width) in (1usize..9, 4usize..12, 4usize..12),
        (seed, step, batch) in (any::<u64>(), 0u64..10_000, 1usize..6),
    ) {
        let geometry = Geometry { frames: frames * 2, height: height * 8, width: width * 8, tubelet: 2, patch: 8 };
        let collator = MaskCollator::new(geometry, vec![config.clone()])?;
        let tokens = collator.grid().tokens() as i32;
        let Ok(pairs) = collator.pairs(seed, step, 0, batch) else {
            return Ok(()); // no context on a small grid, a declared error
        };
        for pair in pairs {
            prop_assert!(pair.context.len >= 1 && pair.target.len >= 1);
            prop_assert!(config.max_keep.is_none_or(|most| pair.context.len <= most));
            for side in [&pair.context, &pair.target] {
                prop_assert_eq!(side.indices.len(), side.len * batch);
                for row in side.rows() {
                    prop_assert_eq!(row.len(), side.len);
                    prop_assert!(row.windows(2).all(|two| two[0] < two[1]));
                    prop_assert!(row.iter().all(|token| (0..tokens).contains(token)));
                }
            }
            for (context, target) in pair.context.rows().zip(pair.target.rows()) {
                prop_assert!(context.iter().all(|token| target.binary_search(token).is_err()));
            }
        }
    }
}

/// The folders of this name: in the repository, and beside the checkout where they are there.
fn folders(name: &str) -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = [root.join("tests/golden").join(name), root.join("../shared/golden").join(name)];
    folders.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// Rows of integers of a safetensors file, as the list of their tensors: name, shape, values.
fn integers(path: &std::path::Path) -> std::collections::BTreeMap<String, (Vec<usize>, Vec<i32>)> {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let mut found = std::collections::BTreeMap::new();
    for (name, entry) in header.as_object().unwrap() {
        let Some(dtype) = entry["dtype"].as_str().filter(|dtype| ["I16", "I32"].contains(dtype)) else { continue };
        let list = |key: &str| -> Vec<usize> { serde_json::from_value(entry[key].clone()).unwrap() };
        let range = list("data_offsets");
        let bytes = &data[range[0]..range[1]];
        let values = match dtype {
            "I16" => bytes.as_chunks::<2>().0.iter().map(|word| i16::from_le_bytes(*word).into()).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word)).collect(),
        };
        found.insert(name.clone(), (list("shape"), values));
    }
    found
}

fn recorded(folder: &std::path::Path) -> (Geometry, Vec<MultiBlockConfig>, serde_json::Value) {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config = serde_json::from_str::<serde_json::Value>(&text).unwrap()["config"].take();
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (side, patch, tubelet) = (size("img"), size("patch"), size("tubelet"));
    let clip = Geometry { frames: size("frames"), height: side, width: side, tubelet, patch };
    let generators: Vec<MultiBlockConfig> = serde_json::from_value(config["masks"].clone()).unwrap();
    (clip, generators, config)
}

fn assert_pairs(pairs: &[MaskPair], wanted: &std::collections::BTreeMap<String, (Vec<usize>, Vec<i32>)>, before: &str) {
    for (number, pair) in pairs.iter().enumerate() {
        for (kind, rows) in [("enc", &pair.context), ("pred", &pair.target)] {
            let name = format!("{before}.mask_{kind}.{number}");
            let (shape, values) = &wanted[&name];
            assert_eq!((shape.as_slice(), values), ([rows.batch, rows.len].as_slice(), &rows.indices), "{name}");
        }
    }
}

#[test]
fn the_second_generations_masks_are_the_official_ones() {
    for folder in folders("vjepa2_train") {
        let (clip, generators, config) = recorded(&folder);
        let seed = |key: &str| config[key].as_u64().unwrap();
        let batch = config["batch"].as_u64().unwrap() as usize;
        let collator = MaskCollator::new(clip, generators.clone()).unwrap();
        let mut positions = TorchRng::new(seed("mask_global_seed"));
        let wanted = integers(&folder.join("masks_10steps.safetensors"));
        for step in 0..10 {
            let pairs = collator.sample(batch, step, &mut positions).unwrap();
            assert_pairs(&pairs, &wanted, &format!("step{step}"));
        }
        // One batch of clips of two lengths: each has its own counter, and positions go on from one to the other.
        let wanted = integers(&folder.join("mixed_fpc.safetensors"));
        let mut positions = TorchRng::new(seed("mixed_mask_global_seed"));
        for (group, frames) in [clip.frames, clip.frames / 2].into_iter().enumerate() {
            let collator = MaskCollator::new(Geometry { frames, ..clip }, generators.clone()).unwrap();
            let rows = wanted[&format!("group{group}.mask_enc.0")].0[0];
            let pairs = collator.sample(rows, 0, &mut positions).unwrap();
            assert_pairs(&pairs, &wanted, &format!("group{group}"));
        }
    }
}

#[test]
fn complements_leave_no_token_out_and_blocks_can_be_seen() {
    let of = |change: &dyn Fn(&mut MultiBlockConfig)| {
        let mut config = MultiBlockConfig::short_range();
        change(&mut config);
        MaskCollator::new(CLIP, vec![config]).unwrap().pairs(3, 5, 0, 6).unwrap().remove(0)
    };
    let tokens = 1568;
    let plain = of(&|_| {});
    assert!(plain.context.len + plain.target.len < tokens);
    let full = of(&|config| config.full_complement = true);
    assert_eq!((&full.context, full.target.len), (&plain.context, tokens - plain.context.len));
    let predicted = of(&|config| config.pred_full_complement = true);
    assert_eq!((&predicted.target, predicted.context.len), (&plain.target, tokens - plain.target.len));
    for (pair, name) in [(&full, "full"), (&predicted, "pred")] {
        for (context, target) in pair.context.rows().zip(pair.target.rows()) {
            let mut all: Vec<i32> = context.iter().chain(target).copied().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..tokens as i32), "{name}");
            assert!(target.is_sorted() && context.is_sorted());
        }
    }
    let both = of(&|config| (config.full_complement, config.pred_full_complement) = (true, true));
    assert_eq!(both, full);
    let inverse = of(&|config| config.inv_block = true);
    assert_eq!((inverse.context, inverse.target), (plain.target, plain.context));
}

/// Means over `steps` batches of the lengths of contexts and targets.
fn lengths(clip: Geometry, config: MultiBlockConfig, batch: usize, steps: u64) -> (f64, f64) {
    let collator = MaskCollator::new(clip, vec![config]).unwrap();
    let (mut context, mut target) = (0, 0);
    for step in 0..steps {
        let pair = collator.pairs(1, step, 0, batch).unwrap().remove(0);
        (context, target) = (context + pair.context.len, target + pair.target.len);
    }
    (context as f64 / steps as f64, target as f64 / steps as f64)
}

#[test]
fn lengths_are_those_of_the_official_recipes() {
    let clip = |frames, side| Geometry { frames, height: side, width: side, tubelet: 2, patch: 16 };
    let image = Geometry { frames: 1, tubelet: 1, ..clip(1, 256) };
    // Recorded means of the official collator, and their deviation a batch, over 300, 60 and 30 batches.
    for (clip, config, batch, steps, wanted) in [
        (clip(16, 256), MultiBlockConfig::blocks(8, 0.15), 24, 300, (505.0, 971.0)),
        (clip(16, 256), MultiBlockConfig::blocks(2, 0.7), 24, 300, (131.0, 1441.0)),
        (clip(64, 256), MultiBlockConfig::blocks(8, 0.15), 12, 60, (2214.0, 4025.0)),
        (image, MultiBlockConfig::blocks(10, 0.15), 36, 300, (46.0, 132.0)),
        (image, MultiBlockConfig::blocks(10, 0.15), 144, 100, (39.0, 122.0)),
    ] {
        let got = lengths(clip, config, batch, steps);
        let near = |got: f64, wanted: f64| (got - wanted).abs() <= 0.06 * wanted + 2.0;
        assert!(near(got.0, wanted.0) && near(got.1, wanted.1), "{got:?} for {wanted:?}");
    }
}
