//! Pages of runs as they are left.

use std::time::Duration;

use super::*;
use crate::run::tests::sample;
use crate::starts::tests::start;
use crate::starts::{How, RunRecord, Said};
use vjepa_recipe::records::Accuracy;

fn probe() -> ShownProbe {
    let accuracy = |top1| Accuracy { top1, top5: 0.9, videos: 100 };
    let result = ProbeResult {
        kind: "attentive".into(),
        classes: 10,
        clips_per_video: 1,
        train: Some(accuracy(0.8)),
        val: Some(accuracy(0.612)),
        encoder: "run/jepa-latest.safetensors".into(),
        encoder_step: Some(5000),
        clips_seen: Some(80_000),
    };
    ShownProbe { of: "run".into(), file: "probe.safetensors".into(), result }
}

#[test]
fn a_page_stands_alone_and_shows_what_is_there() {
    let folder = sample(200);
    let mut record = RunRecord::begin(folder.path(), start(0)).unwrap();
    let sentence = "verdict after step 20: no sign of collapse (gradient norm 1e-1, deviation 0.100 <least>)";
    record.say(Said { step: 20, sentence: sentence.into() }).unwrap();
    record.end(200, How::Stopped).unwrap();
    let run = Run::read(folder.path()).unwrap();
    let at = run.written + Duration::from_secs(5);
    let page = page(&[run], &[probe()], at).unwrap();
    for wanted in [
        "<!DOCTYPE html>",
        "Context gap, %",
        "200 of 400",
        "3,056",
        "80,000",
        "61.2 %",
        "4.9 % of the time",
        "moov is missing",
        "videos/&lt;b&gt;.mp4",
        "meta.seed=&lt;1&gt;",
        "held out",
        "stopped after 200 steps",
        "no sign of collapse (gradient norm 1e-1, deviation 0.100 &lt;least&gt;)",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    for foreign in ["http://", "https://", "<script", "src=\"/", "@import"] {
        let found = page.match_indices(foreign).map(|(at, _)| &page[at..(at + 60).min(page.len())]);
        let found: Vec<&str> = found.filter(|text| !text.starts_with("http://www.w3.org/2000/svg")).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn several_runs_are_compared() {
    let (a, b) = (sample(100), sample(200));
    let mut other = start(0);
    other.config["optimization"]["lr"] = 0.002.into();
    RunRecord::begin(a.path(), start(0)).unwrap();
    RunRecord::begin(b.path(), other).unwrap();
    let runs = [a.path(), b.path()].map(|path| Run::read(path).unwrap());
    let page = page(&runs, &[], SystemTime::now()).unwrap();
    for wanted in ["Settings that differ", "optimization.lr", "0.002", "Held-out loss", "--line-1"] {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(!page.contains("<code>data.batch_size"));
}

#[test]
fn a_run_that_has_just_begun_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jepa-metrics.csv"), "step,epoch,loss\n").unwrap();
    let run = Run::read(folder.path()).unwrap();
    assert!(page(&[run], &[], SystemTime::now()).unwrap().contains("No step has been written yet"));
}
