//! `vjepa report`: a page about one run or several.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::CliError;
use vjepa_report::run::{Run, read_probe};
use vjepa_report::watch::summary;
use vjepa_report::{ShownProbe, page};
use vjepa_runtime::{files, write_atomically};

/// Make a page of a run, or of several side by side: curves, diagnostics, masks, features, probes, settings
///
/// The page is one HTML file that needs neither a network nor JavaScript.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs (`logging.folder`), finished or not
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where to write the page [default: report.html in the first run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Probe to list beside those in the runs' folders (repeatable)
    #[arg(long = "probe", value_name = "FILE")]
    probes: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        super::visualize::written_as(out, &["html", "htm"])?;
        files::spare("--out", out, &[out], args.probes.iter().map(PathBuf::as_path))?;
    }
    let runs = Run::read_all(&args.runs)?;
    let probes = args.probes.iter().map(|path| shown(path)).collect::<Result<Vec<_>, _>>()?;
    let at = SystemTime::now();
    let first = runs.first().ok_or("give the folder of a run")?;
    let out = args.out.clone().unwrap_or_else(|| first.folder.join("report.html"));
    let text = page(&runs, &probes, at)?;
    write_atomically(&out, |file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    if args.json {
        let runs: Vec<_> = runs.iter().map(|run| summary(run, at)).collect();
        println!("{}", serde_json::json!({"out": out, "runs": runs}));
    } else {
        runs.iter().for_each(|run| println!("{}  {}", run.folder.display(), run.state(at).in_words()));
        println!("wrote {}", out.display());
    }
    Ok(())
}

/// A probe that was given by its file.
fn shown(path: &Path) -> Result<ShownProbe, CliError> {
    vjepa_weights::refuse_foreign(path)?;
    vjepa_weights::load(path)?;
    let result = read_probe(path).ok_or_else(|| {
        format!("{} does not say how well it does: train it again with `vjepa probe` of this version", path.display())
    })?;
    Ok(ShownProbe { of: result.encoder.clone(), file: path.display().to_string(), result })
}
