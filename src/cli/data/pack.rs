//! `vjepa data pack`: a data set as shards.

use std::path::PathBuf;

use indicatif::ProgressBar;
use vjepa_data::media::Opener;
use vjepa_data::shards::{PackPlan, PackReport, Transcode, clips_per_second, pack, split_path};
use vjepa_data::{ENDINGS, EXTENSIONS, Reading, VideoEntry, read_list};
use vjepa_runtime::files;

use crate::cli::CliError;
use crate::cli::memory::Bytes;
use crate::cli::whole::whole;

/// Pack videos into tar shards with an index, made small on the way or as they are
///
/// Making them small needs the ffmpeg program with libx264: short side 256 and a key frame every 16 frames, so that less is
/// decoded for each clip. Run the same command again to continue. What cannot be read is left out and listed in left-out.jsonl.
#[derive(clap::Args)]
pub struct Args {
    /// List, folder or shards
    data: PathBuf,
    /// Folder of the shards, created if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Prefix of the names of the shards
    #[arg(long, default_value = "shard", value_name = "PREFIX")]
    name: String,
    /// The ffmpeg program that encodes, e.g. `ffmpeg`; or give --copy
    #[arg(long, value_name = "PROGRAM", required_unless_present = "copy", conflicts_with = "copy")]
    ffmpeg: Option<PathBuf>,
    /// Pack files as they are
    #[arg(long)]
    copy: bool,
    /// Pixels of the shorter side; smaller videos keep theirs
    #[arg(long, default_value_t = 256, value_name = "N", conflicts_with = "copy", value_parser = whole::<u32>(16..=4096))]
    short_side: u32,
    /// Frames from one key frame to the next
    #[arg(long, default_value_t = 16, value_name = "N", conflicts_with = "copy", value_parser = whole::<u32>(1..=1000))]
    group: u32,
    /// x264's constant rate factor: lower is better and larger
    #[arg(long, default_value_t = 20, value_name = "N", conflicts_with = "copy", value_parser = whole::<u32>(0..=51))]
    quality: u32,
    /// Source bytes in a shard, about: 1GiB, 256MiB
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    shard_size: Bytes,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let transcode = args.ffmpeg.as_ref().map(|ffmpeg| Transcode {
        short_side: args.short_side as usize,
        group: args.group as usize,
        quality: args.quality,
        ..Transcode::new(ffmpeg)
    });
    if let Some(transcode) = &transcode {
        eprintln!("encoding with {}", transcode.check()?);
    }
    // Folders are searched for what the program transcodes, too.
    let endings = if transcode.is_some() { ENDINGS } else { EXTENSIONS };
    let list = super::read_with(&args.data, Reading { endings, ..Reading::default() })?;
    let source = |entry: &VideoEntry| split_path(&entry.path).map(|(shard, _)| shard.to_path_buf());
    if list.entries.iter().filter_map(source).any(|shard| shard.parent().is_some_and(|of| files::same(of, &args.out))) {
        let out = args.out.display();
        return Err(format!("--out {out} holds shards that are read: give the new ones another folder").into());
    }
    let opener = Opener::shared();
    let plan =
        PackPlan { list: &list, out: &args.out, name: &args.name, shard_bytes: args.shard_size.0, transcode, opener };
    let bar = ProgressBar::new(list.entries.len() as u64);
    let report = pack(&plan, &|shard| bar.inc(shard.samples as u64))?;
    bar.finish_and_clear();
    let packed = read_list(&args.out)?;
    // What training will ask for: 16 frames at step 4.
    let (before, after) = (clips_per_second(&list, opener, 16), clips_per_second(&packed, opener, 16));
    if args.json {
        let mut value = serde_json::to_value(&report)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("clips_per_cpu_second".into(), serde_json::json!({"source": before, "shards": after}));
        }
        println!("{value}");
        return Ok(());
    }
    say(&report);
    println!(
        "clips of 16 frames a processor decodes per second, about: {before:.1} from the source, {after:.1} from the shards"
    );
    Ok(())
}

fn say(report: &PackReport) {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let earlier = report.shards.iter().filter(|shard| shard.earlier).count();
    println!(
        "{} samples, {} shards ({earlier} of an earlier run); {} left out; {:.2} GiB of files became {:.2} GiB in {:.0} s",
        report.samples,
        report.shards.len(),
        report.left_out,
        gib(report.source_bytes),
        gib(report.bytes),
        report.seconds
    );
}
