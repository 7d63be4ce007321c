//! The flags of models on a runtime.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::CliError;
use clap::builder::PossibleValuesParser;
use vjepa_runtime::{Batches, OnNotice, Options, Runtime, Session};

/// Reads the name of a runtime.
pub(super) fn words() -> PossibleValuesParser {
    PossibleValuesParser::new(Runtime::WORDS.map(|(word, _)| word))
}

/// Warns on standard error about a model that this processor does not run exactly.
pub(super) fn caution(model: &Path, session: &Session) {
    if let Some(caution) = session.caution() {
        eprintln!("warning: {}: {caution}", model.display());
    }
}

/// The heading in `--help`. Set for each flag: a heading of the whole struct would take in the flags after it.
const HEADING: &str = "ONNX Runtime and TensorRT";

/// Flags of a session, whichever its runtime: where ONNX Runtime is, and which GPU and engine `--runtime cuda` and
/// `--runtime tensorrt` take.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RuntimeArgs {
    /// ONNX Runtime's shared library [default: searched for, see `vjepa doctor`]
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    pub ort_lib: Option<PathBuf>,
    /// GPU to use, counted from 0
    #[arg(help_heading = HEADING, long, default_value_t = 0, value_name = "N")]
    gpu: usize,
    /// Batch sizes TensorRT builds its engine for [default: single clips]
    #[arg(help_heading = HEADING, long, value_name = "MIN:OPT:MAX", value_parser = batches)]
    batches: Option<Batches>,
    /// Folder to cache TensorRT engines in [default: the user's cache folder]
    #[arg(help_heading = HEADING, long, value_name = "DIR")]
    engine_cache: Option<PathBuf>,
}

impl RuntimeArgs {
    /// The flag that was given of those for TensorRT's engines alone, if any.
    pub fn of_engines(&self) -> Option<&'static str> {
        let given = [("--batches", self.batches.is_some()), ("--engine-cache", self.engine_cache.is_some())];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }

    /// Options of a session with these flags; slow operations are reported on stderr.
    pub fn options(&self) -> Options {
        Options {
            ort_lib: self.ort_lib.clone(),
            gpu: self.gpu,
            batches: self.batches,
            engine_cache: self.engine_cache.clone(),
            on_notice: Some(OnNotice(Arc::new(|text| eprintln!("{text}")))),
            ..Options::default()
        }
    }

    /// Passes the flags on to another process of this program.
    pub fn pass_on(&self, command: &mut Command) {
        if let Some(library) = &self.ort_lib {
            command.arg("--ort-lib").arg(library);
        }
        command.args(["--gpu", &self.gpu.to_string()]);
        if let Some(Batches { min, opt, max }) = self.batches {
            command.args(["--batches", &format!("{min}:{opt}:{max}")]);
        }
        if let Some(folder) = &self.engine_cache {
            command.arg("--engine-cache").arg(folder);
        }
    }
}

fn batches(text: &str) -> Result<Batches, CliError> {
    let wrong = || format!("expected MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX, got `{text}`");
    let sizes: Vec<usize> = text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
    match sizes.as_slice() {
        &[min, opt, max] if 1 <= min && min <= opt && opt <= max => Ok(Batches { min, opt, max }),
        _ => Err(wrong().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_three_growing_numbers() {
        assert_eq!(batches("1:4:8").unwrap(), Batches { min: 1, opt: 4, max: 8 });
        for wrong in ["", "4", "1:8:4", "0:1:1", "1:2:3:4", "a:b:c"] {
            assert!(batches(wrong).unwrap_err().to_string().contains("MIN:OPT:MAX"), "{wrong}");
        }
    }
}
