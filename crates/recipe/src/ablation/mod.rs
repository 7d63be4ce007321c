//! Ablations: a table of runs that differ in a few settings, each from several seeds, each evaluated alike.
//!
//! ```yaml
//! name: strategies
//! base: tiny.yaml                  # a run's configuration, beside this file
//! set: [optimization.epochs=2]     # for every row
//! seeds: 3                         # seeds 0, 1, 2; or a list
//! evaluations: [textures]          # words of whoever runs the table, or {name: probe, run: [words with their settings]}
//! rows:
//!   - name: multi-block
//!     set: [data.mask_type=multiblock3d]
//!     reference: {textures: 72.9}  # what a paper reports, printed beside
//!   - name: tube
//!     set: [data.mask_type=random_tube]
//!   - name: random
//!     untrained: true              # the first weights
//! orderings:
//!   - [multi-block, tube]          # best first, by the first evaluation unless `by` names another
//!   - {row: tube, evaluations: [attentive, average]}   # evaluations of one row, best first
//! ```
//!
//! Settings are those of `--set`, read and checked like them before anything runs. [`Ablation::runs`] are the runs in their order;
//! [`AblationState`] keeps what they gave, so that a table goes on where it was stopped; [`AblationTable`] is what comes of it.
//! Running is the caller's: nothing here trains.

mod state;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use state::{AblationState, Outcome};
pub use table::{AblationTable, Ordering, TableRow, Verdict};

use crate::config::{Config, ConfigError, ConfigSource, read_text};
use crate::yaml;

/// Most runs of a table; more are a slip.
const MOST_RUNS: usize = 10_000;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum AblationError {
    /// The table or a run's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A row whose settings are not accepted.
    #[error("row `{row}`: {error}")]
    Row {
        /// The row.
        row: String,
        /// What is wrong with its configuration.
        error: ConfigError,
    },
    /// What the table says does not fit together.
    #[error("{at}{why}")]
    Table {
        /// `"FILE: "` or `"FILE, line N: "`.
        at: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The record of what was run.
    #[error("{}: {why}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

/// A table of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ablation {
    /// Its name.
    pub name: String,
    /// The configuration that every run starts from.
    pub base: PathBuf,
    /// Seeds of every row.
    pub seeds: Vec<u64>,
    /// The names of the figures that every run is evaluated by.
    pub evaluations: Vec<String>,
    /// What is run for each of them, in words of whoever runs the table.
    pub commands: BTreeMap<String, Vec<String>>,
    /// Numbers of samples, by evaluation, for reckoning its cost where its lists are not at hand.
    pub assumed: BTreeMap<String, BTreeMap<String, u64>>,
    /// The rows.
    pub rows: Vec<AblationRow>,
    /// Expectations: rows, best first.
    pub orderings: Vec<Expected>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AblationRow {
    /// Its name.
    pub name: String,
    /// Its settings, those of the whole table first.
    pub set: Vec<String>,
    /// Whether its runs are first weights that nothing trains.
    pub untrained: bool,
    /// Published figures by evaluation.
    pub reference: BTreeMap<String, f64>,
}

/// What is expected to be better than what.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Expected {
    /// Rows by one evaluation.
    Rows {
        /// Names of rows, best first.
        rows: Vec<String>,
        /// The evaluation that decides.
        by: String,
    },
    /// Evaluations of one row.
    Evaluations {
        /// The row.
        row: String,
        /// Names of evaluations, best first.
        evaluations: Vec<String>,
    },
}

/// One run: a row with a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AblationRun {
    /// Name of its folder: the row in letters that every file system takes, and the seed.
    pub id: String,
    /// The row.
    pub row: String,
    /// The seed.
    pub seed: u64,
    /// All its `--set` arguments.
    pub set: Vec<String>,
    /// Whether it is first weights that nothing trains.
    pub untrained: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Written {
    name: Option<String>,
    base: Option<String>,
    set: Vec<String>,
    seeds: Option<Seeds>,
    evaluations: Vec<WrittenEvaluation>,
    rows: Vec<WrittenRow>,
    orderings: Vec<WrittenOrdering>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("x-expected" = "a number of seeds or a list of them"))]
enum Seeds {
    Count(u64),
    List(Vec<u64>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("x-expected" = "the name of a figure, or a mapping with `name`, `run` and at will `assume` (whole numbers by name)"))]
enum WrittenEvaluation {
    Plain(String),
    Named {
        name: String,
        run: Vec<Word>,
        #[serde(default)]
        assume: BTreeMap<String, u64>,
    },
}

/// A word of a command: YAML reads `--epochs, 2` as a string and a number.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Word {
    Text(String),
    Whole(i64),
    Number(f64),
    Truth(bool),
}

impl Word {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrittenRow {
    name: String,
    set: Vec<String>,
    untrained: bool,
    reference: BTreeMap<String, f64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("x-expected" = "a list of rows, best first, or a mapping with `rows` and `by`, or `row` and `evaluations`"))]
enum WrittenOrdering {
    Plain(Vec<String>),
    By { rows: Vec<String>, by: String },
    Evaluations { row: String, evaluations: Vec<String> },
}

impl Ablation {
    /// Reads a table. Its base lies beside it unless the path says otherwise.
    ///
    /// # Errors
    /// [`AblationError`] naming the file and the line. Configurations of runs are checked by [`Ablation::check`].
    pub fn from_file(path: &Path) -> Result<Self, AblationError> {
        let mut table = Self::from_yaml(&read_text(path)?, &path.display().to_string())?;
        if let Some(folder) = path.parent() {
            table.base = folder.join(&table.base);
        }
        Ok(table)
    }

    /// Reads a text. `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`Ablation::from_file`].
    pub fn from_yaml(text: &str, name: &str) -> Result<Self, AblationError> {
        let at = format!("{name}: ");
        let root = yaml::parse(text).map_err(|message| ConfigError::Syntax { at, message })?;
        let source = ConfigSource { name, overrides: &[], root };
        let written: Written = yaml::read(&source.root).map_err(|misfit| source.misfit("", misfit))?;
        let fail = |key: &str, why: String| AblationError::Table { at: source.place(key), why };
        let seeds = match written.seeds.unwrap_or(Seeds::Count(1)) {
            Seeds::Count(count) => (0..count.min(MOST_RUNS as u64 + 1)).collect(),
            Seeds::List(list) => list,
        };
        let distinct: BTreeSet<&u64> = seeds.iter().collect();
        if seeds.is_empty() || distinct.len() != seeds.len() {
            return Err(fail("seeds", "`seeds` must be at least one, each once: write 3, or [0, 1, 2]".into()));
        }
        if written.rows.len().saturating_mul(seeds.len()) > MOST_RUNS {
            return Err(fail("rows", format!("more than {MOST_RUNS} runs: take fewer rows or seeds")));
        }
        let Some(base) = written.base.filter(|base| !base.trim().is_empty()) else {
            return Err(fail("base", "`base` is missing: name the configuration that every run starts from".into()));
        };
        let mut evaluations = Vec::new();
        let (mut commands, mut assumed) = (BTreeMap::new(), BTreeMap::new());
        for evaluation in written.evaluations {
            let (name, run, assume) = match evaluation {
                WrittenEvaluation::Named { name, run, assume } => {
                    (name, run.into_iter().map(Word::into_text).collect(), assume)
                }
                WrittenEvaluation::Plain(name) => {
                    let run = name.split_whitespace().map(str::to_owned).collect();
                    (name, run, BTreeMap::new())
                }
            };
            assumed.insert(name.clone(), assume);
            if commands.insert(name.clone(), run).is_some() {
                return Err(fail(
                    "evaluations",
                    format!("`{name}` stands twice: give each evaluation a name of its own"),
                ));
            }
            evaluations.push(name);
        }
        let Some(first) = evaluations.first().cloned() else {
            return Err(fail("evaluations", "`evaluations` is empty: name at least one figure to compare".into()));
        };
        let rows = rows(written.rows, &written.set, &evaluations, &fail)?;
        let mut orderings = Vec::new();
        for (number, ordering) in written.orderings.into_iter().enumerate() {
            let expected = match ordering {
                WrittenOrdering::Plain(rows) => Expected::Rows { rows, by: first.clone() },
                WrittenOrdering::By { rows, by } => Expected::Rows { rows, by },
                WrittenOrdering::Evaluations { row, evaluations } => Expected::Evaluations { row, evaluations },
            };
            expected.check(&rows, &evaluations).map_err(|why| fail(&format!("orderings.{number}"), why))?;
            orderings.push(expected);
        }
        let name = written.name.unwrap_or_else(|| "ablation".into());
        Ok(Self { name, base: base.into(), seeds, evaluations, commands, assumed, rows, orderings })
    }

    /// All runs: the first seed of every row, then the second, so that a table that is stopped has something of each row.
    pub fn runs(&self) -> Vec<AblationRun> {
        let run = |seed: u64, row: &AblationRow| AblationRun {
            // Figures of first weights are not taken for those of a training.
            id: format!("{}{}-seed{seed}", slug(&row.name), if row.untrained { "-untrained" } else { "" }),
            row: row.name.clone(),
            seed,
            set: row.set.iter().cloned().chain([format!("meta.seed={seed}")]).collect(),
            untrained: row.untrained,
        };
        self.seeds.iter().flat_map(|seed| self.rows.iter().map(|row| run(*seed, row))).collect()
    }

    /// The configuration of a run; `base` is the text of [`Ablation::base`].
    ///
    /// # Errors
    /// [`AblationError::Row`] naming the row and its setting.
    pub fn config(&self, base: &str, run: &AblationRun) -> Result<Config, AblationError> {
        Config::from_yaml(base, &self.base.display().to_string(), &run.set)
            .map_err(|error| AblationError::Row { row: run.row.clone(), error })
    }

    /// Reads the base and checks the configuration of every run, so that none of them fails after hours for a slip.
    ///
    /// # Errors
    /// [`AblationError`]: the base cannot be read, or a row's settings are not accepted.
    pub fn check(&self) -> Result<Vec<(AblationRun, Config)>, AblationError> {
        let base = read_text(&self.base)?;
        let checked = |run: AblationRun| self.config(&base, &run).map(|config| (run, config));
        self.runs().into_iter().map(checked).collect()
    }
}

fn rows(
    written: Vec<WrittenRow>,
    set: &[String],
    evaluations: &[String],
    fail: &impl Fn(&str, String) -> AblationError,
) -> Result<Vec<AblationRow>, AblationError> {
    if written.is_empty() {
        return Err(fail("rows", "`rows` is empty: write at least one, with a `name` and its `set`".into()));
    }
    let mut slugs = BTreeMap::new();
    let mut rows = Vec::with_capacity(written.len());
    for (number, row) in written.into_iter().enumerate() {
        let key = |key: &str| format!("rows.{number}.{key}");
        if slug(&row.name).is_empty() {
            return Err(fail(&key("name"), "a row needs a `name` of letters or digits".into()));
        }
        if let Some(other) = slugs.insert(slug(&row.name), row.name.clone()) {
            return Err(fail(&key("name"), format!("`{}` has the folder of the row `{other}`: rename one", row.name)));
        }
        if let Some(seed) = row.set.iter().chain(set).find(|set| set.trim_start().starts_with("meta.seed")) {
            return Err(fail(&key("set"), format!("`{seed}`: seeds are those of the table, write them as `seeds`")));
        }
        if let Some(name) = row.reference.keys().find(|name| !evaluations.contains(name)) {
            let why = format!("`{name}` is none of the evaluations ({})", evaluations.join(", "));
            return Err(fail(&key("reference"), why));
        }
        let set = set.iter().cloned().chain(row.set).collect();
        rows.push(AblationRow { name: row.name, set, untrained: row.untrained, reference: row.reference });
    }
    Ok(rows)
}

impl Expected {
    /// Checks that what it names is there.
    fn check(&self, known: &[AblationRow], evaluations: &[String]) -> Result<(), String> {
        let row = |name: &String| match known.iter().any(|row| row.name == *name) {
            true => Ok(()),
            false => Err(format!("there is no row `{name}`: write the names of rows, best first")),
        };
        let evaluation = |name: &String| match evaluations.contains(name) {
            true => Ok(()),
            false => Err(format!("`{name}` is not one of the evaluations ({})", evaluations.join(", "))),
        };
        let compared = match self {
            Self::Rows { rows, by } => {
                rows.iter().try_for_each(row)?;
                evaluation(by)?;
                rows
            }
            Self::Evaluations { row: name, evaluations } => {
                row(name)?;
                evaluations.iter().try_for_each(evaluation)?;
                evaluations
            }
        };
        if compared.len() < 2 { Err("an ordering needs two or more to compare".into()) } else { Ok(()) }
    }
}

/// A name in small letters, digits and hyphens.
fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests;
