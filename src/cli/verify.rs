//! `vjepa verify`: compares this program with data recorded from the official code, and a bundle with its own record.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::CliError;
use super::device::DeviceArg;
use super::runtime::{RuntimeArgs, caution};
use super::whole::whole;
use vjepa_deploy::{bundle, open_session as open};
use vjepa_lab::golden;
use vjepa_lab::golden::check::Check;
use vjepa_programs::Precision;
use vjepa_runtime::{Difference, Options, Runtime, Session};

/// Arguments of `vjepa verify`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Compare with data recorded from the official code; exit code 0 if every supported quantity is within its limit
    Golden {
        /// Folder of golden data, or a folder of such folders
        dir: PathBuf,
        #[command(flatten)]
        device: DeviceArg,
        /// Precision of matrix products: f32; bf16, or f16 where nothing is trained, which need --relax
        #[arg(long, default_value = "f32")]
        precision: Precision,
        /// Multiply every inexact limit by this factor, for bf16 and for CUDA's TF32
        #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
        relax: f64,
        /// Round mask lengths of recorded steps up to multiples of N, with the padding masked out (as `vjepa graph` does)
        #[arg(long, value_name = "N", value_parser = whole::<u64>(1..=4096))]
        mask_buckets: Option<u64>,
        /// Print one JSON object per line: name, rel_l2, max_abs, limit, pass; or name, unsupported
        #[arg(long)]
        json: bool,
    },
    /// Check a bundle's files and run its stored clips; exit code 0 if the runtime gives the recorded results
    Bundle {
        /// Bundle written by `vjepa compile --export bundle`
        dir: PathBuf,
        /// Runtime to check; `all` takes those available on this CPU
        #[arg(long, default_value = "all", value_parser = ["all", "auto", "tract", "ort", "cuda", "tensorrt"])]
        runtime: String,
        #[command(flatten)]
        session: RuntimeArgs,
        /// Print one JSON object per output and runtime
        #[arg(long)]
        json: bool,
    },
}

/// Number of comparisons by outcome.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    unsupported: usize,
}

/// Runs the command.
///
/// # Errors
/// Data that cannot be read, a quantity out of its limit, or nothing to compare with.
pub fn run(args: Args) -> Result<(), CliError> {
    match args.what {
        What::Golden { dir, json, device, precision, relax, mask_buckets } => {
            if !(relax.is_finite() && relax >= 1.0) {
                return Err("--relax must be at least 1".into());
            }
            golden(
                dir,
                json,
                golden::Execution {
                    device: device.open()?,
                    precision,
                    mask_buckets: mask_buckets.and_then(|n| n.try_into().ok()),
                },
                relax,
            )
        }
        What::Bundle { dir, runtime, session, json } => bundle(&dir, &runtime, &session.options(), json),
    }
}

/// Checks the files, then runs the stored clips on tract and ONNX Runtime, where available and suited to the model.
fn bundle(dir: &Path, runtime: &str, options: &Options, json: bool) -> Result<(), CliError> {
    let manifest = bundle::check(dir)?;
    let model = dir.join(&manifest.model);
    let runtimes = match runtime {
        "all" => vec![Runtime::Tract, Runtime::Ort],
        word => vec![word.parse()?],
    };
    let named = runtimes.len() == 1;
    let mut proven = 0;
    if !json {
        println!("files    {} unchanged since they were written", manifest.files.len());
    }
    for runtime in runtimes {
        let (session, differences) = match proof(dir, &manifest, &model, runtime, options) {
            Ok(Ok(found)) => found,
            Ok(Err(why)) if !named => {
                eprintln!("not run: {why}");
                continue;
            }
            Ok(Err(why)) => return Err(why.into()),
            Err(error) => return Err(error),
        };
        proven += 1;
        caution(&model, &session);
        for difference in differences {
            if json {
                let line = serde_json::json!({
                    "runtime": session.runtime(), "output": difference.name, "rel_l2": difference.relative,
                    "max_abs": difference.absolute, "limit": manifest.tolerance, "pass": true,
                });
                println!("{line}");
            } else {
                println!("agrees   {difference} on {}", session.runtime());
            }
        }
    }
    if proven == 0 {
        return Err("no available runtime runs this model; see `vjepa doctor`".into());
    }
    Ok(())
}

/// The differences on a runtime, or why it was not run.
fn proof(
    dir: &Path,
    manifest: &bundle::Manifest,
    model: &Path,
    runtime: Runtime,
    options: &Options,
) -> Result<Result<(Session, Vec<Difference>), String>, CliError> {
    let target = manifest.provenance.get("vjepa.target").map(String::as_str).unwrap_or_default();
    let precision = manifest.provenance.get("vjepa.precision").map(String::as_str).unwrap_or_default();
    if runtime == Runtime::Tract && (target == "ort-cpu" || matches!(precision, "f16" | "bf16")) {
        return Ok(Err(format!("tract does not run {precision} models for the target {target}")));
    }
    if runtime == Runtime::Ort && precision == "bf16" {
        return Ok(Err("ONNX Runtime has no bf16 matrix products on CPUs".to_owned()));
    }
    let session = match runtime {
        Runtime::Cuda | Runtime::TensorRt => Session::open(model, &Options { runtime, ..options.clone() })?,
        _ => match open(model, runtime, options.ort_lib.as_ref())? {
            Ok(session) => session,
            Err(why) => return Ok(Err(why)),
        },
    };
    let differences = bundle::prove(dir, manifest, &session)?;
    Ok(Ok((session, differences)))
}

fn golden(dir: PathBuf, json: bool, execution: golden::Execution, relax: f64) -> Result<(), CliError> {
    let folders = golden::folders(&dir)?;
    let many = folders.len() > 1 || folders.first().is_some_and(|(folder, _)| *folder != dir);
    let mut tally = Tally::default();
    let mut output = Ok(());
    let mut errors = Vec::new();
    for (folder, kind) in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut report = |check: Check| {
            let named = check.name().starts_with(&format!("{name}."));
            let check = check.relaxed(relax);
            let check = if many && !named { check.under(&name) } else { check };
            match check {
                Check::Unsupported { .. } => tally.unsupported += 1,
                Check::Measured { pass: true, .. } => tally.passed += 1,
                Check::Measured { pass: false, .. } => tally.failed += 1,
            }
            if output.is_ok() {
                let line = if json { check.to_json_line() } else { check.to_string() };
                output = writeln!(std::io::stdout().lock(), "{line}");
            }
        };
        if let Err(error) = golden::run(execution, &folder, kind, &mut report) {
            errors.push(format!("{name}: {error}"));
        }
    }
    match output {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    let Tally { passed, failed, unsupported } = tally;
    eprintln!("{passed} passed, {failed} failed, {unsupported} unsupported");
    if !errors.is_empty() {
        return Err(errors.join("; ").into());
    }
    match (failed, passed) {
        (1.., _) => Err(format!("{failed} of {} quantities exceed their limit", failed + passed).into()),
        (0, 0) => Err(format!("nothing in {} could be compared: none of it is supported", dir.display()).into()),
        _ => Ok(()),
    }
}
