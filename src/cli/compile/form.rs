//! The flags that choose the form of an exported model.

use std::path::PathBuf;

use vjepa_export::{ExternalData, Precision, Target, WeightRange};

use super::super::named::named;
use super::CliError;
use crate::cli::whole::whole;
use vjepa_deploy::Form;
use vjepa_programs::DeployedHead;
use vjepa_runtime::ClipViews;

/// Flags of an export.
#[derive(clap::Args)]
#[command(next_help_heading = "Form of the model")]
pub(super) struct FormArgs {
    /// What the exported model will run on
    #[arg(long, value_parser = named(&Target::ALL, Target::name, Target::about), default_value = "portable")]
    target: Target,
    /// Arithmetic and storage; clips and results are always f32 [default: f16 for --target tensorrt, f32 otherwise]
    #[arg(long, value_parser = named(&Precision::ALL, Precision::name, Precision::about))]
    precision: Option<Precision>,
    /// Range of 8-bit weights [default: full for --target tensorrt, reduced otherwise]
    #[arg(long, value_parser = named(&WeightRange::ALL, WeightRange::name, WeightRange::about))]
    int8_range: Option<WeightRange>,
    /// ONNX opset, 18 to 25
    #[arg(long, default_value_t = 20, value_name = "N")]
    opset: i64,
    /// Clips per run: a number, or `dynamic` for any
    #[arg(long, default_value = "dynamic", value_name = "N|dynamic")]
    batch: String,
    /// What the model returns [default: probe if there is one, tokens otherwise]
    #[arg(long, value_parser = named(&HEADS, head_name, head_about))]
    head: Option<DeployedHead>,
    /// With a probe: clips per prediction, spread from the beginning to the end of a video
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = whole::<u16>(1..=64))]
    clips: u16,
    /// With a probe: views per clip, spread along the long side; their probabilities are averaged inside the model
    #[arg(long, default_value_t = 1, value_name = "V", value_parser = whole::<u16>(1..=64))]
    views: u16,
    /// Frames per clip, if different from training; positions of a table are interpolated
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Side of a clip in pixels, or its height and width, if different from training: 384 or 256x448. Positions of a table are
    /// interpolated
    #[arg(long, value_name = "PIXELS|HxW", value_parser = sides)]
    resolution: Option<Sides>,
    /// Return the output of these blocks, counted from 0
    #[arg(long, visible_alias = "layers", value_name = "N,...", value_delimiter = ',')]
    out_layers: Option<Vec<usize>>,
    /// Store the weights in a separate file, as is always done above 2 GB
    #[arg(long)]
    external_data: bool,
    /// Videos, or .safetensors files with `clip_u8`, to calibrate and check a lower precision on [default: generated clips]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    calibration: Vec<PathBuf>,
    /// Share of calibration clips that must keep their most probable class (without classes: cosine similarity); below
    /// it, the model is removed
    #[arg(long, default_value_t = 0.99, value_name = "SHARE")]
    min_agreement: f64,
}

/// Height and width of a clip.
#[derive(Clone, Copy, Debug)]
struct Sides([usize; 2]);

/// Reads `384` or `256x448`.
fn sides(text: &str) -> Result<Sides, String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match (height.parse(), width.parse()) {
        (Ok(height @ 1..), Ok(width @ 1..)) => Ok(Sides([height, width])),
        _ => Err("give a side, or height and width, in pixels: 384 or 256x448".to_owned()),
    }
}

/// Heads of exported models.
const HEADS: [DeployedHead; 4] =
    [DeployedHead::Probe, DeployedHead::Features, DeployedHead::Pooled, DeployedHead::Tokens];

fn head_name(head: DeployedHead) -> &'static str {
    match head {
        DeployedHead::Probe => "probe",
        DeployedHead::Features => "features",
        DeployedHead::Pooled => "pooled",
        DeployedHead::Tokens => "tokens",
    }
}

fn head_about(head: DeployedHead) -> &'static str {
    match head {
        DeployedHead::Probe => "Class scores of the probe",
        DeployedHead::Features => "Mean token",
        DeployedHead::Pooled => "Token pooled by an attentive probe",
        DeployedHead::Tokens => "All tokens",
    }
}

impl FormArgs {
    /// Whether the precision is the default of a target whose default is not f32.
    pub fn assumes_precision(&self, form: &Form) -> bool {
        self.precision.is_none() && form.precision != Precision::F32
    }

    /// The form, for a TensorRT engine if one is to be built, with the probe of this number; contradictions are errors.
    pub fn form(&self, engine: bool, probe_number: usize) -> Result<Form, CliError> {
        // An engine has no other target; another one that was asked for is refused later.
        let target = if engine && self.target == Target::Portable { Target::TensorRt } else { self.target };
        let default = if target == Target::TensorRt { Precision::F16 } else { Precision::F32 };
        let precision = self.precision.unwrap_or(default);
        if self.int8_range.is_some() && !matches!(precision, Precision::Int8Dynamic | Precision::Int8Static) {
            return Err(format!("--int8-range is for --precision int8 and int8-static, not {precision}").into());
        }
        if !(0.0..=1.0).contains(&self.min_agreement) {
            return Err(format!("--min-agreement must be between 0 and 1, got {}", self.min_agreement).into());
        }
        if precision == Precision::F32 && !self.calibration.is_empty() {
            return Err(
                "--calibration is for precisions below f32; f32 models are compared with the plan on noise".into()
            );
        }
        Ok(Form {
            target,
            precision,
            int8_range: self.int8_range,
            opset: self.opset,
            batch: self.batch()?,
            head: self.head,
            probe_number,
            clip_views: ClipViews { clips: self.clips.into(), views: self.views.into() },
            frames: self.frames,
            resolution: self.resolution.map(|Sides(sides)| sides),
            out_layers: self.out_layers.clone(),
            external: if self.external_data { ExternalData::Always } else { ExternalData::Auto },
            calibration: self.calibration.clone(),
            min_agreement: self.min_agreement,
        })
    }

    fn batch(&self) -> Result<Option<usize>, CliError> {
        if self.batch == "dynamic" {
            return Ok(None);
        }
        let number = self.batch.parse().ok().filter(|batch: &usize| (1..=1 << 20).contains(batch));
        let number =
            number.ok_or_else(|| format!("--batch must be a positive number or `dynamic`, got {}", self.batch))?;
        Ok(Some(number))
    }
}
