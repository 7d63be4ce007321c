//! `vjepa verify golden`: compares this program with data recorded from the official code.
//!
//! [`run`] takes a folder of the golden data, or a folder of such folders, recognises what each holds by its files, and
//! hands every comparison to the caller as it is made. Models run as compiled graphs, as they do in training; sizes come from the folder.

pub mod check;
mod checkpoint;
mod clip;
pub mod data;
mod evaluation;
mod extra;
mod forward;
pub mod masks;
mod probe;
mod probe_train;
mod rotary;
mod run;
mod sampled;
pub mod schedules;
mod step;
mod training;

use std::path::{Path, PathBuf};

use check::{Check, GoldenError, read_json};
pub use evaluation::EvaluationFolder;
pub use run::Execution;
pub use sampled::Compare;

/// The kind of golden data in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model with its first batch and a recorded training run (`tiny/`, `rect/`).
    Training,
    /// A model with rotary positions (`vjepa2_tiny/`).
    Rope,
    /// V-JEPA 2's pre-training and cool-down (`vjepa2_train/`).
    SecondTraining,
    /// V-JEPA 2.1: levels, images, the dense loss (`vjepa21_tiny/`).
    Dense,
    /// V-JEPA 2's probes (`vjepa2_probe/`).
    DeepProbe,
    /// Released files of V-JEPA 2 and 2.1 (`vjepa2_hub/`).
    Hub,
    /// Folders in Hugging Face's format (`vjepa2_hf/`).
    HuggingFace,
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
    /// What evaluations compute (`eval_*/`).
    Evaluation(EvaluationFolder),
    /// Golden data that this version does not compare with: other models, other evaluations.
    Other,
}

/// Recognises a folder by its files, and by the keys that its JSON files must have for the comparison.
pub fn recognise(dir: &Path) -> Option<Kind> {
    let has = |name: &str| dir.join(name).is_file();
    let json = |name: &str| -> Option<serde_json::Value> { read_json(&dir.join(name)).ok() };
    let keys = |name: &str, wanted: &[&str]| {
        json(name).is_some_and(|json| wanted.iter().all(|key| json.pointer(key).is_some()))
    };
    if has("config.json") {
        if has("vjepa2_tiny.pt") && has("expected.safetensors") {
            return Some(Kind::Hub);
        }
        if has("model/config.json") && has("expected.safetensors") {
            return Some(Kind::HuggingFace);
        }
        // The rotary model's config lists how the head is split; training configurations nest theirs.
        if keys("config.json", &["/d_dim"]) && !keys("config.json", &["/config"]) {
            return Some(Kind::Rope);
        }
        for (key, kind) in [
            ("/config/use_rope", Kind::SecondTraining),
            ("/config/hierarchical_layers", Kind::Dense),
            ("/config/num_probe_blocks", Kind::DeepProbe),
        ] {
            if keys("config.json", &[key]) {
                return Some(kind);
            }
        }
        // A file that cannot be read is that of a training run, whose comparison says what is wrong with it.
        let of_v1 = keys("config.json", &["/config/uniform_power"]) || json("config.json").is_none();
        return Some(if of_v1 { Kind::Training } else { Kind::Other });
    }
    if let Some(kind) = EvaluationFolder::recognise(dir, |key| keys("info.json", &[key])) {
        return Some(Kind::Evaluation(kind));
    }
    let first = [
        ("expected.json", Kind::Checkpoint, &["/encoder_keys"][..]),
        ("masks.json", Kind::Masks, &[]),
        ("schedules.json", Kind::Schedules, &[]),
        ("clip_sampling.json", Kind::Data, &[]),
    ];
    // Nor is a file without the keys of its kind to be taken for one that is merely damaged.
    let fits = |file: &str, wanted: &[&str]| keys(file, wanted) || json(file).is_none();
    let known = |(file, kind, wanted): &(&str, Kind, &[&str])| (has(file) && fits(file, wanted)).then_some(*kind);
    if let Some(kind) = first.iter().find_map(known) {
        return Some(kind);
    }
    match (has("io.safetensors") && has("weights.safetensors"), has("extra.safetensors")) {
        (true, _) => Some(Kind::Probe),
        (false, true) => Some(Kind::Extra),
        // Every folder of the golden data says in its own file what it is.
        (false, false) => (has("info.json") || has("expected.json")).then_some(Kind::Other),
    }
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

/// Compares with one folder, models run by `execution`; `report` gets each part's checks when the part is done.
///
/// # Errors
/// [`GoldenError`] for data that cannot be read or run; what was compared before has been reported.
pub fn run(execution: Execution, dir: &Path, kind: Kind, report: &mut dyn FnMut(Check)) -> Result<(), GoldenError> {
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
            let training = training::Training::read(execution, dir)?;
            add(forward::check(&training)?);
            add(step::check_first_batch(&training)?);
            if masks {
                add(step::check_run(&training)?);
            }
        }
        Kind::Other => {
            let why = "this version does not compare with golden data of this kind";
            add(vec![Check::unsupported("all", why)]);
        }
        Kind::Rope => add(rotary::tiny::check(execution, dir)?),
        Kind::SecondTraining => {
            add(schedules::check(dir)?);
            add(masks::check(dir)?);
            let training = training::Training::read(execution, dir)?;
            add(forward::check(&training)?);
            rotary::train::check(&training, &mut add)?;
        }
        Kind::Dense => rotary::dense::check(execution, dir, &mut add)?,
        Kind::DeepProbe => rotary::probe::check(execution, dir, &mut add)?,
        Kind::Evaluation(kind) => add(kind.check(execution, dir)?),
        Kind::Hub => add(rotary::released::hub(execution, dir)?),
        Kind::HuggingFace => add(rotary::released::hugging_face(execution, dir)?),
        Kind::Checkpoint => add(checkpoint::check(execution, dir)?),
        Kind::Probe => add(probe::check(execution, dir)?),
        Kind::Extra => {
            add(extra::check(execution, dir)?);
            add(masks::check_extra(dir)?);
        }
        Kind::Masks => add(masks::check(dir)?),
        Kind::Schedules => add(schedules::check(dir)?),
        Kind::Data => add(data::check(dir)?),
    }
    Ok(())
}
