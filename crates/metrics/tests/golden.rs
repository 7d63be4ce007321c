//! Against the numbers of the official and neighbouring evaluation codes: the folders in `tests/golden`, and the full ones
//! beside the checkout where they are there.

use std::path::{Path, PathBuf};

use serde_json::Value;
use vjepa_metrics::aggregate::{cross_entropy, mean_softmax};
use vjepa_metrics::knn::{Weight, classify, nearest, normalise};
use vjepa_metrics::{argmax, top_k};
use vjepa_weights::TensorFile;

fn folders(name: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden").join(name);
    assert!(carried.is_dir(), "{} is part of the repository", carried.display());
    let beside = root.join("../shared/golden").join(name);
    [carried, beside].into_iter().filter(|folder| folder.is_dir()).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn indices(values: &[i64]) -> Vec<usize> {
    values.iter().map(|value| usize::try_from(*value).unwrap()).collect()
}

fn listed(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as usize).collect()
}

fn close(got: &[f32], want: &[f32], limit: f32) {
    assert_eq!(got.len(), want.len());
    let most = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most <= limit, "{most}");
}

fn check_accuracy(probabilities: &[f32], classes: usize, labels: &[usize], want: &Value) {
    for (key, k) in [("top1", 1), ("top5", 5)] {
        let off = 100.0 * top_k(probabilities, classes, labels, k) - want[key].as_f64().unwrap();
        assert!(off.abs() < 1e-4, "{key}: {off}");
    }
}

#[test]
fn aggregation_over_segments_and_views() {
    for folder in folders("eval_aggregate") {
        let (info, io) = (json(&folder.join("info.json")), TensorFile::read(folder.join("io.safetensors")).unwrap());
        let labels = listed(&info["labels"]);
        let logits = io.f32("logits").unwrap();
        let classes = io.shape("logits").unwrap()[3];
        let first = &logits[..logits.len() / io.shape("logits").unwrap()[0]];
        for (logits, tensor, key) in [(&logits[..], "mean_softmax", "segments_and_views"), (first, "attend", "attend")]
        {
            let got = mean_softmax(logits, labels.len(), classes).unwrap();
            close(&got, &io.f32(tensor).unwrap(), 1e-6);
            check_accuracy(&got, classes, &labels, &info[key]);
            let loss = cross_entropy(logits, &labels, classes).unwrap();
            assert!((loss - info[key]["loss"].as_f64().unwrap()).abs() < 1e-6);
        }
    }
}

#[test]
fn nearest_neighbours() {
    for folder in folders("eval_knn") {
        let (info, io) = (json(&folder.join("info.json")), TensorFile::read(folder.join("io.safetensors")).unwrap());
        let classes = info["classes"].as_u64().unwrap() as usize;
        let dim = io.shape("train").unwrap()[1];
        let rows = |name: &str| {
            let mut rows = io.f32(name).unwrap();
            normalise(&mut rows, dim);
            rows
        };
        let (train, test) = (rows("train"), rows("test"));
        let labels = |name: &str| indices(&io.i64(name).unwrap());
        let (train_labels, test_labels) = (labels("train_labels"), labels("test_labels"));
        let temperature = info["temperature"].as_f64().unwrap() as f32;
        let vote = |k, weight| classify(&test, (&train, &train_labels), [dim, classes], k, weight).unwrap();
        let predicted = |votes: &[f32]| votes.chunks_exact(classes).map(argmax).collect::<Vec<_>>();
        let mut compared = 0;
        for k in 1..=train_labels.len() {
            if let Some(want) = info.get(format!("dino_k{k}")) {
                let votes = vote(k, Weight::Exponential { temperature });
                for (got, want) in votes.iter().zip(io.f32(&format!("votes{k}")).unwrap()) {
                    assert!((got - want).abs() <= 1e-5 * want.abs().max(1e-30), "{got} {want}");
                }
                let found: Vec<usize> =
                    test.chunks_exact(dim).flat_map(|row| nearest(row, &train, k, None)).map(|n| n.row).collect();
                assert_eq!(found, indices(&io.i64(&format!("neighbours{k}")).unwrap()));
                assert_eq!(predicted(&votes), listed(&want["pred"]));
                for (key, top) in [("top1", 1), ("top5", k.min(5))] {
                    let got = 100.0 * top_k(&votes, classes, &test_labels, top);
                    assert!((got - want[key].as_f64().unwrap()).abs() < 1e-9, "{key} of {k}: {got}");
                }
                compared += 1;
            }
            if let Some(want) = info.get(format!("sklearn_cosine_k{k}")) {
                assert_eq!(predicted(&vote(k, Weight::Equal)), listed(want));
                compared += 1;
            }
        }
        assert!(compared > 0);
    }
}
