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
