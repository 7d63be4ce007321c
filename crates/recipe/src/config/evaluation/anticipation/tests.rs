use super::*;

/// The keys of a released file, with paths and values of our own.
const FILE: &str = "nodes: 8\ntag: mine\neval_name: action_anticipation_frozen\nfolder: /out\nresume_checkpoint: true\nexperiment:\n\
    \x20 classifier: {num_probe_blocks: 4, num_heads: 16}\n  data:\n    dataset: EK100\n    base_path: kitchens\n    file_format: 0\n\
    \x20   dataset_train: train.csv\n    dataset_val: val.csv\n    frames_per_clip: 32\n    frames_per_second: 8\n    resolution: 256\n\
    \x20   anticipation_time_sec: [1.0, 1.0]\n    auto_augment: true\n    train_anticipation_point: [0.0, 0.25]\n  optimization:\n\
    \x20   num_epochs: 20\n    batch_size: 2\n    use_bfloat16: true\n    use_focal_loss: true\n    multihead_kwargs:\n\
    \x20   - {weight_decay: 0.1, final_weight_decay: 0.1, lr: 0.005, start_lr: 0.004, final_lr: 0.0, warmup: 1.}\n\
    model_kwargs:\n  checkpoint: vitl.pt\n  module_name: any\n  wrapper_kwargs: {no_predictor: false, num_output_frames: 2, num_steps: 1}\n\
    \x20 pretrain_kwargs:\n    encoder: {model_name: vit_large, checkpoint_key: target_encoder, tubelet_size: 2, patch_size: 16, uniform_power: true, use_rope: true}\n\
    \x20   predictor: {model_name: vit_predictor, num_frames: 64, depth: 12}\n";

fn read(text: &str) -> Result<Anticipation, String> {
    Anticipation::from_yaml(text, "ek100.yaml", &[]).map_err(|error| error.to_string())
}

#[test]
fn a_released_file_is_read_and_what_has_no_effect_is_named() {
    assert!(Anticipation::recognises(FILE) && !Anticipation::recognises("eval_name: other\n"));
    let read = read(FILE).unwrap();
    assert_eq!((read.frames, read.fps, read.seconds, read.resolution), (32, 8.0, 1.0, 256));
    assert_eq!((read.sizes, read.epochs, read.batch_size, read.from_start), ([4, 16], 20, 2, false));
    let head = HeadTraining { lr: [4e-3, 5e-3, 0.0], warmup: 1.0, weight_decay: 0.1, final_weight_decay: 0.1 };
    assert_eq!((read.heads, read.val.as_path()), (vec![head], Path::new("val.csv")));
    let named: Vec<&str> = read.ignored.iter().map(|(key, _)| *key).collect();
    assert!(named.contains(&"model_kwargs.pretrain_kwargs.predictor"));
    let training = AnticipationTraining {
        seconds: [1.0, 1.0],
        point: [0.0, 0.25],
        auto_augment: true,
        motion_shift: false,
        reprob: 0.0,
        scale: [0.08, 1.0],
        keys: vec!["experiment.data.train_anticipation_point", "experiment.data.auto_augment"],
    };
    assert_eq!(read.training, Some(training));
    let of_encoder: Vec<_> =
        named.iter().filter_map(|key| key.strip_prefix("model_kwargs.pretrain_kwargs.encoder.")).collect();
    assert_eq!(of_encoder, ["uniform_power", "use_rope"]);
    let (encoder, large) = (read.encoder, Some(super::super::ModelName::Large));
    assert_eq!((encoder.model, encoder.patch, encoder.tubelet, encoder.frames), (large, 16, 2, 32));
}

#[test]
fn what_is_done_otherwise_is_refused_by_key_and_line() {
    for (from, to, words) in [
        ("dataset: EK100", "dataset: COIN_anticipation", "experiment.data.dataset"),
        ("num_steps: 1", "num_steps: 2", "one step is rolled out"),
        ("use_focal_loss: true", "use_focal_loss: false", "experiment.optimization.use_focal_loss"),
        ("anticipation_time_sec: [1.0, 1.0]", "anticipation_time_sec: [0.5, 1.0]", "one time"),
        ("base_path: kitchens", "base_path: ''", "name the folder of the videos"),
        ("frames_per_second: 8", "frames_a_second: 8", "frames_a_second"),
        ("lr: 0.005", "lr: -0.005", "below 0"),
        ("patch_size: 16", "patch_size: 0", "must be at least 1"),
        ("train_anticipation_point: [0.0, 0.25]", "train_anticipation_point: [0.5, 0.25]", "ascending numbers"),
        ("auto_augment: true", "reprob: 1.5", "must be from 0 to 1"),
        ("auto_augment: true", "random_resize_scale: [0.0, 1.0]", "above 0, at most 1"),
        ("auto_augment: true", "train_anticipation_time_sec: [2.0, 1.0]", "ascending times"),
    ] {
        assert!(FILE.contains(from), "{from}");
        let told = read(&FILE.replacen(from, to, 1)).unwrap_err();
        assert!(told.contains(words) && told.contains("ek100.yaml"), "{words}: {told}");
    }
    let start = FILE.replace("frames_per_clip: 32\n", "frames_per_clip: 32\n    val_anticipation_point: [1.0, 1.0]\n");
    assert!(read(&start).unwrap().from_start);
}
