use super::*;
use crate::testing;
use proptest::prelude::*;

const PROBE: &str = "\
graph probe[B, N]
  input x: f32[B, N, 4]
  param w: f32[2, 4]
  param \"odd name\\n\": f32[2]
  %0: f32[B, N, 2] = linear(x, w, \"odd name\\n\")
  %1: f32[B, N, 2] = mul_scalar(%0) {c: -1e-6/(N - 1)}
  %2: f32[B*N, 2] = reshape(%1) {shape: [B*N, 2]}
  %3: f32[1, 2] = sum(%2) {axes: [0]}
  %4: f32[2, 4], %5: f32[4], %6: f32[4] = layer_norm_grad(w, w, g) {eps: 1e-6}
  output y = %3
  update w = %4
";

fn probe() -> String {
    PROBE.replace("  %0", "  param g: f32[4]\n  %0")
}

#[test]
fn what_is_printed_parses_to_the_same() {
    let graph = parse(&probe()).unwrap();
    assert_eq!(print(&graph), probe());
    assert_eq!(graph.canonical(), graph);
}

#[test]
fn named_values_keep_their_names_and_the_others_their_numbers() {
    let named = probe().replace("%1", "%scaled").replace("%4", "%block0.dx").replace("%2", "%1").replace("%3", "%2");
    let named = named.replace("%5", "%3").replace("%6", "%4");
    let graph = parse(&named).unwrap();
    assert_eq!(print(&graph), named);
    assert_eq!(graph.canonical(), graph);
    let message = |from: &str, to: &str| parse(&named.replacen(from, to, 1)).unwrap_err().to_string();
    assert_eq!(message("(%scaled)", "(%scale)"), "line 8, column 29: %scale is not defined above");
    assert_eq!(message("%0:", "%scaled:"), "line 7, column 38: %0 is not defined above");
    assert_eq!(
        message("%2: f32[1, 2]", "%scaled: f32[1, 2]"),
        "line 9, column 3: the name `%scaled` is used twice in the graph"
    );
    assert_eq!(message("%scaled:", "%1x:"), "line 7, column 3: expected a number or a name after `%`");
}

#[test]
fn errors_say_where_and_what() {
    let message = |from: &str, to: &str| parse(&probe().replacen(from, to, 1)).unwrap_err().to_string();
    assert_eq!(message("param w:", "param w"), "line 3, column 11: expected `:`, found `f32`");
    assert_eq!(
        message("[B, N, 4]", "[B, M, 4]"),
        "line 2, column 19: expected a size: a whole number or a declared symbol, found `M`"
    );
    assert_eq!(message("linear", "lineal"), "line 6, column 22: there is no operation `lineal`");
    assert_eq!(
        message("%1: f32[B, N, 2]", "%1: f32[B, N, 3]"),
        "line 7, column 3: mul_scalar gives f32[B, N, 2], not f32[B, N, 3]"
    );
    assert_eq!(message("(%2)", "(%7)"), "line 9, column 23: %7 is not defined above");
    assert_eq!(message("%3:", "%9:"), "line 9, column 3: expected `%3` or `%name`, found `%9`");
    assert_eq!(message("{axes", "{axis"), "line 9, column 28: expected the attribute `axes`, found `axis`");
    assert_eq!(message("update w", "update x"), "line 12, column 3: %0 is updated but is not a parameter");
    assert_eq!(message("graph", "graf"), "line 1, column 1: expected `graph NAME[SYMBOLS]`, found `graf`");
}

/// A seed whose first nodes were all of integers, which left the generator nothing to give out.
#[test]
fn a_graph_of_indices_gets_floats_too() {
    assert!(!testing::random_graph(17_744_884_793_643_662_712).graph.outputs.is_empty());
}

proptest! {
    #[test]
    fn random_graphs_round_trip(seed in any::<u64>(), every in 1usize..5) {
        let mut graph = testing::random_graph(seed).graph;
        let results: Vec<_> = graph.nodes.iter().flat_map(|node| node.outputs.clone()).collect();
        for id in results.into_iter().step_by(every) {
            graph.name_value(id, &format!("v{}", id.0)).unwrap();
        }
        let text = print(&graph);
        let parsed = parse(&text).unwrap();
        prop_assert_eq!(print(&parsed), text);
        prop_assert_eq!(parsed, graph.canonical());
    }

    #[test]
    fn any_name_round_trips(name in "\\PC{1,12}|[\\x00-\\x7f]{1,6}") {
        let mut graph = Graph::new("g", &[]);
        let x = graph.input(&name, crate::ir::TensorType::f32([])).unwrap();
        graph.output(&name, x);
        prop_assert_eq!(parse(&print(&graph)).unwrap(), graph);
    }

    #[test]
    fn mutated_text_never_panics(seed in any::<u64>(), edits in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let mut bytes = print(&testing::random_graph(seed).graph).into_bytes();
        for (place, byte) in edits {
            let place = usize::from(place) % bytes.len();
            match byte {
                0..64 => { bytes.remove(place); }
                _ => bytes[place] = byte,
            }
            if bytes.is_empty() { break; }
        }
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }
}
