//! Official configurations of V-JEPA 2 and 2.1: read unchanged, every key honoured or named.
//!
//! The files here were written for these tests with the keys and values of the released recipes.

use vjepa_recipe::config::{Config, Generation, ModelName, Positions, Rotary};

const SECOND: &str = "
app: vjepa
nodes: 16
tasks_per_node: 8
cpus_per_task: 16
mem_per_gpu: 220G
folder: /runs/vitl.256px.16f
data:
  dataset_type: VideoDataset
  datasets: [k710.csv, ssv2.csv, howto.csv]
  datasets_weights: [0.335, 0.100, 0.565]
  dataset_fpcs: [16, 16, 16]
  batch_size: 24
  crop_size: 256
  patch_size: 16
  tubelet_size: 2
  fps: 4
  num_workers: 8
  persistent_workers: true
  pin_mem: true
data_aug:
  auto_augment: false
  motion_shift: false
  random_resize_aspect_ratio: [0.75, 1.35]
  random_resize_scale: [0.3, 1.0]
  reprob: 0.0
loss:
  loss_exp: 1.0
mask:
  - aspect_ratio: [0.75, 1.5]
    full_complement: false
    max_keep: null
    max_temporal_keep: 1.0
    num_blocks: 8
    spatial_scale: [0.15, 0.15]
    temporal_scale: [1.0, 1.0]
  - aspect_ratio: [0.75, 1.5]
    full_complement: false
    max_keep: null
    max_temporal_keep: 1.0
    num_blocks: 2
    spatial_scale: [0.7, 0.7]
    temporal_scale: [1.0, 1.0]
meta:
  dtype: bfloat16
  eval_freq: 100
  load_checkpoint: false
  read_checkpoint: null
  save_every_freq: 50
  seed: 239
  skip_batches: -1
  sync_gc: true
  use_sdpa: true
model:
  model_name: vit_large
  pred_depth: 12
  pred_embed_dim: 384
  pred_num_heads: 12
  uniform_power: true
  use_activation_checkpointing: true
  use_mask_tokens: true
  use_rope: true
  use_silu: false
  use_pred_silu: false
  wide_silu: true
  compile_model: false
  zero_init_mask_tokens: true
optimization:
  betas: [0.9, 0.999]
  ema: [0.99925, 0.99925]
  epochs: 10
  eps: 1.0e-8
  final_lr: 0.000525
  final_weight_decay: 0.04
  ipe: 300
  ipe_scale: 1.25
  is_anneal: false
  lr: 0.000525
  start_lr: 0.0001
  warmup: 40
  weight_decay: 0.04
";

/// What V-JEPA 2.1's file has besides or instead.
const THIRD: [(&str, &str); 6] = [
    ("app: vjepa", "app: vjepa_2_1"),
    (
        "loss:\n  loss_exp: 1.0",
        "loss:\n  loss_exp: 1.0\n  predict_all: true\n  weight_distance_loss: true\n  offset_context_loss: false\n  shift_by_n: 0",
    ),
    ("vit_large\n  pred_depth: 12", "vit_gigantic_xformers\n  pred_depth: 24"),
    (
        "  use_rope: true",
        "  use_rope: true\n  interpolate_rope: true\n  img_temporal_dim_size: 1\n  modality_embedding: true\n  \
      lambda_value_img: 0.5\n  lambda_value_vid: 0.5\n  lambda_progressive: true\n  normalize_predictor: false\n  \
      levels_predictor: 4\n  n_registers: 0\n  n_registers_predictor: 0\n  has_cls_first: false\n  is_causal: false\n  \
      pred_is_causal: false\n  init_type: default",
    ),
    ("epochs: 10", "epochs: 1000\n  use_radamw: false"),
    (
        "loss:",
        "img_data:\n  dataset_type: VideoDataset\n  datasets: [in1k.csv]\n  dataset_fpcs: [1]\n  batch_size: 36\n  crop_size: 256\n  rank_ratio: 0.5\n  num_workers: 8\nimg_mask:\n  - aspect_ratio: [0.75, 1.5]\n    full_complement: false\n    max_keep: null\n    max_temporal_keep: 1.0\n    num_blocks: 10\n    spatial_scale: [0.15, 0.15]\n    temporal_scale: [1.0, 1.0]\nloss:",
    ),
];

fn changed(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

fn read(text: &str) -> Config {
    Config::from_yaml(text, "official.yaml", &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str, sets: &[&str]) -> String {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::from_yaml(text, "official.yaml", &sets).unwrap_err().to_string()
}

#[test]
fn the_first_stage_of_the_second_generation() {
    let config = read(SECOND);
    assert_eq!((config.model.generation, config.model.model_name), (Generation::V2, Some(ModelName::Large)));
    assert_eq!(config.model.positions(), Positions::Rotary(Rotary { tiled: true, interpolate: false }));
    assert_eq!(config.model.predictor_sizes().unwrap().num_heads, 12);
    assert_eq!((config.data.num_frames, config.data.fps, config.data.lengths()), (16, Some(4.0), vec![16]));
    assert_eq!(config.logging.folder.as_deref(), Some("/runs/vitl.256px.16f"));
    assert_eq!((config.optimization.clip_grad, config.context_weight(false)), (None, None));
    // The released recipe ends inside its warm-up.
    let plan = config.optimization.plan(None).unwrap();
    assert_eq!((plan.steps, plan.warmup_steps, plan.schedule_steps), (3000, 12_000, 3750));
    assert!((config.optimization.schedule(&plan).at(2999).lr - 2.0625e-4).abs() < 1e-12);
    // What changes nothing here is named once, with the reason.
    let named: Vec<&str> = config.ignored().into_iter().map(|(key, _)| key).collect();
    for key in [
        "app",
        "cpus_per_task",
        "mem_per_gpu",
        "meta.save_every_freq",
        "meta.sync_gc",
        "model.wide_silu",
        "model.use_activation_checkpointing",
        "data.persistent_workers",
    ] {
        assert_eq!(named.iter().filter(|named| **named == key).count(), 1, "{key} in {named:?}");
    }
    assert!(!named.contains(&"folder") && !named.contains(&"model.use_rope"), "{named:?}");
    assert!(config.sampled_apart().unwrap().contains("`data.fps` (4)"));
    // What was read is written and read again.
    let again = Config { unread: config.unread.clone(), ..read(&config.to_yaml().unwrap()) };
    assert_eq!(again, config);
}

#[test]
fn the_cool_down_of_the_second_generation() {
    let text = changed(
        SECOND,
        &[
            ("is_anneal: false", "is_anneal: true\n  anneal_ckpt: /runs/e800.pt\n  resume_anneal: true"),
            ("final_lr: 0.000525", "final_lr: 1.0e-6"),
            ("epochs: 10", "epochs: 40"),
            ("warmup: 40", "warmup: 0"),
            ("[16, 16, 16]", "[64, 64, 64]"),
        ],
    );
    let config = read(&text);
    let plan = config.optimization.plan(None).unwrap();
    assert_eq!((plan.warmup_steps, plan.schedule_steps, config.data.num_frames), (0, 15_000, 64));
    let schedule = config.optimization.schedule(&plan);
    assert!((schedule.at(0).lr - 5.249_650_7e-4).abs() < 5e-12 && (schedule.at(11_999).lr - 1.058e-4).abs() < 5e-12);
    assert_eq!(config.optimization.anneal_ckpt.as_deref(), Some("/runs/e800.pt"));
    assert!(refused(&text, &["optimization.warmup=3"]).contains("a cool-down has no warm-up"));
    assert!(
        refused(&text, &["optimization.is_anneal=false"]).contains("`optimization.anneal_ckpt` names a checkpoint")
    );
}

#[test]
fn the_third_generation_has_images_beside_videos() {
    let config = read(&changed(SECOND, &THIRD));
    assert_eq!(config.model.generation, Generation::V21);
    assert_eq!(config.model.positions(), Positions::Rotary(Rotary { tiled: false, interpolate: true }));
    assert_eq!(config.model.encoder_levels().unwrap(), [11, 23, 37, 47]);
    assert_eq!(config.model.predictor_sizes().unwrap().depth, 24);
    let images = config.img_data.as_ref().unwrap();
    assert_eq!((images.batch_size, images.crop_size, images.rank_ratio), (36, 256, 0.5));
    let image = config.image_geometry().unwrap();
    assert_eq!(image.grid().unwrap().tokens(), 256);
    let pairs = config.image_masks().unwrap().unwrap().pairs(1, 0, 0, 4).unwrap();
    assert_eq!(pairs.len(), 1);
    let weight = config.context_weight(true).unwrap();
    assert_eq!((weight.at(0), weight.at(22_500), weight.at(30_000)), (0.0, 0.25, 0.5));
    let again = Config { unread: config.unread.clone(), ..read(&config.to_yaml().unwrap()) };
    assert_eq!(again, config);
    let named: Vec<&str> = config.ignored().into_iter().map(|(key, _)| key).collect();
    assert!(named.iter().all(|key| !key.starts_with("img_data") && !key.starts_with("loss")), "{named:?}");
    // The cool-down.
    let cool = changed(
        &changed(SECOND, &THIRD),
        &[
            ("is_anneal: false", "is_anneal: true\n  anneal_ckpt: /runs/e1000.pth.tar"),
            ("lambda_progressive: true", "lambda_progressive: false"),
            ("weight_distance_loss: true", "weight_distance_loss: false"),
            ("warmup: 40", "warmup: 0"),
            ("final_lr: 0.000525", "final_lr: 1.0e-6"),
        ],
    );
    let config = read(&cool);
    assert_eq!((config.context_weight(false).unwrap().at(0), config.loss.weight_distance_loss), (0.5, false));
}

#[test]
fn several_lengths_have_masks_each() {
    let config = read(&changed(SECOND, &[("[16, 16, 16]", "[16, 64, 16]")]));
    assert_eq!((config.data.num_frames, config.data.lengths()), (64, vec![16, 64]));
    let buckets = config.length_buckets().unwrap();
    let drawn = buckets.draw(239, 0, 0, &[64, 16, 64]).unwrap();
    let told: Vec<_> = drawn.iter().map(|bucket| (bucket.frames, bucket.samples.clone())).collect();
    assert_eq!(told, [(16, vec![1]), (64, vec![0, 2])]);
    config.check_training().unwrap();
    let kinds = config.kinds().unwrap();
    assert_eq!((kinds.len(), kinds[0].lengths.clone(), kinds[0].images), (1, vec![16, 64], false));
    assert!(config.is_mixed() && config.adds_up() && !read(SECOND).is_mixed());
    // Officially a mask token for each generator of each data set, of which each length learns one.
    assert_eq!((config.mask_tokens(), read(SECOND).mask_tokens()), (6, 6));
}

#[test]
fn images_have_the_first_groups_of_a_step_and_videos_share_the_others() {
    let config = read(&changed(SECOND, &THIRD));
    let groups = config.optimization.groups();
    config.check_training().unwrap();
    let [images, videos] = config.kinds().unwrap().try_into().unwrap();
    assert!(images.images && !videos.images && config.is_mixed());
    assert_eq!((images.groups.clone(), videos.groups.clone()), (0..groups / 2, groups / 2..groups));
    assert_eq!((images.batch, images.lengths.clone()), (36, vec![1]));
    // As many videos as all groups have without images.
    assert_eq!(videos.samples(), groups * config.data.batch_size as u64);
    let told = format!("{} groups of {} clips (16 frames of 256 x 256)", groups / 2, 2 * config.data.batch_size);
    assert_eq!(videos.to_string(), told);
    assert_eq!(images.to_string(), format!("{} groups of 36 images (256 x 256)", groups / 2));
    let data = config.image_data().unwrap();
    assert_eq!((data.num_frames, data.fps, data.grid()), (1, None, [1, 16, 16]));
}

#[test]
fn a_mixture_that_cannot_be_trained_is_refused_in_one_sentence() {
    let third = changed(SECOND, &THIRD);
    let mixed = changed(SECOND, &[("[16, 16, 16]", "[16, 64, 16]")]);
    let first = "model: {model_name: vit_large}\ndata: {datasets: [a.csv, b.csv], dataset_fpcs: [16, 8]}\n\
                 logging: {folder: runs}";
    for (text, sets, told) in [
        (third.as_str(), "optimization.groups=1", "of 1 groups a step floor(1 * 0.5) = 0 is of images"),
        (&third, "optimization.groups=3;img_data.rank_ratio=0.3", "= 0 are of images: raise optimization.groups"),
        (&third, "optimization.groups=5;data.batch_size=4", "cannot be shared by the 3 groups of videos"),
        (&third, "img_data.datasets=[]", "`img_data.datasets` is missing"),
        (&third, "img_data.dataset_type=DriftingTextures", "`img_data.dataset_type` must be VideoDataset"),
        (&mixed, "data.num_clips=2", "need one clip of a video"),
        (&mixed, "model.num_mask_tokens=1", "model.num_mask_tokens is 1"),
        (first, "data.batch_size=2", "the position table of model.generation: vjepa fits one"),
    ] {
        let sets: Vec<String> = sets.split(';').map(str::to_owned).collect();
        let config =
            Config::from_yaml(text, "official.yaml", &sets).unwrap_or_else(|error| panic!("{sets:?}: {error}"));
        let said = config.check_training().unwrap_err().to_string();
        assert!(said.contains(told) && !said.contains('\n'), "{sets:?}: {said}");
    }
}

#[test]
fn contradictions_and_what_is_not_supported_are_named() {
    let third = changed(SECOND, &THIRD);
    for (text, sets, told) in [
        (
            SECOND,
            "model.use_rope=false;model.generation=vjepa2",
            "`model.use_rope` is false, but model.generation is vjepa2",
        ),
        (SECOND, "model.modality_embedding=true", "`model.modality_embedding` is true"),
        (SECOND, "loss.predict_all=true", "`loss.predict_all` is for V-JEPA 2.1"),
        (SECOND, "data.fps=0", "`data.fps` is 0"),
        (SECOND, "data.clip_duration=2.0", "exclude each other"),
        (SECOND, "data.dataset_fpcs=[16, 16]", "lists 2 lengths for 3"),
        (SECOND, "data.dataset_fpcs=[16, 16, 15]", "lists 15"),
        (SECOND, "data.num_frames=8", "`data.num_frames` is 8"),
        (SECOND, "model.use_silu=true", "`model.use_silu` is not supported"),
        (SECOND, "model.num_heads=256", "leaves 4 channels a head"),
        (SECOND, "model.num_heads=24", "must divide the encoder width"),
        (SECOND, "img_data.batch_size=3", "`img_data` is for V-JEPA 2.1"),
        (&third, "model.modality_embedding=false", "`model.modality_embedding` is false"),
        (&third, "model.normalize_predictor=true", "`model.normalize_predictor` is not supported"),
        (&third, "model.is_causal=true", "`model.is_causal` is not supported"),
        (&third, "model.n_registers=4", "`model.n_registers` is not supported"),
        (&third, "model.init_type=xavier_uniform", "`model.init_type` is not supported"),
        (&third, "optimization.use_radamw=true", "`optimization.use_radamw` is not supported"),
        (&third, "optimization.loss_reg_std_mult=3.0", "`optimization.loss_reg_std_mult` is not supported"),
        (&third, "loss.shift_by_n=2", "`loss.shift_by_n` is not supported"),
        (&third, "img_data.crop_size=250", "`img_data.crop_size` is 250"),
        (&third, "img_data.rank_ratio=1.0", "`img_data.rank_ratio` is 1"),
        (&third, "img_data.dataset_fpcs=[2]", "an image is one frame"),
        (&third, "img_mask.0.num_blocks=0", "`img_mask.0.num_blocks` must be at least 1"),
        (&third, "img_mask.0.num_bloks=1", "num_bloks"),
        (&third, "model.depth=13", "`model.levels` must be given for 13 blocks"),
        (&third, "data.crop_size=16", "one patch a side"),
    ] {
        let said = refused(text, &sets.split(';').collect::<Vec<_>>());
        assert!(said.contains(told), "{sets}: {said}");
    }
    let droid = changed(SECOND, &[("app: vjepa", "app: vjepa_droid")]);
    assert!(refused(&droid, &[]).contains("V-JEPA 2-AC's training (`app: vjepa_droid`)"));
}

#[test]
fn this_programs_words_stand_before_official_ones() {
    let text = changed(SECOND, &[("model:", "logging: {folder: own}\nmodel:\n  generation: vjepa2_1")]);
    let config = read(&text);
    assert_eq!((config.model.generation, config.logging.folder.as_deref()), (Generation::V21, Some("own")));
    assert!(config.ignored().iter().any(|(key, _)| *key == "folder"));
    let clipped = changed(SECOND, &[("betas:", "clip_grad: 3.0\n  betas:")]);
    assert_eq!(read(&clipped).optimization.clip_grad, Some(3.0));
    // A configuration of V-JEPA 1 is what it was.
    let first = read("app: vjepa\nmodel: {model_name: vit_large}\n");
    assert_eq!((first.model.generation, first.optimization.clip_grad), (Generation::V1, Some(10.0)));
    assert!(first.img_data.is_none() && !first.to_yaml().unwrap().contains("img_data"));
}
