//! What to write.

use crate::ExportError;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

/// Versions of the standard operators that can be written. Older ones keep the axes of `ReduceMean` in an attribute; newer
/// ones are not known here.
pub const OPSETS: RangeInclusive<i64> = 18..=25;

/// What the model is meant to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// Standard operators only, opset 20 unless told otherwise: ONNX Runtime, tract and everything else.
    #[default]
    Portable,
    /// ONNX Runtime on a CPU: its own `MultiHeadAttention`, which never holds a matrix of scores.
    OrtCpu,
    /// tract: 32-bit floats.
    Tract,
    /// TensorRT: standard operators, every tensor typed, normalisations and softmax in 32 bits.
    TensorRt,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 4] = [Self::Portable, Self::OrtCpu, Self::Tract, Self::TensorRt];

    /// Its name in flags and in a model's metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::OrtCpu => "ort-cpu",
            Self::Tract => "tract",
            Self::TensorRt => "tensorrt",
        }
    }

    /// One line about it, for people who choose.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Portable => "Standard operators: ONNX Runtime, tract and others",
            Self::OrtCpu => "ONNX Runtime on a CPU, with its own attention operator",
            Self::Tract => "tract",
            Self::TensorRt => "TensorRT: strongly typed, normalisation and softmax in f32",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Arithmetic and storage of the model. Inputs and outputs are 32-bit floats whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Products in IEEE half, normalisations, softmax and the residual stream in 32 bits; every tensor typed.
    F16,
    /// The same in bfloat16.
    Bf16,
    /// Arithmetic in 32 bits, large weights kept as IEEE half and widened when the model is loaded.
    F16Weights,
    /// 8-bit products of token streams, weights by output channel, activations by their range at each run.
    Int8Dynamic,
    /// 8-bit products, activations by ranges known beforehand ([`Int8::ranges`]), as `QuantizeLinear` and
    /// `DequantizeLinear` pairs.
    Int8Static,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 6] =
        [Self::F32, Self::F16, Self::Bf16, Self::F16Weights, Self::Int8Dynamic, Self::Int8Static];

    /// Its name in flags and in a model's metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F16Weights => "f16-weights",
            Self::Int8Dynamic => "int8",
            Self::Int8Static => "int8-static",
        }
    }

    /// One line about it, for people who choose.
    pub const fn about(self) -> &'static str {
        match self {
            Self::F32 => "32-bit floats",
            Self::F16 => "IEEE half precision; normalisation and softmax in f32",
            Self::Bf16 => "bfloat16; normalisation and softmax in f32",
            Self::F16Weights => "f32 arithmetic, weights stored as IEEE half",
            Self::Int8Dynamic => "8-bit matrix products, activations scaled at run time",
            Self::Int8Static => "8-bit matrix products, activations scaled by calibrated ranges",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much of the range of 8 bits the weights of 8-bit products take.
///
/// On x86 processors without VNNI, ONNX Runtime multiplies unsigned activations with signed weights by `vpmaddubsw`, which
/// adds two neighbouring products in 16 bits and saturates: 255 · 127 · 2 does not fit, 255 · 64 · 2 does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightRange {
    /// -64 to 64, about 7 bits: sums are exact on every processor.
    #[default]
    Reduced,
    /// -127 to 127: sums are exact with VNNI, on GPUs, on Arm and on tract.
    Full,
}

impl WeightRange {
    /// Both ranges.
    pub const ALL: [Self; 2] = [Self::Reduced, Self::Full];

    /// Its name in flags and in a model's metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reduced => "reduced",
            Self::Full => "full",
        }
    }

    /// One line about it, for people who choose.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Reduced => "-64 to 64: the same sums on every processor",
            Self::Full => {
                "-127 to 127, slightly more accurate: for VNNI, Arm, GPUs and tract; on x86 without VNNI, sums saturate in \
                 ONNX Runtime"
            }
        }
    }

    /// Largest magnitude of a weight.
    pub const fn limit(self) -> i8 {
        match self {
            WeightRange::Reduced => 64,
            WeightRange::Full => i8::MAX,
        }
    }
}

impl fmt::Display for WeightRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is to be known for 8-bit products; keys are the weights' parameter names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Int8 {
    /// Range of the weights.
    pub range: WeightRange,
    /// Layers that stay in 32 bits.
    pub keep: BTreeSet<String>,
    /// Smallest and largest value of each layer's input, for [`Precision::Int8Static`].
    pub ranges: BTreeMap<String, [f32; 2]>,
    /// Mean of each channel of each layer's input. Rounded weights shift a layer's results by the same amount for all
    /// tokens; where the means are known, the bias takes that back.
    pub means: BTreeMap<String, Vec<f32>>,
}

/// How the patch embedding is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatchEmbedForm {
    /// One three-dimensional `Conv`.
    #[default]
    Conv,
    /// The same sums as a `Gemm` over rearranged tubelets.
    Gemm,
}

/// Where weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalData {
    /// In the model while it fits into 2 GB, else beside it.
    #[default]
    Auto,
    /// In the model; an error when it does not fit.
    Never,
    /// In a file beside the model, `<model file>.data`.
    Always,
}

/// Options of [`to_onnx`](crate::to_onnx).
#[derive(Clone, Debug)]
pub struct OnnxOptions {
    /// What the model is meant to run on.
    pub target: Target,
    /// Arithmetic and storage.
    pub precision: Precision,
    /// What 8-bit products need to know.
    pub int8: Int8,
    /// Version of the standard operators, within [`OPSETS`].
    pub opset: i64,
    /// Clips of a run; any number when not given.
    pub batch: Option<usize>,
    /// How the patch embedding is written.
    pub patch_embed: PatchEmbedForm,
    /// Whether a probe's one query is folded through its key projection, so that no key or value is ever projected.
    pub fold_query: bool,
    /// Whether weight and bias of a layer norm go into the linear layers behind it; not for int8-static, whose ranges are
    /// of what is not folded.
    pub fold_norms: bool,
    /// Scores of a clip's attention that are held at once, in bytes; more are worked through in blocks of queries, or of
    /// heads for tract. None holds all of them.
    pub largest_scores: Option<usize>,
    /// Where weights are kept.
    pub external_data: ExternalData,
    /// `metadata_props` of the model, written in the map's order (`vjepa.preprocessing`, `vjepa.arch`, ...).
    pub metadata: BTreeMap<String, String>,
    /// First part of parameter names that node names leave out: `encoder.blocks.0.attn.proj.weight` gives the node
    /// `blocks.0/attn/proj`.
    pub scope_root: Option<String>,
}

/// What ONNX Runtime and tract work through fastest (docs/onnx-forms.md).
const LARGEST_SCORES: usize = 32 << 20;

impl Default for OnnxOptions {
    fn default() -> Self {
        Self::new(Target::Portable, Precision::F32)
    }
}

impl OnnxOptions {
    /// The forms that were measured to be best for a target and a precision (`docs/onnx-forms.md`).
    pub fn new(target: Target, precision: Precision) -> Self {
        // Conv has no bfloat16 before opset 22.
        let patch_embed = if precision == Precision::Bf16 { PatchEmbedForm::Gemm } else { PatchEmbedForm::Conv };
        Self {
            target,
            precision,
            // No GPU saturates, and a TensorRT engine has its products there.
            int8: Int8 {
                range: if target == Target::TensorRt { WeightRange::Full } else { WeightRange::Reduced },
                ..Int8::default()
            },
            opset: 20,
            batch: None,
            patch_embed,
            fold_query: true,
            // TensorRT finds attention by its three nodes.
            largest_scores: (matches!(target, Target::Portable | Target::Tract)
                && !matches!(precision, Precision::F16 | Precision::Bf16))
            .then_some(LARGEST_SCORES),
            // Measured: no runtime is faster for it.
            fold_norms: false,
            external_data: ExternalData::default(),
            metadata: BTreeMap::new(),
            scope_root: Some("encoder".to_owned()),
        }
    }

    /// Fails when the target cannot run what is asked for.
    ///
    /// # Errors
    /// [`ExportError::Option`] says what, where and what to use instead.
    pub fn check(&self) -> Result<(), ExportError> {
        let refuse = |what: String, instead: &str| {
            Err(ExportError::Option { what, target: self.target, instead: instead.to_owned() })
        };
        if !OPSETS.contains(&self.opset) {
            let range = format!("{} to {}", OPSETS.start(), OPSETS.end());
            return refuse(format!("opset {}", self.opset), &format!("one from {range}"));
        }
        if self.batch == Some(0) {
            return refuse("a batch of 0 clips".to_owned(), "at least 1, or `dynamic`");
        }
        let precision = format!("the precision `{}`", self.precision);
        match (self.target, self.precision) {
            (Target::Tract, Precision::F16 | Precision::Bf16) => {
                refuse(precision, "f32, or f16-weights for a smaller file (tract computes in 32 bits)")
            }
            (Target::OrtCpu, Precision::Bf16) => {
                refuse(precision, "f32 or int8 (its CPU kernels have no bfloat16 products), or the target `tensorrt`")
            }
            (Target::TensorRt, Precision::Int8Dynamic) => {
                refuse(precision, "int8-static (TensorRT takes calibrated ranges only)")
            }
            _ => Ok(()),
        }
    }

    /// Version of the file format: the oldest that goes with the opset, so that older runtimes open it.
    pub(crate) fn ir_version(&self) -> i64 {
        match self.opset {
            ..=18 => 8,
            19..=20 => 9,
            21..=22 => 10,
            _ => 11,
        }
    }

    /// True when large products are 8-bit ones.
    pub(crate) fn is_int8(&self) -> bool {
        matches!(self.precision, Precision::Int8Dynamic | Precision::Int8Static)
    }
}
