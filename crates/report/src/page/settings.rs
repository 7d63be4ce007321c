//! How the runs were started, and in what they differ.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::short;
use crate::run::Run;
use crate::starts::RunStart;

/// Where a run's files are says nothing about it.
const BY_NATURE: [&str; 1] = ["logging.folder"];

/// The settings that differ between runs.
pub(super) fn differences(runs: &[Run]) -> Markup {
    let known: Vec<&Run> = runs.iter().filter(|run| !run.starts.is_empty()).collect();
    let settings: Vec<BTreeMap<String, String>> =
        known.iter().filter_map(|run| run.starts.last()).map(|start| flat(&start.config)).collect();
    let keys: std::collections::BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    let differ = |key: &&String| {
        let mut values = settings.iter().map(|of| of.get(*key));
        let first = values.next();
        !BY_NATURE.contains(&key.as_str()) && values.any(|value| Some(value) != first)
    };
    let rows: Vec<&String> = keys.into_iter().filter(differ).collect();
    let unknown: Vec<String> = runs.iter().filter(|run| run.starts.is_empty()).map(Run::name).collect();
    html! {
        @if runs.len() > 1 {
            h2 { "Settings that differ" }
            @if !unknown.is_empty() { p.muted { "Not known of: " (unknown.join(", ")) " (no run.json)" } }
            @if known.len() < 2 {} @else if rows.is_empty() { p.muted { "None." } } @else {
                div.wide.card { table {
                    thead { tr { th { "setting" } @for run in &known { th { (run.name()) } } } }
                    tbody { @for key in rows {
                        tr { th { code { (key) } } @for of in &settings { td { (of.get(key).map_or("–", String::as_str)) } } }
                    } }
                } }
            }
        }
    }
}

/// Values by dotted key.
fn flat(value: &Value) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(entries) => entries.iter().for_each(|(key, value)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, value, into);
            }),
            Value::Array(values) if values.iter().any(Value::is_object) => {
                values.iter().enumerate().for_each(|(place, value)| walk(&format!("{path}.{place}"), value, into));
            }
            Value::String(text) => drop(into.insert(path.to_owned(), text.clone())),
            other => drop(into.insert(path.to_owned(), other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk("", value, &mut found);
    found
}

/// Every start of every run, with its command line, machine and configuration.
pub(super) fn starts(runs: &[Run]) -> Markup {
    html! {
        @if runs.iter().any(|run| !run.starts.is_empty()) {
            h2 { "How it was started" }
            @for run in runs.iter().filter(|run| !run.starts.is_empty()) {
                div.card style="margin-bottom:.75rem" {
                    @if runs.len() > 1 { h3 { (run.name()) } }
                    @for start in &run.starts { (one(start)) }
                    @if let Some(last) = run.starts.last() {
                        details {
                            summary { "Configuration, every default filled in" }
                            pre { (serde_json::to_string_pretty(&last.config).unwrap_or_default()) }
                        }
                    }
                }
            }
        }
    }
}

fn one(start: &RunStart) -> Markup {
    let machine = &start.machine;
    let threads = machine.threads.map_or_else(String::new, |count| format!(", {count} threads"));
    html! {
        p {
            (start.at) @if start.from > 0 { ": resumed after step " (start.from) }
            @if let Some(ended) = &start.ended { " – " (ended.how.in_words()) " after " (ended.steps) " steps, " (ended.at) }
        }
        p.muted {
            "vjepa " (start.vjepa) @if let Some(commit) = &start.commit { ", commit " (short(commit)) } "; "
            (machine.processor) (threads) ", kernels " (machine.kernels) ", products " (machine.products) ", device "
            (machine.device) "; " (machine.host) ", " (machine.system)
        }
        p { code { (start.command.join(" ")) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_named_by_their_full_key() {
        let flat = flat(&json!({"mask": [{"num_blocks": 8}], "data": {"datasets": ["a", "b"], "crop_size": 96}}));
        let expected = [("data.crop_size", "96"), ("data.datasets", "[\"a\",\"b\"]"), ("mask.0.num_blocks", "8")];
        assert_eq!(flat, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }
}
