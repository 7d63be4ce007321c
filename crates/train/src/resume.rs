//! Resuming: how the configuration differs from the one in the checkpoint's record.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TrainError;
use vjepa_data::Contents;
use vjepa_programs::model_settings;
use vjepa_recipe::config::Config;

/// A setting that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `section.key`.
    pub key: String,
    /// The value the run was trained with, as YAML in one line.
    pub was: String,
    /// The value it continues with.
    pub now: String,
}

/// One continuation of a run, in the record of its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// Steps done before it.
    pub from: u64,
    /// Version of the program that did them.
    pub vjepa: String,
    /// What was changed then.
    pub changed: Vec<Change>,
}

/// The differences, by whether a run may continue with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Settings that would make it another model, objective or kind of clip.
    pub refused: Vec<Change>,
    /// Settings that a run may change.
    pub allowed: Vec<Change>,
}

/// Keys of clips besides those of the preprocessing record, and the objective, whose parameters and metrics are its own.
const KEPT: [&str; 13] = [
    "img_data",
    "img_data.crop_size",
    "data.clip_duration",
    "data.clip_bytes",
    "data.mask_type",
    "data.dataset_type",
    "loss.objective",
    "loss.pixel_target",
    "loss.teacher",
    "finetune.pooling",
    "finetune.labels_from",
    "finetune.subset",
    "finetune.subset_split",
];

/// Compares the configuration of a checkpoint with the one the run continues with.
///
/// # Errors
/// [`TrainError::Config`] for sizes that are missing.
pub(super) fn compare(was: &Config, now: &Config) -> Result<Changes, TrainError> {
    let mut changes = Changes { refused: models(was, now)?, allowed: Vec::new() };
    let clips = tree(&now.preprocessing())?;
    let lengths = was.data.lengths() != now.data.lengths();
    let share = |config: &Config| config.finetune.as_ref().and_then(|finetune| finetune.subset);
    for change in differences("", &tree(was)?, &tree(now)?) {
        let key = change.key.as_str();
        // Which draw of a share is of no matter where there is none.
        if key == "finetune.subset_split" && share(was).or(share(now)).is_none() {
            continue;
        }
        let recorded = key.strip_prefix("data.").and_then(|key| key.split('.').next());
        let of_clips = recorded.is_some_and(|key| clips.get(key).is_some());
        let of_masks = ["mask", "img_mask"]
            .iter()
            .any(|section| key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
        if of_clips
            || of_masks
            || key.starts_with("finetune.class_names")
            || KEPT.contains(&key)
            || lengths && key == "data.dataset_fpcs"
        {
            changes.refused.push(change);
        } else if !key.starts_with("model.") || matches!(key, "model.init" | "model.zero_init_mask_tokens") {
            changes.allowed.push(change);
        }
    }
    Ok(changes)
}

/// How the models differ, however the configurations give their sizes.
fn models(was: &Config, now: &Config) -> Result<Vec<Change>, TrainError> {
    if was.finetune.is_some() != now.finetune.is_some() {
        let said = |config: &Config| if config.finetune.is_some() { "there" } else { "not there" }.to_owned();
        return Ok(vec![Change { key: "finetune".to_owned(), was: said(was), now: said(now) }]);
    }
    let pairs = model_settings(was)?.into_iter().zip(model_settings(now)?);
    let differ = pairs.filter(|((_, was), (_, now))| was != now);
    Ok(differ.map(|((key, was), (_, now))| Change { key: key.to_owned(), was, now }).collect())
}

fn tree<T: Serialize>(value: &T) -> Result<Value, TrainError> {
    serde_json::to_value(value).map_err(|error| TrainError::Observer(error.to_string()))
}

/// The values that differ, by full key. Mappings are compared key by key, lists of equally many mappings entry by entry.
fn differences(path: &str, was: &Value, now: &Value) -> Vec<Change> {
    let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (was, now) {
        (was, now) if was == now => Vec::new(),
        (Value::Object(a), Value::Object(b)) => {
            let added =
                b.iter().filter(|(key, _)| !a.contains_key(*key)).map(|(key, value)| (key, &Value::Null, value));
            let kept = a.iter().map(|(key, value)| (key, value, b.get(key).unwrap_or(&Value::Null)));
            kept.chain(added).flat_map(|(name, was, now)| differences(&full(name), was, now)).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().all(Value::is_object) => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.flat_map(|(index, (was, now))| differences(&full(&index.to_string()), was, now)).collect()
        }
        (was, now) => vec![Change { key: path.to_owned(), was: in_words(was), now: in_words(now) }],
    }
}

/// A value in one line, in the syntax of `--set`, cut to a readable length.
fn in_words(value: &Value) -> String {
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(in_words).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key}: {}", in_words(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    };
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// The most settings an error names.
const NAMED: usize = 5;

/// Why a run cannot continue with another model or other clips, to follow the checkpoint's name.
pub(super) fn refusal(refused: &[Change]) -> String {
    let one = |change: &Change| format!("`{}` {} (now {})", change.key, change.was, change.now);
    let named: Vec<String> = refused.iter().take(NAMED).map(one).collect();
    let more = match refused.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more settings"),
    };
    let it = if refused.len() == 1 { "that value" } else { "those values" };
    format!(
        "was trained with {}{more}: resume with {it}, or start a new run in another `logging.folder` from these weights with \
         `meta.load_checkpoint` and `meta.read_checkpoint`",
        named.join(", ")
    )
}

/// How the videos changed in data sets whose names did not.
pub(super) fn of_contents(was: Option<&Contents>, now: Option<&Contents>) -> Option<Change> {
    let (was, now) = (was?, now?);
    let count = |contents: &Contents| format!("{} videos", contents.videos);
    let same = if was.videos == now.videos { ", of which some have other paths" } else { "" };
    (was != now).then(|| Change { key: "the data sets' contents".into(), was: count(was), now: count(now) + same })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "model: {embed_dim: 48, depth: 2, num_heads: 3, pred_depth: 1, pred_embed_dim: 48}\ndata: {datasets: \
                         [a.csv], num_frames: 4, crop_size: 32, patch_size: 8}\noptimization: {steps: 6, warmup_steps: 2}";

    fn config(sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::from_yaml(SMALL, "", &sets).unwrap()
    }

    fn keys(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| change.key.as_str()).collect()
    }

    #[test]
    fn what_makes_another_model_or_clip_is_refused() {
        let was = config(&[]);
        for (set, key) in [
            ("model.depth=3", "model.depth"),
            ("model.uniform_power=false", "model.uniform_power"),
            ("mask.1.num_blocks=3", "mask.1.num_blocks"),
            ("mask=[{num_blocks: 1}]", "mask"),
            ("data.num_frames=8", "data.num_frames"),
            ("data.crop_size=40", "data.crop_size"),
            ("data.sampling_rate=2", "data.sampling_rate"),
            ("data.sampling=exact", "data.sampling"),
            ("data.clip_duration=1.5", "data.clip_duration"),
            ("data.normalization=per_clip", "data.normalization"),
            ("data.normalization={mean: [0, 0, 0], std: [1, 1, 1]}", "data.normalization"),
            ("data.grayscale=true", "data.grayscale"),
        ] {
            let changes = compare(&was, &config(&[set])).unwrap();
            assert_eq!(keys(&changes.refused), [key], "{set}");
            assert!(changes.allowed.is_empty(), "{set}: {changes:?}");
        }
        let said = refusal(&compare(&was, &config(&["data.grayscale=true"])).unwrap().refused);
        assert!(said.contains("`data.grayscale` false (now true): resume with that value"), "{said}");
    }

    #[test]
    fn other_changes_are_named_and_allowed() {
        let was = config(&[]);
        for set in
            ["data.datasets=[b.csv]", "data.batch_size=7", "optimization.lr=0.5", "meta.seed=1", "loss.loss_exp=2.0"]
        {
            let changes = compare(&was, &config(&[set])).unwrap();
            assert_eq!(keys(&changes.allowed), [set.split_once('=').unwrap().0]);
            assert!(changes.refused.is_empty(), "{changes:?}");
        }
        let change = compare(&was, &config(&["data.datasets=[b.csv]"])).unwrap().allowed.remove(0);
        assert_eq!((change.was.as_str(), change.now.as_str()), ("[a.csv]", "[b.csv]"));
        assert_eq!(compare(&was, &was).unwrap(), Changes::default());
    }

    #[test]
    fn what_a_step_is_made_of_is_kept() {
        let text = "model: {generation: vjepa2_1, embed_dim: 48, depth: 2, num_heads: 2, pred_depth: 1, pred_embed_dim: 48, \
                    pred_num_heads: 2, levels: [0, 1]}\ndata: {datasets: [a.csv, b.csv], dataset_fpcs: [4, 8], crop_size: 32, \
                    patch_size: 8}\nimg_data: {datasets: [c.csv], crop_size: 32, batch_size: 2}\n\
                    optimization: {steps: 6, warmup_steps: 2, groups: 2}";
        let read = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            Config::from_yaml(text, "", &sets).unwrap()
        };
        let was = read(&[]);
        for (set, key) in [
            ("img_mask.0.num_blocks=3", "img_mask.0.num_blocks"),
            ("img_data.crop_size=40", "img_data.crop_size"),
            ("data.dataset_fpcs=[8, 4]", "data.dataset_fpcs"),
        ] {
            let changes = compare(&was, &read(&[set])).unwrap();
            assert_eq!((keys(&changes.refused), changes.allowed.len()), (vec![key], 0), "{set}");
        }
        for set in ["img_data.datasets=[d.csv]", "img_data.batch_size=7", "optimization.groups=4"] {
            let changes = compare(&was, &read(&[set])).unwrap();
            assert_eq!((changes.refused.len(), changes.allowed.len()), (0, 1), "{set}");
        }
        let alone = Config { img_data: None, img_mask: None, ..was.clone() };
        let changes = compare(&alone, &was).unwrap();
        assert_eq!(keys(&changes.refused), ["img_data", "img_mask"], "{changes:?}");
    }

    #[test]
    fn a_model_may_be_written_otherwise() {
        let named = "model: {model_name: vit_tiny}\ndata: {crop_size: 112}";
        let spelled = "model: {embed_dim: 192, depth: 12, num_heads: 3, pred_depth: 12, pred_embed_dim: 384, init: \
                       xavier}\ndata: {crop_size: 112}";
        let [named, spelled] = [named, spelled].map(|text| Config::from_yaml(text, "", &[]).unwrap());
        let changes = compare(&named, &spelled).unwrap();
        assert_eq!((keys(&changes.refused), keys(&changes.allowed)), (vec![], vec!["model.init"]));
    }

    #[test]
    fn a_refusal_of_everything_stays_short() {
        let long = "x".repeat(500);
        let change =
            |i: usize| Change { key: format!("mask.{i}"), was: in_words(&long.as_str().into()), now: "1".into() };
        let said = refusal(&(0..40).map(change).collect::<Vec<_>>());
        assert!(said.len() < 1000 && said.contains("and 35 more settings"), "{}: {said}", said.len());
    }
}
