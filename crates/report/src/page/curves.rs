//! The curves of a page: which there are, and the points that are drawn of them.

use vjepa_view::chart::{Panel, Series};

use crate::run::{Points, Run};

/// The most points drawn of a line.
const DRAWN: usize = 500;

/// One pair of axes over the lines of all runs.
pub(super) struct Curve {
    pub panel: Panel,
    /// Whether its lines differ in what they show, and not only in whose they are: they then have a legend of their own.
    pub named: bool,
}

/// All curves that at least one of the runs has points of.
pub(super) fn curves(runs: &[Run]) -> Vec<Curve> {
    let mut found = Vec::new();
    let mut add = |title: &str, note: &str, of: &dyn Fn(&Run) -> Points| {
        let series: Vec<Series> = runs.iter().map(|run| line(&run.name(), of(run))).collect();
        if series.iter().any(|series| !series.points.is_empty()) {
            let panel = Panel { title: title.into(), note: note.into(), series };
            found.push(Curve { panel, named: false });
        }
    };
    add("Loss", "misleads alone: the targets move", &|run| run.metrics.points("loss"));
    add("Context gap, %", "extra loss with another clip's context; must grow", &|run| {
        run.measured(|report| Some(100.0 * report.context_gap))
    });
    add("Effective rank", "of mean features; below 2 is collapse", &|run| {
        run.measured(|report| Some(report.effective_rank))
    });
    add("Deviation of targets", "per dimension over tokens, mean; 0 is collapse", &|run| {
        run.measured(|report| Some(report.deviation_mean))
    });
    add("kNN accuracy", "of held-out clips, leave one out", &|run| run.measured(|report| report.knn));
    add("Held-out loss", "on clips that are not trained on", &|run| run.measured(|report| Some(report.loss)));
    for name in columns(runs, "grad_norm_") {
        let set = name.trim_start_matches("grad_norm_").replace('_', " ");
        let note = "before clipping; vanishes in a collapse";
        add(&format!("Gradient norm, {set}"), note, &|run| run.metrics.points(&name));
    }
    for name in columns(runs, "loss_") {
        let shown = |run: &Run| {
            let points = run.metrics.points(&name);
            let news = points.iter().any(|point| point.1 != 0.0) && points != run.metrics.points("loss");
            if news { points } else { Points::new() }
        };
        add(&name.replace('_', " "), "a part of the loss, or reported beside it", &shown);
    }
    add("Learning rate", "", &|run| run.metrics.points("lr"));
    add("Weight decay", "", &|run| run.metrics.points("wd"));
    add("Momentum of the target", "", &|run| run.metrics.points("momentum"));
    add("Throughput, clips/s", "clips learned from, by the time of the step", &|run| run.metrics.throughput());
    add("Time of a step, ms", "data included", &|run| run.metrics.points("step_ms"));
    add("Waiting for data, %", "of the time of the step; should stay below 5", &|run| {
        run.metrics.ratio("data_ms", "step_ms", 100.0)
    });
    add("Memory, MB", "of the process; flat in a healthy run", &|run| run.metrics.points("memory_mb"));
    if let [run] = runs {
        merge(&mut found, run, "Loss", ["training", "held out"], |report| Some(report.loss));
        merge(&mut found, run, "Deviation of targets", ["mean", "least"], |report| Some(report.deviation_min));
        found.retain(|curve| curve.panel.title != "Held-out loss");
    }
    found
}

/// Puts a value of the diagnostics beside the line of a single run.
fn merge(
    curves: &mut [Curve],
    run: &Run,
    title: &str,
    [own, other]: [&str; 2],
    value: impl Fn(&vjepa_recipe::records::DiagnosticsReport) -> Option<f64>,
) {
    let points = run.measured(value);
    let Some(curve) = curves.iter_mut().find(|curve| curve.panel.title == title) else { return };
    if let [series] = curve.panel.series.as_mut_slice()
        && !points.is_empty()
    {
        series.name = own.to_owned();
        curve.panel.series.push(line(other, points));
        curve.named = true;
    }
}

/// Names of columns that begin so, of all runs, each once.
fn columns(runs: &[Run], prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in runs.iter().flat_map(|run| run.metrics.beginning(prefix)) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn line(name: &str, points: Points) -> Series {
    Series { name: name.to_owned(), points: thinned(points, DRAWN) }
}

/// At most about `most` points: the least and the largest of each of as many stretches, so that single spikes stay.
fn thinned(points: Points, most: usize) -> Points {
    if points.len() <= most.max(2) {
        return points;
    }
    let stretch = points.len().div_ceil(most.max(2) / 2);
    let extremes = |part: &[(f64, f64)]| {
        let by = |a: &(usize, &(f64, f64)), b: &(usize, &(f64, f64))| a.1.1.total_cmp(&b.1.1);
        let least = part.iter().enumerate().min_by(by);
        let largest = part.iter().enumerate().max_by(by);
        let mut both: Vec<_> = least.into_iter().chain(largest).collect();
        both.sort_by_key(|(place, _)| *place);
        both.dedup_by_key(|(place, _)| *place);
        both.into_iter().map(|(_, point)| *point).collect::<Vec<_>>()
    };
    points.chunks(stretch).flat_map(extremes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::sample;

    #[test]
    fn spikes_survive_thinning() {
        let mut points: Points = (0..90_000).map(|i| (f64::from(i), 1.0)).collect();
        points[77_777].1 = 50.0;
        let thin = thinned(points.clone(), 500);
        assert!(thin.len() <= 500 && thin.len() >= 250, "{}", thin.len());
        assert!(thin.contains(&(77_777.0, 50.0)));
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        points.truncate(400);
        assert_eq!(thinned(points.clone(), 500), points);
    }

    #[test]
    fn one_run_has_its_diagnostics_beside_the_loss_and_several_are_compared() {
        let folder = sample(200);
        let run = Run::read(folder.path()).unwrap();
        let titles = |runs: &[Run]| curves(runs).iter().map(|curve| curve.panel.title.clone()).collect::<Vec<_>>();
        let alone = titles(std::slice::from_ref(&run));
        assert_eq!(alone[..3], ["Loss", "Context gap, %", "Effective rank"]);
        assert!(!alone.contains(&"Held-out loss".to_owned()) && !alone.contains(&"kNN accuracy".to_owned()));
        // `loss_jepa` is the loss itself and `loss_reg` nothing here.
        assert!(!alone.iter().any(|title| title.starts_with("loss ")), "{alone:?}");
        let both = [run.clone(), run];
        assert!(titles(&both).contains(&"Held-out loss".to_owned()));
        assert!(curves(&both).iter().all(|curve| curve.panel.series.len() == 2 && !curve.named));
    }
}
