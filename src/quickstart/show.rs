//! The summary: one table, one JSON document, and the pictures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::Pretrained;
use super::QuickstartError;
use super::screen::Screen;
use super::textures::Results;
use vjepa_data::open_source;
use vjepa_deploy::Parity;
use vjepa_eval::FrozenEncoder;
use vjepa_eval::protocols::textures::Scores;
use vjepa_programs::Models;
use vjepa_train::diagnostics::HeldOut;
use vjepa_view::pictures::{self, ShownClip, ShownFeatures, ShownMask};

/// Clips in the picture of features.
const SHOWN: usize = 4;
/// Clips its colours are found with.
const COLOURED: usize = 64;

/// Draws mask, features and training curves into `folder`; returns what is where.
pub(super) fn pictures(
    run: &Pretrained,
    models: &Models,
    screen: &Screen,
    folder: &Path,
) -> Result<BTreeMap<&'static str, PathBuf>, QuickstartError> {
    let data = &run.config.data;
    let source = open_source(&run.config.data, &run.config.data_aug)?;
    let seed = run.config.meta.seed;
    let held_out = HeldOut::draw(source.as_ref(), seed.wrapping_add(1), COLOURED)?;
    let len: usize = held_out.shape.iter().product();
    let shown: Vec<ShownClip<'_>> = held_out
        .clips
        .chunks_exact(len.max(1))
        .take(SHOWN)
        .map(|values| ShownClip { values, shape: held_out.shape, normalization: data.normalization })
        .collect();
    let mut paths = BTreeMap::new();

    let pairs = run.config.masks()?.pairs(seed, 0, 0, 1)?;
    let names: Vec<String> = (0..pairs.len()).map(|i| format!("generator {i}")).collect();
    let generators: Vec<ShownMask<'_>> = pairs
        .iter()
        .zip(&names)
        .map(|(pair, name)| ShownMask { name, context: &pair.context.indices, target: &pair.target.indices })
        .collect();
    if let Some(clip) = shown.first() {
        let path = folder.join("masks.png");
        pictures::masks(*clip, data.tubelet_size, data.patch_size, &generators).save(&path)?;
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
    let _ =
        writeln!(text, "\naccuracy on fresh clips, {labels} labels a class (± standard error over draws of labels)\n");
    let _ = writeln!(text, "  {:<22}{:>16}{:>16}{:>9}", "", "random init", "pretrained", "gain");
    for (task, scores, errors) in [
        ("texture", report.accuracy.texture, report.standard_error.texture),
        ("motion", report.accuracy.motion, report.standard_error.motion),
    ] {
        let mut row = |probe: &str, of: fn(&Scores) -> Option<f64>| {
            let pair = (of(&scores.random), of(&scores.pretrained), of(&errors.random), of(&errors.pretrained));
            if let (Some(random), Some(trained), Some(a), Some(b)) = pair {
                let cell = |mean: f64, error: f64| format!("{mean:.3} ± {error:.3}");
                let gain = trained - random;
                let name = format!("{task}, {probe}");
                let (random, trained) = (cell(random, a), cell(trained, b));
                let _ = writeln!(text, "  {name:<22}{random:>16}{trained:>16}{gain:>+9.3}");
            }
        };
        row("linear", |scores| Some(scores.linear));
        row("attentive", |scores| scores.attentive);
    }
    let _ = writeln!(
        text,
        "\nthe exported model (encoder + linear probe) against the plan, and on {} video files\n",
        results.clips
    );
    for (name, parity) in &results.exported.parity {
        match (parity, results.files.get(name)) {
            (Parity::Agrees { difference, .. }, Some(run)) => {
                let _ = writeln!(
                    text,
                    "  {name:<8} max |difference| {:.1e}   texture right on {:.1} % of files   {:.1} ms a clip   {}",
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
    for (what, path) in &results.paths {
        let _ = writeln!(text, "  {what:<12} {}", path.display());
    }
    let _ = writeln!(text, "\n{} steps and all the rest took {:.0} s", results.steps, results.seconds);
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
