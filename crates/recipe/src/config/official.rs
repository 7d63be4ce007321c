//! Configurations of official programs that are not pre-training: recognised by their keys, so that they are named and not
//! called mistakes.

use serde_norway::Value;

/// What a configuration is, worded to follow "is", and what to do instead; none for one of pre-training.
pub(super) fn recognise(root: &Value) -> Option<String> {
    evaluation(root).or_else(|| second_generation(root))
}

fn at<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(root, |value, key| value.as_mapping()?.get(key)).filter(|value| !value.is_null())
}

/// A scalar as it would be written at the command line, cut to a readable length.
fn word(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (text.chars().count() <= 80 && !text.contains(char::is_whitespace)).then_some(text)
}

/// The configurations of `configs/evals`, of V-JEPA (`pretrain`) and V-JEPA 2 (`experiment`).
fn evaluation(root: &Value) -> Option<String> {
    let name = at(root, "eval_name").and_then(word);
    let keys = ["eval_name", "data.dataset_train", "experiment.data.dataset_train", "pretrain.checkpoint_key"];
    if !keys.iter().any(|key| at(root, key).is_some()) {
        return None;
    }
    let named = name.as_ref().map_or(String::new(), |name| format!(" (`eval_name: {name}`)"));
    let what = format!("the configuration of an official evaluation{named}, which is not read yet");
    if name.as_deref().is_some_and(|name| !name.contains("video")) {
        return Some(format!("{what}, nor is that kind of evaluation done"));
    }
    let find = |keys: &[&str]| keys.iter().find_map(|key| at(root, key)).and_then(word);
    let either = |key: &str| find(&[key, &format!("experiment.{key}")]);
    let option = |flag: &str, value: Option<String>| value.map_or(String::new(), |value| format!(" {flag} {value}"));
    let checkpoint = match (find(&["pretrain.folder"]), find(&["pretrain.checkpoint"])) {
        (Some(folder), Some(file)) => Some(format!("{}/{file}", folder.trim_end_matches('/'))),
        (_, file) => file.or_else(|| find(&["model_kwargs.checkpoint"])),
    };
    let checkpoint = checkpoint.unwrap_or_else(|| "FILE".into());
    let data = |key: &str| either(&format!("data.{key}"));
    let clips = option("--clips", data("num_segments"));
    let [train, val] = ["dataset_train", "dataset_val"].map(|key| data(key).unwrap_or_else(|| "LIST".into()));
    Some(format!(
        "{what}: give what it says to `vjepa probe --checkpoint {checkpoint} --data {train}{clips}{}{} --out \
         probe.safetensors`, then `vjepa eval --checkpoint {checkpoint} --probe probe.safetensors --data {val}{clips}{}`, both \
         with the pre-training's own file as --config where the checkpoint has no record",
        option("--epochs", either("optimization.num_epochs")),
        option("--lr", either("optimization.lr")),
        option("--views", data("num_views_per_segment")),
    ))
}

/// The pre-training configurations of V-JEPA 2, whose models have rotary positions.
fn second_generation(root: &Value) -> Option<String> {
    let rotary = at(root, "model.use_rope").is_some_and(|value| value.as_bool() == Some(true));
    let key = match (rotary, at(root, "data.dataset_fpcs").is_some()) {
        (true, _) => "model.use_rope",
        (false, true) => "data.dataset_fpcs",
        (false, false) => return None,
    };
    Some(format!(
        "a configuration of V-JEPA 2 (it has `{key}`), whose models, with rotary positions, are not supported yet; configs/ \
         has those of V-JEPA"
    ))
}
