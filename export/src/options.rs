//! What to write.

use std::collections::BTreeMap;
use std::fmt;

/// What the model is meant to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// Standard operators only, opset 20: ONNX Runtime, tract and everything else.
    #[default]
    Portable,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Portable => f.write_str("portable"),
        }
    }
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
    /// How the patch embedding is written.
    pub patch_embed: PatchEmbedForm,
    /// Where weights are kept.
    pub external_data: ExternalData,
    /// `metadata_props` of the model, written in the map's order (`vjepa.preprocessing`, `vjepa.arch`, ...).
    pub metadata: BTreeMap<String, String>,
    /// First part of parameter names that node names leave out: `encoder.blocks.0.attn.proj.weight` gives the node
    /// `blocks.0/attn/proj`.
    pub scope_root: Option<String>,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            target: Target::default(),
            patch_embed: PatchEmbedForm::default(),
            external_data: ExternalData::default(),
            metadata: BTreeMap::new(),
            scope_root: Some("encoder".to_owned()),
        }
    }
}
