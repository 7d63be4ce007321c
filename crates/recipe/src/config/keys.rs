//! The reference of all keys, from the same structs that are read: type, default, documentation.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::{Config, ConfigError, FinetuneConfig, ImageDataConfig, MaskConfig, Sections};
use crate::masks::MaskType;
use crate::yaml::{self, Node, Value};

/// A key of a configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Key {
    /// `section.key`; those of mask generators are `mask.N.key`.
    pub path: String,
    /// What it accepts, to follow "must be".
    pub accepts: String,
    /// The default as `--set` takes it; none for the launcher's keys.
    pub default: Option<String>,
    /// What it means.
    pub doc: String,
    /// The words it accepts, where they are listed, each with its meaning.
    pub words: Vec<(String, String)>,
    /// True for a key that the official code does not have.
    pub ours: bool,
    /// Why the key changes nothing, where it is accepted for the sake of official files only.
    pub unread: Option<String>,
    /// The `data.mask_type` it belongs to.
    pub mask_type: Option<&'static str>,
}

/// A section: its name, its documentation, its keys in the order of the struct.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SectionKeys {
    /// Its name; empty for the official launcher's keys.
    pub name: String,
    /// What it is for.
    pub doc: String,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// All sections and keys.
pub fn sections() -> &'static [SectionKeys] {
    static SECTIONS: LazyLock<Vec<SectionKeys>> = LazyLock::new(build);
    &SECTIONS
}

/// The sections and keys that `asked` names: everything, a section (`optimization`), a key (`optimization.lr`,
/// `mask.0.num_blocks`).
///
/// # Errors
/// What was probably meant, where there is no such key.
pub fn explain(asked: &str) -> Result<Vec<SectionKeys>, String> {
    let plain = plain(asked);
    let chosen = |section: &SectionKeys| -> Option<SectionKeys> {
        if plain.is_empty() || section.name == plain {
            return Some(section.clone());
        }
        let keys: Vec<Key> = section.keys.iter().filter(|key| self::plain(&key.path) == plain).cloned().collect();
        (!keys.is_empty()).then(|| SectionKeys { keys, ..section.clone() })
    };
    let found: Vec<SectionKeys> = sections().iter().filter_map(chosen).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let of_section = plain.split_once('.').and_then(|(name, own)| Some((section_called(name)?, own)));
    let nearest = match of_section {
        Some((section, own)) => {
            let known: Vec<String> = section.keys.iter().map(|key| self::plain(&key.path)).collect();
            let known: Vec<&str> = known.iter().filter_map(|path| path.rsplit('.').next()).collect();
            yaml::nearest(own, &known).replacen(MEANT, &format!("{MEANT}{}.", section.name), 1)
        }
        None => {
            let names = sections().iter().map(|section| section.name.as_str());
            yaml::nearest(&plain, &names.filter(|name| !name.is_empty()).collect::<Vec<_>>())
        }
    };
    Err(format!("unknown key `{asked}`: {}", advised(&plain, nearest)))
}

/// How it begins to say which key was meant.
const MEANT: &str = "did you mean `";

fn section_called(name: &str) -> Option<&'static SectionKeys> {
    sections().iter().find(|section| !name.is_empty() && section.name == name)
}

/// The key of this name in any section, or the one that other programs call so: `lr` and `learning_rate` are `optimization.lr`.
pub fn key_called(name: &str) -> Option<&'static Key> {
    let of = |name: &str| {
        let same = |key: &&Key| plain(&key.path).rsplit('.').next() == Some(name);
        sections().iter().flat_map(|section| &section.keys).find(same)
    };
    of(name).or_else(|| of(yaml::called(name)?))
}

/// What is said of a key that is not there: what was meant, here or in another section, else where keys are explained.
fn advised(plain: &str, nearest: String) -> String {
    let (section, own) = plain.rsplit_once('.').unwrap_or(("", plain));
    let named = |key: &&Key| self::plain(&key.path).rsplit('.').next() == Some(own);
    // A mask's key is not looked for among those of other strategies.
    let elsewhere = key_called(own).filter(|key| key.mask_type.is_none() || !section.ends_with("mask"));
    if let Some(key) = elsewhere.filter(|key| named(key) || !nearest.starts_with(MEANT)) {
        return format!("{MEANT}{}`?", key.path);
    }
    if nearest.starts_with(MEANT) {
        return nearest;
    }
    let section = section_called(section).map_or_else(String::new, |section| format!(" {}", section.name));
    format!("{nearest}; see `vjepa config --explain{section}`")
}

/// Completes what is said of a key of a run's configuration that is not there.
pub(super) fn helped(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Unknown { at, key, nearest } => {
            let nearest = advised(&plain(&key), nearest);
            ConfigError::Unknown { at, key, nearest }
        }
        other => other,
    }
}

/// A key without the numbers of list entries: `mask.0.ratio` and `mask.N.ratio` are `mask.ratio`.
fn plain(path: &str) -> String {
    let step = |step: &&str| *step != "N" && step.parse::<usize>().is_err();
    path.split('.').filter(step).collect::<Vec<_>>().join(".")
}

fn build() -> Vec<SectionKeys> {
    let schema = yaml::schema::<Sections>();
    // With images, so that their sections are there.
    let with_images = Config {
        img_data: Some(ImageDataConfig::default()),
        img_mask: Some(MaskConfig::images()),
        finetune: Some(FinetuneConfig::default()),
        ..Config::default()
    };
    let defaults = yaml::parse(&with_images.to_yaml().unwrap_or_default());
    let Ok(Node { value: Value::Map(order), .. }) = defaults else { return Vec::new() };
    let mut sections: Vec<SectionKeys> =
        order.iter().map(|(name, defaults)| section(name, &schema, defaults)).collect();
    let launcher = super::LAUNCHER.iter().map(|&name| key(name.into(), property(&schema, name), None));
    sections.push(SectionKeys {
        name: String::new(),
        doc: "Keys of the official launcher.".into(),
        keys: launcher.collect(),
    });
    sections
}

fn section(name: &str, schema: &Json, defaults: &Node) -> SectionKeys {
    let schema = property(schema, name);
    let keys = match &defaults.value {
        Value::Map(entries) => entries
            .iter()
            .map(|(own, value)| key(format!("{name}.{own}"), property(schema, own), Some(value)))
            .collect(),
        _ => MaskType::all().flat_map(|kind| mask_keys(name, kind)).collect(),
    };
    SectionKeys { name: name.into(), doc: text(schema), keys }
}

/// The keys of a mask strategy's generators, with the defaults of an entry that gives none.
fn mask_keys(section: &str, kind: MaskType) -> Vec<Key> {
    let schema = kind.schema();
    let entry = yaml::parse("{}").and_then(|node| kind.read(&[node]).map_err(|_| String::new())).unwrap_or_default();
    let Some(Json::Object(defaults)) = entry.into_iter().next() else { return Vec::new() };
    let one = |(name, default): (String, Json)| {
        let default = Node::from_json(&default, yaml::Origin::Line(0));
        let key = key(format!("{section}.N.{name}"), property(&schema, &name), Some(&default));
        Key { mask_type: Some(kind.name()), ..key }
    };
    defaults.into_iter().map(one).collect()
}

fn key(path: String, schema: &Json, default: Option<&Node>) -> Key {
    let string = |name: &str| schema.get(name).and_then(Json::as_str).map(str::to_owned);
    Key {
        path,
        accepts: yaml::expected(schema),
        default: default.map(Node::to_string),
        doc: text(schema),
        words: words(schema),
        ours: schema.get("x-ours").is_some_and(|ours| ours == &Json::Bool(true)),
        unread: string("x-unread"),
        mask_type: None,
    }
}

fn property<'a>(schema: &'a Json, name: &str) -> &'a Json {
    static NONE: Json = Json::Null;
    schema.get("properties").and_then(|keys| keys.get(name)).unwrap_or(&NONE)
}

/// The documentation of a schema in one paragraph.
fn text(schema: &Json) -> String {
    let text = schema.get("description").and_then(Json::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The documented words of an enum.
fn words(schema: &Json) -> Vec<(String, String)> {
    let any = schema.get("anyOf").and_then(Json::as_array);
    if let Some(any) = any {
        return any.iter().flat_map(words).collect();
    }
    let variants = schema.get("oneOf").and_then(Json::as_array);
    let word = |variant: &Json| Some((variant.get("const")?.as_str()?.to_owned(), text(variant)));
    variants.into_iter().flatten().filter_map(word).collect()
}

/// The sections as tables in Markdown, for `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::new();
    for section in sections() {
        let title = if section.name.is_empty() { "Launcher" } else { &section.name };
        out += &format!("### {title}\n\n{}\n\n", section.doc);
        let mut groups: BTreeMap<Option<&str>, Vec<&Key>> = BTreeMap::new();
        for key in &section.keys {
            groups.entry(key.mask_type).or_default().push(key);
        }
        for (mask_type, keys) in groups {
            if let Some(name) = mask_type {
                out += &format!("Entries with `data.mask_type: {name}`:\n\n");
            }
            out += "| key | values | default | meaning |\n|---|---|---|---|\n";
            keys.into_iter().for_each(|key| out += &row(key));
            out += "\n";
        }
    }
    out
}

fn row(key: &Key) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let ours = if key.ours { " (ours)" } else { "" };
    let meaning = match &key.unread {
        Some(why) => format!("Accepted and not used: {why}."),
        None => key.doc.clone(),
    };
    let words: Vec<String> = key.words.iter().map(|(word, doc)| format!("`{word}`: {doc}")).collect();
    let words = if words.is_empty() { String::new() } else { format!(" {}", words.join(" ")) };
    let default = key.default.as_ref().map_or(String::new(), |default| format!("`{default}`"));
    let accepts = if key.words.is_empty() { cell(&key.accepts) } else { "a word".into() };
    format!("| `{}`{ours} | {accepts} | {} | {} |\n", key.path, cell(&default), cell(&(meaning + &words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str) -> Key {
        let mut found = explain(path).unwrap();
        assert_eq!((found.len(), found[0].keys.len()), (1, 1), "{path}");
        found.remove(0).keys.remove(0)
    }

    #[test]
    fn a_key_has_type_default_and_documentation() {
        let lr = one("optimization.lr");
        assert_eq!((lr.accepts.as_str(), lr.default.as_deref()), ("a finite number", Some("0.000625")));
        assert!(lr.doc.contains("learning rate") && !lr.ours && lr.unread.is_none());
        assert!(one("model.init").ours);
        assert_eq!(one("model.init").words.len(), 3);
        assert_eq!(one("data.normalization").default.as_deref(), Some("imagenet"));
        assert!(one("meta.use_sdpa").unread.is_some());
        assert_eq!(one("mask.0.ratio").mask_type, Some("random_tube"));
        assert_eq!(one("img_mask.0.num_blocks").mask_type, Some("multiblock3d"));
        assert!(one("meta.sync_gc").unread.is_some() && one("data.fps").unread.is_none());
    }

    #[test]
    fn every_key_is_documented() {
        for key in sections().iter().flat_map(|section| &section.keys) {
            assert!(!key.doc.is_empty() && !key.accepts.is_empty(), "{key:?}");
            assert!(!key.doc.contains("[`"), "a link of rustdoc in {}", key.path);
            assert!(key.words.iter().all(|(_, doc)| !doc.is_empty()), "{key:?}");
        }
        assert!(sections().iter().all(|section| !section.doc.is_empty() && !section.keys.is_empty()));
        assert_eq!(sections().len(), 12);
    }

    #[test]
    fn a_section_has_its_keys_and_an_unknown_one_a_suggestion() {
        assert_eq!(explain("loss").unwrap()[0].keys.len(), 9);
        assert_eq!(explain("").unwrap().len(), sections().len());
        let unknown = |path: &str| explain(path).unwrap_err();
        assert_eq!(
            unknown("optimization.warmpu"),
            "unknown key `optimization.warmpu`: did you mean `optimization.warmup`?"
        );
        assert_eq!(unknown("optimisation"), "unknown key `optimisation`: did you mean `optimization`?");
        assert_eq!(unknown("lr"), "unknown key `lr`: did you mean `optimization.lr`?");
        assert_eq!(unknown("data.lr"), "unknown key `data.lr`: did you mean `optimization.lr`?");
        assert_eq!(
            unknown("optimization.learning_rate"),
            "unknown key `optimization.learning_rate`: did you mean `optimization.lr`?"
        );
        assert_eq!(unknown("num_blocks"), "unknown key `num_blocks`: did you mean `mask.N.num_blocks`?");
        assert_eq!(unknown("data.max_epochs"), "unknown key `data.max_epochs`: did you mean `optimization.epochs`?");
        assert!(unknown("qqqqqqqqqqqqqqq").contains("known keys here are meta"));
        assert!(unknown("qqqqqqqqqqqqqqq").ends_with("; see `vjepa config --explain`"));
        let far = unknown("optimization.qqqqqqqqqqqqqqq");
        assert!(far.contains("known keys here are ") && far.contains("and "), "{far}");
        assert!(far.ends_with("; see `vjepa config --explain optimization`"), "{far}");
    }
}
