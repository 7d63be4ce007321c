//! `vjepa data index`: an index for tar files that other programs packed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use vjepa_data::shards::{index_path, index_shard};

use crate::cli::CliError;

/// Index tar files in WebDataset form, so that any sample can be read at once
///
/// Members with the same name up to the first dot are a sample: its video or picture, and its label as a whole number in
/// `.cls`, or under `label` or `cls` in `.json`. The index is written next to each file, with the ending .index.
#[derive(clap::Args)]
pub struct Args {
    /// Tar files
    #[arg(required = true, value_name = "TAR")]
    shards: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    for shard in &args.shards {
        let indexed = index_shard(shard)?;
        let members = indexed.index.members();
        let labelled = members.iter().filter(|member| member.label.is_some()).count();
        println!(
            "wrote {}: {} samples, {labelled} with labels{}",
            index_path(shard).display(),
            members.len(),
            over(&indexed.passed_over)
        );
    }
    Ok(())
}

fn over(passed_over: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = passed_over.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if parts.is_empty() { String::new() } else { format!("; passed over: {}", parts.join(", ")) }
}
