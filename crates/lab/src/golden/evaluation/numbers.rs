//! Predictions over segments and views, and votes of neighbours.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use vjepa_metrics::aggregate::{cross_entropy, mean_softmax};
use vjepa_metrics::knn::{Weight, classify, nearest, normalise};
use vjepa_metrics::{argmax, top_k};
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::sampled::Compare;
use super::wrong;

/// Of probabilities, losses and accuracies.
const LIMIT: f64 = 1e-6;

#[derive(Deserialize)]
struct Aggregate {
    labels: Vec<usize>,
    segments_and_views: Figures,
    attend: Figures,
}

/// Accuracies in percent.
#[derive(Deserialize)]
struct Figures {
    #[serde(default)]
    loss: f64,
    top1: f64,
    top5: f64,
}

/// `eval_aggregate/`.
pub(super) fn aggregate(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let path = dir.join("info.json");
    let (info, io): (Aggregate, _) = (read_json(&path)?, TensorFile::read(dir.join("io.safetensors"))?);
    let fail = |error: vjepa_metrics::MetricError| wrong(&path, error);
    let logits = io.f32("logits")?;
    let &[segments, _, _, classes] = io.shape("logits")? else {
        return Err(wrong(&path, "`logits` must be [segments, views, B, K]"));
    };
    let first = logits.get(..logits.len() / segments.max(1)).unwrap_or_default();
    let mut checks = Vec::new();
    for (logits, tensor, want) in
        [(&logits[..], "mean_softmax", &info.segments_and_views), (first, "attend", &info.attend)]
    {
        let got = mean_softmax(logits, info.labels.len(), classes).map_err(fail)?;
        let name = format!("aggregate.{tensor}");
        checks.push(io.compare(tensor, &got, Limit::MaxAbs(LIMIT))?.under("aggregate"));
        let loss = cross_entropy(logits, &info.labels, classes).map_err(fail)?;
        checks.push(Check::scalar_rel(format!("{name}.loss"), loss, want.loss, LIMIT));
        // Recorded in single precision, in percent.
        let accuracy = [1, 5].map(|k| 100.0 * top_k(&got, classes, &info.labels, k));
        checks.push(Check::series_rel(format!("{name}.accuracy"), &accuracy, &[want.top1, want.top5], LIMIT));
    }
    Ok(checks)
}

/// `eval_knn/`: every `dino_kN` and `sklearn_cosine_kN` there is.
pub(super) fn neighbours(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let path = dir.join("info.json");
    let (info, io): (Value, _) = (read_json(&path)?, TensorFile::read(dir.join("io.safetensors"))?);
    let fail = |error: &dyn std::fmt::Display| wrong(&path, error);
    let number = |key: &str| info[key].as_f64().ok_or_else(|| fail(&format!("`{key}` is not a number")));
    let (classes, temperature) = (number("classes")? as usize, number("temperature")? as f32);
    let dim = io.shape("train")?.last().copied().unwrap_or(0);
    let rows = |name: &str| -> Result<Vec<f32>, GoldenError> {
        let mut rows = io.f32(name)?;
        normalise(&mut rows, dim);
        Ok(rows)
    };
    let labels = |name: &str| -> Result<Vec<usize>, GoldenError> {
        let label = |label: i64| usize::try_from(label).map_err(|error| fail(&error));
        io.i64(name)?.into_iter().map(label).collect()
    };
    let (train, test) = (rows("train")?, rows("test")?);
    let (train_labels, test_labels) = (labels("train_labels")?, labels("test_labels")?);
    let vote =
        |k, weight| classify(&test, (&train, &train_labels), [dim, classes], k, weight).map_err(|error| fail(&error));
    let predicted =
        |votes: &[f32]| votes.chunks_exact(classes.max(1)).map(|row| argmax(row) as i64).collect::<Vec<_>>();
    let listed = |value: &Value| -> Vec<i64> {
        value.as_array().into_iter().flatten().map(|entry| entry.as_i64().unwrap_or(-1)).collect()
    };
    let mut checks = Vec::new();
    for k in 1..=train_labels.len() {
        if let Some(want) = info.get(format!("dino_k{k}")) {
            let votes = vote(k, Weight::Exponential { temperature })?;
            let name = format!("knn.dino{k}");
            let floats = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
            let stored = io.f32(&format!("votes{k}"))?;
            checks.push(Check::series_rel(format!("{name}.votes"), &floats(&votes), &floats(&stored), 1e-5));
            let found: Vec<i64> = test
                .chunks_exact(dim.max(1))
                .flat_map(|row| nearest(row, &train, k, None))
                .map(|neighbour| neighbour.row as i64)
                .collect();
            checks.push(Check::exact(format!("{name}.neighbours"), &found, &io.i64(&format!("neighbours{k}"))?));
            checks.push(Check::exact(format!("{name}.predictions"), &predicted(&votes), &listed(&want["pred"])));
            let accuracy = [1, k.min(5)].map(|k| 100.0 * top_k(&votes, classes, &test_labels, k));
            let want = ["top1", "top5"].map(|key| want[key].as_f64().unwrap_or(f64::NAN));
            checks.push(Check::series_rel(format!("{name}.accuracy"), &accuracy, &want, LIMIT));
        }
        if let Some(want) = info.get(format!("sklearn_cosine_k{k}")) {
            let name = format!("knn.equal{k}.predictions");
            checks.push(Check::exact(name, &predicted(&vote(k, Weight::Equal)?), &listed(want)));
        }
    }
    Ok(checks)
}
