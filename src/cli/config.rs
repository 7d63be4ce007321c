//! `vjepa config`: the reference of all configuration keys, and a configuration with every value filled in.

use std::path::PathBuf;

use vjepa_recipe::config::{Config, Key, SectionKeys, explain};

use super::CliError;

/// Explain configuration keys, or print a configuration with every value filled in
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["explain", "print"])))]
pub struct Args {
    /// Explain a key (optimization.lr, mask.0.num_blocks), a section (optimization), or all keys: type, default, meaning.
    #[arg(long, value_name = "KEY", num_args = 0..=1, default_missing_value = "")]
    explain: Option<String>,
    /// Print a configuration as YAML with its defaults filled in; without FILE, the defaults themselves.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    print: Option<Option<PathBuf>>,
    /// Change a value of the configuration, e.g. --set data.sampling_rate=2 (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "explain")]
    sets: Vec<String>,
    /// One JSON document on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    if let Some(asked) = &args.explain {
        let sections = explain(asked)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&sections)?);
            return Ok(());
        }
        let text: Vec<String> = sections.iter().map(|section| section_text(section, asked)).collect();
        print!("{}", text.join("\n"));
        return Ok(());
    }
    let config = match args.print.as_ref().and_then(Option::as_ref) {
        Some(path) => Config::from_file(path, &args.sets)?,
        // The defaults alone describe no model, so the rules between values wait until a file gives one.
        None => Config::unchecked("", "", &args.sets)?,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&config)?);
    } else {
        print!("{}", config.to_yaml()?);
    }
    Ok(())
}

/// Width that documentation is wrapped to.
const WIDTH: usize = 100;

fn section_text(section: &SectionKeys, asked: &str) -> String {
    let mut out = String::new();
    // A single key needs no heading.
    if asked.is_empty() || section.name == asked {
        out += &format!("{}\n\n", wrapped(&section.doc, ""));
    }
    out + &section.keys.iter().map(key_text).collect::<Vec<_>>().join("\n")
}

fn key_text(key: &Key) -> String {
    let mut facts = vec![key.accepts.clone()];
    facts.extend(key.default.as_ref().map(|default| format!("default {default}")));
    facts.push(if key.ours { "ours".into() } else { "official".into() });
    facts.extend(key.mask_type.map(|name| format!("with data.mask_type {name}")));
    let mut out = format!("{}\n{}\n", key.path, wrapped(&facts.join("; "), "    "));
    out += &match &key.unread {
        Some(why) => format!("{}\n", wrapped(&format!("{} Accepted and not used: {why}.", key.doc), "    ")),
        None => format!("{}\n", wrapped(&key.doc, "    ")),
    };
    for (word, doc) in &key.words {
        out += &format!("{}\n", wrapped(&format!("{word}: {doc}"), "      "));
    }
    out
}

/// Text broken at spaces into lines of at most [`WIDTH`] characters, each after `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if indent.len() + line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("{indent}{line}")).collect::<Vec<_>>().join("\n")
}
