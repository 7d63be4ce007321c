//! Anticipating actions: the future that a predictor rolls out, and the step that trains verb, noun and action on it.

use crate::CompileError;
use crate::forward::{declare, failed, traced};
use crate::step::{TrainOptions, plain_step};
use vjepa_compiler::ir::Graph;
use vjepa_graphs::{ActionClassifier, NamedTensors, ProbeConfig, focal_loss, init};
use vjepa_weights::Shapes;

/// What the logits of an action probe are of.
pub const ACTION_HEADS: [&str; 3] = ["verb", "noun", "action"];

/// The training step of an action probe: `features f32[B, N, D]` and one-hot `labels.verb`, `labels.noun` and `labels.action`
/// `f32[B, classes]` to the sum of three focal losses; one clipped group of which everything decays, as officially.
///
/// # Errors
/// [`CompileError`].
pub fn actions_step(config: &ProbeConfig, classes: [usize; 3]) -> Result<Graph, CompileError> {
    let mut graph = traced("actions_step", &["B", "N"], |scope| {
        let model = ActionClassifier::empty(config, classes, scope.device()).map_err(failed)?;
        declare(scope, &model, "probe.")?;
        let [batch, tokens] = ["B", "N"].map(|symbol| scope.size(symbol));
        let features = scope.input("features", [batch, tokens, config.embed_dim])?;
        let logits = model.forward(features).map_err(failed)?;
        let mut loss = None;
        for ((head, logits), classes) in ACTION_HEADS.into_iter().zip(logits).zip(classes) {
            let labels = scope.input(&format!("labels.{head}"), [batch, classes])?;
            let term = focal_loss(logits, labels).map_err(failed)?;
            loss = Some(match loss {
                Some(sum) => sum + term,
                None => term,
            });
        }
        match loss {
            Some(loss) => scope.output("loss", &loss),
            None => Ok(()),
        }
    })?;
    graph.name = "actions_step".to_owned();
    plain_step(graph, &["probe"], TrainOptions { decay_all: true, ..TrainOptions::default() })
}

/// The tensors of an action probe, under their official names.
pub fn action_shapes(config: &ProbeConfig, classes: [usize; 3]) -> Shapes {
    let shared = config.parameter_shapes().into_iter().filter(|(name, _)| !name.starts_with("linear."));
    let three = shared.map(|(name, shape)| match name.as_str() {
        "pooler.query_tokens" => (name, vec![1, ACTION_HEADS.len(), config.embed_dim]),
        _ => (name, shape),
    });
    let heads = ACTION_HEADS.into_iter().zip(classes).flat_map(|(head, classes)| {
        let own = |part: &str| format!("{head}_classifier.{part}");
        [(own("weight"), vec![classes, config.embed_dim]), (own("bias"), vec![classes])]
    });
    three.chain(heads).collect()
}

/// First weights of an action probe, under their official names: those of a probe of classes, with a query and a linear layer
/// of its own for each of verb, noun and action.
pub fn first_action_weights(config: &ProbeConfig, classes: [usize; 3], seed: u64) -> NamedTensors {
    let mut weights = NamedTensors::new();
    let mut queries = Vec::new();
    for ((number, head), num_classes) in (0..).zip(ACTION_HEADS).zip(classes) {
        let own = init::probe(&ProbeConfig { num_classes, ..config.clone() }, seed.wrapping_add(number));
        for (name, tensor) in own {
            if let Some(name) = name.strip_prefix("linear.") {
                weights.insert(format!("{head}_classifier.{name}"), tensor);
            } else if name == "pooler.query_tokens" {
                queries.extend(tensor.1);
            } else {
                // Of the first; what the three share is one.
                weights.entry(name).or_insert(tensor);
            }
        }
    }
    weights.insert("pooler.query_tokens".to_owned(), (vec![1, 3, config.embed_dim], queries));
    weights
}
