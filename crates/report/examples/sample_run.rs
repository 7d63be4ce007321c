//! Writes the folder of a made-up run that was killed and resumed, and its report:
//! `sample_run FOLDER`. `tests/sight/check.py` reads it with TensorBoard's own reader.

use std::fmt::Write;
use std::path::Path;
use std::time::SystemTime;

use vjepa_recipe::config::Normalization;
use vjepa_report::run::Run;
use vjepa_report::starts::{COMMIT, How, Machine, RunStart, now};
use vjepa_report::{Recorder, page};
use vjepa_view::pictures::{ShownClip, ShownFeatures, ShownMask, attention, features, masks};

type Failed = Box<dyn std::error::Error>;

const STEPS: u64 = 2000;
const BATCH: u64 = 16;

fn main() -> Result<(), Failed> {
    let folder = std::env::args_os().nth(1).ok_or("give a folder to write to")?;
    let folder = Path::new(&folder);
    let mut csv =
        "step,epoch,loss,loss_jepa,loss_reg,lr,wd,momentum,grad_norm_encoder,grad_norm_predictor,clipping,tokens,\
                   data_ms,step_ms,clips,memory_mb\n"
            .to_owned();
    let mut diagnostics = String::new();
    // Killed after step 1229, and resumed from the checkpoint at 1000.
    part(folder, 0, 1230, None, &mut String::new(), &mut String::new())?;
    part(folder, 0, 1000, None, &mut csv, &mut diagnostics)?;
    part(folder, 1000, STEPS, Some(How::Done), &mut csv, &mut diagnostics)?;
    std::fs::write(folder.join("jepa-metrics.csv"), csv)?;
    std::fs::write(folder.join("jepa-diagnostics.jsonl"), diagnostics)?;
    let bad = "{\"path\":\"videos/cut & short <1>.mp4\",\"reason\":\"the file ends within its first frame\"}\n";
    std::fs::write(folder.join("jepa-bad-videos.jsonl"), bad)?;
    let report = page(&[Run::read(folder)?], &[], SystemTime::now())?;
    std::fs::write(folder.join("report.html"), report)?;
    println!("{}", folder.join("report.html").display());
    Ok(())
}

/// The steps from `from` to `to`, and what is measured at them.
fn part(
    folder: &Path,
    from: u64,
    to: u64,
    how: Option<How>,
    csv: &mut String,
    diagnostics: &mut String,
) -> Result<(), Failed> {
    let start = RunStart {
        at: now(),
        tag: "jepa".into(),
        from,
        steps: STEPS,
        command: std::env::args().collect(),
        vjepa: env!("CARGO_PKG_VERSION").into(),
        commit: COMMIT.map(str::to_owned),
        machine: Machine { kernels: "avx2".into(), products: "avx2".into(), device: "cpu".into(), ..Machine::here() },
        config: serde_json::json!({"data": {"batch_size": BATCH}, "optimization": {"lr": 1e-3, "steps": STEPS}}),
        ended: None,
        verdicts: Vec::new(),
    };
    let mut recorder = Recorder::begin(folder, start, "data:\n  batch_size: 16\n", 10);
    if from == 0 {
        recorder.picture(0, "masks", &drawn_masks());
    }
    for step in from..to {
        let x = step as f64;
        let noise = |by: f64| (x * by).sin() * (x * 0.37).cos();
        let loss = 0.42 + 0.5 * (-x / 150.0).exp() + 0.02 * noise(1.7);
        let lr = 1e-3 * (x / 200.0).min(1.0) * (1.0 - x / 2.0 / STEPS as f64);
        let waited = if step % 370 == 0 { 180.0 } else { 3.0 + noise(0.9).abs() };
        let grad = 0.6 + 0.2 * noise(2.3);
        recorder.step(step, vec![("loss".into(), loss), ("rates/lr".into(), lr), ("time/data_ms".into(), waited)]);
        if step % 10 == 0 {
            let clips = (step + 1) * BATCH;
            writeln!(
                csv,
                "{step},{},{loss},{loss},0,{lr},0.04,{},{grad},{},1,12+20 8+30,{waited:.2},{:.2},{clips},{:.0}",
                step / 300,
                0.996 + 0.004 * x / STEPS as f64,
                0.3 * grad,
                210.0 + waited,
                480.0 + 3.0 * (x / 900.0).min(1.0)
            )?;
        }
        if (step + 1) % 250 == 0 {
            let at = step + 1;
            let (gap, rank) = (0.3 / (1.0 + (-(x - 900.0) / 250.0).exp()), 18.0 - 13.0 * (1.0 - (-x / 300.0).exp()));
            recorder.scalars(at, &[("diagnostics/context_gap", gap), ("diagnostics/effective_rank", rank)]);
            recorder.picture(at, "features", &drawn_features(at));
            writeln!(
                diagnostics,
                "{{\"loss\":{},\"loss_other_context\":{},\"context_gap\":{gap},\"effective_rank\":{rank},\
                 \"deviation_mean\":{},\"deviation_min\":0.11,\"step\":{at}}}",
                loss + 0.01,
                (loss + 0.01) * (1.0 + gap),
                0.3 + x / 20_000.0
            )?;
        }
    }
    if from > 0 {
        let weights: Vec<f32> = (0..3 * 144).map(|i| (1.0 + (i as f32 * 0.61).sin()).powi(4) / 144.0).collect();
        recorder.picture(to, "attention", &attention(shown(&texture(1)), 2, 8, &weights));
    }
    if let Some(how) = how {
        recorder.end(to, how);
    }
    recorder.trouble().map_or(Ok(()), |trouble| Err(trouble.into()))
}

/// Stripes that drift, `[3, 8, 48, 48]`.
fn texture(number: usize) -> Vec<f32> {
    let at = |index: usize| {
        let (c, t, y, x) = (index / 18432, index / 2304 % 8, index / 48 % 48, index % 48);
        1.4 * ((x + t * (1 + number)) as f32 * 0.4 + (y * number) as f32 * 0.2 + c as f32).sin()
    };
    (0..3 * 8 * 48 * 48).map(at).collect()
}

fn shown(values: &[f32]) -> ShownClip<'_> {
    ShownClip { values, shape: [3, 8, 48, 48], normalization: Normalization::PerClip }
}

fn drawn_masks() -> vjepa_view::Canvas {
    let context: Vec<i32> = (0..144).filter(|token| token % 6 < 3).collect();
    let target: Vec<i32> = (0..144).filter(|token| token % 6 >= 3).collect();
    masks(shown(&texture(1)), 2, 8, &[ShownMask { name: "generator 0".into(), context: &context, target: &target }])
}

fn drawn_features(step: u64) -> vjepa_view::Canvas {
    let clips = [texture(0), texture(1)];
    let sharp = step as f32 / STEPS as f32;
    let tokens: Vec<f32> = (0..2 * 144 * 8)
        .map(|i| sharp * ((i / 8 % 6) as f32 + (i % 8) as f32).sin() + (1.0 - sharp) * ((i * i) as f32 * 0.013).sin())
        .collect();
    let encoder = ShownFeatures { name: "target", tokens: &tokens, dim: 8 };
    features(&[shown(&clips[0]), shown(&clips[1])], 2, 8, &[encoder])
}
