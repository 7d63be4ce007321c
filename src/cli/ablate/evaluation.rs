//! How the runs of a table are evaluated: words of the table, read before anything runs.

use clap::Args;
use clap::error::ErrorKind;

use vjepa_eval::protocols::textures::{Scores, Tasks, TextureProtocol};
use vjepa_programs::encoder_config;
use vjepa_recipe::config::{Config, DatasetType};

use crate::cli::cost::{Assumed, Bill, textures};
use crate::cli::{CliError, detect, finetune, probe};

/// A figure of the protocol on drifting textures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextureFigure {
    pub motion: bool,
    pub attentive: bool,
}

impl TextureFigure {
    pub fn of(self, scores: &Tasks<Scores>) -> Result<f64, CliError> {
        let of = if self.motion { scores.motion } else { scores.texture };
        match self.attentive {
            true => Ok(of.attentive.ok_or("the attentive probe has no figure")?),
            false => Ok(of.linear),
        }
    }
}

/// Labels a class that the protocol's clips surely have.
const MOST_LABELS: usize = 100;

/// How a run is evaluated.
pub(super) enum Evaluation {
    /// A figure of the protocol on drifting textures.
    Textures { figure: TextureFigure, labels: usize },
    /// `vjepa probe` with these arguments: top-1 on its validation samples, else on its training samples.
    Probe(Vec<String>, Box<probe::Args>),
    /// `vjepa finetune` with these arguments: top-1 of its test.
    Finetune(Vec<String>, Box<finetune::Args>),
    /// `vjepa detect train` with the first of these arguments and `vjepa detect eval` with the others: mean average precision.
    Detect([Vec<String>; 2], Box<[detect::Args; 2]>),
}

impl Evaluation {
    const WORDS: &'static str = "`texture`, `motion`, `texture attentive`, `motion attentive`, each with `labels=N` if wanted, `probe` with arguments of \
         `vjepa probe`, `finetune` with arguments of `vjepa finetune`, or `detect` with arguments of `vjepa detect train`, \
         `--` and arguments of `vjepa detect eval`";

    /// Of the words of a table.
    ///
    /// # Errors
    /// What the words should be, or what the command does not accept.
    pub fn read(name: &str, command: &[String]) -> Result<Self, CliError> {
        let words = command.get(1..).unwrap_or_default().to_vec();
        match command.first().map(String::as_str) {
            Some("probe") => {
                let args = parsed(name, "probe", &words, &["--checkpoint", "encoder", "--out", "probe.safetensors"])?;
                Ok(Self::Probe(words, Box::new(args)))
            }
            Some("finetune") => {
                let args = parsed(name, "finetune", &words, &["--checkpoint", "encoder"])?;
                Ok(Self::Finetune(words, Box::new(args)))
            }
            Some("detect") => {
                let halves: Vec<&[String]> = words.split(|word| word == "--").collect();
                let [train, eval] = halves[..] else {
                    return Err(format!(
                        "the evaluation `{name}` trains a detector and evaluates it: write arguments of `vjepa detect train`, one \
                         `--`, and arguments of `vjepa detect eval`"
                    )
                    .into());
                };
                let encoder = ["--checkpoint", "encoder"];
                let both = [
                    parsed(name, "detect train", train, &[&encoder[..], &["--out", "detector.safetensors"]].concat())?,
                    parsed(
                        name,
                        "detect eval",
                        eval,
                        &[&encoder[..], &["--detector", "detector.safetensors"]].concat(),
                    )?,
                ];
                Ok(Self::Detect([train.to_vec(), eval.to_vec()], Box::new(both)))
            }
            _ => Self::textures(name, command),
        }
    }

    fn textures(name: &str, command: &[String]) -> Result<Self, CliError> {
        let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
        let labels = match words.last().and_then(|word| word.strip_prefix("labels=")) {
            None => TextureProtocol::recipe(0).labels_per_class,
            Some(number) => {
                let labels = number.parse().ok().filter(|labels| (1..=MOST_LABELS).contains(labels));
                words.pop();
                labels.ok_or_else(|| {
                    format!("the evaluation `{name}` takes 1 to {MOST_LABELS} labels a class, not `{number}`")
                })?
            }
        };
        let (motion, attentive) = match words.as_slice() {
            ["texture"] => (false, false),
            ["motion"] => (true, false),
            ["texture", "attentive"] => (false, true),
            ["motion", "attentive"] => (true, true),
            _ => return Err(format!("the evaluation `{name}` is not known: write one of {}", Self::WORDS).into()),
        };
        Ok(Self::Textures { figure: TextureFigure { motion, attentive }, labels })
    }

    /// What it would cost for a run; of textures all figures from as many labels as `protocol` says together.
    pub fn bill(&self, run: &Config, assumed: Assumed, protocol: &TextureProtocol) -> Result<Bill, CliError> {
        match self {
            Self::Textures { .. } => {
                has_textures(run)?;
                textures::bill(&encoder_config(run)?, protocol)
            }
            Self::Probe(_, args) => args.bill(Some(run), assumed),
            Self::Finetune(_, args) => args.bill(Some(run), assumed),
            Self::Detect(_, args) => {
                let [train, eval] = args.as_ref();
                train.bill(run, eval, assumed)
            }
        }
    }

    /// Checks that its configuration is one and its lists are there, before hours are spent on what it evaluates.
    pub fn ready(&self, run: &Config) -> Result<(), CliError> {
        match self {
            Self::Textures { .. } => has_textures(run),
            Self::Probe(_, args) => args.ready(),
            Self::Finetune(_, args) => args.ready(run),
            Self::Detect(_, args) => args.iter().try_for_each(detect::Args::ready),
        }
    }
}

/// Refuses a run on other clips, on which the protocol has nothing to ask.
pub(super) fn has_textures(run: &Config) -> Result<(), CliError> {
    match run.data.dataset_type {
        DatasetType::DriftingTextures => Ok(()),
        DatasetType::Video => {
            Err("`texture` and `motion` evaluate runs on drifting textures: use `probe` for videos".into())
        }
    }
}

/// The protocol on textures for so many labels a class, with the attentive figures that are asked for.
pub(super) fn protocol(seed: u64, labels: usize, attentive: Tasks<bool>) -> TextureProtocol {
    let protocol = TextureProtocol::recipe(seed);
    // Tokens are kept for attentive probes alone.
    let attentive_draws = if attentive.texture || attentive.motion { protocol.attentive_draws } else { 0 };
    TextureProtocol { attentive_draws, attentive_tasks: attentive, labels_per_class: labels, ..protocol }
}

/// Reads the arguments of a command of this program, to which the table's runner adds `own`.
fn parsed<A: Args>(name: &str, command: &str, words: &[String], own: &[&str]) -> Result<A, CliError> {
    let wrong = |error: clap::Error| {
        let text = match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => "it asks for help: leave that out".to_owned(),
            _ => error.to_string(),
        };
        let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let sentence = first.split_whitespace().collect::<Vec<_>>().join(" ");
        CliError::from(format!("the evaluation `{name}`, `vjepa {command}`: {sentence}"))
    };
    let parser = clap::Command::new("vjepa").no_binary_name(true);
    let mut last = command.split(' ').filter(|word| *word != "probe" && *word != "finetune" && *word != "detect");
    let words = last.by_ref().chain(words.iter().map(String::as_str)).chain(own.iter().copied());
    let matches = A::augment_args(parser).try_get_matches_from(words).map_err(wrong)?;
    A::from_arg_matches(&matches).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_data::textures::{DIRECTIONS, TEXTURES};

    fn read(words: &str) -> Result<Evaluation, CliError> {
        Evaluation::read("x", &words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_read_as_their_command_reads_them() {
        assert!(matches!(read("motion attentive labels=64"), Ok(Evaluation::Textures { labels: 64, .. })));
        assert!(
            matches!(read("probe --data a.csv --kind linear,knn"), Ok(Evaluation::Probe(words, _)) if words.len() == 4)
        );
        assert!(matches!(read("finetune --config a.yaml"), Ok(Evaluation::Finetune(..))));
        let detect = "detect --boxes a.csv --videos v -- --boxes b.csv --videos v";
        assert!(
            matches!(read(detect), Ok(Evaluation::Detect([train, eval], _)) if train.len() == 4 && eval.len() == 4)
        );
        for (words, told) in [
            ("probe --data a.csv --kinds linear", "--kinds"),
            ("probe --data a.csv --checkpoint b", "--checkpoint"),
            ("finetune --data a.csv", "--config"),
            ("detect --boxes a.csv -- --boxes b.csv", "--videos"),
            ("probe --help", "leave that out"),
            ("motion labels=0", "1 to 100"),
        ] {
            let error = read(words).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(told) && error.contains("`x`") && !error.contains('\n'), "{words}: {error}");
        }
    }

    #[test]
    fn the_work_of_textures_follows_what_is_asked() {
        let asked = |texture, motion| protocol(0, 16, Tasks { texture, motion }).work();
        assert_eq!((asked(false, false).steps, asked(false, false).classified), (0, 0));
        let (one, both) = (asked(true, false), asked(true, true));
        // Two rates for the first of three draws, 30 epochs of 16 labels of 8 classes in batches of 8.
        assert_eq!((one.steps, one.classified, one.clips), (4 * 30 * 16, 4 * 200 + 3 * 1000, 2600));
        assert_eq!((both.steps, both.classified), (2 * one.steps, 2 * one.classified));
        assert_eq!(one.classes, TEXTURES.len().max(DIRECTIONS));
    }
}
