use super::*;
use crate::interp::Array;
use crate::passes::{DeadCode, Pipeline};
use crate::testing::{Rng, assert_close, random_sources, roots_of, with_gradients};
use crate::text::parse;
use std::collections::BTreeMap;

/// A context and what it predicts, as the predictor has them: two lists, one attention, a mean and a variance.
const TEXT: &str = "graph g[B, N, M]
  input x: f32[B, 9, 8]
  input keep: i32[B, N]
  input want: i32[B, M]
  param qkv: f32[24, 8]
  param w: f32[8]
  param b: f32[8]
  %0: f32[B, N, 8] = gather_tokens(x, keep)
  %1: f32[B, M, 8] = gather_tokens(x, want)
  %2: f32[B, M, 8] = add(%1, w)
  %3: f32[B, M + N, 8] = concat(%0, %2) {axis: 1}
  %4: f32[B, M + N, 8] = layer_norm(%3, w, b) {eps: 1e-6}
  %5: f32[B, M + N, 24] = linear(%4, qkv)
  %6: f32[B, M + N, 6, 4] = reshape(%5) {shape: [B, M + N, 6, 4]}
  %7: f32[B, M + N, 2, 4] = slice(%6) {axis: 2, start: 0, end: 2}
  %8: f32[B, 2, M + N, 4] = permute(%7) {axes: [0, 2, 1, 3]}
  %9: f32[B, M + N, 2, 4] = slice(%6) {axis: 2, start: 2, end: 4}
  %10: f32[B, 2, M + N, 4] = permute(%9) {axes: [0, 2, 1, 3]}
  %11: f32[B, M + N, 2, 4] = slice(%6) {axis: 2, start: 4, end: 6}
  %12: f32[B, 2, M + N, 4] = permute(%11) {axes: [0, 2, 1, 3]}
  %13: f32[B, 2, M + N, 4] = attention(%8, %10, %12) {scale: 0.5}
  %14: f32[B, M + N, 2, 4] = permute(%13) {axes: [0, 2, 1, 3]}
  %15: f32[B, M + N, 8] = reshape(%14) {shape: [B, M + N, 8]}
  %16: f32[B, M, 8] = slice(%15) {axis: 1, start: N, end: M + N}
  %17: f32[B, M, 8] = sub(%16, %1)
  %18: f32[B, M, 8] = mul(%17, %17)
  %19: f32[B, M, 1] = mean(%18) {axes: [2]}
  %20: f32[1, 1, 1] = mean(%19) {axes: [0, 1, 2]}
  %21: f32[B, 1, 8] = mean(%16) {axes: [1]}
  %22: f32[B, M, 8] = sub(%16, %21)
  %23: f32[B, M, 8] = mul(%22, %22)
  %24: f32[B, 1, 8] = sum(%23) {axes: [1]}
  %25: f32[B, 1, 8] = mul_scalar(%24) {c: 1.0/(M - 1)}
  %26: f32[1, 1, 1] = mean(%25) {axes: [0, 1, 2]}
  %27: f32[1, 1, 1] = add(%20, %26)
  %28: f32[] = reshape(%27) {shape: []}
  output loss = %28
";

fn pass() -> PadTokens {
    PadTokens { indices: ["keep", "want"].map(str::to_owned).to_vec(), multiple: 3 }
}

fn list(rows: &[&[f64]]) -> Array {
    Array { shape: vec![rows.len(), rows[0].len()], data: rows.concat() }
}

/// With rotary positions: a token that is the same for all targets, turned by the angles of its position, and a loss on the
/// context that weighs its tokens.
fn rotary() -> String {
    let mut text = TEXT
        .replace(
            "  param b:",
            "  input table: f32[1, 9, 8]\n  input weights: f32[B, N]\n  param token: f32[1, 1, 8]\n  param b:",
        )
        .replace("add(%1, w)", "broadcast(token) {shape: [B, M, 8]}")
        .replace("attention(%8, %10, %12)", "attention(%q, %k, %12)")
        .replace("  %28: f32[] = reshape(%27)", "  %all: f32[1, 1, 1] = add(%27, %near)\n  %28: f32[] = reshape(%all)");
    for (place, lines) in [
        (
            "  %13:",
            "  %first: f32[B, N, 8] = gather_tokens(table, keep)
  %second: f32[B, M, 8] = gather_tokens(table, want)
  %angles: f32[B, M + N, 8] = concat(%first, %second) {axis: 1}
  %q: f32[B, 2, M + N, 4] = rotate(%8, %angles) {transposed: false}
  %k: f32[B, 2, M + N, 4] = rotate(%10, %angles) {transposed: false}
",
        ),
        (
            "  %all:",
            "  %context: f32[B, N, 8] = slice(%15) {axis: 1, start: 0, end: N}
  %off: f32[B, N, 8] = sub(%context, %0)
  %squared: f32[B, N, 8] = mul(%off, %off)
  %each: f32[B, N, 1] = mean(%squared) {axes: [2]}
  %column: f32[B, N, 1] = reshape(weights) {shape: [B, N, 1]}
  %weighed: f32[B, N, 1] = mul(%each, %column)
  %near: f32[1, 1, 1] = mean(%weighed) {axes: [0, 1, 2]}
",
        ),
    ] {
        text = text.replace(place, &format!("{lines}{place}"));
    }
    text
}

#[test]
fn padding_changes_neither_the_loss_nor_a_gradient() {
    for (text, wrt) in [(TEXT.to_owned(), ["qkv", "w", "b"]), (rotary(), ["qkv", "token", "b"])] {
        check(&text, &wrt);
    }
}

/// Compares a graph with its padded form, with lists as they are and with longer ones.
fn check(text: &str, wrt: &[&str]) {
    let graph = parse(text).unwrap();
    let padded = pass().run(&graph).unwrap().unwrap().graph;
    let sizes = |n: usize, m: usize| BTreeMap::from([("B".into(), 2), ("N".into(), n), ("M".into(), m)]);
    let mut sources = random_sources(&graph, &sizes(3, 2), &mut Rng(5));
    sources.insert("keep".to_owned(), list(&[&[0.0, 4.0, 7.0], &[1.0, 2.0, 8.0]]));
    sources.insert("want".to_owned(), list(&[&[3.0, 5.0], &[6.0, 0.0]]));
    let plain = Pipeline::standard().run(&with_gradients(graph, wrt)).unwrap().graph;
    let expected = roots_of(&plain, &sizes(3, 2), &sources);
    let whole = Pipeline::standard().run(&with_gradients(padded, wrt)).unwrap().graph;
    let real =
        |n: usize, all: usize| Array { shape: vec![all], data: (0..all).map(|i| f64::from(u8::from(i < n))).collect() };
    // The same as they are, and with three and two more.
    for (more, keep, want) in [
        (0, sources["keep"].clone(), sources["want"].clone()),
        (
            3,
            list(&[&[0.0, 4.0, 7.0, 0.0, 0.0, 2.0], &[1.0, 2.0, 8.0, 1.0, 0.0, 0.0]]),
            list(&[&[3.0, 5.0, 0.0, 0.0, 8.0], &[6.0, 0.0, 0.0, 1.0, 0.0]]),
        ),
    ] {
        let mut sources = sources.clone();
        sources.insert("keep".to_owned(), keep);
        sources.insert("want".to_owned(), want);
        sources.insert("real/3/keep".to_owned(), real(3, 3 + more));
        sources.insert("real/3/want".to_owned(), real(2, 2 + more));
        if let Some(weights) = sources.get_mut("weights") {
            let rows = weights.data.chunks(3).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.5, more)));
            *weights = Array { shape: vec![2, 3 + more], data: rows.collect() };
        }
        assert_close(&expected, &roots_of(&whole, &sizes(3 + more, 2 + more), &sources), 1e-6);
    }
}

#[test]
fn what_cannot_be_masked_is_named() {
    let text = TEXT.replace("output loss = %28", "output loss = %28\n  output rows = %16");
    let error = pass().run(&parse(&text).unwrap()).unwrap_err().to_string();
    assert!(error.contains("the output `rows` has a row for each token"), "{error}");
    let text = TEXT.replace("mean(%18) {axes: [2]}", "reduce_max(%18) {axes: [2]}");
    let error = pass().run(&parse(&text).unwrap()).unwrap_err().to_string();
    assert!(error.contains("(reduce_max) cannot be computed from lists of tokens with padding"), "{error}");
    // Sizes in values, and axes of more than one list.
    let padded_input = TEXT.replace("input keep:", "input both: f32[B, M + N]\n  input keep:");
    let error = pass().run(&parse(&padded_input).unwrap()).unwrap_err().to_string();
    assert!(error.contains("the input `both` has an axis for tokens of several lists"), "{error}");
    let text = rotary().replace("broadcast(token) {shape: [B, M, 8]}", "full() {value: 1.0/(M), ty: f32[B, M, 8]}");
    let error = pass().run(&parse(&text).unwrap()).unwrap_err().to_string();
    assert!(error.contains("(full) cannot be computed from lists of tokens with padding"), "{error}");
    let unknown = PadTokens { indices: vec!["x".to_owned()], multiple: 3 };
    assert!(unknown.run(&parse(TEXT).unwrap()).is_err());
}

#[test]
fn without_lists_nothing_changes() {
    let none = PadTokens { indices: Vec::new(), multiple: 3 };
    let graph = DeadCode.run(&parse(TEXT).unwrap()).unwrap().map_or(parse(TEXT).unwrap(), |changed| changed.graph);
    assert!(none.run(&graph).unwrap().is_none());
}
