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
    assert_eq!((read.encoder.model, read.encoder.key), (Some(ModelName::Huge), CheckpointKey::TargetEncoder));
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

/// A file in V-JEPA 2's layout.
const SECOND: &str = "nodes: 8\ncpus_per_task: 16\nfolder: out\ntag: mine\neval_name: video_classification_frozen\nresume_checkpoint: true\n\
    experiment:\n  classifier: {num_probe_blocks: 4, num_heads: 16}\n  data:\n    dataset_train: train.csv\n    dataset_val: val.csv\n\
    \x20   dataset_type: VideoDataset\n    num_classes: 4\n    frames_per_clip: 32\n    frame_step: 2\n    num_segments: 4\n    num_views_per_segment: 3\n\
    \x20   resolution: 256\n  optimization:\n    batch_size: 2\n    num_epochs: 100\n    use_bfloat16: true\n    multihead_kwargs:\n\
    \x20   - {lr: 0.001, start_lr: 0.0002, final_lr: 0.0, warmup: 5., weight_decay: 0.8, final_weight_decay: 0.8}\n\
    \x20   - {lr: 0.0003, start_lr: 0.0003, final_lr: 0.0, warmup: 0., weight_decay: 0.1, final_weight_decay: 0.0}\n\
    model_kwargs:\n  checkpoint: models/vitl.pt\n  module_name: evals.x\n  pretrain_kwargs:\n    encoder:\n      model_name: vit_large\n\
    \x20     checkpoint_key: target_encoder\n      tubelet_size: 2\n      patch_size: 16\n      uniform_power: true\n      use_rope: true\n\
    \x20 wrapper_kwargs: {max_frames: 128, out_layers: [17, 19, 21, 23]}\n";

#[test]
fn the_second_layout_has_several_probes() {
    let read = read(SECOND).unwrap();
    assert!(Evaluation::recognises(SECOND) && read.encoder.from_file);
    assert_eq!(read.encoder.checkpoint, Path::new("models/vitl.pt"));
    assert_eq!((read.encoder.model, read.encoder.layers.clone()), (Some(ModelName::Large), Some(vec![17, 19, 21, 23])));
    assert_eq!((read.classes, read.resolution, read.sizes, read.resume), (4, 256, Some([4, 16]), true));
    let Samples::Videos { frames, step, segments, views, attend_across_segments, .. } = &read.samples else { panic!() };
    assert_eq!((*frames, *step, *segments, *views, *attend_across_segments), (32, 2, 4, 3, true));
    let told: Vec<_> =
        read.heads.iter().map(|head| (head.lr, head.warmup, head.weight_decay, head.final_weight_decay)).collect();
    assert_eq!(told, [([2e-4, 1e-3, 0.0], 5.0, 0.8, 0.8), ([3e-4, 3e-4, 0.0], 0.0, 0.1, 0.0)]);
    assert_eq!((read.probe.epochs, read.probe.batch_size, read.probe.clip_grad), (100, 2, f64::INFINITY));
    let named: Vec<&str> = read.ignored.iter().map(|(key, _)| *key).collect();
    for key in ["nodes", "cpus_per_task", "folder", "experiment.data.dataset_type", "model_kwargs.module_name"] {
        assert_eq!(named.iter().filter(|named| **named == key).count(), 1, "{key} in {named:?}");
    }
    let pictures = SECOND
        .replace("video_classification", "image_classification")
        .replace("max_frames: 128, out_layers: [17, 19, 21, 23]", "img_as_video_nframes: 18")
        .replace("dataset_train: train.csv", "root_path: images\n    image_folder: birds");
    let images = Evaluation::from_yaml(&pictures, "", &[]).unwrap();
    let Samples::Images { folder, frames, .. } = &images.samples else { panic!() };
    assert_eq!((folder.as_path(), *frames), (Path::new("images/birds"), 18));
}

#[test]
fn mistakes_of_the_second_layout_name_the_line() {
    let says = |from: &str, to: &str, words: &[&str]| {
        let said = read(&SECOND.replacen(from, to, 1)).unwrap_err();
        assert!(words.iter().all(|word| said.contains(word)) && !said.contains('\n'), "{said}");
    };
    says("num_classes: 4", "num_clases: 4", &["eval.yaml, line", "did you mean `num_classes`"]);
    says("num_classes: 4", "num_classes: 0", &["`experiment.data.num_classes` must be at least 1"]);
    says("resolution: 256", "resolution: 250", &["`experiment.data.resolution` is 250", "patches of 16"]);
    says("frames_per_clip: 32", "frames_per_clip: 31", &["`experiment.data.frames_per_clip` is 31"]);
    says("checkpoint: models/vitl.pt", "checkpoint: ''", &["`model_kwargs.checkpoint` is missing"]);
    says("weight_decay: 0.1,", "weight_decay: -0.1,", &["multihead_kwargs.1", "below 0"]);
    says("use_bfloat16: true", "use_focal_loss: true", &["use_focal_loss", "cross entropy"]);
    says("use_rope: true", "use_silu: true", &["plain MLPs"]);
    says("video_classification_frozen", "action_anticipation_frozen", &["eval_name"]);
    let none = SECOND.lines().filter(|line| !line.contains("- {lr")).collect::<Vec<_>>().join("\n");
    assert!(read(&none.replace("multihead_kwargs:", "")).unwrap_err().contains("multihead_kwargs` is missing"));
}

#[test]
fn carried_files_are_read_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/evals");
    let mut second = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let read = Evaluation::from_file(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        second += usize::from(read.encoder.from_file);
        assert_eq!(read.encoder.from_file, !read.heads.is_empty(), "{}", path.display());
    }
    assert_eq!(second, 6);
}
