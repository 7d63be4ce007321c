//! The flags that choose the form of an exported model.

use std::path::PathBuf;

use clap::ValueEnum;
use vjepa_export::{ExternalData, Precision, Target, WeightRange};

use super::CliError;
use vjepa_deploy::Form;
use vjepa_programs::Head;
use vjepa_runtime::ClipViews;

/// Flags of an export.
#[derive(clap::Args)]
pub(super) struct FormArgs {
    /// What the exported model is meant to run on.
    #[arg(long, conflicts_with = "graph", value_enum, default_value = "portable")]
    target: ExportTarget,
    /// Arithmetic and storage of the exported model; clips and results are f32 whatever it is. f16 is the default for
    /// the target tensorrt, f32 for the others.
    #[arg(long, conflicts_with = "graph", value_enum)]
    precision: Option<ExportPrecision>,
    /// Range of 8-bit weights. Without it: reduced, but full for the target tensorrt.
    #[arg(long, conflicts_with = "graph", value_enum)]
    int8_range: Option<Int8Range>,
    /// Version of ONNX's operators, 18 to 25.
    #[arg(long, conflicts_with = "graph", default_value_t = 20, value_name = "N")]
    opset: i64,
    /// Clips of a run: a number, or `dynamic` for any.
    #[arg(long, conflicts_with = "graph", default_value = "dynamic", value_name = "N|dynamic")]
    batch: String,
    /// What the model gives; the probe where there is one, else all tokens.
    #[arg(long, conflicts_with = "graph", value_enum)]
    head: Option<ExportHead>,
    /// With a probe: clips from the beginning to the end of a video that make one prediction.
    #[arg(long, conflicts_with = "graph", default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=64))]
    clips: u16,
    /// With a probe: views along the long side of the frames, whose probabilities are averaged inside the model.
    #[arg(long, conflicts_with = "graph", default_value_t = 1, value_name = "V", value_parser = clap::value_parser!(u16).range(1..=64))]
    views: u16,
    /// Frames of a clip, where they are not those of the training; positions are interpolated.
    #[arg(long, conflicts_with = "graph", value_name = "N")]
    frames: Option<usize>,
    /// Side of a clip in pixels, where it is not that of the training; positions are interpolated.
    #[arg(long, conflicts_with = "graph", value_name = "PIXELS")]
    resolution: Option<usize>,
    /// Blocks, from 0, after which tokens or features are wanted.
    #[arg(long, conflicts_with = "graph", value_name = "I,J,..", value_delimiter = ',')]
    out_layers: Option<Vec<usize>>,
    /// Keep the weights in a file beside the model; done by itself above 2 GB.
    #[arg(long, conflicts_with = "graph")]
    external_data: bool,
    /// Videos, or .safetensors files with `clip_u8`, that a narrow precision is calibrated and judged on; generated clips
    /// unless given.
    #[arg(long, conflicts_with = "graph", value_name = "FILE", num_args = 1..)]
    calibration: Vec<PathBuf>,
    /// Share of calibration clips whose most probable class must stay (for a model without classes: cosine); below it,
    /// the model is removed.
    #[arg(long, conflicts_with = "graph", default_value_t = 0.99, value_name = "SHARE")]
    min_agreement: f64,
}

/// Targets of exported models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportTarget {
    /// Standard operators: ONNX Runtime, tract, and others.
    Portable,
    /// ONNX Runtime on a CPU, with its own attention.
    OrtCpu,
    /// tract.
    Tract,
    /// TensorRT: strongly typed, normalisations and softmax in f32.
    Tensorrt,
}

/// Precisions of exported models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportPrecision {
    /// 32-bit floats.
    F32,
    /// IEEE half, norms and softmax in f32.
    F16,
    /// bfloat16, norms and softmax in f32.
    Bf16,
    /// 32-bit arithmetic, weights stored as IEEE half.
    F16Weights,
    /// 8-bit products, activations scaled at each run.
    Int8,
    /// 8-bit products, activations scaled by calibrated ranges.
    Int8Static,
}

/// Ranges of the weights of 8-bit products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Int8Range {
    /// -64 to 64: the same sums on every processor.
    Reduced,
    /// -127 to 127, a little more accurate: for VNNI, Arm, GPUs and tract. On x86 without VNNI, ONNX Runtime's sums of them
    /// saturate.
    Full,
}

/// Heads of exported models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportHead {
    /// The probe's classes.
    Probe,
    /// The mean token.
    Features,
    /// The token an attentive probe pools.
    Pooled,
    /// All tokens.
    Tokens,
}

impl FormArgs {
    /// Whether the precision is the default of a target that has another one than f32.
    pub fn assumes_precision(&self, form: &Form) -> bool {
        self.precision.is_none() && form.precision != Precision::F32
    }

    /// The form, of a TensorRT engine's model where one is built; what contradicts itself is an error.
    pub fn form(&self, engine: bool) -> Result<Form, CliError> {
        let target = match self.target {
            // An engine has no other target; another one that was asked for is refused later.
            ExportTarget::Portable if engine => Target::TensorRt,
            ExportTarget::Portable => Target::Portable,
            ExportTarget::OrtCpu => Target::OrtCpu,
            ExportTarget::Tract => Target::Tract,
            ExportTarget::Tensorrt => Target::TensorRt,
        };
        let precision = match self.precision {
            None if target == Target::TensorRt => Precision::F16,
            None | Some(ExportPrecision::F32) => Precision::F32,
            Some(ExportPrecision::F16) => Precision::F16,
            Some(ExportPrecision::Bf16) => Precision::Bf16,
            Some(ExportPrecision::F16Weights) => Precision::F16Weights,
            Some(ExportPrecision::Int8) => Precision::Int8Dynamic,
            Some(ExportPrecision::Int8Static) => Precision::Int8Static,
        };
        let int8_range = self.int8_range.map(|range| match range {
            Int8Range::Reduced => WeightRange::Reduced,
            Int8Range::Full => WeightRange::Full,
        });
        if int8_range.is_some() && !matches!(precision, Precision::Int8Dynamic | Precision::Int8Static) {
            return Err(format!("--int8-range is for --precision int8 and int8-static, not {precision}").into());
        }
        let batch = match self.batch.as_str() {
            "dynamic" => None,
            number => Some(
                number
                    .parse()
                    .ok()
                    .filter(|batch: &usize| (1..=1 << 20).contains(batch))
                    .ok_or_else(|| format!("--batch {number}: give a number of clips from 1, or `dynamic`"))?,
            ),
        };
        if !(0.0..=1.0).contains(&self.min_agreement) {
            return Err(format!("--min-agreement {}: give a share from 0 to 1", self.min_agreement).into());
        }
        if precision == Precision::F32 && !self.calibration.is_empty() {
            return Err("--calibration is for narrow precisions; f32 is compared with the plan on noise".into());
        }
        let head = self.head.map(|head| match head {
            ExportHead::Probe => Head::Probe,
            ExportHead::Features => Head::Features,
            ExportHead::Pooled => Head::Pooled,
            ExportHead::Tokens => Head::Tokens,
        });
        Ok(Form {
            target,
            precision,
            int8_range,
            opset: self.opset,
            batch,
            head,
            clip_views: ClipViews { clips: self.clips.into(), views: self.views.into() },
            frames: self.frames,
            resolution: self.resolution,
            out_layers: self.out_layers.clone(),
            external: if self.external_data { ExternalData::Always } else { ExternalData::Auto },
            calibration: self.calibration.clone(),
            min_agreement: self.min_agreement,
        })
    }
}
