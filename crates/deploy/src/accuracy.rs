//! The accuracy of a low-precision model: its results on the calibration clips against the plan's, as a report next to
//! the model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use vjepa_export::{Precision, WeightRange};
use vjepa_metrics::argmax;
use vjepa_runtime::cpu::Processor;
use vjepa_runtime::plan::HostTensor;
use vjepa_runtime::{CLASS_OUTPUTS, ClipBatch, NamedOutput, Session, Tolerance};

use super::calibrate::Calibration;
use crate::DeployError;
use vjepa_programs::frozen::Frozen;
use vjepa_runtime::write_atomically;

/// One output, over all clips.
#[derive(Clone, Debug, Serialize)]
pub struct OutputAccuracy {
    pub name: String,
    /// Length of the difference over the length of the plan's values.
    pub rel_l2: f64,
    /// Mean cosine of a clip's values with the plan's.
    pub cosine: f64,
    pub max_abs: f64,
}

/// The report, written as `<model>.accuracy.json`.
#[derive(Clone, Debug, Serialize)]
pub struct AccuracyReport {
    pub precision: String,
    pub target: String,
    /// The runtime that ran the model.
    pub runtime: String,
    /// And on which processor.
    pub processor: Processor,
    /// Range of 8-bit weights.
    pub int8_range: Option<String>,
    /// Where the model may give other results than it gave here.
    pub not_covered: Option<&'static str>,
    pub clips: usize,
    pub clips_from: String,
    pub outputs: Vec<OutputAccuracy>,
    /// Share of clips with the plan's most probable class; none for a model without classes.
    pub top1_agreement: Option<f64>,
    /// `top1_agreement`, or else the smallest mean cosine.
    pub agreement: f64,
    pub min_agreement: f64,
    /// Layers kept in 32 bits.
    pub kept_f32: Vec<String>,
    pub pass: bool,
}

/// The note on full-range 8-bit weights where their products were added exactly.
const NOT_COVERED: &str = "not covered: x86 without VNNI, where ONNX Runtime adds products of full-range weights in 16 \
                           bits and saturates";
/// The note where they were not.
const SATURATED: &str = "on x86 without VNNI, as here, ONNX Runtime adds products of full-range weights in 16 bits and \
                         saturates; leave out --int8-range full, or judge where there is VNNI";

/// The source of the low-precision model's results.
pub enum Candidate<'a> {
    /// The file itself.
    File(&'a Session),
    /// Its arithmetic, rounded as the precision rounds, where no runtime here computes in it.
    Rounded(Box<Frozen>),
}

impl Candidate<'_> {
    fn run(&mut self, shape: [usize; 5], clip: &[f32]) -> Result<Vec<NamedOutput>, DeployError> {
        match self {
            Self::File(session) => Ok(session.run(&ClipBatch::new(shape, clip)?)?),
            Self::Rounded(frozen) => named(frozen, clip),
        }
    }

    fn describe(&self, precision: Precision) -> String {
        match self {
            // The report travels with the model: without the path of the library.
            Self::File(session) => session.runtime().split(" (").next().unwrap_or_default().to_owned(),
            Self::Rounded(_) => {
                format!("plan with every value rounded to {precision} (no available runtime computes in {precision})")
            }
        }
    }
}

/// A plan's results under their names.
pub fn named(frozen: &mut Frozen, clip: &[f32]) -> Result<Vec<NamedOutput>, DeployError> {
    Ok(outputs(frozen.run(clip.to_vec())?))
}

/// Results of a plan as those of a session.
pub fn outputs(results: BTreeMap<String, HostTensor>) -> Vec<NamedOutput> {
    let output = |(name, tensor): (String, HostTensor)| {
        let shape = tensor.shape().to_vec();
        NamedOutput { name, shape, data: tensor.into_floats() }
    };
    results.into_iter().map(output).collect()
}

/// Runs every clip through both.
pub fn measure(
    plan: &mut Frozen,
    candidate: &mut Candidate<'_>,
    calibration: &Calibration,
    precision: Precision,
    target: &str,
    min_agreement: f64,
) -> Result<AccuracyReport, DeployError> {
    let [channels, frames, height, width] = plan.clip();
    let shape = [plan.clips_of_a_result(), channels, frames, height, width];
    let results = (calibration.count / shape[0]).max(1) as f64;
    let mut sums: Vec<(String, [f64; 4])> = Vec::new();
    let (mut agreed, mut classified) = (0usize, false);
    for clip in calibration.data.chunks_exact(shape.iter().product::<usize>().max(1)) {
        let got = candidate.run(shape, clip)?;
        for wanted in named(plan, clip)? {
            let found = got.iter().find(|output| output.name == wanted.name && output.data.len() == wanted.data.len());
            let found = found.ok_or_else(|| format!("the model returns no `{}` {:?}", wanted.name, wanted.shape))?;
            let [difference, length, cosine, largest] = apart(&found.data, &wanted.data);
            match sums.iter_mut().find(|(name, _)| *name == wanted.name) {
                Some((_, sum)) => {
                    *sum = [sum[0] + difference, sum[1] + length, sum[2] + cosine, worse(sum[3], largest)];
                }
                None => sums.push((wanted.name.clone(), [difference, length, cosine, largest])),
            }
            if CLASS_OUTPUTS.contains(&wanted.name.as_str()) {
                classified = true;
                agreed += usize::from(argmax(&found.data) == argmax(&wanted.data));
            }
        }
    }
    let outputs: Vec<OutputAccuracy> = sums
        .into_iter()
        .map(|(name, [difference, length, cosine, max_abs])| OutputAccuracy {
            name,
            rel_l2: (difference / length).sqrt(),
            cosine: cosine / results,
            max_abs,
        })
        .collect();
    let top1_agreement = classified.then(|| agreed as f64 / results);
    let cosine = outputs.iter().fold(f64::INFINITY, |least, output| {
        if output.cosine.is_nan() { f64::NEG_INFINITY } else { least.min(output.cosine) }
    });
    let agreement = top1_agreement.unwrap_or(cosine);
    let finite = outputs.iter().all(|output| output.rel_l2.is_finite());
    Ok(AccuracyReport {
        precision: precision.to_string(),
        target: target.to_owned(),
        runtime: candidate.describe(precision),
        processor: Processor::here(),
        int8_range: None,
        not_covered: None,
        clips: calibration.count,
        clips_from: calibration.origin.clone(),
        outputs,
        top1_agreement,
        agreement,
        min_agreement,
        kept_f32: Vec::new(),
        pass: finite && agreement >= min_agreement,
    })
}

/// A narrow model's results on other devices may be this many times further from the plan than they were here.
const SLACK: f64 = 3.0;

impl AccuracyReport {
    /// Records the range of the model's 8-bit weights, and whether the processor adds their products in 16 bits.
    pub fn of_range(&mut self, range: Option<WeightRange>, saturated: bool) {
        self.int8_range = range.map(|range| range.to_string());
        let what = if saturated { SATURATED } else { NOT_COVERED };
        self.not_covered = (range == Some(WeightRange::Full)).then_some(what);
    }

    /// How far results may be from the plan's on another device.
    pub fn tolerance(&self) -> Tolerance {
        let worst = |of: fn(&OutputAccuracy) -> f64| self.outputs.iter().map(of).fold(0.0, f64::max);
        Tolerance { absolute: worst(|o| o.max_abs) * SLACK, relative: worst(|o| o.rel_l2) * SLACK }
    }

    /// Writes the report.
    pub fn write(&self, path: &Path) -> Result<(), DeployError> {
        let json = serde_json::to_vec_pretty(self)?;
        write_atomically(path, |out| std::io::Write::write_all(out, &json))
            .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }
}

impl std::fmt::Display for AccuracyReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.top1_agreement {
            Some(share) => write!(f, "top-1 agreement {:.1} %", 100.0 * share)?,
            None => write!(f, "cosine {:.5}", self.agreement)?,
        }
        for OutputAccuracy { name, rel_l2, max_abs, .. } in &self.outputs {
            write!(f, ", {name} rel-L2 {rel_l2:.1e}, max-abs {max_abs:.1e}")?;
        }
        write!(f, " over {} clips ({}) on {}, {}", self.clips, self.clips_from, self.runtime, self.processor)?;
        if !self.kept_f32.is_empty() {
            write!(f, "; {} layers kept in f32", self.kept_f32.len())?;
        }
        if let Some(what) = self.not_covered {
            write!(f, "; {what}")?;
        }
        Ok(())
    }
}

/// Squared difference, squared length, cosine, largest difference.
fn apart(got: &[f32], wanted: &[f32]) -> [f64; 4] {
    let (mut difference, mut length, mut own, mut inner, mut largest) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (got, wanted) in got.iter().zip(wanted) {
        let (got, wanted) = (f64::from(*got), f64::from(*wanted));
        difference += (got - wanted).powi(2);
        length += wanted * wanted;
        own += got * got;
        inner += got * wanted;
        largest = worse(largest, (got - wanted).abs());
    }
    let cosine = if own * length > 0.0 { inner / (own * length).sqrt() } else { f64::NAN };
    [difference, length, cosine, largest]
}

/// The larger one; NaN is the worst.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_told_and_nan_is_the_worst() {
        let [difference, length, cosine, largest] = apart(&[1.0, 2.0], &[1.0, 0.0]);
        assert_eq!((difference, length, largest), (4.0, 1.0, 2.0));
        assert!((cosine - 1.0 / 5f64.sqrt()).abs() < 1e-12);
        assert!(apart(&[f32::NAN], &[1.0])[3].is_nan());
        assert!(worse(f64::NAN, 1.0).is_nan());
    }
}
