//! Node names from parameter names: `encoder.blocks.0.attn.proj.weight` is the node `blocks.0/attn/proj`.

/// Path of the module that owns a parameter, numbers joined to the part before them.
pub(crate) fn module_path(parameter: &str, root: Option<&str>) -> String {
    let module = parameter.strip_suffix(".weight").or_else(|| parameter.strip_suffix(".bias")).unwrap_or(parameter);
    let mut parts: Vec<String> = Vec::new();
    for part in module.split('.') {
        match parts.last_mut() {
            Some(last) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => {
                *last = format!("{last}.{part}");
            }
            _ => parts.push(part.to_owned()),
        }
    }
    if parts.len() > 1 && parts.first().map(String::as_str) == root {
        parts.remove(0);
    }
    parts.join("/")
}

/// The path that holds `path`: `blocks.0/attn` for `blocks.0/attn/proj`.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// `leaf` inside `path`.
pub(crate) fn join(path: &str, leaf: &str) -> String {
    if path.is_empty() { leaf.to_owned() } else { format!("{path}/{leaf}") }
}

/// The parameter name of a part of `parameter`: the query's part of `attn.qkv.weight` is `attn.q.weight`.
pub(crate) fn part_of(parameter: &str, role: &str) -> String {
    let (module, leaf) = parameter.rsplit_once('.').unwrap_or((parameter, "weight"));
    match module.rsplit_once('.') {
        Some((owner, "qkv" | "kv")) => format!("{owner}.{role}.{leaf}"),
        None if matches!(module, "qkv" | "kv") => format!("{role}.{leaf}"),
        _ => format!("{module}.{role}.{leaf}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_modules() {
        assert_eq!(module_path("encoder.blocks.0.attn.proj.weight", Some("encoder")), "blocks.0/attn/proj");
        assert_eq!(module_path("encoder.pos_embed", Some("encoder")), "pos_embed");
        assert_eq!(module_path("probe.linear.bias", None), "probe/linear");
        assert_eq!(parent("blocks.0/attn/proj"), "blocks.0/attn");
        assert_eq!(part_of("encoder.blocks.0.attn.qkv.weight", "q"), "encoder.blocks.0.attn.q.weight");
        assert_eq!(part_of("probe.xattn.kv.bias", "v"), "probe.xattn.v.bias");
        assert_eq!(part_of("probe.xattn.q.weight", "scaled"), "probe.xattn.q.scaled.weight");
    }
}
