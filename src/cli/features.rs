//! `vjepa features`: features of a frozen encoder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use indicatif::ProgressBar;

use super::CliError;
use super::device::DeviceArg;
use vjepa_data::clips;
use vjepa_programs::Precision;
use vjepa_programs::frozen::Frozen;
use vjepa_recipe::config::Config;
use vjepa_weights as weights;
use vjepa_weights::Tensors;

/// Clips encoded at once.
const BATCH: usize = 4;

/// Write the features (tokens) that an encoder computes for a video or for stored clips
#[derive(clap::Args)]
pub struct Args {
    /// Encoder: an official .pth.tar or .pt, or a .safetensors file with the official names
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Video, or .safetensors file with `clip_u8` [B, 3, T, H, W]
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where to write `encoder_out` [B, N, D] (safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which encoder of the checkpoint [default: the target encoder if there is one]
    #[arg(long, value_parser = ["target_encoder", "encoder"], value_name = "NAME")]
    encoder: Option<String>,
    #[command(flatten)]
    device: DeviceArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let device = args.device.open()?;
    let weights = weights::load(&args.checkpoint)?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &args.sets)).transpose()?;
    let model = vjepa_programs::describe(&weights, config.as_ref())?;
    super::note_sampling(model.config.as_ref());
    let encoder = match args.encoder.as_deref() {
        Some(named) => named,
        None => weights.encoder()?,
    };
    let record = model.preprocessing.clone();
    let clips = clips::read(&args.input, &record)?;
    let tensors = weights.take(encoder, "encoder", model.encoder.parameter_shapes())?;
    let mut frozen = Frozen::on(device, Precision::F32, &model.encoder, None, &tensors)?;
    drop(tensors);

    let bar = ProgressBar::new(clips.count as u64);
    let one: usize = frozen.clip().iter().product();
    let shape = vec![clips.count, model.encoder.tokens(), model.encoder.embed_dim];
    let mut features = Vec::with_capacity(shape.iter().product());
    for batch in clips.data.chunks(one * BATCH) {
        let mut outputs = frozen.run(batch.to_vec())?;
        let out = outputs.remove("encoder_out").ok_or("the encoder's plan has no output")?;
        features.extend_from_slice(out.floats());
        bar.inc((batch.len() / one.max(1)) as u64);
    }
    bar.finish_and_clear();
    let bad = features.iter().filter(|value| !value.is_finite()).count();
    if bad > 0 {
        return Err(format!(
            "{bad} of {} features are NaN or infinite: the weights in {} are damaged or belong to another model",
            features.len(),
            args.checkpoint.display()
        )
        .into());
    }
    let out = Tensors::from([("encoder_out".to_owned(), (shape.clone(), features))]);
    let metadata = BTreeMap::from([
        ("vjepa.encoder".to_owned(), encoder.to_owned()),
        (vjepa_runtime::preprocess::METADATA_KEY.to_owned(), record.to_json()),
    ]);
    weights::save_safetensors(&args.out, &out, &metadata)?;
    if args.json {
        let summary = serde_json::json!({
            "out": args.out, "encoder_out": shape, "encoder": encoder, "described_by": model.source,
            "preprocessing": model.preprocessing,
        });
        println!("{summary}");
    } else {
        println!("clips    {} ({})", clips::in_words(&record), args.input.display());
        println!("encoder  {encoder} of {}, described by {}", args.checkpoint.display(), model.source);
        println!("wrote    encoder_out {shape:?} to {}", args.out.display());
    }
    Ok(())
}
