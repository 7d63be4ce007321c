//! Why a run cannot start or continue.

use super::diverged::Culprit;
use std::path::PathBuf;

/// Training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] vjepa_recipe::config::ConfigError),
    /// No folder for checkpoints.
    #[error("`logging.folder` is not set: give the run a folder, e.g. --set logging.folder=runs/first")]
    NoFolder,
    /// The data, or too much of it, cannot be read.
    #[error(transparent)]
    Data(#[from] vjepa_data::DataError),
    /// Clips that cannot be augmented or mixed.
    #[error(transparent)]
    Augment(#[from] vjepa_data::augment::AugmentError),
    /// Masks that cannot be drawn.
    #[error(transparent)]
    Mask(#[from] vjepa_recipe::masks::MaskError),
    /// The step cannot be compiled.
    #[error(transparent)]
    Compile(#[from] vjepa_programs::CompileError),
    /// The step compiled ahead of time cannot be used.
    #[error(transparent)]
    Artifact(#[from] vjepa_programs::ArtifactError),
    /// Ranks that cannot start or go on together.
    #[error(transparent)]
    Collective(#[from] vjepa_collective::CollectiveError),
    /// The compiled step cannot be run.
    #[error(transparent)]
    Run(#[from] vjepa_runtime::plan::RunError),
    /// Weights cannot be read or do not fit.
    #[error(transparent)]
    Weights(#[from] vjepa_weights::WeightsError),
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The run's folder cannot be made or written to.
    #[error(
        "{}: cannot be written to ({source}): make it a folder that this user may write to, or choose another `logging.folder`",
        path.display()
    )]
    Folder {
        /// The folder, or the first file in it.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A loss or gradient that is NaN or infinite.
    #[error(
        "{} at step {step}: the run stops; {}{}. Lower `optimization.lr` (here {lr:.1e}), lengthen the warm-up \
         (`optimization.warmup_steps`), or clip gradients (`optimization.clip_grad`, `optimization.clip_from_step`)",
        diverged(*loss, grad_norms),
        kept(saved.as_ref()),
        culprit.in_words()
    )]
    Diverged {
        /// The step, from 0.
        step: u64,
        /// The loss.
        loss: f64,
        /// Gradient norms by parameter set.
        grad_norms: Vec<(&'static str, f64)>,
        /// The learning rate of the step.
        lr: f64,
        /// The latest checkpoint and its step, if there is one.
        saved: Option<(PathBuf, u64)>,
        /// What went first.
        culprit: Box<Culprit>,
    },
    /// Another run has the folder.
    #[error(
        "{}: {owner} trains in this folder; wait for it or end it, or choose another `logging.folder` (or `logging.write_tag`)",
        path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
        /// Who has it.
        owner: String,
    },
    /// `--resume` where nothing was saved.
    #[error("nothing to resume in {}; leave out --resume to start", folder.display())]
    NothingToResume {
        /// The run's folder.
        folder: PathBuf,
    },
    /// `--resume` with another configuration than the checkpoint's.
    #[error("{}: {why}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A setting this build does not support.
    #[error("{0}")]
    Unsupported(String),
    /// An observer's own work failed.
    #[error("{0}")]
    Observer(String),
}

/// Losses above this are far from anything that learns: targets have deviation 1, so a mean distance is about 1 at most.
const HUGE: f64 = 1e3;

/// What happened, as far as loss and gradients tell.
fn diverged(loss: f64, grad_norms: &[(&'static str, f64)]) -> String {
    let word = |value: f64| if value.is_nan() { "NaN" } else { "infinite" };
    if !loss.is_finite() {
        return format!("the loss is {}", word(loss));
    }
    let gradient = match grad_norms.iter().find(|(_, norm)| !norm.is_finite()) {
        Some((set, norm)) => format!("the {set}'s gradient is {}", word(*norm)),
        None => "its gradients are finite".to_owned(),
    };
    if loss > HUGE {
        format!("the run has diverged: the loss is {loss:.3e} and {gradient}")
    } else {
        format!("{gradient} (the loss is {loss:.4})")
    }
}

/// What is left of the run.
fn kept(saved: Option<&(PathBuf, u64)>) -> String {
    match saved {
        Some((path, step)) => {
            format!("{} stays as it was after {step} steps, and --resume goes on from there", path.display())
        }
        None => "nothing was saved".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_diverged_is_named() {
        let say = |loss, norms: [f64; 2], saved| {
            let grad_norms = ["encoder", "predictor"].into_iter().zip(norms).collect();
            let culprit = Box::default();
            TrainError::Diverged { step: 7, loss, grad_norms, lr: 0.05, saved, culprit }.to_string()
        };
        let nan = say(f64::NAN, [1.0, 1.0], None);
        assert!(nan.starts_with("the loss is NaN at step 7") && nan.contains("nothing was saved"), "{nan}");
        assert!(say(f64::INFINITY, [f64::NAN; 2], None).starts_with("the loss is infinite"));
        let huge = say(2_309_019_392.0, [1.0, f64::INFINITY], Some(("run/a.safetensors".into(), 3)));
        assert!(huge.starts_with("the run has diverged: the loss is 2.309e9 and the predictor's gradient is infinite"));
        assert!(huge.contains("run/a.safetensors stays as it was after 3 steps"), "{huge}");
        let sound = say(0.5, [f64::NAN, 1.0], None);
        assert!(sound.starts_with("the encoder's gradient is NaN (the loss is 0.5000) at step 7"), "{sound}");
    }

    #[test]
    fn the_first_bad_tensor_and_its_clips_are_named() {
        let clips = (0..6).map(|i| format!("{i}.mp4")).collect();
        let tensor = Some("the weight `encoder.norm.bias`".to_owned());
        let culprit = Box::new(Culprit { tensor, group: 1, clips, file: Some("run/jepa-diverged.json".into()) });
        let grad_norms = Vec::new();
        let error = TrainError::Diverged { step: 7, loss: f64::NAN, grad_norms, lr: 0.05, saved: None, culprit };
        let said = error.to_string();
        let words = "the first bad tensor is the weight `encoder.norm.bias`, of the batch 0.mp4, 1.mp4, 2.mp4, 3.mp4 and 2 more; \
                     all in run/jepa-diverged.json. Lower";
        assert!(said.contains(words), "{said}");
    }
}
