use std::path::Path;

use proptest::prelude::*;

use super::*;

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pictures")
}

/// The values that differ from Pillow's by more than `allowed`, and the largest difference.
fn against_pillow(name: &str, allowed: i32) -> (usize, i32) {
    let ours = Picture::read(&pictures().join(name)).unwrap();
    let wanted = Picture::read(&pictures().join(format!("{name}.out.png"))).unwrap();
    assert_eq!((ours.height, ours.width), (wanted.height, wanted.width));
    let differences = ours.rgb.iter().zip(&wanted.rgb).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs());
    differences.fold((0, 0), |(count, most), d| (count + usize::from(d > allowed), most.max(d)))
}

#[test]
fn png_pixels_are_pillows() {
    for name in ["rgb.png", "rgba.png", "grey.png", "la.png", "palette.png", "one.png"] {
        assert_eq!(against_pillow(name, 0), (0, 0), "{name}");
    }
}

#[test]
fn jpeg_pixels_are_pillows_within_rounding() {
    for name in ["half.jpg", "full.jpg", "grey.jpg", "progressive.jpg", "cmyk.jpg"] {
        let (count, most) = against_pillow(name, 1);
        // 4455 values each.
        assert!(most <= 3 && count <= 150, "{name}: {count} values are off by more than 1, at most {most}");
    }
}

#[test]
fn pictures_that_cannot_be_read_are_sentences() {
    let say = |bytes: &[u8]| Picture::decode(bytes).unwrap_err();
    assert!(say(b"<html>404 not found</html>").contains("is text, not a picture"));
    assert!(say(b"").contains("is empty"));
    assert!(say(b"GIF89a\x01\x02\x80").contains("neither JPEG nor PNG"));
    let png = std::fs::read(pictures().join("rgb.png")).unwrap();
    let jpeg = std::fs::read(pictures().join("half.jpg")).unwrap();
    for bytes in [&png[..png.len() / 2], &jpeg[..jpeg.len() / 2]] {
        assert!(say(bytes).contains("cut off"), "{}", say(bytes));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n01_1.JPEG");
    std::fs::write(&path, "moved to another server\n").unwrap();
    let error = Picture::read(&path).unwrap_err();
    assert!(error.is_bad_sample());
    assert!(error.to_string().contains("n01_1.JPEG: is text"), "{error}");
    assert!(Picture::read(&folder.path().join("gone.png")).unwrap_err().to_string().contains("cannot be opened"));
}

#[test]
fn sizes_are_checked_before_anything_is_allocated() {
    // The headers of pictures of 60,000 pixels a side.
    let mut png = std::fs::read(pictures().join("rgb.png")).unwrap();
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let sum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    let mut jpeg = std::fs::read(pictures().join("half.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&60_000u16.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&60_000u16.to_be_bytes());
    for bytes in [png, jpeg] {
        let error = Picture::decode(&bytes).unwrap_err();
        assert!(error.contains("60000x60000") && error.contains("scale it down"), "{error}");
    }
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 })
    })
}

#[test]
fn formats_are_told_by_their_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n02105855_2933.JPEG");
    std::fs::copy(pictures().join("rgb.png"), &path).unwrap();
    assert_eq!(Picture::read(&path).unwrap(), Picture::read(&pictures().join("rgb.png")).unwrap());
}

#[test]
fn stills_are_clips_of_any_length() {
    let normalization = Normalization::Imagenet;
    let entries = vec![VideoEntry { path: pictures().join("rgb.png"), label: Some(4) }];
    let key = SampleKey { seed: 1, epoch: 0, position: 0, retry: 0 };
    let mut clips = Vec::new();
    for frames in [2, 16] {
        let transform = PictureTransform::Eval { size: 14, normalization };
        let source = PictureDataset::new(entries.clone(), frames, transform).unwrap();
        assert_eq!(source.shape(), [3, frames, 14, 14]);
        let mut out = vec![0.0; 3 * frames * 14 * 14];
        let info = source.sample(key, &mut out).unwrap();
        assert_eq!((info.label, info.index), (Some(4), 0));
        let first: Vec<f32> = out.chunks_exact(frames * 196).flat_map(|channel| channel[..196].to_vec()).collect();
        for channel in out.chunks_exact(frames * 196) {
            assert!(channel.chunks_exact(196).all(|frame| frame == &channel[..196]));
        }
        clips.push(first);
    }
    assert_eq!(clips[0], clips[1]);
    let train = PictureTransform::Train(PictureAugment::probe(14));
    let source = PictureDataset::new(entries, 2, train).unwrap();
    let clip = |epoch| {
        let mut out = vec![0.0; 3 * 2 * 196];
        source.clip(0, SampleKey { epoch, ..key }, &mut out).unwrap();
        out
    };
    assert_eq!(clip(0), clip(0));
    assert_ne!(clip(0), clip(1));
    assert!(source.clip(1, key, &mut [0.0; 1176]).is_err());
    assert!(source.clip(0, key, &mut [0.0; 1]).is_err());
    let none = PictureDataset::new(Vec::new(), 2, PictureTransform::Eval { size: 14, normalization });
    assert!(none.is_err());
}

proptest! {
    #[test]
    fn damaged_pictures_are_errors_or_pictures(at in 0usize..1200, value in any::<u8>(), png in any::<bool>()) {
        let mut bytes = std::fs::read(pictures().join(if png { "palette.png" } else { "half.jpg" })).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(picture) = Picture::decode(&bytes) {
            prop_assert_eq!(picture.rgb.len(), picture.height * picture.width * 3);
        }
    }
}
