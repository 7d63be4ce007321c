//! `vjepa train` on images beside videos and on clips of several lengths, from real files.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use support::losses;
use vjepa_train::Checkpoint;

/// A small V-JEPA 2.1; `DATA` is the folder of [`data`].
const RECIPE: &str = "\
model: {generation: vjepa2_1, embed_dim: 32, depth: 2, num_heads: 2, levels: [0, 1], pred_embed_dim: 16, pred_depth: 1, pred_num_heads: 1}
data: {datasets: [DATA/short.csv, DATA/long.csv], dataset_fpcs: [4, 8], datasets_weights: [0.5, 0.5], batch_size: 2, crop_size: 32,
  patch_size: 8, num_workers: 1}
img_data: {datasets: [DATA/images], batch_size: 3, crop_size: 32, rank_ratio: 0.5, num_workers: 1}
img_mask: [{num_blocks: 10, spatial_scale: [0.15, 0.15]}]
meta: {dtype: float32, seed: 3}
optimization: {steps: 6, warmup_steps: 2, groups: 2}
logging: {metrics_every: 1, checkpoint_every: 3}
";

/// Two lists of the carried videos and a folder of images.
fn data(folder: &Path) {
    let videos = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures");
    let list =
        |names: &[&str]| names.iter().map(|name| format!("{}\n", videos.join(name).display())).collect::<String>();
    std::fs::write(folder.join("short.csv"), list(&["t0_d0_s0.mp4", "t0_d1_s1.mp4", "t0_d2_s0.mp4"])).unwrap();
    std::fs::write(folder.join("long.csv"), list(&["t1_d1_s0.mp4", "t1_d3_s0.mp4"])).unwrap();
    std::fs::create_dir(folder.join("images")).unwrap();
    for number in 0..5u8 {
        let file = std::fs::File::create(folder.join(format!("images/{number}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, 48, 40);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> = (0..48 * 40 * 3u32).map(|at| (at * u32::from(number + 3) % 251) as u8).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }
}

struct Runs {
    folder: tempfile::TempDir,
    recipe: PathBuf,
}

impl Runs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        data(folder.path());
        let recipe = folder.path().join("recipe.yaml");
        std::fs::write(&recipe, RECIPE.replace("DATA", &folder.path().display().to_string())).unwrap();
        Self { folder, recipe }
    }

    fn at(&self, run: &str) -> PathBuf {
        self.folder.path().join(run)
    }

    fn train(&self, run: &str, extra: &[&str]) -> Command {
        let mut command = Command::cargo_bin("vjepa").unwrap();
        command.args(["train", "--config"]).arg(&self.recipe).timeout(Duration::from_secs(300));
        command.arg("--set").arg(format!("logging.folder={}", self.at(run).display())).args(extra);
        command
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_mixture_that_is_stopped_and_resumed_ends_where_an_uninterrupted_one_does() {
    let runs = Runs::new();
    let told = said(&mut runs.train("whole", &[]));
    let made_of = "1 group of 3 images (32 x 32) and 1 group of 4 clips (4 or 8 frames of 32 x 32)";
    assert!(told.contains(&format!("note: a step is {made_of}")), "{told}");
    runs.train("parts", &["--stop-at", "3"]).assert().success();
    // On other threads, too.
    runs.train("parts", &["--resume", "--set", "data.num_workers=0", "--set", "img_data.num_workers=3"])
        .assert()
        .success();
    let load = |run: &str| Checkpoint::new(&runs.at(run), "jepa").load().unwrap();
    let ((a, record), (b, resumed)) = (load("whole"), load("parts"));
    assert_eq!((record.step, resumed.step), (6, 6));
    assert_eq!(record.step_of, made_of.split(" and ").map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, (_, values)) in &a {
        assert!(values == &b[name].1, "`{name}` differs after resuming");
    }
    let of = losses(&runs.at("whole"));
    assert_eq!(of, losses(&runs.at("parts")));
    assert!(of.len() == 6 && of.iter().all(|loss| loss.is_finite()), "{of:?}");
    // Images and both lengths have left their marks: their embedding, and the second length's token. The tokens of no length
    // stay what they were, and have no moments.
    let moved = |name: &str| a[name].1.iter().any(|value| *value != 0.0);
    for name in ["adam.m.encoder.img_mod_embed", "adam.m.encoder.video_mod_embed", "adam.m.predictor.mask_tokens.1"] {
        assert!(a.keys().any(|key| key == name) && moved(name), "{name} of {:?}", a.keys().collect::<Vec<_>>());
    }
    assert!(!moved("predictor.mask_tokens.2") && !a.contains_key("adam.m.predictor.mask_tokens.2"));
}

#[test]
fn a_mixture_trains_on_bytes() {
    let runs = Runs::new();
    let bytes = ["--set", "data.clip_bytes=true"];
    let run = |name: &str, extra: &[&str]| {
        runs.train(name, extra).assert().success();
        losses(&runs.at(name))
    };
    let (floats, whole) = (run("floats", &[]), run("whole", &bytes));
    assert!(
        floats != whole && floats.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 5e-3 * a),
        "{floats:?} {whole:?}"
    );
    run("parts", &[&bytes[..], &["--stop-at", "3"]].concat());
    assert_eq!(run("parts", &[&bytes[..], &["--resume"]].concat()), whole);
}

/// Lists of masks that are padded change what every kind computes by rounding alone.
#[test]
fn a_mixture_trains_on_padded_masks() {
    let runs = Runs::new();
    let losses = [("plain", "null"), ("padded", "16")].map(|(run, buckets)| {
        let set = format!("optimization.mask_buckets={buckets}");
        runs.train(run, &["--set", &set]).assert().success();
        losses(&runs.at(run))
    });
    let [plain, padded] = &losses;
    assert!(plain.len() == 6 && plain != padded, "{losses:?}");
    for (plain, padded) in plain.iter().zip(padded) {
        assert!((plain - padded).abs() < 1e-3 * plain.abs(), "{losses:?}");
    }
}

/// Images on one rank and clips on the other give what one rank makes of both; so do four groups on two ranks, and sharing the
/// optimiser's state changes no bit.
#[cfg(feature = "mpi")]
#[test]
fn ranks_share_the_kinds_of_a_mixture() {
    use support::ranks::{apart_but, on_ranks, tensors};
    let runs = Runs::new();
    let share = |run: &str, extra: &[&str]| {
        let mut command = on_ranks(2);
        command.args(["train", "--config"]).arg(&runs.recipe).args(extra);
        let output = command.arg("--set").arg(format!("logging.folder={}", runs.at(run).display())).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        told
    };
    for (groups, each) in [(2, "one on each of 2 ranks"), (4, "2 on each of 2 ranks")] {
        let asked = format!("optimization.groups={groups}");
        let extra = ["--set", &asked];
        let [alone, both, sharing] = ["alone", "both", "sharing"].map(|name| format!("{name}{groups}"));
        runs.train(&alone, &extra).assert().success();
        let told = share(&both, &extra);
        assert!(told.contains(each), "{told}");
        // What an L1 loss gives its last bias is a sum of signs: one that cancels to nothing in one order and to rounding in
        // another is no step or a whole one of AdamW's first. Its moments are compared.
        let (loss, weights) = apart_but(&runs.at(&both), &runs.at(&alone), &["predictor.predictor_proj.bias"]);
        println!("{groups} groups: losses {loss:.1e}, weights {weights:.1e}");
        assert!(loss <= 1e-6 && weights <= 1e-6, "{groups} groups: losses {loss:e}, weights {weights:e}");
        let told = share(&sharing, &[&extra[..], &["--set", "optimization.shard_states=true"]].concat());
        assert!(told.contains("2 ranks share the optimiser's state"), "{told}");
        assert!(tensors(&runs.at(&sharing)) == tensors(&runs.at(&both)), "weights, averages or moments differ");
        assert_eq!(losses(&runs.at(&sharing)), losses(&runs.at(&both)));
    }
}

#[test]
fn what_a_step_is_made_of_is_told_without_training() {
    let runs = Runs::new();
    let told = said(&mut runs.train("none", &["--dry-run"]));
    assert!(
        told.contains("6 steps of 1 group of 3 images (32 x 32) and 1 group of 4 clips (4 or 8 frames of"),
        "{told}"
    );
    let json: serde_json::Value = serde_json::from_str(
        said(&mut runs.train("none", &["--dry-run", "--json"])).lines().find(|l| l.starts_with('{')).unwrap(),
    )
    .unwrap();
    assert_eq!(json["step_of"].as_array().unwrap().len(), 2);
    assert!(json["flops"].as_u64().unwrap() > 0 && json["peak_memory"].as_u64().unwrap() > 0, "{json}");
    assert!(!runs.at("none").join("jepa-latest.safetensors").exists());
}

#[test]
fn one_kind_alone_is_trained_as_it_was() {
    // Without images and with one length the run is the plain one of the same data, whatever the mixture's code does.
    let runs = Runs::new();
    let plain = std::fs::read_to_string(&runs.recipe).unwrap();
    let plain: String =
        plain.lines().filter(|line| !line.starts_with("img_")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&runs.recipe, plain.replace("[4, 8]", "[8, 8]")).unwrap();
    let told = said(&mut runs.train("alone", &[]));
    assert!(!told.contains("a step is"), "{told}");
    let (_, record) = Checkpoint::new(&runs.at("alone"), "jepa").load().unwrap();
    assert!(record.step_of.is_empty() && record.step == 6);
}

#[test]
fn what_cannot_be_mixed_is_refused_in_one_sentence() {
    let runs = Runs::new();
    for (extra, words) in [
        (vec!["--eager"], "--eager computes clips of one length"),
        (vec!["--set", "optimization.groups=1"], "raise optimization.groups"),
        (
            vec!["--set", "optimization.groups=3", "--set", "img_data.rank_ratio=0.34", "--set", "data.batch_size=3"],
            "cannot be shared by the 2 groups of videos",
        ),
        (vec!["--set", "img_data.datasets=[nowhere]"], "nowhere"),
        (vec!["--set", "data.num_clips=2"], "need one clip of a video"),
    ] {
        let told = said(&mut runs.train("bad", &extra));
        let error = told.lines().filter(|line| line.starts_with("error:")).collect::<Vec<_>>();
        assert!(error.len() == 1 && error[0].contains(words), "{extra:?}: {told}");
    }
    // Another kind of step is another run.
    runs.train("run", &["--stop-at", "1"]).assert().success();
    let told = said(&mut runs.train("run", &["--resume", "--set", "img_mask.0.num_blocks=4"]));
    assert!(told.contains("`img_mask.0.num_blocks`") && told.contains("error:"), "{told}");
}
