//! One comparison with the official code's numbers, and how it is reported.

use std::fmt;
use std::path::PathBuf;

use serde_json::json;

use vjepa_weights::TensorFileError;

/// The most two sets of numbers may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Bound on `|got - want|_2 / |want|_2`.
    RelL2(f64),
    /// Bound on the largest element of `|got - want|`.
    MaxAbs(f64),
    /// Both bounds at once.
    Both {
        /// Bound on the relative L2 distance.
        rel_l2: f64,
        /// Bound on the largest difference.
        max_abs: f64,
    },
    /// No difference at all.
    Exact,
}

impl Limit {
    /// Whether the measured differences are within it. NaN never is.
    fn holds(self, rel_l2: f64, max_abs: f64) -> bool {
        if rel_l2.is_nan() || max_abs.is_nan() {
            return false;
        }
        match self {
            Limit::RelL2(limit) => rel_l2 <= limit,
            Limit::MaxAbs(limit) => max_abs <= limit,
            Limit::Both { rel_l2: relative, max_abs: absolute } => rel_l2 <= relative && max_abs <= absolute,
            Limit::Exact => max_abs == 0.0,
        }
    }

    /// The one number of the JSON line: the relative bound where there are two, 0 for exact.
    fn number(self) -> f64 {
        match self {
            Limit::RelL2(limit) | Limit::MaxAbs(limit) | Limit::Both { rel_l2: limit, .. } => limit,
            Limit::Exact => 0.0,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::RelL2(limit) => write!(out, "rel_l2 <= {limit:.1e}"),
            Limit::MaxAbs(limit) => write!(out, "max_abs <= {limit:.1e}"),
            Limit::Both { rel_l2, max_abs } => write!(out, "rel_l2 <= {rel_l2:.1e}, max_abs <= {max_abs:.1e}"),
            Limit::Exact => write!(out, "exact"),
        }
    }
}

/// The result of one comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Numbers were compared.
    Measured {
        /// The quantity compared, such as `masks.step0.enc.0`; says so when the shapes differ.
        name: String,
        /// `|got - want|_2 / |want|_2`; infinite when the shapes differ.
        rel_l2: f64,
        /// Largest element of `|got - want|`; infinite when the shapes differ.
        max_abs: f64,
        /// The limit.
        limit: Limit,
        /// Whether the numbers are within the limit.
        pass: bool,
    },
    /// The golden data holds something this build does not do.
    Unsupported {
        /// The quantity that could not be compared.
        name: String,
        /// Why.
        why: String,
    },
}

impl Check {
    /// Compares under any limit.
    pub fn compare(name: impl Into<String>, got: &[f32], want: &[f32], limit: Limit) -> Self {
        Self::compare_iter(name, got.iter().map(|&x| x.into()), want.iter().map(|&x| x.into()), limit)
    }

    /// Compares under a bound on the relative L2 distance.
    pub fn rel_l2(name: impl Into<String>, got: &[f32], want: &[f32], limit: f64) -> Self {
        Self::compare(name, got, want, Limit::RelL2(limit))
    }

    /// Compares under a bound on the largest difference.
    pub fn max_abs(name: impl Into<String>, got: &[f32], want: &[f32], limit: f64) -> Self {
        Self::compare(name, got, want, Limit::MaxAbs(limit))
    }

    /// Compares integers, which must be equal.
    pub fn exact<T, U>(name: impl Into<String>, got: &[T], want: &[U]) -> Self
    where
        T: Copy + Into<i64>,
        U: Copy + Into<i64>,
    {
        let float = |x: i64| x as f64;
        let got = got.iter().map(|&x| float(x.into()));
        Self::compare_iter(name, got, want.iter().map(|&x| float(x.into())), Limit::Exact)
    }

    /// Compares two numbers under a bound on `|got - want| / |want|`.
    pub fn scalar_rel(name: impl Into<String>, got: f64, want: f64, limit: f64) -> Self {
        Self::series_rel(name, &[got], &[want], limit)
    }

    /// Compares two series number by number under a bound on each `|got - want| / |want|` (on the difference itself
    /// where `want` is 0). `rel_l2` reports the largest of them.
    pub fn series_rel(name: impl Into<String>, got: &[f64], want: &[f64], limit: f64) -> Self {
        if got.len() != want.len() {
            return Self::mismatch(name, got.len(), want.len(), Limit::RelL2(limit));
        }
        let (mut rel, mut max_abs) = (0.0f64, 0.0f64);
        for (got, want) in got.iter().zip(want) {
            let difference = (got - want).abs();
            let scale = if *want == 0.0 { 1.0 } else { want.abs() };
            rel = nan_max(rel, difference / scale);
            max_abs = nan_max(max_abs, difference);
        }
        Self::measured(name, rel, max_abs, Limit::RelL2(limit))
    }

    /// A comparison whose differences are known already.
    pub fn measured(name: impl Into<String>, rel_l2: f64, max_abs: f64, limit: Limit) -> Self {
        Check::Measured { name: name.into(), rel_l2, max_abs, limit, pass: limit.holds(rel_l2, max_abs) }
    }

    /// The same comparison with a limit `factor` times as wide, for arithmetic coarser than f32; exact ones stay exact.
    #[must_use]
    pub fn relaxed(self, factor: f64) -> Self {
        match self {
            Check::Measured { name, rel_l2, max_abs, limit, .. } => {
                let limit = match limit {
                    Limit::RelL2(limit) => Limit::RelL2(limit * factor),
                    Limit::MaxAbs(limit) => Limit::MaxAbs(limit * factor),
                    Limit::Both { rel_l2, max_abs } => {
                        Limit::Both { rel_l2: rel_l2 * factor, max_abs: max_abs * factor }
                    }
                    Limit::Exact => Limit::Exact,
                };
                // Shapes that differ are infinitely far apart and stay so.
                Self::measured(name, rel_l2, max_abs, limit)
            }
            other => other,
        }
    }

    /// A failing comparison: the numbers of values differ.
    pub fn mismatch(name: impl Into<String>, got: usize, want: usize, limit: Limit) -> Self {
        let name = format!("{} (shape mismatch: {got} values, expected {want})", name.into());
        Self::measured(name, f64::INFINITY, f64::INFINITY, limit)
    }

    /// Something that cannot be compared.
    pub fn unsupported(name: impl Into<String>, why: impl Into<String>) -> Self {
        Check::Unsupported { name: name.into(), why: why.into() }
    }

    fn compare_iter(
        name: impl Into<String>,
        got: impl ExactSizeIterator<Item = f64>,
        want: impl ExactSizeIterator<Item = f64>,
        limit: Limit,
    ) -> Self {
        if got.len() != want.len() {
            return Self::mismatch(name, got.len(), want.len(), limit);
        }
        let (mut error, mut norm, mut max_abs) = (0.0f64, 0.0f64, 0.0f64);
        for (got, want) in got.zip(want) {
            let difference = (got - want).abs();
            error += difference * difference;
            norm += want * want;
            max_abs = nan_max(max_abs, difference);
        }
        let rel_l2 = if error == 0.0 { 0.0 } else { (error / norm).sqrt() };
        Self::measured(name, rel_l2, max_abs, limit)
    }

    /// The same check under another name; a note on a shape mismatch stays.
    pub fn renamed(mut self, new: impl Into<String>) -> Self {
        let (Check::Measured { name, .. } | Check::Unsupported { name, .. }) = &mut self;
        let note = name.find(" (").map(|start| name[start..].to_owned()).unwrap_or_default();
        *name = new.into() + &note;
        self
    }

    /// The same check with `group.` before its name.
    pub fn under(mut self, group: &str) -> Self {
        let (Check::Measured { name, .. } | Check::Unsupported { name, .. }) = &mut self;
        *name = format!("{group}.{name}");
        self
    }

    /// The quantity compared.
    pub fn name(&self) -> &str {
        match self {
            Check::Measured { name, .. } | Check::Unsupported { name, .. } => name,
        }
    }

    /// Whether it counts against us. Something unsupported is reported, not failed.
    pub fn failed(&self) -> bool {
        matches!(self, Check::Measured { pass: false, .. })
    }

    /// `{"name":..,"rel_l2":..,"max_abs":..,"limit":..,"pass":..}` or `{"name":..,"unsupported":"why"}`; numbers that
    /// are not finite are `null`.
    pub fn to_json_line(&self) -> String {
        match self {
            Check::Measured { name, rel_l2, max_abs, limit, pass } => {
                // By hand, for the order of the keys is part of the format and maps sort theirs.
                let (name, limit) = (json!(name), json!(limit.number()));
                let (rel_l2, max_abs) = (json!(rel_l2), json!(max_abs));
                format!(r#"{{"name":{name},"rel_l2":{rel_l2},"max_abs":{max_abs},"limit":{limit},"pass":{pass}}}"#)
            }
            Check::Unsupported { name, why } => format!(r#"{{"name":{},"unsupported":{}}}"#, json!(name), json!(why)),
        }
    }
}

/// The line for people.
impl fmt::Display for Check {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Measured { name, rel_l2, max_abs, limit, pass } => {
                let verdict = if *pass { "ok  " } else { "FAIL" };
                write!(out, "{verdict} {name}: rel_l2 {rel_l2:.2e}, max_abs {max_abs:.2e} (limit {limit})")
            }
            Check::Unsupported { name, why } => write!(out, "skip {name}: {why}"),
        }
    }
}

/// The larger number, or NaN when either is: `f64::max` would drop it.
pub(crate) fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Why golden data could not be compared at all.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A JSON file does not have the expected form.
    #[error("{} is not the expected golden data: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A tensor file is unusable.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
    /// The golden model cannot be compiled.
    #[error(transparent)]
    Compile(#[from] vjepa_programs::CompileError),
    /// The compiled graph cannot be run on the golden data.
    #[error(transparent)]
    Run(#[from] vjepa_runtime::plan::RunError),
    /// A checkpoint is unusable.
    #[error(transparent)]
    Weights(#[from] vjepa_weights::WeightsError),
    /// A folder holds nothing to compare with.
    #[error("{} holds no golden data that is recognised: give a folder such as tests/golden/tiny, or the one above it", .0.display())]
    Nothing(PathBuf),
    /// A graph lacks a result it should have: a bug.
    #[error("the compiled graph has no output `{0}`")]
    Missing(String),
    /// The golden configuration cannot be run.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file that holds it.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Reads a JSON file of the golden data.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Result<T, GoldenError> {
    let text = std::fs::read_to_string(path).map_err(|source| GoldenError::Read { path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|source| GoldenError::Json { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_have_fixed_keys_in_fixed_order() {
        let check = Check::rel_l2("a\"b", &[1.0, 2.0], &[1.0, 2.0], 1e-5);
        assert_eq!(check.to_json_line(), r#"{"name":"a\"b","rel_l2":0.0,"max_abs":0.0,"limit":0.00001,"pass":true}"#);
        assert_eq!(Check::unsupported("x", "no \"why\"").to_json_line(), r#"{"name":"x","unsupported":"no \"why\""}"#);
    }

    #[test]
    fn nan_never_passes() {
        for check in [
            Check::rel_l2("n", &[f32::NAN], &[1.0], 1e9),
            Check::max_abs("n", &[f32::NAN, 1.0], &[1.0, 1.0], 1e9),
            Check::max_abs("n", &[f32::NAN], &[f32::NAN], 1e9),
            Check::scalar_rel("n", f64::NAN, 1.0, 1e9),
            Check::compare("n", &[f32::NAN], &[0.0], Limit::Exact),
        ] {
            assert!(check.failed(), "{check}");
            assert!(check.to_json_line().contains("null"));
        }
    }

    #[test]
    fn shape_mismatch_fails_and_says_so() {
        let check = Check::exact("idx", &[1i32, 2], &[1i64]);
        assert!(check.failed());
        assert!(check.to_string().contains("shape mismatch: 2 values, expected 1"), "{check}");
        assert!(check.to_json_line().contains(r#""rel_l2":null"#));
    }

    #[test]
    fn limits() {
        let both = Limit::Both { rel_l2: 0.1, max_abs: 0.2 };
        assert!(Check::compare("b", &[10.5], &[10.0], both).failed());
        assert!(!Check::compare("b", &[10.1], &[10.0], both).failed());
        assert!(Check::exact("e", &[3i32], &[4i32]).failed());
        assert!(!Check::series_rel("s", &[0.0, 1.0], &[0.0, 1.0], 0.0).failed());
        // A want of all zeros has no relative distance: anything else than zeros is infinitely far.
        assert!(Check::rel_l2("z", &[1e-9], &[0.0], 1.0).failed());
    }
}
