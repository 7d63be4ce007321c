//! Profiles of a plan's runs: by operation as a table, by node as a trace for Chrome and Perfetto.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use vjepa_compiler::ir::{Graph, Node, Sizes, ValueId};
use vjepa_compiler::plan::{NodeCost, Plan};

/// Number of slowest groups by shape that are printed.
const TOP: usize = 12;

/// Time one node took in one run.
#[derive(Clone, Copy, Debug)]
pub struct NodeTime {
    /// Position in the graph's nodes.
    pub node: usize,
    /// When it began.
    pub began: Instant,
    /// Wall time.
    pub time: Duration,
}

/// One run of a plan.
#[derive(Clone, Debug)]
pub struct RunTimes {
    /// Sizes of the symbols.
    pub sizes: Sizes,
    /// Nodes in the order they ran.
    pub nodes: Vec<NodeTime>,
    began: Instant,
}

impl RunTimes {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { sizes, nodes: Vec::new(), began: Instant::now() }
    }

    pub(super) fn record(&mut self, node: usize, began: Instant) {
        self.nodes.push(NodeTime { node, began, time: began.elapsed() });
    }

    /// Wall time from the first node's begin to the last node's end.
    pub fn time(&self) -> Duration {
        self.nodes.last().map_or(Duration::ZERO, |last| last.began.duration_since(self.began) + last.time)
    }
}

/// All nodes of one operation, summed over the runs of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpTime {
    /// Nodes run.
    pub count: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Floating-point operations by the cost model; a multiply-add counts 2.
    pub flops: u64,
    /// Bytes by the cost model: every operand read and every result written once.
    pub bytes: u64,
}

impl OpTime {
    fn add(&mut self, time: Duration, cost: NodeCost) {
        self.count += 1;
        self.seconds += time.as_secs_f64();
        self.flops = self.flops.saturating_add(cost.flops);
        self.bytes = self.bytes.saturating_add(cost.bytes);
    }

    /// FLOP/s.
    pub fn flops_per_second(&self) -> f64 {
        self.flops as f64 / self.seconds.max(1e-9)
    }

    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }
}

/// Runs of a plan with the time of every node. Printed, it is a table of operations, the slowest first.
pub struct Profile<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    runs: Vec<RunTimes>,
}

impl<'a> Profile<'a> {
    pub(super) fn new(graph: &'a Graph, plan: &'a Plan, runs: Vec<RunTimes>) -> Self {
        Self { graph, plan, runs }
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[RunTimes] {
        &self.runs
    }

    /// Totals over all runs by operation, the slowest first.
    pub fn by_op(&self) -> Vec<(String, OpTime)> {
        self.by(|node, _| node.op.name().to_owned())
    }

    /// Totals over all runs by operation and shape of its first result, `linear f32[4, 196, 384]`, the slowest first.
    pub fn by_shape(&self) -> Vec<(String, OpTime)> {
        self.by(|node, sizes| {
            let first = node.outputs.get(..1).unwrap_or_default();
            format!("{} {}", node.op.name(), self.shapes(first, sizes).concat())
        })
    }

    fn by(&self, key: impl Fn(&Node, &Sizes) -> String) -> Vec<(String, OpTime)> {
        let mut kinds: BTreeMap<String, OpTime> = BTreeMap::new();
        for run in &self.runs {
            for timed in &run.nodes {
                let Some(node) = self.graph.nodes.get(timed.node) else { continue };
                kinds.entry(key(node, &run.sizes)).or_default().add(timed.time, self.cost(timed.node, &run.sizes));
            }
        }
        let mut list: Vec<_> = kinds.into_iter().collect();
        list.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
        list
    }

    fn shapes(&self, ids: &[ValueId], sizes: &Sizes) -> Vec<String> {
        ids.iter().filter_map(|id| self.graph.ty(*id).sized(sizes)).collect()
    }

    /// The cost model under the sizes of a run; a run has a size for every symbol.
    fn cost(&self, node: usize, sizes: &Sizes) -> NodeCost {
        let node = self.graph.nodes.get(node);
        node.and_then(|node| NodeCost::new(self.graph, node, sizes).ok()).unwrap_or(NodeCost { flops: 0, bytes: 0 })
    }

    /// Writes the trace event format that chrome://tracing and ui.perfetto.dev read: one event a node with its operation,
    /// shapes and cost, one event a run with its sizes around them, and the bytes the plan holds as a counter. Times are
    /// in microseconds from the first run's begin.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write_trace(&self, out: &mut dyn Write) -> io::Result<()> {
        let start = self.runs.first().map(|run| run.began);
        let micros = |at: Instant| start.map_or(0.0, |start| at.duration_since(start).as_secs_f64() * 1e6);
        let name = json!({"name": self.graph.name});
        writeln!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        write!(out, "{}", json!({"name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": name}))?;
        for (number, run) in self.runs.iter().enumerate() {
            let event = json!({
                "name": format!("run {number}"), "cat": "run", "ph": "X", "pid": 1, "tid": 1, "ts": micros(run.began),
                "dur": run.time().as_secs_f64() * 1e6, "args": run.sizes,
            });
            write!(out, ",\n{event}")?;
            let live = self.plan.live(self.graph, &run.sizes).unwrap_or_default();
            for (timed, held) in run.nodes.iter().zip(live) {
                let at = micros(timed.began);
                let counter = json!({"name": "bytes held", "ph": "C", "pid": 1, "ts": at, "args": {"bytes": held}});
                write!(out, ",\n{}\n,{counter}", self.event(timed, at, &run.sizes))?;
            }
        }
        writeln!(out, "\n]}}")
    }

    fn event(&self, timed: &NodeTime, at: f64, sizes: &Sizes) -> Value {
        let Some(node) = self.graph.nodes.get(timed.node) else { return Value::Null };
        let NodeCost { flops, bytes } = self.cost(timed.node, sizes);
        json!({
            "name": node.op.name(), "cat": "node", "ph": "X", "pid": 1, "tid": 1, "ts": at,
            "dur": timed.time.as_secs_f64() * 1e6,
            "args": {
                "node": timed.node, "operands": self.shapes(&node.inputs, sizes),
                "results": self.shapes(&node.outputs, sizes),
                "flops": flops, "bytes": bytes,
            },
        })
    }
}

impl fmt::Display for Profile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs.len().max(1) as f64;
        let by_op = self.by_op();
        let mut total = OpTime::default();
        for (_, op) in &by_op {
            total.count += op.count;
            total.seconds += op.seconds;
            total.flops = total.flops.saturating_add(op.flops);
            total.bytes = total.bytes.saturating_add(op.bytes);
        }
        let by_shape = self.by_shape();
        let parts =
            [(&self.graph.name, by_op.as_slice()), (&"by shape".to_owned(), by_shape.get(..TOP).unwrap_or(&by_shape))];
        let names = parts.iter().flat_map(|(heading, list)| list.iter().map(|(name, _)| name).chain([*heading]));
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        for (heading, list) in parts {
            writeln!(
                f,
                "{heading:<width$} {:>7} {:>12} {:>7} {:>9} {:>9}",
                "nodes", "ms per run", "share", "GFLOP/s", "GB/s"
            )?;
            for (name, op) in list.iter().chain([&("total".to_owned(), total)]) {
                writeln!(
                    f,
                    "{name:<width$} {:>7.0} {:>12.3} {:>5.1} % {:>9.2} {:>9.2}",
                    op.count as f64 / runs,
                    op.seconds * 1e3 / runs,
                    100.0 * op.seconds / total.seconds.max(1e-12),
                    op.flops_per_second() / 1e9,
                    op.bytes_per_second() / 1e9
                )?;
            }
            writeln!(f)?;
        }
        let walls: f64 = self.runs.iter().map(|run| run.time().as_secs_f64()).sum();
        writeln!(f, "{} runs, {:.3} ms of wall time each", self.runs.len(), walls * 1e3 / runs)
    }
}
