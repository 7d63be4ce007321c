//! `vjepa data list`: lists of videos from annotations, folders and patterns.

use std::path::PathBuf;

use vjepa_data::annotations::{self, Classes, FileIndex, HmdbPart, Listing, image_folder};
use vjepa_runtime::files;

use crate::cli::CliError;
use crate::cli::given::all_there;
use crate::cli::named::named;
use crate::cli::whole::whole;

/// Turn a data set's own annotation files, a folder or a pattern into a list with one "path label" per line
///
/// Samples without a video are counted with the reason. The class names are written next to the list, for --names.
#[derive(clap::Args)]
pub struct Args {
    /// Which data set's annotations these are, or what the path names
    #[arg(value_name = "DATA_SET", value_parser = named(&DataSet::ALL, DataSet::name, DataSet::about))]
    data_set: DataSet,
    /// Annotations: a file, or the folder of hmdb51's split files or of imagenet's class folders; else the folder, pattern or
    /// list
    annotations: PathBuf,
    /// Folder that the videos lie in, at any depth [default: not needed for imagenet, folder, glob, classes and named]
    #[arg(long, value_name = "FOLDER")]
    videos: Option<PathBuf>,
    /// Class names: ssv2's labels.json, ucf101's classInd.txt, diving48's vocabulary; for kinetics and named, one name per line
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// For hmdb51: the split, 1 to 3
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = whole::<u32>(1..=3))]
    split: u32,
    /// For hmdb51: the test part of the split instead of the training part
    #[arg(long)]
    test: bool,
    /// The list to write; the class names go next to it, with the ending .names.txt
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A data set whose annotations are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataSet {
    Kinetics,
    Ssv2,
    Ucf101,
    Hmdb51,
    Diving48,
    Ava,
    ImageNet,
    Folder,
    Glob,
    Classes,
    Named,
}

impl DataSet {
    const ALL: [Self; 11] = [
        Self::Kinetics,
        Self::Ssv2,
        Self::Ucf101,
        Self::Hmdb51,
        Self::Diving48,
        Self::Ava,
        Self::ImageNet,
        Self::Folder,
        Self::Glob,
        Self::Classes,
        Self::Named,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kinetics => "kinetics",
            Self::Ssv2 => "ssv2",
            Self::Ucf101 => "ucf101",
            Self::Hmdb51 => "hmdb51",
            Self::Diving48 => "diving48",
            Self::Ava => "ava",
            Self::ImageNet => "imagenet",
            Self::Folder => "folder",
            Self::Glob => "glob",
            Self::Classes => "classes",
            Self::Named => "named",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Kinetics => "Kinetics-400, -600 or -700: the CSV or JSON of a split",
            Self::Ssv2 => "Something-Something v2: train.json or validation.json, with --classes labels.json",
            Self::Ucf101 => "trainlist0N.txt or testlist0N.txt, with --classes classInd.txt",
            Self::Hmdb51 => "the folder of CLASS_test_splitN.txt, with --split and --test",
            Self::Diving48 => "Diving48_V2_train.json or _test.json, with --classes Diving48_vocab.json",
            Self::Ava => "the CSV of labelled boxes; the list has its videos, without labels",
            Self::ImageNet => "a folder per class: ImageNet, Places205, iNaturalist",
            Self::Folder => "all videos of a folder, at any depth, without labels",
            Self::Glob => "the videos that a pattern names ('/data/**/*.mp4'), without labels",
            Self::Classes => "one folder of videos (or pictures) per class; labels count the sorted names",
            Self::Named => {
                "a list with class names instead of numbers (\"path class\"); labels count --classes, or the sorted names"
            }
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let names = args.out.with_extension("names.txt");
    let read = std::iter::once(&args.annotations).chain(&args.classes).map(PathBuf::as_path);
    files::spare("--out", &args.out, &[&args.out, &names], read)?;
    all_there(&[("--videos", args.videos.as_deref()), ("--classes", args.classes.as_deref())])?;
    let listing = listing(args)?;
    listing.write(&args.out, &names)?;
    if args.json {
        let missing: Vec<_> =
            listing.missing.iter().map(|r| serde_json::json!({"what": r.what, "count": r.count})).collect();
        println!(
            "{}",
            serde_json::json!({
                "list": args.out, "samples": listing.entries.len(), "classes": listing.classes.len(), "left_out": missing,
            })
        );
        return Ok(());
    }
    println!("{listing}");
    println!("wrote {}", args.out.display());
    if !listing.classes.is_empty() {
        println!("wrote {}", names.display());
    }
    Ok(())
}

fn listing(args: &Args) -> Result<Listing, CliError> {
    let name = args.data_set.name();
    let classes =
        || args.classes.as_deref().ok_or_else(|| format!("{name} needs --classes: see vjepa data list --help"));
    let videos = || -> Result<FileIndex, CliError> {
        let folder =
            args.videos.as_deref().ok_or_else(|| format!("{name} needs --videos, the folder its clips lie in"))?;
        Ok(FileIndex::of(folder)?)
    };
    let annotations = args.annotations.as_path();
    Ok(match args.data_set {
        DataSet::Kinetics => {
            let names = args.classes.as_deref().map(Classes::read).transpose()?;
            annotations::kinetics(annotations, &videos()?, names.as_ref())?
        }
        DataSet::Ssv2 => annotations::ssv2(annotations, classes()?, &videos()?)?,
        DataSet::Ucf101 => annotations::ucf101(annotations, classes()?, &videos()?)?,
        DataSet::Hmdb51 => {
            let part = if args.test { HmdbPart::Test } else { HmdbPart::Train };
            annotations::hmdb51(annotations, args.split, part, &videos()?)?
        }
        DataSet::Diving48 => annotations::diving48(annotations, classes()?, &videos()?)?,
        DataSet::Ava => {
            let boxes = annotations::ava::read_boxes(annotations, None)?;
            annotations::ava::listing(annotations, &boxes, &videos()?)
        }
        DataSet::ImageNet => image_folder(annotations)?,
        DataSet::Folder => annotations::folder(annotations)?,
        DataSet::Glob => annotations::glob(annotations)?,
        DataSet::Classes => annotations::class_folders(annotations)?,
        DataSet::Named => {
            let names = args.classes.as_deref().map(Classes::read).transpose()?;
            annotations::named_list(annotations, names.as_ref())?
        }
    })
}
