//! Fine-tuning as a run's task: labelled clips, augmented, mixed, with soft targets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::TrainError;
use super::task::{Group, Task, drops};
use vjepa_data::annotations::Share;
use vjepa_data::augment::{Keyed, Mixing};
use vjepa_data::{AugmentedVideos, ClipBatch, ClipSource, DataSets, VideoEntry};
use vjepa_eval::protocols::videos::{class_names, classes_of};
use vjepa_eval::videos::check_labelled;
use vjepa_graphs::{AnyObjective, NamedTensors};
use vjepa_programs::tuning;
use vjepa_recipe::config::{Config, ConfigError, FinetuneConfig};
use vjepa_weights::Weights;

/// The task of a configuration with a `finetune` section.
pub struct Finetuning<'a> {
    config: &'a Config,
    finetune: &'a FinetuneConfig,
    /// The file that a new run's weights come from.
    checkpoint: &'a Weights,
    source: Arc<AugmentedVideos>,
    /// The class of each label.
    classes: BTreeMap<i64, i64>,
    mixing: Mixing,
}

impl<'a> Finetuning<'a> {
    /// Takes the data sets of a configuration whose classes are named; a new run begins with the weights of `checkpoint`.
    ///
    /// # Errors
    /// [`TrainError::Config`] without a `finetune` section, [`TrainError::Data`], [`TrainError::Unsupported`] naming a label that is
    /// of no class.
    pub fn new(config: &'a Config, checkpoint: &'a Weights, sets: &DataSets) -> Result<Self, TrainError> {
        let missing = || ConfigError::missing("finetune", "a run that fine-tunes has this section");
        let finetune = config.finetune.as_ref().ok_or_else(missing)?;
        // Before anything is compiled.
        tuning::sizes(checkpoint, config)?;
        let source = AugmentedVideos::of(sets, &config.data, &config.data_aug, finetune.num_sample)?;
        let labels: Vec<i64> = source.entries().filter_map(|entry: &VideoEntry| entry.label).collect();
        let mixing = Mixing {
            mixup: finetune.mixup,
            cutmix: finetune.cutmix,
            probability: finetune.mixup_prob,
            switch: finetune.mixup_switch_prob,
            smoothing: finetune.smoothing,
        };
        mixing.check()?;
        let classes = classes_by_label(&labels, finetune)?;
        Ok(Self { config, finetune, checkpoint, source: Arc::new(source), classes, mixing })
    }
}

/// The class of every label that occurs.
fn classes_by_label(labels: &[i64], finetune: &FinetuneConfig) -> Result<BTreeMap<i64, i64>, TrainError> {
    let FinetuneConfig { class_names, labels_from, .. } = finetune;
    let mut distinct = labels.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let zero_based: Vec<i64> = distinct.iter().map(|label| label.saturating_sub(*labels_from)).collect();
    let classes = classes_of(&zero_based, class_names, class_names.len())
        .map_err(|error| TrainError::Unsupported(error.to_string()))?;
    Ok(distinct.into_iter().zip(classes.into_iter().map(|class| class as i64)).collect())
}

impl Task for Finetuning<'_> {
    fn source(&self) -> Result<Arc<dyn ClipSource>, TrainError> {
        Ok(Arc::clone(&self.source) as Arc<dyn ClipSource>)
    }

    fn parts(&self, _: usize, batch: ClipBatch) -> Result<Vec<Group>, TrainError> {
        let ClipBatch { step, group, clips, shape, infos } = batch;
        let mut clips = clips.into_floats(shape);
        let [count, _, _, height, width] = shape;
        let class = |label: Option<i64>| label.and_then(|label| self.classes.get(&label).copied());
        let labels: Option<Vec<i64>> = infos.iter().map(|info| class(info.label)).collect();
        let labels = labels.ok_or_else(|| TrainError::Unsupported("a clip has a label of no class".to_owned()))?;
        // The first clips of all samples come first, then the second ones.
        let labels = labels.repeat(count / infos.len().max(1));
        let seed = self.config.meta.seed;
        let number = step.wrapping_mul(self.config.optimization.groups()).wrapping_add(group);
        let mix = self.mixing.draw(height, width, &mut Keyed::of_batch(seed, number));
        if mix.lambda != 1.0 || mix.pasted.is_some() {
            mix.apply(&mut clips, count, (height, width))?;
        }
        let targets = self.mixing.targets(&labels, self.finetune.class_names.len(), mix)?;
        let drops = drops(seed, step, group);
        Ok(vec![Group { targets, drops, ..Group::masked(clips, shape, Vec::new()) }])
    }

    fn weights(&self, objective: &AnyObjective) -> Result<Option<NamedTensors>, TrainError> {
        Ok(Some(tuning::start(self.checkpoint, self.config, objective)?))
    }
}

/// The data sets of a configuration, each video of which has one label.
///
/// # Errors
/// [`TrainError::Data`] for videos that cannot be found; [`TrainError::Unsupported`] naming file and line of a video without a
/// label, with two, or with one below 0.
pub fn labelled_sets(config: &Config) -> Result<DataSets, TrainError> {
    let sets = DataSets::read(&config.data)?;
    for list in sets.lists() {
        check_labelled(list).map_err(|error| TrainError::Unsupported(error.to_string()))?;
    }
    Ok(sets)
}

/// The names of classes that have none: their labels in these data sets, in order.
pub fn called_by_label(sets: &DataSets) -> Vec<String> {
    let entries = sets.lists().iter().flat_map(|list| &list.entries);
    class_names(&entries.filter_map(|entry| entry.label).collect::<Vec<i64>>(), None)
}

/// What of its data sets a configuration trains on: all of it, or the share of each class that `finetune.subset` asks for; and
/// what to say of that. Of several draws it is the first: each is a run of its own, whose configuration names it.
///
/// # Errors
/// [`TrainError::Config`] for a share that is none; [`TrainError::Data`] where one is taken of videos without labels.
pub fn chosen(config: &Config, sets: DataSets) -> Result<(DataSets, Vec<String>), TrainError> {
    let asked = config
        .finetune
        .as_ref()
        .and_then(|finetune| Some((finetune.subset?, finetune.subset_split.unwrap_or_default())));
    let Some((share, split)) = asked else { return Ok((sets, Vec::new())) };
    let share = Share::new(share).map_err(|why| ConfigError::rule("finetune.subset", why))?;
    Ok(sets.subset(share, split)?)
}

/// The file of a checkpoint that a run fine-tunes, opened.
///
/// # Errors
/// [`TrainError::Weights`].
pub fn open_checkpoint(path: &Path) -> Result<Weights, TrainError> {
    Ok(vjepa_weights::load(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_classes_by_name_or_by_number() {
        let named = FinetuneConfig {
            class_names: ["left", "right"].map(str::to_owned).to_vec(),
            labels_from: 1,
            ..FinetuneConfig::default()
        };
        assert_eq!(classes_by_label(&[2, 1, 2], &named).unwrap(), BTreeMap::from([(1, 0), (2, 1)]));
        assert!(classes_by_label(&[3], &named).unwrap_err().to_string().contains("label 2"));
        let called =
            FinetuneConfig { class_names: ["3", "7"].map(str::to_owned).to_vec(), ..FinetuneConfig::default() };
        assert_eq!(classes_by_label(&[7, 3], &called).unwrap(), BTreeMap::from([(3, 0), (7, 1)]));
    }
}
