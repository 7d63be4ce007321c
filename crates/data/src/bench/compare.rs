//! Contenders take turns on each file.

use std::path::{Path, PathBuf};

use serde::Serialize;
use vjepa_recipe::counter::CounterRng;
use vjepa_video::{ClipInfo, Decoder, open_with};

use super::{Answer, Contender, FrameTask, Pick, Request, describe};
use crate::source::DataError;

/// Frames of a clip, and how far apart they are.
const FRAMES: usize = 16;
const STEP: usize = 4;
/// Side of prepared clips in pixels.
const SIZE: usize = 224;
/// Separates these random numbers from others of the seed.
const PICKS: u64 = 0x0070_6963_6b73;
/// Frames decoded at once where all are looked at.
const AT_ONCE: usize = 32;

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Settings {
    /// [`FrameTask::Rgb`] or [`FrameTask::Clip`].
    pub task: FrameTask,
    /// Rounds counted.
    pub rounds: usize,
    /// Clips of each round and contender.
    pub clips: usize,
    /// Seed of starts and crops.
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How much was measured.
    pub settings: Settings,
    /// File after file.
    pub files: Vec<FileReport>,
}

/// The contenders on one file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its codec.
    pub codec: String,
    /// Width and height in pixels.
    pub size: (usize, usize),
    /// Number of frames.
    pub frames: usize,
    /// In the order in which the contenders were given.
    pub contenders: Vec<Figures>,
}

/// One contender on one file.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Its name.
    pub name: String,
    /// Library and version.
    pub about: String,
    /// Median over rounds of clips per second of processor time; none where it cannot read the file.
    pub clips_per_second: Option<f64>,
    /// Frames compared with the file's own, and how many of them were others than asked for.
    pub looked_at: usize,
    /// As above.
    pub wrong: usize,
    /// Why it cannot read the file.
    pub error: Option<String>,
    /// Its speed over that of each of the others that read the file.
    pub ratios: Vec<Ratio>,
}

/// A speed over that of another contender.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// The other one.
    pub over: String,
    /// Median over rounds.
    pub median: f64,
    /// Smallest.
    pub low: f64,
    /// Largest.
    pub high: f64,
}

/// Lets the contenders take turns on each file: a round that is not counted, in which frames are checked on the clips of
/// the first counted one, then the counted rounds; `progress` is told of each round that is over.
///
/// # Errors
/// [`DataError::Bad`] for a file that our own decoder does not read, [`DataError::Setup`] when a contender ends.
pub fn compare(
    contenders: &mut [Contender],
    files: &[PathBuf],
    settings: Settings,
    mut progress: impl FnMut(&Path, usize),
) -> Result<Report, DataError> {
    let files = files
        .iter()
        .enumerate()
        .map(|(number, path)| one(contenders, path, number as u64, settings, |round| progress(path, round)));
    Ok(Report { settings, files: files.collect::<Result<_, _>>()? })
}

fn one(
    contenders: &mut [Contender],
    path: &Path,
    number: u64,
    settings: Settings,
    mut progress: impl FnMut(usize),
) -> Result<FileReport, DataError> {
    let (info, truth) = every_look(path)?;
    let request = |task, round: usize| Request {
        path: path.to_path_buf(),
        task,
        size: SIZE,
        clips: (0..settings.clips)
            .map(|clip| pick(&info, &[settings.seed, number, round as u64, clip as u64]))
            .collect(),
    };
    let mut figures: Vec<Figures> = contenders.iter().map(|c| Figures::empty(&c.name, &c.about)).collect();
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for (contender, figures) in contenders.iter_mut().zip(&mut figures) {
        let asked = request(FrameTask::Look, 0);
        match contender.ask(&asked)? {
            Answer::Failed { error } => figures.error = Some(error),
            Answer::Done { looks, .. } => {
                let indices: Vec<usize> = asked.clips.iter().flat_map(|pick| pick.frames.iter().copied()).collect();
                figures.looked_at = indices.len();
                figures.wrong = indices.len().saturating_sub(looks.len())
                    + indices.iter().zip(&looks).filter(|(index, look)| !is_frame(&truth, **index, look)).count();
            }
        }
    }
    progress(0);
    for round in 0..settings.rounds {
        for ((contender, figures), rates) in contenders.iter_mut().zip(&mut figures).zip(&mut rates) {
            if figures.error.is_some() {
                continue;
            }
            match contender.ask(&request(settings.task, round))? {
                Answer::Failed { error } => figures.error = Some(error),
                Answer::Done { seconds, .. } => rates.push(settings.clips as f64 / seconds),
            }
        }
        progress(round + 1);
    }
    let names: Vec<String> = contenders.iter().map(|c| c.name.clone()).collect();
    for (own, figures) in figures.iter_mut().enumerate() {
        let Some(rate) = rates.get(own).filter(|_| figures.error.is_none()) else { continue };
        figures.clips_per_second = spread(rate.iter().copied()).map(|[median, _, _]| median);
        let others = names.iter().zip(&rates).enumerate().filter(|(other, _)| *other != own);
        figures.ratios = others.filter_map(|(_, (name, others))| ratio(name, rate, others)).collect();
    }
    let (codec, size) = (info.codec.to_string(), (info.width(), info.height()));
    Ok(FileReport { path: path.to_path_buf(), codec, size, frames: info.frames, contenders: figures })
}

impl Figures {
    fn empty(name: &str, about: &str) -> Self {
        let (name, about) = (name.to_owned(), about.to_owned());
        Self { name, about, clips_per_second: None, looked_at: 0, wrong: 0, error: None, ratios: Vec::new() }
    }
}

/// What is known of a file and how each of its frames looks.
fn every_look(path: &Path) -> Result<(ClipInfo, Vec<Vec<i32>>), DataError> {
    let bad = |error: String| DataError::Bad { path: path.to_path_buf(), reason: crate::decode::reason(path, error) };
    let mut clip = open_with(path, Decoder::Auto).map_err(|error| bad(error.to_string()))?;
    let info = clip.info().clone();
    let indices: Vec<usize> = (0..info.frames).collect();
    let mut looks = Vec::with_capacity(info.frames);
    for group in indices.chunks(AT_ONCE) {
        let frames = clip.frames(group).map_err(|error| bad(error.to_string()))?;
        looks.extend(frames.iter().map(|f| describe(&f.rgb(), f.display_height(), f.display_width())));
    }
    Ok((info, looks))
}

/// A clip at random: frames as they come in training, a crop of half the short side at least.
fn pick(info: &ClipInfo, key: &[u64]) -> Pick {
    let mut rng = CounterRng::new(&[&[PICKS], key].concat());
    let mut below = |n: usize| rng.below(n.max(1) as u64) as usize;
    let last = info.frames.saturating_sub(1);
    let start = below(info.frames.saturating_sub((FRAMES - 1) * STEP));
    let side = info.width().min(info.height());
    let [height, width] = [(); 2].map(|()| (side / 2 + below(side / 2)).max(1));
    let (top, left) = (below(info.height() - height + 1), below(info.width() - width + 1));
    Pick {
        frames: (0..FRAMES).map(|i| (start + STEP * i).min(last)).collect(),
        crop: [top, left, height, width],
        flip: below(2) == 1,
    }
}

/// Is a picture that looks like this nearest to frame `index`? Decoders convert colours differently, by a level or two.
fn is_frame(truth: &[Vec<i32>], index: usize, look: &[i32]) -> bool {
    let distance = |frame: &Vec<i32>| -> u64 { frame.iter().zip(look).map(|(a, b)| u64::from(a.abs_diff(*b))).sum() };
    let own = truth.get(index).filter(|frame| frame.len() == look.len()).map(distance);
    own.is_some_and(|own| truth.iter().all(|other| own <= distance(other)))
}

fn ratio(over: &str, own: &[f64], other: &[f64]) -> Option<Ratio> {
    let [median, low, high] = spread(own.iter().zip(other).map(|(own, other)| own / other))?;
    Some(Ratio { over: over.to_owned(), median, low, high })
}

/// Median, smallest and largest; none of nothing.
pub(super) fn spread(values: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        1 => *values.get(middle)?,
        _ => (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0,
    };
    Some([median, *values.first()?, *values.last()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), Some([2.0, 1.0, 3.0]));
        assert_eq!(spread([4.0, 1.0].into_iter()), Some([2.5, 1.0, 4.0]));
        assert_eq!(spread(std::iter::empty()), None);
    }

    #[test]
    fn a_neighbour_is_another_frame() {
        let truth = [vec![0, 255, 0], vec![255, 0, 0], vec![255, 255, 0]];
        assert!(is_frame(&truth, 1, &[250, 3, 1]));
        assert!(!is_frame(&truth, 1, &[250, 250, 1]) && !is_frame(&truth, 3, &[0, 0, 0]) && !is_frame(&truth, 0, &[]));
    }
}
