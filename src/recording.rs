//! What the program records of a run beside checkpoints and metrics: `run.json`, TensorBoard's event file, pictures.

use std::path::Path;

use vjepa_eval::EvalError;
use vjepa_eval::features::Features;
use vjepa_recipe::config::{Config, Normalization};
use vjepa_recipe::records::DiagnosticsReport;
use vjepa_report::Recorder;
use vjepa_report::starts::{COMMIT, How, Machine, RunStart, now};
use vjepa_runtime::plan::{Device, InstructionSet};
use vjepa_runtime::resident_memory;
use vjepa_train::{HeldOut, StepReport, TrainError, TrainOutcome, TrainState, Watch};
use vjepa_view::pictures::{self, ShownClip, ShownFeatures, ShownMask};

/// Clips in the pictures of features.
const SHOWN: usize = 2;
/// Multiplications that the colours of a picture may take, in billions: a second or two.
const COLOURING: usize = 4;

/// The record of a run that is going on.
pub(crate) struct Recording {
    recorder: Recorder,
    tubelet: usize,
    patch: usize,
    normalization: Normalization,
    /// Steps done, and steps of the whole run.
    done: u64,
    of: u64,
}

impl Recording {
    /// Begins it, for a run that is about to do step `from` of `of`. `held_out` are clips to show masks on.
    pub(crate) fn begin(config: &Config, device: Device, from: u64, of: u64, held_out: Option<&HeldOut>) -> Self {
        let folder = Path::new(config.logging.folder.as_deref().unwrap_or_default());
        let name = |set: InstructionSet| set.name().to_owned();
        let machine = Machine {
            kernels: InstructionSet::chosen().map_or_else(|error| error.to_string(), name),
            products: name(InstructionSet::of_products()),
            device: device.to_string(),
            ..Machine::here()
        };
        let start = RunStart {
            at: now(),
            tag: config.logging.write_tag.clone(),
            from,
            steps: of,
            command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            vjepa: env!("CARGO_PKG_VERSION").to_owned(),
            commit: COMMIT.map(str::to_owned),
            machine,
            config: serde_json::to_value(config).unwrap_or_else(|error| error.to_string().into()),
            ended: None,
            verdicts: Vec::new(),
        };
        let text = config.to_yaml().unwrap_or_else(|error| error.to_string());
        let recorder = Recorder::begin(folder, start, &text, config.logging.metrics_every);
        let (tubelet, patch) = (config.data.tubelet_size, config.data.patch_size);
        let normalization = config.data.normalization;
        let mut recording = Self { recorder, tubelet, patch, normalization, done: from, of };
        if let Some(held_out) = held_out {
            recording.masks(config, from, held_out);
        }
        recording
    }

    /// A step is done.
    pub(crate) fn step(&mut self, report: &StepReport) {
        self.done = report.step + 1;
        let took = report.took.as_secs_f64();
        let mut values: Vec<(String, f64)> = vec![
            ("loss".into(), report.loss),
            ("rates/lr".into(), report.lr),
            ("rates/wd".into(), report.wd),
            ("rates/momentum".into(), report.momentum),
            ("time/step_ms".into(), 1e3 * took),
            ("time/data_ms".into(), 1e3 * report.waited.as_secs_f64()),
            ("progress/epoch".into(), report.epoch as f64),
            ("progress/clips".into(), report.clips as f64),
        ];
        values.extend(report.terms.iter().map(|(name, value)| (format!("terms/{name}"), *value)));
        values.extend(report.grad_norms.iter().map(|(set, norm)| (format!("grad_norm/{set}"), *norm)));
        values.extend(resident_memory().map(|bytes| ("memory/resident_mb".into(), bytes as f64 / 1e6)));
        self.recorder.step(report.step, values);
    }

    /// Measures a run, and shows the record, where there is one, the features that were measured.
    pub(crate) fn measure(
        recording: &mut Option<Self>,
        watch: &mut Watch,
        state: &mut TrainState,
    ) -> Result<DiagnosticsReport, EvalError> {
        let step = state.step();
        watch.measure_showing(state, &mut |clips: &HeldOut, features: &Features| {
            if let Some(recording) = recording.as_mut() {
                recording.features(step, clips, features);
            }
        })
    }

    /// The run was measured after `step` steps.
    pub(crate) fn measured(&mut self, step: u64, found: &DiagnosticsReport) {
        let mut values = vec![
            ("diagnostics/held_out_loss", found.loss),
            ("diagnostics/context_gap", found.context_gap),
            ("diagnostics/effective_rank", found.effective_rank),
            ("diagnostics/deviation_mean", found.deviation_mean),
            ("diagnostics/deviation_min", found.deviation_min),
        ];
        values.extend(found.knn.map(|share| ("diagnostics/knn", share)));
        self.recorder.scalars(step, &values);
    }

    /// A verdict was given after `step` steps.
    pub(crate) fn verdict(&mut self, step: u64, sentence: &str) {
        self.recorder.verdict(step, sentence);
    }

    /// Draws the features of held-out clips after `step` steps.
    pub(crate) fn features(&mut self, step: u64, held_out: &HeldOut, features: &Features) {
        // Principal components take (rows x width x width) multiplications: of large models, fewer clips have to do.
        let each = features.row().saturating_mul(features.dim).max(1);
        let used = (COLOURING * 1_000_000_000 / each).clamp(SHOWN, held_out.len().max(SHOWN));
        let tokens = features.values.get(..used * features.row()).unwrap_or(&features.values);
        let encoder = ShownFeatures { name: "features", tokens, dim: features.dim };
        let shown = shown(held_out, self.normalization, SHOWN);
        let picture = pictures::features(&shown, self.tubelet, self.patch, &[encoder]);
        self.recorder.picture(step, "features", &picture);
    }

    /// The run has ended, one way or another.
    pub(crate) fn end(&mut self, outcome: &Result<TrainOutcome, TrainError>, collapsed: Option<bool>) {
        let how = match outcome {
            Err(error) => How::Failed(error.to_string()),
            Ok(outcome) if outcome.interrupted || outcome.steps < self.of => How::Stopped,
            Ok(_) if collapsed == Some(true) => How::Collapsed,
            Ok(_) => How::Done,
        };
        let steps = outcome.as_ref().map_or(self.done, |outcome| outcome.steps);
        self.recorder.end(steps, how);
    }

    /// What could not be recorded, to be said once.
    pub(crate) fn trouble(&mut self) -> Option<String> {
        self.recorder.trouble().map(|what| format!("{what}; the run goes on without"))
    }

    /// Draws the masks of a step.
    fn masks(&mut self, config: &Config, step: u64, held_out: &HeldOut) {
        let pairs = config.masks().ok().and_then(|masks| masks.pairs(config.meta.seed, step, 0, 1).ok());
        let (Some(pairs), shown) = (pairs, shown(held_out, self.normalization, SHOWN)) else { return };
        if let Some(clip) = shown.first() {
            self.recorder.picture(
                step,
                "masks",
                &pictures::masks(*clip, self.tubelet, self.patch, &ShownMask::of(&pairs)),
            );
        }
    }
}

/// The first `most` clips, to be shown.
pub(crate) fn shown(held_out: &HeldOut, normalization: Normalization, most: usize) -> Vec<ShownClip<'_>> {
    let len = held_out.shape.iter().product::<usize>().max(1);
    let clips = held_out.clips.chunks_exact(len).take(most);
    clips.map(|values| ShownClip { values, shape: held_out.shape, normalization }).collect()
}
