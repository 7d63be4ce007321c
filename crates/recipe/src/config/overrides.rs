//! `--set key.sub=value`: changes a configuration before it is read, so that overrides are checked like the file.

use serde_norway::{Mapping, Value};

use super::error::ConfigError;

/// Applies `argument` to `root` and returns the key it set. Keys that the file leaves out are taken from `defaults` first,
/// so that `mask.0.num_blocks=4` works on a file without a `mask` section.
pub(crate) fn apply(root: &mut Value, defaults: &Value, argument: &str) -> Result<String, ConfigError> {
    let fail = |why: String| ConfigError::Override { text: argument.into(), why };
    let (key, text) = argument
        .split_once('=')
        .ok_or_else(|| fail("write it as section.key=value, for example optimization.lr=0.001".into()))?;
    let (key, text) = (key.trim(), text.trim());
    if text.is_empty() {
        return Err(fail("there is no value after `=`; write null for none".into()));
    }
    let value: Value =
        serde_norway::from_str(text).map_err(|error| fail(format!("the value is not valid YAML: {error}")))?;
    set(root, Some(defaults), key, value).map_err(fail)?;
    Ok(key.into())
}

fn set(root: &mut Value, defaults: Option<&Value>, key: &str, value: Value) -> Result<(), String> {
    let mut here = root;
    let mut default = defaults;
    let mut walked = String::new();
    for step in key.split('.') {
        if step.is_empty() {
            return Err(format!("`{key}` has an empty part"));
        }
        if here.is_null() {
            *here = default.cloned().filter(|d| !d.is_null()).unwrap_or_else(|| Value::Mapping(Mapping::new()));
        }
        default = default.and_then(|d| child(d, step));
        here = match here {
            Value::Mapping(entries) => entries.entry(step.into()).or_insert(Value::Null),
            Value::Sequence(list) => {
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
    *here = value;
    Ok(())
}

fn child<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match value {
        Value::Mapping(entries) => entries.get(step),
        Value::Sequence(list) => list.get(step.parse::<usize>().ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Value {
        serde_norway::from_str(text).unwrap()
    }

    #[test]
    fn nested_keys_and_list_entries() {
        let mut root = yaml("a: {b: 1}\nl: [{x: 1}, {x: 2}]");
        let none = Value::Null;
        apply(&mut root, &none, "a.b=2.5").unwrap();
        apply(&mut root, &none, "l.1.x = [1, 2]").unwrap();
        apply(&mut root, &none, "new.key=text").unwrap();
        assert_eq!(root, yaml("a: {b: 2.5}\nl: [{x: 1}, {x: [1, 2]}]\nnew: {key: text}"));
    }

    #[test]
    fn missing_sections_start_from_the_defaults() {
        let mut root = yaml("a: 1");
        apply(&mut root, &yaml("l: [{x: 1, y: 2}, {x: 3}]"), "l.0.x=9").unwrap();
        assert_eq!(root, yaml("a: 1\nl: [{x: 9, y: 2}, {x: 3}]"));
    }

    #[test]
    fn mistakes_are_named() {
        let say = |argument: &str| {
            apply(&mut yaml("a: 1\nl: [1]"), &Value::Null, argument).map(drop).unwrap_err().to_string()
        };
        assert!(say("a").contains("section.key=value"));
        assert!(say("a=").contains("null for none"));
        assert!(say("a.b=1").contains("`a` holds a value"));
        assert!(say("l.3=1").contains("no entry 3"));
        assert!(say("l.x=1").contains("is a list of 1"));
        assert!(say("a..b=1").contains("empty part"));
        assert!(say("a=[1").contains("not valid YAML"));
    }
}
