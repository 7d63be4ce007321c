//! Names of tensors: the official ones under the model they belong to, whatever was wrapped around the model.

use super::{MODELS, OTHER_PROBES};

/// Prefixes that wrappers add to names: DataParallel and DDP, the official multi-mask wrapper, `torch.compile`, FSDP, activation
/// checkpointing, Lightning Fabric. They may be nested in any order and stand anywhere.
const WRAPPERS: [&str; 6] =
    ["module", "backbone", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];
/// Keys under which a state dict is often stored.
const CONTAINERS: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network", "vjepa2"];
/// First parts of the names inside each model, for a state dict that is a model's own.
const INSIDE: [(&str, &[&str]); 3] = [
    (
        "encoder",
        &[
            "patch_embed",
            "pos_embed",
            "blocks",
            "norm",
            "norms_block",
            "patch_embed_img",
            "img_mod_embed",
            "video_mod_embed",
        ],
    ),
    (
        "predictor",
        &[
            "predictor_embed",
            "mask_tokens",
            "predictor_pos_embed",
            "predictor_blocks",
            "predictor_norm",
            "predictor_proj",
            "predictor_proj_context",
        ],
    ),
    ("probe", &["pooler", "linear", "verb_classifier", "noun_classifier", "action_classifier"]),
];

/// Why flattened parameters are refused.
pub(super) const FLATTENED: &str = "its parameters are flattened by FSDP (`_flat_param`); save it with \
     FSDP's StateDictType.FULL_STATE_DICT";

/// Why parameters that are parts of others are refused.
pub(super) const SHARDED: &str = "its parameters are shards of one process each, as FSDP's SHARDED_STATE_DICT has them; save \
     it with FSDP's StateDictType.FULL_STATE_DICT";

/// Whether a class is of tensors that are spread over processes.
pub(super) fn is_sharded(class: &str) -> bool {
    let last = class.rsplit('.').next().unwrap_or(class);
    class.starts_with("torch.distributed.") && (last == "DTensor" || last == "ShardedTensor")
}

/// A name without wrappers.
pub(super) fn unwrapped(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    parts.join(".")
}

/// `encoder.module.backbone.blocks.0.norm1.weight` is `encoder.blocks.0.norm1.weight`, as is `blocks.0.norm1.weight` of a
/// bare encoder and `model._orig_mod.blocks.0.norm1.weight`; none for what belongs to no model.
pub(super) fn official(key: &str) -> Option<String> {
    let name = unwrapped(key);
    let mut rest = name.as_str();
    loop {
        let (first, after) = rest.split_once('.').unwrap_or((rest, ""));
        if let Some((model, _)) = INSIDE.iter().find(|(_, inside)| inside.contains(&first)) {
            return Some(format!("{model}.{rest}"));
        }
        if after.is_empty() {
            return None;
        }
        // The official evaluation's files hold a `classifier`.
        if first == "classifier" {
            return Some(format!("probe.{after}"));
        }
        // Those of V-JEPA 2's a list of them, of which the first is read unless another is asked for (probes.rs).
        if first == OTHER_PROBES {
            return Some(after.strip_prefix("0.").map_or_else(|| rest.to_owned(), |first| format!("probe.{first}")));
        }
        if MODELS.contains(&first) {
            return Some(rest.to_owned());
        }
        if !CONTAINERS.contains(&first) {
            return None;
        }
        rest = after;
    }
}

/// Whether a key is of parameters that FSDP has flattened into one.
pub(super) fn is_flattened(key: &str) -> bool {
    key.rsplit('.').next().is_some_and(|last| last == "_flat_param" || last.starts_with("flat_param_"))
}

/// Two keys with one meaning.
pub(super) fn collision(first: &str, second: &str, name: &str) -> String {
    let [first, second, name] = [first, second, name].map(shortened);
    format!("its keys `{first}` and `{second}` both mean `{name}`; save one of them alone")
}

/// A name for a message: long ones are cut.
pub fn shortened(name: &str) -> String {
    cut(name, 80)
}

/// The first `longest` characters of a name.
pub(super) fn cut(name: &str, longest: usize) -> String {
    match name.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// A shape for a message, of many axes the first eight.
pub(super) fn sizes(shape: &[usize]) -> String {
    match shape.split_at_checked(8) {
        Some((first, rest)) if !rest.is_empty() => {
            let first: Vec<String> = first.iter().map(usize::to_string).collect();
            format!("[{}, …]", first.join(", "))
        }
        _ => format!("{shape:?}"),
    }
}

/// A few names, and how many there are more.
pub(super) fn few<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 4;
    let names: Vec<&str> = names.collect();
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| shortened(name)).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_stripped_anywhere() {
        for (key, wanted) in [
            ("encoder.module.backbone.blocks.0.attn.qkv.weight", "encoder.blocks.0.attn.qkv.weight"),
            ("target_encoder.backbone.norm.bias", "target_encoder.norm.bias"),
            ("predictor.module.mask_tokens.1", "predictor.mask_tokens.1"),
            ("target_encoder._orig_mod.module.backbone.pos_embed", "target_encoder.pos_embed"),
            ("target_encoder.module._orig_mod.backbone.pos_embed", "target_encoder.pos_embed"),
            (
                "_fsdp_wrapped_module.encoder.blocks.3._checkpoint_wrapped_module.norm1.bias",
                "encoder.blocks.3.norm1.bias",
            ),
            (
                "encoder._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.mlp.fc1.weight",
                "encoder.blocks.0.mlp.fc1.weight",
            ),
            ("classifier.module.pooler.query_tokens", "probe.pooler.query_tokens"),
        ] {
            assert_eq!(official(key).as_deref(), Some(wanted));
        }
        let first = "classifiers.0.module.pooler.query_tokens";
        assert_eq!(official(first).as_deref(), Some("probe.pooler.query_tokens"));
        assert_eq!(official("classifiers.1.module.linear.bias").as_deref(), Some("classifiers.1.linear.bias"));
        assert_eq!(official("opt.state.0.exp_avg"), None);
        assert_eq!(official("encoder"), None);
    }

    #[test]
    fn a_models_own_names_are_known() {
        for (key, wanted) in [
            ("blocks.0.norm1.weight", "encoder.blocks.0.norm1.weight"),
            ("pos_embed", "encoder.pos_embed"),
            ("model.pos_embed", "encoder.pos_embed"),
            ("state_dict.model._orig_mod.norm.bias", "encoder.norm.bias"),
            ("state_dict.target_encoder.norm.bias", "target_encoder.norm.bias"),
            ("predictor_blocks.1.norm1.weight", "predictor.predictor_blocks.1.norm1.weight"),
            ("module.pooler.query_tokens", "probe.pooler.query_tokens"),
        ] {
            assert_eq!(official(key).as_deref(), Some(wanted));
        }
        for key in ["model", "model.lm_head.weight", "optimizer.blocks.0.weight", "0.weight", ""] {
            assert_eq!(official(key), None, "{key}");
        }
    }

    #[test]
    fn messages_stay_short() {
        let long = "é".repeat(500);
        assert_eq!(shortened(&long).chars().count(), 81);
        assert_eq!(few(["a", "b", "c", "d", "e", "f"].into_iter()), "a, b, c, d and 2 more");
        assert_eq!(sizes(&[1; 9]), "[1, 1, 1, 1, 1, 1, 1, 1, …]");
        assert_eq!(sizes(&[2, 3]), "[2, 3]");
    }
}
