//! Graphs on standard output or in a file: text, report, plan, passes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::plan::{Estimate, OpTotals, Plan, Report, Share};

use super::{Args, CliError};
use crate::cli::fit::Remedies;
use crate::table::aligned;
use vjepa_programs::{Passes, Shapes, Stage};
use vjepa_runtime::{peak_memory, write_atomically};

/// The graph as text that parses back.
pub(super) fn text(args: &Args, graph: &Graph) -> Result<(), CliError> {
    let text = vjepa_compiler::text::print(graph);
    match &args.out {
        Some(out) => {
            write(out, text.as_bytes())?;
            say(args, out, json!({"graph": graph.name, "nodes": graph.nodes.len(), "bytes": text.len()}))
        }
        None if args.json => {
            println!("{}", json!({"graph": graph.name, "nodes": graph.nodes.len(), "ir": text}));
            Ok(())
        }
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// Operations, arithmetic, traffic, memory.
pub(super) fn report(
    args: &Args,
    graph: &Graph,
    (sizes, largest): (&Sizes, &Sizes),
    shapes: Option<&Shapes>,
    fit: &dyn Fn(u64) -> Result<Remedies, CliError>,
) -> Result<(), CliError> {
    let plan = Plan::new(graph)?;
    let report = Report::new(graph, &plan, sizes)?;
    let most = plan.memory(graph, largest)?.peak;
    let operations: Vec<_> = report
        .by_op
        .iter()
        .map(|(op, totals)| json!({"op": op, "count": totals.count, "flops": totals.flops, "bytes": totals.bytes}))
        .collect();
    let estimate = args.estimate.map(|on| Estimate::new(graph, sizes, &report, on)).transpose()?;
    let estimate = estimate.map(|estimate| Estimate { memory: most, ..estimate });
    let remedies = match estimate.as_ref().filter(|estimate| !estimate.fits()) {
        Some(estimate) => Some(fit(estimate.on.memory)?),
        None => None,
    };
    let json = json!({
        "graph": report.graph, "sizes": sizes, "nodes": report.total.count, "flops": report.total.flops,
        "bytes": report.total.bytes, "parameters": report.parameters, "parameter_bytes": report.memory.parameters,
        "peak_memory": report.memory.peak, "largest_peak_memory": most, "operations": operations,
        "estimate": estimate.as_ref().map(estimated), "fits_with": remedies.map(Remedies::json),
        "shapes": shapes.map(|shapes| json!({
            "steps": shapes.steps, "drawn": shapes.drawn, "padded": shapes.padded, "flops_drawn": shapes.flops,
            "flops_padded": shapes.padded_flops,
        })),
    });
    let mut text = format!("{}: {}\n{report}", report.graph, bound(sizes));
    if most != report.memory.peak {
        text += &format!("peak memory with the largest masks {:.2} GB\n", most as f64 / 1e9);
    }
    if let Some(estimate) = &estimate {
        text += &format!("\n{estimate}");
    }
    if let Some(remedies) = remedies {
        text += &format!("            {remedies}\n");
    }
    if let Some(Shapes { steps, drawn, padded, flops, padded_flops }) = shapes {
        let more = (padded_flops / flops - 1.0) * 100.0;
        text += &format!(
            "\n{steps} steps have {drawn} different shapes, {padded} with padding, which takes {more:.1} % more arithmetic\n"
        );
    }
    document(args, &report.graph, &text, &json)
}

/// An estimate as JSON, times in milliseconds.
fn estimated(estimate: &Estimate) -> Value {
    let share = |share: &Share| {
        json!({
            "launches": share.launches, "arithmetic_ms": share.arithmetic * 1e3, "memory_ms": share.traffic * 1e3,
            "ms": share.total * 1e3,
        })
    };
    let operations: serde_json::Map<_, _> =
        estimate.by_op.iter().map(|(op, of)| ((*op).to_owned(), share(of))).collect();
    json!({
        "accelerator": estimate.on.name, "measured": false, "total": share(&estimate.total), "operations": operations,
        "peak_memory": estimate.memory, "memory": estimate.on.memory, "fits": estimate.fits(),
    })
}

/// The plan, step by step, and which operations kernels of ours run.
pub(super) fn plan(
    args: &Args,
    graph: &Graph,
    (plan, by_kernel): (&Plan, &[bool]),
    sizes: &Sizes,
) -> Result<(), CliError> {
    let (mut text, memory) = (plan.text(graph, sizes)?, plan.memory(graph, sizes)?);
    for (who, ours) in [("our kernels", true), ("the library's operations", false)] {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (node, _) in graph.nodes.iter().zip(by_kernel).filter(|(_, by)| **by == ours) {
            *counts.entry(node.op.name()).or_default() += 1;
        }
        let list: Vec<String> = counts.iter().map(|(op, count)| format!("{count} {op}")).collect();
        text += &format!("by {who}: {}\n", if list.is_empty() { "none".to_owned() } else { list.join(", ") });
    }
    let live = plan.live(graph, sizes)?;
    let step = |(step, live): (&vjepa_compiler::plan::Step, u64)| {
        let node = graph.nodes.get(step.node.0);
        json!({
            "node": step.node.0, "op": node.map(|node| node.op.name()), "in_place": step.in_place,
            "our_kernel": by_kernel.get(step.node.0),
            "frees": step.frees.iter().map(|id| id.0).collect::<Vec<_>>(), "bytes_held": live,
        })
    };
    let json = json!({
        "graph": graph.name, "sizes": sizes, "parameter_bytes": memory.parameters, "peak_memory": memory.peak,
        "steps": plan.steps.iter().zip(live).map(step).collect::<Vec<_>>(),
    });
    document(args, &graph.name, &text, &json)
}

/// Time and changes of every pass, and this process's memory.
pub(super) fn passes(args: &Args, graph: &str, passes: &Passes, sizes: &Sizes) -> Result<(), CliError> {
    let total: f64 = passes.stages.iter().map(|stage| stage.time.as_secs_f64() * 1e3).sum();
    let peak = peak_memory();
    let mut rows: Vec<Vec<String>> = passes.stages.iter().map(row).collect();
    rows.push(vec!["total".to_owned(), format!("{total:.2}")]);
    let table = aligned(&["stage", "ms", "nodes", "changes", "GFLOP", "GB moved"], rows);
    let mut text = format!("{graph}: {}\n{table}", bound(sizes));
    if let Some(peak) = peak {
        text += &format!("peak memory of this process {:.1} MB\n", peak as f64 / 1e6);
    }
    let totals = |totals: &OpTotals| json!({"flops": totals.flops, "bytes": totals.bytes});
    let stages: Vec<Value> = passes
        .stages
        .iter()
        .map(|stage| {
            json!({
                "name": stage.name, "ms": stage.time.as_secs_f64() * 1e3, "nodes": stage.nodes,
                "changes": stage.changes, "cost": stage.cost.as_ref().map(|cost| cost.each_ref().map(totals)),
            })
        })
        .collect();
    let json = json!({"graph": graph, "sizes": sizes, "stages": stages, "ms": total, "peak_process_memory": peak});
    document(args, graph, &text, &json)
}

fn row(stage: &Stage) -> Vec<String> {
    let arrow = |[from, to]: [String; 2]| if from == to { to } else { format!("{from} -> {to}") };
    let cost = |unit: fn(&OpTotals) -> u64| {
        let billions = |cost: &OpTotals| format!("{:.1}", unit(cost) as f64 / 1e9);
        stage.cost.as_ref().map_or("-".to_owned(), |cost| arrow(cost.each_ref().map(billions)))
    };
    vec![
        stage.name.to_string(),
        format!("{:.2}", stage.time.as_secs_f64() * 1e3),
        arrow(stage.nodes.map(|nodes| nodes.to_string())),
        stage.changes.to_string(),
        cost(|totals| totals.flops),
        cost(|totals| totals.bytes),
    ]
}

fn bound(sizes: &Sizes) -> String {
    sizes.iter().map(|(symbol, size)| format!("{symbol} = {size}")).collect::<Vec<_>>().join(", ")
}

/// Text for people or JSON for machines, to a file or to standard output.
fn document(args: &Args, graph: &str, text: &str, json: &Value) -> Result<(), CliError> {
    match &args.out {
        Some(out) => {
            let pretty = serde_json::to_vec_pretty(json)?;
            write(out, if args.json { &pretty } else { text.as_bytes() })?;
            say(args, out, json!({"graph": graph}))
        }
        None => {
            if args.json {
                println!("{json}");
            } else {
                print!("{text}");
            }
            Ok(())
        }
    }
}

fn write(out: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    write_atomically(out, |file| file.write_all(bytes))
        .map_err(|error| format!("cannot write {}: {error}", out.display()).into())
}

/// Reports that a file was written.
pub(super) fn say(args: &Args, out: &Path, mut about: Value) -> Result<(), CliError> {
    if args.json {
        about["out"] = serde_json::to_value(out)?;
        println!("{about}");
    } else {
        println!("wrote {}", out.display());
    }
    Ok(())
}
