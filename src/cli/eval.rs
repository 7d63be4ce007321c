//! `vjepa eval`: accuracy of a probe, or of a fine-tuned model, on labelled videos or pictures.

mod tuned;

use std::path::{Path, PathBuf};

use super::CliError;
use super::device::{DeviceArg, RankArgs};
use super::frozen::{EncoderArgs, Kind, Opened, Reads, Setup, samples};
use super::given::all_there;
use super::probe::{
    Bar, CLIPS_APART_KEY, Cache, LABELS_FROM_KEY, of, print_skipped, read_notes, save_confusion, spare_by_results,
};
use super::probe_number::ProbeNumber;
use super::whole::whole;
use vjepa_collective::Collective;
use vjepa_data::BadVideo;
use vjepa_data::VideoList;
use vjepa_eval::features::Keep;
use vjepa_eval::labels::ClassNames;
use vjepa_eval::protocols::videos::{SampleSet, Tally, classes_of, evaluated, predict};
use vjepa_eval::videos::VideoFeatures;
use vjepa_programs::{Probe, ProbeChoice, ProbeFile, encoder_name, load_probe, load_probe_for, probe_layers};
use vjepa_runtime::plan::Device;

/// Measure the top-1 and top-5 accuracy of a probe, or of a fine-tuned model, on labelled videos or pictures
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Probe written by `vjepa probe` or by the official evaluation [default: `probe_checkpoint` of the official evaluation's
    /// file]; none for a model of `vjepa finetune`
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    #[command(flatten)]
    probe_number: ProbeNumber,
    /// Attention heads of a probe file that does not say their number and is of no released size
    #[arg(long, value_name = "N")]
    probe_heads: Option<usize>,
    /// Labelled samples: a list with one "path label" per line, paths relative to the list's folder, shards, or a folder with
    /// a folder of pictures for each class [default: those of the official evaluation]
    #[arg(long, value_name = "LIST|FOLDER")]
    data: Option<PathBuf>,
    /// Label of the probe's first class in --data, for probes with class names [default: as in training]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    labels_from: Option<i64>,
    /// Clips per video; a probe attends across all of them, predictions of a fine-tuned model are averaged [default: 1, or those
    /// of the official evaluation, or of the fine-tuned model's configuration]
    #[arg(long, value_parser = whole::<u16>(1..))]
    clips: Option<u16>,
    /// Views per clip: 1 is the centre crop, more are spread along the long side; predictions are averaged [default: 1, or
    /// those of the official evaluation]
    #[arg(long, value_parser = whole::<u16>(1..))]
    views: Option<u16>,
    /// Classify every clip of a video on its own and average, instead of joining their tokens [default: as in training]
    #[arg(long)]
    clips_apart: bool,
    /// Folder for per-class.csv, confusion.csv and confusion.png
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Seed of --official-validation
    #[arg(long, default_value_t = 0, requires = "official_validation")]
    seed: u64,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    ranks: RankArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command, as one of several ranks where a launcher says so: they share the samples.
pub fn run(args: &Args) -> Result<(), CliError> {
    let one = |device: Device, ranks: &dyn Collective| {
        all_there(&[("--probe", args.probe.as_deref()), ("--data", args.data.as_deref())])?;
        let setup = Setup::read(&args.encoder)?;
        let mut read = setup.inputs(&args.encoder);
        read.extend([&args.probe, &args.data].into_iter().flatten().cloned());
        spare_by_results(args.results.as_deref(), &read)?;
        match (args.probe.as_deref().or(setup.probe_file()), &setup.official) {
            (Some(path), _) => of_probe(args, path, &setup, device, ranks),
            (None, None) => {
                args.probe_number.of(None, true)?;
                tuned::run(args, setup.config.as_ref(), device, ranks)
            }
            (None, Some(_)) => {
                Err("name the probe with --probe: the file of the official evaluation names none".into())
            }
        }
    };
    args.ranks.run(&args.device, |_| false, one)
}

/// Evaluates a probe.
fn of_probe(args: &Args, path: &Path, setup: &Setup, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let own = setup.data().map(|[_, val]| val);
    let none = "name the samples to evaluate on: --data LIST, or --config with an official evaluation's file";
    let data = args.data.clone().or(own).ok_or(none)?;
    let (list, folders) = samples(&data)?;
    let kind = Kind::of(&list)?;
    let choice = ProbeChoice { number: args.probe_number.of(Some(path), ranks.rank() == 0)?, heads: args.probe_heads };
    let reads = Reads { layers: probe_layers(path)?, heads: None };
    let mut opened = Opened::open(&args.encoder, setup, device, kind, reads)?;
    let probe = probe_of(path, &opened, choice)?;
    let (reads, [_, makes]) = (probe.probe.embed_dim(), opened.encoder.tokens());
    if reads != makes {
        let exported = || format!("the encoder {}", opened.path.display());
        let model = opened.sizes.as_ref().map_or_else(exported, encoder_name);
        vjepa_weights::load(path)?.refuse_probe_for(reads, &model, makes)?;
    }
    let keep = if matches!(probe.probe, Probe::Linear { .. }) { Keep::Mean } else { Keep::Tokens };
    let count = vjepa_eval::attentive::classes(&probe.probe);
    let recorded = vjepa_weights::load(path)?.metadata().get(LABELS_FROM_KEY).and_then(|from| from.parse().ok());
    let classes = ClassNames { names: probe.labels.clone(), count, from: recorded, source: path.to_owned() };
    let (from, notes) = numbering(args, &classes, &list, folders.as_ref())?;
    notes.iter().filter(|_| ranks.rank() == 0).for_each(|note| eprintln!("note: {note}"));
    let [own_clips, own_views] = setup.clips_and_views();
    let (clips, views) = (args.clips.map_or(own_clips, usize::from), args.views.map_or(own_views, usize::from));
    let random = args.encoder.official_validation.then_some(args.seed);
    let set = SampleSet {
        entries: &list.entries,
        plan: opened.plan(kind, [clips, views], random)?,
        attend: setup.attends() && !args.clips_apart && !trained_apart(path)?,
        cache: args.cache.folder(path),
        ranks,
    };
    let mut bar = Bar::of(ranks);
    let mut tally = Tally::default();
    let mut take = |part: &VideoFeatures| {
        let labels: Vec<i64> = part.labels.iter().map(|label| label - from).collect();
        let classes = classes_of(&labels, &probe.labels, count)?;
        let sizes = (classes.len(), set.predictions());
        tally.add(&predict(device, &probe.probe, &probe.tensors, &part.features, sizes)?, count, &classes)
    };
    let found = evaluated(opened.encoder.as_mut(), &opened.id, &set, keep, &mut take, &mut |p| bar.show(p))?;
    bar.clear();
    let Some((bad, cached)) = found else { return Ok(()) };
    let (Some(accuracy), Some(confusion)) = (tally.accuracy(), tally.into_confusion()) else {
        return Err("there is no sample to evaluate on".into());
    };
    if let Some(folder) = &args.results {
        save_confusion(folder, &probe.labels, &confusion)?;
    }
    if args.json {
        let summary = serde_json::json!({
            "top1": accuracy.top1, "top5": accuracy.top5, "class_mean": confusion.class_mean(),
            "videos": accuracy.videos, "classes": count,
            "clips": clips, "views": views, "features_from_cache": cached, "bad_videos": bad,
            "labels_from": from, "notes": notes,
        });
        println!("{summary}");
        return Ok(());
    }
    let per_sample = match (kind, clips, views) {
        (Kind::Pictures, ..) => format!("repeated to {} frames", opened.preprocessing.num_frames),
        (Kind::Videos, 1, 1) => "one clip per video".to_owned(),
        (Kind::Videos, clips, views) => format!("{clips} clips x {views} views per video"),
    };
    println!(
        "top-1    {:.1} %, {:.1} % in the mean of the classes",
        100.0 * accuracy.top1,
        100.0 * confusion.class_mean()
    );
    println!("top-5    {:.1} %", 100.0 * accuracy.top5);
    println!("{:<9}{} of {count} classes, {per_sample}", kind.word(), accuracy.videos);
    if let Some(folder) = &args.results {
        println!("results  {}", folder.display());
    }
    print_skipped(&bad.iter().collect::<Vec<&BadVideo>>());
    Ok(())
}

/// The probe, for an encoder.
fn probe_of(path: &Path, opened: &Opened, choice: ProbeChoice) -> Result<ProbeFile, CliError> {
    let probe = match &opened.sizes {
        Some(sizes) => load_probe_for(path, sizes, choice)?,
        None if choice.heads.is_some() => {
            let why = "--probe-heads is for a checkpoint's probes; those of --encoder say theirs: leave it out";
            return Err(why.into());
        }
        None => load_probe(path)?,
    };
    if let Probe::Tuned(_) = &probe.probe {
        let path = path.display();
        return Err(format!(
            "{path} holds an encoder and the classifier it was trained with; give it as --checkpoint, without --probe"
        )
        .into());
    }
    Ok(probe)
}

/// Whether the probe was trained to classify every clip on its own.
fn trained_apart(path: &Path) -> Result<bool, CliError> {
    Ok(vjepa_weights::load(path)?.metadata().get(CLIPS_APART_KEY).is_some_and(|apart| apart == "true"))
}

/// The label of the first of the classes in the list (0 where they are called by their labels), and remarks on the list.
fn numbering(
    args: &Args,
    classes: &ClassNames,
    list: &VideoList,
    folders: Option<&ClassNames>,
) -> Result<(i64, Vec<String>), CliError> {
    let mut notes = read_notes(list);
    let ClassNames { names, count, source, .. } = classes;
    if let Some(folders) = folders {
        if !names.is_empty() && folders.names != *names {
            let missing = names.iter().find(|name| !folders.names.contains(name));
            let which = missing.map_or_else(String::new, |name| format!("; it lacks `{name}`"));
            let path = list.path.display();
            return Err(format!("the class folders of {path} are not the probe's {count} classes{which}").into());
        }
        return Ok((0, notes));
    }
    if classes.are_labels() && args.labels_from.is_some() {
        let source = source.display();
        return Err(format!("the classes of {source} are named by their labels; omit --labels-from").into());
    }
    let (from, remarks) = classes.meet(list, args.labels_from)?;
    notes.extend(of(list, remarks));
    Ok((from, notes))
}
