//! What `probe` and `eval` share: the encoder and its flags, the official evaluations' files, the samples.

use std::path::{Path, PathBuf};

use vjepa_data::annotations::{Listing, image_folder};
use vjepa_data::shards::{holds_shards, refuse_foreign};
use vjepa_data::{SamplePlan, StillPlan, VideoList, ViewPlan, is_picture};
use vjepa_eval::ClipEncoder;
use vjepa_eval::cache::file_digest;
use vjepa_eval::foreign::SessionEncoder;
use vjepa_eval::labels::ClassNames;
use vjepa_eval::protocols::videos::{OpenEncoder, Wanted, open_encoder_as};
use vjepa_eval::videos::labelled_videos;
use vjepa_graphs::{EncoderConfig, ProbeConfig};
use vjepa_recipe::config::evaluation::{CheckpointKey, Samples};
use vjepa_recipe::config::{Config, Evaluation};
use vjepa_recipe::text;
use vjepa_runtime::plan::Device;
use vjepa_runtime::{Options, Preprocessing, cores};
use vjepa_weights::files_of;

use super::CliError;
use super::named_model::check_second;
use super::runtime::words;
use super::whole::whole;

/// The encoder, and what configures it.
#[derive(clap::Args)]
pub(super) struct EncoderArgs {
    /// Checkpoint of vjepa or of the official code (.safetensors, .pt, .pth.tar), or a Hugging Face folder
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Encoder from elsewhere: an ONNX file that takes clips [B, 3, T, H, W] and gives tokens [B, N, D] or vectors [B, D]
    #[arg(long, value_name = "FILE.onnx", conflicts_with = "checkpoint")]
    pub encoder: Option<PathBuf>,
    /// The ONNX encoder takes pictures [B, 3, H, W]: give it every frame, and join its tokens in time
    // clap waives `requires` where what is required is excluded, as --encoder is by --checkpoint.
    #[arg(long, requires = "encoder", conflicts_with = "checkpoint")]
    pub per_frame: bool,
    /// Runtime of the ONNX encoder
    #[arg(long, default_value = "auto", value_parser = words(), requires = "encoder", conflicts_with = "checkpoint")]
    pub runtime: String,
    /// ONNX Runtime's shared library [default: searched for, see `vjepa doctor`]
    #[arg(long, value_name = "FILE", requires = "encoder", conflicts_with = "checkpoint")]
    pub ort_lib: Option<PathBuf>,
    /// Configuration: of model and preprocessing, needed if the checkpoint does not record them; or of an official evaluation
    /// (configs/evals), which also names checkpoint, data, clips, views and training
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    pub sets: Vec<String>,
    /// Number of times a picture is repeated to make a clip [default: as many as the encoder was trained on; the paper finds 2
    /// enough]
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..))]
    pub still_frames: Option<u16>,
    /// Start the clips of evaluated videos at random, as the official evaluation does, instead of always alike
    #[arg(long)]
    pub official_validation: bool,
}

/// The configuration of `--config`: a run's, or an official evaluation's.
pub(super) struct Setup {
    pub config: Option<Config>,
    pub official: Option<Evaluation>,
}

impl Setup {
    /// Reads it; what of an official evaluation's file changes nothing is named on standard error.
    pub fn read(args: &EncoderArgs) -> Result<Self, CliError> {
        let Some(path) = args.config.as_deref() else { return Ok(Self { config: None, official: None }) };
        let official = text::read(path).is_ok_and(|text| Evaluation::recognises(&text.text));
        if !official {
            return Ok(Self { config: Some(Config::from_file(path, &args.sets)?), official: None });
        }
        let official = Evaluation::from_file(path, &args.sets)?;
        if official.encoder.from_file && matches!(official.samples, Samples::Videos { seconds: Some(_), .. }) {
            let why =
                "`experiment.data.clip_duration` is not read in evaluation: set it to null, and `frame_step` instead";
            return Err(format!("{}: {why}", path.display()).into());
        }
        for (key, why) in named(&official) {
            eprintln!("note: {}: `{key}` has no effect: {why}", path.display());
        }
        // V-JEPA 2's checkpoints say themselves what they are.
        let config = if official.encoder.from_file { None } else { Some(model_of(&official, path)?) };
        Ok(Self { config, official: Some(official) })
    }

    /// The trained probe that an official evaluation's file names.
    pub fn probe_file(&self) -> Option<&Path> {
        self.official.as_ref()?.probe_file.as_deref().map(Path::new)
    }

    /// The checkpoint of the flag, or of the official evaluation.
    pub fn checkpoint(&self, args: &EncoderArgs) -> Result<PathBuf, CliError> {
        let own = self.official.as_ref().map(|official| official.encoder.checkpoint.clone());
        let none =
            "name the encoder: --checkpoint FILE, --encoder FILE.onnx, or --config with an official evaluation's file";
        args.checkpoint.clone().or(own).ok_or_else(|| none.into())
    }

    /// The files that are read: the encoder's, the configuration, and what an official evaluation's file names.
    pub fn inputs(&self, args: &EncoderArgs) -> Vec<PathBuf> {
        let mut files = self.checkpoint(args).map_or_else(|_| Vec::new(), |checkpoint| files_of(&checkpoint));
        files.extend([&args.encoder, &args.config].into_iter().flatten().cloned());
        files.extend(self.data().into_iter().flatten());
        files.extend(self.probe_file().map(Path::to_owned));
        files
    }

    /// Whether training is to be augmented, by the configuration.
    pub fn augments(&self) -> bool {
        let own =
            self.config.as_ref().is_some_and(|config| config.data_aug.auto_augment || config.data_aug.reprob > 0.0);
        self.official.is_some() || own
    }

    /// Whether a probe reads all clips of a view at once, unless the flags say so: yes, but for official files that say no.
    pub fn attends(&self) -> bool {
        match self.official.as_ref().map(|official| &official.samples) {
            Some(Samples::Videos { attend_across_segments, .. }) => *attend_across_segments,
            Some(Samples::Images { .. }) | None => true,
        }
    }

    /// Clips of a video and views of a clip in the official evaluation; one each otherwise.
    pub fn clips_and_views(&self) -> [usize; 2] {
        match self.official.as_ref().map(|official| &official.samples) {
            Some(Samples::Videos { segments, views, .. }) => [*segments, *views],
            Some(Samples::Images { .. }) | None => [1, 1],
        }
    }

    /// The official evaluation's training and validation samples.
    pub fn data(&self) -> Option<[PathBuf; 2]> {
        Some(match &self.official.as_ref()?.samples {
            Samples::Videos { train, val, .. } => [train.into(), val.into()],
            Samples::Images { folder, .. } => [folder.join("train"), folder.join("val")],
        })
    }

    /// The attentive probe, with the blocks and heads that an official file gives.
    pub fn sized(&self, probe: ProbeConfig) -> Result<ProbeConfig, CliError> {
        let Some([blocks, heads]) = self.official.as_ref().and_then(|official| official.sizes) else {
            return Ok(probe);
        };
        if !probe.embed_dim.is_multiple_of(heads) {
            return Err(format!(
                "`experiment.classifier.num_heads` is {heads}, which must divide the width of the features, {}",
                probe.embed_dim
            )
            .into());
        }
        Ok(ProbeConfig { depth: blocks, num_heads: heads, ..probe })
    }

    /// Checks the number of classes that the official file gives.
    pub fn check_classes(&self, found: usize) -> Result<(), CliError> {
        let second = self.official.as_ref().is_some_and(|official| official.encoder.from_file);
        let key = if second { "experiment.data.num_classes" } else { "data.num_classes" };
        match self.official.as_ref().map(|official| official.classes) {
            Some(classes) if classes != found => Err(format!(
                "`{key}` is {classes}, but the training samples have {found} classes: correct it, or add --set {key}={found}"
            )
            .into()),
            _ => Ok(()),
        }
    }
}

/// What of an official file has no effect here, beyond what its reader knows.
fn named(official: &Evaluation) -> Vec<(&'static str, String)> {
    let mut all: Vec<_> = official.ignored.iter().map(|(key, why)| (*key, (*why).to_owned())).collect();
    if official.probe.half {
        let second = official.encoder.from_file;
        let key = if second { "experiment.optimization.use_bfloat16" } else { "optimization.use_bfloat16" };
        all.push((key, "probes are trained in f32".into()));
    }
    if official.resume {
        all.push((
            "resume_checkpoint",
            "training starts from the beginning, with cached features where there are some".into(),
        ));
    }
    all
}

/// The encoder and the clips of an official evaluation as a run's configuration.
fn model_of(official: &Evaluation, path: &Path) -> Result<Config, CliError> {
    let encoder = &official.encoder;
    let (frames, step, seconds) = match &official.samples {
        Samples::Videos { frames, step, seconds, .. } => (*frames, *step, *seconds),
        Samples::Images { .. } => (encoder.frames, 4, None),
    };
    if seconds.is_some() {
        let why =
            "`pretrain.clip_duration` is not read in evaluation: set it to null, and `pretrain.frame_step` instead";
        return Err(format!("{}: {why}", path.display()).into());
    }
    let model = serde_json::to_value(encoder.model)?; // Files of this layout name one.
    let text = format!(
        "model: {{model_name: {model}, uniform_power: {}}}\n\
         data: {{num_frames: {frames}, sampling_rate: {step}, crop_size: {}, tubelet_size: {}, patch_size: {}}}\n",
        encoder.uniform_power, official.resolution, encoder.tubelet, encoder.patch
    );
    // Only the encoder is meant: the default masks of pre-training need not fit its grid.
    Ok(Config::unchecked(&text, &path.display().to_string(), &[])?)
}

/// What is known of the probe that an encoder is opened for.
#[derive(Default)]
pub(super) struct Reads {
    /// Blocks whose tokens it was trained on.
    pub layers: Option<Vec<usize>>,
    /// Attention heads of one for another program's encoder.
    pub heads: Option<usize>,
}

/// An encoder that is ready to run.
pub(super) struct Opened {
    pub encoder: Box<dyn ClipEncoder>,
    /// Its file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub digest: String,
    /// Names its features in the cache.
    pub id: String,
    pub preprocessing: Preprocessing,
    /// Sizes of an encoder of ours.
    pub sizes: Option<EncoderConfig>,
    /// What describes it, or runs it.
    pub source: String,
}

impl Opened {
    /// Opens the encoder for videos or for still pictures.
    pub fn open(args: &EncoderArgs, setup: &Setup, device: Device, kind: Kind, probe: Reads) -> Result<Self, CliError> {
        let frames = match kind {
            Kind::Pictures => args.still_frames.map(usize::from),
            Kind::Videos if args.still_frames.is_some() => {
                return Err("--still-frames is for pictures, but the samples are videos".into());
            }
            Kind::Videos => None,
        };
        if let Some(path) = args.encoder.as_deref() {
            return Self::exported(path, args, setup, (frames, probe.heads));
        }
        let path = setup.checkpoint(args)?;
        let mut wanted = wanted(setup, frames);
        match (&wanted.layers, probe.layers) {
            (Some(file), Some(own)) if *file != own => {
                return Err(format!(
                    "the configuration names the blocks {file:?} (`out_layers`), but the probe was trained on {own:?}: correct it"
                )
                .into());
            }
            (None, Some(own)) => wanted.layers = Some(own),
            _ => {}
        }
        let OpenEncoder { encoder, mut model, digest, named } =
            open_encoder_as(device, &path, setup.config.as_ref(), &wanted)?;
        if let Some(official) = setup.official.as_ref().filter(|official| official.encoder.from_file) {
            check_second(&official.encoder, &model.encoder, &path)?;
            if let Samples::Videos { step, .. } = official.samples {
                model.preprocessing.sampling_rate = step;
            }
        }
        super::note_sampling(model.config.as_ref());
        let (preprocessing, source, id) = (model.preprocessing, model.source.to_owned(), format!("{digest}/{named}"));
        Ok(Self { encoder: Box::new(encoder), path, id, digest, preprocessing, sizes: Some(model.encoder), source })
    }

    fn exported(
        path: &Path,
        args: &EncoderArgs,
        setup: &Setup,
        (frames, heads): (Option<usize>, Option<usize>),
    ) -> Result<Self, CliError> {
        let options = Options {
            runtime: args.runtime.parse()?,
            ort_lib: args.ort_lib.clone(),
            threads: cores(),
            ..Options::default()
        };
        let mut record = setup.config.as_ref().map(Config::preprocessing);
        if let (Some(record), Some(frames)) = (&mut record, frames) {
            record.num_frames = frames;
        }
        let (encoder, preprocessing) = SessionEncoder::open(path, &options, record, (args.per_frame, heads))?;
        let (source, digest) = (encoder.runtime(), file_digest(path)?);
        let (id, path) = (digest.clone(), path.to_owned());
        Ok(Self { encoder: Box::new(encoder), path, id, digest, preprocessing, sizes: None, source })
    }

    /// What is evaluated of each sample.
    pub fn plan(&self, kind: Kind, [clips, views]: [usize; 2], random: Option<u64>) -> Result<SamplePlan, CliError> {
        let record = &self.preprocessing;
        match kind {
            Kind::Videos => Ok(SamplePlan::Videos(ViewPlan { preprocessing: record.clone(), clips, views, random })),
            Kind::Pictures if [clips, views] != [1, 1] => {
                Err("a picture is one clip in one view: leave --clips and --views out".into())
            }
            Kind::Pictures => Ok(SamplePlan::Pictures(StillPlan::of(record)?)),
        }
    }
}

/// Which encoder of a checkpoint, and for which clips; `frames` are those of the flag.
pub(super) fn wanted(setup: &Setup, frames: Option<usize>) -> Wanted {
    let Some(official) = &setup.official else { return Wanted { frames, ..Wanted::default() } };
    let encoder = &official.encoder;
    let named = match encoder.key {
        CheckpointKey::TargetEncoder => "target_encoder",
        CheckpointKey::Encoder => "encoder",
        CheckpointKey::EmaEncoder => "ema_encoder",
    };
    match encoder.from_file {
        false => Wanted { frames, encoder: Some(named), ..Wanted::default() },
        // Which of its encoders a released file means, it says itself, but for one that asks for the other.
        true => Wanted {
            frames: frames.or(Some(encoder.frames)),
            side: Some(official.resolution),
            encoder: (encoder.key == CheckpointKey::Encoder).then_some(named),
            layers: encoder.layers.clone(),
        },
    }
}

/// What the samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Videos,
    Pictures,
}

impl Kind {
    /// Of a list, which holds one kind only.
    pub fn of(list: &VideoList) -> Result<Self, CliError> {
        let pictures = list.entries.iter().filter(|entry| is_picture(&entry.path)).count();
        match (pictures, list.entries.len() - pictures) {
            (0, _) => Ok(Self::Videos),
            (_, 0) => Ok(Self::Pictures),
            (pictures, videos) => Err(format!(
                "{} lists {pictures} pictures and {videos} videos: evaluate them apart",
                list.path.display()
            )
            .into()),
        }
    }

    /// Their word, in the plural.
    pub fn word(self) -> &'static str {
        match self {
            Self::Videos => "videos",
            Self::Pictures => "pictures",
        }
    }
}

/// Reads samples: a list of "path label" lines, shards, or a folder with a folder of pictures for each class, which then names
/// them.
pub(super) fn samples(path: &Path) -> Result<(VideoList, Option<ClassNames>), CliError> {
    refuse_foreign(path)?;
    if !path.is_dir() || holds_shards(path) {
        return Ok((labelled_videos(path)?, None));
    }
    let listing = image_folder(path)?;
    let left_out = listing.left_out_in_words();
    let Listing { entries, classes: names, .. } = listing;
    let names = ClassNames { count: names.len(), names, from: Some(0), source: path.into() };
    let mut list = VideoList::of(path, entries);
    list.notes.extend(left_out);
    Ok((list, Some(names)))
}
