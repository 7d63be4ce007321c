//! How long a graph would take on an accelerator, by the roofline: an estimate to hold a measurement against, not one.

use super::report::widest;
use super::{NodeCost, PlanError, Report};
use crate::ir::{Graph, Node, Sizes};
use std::collections::BTreeMap;
use std::fmt;

/// An accelerator's published peaks: dense, without sparsity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accelerator {
    /// Name on the command line.
    pub name: &'static str,
    /// The product meant, for people.
    pub about: &'static str,
    /// FLOP per second of matrix products of 16-bit floats.
    pub half_products: f64,
    /// FLOP per second of matrix products of 32-bit floats, on the tensor cores (TF32).
    pub float_products: f64,
    /// FLOP per second of everything else.
    pub vector: f64,
    /// Bytes per second of its memory.
    pub bandwidth: f64,
    /// Bytes of its memory.
    pub memory: u64,
}

/// Seconds that launching one operation costs: what drivers take, without graph capture.
const LAUNCH: f64 = 4e-6;

impl Accelerator {
    /// Every accelerator known, from the data sheets of NVIDIA's A100 80GB SXM and H200 SXM.
    pub const ALL: [Self; 2] = [
        Self {
            name: "a100-80g",
            about: "NVIDIA A100 80GB SXM, which the paper's models were trained on",
            half_products: 312e12,
            float_products: 156e12,
            vector: 19.5e12,
            bandwidth: 2.039e12,
            memory: 80_000_000_000,
        },
        Self {
            name: "h200",
            about: "NVIDIA H200 SXM",
            half_products: 989e12,
            float_products: 495e12,
            vector: 67e12,
            bandwidth: 4.8e12,
            memory: 141_000_000_000,
        },
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The product meant.
    pub fn about(self) -> &'static str {
        self.about
    }

    /// Seconds of arithmetic and of memory traffic of a node; nothing for one that moves no memory and computes nothing.
    fn seconds(self, graph: &Graph, node: &Node, cost: NodeCost) -> (f64, f64) {
        let half = node.inputs.iter().any(|id| graph.ty(*id).dtype.is_narrow());
        let peak = match (node.op.is_product(), half) {
            (true, true) => self.half_products,
            (true, false) => self.float_products,
            (false, _) => self.vector,
        };
        (cost.flops as f64 / peak, cost.bytes as f64 / self.bandwidth)
    }
}

/// The estimate for one kind of operation, or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Operations launched; a reshape is none.
    pub launches: u64,
    /// Seconds if arithmetic ran at its peak.
    pub arithmetic: f64,
    /// Seconds if memory ran at its peak, every operand and result going through it once.
    pub traffic: f64,
    /// Seconds by the roofline: the longer of the two for each operation, and its launch.
    pub total: f64,
}

impl Share {
    fn add(&mut self, (arithmetic, traffic): (f64, f64)) {
        self.launches += 1;
        self.arithmetic += arithmetic;
        self.traffic += traffic;
        self.total += arithmetic.max(traffic) + LAUNCH;
    }
}

/// What a graph would take on an accelerator. Printed, it is a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The accelerator.
    pub on: Accelerator,
    /// Peak memory in bytes, weights included, by the plan.
    pub memory: u64,
    /// FLOP in all.
    pub flops: u64,
    /// Everything together.
    pub total: Share,
    /// By operation name, the longest first.
    pub by_op: Vec<(&'static str, Share)>,
}

impl Estimate {
    /// Estimates `graph` under `sizes`; `report` is of the same graph and sizes.
    ///
    /// # Errors
    /// As [`NodeCost::new`].
    pub fn new(graph: &Graph, sizes: &Sizes, report: &Report, on: Accelerator) -> Result<Self, PlanError> {
        let mut kinds: BTreeMap<&'static str, Share> = BTreeMap::new();
        let mut total = Share::default();
        for node in &graph.nodes {
            let cost = NodeCost::new(graph, node, sizes)?;
            if cost.flops == 0 && cost.bytes == 0 {
                continue;
            }
            let seconds = on.seconds(graph, node, cost);
            kinds.entry(node.op.name()).or_default().add(seconds);
            total.add(seconds);
        }
        let mut by_op: Vec<_> = kinds.into_iter().collect();
        by_op.sort_by(|(_, a), (_, b)| b.total.total_cmp(&a.total));
        Ok(Self { on, memory: report.memory.peak, flops: report.total.flops, total, by_op })
    }

    /// Whether the plan's peak fits the memory.
    pub fn fits(&self) -> bool {
        self.memory <= self.on.memory
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "estimate for {} ({}); nothing was measured", self.on.name, self.on.about)?;
        let width = widest(self.by_op.iter().map(|(name, _)| *name).chain(["total"]));
        writeln!(f, "{:<width$} {:>8} {:>14} {:>11} {:>11}", "", "launches", "arithmetic ms", "memory ms", "ms")?;
        for (name, share) in self.by_op.iter().copied().chain([("total", self.total)]) {
            let Share { launches, arithmetic, traffic, total } = share;
            let [arithmetic, traffic, total] = [arithmetic, traffic, total].map(|seconds| seconds * 1e3);
            writeln!(f, "{name:<width$} {launches:>8} {arithmetic:>14.2} {traffic:>11.2} {total:>11.2}")?;
        }
        let (needs, has) = (self.memory as f64 / 1e9, self.on.memory as f64 / 1e9);
        write!(f, "memory      needs {needs:.1} GB of {has:.0} GB")?;
        writeln!(f, "{}", if self.fits() { "" } else { ": does not fit" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::*;
    use crate::text::parse;

    /// Two products of 2·1024³ FLOP, the second in 16 bits, and one addition bound by memory.
    const TEXT: &str = "\
graph g[]
  input x: f32[1024, 1024]
  input y: bf16[1024, 1024]
  %0: f32[1024, 1024] = matmul(x, x) {ta: false, tb: false}
  %1: bf16[1024, 1024] = matmul(y, y) {ta: false, tb: false}
  %2: f32[1024, 1024] = add(%0, x)
  output a = %2
  output b = %1
";

    fn estimate(on: Accelerator) -> Estimate {
        let graph = parse(TEXT).unwrap();
        let report = Report::new(&graph, &Plan::new(&graph).unwrap(), &Sizes::new()).unwrap();
        Estimate::new(&graph, &Sizes::new(), &report, on).unwrap()
    }

    #[test]
    fn products_are_bound_by_arithmetic_and_sums_by_memory() {
        let [a100, _] = Accelerator::ALL;
        let found = estimate(a100);
        let share = |name: &str| found.by_op.iter().find(|(op, _)| *op == name).unwrap().1;
        let flop = 2.0 * 1024f64.powi(3);
        let products = flop / 156e12 + flop / 312e12;
        assert!((share("matmul").arithmetic / products - 1.0).abs() < 1e-12);
        assert!((share("matmul").total - products - 2.0 * LAUNCH).abs() < 1e-12);
        let moved = 3.0 * 4.0 * 1024.0 * 1024.0 / 2.039e12;
        assert!((share("add").total - moved - LAUNCH).abs() < 1e-12);
        assert_eq!(found.total.launches, 3);
        let text = found.to_string();
        assert!(found.fits() && !text.contains("does not fit"));
        let lengths: Vec<usize> = text.lines().skip(1).take(4).map(str::len).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let [a100, _] = Accelerator::ALL;
        let small = estimate(Accelerator { memory: 1_000_000, ..a100 });
        assert!(!small.fits());
        assert!(small.to_string().ends_with("does not fit\n"), "{small}");
    }
}
