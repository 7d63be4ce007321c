//! Still pictures: decoded as Pillow does, and repeated as clips.
//!
//! JPEG and PNG, told apart by their first bytes, not by their names (ImageNet has a PNG named `.JPEG`). Everything becomes
//! RGB as `Image.convert("RGB")` makes it: grey is repeated, alpha dropped, palettes looked up, CMYK converted; 16-bit values
//! keep their high byte. EXIF rotation is ignored, as by the official loader.
//!
//! PNG pixels are Pillow's. JPEG pixels differ from libjpeg's by rounding: against Pillow on photograph-like pictures with
//! chroma at half resolution, 92 % of the values are equal, 98 % within 1, and none further off than 3 (jpeg-decoder; of the
//! decoders compared the closest for such files, see docs/augmentation.md).

use std::io::Cursor;
use std::path::{Path, PathBuf};

use jpeg_decoder::PixelFormat;

use crate::annotations::Listing;
use crate::augment::pil::{Filter, resize_window};
use crate::augment::{AugmentError, Keyed, PictureAugment};
use crate::list::VideoEntry;
use crate::source::{ClipSource, Contents, DataError, SampleInfo, SampleKey, check_out};
use crate::transforms::{CropBox, Frames, resize_crop};
use vjepa_runtime::Normalization;

/// Pixels from which Pillow refuses a picture as a decompression bomb, and so does [`Picture::read`].
pub const MOST_PIXELS: u64 = 178_956_970;

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Interleaved RGB, `[H * W * 3]`.
    pub rgb: Vec<u8>,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Picture {
    /// Decodes a picture file.
    ///
    /// # Errors
    /// [`DataError::Bad`] for files that cannot be read, are no JPEG or PNG, are damaged or cut off, or too large.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let bad = |reason: String| DataError::Bad { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(|error| bad(format!("cannot be opened: {error}")))?;
        Self::decode(&bytes).map_err(bad)
    }

    /// Format, width and height, from the header alone.
    ///
    /// # Errors
    /// As [`Picture::decode`], for what the header shows.
    pub fn header(bytes: &[u8]) -> Result<(&'static str, usize, usize), String> {
        let (format, width, height) = match bytes {
            [0xFF, 0xD8, 0xFF, ..] => {
                let info = jpeg_header(&mut jpeg_decoder::Decoder::new(Cursor::new(bytes)))?;
                ("JPEG", u32::from(info.width), u32::from(info.height))
            }
            [0x89, b'P', b'N', b'G', ..] => {
                let mut decoder = png::Decoder::new(Cursor::new(bytes));
                let header = decoder.read_header_info().map_err(damaged_png)?;
                ("PNG", header.width, header.height)
            }
            _ => return Err(unknown(bytes)),
        };
        check_size(width.into(), height.into())?;
        Ok((format, width as usize, height as usize))
    }

    /// Decodes the bytes of a file.
    ///
    /// # Errors
    /// A sentence that follows the file's name.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            [0xFF, 0xD8, 0xFF, ..] => jpeg(bytes),
            [0x89, b'P', b'N', b'G', ..] => png(bytes),
            _ => Err(unknown(bytes)),
        }
    }
}

/// What to say of bytes that are no picture.
fn unknown(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "is empty: fetch it again".into();
    }
    let start = bytes.get(..bytes.len().min(64)).unwrap_or_default();
    let text = start.iter().all(|byte| matches!(byte, 9 | 10 | 13 | 32..=126));
    let what = if text { "is text, not a picture" } else { "is neither JPEG nor PNG" };
    format!("{what}: fetch it again, or convert it")
}

fn damaged_jpeg(error: jpeg_decoder::Error) -> String {
    format!("is a damaged or cut off JPEG ({error}): fetch it again")
}

fn damaged_png(error: png::DecodingError) -> String {
    format!("is a damaged or cut off PNG ({error}): fetch it again")
}

fn jpeg_header(decoder: &mut jpeg_decoder::Decoder<Cursor<&[u8]>>) -> Result<jpeg_decoder::ImageInfo, String> {
    decoder.read_info().map_err(damaged_jpeg)?;
    decoder.info().ok_or_else(|| "is a JPEG without a picture: fetch it again".into())
}

/// Refuses sizes before anything is allocated for them.
fn check_size(width: u64, height: u64) -> Result<(), String> {
    match width.checked_mul(height) {
        Some(1..=MOST_PIXELS) => Ok(()),
        Some(0) => Err("has no pixels: fetch it again".into()),
        _ => Err(format!(
            "has {width}x{height} pixels, more than the {MOST_PIXELS} that are read (Pillow's limit): scale it down"
        )),
    }
}

fn jpeg(bytes: &[u8]) -> Result<Picture, String> {
    let mut decoder = jpeg_decoder::Decoder::new(Cursor::new(bytes));
    let info = jpeg_header(&mut decoder)?;
    check_size(info.width.into(), info.height.into())?;
    let pixels = decoder.decode().map_err(damaged_jpeg)?;
    let rgb = match info.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        PixelFormat::CMYK32 => pixels.chunks_exact(4).flat_map(cmyk).collect(),
        PixelFormat::L16 => return Err("is a JPEG of 16 bits, which is not read: convert it to PNG".into()),
    };
    whole(rgb, info.height.into(), info.width.into())
}

/// Pillow's CMYK to RGB; 255 is full ink. The decoder has undone the inversion of Adobe's files.
fn cmyk(pixel: &[u8]) -> [u8; 3] {
    let (ink, key) = pixel.split_at(3.min(pixel.len()));
    let white = 255 - i32::from(key.first().copied().unwrap_or(0));
    let mut rgb = [0; 3];
    for (value, ink) in rgb.iter_mut().zip(ink) {
        let product = i32::from(*ink) * white + 128;
        *value = (white - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8;
    }
    rgb
}

fn png(bytes: &[u8]) -> Result<Picture, String> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    let header = decoder.read_header_info().map_err(damaged_png)?;
    check_size(header.width.into(), header.height.into())?;
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    // The size has been checked; the limit of the decoder is below Pillow's.
    decoder.set_limits(png::Limits { bytes: usize::MAX });
    let mut reader = decoder.read_info().map_err(damaged_png)?;
    let size = reader.output_buffer_size().ok_or("is too large to decode: scale it down")?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(damaged_png)?;
    pixels.truncate(frame.buffer_size());
    let rgb = match frame.color_type {
        png::ColorType::Rgb => pixels,
        png::ColorType::Rgba => pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        png::ColorType::Grayscale => pixels.iter().flat_map(|&grey| [grey; 3]).collect(),
        png::ColorType::GrayscaleAlpha => pixels.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        png::ColorType::Indexed => return Err("is a PNG without its palette: fetch it again".into()),
    };
    whole(rgb, frame.height as usize, frame.width as usize)
}

fn whole(rgb: Vec<u8>, height: usize, width: usize) -> Result<Picture, String> {
    match rgb.len() == height * width * 3 {
        true => Ok(Picture { rgb, height, width }),
        false => Err("does not hold as many pixels as it says: fetch it again".into()),
    }
}

/// What becomes of a decoded picture.
#[derive(Debug, Clone, PartialEq)]
pub enum PictureTransform {
    /// The official evaluation: short side to 256/224 of the size, Pillow's bilinear with antialias, centre crop.
    Eval {
        /// Side of the square result.
        size: usize,
        /// Centring and scaling.
        normalization: Normalization,
    },
    /// The official training transform.
    Train(PictureAugment),
}

impl PictureTransform {
    /// Side of the square result.
    pub fn size(&self) -> usize {
        match self {
            Self::Eval { size, .. } => *size,
            Self::Train(augment) => augment.size,
        }
    }

    /// Writes the picture `[3, S, S]`; `key` is what a training transform draws by.
    ///
    /// # Errors
    /// [`AugmentError::Transform`] for an output of another size.
    pub fn apply(&self, picture: &Picture, key: SampleKey, out: &mut [f32]) -> Result<(), AugmentError> {
        match self {
            Self::Eval { size, normalization } => {
                let whole = CropBox { top: 0, left: 0, height: *size, width: *size };
                let frames = [eval_crop(picture, *size)?];
                resize_crop(
                    Frames::new(&frames, *size, *size)?,
                    &[whole],
                    (*size, *size),
                    false,
                    Some(normalization),
                    out,
                )?;
                Ok(())
            }
            Self::Train(augment) => {
                augment.apply(&picture.rgb, (picture.height, picture.width), &mut Keyed::new(key, 0), out)
            }
        }
    }
}

/// The centre of a picture whose short side is 256/224 of `size`, as bytes `[size * size * 3]`.
///
/// # Errors
/// [`AugmentError::Transform`] for an empty picture or size.
pub fn eval_crop(picture: &Picture, size: usize) -> Result<Vec<u8>, AugmentError> {
    let (height, width) = (picture.height, picture.width);
    let short = (size as f64 * 256.0 / 224.0) as usize;
    let long = |long: usize, side: usize| short * long / side.max(1);
    let resized = if height <= width { (short, long(width, height)) } else { (long(height, width), short) };
    let middle = |side: usize| ((side.saturating_sub(size)) as f64 / 2.0).round_ties_even() as usize;
    let window = CropBox { top: middle(resized.0), left: middle(resized.1), height: size, width: size };
    let whole = CropBox { top: 0, left: 0, height, width };
    Ok(resize_window(&picture.rgb, (height, width), whole, resized, window, Filter::Bilinear)?)
}

/// Still pictures as clips: every frame is the same. The official code repeats them to 16 frames; the paper finds 2 enough.
#[derive(Debug, Clone)]
pub struct PictureDataset {
    entries: Vec<VideoEntry>,
    frames: usize,
    transform: PictureTransform,
}

impl PictureDataset {
    /// Pictures repeated to `frames` frames.
    ///
    /// # Errors
    /// [`DataError::Setup`] without pictures, frames or pixels.
    pub fn new(entries: Vec<VideoEntry>, frames: usize, transform: PictureTransform) -> Result<Self, DataError> {
        match entries.is_empty() || frames == 0 || transform.size() == 0 {
            true => Err(DataError::Setup("still pictures need at least one picture, one frame and one pixel".into())),
            false => Ok(Self { entries, frames, transform }),
        }
    }

    /// The pictures of a listing.
    ///
    /// # Errors
    /// As [`PictureDataset::new`].
    pub fn of(listing: &Listing, frames: usize, transform: PictureTransform) -> Result<Self, DataError> {
        Self::new(listing.entries.clone(), frames, transform)
    }

    /// Writes picture `index` as a clip, `[3, T, S, S]`. Training transforms draw by `key`.
    ///
    /// # Errors
    /// As [`ClipSource::sample`]; [`DataError::Setup`] for a picture that does not exist.
    pub fn clip(&self, index: usize, key: SampleKey, out: &mut [f32]) -> Result<SampleInfo, DataError> {
        check_out(self.shape(), 1, out)?;
        let entry =
            self.entries.get(index).ok_or_else(|| DataError::Setup(format!("there is no picture number {index}")))?;
        let picture = Picture::read(&entry.path)?;
        let plane = self.transform.size() * self.transform.size();
        let mut still = vec![0.0; 3 * plane];
        self.transform
            .apply(&picture, key, &mut still)
            .map_err(|error| DataError::Bad { path: entry.path.clone(), reason: error.to_string() })?;
        for (channel, clip) in still.chunks_exact(plane).zip(out.chunks_exact_mut(plane * self.frames)) {
            clip.chunks_exact_mut(plane).for_each(|frame| frame.copy_from_slice(channel));
        }
        Ok(SampleInfo { label: entry.label, index: index as u64, path: Some(PathBuf::clone(&entry.path)) })
    }
}

impl ClipSource for PictureDataset {
    fn len(&self) -> Option<u64> {
        Some(self.entries.len() as u64)
    }

    fn shape(&self) -> [usize; 4] {
        [3, self.frames, self.transform.size(), self.transform.size()]
    }

    fn contents(&self) -> Option<Contents> {
        Some(Contents::of(&self.entries))
    }

    fn sample(&self, key: SampleKey, out: &mut [f32]) -> Result<SampleInfo, DataError> {
        let index = key.entry(self.entries.len() as u64).unwrap_or(0) as usize;
        self.clip(index, key, out)
    }
}

#[cfg(test)]
mod tests;
