//! `vjepa anticipate train` with augmentation, the encoder in the loop.

use std::time::Duration;

use super::setup::Setup;
use super::train::Train;
use super::{Bar, CliError};
use crate::cli::probe::time_in_words;
use vjepa_collective::Collective;
use vjepa_data::annotations::ActionSegment;
use vjepa_data::anticipation::{AnticipationClips, AnticipationDraws};
use vjepa_data::augment::{ClipAugment, RandomErasing};
use vjepa_data::transforms::RandomCrop;
use vjepa_eval::ProbeOptions;
use vjepa_eval::protocols::anticipation::{
    AnticipationRecord, AugmentedActions, FutureEncoder, train_actions_augmented,
};
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::Preprocessing;
use vjepa_recipe::config::evaluation::AnticipationTraining;
use vjepa_runtime::plan::Device;

/// How training clips are drawn and augmented, where they are: as the official file says, or as released files do. What of the
/// file has no effect otherwise is said by rank 0.
pub(super) fn asked(
    args: &Train,
    setup: &Setup<'_>,
    ranks: &dyn Collective,
) -> Result<Option<AnticipationTraining>, CliError> {
    let said = setup.official.as_ref().and_then(|file| file.training.as_ref());
    let tells = ranks.rank() == 0;
    if args.cached || (said.is_none() && !args.online) {
        for key in said.iter().flat_map(|training| &training.keys).filter(|_| tells) {
            eprintln!("note: {}", setup.of_file(&format!("`{key}` has no effect: --cached encodes clips once")));
        }
        return Ok(None);
    }
    let training = said.cloned().unwrap_or_else(AnticipationTraining::released);
    if training.motion_shift {
        let why = "crops of probes' clips stand still; set it to false, or train with --cached";
        return Err(setup.of_file(&format!("`experiment.data.motion_shift` is true: {why}")).into());
    }
    if tells {
        let why = if args.online { "" } else { ", as the configuration says how training clips are made" };
        eprintln!(
            "training on new crops in every epoch, the encoder in the loop{why} (--cached trains on fixed features)"
        );
    }
    Ok(Some(training))
}

/// How clips are drawn and augmented for training.
pub(super) fn draws(training: &AnticipationTraining, clips: AnticipationClips) -> AnticipationDraws {
    let Preprocessing { crop_size, normalization, .. } = clips.preprocessing;
    let official = ClipAugment::probe(crop_size);
    let augment = ClipAugment {
        policy: official.policy.filter(|_| training.auto_augment),
        crop: RandomCrop { scale: training.scale.into(), ..official.crop },
        // The official evaluation of actions mirrors, unlike that of videos.
        flip: true,
        erase: (training.reprob > 0.0).then(|| RandomErasing::clips(training.reprob)),
        normalization,
        ..official
    };
    AnticipationDraws { clips, seconds: training.seconds, point: training.point, augment }
}

/// What probes learn of augmented clips; none on ranks other than 0.
pub(super) fn learned(
    args: &Train,
    device: Device,
    record: &AnticipationRecord,
    options: &[ProbeOptions],
    opened: &mut FutureEncoder,
    actions: (&AnticipationDraws, &[ActionSegment]),
    ranks: &dyn Collective,
) -> Result<Option<Vec<NamedTensors>>, CliError> {
    let quiet = args.json || ranks.rank() != 0;
    let mut say = |time: Duration| {
        if !quiet {
            eprintln!("training takes about {} (measured on the first batch)", time_in_words(time));
        }
    };
    let mut bar = Bar::of(ranks);
    let learned = train_actions_augmented(device, record, options, opened, actions, ranks, &mut say, &mut |p| {
        bar.show(p);
    })?;
    bar.clear();
    let Some(AugmentedActions { probes, bad }) = learned else { return Ok(None) };
    if let Some((path, why)) = bad.iter().next() {
        eprintln!("note: {} videos could not always be used; the first: {}: {why}", bad.len(), path.display());
    }
    Ok(Some(probes))
}
