//! Pictures behind the trait of videos: folders of numbered frames, and single pictures.
//!
//! A frame folder holds one JPEG or PNG per frame, named with its number (`000001.jpg`, `img_00001.jpg`, `frame7.png`). The
//! number at the end of the name counts, not the alphabet; they may begin anywhere and step by more than one, but evenly: a gap
//! is a frame that was lost, and every clip over it would be out of time. A single picture is a video of one frame, which
//! sampling repeats to a clip.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_video::{ClipDecoder, ClipInfo, Codec, ColorMatrix, ColorSpace, Frame, Orientation, VideoError};

use crate::annotations::PICTURES;
use crate::dialect::extension;
use crate::images::Picture;
use crate::walk::is_hidden;

/// Frames per second of a frame folder where nobody says otherwise.
pub const FRAME_RATE: f64 = 30.0;

/// Frames of one folder, at most: more are not one video.
const MOST_FRAMES: usize = 1 << 22;

/// True for names with the ending of a picture that is read.
pub fn is_picture(path: &Path) -> bool {
    extension(path).is_some_and(|ending| PICTURES.contains(&ending.as_str()))
}

/// The pictures of a folder by their numbers; empty for a folder without pictures.
///
/// # Errors
/// Why the pictures are no video, to follow the folder's name.
pub(crate) fn numbered(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let fail = |error: std::io::Error| format!("cannot be read: {error}");
    let mut frames: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if !is_picture(&path) || is_hidden(&path) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = number(&path).ok_or_else(|| {
            format!("holds `{name}`, which has no number at the end of its name: number the frames, as in 000001.jpg")
        })?;
        if let Some(other) = frames.insert(number, path) {
            let other = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(format!("holds frame {number} twice, as `{other}` and `{name}`: leave one"));
        }
        if frames.len() > MOST_FRAMES {
            return Err(format!("holds more than {MOST_FRAMES} pictures, which are not one video"));
        }
    }
    let numbers: Vec<u64> = frames.keys().copied().collect();
    if let Some(gap) = gap(&numbers) {
        return Err(format!(
            "lacks a frame after number {gap}: its frames are not evenly numbered; extract them again"
        ));
    }
    Ok(frames.into_values().collect())
}

/// The digits at the end of a file's name without its ending.
fn number(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem.get(stem.len() - digits..)?.parse().ok()
}

/// The number after which ascending numbers leave their usual distance.
fn gap(numbers: &[u64]) -> Option<u64> {
    let steps = || numbers.windows(2).filter_map(|two| Some((*two.first()?, two.last()?.checked_sub(*two.first()?)?)));
    let step = steps().map(|(_, step)| step).min()?;
    steps().find(|&(_, other)| other != step).map(|(number, _)| number)
}

/// Pictures as the frames of a video.
pub(crate) struct Pictures {
    name: PathBuf,
    frames: Vec<Source>,
    info: ClipInfo,
}

/// Where a picture lies.
enum Source {
    File(PathBuf),
    /// Read already, from a file where there is one.
    Read(Option<PathBuf>, Vec<u8>),
}

impl Pictures {
    /// A folder of numbered frames at `rate` frames per second.
    ///
    /// # Errors
    /// Why it is no video, to follow the folder's name.
    pub fn folder(folder: &Path, rate: f64) -> Result<Self, String> {
        let frames: Vec<Source> = numbered(folder)?.into_iter().map(Source::File).collect();
        match frames.is_empty() {
            true => Err("is a folder without numbered pictures (.jpg, .jpeg or .png); give videos one by one, e.g. FOLDER/*.mp4".into()),
            false => Self::of(folder, frames, rate),
        }
    }

    /// The picture in a file.
    ///
    /// # Errors
    /// Why it cannot be read, to follow the file's name.
    pub fn file(path: &Path) -> Result<Self, String> {
        Self::of(path, vec![Source::File(path.into())], FRAME_RATE)
    }

    /// The picture in these bytes.
    ///
    /// # Errors
    /// As [`Pictures::file`].
    pub fn bytes(name: &Path, bytes: Vec<u8>) -> Result<Self, String> {
        Self::of(name, vec![Source::Read(None, bytes)], FRAME_RATE)
    }

    fn of(name: &Path, mut frames: Vec<Source>, rate: f64) -> Result<Self, String> {
        let first = frames.first_mut().ok_or("has no frames")?;
        // The first is kept as it was read for its header: a picture by itself has no other.
        if let Source::File(path) = first {
            let bytes = read(path).map_err(|error| error.to_string())?;
            *first = Source::Read(Some(std::mem::take(path)), bytes);
        }
        let (codec, width, height) = Picture::header(&first.bytes().map_err(|error| error.to_string())?)?;
        let count = frames.len();
        let info = ClipInfo {
            codec: Codec::Other(codec),
            coded_width: width,
            coded_height: height,
            orientation: Orientation::default(),
            frames: count,
            intact_frames: count,
            timestamps: (0..count).map(|frame| frame as f64 / rate).collect(),
            duration: count as f64 / rate,
            left_out: 0,
            lost_end: false,
        };
        Ok(Self { name: name.into(), frames, info })
    }

    fn decode(&self, index: usize) -> Result<Frame, VideoError> {
        let outside =
            || VideoError::FrameOutOfRange { path: self.name.clone(), frame: index, frames: self.frames.len() };
        let source = self.frames.get(index).ok_or_else(outside)?;
        let corrupt = |detail: String| VideoError::Corrupt { path: self.name.clone(), frame: Some(index), detail };
        let bytes = source.bytes().map_err(|error| corrupt(error.to_string()))?;
        let picture = Picture::decode(&bytes).map_err(|why| match source {
            Source::File(path) | Source::Read(Some(path), _) => corrupt(format!("{} {why}", path.display())),
            Source::Read(None, _) => corrupt(format!("it {why}")),
        })?;
        let mut planes = [const { Vec::new() }; 3];
        for (channel, plane) in planes.iter_mut().enumerate() {
            plane.reserve_exact(picture.rgb.len() / 3);
            plane.extend(picture.rgb.iter().skip(channel).step_by(3));
        }
        let [red, green, blue] = planes;
        Ok(Frame {
            width: picture.width,
            height: picture.height,
            // The planes of RGB, see `ColorMatrix::Rgb`.
            y: green,
            u: blue,
            v: red,
            chroma_shift: (0, 0),
            color: ColorSpace { matrix: ColorMatrix::Rgb, full_range: true },
            orientation: Orientation::default(),
            index,
            time: self.info.timestamps.get(index).copied().unwrap_or_default(),
        })
    }
}

impl Source {
    fn bytes(&self) -> std::io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Read(_, bytes) => Ok(bytes.into()),
            Self::File(path) => read(path).map(Into::into),
        }
    }
}

/// A file's bytes; the error names it.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

impl ClipDecoder for Pictures {
    fn path(&self) -> &Path {
        &self.name
    }

    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn frames(&mut self, indices: &[usize]) -> Result<Vec<Frame>, VideoError> {
        let mut frames: Vec<Frame> = Vec::with_capacity(indices.len());
        for &index in indices {
            // Short videos repeat frames.
            let frame = match frames.iter().rev().find(|frame| frame.index == index) {
                Some(frame) => frame.clone(),
                None => self.decode(index)?,
            };
            frames.push(frame);
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_png(path: &Path, value: u8) {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 8, 6);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> = (0..8 * 6 * 3).map(|i| value.wrapping_add(i as u8)).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (value, name) in (0..).zip(names) {
            write_png(&folder.path().join(name), value * 10);
        }
        folder
    }

    #[test]
    fn frames_come_by_number_with_the_bytes_of_the_file() {
        // Not in the order of the alphabet.
        let folder = folder(&["f10.png", "f9.png", "f8.png"]);
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        std::fs::write(folder.path().join("._f7.png"), "x").unwrap();
        let mut clip = Pictures::folder(folder.path(), 10.0).unwrap();
        assert_eq!((clip.info().frames, clip.info().average_fps(), clip.info().width()), (3, 10.0, 8));
        let frames = clip.frames(&[0, 0, 2]).unwrap();
        let whole = |name: &str| Picture::read(&folder.path().join(name)).unwrap().rgb;
        assert_eq!(frames[0].rgb(), whole("f8.png"));
        assert_eq!(frames[1], frames[0]);
        assert_eq!(frames[2].rgb(), whole("f10.png"));
        let mut row = vec![0; 9];
        frames[2].rgb_row(5, 2, &mut row);
        assert_eq!(row, whole("f10.png")[(5 * 8 + 2) * 3..][..9]);
        assert!(matches!(clip.frames(&[3]), Err(VideoError::FrameOutOfRange { .. })));
        std::fs::write(folder.path().join("f9.png"), "x").unwrap();
        assert!(clip.frames(&[1]).unwrap_err().to_string().contains("f9.png is text, not a picture"));
        assert!(clip.frames(&[0]).is_ok());
    }

    #[test]
    fn what_is_no_video_is_named() {
        let why = |names: &[&str]| Pictures::folder(folder(names).path(), 30.0).err().unwrap();
        assert!(why(&[]).contains("without numbered pictures"));
        assert!(why(&["1.png", "cover.png"]).contains("`cover.png`, which has no number"));
        assert!(why(&["1.png", "01.png"]).contains("holds frame 1 twice"));
        assert!(why(&["1.png", "2.png", "4.png"]).contains("lacks a frame after number 2"));
        assert_eq!(Pictures::folder(folder(&["1.png", "6.png", "11.png"]).path(), 30.0).unwrap().info().frames, 3);
    }
}
