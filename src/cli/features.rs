//! `vjepa features`: features of a frozen encoder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;

use super::CliError;
use super::data::with_ending;
use super::device::{DeviceArg, RankArgs};
use super::given::there;
use super::named::named;
use super::probe_number::ProbeNumber;
use super::whole::whole;
use vjepa_collective::Collective;
use vjepa_data::shards::{is_pattern, refuse_foreign};
use vjepa_data::storage::is_url;
use vjepa_data::windows::{Prepared, Window, WindowPlan, WindowStream};
use vjepa_data::{DataError, Quarantine, Reading, clips, default_workers};
use vjepa_eval::EvalError;
use vjepa_eval::extract::{Extractor, Pooling, RowSink, videos_of};
use vjepa_programs::{Model, ProbeChoice, ProbeFile, load_probe_for};
use vjepa_recipe::config::{Config, FoldersHold};
use vjepa_runtime::Preprocessing;
use vjepa_runtime::files::{self, Overwrites};
use vjepa_runtime::plan::Device;
use vjepa_weights as weights;
use vjepa_weights::rows::{Column, Finished, LABELS_KEY, Rows};

/// Write an encoder's features of a video, folder, list or shards, over windows of long videos
///
/// Each row of the table is a window of a video. Work is kept in OUT.parts/ every minute: run the same command again to
/// continue. Videos that cannot be read are listed in OUT.bad.jsonl. See docs/features.md.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint of vjepa or of the official code (.safetensors, .pt, .pth.tar), or a Hugging Face folder
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Video, picture, folder, list or shards; or .safetensors file with `clip_u8` [B, 3, T, H, W]
    #[arg(long, value_name = "VIDEO|FOLDER|LIST")]
    input: PathBuf,
    /// What folders hold
    #[arg(long, default_value = "videos", value_name = "KIND", value_parser = named(&FoldersHold::ALL, FoldersHold::name, FoldersHold::about))]
    folders_hold: FoldersHold,
    /// Where to write the table: .safetensors, .npy or .parquet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seconds from one window to the next [default: one window, from the video's beginning]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    every: Option<f64>,
    /// How to pool a window's tokens
    #[arg(long, default_value = "tokens", value_name = "POOLING", value_parser = named(&Pooling::ALL, Pooling::name, Pooling::about))]
    pool: Pooling,
    /// Attentive probe that pools, from `vjepa probe` or the official evaluation
    #[arg(long, value_name = "FILE", required_if_eq("pool", "attentive"))]
    probe: Option<PathBuf>,
    #[command(flatten)]
    probe_number: ProbeNumber,
    /// Blocks after which features are taken, from 0, e.g. 5,11 [default: the last]
    #[arg(long, alias = "out-layers", value_name = "N,...", value_delimiter = ',')]
    layers: Option<Vec<usize>>,
    /// Threads that decode [default: as many as the machine has processors]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1..=1024))]
    workers: Option<u32>,
    /// Which encoder of the checkpoint [default: the target encoder if there is one]
    #[arg(long = "which", alias = "encoder", value_parser = ["target_encoder", "encoder"], value_name = "NAME")]
    encoder: Option<String>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    ranks: RankArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn seconds(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 => Ok(seconds),
        _ => Err("give a number of seconds above 0".into()),
    }
}

/// Runs the command, as one of several ranks where a launcher says so: they share the videos, and rank 0 writes.
pub fn run(args: &Args) -> Result<(), CliError> {
    args.ranks.run(&args.device, |_| false, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Args, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    if args.probe.is_some() && args.pool != Pooling::Attentive {
        return Err("--probe pools the tokens, which --pool attentive asks for: add it, or leave --probe out".into());
    }
    args.spare_inputs()?;
    let weights = weights::load(&args.checkpoint)?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &args.sets)).transpose()?;
    let mut model = vjepa_programs::describe(&weights, config.as_ref())?;
    if ranks.rank() == 0 {
        super::note_sampling(model.config.as_ref());
    }
    let encoder = match args.encoder.as_deref() {
        Some(named) => named,
        None => weights.encoder()?,
    };
    let inputs = Inputs::read(args, &model.preprocessing, ranks)?;
    let probe = probe_of(args, &model, ranks)?;
    model.encoder.out_layers = blocks(args, probe.as_ref())?;
    if let Some(layers) = &args.layers {
        model.encoder.check_blocks(layers).map_err(|why| format!("--layers {why}"))?;
    }
    model.encoder.validate()?;
    let mut tensors = weights.take(encoder, "encoder", model.encoder.parameter_shapes())?;
    tensors.extend(probe.iter().flat_map(|probe| probe.tensors.clone()));
    let mut extractor =
        Extractor::new(device, &model.encoder, probe.as_ref().map(|probe| &probe.probe), args.pool, &tensors)?;
    drop(tensors);

    let columns = extractor.columns().to_vec();
    if ranks.rank() != 0 {
        let from = begin(ranks, (0, 0))?;
        let windows = inputs.windows(args, &model.preprocessing, from, ranks)?;
        return Ok(extractor.run(windows, (from.0, inputs.paths.len()), ranks, None, &mut |_| {})?);
    }
    let mut rows = Rows::open(&args.out, columns.clone(), &record(args, encoder, &inputs, &model)?)?;
    let list = with_ending(&args.out, "bad.jsonl");
    if rows.is_empty() {
        // Of an earlier table.
        let _ = std::fs::remove_file(&list);
    } else {
        eprintln!("{} rows are there already, from a run that was stopped", rows.len());
    }
    let mut bad = inputs.quarantine(&list)?;
    let bar = ProgressBar::new(inputs.paths.len() as u64);
    let from = begin(ranks, rows.next())?;
    let windows = inputs.windows(args, &model.preprocessing, from, ranks)?;
    let table = RowSink { rows: &mut rows, bad: &mut bad, paths: &inputs.paths };
    let mut reached = |video| bar.set_position(video as u64);
    let done = extractor.run(windows, (from.0, inputs.paths.len()), ranks, Some(table), &mut reached);
    bar.finish_and_clear();
    done.map_err(|error| match error {
        // Of the numbers that came out.
        EvalError::Setup(why) => CliError::from(format!("{}: {why}", args.checkpoint.display())),
        other => other.into(),
    })?;
    if bad.is_empty() {
        // Not there where one video is read alone.
        let _ = std::fs::remove_file(&list);
    }
    if rows.is_empty() {
        return Err(inputs.none_read(&bad, &list));
    }
    let mut metadata = BTreeMap::from([
        ("vjepa.encoder".to_owned(), encoder.to_owned()),
        ("vjepa.pooling".to_owned(), args.pool.name().to_owned()),
        (vjepa_runtime::preprocess::METADATA_KEY.to_owned(), model.preprocessing.to_json()),
    ]);
    if !inputs.labels.is_empty() {
        metadata.insert(LABELS_KEY.to_owned(), serde_json::json!(inputs.labels).to_string());
    }
    let finished = rows.finish(&inputs.paths, &metadata)?;
    say(args, &model, encoder, &columns, &finished, (&inputs, &bad, &list))
}

impl Args {
    fn spare_inputs(&self) -> Result<(), Overwrites> {
        let mut read = weights::files_of(&self.checkpoint);
        read.extend([Some(&self.input), self.config.as_ref(), self.probe.as_ref()].into_iter().flatten().cloned());
        let written = [self.out.clone(), with_ending(&self.out, "bad.jsonl")];
        files::spare("--out", &self.out, &written, read.iter().map(PathBuf::as_path))
    }
}

/// The probe that pools, where there is one.
fn probe_of(args: &Args, model: &Model, ranks: &dyn Collective) -> Result<Option<ProbeFile>, CliError> {
    let number = args.probe_number.of(args.probe.as_deref(), ranks.rank() == 0)?;
    let choice = ProbeChoice { number, ..ProbeChoice::default() };
    Ok(args.probe.as_deref().map(|path| load_probe_for(path, &model.encoder, choice)).transpose()?)
}

/// Blocks after which features are taken: a probe has its own. None for the last.
fn blocks(args: &Args, probe: Option<&ProbeFile>) -> Result<Option<Vec<usize>>, CliError> {
    match (probe, &args.layers) {
        (Some(probe), Some(layers)) if probe.layers.as_ref() != Some(layers) => Err(match &probe.layers {
            Some(own) => format!("the probe pools the tokens of the blocks {own:?}: leave --layers out"),
            None => "the probe pools the tokens of the last block: leave --layers out".to_owned(),
        }
        .into()),
        (Some(probe), _) => Ok(probe.layers.clone()),
        (None, layers) => Ok(layers.clone()),
    }
}

/// Video and window with which all ranks go on: those of rank 0.
fn begin(ranks: &dyn Collective, mine: (usize, usize)) -> Result<(usize, usize), CliError> {
    let mut bytes = [(mine.0 as u64).to_le_bytes(), (mine.1 as u64).to_le_bytes()].concat();
    ranks.broadcast(&mut bytes, 0)?;
    let number = |word: &[u8; 8]| usize::try_from(u64::from_le_bytes(*word)).unwrap_or(usize::MAX);
    match bytes.as_chunks::<8>().0 {
        [video, window] => Ok((number(video), number(window))),
        _ => Err("rank 0 did not say where to begin".into()),
    }
}

/// What features are computed of.
struct Inputs {
    paths: Arc<Vec<PathBuf>>,
    /// Their labels, where every one has one.
    labels: Vec<i64>,
    /// Clips of a file instead of videos.
    stored: Option<clips::Clips>,
}

impl Inputs {
    fn read(args: &Args, record: &Preprocessing, ranks: &dyn Collective) -> Result<Self, CliError> {
        let input = &args.input;
        there("--input", input)?;
        if input.is_file() {
            refuse_foreign(input)?;
        }
        if input.extension().is_some_and(|ending| ending == "safetensors") {
            if args.every.is_some() {
                return Err("--every cuts windows from videos, and these clips are cut already: leave it out".into());
            }
            let stored = Some(clips::read(input, record)?);
            return Ok(Self { paths: Arc::new(vec![input.clone()]), labels: Vec::new(), stored });
        }
        // What is no list is one video, whatever its name.
        let listed = |ending: &OsStr| ["csv", "txt", "tar"].iter().any(|list| ending.eq_ignore_ascii_case(list));
        let several = input.is_dir() || is_url(input) || is_pattern(input) || input.extension().is_some_and(listed);
        if !several {
            return Ok(Self { paths: Arc::new(vec![input.clone()]), labels: Vec::new(), stored: None });
        }
        let reading = Reading { folders_hold: args.folders_hold, ..Reading::default() };
        let list = reading.read(input).map_err(|error| match &error {
            DataError::NoVideos { pictures: true, .. } => {
                CliError::from(format!("{error}; give --folders-hold images or frames"))
            }
            _ => error.into(),
        })?;
        list.check_found()?;
        let notes = list.remarks().into_iter().filter(|_| ranks.rank() == 0);
        notes.for_each(|note| eprintln!("note: {}: {note}", input.display()));
        let labels: Option<Vec<i64>> = list.entries.iter().map(|entry| entry.label).collect();
        let paths = Arc::new(list.entries.into_iter().map(|entry| entry.path).collect());
        Ok(Self { paths, labels: labels.unwrap_or_default(), stored: None })
    }

    /// One file that cannot be used is the error itself; several are listed.
    fn quarantine(&self, list: &Path) -> Result<Quarantine, DataError> {
        Quarantine::open((self.paths.len() > 1).then_some(list))
    }

    fn windows(
        &self,
        args: &Args,
        record: &Preprocessing,
        from: (usize, usize),
        ranks: &dyn Collective,
    ) -> Result<Box<dyn Iterator<Item = Result<Prepared, DataError>>>, CliError> {
        let Some(stored) = &self.stored else {
            let plan = WindowPlan { preprocessing: record.clone(), every: args.every };
            let workers = args.workers.map_or_else(default_workers, |workers| workers as usize);
            let own = videos_of(ranks, from.0, self.paths.len());
            return Ok(Box::new(WindowStream::of_videos(Arc::clone(&self.paths), own, &plan, from, workers)?));
        };
        if ranks.rank() != 0 {
            // One file, one rank.
            return Ok(Box::new(std::iter::empty()));
        }
        let one = record.clip_len().max(1);
        let clips: Vec<Prepared> = stored.data.chunks_exact(one).enumerate().skip(from.1).map(clip_of).collect();
        Ok(Box::new(clips.into_iter().map(Ok)))
    }

    fn none_read(&self, bad: &Quarantine, list: &Path) -> CliError {
        let why = bad.last().unwrap_or("there is no window");
        match self.paths.as_slice() {
            [one] => format!("{}: {why}", one.display()).into(),
            several => {
                format!("none of the {} videos can be used, the last since it {why}; {}", several.len(), list.display())
                    .into()
            }
        }
    }
}

/// A clip of a file, whose time in a video is not known.
fn clip_of((number, values): (usize, &[f32])) -> Prepared {
    Prepared::Clip { video: 0, window: Window { number, start: 0, time: f64::NAN }, values: values.to_vec() }
}

/// What rows are made of: a table goes on only with the same.
fn record(args: &Args, encoder: &str, inputs: &Inputs, model: &Model) -> Result<String, CliError> {
    let stamp = |path: &Path| -> Result<serde_json::Value, CliError> {
        let meta = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let changed = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(serde_json::json!([path, meta.len(), changed.map(|time| time.as_nanos().to_string())]))
    };
    let probe = args.probe.as_deref().map(stamp).transpose()?;
    let number = args.probe_number.of(args.probe.as_deref(), false)?;
    let mut record = serde_json::json!({
        "checkpoint": stamp(&args.checkpoint)?, "encoder": encoder, "probe": probe, "pooling": args.pool.name(), "layers": args.layers, "every": args.every, "preprocessing": model.preprocessing,
        "videos": vjepa_data::Contents::of_paths(inputs.paths.iter().map(PathBuf::as_path)),
    });
    // The first probe is what tables of earlier versions were made with.
    if number > 0 {
        record["probe_number"] = number.into();
    }
    Ok(record.to_string())
}

fn say(
    args: &Args,
    model: &Model,
    encoder: &str,
    columns: &[Column],
    finished: &Finished,
    (inputs, bad, list): (&Inputs, &Quarantine, &Path),
) -> Result<(), CliError> {
    let shape = |column: &Column| [&[finished.rows][..], &column.shape].concat();
    if args.json {
        let mut summary = serde_json::json!({
            "out": args.out, "files": finished.files, "rows": finished.rows, "videos": inputs.paths.len(), "bad": bad.len(),
            "encoder": encoder, "described_by": model.source, "preprocessing": model.preprocessing,
        });
        if let Some(object) = summary.as_object_mut() {
            object.extend(columns.iter().map(|column| (column.name.clone(), serde_json::json!(shape(column)))));
        }
        println!("{summary}");
        return Ok(());
    }
    println!("clips    {} ({})", clips::in_words(&model.preprocessing), args.input.display());
    println!("encoder  {encoder} of {}, described by {}", args.checkpoint.display(), model.source);
    for column in columns {
        println!("wrote    {} {:?} to {}", column.name, shape(column), args.out.display());
    }
    if !bad.is_empty() {
        println!("skipped  {} of {} videos that cannot be read: {}", bad.len(), inputs.paths.len(), list.display());
    }
    Ok(())
}
