//! Which instruction set the CPU's kernels use. Decided here, once, for all of them.
//!
//! A kernel is compiled for every instruction set that [`pulp`] has for the target (`kernel!`, or a [`WithSimd`] of its
//! own), and [`dispatch`] runs the one that was chosen: the best that processor and build have, or less where the
//! environment variable `VJEPA_SIMD` caps it. Matrix products are not ours and are not capped: the `gemm` crate detects for
//! itself.

use pulp::{Arch, Simd, WithSimd};
use std::ffi::OsStr;
use std::fmt;
use std::sync::LazyLock;

/// The environment variable that caps the instruction set.
const VARIABLE: &str = "VJEPA_SIMD";

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What the target's baseline has: SSE2 on x86-64.
    Scalar,
    /// 128-bit vectors of ARM.
    Neon,
    /// 256-bit vectors with fused multiply-add, x86-64-v3.
    Avx2,
    /// 512-bit vectors, x86-64-v4.
    Avx512,
}

impl InstructionSet {
    /// All of them, the best last.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// The name `VJEPA_SIMD` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The set of that name, as `VJEPA_SIMD` has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// Whether this processor has it, whatever this build is compiled for.
    pub fn in_processor(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                let foundation = std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512vl");
                let integers = std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512cd")
                    && std::is_x86_feature_detected!("avx512dq");
                Self::Avx2.in_processor() && foundation && integers
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }

    /// The sets that this processor has and this build is compiled for, the best last.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| set.arch().is_some()).collect()
    }

    /// The set that kernels use in this process.
    ///
    /// # Errors
    /// [`SimdError`] when `VJEPA_SIMD` names what is not there.
    pub fn chosen() -> Result<Self, SimdError> {
        CHOSEN.clone().map(|(set, _)| set)
    }

    /// The best set that this processor has.
    pub fn best_of_processor() -> Self {
        Self::ALL.into_iter().rev().find(|set| set.in_processor()).unwrap_or(Self::Scalar)
    }

    /// The set that the `gemm` crate takes for matrix products, which `VJEPA_SIMD` does not cap.
    pub fn of_products() -> Self {
        // What `gemm` and our kernels are compiled for is one feature, `x86-v4`.
        Self::available().last().copied().unwrap_or(Self::Scalar)
    }

    /// What runs kernels compiled for this set; none where the processor or this build lacks it.
    pub(super) fn arch(self) -> Option<Arch> {
        match self {
            Self::Scalar => Some(Arch::Scalar),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().map(Arch::V3),
            #[cfg(all(target_arch = "x86_64", feature = "x86-v4"))]
            Self::Avx512 => pulp::x86::V4::try_new().map(Arch::V4),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().map(Arch::Neon),
            _ => None,
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `VJEPA_SIMD` asks for what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimdError {
    /// Not the name of an instruction set.
    #[error("{VARIABLE}={value} is not a valid instruction set: write one of {}, or unset it", names(.available))]
    Unknown {
        /// What was written, shortened.
        value: String,
        /// What could be.
        available: Vec<InstructionSet>,
    },
    /// The processor does not have it.
    #[error("{VARIABLE}={set}, but this processor does not have it: write one of {}, or unset it", names(.available))]
    NotInProcessor {
        /// The instruction set.
        set: InstructionSet,
        /// What it has.
        available: Vec<InstructionSet>,
    },
    /// This build has no kernels for it.
    #[error(
        "{VARIABLE}={set}, but this build has no kernels for it: build with the feature x86-v4, write one of {}, or unset \
         it", names(.available)
    )]
    NotBuilt {
        /// The instruction set.
        set: InstructionSet,
        /// What there is.
        available: Vec<InstructionSet>,
    },
}

fn names(sets: &[InstructionSet]) -> String {
    sets.iter().map(|set| set.name()).collect::<Vec<_>>().join(", ")
}

static CHOSEN: LazyLock<Result<(InstructionSet, Arch), SimdError>> =
    LazyLock::new(|| choose(std::env::var_os(VARIABLE).as_deref()));

/// The best there is, or the set that `cap` names. An empty cap is none, as for most programs' variables.
fn choose(cap: Option<&OsStr>) -> Result<(InstructionSet, Arch), SimdError> {
    let available = InstructionSet::available();
    let Some(cap) = cap.filter(|cap| !cap.is_empty()) else {
        let best = available.last().and_then(|set| Some((*set, set.arch()?)));
        return Ok(best.unwrap_or((InstructionSet::Scalar, Arch::Scalar)));
    };
    let Some(set) = cap.to_str().and_then(InstructionSet::named) else {
        return Err(SimdError::Unknown { value: cap.to_string_lossy().chars().take(40).collect(), available });
    };
    match set.arch() {
        Some(arch) => Ok((set, arch)),
        None if set.in_processor() => Err(SimdError::NotBuilt { set, available }),
        None => Err(SimdError::NotInProcessor { set, available }),
    }
}

/// Runs an operation as it is compiled for the chosen instruction set.
#[inline]
pub(super) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    // No executor is made when the choice is an error (`PlanBackend::check`), so nothing runs at an unwanted speed.
    CHOSEN.as_ref().map_or(Arch::Scalar, |(_, arch)| *arch).dispatch(op)
}

/// Declares a function whose body is compiled for every instruction set, and which runs the chosen one. Inside, `$simd` is
/// [`pulp`]'s token and `$S` its type.
macro_rules! kernel {
    ($(#[$about:meta])* $vis:vis fn $name:ident<$S:ident>($simd:ident $(, $arg:ident: $ty:ty)* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$about])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[allow(non_camel_case_types)]
            struct Kernel<$($arg),*> { $($arg: $arg),* }
            impl pulp::WithSimd for Kernel<$($ty),*> {
                type Output = $crate::plan::cpu::simd::kernel!(@output $($out)?);
                #[inline(always)]
                fn with_simd<$S: pulp::Simd>(self, $simd: $S) -> Self::Output {
                    let Self { $($arg),* } = self;
                    $body
                }
            }
            $crate::plan::cpu::simd::dispatch(Kernel { $($arg),* })
        }
    };
    (@output) => { () };
    (@output $out:ty) => { $out };
}
pub(super) use kernel;

/// `f` on the vectors of slices of one length, and on what is left of them as parts of vectors: a value does not depend on
/// where in a slice it stands. `f` gets the old value of the result and those of the sources.
///
/// # Panics
/// When a source is shorter than the result: a bug of the caller.
#[inline(always)]
pub(super) fn map<S: Simd, const N: usize>(
    simd: S,
    out: &mut [f32],
    sources: [&[f32]; N],
    f: impl Fn(S::f32s, [S::f32s; N]) -> S::f32s,
) {
    // One length for all, which the compiler then knows.
    let split = sources.map(|source| S::as_simd_f32s(&source[..out.len()]));
    let (whole, rest) = S::as_mut_simd_f32s(out);
    let wholes = split.map(|(source, _)| &source[..whole.len()]);
    for (i, out) in whole.iter_mut().enumerate() {
        *out = f(*out, wholes.map(|source| source[i]));
    }
    if !rest.is_empty() {
        let values = f(simd.partial_load_f32s(rest), split.map(|(_, source)| simd.partial_load_f32s(source)));
        simd.partial_store_f32s(rest, values);
    }
}

#[cfg(test)]
mod tests;
