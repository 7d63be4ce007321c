use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use vjepa_metrics::ava::{AvaResult, CAP, Order, Protocol, evaluate};

use super::super::{read_excluded, read_label_map};
use super::*;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden/eval_ava_map");
    assert!(carried.is_dir(), "{} is part of the repository", carried.display());
    let beside = root.join("../shared/golden/eval_ava_map");
    [carried, beside].into_iter().filter(|folder| folder.is_dir()).collect()
}

fn run(folder: &Path, detections: &[Scored], order: Order, cap: usize) -> AvaResult {
    let truth = read_truth(&folder.join("groundtruth.csv")).unwrap();
    let classes = read_label_map(&folder.join("labelmap.pbtxt")).unwrap().into_keys().collect();
    let excluded = read_excluded(&folder.join("excluded_timestamps.csv")).unwrap();
    evaluate(&truth, detections, &Protocol { order, classes: &classes, excluded: &excluded, cap })
}

fn near(got: Option<f64>, want: &Value) {
    match want.as_f64() {
        Some(want) => assert!((got.unwrap() - want).abs() <= 1e-9, "{got:?} {want}"),
        None => assert_eq!(got, None),
    }
}

#[test]
fn all_codes_agree_with_ours() {
    for folder in folders() {
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
        let detections = read_detections(&folder.join("detections.csv")).unwrap();
        assert_eq!(detections.len() as u64, expected["rows"]["detections"].as_u64().unwrap());
        let mut cases = vec![("slowfast".to_owned(), Order::Slowfast, CAP), ("score_order".into(), Order::Score, CAP)];
        let caps = expected.as_object().unwrap().keys().filter_map(|key| {
            let cap = key.strip_prefix("activitynet_cap")?.parse().ok()?;
            Some((key.clone(), Order::Activitynet, cap))
        });
        cases.extend(caps);
        assert!(cases.len() > 2);
        for (key, order, cap) in cases {
            let (got, want) = (run(&folder, &detections, order, cap), &expected[&key]);
            near(got.map, &want["mAP"]);
            for class in &got.classes {
                near(class.ap, &want["ap"][class.action.to_string()]);
                if let Some(counts) = want["counts"].get(class.action.to_string()) {
                    let got = [("num_gt", class.boxes), ("num_det", class.detections), ("num_tp", class.right)];
                    got.iter().for_each(|(key, got)| assert_eq!(counts[key].as_u64(), Some(*got as u64), "{key}"));
                    assert_eq!(counts["tied"].as_u64(), Some(class.tied as u64), "{}", class.action);
                }
            }
        }
    }
}

#[test]
fn ties_are_inside_the_recorded_range() {
    for folder in folders() {
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
        let want = &expected["slowfast_ties"];
        let detections = read_detections(&folder.join("detections_ties.csv")).unwrap();
        for class in run(&folder, &detections, Order::Slowfast, CAP).classes {
            let key = class.action.to_string();
            assert_eq!(want["counts"][&key]["tied"].as_u64(), Some(class.tied as u64));
            let Some(range) = want["ap_range_over_tie_orders"][&key].as_array() else {
                assert_eq!(class.ap, None);
                continue;
            };
            let [low, high] = class.range.unwrap();
            near(Some(low), &range[0]);
            near(Some(high), &range[1]);
            assert!(low - 1e-12 <= class.ap.unwrap() && class.ap.unwrap() <= high + 1e-12);
        }
    }
}

#[test]
fn written_detections_read_back_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let frame = KeyFrame { video: "-5KQ66BBWC4".into(), second: 902 };
    let rows = [Scored { frame, corners: [0.1 + 0.2, 0.0, 1.0 / 3.0, 1.0], action: 80, score: 1e-17 }];
    let mut text = Vec::new();
    write_detections(&rows, false, &mut text).unwrap();
    std::fs::write(&path, &text).unwrap();
    assert_eq!(read_detections(&path).unwrap(), rows);
    let mut text = Vec::new();
    write_detections(&rows, true, &mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "-5KQ66BBWC4,0902,0.300,0.000,0.333,1.000,80,0.0000\n");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.csv");
    let good = "v,0902,0.1,0.1,0.2,0.2,1,0.5";
    let says = |line: &str, words: &[&str]| {
        std::fs::write(&path, format!("\u{feff}{good}\r\n{line}\r\n")).unwrap();
        let error = read_detections(&path).unwrap_err().to_string();
        assert!(error.contains("found.csv: line 2: ") && words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n') && !error.contains(". "), "{error}");
    };
    says("v,0902,0.1,0.1,0.2,0.2,1", &["7 columns", "action,score"]);
    says("v,0902,10,10,200,200,1,0.5", &["coordinate 10", "divide pixels"]);
    says("v,0902,0.1,0.1,0.2,0.2,,0.5", &["no action", "seventh column"]);
    says("v,0902,0.1,0.1,0.2,0.2,1,87", &["`87`", "score from 0 to 1"]);
    says("v,9.5,0.1,0.1,0.2,0.2,1,0.5", &["`9.5`", "second"]);
    // A reversed box is the evaluation's to leave out and count.
    std::fs::write(&path, "v,902,0.5,0.1,0.2,0.2,1,0.5\n").unwrap();
    assert_eq!(read_detections(&path).unwrap().len(), 1);
    std::fs::write(&path, "v,902\nw,903,0.1,0.1,0.2,0.2,,\n").unwrap();
    let truth = read_truth(&path).unwrap();
    assert_eq!((truth.rows.len(), truth.frames.len()), (0, 2));
    assert_eq!(
        truth.frames,
        BTreeSet::from([("v", 902), ("w", 903)].map(|(video, second)| KeyFrame { video: video.into(), second }))
    );
}
