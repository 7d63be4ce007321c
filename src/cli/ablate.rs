//! `vjepa ablate`: a table of runs, one after another, each evaluated alike, and the table that comes of it.

mod commands;
mod dry;
mod evaluation;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use vjepa_data::DriftingTextures;
use vjepa_eval::protocols::textures::{Scores, Tasks, evaluate_encoder};
use vjepa_eval::write_atomic;
use vjepa_programs::{initial_weights, model_configs, objective};
use vjepa_recipe::ablation::{Ablation, AblationRun, AblationState, AblationTable};
use vjepa_recipe::config::Config;
use vjepa_runtime::files;
use vjepa_train::{Checkpoint, TrainProgress};
use vjepa_view::pictures::{Bar as Drawn, ablation};

use super::CliError;
use super::cost::positive;
use super::probe::Bar;
use super::train::Stopped;
use evaluation::{Evaluation, TextureFigure, has_textures, protocol};

/// Run a table of trainings that differ in a few settings, evaluate each alike, and compare
///
/// The table is YAML (configs/ablations, docs/ABLATIONS.md): a base configuration, rows of settings, seeds, evaluations. Runs
/// that are finished are kept in DIR/runs.json: run the same command again to continue.
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
    #[arg(long, default_value_t = 100.0, value_name = "TFLOPS", value_parser = positive)]
    speed: f64,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// The results as tables.
const TABLES: [&str; 2] = ["ablation.md", "ablation.csv"];
/// How the runs of a table are evaluated, by name.
type Evaluations<'a> = BTreeMap<&'a str, Evaluation>;

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let table = Ablation::from_file(&args.table)?;
    let runs = table.check()?;
    let evaluations: Evaluations<'_> = table
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
    let mut state = AblationState::read(&state_file)?;
    table.evaluations.iter().try_for_each(|name| dry::assumed(&table, name).map(drop))?;
    if args.dry_run {
        return dry::run((&table, &evaluations), &state, &runs, args.speed, args.json);
    }
    // Runs differ in their settings, not in what they are evaluated on.
    for (name, evaluation) in evaluations.iter().filter(|_| !runs.is_empty()) {
        let ready = runs.first().map_or(Ok(()), |(_, config)| evaluation.ready(config));
        ready.map_err(|error| format!("the evaluation `{name}`: {error}"))?;
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
        save(&AblationTable::of(&table, &state), &folder)?;
    }
    let result = AblationTable::of(&table, &state);
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
fn train(table: &Ablation, run: &AblationRun, config: &Config, folder: &Path) -> Result<PathBuf, CliError> {
    fs::create_dir_all(folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    if run.untrained {
        let weights = initial_weights(&config.model, &objective(config)?, config.meta.seed);
        let files = Checkpoint::new(folder, "initial");
        files.save(config, &TrainProgress::default(), &weights)?;
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
    evaluations: &Evaluations<'_>,
    config: &Config,
    encoder: &Path,
    folder: &Path,
) -> Result<BTreeMap<String, f64>, CliError> {
    // Figures of as many labels come of one run of the protocol.
    let mut textures: BTreeMap<usize, Tasks<Scores>> = BTreeMap::new();
    let mut figures = BTreeMap::new();
    for (name, evaluation) in evaluations {
        let figure = match evaluation {
            Evaluation::Textures { figure, labels } => {
                let scores = match textures.get(labels) {
                    Some(scores) => *scores,
                    None => {
                        let asked = |motion: bool| asked(evaluations, *labels, motion);
                        let attentive = Tasks { texture: asked(false), motion: asked(true) };
                        on_textures(config, encoder, *labels, attentive)?
                    }
                };
                textures.insert(*labels, scores);
                figure.of(&scores)?
            }
            Evaluation::Probe(arguments, _) => commands::probe(name, arguments, encoder, folder)?,
            Evaluation::Finetune(arguments, _) => commands::finetune(name, arguments, encoder, folder)?,
            Evaluation::Detect([train, eval], _) => commands::detect(name, [train, eval], encoder, folder)?,
        };
        figures.insert((*name).to_owned(), figure);
    }
    Ok(figures)
}

/// Whether the attentive figure of a task from so many labels is asked for.
fn asked(evaluations: &Evaluations<'_>, of: usize, motion: bool) -> bool {
    let wanted = TextureFigure { motion, attentive: true };
    let is =
        |one: &Evaluation| matches!(one, Evaluation::Textures { figure, labels } if (*figure, *labels) == (wanted, of));
    evaluations.values().any(is)
}

fn on_textures(
    config: &Config,
    encoder: &Path,
    labels: usize,
    attentive: Tasks<bool>,
) -> Result<Tasks<Scores>, CliError> {
    has_textures(config)?;
    let models = model_configs(config)?;
    let file = vjepa_weights::load(encoder)?;
    let weights = file.take_encoder(models.encoder.parameter_shapes())?;
    let protocol = protocol(config.meta.seed, labels, attentive);
    let source = DriftingTextures::of(&config.data);
    let mut bar = Bar::default();
    let scores = evaluate_encoder(&models.encoder, &weights, &source, &protocol, &mut |p| bar.show(p))?;
    bar.clear();
    Ok(scores)
}

/// Writes the results so far.
fn save(table: &AblationTable, folder: &Path) -> Result<(), CliError> {
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
