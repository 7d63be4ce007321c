//! The table that comes of the runs: means and standard errors, beside published figures, and whether orderings show.

use std::fmt::Write;

use serde::Serialize;
use vjepa_metrics::Figure;

use super::{Ablation, AblationRun, AblationState, Expected};

/// A row's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableRow {
    /// The row.
    pub name: String,
    /// Runs that are finished.
    pub runs: usize,
    /// Mean and standard error of each evaluation, in the table's order; none before the first run.
    pub figures: Vec<Option<Figure>>,
    /// Published figures, in the same order.
    pub reference: Vec<Option<f64>>,
    /// Seconds of all its runs.
    pub seconds: f64,
}

/// Whether one row is better than the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// By more than twice the standard error of the difference.
    Shows,
    /// By no more than that, either way.
    Unclear,
    /// The other way round, by more than that.
    Reversed,
    /// Runs are missing, or there is one seed only.
    Open,
}

/// Two neighbours of an expected order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ordering {
    /// The row, or evaluation, that is expected to be better.
    pub better: String,
    /// The other one.
    pub worse: String,
    /// The evaluation, or the row.
    pub by: String,
    /// Difference of the means with its standard error.
    pub difference: Option<Figure>,
    /// What the runs say.
    pub verdict: Verdict,
}

/// The result of a table, as far as it was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AblationTable {
    /// The table's name.
    pub name: String,
    /// Columns.
    pub evaluations: Vec<String>,
    /// Seeds of a full row.
    pub seeds: usize,
    /// Rows.
    pub rows: Vec<TableRow>,
    /// Expectations, pair by pair.
    pub orderings: Vec<Ordering>,
}

impl AblationTable {
    /// Of what was run so far.
    pub fn of(table: &Ablation, state: &AblationState) -> Self {
        let runs = table.runs();
        let rows: Vec<TableRow> = table.rows.iter().map(|row| table_row(table, row, &runs, state)).collect();
        let pairs = |expected: &Expected| {
            let (names, by) = match expected {
                Expected::Rows { rows, by } => (rows, by),
                Expected::Evaluations { row, evaluations } => (evaluations, row),
            };
            // A figure by its name, of the row or evaluation that is compared.
            let figure = |name: &String| match expected {
                Expected::Rows { by, .. } => figure_of(table, &rows, name, by),
                Expected::Evaluations { row, .. } => figure_of(table, &rows, row, name),
            };
            let both = names.windows(2).filter_map(|pair| <&[String; 2]>::try_from(pair).ok());
            both.map(|pair| ordering(pair, pair.each_ref().map(figure), by)).collect::<Vec<_>>()
        };
        let orderings = table.orderings.iter().flat_map(pairs).collect();
        let (name, evaluations) = (table.name.clone(), table.evaluations.clone());
        Self { name, evaluations, seeds: table.seeds.len(), rows, orderings }
    }

    /// As Markdown: the table, then what the orderings say.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("## {}\n\n| row | runs |", escaped(&self.name));
        for evaluation in &self.evaluations {
            let _ = write!(out, " {} | published |", escaped(evaluation));
        }
        let _ = write!(out, "\n|---|---|{}\n", "---|---|".repeat(self.evaluations.len()));
        for row in &self.rows {
            let _ = write!(out, "| {} | {}/{} |", escaped(&row.name), row.runs, self.seeds);
            for (figure, reference) in row.figures.iter().zip(&row.reference) {
                let figure = figure.map_or("-".into(), |figure| plus_minus(figure, row.runs));
                let _ = write!(out, " {figure} | {} |", reference.map_or(String::new(), |x| x.to_string()));
            }
            out.push('\n');
        }
        if !self.orderings.is_empty() {
            out.push('\n');
        }
        for pair in &self.orderings {
            let difference = match (pair.difference, pair.verdict) {
                (None, _) => String::new(),
                // One run has no standard error.
                (Some(d), Verdict::Open) => format!(" ({:.3} so far)", d.mean),
                (Some(d), _) => format!(" by {}", plus_minus(d, self.seeds)),
            };
            let verdict = match pair.verdict {
                Verdict::Shows => "shows",
                Verdict::Unclear => "does not show at this size",
                Verdict::Reversed => "is the other way round",
                Verdict::Open => "is open: it needs two seeds or more",
            };
            let (better, worse, by) = (escaped(&pair.better), escaped(&pair.worse), escaped(&pair.by));
            let _ = writeln!(out, "- {better} > {worse} ({by}): {verdict}{difference}");
        }
        out
    }

    /// As CSV, one line per row and evaluation: `row,evaluation,runs,mean,standard_error,published,seconds`.
    pub fn to_csv(&self) -> String {
        let mut out = String::from("row,evaluation,runs,mean,standard_error,published,seconds\n");
        for row in &self.rows {
            for ((evaluation, figure), reference) in self.evaluations.iter().zip(&row.figures).zip(&row.reference) {
                let (mean, se) = figure.map_or(Default::default(), |f| (f.mean.to_string(), f.se.to_string()));
                let published = reference.map_or(String::new(), |x| x.to_string());
                let (name, evaluation) = (quoted(&row.name), quoted(evaluation));
                let _ = writeln!(out, "{name},{evaluation},{},{mean},{se},{published},{}", row.runs, row.seconds);
            }
        }
        out
    }
}

impl Ablation {
    /// What would be run, as lines; `about` adds what is known of a run (memory, arithmetic, hours).
    pub fn dry_run(&self, state: &AblationState, mut about: impl FnMut(&AblationRun) -> Option<String>) -> String {
        let runs = self.runs();
        let done = runs.iter().filter(|run| state.runs.contains_key(&run.id)).count();
        let mut out = format!(
            "{}: {} runs, {done} finished, evaluated by {}\n",
            self.name,
            runs.len(),
            self.evaluations.join(", ")
        );
        for run in &runs {
            let mark = if state.runs.contains_key(&run.id) { "done" } else { "to run" };
            let about = about(run).map_or(String::new(), |about| format!("  [{about}]"));
            let _ = writeln!(out, "  {:<6} {}  {}{about}", mark, run.id, run.set.join(" "));
        }
        out
    }
}

fn table_row(table: &Ablation, row: &super::AblationRow, runs: &[AblationRun], state: &AblationState) -> TableRow {
    let own = || runs.iter().filter(|run| run.row == row.name).filter_map(|run| state.runs.get(&run.id));
    let figure = |evaluation: &String| {
        let results: Vec<f64> = own().filter_map(|outcome| outcome.figures.get(evaluation).copied()).collect();
        (!results.is_empty()).then(|| Figure::of(&results))
    };
    TableRow {
        name: row.name.clone(),
        runs: own().count(),
        figures: table.evaluations.iter().map(figure).collect(),
        reference: table.evaluations.iter().map(|evaluation| row.reference.get(evaluation).copied()).collect(),
        seconds: own().map(|outcome| outcome.seconds).sum(),
    }
}

/// A row's figure by an evaluation, and how many runs it is of.
fn figure_of(table: &Ablation, rows: &[TableRow], row: &str, evaluation: &str) -> Option<(Figure, usize)> {
    let column = table.evaluations.iter().position(|name| name == evaluation)?;
    let row = rows.iter().find(|other| other.name == row)?;
    Some((row.figures.get(column).copied().flatten()?, row.runs))
}

fn ordering([better, worse]: &[String; 2], figures: [Option<(Figure, usize)>; 2], by: &str) -> Ordering {
    let [first, second] = figures;
    let pair = first.zip(second);
    let difference = pair.map(|((a, _), (b, _))| Figure { mean: a.mean - b.mean, se: a.se.hypot(b.se) });
    let verdict = match (difference, pair) {
        (Some(d), Some(((_, a), (_, b)))) if a > 1 && b > 1 => match d.mean {
            mean if mean > 2.0 * d.se => Verdict::Shows,
            mean if mean < -2.0 * d.se => Verdict::Reversed,
            _ => Verdict::Unclear,
        },
        _ => Verdict::Open,
    };
    Ordering { better: better.clone(), worse: worse.clone(), by: by.to_owned(), difference, verdict }
}

/// A mean with its standard error, which a single run has none of.
fn plus_minus(figure: Figure, runs: usize) -> String {
    if runs > 1 { format!("{:.3} ± {:.3}", figure.mean, figure.se) } else { format!("{:.3}", figure.mean) }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}
