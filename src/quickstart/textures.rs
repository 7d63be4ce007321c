//! The quickstart on drifting textures, from the first step to the tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::QuickstartError;
use super::screen::Screen;
use super::{Pretrained, Quickstart, configure, files, pretrain, seconds_per_step, show};
use vjepa_data::clips;
use vjepa_data::textures::TEXTURES;
use vjepa_data::{ClipSource, DataSets, DriftingTextures, SampleKey};
use vjepa_deploy::{Export, Exported, Form, Origin, export};
use vjepa_eval::features::Keep;
use vjepa_eval::logistic::{Labelled, fit_tuned};
use vjepa_eval::probe_file::{linear_weights, save_probe};
use vjepa_eval::{FrozenEncoder, TextureProtocol, TextureReport, evaluate_textures};
use vjepa_graphs::EncoderConfig;
use vjepa_metrics::argmax;
use vjepa_programs::model_configs;
use vjepa_programs::{Probe, ProbeRecord};
use vjepa_recipe::counter::mix;
use vjepa_runtime::plan::Device;
use vjepa_runtime::{ClipBatch, Options, Runtime, Session};
use vjepa_train::Watch;

pub(super) const RECIPE: &str = include_str!("../../configs/quickstart.yaml");
/// Labelled clips of the exported probe, validation split included.
const PROBE_CLIPS: usize = 1600;
const VALIDATION: usize = 400;
/// Cost of everything but training, in training steps: evaluation of two encoders, probe, export, files.
const OTHER_WORK: f64 = 220.0;

/// Results of the exported model on one runtime.
pub(super) struct FileRun {
    pub runtime: String,
    pub accuracy: f64,
    pub latency_ms: f64,
}

/// Everything the summary shows.
pub(super) struct Results {
    pub report: TextureReport,
    pub exported: Exported,
    pub files: BTreeMap<&'static str, FileRun>,
    pub clips: usize,
    pub steps: u64,
    pub seconds: f64,
    pub paths: BTreeMap<&'static str, PathBuf>,
}

pub(super) fn run(options: &Quickstart) -> Result<(), QuickstartError> {
    let config = configure(RECIPE, "the quickstart recipe", options, &[])?;
    let mut screen = Screen::new();
    let step = seconds_per_step(&config)?;
    let steps = config.optimization.plan(None)?.steps;
    let minutes = step * (steps as f64 + OTHER_WORK) / 60.0;
    screen.say(&format!(
        "V-JEPA on drifting textures: {steps} steps, evaluation, export. About {:.0} minutes on this machine; output in {}",
        minutes.ceil(),
        options.folder.display()
    ));
    screen.stage("pretraining");
    let sets = DataSets::read(&config.data)?;
    screen.watch = Some(Watch::new(Device::CPU, &config, &sets)?);
    let run = pretrain(config, sets, &mut screen)?;

    screen.stage("evaluating the pretrained encoder and a random one on fresh clips");
    let models = model_configs(&run.config)?;
    let normalization = run.config.data.normalization;
    let protocol = TextureProtocol::recipe(options.seed);
    let report = evaluate_textures(&models.encoder, &run.random, &run.encoder, normalization, &protocol, &mut |p| {
        screen.progress(p.what, p.done, p.total);
    })?;

    screen.stage("training a probe, exporting, running the exported model on video files");
    let probe = fit_probe(&run, &models.encoder, options, &mut screen)?;
    let model = options.folder.join("textures.onnx");
    let exported = export(&Export {
        origin: Origin::Checkpoint(&run.checkpoint),
        probe: Some(&probe),
        config: None,
        out: &model,
        shown_as: &model,
        verify: true,
        ort_lib: None,
        form: Form::default(),
    })?;
    let videos = files::unpack(&options.folder.join("videos"))?;
    let mut on_files = BTreeMap::new();
    for (name, parity) in &exported.parity {
        if matches!(parity, vjepa_deploy::Parity::Agrees { .. }) {
            let runtime = if *name == "ort" { Runtime::Ort } else { Runtime::Tract };
            on_files.insert(*name, run_files(&model, runtime, &videos)?);
        }
    }
    screen.stage("pictures");
    let mut paths = show::pictures(&run, &models, &screen, &options.folder)?;
    paths.extend([
        ("checkpoint", run.checkpoint.clone()),
        ("metrics", run.outcome.metrics.clone()),
        ("probe", probe),
        ("model", model),
        ("videos", options.folder.join("videos")),
    ]);
    screen.finish();
    let results =
        Results { report, exported, files: on_files, clips: videos.len(), steps, seconds: screen.seconds(), paths };
    if options.json {
        println!("{}", show::json(&results)?)
    } else {
        print!("{}", show::table(&results))
    }
    Ok(())
}

/// A linear probe for textures on mean tokens, from fresh labelled clips.
fn fit_probe(
    run: &Pretrained,
    config: &EncoderConfig,
    options: &Quickstart,
    screen: &mut Screen,
) -> Result<PathBuf, QuickstartError> {
    let source = DriftingTextures::new(config.num_frames, config.height, run.config.data.normalization);
    let seed = mix(&[options.seed, 0x6578_706F_7274]);
    let mut encoder = FrozenEncoder::new(config, &run.encoder)?;
    let key = |index: usize| SampleKey { seed, epoch: 0, position: index as u64, retry: 0 };
    let fill = |index: usize, clip: &mut [f32]| {
        source.sample(key(index), clip)?;
        Ok(())
    };
    let features = encoder.extract(PROBE_CLIPS, Keep::Mean, fill, "clips for the probe", &mut |p| {
        screen.progress(p.what, p.done, p.total);
    })?;
    let labels: Vec<usize> = (0..PROBE_CLIPS).map(|index| source.labels(seed, index as u64).texture).collect();
    let dim = features.dim;
    let (held_out, train) = features.values.split_at(VALIDATION * dim);
    let labelled = |features, labels| Labelled { features, dim, labels };
    let (model, ..) =
        fit_tuned(labelled(train, &labels[VALIDATION..]), labelled(held_out, &labels[..VALIDATION]), TEXTURES.len())?;
    let path = options.folder.join("probe.safetensors");
    let probe = Probe::Linear { embed_dim: dim, num_classes: TEXTURES.len() };
    let names = TEXTURES.map(str::to_owned);
    save_probe(&path, &ProbeRecord::of(&probe, &names), &linear_weights(&model), &BTreeMap::new())?;
    Ok(path)
}

/// Decodes and classifies every file, and counts the correct ones.
fn run_files(model: &Path, runtime: Runtime, videos: &[(PathBuf, usize)]) -> Result<FileRun, QuickstartError> {
    let threads = vjepa_runtime::cores();
    let session = Session::open(model, &Options { runtime, threads, ..Options::default() })?;
    let record = session.preprocessing()?;
    let (mut right, mut times) = (0usize, Vec::with_capacity(videos.len()));
    for (path, label) in videos {
        let clip = clips::read(path, &record)?;
        let [channels, frames, height, width] = record.clip_shape();
        let batch = ClipBatch::new([1, channels, frames, height, width], &clip.data)?;
        let began = Instant::now();
        let outputs = session.run(&batch)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        let logits = outputs.iter().find(|output| output.name == "logits").ok_or("the model has no logits")?;
        right += usize::from(argmax(&logits.data) == *label);
    }
    times.sort_by(f64::total_cmp);
    let latency_ms = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    Ok(FileRun { runtime: session.runtime(), accuracy: right as f64 / videos.len().max(1) as f64, latency_ms })
}
