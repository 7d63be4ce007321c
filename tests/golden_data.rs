//! Masks, schedules, clip sampling and transforms equal the official code's, number for number.
//!
//! `tests/golden/` holds what the official code gave; `masks/` is cut to the first eight of twenty batches.

use std::path::{Path, PathBuf};

use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{data, masks, schedules};

fn golden(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind)
}

/// All checks hold, and there are as many as the folder has data for.
fn assert_all(checks: &[Check], count: usize) {
    let failures: Vec<String> = checks.iter().filter(|check| check.failed()).map(Check::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(checks.len(), count);
}

#[test]
fn multiblock_masks_are_the_official_ones() {
    // Random numbers, block sizes of two generators, eight batches of two (context, target) pairs, and two statistics of
    // each generator.
    assert_all(&masks::check(&golden("masks")).unwrap(), 3 + 8 * 4 + 4);
}

#[test]
fn causal_masks_and_tubes_are_the_official_ones() {
    assert_all(&masks::check_extra(&golden("extra")).unwrap(), 1 + 4);
}

#[test]
fn schedules_are_the_official_ones() {
    assert_all(&schedules::check(&golden("schedules")).unwrap(), 13 + 2);
}

#[test]
fn clips_boxes_and_transforms_are_the_official_ones() {
    // 60 clip samplings, 5 random ones, 200 boxes in one check, 5 training crops, 1 + 3 evaluation views.
    assert_all(&data::check(&golden("data")).unwrap(), 60 + 5 + 1 + 5 + 4);
}

#[test]
fn a_folder_without_golden_data_is_an_error_that_names_the_file() {
    let nowhere = golden("nowhere");
    for error in [
        masks::check(&nowhere).unwrap_err(),
        masks::check_extra(&nowhere).unwrap_err(),
        schedules::check(&nowhere).unwrap_err(),
        data::check(&nowhere).unwrap_err(),
    ] {
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
}
