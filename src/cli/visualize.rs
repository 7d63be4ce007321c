//! `vjepa visualize`: pictures of masks, features, a probe's attention, and neighbours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::CliError;
use super::encoder::Encoder;
use super::probe::Bar;
use super::probe_number::ProbeNumber;
use super::whole::whole;
use vjepa_data::clips::{self, Clips};
use vjepa_data::read_list;
use vjepa_data::shards::refuse_foreign;
use vjepa_eval::features::Keep;
use vjepa_eval::neighbours::nearest;
use vjepa_eval::protocols::videos::OpenEncoder;
use vjepa_graphs::layers::PROBE_EPS;
use vjepa_linalg::QueryAttention;
use vjepa_programs::{Probe, ProbeChoice, load_probe_for};
use vjepa_recipe::config::{Config, Preprocessing};
use vjepa_runtime::files::{self, Overwrites};
use vjepa_video::{Film, FilmError};
use vjepa_view::pictures::{self, Neighbour, ShownClip, ShownFeatures, ShownMask};
use vjepa_view::{Animation, Canvas};

/// Clips in a picture of features.
const SHOWN: usize = 4;
/// Time that a frame of an animation is shown.
const EACH: Duration = Duration::from_millis(120);
/// Rows of a picture of neighbours, and neighbours in each.
const ROWS: usize = 6;
const NEAREST: usize = 3;

/// Draw masks, features, what a probe looks at, or nearest neighbours, as PNG; features as GIF or MP4, too
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Masks(Masks),
    Features(Features),
    Attention(Attention),
    Neighbours(Neighbours),
}

/// What the encoder sees of a clip and what the predictor predicts, at one step of a run
#[derive(clap::Args)]
struct Masks {
    /// YAML configuration of the run
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a setting, e.g. --set meta.seed=1 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Video, or .safetensors file with `clip_u8` [B, 3, T, H, W]
    #[arg(long, value_name = "VIDEO")]
    input: PathBuf,
    /// Step whose masks to draw, from 0
    #[arg(long, default_value_t = 0)]
    step: u64,
    /// Where to write the picture (.png)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Patch features of a clip as colours: their three principal components as red, green and blue
#[derive(clap::Args)]
struct Features {
    #[command(flatten)]
    encoder: Encoder,
    /// Video, or .safetensors file with `clip_u8` [B, 3, T, H, W]
    #[arg(long, value_name = "VIDEO")]
    input: PathBuf,
    /// Where to write the picture: .png, or .gif or .mp4 (feature `ffmpeg`) for the first clip moving beside its features
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// How strongly an attentive probe attends to each token of a clip
#[derive(clap::Args)]
struct Attention {
    #[command(flatten)]
    encoder: Encoder,
    /// Attentive probe, from `vjepa probe` or the official evaluation
    #[arg(long, value_name = "FILE")]
    probe: PathBuf,
    #[command(flatten)]
    probe_number: ProbeNumber,
    /// Video, or .safetensors file with `clip_u8` [B, 3, T, H, W]; of several clips the first
    #[arg(long, value_name = "VIDEO")]
    input: PathBuf,
    /// Where to write the picture (.png)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Videos with those most like them, by the cosine of mean features
#[derive(clap::Args)]
struct Neighbours {
    #[command(flatten)]
    encoder: Encoder,
    /// Folder, list or shards of videos
    #[arg(long, value_name = "LIST|FOLDER")]
    data: PathBuf,
    /// The most videos compared, spread over the list
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = whole::<u32>(2..))]
    videos: u32,
    /// Where to write the picture (.png)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let out = match &args.what {
        What::Masks(args) => masks(args)?,
        What::Features(args) => features(args)?,
        What::Attention(args) => attention(args)?,
        What::Neighbours(args) => neighbours(args)?,
    };
    println!("wrote {}", out.display());
    Ok(())
}

/// Refuses a picture in the place of the encoder, or of what is drawn.
fn spare(out: &Path, encoder: &Encoder, drawn: &[&Path]) -> Result<(), Overwrites> {
    let encoder = encoder.inputs();
    files::spare("--out", out, &[out], encoder.iter().map(PathBuf::as_path).chain(drawn.iter().copied()))
}

/// Opens an encoder whose clips are sampled as evaluation samples them, and says where training did otherwise.
fn open(encoder: &Encoder) -> Result<OpenEncoder, CliError> {
    let opened = encoder.open()?;
    super::note_sampling(opened.model.config.as_ref());
    Ok(opened)
}

/// The clips of a file, as the model takes them, to be shown again.
fn shown<'a>(clips: &'a Clips, record: &Preprocessing) -> Vec<ShownClip<'a>> {
    let shape = record.clip_shape();
    let normalization = record.normalization;
    let values = clips.data.chunks_exact(shape.iter().product::<usize>().max(1));
    values.map(|values| ShownClip { values, shape, normalization }).collect()
}

/// The format that a name promises; refuses one that is not written.
pub(super) fn written_as(out: &Path, formats: &[&str]) -> Result<String, CliError> {
    let extension = out.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    if formats.contains(&extension.as_str()) {
        return Ok(extension);
    }
    Err(format!("--out {}: give a name that ends in .{}", out.display(), formats.join(" or .")).into())
}

fn masks(args: &Masks) -> Result<&Path, CliError> {
    written_as(&args.out, &["png"])?;
    files::spare("--out", &args.out, &[&args.out], [args.input.as_path(), &args.config])?;
    let config = Config::from_file(&args.config, &args.sets)?;
    let record = config.preprocessing();
    let pairs = config.masks()?.pairs(config.meta.seed, args.step, 0, 1)?;
    let clips = clips::read(&args.input, &record)?;
    let clip = *shown(&clips, &record).first().ok_or("the input holds no clip")?;
    pictures::masks(clip, config.data.tubelet_size, config.data.patch_size, &ShownMask::of(&pairs)).save(&args.out)?;
    Ok(&args.out)
}

fn features(args: &Features) -> Result<&Path, CliError> {
    let format = written_as(&args.out, &["png", "gif", "mp4"])?;
    spare(&args.out, &args.encoder, &[args.input.as_path()])?;
    if format == "mp4" && !Film::WRITTEN {
        let (out, why) = (args.out.display(), FilmError::WithoutFfmpeg);
        return Err(format!("--out {out}: {why}, or give a name that ends in .gif").into());
    }
    let mut opened = open(&args.encoder)?;
    let (record, sizes) = (opened.model.preprocessing.clone(), opened.model.encoder.clone());
    let mut clips = clips::read(&args.input, &record)?;
    let one = opened.encoder.config();
    clips.data.truncate(SHOWN * one.channels * one.num_frames * one.height * one.width);
    let found = opened.encoder.encode(clips.data.clone())?;
    let encoder = ShownFeatures { name: "features", tokens: &found.values, dim: found.dim };
    let shown = shown(&clips, &record);
    if format == "png" {
        pictures::features(&shown, sizes.tubelet, sizes.patch, &[encoder]).save(&args.out)?;
        return Ok(&args.out);
    }
    let clip = *shown.first().ok_or("the input holds no clip")?;
    let animation = pictures::animated_features(clip, sizes.tubelet, sizes.patch, &encoder, EACH);
    match format.as_str() {
        "mp4" => Canvas::save_bytes(&args.out, &film(&animation, &args.out)?)?,
        _ => animation.save(&args.out)?,
    }
    Ok(&args.out)
}

/// An animation as a video.
fn film(animation: &Animation, out: &Path) -> Result<Vec<u8>, CliError> {
    let (width, height) = animation.size().unwrap_or_default();
    let pictures: Vec<Vec<u8>> = animation.rgb().collect();
    let film = Film { width, height, each: animation.each, pictures: &pictures };
    Ok(film.mp4().map_err(|error| format!("{}: {error}", out.display()))?)
}

fn attention(args: &Attention) -> Result<&Path, CliError> {
    written_as(&args.out, &["png"])?;
    spare(&args.out, &args.encoder, &[args.input.as_path(), &args.probe])?;
    let mut opened = open(&args.encoder)?;
    let (record, sizes) = (opened.model.preprocessing.clone(), opened.model.encoder.clone());
    let number = args.probe_number.of(Some(&args.probe), true)?;
    let probe = load_probe_for(&args.probe, &sizes, ProbeChoice { number, ..ProbeChoice::default() })?;
    let Probe::Attentive(config) = &probe.probe else {
        return Err(
            format!("{} is a linear probe, which has no query: give an attentive one", args.probe.display()).into()
        );
    };
    if let Some(layers) = &probe.layers {
        let path = args.probe.display();
        return Err(
            format!("{path} reads the blocks {layers:?}, not only the last one, whose attention is drawn").into()
        );
    }
    let missing = || format!("{} lacks weights of its attention", args.probe.display());
    let tensor = |name: &str| probe.tensors.get(&format!("probe.pooler.{name}")).map(|(_, values)| values.as_slice());
    let pair = |name: &str| Some([tensor(&format!("{name}.weight"))?, tensor(&format!("{name}.bias"))?]);
    // Without norm and MLP the block is the attention itself.
    let block = if config.complete_block { "cross_attention_block.xattn" } else { "cross_attention_block" };
    let query = QueryAttention {
        query: tensor("query_tokens").ok_or_else(missing)?,
        norm: config.complete_block.then(|| pair("cross_attention_block.norm1").ok_or_else(missing)).transpose()?,
        q: pair(&format!("{block}.q")).ok_or_else(missing)?,
        kv: pair(&format!("{block}.kv")).ok_or_else(missing)?,
        heads: config.num_heads,
        eps: PROBE_EPS,
    };
    let clips = clips::read(&args.input, &record)?;
    let clip = *shown(&clips, &record).first().ok_or("the input holds no clip")?;
    let found = opened.encoder.encode(clip.values.to_vec())?;
    let weights = query.over(&found.values).ok_or_else(|| {
        format!("{} reads features of another width than {}'s", args.probe.display(), args.encoder.checkpoint.display())
    })?;
    pictures::attention(clip, sizes.tubelet, sizes.patch, &weights).save(&args.out)?;
    Ok(&args.out)
}

fn neighbours(args: &Neighbours) -> Result<&Path, CliError> {
    written_as(&args.out, &["png"])?;
    spare(&args.out, &args.encoder, &[args.data.as_path()])?;
    refuse_foreign(&args.data)?;
    let list = read_list(&args.data)?;
    list.remarks().iter().for_each(|note| eprintln!("note: {}: {note}", args.data.display()));
    let entries = list.entries;
    let mut opened = open(&args.encoder)?;
    let record = opened.model.preprocessing.clone();
    let (mut all, mut names) = (Clips { count: 0, data: Vec::new() }, Vec::new());
    for entry in entries.iter().step_by(entries.len().div_ceil(args.videos as usize).max(1)) {
        match clips::read(&entry.path, &record) {
            Ok(one) => {
                all.data.extend(one.data);
                all.count += 1;
                names.push(entry.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
            }
            Err(error) => eprintln!("note: skipped: {error}"),
        }
    }
    if all.count < 2 {
        return Err(format!("fewer than two videos of {} can be read: add more", args.data.display()).into());
    }
    let len = all.data.len() / all.count;
    let fill = |index: usize, out: &mut [f32]| {
        let clip = all.data.get(index * len..(index + 1) * len).unwrap_or_default();
        out.iter_mut().zip(clip).for_each(|(value, own)| *value = *own);
        Ok(())
    };
    let mut bar = Bar::default();
    let found = opened.encoder.extract(all.count, Keep::Mean, fill, "videos", &mut |p| bar.show(p))?;
    bar.clear();
    let (near, clips) = (nearest(&found, NEAREST), shown(&all, &record));
    let of = |index: usize, caption: String| Some(Neighbour { clip: *clips.get(index)?, caption });
    let named = |index: usize| names.get(index).cloned().unwrap_or_default();
    let row = |query: usize| -> Option<Vec<Neighbour<'_>>> {
        let others =
            near.get(query)?.iter().map(|(index, cosine)| of(*index, format!("{} {cosine:.2}", named(*index))));
        std::iter::once(of(query, named(query))).chain(others).collect()
    };
    let rows: Vec<_> = (0..all.count).step_by(all.count.div_ceil(ROWS).max(1)).filter_map(row).collect();
    pictures::neighbours(&rows).save(&args.out)?;
    Ok(&args.out)
}
