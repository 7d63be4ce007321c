use proptest::prelude::*;

use super::*;
use vjepa_recipe::rng::{NumpyRng, PyRandom};
use vjepa_runtime::Normalization;

/// A frame whose pixel (y, x) is [y, x, y + x].
fn ramp(height: usize, width: usize) -> Vec<u8> {
    let pixel = |i: usize| [i / width, i % width, i / width + i % width];
    (0..height * width).flat_map(pixel).map(|x| x as u8).collect()
}

const PLAIN: Normalization = Normalization::Custom { mean: [0.0; 3], std: [1.0 / 255.0; 3] };

fn resized(frame: Vec<u8>, height: usize, width: usize, crop: CropBox, size: (usize, usize), flip: bool) -> Vec<f32> {
    let frames = [frame];
    let frames = Frames::new(&frames, height, width).unwrap();
    let mut out = vec![f32::NAN; 3 * size.0 * size.1];
    resize_crop(frames, &[crop], size, flip, Some(&PLAIN), &mut out).unwrap();
    out
}

#[test]
fn same_size_copies_and_flip_mirrors() {
    let whole = CropBox { top: 0, left: 0, height: 2, width: 3 };
    let out = resized(ramp(2, 3), 2, 3, whole, (2, 3), false);
    assert_eq!(out[..6], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(out[6..12], [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
    let out = resized(ramp(2, 3), 2, 3, whole, (2, 3), true);
    assert_eq!(out[6..12], [2.0, 1.0, 0.0, 2.0, 1.0, 0.0]);
}

#[test]
fn doubling_repeats_edges_and_blends_quarters() {
    let whole = CropBox { top: 0, left: 0, height: 2, width: 2 };
    let out = resized(ramp(2, 2), 2, 2, whole, (4, 4), false);
    assert_eq!(out[16..20], [0.0, 0.25, 0.75, 1.0]);
}

#[test]
fn crop_does_not_look_outside_its_box() {
    let crop = CropBox { top: 1, left: 2, height: 1, width: 2 };
    let out = resized(ramp(4, 6), 4, 6, crop, (1, 4), false);
    assert_eq!(out[4..8], [2.0, 2.25, 2.75, 3.0]);
}

#[test]
fn per_clip_standardises_and_survives_one_colour() {
    let frames = [ramp(4, 4), ramp(4, 4)];
    let mut out = vec![0.0; 3 * 2 * 16];
    let whole = CropBox { top: 0, left: 0, height: 4, width: 4 };
    let clip = Frames::new(&frames, 4, 4).unwrap();
    resize_crop(clip, &[whole], (4, 4), false, Some(&Normalization::PerClip), &mut out).unwrap();
    let mean = out.iter().sum::<f32>() / out.len() as f32;
    let variance = out.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / out.len() as f32;
    assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5);
    let grey = vec![vec![7u8; 48]; 2];
    let clip = Frames::new(&grey, 4, 4).unwrap();
    resize_crop(clip, &[whole], (4, 4), false, Some(&Normalization::PerClip), &mut out).unwrap();
    assert!(out.iter().all(|&x| x == 0.0));
}

#[test]
fn boxes_by_python_seed() {
    let draw = |seed| CropBox::random(240, 320, &RandomCrop::default(), &mut PyRandom::new(seed));
    assert_eq!(draw(0), CropBox { top: 8, left: 62, height: 229, width: 200 });
    assert_eq!(draw(2), CropBox { top: 0, left: 1, height: 238, width: 312 });
}

#[test]
fn boxes_that_cannot_fit_fall_back_to_the_centre() {
    let crop = RandomCrop { scale: (1.0, 1.0), ratio: (0.75, 1.35) };
    let wide = CropBox::random(10, 100, &crop, &mut PyRandom::new(0));
    assert_eq!(wide, CropBox { top: 0, left: 43, height: 10, width: 14 });
    let tall = CropBox::random(100, 10, &crop, &mut PyRandom::new(0));
    assert_eq!(tall, CropBox { top: 43, left: 0, height: 13, width: 10 });
}

#[test]
fn motion_shift_moves_from_the_first_box_to_the_last() {
    let first = CropBox { top: 0, left: 10, height: 20, width: 20 };
    let last = CropBox { top: 10, left: 0, height: 30, width: 20 };
    let boxes = CropBox::shifted(first, last, 4);
    assert_eq!((boxes[0], boxes[3]), (first, last));
    assert_eq!(boxes[1], CropBox { top: 3, left: 6, height: 23, width: 20 });
    assert_eq!(CropBox::shifted(first, last, 1), [first]);
}

#[test]
fn wrong_sizes_are_errors() {
    let none: [Vec<u8>; 0] = [];
    assert!(matches!(Frames::new(&none, 4, 4), Err(TransformError::Empty { .. })));
    assert!(matches!(Frames::new(&[vec![0u8; 0]], 0, 4), Err(TransformError::Empty { .. })));
    assert!(matches!(Frames::new(&[vec![0u8; 47]], 4, 4), Err(TransformError::FrameSize { got: 47, want: 48, .. })));
    let frames = [ramp(4, 4)];
    let clip = Frames::new(&frames, 4, 4).unwrap();
    let mut out = vec![0.0; 12];
    let resize = |boxes: &[CropBox], size, out: &mut [f32]| resize_crop(clip, boxes, size, false, Some(&PLAIN), out);
    assert!(matches!(resize(&[clip.whole()], (3, 3), &mut out), Err(TransformError::OutputSize { got: 12, want: 27 })));
    let outside = CropBox { left: 1, ..clip.whole() };
    assert_eq!(resize(&[outside], (2, 2), &mut out), Err(TransformError::Boxes));
    assert_eq!(resize(&[], (2, 2), &mut out), Err(TransformError::Boxes));
    assert_eq!(resize(&[clip.whole(); 2], (2, 2), &mut out), Err(TransformError::Boxes));
}

proptest! {
    #[test]
    fn any_clip_transforms_within_its_range(
        (height, width) in (1usize..20, 1usize..20),
        (out_height, out_width) in (1usize..12, 1usize..12),
        (frames, seed, motion_shift) in (1usize..4, any::<u64>(), any::<bool>()),
    ) {
        let clip = vec![ramp(height, width); frames];
        let clip = Frames::new(&clip, height, width).unwrap();
        let transform = TrainTransform {
            size: (out_height, out_width), motion_shift, normalization: PLAIN, ..TrainTransform::official(1)
        };
        let mut out = vec![f32::NAN; transform.output_len(frames)];
        let (mut crops, mut flips) = (PyRandom::new(seed), NumpyRng::new(seed as u32));
        transform.apply(clip, &mut crops, &mut flips, &mut out).unwrap();
        let most = (height + width) as f32;
        prop_assert!(out.iter().all(|x| (-1e-3..=most).contains(x)));
        // Bytes are the same pixels, rounded.
        let mut bytes = vec![0u8; out.len()];
        let (mut crops, mut flips) = (PyRandom::new(seed), NumpyRng::new(seed as u32));
        transform.apply(clip, &mut crops, &mut flips, &mut bytes).unwrap();
        prop_assert_eq!(bytes, out.iter().map(|pixel| u8::of(*pixel)).collect::<Vec<_>>());
    }
}
