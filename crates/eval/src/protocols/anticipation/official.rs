//! Probes of V-JEPA 2's evaluation on EPIC-KITCHENS-100, whose files say neither what their classes are nor which clips they saw.

use std::path::Path;

use vjepa_data::annotations::OfficialClasses;
use vjepa_graphs::NamedTensors;
use vjepa_programs::{ACTION_HEADS, ProbeChoice, action_shapes};
use vjepa_weights as weights;

use super::AnticipationRecord;
use crate::EvalError;

/// The clips that an official probe was trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OfficialClips {
    /// Frames of a clip.
    pub frames: usize,
    /// Clip frames a second.
    pub fps: f64,
    /// Seconds from the clip's end to the action's last frame.
    pub seconds: f64,
    /// Side of a clip in pixels.
    pub side: usize,
}

/// Reads an official probe of actions, strictly. `classes` are those of the list that it was trained on, which `list` is called.
///
/// # Errors
/// [`EvalError::Weights`] for a file that is no such probe or a damaged one; [`EvalError::Setup`] where the classes are not as many as
/// its outputs.
pub fn load_official_actions(
    path: &Path,
    choice: ProbeChoice,
    (list, classes): (&Path, OfficialClasses),
    clips: OfficialClips,
) -> Result<(AnticipationRecord, NamedTensors), EvalError> {
    let file = weights::load(path)?.choosing_probe(choice.number)?;
    let other = || EvalError::from(file.no_model("probe of verb, noun and action"));
    let layout = file.model_file(None)?.and_then(|file| file.probe).ok_or_else(other)?;
    let outputs: Vec<usize> = ACTION_HEADS
        .iter()
        .filter_map(|head| layout.heads.iter().find(|(name, _)| *name == format!("{head}_classifier")))
        .map(|(_, classes)| *classes)
        .collect();
    let [verbs, nouns, actions] = outputs[..] else { return Err(other()) };
    let OfficialClasses { verbs: own_verbs, nouns: own_nouns, actions: own_actions } = classes;
    if [verbs, nouns, actions] != [own_verbs.len(), own_nouns.len(), own_actions.len()] {
        return Err(EvalError::setup(format!(
            "{} tells {verbs} verbs, {nouns} nouns and {actions} actions apart, but {} has {}, {} and {}: give the list that it was \
             trained on with --classes, officially EPIC_100_train.csv",
            path.display(),
            list.display(),
            own_verbs.len(),
            own_nouns.len(),
            own_actions.len()
        )));
    }
    let num_heads = choice.heads.or(layout.num_heads).ok_or_else(|| {
        EvalError::setup(format!("{}: the number of attention heads of its probe is not known", path.display()))
    })?;
    let record = AnticipationRecord {
        depth: 1 + layout.blocks.unwrap_or(0),
        num_heads,
        embed_dim: layout.embed_dim,
        verbs: own_verbs,
        nouns: own_nouns,
        actions: own_actions,
        frames: clips.frames,
        fps: clips.fps,
        seconds: clips.seconds,
        anchor: "stop".to_owned(),
        side: clips.side,
        encoder_sha256: String::new(),
    };
    let probe = record.probe();
    probe.validate().map_err(|error| EvalError::file(path, error))?;
    let tensors = file.take("probe", "probe", action_shapes(&probe, record.classes()))?;
    Ok((record, tensors))
}
