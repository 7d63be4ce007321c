//! What `anticipate` works with: its flags', else what an official evaluation's file says, else the defaults.

use std::path::{Path, PathBuf};

use super::{CliError, RankArgs};
use crate::cli::device::DeviceArg;
use crate::cli::named_model::check_second;
use crate::cli::whole::whole;
use vjepa_collective::Collective;
use vjepa_data::annotations::{Actions, FileIndex, epic};
use vjepa_data::anticipation::Anchor;
use vjepa_eval::protocols::anticipation::{FutureEncoder, FutureTimes};
use vjepa_recipe::config::Config;
use vjepa_recipe::config::evaluation::Anticipation;
use vjepa_recipe::text;
use vjepa_runtime::plan::Device;
use vjepa_weights::files_of;

/// The frozen models, and the videos.
#[derive(clap::Args)]
pub(super) struct Frozen {
    /// Checkpoint with an encoder and a predictor of V-JEPA 2 or 2.1
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Configuration: of model and preprocessing, needed if the checkpoint does not record them; or of the official evaluation
    /// (ek100.yaml), which also names checkpoint, videos, actions, clips and training
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Folder of the videos, `<video_id>` with any ending, at any depth
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    #[command(flatten)]
    pub(super) device: DeviceArg,
    #[command(flatten)]
    pub(super) ranks: RankArgs,
}

/// Which clips the encoder sees.
#[derive(clap::Args)]
pub(super) struct ClipArgs {
    /// Frames of a clip [default: 32]
    #[arg(long, value_name = "N", value_parser = whole::<u16>(2..))]
    frames: Option<u16>,
    /// Clip frames a second [default: 8]
    #[arg(long, value_name = "FPS")]
    fps: Option<f64>,
    /// Seconds from the clip's end to the anchor [default: 1]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Height and width of a clip in pixels [default: the encoder's]
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
}

/// Clips, all values resolved but for a side that is the encoder's.
#[derive(Clone, Copy)]
pub(super) struct ClipSpec {
    pub(super) frames: usize,
    pub(super) fps: f64,
    pub(super) seconds: f64,
    pub(super) side: Option<usize>,
}

impl ClipArgs {
    /// Whether a flag is given.
    pub(super) fn any(&self) -> bool {
        self.frames.is_some() || self.fps.is_some() || self.seconds.is_some() || self.side.is_some()
    }
}

/// Frozen models, with what a file of the configuration says.
pub(super) struct Setup<'a> {
    frozen: &'a Frozen,
    config: Option<Config>,
    pub(super) official: Option<Anticipation>,
}

impl<'a> Setup<'a> {
    /// Reads the configuration; what of an official evaluation's file changes nothing is said by rank 0.
    pub(super) fn read(frozen: &'a Frozen, ranks: &dyn Collective) -> Result<Self, CliError> {
        let Some(path) = frozen.config.as_deref() else { return Ok(Self { frozen, config: None, official: None }) };
        if !text::read(path).is_ok_and(|text| Anticipation::recognises(&text.text)) {
            return Ok(Self { frozen, config: Some(Config::from_file(path, &frozen.sets)?), official: None });
        }
        let official = Anticipation::from_file(path, &frozen.sets)?;
        for (key, why) in official.ignored.iter().filter(|_| ranks.rank() == 0) {
            eprintln!("note: {}: `{key}` has no effect: {why}", path.display());
        }
        Ok(Self { frozen, config: None, official: Some(official) })
    }

    /// A message about the file of the configuration.
    pub(super) fn of_file(&self, message: &str) -> String {
        let file = self.frozen.config.as_deref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        format!("{file}{message}")
    }

    /// A path of a flag, or of the official evaluation's file.
    pub(super) fn path<'p>(
        &'p self,
        flag: Option<&'p Path>,
        official: impl Fn(&'p Anticipation) -> &'p PathBuf,
        missing: &'static str,
    ) -> Result<&'p Path, CliError> {
        let own = self.official.as_ref().map(|file| official(file).as_path());
        flag.or(own).ok_or_else(|| missing.into())
    }

    /// The checkpoint.
    pub(super) fn checkpoint(&self) -> Result<&Path, CliError> {
        let missing = "give the checkpoint of encoder and predictor with --checkpoint, or --config with the official evaluation's file";
        self.path(self.frozen.checkpoint.as_deref(), |file| &file.encoder.checkpoint, missing)
    }

    /// The files that are read: the checkpoint's, the configuration, and what an official evaluation's file names.
    pub(super) fn inputs(&self) -> Vec<PathBuf> {
        let mut files = self.checkpoint().map_or_else(|_| Vec::new(), files_of);
        files.extend(self.frozen.config.clone());
        files.extend(self.official.iter().flat_map(|file| [file.train.clone(), file.val.clone()]));
        files
    }

    fn videos(&self) -> Result<&Path, CliError> {
        self.path(self.frozen.videos.as_deref(), |file| &file.videos, "give the folder of the videos with --videos")
    }

    /// The videos that there are.
    pub(super) fn index(&self) -> Result<FileIndex, CliError> {
        Ok(FileIndex::of(self.videos()?)?)
    }

    /// The actions of a list whose videos are there; what is missing is said by rank 0.
    pub(super) fn actions(&self, index: &FileIndex, list: &Path, ranks: &dyn Collective) -> Result<Actions, CliError> {
        vjepa_weights::refuse_foreign(list)?;
        let actions = epic(list, index)?;
        for missing in actions.missing.iter().filter(|_| ranks.rank() == 0) {
            eprintln!("note: {}: {} actions {}", list.display(), missing.count, missing.what);
        }
        if actions.segments.is_empty() {
            let videos = self.videos()?;
            return Err(format!("{} names no action of a video in {}", list.display(), videos.display()).into());
        }
        Ok(actions)
    }

    /// The clips of flags, else of the official evaluation.
    pub(super) fn clips(&self, args: &ClipArgs) -> Result<ClipSpec, CliError> {
        let file = self.official.as_ref();
        let clips = ClipSpec {
            frames: args.frames.map(usize::from).or(file.map(|file| file.frames)).unwrap_or(32),
            fps: args.fps.or(file.map(|file| file.fps)).unwrap_or(8.0),
            seconds: args.seconds.or(file.map(|file| file.seconds)).unwrap_or(1.0),
            side: args.side.or(file.map(|file| file.resolution)),
        };
        let good = clips.fps.is_finite() && clips.fps > 0.0 && clips.seconds.is_finite() && clips.seconds >= 0.0;
        match good {
            true => Ok(clips),
            false => Err("--fps must be positive, and --seconds must not be negative".into()),
        }
    }

    /// The anchor of a flag, else of the official evaluation; the last frame where nothing says it.
    pub(super) fn anchor(&self, flag: Option<Anchor>) -> Anchor {
        let own = self.official.as_ref().map(|file| if file.from_start { Anchor::Start } else { Anchor::Stop });
        flag.or(own).unwrap_or_default()
    }

    /// Opens encoder and predictor, for futures at most so many seconds after clips.
    pub(super) fn open(&self, device: Device, clips: ClipSpec, farthest: f64) -> Result<FutureEncoder, CliError> {
        let ClipSpec { frames, fps, seconds, side } = clips;
        let path = self.checkpoint()?;
        let times = FutureTimes { fps, seconds, farthest };
        let opened = FutureEncoder::open(device, path, self.config.as_ref(), (frames, side), times)?;
        if let Some(file) = &self.official {
            check_second(&file.encoder, opened.sizes(), path)?;
        }
        Ok(opened)
    }
}
