//! `vjepa quickstart`: the whole job on this machine in minutes.
//!
//! Pretrain, evaluate against random weights, train a probe, export, run the exported model on video files: on drifting
//! textures ([`textures`](self)), or on a folder of videos, which have no labels, so that pictures replace accuracies.

mod error;
mod files;
mod screen;
mod show;
mod textures;
mod videos;

pub use error::QuickstartError;

use std::path::{Path, PathBuf};
use std::time::Instant;

use screen::Screen;
use vjepa_collective::Alone;
use vjepa_data::DataSets;
use vjepa_graphs::NamedTensors;
use vjepa_programs::{initial_weights, objective};
use vjepa_recipe::config::{Config, Generation};
use vjepa_report::starts::{RunStart, read_starts};
use vjepa_train::{Checkpoint, Interrupt, TrainOutcome, TrainRun, TrainState, train};

/// Options of a quickstart.
#[derive(Clone, Debug)]
pub struct Quickstart {
    /// Output folder.
    pub folder: PathBuf,
    /// Seed of weights, data and masks.
    pub seed: u64,
    /// Number of training steps; the recipe's if none.
    pub steps: Option<u64>,
    /// Folder of videos to train on instead of textures.
    pub videos: Option<PathBuf>,
    /// Generation of the model.
    pub generation: Generation,
    /// Print JSON instead of the table.
    pub json: bool,
}

/// Runs it and prints the summary.
///
/// # Errors
/// The first stage that fails, in one sentence.
pub fn run(options: &Quickstart) -> Result<(), QuickstartError> {
    match &options.videos {
        None => textures::run(options),
        Some(videos) => videos::run(options, videos),
    }
}

/// A pretraining run with everything the later stages need.
struct Pretrained {
    config: Config,
    sets: DataSets,
    outcome: TrainOutcome,
    checkpoint: PathBuf,
    /// Encoder weights before and after, names without prefix.
    random: NamedTensors,
    encoder: NamedTensors,
}

/// The recipe with the options applied, and a folder it may write to.
fn configure(recipe: &str, name: &str, options: &Quickstart, extra: &[String]) -> Result<Config, QuickstartError> {
    let mut sets = vec![format!("meta.seed={}", options.seed)];
    sets.push(format!("logging.folder={}", serde_json::to_string(&options.folder)?));
    match options.generation {
        Generation::V1 => {}
        generation => sets.push(format!("model.generation={}", generation.name())),
    }
    // Released encoders have more blocks; here each block is a level.
    if options.generation == Generation::V21 {
        sets.push("model.levels=[0, 1, 2, 3]".to_owned());
    }
    if let Some(steps) = options.steps {
        sets.push(format!("optimization.steps={steps}"));
        // A short run keeps the recipe's share of warm-up and its number of diagnostics.
        sets.push(format!("optimization.warmup_steps={}", (steps / 10).max(1)));
        sets.push(format!("logging.diagnostics_every={}", (steps / 6).max(1)));
    }
    sets.extend_from_slice(extra);
    let config = Config::from_yaml(recipe, name, &sets)?;
    if let Some(replaced) = check_folder(&config)? {
        eprintln!("note: {replaced}");
    }
    Ok(config)
}

/// Seconds per step on this machine, measured on a throw-away state.
fn seconds_per_step(config: &Config) -> Result<f64, QuickstartError> {
    let plan = config.optimization.plan(Some(1))?;
    let mut state = TrainState::new(config, plan, false)?;
    state.set_weights(initial_weights(&config.model, state.objective(), 0))?;
    let masks = config.masks()?;
    let data = &config.data;
    let shape = [data.batch_size, 3, data.num_frames, data.crop_size, data.crop_size];
    let clips: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i % 17) as f32 / 8.0 - 1.0).collect();
    let mut fastest = f64::INFINITY;
    for step in 0..3 {
        let pairs = masks.pairs(config.meta.seed, step, 0, data.batch_size)?;
        let began = Instant::now();
        state.train_step(clips.clone(), shape, &pairs)?;
        fastest = fastest.min(began.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

/// A run's checkpoints.
fn checkpoints(config: &Config) -> Checkpoint {
    let folder = config.logging.folder.as_deref().unwrap_or_default();
    Checkpoint::new(Path::new(folder), &config.logging.write_tag)
}

/// Refuses a folder with another run's checkpoint: only a quickstart's files are overwritten, which the sentence given back says.
fn check_folder(config: &Config) -> Result<Option<String>, QuickstartError> {
    let Some(old) = checkpoints(config).any() else { return Ok(None) };
    let folder = old.parent().unwrap_or(Path::new(""));
    let run = vjepa_weights::load(&old).ok().and_then(|weights| {
        let record = weights.record()?;
        Some((record.config.clone(), record.step?))
    });
    match run {
        Some((run, step)) if is_quickstart(&run)? && began_as_one(folder, &config.logging.write_tag) => {
            Ok(Some(format!(
                "{} holds an earlier quickstart ({step} steps); it is replaced. Keep it with --out OTHER",
                folder.display()
            )))
        }
        _ => Err(format!(
            "{} was not written by `vjepa quickstart` and would be overwritten: choose another --out",
            old.display()
        )
        .into()),
    }
}

/// Whether nothing but `vjepa quickstart` has trained in a folder, as far as it has a record: `vjepa train` takes the recipe,
/// too.
fn began_as_one(folder: &Path, tag: &str) -> bool {
    let is_one =
        |start: &RunStart| start.tag != tag || start.command.get(1).is_some_and(|command| command == "quickstart");
    read_starts(folder).is_ok_and(|starts| starts.iter().all(is_one))
}

/// Whether a run was a quickstart: one of the recipes, whatever [`configure`] set in it.
fn is_quickstart(run: &Config) -> Result<bool, QuickstartError> {
    for recipe in [textures::RECIPE, videos::RECIPE] {
        let mut recipe = Config::from_yaml(recipe, "the quickstart recipe", &[])?;
        recipe.meta.seed = run.meta.seed;
        recipe.unread.clone_from(&run.unread);
        recipe.model.generation = run.model.generation;
        recipe.model.levels.clone_from(&run.model.levels);
        recipe.data.datasets.clone_from(&run.data.datasets);
        recipe.logging.folder.clone_from(&run.logging.folder);
        recipe.logging.diagnostics_every = run.logging.diagnostics_every;
        recipe.optimization.steps = run.optimization.steps;
        recipe.optimization.warmup_steps = run.optimization.warmup_steps;
        if recipe == *run {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Trains afresh: an earlier quickstart's checkpoint in the folder is replaced.
fn pretrain(config: Config, sets: DataSets, screen: &mut Screen) -> Result<Pretrained, QuickstartError> {
    checkpoints(&config).remove_all()?;
    let random = initial_weights(&config.model, &objective(&config)?, config.meta.seed);
    let interrupt = Interrupt::on_signals()?;
    screen.config = Some(config.clone());
    let asked = TrainRun { data: Some(sets.clone()), ..TrainRun::default() };
    let outcome = train(&config, &asked, &Alone, &interrupt, screen);
    screen.record_end(&outcome);
    let outcome = outcome?;
    let Some(checkpoint) = outcome.checkpoint.clone() else {
        return Err("stopped before the first step; nothing was saved".into());
    };
    // A signal during the last step asks for the end too.
    if outcome.interrupted || interrupt.raised() {
        return Err(format!(
            "stopped after {} steps; the checkpoint is {}; quickstart cannot resume: running it again starts over",
            outcome.steps,
            checkpoint.display()
        )
        .into());
    }
    interrupt.release();
    let trained = vjepa_weights::load(&checkpoint)?.all()?;
    let encoder = stripped(trained, "target_encoder.");
    Ok(Pretrained { config, sets, outcome, checkpoint, random: stripped(random, "encoder."), encoder })
}

/// Tensors under a prefix, without it.
fn stripped(tensors: NamedTensors, prefix: &str) -> NamedTensors {
    tensors
        .into_iter()
        .filter_map(|(name, tensor)| name.strip_prefix(prefix).map(|rest| (rest.to_owned(), tensor)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_quickstart_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let options = |seed, steps| Quickstart {
            folder: folder.path().into(),
            seed,
            steps,
            videos: None,
            generation: Generation::V1,
            json: false,
        };
        let datasets = "data.datasets=[elsewhere]".to_owned();
        let mut earlier = configure(videos::RECIPE, "", &options(7, Some(20)), &[datasets]).unwrap();
        let files = Checkpoint::new(folder.path(), "jepa");
        let now = || check_folder(&configure(textures::RECIPE, "", &options(0, None), &[])?);
        assert_eq!(now().unwrap(), None);
        let done = vjepa_train::TrainProgress { step: 20, loss: Some(1.0), ..vjepa_train::TrainProgress::default() };
        files.save(&earlier, &done, &NamedTensors::new()).unwrap();
        assert!(now().unwrap().is_some_and(|said| said.contains("holds an earlier quickstart (20 steps)")));
        for (command, replaced) in [("quickstart", true), ("train", false)] {
            let start = serde_json::json!({
                "at": "", "tag": "jepa", "from": 0, "steps": 20, "command": ["vjepa", command], "vjepa": "", "config": null,
                "machine": {"host": "", "pid": 0, "system": "", "processor": "", "extensions": [], "kernels": "",
                    "products": "", "device": ""},
            });
            let record = serde_json::json!({"format": 1, "starts": [start]}).to_string();
            std::fs::write(folder.path().join("run.json"), record).unwrap();
            assert_eq!(now().is_ok(), replaced, "{command}");
        }
        std::fs::remove_file(folder.path().join("run.json")).unwrap();
        earlier.loss.loss_exp = 2.0;
        files.save(&earlier, &done, &NamedTensors::new()).unwrap();
        assert!(now().unwrap_err().to_string().contains("another --out"));
        std::fs::write(files.latest(), "no checkpoint").unwrap();
        assert!(now().is_err());
    }
}
