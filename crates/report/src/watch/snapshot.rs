//! A run at one moment, as text and as JSON.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::run::{Points, Run, figures};

/// Characters of a curve.
const WIDTH: usize = 48;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A run as text of a few lines: state, figures, and its loss, context gap and effective rank as rows of bars.
pub fn snapshot(run: &Run, now: SystemTime) -> String {
    let state = run.state(now).in_words();
    let mut rows = vec![("run", run.name()), ("state", state)];
    rows.extend(figures(run).into_iter().filter_map(|(name, value)| Some((name, value?))));
    let curves: [(&str, Points); 3] = [
        ("loss", run.metrics.points("loss")),
        ("context gap", run.measured(|report| Some(report.context_gap))),
        ("effective rank", run.measured(|report| Some(report.effective_rank))),
    ];
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in &rows {
        let _ = writeln!(text, "{name:<width$}  {value}");
    }
    for (name, points) in curves.iter().filter(|(_, points)| points.len() > 1) {
        let _ = writeln!(text, "{name:<width$}  {}", bars(points));
    }
    for note in &run.notes {
        let _ = writeln!(text, "{:<width$}  {note}", "note");
    }
    text
}

/// The same for machines.
pub fn summary(run: &Run, now: SystemTime) -> Value {
    let state = run.state(now);
    let metrics = &run.metrics;
    json!({
        "run": run.folder, "tag": run.tag, "state": state.word(), "says": state.in_words(),
        "steps_done": run.steps_done(), "steps": run.steps(),
        "seconds_left": run.time_left().map(|time| time.as_secs()),
        "clips_seen": metrics.latest("clips"), "loss": metrics.latest("loss"), "lr": metrics.latest("lr"),
        "diagnostics": run.diagnostics.last().map(|(step, report)| json!({"step": step, "found": report})),
        "waiting": run.waiting(), "clips_per_second": metrics.throughput().last().map(|point| point.1),
        "memory_mb": metrics.latest("memory_mb"), "bad_videos": run.bad.len(), "notes": run.notes,
    })
}

/// Means of equal stretches as bars from the least to the largest.
fn bars(points: &Points) -> String {
    let finite: Vec<f64> = points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    let stretch = finite.len().div_ceil(WIDTH).max(1);
    let means: Vec<f64> = finite.chunks(stretch).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let bar = |value: &f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        BARS.get((share * 7.0).round() as usize).copied().unwrap_or(' ')
    };
    format!("{}  {low:.3} to {high:.3}", means.iter().map(bar).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;
    use crate::starts::tests::start;
    use crate::starts::{How, RunRecord};
    use std::time::Duration;

    #[test]
    fn a_snapshot_says_how_it_goes() {
        let folder = sample(200);
        let mut record = RunRecord::begin(folder.path(), start(0)).unwrap();
        let run = Run::read(folder.path()).unwrap();
        let text = snapshot(&run, run.written + Duration::from_secs(3600));
        for wanted in ["stalled: nothing written for 1 h 0 min", "191 of 400", "3,056", "context gap", "█"] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let json = summary(&run, run.written);
        assert_eq!((json["state"].as_str(), json["steps_done"].as_u64()), (Some("running"), Some(191)));
        record.end(200, How::Done).unwrap();
        let run = Run::read(folder.path()).unwrap();
        assert!(snapshot(&run, SystemTime::now()).contains("200 of 400"));
        assert_eq!(summary(&run, SystemTime::now())["state"], "done");
    }

    #[test]
    fn bars_of_flat_and_of_falling_curves() {
        let points = |values: &[f64]| values.iter().enumerate().map(|(i, v)| (i as f64, *v)).collect::<Points>();
        assert_eq!(bars(&points(&[1.0, f64::NAN, 0.0])), "█▁  0.000 to 1.000");
        assert_eq!(bars(&points(&[2.0, 2.0])), "▅▅  2.000 to 2.000");
    }
}
