//! `vjepa eval` without a probe: a fine-tuned model, encoder and classifier in one file.

use super::{Args, CliError, numbering};
use crate::cli::probe::{Bar, print_skipped};
use vjepa_collective::Collective;
use vjepa_data::{BadVideo, TestPlan};
use vjepa_eval::protocols::finetuned::open_tuned;
use vjepa_eval::videos::labelled_videos;
use vjepa_recipe::config::{Config, TestSampling};
use vjepa_runtime::plan::Device;

/// Tests the model.
pub(super) fn run(
    args: &Args,
    config: Option<&Config>,
    device: Device,
    ranks: &dyn Collective,
) -> Result<(), CliError> {
    let encoder = &args.encoder;
    let Some(checkpoint) = &encoder.checkpoint else {
        return Err("name the probe with --probe, or a model of `vjepa finetune` with --checkpoint".into());
    };
    let Some(data) = &args.data else { return Err("name the videos to evaluate on: --data LIST".into()) };
    let unused = [
        ("--results", args.results.is_some()),
        ("--clips-apart", args.clips_apart),
        ("--probe-heads", args.probe_heads.is_some()),
        (args.cache.given().unwrap_or_default(), args.cache.given().is_some()),
        ("--still-frames", encoder.still_frames.is_some()),
        ("--official-validation", encoder.official_validation),
    ];
    if let Some((flag, _)) = unused.into_iter().find(|(_, given)| *given) {
        return Err(format!("{flag} is for probes: leave it out, or name the probe with --probe").into());
    }
    let mut opened = open_tuned(device, checkpoint, config)?;
    let recorded = opened.description.config.as_ref().and_then(|config| config.finetune.clone());
    let from = recorded.as_ref().map_or(0, |recorded| recorded.labels_from);
    let preprocessing = opened.description.preprocessing.clone();
    let plan = match (args.clips, args.views, recorded) {
        (None, None, Some(recorded)) => TestPlan::of(&recorded, preprocessing),
        (clips, views, _) => {
            let [clips, crops] = [clips, views].map(|count| count.unwrap_or(1).into());
            TestPlan { preprocessing, sampling: TestSampling::Frozen, clips, crops }
        }
    };
    let list = labelled_videos(data)?;
    // Before the test, which may be long.
    let (from, notes) = numbering(args, &opened.class_names(checkpoint, from), &list, None)?;
    notes.iter().filter(|_| ranks.rank() == 0).for_each(|note| eprintln!("note: {note}"));
    let mut bar = Bar::of(ranks);
    let tested = opened.model.test(&plan, &list.entries, ranks, &mut |p| bar.show(p))?;
    bar.clear();
    let Some(tested) = tested else { return Ok(()) };
    let accuracy = tested.accuracy(&opened.classes_of(&tested.labels, from)?);
    let (clips, views) = (plan.clips, plan.crops);
    if args.json {
        let summary = serde_json::json!({
            "top1": accuracy.top1, "top5": accuracy.top5, "videos": accuracy.videos, "classes": tested.classes,
            "clips": clips, "views": views, "bad_videos": tested.bad, "labels_from": from, "notes": notes,
            "predictions": tested.predictions(),
        });
        println!("{summary}");
        return Ok(());
    }
    let per_video = match (clips, views) {
        (1, 1) => "one clip per video".to_owned(),
        (clips, views) => format!("{clips} clips x {views} views per video"),
    };
    println!("top-1    {:.1} %", 100.0 * accuracy.top1);
    println!("top-5    {:.1} %", 100.0 * accuracy.top5);
    println!("videos   {} of {} classes, {per_video}", accuracy.videos, tested.classes);
    print_skipped(&tested.bad.iter().collect::<Vec<&BadVideo>>());
    Ok(())
}
