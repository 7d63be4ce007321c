//! Which detections are right.

use std::collections::BTreeMap;

use super::{KeyFrame, OVERLAP, Order, Row};

/// Score of every detection of a class and whether it is right. Frames follow each other by video and second.
pub(super) fn results(action: u32, truth: &[&Row], detections: &[&Row], order: Order) -> Vec<(f64, bool)> {
    let (truth, found) = (by_frame(action, truth), by_frame(action, detections));
    let mut results = Vec::new();
    for (frame, mut rows) in found {
        if order != Order::Slowfast {
            rows.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        let boxes = truth.get(frame).map_or(&[][..], Vec::as_slice);
        let mut taken = vec![false; boxes.len()];
        for row in rows {
            let right = best(row, boxes).is_some_and(|best| match taken.get_mut(best) {
                Some(taken) => !std::mem::replace(taken, true),
                None => false,
            });
            results.push((row.score, right));
        }
    }
    results
}

fn by_frame<'a>(action: u32, rows: &[&'a Row]) -> BTreeMap<&'a KeyFrame, Vec<&'a Row>> {
    let mut frames: BTreeMap<&KeyFrame, Vec<&Row>> = BTreeMap::new();
    let own = rows.iter().filter(|row| row.action == action);
    own.for_each(|row| frames.entry(&row.frame).or_default().push(row));
    frames
}

/// The box that a detection overlaps most, if that is enough; the first of equal ones.
fn best(detection: &Row, boxes: &[&Row]) -> Option<usize> {
    let overlaps = boxes.iter().map(|truth| overlap(detection.corners, truth.corners)).enumerate();
    let best = overlaps.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.filter(|(_, overlap)| *overlap >= OVERLAP).map(|(index, _)| index)
}

/// Intersection over union. The order of operations is the codes': an overlap of exactly one half has to come out as that.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let side = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    let area = |c: [f64; 4]| (c[3] - c[1]) * (c[2] - c[0]);
    let common = side(1, 3) * side(0, 2);
    common / (area(a) + area(b) - common)
}
