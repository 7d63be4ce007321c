//! Tips on command lines that are not understood: what somebody who comes from other programs writes.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};
use vjepa_recipe::config::key_called;

/// Adds to an error of the command line `words` what was probably meant, where that is known.
pub(super) fn with_tip(mut error: Error, command: &Command, words: &[OsString]) -> Error {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => flag.clone(),
        _ => return error,
    };
    let command = words.iter().skip(1).fold(command, |command, word| command.find_subcommand(word).unwrap_or(command));
    if let Some(tip) = tip(&flag, command, words) {
        // A flag that is spelled alike is not what was meant.
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn tip(flag: &str, command: &Command, words: &[OsString]) -> Option<String> {
    let name = flag.strip_prefix("--")?;
    let has = |long: &str| command.get_arguments().any(|arg| arg.get_long() == Some(long) && !arg.is_hide_set());
    match name {
        "device" | "cuda" if has("gpu") && has("runtime") => {
            return Some("the runtime says where a model runs, e.g. --runtime cuda --gpu 0".to_owned());
        }
        "gpus" if has("devices") => {
            return Some("several GPUs are given with --devices, e.g. --devices cuda:0-7".to_owned());
        }
        "gpu" | "gpus" | "cuda" if has("device") => {
            return Some("the device says which GPU, e.g. --device cuda:0".to_owned());
        }
        _ => {}
    }
    // Of commands that a configuration describes, and not just a model's sizes.
    let configured = command.get_arguments().any(|arg| arg.get_id() == "config" && arg.is_required_set());
    let key = key_called(&name.replace('-', "_")).filter(|_| configured && has("set"))?;
    let value = given(flag, words).or_else(|| key.default.clone())?;
    Some(format!(
        "settings are changed with --set, e.g. --set {}={value} (vjepa config --explain lists them)",
        key.path
    ))
}

/// The value that was given for a flag: `--lr 1e-3` or `--lr=1e-3`.
fn given(flag: &str, words: &[OsString]) -> Option<String> {
    let (at, own) = words.iter().enumerate().find_map(|(at, word)| {
        let rest = word.to_str()?.strip_prefix(flag)?;
        (rest.is_empty() || rest.starts_with('=')).then(|| (at, rest.strip_prefix('=').map(str::to_owned)))
    })?;
    own.or_else(|| words.get(at + 1)?.to_str().filter(|next| !next.starts_with("--")).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        let (command, words) = (crate::cli::command(), line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let error = command.clone().try_get_matches_from(&words).unwrap_err();
        with_tip(error, &command, &words).to_string()
    }

    #[test]
    fn settings_and_devices_of_other_programs_are_explained() {
        for (line, tip) in [
            ("vjepa train --config c --lr 1e-3", "--set, e.g. --set optimization.lr=1e-3 (vjepa config --explain"),
            ("vjepa train --config c --batch-size=8 --resume", "e.g. --set data.batch_size=8 ("),
            ("vjepa train --config c --learning-rate --resume", "e.g. --set optimization.lr=0.000625 ("),
            ("vjepa finetune --config c --checkpoint k --epochs 3", "e.g. --set optimization.epochs=3 ("),
            ("vjepa train --config c --gpu 1", "e.g. --device cuda:0"),
            ("vjepa train --config c --gpus 2", "e.g. --devices cuda:0-7"),
            ("vjepa run m.onnx v.mp4 --device cuda:0", "e.g. --runtime cuda --gpu 0"),
        ] {
            let told = told(line);
            assert!(told.contains(tip), "{line}: {told}");
            assert_eq!(told.matches("tip:").count(), 1, "{line}: {told}");
        }
        for line in
            ["vjepa train --config c --nonsense 3", "vjepa features --checkpoint k --lr 3", "vjepa train --configg c"]
        {
            assert!(!told(line).contains("--set, e.g."), "{line}: {}", told(line));
        }
        // Flags that are spelled alike are still named.
        assert!(told("vjepa train --configg c").contains("'--config'"));
    }
}
