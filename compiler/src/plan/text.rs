//! A plan as text: each step with its shapes, what is overwritten and freed, and the memory held.

use super::{Plan, PlanError, Step};
use crate::ir::{Graph, Sizes, ValueId};
use crate::text::Names;
use std::fmt::Write;

impl Plan {
    /// One line per step under `sizes`: position, memory held while it runs, operation, result and operands with their
    /// shapes, `over` what a result is written and `frees` what is dropped. The first line that holds the most is marked.
    ///
    /// # Errors
    /// [`PlanError::Size`] when a symbol has no size.
    pub fn text(&self, graph: &Graph, sizes: &Sizes) -> Result<String, PlanError> {
        let (memory, live) = (self.memory(graph, sizes)?, self.live(graph, sizes)?);
        let bound: Vec<String> = sizes.iter().map(|(symbol, size)| format!("{symbol} = {size}")).collect();
        let mut text = format!("plan of {}: {} steps; {}\n", graph.name, self.steps.len(), bound.join(", "));
        let (parameters, peak) = (memory.parameters as f64 / 1e6, memory.peak as f64 / 1e6);
        let _ = writeln!(text, "parameters {parameters:.3} MB, peak {peak:.3} MB");
        let _ = writeln!(text, "{:>6} {:>12}", "step", "MB held");
        let names = Names::new(graph);
        let mut marked = false;
        for (time, (step, held)) in self.steps.iter().zip(&live).enumerate() {
            let peak = !marked && *held == memory.peak;
            marked |= peak;
            let megabytes = *held as f64 / 1e6;
            let line = describe(graph, &names, step, sizes)?;
            let _ = writeln!(text, "{time:>6} {megabytes:>12.3} {} {line}", if peak { "<- peak" } else { "       " });
        }
        Ok(text)
    }
}

/// `%7 f32[2, 8] = add(%5 f32[2, 8], %6 f32[8])  %7 over %5  frees %5 %6`.
fn describe(graph: &Graph, names: &Names<'_>, step: &Step, sizes: &Sizes) -> Result<String, PlanError> {
    let Some(node) = graph.nodes.get(step.node.0) else { return Ok(String::new()) };
    let typed = |ids: &[ValueId]| -> Result<String, PlanError> {
        let all = ids.iter().map(|id| {
            let ty = graph.ty(*id);
            let sized = ty.sized(sizes).ok_or_else(|| PlanError::Size(ty.to_string()))?;
            Ok(format!("{} {sized}", names.of(*id)))
        });
        Ok(all.collect::<Result<Vec<_>, PlanError>>()?.join(", "))
    };
    let mut line = format!("{} = {}({})", typed(&node.outputs)?, node.op.name(), typed(&node.inputs)?);
    for (operand, result) in &step.in_place {
        if let (Some(x), Some(y)) = (node.inputs.get(*operand), node.outputs.get(*result)) {
            let _ = write!(line, "  {} over {}", names.of(*y), names.of(*x));
        }
    }
    if !step.frees.is_empty() {
        let freed: Vec<String> = step.frees.iter().map(|id| names.of(*id)).collect();
        let _ = write!(line, "  frees {}", freed.join(" "));
    }
    Ok(line)
}
