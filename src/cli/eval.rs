//! `vjepa eval`: accuracy of a probe, or of a fine-tuned model, on labelled videos.

use std::path::{Path, PathBuf};

use super::CliError;
use super::device::DeviceArg;
use super::probe::{Bar, Cache, LABELS_FROM_KEY, of, print_skipped, read_notes};
use vjepa_data::{BadVideo, TestPlan, VideoList};
use vjepa_eval::features::Keep;
use vjepa_eval::labels::ClassNames;
use vjepa_eval::protocols::finetuned::open_tuned;
use vjepa_eval::protocols::videos::{Accuracy, VideoSet, classes_of, evaluate_probe, open_encoder};
use vjepa_eval::videos::labelled_videos;
use vjepa_programs::Probe;
use vjepa_recipe::config::{Config, TestSampling};
use vjepa_runtime::plan::Device;

/// Measure the top-1 and top-5 accuracy of a probe, or of a fine-tuned model, on labelled videos
#[derive(clap::Args)]
pub struct Args {
    /// Encoder: an official .pth.tar or .pt, or a .safetensors file with the official names; or a model of `vjepa finetune`
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Probe written by `vjepa probe` or by the official evaluation; none for a fine-tuned model
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    /// Labelled videos: one "path label" per line, paths relative to the list's folder
    #[arg(long, value_name = "CSV")]
    data: PathBuf,
    /// Label of the probe's first class in --data, for probes with class names [default: as in training]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    labels_from: Option<i64>,
    /// Clips per video; a probe attends across all of them, predictions of a fine-tuned model are averaged [default: 1; of a
    /// fine-tuned model, with --views, those of its configuration]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    clips: Option<u16>,
    /// Views per clip: 1 is the centre crop, more are spread along the long side; predictions are averaged
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    views: Option<u16>,
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
    match &args.probe {
        Some(probe) => of_probe(args, probe, device, config.as_ref()),
        None => tuned(args, device, config.as_ref()),
    }
}

/// Tests a fine-tuned model.
fn tuned(args: &Args, device: Device, config: Option<&Config>) -> Result<(), CliError> {
    let mut opened = open_tuned(device, &args.checkpoint, config)?;
    let recorded = opened.description.config.as_ref().and_then(|config| config.finetune.clone());
    let from = args.labels_from.or(recorded.as_ref().map(|recorded| recorded.labels_from)).unwrap_or(0);
    let preprocessing = opened.description.preprocessing.clone();
    let plan = match (args.clips, args.views, recorded) {
        (None, None, Some(recorded)) => TestPlan::of(&recorded, preprocessing),
        (clips, views, _) => {
            let [clips, crops] = [clips, views].map(|count| count.unwrap_or(1).into());
            TestPlan { preprocessing, sampling: TestSampling::Frozen, clips, crops }
        }
    };
    let list = labelled_videos(&args.data)?;
    let notes = read_notes(&list);
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    let mut bar = Bar::default();
    let tested = opened.model.test(&plan, &list.entries, &mut |p| bar.show(p))?;
    bar.clear();
    let accuracy = tested.accuracy(&opened.classes_of(&tested.labels, from)?);
    let (clips, views) = (plan.clips, plan.crops);
    if args.json {
        let summary = serde_json::json!({
            "top1": accuracy.top1, "top5": accuracy.top5, "videos": accuracy.videos, "classes": tested.classes,
            "clips": clips, "views": views, "bad_videos": tested.bad, "labels_from": from, "notes": notes,
            "predictions": tested.predictions(),
        });
        println!("{summary}");
        return Ok(());
    }
    print_accuracy(accuracy, tested.classes, clips, views);
    print_skipped(&tested.bad.iter().collect::<Vec<&BadVideo>>());
    Ok(())
}

fn print_accuracy(accuracy: Accuracy, classes: usize, clips: usize, views: usize) {
    let per_video = match (clips, views) {
        (1, 1) => "one clip per video".to_owned(),
        (clips, views) => format!("{clips} clips x {views} views per video"),
    };
    println!("top-1    {:.1} %", 100.0 * accuracy.top1);
    println!("top-5    {:.1} %", 100.0 * accuracy.top5);
    println!("videos   {} of {classes} classes, {per_video}", accuracy.videos);
}

/// Evaluates a probe.
fn of_probe(args: &Args, path: &Path, device: Device, config: Option<&Config>) -> Result<(), CliError> {
    let (clips, views) = (args.clips.unwrap_or(1), args.views.unwrap_or(1));
    let mut opened = open_encoder(device, &args.checkpoint, config)?;
    let probe = vjepa_programs::load_probe_for(path, &opened.model.encoder)?;
    if let Probe::Tuned(_) = &probe.probe {
        let path = path.display();
        return Err(format!(
            "{path} holds an encoder and the classifier it was trained with; give it as --checkpoint, without --probe"
        )
        .into());
    }
    super::note_sampling(opened.model.config.as_ref());
    let (reads, makes) = (probe.probe.embed_dim(), opened.model.encoder.embed_dim);
    if reads != makes {
        return Err(format!(
            "the probe {} takes features {reads} wide, but the encoder's are {makes} wide; use the encoder it was trained on",
            path.display()
        )
        .into());
    }
    let keep = if matches!(probe.probe, Probe::Linear { .. }) { Keep::Mean } else { Keep::Tokens };
    let list = labelled_videos(&args.data)?;
    let count = vjepa_eval::attentive::classes(&probe.probe);
    let (from, notes) = numbering(args, path, &list, &probe.labels, count)?;
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    let set =
        VideoSet { entries: &list.entries, clips: clips.into(), views: views.into(), cache: args.cache.folder(path) };
    let mut bar = Bar::default();
    let (found, cached) = opened.features(&set, keep, &mut |p| bar.show(p))?;
    bar.clear();
    let labels: Vec<i64> = found.labels.iter().map(|label| label - from).collect();
    let classes = classes_of(&labels, &probe.labels, count)?;
    let accuracy = evaluate_probe(device, &probe.probe, &probe.tensors, &found.features, &classes, set.views)?;
    if args.json {
        let summary = serde_json::json!({
            "top1": accuracy.top1, "top5": accuracy.top5, "videos": accuracy.videos, "classes": count,
            "clips": clips, "views": views, "features_from_cache": cached, "bad_videos": found.bad,
            "labels_from": from, "notes": notes,
        });
        println!("{summary}");
        return Ok(());
    }
    print_accuracy(accuracy, count, set.clips, set.views);
    print_skipped(&found.bad.iter().collect::<Vec<&BadVideo>>());
    Ok(())
}

/// The label of the probe's first class in the list (0 where classes are named by their labels), and remarks on the list.
fn numbering(
    args: &Args,
    path: &Path,
    list: &VideoList,
    names: &[String],
    count: usize,
) -> Result<(i64, Vec<String>), CliError> {
    let recorded = vjepa_weights::load(path)?.metadata().get(LABELS_FROM_KEY).and_then(|from| from.parse().ok());
    let classes = ClassNames { names: names.to_vec(), count, from: recorded, source: path.to_owned() };
    let mut notes = read_notes(list);
    if classes.are_labels() {
        if args.labels_from.is_some() {
            let probe = path.display();
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
