use proptest::prelude::*;

use super::*;

fn row(second: u32, corners: [f64; 4], score: f64) -> Row {
    Row { frame: KeyFrame { video: "v".into(), second }, corners, action: 1, score }
}

fn truth(rows: Vec<Row>) -> GroundTruth {
    let frames = rows.iter().map(|row| row.frame.clone()).collect();
    GroundTruth { rows, frames, ..GroundTruth::default() }
}

fn run(truth: &GroundTruth, found: &[Row], order: Order) -> AvaResult {
    let (classes, excluded) = (BTreeSet::from([1]), BTreeSet::new());
    evaluate(truth, found, &Protocol { order, classes: &classes, excluded: &excluded, cap: CAP })
}

const BOX: [f64; 4] = [0.0, 0.0, 0.5, 0.5];
/// Overlaps BOX by exactly one half.
const HALF: [f64; 4] = [0.0, 0.0, 0.25, 0.5];
const AWAY: [f64; 4] = [0.6, 0.6, 0.9, 0.9];

#[test]
fn the_order_decides_who_takes_a_box() {
    let truth = truth(vec![row(902, BOX, 1.0)]);
    let found = [row(902, HALF, 0.1), row(902, BOX, 0.9)];
    assert_eq!(run(&truth, &found, Order::Slowfast).map, Some(0.5));
    assert_eq!(run(&truth, &found, Order::Score).map, Some(1.0));
}

#[test]
fn frames_classes_and_boxes_that_do_not_count() {
    let truth = truth(vec![row(902, BOX, 1.0)]);
    let mut other = row(902, BOX, 0.99);
    other.action = 2;
    let reversed = row(902, [0.5, 0.0, 0.0, 0.5], 0.98);
    let found = [other, reversed, row(903, BOX, 0.95), row(902, BOX, 0.9)];
    let slowfast = run(&truth, &found, Order::Slowfast);
    assert_eq!((slowfast.map, slowfast.detections_left_out.empty), (Some(0.5), 1));
    assert_eq!(slowfast.detections_left_out.other_classes, 1);
    let activitynet = run(&truth, &found, Order::Activitynet);
    assert_eq!((activitynet.map, activitynet.detections_left_out.unannotated), (Some(1.0), 1));

    let (classes, excluded) = (BTreeSet::from([1]), BTreeSet::from([truth.rows[0].frame.clone()]));
    let protocol = Protocol { order: Order::Slowfast, classes: &classes, excluded: &excluded, cap: CAP };
    let nothing = evaluate(&truth, &found, &protocol);
    assert_eq!((nothing.map, nothing.classes[0].ap, nothing.truth_left_out.excluded), (None, None, 1));
}

#[test]
fn a_cap_keeps_the_best() {
    let truth = truth(vec![row(902, BOX, 1.0)]);
    let found = [row(902, BOX, 0.2), row(902, AWAY, 0.8), row(902, AWAY, 0.7)];
    let (classes, excluded) = (BTreeSet::from([1]), BTreeSet::new());
    let capped = |cap| {
        let protocol = Protocol { order: Order::Activitynet, classes: &classes, excluded: &excluded, cap };
        evaluate(&truth, &found, &protocol)
    };
    assert_eq!((capped(2).map, capped(2).detections_left_out.beyond_cap), (Some(0.0), 1));
    assert!(capped(3).map > Some(0.3));
}

#[test]
fn ties_have_a_range() {
    let truth = truth(vec![row(902, BOX, 1.0)]);
    let found = [row(902, AWAY, 0.5), row(902, BOX, 0.5)];
    let class = run(&truth, &found, Order::Slowfast).classes[0];
    assert_eq!((class.tied, class.range), (1, Some([0.5, 1.0])));
}

#[test]
fn a_class_never_detected_counts_nothing() {
    let class = run(&truth(vec![row(902, BOX, 1.0)]), &[], Order::Slowfast).classes[0];
    assert_eq!((class.ap, class.boxes, class.detections), (Some(0.0), 1, 0));
}

proptest! {
    #[test]
    fn precision_is_a_share_and_ties_are_bracketed(
        right in proptest::collection::vec(any::<bool>(), 0..30), more in 1usize..5,
        scores in proptest::collection::vec(0u8..4, 30),
    ) {
        let boxes = right.iter().filter(|right| **right).count() + more;
        let results = right.iter().zip(scores).map(|(right, score)| (f64::from(score), *right)).collect();
        let class = precision::of_class(1, boxes, results);
        let (ap, [low, high]) = (class.ap.unwrap(), class.range.unwrap());
        prop_assert!((0.0..=1.0).contains(&ap) && low <= ap + 1e-12 && ap <= high + 1e-12);
    }
}
