use std::path::{Path, PathBuf};

use serde_json::Value;
use vjepa_runtime::Normalization;
use vjepa_weights::TensorFile;

use super::*;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden/eval_pixels");
    assert!(carried.is_dir(), "{} is part of the repository", carried.display());
    let beside = root.join("../shared/golden/eval_pixels");
    [carried, beside].into_iter().filter(|folder| folder.is_dir()).collect()
}

fn rel_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (error / want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).sqrt()
}

#[test]
fn both_targets_and_their_losses() {
    for folder in folders() {
        let io = TensorFile::read(folder.join("io.safetensors")).unwrap();
        let info: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("info.json")).unwrap()).unwrap();
        let &[batch, 3, frames, height, width] = io.shape("clip_u8").unwrap() else { panic!() };
        let grid = TokenGrid { clip: [frames, height, width], tubelet: 2, patch: 16 };
        let bytes = io.u8("clip_u8").unwrap();
        let masked: Vec<usize> = io.i64("masked").unwrap().iter().map(|token| *token as usize).collect();
        let predictions = io.f32("pred").unwrap();
        for (name, target) in [("videomae", PixelTarget::Videomae), ("mae", PixelTarget::Mae)] {
            let stored = io.f32(&format!("target_{name}_t0")).unwrap();
            let kept = io.shape(&format!("target_{name}_t0")).unwrap()[1] * grid.width();
            let (mut loss, mut squares, mut sum, mut count) = (0.0, 0.0, 0.0, 0);
            for sample in 0..batch {
                let bytes = &bytes[sample * bytes.len() / batch..][..bytes.len() / batch];
                let clip = match target {
                    PixelTarget::Videomae => bytes.iter().map(|x| f32::from(*x) / 255.0).collect(),
                    PixelTarget::Mae => Normalization::Imagenet.of_planes(bytes),
                };
                let got = pixel_targets(&clip, grid, target).unwrap();
                assert!(rel_l2(&got[..kept], &stored[sample * kept..][..kept]) <= 1e-5, "{name}");
                let own = &predictions[sample * masked.len() * grid.width()..][..masked.len() * grid.width()];
                loss += masked_squared_error(own, &got, grid.width(), &masked).unwrap() / batch as f64;
                squares += got.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
                sum += got.iter().map(|x| f64::from(*x)).sum::<f64>();
                count += got.len();
            }
            let want = |key: &str| info[format!("{key}_{name}")].as_f64().unwrap();
            assert!((loss - want("mse")).abs() <= 1e-5 * want("mse"), "{name}: {loss}");
            let mean_square = squares / count as f64;
            assert!((mean_square - want("mean_square")).abs() <= 1e-5, "{name}: {mean_square}");
            assert!((sum / count as f64).abs() < 1e-6);
        }
    }
}

#[test]
fn sizes_are_checked() {
    let grid = TokenGrid { clip: [2, 4, 4], tubelet: 2, patch: 4 };
    assert!(pixel_targets(&[0.0; 96], grid, PixelTarget::Mae).is_ok());
    assert!(pixel_targets(&[0.0; 95], grid, PixelTarget::Mae).is_err());
    assert!(pixel_targets(&[0.0; 96], TokenGrid { patch: 3, ..grid }, PixelTarget::Mae).is_err());
    assert!(pixel_targets(&[0.0; 96], TokenGrid { patch: 0, ..grid }, PixelTarget::Mae).is_err());
    assert!(masked_squared_error(&[0.0; 4], &[0.0; 8], 4, &[2]).is_err());
    assert_eq!(masked_squared_error(&[1.0; 4], &[0.0; 8], 4, &[1]).unwrap(), 1.0);
}
