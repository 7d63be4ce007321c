//! What is dispatched on this machine, and every other path that the machine has.

use super::*;
use std::io::Write;
use std::process::Command;

/// Lanes of the vectors an operation is compiled with.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

fn lanes(set: InstructionSet) -> usize {
    match set {
        InstructionSet::Scalar => 1,
        InstructionSet::Neon => 4,
        InstructionSet::Avx2 => 8,
        InstructionSet::Avx512 => 16,
    }
}

/// What the processor has, asked without pulp.
#[cfg(target_arch = "x86_64")]
fn best_of_processor() -> InstructionSet {
    let has = |all: &[bool]| all.iter().all(|has| *has);
    let v3 = [is_x86_feature_detected!("avx2"), is_x86_feature_detected!("fma"), is_x86_feature_detected!("bmi2")];
    let v4 = [is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx512bw")];
    match (has(&v3), has(&v4)) {
        (true, true) => InstructionSet::Avx512,
        (true, false) => InstructionSet::Avx2,
        _ => InstructionSet::Scalar,
    }
}

/// As above: every 64-bit ARM has NEON, and elsewhere nothing is compiled but scalar code.
#[cfg(not(target_arch = "x86_64"))]
fn best_of_processor() -> InstructionSet {
    if cfg!(target_arch = "aarch64") { InstructionSet::Neon } else { InstructionSet::Scalar }
}

#[test]
fn the_best_compiled_path_is_dispatched() {
    let best = best_of_processor();
    assert_eq!(InstructionSet::best_of_processor(), best);
    let compiled = if cfg!(feature = "x86-v4") { best } else { best.min(InstructionSet::Avx2) };
    assert_eq!(choose(None).unwrap().0, compiled, "of {:?}", InstructionSet::available());
    assert_eq!(choose(Some(OsStr::new(""))).unwrap().0, compiled);
    // What runs, not what is said of it: under a cap when this process has one.
    let chosen = InstructionSet::chosen().unwrap();
    let cap = std::env::var(VARIABLE).unwrap_or_default();
    assert_eq!(chosen, if cap.is_empty() { compiled } else { InstructionSet::named(&cap).unwrap() });
    assert_eq!(dispatch(Lanes), lanes(chosen));
}

#[test]
fn every_set_that_is_available_is_a_path_of_its_own() {
    let available = InstructionSet::available();
    assert!(available.contains(&InstructionSet::Scalar) && available.is_sorted());
    for set in available {
        let (chosen, arch) = choose(Some(OsStr::new(set.name()))).unwrap();
        assert_eq!((chosen, arch.dispatch(Lanes)), (set, lanes(set)));
        assert!(set.in_processor());
    }
}

#[test]
fn a_cap_that_is_not_there_is_one_sentence_with_the_remedy() {
    let long = "x".repeat(5000);
    for name in ["sse", "AVX2", "avx2 ", "avx-512", "1", long.as_str()] {
        let error = choose(Some(OsStr::new(name))).unwrap_err();
        assert!(matches!(error, SimdError::Unknown { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("write one of scalar") && said.contains("unset it") && said.len() < 300, "{said}");
    }
    for set in InstructionSet::ALL.into_iter().filter(|set| set.arch().is_none()) {
        let error = choose(Some(OsStr::new(set.name()))).unwrap_err();
        let wanted = if set.in_processor() { "this build has no kernels" } else { "this processor does not have it" };
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(error.to_string().contains(set.name()), "{error}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        assert!(choose(Some(OsStr::from_bytes(b"avx\xff"))).is_err());
    }
}

/// Runs the tests of all kernels again, in a process of its own under each cap that this machine has.
#[test]
fn kernels_pass_their_tests_under_every_cap() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    for set in InstructionSet::ALL {
        if set.arch().is_none() {
            // Past the test harness, which keeps what passing tests print.
            let _ = writeln!(std::io::stderr(), "not tested under {VARIABLE}={set}: not in this processor or build");
            continue;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["plan::cpu", "--skip", "kernels_pass_their_tests_under_every_cap"])
            .env(VARIABLE, set.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "under {VARIABLE}={set}:\n{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("the_best_compiled_path_is_dispatched ... ok"), "{said}");
    }
}
