//! `vjepa ablate --dry-run`: what would be run, and what it would cost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use vjepa_eval::protocols::textures::Tasks;
use vjepa_programs::{Passes, encoder_config};
use vjepa_recipe::ablation::{Ablation, AblationRun, AblationState};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::Device;

use super::evaluation::{Evaluation, protocol};
use super::{Evaluations, asked};
use crate::cli::CliError;
use crate::cli::cost::{Assumed, Bill};
use crate::cli::dry_run::Cost;

/// What each evaluation costs, by name.
type Bills = Vec<(String, Bill)>;

/// The costs of the runs of a row, which its seeds share.
struct Row {
    /// None of a row that is not trained.
    training: Option<Cost>,
    /// Of each evaluation; figures that come of one pass over the same clips stand together.
    bills: Bills,
}

impl Row {
    fn evaluating(&self, speed: f64) -> f64 {
        self.bills.iter().map(|(_, bill)| bill.hours(speed)).sum()
    }

    fn training(&self, speed: f64) -> f64 {
        self.training.as_ref().and_then(|cost| cost.hours(speed)).unwrap_or(0.0)
    }
}

/// Prints it.
pub(super) fn run(
    (table, evaluations): (&Ablation, &Evaluations<'_>),
    state: &AblationState,
    runs: &[(AblationRun, Config)],
    speed: f64,
    json: bool,
) -> Result<(), CliError> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    // Most rows have the same encoder.
    let mut known: BTreeMap<String, Bills> = BTreeMap::new();
    for (run, config) in runs {
        if rows.contains_key(run.row.as_str()) {
            continue;
        }
        let training = match run.untrained {
            true => None,
            false => Some(Cost::of(config, None, &mut Passes::default(), Device::default())?),
        };
        let key = format!("{:?} {:?}", encoder_config(config)?, config.preprocessing());
        let bills = match known.get(&key) {
            Some(bills) => bills.clone(),
            None => bills(table, evaluations, config)?,
        };
        known.insert(key, bills.clone());
        rows.insert(&run.row, Row { training, bills });
    }
    let mut hours = [0.0; 2];
    for row in runs
        .iter()
        .filter(|(run, _)| !state.runs.contains_key(&run.id))
        .filter_map(|(run, _)| rows.get(run.row.as_str()))
    {
        hours[0] += row.training(speed);
        hours[1] += row.evaluating(speed);
    }
    match json {
        true => println!("{}", machines(table, state, runs, &rows, (speed, hours))),
        false => people(table, state, &rows, (speed, hours)),
    }
    Ok(())
}

/// What all evaluations of a run cost.
fn bills(table: &Ablation, evaluations: &Evaluations<'_>, config: &Config) -> Result<Bills, CliError> {
    let mut bills = Vec::new();
    let mut textures = BTreeSet::new();
    for name in &table.evaluations {
        let Some(evaluation) = evaluations.get(name.as_str()) else { continue };
        let (mut names, mut attentive) = (name.clone(), Tasks { texture: false, motion: false });
        let mut labels = 0;
        if let Evaluation::Textures { labels: own, .. } = evaluation {
            labels = *own;
            if !textures.insert(labels) {
                continue;
            }
            let same = |other: &&String| match evaluations.get(other.as_str()) {
                Some(Evaluation::Textures { labels, .. }) => labels == own,
                _ => false,
            };
            names = table.evaluations.iter().filter(same).cloned().collect::<Vec<_>>().join(", ");
            attentive = Tasks { texture: asked(evaluations, labels, false), motion: asked(evaluations, labels, true) };
        }
        let assumed = assumed(table, name)?;
        let bill = evaluation.bill(config, assumed, &protocol(0, labels.max(1), attentive));
        bills.push((names, bill.map_err(|error| format!("the evaluation `{name}`: {error}"))?));
    }
    Ok(bills)
}

/// What the table says of lists that may not be here.
pub(super) fn assumed(table: &Ablation, name: &str) -> Result<Assumed, CliError> {
    let mut assumed = Assumed::default();
    for (key, number) in table.assumed.get(name).into_iter().flatten() {
        assumed
            .take(&format!("{key}={number}"))
            .map_err(|why| format!("`assume` of the evaluation `{name}`: {why}"))?;
    }
    Ok(assumed)
}

fn people(
    table: &Ablation,
    state: &AblationState,
    rows: &BTreeMap<&str, Row>,
    (speed, [training, evaluating]): (f64, [f64; 2]),
) {
    let about = |run: &AblationRun| match rows.get(run.row.as_str()).and_then(|row| row.training.as_ref()) {
        None => Some("first weights, not trained".to_owned()),
        Some(cost) => Some(cost.in_words(speed)),
    };
    print!("{}", table.dry_run(state, about));
    // Rows whose evaluations cost the same stand together.
    let mut distinct: Vec<(Vec<&str>, &Bills)> = Vec::new();
    for row in &table.rows {
        let Some(own) = rows.get(row.name.as_str()) else { continue };
        match distinct.iter_mut().find(|(_, bills)| **bills == own.bills) {
            Some((names, _)) => names.push(&row.name),
            None => distinct.push((vec![&row.name], &own.bills)),
        }
    }
    let several = distinct.len() > 1;
    for (names, bills) in distinct {
        match several {
            true => println!("evaluations of each run of {}:", names.join(", ")),
            false => println!("evaluations of each run:"),
        }
        for (name, bill) in bills {
            println!("  {name}: {}", bill.in_words(speed));
            bill.lines(speed).iter().for_each(|line| println!("    {line}"));
        }
    }
    let left = rows.values().flat_map(|row| &row.bills).any(|(_, bill)| !bill.not_counted.is_empty());
    let left = if left { ", without what is not counted above" } else { "" };
    println!(
        "in all {:.1} hours at {speed} TFLOP/s: {training:.1} of training and {evaluating:.1} of evaluations{left}",
        training + evaluating
    );
}

fn machines(
    table: &Ablation,
    state: &AblationState,
    runs: &[(AblationRun, Config)],
    rows: &BTreeMap<&str, Row>,
    (speed, [training, evaluating]): (f64, [f64; 2]),
) -> serde_json::Value {
    let each = runs.iter().map(|(run, _)| {
        let row = rows.get(run.row.as_str());
        let evaluations: BTreeMap<&str, serde_json::Value> =
            row.into_iter().flat_map(|row| &row.bills).map(|(name, bill)| (name.as_str(), bill.json(speed))).collect();
        json!({
            "run": run.id, "row": run.row, "seed": run.seed, "finished": state.runs.contains_key(&run.id),
            "training": row.and_then(|row| row.training.as_ref()).map(|cost| cost.json(speed)), "evaluations": evaluations,
        })
    });
    json!({
        "dry_run": true, "name": table.name, "speed": speed, "runs": each.collect::<Vec<_>>(),
        "hours_of_training": training, "hours_of_evaluations": evaluating,
    })
}
