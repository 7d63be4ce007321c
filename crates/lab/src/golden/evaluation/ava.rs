//! Mean average precision in all orders, from the official files.

use std::path::Path;

use serde_json::Value;
use vjepa_data::annotations::ava::{read_detections, read_excluded, read_label_map, read_truth};
use vjepa_metrics::ava::{AvaResult, CAP, Order, Protocol, Row, evaluate};

use super::super::check::{Check, GoldenError, read_json};
use super::wrong;

/// Of average precisions, which are ratios of counts.
const LIMIT: f64 = 1e-9;

/// `eval_ava_map/`.
pub(super) fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let expected: Value = read_json(&dir.join("expected.json"))?;
    let fail = |error: vjepa_data::annotations::AnnotationError| wrong(dir, error);
    let truth = read_truth(&dir.join("groundtruth.csv")).map_err(fail)?;
    let classes = read_label_map(&dir.join("labelmap.pbtxt")).map_err(fail)?.into_keys().collect();
    let excluded = read_excluded(&dir.join("excluded_timestamps.csv")).map_err(fail)?;
    let run = |rows: &[Row], order, cap| {
        evaluate(&truth, rows, &Protocol { order, classes: &classes, excluded: &excluded, cap })
    };
    let detections = read_detections(&dir.join("detections.csv")).map_err(fail)?;
    let mut checks = Vec::new();
    for (key, want) in expected.as_object().into_iter().flatten() {
        let cap = key.strip_prefix("activitynet_cap").and_then(|cap| cap.parse().ok());
        let (order, cap) = match (key.as_str(), cap) {
            ("slowfast", _) => (Order::Slowfast, CAP),
            ("score_order", _) => (Order::Score, CAP),
            (_, Some(cap)) => (Order::Activitynet, cap),
            _ => continue,
        };
        compare(key, &run(&detections, order, cap), want, &mut checks);
    }
    if let (ties, Some(want)) = (dir.join("detections_ties.csv"), expected.get("slowfast_ties")) {
        let rows = read_detections(&ties).map_err(fail)?;
        within(&run(&rows, Order::Slowfast, CAP), want, &mut checks);
    }
    Ok(checks)
}

fn compare(key: &str, got: &AvaResult, want: &Value, checks: &mut Vec<Check>) {
    let real = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    checks.push(Check::scalar_rel(format!("ava.{key}.map"), got.map.unwrap_or(f64::NAN), real(&want["mAP"]), LIMIT));
    let recorded = |action: u32| &want["ap"][action.to_string()];
    // A class without ground truth has none on both sides.
    let none: (Vec<bool>, Vec<bool>) =
        got.classes.iter().map(|class| (class.ap.is_none(), recorded(class.action).is_null())).unzip();
    checks.push(Check::exact(format!("ava.{key}.classes_without_boxes"), &none.0, &none.1));
    let (ours, theirs): (Vec<f64>, Vec<f64>) =
        got.classes.iter().filter_map(|class| Some((class.ap?, real(recorded(class.action))))).unzip();
    checks.push(Check::series_rel(format!("ava.{key}.classes"), &ours, &theirs, LIMIT));
}

/// Equal scores have no order, so a precision only has to lie where some order puts it.
fn within(got: &AvaResult, want: &Value, checks: &mut Vec<Check>) {
    for class in &got.classes {
        let recorded = &want["ap_range_over_tie_orders"][class.action.to_string()];
        let range = recorded.as_array().map(|range| range.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        let (Some([low, high]), Some(range), Some(ap)) = (class.range, range, class.ap) else { continue };
        let name = format!("ava.ties.{}", class.action);
        checks.push(Check::series_rel(format!("{name}.range"), &[low, high], &range, LIMIT));
        let outside = (low - ap).max(ap - high).max(0.0);
        checks.push(Check::scalar_rel(format!("{name}.outside"), outside, 0.0, LIMIT));
    }
}
