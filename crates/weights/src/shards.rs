//! Weights in several files with an index, as `model.safetensors.index.json` and `pytorch_model.bin.index.json` list them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::index::Index;
use super::{Format, WeightsError, index_of, names};

/// Longest index that is read.
const LONGEST: u64 = 1 << 26;
/// Most files that an index may name.
const MOST_FILES: usize = 4096;

#[derive(Deserialize)]
pub(super) struct Written {
    pub weight_map: BTreeMap<String, String>,
}

/// Whether the first bytes may be those of an index.
pub(super) fn looks_like(head: &[u8]) -> bool {
    head.trim_ascii_start().starts_with(b"{")
}

/// Reads an index and those of all its files.
///
/// # Errors
/// [`WeightsError`]; what is wrong with one of the files is said of that file.
pub(super) fn read(path: &Path) -> Result<(Vec<PathBuf>, Format, Index), WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { path: path.to_owned(), why };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    let written = parse(&text).map_err(malformed)?;
    let parts: BTreeSet<&str> = written.weight_map.values().map(String::as_str).collect();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut whole = Index::default();
    let (mut files, mut format) = (Vec::new(), Format::Safetensors);
    for part in parts {
        let file = folder.join(part);
        if !file.exists() {
            let model = super::hugging_face::name_beside(path).map_or_else(String::new, |model| format!(" of {model}"));
            return Err(malformed(format!("its part {part}{model} is missing: download all files that it lists")));
        }
        let (own_format, index) = index_of(&file)?;
        format = own_format;
        merge(&mut whole, index, files.len()).map_err(malformed)?;
        files.push(file);
    }
    let there = |name: &str| {
        let known = |name: &str| whole.entries.contains_key(name) || whole.others.contains_key(name);
        whole.foreign.contains(name) || known(&names::official(name).unwrap_or_else(|| names::unwrapped(name)))
    };
    let missing: Vec<&str> = written.weight_map.keys().map(String::as_str).filter(|name| !there(name)).collect();
    if !missing.is_empty() {
        let missing = names::few(missing.into_iter());
        return Err(malformed(format!("its files do not hold what the index says: {missing}")));
    }
    Ok((files, format, whole))
}

/// An index: names of tensors, and the files beside it that they are in.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse(text: &str) -> Result<Written, String> {
    let written: Written = serde_json::from_str(text)
        .map_err(|_| "it is JSON, but not an index of weights (there is no `weight_map`)".to_owned())?;
    let parts: BTreeSet<&str> = written.weight_map.values().map(String::as_str).collect();
    if parts.is_empty() || parts.len() > MOST_FILES {
        return Err(format!("its index names {} files", parts.len()));
    }
    for part in parts {
        // An index must not make the program read elsewhere.
        let mut components = Path::new(part).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            let part = names::shortened(part);
            return Err(format!("its index names `{part}`, which is not a file in the same folder"));
        }
    }
    Ok(written)
}

fn merge(whole: &mut Index, part: Index, file: usize) -> Result<(), String> {
    for (name, mut entry) in part.entries {
        entry.spans.iter_mut().for_each(|span| span.file = file);
        if whole.entries.insert(name.clone(), entry).is_some() {
            return Err(format!("two of its files hold `{}`", names::shortened(&name)));
        }
    }
    whole.others.extend(part.others);
    whole.foreign.extend(part.foreign);
    Ok(())
}
