//! What fine-tuning and its test would cost.

use std::path::Path;

use vjepa_data::DataSets;
use vjepa_data::annotations::Share;
use vjepa_eval::protocols::finetuned::BATCH;
use vjepa_eval::videos::labelled_videos;
use vjepa_graphs::Probe;
use vjepa_graphs::objectives::Finetune;
use vjepa_programs::{Model, Passes, describe, encoder_config, frozen, optimised, tuning};
use vjepa_recipe::config::{Config, FinetuneConfig};
use vjepa_runtime::plan::Device;
use vjepa_train::finetuning;

use super::{Args, configured, named};
use crate::cli::CliError;
use crate::cli::cost::{Assumed, Bill, Count, Once, here};
use crate::cli::dry_run::Cost;
use crate::cli::given::{all_there, there};

impl Args {
    /// What all of it would cost: with the encoder of a run where one is given, else of the checkpoint if it is here, else of the
    /// configuration.
    pub(in crate::cli) fn bill(&self, run: Option<&Config>, assumed: Assumed) -> Result<Bill, CliError> {
        let model = match run {
            Some(run) => Some(of_run(run)?),
            None if self.checkpoint.exists() => describe(&vjepa_weights::load(&self.checkpoint)?, None).ok(),
            None => None,
        };
        let model = model.map(|model| tuning::settings_of(&model)).unwrap_or_default();
        let mut config = configured(self, &model)?;
        let sets = match config.data.datasets.iter().all(|list| here(Path::new(list))) {
            true => Some(finetuning::labelled_sets(&config)?),
            false => None,
        };
        let mut bill = Bill::default();
        match &sets {
            Some(sets) => named(self, &mut config, sets)?,
            None => assume_classes(&mut config, assumed, &mut bill),
        }
        config.check()?;
        let draws = self.videos(&config, sets.as_ref(), assumed)?;
        for videos in &draws {
            match videos.known() {
                Ok(known) => trained(&mut bill, &config, (videos, known))?,
                Err(why) => bill.leave(format!("training: {why}")),
            }
        }
        tested(&mut bill, &config, draws.len(), assumed)?;
        Ok(bill)
    }

    /// Refuses lists that are not there.
    pub(in crate::cli) fn ready(&self, run: &Config) -> Result<(), CliError> {
        let config = configured(self, &tuning::settings_of(&of_run(run)?))?;
        let lists = config.data.datasets.iter().map(|list| ("the videos to train on,", list));
        let val = config.finetune.as_ref().and_then(|finetune| finetune.val.as_ref());
        for (what, list) in lists.chain(val.map(|list| ("the videos to test on,", list))) {
            there(what, Path::new(list))?;
        }
        all_there(&[("--names", self.names.as_deref())])
    }

    /// Videos to train on, of each draw of a share.
    fn videos(&self, config: &Config, sets: Option<&DataSets>, assumed: Assumed) -> Result<Vec<Count>, CliError> {
        let all = |sets: &DataSets| Count::Listed(sets.lists().iter().map(|list| list.entries.len() as u64).sum());
        let share = config.finetune.as_ref().and_then(|finetune| finetune.subset).map(Share::new).transpose()?;
        let seeds = config.finetune.as_ref().map(FinetuneConfig::draws).unwrap_or_default();
        match (sets, share) {
            (Some(sets), None) => Ok(vec![all(sets)]),
            (Some(sets), Some(share)) => seeds.iter().map(|seed| Ok(all(&sets.subset(share, *seed)?.0))).collect(),
            (None, share) => {
                let absent = config.data.datasets.iter().find(|list| !here(Path::new(list)));
                let absent = Path::new(absent.map_or("the list", String::as_str));
                let given = assumed
                    .train
                    .map(|all| share.map_or(all, |share| (share.fraction() * all as f64).round().max(1.0) as u64));
                Ok(vec![Count::absent(absent, given, "train"); seeds.len().max(1)])
            }
        }
    }
}

/// The model of a run.
fn of_run(run: &Config) -> Result<Model, CliError> {
    let encoder = encoder_config(run)?;
    Ok(Model { encoder, preprocessing: run.preprocessing(), config: Some(run.clone()), source: "the table" })
}

/// As many classes as were given; without, two, as the classifier is next to nothing beside the encoder.
fn assume_classes(config: &mut Config, assumed: Assumed, bill: &mut Bill) {
    let Some(finetune) = config.finetune.as_mut().filter(|finetune| finetune.class_names.is_empty()) else { return };
    if assumed.classes.is_none() {
        bill.leave("more than two classes: their number is not known, and classes=N is not given (--assume)");
    }
    finetune.class_names = (0..assumed.classes.unwrap_or(2)).map(|class| class.to_string()).collect();
}

/// Adds the steps of one draw.
fn trained(bill: &mut Bill, config: &Config, (videos, known): (&Count, u64)) -> Result<(), CliError> {
    let cost = Cost::of(config, Some(known), &mut Passes::default(), Device::default())?;
    let (steps, groups, batch) = (cost.steps.unwrap_or_default(), config.optimization.groups(), config.data.batch_size);
    let repeats = config.finetune.as_ref().map_or(1, |finetune| finetune.num_sample);
    let what =
        format!("training: {steps} steps of {groups} x {batch} of {videos} videos, each augmented {repeats} times");
    bill.add(what, (steps * groups) as f64, cost.once());
    Ok(())
}

/// Adds the tests of all draws.
fn tested(bill: &mut Bill, config: &Config, draws: usize, assumed: Assumed) -> Result<(), CliError> {
    let Some(finetune) = &config.finetune else { return Ok(()) };
    let Some(list) = finetune.val.as_deref().map(Path::new) else { return Ok(()) };
    let videos = match here(list) {
        true => Count::Listed(labelled_videos(list)?.entries.len() as u64),
        false => Count::absent(list, assumed.val, "val"),
    };
    let (segments, crops) = (finetune.test_num_segment, finetune.test_num_crop);
    match videos.known() {
        Ok(count) => {
            let encoder = encoder_config(config)?;
            let head = Finetune::new(encoder.clone(), finetune, finetune.class_names.len()).head;
            let graph = optimised(&frozen(&encoder, Some(&Probe::Tuned(head)))?)?;
            let clips = count * (segments * crops * draws) as u64;
            let what = format!("test: {videos} videos x {segments} clips x {crops} crops, {draws} times");
            bill.add(what, clips as f64, Once::of(&graph, &[("B", BATCH)], BATCH)?);
        }
        Err(why) => bill.leave(format!("test: {why}")),
    }
    Ok(())
}
