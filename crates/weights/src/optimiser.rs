//! The optimiser in an official checkpoint: its numbered states, as moments of named parameters.
//!
//! PyTorch numbers parameters through all groups. Which name a number has follows from the order of the state dicts and
//! from what the groups are made of; numbers, counts and shapes are compared, so that another order is found out.

use std::collections::BTreeMap;

use super::heap::{Heap, Id, Value};
use super::objects::{self, Tensor};
use super::plain::Plain;
use super::training::TrainingState;
use super::{Entry, Shapes, names, order};

/// Length of `adam.m.` and `adam.v.`.
pub(super) const PREFIX: usize = 7;
/// The moments of AdamW: their names in PyTorch, and before the parameter's name here.
const MOMENTS: [(&str, &str); 2] = [("exp_avg", "adam.m."), ("exp_avg_sq", "adam.v.")];

/// How often a parameter was updated: a number, or a tensor of one.
pub(super) enum Counter {
    Number(f64),
    Tensor(Tensor),
}

/// What an optimiser holds.
pub(super) struct Found {
    /// Settings and counters.
    pub state: TrainingState,
    /// `adam.m.encoder.norm.weight` and so on.
    pub moments: Vec<(String, Tensor)>,
    /// Every parameter's counter.
    pub counters: Vec<Counter>,
}

/// The optimiser `opt` of a checkpoint, if it has one.
///
/// # Errors
/// Why it cannot be used, in words.
pub(super) fn find(heap: &Heap, root: Id, models: &BTreeMap<String, Entry>) -> Result<Option<Found>, String> {
    let Some(opt) = heap.get(root, "opt").filter(|opt| matches!(heap.value(*opt), Value::Dict(_))) else {
        return Ok(None);
    };
    let groups = heap.get(opt, "param_groups").and_then(|groups| Plain::of(heap, groups));
    let Some(Plain::List(groups)) = groups else { return Err("it has no `param_groups`".to_owned()) };
    if groups.iter().any(|group| group.get("amsgrad") == Some(&Plain::Bool(true))) {
        return Err("its optimiser is AdamW with amsgrad, which this program does not run".to_owned());
    }
    let named =
        numbered(&groups, &parameters(heap, root, "encoder", models), &parameters(heap, root, "predictor", models))?;
    let (mut moments, mut counters) = (Vec::new(), Vec::new());
    let states = heap.get(opt, "state").map(|states| heap.value(states));
    let Some(Value::Dict(states)) = states else { return Err("its optimiser has no `state`".to_owned()) };
    for (number, state) in states {
        let number = heap.size(*number).ok_or("its optimiser's states have no numbers")?;
        let name =
            named.get(&number).ok_or_else(|| format!("it has a state of parameter {number}, of which it has none"))?;
        for (theirs, ours) in MOMENTS {
            let tensor = heap.get(*state, theirs).and_then(|id| objects::tensor_at(heap, id));
            let tensor = tensor
                .ok_or_else(|| format!("`{}` has no {theirs}: its optimiser is not AdamW", names::shortened(name)))?;
            moments.push((format!("{ours}{name}"), tensor));
        }
        let counter = heap.get(*state, "step").ok_or("its optimiser has no step counters")?;
        let plain = || Plain::of(heap, counter).and_then(|plain| plain.number());
        let counter = objects::tensor_at(heap, counter).map(Counter::Tensor).or_else(|| plain().map(Counter::Number));
        counters.push(counter.ok_or("its step counters are not numbers")?);
    }
    let Value::Dict(items) = heap.value(root) else { return Ok(None) };
    let others = items.iter().filter_map(|(key, value)| {
        let key = heap.text(*key).filter(|key| *key != "opt")?;
        let plain = Plain::of(heap, *value)?;
        // A dictionary of tensors alone is a model that is not known here.
        let emptied = matches!((&plain, heap.value(*value)), (Plain::Dict(kept), Value::Dict(all)) if kept.is_empty() && !all.is_empty());
        (!emptied && !super::MODELS.contains(&key)).then(|| (key.to_owned(), plain))
    });
    let settings = groups.into_iter().map(|group| match group {
        Plain::Dict(items) => {
            let own = |(key, _): &(Plain, Plain)| !matches!(key, Plain::Text(key) if key == "params");
            Plain::Dict(items.into_iter().filter(own).collect())
        }
        other => other,
    });
    let state = TrainingState { updates: None, groups: settings.collect(), others: others.collect() };
    Ok(Some(Found { state, moments, counters }))
}

/// The parameters of a model, in the order of its state dict.
fn parameters(heap: &Heap, root: Id, model: &str, entries: &BTreeMap<String, Entry>) -> Shapes {
    let items = heap.get(root, model).map(|model| heap.value(model));
    let items = match items {
        Some(Value::Dict(items)) => items,
        Some(Value::Object(object)) => &object.items,
        _ => return Vec::new(),
    };
    let parameter = |(key, _): &(Id, Id)| {
        let name = names::official(&format!("{model}.{}", heap.text(*key)?))?;
        let shape = entries.get(&name)?.shape.clone();
        Some((name, shape))
    };
    items.iter().filter_map(parameter).collect()
}

/// The name of each number.
///
/// # Errors
/// Why numbers and names do not fit.
fn numbered(groups: &[Plain], encoder: &Shapes, predictor: &Shapes) -> Result<BTreeMap<u64, String>, String> {
    let names = order::groups(encoder, predictor);
    if groups.len() != names.len() {
        return Err(format!("its optimiser has {} groups, V-JEPA's has {}", groups.len(), names.len()));
    }
    let mut named = BTreeMap::new();
    for (place, (group, names)) in groups.iter().zip(names).enumerate() {
        let Some(Plain::List(numbers)) = group.get("params") else { return Err("a group has no `params`".to_owned()) };
        if numbers.len() != names.len() {
            return Err(format!(
                "group {place} of its optimiser has {} parameters, its models have {} of that kind",
                numbers.len(),
                names.len()
            ));
        }
        for (number, name) in numbers.iter().zip(names) {
            let number = number.count().ok_or("its optimiser's parameters have no numbers")?;
            if named.insert(number, name).is_some() {
                return Err(format!("parameter {number} of its optimiser is in two groups"));
            }
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(numbers: &[i64]) -> Plain {
        Plain::dict([("params", Plain::List(numbers.iter().copied().map(Plain::Int).collect()))])
    }

    fn shapes(list: &[(&str, usize)]) -> Shapes {
        list.iter().map(|(name, rank)| ((*name).to_owned(), vec![2; *rank])).collect()
    }

    #[test]
    fn numbers_get_the_names_of_their_groups() {
        let encoder = shapes(&[("encoder.pos_embed", 3), ("encoder.norm.weight", 1), ("encoder.norm.bias", 1)]);
        let predictor = shapes(&[("predictor.mask_tokens.0", 3), ("predictor.predictor_norm.bias", 1)]);
        let groups = [group(&[0]), group(&[1]), group(&[2, 3]), group(&[4])];
        let named = numbered(&groups, &encoder, &predictor).unwrap();
        let names: Vec<&str> = named.values().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "encoder.pos_embed",
                "predictor.mask_tokens.0",
                "encoder.norm.weight",
                "encoder.norm.bias",
                "predictor.predictor_norm.bias"
            ]
        );
        let told = |groups: &[Plain]| numbered(groups, &encoder, &predictor).unwrap_err();
        assert!(told(&groups[..3]).contains("3 groups"));
        assert!(told(&[group(&[0]), group(&[1]), group(&[2]), group(&[4])]).contains("group 2"));
        assert!(told(&[group(&[0]), group(&[0]), group(&[2, 3]), group(&[4])]).contains("two groups"));
        assert!(told(&[group(&[-1]), group(&[0]), group(&[2, 3]), group(&[4])]).contains("no numbers"));
    }
}
