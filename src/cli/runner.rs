//! What `vjepa run` runs: an exported model on a runtime, or a checkpoint's compiled plan.

use std::path::Path;

use vjepa_runtime::{ClipBatch, NamedOutput, Options, Preprocessing, Session};

use super::CliError;
use crate::clips;
use crate::config::Config;
use crate::deploy::bundle;
use crate::frozen::Frozen;
use crate::weights;

/// A model that is fed one clip at a time.
pub(super) struct Runner {
    engine: Engine,
    /// How clips are made for it.
    pub(super) record: Preprocessing,
    /// Names of the classes; may be empty.
    pub(super) labels: Vec<String>,
}

enum Engine {
    Session(Box<Session>),
    Plan(Box<Frozen>),
}

impl Runner {
    /// An exported model or a bundle.
    pub(super) fn exported(path: &Path, options: &Options) -> Result<Self, CliError> {
        let session = Session::open(&bundle::model_of(path)?, options)?;
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let record = session.preprocessing().map_err(|error| at(&error))?;
        let labels = match session.metadata().get("vjepa.labels") {
            None => Vec::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| at(&format!("its `vjepa.labels` are no list of names ({error}); export it again")))?,
        };
        Ok(Self { engine: Engine::Session(Box::new(session)), record, labels })
    }

    /// A checkpoint, with a probe or without, as a compiled plan on the CPU.
    pub(super) fn plan(checkpoint: &Path, probe: Option<&Path>, config: Option<&Path>) -> Result<Self, CliError> {
        let weights = weights::load(checkpoint)
            .map_err(|error| format!("{error}; --runtime plan runs a checkpoint, not an exported model"))?;
        let config = config.map(|path| Config::from_file(path, &[])).transpose()?;
        let model = weights::describe(&weights, config.as_ref())?;
        let probe = probe.map(weights::load_probe).transpose()?;
        let mut tensors = weights.take(weights.encoder()?, "encoder", model.encoder.parameter_shapes())?;
        let (kind, labels) = match probe {
            Some(file) => {
                tensors.extend(file.tensors);
                (Some(file.probe), file.labels)
            }
            None => (None, Vec::new()),
        };
        let frozen = Frozen::new(&model.encoder, kind.as_ref(), &tensors)?;
        let record = clips::runtime_record(&model.preprocessing)?;
        Ok(Self { engine: Engine::Plan(Box::new(frozen)), record, labels })
    }

    /// What it runs on, for people.
    pub(super) fn about(&self) -> String {
        match &self.engine {
            Engine::Session(session) => session.runtime(),
            Engine::Plan(_) => format!("the compiled plan (vjepa {})", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Outputs for one clip, `[3, T, H, W]` as the record makes it.
    pub(super) fn run(&mut self, clip: &[f32]) -> Result<Vec<NamedOutput>, CliError> {
        let side = self.record.crop_size;
        match &mut self.engine {
            Engine::Session(session) => {
                Ok(session.run(&ClipBatch::new([1, 3, self.record.num_frames, side, side], clip)?)?)
            }
            Engine::Plan(frozen) => {
                let outputs = frozen.run(clip.to_vec())?;
                let named = |(name, tensor): (String, vjepa_runtime::plan::HostTensor)| {
                    let shape = tensor.shape().to_vec();
                    NamedOutput { name, shape, data: tensor.into_floats() }
                };
                Ok(outputs.into_iter().map(named).collect())
            }
        }
    }
}
