//! `vjepa bench infer MODEL...`: model files as they are, each on every requested runtime.

use super::super::CliError;
use super::{InferArgs, file_name, save, show, turns};
use std::path::Path;
use std::process::Command;
use vjepa_deploy::bundle;
use vjepa_lab::bench::{Worker, paths};
use vjepa_programs::Precision;
use vjepa_runtime::cores;

pub(super) fn run(args: &InferArgs) -> Result<(), CliError> {
    let common = &args.common;
    if !args.models.is_empty() || common.torch.is_some() || common.config.is_some() || common.profile.is_some() {
        let others = "--onnx, --torch, --config and --profile are for `bench infer` without a model file";
        return Err(others.into());
    }
    if !common.device.open()?.is_cpu() || common.precision != [Precision::F32] || !common.sets.is_empty() {
        let instead = "choose --runtime cuda or tensorrt, and the precision when exporting";
        return Err(
            format!("--device, --precision and --set are for `bench infer` without a model file; {instead}").into()
        );
    }
    if (common.model.as_str(), common.frames, common.size) != ("small", 16, 112) {
        return Err(
            "--model, --frames and --size are for `bench infer` without a model file; a file has its own sizes".into(),
        );
    }
    common.spare(&args.files)?;
    let batch = common.batch.unwrap_or(1) as usize;
    let mut sides = Vec::new();
    for file in &args.files {
        let model = bundle::model_of(file)?;
        for runtime in &args.runtime {
            let name = format!("{runtime} {}", file_name(&file.display().to_string()));
            sides.push(Worker::start(&name, command(args, batch, runtime, &model)?)?);
        }
    }
    let result = turns(&mut sides, 1, common)?;
    let figures = serde_json::json!({
        "what": "models", "batch": batch, "version": env!("CARGO_PKG_VERSION"), "result": result,
        "threads": common.threads.or_else(cores), "simd": paths(),
    });
    if common.json {
        println!("{figures}");
    } else {
        println!(
            "batch {batch}, {} rounds; |y| diff.: relative difference in mean |y| of the first output from the first row's",
            result.rounds
        );
        print!("{}", show::latencies(&result, batch));
        for side in &result.sides {
            println!("{}: {}", side.name, side.about);
        }
    }
    save(common.out.as_deref(), &figures)
}

fn command(args: &InferArgs, batch: usize, runtime: &str, model: &Path) -> Result<Command, CliError> {
    let common = &args.common;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "worker", runtime, "--batch", &batch.to_string(), "--model"]).arg(model);
    if let Some(threads) = common.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    args.session.pass_on(&mut command);
    Ok(command)
}
