//! The figures that say how a run is doing.

use crate::run::{Run, in_time};

/// A figure with its name; none where the run does not have it.
pub type Figure = (&'static str, Option<String>);

/// The figures of a run, the same names in the same order for every run.
pub fn figures(run: &Run) -> Vec<Figure> {
    let metrics = &run.metrics;
    let last = run.diagnostics.last().map(|(_, report)| *report);
    let done = grouped(run.steps_done());
    let resumed = match run.starts.iter().filter(|start| start.from > 0).count() {
        0 => None,
        1 => Some("once".to_owned()),
        times => Some(format!("{times} times")),
    };
    let rate = median(metrics.throughput().iter().map(|point| point.1));
    let took = median(metrics.points("step_ms").iter().map(|point| point.1));
    vec![
        ("steps", Some(run.steps().map_or_else(|| done.clone(), |all| format!("{done} of {}", grouped(all))))),
        ("time left", run.time_left().filter(|time| !time.is_zero()).map(in_time)),
        ("clips seen", metrics.latest("clips").map(|clips| grouped(clips as u64))),
        ("loss", metrics.latest("loss").map(|loss| format!("{loss:.4}"))),
        ("held-out loss", last.map(|found| format!("{:.4}", found.loss))),
        ("context gap", last.map(|found| format!("{:+.1} %", 100.0 * found.context_gap))),
        ("effective rank", last.map(|found| format!("{:.1}", found.effective_rank))),
        ("deviation of targets", last.map(|found| format!("{:.3}", found.deviation_mean))),
        ("kNN accuracy", last.and_then(|found| found.knn).map(|share| format!("{:.1} %", 100.0 * share))),
        ("learning rate", metrics.latest("lr").map(|lr| format!("{lr:.2e}"))),
        ("throughput", rate.map(|rate| format!("{rate:.1} clips/s (median)"))),
        ("time of a step", took.map(|ms| format!("{} (median)", in_milliseconds(ms)))),
        ("waiting for data", run.waiting().map(|share| format!("{:.1} % of the time", 100.0 * share))),
        ("memory", memory(run)),
        ("bad videos", Some(run.bad.len().to_string())),
        ("resumed", resumed),
    ]
}

/// The latest figure, and by how much it grew since a quarter of the lines, when everything had been allocated.
fn memory(run: &Run) -> Option<String> {
    let points = run.metrics.points("memory_mb");
    let (first, last) = (points.get(points.len() / 4)?.1, points.last()?.1);
    Some(format!("{last:.0} MB, {:+.0} MB since a quarter of the run", last - first))
}

/// The time of a step in the unit that fits it.
fn in_milliseconds(ms: f64) -> String {
    if ms < 10_000.0 { format!("{ms:.0} ms") } else { format!("{:.1} s", ms / 1e3) }
}

/// The median of what is finite.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A number with its thousands apart: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let lead = digits.len() % 3;
    let mut text = digits.get(..lead).unwrap_or_default().to_owned();
    for (place, digit) in digits.chars().enumerate().skip(lead) {
        if (place - lead).is_multiple_of(3) && place > 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (276_480_000, "276,480,000")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(median([3.0, f64::NAN, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }
}
