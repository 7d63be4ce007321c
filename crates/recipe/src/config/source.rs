//! What a configuration was read from: its tree, with `--set` arguments applied, and where each key was written.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ConfigError;
use super::{Config, MaskConfig, MaskType, finetuning, overrides};
use crate::text::{self, TextError};
use crate::yaml::{self, Misfit, Node, Origin, Wrong};

/// The number of a setting that is no `--set`.
const NOWHERE: usize = usize::MAX;

/// What a configuration was read from, to say where a key was written.
pub(crate) struct ConfigSource<'a> {
    /// Its name in messages; empty for none.
    pub name: &'a str,
    pub overrides: &'a [String],
    pub root: Node,
}

impl ConfigSource<'_> {
    /// `"FILE, line N: "`, `"--set ...: "`, `"FILE: "` or empty.
    pub fn place(&self, key: &str) -> String {
        let set = |number: usize| self.overrides.get(number);
        match (self.name, self.root.origin_of(key)) {
            (_, Some(Origin::Set(number))) => {
                set(number).map_or(String::new(), |set| format!("--set {}: ", text::short(set, 200)))
            }
            ("", Some(Origin::Line(line))) => format!("line {line}: "),
            ("", None) => String::new(),
            (name, Some(Origin::Line(line))) => format!("{name}, line {line}: "),
            (name, None) => format!("{name}: "),
        }
    }

    /// A section without keys (`loss:`) is null to YAML.
    pub fn drop_empty_sections(&mut self) {
        match &mut self.root.value {
            yaml::Value::Null => self.root.value = yaml::Value::Map(Vec::new()),
            yaml::Value::Map(sections) => sections.retain(|(_, node)| node.value != yaml::Value::Null),
            _ => {}
        }
    }

    /// Of a fine-tuning run's file: puts its defaults, and those `given` before them, where the file gives nothing.
    pub fn underlay(&mut self, given: Option<&[String]>) -> Result<(), ConfigError> {
        if self.root.value == yaml::Value::Null {
            self.root.value = yaml::Value::Map(Vec::new());
        }
        let asked = given.is_some() || self.root.get("finetune").is_some();
        if !asked {
            return Ok(());
        }
        // That of a pre-training run has its learning rates and its folder.
        if self.root.get("finetune").is_none() {
            let rule = "a file for fine-tuning has this section; `finetune: {}` has the paper's settings";
            return Err(ConfigError::missing("finetune", rule).placed(|_| self.place("")));
        }
        let nothing = Node::from_json(&serde_json::json!({}), Origin::Line(0));
        // A section without keys is null to YAML.
        if self.root.at("finetune").is_none() {
            overrides::apply(&mut self.root, &nothing, "finetune={}", NOWHERE)?;
        }
        let own = finetuning::DEFAULTS.iter().map(|setting| (*setting).to_owned());
        let all: Vec<String> = given.unwrap_or_default().iter().cloned().chain(own).collect();
        let key = |setting: &str| setting.split('=').next().unwrap_or_default().to_owned();
        // Decided before anything is filled in, which gives a section all of its keys.
        let missing: Vec<&String> = all.iter().filter(|setting| !self.gives(&key(setting))).collect();
        for setting in missing {
            overrides::apply(&mut self.root, &nothing, setting, NOWHERE)?;
        }
        Ok(())
    }

    /// Whether the file or a `--set` gives a key; a default that a `--set` filled in beside another key is not given.
    pub fn is_given(&self, key: &str) -> bool {
        let within = |set: &str| key.strip_prefix(set).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.gives(key)
            && match self.root.origin_of(key) {
                None | Some(Origin::Line(0)) => false,
                Some(Origin::Line(_)) => true,
                Some(Origin::Set(number)) => self
                    .overrides
                    .get(number)
                    .and_then(|set| set.split('=').next())
                    .is_some_and(|set| within(set.trim())),
            }
    }

    /// Whether the tree has a key, be its value null.
    fn gives(&self, key: &str) -> bool {
        key.split('.').try_fold(&self.root, Node::get).is_some()
    }

    /// Applies the `--set` arguments in order; sections that the file leaves out start from `defaults`.
    pub fn override_with(&mut self, defaults: &Node) -> Result<(), ConfigError> {
        let overrides = self.overrides;
        let apply = |(number, argument): (usize, &String)| overrides::apply(&mut self.root, defaults, argument, number);
        overrides.iter().enumerate().try_for_each(apply)
    }

    /// The error for a misfit below the key `above`.
    pub fn misfit(&self, above: &str, misfit: Misfit) -> ConfigError {
        let key = misfit.key(above);
        let at = self.place(&key);
        let key = text::short(&key, 200);
        match misfit.wrong {
            Wrong::Unknown { nearest } => ConfigError::Unknown { at, key, nearest },
            Wrong::Type { expected, found } => {
                let key = if key.is_empty() { "the configuration".into() } else { key };
                ConfigError::Type { at, key, expected, found }
            }
        }
    }
}

/// The text of a configuration's file.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let text = text::read(path).map_err(|error| match error {
        TextError::Io(source) => {
            let elsewhere = if source.kind() == io::ErrorKind::NotFound { elsewhere(path) } else { String::new() };
            ConfigError::Read { path: path.into(), source, elsewhere }
        }
        TextError::Encoding(why) => ConfigError::Text { path: path.into(), why },
    })?;
    Ok(text.text)
}

/// What to say of a configuration that is not there: where one of that name is, else where it was looked for.
fn elsewhere(path: &Path) -> String {
    match (recipe_called(path), std::env::current_dir()) {
        (Some(recipe), _) => format!("; did you mean {}?", recipe.display()),
        (None, Ok(here)) if path.is_relative() => format!("; it was looked for in {}", here.display()),
        (None, _) => String::new(),
    }
}

/// A file of that name in `configs`, or in a folder of it, with its ending or without.
fn recipe_called(path: &Path) -> Option<PathBuf> {
    let configs = Path::new("configs");
    let inner =
        std::fs::read_dir(configs).ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    let mut inner: Vec<PathBuf> = inner.collect();
    inner.sort();
    let name = path.file_name()?;
    let within = |folder: &Path| [folder.join(name), folder.join(name).with_extension("yaml")];
    let all = std::iter::once(configs).chain(inner.iter().map(PathBuf::as_path)).flat_map(within);
    all.into_iter().find(|file| file.is_file())
}

/// Values as a tree.
pub(super) fn defaults_of(values: &impl Serialize) -> Result<Node, ConfigError> {
    let json = serde_json::to_value(values)
        .map_err(|error| ConfigError::Syntax { at: String::new(), message: error.to_string() })?;
    Ok(Node::from_json(&json, Origin::Line(0)))
}

/// The defaults as a tree; those of `mask` belong to the strategy that `root` names.
pub(super) fn defaults(root: &Node) -> Result<Node, ConfigError> {
    let named = root.at("data.mask_type").and_then(|node| yaml::read::<MaskType>(node).ok());
    // A file with images may leave their masks out, and a single one of their settings be changed.
    let img_mask = root.at("img_data").map(|_| MaskConfig::images());
    let config = Config { mask: MaskConfig::of(named.unwrap_or_default()), img_mask, ..Config::default() };
    defaults_of(&config)
}
