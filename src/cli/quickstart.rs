//! `vjepa quickstart`.

use super::CliError;
use super::given::all_there;
use super::named::named;
use super::whole::whole;
use crate::quickstart::{Quickstart, run as quickstart};
use std::path::PathBuf;
use vjepa_recipe::config::Generation;

/// Pretrain, evaluate, probe, export and run a small model, in minutes
///
/// It runs on the CPU, and begins anew each time.
#[derive(clap::Args)]
pub struct Args {
    /// Train on the videos in this folder instead of generated textures
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    /// Output folder; an earlier quickstart in it is replaced
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,
    /// Seed of weights, data and masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Generation of the model
    #[arg(long, value_name = "GENERATION", default_value = Generation::V1.name())]
    #[arg(value_parser = named(&Generation::ALL, Generation::name, Generation::about))]
    model: Generation,
    /// Number of training steps, at least 2 [default: 750, or 400 with --videos]
    #[arg(long, value_name = "N", value_parser = whole::<u64>(2..))]
    steps: Option<u64>,
    /// Print JSON instead of the tables
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    all_there(&[("--videos", args.videos.as_deref())])?;
    Ok(quickstart(&Quickstart {
        folder: args.out.clone(),
        seed: args.seed,
        steps: args.steps,
        videos: args.videos.clone(),
        generation: args.model,
        json: args.json,
    })?)
}

#[cfg(test)]
mod tests {
    use vjepa_recipe::config::Config;

    #[test]
    fn the_steps_are_those_of_the_recipes() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let help = crate::cli::command().find_subcommand_mut("quickstart").unwrap().render_long_help().to_string();
        let [textures, videos] = ["quickstart.yaml", "quickstart_videos.yaml"].map(|name| {
            let config = Config::from_file(&folder.join(name), &[]).unwrap();
            config.optimization.plan(Some(1)).unwrap().steps
        });
        assert!(help.contains(&format!("[default: {textures}, or {videos} with --videos]")), "{help}");
    }
}
