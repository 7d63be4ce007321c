//! `vjepa anticipate eval`.

use std::path::PathBuf;

use super::setup::{ClipArgs, ClipSpec, Frozen, Setup};
use super::{CliError, features, in_words};
use crate::cli::named::named;
use crate::cli::probe_number::{ProbeNumber, not_a_probe};
use vjepa_collective::Collective;
use vjepa_data::annotations::official_classes;
use vjepa_data::anticipation::{Anchor, AnticipationClips};
use vjepa_eval::protocols::anticipation::{
    ANTICIPATION_KEY, AnticipationRecord, FutureEncoder, OfficialClips, evaluate_actions, load_actions,
    load_official_actions,
};
use vjepa_graphs::NamedTensors;
use vjepa_programs::{ProbeChoice, encoder_name};
use vjepa_recipe::config::evaluation::Anticipation;
use vjepa_runtime::plan::Device;

/// Class-mean recall at 5 of a probe on annotated actions
#[derive(clap::Args)]
pub(super) struct Eval {
    #[command(flatten)]
    frozen: Frozen,
    /// Probe, from `vjepa anticipate train`, or an official one, with --classes
    #[arg(long, value_name = "FILE")]
    probe: PathBuf,
    /// Actions that an official probe was trained on, EPIC_100_train.csv: its classes are theirs, in the official order
    #[arg(long, value_name = "CSV")]
    classes: Option<PathBuf>,
    /// Actions to evaluate on, as in training
    #[arg(long, value_name = "CSV")]
    actions: Option<PathBuf>,
    #[command(flatten)]
    probe_number: ProbeNumber,
    // Of an official probe's clips; others say theirs.
    #[command(flatten)]
    clips: ClipArgs,
    /// Frame of an action that the seconds count back from [default: as in training]
    #[arg(long, value_parser = named(&Anchor::ALL, Anchor::name, Anchor::about))]
    anchor: Option<Anchor>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A probe of this program, or the list that names the classes of an official one.
enum Known<'a> {
    Own(Box<(AnticipationRecord, NamedTensors)>),
    Official { list: &'a PathBuf, choice: ProbeChoice },
}

impl Eval {
    pub(super) fn frozen(&self) -> &Frozen {
        &self.frozen
    }

    fn known<'a>(&'a self, setup: &'a Setup<'_>, tells: bool) -> Result<Known<'a>, CliError> {
        let file = vjepa_weights::load(&self.probe).map_err(not_a_probe)?;
        let says_itself = file.metadata().contains_key(ANTICIPATION_KEY);
        if says_itself && (self.classes.is_some() || self.clips.any() || self.probe_number.given()) {
            let flags = "--classes, --probe-number, --frames, --fps, --seconds and --side";
            return Err(format!("{} says its classes and clips itself: leave {flags} out", self.probe.display()).into());
        }
        let official = setup.official.as_ref();
        match self.classes.as_ref().or(official.map(|file| &file.train)).filter(|_| !says_itself) {
            Some(list) => {
                let number = self.probe_number.of(Some(&self.probe), tells)?;
                let choice = ProbeChoice { number, heads: official.map(|file| file.sizes[1]) };
                Ok(Known::Official { list, choice })
            }
            None => Ok(Known::Own(Box::new(load_actions(&self.probe)?))),
        }
    }

    /// What the official evaluation's file says otherwise than a probe of itself.
    fn notes(&self, known: &Known<'_>, setup: &Setup<'_>) -> Vec<String> {
        match (known, &setup.official) {
            (Known::Own(own), Some(file)) => {
                differences(file, &own.0, self.anchor.is_some()).into_iter().map(|what| setup.of_file(&what)).collect()
            }
            (Known::Official { .. }, _) | (Known::Own(_), None) => Vec::new(),
        }
    }

    /// The probe, whose features must be as wide as the encoder's.
    fn probe(
        &self,
        known: Known<'_>,
        clips: ClipSpec,
        opened: &FutureEncoder,
    ) -> Result<(AnticipationRecord, NamedTensors), CliError> {
        let (record, weights) = match known {
            Known::Own(own) => *own,
            Known::Official { list, choice } => {
                let ClipSpec { frames, fps, seconds, .. } = clips;
                let clips = OfficialClips { frames, fps, seconds, side: opened.preprocessing.crop_size };
                load_official_actions(&self.probe, choice, (list, official_classes(list)?), clips)?
            }
        };
        let (reads, makes) = (record.embed_dim, opened.probe.embed_dim);
        if reads != makes {
            vjepa_weights::load(&self.probe)?.refuse_probe_for(reads, &encoder_name(opened.sizes()), makes)?;
        }
        Ok((record, weights))
    }
}

/// What a file of the official evaluation says otherwise than a probe says of itself, which counts: by key. An anchor that a flag
/// gives is not compared.
fn differences(file: &Anticipation, probe: &AnticipationRecord, anchored: bool) -> Vec<String> {
    let [blocks, heads] = file.sizes;
    let anchor = if file.from_start { Anchor::Start } else { Anchor::Stop };
    let own = if anchored { anchor.name() } else { probe.anchor.as_str() };
    [
        ("experiment.data.frames_per_clip", file.frames.to_string(), probe.frames.to_string()),
        ("experiment.data.frames_per_second", file.fps.to_string(), probe.fps.to_string()),
        ("experiment.data.anticipation_time_sec", file.seconds.to_string(), probe.seconds.to_string()),
        ("experiment.data.resolution", file.resolution.to_string(), probe.side.to_string()),
        ("experiment.data.val_anticipation_point", anchor.name().to_owned(), own.to_owned()),
        ("experiment.classifier.num_probe_blocks", blocks.to_string(), probe.depth.to_string()),
        ("experiment.classifier.num_heads", heads.to_string(), probe.num_heads.to_string()),
    ]
    .into_iter()
    .filter(|(_, said, own)| said != own)
    .map(|(key, said, own)| format!("`{key}` ({said}) has no effect: the probe was trained with {own}"))
    .collect()
}

/// Runs the command.
pub(super) fn run(args: &Eval, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let setup = Setup::read(&args.frozen, ranks)?;
    let known = args.known(&setup, ranks.rank() == 0)?;
    let clips = match &known {
        Known::Own(own) => {
            let AnticipationRecord { frames, fps, seconds, side, .. } = own.0;
            ClipSpec { frames, fps, seconds, side: Some(side) }
        }
        Known::Official { .. } => setup.clips(&args.clips)?,
    };
    for note in args.notes(&known, &setup).iter().filter(|_| ranks.rank() == 0) {
        eprintln!("note: {note}");
    }
    let index = setup.index()?;
    let list =
        setup.path(args.actions.as_deref(), |file| &file.val, "give the actions to evaluate on with --actions")?;
    let actions = setup.actions(&index, list, ranks)?;
    let mut opened = setup.open(device, clips, clips.seconds)?;
    let (record, weights) = args.probe(known, clips, &opened)?;
    let told = !record.encoder_sha256.is_empty();
    let blocks = setup.official.as_ref().map(|file| file.sizes[0]).filter(|blocks| !told && *blocks != record.depth);
    if let Some(blocks) = blocks.filter(|_| ranks.rank() == 0) {
        let key = "`experiment.classifier.num_probe_blocks`";
        eprintln!(
            "note: {}",
            setup.of_file(&format!("{key} ({blocks}) has no effect: the probe has {}", record.depth))
        );
    }
    if told && opened.digest != record.encoder_sha256 && ranks.rank() == 0 {
        eprintln!("note: the probe was trained on another checkpoint than {}", setup.checkpoint()?.display());
    }
    let trained = Anchor::ALL.into_iter().find(|anchor| anchor.name() == record.anchor);
    let anchor = match (args.anchor, told) {
        (Some(anchor), _) => anchor,
        (None, true) => {
            trained.ok_or_else(|| format!("{} has the anchor `{}`", args.probe.display(), record.anchor))?
        }
        (None, false) => setup.anchor(None),
    };
    let preprocessing = opened.preprocessing.clone();
    let clips = AnticipationClips { preprocessing, fps: record.fps, seconds: record.seconds, anchor };
    let Some(found) = features(&mut opened, &clips, &actions, ranks)? else { return Ok(()) };
    let recall = evaluate_actions(device, &record, &weights, &found)?;
    if args.json {
        let summary = serde_json::json!({
            "recall_at_5": recall, "anchor": anchor.name(), "seconds": record.seconds, "bad": found.bad,
        });
        println!("{summary}");
        return Ok(());
    }
    println!("{}", in_words(&recall));
    println!(
        "anchor   {} s before an action's {} frame",
        record.seconds,
        if anchor == Anchor::Stop { "last" } else { "first" }
    );
    Ok(())
}
