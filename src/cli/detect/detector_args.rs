//! What makes detections: a detector with its encoder, or its exported models.

use std::path::PathBuf;

use super::data::KeyFrames;
use super::{remarks, say};
use crate::cli::CliError;
use crate::cli::device::DeviceArg;
use crate::cli::probe::Bar;
use crate::cli::runtime::{RuntimeArgs, words};
use vjepa_collective::Collective;
use vjepa_eval::protocols::detection::{BoxEncoder, BoxValues, ExportedModels, FrameView, detections, rows};
use vjepa_eval::protocols::videos::{OpenEncoder, open_encoder};
use vjepa_metrics::ava::Row;
use vjepa_programs::{DetectorFile, DetectorRecord};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::Device;
use vjepa_runtime::{Options, cores};
use vjepa_weights::files_of;

/// Flags of exported models: the plan of a detector with its encoder has no use for them.
pub(super) const OF_RUNTIMES: [&str; 5] = ["runtime", "ort_lib", "gpu", "batches", "engine_cache"];

/// A detector.
#[derive(clap::Args)]
pub(super) struct DetectorArgs {
    /// Detector, from `vjepa detect train`; for `eval` also several of one encoder, those of the draws of a share (repeatable)
    #[arg(long, value_name = "FILE", requires = "checkpoint", conflicts_with_all = OF_RUNTIMES)]
    detector: Vec<PathBuf>,
    /// Encoder of the detector
    #[arg(long, value_name = "FILE", requires = "detector")]
    checkpoint: Option<PathBuf>,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE", requires = "checkpoint")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    #[command(flatten)]
    device: DeviceArg,
    /// Exported detector instead, from `vjepa detect export`; one for each size of the videos' clips (repeatable)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["checkpoint", "config", "sets", "device"])]
    model: Vec<PathBuf>,
    /// Runtime of --model. `auto` takes ONNX Runtime, as tract has no RoiAlign
    #[arg(long, default_value = "auto", value_parser = words(), requires = "model")]
    runtime: String,
    #[command(flatten)]
    session: RuntimeArgs,
}

/// What was detected.
pub(super) struct Detected {
    /// Of each detector.
    pub(super) rows: Vec<Vec<Row>>,
    /// What was said of the key frames.
    pub(super) notes: Vec<String>,
}

/// A detector that was opened.
pub(super) enum Opened {
    /// Its encoder as a compiled plan, and several where they are of several draws.
    Plan { encoder: Box<OpenEncoder>, record: DetectorRecord, detectors: Vec<DetectorFile> },
    /// Exported models on a runtime.
    Exported(ExportedModels),
}

impl DetectorArgs {
    /// The files that it is read from.
    pub(super) fn inputs(&self) -> Vec<PathBuf> {
        let mut files = self.checkpoint.as_deref().map(files_of).unwrap_or_default();
        files.extend(self.detector.iter().chain(&self.config).chain(&self.model).cloned());
        files
    }

    /// Where a detector's encoder runs.
    pub(super) fn device(&self) -> &DeviceArg {
        &self.device
    }

    /// How many detectors there are.
    pub(super) fn count(&self) -> usize {
        self.detector.len().max(1)
    }

    /// Opens it.
    pub(super) fn open(&self, device: Device) -> Result<Opened, CliError> {
        if !self.model.is_empty() {
            let runtime = self.runtime.parse()?;
            let options = Options { runtime, threads: cores(), ..self.session.options() };
            return Ok(Opened::Exported(ExportedModels::open(&self.model, &options)?));
        }
        let (Some(first), Some(checkpoint)) = (self.detector.first(), &self.checkpoint) else {
            return Err("give --detector with --checkpoint, or --model".into());
        };
        let config = self.config.as_deref().map(|path| Config::from_file(path, &self.sets)).transpose()?;
        let encoder = open_encoder(device, checkpoint, config.as_ref())?;
        let open = |path: &PathBuf| super::open(path, &encoder.digest);
        let detectors = self.detector.iter().map(open).collect::<Result<Vec<DetectorFile>, CliError>>()?;
        let record = detectors.first().map(|detector| detector.record.clone()).ok_or("no detector was given")?;
        if let Some((other, _)) = self.detector.iter().zip(&detectors).find(|(_, detector)| detector.record != record) {
            let why = "reads other clips or blocks, or has other names, and is evaluated apart";
            return Err(format!("{} {why}: {} is of another kind", other.display(), first.display()).into());
        }
        Ok(Opened::Plan { encoder: Box::new(encoder), record, detectors })
    }
}

impl Opened {
    /// Detections of the boxes of key frames, which `ranks` share; none on ranks other than 0.
    pub(super) fn detections(
        self,
        found: &KeyFrames,
        by_people: bool,
        ranks: &dyn Collective,
    ) -> Result<Option<Detected>, CliError> {
        if ranks.rank() == 0 {
            say(&found.notes);
        }
        let mut bar = Bar::of(ranks);
        let noted = |values: &BoxValues| {
            let notes = remarks(values, found);
            say(&notes);
            [found.notes.as_slice(), &notes].concat()
        };
        match self {
            Self::Plan { mut encoder, record, detectors } => {
                let device = encoder.encoder.device();
                let mut boxes = BoxEncoder::new(&mut encoder, &record);
                let features = boxes.extract(&found.frames, FrameView::Whole, ranks, &mut |p| bar.show(p))?;
                bar.clear();
                let Some(features) = features else { return Ok(None) };
                let notes = noted(&features);
                let rows = |detector: &DetectorFile| detections(device, &features, &detector.classifier, by_people);
                Ok(Some(Detected { rows: detectors.iter().map(rows).collect::<Result<_, _>>()?, notes }))
            }
            Self::Exported(models) => {
                let scores = models.scores(&found.frames, ranks, &mut |p| bar.show(p))?;
                bar.clear();
                let Some(scores) = scores else { return Ok(None) };
                let notes = noted(&scores);
                Ok(Some(Detected { rows: vec![rows(&scores, by_people)], notes }))
            }
        }
    }
}
