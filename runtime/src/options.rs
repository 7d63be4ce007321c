//! How a model is opened: which runtime, on how many threads, on which GPU.

use crate::error::SessionError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// The one that needs no installation: tract for ONNX files, the plan for `*.vjg`. A model that tract cannot load runs on
    /// ONNX Runtime where it is installed, which [`Options::on_notice`] is called with; so does every one where tract is not
    /// compiled in.
    #[default]
    Auto,
    /// tract: pure Rust, compiled in.
    Tract,
    /// ONNX Runtime on the CPU: faster, a shared library that must be installed.
    Ort,
    /// ONNX Runtime with its CUDA provider, for all of the model or not at all.
    Cuda,
    /// ONNX Runtime with its TensorRT provider, for all of the model or not at all.
    TensorRt,
    /// The compiled plan of a `*.vjg` file.
    Plan,
}

impl Runtime {
    /// Every runtime by the word people write for it.
    pub const WORDS: [(&str, Runtime); 6] = [
        ("auto", Runtime::Auto),
        ("tract", Runtime::Tract),
        ("ort", Runtime::Ort),
        ("cuda", Runtime::Cuda),
        ("tensorrt", Runtime::TensorRt),
        ("plan", Runtime::Plan),
    ];
}

impl std::str::FromStr for Runtime {
    type Err = SessionError;

    fn from_str(word: &str) -> Result<Self, SessionError> {
        let known = Self::WORDS.iter().find(|(known, _)| *known == word);
        known.map(|(_, runtime)| *runtime).ok_or_else(|| SessionError::UnknownRuntime(word.to_owned()))
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, runtime)| runtime == self);
        f.pad(word.map_or("", |(word, _)| *word))
    }
}

/// The batches a TensorRT engine is built for: a batch outside is an error, not a new build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Fewest clips of a run.
    pub min: usize,
    /// The number it is tuned for.
    pub opt: usize,
    /// Most clips of a run.
    pub max: usize,
}

impl Default for Batches {
    /// Single clips.
    fn default() -> Self {
        Self { min: 1, opt: 1, max: 1 }
    }
}

/// Called with a sentence when something takes long (an engine is built; then from another thread), or is not what was
/// to be expected (another runtime is used).
#[derive(Clone)]
pub struct OnNotice(pub Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for OnNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnNotice")
    }
}

/// How to open a model.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What runs it.
    pub runtime: Runtime,
    /// ONNX Runtime's shared library; searched for when not given (see `vjepa_runtime::library`).
    pub ort_lib: Option<PathBuf>,
    /// More folders to search for it.
    pub ort_dirs: Vec<PathBuf>,
    /// Threads; not given, tract uses one and the others one for each core that the process may use ([`cores`](crate::cores)).
    /// A process has one plan's threads.
    pub threads: Option<usize>,
    /// Which GPU, counted from 0.
    pub gpu: usize,
    /// TensorRT: batches of the engine; single clips when not given. Not for models of a fixed batch.
    pub batches: Option<Batches>,
    /// TensorRT: folder of the engines and timings kept; the user's cache folder when not given.
    pub engine_cache: Option<PathBuf>,
    /// Called for slow operations and for unexpected fallbacks.
    pub on_notice: Option<OnNotice>,
    /// Take a model of pictures, `f32[B, C, H, W]`, too, and feed it clips of one frame.
    pub pictures: bool,
    /// Take a model of any inputs that are `f32`, too, for [`Session::run_named`](crate::Session::run_named).
    pub any_inputs: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_written_alike() {
        for (word, runtime) in Runtime::WORDS {
            assert_eq!(word.parse::<Runtime>().unwrap(), runtime);
            assert_eq!(runtime.to_string(), word);
        }
        let error = "onnx".parse::<Runtime>().unwrap_err().to_string();
        assert_eq!(error, "there is no runtime `onnx`; use auto, tract, ort, cuda, tensorrt or plan");
    }
}
