//! Tables of comparisons and kernels.

use crate::table::{aligned, indented};
use vjepa_data::bench::{Figures, FileReport};
use vjepa_lab::bench::{Comparison, DeviceKernel, KernelTable, Measured};

/// A comparison of training steps or encoders.
pub(super) fn comparison(comparison: &Comparison) -> String {
    let header =
        ["", "ms", "ratio", "quartiles", "CPU ms", "ratio", "peak MB", "anon. MB", "GFLOP/s", "MFU %", "loss diff."];
    let row = |side: &Measured| {
        let [ratio, low, high] = side.ratio;
        vec![
            side.name.clone(),
            format!("{:.1}", side.ms),
            format!("{ratio:.2}"),
            format!("{low:.2} - {high:.2}"),
            format!("{:.1}", side.cpu_ms),
            format!("{:.2}", side.cpu_ratio),
            megabytes(side.peak),
            megabytes(side.peak_anonymous),
            side.flops_per_second.map_or_else(String::new, |rate| format!("{:.0}", rate / 1e9)),
            side.mfu.map_or_else(String::new, |mfu| format!("{:.1}", 100.0 * mfu)),
            format!("{:.1e}", side.loss_difference),
        ]
    };
    let table = aligned(&header, comparison.sides.iter().map(row).collect());
    let peak = comparison
        .product_peak
        .map_or_else(String::new, |peak| format!("plain matrix products on this machine: {:.0} GFLOP/s\n", peak / 1e9));
    table + &peak
}

/// A comparison of models, as seen by whoever serves them; a run has `batch` clips.
pub(super) fn latencies(comparison: &Comparison, batch: usize) -> String {
    let header = [
        "",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "ratio",
        "quartiles",
        "clips/s",
        "CPU ms",
        "peak MB",
        "anon. MB",
        "|y| diff.",
    ];
    let row = |side: &Measured| {
        let ([ratio, low, high], [p95, p99]) = (side.ratio, side.tail);
        vec![
            side.name.clone(),
            format!("{:.1}", side.ms),
            format!("{p95:.1}"),
            format!("{p99:.1}"),
            format!("{ratio:.2}"),
            format!("{low:.2}-{high:.2}"),
            format!("{:.1}", batch as f64 * 1e3 / side.ms),
            format!("{:.1}", side.cpu_ms),
            megabytes(side.peak),
            megabytes(side.peak_anonymous),
            format!("{:.1e}", side.loss_difference),
        ]
    };
    aligned(&header, comparison.sides.iter().map(row).collect())
}

/// Decoders on one file; ratios are the speeds of `ours` over that of the row's decoder.
pub(super) fn decoders(file: &FileReport, ours: &[&str]) -> String {
    let header: Vec<String> = ["", "clips a CPU second", "wrong frames"]
        .map(str::to_owned)
        .into_iter()
        .chain(ours.iter().flat_map(|name| [format!("{name} over it"), "lowest to highest".to_owned()]))
        .collect();
    let row = |figures: &Figures| {
        let mut cells = vec![figures.name.clone()];
        cells.push(figures.clips_per_second.map_or_else(String::new, |rate| format!("{rate:.1}")));
        cells.push(format!("{} of {}", figures.wrong, figures.looked_at));
        for name in ours {
            let own = file.contenders.iter().find(|own| own.name == *name);
            let ratio = own.and_then(|own| own.ratios.iter().find(|ratio| ratio.over == figures.name));
            cells.push(ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median)));
            cells.push(ratio.map_or_else(String::new, |ratio| format!("{:.2} - {:.2}", ratio.low, ratio.high)));
        }
        cells
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    aligned(&header, file.contenders.iter().map(row).collect())
}

/// Speeds of kernels under one instruction set.
pub(super) fn kernels(table: &KernelTable) -> String {
    let rows = table.speeds.iter().map(|speed| {
        let (unit, of) = if speed.arithmetic { ("GFLOP/s", "a product") } else { ("GB/s", "a copy") };
        vec![
            speed.name.clone(),
            format!("{:.3} ms", speed.ms),
            format!("{:.2} {unit:<7}", speed.speed),
            format!("{:.0} % of {of:<9}", 100.0 * speed.share),
        ]
    });
    format!(
        "kernels {}: plain products {:.1} GFLOP/s ({}), plain copy {:.1} GB/s\n{}",
        table.kernels,
        table.product,
        table.products,
        table.copy,
        indented(&aligned(&[], rows.collect()))
    )
}

/// A device's kernels beside the library's operations.
pub(super) fn device_kernels(kernels: &[DeviceKernel]) -> String {
    let rows = kernels.iter().map(|DeviceKernel { name, ours, library, bytes, flops }| {
        vec![
            name.clone(),
            format!("{ours:.3}"),
            format!("{library:.3}"),
            format!("{:.2}", library / ours),
            format!("{:.0}", *bytes as f64 / ours / 1e6),
            format!("{:.0}", *flops as f64 / ours / 1e6),
        ]
    });
    aligned(&["kernel", "ours, ms", "library, ms", "library / ours", "GB/s", "GFLOP/s"], rows.collect())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_has_a_row_under_the_header() {
        let side = |name: &str, mfu| Measured {
            name: name.to_owned(),
            about: String::new(),
            ms: 12.34,
            tail: [13.0, 14.0],
            cpu_ms: 20.0,
            ratio: [1.0, 0.9, 1.1],
            cpu_ratio: 1.0,
            peak: 5_000_000,
            peak_anonymous: 4_000_000,
            flops_per_second: Some(2e9),
            mfu,
            loss_difference: 0.0,
        };
        let sides = vec![side("plan", Some(0.5)), side("torch eager", None)];
        let found = Comparison { rounds: 3, product_peak: Some(4e9), sides };
        let text = comparison(&found);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].ends_with("loss diff.") && lines[1].starts_with("plan  ") && lines[2].starts_with("torch"));
        assert!(lines[1].contains("0.90 - 1.10") && lines[1].contains("50.0"), "{text}");
        assert_eq!(lines[0].len(), lines[1].len(), "columns line up: {text}");
        let text = latencies(&found, 2);
        assert!(text.lines().count() == 3 && text.contains("162.1"), "{text}");
    }
}
