//! `vjepa eval`: accuracy of a probe on labelled videos.

use std::path::PathBuf;

use super::CliError;
use super::device::DeviceArg;
use super::probe::{Bar, Cache, LABELS_FROM_KEY, of, print_skipped, read_notes};
use vjepa_data::BadVideo;
use vjepa_data::VideoList;
use vjepa_eval::features::Keep;
use vjepa_eval::labels::ClassNames;
use vjepa_eval::protocols::videos::{VideoSet, classes_of, evaluate_probe, open_encoder};
use vjepa_eval::videos::labelled_videos;
use vjepa_programs::Probe;
use vjepa_recipe::config::Config;

/// Measure a probe's top-1 and top-5 accuracy on labelled videos
#[derive(clap::Args)]
pub struct Args {
    /// Encoder: an official .pth.tar or .pt, or a .safetensors file with the official names
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Probe written by `vjepa probe` or by the official evaluation
    #[arg(long, value_name = "FILE")]
    probe: PathBuf,
    /// Labelled videos: one "path label" per line, paths relative to the list's folder
    #[arg(long, value_name = "CSV")]
    data: PathBuf,
    /// Label of the probe's first class in --data, for probes with class names [default: as in training]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    labels_from: Option<i64>,
    /// Clips per video; the probe attends across all of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    clips: u16,
    /// Views per clip: 1 is the centre crop, more are spread along the long side; predictions are averaged
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    views: u16,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    device: DeviceArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let device = args.device.open()?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &args.sets)).transpose()?;
    let mut opened = open_encoder(device, &args.checkpoint, config.as_ref())?;
    let probe = vjepa_programs::load_probe_for(&args.probe, &opened.model.encoder)?;
    super::note_sampling(opened.model.config.as_ref());
    let (reads, makes) = (probe.probe.embed_dim(), opened.model.encoder.embed_dim);
    if reads != makes {
        return Err(format!(
            "the probe {} takes features {reads} wide, but the encoder's are {makes} wide; use the encoder it was trained on",
            args.probe.display()
        )
        .into());
    }
    let keep = if matches!(probe.probe, Probe::Linear { .. }) { Keep::Mean } else { Keep::Tokens };
    let list = labelled_videos(&args.data)?;
    let count = vjepa_eval::attentive::classes(&probe.probe);
    let (from, notes) = numbering(args, &list, &probe.labels, count)?;
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    let set = VideoSet {
        entries: &list.entries,
        clips: args.clips.into(),
        views: args.views.into(),
        cache: args.cache.folder(&args.probe),
    };
    let mut bar = Bar::default();
    let (found, cached) = opened.features(&set, keep, &mut |p| bar.show(p))?;
    bar.clear();
    let labels: Vec<i64> = found.labels.iter().map(|label| label - from).collect();
    let classes = classes_of(&labels, &probe.labels, count)?;
    let accuracy = evaluate_probe(device, &probe.probe, &probe.tensors, &found.features, &classes, set.views)?;
    if args.json {
        let summary = serde_json::json!({
            "top1": accuracy.top1, "top5": accuracy.top5, "videos": accuracy.videos, "classes": count,
            "clips": args.clips, "views": args.views, "features_from_cache": cached, "bad_videos": found.bad,
            "labels_from": from, "notes": notes,
        });
        println!("{summary}");
        return Ok(());
    }
    let per_video = match (args.clips, args.views) {
        (1, 1) => "one clip per video".to_owned(),
        (clips, views) => format!("{clips} clips x {views} views per video"),
    };
    println!("top-1    {:.1} %", 100.0 * accuracy.top1);
    println!("top-5    {:.1} %", 100.0 * accuracy.top5);
    println!("videos   {} of {count} classes, {per_video}", accuracy.videos);
    print_skipped(&found.bad.iter().collect::<Vec<&BadVideo>>());
    Ok(())
}

/// The label of the probe's first class in the list (0 where classes are named by their labels), and remarks on the list.
fn numbering(args: &Args, list: &VideoList, names: &[String], count: usize) -> Result<(i64, Vec<String>), CliError> {
    let recorded = vjepa_weights::load(&args.probe)?.metadata().get(LABELS_FROM_KEY).and_then(|from| from.parse().ok());
    let classes = ClassNames { names: names.to_vec(), count, from: recorded, source: args.probe.clone() };
    let mut notes = read_notes(list);
    if classes.are_labels() {
        if args.labels_from.is_some() {
            let probe = args.probe.display();
            return Err(format!("the classes of {probe} are named by their labels; omit --labels-from").into());
        }
        classes.check_called(list)?;
        notes.extend(of(list, classes.remarks(list, 0)));
        return Ok((0, notes));
    }
    let from = classes.numbering(list, args.labels_from)?;
    notes.extend(of(list, classes.remarks(list, from)));
    Ok((from, notes))
}
