//! `vjepa ablate`: a table of runs, one after another, each evaluated alike, and the table that comes of it.

mod commands;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use vjepa_data::DriftingTextures;
use vjepa_eval::protocols::textures::{Scores, Tasks, TextureProtocol, evaluate_encoder};
use vjepa_eval::write_atomic;
use vjepa_programs::{Passes, initial_weights, model_configs, objective};
use vjepa_recipe::ablation::{Ablation, Run, State, Table};
use vjepa_recipe::config::{Config, DatasetType};
use vjepa_runtime::files;
use vjepa_runtime::plan::Device;
use vjepa_train::{Checkpoint, Progress};
use vjepa_view::pictures::{Bar as Drawn, ablation};

use super::CliError;
use super::dry_run::Cost;
use super::probe::Bar;
use super::train::Stopped;

/// Run a table of trainings that differ in a few settings, evaluate each alike, and compare
///
/// The table is YAML (configs/ablations, docs/ABLATIONS.md): a base configuration, rows of settings, seeds, evaluations. Runs that
/// are finished are kept in DIR/runs.json: run the same command again to continue.
#[derive(clap::Args)]
pub struct Args {
    /// The table
    #[arg(value_name = "FILE")]
    table: PathBuf,
    /// Folder of the runs and of the results [default: ablations/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say what would be run, with memory, arithmetic and hours, without running it
    #[arg(long)]
    dry_run: bool,
    /// Speed assumed for the hours of --dry-run, in TFLOP/s actually reached
    #[arg(long, default_value_t = 100.0, value_name = "TFLOPS")]
    speed: f64,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// A figure of the protocol on drifting textures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TextureFigure {
    motion: bool,
    attentive: bool,
}

impl TextureFigure {
    fn of(self, scores: &Tasks<Scores>) -> Result<f64, CliError> {
        let of = if self.motion { scores.motion } else { scores.texture };
        match self.attentive {
            true => Ok(of.attentive.ok_or("the attentive probe has no figure")?),
            false => Ok(of.linear),
        }
    }
}

/// The results as tables.
const TABLES: [&str; 2] = ["ablation.md", "ablation.csv"];
/// Labels a class that the protocol's clips surely have.
const MOST_LABELS: usize = 100;

/// How a run is evaluated.
#[derive(Clone, Debug, PartialEq)]
enum Evaluation {
    /// A figure of the protocol on drifting textures.
    Textures { figure: TextureFigure, labels: usize },
    /// `vjepa probe` with these arguments: top-1 on its validation samples, else on its training samples.
    Probe(Vec<String>),
    /// `vjepa finetune` with these arguments: top-1 of its test.
    Finetune(Vec<String>),
    /// `vjepa detect train` with the first of these arguments and `vjepa detect eval` with the others: mean average precision.
    Detect(Vec<String>, Vec<String>),
}

impl Evaluation {
    const WORDS: &'static str = "`texture`, `motion`, `texture attentive`, `motion attentive`, each with `labels=N` if wanted, `probe` with arguments of \
         `vjepa probe`, `finetune` with arguments of `vjepa finetune`, or `detect` with arguments of `vjepa detect train`, \
         `--` and arguments of `vjepa detect eval`";

    fn read(name: &str, command: &[String]) -> Result<Self, CliError> {
        let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
        let arguments = || command.get(1..).unwrap_or_default().to_vec();
        match words.first() {
            Some(&"probe") => return Ok(Self::Probe(arguments())),
            Some(&"finetune") => return Ok(Self::Finetune(arguments())),
            Some(&"detect") => {
                let arguments = arguments();
                let halves: Vec<&[String]> = arguments.split(|word| word == "--").collect();
                return match halves[..] {
                    [train, eval] => Ok(Self::Detect(train.to_vec(), eval.to_vec())),
                    _ => Err(format!(
                        "the evaluation `{name}` trains a detector and evaluates it: write arguments of `vjepa detect train`, one \
                         `--`, and arguments of `vjepa detect eval`"
                    )
                    .into()),
                };
            }
            _ => {}
        }
        let unknown = || CliError::from(format!("the evaluation `{name}` is not known: write one of {}", Self::WORDS));
        let labels = match words.last().and_then(|word| word.strip_prefix("labels=")) {
            None => TextureProtocol::recipe(0).labels_per_class,
            Some(number) => {
                let labels = number.parse().ok().filter(|labels| (1..=MOST_LABELS).contains(labels));
                words.pop();
                labels.ok_or_else(|| {
                    format!("the evaluation `{name}` takes 1 to {MOST_LABELS} labels a class, not `{number}`")
                })?
            }
        };
        let (motion, attentive) = match words.as_slice() {
            ["texture"] => (false, false),
            ["motion"] => (true, false),
            ["texture", "attentive"] => (false, true),
            ["motion", "attentive"] => (true, true),
            _ => return Err(unknown()),
        };
        Ok(Self::Textures { figure: TextureFigure { motion, attentive }, labels })
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let table = Ablation::from_file(&args.table)?;
    let runs = table.check()?;
    let evaluations: BTreeMap<&str, Evaluation> = table
        .evaluations
        .iter()
        .map(|name| {
            let command = table.commands.get(name).map(Vec::as_slice).unwrap_or_default();
            Ok((name.as_str(), Evaluation::read(name, command)?))
        })
        .collect::<Result<_, CliError>>()?;
    let files: BTreeMap<String, &String> = table.evaluations.iter().map(|name| (file_name(name), name)).collect();
    if let Some(name) = table.evaluations.iter().find(|name| files.get(&file_name(name)) != Some(name)) {
        let other = files.get(&file_name(name)).map_or("", |other| other.as_str());
        return Err(
            format!("the evaluations `{name}` and `{other}` would share their files: give one another name").into()
        );
    }
    let folder = args.out.clone().unwrap_or_else(|| Path::new("ablations").join(&table.name));
    let state_file = folder.join("runs.json");
    let written = [&state_file, &folder.join(TABLES[0]), &folder.join(TABLES[1])];
    files::spare("--out", &folder, &written, [args.table.as_path(), table.base.as_path()])?;
    let mut state = State::read(&state_file)?;
    if args.dry_run {
        return dry_run(args, &table, &state, &runs);
    }
    for (number, (run, config)) in runs.iter().enumerate() {
        if state.finished(&table, run, config)? {
            continue;
        }
        eprintln!("run {} of {}: {}", number + 1, runs.len(), run.id);
        let began = Instant::now();
        let own = folder.join("runs").join(&run.id);
        let encoder = train(&table, run, config, &own)?;
        let figures = evaluate(&evaluations, config, &encoder, &own)?;
        state.finish(run, config, figures, began.elapsed().as_secs_f64())?;
        state.write(&state_file)?;
        save(&Table::of(&table, &state), &folder)?;
    }
    let result = Table::of(&table, &state);
    save(&result, &folder)?;
    match args.json {
        true => println!("{}", serde_json::to_string(&result)?),
        false => {
            print!("{}\nwritten to {}: ablation.md, ablation.csv, pictures\n", result.to_markdown(), folder.display())
        }
    }
    Ok(())
}

/// Trains in a process of its own, from the last checkpoint if there is one, so that what goes wrong ends that run alone. A row
/// that is not trained gets the first weights.
fn train(table: &Ablation, run: &Run, config: &Config, folder: &Path) -> Result<PathBuf, CliError> {
    fs::create_dir_all(folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    if run.untrained {
        let weights = initial_weights(&config.model, &objective(config)?, config.meta.seed);
        let files = Checkpoint::new(folder, "initial");
        files.save(config, &Progress::default(), &weights)?;
        return Ok(files.latest());
    }
    let files = Checkpoint::new(folder, &config.logging.write_tag);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("train").arg("--config").arg(&table.base);
    for set in &run.set {
        command.arg("--set").arg(set);
    }
    command.arg("--set").arg(format!("logging.folder={}", serde_json::to_string(folder)?));
    if files.any().is_some() {
        command.arg("--resume");
    }
    let output = command.arg("--json").stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| format!("the run `{}` cannot be started: {error}", run.id))?;
    if output.status.code() == Some(i32::from(Stopped::CODE)) {
        return Err(Stopped.into());
    }
    // The last line is the summary.
    let lines = String::from_utf8_lossy(&output.stdout);
    let summary: Option<serde_json::Value> = lines.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let whole = summary.is_some_and(|summary| summary["interrupted"] == false);
    match (output.status.success() && whole, files.any()) {
        (true, Some(checkpoint)) => Ok(checkpoint),
        _ => Err(format!(
            "the run `{}` did not end ({}): what it says stands above; finished runs are kept: run the same command again to continue",
            run.id, output.status
        )
        .into()),
    }
}

/// Every figure of a run.
fn evaluate(
    evaluations: &BTreeMap<&str, Evaluation>,
    config: &Config,
    encoder: &Path,
    folder: &Path,
) -> Result<BTreeMap<String, f64>, CliError> {
    // Figures of as many labels come of one run of the protocol.
    let mut textures: BTreeMap<usize, Tasks<Scores>> = BTreeMap::new();
    let asked = |of: usize, motion: bool| {
        let wanted = TextureFigure { motion, attentive: true };
        evaluations
            .values()
            .any(|one| matches!(one, Evaluation::Textures { figure, labels } if (*figure, *labels) == (wanted, of)))
    };
    let mut figures = BTreeMap::new();
    for (name, evaluation) in evaluations {
        let figure = match evaluation {
            Evaluation::Textures { figure, labels } => {
                let scores = match textures.get(labels) {
                    Some(scores) => *scores,
                    None => {
                        let attentive = Tasks { texture: asked(*labels, false), motion: asked(*labels, true) };
                        on_textures(config, encoder, *labels, attentive)?
                    }
                };
                textures.insert(*labels, scores);
                figure.of(&scores)?
            }
            Evaluation::Probe(arguments) => commands::probe(name, arguments, encoder, folder)?,
            Evaluation::Finetune(arguments) => commands::finetune(name, arguments, encoder, folder)?,
            Evaluation::Detect(train, eval) => commands::detect(name, [train, eval], encoder, folder)?,
        };
        figures.insert((*name).to_owned(), figure);
    }
    Ok(figures)
}

fn on_textures(
    config: &Config,
    encoder: &Path,
    labels: usize,
    attentive: Tasks<bool>,
) -> Result<Tasks<Scores>, CliError> {
    if config.data.dataset_type != DatasetType::DriftingTextures {
        return Err("`texture` and `motion` evaluate runs on drifting textures: use `probe` for videos".into());
    }
    let models = model_configs(config)?;
    let file = vjepa_weights::load(encoder)?;
    let weights = file.take_encoder(models.encoder.parameter_shapes())?;
    let protocol = TextureProtocol::recipe(config.meta.seed);
    // Tokens are kept for attentive probes alone.
    let attentive_draws = if attentive.texture || attentive.motion { protocol.attentive_draws } else { 0 };
    let protocol =
        TextureProtocol { attentive_draws, attentive_tasks: attentive, labels_per_class: labels, ..protocol };
    let source = DriftingTextures::of(&config.data);
    let mut bar = Bar::default();
    let scores = evaluate_encoder(&models.encoder, &weights, &source, &protocol, &mut |p| bar.show(p))?;
    bar.clear();
    Ok(scores)
}

/// Writes the results so far.
fn save(table: &Table, folder: &Path) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    write_atomic(&folder.join(TABLES[0]), table.to_markdown().as_bytes())?;
    write_atomic(&folder.join(TABLES[1]), table.to_csv().as_bytes())?;
    for (column, evaluation) in table.evaluations.iter().enumerate() {
        let bar = |row: &vjepa_recipe::ablation::TableRow| Drawn {
            name: row.name.clone(),
            figure: row.figures.get(column).copied().flatten().map(|figure| (figure.mean, figure.se)),
            published: row.reference.get(column).copied().flatten(),
        };
        let bars: Vec<Drawn> = table.rows.iter().map(bar).collect();
        let least = table.rows.iter().map(|row| row.runs).min().unwrap_or(0);
        let seeds = match table.seeds {
            1 => "one seed".to_owned(),
            seeds if least < seeds => format!("mean and standard error, {least} of {seeds} seeds of every row so far"),
            seeds => format!("mean and standard error of {seeds} seeds"),
        };
        let picture = ablation(&table.name, &format!("{evaluation}, {seeds}"), &bars);
        picture.save(&folder.join(format!("ablation-{}.png", file_name(evaluation))))?;
    }
    Ok(())
}

/// An evaluation's name as part of a file's.
fn file_name(evaluation: &str) -> String {
    evaluation.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// What would be run: costs once for each row, as seeds do not matter.
fn dry_run(args: &Args, table: &Ablation, state: &State, runs: &[(Run, Config)]) -> Result<(), CliError> {
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err("--speed must be positive".into());
    }
    let mut costs: BTreeMap<&str, Option<Cost>> = BTreeMap::new();
    let mut hours = 0.0;
    for (run, config) in runs {
        if !costs.contains_key(run.row.as_str()) {
            let cost = if run.untrained {
                None
            } else {
                Some(Cost::of(config, None, &mut Passes::default(), Device::default())?)
            };
            costs.insert(&run.row, cost);
        }
        if !state.runs.contains_key(&run.id) {
            let cost = costs.get(run.row.as_str()).and_then(Option::as_ref);
            hours += cost.and_then(|cost| cost.hours(args.speed)).unwrap_or(0.0);
        }
    }
    let about = |run: &Run| match costs.get(run.row.as_str()).and_then(Option::as_ref) {
        None => Some("first weights, not trained".to_owned()),
        Some(cost) => Some(cost.in_words(args.speed)),
    };
    print!("{}", table.dry_run(state, about));
    println!("in all {hours:.1} hours of training at {} TFLOP/s, evaluations not included", args.speed);
    Ok(())
}
