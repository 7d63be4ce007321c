//! `vjepa neighbours`: which windows of videos are most alike, from a table of features.

use std::path::{Path, PathBuf};

use super::CliError;
use super::whole::whole;
use crate::table::words;
use vjepa_data::media::Opener;
use vjepa_data::windows::{Window, WindowPlan};
use vjepa_eval::Features;
use vjepa_metrics::knn;
use vjepa_runtime::Preprocessing;
use vjepa_runtime::files;
use vjepa_runtime::preprocess::METADATA_KEY;
use vjepa_view::pictures::{self, Neighbour, ShownClip};
use vjepa_weights::rows::RowsFile;

/// Find the windows most similar to given ones, by the cosine of their features
///
/// FILE is a table that `vjepa features` wrote, .safetensors, .npy or .parquet. Tokens are averaged. Rows of the same video are
/// left out unless --same-video is given.
#[derive(clap::Args)]
pub struct Args {
    /// Table of features
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Column, where there are several
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Videos to ask about, by path or file name (repeatable) [default: some rows spread over the table]
    #[arg(long, value_name = "VIDEO")]
    query: Vec<String>,
    /// Rows to ask about where no video is named, at most
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = whole::<u32>(1..=100_000))]
    rows: u32,
    /// Neighbours of each
    #[arg(short, default_value_t = 5, value_name = "N", value_parser = whole::<u32>(1..=1000))]
    k: u32,
    /// Count other windows of the same video, too
    #[arg(long)]
    same_video: bool,
    /// Subtract the mean over all rows first
    #[arg(long)]
    centred: bool,
    /// Contact sheet of the queries and their neighbours (.png); the videos are read again for it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object per query
    #[arg(long)]
    json: bool,
}

/// Rows of a contact sheet, and neighbours in each, at most.
const SHEET: (usize, usize) = (24, 8);

/// A neighbour: its row and the cosine.
type Near = (usize, f32);

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        super::visualize::written_as(out, &["png"])?;
        files::spare("--out", out, &[out], [args.file.as_path()])?;
    }
    let table = RowsFile::read(&args.file, args.column.as_deref())?;
    let queries = queries(args, &table)?;
    let unit = directions(&table, args.centred);
    let width = unit.len() / table.places.len().max(1);
    let found: Vec<(usize, Vec<Near>)> =
        queries.into_iter().map(|query| (query, nearest(&table, &unit, width, query, args))).collect();
    if args.json {
        let named = |row: usize| {
            let place = table.places.get(row);
            serde_json::json!({"row": row, "path": table.path(row), "window": place.map(|p| p.window), "time": place.map(|p| p.time)})
        };
        for (query, near) in &found {
            let near: Vec<_> = near
                .iter()
                .map(|(row, cosine)| {
                    let mut one = named(*row);
                    one["cosine"] = serde_json::json!(cosine);
                    one
                })
                .collect();
            println!("{}", serde_json::json!({"query": named(*query), "neighbours": near}));
        }
    } else {
        let mut lines = Vec::new();
        for (query, near) in &found {
            lines.push(vec![caption(&table, *query), String::new()]);
            lines.extend(
                near.iter().map(|(row, cosine)| vec![format!("  {}", caption(&table, *row)), format!("{cosine:.4}")]),
            );
        }
        print!("{}", words(&[], lines));
    }
    if let Some(out) = &args.out {
        sheet(args, &table, &found, out)?;
        eprintln!("wrote {}", out.display());
    }
    Ok(())
}

/// The rows that are asked about.
fn queries(args: &Args, table: &RowsFile) -> Result<Vec<usize>, CliError> {
    let count = table.places.len();
    if args.query.is_empty() {
        return Ok((0..count).step_by(count.div_ceil(args.rows as usize).max(1)).collect());
    }
    let mut rows = Vec::new();
    for query in &args.query {
        let is = |path: &Path| path == Path::new(query) || path.file_name().is_some_and(|name| name == query.as_str());
        let before = rows.len();
        rows.extend((0..count).filter(|row| is(table.path(*row))));
        if rows.len() == before {
            return Err(format!("no row of {} is of a video `{query}`", args.file.display()).into());
        }
    }
    Ok(rows)
}

/// Every row's mean token as a unit vector.
fn directions(table: &RowsFile, centred: bool) -> Vec<f32> {
    let dim = table.shape.last().copied().unwrap_or(1).max(1);
    let tokens = (table.width() / dim).max(1);
    let pooled = Features { tokens, dim, values: table.values.clone() }.pooled();
    let mut rows = pooled.values;
    if centred {
        let mean = vjepa_linalg::mean_row(&rows, dim);
        for row in rows.chunks_exact_mut(dim) {
            row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= *mean as f32);
        }
    }
    knn::normalise(&mut rows, dim);
    rows
}

fn nearest(table: &RowsFile, unit: &[f32], width: usize, query: usize, args: &Args) -> Vec<Near> {
    let own = unit.get(query * width..(query + 1) * width).unwrap_or_default();
    let same = |row: usize| table.path(row) == table.path(query);
    // As many more as may be left out.
    let beside = if args.same_video { 0 } else { (0..table.places.len()).filter(|row| same(*row)).count() };
    let k = args.k as usize;
    let found = knn::nearest(own, unit, k.saturating_add(beside), Some(query)).into_iter();
    found.filter(|near| args.same_video || !same(near.row)).take(k).map(|near| (near.row, near.similarity)).collect()
}

/// `clip.mp4 #3 at 1.50 s`.
fn caption(table: &RowsFile, row: usize) -> String {
    let path = table.path(row).display();
    match table.places.get(row) {
        Some(place) if place.time.is_nan() => format!("{path} #{}", place.window),
        Some(place) => format!("{path} #{} at {:.2} s", place.window, place.time),
        None => path.to_string(),
    }
}

fn sheet(args: &Args, table: &RowsFile, found: &[(usize, Vec<Near>)], out: &Path) -> Result<(), CliError> {
    let record = table.metadata.get(METADATA_KEY).ok_or_else(|| {
        format!(
            "{} does not say how clips are cut, which a picture needs: give the features as .safetensors or .parquet",
            args.file.display()
        )
    })?;
    let record = Preprocessing::from_json(record)?;
    let shape = record.clip_shape();
    let normalization = record.normalization;
    let plan = WindowPlan { preprocessing: record, every: None };
    let shown: Vec<Vec<(usize, String)>> = found
        .iter()
        .take(SHEET.0)
        .map(|(query, near)| {
            let others =
                near.iter().take(SHEET.1).map(|(row, cosine)| (*row, format!("{} {cosine:.2}", name(table, *row))));
            std::iter::once((*query, name(table, *query))).chain(others).collect()
        })
        .collect();
    let mut clips = std::collections::BTreeMap::new();
    for (row, _) in shown.iter().flatten() {
        if !clips.contains_key(row) {
            clips.insert(*row, again(table, &plan, *row)?);
        }
    }
    let rows: Vec<Vec<Neighbour<'_>>> = shown
        .into_iter()
        .map(|row| {
            let one = |(row, caption): (usize, String)| {
                let values = clips.get(&row)?.as_slice();
                Some(Neighbour { clip: ShownClip { values, shape, normalization }, caption })
            };
            row.into_iter().filter_map(one).collect()
        })
        .collect();
    pictures::neighbours(&rows).save(out)?;
    Ok(())
}

fn name(table: &RowsFile, row: usize) -> String {
    let file = table.path(row).file_name().unwrap_or_default().to_string_lossy().into_owned();
    match table.places.get(row) {
        Some(place) if place.window > 0 => format!("{file} #{}", place.window),
        _ => file,
    }
}

/// The clip of a row, prepared once more.
fn again(table: &RowsFile, plan: &WindowPlan, row: usize) -> Result<Vec<f32>, CliError> {
    let path = table.path(row);
    let place = table.places.get(row).ok_or("a row that is not there")?;
    if place.time.is_nan() {
        return Err(format!("{} holds clips of no video, which cannot be drawn", path.display()).into());
    }
    let named = |why: String| format!("{}: {why}", path.display());
    let mut media = Opener::shared().open(path).map_err(|error| named(error.reason(path)))?;
    let start = media.info().timestamps.partition_point(|shown| *shown < place.time - 1e-6);
    let window = Window { number: place.window, start, time: place.time };
    Ok(plan.prepare(&mut media, &window).map_err(named)?)
}
