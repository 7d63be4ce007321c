//! `--set key.sub=value`: changes the tree before anything is read from it, so that overrides are checked like the file.

use super::error::ConfigError;
use crate::text;
use crate::yaml::{self, Node, Origin, Value};

/// Applies `argument`, the `number`-th `--set`, to `root`. Keys that the file leaves out are filled in from `defaults` first,
/// so that `mask.0.num_blocks=4` works on a file without a `mask` section.
pub(crate) fn apply(root: &mut Node, defaults: &Node, argument: &str, number: usize) -> Result<(), ConfigError> {
    let fail = |why: String| ConfigError::Override { text: text::short(argument, 200), why: text::short(&why, 400) };
    let (key, text) = argument
        .split_once('=')
        .ok_or_else(|| fail("write it as section.key=value, for example optimization.lr=0.001".into()))?;
    let (key, text) = (key.trim(), text.trim());
    if text.is_empty() {
        return Err(fail("there is no value after `=`; write null for none".into()));
    }
    let mut node = yaml::parse(text).map_err(|error| fail(format!("the value is not valid YAML: {error}")))?;
    node.relocate(Origin::Set(number));
    set(root, defaults, key, node).map_err(fail)
}

fn set(root: &mut Node, defaults: &Node, key: &str, node: Node) -> Result<(), String> {
    let origin = node.origin;
    let mut here = root;
    let mut default = Some(defaults);
    let mut walked = String::new();
    for step in key.split('.') {
        if step.is_empty() {
            return Err(format!("`{key}` has an empty part"));
        }
        if here.value == Value::Null {
            let filled = default.map(|node| &node.value).filter(|value| **value != Value::Null);
            here.value = filled.cloned().unwrap_or(Value::Map(Vec::new()));
            here.relocate(origin);
        }
        default = default.and_then(|node| node.get(step));
        here = match &mut here.value {
            Value::Map(entries) => {
                let index = entries.iter().position(|(key, _)| key == step).unwrap_or(entries.len());
                if index == entries.len() {
                    entries.push((step.into(), Node { origin, value: Value::Null }));
                }
                entries.get_mut(index).map(|(_, node)| node).ok_or("an entry is missing")?
            }
            Value::List(list) => {
                let len = list.len();
                let index = step.parse::<usize>().map_err(|_| {
                    format!("`{walked}` is a list of {len}; write the number of an entry instead of `{step}`")
                })?;
                list.get_mut(index).ok_or_else(|| {
                    format!("`{walked}` has {len} entries, numbered from 0; there is no entry {index}")
                })?
            }
            _ => return Err(format!("`{walked}` holds a value, not a section, so it has no `{step}`")),
        };
        if !walked.is_empty() {
            walked.push('.');
        }
        walked.push_str(step);
    }
    *here = node;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Node {
        yaml::parse(text).unwrap()
    }

    #[test]
    fn nested_keys_and_list_entries() {
        let mut root = parse("a: {b: 1}\nl: [{x: 1}, {x: 2}]");
        let none = parse("~");
        apply(&mut root, &none, "a.b=2.5", 0).unwrap();
        apply(&mut root, &none, "l.1.x = [1, 2]", 1).unwrap();
        apply(&mut root, &none, "new.key=text", 2).unwrap();
        assert_eq!(root.to_string(), "{a: {b: 2.5}, l: [{x: 1}, {x: [1, 2]}], new: {key: text}}");
        assert_eq!(root.origin_of("l.1.x"), Some(Origin::Set(1)));
        assert_eq!(root.origin_of("l.0.x"), Some(Origin::Line(2)));
    }

    #[test]
    fn missing_sections_start_from_the_defaults() {
        let mut root = parse("a: 1");
        apply(&mut root, &parse("l: [{x: 1, y: 2}, {x: 3}]"), "l.0.x=9", 0).unwrap();
        assert_eq!(root.to_string(), "{a: 1, l: [{x: 9, y: 2}, {x: 3}]}");
        assert_eq!(root.origin_of("l.1.x"), Some(Origin::Set(0)));
    }

    #[test]
    fn mistakes_are_named() {
        let say = |argument: &str| apply(&mut parse("a: 1\nl: [1]"), &parse("~"), argument, 0).unwrap_err().to_string();
        assert!(say("a").contains("section.key=value"));
        assert!(say("a=").contains("null for none"));
        assert!(say("a.b=1").contains("`a` holds a value"));
        assert!(say("l.3=1").contains("no entry 3"));
        assert!(say("l.x=1").contains("is a list of 1"));
        assert!(say("a..b=1").contains("empty part"));
        assert!(say("a=[1").contains("not valid YAML"));
    }
}
