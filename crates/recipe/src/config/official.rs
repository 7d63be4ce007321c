//! Official configurations of anything but V-JEPA's pre-training: recognised by their keys, so that the message says what
//! they are instead of listing unknown keys.

use crate::yaml::{Node, Value};

/// What a configuration is, to follow "is", and what to do instead; none for pre-training.
pub(super) fn recognise(root: &Node) -> Option<String> {
    evaluation(root).or_else(|| action_conditioned(root))
}

/// A scalar as it would be written at the command line; none for longer texts and those with spaces.
fn word(node: &Node) -> Option<String> {
    let text = match &node.value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (text.chars().count() <= 80 && !text.contains(char::is_whitespace)).then_some(text)
}

/// The configurations of `configs/evals`, of V-JEPA (`pretrain`) and V-JEPA 2 (`experiment`).
fn evaluation(root: &Node) -> Option<String> {
    let name = root.at("eval_name").and_then(word);
    let keys = ["eval_name", "data.dataset_train", "experiment.data.dataset_train", "pretrain.checkpoint_key"];
    if !keys.iter().any(|key| root.at(key).is_some()) {
        return None;
    }
    let named = name.as_ref().map_or(String::new(), |name| format!(" (`eval_name: {name}`)"));
    Some(format!(
        "the configuration of an official evaluation{named}, which `vjepa probe --config FILE` and `vjepa eval --config FILE` read"
    ))
}

/// The training of V-JEPA 2-AC, which has an app of its own.
fn action_conditioned(root: &Node) -> Option<String> {
    let app = root.at("app").and_then(word).filter(|app| app.contains("droid"))?;
    Some(format!(
        "the configuration of V-JEPA 2-AC's training (`app: {app}`), which is not supported; released files of V-JEPA 2-AC are \
         read as they are"
    ))
}
