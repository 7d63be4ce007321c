//! The quickstart on a folder of videos: without labels, diagnostics and nearest neighbours show what was learned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::QuickstartError;
use super::screen::Screen;
use super::{Pretrained, Quickstart, configure, pretrain, seconds_per_step, show};
use crate::table::{indented, words};
use vjepa_data::{ClipSource, DataError, DataSets, VideoDataset};
use vjepa_deploy::{DeployError, Export, Exported, Form, Origin, export};
use vjepa_eval::features::{Features, Keep};
use vjepa_eval::{FrozenEncoder, neighbours};
use vjepa_graphs::EncoderConfig;
use vjepa_programs::model_configs;
use vjepa_runtime::plan::Device;
use vjepa_train::Watch;
use vjepa_view::Canvas;
use vjepa_view::pictures::{self, Neighbour, ShownClip};

pub(super) const RECIPE: &str = include_str!("../../configs/quickstart_videos.yaml");
/// Videos that are compared with each other.
const COMPARED: usize = 200;
/// Rows of the picture, and neighbours in each.
const ROWS: usize = 6;
const NEAREST: usize = 3;
/// Cost of everything but training, in training steps.
const OTHER_WORK: f64 = 40.0;

pub(super) fn run(options: &Quickstart, videos: &Path) -> Result<(), QuickstartError> {
    let datasets = format!("data.datasets=[{}]", serde_json::to_string(videos)?);
    let config = configure(RECIPE, "the quickstart recipe for videos", options, &[datasets])?;
    // Stages after training need two of them; better to fail now.
    let sets = DataSets::read(&config.data).map_err(|error| match &error {
        DataError::NoVideos { .. } => QuickstartError::Refused(format!("{error}; quickstart needs video files")),
        _ => error.into(),
    })?;
    let dataset = sets.videos(&config.data, &config.data_aug)?;
    compared(&dataset, 2)?;
    let mut screen = Screen::new();
    let data = sets.survey();
    for set in &data {
        screen.say(&format!("data set {set}"));
        set.notes.iter().for_each(|note| screen.say(&format!("note: {note}")));
    }
    let step = seconds_per_step(&config)?;
    let steps = config.optimization.plan(Some(1))?.steps;
    screen.say(&format!(
        "V-JEPA on the videos in {}: {steps} steps. About {:.0} minutes on this machine if decoding keeps up; output in {}",
        videos.display(),
        (step * (steps as f64 + OTHER_WORK) / 60.0).ceil(),
        options.folder.display()
    ));
    screen.stage("pretraining");
    screen.watch = Some(Watch::new(Device::CPU, &config, &sets)?);
    let run = pretrain(config, sets, &mut screen)?;
    let models = model_configs(&run.config)?;

    screen.stage("nearest neighbours of your videos");
    let canvas = nearest_neighbours(&run, &models.encoder, &dataset, &mut screen)?;
    let mut paths = show::pictures(&run, &models, &screen, &options.folder)?;
    let picture = options.folder.join("neighbours.png");
    canvas.save(&picture)?;

    screen.stage("export");
    let model = options.folder.join("encoder.onnx");
    let exported = export_encoder(&run.checkpoint, &model)?;
    paths.extend([("neighbours", picture), ("model", model), ("checkpoint", run.checkpoint.clone())]);
    screen.finish();
    let last = screen.watch.as_ref().and_then(|watch| watch.history().last()).map(|(_, report)| *report);
    if options.json {
        let parity: BTreeMap<&str, serde_json::Value> =
            exported.parity.iter().map(|(name, parity)| (*name, parity.json())).collect();
        let summary = serde_json::json!({
            "diagnostics": last, "parity": parity, "files": paths, "steps": steps, "seconds": screen.seconds(),
            "bad_videos": run.outcome.bad_videos, "data": data,
        });
        println!("{summary}");
        return Ok(());
    }
    print(&exported.parity, last, &paths, run.outcome.bad_videos);
    Ok(())
}

/// Some of the videos, each beside those whose features are most like its own.
fn nearest_neighbours(
    run: &Pretrained,
    config: &EncoderConfig,
    dataset: &VideoDataset,
    screen: &mut Screen,
) -> Result<Canvas, QuickstartError> {
    let (clips, names) = compared(dataset, COMPARED)?;
    let len = clips.len() / names.len().max(1);
    let mut encoder = FrozenEncoder::new(config, &run.encoder)?;
    let fill = |index: usize, out: &mut [f32]| {
        out.copy_from_slice(&clips[index * len..(index + 1) * len]);
        Ok(())
    };
    let features: Features = encoder.extract(names.len(), Keep::Mean, fill, "videos", &mut |p| {
        screen.progress(p.what, p.done, p.total);
    })?;
    let nearest = neighbours::nearest(&features, NEAREST);
    let shape = [3, config.num_frames, config.height, config.width];
    let normalization = run.config.data.normalization;
    let shown = |index: usize| ShownClip { values: &clips[index * len..(index + 1) * len], shape, normalization };
    let rows: Vec<Vec<Neighbour<'_>>> = (0..names.len())
        .step_by(names.len().div_ceil(ROWS).max(1))
        .map(|query| {
            let own = Neighbour { clip: shown(query), caption: names[query].clone() };
            let others = nearest[query].iter().map(|(index, similarity)| Neighbour {
                clip: shown(*index),
                caption: format!("{} {similarity:.2}", names[*index]),
            });
            std::iter::once(own).chain(others).collect()
        })
        .collect();
    Ok(pictures::neighbours(&rows))
}

/// The encoder as an ONNX file, compared with the plan.
fn export_encoder(checkpoint: &Path, out: &Path) -> Result<Exported, DeployError> {
    export(&Export {
        origin: Origin::Checkpoint(checkpoint),
        probe: None,
        config: None,
        out,
        shown_as: out,
        verify: true,
        ort_lib: None,
        form: Form::default(),
    })
}

/// The first `count` of up to [`COMPARED`] videos, spread over the list: clips `[n, 3, T, S, S]` and their names. Unreadable
/// ones are skipped.
fn compared(dataset: &VideoDataset, count: usize) -> Result<(Vec<f32>, Vec<String>), QuickstartError> {
    let len = dataset.shape().iter().product();
    let videos = dataset.len().unwrap_or(0) as usize;
    let (mut clips, mut names) = (Vec::new(), Vec::new());
    for index in (0..videos).step_by(videos.div_ceil(COMPARED).max(1)) {
        if names.len() >= count {
            break;
        }
        let mut clip = vec![0f32; len];
        match dataset.evaluate(index, &mut clip) {
            Ok(_) => {
                clips.extend(clip);
                let name = dataset.entry(index)?.path.file_name().map(|name| name.to_string_lossy().into_owned());
                names.push(name.unwrap_or_default());
            }
            Err(error) if error.is_bad_sample() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if names.len() < 2 {
        return Err("fewer than two of the videos can be read: add more".into());
    }
    Ok((clips, names))
}

fn print(
    parity: &[(&'static str, vjepa_deploy::Parity)],
    last: Option<vjepa_train::DiagnosticsReport>,
    paths: &BTreeMap<&'static str, PathBuf>,
    bad: u64,
) {
    if let Some(found) = last {
        println!("\nafter training, on held-out clips\n");
        println!(
            "  context gap       {:+.1} %   (above 5 %: the predictor uses its context)",
            100.0 * found.context_gap
        );
        println!("  effective rank    {:.1}     (below 2: features have collapsed)", found.effective_rank);
        println!("  target deviation  {:.3}", found.deviation_mean);
    }
    println!("\nthe exported encoder compared with the plan\n");
    for (name, parity) in parity {
        println!("  {name:<8} {parity}");
    }
    println!("\nfiles\n");
    let paths = paths.iter().map(|(what, path)| vec![(*what).to_owned(), path.display().to_string()]);
    print!("{}", indented(&words(&[], paths.collect())));
    if bad > 0 {
        println!("\n{bad} unreadable videos were skipped");
    }
}
