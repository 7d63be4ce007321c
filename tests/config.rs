//! Configurations as people write them: recipes, mistakes, overrides, and arbitrary damage.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vjepa_recipe::config::{
    Config, ConfigError, Dtype, Evaluation, Normalization, OptimizationConfig, Preprocessing, Sampling,
};
use vjepa_recipe::masks::{MultiBlockConfig, TubeConfig};

fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name)
}

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_yaml(text, "run.yaml", &[])
}

fn with(text: &str, sets: &[&str]) -> Result<Config, ConfigError> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Config::from_yaml(text, "run.yaml", &sets)
}

fn complaint(text: &str) -> String {
    match read(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

/// The smallest configuration.
const SMALL: &str = "model:\n  model_name: vit_tiny\ndata:\n  batch_size: 2\n";

#[test]
fn all_recipes_are_valid() {
    let mut found = 0;
    for entry in std::fs::read_dir(recipe("")).unwrap() {
        let path = entry.unwrap().path();
        // Of fine-tuning, whose model and clips are a checkpoint's, tests/finetune.rs reads.
        let tunes = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("finetune"));
        if path.is_dir() || tunes {
            continue;
        }
        let config = Config::from_file(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        config.check_training().unwrap();
        found += 1;
    }
    assert!(found >= 5);
}

#[test]
fn all_evaluations_are_valid() {
    let mut found = 0;
    for entry in std::fs::read_dir(recipe("evals")).unwrap() {
        Evaluation::from_file(&entry.unwrap().path(), &[]).unwrap_or_else(|error| panic!("{error}"));
        found += 1;
    }
    assert_eq!(found, 21);
}

#[test]
fn official_recipes_are_the_defaults_with_a_model_and_data() {
    let config = Config::from_file(&recipe("vitl16.yaml"), &[]).unwrap();
    let official = Config::default();
    assert_eq!(config.optimization, OptimizationConfig { groups: Some(16 * 8), ..official.optimization.clone() });
    assert_eq!(config.mask, official.mask);
    assert_eq!(config.data_aug, official.data_aug);
    assert_eq!(config.loss, official.loss);
    assert_eq!(config.meta, official.meta);
    assert_eq!(config.data.grid(), [8, 14, 14]);
    let encoder = config.model.sizes().unwrap();
    assert_eq!((encoder.embed_dim, encoder.depth, encoder.num_heads), (1024, 24, 16));
    let predictor = config.model.predictor_sizes().unwrap();
    assert_eq!((predictor.embed_dim, predictor.depth, predictor.num_heads), (384, 12, 16));
    let ignored = ["app", "meta.eval_freq", "meta.use_sdpa", "data.decode_one_clip", "data.pin_mem"];
    let mut named: Vec<&str> = config.ignored().iter().map(|(key, _)| *key).collect();
    named.sort_by_key(|key| ignored.iter().position(|one| one == key));
    assert_eq!(named, ignored, "every key of the file that means nothing here");
    // A section that `--set` begins has the defaults of its other keys, which nobody gave.
    assert!(with(SMALL, &["meta.seed=3", "optimization.lr=0.1"]).unwrap().ignored().is_empty());
    for set in ["meta.use_sdpa=true", "meta={use_sdpa: true}"] {
        let ignored = with(SMALL, &[set]).unwrap().ignored();
        assert_eq!(ignored.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["meta.use_sdpa"], "{set}");
    }
    let one = Config::from_file(&recipe("vitl16.yaml"), &["optimization.groups=1".into()]).unwrap();
    assert_eq!((one.optimization.groups(), official.optimization.groups()), (1, 1));

    let large = Config::from_file(&recipe("vith16_384.yaml"), &[]).unwrap();
    assert_eq!((large.data.batch_size, large.data.grid()), (10, [8, 24, 24]));
}

#[test]
fn the_quickstart_follows_the_recipe() {
    let config = Config::from_file(&recipe("quickstart.yaml"), &[]).unwrap();
    // Every key of ours has an effect.
    assert_eq!(config.ignored(), []);
    assert_eq!(config.data.grid(), [4, 6, 6]);
    let plan = config.optimization.plan(None).unwrap();
    assert_eq!((plan.steps, plan.warmup_steps, plan.schedule_steps, plan.clip_from_step), (750, 75, 937, 0));
    assert_eq!(config.data.normalization, Normalization::PerClip);
    assert_eq!(config.model.predictor_sizes().unwrap().num_heads, 2);
}

#[test]
fn model_and_data_alone_describe_an_encoder() {
    let config = read("model: {model_name: vit_base}\ndata: {crop_size: 112, sampling: exact}").unwrap();
    let record: Preprocessing = config.preprocessing();
    assert_eq!((record.crop_size, record.sampling), (112, Sampling::Exact));
    assert_eq!(config.check_training().unwrap_err().key(), Some("data.datasets"));
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest_key() {
    let text = format!("{SMALL}optimization:\n  # schedule\n  warmpu: 4\n");
    assert_eq!(complaint(&text), "run.yaml, line 7: unknown key `optimization.warmpu`: did you mean `warmup`?");
    assert!(complaint("modle: {}\n").contains("line 1: unknown key `modle`: did you mean `model`?"));
    let text = format!("{SMALL}mask:\n  - num_blocks: 3\n  - numblocks: 2\n");
    assert!(complaint(&text).contains("line 7: unknown key `mask.1.numblocks`: did you mean `num_blocks`?"));
    let text = format!("{SMALL}loss: {{qqqqqqqq: 1}}\n");
    assert!(
        complaint(&text).contains(
            "known keys here are loss_exp, objective, offset_context_loss, pixel_target, predict_all, reg_coeff"
        ),
        "{}",
        complaint(&text)
    );
}

/// Names of other programs, and keys of other sections.
#[test]
fn a_key_by_another_name_is_found() {
    let told = |set: &str| Config::from_yaml(SMALL, "", &[set.to_owned()]).unwrap_err().to_string();
    for (set, meant) in [
        ("optimization.learning_rate=1e-3", "optimization.lr"),
        ("optimization.batch_size=8", "data.batch_size"),
        ("data.max_epochs=8", "optimization.epochs"),
        ("optimization.warmpu=8", "optimization.warmup"),
        ("learning_rate=1e-3", "optimization.lr"),
    ] {
        let told = told(set);
        assert!(told.ends_with(&format!(": did you mean `{meant}`?")), "{told}");
    }
    let far = told("optimization.qqqqqqqqqq=1");
    assert!(far.ends_with(" more; see `vjepa config --explain optimization`"), "{far}");
    // It belongs to another strategy than the configured one.
    assert!(!told("mask.0.ratio=0.5").contains("did you mean"), "{}", told("mask.0.ratio=0.5"));
    assert!(told("mask.0.ratio=0.5").ends_with("; see `vjepa config --explain mask`"));
}

#[test]
fn wrong_types_name_the_key_and_what_is_expected() {
    for (section, expected) in [
        ("optimization: {lr: fast}", "line 5: `optimization.lr` must be a finite number, found the string \"fast\""),
        ("optimization: {lr: .nan}", "must be a finite number"),
        ("optimization: {ema: [0.9]}", "`optimization.ema` must be a list of 2"),
        ("optimization: {epochs: 2.5}", "`optimization.epochs` must be a whole number"),
        ("meta: {seed: -1}", "`meta.seed` must be a whole number"),
        ("meta: {dtype: float64}", "must be one of `float32`, `bfloat16`, `float16`"),
        ("logging: {folder: [a]}", "`logging.folder` must be a string or null, found a list of 1"),
        ("mask: 3", "`mask` must be a list of mask generators"),
        ("loss: 1", "`loss` must be a mapping"),
        ("loss: {loss_exp: null}", "`loss.loss_exp` must be a finite number, found nothing"),
        ("loss: {1: 2}", "a mapping whose keys are names"),
        ("data_aug: {reprob: !odd 1}", "`data_aug.reprob` must be"),
    ] {
        let said = complaint(&format!("{SMALL}{section}\n"));
        assert!(said.contains(expected), "{section}: {said}");
    }
    assert!(complaint("- 1\n- 2").contains("must be a mapping"));
    assert!(complaint("a: [1").contains("run.yaml: not a valid configuration"));
    assert!(complaint(&format!("{SMALL}model: {{}}")).contains("duplicate"));
}

#[test]
fn impossible_values_name_the_key_and_the_rule() {
    let base = "model:\n  model_name: vit_tiny\n";
    for (sets, expected) in [
        (&["data.crop_size=220"][..], "`data.crop_size` is 220; it must be a multiple of data.patch_size, 16"),
        (&["data.num_frames=15"], "`data.num_frames` is 15; it must be a multiple of data.tubelet_size, 2"),
        (&["data.num_frames=1", "data.tubelet_size=1"], "image models"),
        (&["data.batch_size=0"], "`data.batch_size` is 0"),
        (&["data.patch_size=0"], "`data.patch_size` is 0"),
        (&["data.tubelet_size=0"], "`data.tubelet_size` is 0"),
        (&["data.crop_size=8192", "data.patch_size=1"], "tokens"),
        (&["model.num_heads=5"], "`model.num_heads` is 5; it must divide the encoder width"),
        (&["model.pred_embed_dim=64"], "`model.pred_num_heads` is 3"),
        (&["model.pred_embed_dim=33", "model.pred_num_heads=1"], "needs a multiple of 2"),
        (&["model.depth=0"], "`model.depth` is 0"),
        (&["model.embed_dim=99999999999"], "`model.embed_dim` is 99999999999"),
        (&["mask.0.spatial_scale=[1.0, 1.0]", "mask.0.aspect_ratio=[1, 1]"], "`mask.0` leaves no context"),
        (&["mask.0.num_blocks=0"], "`mask.0.num_blocks`"),
        (&["mask.0.num_blocks=5000000"], "`mask.0.num_blocks` is 5000000"),
        (&["mask.1.spatial_scale=[0.5, 0.2]"], "`mask.1.spatial_scale`"),
        (&["mask=[]"], "`mask` must list at least one generator"),
        (&["data.max_bad_fraction=0"], "`data.max_bad_fraction` is 0"),
        (&["data.datasets=[a, b]", "data.datasets_weights=[1]"], "lists 1 weights for 2"),
        (&["data.datasets=[a]", "data.datasets_weights=[0]"], "not all 0"),
        (&["data.normalization={mean: [0,0,0], std: [1,0,1]}"], "deviations above 0"),
        (&["data.dataset_type=DriftingTextures", "data.datasets=[a]"], "must be left out"),
        (&["data.texture_turns=true"], "data.texture_turns"),
        (&["data.dataset_type=DriftingTextures", "data.texture_occluders=17"], "data.texture_occluders"),
        (&["loss.teacher=a.safetensors"], "loss.teacher"),
        (&["loss.objective=pixels", "loss.reg_coeff=0.1"], "loss.reg_coeff"),
        (&["data_aug.random_resize_scale=[0.5, 1.5]"], "`data_aug.random_resize_scale`"),
        (&["optimization.warmup=1000"], "steps of warm-up"),
        (&["optimization.betas=[0.9, 1.0]"], "`optimization.betas`"),
        (&["optimization.ema=[0.9, 1.1]"], "`optimization.ema`"),
        (&["optimization.epochs=0"], "`optimization.epochs`"),
        (&["meta.read_checkpoint=a.pth"], "meta.load_checkpoint is false"),
        (&["logging.metrics_every=0"], "`logging.metrics_every`"),
        (&["logging.write_tag=a/b"], "`logging.write_tag`"),
    ] {
        let said = with(base, sets).map(|c| panic!("{sets:?} accepted: {c:?}")).unwrap_err().to_string();
        assert!(said.contains(expected), "{sets:?}: {said}");
    }
    // From the file, a rule names the line.
    let said = complaint("model:\n  model_name: vit_tiny\n  num_heads: 5\n");
    assert!(said.starts_with("run.yaml, line 3: `model.num_heads` is 5"), "{said}");
    let said = complaint("data:\n  batch_size: 2\n");
    assert!(said.contains("`model.embed_dim` is missing: give `model.model_name`"), "{said}");
}

#[test]
fn a_checkpoint_to_start_from_must_be_named() {
    let text = std::fs::read_to_string(recipe("quickstart.yaml")).unwrap();
    // It still describes the model of a checkpoint that was trained with it.
    let unnamed = with(&text, &["meta.load_checkpoint=true"]).unwrap();
    let error = unnamed.check_training().unwrap_err();
    assert_eq!(error.key(), Some("meta.load_checkpoint"));
    assert!(error.to_string().contains("meta.read_checkpoint") && error.to_string().contains("--resume"), "{error}");
    let named = with(&text, &["meta.load_checkpoint=true", "meta.read_checkpoint=a.pth"]).unwrap();
    named.check_training().unwrap();
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    for set in ["model.use_mask_tokens=false", "meta.dtype=float16"] {
        let error = with(SMALL, &[set]).unwrap_err();
        let key = set.split('=').next().unwrap();
        assert!(matches!(error, ConfigError::Unsupported { .. }), "{set}: {error}");
        assert_eq!(error.key(), Some(key));
        assert!(error.to_string().starts_with(&format!("--set {set}: ")), "{error}");
    }
}

#[test]
fn augmentation_of_official_files_is_read() {
    let config = with(SMALL, &["data_aug.auto_augment=true", "data_aug.reprob=0.25"]).unwrap();
    assert!(config.data_aug.auto_augment && config.data_aug.reprob == 0.25);
    let said = with(SMALL, &["data_aug.reprob=1.5"]).unwrap_err().to_string();
    assert!(said.contains("`data_aug.reprob` is 1.5; it is a probability"), "{said}");
    let textures = std::fs::read_to_string(recipe("quickstart.yaml")).unwrap();
    let said = with(&textures, &["data_aug.auto_augment=true"]).unwrap_err().to_string();
    assert!(said.contains("drifting textures"), "{said}");
}

#[test]
fn overrides_are_typed_and_checked_like_the_file() {
    let config = with(
        SMALL,
        &[
            "mask.0.num_blocks=4",
            "optimization.lr=1e-3",
            "meta.dtype=float32",
            "logging.folder=out",
            "optimization.ipe=null",
        ],
    )
    .unwrap();
    let masks: Vec<MultiBlockConfig> = config.mask.entries().unwrap();
    assert_eq!((masks.len(), masks[0].num_blocks, masks[1].num_blocks), (2, 4, 2));
    assert_eq!((config.optimization.lr, config.meta.dtype, config.optimization.ipe), (1e-3, Dtype::Float32, None));
    let error = with(SMALL, &["optimization.lr=quick"]).unwrap_err().to_string();
    assert!(error.starts_with("--set optimization.lr=quick: `optimization.lr` must be a finite number"), "{error}");
    let error = with(SMALL, &["optimization.lrr=1"]).unwrap_err().to_string();
    assert!(
        error.contains("--set optimization.lrr=1: unknown key `optimization.lrr`: did you mean `optimization.lr`?"),
        "{error}"
    );
    let error = with(SMALL, &["data.datasets=/data/clips"]).unwrap_err().to_string();
    assert!(error.ends_with("; write --set data.datasets='[a, b]', also for one"), "{error}");
    assert!(with(SMALL, &["mask.2.num_blocks=4"]).is_err());
}

#[test]
fn tubes_are_masks_too() {
    let config = with(SMALL, &["data.mask_type=random_tube", "mask=[{ratio: 0.8}]"]).unwrap();
    assert_eq!(config.mask.kind().name(), "random_tube");
    assert_eq!(config.mask.entries(), Some(vec![TubeConfig { ratio: 0.8 }]));
    // Without a `mask` section the tube's own defaults are what `--set` changes.
    let config = with(SMALL, &["data.mask_type=random_tube", "mask.0.ratio=0.7"]).unwrap();
    assert_eq!(config.mask.entries(), Some(vec![TubeConfig { ratio: 0.7 }]));
    assert!(with(SMALL, &["data.mask_type=random_tube", "mask=[{ratio: 1.5}]"]).is_err());
    // Overrides of block masks would be lost on tubes; they are unknown keys there.
    assert!(with(SMALL, &["data.mask_type=random_tube", "mask.0.num_blocks=4"]).is_err());
}

#[test]
fn what_is_written_reads_back() {
    for name in ["vitl16.yaml", "quickstart.yaml", "tiny.yaml"] {
        let mut config = Config::from_file(&recipe(name), &[]).unwrap();
        // What is written gives every key, also those that are not read.
        let mut again = read(&config.to_yaml().unwrap()).unwrap();
        again.unread.clear();
        config.unread.clear();
        assert_eq!(again, config);
    }
    let custom = with(SMALL, &["data.normalization={mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}"]).unwrap();
    let again = read(&custom.to_yaml().unwrap()).unwrap();
    assert_eq!(Config { unread: Vec::new(), ..again }, custom);
}

#[test]
fn a_missing_file_is_named() {
    let said = Config::from_file(Path::new("no/such.yaml"), &[]).unwrap_err().to_string();
    assert!(said.starts_with("cannot read the configuration no/such.yaml"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Damaged recipes are read or refused; nothing panics or runs away.
    #[test]
    fn damaged_text_never_panics(
        name in prop::sample::select(vec!["vitl16.yaml", "quickstart.yaml", "tiny.yaml"]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[-0-9a-z:.,\\[\\]{} \n&*!#'\"~]{0,6}"), 1..8),
    ) {
        let mut text: Vec<char> = std::fs::read_to_string(recipe(name)).unwrap().chars().collect();
        for (place, remove, insert) in edits {
            let at = place.index(text.len() + 1);
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = read(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_override_never_panics(set in "(mask|model|data|optimization|loss|meta)(\\.[a-z0-9_]{0,12}){0,3}=[-0-9a-z.\\[\\]{}, ]{0,8}") {
        let _ = with(SMALL, &[&set]);
    }
}

/// Standard output of a command that succeeds, standard error of one that fails.
fn vjepa(args: &[&str]) -> (bool, String) {
    let output = assert_cmd::Command::new(env!("CARGO_BIN_EXE_vjepa")).args(args).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn the_command_explains_keys_and_prints_files() {
    let (done, said) = vjepa(&["config", "--explain", "optimization.lr"]);
    assert!(done && said.contains("a finite number; default 0.000625; official"), "{said}");
    let (done, said) = vjepa(&["config", "--explain", "model"]);
    assert!(done && said.contains("model.init") && said.contains("xavier: "), "{said}");
    assert!(vjepa(&["config", "--explain"]).1.contains("random_tube"));
    let (done, said) = vjepa(&["config", "--explain", "optimization.warmpu"]);
    assert!(!done && said.contains("did you mean `optimization.warmup`?"), "{said}");
    let path = recipe("tiny.yaml").display().to_string();
    let (done, said) = vjepa(&["config", "--print", &path, "--set", "optimization.lr=0.5"]);
    assert!(done, "{said}");
    let mut file = Config::from_file(&recipe("tiny.yaml"), &["optimization.lr=0.5".into()]).unwrap();
    file.unread.clear();
    assert_eq!(Config { unread: Vec::new(), ..read(&said).unwrap() }, file);
    let (done, said) = vjepa(&["config", "--print", &path, "--set", "optimization.lr=x"]);
    assert!(!done && said.starts_with("error: --set optimization.lr=x: `optimization.lr` must be"), "{said}");
    // The defaults describe no model, and are printed all the same.
    let (done, said) = vjepa(&["config", "--print"]);
    assert!(done && said.contains("lr: 0.000625"), "{said}");
    assert!(!vjepa(&["config"]).0);
}

#[test]
fn messages_stay_short() {
    let long = "x".repeat(5000);
    for text in [
        format!("{SMALL}{long}: 1\n"),
        format!("{SMALL}loss: {{loss_exp: {long}}}\n"),
        format!("{SMALL}loss: {{loss_exp: [{long}}}\n"),
        format!("{SMALL}loss: {{{long}: 1}}\n"),
        format!("{SMALL}loss: {{{long}: [1}}\n"),
        format!("{SMALL}data: !{long} 1\n"),
        format!("{SMALL}logging: {{write_tag: {long}/}}\n"),
        long.clone(),
    ] {
        let said = complaint(&text);
        assert!(said.len() < 1000 && !said.contains('\n'), "{} characters: {said}", said.len());
    }
    for set in [format!("loss.{long}=1"), format!("loss.loss_exp={long}"), long.clone(), format!("{long}=[")] {
        let said = with(SMALL, &[&set]).unwrap_err().to_string();
        assert!(said.len() < 1000, "{} characters: {said}", said.len());
    }
}
