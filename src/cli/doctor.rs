//! `vjepa doctor`: what this machine offers, and how to get what is missing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vjepa_runtime::library::Search;
use vjepa_runtime::plan::{Device, InstructionSet, gpus};
use vjepa_runtime::{Runtime, available_memory};

use super::CliError;
use crate::table::{indented, words};
use vjepa_lab::bench::paths;

/// Show what this machine offers for training and running models, and how to get what is missing
#[derive(clap::Args)]
pub struct Args {
    /// ONNX Runtime's shared library [default: searched for]
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One component that was looked for.
struct Finding {
    key: &'static str,
    found: bool,
    /// Description, or what its absence means.
    what: String,
    /// How to get it.
    remedy: Option<String>,
}

/// Runs the command. Missing components are not errors: all of them are optional.
pub fn run(args: &Args) -> Result<(), CliError> {
    let findings = [processor(), simd()?, memory(), onnx_runtime(args), cuda(), wgpu(), tensorrt(), ffmpeg()];
    let findings: Vec<Finding> = findings.into_iter().chain(nccl()).collect();
    if args.json {
        let mut about = serde_json::Map::new();
        about.insert("vjepa".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        for finding in &findings {
            let entry: Value = json!({"found": finding.found, "what": finding.what, "remedy": finding.remedy});
            about.insert(finding.key.to_owned(), entry);
        }
        if let (Some(Value::Object(simd)), Value::Object(paths)) = (about.get_mut("simd"), paths()) {
            simd.extend(paths);
        }
        println!("{}", Value::Object(about));
        return Ok(());
    }
    let training = match (cfg!(feature = "cuda-base"), cfg!(feature = "wgpu-base")) {
        (false, false) => "CPU training",
        (true, false) => "training on CPU and CUDA (experimental)",
        (false, true) => "training on CPU and wgpu (experimental)",
        (true, true) => "training on CPU, CUDA and wgpu (experimental)",
    };
    let decoders = if cfg!(feature = "ffmpeg") { ", FFmpeg" } else { "" };
    println!("vjepa {}: pure-Rust video decoders (H.264, VP9){decoders}, {training}, tract", env!("CARGO_PKG_VERSION"));
    let mut rows = Vec::new();
    for finding in &findings {
        let mark = if finding.found { "yes" } else { "no" };
        rows.push(vec![mark.to_owned(), finding.key.to_owned(), finding.what.clone()]);
        if let Some(remedy) = &finding.remedy {
            rows.push(vec![String::new(), String::new(), format!("-> {remedy}")]);
        }
    }
    print!("{}", indented(&words(&[], rows)));
    Ok(())
}

fn processor() -> Finding {
    let cores = vjepa_runtime::cores().unwrap_or(1);
    let extensions = extensions();
    let fast = extensions.is_empty() || extensions.contains(&"avx2") || extensions.contains(&"neon");
    let listed = if extensions.is_empty() { "no known SIMD extensions".to_owned() } else { extensions.join(", ") };
    Finding {
        key: "processor",
        found: true,
        what: format!("{cores} cores usable, {}: {listed}", std::env::consts::ARCH),
        remedy: (!fast).then(|| "without AVX2 training is several times slower; use a newer machine".to_owned()),
    }
}

/// The instruction set of the CPU kernels and matrix products.
fn simd() -> Result<Finding, CliError> {
    let (kernels, products) = (InstructionSet::chosen()?, InstructionSet::of_products());
    let best = InstructionSet::best_of_processor();
    let remedy = if kernels < products {
        Some("VJEPA_SIMD caps the kernels: unset it for full speed".to_owned())
    } else if products < best {
        Some(format!("this build omits {best}: enable the feature x86-v4 for full speed"))
    } else {
        None
    };
    Ok(Finding {
        key: "simd",
        found: true,
        what: format!("kernels use {kernels}, matrix products {products}; the processor has {best}"),
        remedy,
    })
}

#[cfg(target_arch = "x86_64")]
fn extensions() -> Vec<&'static str> {
    let known = [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
    ];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn extensions() -> Vec<&'static str> {
    if std::arch::is_aarch64_feature_detected!("neon") { vec!["neon"] } else { Vec::new() }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn extensions() -> Vec<&'static str> {
    Vec::new()
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find(|line| line.starts_with("MemTotal:")).and_then(|line| {
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kibibytes| kibibytes / (1 << 20) as f64)
    });
    match (total, available_memory().map(|bytes| bytes as f64 / (1 << 30) as f64)) {
        (Some(total), Some(free)) => Finding {
            key: "memory",
            found: true,
            what: format!("{total:.1} GiB, {free:.1} GiB of it available"),
            remedy: (free < 2.0).then(|| "the quickstart needs 2 GiB; close other programs".to_owned()),
        },
        _ => Finding { key: "memory", found: false, what: "not known on this system".to_owned(), remedy: None },
    }
}

fn onnx_runtime(args: &Args) -> Finding {
    let key = "onnxruntime";
    match Runtime::discover(&Search { explicit: args.ort_lib.clone(), ..Search::default() }) {
        Ok(library) => Finding { key, found: true, what: library.to_string(), remedy: None },
        Err(error) => Finding {
            key,
            found: false,
            what: "not found; models run on tract, about half as fast".to_owned(),
            remedy: Some(error.to_string()),
        },
    }
}

fn cuda() -> Finding {
    let key = "cuda";
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").ok();
    let library = find_library("libcuda.so");
    match (driver, library) {
        (Some(driver), Some(library)) => {
            let version = driver.lines().next().unwrap_or_default().trim().to_owned();
            let (use_, remedy) = match Device::open("cuda:0") {
                Ok(_) => (format!("--device runs plans on it (experimental): {}", listed("cuda")), None),
                Err(error) => ("plans run on the CPU only".to_owned(), Some(error.to_string())),
            };
            Finding { key, found: true, what: format!("{version} ({}); {use_}", library.display()), remedy }
        }
        (None, None) => Finding {
            key,
            found: false,
            what: if cfg!(feature = "cuda-base") {
                "no NVIDIA driver; training runs on the CPU"
            } else {
                "not in this build; training runs on the CPU"
            }
            .to_owned(),
            remedy: Some(
                if cfg!(feature = "cuda-base") {
                    "on a machine with an NVIDIA GPU, install its driver"
                } else {
                    "for NVIDIA GPUs (experimental), build with --features cuda"
                }
                .to_owned(),
            ),
        },
        (driver, _) => Finding {
            key,
            found: false,
            what: if driver.is_some() {
                "driver loaded, but no libcuda.so"
            } else {
                "libcuda.so found, but no driver loaded"
            }
            .to_owned(),
            remedy: Some(
                "reinstall the NVIDIA driver; in a container, start it with the GPU passed through".to_owned(),
            ),
        },
    }
}

/// GPUs of any vendor, and software that stands in for one.
fn wgpu() -> Finding {
    let key = "wgpu";
    match gpus("wgpu") {
        None => Finding {
            key,
            found: false,
            what: "not in this build".to_owned(),
            remedy: Some("for GPUs of any vendor (experimental), build with --features wgpu".to_owned()),
        },
        Some(found) if found.is_empty() => Finding {
            key,
            found: false,
            what: "no device of Vulkan or Metal; training runs on the CPU".to_owned(),
            remedy: Some(
                "install the graphics driver; as a stand-in, Mesa's mesa-vulkan-drivers and libvulkan1".to_owned(),
            ),
        },
        Some(_) => Finding { key, found: true, what: listed(key), remedy: None },
    }
}

/// The GPUs of a back end, a line each.
fn listed(back_end: &str) -> String {
    let found = gpus(back_end).unwrap_or_default();
    found.iter().map(|(device, about)| format!("{device} is {about}")).collect::<Vec<_>>().join("\n")
}

/// Floats of the sum that NCCL is tried with.
const SUMMED: usize = 1 << 20;

/// NCCL on the first GPU alone, where this build has it and there is a GPU.
fn nccl() -> Option<Finding> {
    let gpu = gpus("cuda")?.first()?.0.clone();
    let (key, remedy) = ("nccl", Some("needed only for several GPUs: install NCCL (libnccl.so.2)".to_owned()));
    match vjepa_collective::try_nccl(0, SUMMED) {
        Ok(None) => None,
        Ok(Some(took)) => {
            let what = format!("a sum of {SUMMED} floats on {gpu} alone is right, {:.2} ms", took.as_secs_f64() * 1e3);
            Some(Finding { key, found: true, what, remedy: None })
        }
        Err(error) => Some(Finding { key, found: false, what: error.to_string(), remedy }),
    }
}

fn tensorrt() -> Finding {
    let key = "tensorrt";
    match find_library("libnvinfer.so") {
        Some(library) => Finding { key, found: true, what: library.display().to_string(), remedy: None },
        None => Finding {
            key,
            found: false,
            what: "no libnvinfer; models run on tract or ONNX Runtime".to_owned(),
            remedy: Some(
                "useful only with an NVIDIA GPU: install TensorRT 10 and add its libraries to LD_LIBRARY_PATH"
                    .to_owned(),
            ),
        },
    }
}

/// The FFmpeg libraries of this build.
fn ffmpeg() -> Finding {
    let key = "ffmpeg";
    if let Some(library) = vjepa_video::ffmpeg_version() {
        let what = format!("{library}; reads what the pure-Rust decoders do not");
        return Finding { key, found: true, what, remedy: None };
    }
    Finding {
        key,
        found: false,
        what: "not in this build; not needed for H.264 and VP9".to_owned(),
        remedy: Some("for other codecs build with --features ffmpeg, or re-encode them: `vjepa data pack --ffmpeg ffmpeg`, or `ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4`".to_owned()),
    }
}

/// The first file in the loader's usual folders whose name begins with `name`.
fn find_library(name: &str) -> Option<PathBuf> {
    let variable = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let folders = std::env::split_paths(&variable)
        .chain(["/usr/local/nvidia/lib64", "/usr/local/cuda/lib64"].map(PathBuf::from))
        .chain(usual.map(PathBuf::from));
    folders.filter(|folder| !folder.as_os_str().is_empty()).find_map(|folder| in_folder(&folder, name))
}

fn in_folder(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.into_iter().next()
}
