//! Clips around a key frame: whole frames at a size that patches divide, or random crops of them for training.

use std::path::Path;

use super::{TRAIN_SIDES, flipped_box, key_frame, key_frame_clip, resized};
use crate::dataset::Coloured;
use crate::media::Opener;
use crate::source::DataError;
use crate::transforms::{CropBox, resize_crop};
use vjepa_recipe::counter::CounterRng;
use vjepa_runtime::Normalization;

/// How whole frames become clips of the encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyFrameClips {
    /// Frames of a clip.
    pub frames: usize,
    /// Frames from one to the next.
    pub step: usize,
    /// Short side in pixels.
    pub side: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Centring and scaling.
    pub normalization: Normalization,
    /// Whether pixels are read as their luma.
    pub grayscale: bool,
}

/// The clip around a key frame.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyFrameClip {
    /// `[3, T, H, W]`, row-major and normalised.
    pub values: Vec<f32>,
    /// Where it lies in its frames.
    pub placed: Placed,
    /// Whether the video ends before the key frame, so that the clip shows its last frames instead.
    pub beyond: bool,
}

/// Where a clip lies in its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Height and width of the clip in pixels: multiples of the patch.
    pub size: (usize, usize),
    /// The part of each frame that it shows: all but what is left over beyond whole patches.
    pub crop: CropBox,
    /// Height and width of the frames.
    pub frame: (usize, usize),
    /// Whether it is mirrored.
    pub flip: bool,
}

impl Placed {
    /// Of frames of a size: the short side becomes `side`, and both sides are cut to whole patches around the centre.
    ///
    /// # Errors
    /// Why no patch fits.
    pub fn of(frame: (usize, usize), side: usize, patch: usize) -> Result<Self, String> {
        let whole = resized(frame, side);
        let cut = |length: usize| length / patch.max(1) * patch;
        let size = (cut(whole.0), cut(whole.1));
        if size.0 == 0 || size.1 == 0 {
            return Err(format!("a short side of {side} pixels holds no patch of {patch}"));
        }
        let shown = |kept: usize, whole: usize, original: usize| {
            ((kept as f64 / whole as f64 * original as f64).round() as usize).clamp(1, original)
        };
        let (height, width) = (shown(size.0, whole.0, frame.0), shown(size.1, whole.1, frame.1));
        let crop = CropBox { top: (frame.0 - height) / 2, left: (frame.1 - width) / 2, height, width };
        Ok(Self { size, crop, frame, flip: false })
    }

    /// A square of `side`, cut to whole patches, out of frames of a size: their short side first becomes a random one of
    /// [`TRAIN_SIDES`] times `side`, its inverse drawn uniformly; the square lies anywhere; half of them are mirrored.
    ///
    /// # Errors
    /// Why no patch fits.
    pub fn random(frame: (usize, usize), side: usize, patch: usize, rng: &mut CounterRng) -> Result<Self, String> {
        let cut = side / patch.max(1) * patch;
        if cut == 0 || frame.0 == 0 || frame.1 == 0 {
            return Err(format!("a side of {side} pixels holds no patch of {patch}"));
        }
        let [least, most] = TRAIN_SIDES.map(|share| share * side as f64);
        let short = (1.0 / rng.uniform(1.0 / most, 1.0 / least)).round();
        let scale = frame.0.min(frame.1) as f64 / short;
        // The square in pixels of the frame, which is read once, from there.
        let edge = ((cut as f64 * scale).round() as usize).clamp(1, frame.0.min(frame.1));
        let mut from = |length: usize| rng.below((length - edge) as u64 + 1) as usize;
        let crop = CropBox { top: from(frame.0), left: from(frame.1), height: edge, width: edge };
        Ok(Self { size: (cut, cut), crop, frame, flip: rng.below(2) == 1 })
    }

    /// A box given as shares of the frame, in pixels of the clip, clipped to it.
    pub fn corners(&self, shares: [f64; 4]) -> [f64; 4] {
        let along = |share: f64, frame: usize, from: usize, shown: usize, size: usize| {
            let place = (share * frame as f64 - from as f64) * size as f64 / shown.max(1) as f64;
            place.clamp(0.0, size.saturating_sub(1) as f64)
        };
        let x = |share| along(share, self.frame.1, self.crop.left, self.crop.width, self.size.1);
        let y = |share| along(share, self.frame.0, self.crop.top, self.crop.height, self.size.0);
        let [x1, y1, x2, y2] = shares;
        let corners = [x(x1), y(y1), x(x2), y(y2)];
        if self.flip { flipped_box(corners, self.size.1) } else { corners }
    }

    /// Whether anything of a box given as shares of the frame is in the clip.
    pub fn shows(&self, shares: [f64; 4]) -> bool {
        let [x1, y1, x2, y2] = self.corners(shares);
        x1 < x2 && y1 < y2
    }
}

impl KeyFrameClips {
    /// The clip around second `second` of an annotated video: of whole frames, or cropped at random where there is a generator.
    /// Frames beyond the video's end are its last one, as in SlowFast's code.
    ///
    /// # Errors
    /// [`DataError::Bad`] for a video that cannot be used, or whose key frame lies before its beginning;
    /// [`DataError::Storage`] where videos cannot be reached.
    pub fn read(
        &self,
        opener: &Opener,
        path: &Path,
        second: u32,
        random: Option<&mut CounterRng>,
    ) -> Result<KeyFrameClip, DataError> {
        let bad = |reason: String| DataError::Bad { path: path.to_owned(), reason };
        let mut media = opener.open(path).map_err(|error| error.of(path))?;
        let total = media.info().frames;
        let indices = key_frame_clip(second, self.frames, self.step, total).map_err(|error| bad(error.to_string()))?;
        let beyond = key_frame(second).is_ok_and(|key| key >= total);
        let clip = media.decode(&indices).map_err(bad)?;
        let frame = (clip.height, clip.width);
        let placed = match random {
            None => Placed::of(frame, self.side, self.patch),
            Some(rng) => Placed::random(frame, self.side, self.patch, rng),
        }
        .map_err(bad)?;
        let (height, width) = placed.size;
        let mut values = vec![0.0; 3 * self.frames * height * width];
        let pixels = Coloured { clip, grayscale: self.grayscale };
        resize_crop(pixels, &[placed.crop], placed.size, placed.flip, Some(&self.normalization), &mut values)
            .map_err(|error| bad(error.to_string()))?;
        Ok(KeyFrameClip { values, placed, beyond })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_clips_have_three_equal_channels() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../video/tests/clips/vp9_ssv2.webm");
        let normalization = Normalization::PerClip;
        let clips = |grayscale| KeyFrameClips { frames: 4, step: 2, side: 32, patch: 8, normalization, grayscale };
        let read = |grayscale| clips(grayscale).read(&Opener::default(), &path, 900, None).unwrap().values;
        let beyond = |second| clips(false).read(&Opener::default(), &path, second, None).unwrap().beyond;
        assert!(!beyond(900) && beyond(1798));
        let channels =
            |values: &[f32]| -> Vec<Vec<f32>> { values.chunks_exact(values.len() / 3).map(<[f32]>::to_vec).collect() };
        let (grey, colour) = (channels(&read(true)), channels(&read(false)));
        assert!(grey[0] == grey[1] && grey[1] == grey[2]);
        assert!(colour[0] != colour[1] && grey != colour);
    }

    #[test]
    fn frames_are_cut_to_whole_patches_and_boxes_follow() {
        // 16:9 at a short side of 224 is 398 wide, of which 24 patches are shown.
        let placed = Placed::of((1080, 1920), 224, 16).unwrap();
        assert_eq!(placed.size, (224, 384));
        assert_eq!((placed.crop.height, placed.crop.top), (1080, 0));
        assert!((placed.crop.width as f64 - 384.0 / 398.0 * 1920.0).abs() <= 0.5);
        let [x1, y1, x2, y2] = placed.corners([0.0, 0.0, 1.0, 1.0]);
        assert_eq!([x1, y1, x2, y2], [0.0, 0.0, 383.0, 223.0]);
        let [x1, y1, x2, y2] = placed.corners([0.25, 0.25, 0.5, 0.75]);
        assert!((y1 - 56.0).abs() < 1e-9 && (y2 - 168.0).abs() < 1e-9);
        assert!((x2 - 192.0).abs() < 0.3 && (x2 - x1 - 0.25 * 398.0).abs() < 0.5, "{x1} {x2}");
        // Nothing is cut where patches fit.
        assert_eq!(Placed::of((64, 64), 64, 16).unwrap().crop, CropBox { top: 0, left: 0, height: 64, width: 64 });
        assert!(Placed::of((64, 64), 8, 16).is_err());
    }

    #[test]
    fn random_crops_lie_in_the_frame_and_boxes_follow() {
        let (mut mirrored, mut edges) = (0, std::collections::BTreeSet::new());
        for seed in 0..200 {
            let placed = Placed::random((360, 640), 224, 16, &mut CounterRng::new(&[seed])).unwrap();
            let CropBox { top, left, height, width } = placed.crop;
            assert!(height == width && top + height <= 360 && left + width <= 640, "{placed:?}");
            // 224 of a short side of 256 to 320.
            assert!((252..=315).contains(&height), "{placed:?}");
            assert_eq!(placed.size, (224, 224));
            mirrored += usize::from(placed.flip);
            edges.insert(height);
            // A box in the middle of the crop, a quarter of it wide, and one beside it.
            let shares = |x: f64, y: f64| [(left as f64 + x) / 640.0, (top as f64 + y) / 360.0];
            let edge = height as f64;
            let ([x1, y1], [x2, y2]) = (shares(0.25 * edge, 0.25 * edge), shares(0.5 * edge, 0.75 * edge));
            let [a, b, c, d] = placed.corners([x1, y1, x2, y2]);
            let left = if placed.flip { 223.0 - 112.0 } else { 56.0 };
            assert!((a - left).abs() < 1e-6 && (c - a - 56.0).abs() < 1e-6, "{placed:?} {a} {c}");
            assert!((b - 56.0).abs() < 1e-6 && (d - 168.0).abs() < 1e-6, "{placed:?} {b} {d}");
            assert!(placed.shows([x1, y1, x2, y2]));
            let beside = shares(edge, 0.0);
            assert!(!placed.shows([beside[0], beside[1], beside[0] + 0.1, beside[1] + 0.1]));
        }
        assert!((70..130).contains(&mirrored) && edges.len() > 20, "{mirrored} {}", edges.len());
        assert!(Placed::random((64, 64), 8, 16, &mut CounterRng::new(&[0])).is_err());
    }
}
