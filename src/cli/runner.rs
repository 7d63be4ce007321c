//! The model behind `vjepa run`: an exported one on a runtime, or a checkpoint's compiled plan.

use std::path::Path;

use vjepa_runtime::{ClipBatch, NamedOutput, Options, Preprocessing, Session};

use super::CliError;
use vjepa_data::clips;
use vjepa_deploy::{Export, Form, Origin, bundle, compiled};
use vjepa_recipe::config::Config;
use vjepa_runtime::ClipViews;

/// A model that is fed one clip at a time.
pub(super) struct Runner {
    pub(super) session: Session,
    /// Preprocessing of its clips.
    pub(super) record: Preprocessing,
    /// Clips and views per result.
    pub(super) clip_views: ClipViews,
}

impl Runner {
    /// An exported or compiled model, or a bundle.
    pub(super) fn exported(path: &Path, options: &Options) -> Result<Self, CliError> {
        let model = bundle::model_of(path)?;
        vjepa_weights::refuse_foreign(&model)?;
        Self::of(path, Session::open(&model, options)?)
    }

    /// A checkpoint, with or without the probe of this number of a file, compiled for the CPU.
    pub(super) fn plan(
        checkpoint: &Path,
        (probe, probe_number): (Option<&Path>, usize),
        config: Option<&Config>,
    ) -> Result<Self, CliError> {
        let request = Export {
            origin: Origin::Checkpoint(checkpoint),
            probe,
            config,
            out: checkpoint,
            shown_as: checkpoint,
            verify: false,
            ort_lib: None,
            form: Form { probe_number, ..Form::default() },
        };
        let session = compiled::in_memory(&request)
            .map_err(|error| format!("{error}; --runtime plan runs a checkpoint or a *.vjg, not an exported model"))?;
        Self::of(checkpoint, session)
    }

    fn of(path: &Path, session: Session) -> Result<Self, CliError> {
        let record = session.preprocessing().map_err(|error| format!("{}: {error}", path.display()))?;
        let clip_views = clips::clip_views(&session).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { session, record, clip_views })
    }

    /// Outputs for the clips of one result, `[clips, 3, T, H, W]` as the record makes them.
    pub(super) fn run(&self, clip: &[f32]) -> Result<Vec<NamedOutput>, CliError> {
        let [channels, frames, height, width] = self.record.clip_shape();
        Ok(self.session.run(&ClipBatch::new([self.clip_views.count(), channels, frames, height, width], clip)?)?)
    }
}
