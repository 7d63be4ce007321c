//! What official files of V-JEPA 2 and 2.1 say in other words than this program's: rewritten in the tree before it is read, so
//! that the rest of the program knows one word for a thing.
//!
//! - `app: vjepa_2_1` and `model.use_rope` tell the generation;
//! - `folder`, at the top, is `logging.folder`;
//! - `data.dataset_fpcs` are frames per clip, of which `data.num_frames` is the largest;
//! - gradients are not clipped where `optimization.clip_grad` is not given, and a cool-down has no warm-up.

use super::Generation;
use crate::yaml::{Node, Origin, Value};

/// What official files call the program that trains V-JEPA 2.1.
const APP_21: &str = "vjepa_2_1";

/// Rewrites the tree. What is written in this program's words stays.
pub(super) fn translate(root: &mut Node) {
    if let Some(folder) = root.at("folder").cloned().filter(|_| root.at("logging.folder").is_none()) {
        set(root, "logging", "folder", folder.value, folder.origin);
        if let Value::Map(sections) = &mut root.value {
            sections.retain(|(key, _)| key != "folder");
        }
    }
    let told = generation(root);
    if let Some((generation, origin)) = &told
        && root.at("model.generation").is_none()
    {
        set(root, "model", "generation", Value::Text(generation.name().to_owned()), *origin);
    }
    let frames = root.at("data.dataset_fpcs").filter(|_| root.at("data.num_frames").is_none());
    if let Some((largest, origin)) = frames.and_then(|list| Some((largest(list)?, list.origin))) {
        set(root, "data", "num_frames", Value::Number(largest.into()), origin);
    }
    let first = Value::Text(Generation::V1.name().to_owned());
    let origin = root.at("model.generation").filter(|node| node.value != first).map(|node| node.origin);
    if let Some(origin) = origin {
        // Given as null it is there, too.
        if root.get("optimization").is_none_or(|section| section.get("clip_grad").is_none()) {
            set(root, "optimization", "clip_grad", Value::Null, origin);
        }
        let anneal = root.at("optimization.is_anneal").is_some_and(|node| node.value == Value::Bool(true));
        if anneal && root.at("optimization.warmup").is_none() {
            set(root, "optimization", "warmup", Value::Number(0.into()), origin);
        }
    }
}

/// The generation that an official file tells, and where.
fn generation(root: &Node) -> Option<(Generation, Origin)> {
    let app = root.at("app").filter(|app| app.value == Value::Text(APP_21.to_owned()));
    let rotary = root.at("model.use_rope").filter(|node| node.value == Value::Bool(true));
    match (app, rotary) {
        (Some(app), _) => Some((Generation::V21, app.origin)),
        (None, Some(rotary)) => Some((Generation::V2, rotary.origin)),
        (None, None) => None,
    }
}

fn largest(list: &Node) -> Option<u64> {
    let Value::List(entries) = &list.value else { return None };
    let number = |entry: &Node| match &entry.value {
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    entries.iter().filter_map(number).max()
}

/// Sets `section.key`; a section that is not there is made, one that is no mapping stays, for the reader to refuse.
fn set(root: &mut Node, section: &str, key: &str, value: Value, origin: Origin) {
    let Value::Map(sections) = &mut root.value else { return };
    let place = match sections.iter().position(|(name, _)| name == section) {
        Some(place) => place,
        None => {
            sections.push((section.to_owned(), Node { origin, value: Value::Map(Vec::new()) }));
            sections.len() - 1
        }
    };
    if let Some((_, Node { value: Value::Map(entries), .. })) = sections.get_mut(place) {
        entries.retain(|(name, _)| name != key);
        entries.push((key.to_owned(), Node { origin, value }));
    }
}
