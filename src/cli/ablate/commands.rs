//! Evaluations of an ablation's runs by other commands of this program, each in a process of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use vjepa_eval::write_atomic;

use super::file_name;
use crate::cli::CliError;
use crate::cli::finetune::begun_in;
use crate::cli::train::Stopped;

/// `vjepa probe` on the run's encoder; its results stay in the run's folder.
pub(super) fn probe(name: &str, arguments: &[String], encoder: &Path, folder: &Path) -> Result<f64, CliError> {
    let out = folder.join(format!("probe-{}.safetensors", file_name(name)));
    let out = [OsStr::new("--out"), out.as_os_str()];
    let summary = evaluation(name, "probe", arguments, encoder, &out)?;
    let heads = summary["heads"].as_array().map(Vec::as_slice).unwrap_or_default();
    let figure = |of: &serde_json::Value| of["val"]["top1"].as_f64().or_else(|| of["train"]["top1"].as_f64());
    // A vote of neighbours has no weights, so it is never the best one.
    let best = figure(&summary).or_else(|| heads.iter().find_map(figure));
    best.ok_or_else(|| format!("the evaluation `{name}` gave no accuracy").into())
}

/// `vjepa finetune` of the run's encoder, in a folder of its own in the run's, where a stopped one goes on.
pub(super) fn finetune(name: &str, arguments: &[String], encoder: &Path, folder: &Path) -> Result<f64, CliError> {
    const TAG: &str = "finetune";
    let own = folder.join(format!("finetune-{}", file_name(name)));
    // What was made of another encoder is no part of this run.
    let (of, digest) = (own.join("encoder.sha256"), vjepa_runtime::files::sha256(encoder)?);
    if own.exists() && fs::read_to_string(&of).ok().as_deref() != Some(digest.as_str()) {
        fs::remove_dir_all(&own).map_err(|error| format!("{} cannot be removed: {error}", own.display()))?;
    }
    fs::create_dir_all(&own).map_err(|error| format!("{} cannot be made: {error}", own.display()))?;
    write_atomic(&of, digest.as_bytes())?;
    let places = [format!("logging.folder={}", serde_json::to_string(&own)?), format!("logging.write_tag={TAG}")];
    let mut more: Vec<&OsStr> = places.iter().flat_map(|set| [OsStr::new("--set"), OsStr::new(set)]).collect();
    if begun_in(&own, TAG) {
        more.push(OsStr::new("--resume"));
    }
    let summary = evaluation(name, "finetune", arguments, encoder, &more)?;
    if summary["interrupted"] == true {
        return Err(Stopped.into());
    }
    summary["test"]["top1"]
        .as_f64()
        .ok_or_else(|| format!("the evaluation `{name}` tested nothing: name its test list, `--val FILE`").into())
}

/// `vjepa detect train` on the run's encoder and `vjepa detect eval` of the detectors that come of it, which stay in the run's
/// folder.
pub(super) fn detect(
    name: &str,
    [train, eval]: [&[String]; 2],
    encoder: &Path,
    folder: &Path,
) -> Result<f64, CliError> {
    let out = folder.join(format!("detector-{}.safetensors", file_name(name)));
    let trained = evaluation(name, "detect train", train, encoder, &[OsStr::new("--out"), out.as_os_str()])?;
    // One for each draw of --subset.
    let draws = trained["runs"].as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(&trained));
    let detectors: Vec<&str> = draws.iter().filter_map(|draw| draw["detector"].as_str()).collect();
    let more: Vec<&OsStr> = detectors.iter().flat_map(|path| [OsStr::new("--detector"), OsStr::new(path)]).collect();
    let summary = evaluation(name, "detect eval", eval, encoder, &more)?;
    let map = summary["map"].as_f64().or_else(|| summary["evaluation"]["map"].as_f64());
    map.ok_or_else(|| {
        format!("the evaluation `{name}` found no box that counts: name its truth, `--boxes FILE`").into()
    })
}

/// The summary, its last line, of a command of this program with these arguments and `more` on a run's encoder.
fn evaluation(
    name: &str,
    command: &str,
    arguments: &[String],
    encoder: &Path,
    more: &[&OsStr],
) -> Result<serde_json::Value, CliError> {
    let mut process = Command::new(std::env::current_exe()?);
    process.args(command.split(' ')).args(arguments).arg("--checkpoint").arg(encoder).arg("--json").args(more);
    let output = process.stderr(std::process::Stdio::inherit()).output()?;
    if output.status.code() == Some(i32::from(Stopped::CODE)) {
        return Err(Stopped.into());
    }
    if !output.status.success() {
        return Err(format!("the evaluation `{name}` failed ({}): its message stands above", output.status).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
}
