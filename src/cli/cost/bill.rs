//! The parts of an evaluation's cost, and their sum.

use serde_json::{Value, json};

/// Something that is computed many times.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Part {
    /// What, and how often, in words.
    pub what: String,
    /// Arithmetic of all times.
    pub flops: f64,
    /// Peak memory in bytes.
    pub memory: u64,
}

/// What an evaluation costs, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Bill {
    pub parts: Vec<Part>,
    /// Bytes of features that are held while the parts run.
    pub held: u64,
    /// What the sum lacks, and why.
    pub not_counted: Vec<String>,
}

impl Bill {
    /// Adds what is computed: `times` times `flops`.
    pub fn add(&mut self, what: impl Into<String>, times: f64, once: super::Once) {
        self.parts.push(Part { what: what.into(), flops: times * once.flops, memory: once.memory });
    }

    /// Says what is left out.
    pub fn leave(&mut self, why: impl Into<String>) {
        let why = why.into();
        if !self.not_counted.contains(&why) {
            self.not_counted.push(why);
        }
    }

    /// Arithmetic of everything that is counted.
    pub fn flops(&self) -> f64 {
        self.parts.iter().map(|part| part.flops).sum()
    }

    /// Bytes at the worst moment.
    pub fn memory(&self) -> u64 {
        self.held.saturating_add(self.parts.iter().map(|part| part.memory).max().unwrap_or(0))
    }

    /// Hours at a speed in TFLOP/s.
    pub fn hours(&self, speed: f64) -> f64 {
        self.flops() / (speed * 1e12) / 3600.0
    }

    /// For one line: arithmetic, memory, hours, and whether something is left out.
    pub fn in_words(&self, speed: f64) -> String {
        if self.parts.is_empty() {
            return "not counted".to_owned();
        }
        let least = if self.not_counted.is_empty() { "" } else { "at least " };
        let (flops, memory) = (arithmetic(self.flops()), gigabytes(self.memory()));
        format!("{least}{flops}, {memory}, {:.2} h at {speed} TFLOP/s", self.hours(speed))
    }

    /// One line for each part, each part of memory, and each thing that is left out.
    pub fn lines(&self, speed: f64) -> Vec<String> {
        let hours = |flops: f64| flops / (speed * 1e12) / 3600.0;
        // Draws of a share have the same parts.
        let mut distinct: Vec<(&Part, usize)> = Vec::new();
        for part in &self.parts {
            match distinct.iter_mut().find(|(other, _)| *other == part) {
                Some((_, times)) => *times += 1,
                None => distinct.push((part, 1)),
            }
        }
        let part = |(part, times): (&Part, usize)| {
            let (flops, memory) = (arithmetic(part.flops), gigabytes(part.memory));
            let each = if times > 1 { format!(" each, {times} times") } else { String::new() };
            format!("{}: {flops}, {memory}, {:.2} h{each}", part.what, hours(part.flops))
        };
        let mut lines: Vec<String> = distinct.into_iter().map(part).collect();
        if self.held > 0 {
            lines.push(format!("features held in memory: {}", gigabytes(self.held)));
        }
        lines.extend(self.not_counted.iter().map(|why| format!("not counted: {why}")));
        lines
    }

    /// For machines.
    pub fn json(&self, speed: f64) -> Value {
        let parts =
            self.parts.iter().map(|part| json!({"what": part.what, "flops": part.flops, "peak_memory": part.memory}));
        json!({
            "flops": self.flops(), "peak_memory": self.memory(), "features_held": self.held, "hours": self.hours(speed),
            "parts": parts.collect::<Vec<_>>(), "not_counted": self.not_counted,
        })
    }
}

/// Arithmetic in the unit that suits it.
fn arithmetic(flops: f64) -> String {
    let units = [(1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP")];
    let (unit, name) = units.into_iter().find(|(unit, _)| flops >= *unit).unwrap_or((1e9, "GFLOP"));
    format!("{:.1} {name}", flops / unit)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::super::Once;
    use super::*;

    #[test]
    fn parts_add_up_and_the_largest_is_held_beside_the_features() {
        let mut bill = Bill { held: 1_000_000_000, ..Bill::default() };
        bill.add("encoder, 10 clips", 10.0, Once { flops: 1e12, memory: 2_000_000_000, weights: 0 });
        bill.add("probe, 5 steps", 5.0, Once { flops: 2e12, memory: 500_000_000, weights: 0 });
        assert_eq!((bill.flops(), bill.memory()), (2e13, 3_000_000_000));
        assert_eq!(bill.in_words(1.0), "20.0 TFLOP, 3.00 GB, 0.01 h at 1 TFLOP/s");
        assert_eq!(Bill::default().in_words(1.0), "not counted");
        bill.leave("the list x is not here");
        bill.leave("the list x is not here");
        assert!(bill.in_words(1.0).starts_with("at least 20.0 TFLOP"));
        bill.add("probe, 5 steps", 5.0, Once { flops: 2e12, memory: 500_000_000, weights: 0 });
        let lines = bill.lines(1.0);
        assert_eq!(lines[1], "probe, 5 steps: 10.0 TFLOP, 0.50 GB, 0.00 h each, 2 times");
        assert_eq!(lines[0], "encoder, 10 clips: 10.0 TFLOP, 2.00 GB, 0.00 h");
        assert_eq!(lines[2..], ["features held in memory: 1.00 GB", "not counted: the list x is not here"]);
    }
}
