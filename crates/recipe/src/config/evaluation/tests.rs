use super::*;

/// The keys of a released file, with paths and values of our own.
const VIDEO: &str = "nodes: 8\ntasks_per_node: 8\ntag: mine\neval_name: video_classification_frozen\nresume_checkpoint: false\n\
    data:\n  dataset_train: train.csv\n  dataset_val: val.csv\n  dataset_type: VideoDataset\n  num_classes: 4\n  frames_per_clip: 16\n\
    \x20 num_segments: 8\n  num_views_per_segment: 3\n  frame_step: 4\n\
    optimization:\n  attend_across_segments: true\n  num_epochs: 20\n  resolution: 384\n  batch_size: 4\n  weight_decay: 0.01\n\
    \x20 lr: 0.001\n  start_lr: 0.001\n  final_lr: 0.0\n  warmup: 0.\n  use_bfloat16: true\n\
    pretrain:\n  model_name: vit_huge\n  checkpoint_key: target_encoder\n  clip_duration: null\n  frames_per_clip: 16\n  tubelet_size: 2\n\
    \x20 uniform_power: true\n  use_silu: false\n  tight_silu: false\n  use_sdpa: true\n  patch_size: 16\n  folder: models/\n\
    \x20 checkpoint: jepa-latest.pth.tar\n  write_tag: jepa\n";

fn image() -> String {
    let pretrain = &VIDEO[VIDEO.find("pretrain:").unwrap()..];
    format!(
        "nodes: 8\ntag: mine\neval_name: image_classification_frozen\nresume_checkpoint: true\n\
         data:\n  root_path: images/\n  image_folder: birds/\n  num_classes: 5\n  resolution: 224\n  dataset_name: Birds\n\
         optimization:\n  num_epochs: 20\n  batch_size: 16\n  weight_decay: 0.001\n  lr: 0.001\n  start_lr: 0.001\n  final_lr: 0.0\n\
         \x20 warmup: 0.\n  use_bfloat16: true\n{pretrain}"
    )
}

fn read(text: &str) -> Result<Evaluation, String> {
    Evaluation::from_yaml(text, "eval.yaml", &[]).map_err(|error| error.to_string())
}

#[test]
fn a_video_evaluation() {
    let read = read(VIDEO).unwrap();
    assert_eq!(read.encoder.checkpoint, Path::new("models/jepa-latest.pth.tar"));
    assert_eq!((read.encoder.model, read.encoder.key), (ModelName::Huge, CheckpointKey::TargetEncoder));
    assert_eq!((read.classes, read.resolution, read.resume), (4, 384, false));
    let Samples::Videos { train, segments, views, step, attend_across_segments, .. } = &read.samples else { panic!() };
    assert_eq!((train.as_str(), *segments, *views, *step, *attend_across_segments), ("train.csv", 8, 3, 4, true));
    assert_eq!((read.probe.epochs, read.probe.lr, read.probe.clip_grad), (20, [1e-3, 1e-3, 0.0], 1.0));
    let named: Vec<&str> = read.ignored.iter().map(|(key, _)| *key).collect();
    let wanted = ["nodes", "tasks_per_node", "data.dataset_type", "pretrain.use_sdpa", "pretrain.write_tag"];
    assert_eq!(named, wanted);
    assert!(Evaluation::recognises(VIDEO) && !Evaluation::recognises("model: {model_name: vit_tiny}"));
}

#[test]
fn an_image_evaluation() {
    let read = read(&image()).unwrap();
    let Samples::Images { folder, name, frames } = &read.samples else { panic!() };
    assert_eq!((folder.as_path(), name.as_deref(), *frames), (Path::new("images/birds/"), Some("Birds"), 16));
    assert!(read.resume && read.probe.weight_decay == 0.001);
}

#[test]
fn the_step_that_is_not_read_is_named() {
    let text = VIDEO.replace("frame_step: 4", "frame_step: 2");
    let read = read(&text).unwrap();
    assert!(read.ignored.iter().any(|(key, why)| *key == "data.frame_step" && why.contains("pretrain.frame_step")));
    let Samples::Videos { step, .. } = read.samples else { panic!() };
    assert_eq!(step, 4);
}

#[test]
fn settings_are_changed_and_checked() {
    let set = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Evaluation::from_yaml(VIDEO, "eval.yaml", &arguments).map_err(|error| error.to_string())
    };
    assert_eq!(set(&["optimization.num_epochs=3"]).unwrap().probe.epochs, 3);
    let said = set(&["optimization.epochs=3"]).unwrap_err();
    assert!(said.contains("--set optimization.epochs=3") && said.contains("num_epochs"), "{said}");
    assert!(set(&["pretrain.use_silu=true"]).unwrap_err().contains("plain MLPs"));
}

#[test]
fn mistakes_name_the_line() {
    let says = |from: &str, to: &str, words: &[&str]| {
        let said = read(&VIDEO.replacen(from, to, 1)).unwrap_err();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    says("num_classes: 4", "num_clases: 4", &["eval.yaml, line 10", "did you mean `num_classes`"]);
    says("num_classes: 4", "num_classes: 0", &["line 10", "`data.num_classes` must be at least 1"]);
    says("resolution: 384", "resolution: 390", &["`optimization.resolution` is 390", "patches of 16"]);
    says("eval_name: video_classification_frozen", "eval_name: detection", &["line 4", "video_classification_frozen"]);
    says("  model_name: vit_huge\n", "", &["`pretrain.model_name` is missing", "vit_large"]);
    says("dataset_val: val.csv", "dataset_val: ''", &["`data.dataset_val` is missing"]);
    says("checkpoint_key: target_encoder", "checkpoint_key: ema", &["checkpoint_key"]);
    says("lr: 0.001", "lr: -1", &["`optimization.lr` must be 0 or more"]);
    assert!(read("model: {model_name: vit_tiny}\n").unwrap_err().contains("`eval_name` is missing"));
    assert!(read("experiment: {data: {dataset_train: a}}\neval_name: x\n").is_err());
}
