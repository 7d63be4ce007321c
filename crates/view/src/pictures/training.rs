//! Training curves.

use crate::canvas::Canvas;
use crate::chart::{Chart, Panel, Series};
use vjepa_recipe::records::DiagnosticsReport;

/// The loss and its diagnostics: `losses` and `diagnostics` by step.
pub fn training(losses: &[(u64, f64)], diagnostics: &[(u64, DiagnosticsReport)]) -> Canvas {
    let of = |value: fn(&DiagnosticsReport) -> f64| {
        diagnostics.iter().map(|(step, report)| (*step as f64, value(report))).collect::<Vec<_>>()
    };
    let own = losses.iter().map(|(step, loss)| (*step as f64, *loss)).collect();
    let series = |name: &str, points| Series { name: name.into(), points };
    let mut loss = vec![series("training", own)];
    if !diagnostics.is_empty() {
        loss.push(series("held out", of(|r| r.loss)));
    }
    let mut panels = vec![
        Panel { title: "Loss".into(), note: "misleads alone: targets move".into(), series: loss },
        Panel::single(
            "Context gap, %",
            "extra loss with another clip's context; must grow",
            of(|r| 100.0 * r.context_gap),
        ),
        Panel::single("Effective rank", "of mean features; below 2 is collapse", of(|r| r.effective_rank)),
        Panel {
            title: "Deviation of targets".into(),
            note: "per dimension over tokens; 0 is collapse".into(),
            series: vec![series("mean", of(|r| r.deviation_mean)), series("least", of(|r| r.deviation_min))],
        },
    ];
    if diagnostics.iter().any(|(_, report)| report.knn.is_some()) {
        panels.push(Panel::single(
            "kNN accuracy",
            "of held-out clips, leave one out",
            of(|r| r.knn.unwrap_or(f64::NAN)),
        ));
    }
    Chart { title: "Loss and diagnostics".into(), x_label: "step".into(), panels }.draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_diagnostics_can_be_drawn() {
        assert!(training(&[], &[]).height() > 400);
    }
}
