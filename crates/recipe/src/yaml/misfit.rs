//! What does not fit, and where: the key, what is accepted there, what was found.

use serde_json::{Map, Value as Json};

use super::{Node, Value, expected};

/// A key that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The steps to it from the node that was read.
    pub path: Vec<String>,
    pub wrong: Wrong,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Nobody reads it; with what was probably meant.
    Unknown { nearest: String },
    /// Its value is of another type.
    Type { expected: String, found: String },
}

impl Misfit {
    /// The misfit at `path`, which is where serde stopped: at a value of another type, or at or above an unknown key.
    pub fn find(root: &Node, schema: &Json, path: Vec<String>) -> Self {
        let (mut node, mut schema) = (root, schema);
        let mut walked = Vec::new();
        for step in path {
            if let Some(keys) = properties(schema) {
                let Some(inner) = keys.get(&step) else {
                    return Self::unknown(walked, step, keys);
                };
                schema = inner;
            } else if let Some(entry) = entry(schema) {
                schema = entry;
            } else {
                break;
            }
            let Some(next) = node.get(&step) else { break };
            node = next;
            walked.push(step);
        }
        if let (Some(keys), Value::Map(entries)) = (properties(schema), &node.value)
            && let Some((key, _)) = entries.iter().find(|(key, _)| !keys.contains_key(key))
        {
            return Self::unknown(walked, key.clone(), keys);
        }
        Self { path: walked, wrong: Wrong::Type { expected: expected(schema), found: node.describe() } }
    }

    fn unknown(mut path: Vec<String>, key: String, keys: &Map<String, Json>) -> Self {
        let known: Vec<&str> = keys.keys().map(String::as_str).collect();
        let nearest = nearest(&key, &known);
        path.push(key);
        Self { path, wrong: Wrong::Unknown { nearest } }
    }

    /// `section.key` of the misfit below the key `above`, which may be empty.
    pub fn key(&self, above: &str) -> String {
        let above = (!above.is_empty()).then_some(above);
        above.into_iter().chain(self.path.iter().map(String::as_str)).collect::<Vec<_>>().join(".")
    }
}

fn properties(schema: &Json) -> Option<&Map<String, Json>> {
    schema.get("properties")?.as_object()
}

fn entry(schema: &Json) -> Option<&Json> {
    schema.get("items").filter(|items| items.is_object()).or_else(|| schema.get("prefixItems")?.get(0))
}

/// What other programs call a key, under the name it has here.
const CALLED: [(&str, &[&str]); 17] = [
    ("lr", &["learning_rate", "base_lr", "max_lr", "peak_lr", "ref_lr"]),
    ("final_lr", &["min_lr", "lr_min", "end_lr"]),
    ("start_lr", &["warmup_lr", "init_lr", "initial_lr"]),
    ("weight_decay", &["wd"]),
    ("epochs", &["num_epochs", "max_epochs", "n_epochs", "num_train_epochs"]),
    ("steps", &["num_steps", "max_steps", "total_steps", "train_steps", "iterations", "max_iters"]),
    ("warmup", &["warmup_epochs"]),
    ("clip_grad", &["grad_clip", "max_grad_norm", "gradient_clip_val", "clip_norm", "max_norm"]),
    ("groups", &["accumulation_steps", "grad_accum", "accum_iter", "gradient_accumulation_steps"]),
    ("batch_size", &["bs", "batch", "per_device_train_batch_size", "micro_batch_size"]),
    ("crop_size", &["img_size", "image_size", "input_size", "resolution"]),
    ("num_frames", &["frames", "n_frames", "frames_per_clip", "clip_length"]),
    ("sampling_rate", &["frame_step", "frame_stride", "stride"]),
    ("num_workers", &["workers", "n_workers", "dataloader_num_workers"]),
    ("folder", &["output_dir", "out_dir", "save_dir", "log_dir", "output", "out"]),
    ("dtype", &["precision", "mixed_precision", "amp"]),
    ("seed", &["random_seed", "manual_seed"]),
];

/// The key that other programs call by this name; none where no name is known for it.
pub(crate) fn called(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    CALLED.into_iter().find(|(_, names)| names.contains(&name.as_str())).map(|(own, _)| own)
}

/// "did you mean ..." for a name close to a known one, or another program's for it, otherwise the list of known names.
pub(crate) fn nearest(name: &str, known: &[&str]) -> String {
    // Long names are typos of nothing.
    let short: String = name.chars().take(64).collect();
    if let Some(own) = called(&short).filter(|own| known.contains(own) && !known.contains(&short.as_str())) {
        return format!("did you mean `{own}`?");
    }
    let best = known.iter().map(|word| (strsim::damerau_levenshtein(&short, word), *word)).min();
    match best {
        Some((far, word)) if far <= 1 + word.len() / 3 => format!("did you mean `{word}`?"),
        _ => far_from(&short, known),
    }
}

/// Known names that hold this one, otherwise the first of all.
fn far_from(name: &str, known: &[&str]) -> String {
    /// Names that a reader still looks through.
    const SHOWN: usize = 12;
    let holding: Vec<&str> = known.iter().copied().filter(|word| name.len() > 2 && word.contains(name)).collect();
    let of = if holding.is_empty() { known } else { &holding };
    let more = of.len().saturating_sub(SHOWN);
    let shown = of.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    let what = if holding.is_empty() { "known keys here are" } else { "keys of a similar name are" };
    if more == 0 { format!("{what} {shown}") } else { format!("{what} {shown}, and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::super::{parse, read};
    use super::*;
    use schemars::JsonSchema;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Section {
        rate: f64,
        steps: Option<u64>,
        pair: [f64; 2],
        range: (f64, f64),
        names: Vec<String>,
        kind: Kind,
        maybe: Option<Kind>,
        on: bool,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        /// Documented, which makes the schema list variants one by one.
        #[default]
        FirstKind,
        /// So is this one.
        SecondKind,
    }

    fn misfit(text: &str) -> String {
        let misfit = read::<Section>(&parse(text).unwrap()).unwrap_err();
        match &misfit.wrong {
            Wrong::Unknown { nearest } => format!("{}: {nearest}", misfit.key("top")),
            Wrong::Type { expected, found } => format!("{} {expected}: {found}", misfit.key("top")),
        }
    }

    #[test]
    fn far_names_list_the_known_ones() {
        assert_eq!(nearest("warmpu", &["warmup", "epochs"]), "did you mean `warmup`?");
        assert_eq!(nearest("zzzzzz", &["warmup", "epochs"]), "known keys here are warmup, epochs");
        assert_eq!(nearest("Max-Epochs", &["warmup", "epochs"]), "did you mean `epochs`?");
        assert_eq!(nearest("max_epochs", &["warmup"]), "known keys here are warmup");
        assert_eq!(nearest("nam", &["depth", "model_name"]), "keys of a similar name are model_name");
        let many: Vec<String> = (0..20).map(|i| format!("key_number_{i:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(nearest("zzzzzz", &many).ends_with("key_number_11, and 8 more"));
    }

    #[test]
    fn every_type_is_expected_in_words() {
        for (text, wanted) in [
            ("rate: fast", "top.rate a finite number: the string \"fast\""),
            ("steps: 2.5", "top.steps a whole number, 0 or more or null: the number 2.5"),
            ("steps: -2", "top.steps a whole number, 0 or more or null: the number -2"),
            ("pair: [1]", "top.pair a list of 2, each entry a finite number: a list of 1"),
            ("pair: [1, 2, 3]", "top.pair a list of 2, each entry a finite number: a list of 3"),
            ("range: [1, 2, 3]", "top.range a list of 2, each entry a finite number: a list of 3"),
            ("pair: [1, x]", "top.pair.1 a finite number: the string \"x\""),
            ("names: [a, 2]", "top.names.1 a string: the number 2"),
            ("names: a", "top.names a list, each entry a string: the string \"a\""),
            ("kind: third", "top.kind one of `first_kind`, `second_kind`: the string \"third\""),
            ("kind: {first_kind: ~}", "top.kind one of `first_kind`, `second_kind`: a mapping"),
            ("maybe: [1]", "top.maybe one of `first_kind`, `second_kind` or null: a list of 1"),
            ("on: yes", "top.on true or false: the string \"yes\""),
            ("rat: 1", "top.rat: did you mean `rate`?"),
            ("- 1", "top a mapping whose keys are names: a list of 1"),
        ] {
            assert_eq!(misfit(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_fits_is_read() {
        let text =
            "rate: 1\nsteps: ~\npair: [1, 2.5]\nrange: [0, 1]\nnames: [a]\nkind: second_kind\nmaybe: ~\non: true";
        let section: Section = read(&parse(text).unwrap()).unwrap();
        assert_eq!((section.rate, section.steps, section.pair, section.range), (1.0, None, [1.0, 2.5], (0.0, 1.0)));
        assert!(matches!((section.kind, section.maybe, section.on), (Kind::SecondKind, None, true)));
        assert_eq!(section.names, ["a"]);
    }
}
