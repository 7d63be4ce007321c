//! The processor, as far as 8-bit products depend on it.
//!
//! ONNX Runtime multiplies unsigned activations with signed weights. On x86 without VNNI it does so by `vpmaddubsw`, which
//! adds two neighbouring products in 16 bits and saturates: weights beyond ±64 give wrong sums there, in silence. With VNNI
//! (AVX-VNNI or AVX512-VNNI), and on other architectures, sums are exact.

use std::fmt;

/// Extensions of either kind add products in 32 bits.
const VNNI: [&str; 2] = ["avx512vnni", "avxvnni"];

/// A processor: what it is called, and its extensions that 8-bit products use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Processor {
    /// The maker's name; the architecture where the system does not give it.
    pub model: String,
    /// Of `avx2`, `avx512`, `avx512vnni`, `avxvnni` (x86), `neon`, `dotprod`, `i8mm` (Arm), those it has.
    pub extensions: Vec<&'static str>,
}

impl Processor {
    /// The one this runs on.
    pub fn here() -> Self {
        Self { model: model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()), extensions: extensions() }
    }

    /// Whether ONNX Runtime adds 8-bit products in 16 bits here, so that weights beyond ±64 give wrong sums.
    pub fn saturates(&self) -> bool {
        cfg!(any(target_arch = "x86_64", target_arch = "x86"))
            && !VNNI.iter().any(|extension| self.extensions.contains(extension))
    }
}

impl fmt::Display for Processor {
    /// `AMD EPYC (avx2, no VNNI)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.extensions.clone();
        if self.saturates() {
            words.push("no VNNI");
        }
        write!(f, "{}", self.model)?;
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}

/// What the system calls the processor.
fn model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'))?.1.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(target_arch = "x86_64")]
fn extensions() -> Vec<&'static str> {
    let known = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("avx512", std::is_x86_feature_detected!("avx512bw") && std::is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avxvnni", std::is_x86_feature_detected!("avxvnni")),
    ];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn extensions() -> Vec<&'static str> {
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn extensions() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn sums_are_exact_with_either_vnni() {
        let with = |extensions: &[&'static str]| Processor { model: "x".to_owned(), extensions: extensions.to_vec() };
        for exact in [&["avx2", "avxvnni"][..], &["avx2", "avx512", "avx512vnni"]] {
            assert!(!with(exact).saturates(), "{exact:?}");
        }
        for wrong in [&["avx2"][..], &["avx2", "avx512"], &[]] {
            assert!(with(wrong).saturates(), "{wrong:?}");
        }
        assert_eq!(with(&["avx2"]).to_string(), "x (avx2, no VNNI)");
        assert_eq!(with(&["avx2", "avxvnni"]).to_string(), "x (avx2, avxvnni)");
    }

    #[test]
    fn this_processor_has_a_name() {
        assert!(!Processor::here().model.is_empty());
    }
}
