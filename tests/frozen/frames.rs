//! Encoders of single pictures, which get every frame of a clip.

use std::path::Path;

use vjepa_compiler::ir::{Dim, Graph, TensorType};
use vjepa_data::{SamplePlan, ViewPlan};
use vjepa_export::{OnnxOptions, Weights, to_onnx};
use vjepa_recipe::config::Config;
use vjepa_runtime::Runtime;
use vjepa_runtime::library::Search;
use vjepa_weights::TensorFile;

use super::support::{refused, write};
use super::{CONFIG, Scene, json, says};

/// Pictures `f32[B, 3, 32, 32]` to two tokens, the mean colours of the upper and of the lower half: as another program's export,
/// it does not say how pictures are prepared.
fn halves(path: &Path) {
    let (batch, sizes) =
        (|| Dim::symbol("B"), |sizes: &[usize]| sizes.iter().map(|size| Dim::from(*size)).collect::<Vec<_>>());
    let shape = |rest: &[usize]| std::iter::once(batch()).chain(sizes(rest)).collect::<Vec<_>>();
    let mut graph = Graph::new("halves", &["B"]);
    let pixels = graph.input("pixels", TensorType::f32(shape(&[3, 32, 32]))).unwrap();
    let split = graph.reshape(pixels, &shape(&[3, 2, 512])).unwrap();
    let mean = graph.mean(split, &[3]).unwrap();
    let mean = graph.reshape(mean, &shape(&[3, 2])).unwrap();
    let tokens = graph.permute(mean, &[0, 2, 1]).unwrap();
    graph.output("tokens", tokens);
    to_onnx(&graph, &Weights::new(), &OnnxOptions::default()).unwrap().write(path).unwrap();
}

#[test]
fn an_encoder_of_pictures_gets_every_frame() {
    let scene = Scene::new();
    halves(&scene.path("halves.onnx"));
    let probe = |more: &[&str]| {
        let mut command = scene.command("probe");
        command.args(["--encoder", "halves.onnx", "--data", "train.csv", "--out", "p.safetensors", "--cache", "cache"]);
        command.args(["--probe-heads", "3", "--epochs", "2"]).args(more);
        command
    };
    let all = ["--per-frame", "--config", "run.yaml", "--val", "val.csv", "--kind", "linear,attentive"];
    let ort = match Runtime::discover(&Search::default()) {
        Ok(_) => Some("ort"),
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        Err(_) => None,
    };
    for runtime in std::iter::once("tract").chain(ort) {
        let cache = scene.path("cache");
        let _ = std::fs::remove_dir_all(&cache);
        let found = json(probe(&all).args(["--runtime", runtime]));
        let counts = [&found["train"]["videos"], &found["val"]["videos"]].map(|count| count.as_u64());
        assert_eq!((counts, found["features_from_cache"].as_bool()), ([Some(20), Some(20)], Some(false)), "{found}");
        // Tokens are joined in time: frame by frame, upper and lower half.
        let entries = std::fs::read_dir(&cache).unwrap().map(|entry| TensorFile::read(entry.unwrap().path()).unwrap());
        let mut files: Vec<TensorFile> = entries.collect();
        assert_eq!(files.len(), 2);
        files.sort_by_key(|file| file.path().metadata().unwrap().modified().unwrap());
        assert_eq!(files[0].shape("features").unwrap(), [20, 4 * 2, 3]);
        let features = files[0].f32("features").unwrap();
        let preprocessing = Config::from_yaml(CONFIG, "", &[]).unwrap().preprocessing();
        let plan = SamplePlan::Videos(ViewPlan { preprocessing, clips: 1, views: 1, random: None });
        let list = std::fs::read_to_string(scene.path("train.csv")).unwrap();
        for (number, line) in list.lines().enumerate() {
            let clip = plan.prepare(number as u64, Path::new(line.rsplit_once(' ').unwrap().0)).unwrap();
            for (at, got) in features[number * 24..][..24].iter().enumerate() {
                let (frame, half, channel) = (at / 6, at / 3 % 2, at % 3);
                let from = (channel * 4 + frame) * 1024 + half * 512;
                let want = clip[from..from + 512].iter().sum::<f32>() / 512.0;
                assert!((got - want).abs() < 1e-4, "{runtime}, {line}, {frame} {half} {channel}: {got}, not {want}");
            }
        }
        let mut eval = scene.command("eval");
        eval.args(["--encoder", "halves.onnx", "--per-frame", "--config", "run.yaml", "--runtime", runtime]);
        let evaluated = json(eval.args(["--probe", "p.safetensors", "--data", "val.csv"]));
        assert_eq!(evaluated["videos"], 20, "{evaluated}");
    }
    says(&mut probe(&["--per-frame"]), &["halves.onnx", "does not say how its clips are prepared", "--config"]);
    says(&mut probe(&["--config", "run.yaml"]), &["add --per-frame"]);
    write(scene.folder.path(), "wide.yaml", CONFIG.replace("crop_size: 32", "crop_size: 48"));
    // The model's sizes overrule the configuration's.
    json(probe(&["--per-frame", "--config", "wide.yaml", "--kind", "linear"]).args(["--runtime", "tract"]));
    let told = refused(scene.command("probe").args([
        "--data",
        "train.csv",
        "--out",
        "p.safetensors",
        "--encoder",
        "run.yaml",
        "--per-frame",
    ]));
    assert!(told.contains("run.yaml"), "{told}");
}
