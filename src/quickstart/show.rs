//! The summary: one table, one JSON document, and the pictures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::Pretrained;
use super::QuickstartError;
use super::screen::Screen;
use super::textures::Results;
use crate::recording::shown;
use crate::table::{aligned, indented, words};
use vjepa_deploy::Parity;
use vjepa_eval::FrozenEncoder;
use vjepa_eval::protocols::textures::Scores;
use vjepa_programs::Models;
use vjepa_train::diagnostics::HeldOut;
use vjepa_view::pictures::{self, ShownFeatures, ShownMask};

/// Clips in the picture of features.
const SHOWN: usize = 4;
/// Clips its colours are found with.
const COLOURED: usize = 64;

/// Draws masks, features and training curves into `folder`; returns the files.
pub(super) fn pictures(
    run: &Pretrained,
    models: &Models,
    screen: &Screen,
    folder: &Path,
) -> Result<BTreeMap<&'static str, PathBuf>, QuickstartError> {
    let data = &run.config.data;
    let source = run.sets.source(&run.config.data, &run.config.data_aug)?;
    let seed = run.config.meta.seed;
    let held_out = HeldOut::draw(source.as_ref(), seed.wrapping_add(1), COLOURED)?;
    let shown = shown(&held_out, data.normalization, SHOWN);
    let mut paths = BTreeMap::new();

    let pairs = run.config.masks()?.pairs(seed, 0, 0, 1)?;
    if let Some(clip) = shown.first() {
        let path = folder.join("masks.png");
        pictures::masks(*clip, data.tubelet_size, data.patch_size, &ShownMask::of(&pairs)).save(&path)?;
        paths.insert("masks", path);
    }

    let mut tokens = Vec::new();
    for weights in [&run.random, &run.encoder] {
        tokens.push(FrozenEncoder::new(&models.encoder, weights)?.encode(held_out.clips.clone())?);
    }
    let encoders: Vec<ShownFeatures<'_>> = ["random", "pretrained"]
        .iter()
        .zip(&tokens)
        .map(|(name, features)| ShownFeatures { name, tokens: &features.values, dim: features.dim })
        .collect();
    let path = folder.join("features.png");
    pictures::features(&shown, data.tubelet_size, data.patch_size, &encoders).save(&path)?;
    paths.insert("features", path);

    let path = folder.join("training.png");
    let history = screen.watch.as_ref().map(|watch| watch.history()).unwrap_or_default();
    pictures::training(&screen.losses, history).save(&path)?;
    paths.insert("training", path);
    if let Some(watch) = &screen.watch {
        let path = folder.join("diagnostics.jsonl");
        watch.save(&path)?;
        paths.insert("diagnostics", path);
    }
    Ok(paths)
}

/// The table for people.
pub(super) fn table(results: &Results) -> String {
    let mut text = String::new();
    let report = &results.report;
    let labels = report.protocol.labels_per_class;
    let mut rows = Vec::new();
    for (task, scores, errors) in [
        ("texture", report.accuracy.texture, report.standard_error.texture),
        ("motion", report.accuracy.motion, report.standard_error.motion),
    ] {
        let mut row = |probe: &str, of: fn(&Scores) -> Option<f64>| {
            let pair = (of(&scores.random), of(&scores.pretrained), of(&errors.random), of(&errors.pretrained));
            if let (Some(random), Some(trained), Some(a), Some(b)) = pair {
                let cell = |mean: f64, error: f64| format!("{mean:.3} ± {error:.3}");
                let gain = format!("{:+.3}", trained - random);
                rows.push(vec![format!("{task}, {probe}"), cell(random, a), cell(trained, b), gain]);
            }
        };
        row("linear", |scores| Some(scores.linear));
        row("attentive", |scores| scores.attentive);
    }
    let _ =
        writeln!(text, "\naccuracy on fresh clips, {labels} labels per class (± standard error over label draws)\n");
    text += &indented(&aligned(&["", "random init", "pretrained", "gain"], rows));
    let _ = writeln!(
        text,
        "\nthe exported model (encoder + linear probe) compared with the plan, and on {} video files\n",
        results.clips
    );
    for (name, parity) in &results.exported.parity {
        match (parity, results.files.get(name)) {
            (Parity::Agrees { difference, .. }, Some(run)) => {
                let _ = writeln!(
                    text,
                    "  {name:<8} max |difference| {:.1e}   {:.1} % of textures right   {:.1} ms per clip   {}",
                    difference.absolute,
                    100.0 * run.accuracy,
                    run.latency_ms,
                    run.runtime
                );
            }
            (parity, _) => {
                let _ = writeln!(text, "  {name:<8} {parity}");
            }
        }
    }
    let _ = writeln!(text, "\nfiles\n");
    let paths = results.paths.iter().map(|(what, path)| vec![(*what).to_owned(), path.display().to_string()]);
    text += &indented(&words(&[], paths.collect()));
    let _ = writeln!(text, "\n{} training steps and everything else took {:.0} s", results.steps, results.seconds);
    text
}

/// The document for machines.
pub(super) fn json(results: &Results) -> Result<serde_json::Value, QuickstartError> {
    let mut parity = serde_json::Map::new();
    let mut latency = serde_json::Map::new();
    let mut files_accuracy = serde_json::Map::new();
    for (name, found) in &results.exported.parity {
        parity.insert((*name).to_owned(), found.json());
    }
    for (name, run) in &results.files {
        latency.insert((*name).to_owned(), run.latency_ms.into());
        files_accuracy.insert((*name).to_owned(), run.accuracy.into());
    }
    Ok(serde_json::json!({
        "accuracy": results.report.accuracy,
        "standard_error": results.report.standard_error,
        "protocol": results.report.protocol,
        "file_accuracy": files_accuracy,
        "parity": parity,
        "latency_ms": latency,
        "files": results.paths,
        "steps": results.steps,
        "seconds": results.seconds,
    }))
}
