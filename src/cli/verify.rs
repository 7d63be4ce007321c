//! `vjepa verify`: compares this program with data recorded from the official code.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::CliError;
use super::device::DeviceArg;
use crate::compile::Precision;
use crate::golden::{self, check::Check};

/// Arguments of `vjepa verify`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Compare with golden data: one line a quantity; exit code 0 when everything recognised is within its limit
    Golden {
        /// A folder of golden data, or the folder of all of them
        dir: PathBuf,
        /// Where models run.
        #[command(flatten)]
        device: DeviceArg,
        /// Arithmetic of products: f32 or bf16 (which needs --relax).
        #[arg(long, default_value = "f32")]
        precision: Precision,
        /// Widen every limit that is not exact by this factor: bf16, and CUDA's TF32, are coarser than f32.
        #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
        relax: f64,
        /// One JSON object a line: name, rel_l2, max_abs, limit, pass; or name, unsupported
        #[arg(long)]
        json: bool,
    },
}

/// How many comparisons came out how.
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
    let What::Golden { dir, json, device, precision, relax } = args.what;
    if !(relax.is_finite() && relax >= 1.0) {
        return Err("--relax widens limits: give a number of at least 1".into());
    }
    let engine = golden::Engine { device: device.open()?, precision };
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
        if let Err(error) = golden::run(engine, &folder, kind, &mut report) {
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
        (1.., _) => Err(format!("{failed} of {} quantities are out of their limit", failed + passed).into()),
        (0, 0) => Err(format!("nothing in {} could be compared: what it holds is not supported", dir.display()).into()),
        _ => Ok(()),
    }
}
