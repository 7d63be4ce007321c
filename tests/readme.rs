//! The commands that README.md and docs/ show: every flag exists, and the README's own run to their end, at tiny sizes.
//!
//! Left out of the runs: PyTorch (not installed here) and `vjepa quickstart` (minutes; tests/quickstart.rs runs it).

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use support::{SMALL_RUN, pytorch, texture, vjepa};

/// A command as a page shows it.
struct Shown {
    /// `README.md:12`.
    place: String,
    /// Its words, from `vjepa` on.
    words: Vec<String>,
    /// Whether the page shows an error as its output.
    fails: bool,
}

/// The commands of this program in the fenced blocks of a page.
fn shown(page: &Path) -> Vec<Shown> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut found: Vec<Shown> = Vec::new();
    let (mut fenced, mut ours) = (false, false);
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.starts_with("```") {
            (fenced, ours) = (!fenced, false);
        } else if let Some(first) = line.strip_prefix("$ ").filter(|_| fenced) {
            let mut command = first.to_owned();
            while command.ends_with('\\') {
                command.truncate(command.len() - 1);
                command.push_str(lines.next().expect("a line follows a backslash").1);
            }
            let words = words(&command);
            ours = words.first().is_some_and(|program| program == "vjepa");
            if ours {
                let name = page.file_name().unwrap().to_string_lossy();
                found.push(Shown { place: format!("{name}:{}", number + 1), words, fails: false });
            }
        } else if ours && line.starts_with("error: ") {
            found.last_mut().unwrap().fails = true;
        }
    }
    found
}

/// The words of a shell's simple command, up to a comment, a pipe or a redirection. `cargo run --release --` is `vjepa`.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | '>' | '&' | ';') => break,
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match words.strip_prefix(["cargo", "run", "--release", "--"].map(str::to_owned).as_slice()) {
        Some(rest) => std::iter::once("vjepa".to_owned()).chain(rest.iter().cloned()).collect(),
        None => words,
    }
}

/// `...` in a page stands for the checkpoint and the probe that it shows before.
fn filled(words: &[String]) -> Vec<String> {
    let usual = ["--checkpoint", "runs/first/jepa-latest.safetensors", "--probe", "probe.safetensors"];
    let fill = |word: &String| match word.as_str() {
        "..." => usual.map(str::to_owned).to_vec(),
        _ => vec![word.clone()],
    };
    words.iter().flat_map(fill).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_flag_of_every_shown_command_exists() {
    let mut pages = vec![root().join("README.md"), root().join("examples/burn-import/README.md")];
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let commands: Vec<Shown> = pages.iter().flat_map(|page| shown(page)).collect();
    assert!(commands.len() >= 30, "{} commands were found", commands.len());
    for Shown { place, words, .. } in &commands {
        let parsed = vjepa::cli::command().try_get_matches_from(filled(words));
        assert!(parsed.is_ok(), "{place}: {}\n{}", words.join(" "), parsed.unwrap_err());
    }
}

#[test]
fn words_are_split_as_a_shell_does() {
    assert_eq!(words("vjepa a --set k='[x y]' \"b c\" # why"), ["vjepa", "a", "--set", "k=[x y]", "b c"]);
    assert_eq!(words("cargo run --release -- quickstart | less"), ["vjepa", "quickstart"]);
}

/// A folder in which the README's commands can run, with one small model for all of them.
fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["configs", "quickstart/videos", "clips"] {
        std::fs::create_dir_all(at(name)).unwrap();
    }
    for entry in std::fs::read_dir(root().join("configs")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        std::fs::copy(&path, at("configs").join(path.file_name().unwrap())).unwrap();
    }
    let mut list = String::new();
    for class in 0..4 {
        for seed in 0..2 {
            let clip = ["mp4", "webm"].map(|kind| texture(&format!("t{class}_d1_s{seed}.{kind}")));
            let clip = clip.into_iter().find(|path| path.exists()).unwrap();
            let file = clip.file_name().unwrap().to_str().unwrap().to_owned();
            std::fs::copy(&clip, at("clips").join(&file)).unwrap();
            std::fs::copy(&clip, at("quickstart/videos").join(&file)).unwrap();
            list += &format!("clips/{file} {class}\n");
        }
    }
    for name in ["train.csv", "test.csv"] {
        std::fs::write(at(name), &list).unwrap();
    }
    std::fs::copy(texture("t0_d0_s0.mp4"), at("clip.mp4")).unwrap();
    // What the quickstart leaves, and official files.
    support::train(&at("quickstart"), &[]).assert().success();
    let checkpoint = at("quickstart/jepa-latest.safetensors");
    let mut command = vjepa();
    command.args(["compile", "--export", "onnx", "--no-verify", "--checkpoint"]).arg(&checkpoint);
    command.arg("--out").arg(at("quickstart/textures.onnx")).assert().success();
    let tensors = vjepa_weights::load(&checkpoint).unwrap().all().unwrap();
    let models = ["encoder.", "predictor.", "target_encoder."];
    let tensors = tensors.into_iter().filter(|(name, _)| models.iter().any(|model| name.starts_with(model))).collect();
    for name in ["jepa-latest.pth.tar", "vitl16.pth.tar"] {
        std::fs::write(at(name), pytorch::official(&tensors, "module.backbone.")).unwrap();
    }
    folder
}

/// Adds settings before those of the page, which therefore win.
fn set(words: &mut Vec<String>, settings: &[&str]) {
    let flags = settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]);
    words.splice(2..2, flags.collect::<Vec<_>>());
}

/// Gives a flag another value.
fn replace(words: &mut [String], flag: &str, value: &str) {
    let at = words.iter().position(|word| word == flag).unwrap_or_else(|| panic!("there is no {flag}"));
    words[at + 1] = value.to_owned();
}

/// The same command at tiny sizes; none for one that is not run.
fn tiny(shown: &Shown) -> Option<Vec<String>> {
    let mut words = filled(&shown.words);
    let ort = vjepa_runtime::Runtime::discover(&vjepa_runtime::library::Search::default()).is_ok();
    let clips = ["data.num_frames=8", "data.sampling_rate=1", "data.patch_size=8"];
    let small = [&SMALL_RUN[..], &clips].concat();
    let recipe = words.iter().any(|word| word == "configs/quickstart.yaml");
    let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    match shown.words.get(1).map(String::as_str) {
        Some("quickstart") => return None,
        // The first run stops early, so that there is something to resume.
        Some("train") if !recipe && !shown.words.contains(&"--resume".to_owned()) => add(&["--stop-at", "3"]),
        // The profile starts at the fourth step.
        Some("train") if recipe => add(&["--set", "optimization.steps=9"]),
        Some("probe") => add(&["--epochs", "1", "--batch", "4"]),
        Some("compile") => add(&["--min-agreement", "0"]),
        Some("bench") => add(&["--rounds", "1", "--warmup", "0"]),
        // There is no terminal to draw on.
        Some("watch") => add(&["--once"]),
        Some("serve") => add(&["--port", "0", "--grpc-port", "0"]),
        _ => {}
    }
    match (shown.words[1].as_str(), shown.words.get(2).map(String::as_str)) {
        ("train" | "features", _) => set(&mut words, &small),
        ("graph", _) => {
            let flags = small.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]);
            words.extend(flags);
        }
        ("bench", Some("step")) => {
            replace(&mut words, "--model", "tiny");
            let torch = words.iter().position(|word| word == "--torch").expect("the README compares with PyTorch");
            words.drain(torch..torch + 2);
            words.extend(["--frames", "8", "--size", "64", "--batch", "1", "--pred-depth", "1"].map(str::to_owned));
        }
        ("bench", Some("infer")) if !ort => replace(&mut words, "--runtime", "tract"),
        // A model for ONNX Runtime alone cannot be checked without it.
        ("compile", _) if !ort && words.contains(&"ort-cpu".to_owned()) => replace(&mut words, "--target", "portable"),
        _ => {}
    }
    for word in &mut words {
        *word = word.replace("/data/clips", "clips");
    }
    Some(words)
}

/// Starts a server, waits until it listens, and ends it as a person would.
fn serve(folder: &Path, words: &[String]) {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("vjepa"));
    let mut child = command.args(&words[1..]).current_dir(folder).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let listens = lines.any(|line| line.starts_with("grpc  "));
    #[cfg(unix)]
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    #[cfg(not(unix))]
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(listens && (status.success() || cfg!(not(unix))), "{}: {status}", words.join(" "));
}

#[test]
fn the_readmes_commands_run() {
    let folder = scene();
    let readme: PathBuf = root().join("README.md");
    let mut run = 0;
    for command in shown(&readme) {
        let Some(words) = tiny(&command) else { continue };
        run += 1;
        if words[1] == "serve" {
            serve(folder.path(), &words);
            continue;
        }
        let mut process = vjepa();
        process.args(&words[1..]).current_dir(folder.path()).timeout(Duration::from_secs(300));
        let output = process.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let wanted = i32::from(command.fails);
        assert_eq!(output.status.code(), Some(wanted), "{}: {}\n{told}", command.place, words.join(" "));
        if command.fails {
            assert!(told.contains("error: step.vjg was compiled for model.embed_dim 32"), "{told}");
        }
    }
    assert!(run >= 20, "{run} commands were run");
}
