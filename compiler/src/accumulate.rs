//! Gradients added up over runs: where a step's batch is more than one run takes, or is shared with other processes.
//!
//! The graph that computes gradients then keeps their sums as parameters of its own, and a second graph reads them there
//! (see [`TrainSpec::shared`](crate::optimizer::TrainSpec)). Between processes the sums are added by
//! [`ReduceSums`](crate::passes::ReduceSums). An addition stands right after its gradient and is written over the
//! old sum, so that one set of sums is all the memory it takes.

use crate::ir::{Def, Graph, GraphError, NodeId, ValueId};

/// What the sum of a parameter's gradients is called, before the parameter's name.
pub const SUM: &str = "grad/";

/// Appends, for every `(parameter, its gradient)`, a parameter `grad/<name>` that becomes itself plus the gradient. Whoever
/// runs the graph sets them to zero before the first run of a step.
///
/// # Errors
/// [`GraphError`] when a name is taken, a gradient does not fit its parameter, or what it belongs to is no parameter.
pub fn append_sums(graph: &mut Graph, gradients: &[(ValueId, ValueId)]) -> Result<(), GraphError> {
    let before = graph.nodes.len();
    for (param, gradient) in gradients {
        let name = match graph.values.get(param.0).map(|value| &value.def) {
            Some(Def::Param(name)) => format!("{SUM}{name}"),
            Some(_) => return Err(GraphError::Other(format!("%{} has a gradient but is not a parameter", param.0))),
            None => return Err(GraphError::UnknownValue(param.0)),
        };
        let sum = graph.param(&name, graph.ty(*param).clone())?;
        let new = graph.add(sum, *gradient)?;
        graph.update(sum, new)?;
    }
    advance(graph, before);
    Ok(())
}

/// Moves the nodes from position `first` on, additions to a parameter, each to right after the node of its other operand: at
/// the end of the graph they would keep all gradients, and what those are computed from, until then.
fn advance(graph: &mut Graph, first: usize) {
    let mut follow: Vec<Vec<usize>> = vec![Vec::new(); first];
    let mut order = Vec::with_capacity(graph.nodes.len());
    for at in first..graph.nodes.len() {
        let producers = graph.nodes[at].inputs.iter().filter_map(|id| match graph.value(*id).def {
            Def::Node { node, .. } => Some(node.0),
            Def::Input(_) | Def::Param(_) => None,
        });
        match producers.max().and_then(|producer| follow.get_mut(producer)) {
            Some(behind) => behind.push(at),
            None => order.push(at),
        }
    }
    for (at, behind) in follow.into_iter().enumerate() {
        order.push(at);
        order.extend(behind);
    }
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
    graph.nodes = order.iter().map(|old| graph.nodes[*old].clone()).collect();
    for value in &mut graph.values {
        if let Def::Node { node, .. } = &mut value.def {
            *node = NodeId(place[node.0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::differentiate;
    use crate::interp::{Tensor, run};
    use crate::ir::{Dim, Sizes, TensorType};
    use crate::passes::Pipeline;
    use crate::plan::Plan;
    use std::collections::BTreeMap;

    /// `mean((x · w)²)` over `x f32[B, 2]`, with the sum of `w`'s gradients.
    fn graph() -> Graph {
        let mut g = Graph::new("gradients", &["B"]);
        let x = g.input("x", TensorType::f32([Dim::symbol("B"), Dim::from(2usize)])).unwrap();
        let w = g.param("w", TensorType::f32([Dim::from(2usize), Dim::from(2usize)])).unwrap();
        let y = g.matmul(x, w, false, false).unwrap();
        let square = g.mul(y, y).unwrap();
        let loss = g.mean(square, &[0, 1]).unwrap();
        g.output("loss", loss);
        let gradients = differentiate(&mut g, loss, &[w]).unwrap();
        append_sums(&mut g, &[(w, gradients[0])]).unwrap();
        g
    }

    #[test]
    fn runs_add_up_and_the_product_is_written_over_the_sum() {
        let optimised = Pipeline::training("loss", None, false).run(&graph()).unwrap().graph;
        let plan = Plan::new(&optimised).unwrap();
        plan.check(&optimised).unwrap();
        let sum = optimised.find("grad/w").unwrap();
        let step = plan.steps.iter().find(|step| optimised.nodes[step.node.0].inputs.contains(&sum)).unwrap();
        assert_eq!(optimised.nodes[step.node.0].op.name(), "matmul");
        assert_eq!(step.in_place, [(2, 0)]);

        let sizes = Sizes::from([("B".to_owned(), 1)]);
        let mut sources: BTreeMap<String, Tensor> = BTreeMap::from([
            ("w".to_owned(), Tensor::f32([2, 2], vec![1.0, 2.0, 3.0, 4.0])),
            ("grad/w".to_owned(), Tensor::f32([2, 2], vec![0.0; 4])),
        ]);
        let mut alone = vec![0.0; 4];
        for x in [[1.0, 0.0], [0.5, -2.0]] {
            sources.insert("x".to_owned(), Tensor::f32([1, 2], x.to_vec()));
            let mut fresh = sources.clone();
            fresh.insert("grad/w".to_owned(), Tensor::f32([2, 2], vec![0.0; 4]));
            let one = run(&optimised, &sizes, &fresh).unwrap();
            alone.iter_mut().zip(one.updates["grad/w"].as_f32().unwrap()).for_each(|(sum, one)| *sum += one);
            let both = run(&optimised, &sizes, &sources).unwrap();
            sources.insert("grad/w".to_owned(), both.updates["grad/w"].clone());
        }
        assert_eq!(sources["grad/w"].as_f32().unwrap(), alone);
    }

    #[test]
    fn sums_over_ranks_are_written_over_the_sums() {
        for overlap in [true, false] {
            let optimised = Pipeline::training("loss", None, false).run(&graph()).unwrap().graph;
            let optimised = Pipeline::ranks(16, overlap).run(&optimised).unwrap().graph;
            let plan = Plan::new(&optimised).unwrap();
            plan.check(&optimised).unwrap();
            let over = |name: &str| {
                let step = plan.steps.iter().rfind(|step| optimised.nodes[step.node.0].op.name() == name);
                step.map(|step| step.in_place.clone())
            };
            assert_eq!(over("matmul"), Some(vec![(2, 0)]));
            let steps = if overlap { &["all_reduce_start", "all_reduce_done"][..] } else { &["all_reduce"] };
            assert!(steps.iter().all(|name| over(name) == Some(vec![(0, 0)])), "{}", crate::text::print(&optimised));
            let sizes = Sizes::from([("B".to_owned(), 1)]);
            let before = Plan::new(&graph()).unwrap().memory(&graph(), &sizes).unwrap().peak;
            assert!(plan.memory(&optimised, &sizes).unwrap().peak <= before);
        }
    }

    #[test]
    fn sums_are_taken_while_the_backward_part_runs() {
        // Two layers: the second one's gradient is added before the first one's is computed.
        let mut g = Graph::new("gradients", &[]);
        let four = || TensorType::f32([Dim::from(2usize), Dim::from(2usize)]);
        let x = g.input("x", four()).unwrap();
        let [a, b] = ["a", "b"].map(|name| g.param(name, four()).unwrap());
        let hidden = g.matmul(x, a, false, false).unwrap();
        let y = g.matmul(hidden, b, false, false).unwrap();
        let loss = g.mean(y, &[0, 1]).unwrap();
        g.output("loss", loss);
        let gradients = differentiate(&mut g, loss, &[a, b]).unwrap();
        append_sums(&mut g, &[(a, gradients[0]), (b, gradients[1])]).unwrap();
        let optimised = Pipeline::training("loss", None, false).run(&g).unwrap().graph;
        let plan = Plan::new(&optimised).unwrap();
        let at = |name: &str| {
            let sum = optimised.find(name).unwrap();
            plan.steps.iter().position(|step| optimised.nodes[step.node.0].inputs.contains(&sum)).unwrap()
        };
        assert!(at("grad/b") < at("grad/a"), "{}", crate::text::print(&optimised));
    }

    #[test]
    fn what_is_no_parameter_has_no_sum() {
        let mut g = Graph::new("g", &[]);
        let x = g.input("x", TensorType::f32([])).unwrap();
        assert!(append_sums(&mut g, &[(x, x)]).is_err());
        assert!(append_sums(&mut g, &[(ValueId(9), x)]).is_err());
    }
}
