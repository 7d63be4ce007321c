//! `vjepa eval`: how often a probe is right on labelled videos.

use std::path::PathBuf;

use super::CliError;
use super::device::DeviceArg;
use super::probe::{Bar, Cache, tell_bad};
use crate::compile::Probe;
use crate::config::Config;
use crate::eval::features::Keep;
use crate::eval::video_probe::{VideoSet, classes_of, evaluate_probe, open_encoder};
use crate::eval::videos::BadVideo;
use crate::weights;

/// Evaluate a probe on labelled videos: top-1 and top-5.
#[derive(clap::Args)]
pub struct Args {
    /// An official .pth.tar or .pt, or safetensors with official names.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration with the model's sizes and preprocessing; needed where the checkpoint does not tell them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A probe that `vjepa probe` or the official evaluation wrote.
    #[arg(long, value_name = "FILE")]
    probe: PathBuf,
    /// Labelled videos, a line "path label" each.
    #[arg(long, value_name = "CSV")]
    data: PathBuf,
    /// Clips of a video; the probe attends across all of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    clips: u16,
    /// Views of each clip: 1 is the centre, more are spread along the long side; predictions are averaged.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    views: u16,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    device: DeviceArg,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let device = args.device.open()?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &[])).transpose()?;
    let mut opened = open_encoder(device, &args.checkpoint, config.as_ref())?;
    let probe = weights::load_probe_for(&args.probe, &opened.model.encoder)?;
    super::note_sampling(opened.model.config.as_ref());
    let (reads, makes) = (probe.probe.embed_dim(), opened.model.encoder.embed_dim);
    if reads != makes {
        return Err(format!(
            "the probe {} reads features {reads} wide, but the encoder's are {makes} wide; use the encoder it was trained on",
            args.probe.display()
        )
        .into());
    }
    let keep = if matches!(probe.probe, Probe::Linear { .. }) { Keep::Mean } else { Keep::Tokens };
    let set = VideoSet {
        list: args.data.clone(),
        clips: args.clips.into(),
        views: args.views.into(),
        cache: args.cache.folder(&args.probe),
    };
    let mut bar = Bar::default();
    let (found, cached) = opened.features(&set, keep, &mut |p| bar.show(p))?;
    bar.clear();
    let count = crate::eval::attentive::classes(&probe.probe);
    let classes = classes_of(&found.labels, &probe.labels, count)?;
    let accuracy = evaluate_probe(device, &probe.probe, &probe.tensors, &found.features, &classes, set.views)?;
    if args.json {
        let summary = serde_json::json!({
            "top1": accuracy.top1, "top5": accuracy.top5, "videos": accuracy.videos, "classes": count,
            "clips": args.clips, "views": args.views, "features_from_cache": cached, "bad_videos": found.bad,
        });
        println!("{summary}");
        return Ok(());
    }
    let per_video = match (args.clips, args.views) {
        (1, 1) => "one clip a video".to_owned(),
        (clips, views) => format!("clips x views {clips} x {views}"),
    };
    println!("top-1    {:.1} %", 100.0 * accuracy.top1);
    println!("top-5    {:.1} %", 100.0 * accuracy.top5);
    println!("videos   {} of {count} classes, {per_video}", accuracy.videos);
    tell_bad(&found.bad.iter().collect::<Vec<&BadVideo>>());
    Ok(())
}
