//! The operators of a model that tract does not have.
//!
//! tract looks an operator up by its name alone. Other tools write operators of their own domains under the names of
//! standard ones (`Conv` of `com.microsoft.nchwc`, whose weights are in blocks; `Attention` of `com.microsoft`), which it
//! would compute as something else, so they are distinguished here.

use std::collections::BTreeSet;
use tract_onnx::model::OnnxOpRegister;
use tract_onnx::pb::GraphProto;

/// Operators of `com.microsoft` that tract implements as ONNX Runtime defines them.
const CONTRIBUTED: [&str; 11] = [
    "BiasGelu",
    "FastGelu",
    "GatherBlockQuantized",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];
/// Most operators that a message names.
const MOST_NAMED: usize = 4;

/// Operators of a model that tract lacks, in words; none where it has all.
pub(super) fn lacking(graph: &GraphProto, known: &OnnxOpRegister) -> Option<String> {
    let mut found = BTreeSet::new();
    collect(graph, known, &mut found);
    let named: Vec<&str> = found.iter().take(MOST_NAMED).map(String::as_str).collect();
    let more = match found.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!found.is_empty()).then(|| format!("it lacks the operators {}{more}", named.join(", ")))
}

/// As deep as the decoder allows, which is a hundred levels.
fn collect(graph: &GraphProto, known: &OnnxOpRegister, found: &mut BTreeSet<String>) {
    for node in &graph.node {
        let has = known.0.contains_key(&node.op_type)
            && match node.domain.as_str() {
                "" | "ai.onnx" => true,
                "ai.onnx.ml" => true,
                "com.microsoft" => CONTRIBUTED.contains(&node.op_type.as_str()),
                _ => false,
            };
        // Names are the file's, and of any length.
        let short = |text: &str| text.chars().take(40).collect::<String>();
        if !has && node.domain.is_empty() {
            found.insert(short(&node.op_type));
        } else if !has {
            found.insert(format!("{} ({})", short(&node.op_type), short(&node.domain)));
        }
        let inner = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        inner.for_each(|graph| collect(graph, known, found));
    }
}
