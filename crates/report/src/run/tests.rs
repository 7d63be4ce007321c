//! A run's folder as the program leaves it.

use std::fmt::Write;
use std::time::Duration;

use super::*;
use crate::starts::tests::start;
use crate::starts::{How, RunRecord};

/// A run of `steps` steps of which every tenth is written, in a folder of its own.
pub(crate) fn sample(steps: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut csv =
        "step,epoch,loss,loss_jepa,loss_reg,lr,wd,momentum,grad_norm_encoder,grad_norm_predictor,clipping,tokens,\
                   data_ms,step_ms,clips,memory_mb\n"
            .to_owned();
    for step in (0..steps).step_by(10) {
        let x = step as f64;
        let loss = 0.4 + 0.6 * (-x / 60.0).exp();
        let _ = writeln!(
            csv,
            "{step},0,{loss},{loss},0,{},0.04,0.996,{},{},1,12+20 8+30,{},100.00,{},512",
            1e-3 * (x / 40.0).min(1.0),
            0.5 + 0.1 * (x / 9.0).sin(),
            0.2,
            if step == 50 { 60.0 } else { 2.0 },
            (step + 1) * 16
        );
    }
    std::fs::write(folder.path().join("jepa-metrics.csv"), csv).unwrap();
    let line = |step: u64| {
        format!(
            "{{\"loss\":0.5,\"loss_other_context\":0.6,\"context_gap\":{},\"effective_rank\":{},\"deviation_mean\":0.3,\
             \"deviation_min\":0.1,\"step\":{step}}}\n",
            step as f64 / 1000.0,
            18.0 - step as f64 / 50.0
        )
    };
    let lines: String = (1..=4).map(|i| line(i * steps / 4)).collect();
    std::fs::write(folder.path().join("jepa-diagnostics.jsonl"), lines).unwrap();
    let bad = "{\"path\":\"videos/<b>.mp4\",\"reason\":\"moov is missing\"}\n";
    std::fs::write(folder.path().join("jepa-bad-videos.jsonl"), bad).unwrap();
    folder
}

#[test]
fn everything_in_the_folder_is_read() {
    let folder = sample(200);
    RunRecord::begin(folder.path(), start(0)).unwrap();
    let pictures = folder.path().join(PICTURES);
    std::fs::create_dir(&pictures).unwrap();
    for name in ["masks-000000.png", "features-000100.png", "features-000050.png", "other.png"] {
        std::fs::write(pictures.join(name), "").unwrap();
    }
    let run = Run::read(folder.path()).unwrap();
    assert_eq!((run.tag.as_str(), run.steps_done(), run.steps()), ("jepa", 191, Some(400)));
    assert_eq!((run.diagnostics.len(), run.bad.len(), run.starts.len()), (4, 1, 1));
    assert_eq!(run.pictures["features"].keys().copied().collect::<Vec<_>>(), [50, 100]);
    assert_eq!(run.pictures.keys().collect::<Vec<_>>(), ["features", "masks"]);
    assert!((run.waiting().unwrap() - 0.049).abs() < 1e-9, "{:?}", run.waiting());
    assert!(run.notes.is_empty(), "{:?}", run.notes);
    assert_eq!(run.time_left().unwrap().as_secs(), 20);
    // By its file, too.
    assert_eq!(Run::read(&folder.path().join("jepa-metrics.csv")).unwrap().steps_done(), 191);
}

#[test]
fn runs_of_one_name_are_told_apart() {
    let (a, b) = (sample(20), sample(20));
    let folders = [a.path().join("run"), b.path().join("run")];
    for folder in &folders {
        std::fs::create_dir(folder).unwrap();
        std::fs::copy(a.path().join("jepa-metrics.csv"), folder.join("jepa-metrics.csv")).unwrap();
    }
    assert_eq!(Run::read_all(&folders[..1]).unwrap()[0].name(), "run");
    let names: Vec<String> = Run::read_all(&folders).unwrap().iter().map(Run::name).collect();
    assert_eq!(names, folders.map(|folder| folder.display().to_string()));
}

#[test]
fn a_folder_without_a_run_or_with_several_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| Run::read(path).unwrap_err().to_string();
    assert!(refused(folder.path()).contains("logging.folder"));
    assert!(refused(&folder.path().join("missing")).contains("nor its file of metrics"));
    for tag in ["a", "b"] {
        std::fs::write(folder.path().join(format!("{tag}-metrics.csv")), "step,loss\n").unwrap();
    }
    assert!(refused(folder.path()).contains("a-metrics.csv"));
}

#[test]
fn a_run_is_running_stalled_killed_or_ended() {
    let folder = sample(100);
    let at = |run: &Run, seconds| run.state(run.written + Duration::from_secs(seconds));
    let mut run = Run::read(folder.path()).unwrap();
    assert_eq!(at(&run, 30), State::Running);
    assert_eq!(at(&run, 600), State::Stalled(Duration::from_secs(600)));
    run.starts.push(start(0));
    assert_eq!(at(&run, 30), State::Running);
    run.starts[0].machine.pid = i32::MAX as u32;
    assert_eq!(at(&run, 30), if cfg!(unix) { State::Gone } else { State::Running });
    let mut record = RunRecord::begin(folder.path(), start(0)).unwrap();
    record.end(100, How::Collapsed).unwrap();
    assert_eq!(at(&Run::read(folder.path()).unwrap(), 600).word(), "collapsed");
}

#[test]
fn damaged_lines_are_noted() {
    let folder = sample(100);
    std::fs::write(folder.path().join("jepa-diagnostics.jsonl"), "{\"step\": 3}\n{\"st").unwrap();
    std::fs::write(folder.path().join("run.json"), "{").unwrap();
    let run = Run::read(folder.path()).unwrap();
    assert_eq!(run.notes.len(), 2, "{:?}", run.notes);
}
