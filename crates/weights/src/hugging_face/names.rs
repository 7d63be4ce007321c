//! Names of tensors in Hugging Face's files of V-JEPA 2, and the official ones.
//!
//! Queries, keys and values are tensors of their own there and rows of one here; mask tokens are rows of one there and
//! tensors of their own here.

use crate::index::Index;
use crate::{Element, Entry, names};

/// All mask tokens, `[M, 1, 1, P]`.
pub(super) const MASK_TOKENS: &str = "predictor.embeddings.mask_tokens";
/// The first tensor of every such file, by which it is known.
const FIRST: &str = "encoder.embeddings.patch_embeddings.proj.weight";

/// A name there, the official one, and which part of how many the former is of the latter.
type Rule = (&'static str, &'static str, usize, usize);

const PLAIN: [Rule; 15] = [
    ("encoder.embeddings.patch_embeddings.proj", "encoder.patch_embed.proj", 0, 1),
    ("encoder.layernorm", "encoder.norm", 0, 1),
    ("predictor.embeddings.predictor_embeddings", "predictor.predictor_embed", 0, 1),
    ("predictor.layernorm", "predictor.predictor_norm", 0, 1),
    ("predictor.proj", "predictor.predictor_proj", 0, 1),
    ("pooler.cross_attention_layer.layer_norm1", "probe.pooler.cross_attention_block.norm1", 0, 1),
    ("pooler.cross_attention_layer.layer_norm2", "probe.pooler.cross_attention_block.norm2", 0, 1),
    ("pooler.cross_attention_layer.cross_attn.q_proj", "probe.pooler.cross_attention_block.xattn.q", 0, 1),
    ("pooler.cross_attention_layer.cross_attn.k_proj", "probe.pooler.cross_attention_block.xattn.kv", 0, 2),
    ("pooler.cross_attention_layer.cross_attn.v_proj", "probe.pooler.cross_attention_block.xattn.kv", 1, 2),
    ("pooler.cross_attention_layer.mlp.fc1", "probe.pooler.cross_attention_block.mlp.fc1", 0, 1),
    ("pooler.cross_attention_layer.mlp.fc2", "probe.pooler.cross_attention_block.mlp.fc2", 0, 1),
    ("classifier", "probe.linear", 0, 1),
    // Without a suffix of its own.
    ("pooler.query_tokens", "probe.pooler.query_tokens", 0, 1),
    ("pooler.cross_attention_layer.cross_attn.out_proj", "probe.pooler.cross_attention_block.xattn.proj", 0, 1),
];

/// Blocks: what stands before their number there, and officially, and what is inside.
const BLOCKS: [(&str, &str, &[Rule]); 3] = [
    ("encoder.layer", "encoder.blocks", &BLOCK),
    ("predictor.layer", "predictor.predictor_blocks", &BLOCK),
    ("pooler.self_attention_layers", "probe.pooler.blocks", &POOLER_BLOCK),
];

const BLOCK: [Rule; 8] = [
    ("norm1", "norm1", 0, 1),
    ("norm2", "norm2", 0, 1),
    ("attention.query", "attn.qkv", 0, 3),
    ("attention.key", "attn.qkv", 1, 3),
    ("attention.value", "attn.qkv", 2, 3),
    ("attention.proj", "attn.proj", 0, 1),
    ("mlp.fc1", "mlp.fc1", 0, 1),
    ("mlp.fc2", "mlp.fc2", 0, 1),
];

const POOLER_BLOCK: [Rule; 8] = [
    ("layer_norm1", "norm1", 0, 1),
    ("layer_norm2", "norm2", 0, 1),
    ("self_attn.q_proj", "attn.qkv", 0, 3),
    ("self_attn.k_proj", "attn.qkv", 1, 3),
    ("self_attn.v_proj", "attn.qkv", 2, 3),
    ("self_attn.out_proj", "attn.proj", 0, 1),
    ("mlp.fc1", "mlp.fc1", 0, 1),
    ("mlp.fc2", "mlp.fc2", 0, 1),
];

/// `weight`, `bias`, or nothing.
fn split(name: &str) -> (&str, &str) {
    ["weight", "bias"]
        .into_iter()
        .find_map(|suffix| Some((name.strip_suffix(suffix)?.strip_suffix('.')?, suffix)))
        .unwrap_or((name, ""))
}

fn joined(stem: String, suffix: &str) -> String {
    if suffix.is_empty() { stem } else { format!("{stem}.{suffix}") }
}

/// The number of a block and what is inside it, of a name that begins with `table`.
fn inside<'a>(name: &'a str, table: &str) -> Option<(usize, &'a str)> {
    let (number, inner) = name.strip_prefix(table)?.strip_prefix('.')?.split_once('.')?;
    Some((number.parse().ok()?, inner))
}

/// The official name of a tensor, and which part of how many it is of it; none for a name that such files do not have.
pub(super) fn official(name: &str) -> Option<(String, usize, usize)> {
    let (stem, suffix) = split(name);
    if let Some((_, ours, part, of)) = PLAIN.iter().find(|(theirs, ..)| *theirs == stem) {
        return Some((joined((*ours).to_owned(), suffix), *part, *of));
    }
    BLOCKS.iter().find_map(|(theirs, ours, rules)| {
        let (number, inner) = inside(stem, theirs)?;
        let (_, inner, part, of) = rules.iter().find(|(theirs, ..)| *theirs == inner)?;
        Some((joined(format!("{ours}.{number}.{inner}"), suffix), *part, *of))
    })
}

/// The names there of the parts of an official tensor, in their order; empty where such files have no place for it.
pub(super) fn theirs(name: &str) -> Vec<String> {
    let (stem, suffix) = split(name);
    let mut parts: Vec<String> = PLAIN
        .iter()
        .filter(|(_, ours, ..)| *ours == stem)
        .map(|(theirs, ..)| joined((*theirs).to_owned(), suffix))
        .collect();
    for (theirs, ours, rules) in BLOCKS {
        let Some((number, inner)) = inside(stem, ours) else { continue };
        let fitting = rules.iter().filter(|(_, ours, ..)| *ours == inner);
        parts.extend(fitting.map(|(inner, ..)| joined(format!("{theirs}.{number}.{inner}"), suffix)));
    }
    parts
}

/// Whether an index is of such a file.
pub(super) fn is_theirs(index: &Index) -> bool {
    index.entries.contains_key(FIRST) || index.others.contains_key(FIRST)
}

/// A name as [`names::official`] leaves it, without the place it has been given among our models.
fn plain(name: &str) -> &str {
    let probe = name.strip_prefix("probe.");
    match probe {
        Some("weight") => "classifier.weight",
        Some("bias") => "classifier.bias",
        Some(inner) => inner,
        None => name,
    }
}

/// Gives the tensors of such a file their official names and shapes. Tensors that it does not have by right keep theirs, so
/// that a strict reader finds them.
///
/// # Errors
/// Parts that do not fit together, in words.
pub(crate) fn translate(index: &mut Index) -> Result<(), String> {
    let mut parts: std::collections::BTreeMap<String, Vec<Option<Entry>>> = std::collections::BTreeMap::new();
    for (name, entry) in std::mem::take(&mut index.entries) {
        let theirs = plain(&name);
        if theirs == MASK_TOKENS {
            let tokens = mask_tokens(&entry)?;
            index.entries.extend(tokens);
            continue;
        }
        match official(theirs) {
            None => drop(index.entries.insert(name, entry)),
            Some((ours, part, of)) => {
                let list = parts.entry(ours).or_insert_with(|| (0..of).map(|_| None).collect());
                if let Some(place) = list.get_mut(part) {
                    *place = Some(entry);
                }
            }
        }
    }
    for (ours, list) in parts {
        let whole = join(&ours, list)?;
        index.entries.insert(ours, whole);
    }
    Ok(())
}

/// One tensor of parts that follow each other along the first axis.
fn join(name: &str, parts: Vec<Option<Entry>>) -> Result<Entry, String> {
    let shown = names::shortened(name);
    let missing = || format!("of the parts of `{shown}` (queries, keys, values) one is missing");
    let mut parts = parts.into_iter();
    let mut whole = parts.next().flatten().ok_or_else(missing)?;
    let shape = whole.shape.clone();
    for part in parts {
        let part = part.ok_or_else(missing)?;
        if part.shape != shape || part.element != whole.element {
            return Err(format!("the parts of `{shown}` (queries, keys, values) differ in shape or type"));
        }
        if let (Some(rows), Some(more)) = (whole.shape.first_mut(), shape.first()) {
            *rows += more;
        }
        whole.spans.extend(part.spans);
    }
    Ok(whole)
}

/// `[M, 1, 1, P]` as M tensors `[1, 1, P]`.
fn mask_tokens(entry: &Entry) -> Result<Vec<(String, Entry)>, String> {
    const MOST: usize = 4096;
    let wrong = || format!("its mask tokens have the shape {}, not [tokens, 1, 1, width]", names::sizes(&entry.shape));
    let (&[tokens, one, other, width], [span]) = (entry.shape.as_slice(), entry.spans.as_slice()) else {
        return Err(wrong());
    };
    if (one, other) != (1, 1) || tokens > MOST {
        return Err(wrong());
    }
    let token = |number: usize| {
        let span = span.row(&entry.shape, entry.element, number).ok_or_else(wrong)?;
        let element: Element = entry.element;
        Ok((format!("predictor.mask_tokens.{number}"), Entry::whole(vec![1, 1, width], element, span)))
    };
    (0..tokens).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for (theirs, ours, part, of) in [
            ("encoder.layer.11.attention.key.bias", "encoder.blocks.11.attn.qkv.bias", 1, 3),
            ("predictor.layer.0.mlp.fc1.weight", "predictor.predictor_blocks.0.mlp.fc1.weight", 0, 1),
            ("pooler.self_attention_layers.2.self_attn.out_proj.bias", "probe.pooler.blocks.2.attn.proj.bias", 0, 1),
            ("pooler.query_tokens", "probe.pooler.query_tokens", 0, 1),
            ("classifier.weight", "probe.linear.weight", 0, 1),
            ("encoder.layernorm.bias", "encoder.norm.bias", 0, 1),
        ] {
            assert_eq!(official(theirs), Some((ours.to_owned(), part, of)));
            assert_eq!(super::theirs(ours).get(part).map(String::as_str), Some(theirs));
            assert_eq!(super::theirs(ours).len(), of);
        }
        for name in
            ["encoder.layer.x.norm1.weight", "encoder.layer.0.norm3.weight", "encoder.blocks.0.norm1.weight", ""]
        {
            assert_eq!(official(name), None, "{name}");
        }
        assert!(super::theirs("encoder.pos_embed").is_empty());
    }
}
