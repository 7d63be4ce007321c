//! The official order of parameters, by which optimisers number them: the order in which the modules make them.

use super::Shapes;

/// What names are made of, in the order in which modules have it. Only words of one level are ever compared.
const WORDS: [&str; 25] = [
    "pos_embed",
    "predictor_pos_embed",
    "img_mod_embed",
    "video_mod_embed",
    "patch_embed",
    "patch_embed_img",
    "predictor_embed",
    "mask_tokens",
    "blocks",
    "predictor_blocks",
    "norm1",
    "attn",
    "norm2",
    "mlp",
    "qkv",
    "proj",
    "fc1",
    "fc2",
    "norm",
    "norms_block",
    "predictor_norm",
    "predictor_proj",
    "predictor_proj_context",
    "weight",
    "bias",
];

/// A part of a name, comparable: a known word, a number, any other word after these.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part<'a> {
    Known(usize),
    Number(u64),
    Other(&'a str),
}

/// A name, comparable in the official order.
fn key<'a>(model: &str, name: &'a str) -> Vec<Part<'a>> {
    name.split('.').map(|part| self::part(model, part)).collect()
}

fn part<'a>(model: &str, part: &'a str) -> Part<'a> {
    // The predictor makes the two vectors in the other order.
    let word = match (model, part) {
        ("predictor", "img_mod_embed") => "video_mod_embed",
        ("predictor", "video_mod_embed") => "img_mod_embed",
        _ => part,
    };
    match WORDS.iter().position(|known| *known == word) {
        Some(known) => Part::Known(known),
        None => part.parse().map_or(Part::Other(part), Part::Number),
    }
}

/// Sorts names of parameters of `model` in the official order.
pub(super) fn sort(model: &str, names: &mut [&str]) {
    names.sort_by(|a, b| key(model, a).cmp(&key(model, b)));
}

/// The four groups of the official optimiser, in its order: what decays of the encoder, then of the predictor, then what
/// does not of either. Biases and everything with one dimension do not decay.
pub(super) fn groups(encoder: &Shapes, predictor: &Shapes) -> [Vec<String>; 4] {
    let of = |parameters: &Shapes, decays: bool| -> Vec<String> {
        let fits = |(name, shape): &&(String, Vec<usize>)| (name.contains("bias") || shape.len() == 1) != decays;
        parameters.iter().filter(fits).map(|(name, _)| name.clone()).collect()
    };
    [of(encoder, true), of(predictor, true), of(encoder, false), of(predictor, false)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_make_their_parameters_in_this_order() {
        let official = [
            "pos_embed",
            "patch_embed.proj.weight",
            "patch_embed.proj.bias",
            "blocks.0.norm1.weight",
            "blocks.0.norm1.bias",
            "blocks.0.attn.qkv.weight",
            "blocks.0.attn.qkv.bias",
            "blocks.0.attn.proj.weight",
            "blocks.0.attn.proj.bias",
            "blocks.0.norm2.weight",
            "blocks.0.mlp.fc1.weight",
            "blocks.0.mlp.fc2.bias",
            "blocks.2.norm1.weight",
            "blocks.10.norm1.weight",
            "norm.weight",
            "norm.bias",
        ];
        let mut names = official;
        names.sort_unstable();
        sort("encoder", &mut names);
        assert_eq!(names, official);
        let mut names = ["norms_block.3.bias", "blocks.9.norm1.bias", "patch_embed_img.proj.bias", "img_mod_embed"];
        names.reverse();
        sort("encoder", &mut names);
        assert_eq!(names[..2], ["img_mod_embed", "patch_embed_img.proj.bias"]);
        let official = [
            "predictor_pos_embed",
            "video_mod_embed",
            "img_mod_embed",
            "predictor_embed.weight",
            "mask_tokens.0",
            "mask_tokens.1",
            "predictor_blocks.0.norm1.weight",
            "predictor_norm.bias",
            "predictor_proj.weight",
        ];
        let mut names = official;
        names.reverse();
        sort("predictor", &mut names);
        assert_eq!(names, official);
    }

    #[test]
    fn biases_and_vectors_do_not_decay() {
        let shapes = |list: &[(&str, usize)]| list.iter().map(|(n, d)| ((*n).to_owned(), vec![1; *d])).collect();
        let encoder = shapes(&[("pos_embed", 3), ("norm.weight", 1), ("norm.bias", 1)]);
        let predictor = shapes(&[("mask_tokens.0", 3), ("relative_bias", 2)]);
        let [a, b, c, d] = groups(&encoder, &predictor);
        assert_eq!((a, b), (vec!["pos_embed".to_owned()], vec!["mask_tokens.0".to_owned()]));
        assert_eq!((c.len(), d), (2, vec!["relative_bias".to_owned()]));
    }
}
