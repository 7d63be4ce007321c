use super::*;
use crate::ir::{Dim, Sizes, TensorType};
use crate::ops::Unary;
use crate::testing::{random_graph, ty};
use crate::text::parse;
use proptest::prelude::*;

/// `[16]` floats are 64 bytes.
fn chain() -> Graph {
    let mut g = Graph::new("chain", &[]);
    let x = g.input("x", ty("16")).unwrap();
    let a = g.unary(Unary::Exp, x).unwrap();
    let b = g.unary(Unary::Tanh, a).unwrap();
    let c = g.reshape(b, &[Dim::from(4usize), Dim::from(4usize)]).unwrap();
    let d = g.mul(c, c).unwrap();
    let e = g.add(d, c).unwrap();
    g.output("e", e);
    g
}

#[test]
fn values_are_freed_after_their_last_read_and_overwritten_then() {
    let graph = chain();
    let plan = Plan::new(&graph).unwrap();
    let frees: Vec<Vec<usize>> = plan.steps.iter().map(|step| step.frees.iter().map(|id| id.0).collect()).collect();
    assert_eq!(frees, [vec![0], vec![1], vec![2], vec![], vec![3, 4]]);
    let in_place: Vec<bool> = plan.steps.iter().map(|step| !step.in_place.is_empty()).collect();
    // Not the caller's `x`; not `c`, which is read again.
    assert_eq!(in_place, [false, true, false, false, true]);
    let memory = plan.memory(&graph, &Sizes::new()).unwrap();
    assert_eq!((memory.parameters, memory.peak), (0, 128));
}

#[test]
fn parameters_step_early_and_in_place() {
    let text = "\
graph step[]
  input x: f32[8, 8]
  input rate: f32[]
  param a: f32[8, 8]
  param b: f32[8, 8]
  %0: f32[8, 8] = matmul(x, a) {ta: false, tb: false}
  %1: f32[8, 8] = matmul(%0, b) {ta: false, tb: false}
  %2: f32[8, 8] = matmul(%1, %0) {ta: false, tb: false}
  %3: f32[8, 8] = matmul(%1, b) {ta: false, tb: false}
  %4: f32[8, 8] = matmul(%3, x) {ta: false, tb: false}
  %5: f32[8, 8] = ema(a, %4, rate)
  %6: f32[8, 8] = ema(b, %2, rate)
  update a = %5
  update b = %6
";
    let graph = parse(text).unwrap();
    let plan = Plan::new(&graph).unwrap();
    let order: Vec<usize> = plan.steps.iter().map(|step| step.node.0).collect();
    assert_eq!(order, [0, 1, 2, 3, 6, 4, 5]);
    assert!(plan.steps.iter().filter(|step| step.node.0 >= 5).all(|step| step.in_place == [(0, 0)]));
}

/// Of every parameter the value, its moments and its average, after the rates; not the gradient.
#[test]
fn all_parameters_of_a_step_are_written_in_place() {
    for average in [false, true] {
        let mut graph = Graph::new("step", &[]);
        let rates: Vec<_> = ["lr", "wd", "c1", "c2", "clip", "momentum"][..if average { 6 } else { 5 }].into();
        let mut operands: Vec<_> = rates.iter().map(|name| graph.input(name, ty("")).unwrap()).collect();
        let mut kept = Vec::new();
        for i in 0..3 {
            for name in ["p", "g", "m", "v", "target"].into_iter().take(if average { 5 } else { 4 }) {
                let name = format!("{name}{i}");
                let gradient = name.starts_with('g');
                let x = if gradient { graph.input(&name, ty("3")) } else { graph.param(&name, ty("3")) }.unwrap();
                if !gradient {
                    kept.push((operands.len(), x));
                }
                operands.push(x);
            }
        }
        let op = Op::AdamWAll { beta1: 0.9, beta2: 0.99, eps: 1e-8, average };
        let results = graph.push(op, &operands).unwrap();
        assert_eq!(results.len(), kept.len());
        for ((_, param), new) in kept.iter().zip(&results) {
            graph.update(*param, *new).unwrap();
        }
        let plan = Plan::new(&graph).unwrap();
        let expected: Vec<_> = kept.iter().enumerate().map(|(result, (operand, _))| (*operand, result)).collect();
        assert_eq!(plan.steps[0].in_place, expected);
    }
}

#[test]
fn the_report_counts() {
    let mut graph = Graph::new("linear", &["B"]);
    let x = graph.input("x", ty("B 16")).unwrap();
    let w = graph.param("w", ty("4 16")).unwrap();
    let y = graph.push1(Op::Linear, &[x, w]).unwrap();
    graph.output("y", y);
    let plan = Plan::new(&graph).unwrap();
    let report = Report::new(&graph, &plan, &Sizes::from([("B".into(), 2)])).unwrap();
    assert_eq!(report.total, OpTotals { count: 1, flops: 2 * 2 * 16 * 4, bytes: 4 * (32 + 64 + 8) });
    assert_eq!((report.parameters, report.memory.parameters, report.memory.peak), (64, 256, 256 + 128 + 32));
    assert!(report.to_string().contains("peak memory 0.0 MB"));
    // The table's lines end below each other, however long a name is.
    let long = Report { graph: "a_graph_of_a_long_name".to_owned(), ..report.clone() }.to_string();
    let lengths: Vec<usize> = long.lines().take(3).map(str::len).collect();
    assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{long}");
    assert_eq!(Report::new(&graph, &plan, &Sizes::new()), Err(PlanError::Size("128*B".into())));
}

/// Walks the plan as an executor does and fails where it reads what was freed or overwritten.
fn walk(graph: &Graph, plan: &Plan) {
    let mut there: Vec<bool> = graph.values.iter().map(|value| !matches!(value.def, Def::Node { .. })).collect();
    for step in &plan.steps {
        let node = &graph.nodes[step.node.0];
        assert!(node.inputs.iter().all(|id| there[id.0]), "{} reads what is gone", node.op.name());
        for (operand, _) in &step.in_place {
            there[node.inputs[*operand].0] = false;
        }
        node.outputs.iter().for_each(|id| there[id.0] = true);
        step.frees.iter().for_each(|id| there[id.0] = false);
    }
    assert!(graph.roots().all(|id| there[id.0] || matches!(graph.value(id).def, Def::Param(_))));
    assert_eq!(plan.steps.len(), graph.nodes.len());
}

proptest! {
    #[test]
    fn random_plans_can_be_walked(seed in any::<u64>()) {
        let case = random_graph(seed);
        let plan = Plan::new(&case.graph).unwrap();
        walk(&case.graph, &plan);
        prop_assert_eq!(plan.check(&case.graph), Ok(()));
        let memory = plan.memory(&case.graph, &case.sizes).unwrap();
        let everything: usize = case.graph.values.iter().map(|v| bytes_of(&v.ty, &case.sizes)).sum();
        prop_assert!(memory.peak <= everything as u64);
    }
}

#[test]
fn plans_that_do_not_run_their_graph_are_told() {
    let graph = chain();
    let plan = Plan::new(&graph).unwrap();
    let why = |change: &dyn Fn(&mut Vec<Step>)| {
        let mut wrong = plan.clone();
        change(&mut wrong.steps);
        wrong.check(&graph).unwrap_err().to_string()
    };
    assert_eq!(why(&|steps| steps.swap(0, 1)), "step 0 of the plan: reads value 1, which is not there");
    assert_eq!(why(&|steps| steps[1].node = NodeId(0)), "step 1 of the plan: node 0 runs twice or does not exist");
    assert_eq!(why(&|steps| steps.truncate(4)), "step 4 of the plan: node 4 never runs");
    let needed = "step 3 of the plan: frees value 3, which is not there or still needed";
    assert_eq!(why(&|steps| steps[3].frees.push(ValueId(3))), needed);
    assert!(why(&|steps| steps[4].frees.push(ValueId(5))).contains("frees value 5"));
    assert!(why(&|steps| steps[4].frees.push(ValueId(99))).contains("frees value 99"));
    assert_eq!(why(&|steps| steps[1].frees.clear()), "step 1 of the plan: overwrites value 1 without freeing it");
    assert_eq!(why(&|steps| steps[4].frees = vec![ValueId(4)]), "step 5 of the plan: value 3 is never freed");
    assert!(why(&|steps| steps[0].in_place.push((0, 0))).contains("overwrites value 0, which is still needed"));
    assert!(why(&|steps| steps[3].in_place.push((0, 0))).contains("overwrites value 3, which is still needed"));
    assert_eq!(
        why(&|steps| steps[4].in_place.push((1, 0))),
        "step 4 of the plan: cannot write result 0 over operand 1"
    );
    assert!(why(&|steps| steps[2].in_place.push((0, 0))).contains("cannot write result 0 over operand 0"));
}

#[test]
fn the_text_shows_shapes_memory_and_what_happens_to_it() {
    let graph = chain();
    let text = Plan::new(&graph).unwrap().text(&graph, &Sizes::new()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3 + 5);
    assert!(lines[3].ends_with("<- peak %0 f32[16] = exp(x f32[16])  frees x"), "{text}");
    assert!(lines[4].ends_with("%1 f32[16] = tanh(%0 f32[16])  %1 over %0  frees %0"), "{text}");
    assert_eq!(text.matches("<- peak").count(), 1);
}

fn bytes_of(ty: &TensorType, sizes: &Sizes) -> usize {
    ty.elements().eval(sizes).unwrap() * ty.dtype.bytes()
}
