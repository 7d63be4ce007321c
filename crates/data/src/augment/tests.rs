use proptest::prelude::*;

use super::*;
use crate::source::SampleKey;
use crate::transforms::CropBox;

const KEY: SampleKey = SampleKey { seed: 3, epoch: 1, position: 7, retry: 0 };

fn noisy(height: usize, width: usize, salt: u64) -> Vec<u8> {
    let mut rng = vjepa_recipe::counter::CounterRng::new(&[salt]);
    (0..height * width * 3).map(|_| rng.below(256) as u8).collect()
}

#[test]
fn policy_strings() {
    let rand = |text: &str| match text.parse().unwrap() {
        Policy::Rand(rand) => rand,
        Policy::Original => panic!(),
    };
    assert_eq!(rand("rand-m7-n4-mstd0.5-inc1"), RandAugment::OFFICIAL);
    assert_eq!(rand("rand-inc0"), RandAugment { magnitude: 10.0, count: 2, deviation: 0.0, increasing: true });
    assert_eq!(rand("rand-m9.5").magnitude, 9.5);
    assert!(!rand("rand-m9-n3").increasing);
    assert_eq!("original".parse::<Policy>().unwrap(), Policy::Original);
    for (text, part) in [
        ("", "is not known"),
        ("v0", "is not known"),
        ("original-mstd0.5", "is not known"),
        ("rand-m11", "`m11`"),
        ("rand-m", "`m`"),
        ("rand-n2.5", "whole"),
        ("rand-m-3", "`m`"),
        ("rand-m7-w0", "`w0`"),
        ("rand-m7-x1", "`x1`"),
        ("rand-inc", "`inc`"),
    ] {
        let error = text.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(&format!("`{text}`")), "{text}: {error}");
    }
}

#[test]
fn keyed_draws_are_a_function_of_the_key() {
    let frames = vec![noisy(24, 30, 1), noisy(24, 30, 2)];
    let augment = ClipAugment { flip: true, ..ClipAugment::probe(16) };
    let clip = |key, repeat| {
        let mut out = vec![0.0; 3 * 2 * 16 * 16];
        augment.apply(frames.clone(), (24, 30), &mut Keyed::new(key, repeat), &mut out).unwrap();
        out
    };
    let first = clip(KEY, 0);
    assert_eq!(first, clip(KEY, 0));
    let others = [
        (SampleKey { seed: 4, ..KEY }, 0),
        (SampleKey { epoch: 2, ..KEY }, 0),
        (SampleKey { position: 8, ..KEY }, 0),
        (SampleKey { retry: 1, ..KEY }, 0),
        (KEY, 1),
    ];
    for (key, repeat) in others {
        assert_ne!(first, clip(key, repeat), "{key:?} {repeat}");
    }
    let mut both = vec![0.0; 2 * first.len()];
    augment.apply_repeated(&frames, (24, 30), KEY, 2, &mut both).unwrap();
    assert_eq!(both[..first.len()], first);
    assert_eq!(both[first.len()..], clip(KEY, 1));
    let error = augment.apply_repeated(&frames, (24, 30), KEY, 3, &mut both).unwrap_err();
    assert!(matches!(error, AugmentError::Transform(TransformError::OutputSize { .. })));
    assert!(matches!(augment.apply_repeated(&frames, (24, 30), KEY, 0, &mut both), Err(AugmentError::Setting(_))));
}

#[test]
fn keyed_draws_have_their_distributions() {
    let mut draws = Keyed::of_batch(1, 2);
    let n = 20_000;
    let moments = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / n as f64;
        (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64)
    };
    let values: Vec<f64> = (0..n).map(|_| draws.normal(7.0, 0.5)).collect();
    let (mean, variance) = moments(&values);
    assert!((mean - 7.0).abs() < 0.02 && (variance - 0.25).abs() < 0.01, "{mean} {variance}");
    for alpha in [0.2, 0.8, 1.0, 3.0] {
        let values: Vec<f64> = (0..n).map(|_| draws.beta(alpha)).collect();
        let (mean, variance) = moments(&values);
        let wanted = 0.25 / (2.0 * alpha + 1.0);
        assert!((mean - 0.5).abs() < 0.02 && (variance / wanted - 1.0).abs() < 0.05, "{alpha}: {mean} {variance}");
    }
    let mut seen = [0; 15];
    (0..n).for_each(|_| seen[draws.operation(15)] += 1);
    assert!(seen.iter().all(|&count| (1100..1600).contains(&count)), "{seen:?}");
}

#[test]
fn official_beta_above_one_is_numpys() {
    // np.random.seed(5); np.random.beta(2.5, 2.5) three times, then rand()
    let mut draws = OfficialDraws::new(5);
    let drawn = [draws.beta(2.5), draws.beta(2.5), draws.beta(2.5)];
    let wanted = [0.6269973552407364, 0.81637875536405, 0.43533902407324754];
    assert!(drawn.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-15), "{drawn:?}");
    assert_eq!(draws.next_numpy(), 0.4413092228959531);
}

#[test]
fn bad_batches_and_settings_are_sentences() {
    let mix = Mix { lambda: 0.3, pasted: None };
    let say = |result: Result<(), AugmentError>| result.unwrap_err().to_string();
    assert!(say(mix.apply(&mut [0.0; 12], 3, (2, 2))).contains("even number of samples"));
    assert!(say(mix.apply(&mut [0.0; 10], 2, (2, 2))).contains("cannot hold 10"));
    let outside = Mix { lambda: 0.5, pasted: Some(CropBox { top: 1, left: 0, height: 2, width: 1 }) };
    assert!(say(outside.apply(&mut [0.0; 8], 2, (2, 2))).contains("outside"));
    let mixing = Mixing::default();
    let error = mixing.targets(&[0, 5], 5, mix).unwrap_err().to_string();
    assert!(error.contains("label 5 is not in 0..5"), "{error}");
    assert!(mixing.targets(&[-1, 0], 5, mix).is_err());
    assert!(say(Mixing { smoothing: 1.5, ..mixing }.check()).contains("smoothing"));
    assert!(say(Mixing { mixup: -1.0, ..mixing }.check()).contains("`mixup`"));
    assert!(soft_cross_entropy(&[0.0; 3], &[0.0; 4], 2).is_err());
    let off = Mixing { mixup: 0.0, cutmix: 0.0, ..mixing };
    assert_eq!(off.draw(8, 8, &mut Keyed::of_batch(0, 0)), Mix { lambda: 1.0, pasted: None });
    let never = Mixing { probability: 0.0, ..mixing };
    assert_eq!(never.draw(8, 8, &mut Keyed::of_batch(0, 0)).lambda, 1.0);
    let plain = Mixing { smoothing: 0.0, ..mixing };
    let hot = plain.targets(&[1, 0], 2, Mix { lambda: 1.0, pasted: None }).unwrap();
    assert_eq!(hot, [0.0, 1.0, 1.0, 0.0]);
}

#[test]
fn frames_of_the_wrong_size_are_errors() {
    let mut frames = vec![vec![0u8; 11]];
    assert!(matches!(Policy::apply(&[], &mut frames, (2, 2), [0; 3]), Err(TransformError::FrameSize { .. })));
    let mut out = vec![0.0; 12];
    let area = CropBox { top: 0, left: 0, height: 3, width: 1 };
    let filled = RandomErasing::fill(area, (2, 2), &mut out, &mut Keyed::new(KEY, 0));
    assert_eq!(filled, Err(TransformError::Boxes));
    let filled = RandomErasing::fill(area, (2, 5), &mut out, &mut Keyed::new(KEY, 0));
    assert!(matches!(filled, Err(TransformError::OutputSize { .. })));
    assert!(pil::resize(&[0; 12], (2, 2), (0, 3), pil::Filter::Bilinear).is_err());
    assert!(pil::resize(&[0; 11], (2, 2), (3, 3), pil::Filter::Bilinear).is_err());
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::AutoContrast),
        Just(Op::Equalize),
        Just(Op::Invert),
        (-400.0..400.0f64).prop_map(Op::Rotate),
        (0u32..9).prop_map(Op::Posterize),
        (0u32..257).prop_map(Op::Solarize),
        (0u32..300).prop_map(Op::SolarizeAdd),
        (-1.0..3.0f64).prop_map(Op::Color),
        (-1.0..3.0f64).prop_map(Op::Contrast),
        (-1.0..3.0f64).prop_map(Op::Brightness),
        (-1.0..3.0f64).prop_map(Op::Sharpness),
        (-2.0..2.0f64).prop_map(Op::ShearX),
        (-2.0..2.0f64).prop_map(Op::ShearY),
        (-2.0..2.0f64).prop_map(Op::TranslateX),
        (-2.0..2.0f64).prop_map(Op::TranslateY),
    ]
}

/// Pillow's affine transform pixel by pixel, without tables and runs.
fn plain_affine(frame: &[u8], (height, width): (usize, usize), matrix: [f64; 6], fill: [u8; 3]) -> Vec<u8> {
    let [a, b, c, d, e, f] = matrix;
    let cubic = |v: [f64; 4], t: f64| {
        v[1] + t * (-v[0] + v[2] + t * (2.0 * (v[0] - v[1]) + v[2] - v[3] + t * (-v[0] + v[1] - v[2] + v[3])))
    };
    let clamp = |i: f64, side: usize| i.clamp(0.0, side as f64 - 1.0) as usize;
    let mut out = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let (xin, yin) = (x as f64 + 0.5, y as f64 + 0.5);
            let (sx, sy) = (a * xin + b * yin + c, d * xin + e * yin + f);
            if !(0.0..width as f64).contains(&sx) || !(0.0..height as f64).contains(&sy) {
                out.extend(fill);
                continue;
            }
            let (sx, sy) = (sx - 0.5, sy - 0.5);
            let offsets = [-1.0, 0.0, 1.0, 2.0];
            for channel in 0..3 {
                let at = |row: f64, column: f64| {
                    let (row, column) = (clamp(sy.floor() + row, height), clamp(sx.floor() + column, width));
                    f64::from(frame[(row * width + column) * 3 + channel])
                };
                let rows = offsets.map(|row| cubic(offsets.map(|column| at(row, column)), sx - sx.floor()));
                out.push(cubic(rows, sy - sy.floor()).clamp(0.0, 255.0) as u8);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_operation_keeps_its_size((height, width) in (1usize..12, 1usize..12), op in any_op(), salt in any::<u64>()) {
        let mut frames = vec![noisy(height, width, salt); 2];
        Policy::apply(&[Step { kind: OpKind::Invert, op: Some(op) }], &mut frames, (height, width), [7; 3]).unwrap();
        prop_assert_eq!(frames[0].len(), height * width * 3);
        prop_assert_eq!(&frames[0], &frames[1]);
    }

    #[test]
    fn affine_tables_change_no_pixel(
        (height, width) in (1usize..40, 1usize..40),
        matrix in prop::array::uniform6(-1.5..1.5f64),
        kind in 0..3,
        salt in any::<u64>(),
    ) {
        let [a, b, c, d, e, f] = matrix;
        let (c, f) = (c * width as f64, f * height as f64);
        let matrix = match kind {
            0 => [1.0, b, c, 0.0, 1.0, 0.0],
            1 => [1.0, 0.0, 0.0, d, 1.0, f],
            _ => [a, b, c, d, e, f],
        };
        let frame = noisy(height, width, salt);
        let wanted = plain_affine(&frame, (height, width), matrix, [9, 8, 7]);
        let mut frames = [frame];
        let mut canvas = ops::Canvas { frames: &mut frames, height, width, fill: [9, 8, 7], spare: Vec::new() };
        affine::transform(&mut canvas, matrix);
        prop_assert!(frames[0] == wanted);
    }

    #[test]
    fn resizing_keeps_one_colour_and_windows_are_parts(
        (height, width) in (1usize..40, 1usize..40),
        (out_height, out_width) in (1usize..24, 1usize..24),
        bicubic in any::<bool>(),
        salt in any::<u64>(),
    ) {
        let filter = if bicubic { pil::Filter::Bicubic } else { pil::Filter::Bilinear };
        let flat = vec![137; height * width * 3];
        let size = (out_height, out_width);
        prop_assert!(pil::resize(&flat, (height, width), size, filter).unwrap().iter().all(|&x| x == 137));
        let picture = noisy(height, width, salt);
        let whole = pil::resize(&picture, (height, width), size, filter).unwrap();
        let crop = CropBox { top: 0, left: 0, height, width };
        let window = CropBox { top: out_height / 3, left: out_width / 2, height: out_height.div_ceil(2), width: 1 };
        let part = pil::resize_window(&picture, (height, width), crop, size, window, filter).unwrap();
        for (row, pixel) in part.chunks_exact(3).enumerate() {
            let start = ((window.top + row) * out_width + window.left) * 3;
            prop_assert_eq!(pixel, &whole[start..start + 3]);
        }
    }
}
