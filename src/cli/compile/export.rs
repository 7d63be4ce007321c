//! `vjepa compile --export onnx`.

use std::path::Path;

use super::{Args, CliError};
use crate::clips;
use crate::config::Config;
use crate::deploy::{Export, Exported, arch, export};

pub(super) fn run(args: &Args, checkpoint: &Path) -> Result<(), CliError> {
    let out = args.out.as_deref().ok_or("--export needs --out FILE")?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &args.set)).transpose()?;
    let request = Export {
        checkpoint,
        probe: args.probe.as_deref(),
        config: config.as_ref(),
        out,
        verify: args.verify || !args.no_verify,
        ort_lib: args.ort_lib.clone(),
    };
    let Exported { written, nodes, metadata, parity, model, probe } = export(&request)?;
    if args.json {
        let runtimes: serde_json::Map<String, serde_json::Value> =
            parity.iter().map(|(name, parity)| ((*name).to_owned(), parity.json())).collect();
        let summary = serde_json::json!({
            "model": written.model, "data": written.data, "bytes": written.bytes, "nodes": nodes,
            "metadata": metadata, "parity": runtimes,
        });
        println!("{summary}");
        return Ok(());
    }
    let with_probe = probe.as_ref().map_or(String::new(), |p| format!(" + probe of {} classes", p.probe.num_classes()));
    println!("model    {}{with_probe}, described by {}", arch(&model.encoder), model.source);
    println!("clips    {}", clips::in_words(&clips::runtime_record(&model.preprocessing)?));
    println!("wrote    {} ({:.1} MB, {nodes} nodes)", written.model.display(), written.bytes as f64 / 1e6);
    if let Some(data) = &written.data {
        println!("         {} beside it holds the weights; keep them together", data.display());
    }
    for (name, parity) in &parity {
        println!("{name:<8} {parity}");
    }
    Ok(())
}
