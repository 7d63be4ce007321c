//! The text of a small model's graphs, checked in under `graphs/`: what the compiler makes today against the files.
//!
//! `UPDATE_IR=1 cargo test --test graph_text` writes them anew; the change is then reviewed like code.

use std::path::Path;

use vjepa_compiler::ir::Graph;
use vjepa_compiler::passes::Pipeline;
use vjepa_compiler::text::{parse, print};
use vjepa_graphs::{EncoderConfig, Jepa, JepaLoss, PredictorConfig, ProbeConfig};
use vjepa_programs as compile;
use vjepa_programs::{Probe, TrainOptions};

/// Two blocks of width 32 over clips of 4 frames of 16×16, patch 8; a predictor of one block of width 16.
fn small() -> (EncoderConfig, PredictorConfig) {
    let encoder = EncoderConfig { embed_dim: 32, depth: 2, num_heads: 2, patch: 8, ..EncoderConfig::tiny() };
    let encoder = encoder.with_clip(4, 16, 16);
    let predictor = PredictorConfig { embed_dim: 16, depth: 1, ..PredictorConfig::for_encoder(&encoder) };
    (encoder, predictor)
}

fn check(name: &str, graph: &Graph) {
    let text = print(graph);
    assert_eq!(parse(&text).unwrap().canonical(), graph.canonical(), "{name}.ir parses back to the same graph");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("graphs").join(format!("{name}.ir"));
    if std::env::var_os("UPDATE_IR").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    let difference = text.lines().zip(stored.lines()).enumerate().find(|(_, (new, old))| new != old);
    assert!(text == stored, "{name}.ir changed ({difference:?}); if meant so, run with UPDATE_IR=1 and review");
}

fn optimised(graph: Graph) -> Graph {
    Pipeline::standard().run(&graph).unwrap().graph
}

#[test]
fn encoder() {
    check("encoder", &optimised(compile::encoder(&small().0, "encoder.").unwrap()));
}

#[test]
fn predictor() {
    check("predictor", &optimised(compile::predictor(&small().1, 0).unwrap()));
}

#[test]
fn probe() {
    let probe = Probe::Attentive(ProbeConfig::for_encoder(&small().0, 4));
    check("probe", &optimised(compile::probe(&probe, false).unwrap()));
}

#[test]
fn step() {
    let (encoder, predictor) = small();
    let objective = Jepa::plain(encoder, predictor, 2, JepaLoss::default());
    check("step", &compile::step(&objective.into(), TrainOptions::default()).unwrap());
}
