//! `vjepa detect export`.

use std::path::{Path, PathBuf};

use crate::cli::CliError;
use crate::cli::encoder::Encoder;
use vjepa_deploy::detector::{self, DetectorExport, DetectorExported};
use vjepa_deploy::parity_json;
use vjepa_eval::cache::file_digest;

/// Encoder and detector as one ONNX file: clip and boxes in pixels to scores
///
/// The file is run on ONNX Runtime, where it is installed, and compared with the plan; one that differs is removed. tract has no
/// RoiAlign.
#[derive(clap::Args)]
pub(super) struct Export {
    /// Detector, from `vjepa detect train`
    #[arg(long, value_name = "FILE")]
    detector: PathBuf,
    #[command(flatten)]
    encoder: Encoder,
    /// Height of a clip in pixels [default: the detector's short side]
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,
    /// Width of a clip in pixels [default: the detector's short side]
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,
    /// Where to write the model
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Skip running the exported model
    #[arg(long)]
    no_verify: bool,
    /// ONNX Runtime's shared library [default: searched for, see `vjepa doctor`]
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Export) -> Result<(), CliError> {
    // Nothing is computed there, but a device that is not there is refused as everywhere.
    args.encoder.device.open()?;
    let checkpoint = &args.encoder.checkpoint;
    let detector = super::open(&args.detector, &vjepa_programs::digest(&vjepa_weights::load(checkpoint)?)?)?;
    let digest = file_digest(&args.detector)?;
    let config = args.encoder.config()?;
    let side = detector.record.side;
    let inputs = args.encoder.inputs();
    let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).chain([args.detector.as_path()]).collect();
    let request = DetectorExport {
        checkpoint,
        config: config.as_ref(),
        classifier: &detector.classifier,
        record: &detector.record,
        digest: &digest,
        inputs: &inputs,
        size: [args.height.unwrap_or(side), args.width.unwrap_or(side)],
        out: &args.out,
        verify: !args.no_verify,
        ort_lib: args.ort_lib.clone(),
    };
    let DetectorExported { written, parity } = detector::write(&request)?;
    if args.json {
        let summary = serde_json::json!({
            "model": written.model, "data": written.data, "bytes": written.bytes, "size": request.size,
            "parity": parity_json(&parity),
        });
        println!("{summary}");
        return Ok(());
    }
    println!("wrote    {} ({:.1} MB)", written.model.display(), written.bytes as f64 / 1e6);
    if let Some(data) = &written.data {
        println!("         {} next to it holds the weights; keep them together", data.display());
    }
    println!(
        "         clip f32[B, 3, T, H, W] and boxes f32[R, 5] (clip, x1, y1, x2, y2 in pixels) to scores f32[R, actions]"
    );
    for (name, parity) in &parity {
        println!("{name:<8} {parity}");
    }
    Ok(())
}
