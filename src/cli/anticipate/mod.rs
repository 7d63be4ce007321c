//! `vjepa anticipate`: what a person is about to do, from the seconds before (EPIC-KITCHENS-100).

mod eval;
mod online;
mod setup;
mod train;

use clap::Subcommand;

use super::CliError;
use super::device::RankArgs;
use super::probe::Bar;
use eval::Eval;
use train::Train;
use vjepa_collective::Collective;
use vjepa_data::annotations::Actions;
use vjepa_data::anticipation::AnticipationClips;
use vjepa_eval::protocols::anticipation::{Anticipated, FutureEncoder, Recall};

/// Train or evaluate a probe that anticipates actions: verb, noun and action (EPIC-KITCHENS-100)
///
/// The encoder of a V-JEPA 2 or 2.1 sees the seconds before an action, its predictor rolls them out to the time of the action,
/// and the probe reads both. The figure is class-mean recall at 5.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

// Of one command alone, so the size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
enum What {
    Train(Train),
    Eval(Eval),
}

/// Runs the command. Ranks that a launcher has started share the clips; rank 0 trains and evaluates.
pub fn run(args: &Args) -> Result<(), CliError> {
    let frozen = match &args.what {
        What::Train(args) => args.frozen(),
        What::Eval(args) => args.frozen(),
    };
    frozen.ranks.run(
        &frozen.device,
        |_| false,
        |device, ranks| match &args.what {
            What::Train(args) => train::run(args, device, ranks),
            What::Eval(args) => eval::run(args, device, ranks),
        },
    )
}

/// Features of actions, which `ranks` share; what could not be read is said. None on ranks other than 0.
fn features(
    opened: &mut FutureEncoder,
    clips: &AnticipationClips,
    actions: &Actions,
    ranks: &dyn Collective,
) -> Result<Option<Anticipated>, CliError> {
    let mut bar = Bar::of(ranks);
    let found = opened.features(clips, &actions.segments, ranks, &mut |p| bar.show(p))?;
    bar.clear();
    let Some(found) = found else { return Ok(None) };
    if let Some(first) = found.bad.first() {
        let (bad, all) = (found.bad.len(), actions.segments.len());
        eprintln!("note: {bad} of {all} actions were left out; the first: {first}");
    }
    Ok(Some(found))
}

/// `recall at 5: verb 31.0 %, noun 40.2 %, action 12.9 % (of 100 actions)`.
fn in_words(recall: &Recall) -> String {
    let Recall { verb, noun, action, segments, unknown } = recall;
    let unknown =
        if *unknown > 0 { format!(", {unknown} left out that the probe has no class for") } else { String::new() };
    format!(
        "recall at 5: verb {:.1} %, noun {:.1} %, action {:.1} % (of {segments} actions{unknown})",
        100.0 * verb,
        100.0 * noun,
        100.0 * action
    )
}
