//! `vjepa compile --export`.

use super::super::note_sampling;
use super::{Args, CliError, ExportFormat};
use vjepa_data::clips;
use vjepa_deploy::action::{self, ActionExported};
use vjepa_deploy::{Export, Exported, Origin, arch, bundle, compiled, export, parity_json, tensorrt, triton};
use vjepa_recipe::config::Config;
use vjepa_runtime::files;

/// The name of a model in a Triton repository.
const NAME: &str = "vjepa";
/// The licence of weights whose own is not known.
const UNSTATED: &str = "not stated: that of the checkpoint applies";

/// Refuses flags that other formats would have a use for.
fn refuse_idle(args: &Args) -> Result<(), CliError> {
    let of = |format: ExportFormat| args.export == format;
    let engines = args.session.of_engines();
    for (flag, given, fits, format) in [
        ("--name", args.name.is_some(), of(ExportFormat::Triton), "triton"),
        ("--licence", args.licence.is_some(), of(ExportFormat::Bundle), "bundle"),
        (engines.unwrap_or_default(), engines.is_some(), of(ExportFormat::Tensorrt), "tensorrt"),
    ] {
        if given && !fits {
            return Err(format!("{flag}: for --export {format} alone; leave it out").into());
        }
    }
    Ok(())
}

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let origin = match (&args.checkpoint, args.random_weights) {
        (Some(checkpoint), _) => Origin::Checkpoint(checkpoint),
        (None, Some(seed)) => Origin::Drawn(seed),
        (None, None) => return Err("give --checkpoint FILE or --random-weights SEED".into()),
    };
    if args.device.as_ref().is_some_and(|device| device != "cpu") {
        let instead = "for GPUs export with --target tensorrt, and choose where it runs with --runtime";
        return Err(format!("--device: models are exported on the CPU; {instead}").into());
    }
    refuse_idle(args)?;
    let out = args.out.as_path();
    // What else it is made from, the library spares.
    files::spare("--out", out, &[out], args.config.as_deref())?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &args.set)).transpose()?;
    let probe_number = args.probe_number.of(args.probe.as_deref(), true)?;
    let request = Export {
        origin,
        probe: args.probe.as_deref(),
        config: config.as_ref(),
        out,
        shown_as: out,
        verify: args.verify || !args.no_verify,
        ort_lib: args.session.ort_lib.clone(),
        form: args.form.form(args.export == ExportFormat::Tensorrt, probe_number)?,
    };
    if args.export == ExportFormat::Action {
        return of_actions(&request, args.json);
    }
    let assumed = args.form.assumes_precision(&request.form);
    let mut engine = None;
    let exported = match args.export {
        ExportFormat::Tensorrt => {
            let (exported, built) = tensorrt::write(&request, &args.session.options())?;
            engine = Some(built);
            exported
        }
        ExportFormat::Bundle => bundle::write(&request, args.licence.as_deref().unwrap_or(UNSTATED))?,
        ExportFormat::Plan => compiled::write(&request)?,
        ExportFormat::Triton => triton::write(&request, args.name.as_deref().unwrap_or(NAME))?,
        ExportFormat::Onnx | ExportFormat::Action => export(&request)?,
    };
    let Exported { written, nodes, metadata, parity, accuracy, model, probe } = exported;
    note_sampling(model.config.as_ref());
    if args.json {
        let summary = serde_json::json!({
            "target": request.form.target.to_string(), "precision": request.form.precision.to_string(),
            "precision_assumed": assumed,
            "model": written.model, "data": written.data, "bytes": written.bytes, "nodes": nodes,
            "metadata": metadata, "parity": parity_json(&parity), "accuracy": accuracy.as_ref().map(|(report, _)| report),
            "engine": engine.as_ref().map(tensorrt::EngineBuild::json),
        });
        println!("{summary}");
        return Ok(());
    }
    let with_probe =
        probe.as_ref().map_or(String::new(), |p| format!(" + probe with {} classes", p.probe.num_classes()));
    println!("model    {}{with_probe}, described by {}", arch(&model.encoder), model.source);
    println!("clips    {}", clips::in_words(&model.preprocessing));
    let assumed = if assumed { " (the default for this target; --precision chooses another)" } else { "" };
    println!("form     {}, {}{assumed}", request.form.target, request.form.precision);
    println!("wrote    {} ({:.1} MB, {nodes} nodes)", written.model.display(), written.bytes as f64 / 1e6);
    if let Some(data) = &written.data {
        println!("         {} next to it holds the weights; keep them together", data.display());
    }
    for (name, parity) in &parity {
        println!("{name:<8} {parity}");
    }
    if let Some((accuracy, place)) = &accuracy {
        println!("accuracy {accuracy}");
        println!("         {}", place.display());
    }
    if let Some(engine) = &engine {
        println!("engine   {engine}");
    }
    Ok(())
}

/// `--export action`.
fn of_actions(request: &Export<'_>, json: bool) -> Result<(), CliError> {
    let ActionExported { model, encoder, predictor, encoder_parity, predictor_parity } = action::write(request)?;
    let (frames, patches) = (model.predictor.frames, model.predictor.patches());
    if json {
        let summary = serde_json::json!({
            "encoder": encoder.model, "predictor": predictor.model, "bytes": encoder.bytes + predictor.bytes,
            "frames": frames, "tokens_per_frame": patches,
            "parity": parity_json(&encoder_parity), "predictor_parity": parity_json(&predictor_parity),
        });
        println!("{summary}");
        return Ok(());
    }
    println!("model    V-JEPA 2-AC, {}; sequences of {frames} frames, {patches} tokens each", arch(&model.encoder));
    println!("frames   {}", clips::in_words(&model.preprocessing));
    for (written, takes) in [
        (&encoder, "clip f32[B, 3, T, H, W] to tokens"),
        (&predictor, "tokens, states f32[B, T, 7] and actions f32[B, T, 7] to next_tokens"),
    ] {
        println!("wrote    {} ({:.1} MB): {takes}", written.model.display(), written.bytes as f64 / 1e6);
    }
    for (what, parity) in [("encoder", &encoder_parity), ("predictor", &predictor_parity)] {
        for (name, parity) in parity {
            println!("{name:<8} {what} {parity}");
        }
    }
    println!("         predictor.onnx takes three inputs, which a program of yours gives it; `vjepa run` takes clips");
    Ok(())
}
