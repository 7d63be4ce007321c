//! `vjepa verify golden`: compares this program with data recorded from the official code.
//!
//! [`run`] takes a folder of the golden data, or a folder of such folders, recognises what each holds by its files, and
//! hands every comparison to the caller as it is made. Models run as compiled graphs, as they do in training; sizes come from the folder.

pub mod check;
mod checkpoint;
mod clip;
pub mod data;
mod extra;
mod forward;
pub mod masks;
mod probe;
mod probe_train;
mod run;
mod sampled;
pub mod schedules;
mod step;
mod training;

use std::path::{Path, PathBuf};

use check::{Check, GoldenError, read_json};
pub use run::Engine;
pub use sampled::Compare;

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model with its first batch and a recorded training run (`tiny/`, `rect/`).
    Training,
    /// A model with rotary positions (`vjepa2_tiny/`).
    Rope,
    /// A checkpoint of the official code (`tiny_checkpoint/`).
    Checkpoint,
    /// Attentive probes and multi-view evaluation (`probe/`).
    Probe,
    /// Position tables, GELU, causal masks, first weights (`extra/`).
    Extra,
    /// The official mask collator (`masks/`).
    Masks,
    /// The official schedules (`schedules/`).
    Schedules,
    /// Clip sampling and transforms (`data/`).
    Data,
}

/// Recognises a folder by its files.
pub fn recognise(dir: &Path) -> Option<Kind> {
    let has = |name: &str| dir.join(name).is_file();
    if has("config.json") {
        let config: Option<serde_json::Value> = read_json(&dir.join("config.json")).ok();
        let key = |name: &str| config.as_ref().is_some_and(|config| config.get(name).is_some());
        // The rotary model's config lists how the head is split; training configurations nest theirs.
        return Some(if key("d_dim") && !key("config") { Kind::Rope } else { Kind::Training });
    }
    let first = [
        ("expected.json", Kind::Checkpoint),
        ("io.safetensors", Kind::Probe),
        ("extra.safetensors", Kind::Extra),
        ("masks.json", Kind::Masks),
        ("schedules.json", Kind::Schedules),
        ("clip_sampling.json", Kind::Data),
    ];
    first.into_iter().find(|(file, _)| has(file)).map(|(_, kind)| kind)
}

/// The golden folders that `dir` is or holds, with their kinds, in the order of their names.
///
/// # Errors
/// [`GoldenError::Read`] when `dir` cannot be listed, [`GoldenError::Nothing`] when nothing there is golden data.
pub fn folders(dir: &Path) -> Result<Vec<(PathBuf, Kind)>, GoldenError> {
    let read = |source| GoldenError::Read { path: dir.into(), source };
    let entries = std::fs::read_dir(dir).map_err(read)?;
    if let Some(kind) = recognise(dir) {
        return Ok(vec![(dir.into(), kind)]);
    }
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(read)?.path();
        if let Some(kind) = recognise(&path) {
            found.push((path, kind));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    if found.is_empty() { Err(GoldenError::Nothing(dir.into())) } else { Ok(found) }
}

/// Compares with one folder, models run by `engine`; `report` gets each part's checks when the part is done.
///
/// # Errors
/// [`GoldenError`] for data that cannot be read or run; what was compared before has been reported.
pub fn run(engine: Engine, dir: &Path, kind: Kind, report: &mut dyn FnMut(Check)) -> Result<(), GoldenError> {
    let mut add = |checks: Vec<Check>| checks.into_iter().for_each(&mut *report);
    match kind {
        Kind::Training => {
            add(schedules::check(dir)?);
            let masks = dir.join("masks_10steps.safetensors").exists();
            if masks {
                add(masks::check(dir)?);
            }
            if !dir.join("forward.safetensors").exists() || !dir.join("weights.safetensors").exists() {
                add(vec![Check::unsupported("model", "the folder lacks forward.safetensors or weights.safetensors")]);
                return Ok(());
            }
            let training = training::Training::read(engine, dir)?;
            add(forward::check(&training)?);
            add(step::check_first_batch(&training)?);
            if masks {
                add(step::check_run(&training)?);
            }
        }
        Kind::Rope => add(vec![Check::unsupported("model", "RoPE models are not supported yet")]),
        Kind::Checkpoint => add(checkpoint::check(engine, dir)?),
        Kind::Probe => add(probe::check(engine, dir)?),
        Kind::Extra => {
            add(extra::check(engine, dir)?);
            add(masks::check_extra(dir)?);
        }
        Kind::Masks => add(masks::check(dir)?),
        Kind::Schedules => add(schedules::check(dir)?),
        Kind::Data => add(data::check(dir)?),
    }
    Ok(())
}
