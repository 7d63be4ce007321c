//! Runs of the official code continued here, and back: weights, moments, counters and the steps after them.

mod support;

use std::path::{Path, PathBuf};

use support::{SMALL_RUN, TINY, losses, recipe, tiny, train, vjepa};
use vjepa_recipe::config::Config;
use vjepa_recipe::masks::{IndexBatch, MaskPair};
use vjepa_train::{Checkpoint, TrainState};
use vjepa_weights::{TensorFile, Tensors};

/// What the golden ten steps of `tiny` were made with.
const GOLDEN_RUN: &str = "
meta: {dtype: float32}
optimization: {ipe: 2, epochs: 5, warmup: 1, start_lr: 0.0001875, lr: 0.000625, final_lr: 1.0e-6, weight_decay: 0.04,
  final_weight_decay: 0.4, ema: [0.998, 1.0], ipe_scale: 1.25, clip_grad: 10.0}
";
const BATCH: usize = 4;

/// The golden checkpoint, where the golden data beside the repository are.
fn golden_checkpoint() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden/tiny_checkpoint/jepa-latest.pth.tar");
    path.is_file().then_some(path)
}

struct Golden {
    config: Config,
    clips: Vec<f32>,
    shape: [usize; 5],
    masks: TensorFile,
}

impl Golden {
    fn read() -> Self {
        Self::run(GOLDEN_RUN, &[])
    }

    /// The clips and masks of the golden run under another one's settings.
    fn run(settings: &str, sets: &[String]) -> Self {
        let config = Config::from_yaml(&format!("{TINY}{settings}"), "", sets).unwrap();
        let file = TensorFile::read(tiny("forward.safetensors")).unwrap();
        let shape: [usize; 5] = file.shape("clip_u8").unwrap().try_into().unwrap();
        let pixels = file.u8("clip_u8").unwrap();
        let (mean, deviation) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let plane: usize = shape[2..].iter().product();
        let normalised = |(i, pixel): (usize, &u8)| {
            let channel = i / plane % 3;
            (f32::from(*pixel) - 255.0 * mean[channel]) / (255.0 * deviation[channel])
        };
        let clips = pixels.iter().enumerate().map(normalised).collect();
        Self { config, clips, shape, masks: TensorFile::read(tiny("masks_10steps.safetensors")).unwrap() }
    }

    fn state(&self) -> TrainState {
        TrainState::new(&self.config, self.config.optimization.plan(None).unwrap(), false).unwrap()
    }

    /// Step `step` (from 0) of the golden run: the clips rolled along the batch, mirrored in odd steps. After the ten golden
    /// ones the masks begin again.
    fn step(&self, state: &mut TrainState, step: usize) -> f64 {
        let per_clip = self.clips.len() / BATCH;
        let mut clips: Vec<f32> = Vec::with_capacity(self.clips.len());
        for sample in 0..BATCH {
            let from = (sample + BATCH - step % BATCH) % BATCH;
            clips.extend_from_slice(&self.clips[from * per_clip..(from + 1) * per_clip]);
        }
        if step % 2 == 1 {
            clips.chunks_mut(self.shape[4]).for_each(<[f32]>::reverse);
        }
        let index = |kind: &str, generator: usize| {
            let name = format!("step{}.mask_{kind}.{generator}", step % 10);
            let &[batch, len] = self.masks.shape(&name).unwrap() else { panic!("{name}") };
            let indices = self.masks.i64(&name).unwrap().into_iter().map(|index| index as i32).collect();
            IndexBatch { batch, len, indices }
        };
        let pair = |generator| MaskPair { context: index("enc", generator), target: index("pred", generator) };
        state.train_step(clips, self.shape, &[pair(0), pair(1)]).unwrap().loss
    }
}

/// Relative L2 distance.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |sum: f64, x: f64| sum + x * x;
    let apart = a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)).fold(0.0, square);
    let size = b.iter().map(|b| f64::from(*b)).fold(0.0, square);
    (apart / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// All weights and moments of both have the same names and, to 1e-3, values; gives the largest distance.
fn assert_close(what: &str, got: &Tensors, want: &Tensors) -> f64 {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{what}");
    let mut largest = 0.0f64;
    for (name, (_, values)) in want {
        // Nothing that stays zero has a relative distance.
        let apart = if values.iter().all(|value| *value == 0.0) { 0.0 } else { distance(&got[name].1, values) };
        assert!(apart <= 1e-3, "{what}: `{name}` is {apart:.2e} apart");
        largest = largest.max(apart);
    }
    largest
}

/// A run whose rates do not change, so that a step does not depend on its number but for AdamW's corrections.
const CONSTANT_RUN: &str = "
meta: {dtype: float32}
optimization: {ipe: 2, epochs: 5, warmup: 0, lr: 0.000625, final_lr: 0.000625, weight_decay: 0.04,
  final_weight_decay: 0.04, ema: [0.998, 0.998], clip_grad: null}
";

#[test]
fn a_cool_down_goes_on_with_the_optimiser() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::run(CONSTANT_RUN, &[]);
    let mut run = golden.state();
    run.set_weights(vjepa_weights::load(&tiny("weights.safetensors")).unwrap().all().unwrap()).unwrap();
    for step in 0..3 {
        golden.step(&mut run, step);
    }
    let files = Checkpoint::new(&folder.path().join("run"), "jepa");
    std::fs::create_dir_all(folder.path().join("run")).unwrap();
    run.save(&golden.config, &files).unwrap();

    let sets = [
        "optimization.is_anneal=true".to_owned(),
        format!("optimization.anneal_ckpt={}", files.latest().display()),
        "optimization.resume_anneal=true".to_owned(),
    ];
    let cool = Golden::run(CONSTANT_RUN, &sets);
    let own = Checkpoint::new(&folder.path().join("cool"), "jepa");
    std::fs::create_dir_all(folder.path().join("cool")).unwrap();
    let mut cooled = cool.state();
    cooled.begin(&cool.config, &own, false).unwrap();
    assert_eq!(cooled.step(), 0, "schedules begin anew");
    golden.step(&mut run, 3);
    cool.step(&mut cooled, 3);
    assert!(cooled.weights() == run.weights(), "the fourth update of one run");

    // What the cool-down saves counts on too, and is what `resume_anneal` goes on with.
    cooled.save(&cool.config, &own).unwrap();
    let mut again = cool.state();
    again.begin(&cool.config, &own, false).unwrap();
    assert_eq!(again.step(), 1);
    golden.step(&mut run, 4);
    cool.step(&mut again, 4);
    assert!(again.weights() == run.weights(), "the fifth update of one run");

    // As the official code would have saved it: one update in no whole epoch of the cool-down, after three of the run.
    let (_, state) = vjepa_weights::load(&own.latest()).unwrap().with_training().unwrap();
    assert_eq!(state.unwrap().updates, Some(4));

    // Weights without moments do not do.
    let bare = tiny("weights.safetensors");
    let sets = [sets[0].clone(), format!("optimization.anneal_ckpt={}", bare.display())];
    let cool = Golden::run(CONSTANT_RUN, &sets);
    let error = cool.state().begin(&cool.config, &Checkpoint::new(folder.path(), "none"), false).unwrap_err();
    assert!(error.to_string().contains("holds no optimiser state"), "{error}");
}

#[test]
fn an_official_run_goes_on_as_our_own() {
    let Some(path) = golden_checkpoint() else {
        eprintln!("left out: the golden checkpoint is not beside the repository");
        return;
    };
    let golden = Golden::read();
    let mut own = golden.state();
    own.set_weights(vjepa_weights::load(&tiny("weights.safetensors")).unwrap().all().unwrap()).unwrap();
    for step in 0..10 {
        golden.step(&mut own, step);
    }

    let folder = tempfile::tempdir().unwrap();
    let files = Checkpoint::new(folder.path(), "jepa");
    let mut official = golden.state();
    official.begin_from_official(&golden.config, &files, &path).unwrap();
    assert_eq!((official.step(), own.step()), (10, 10));
    let before = assert_close("after ten steps", &official.weights(), &own.weights());

    let (a, b) = (golden.step(&mut official, 10), golden.step(&mut own, 10));
    assert!((a - b).abs() <= 1e-5 * b.abs(), "losses of step 11: {a} from the file, {b} of our own run");
    let after = assert_close("after step 11", &official.weights(), &own.weights());
    eprintln!("rel-L2 at most {before:.1e} and {after:.1e}; losses of step 11 {a} and {b}");

    // The settings that differ are named, another number of steps an epoch is refused.
    let mut other = golden.config.clone();
    other.optimization.lr = 1e-3;
    let mut state = golden.state();
    state.begin_from_official(&other, &files, &path).unwrap();
    let changed: Vec<&str> = state.history()[0].changed.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(changed, ["optimization.lr"]);
    other.optimization.ipe = Some(3);
    let mut state = TrainState::new(&other, other.optimization.plan(None).unwrap(), false).unwrap();
    let told = state.begin_from_official(&other, &files, &path).unwrap_err().to_string();
    assert!(told.contains("optimization.ipe") && told.contains("jepa-latest.pth.tar"), "{told}");
}

#[test]
fn a_run_goes_to_the_official_format_and_back_without_a_trace() {
    let [whole, parts, again] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    train(whole.path(), &[]).assert().success();
    train(parts.path(), &["--stop-at", "3"]).assert().success();
    let latest = parts.path().join("jepa-latest.safetensors");
    let official = parts.path().join("jepa-latest.pth.tar");
    vjepa().arg("convert").args([&latest, &official]).assert().success();
    let other = parts.path().join("other");
    train(&other, &["--resume-from", official.to_str().unwrap()]).assert().success();

    // Through a file of our own made of the official one.
    let mut convert = vjepa();
    convert.arg("convert").arg(&official).arg(again.path().join("jepa-latest.safetensors"));
    convert.arg("--config").arg(recipe());
    for set in SMALL_RUN {
        convert.args(["--set", set]);
    }
    convert.assert().success();
    train(again.path(), &["--resume"]).assert().success();

    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap();
    let (want, record) = load(whole.path());
    for folder in [other.as_path(), again.path()] {
        let (got, found) = load(folder);
        assert_eq!((found.step, found.history.len()), (record.step, 1 + usize::from(folder == again.path())));
        assert!(got == want, "{}: weights or moments differ", folder.display());
        assert_eq!(losses(folder), losses(whole.path())[3..]);
    }
}

#[test]
fn what_is_no_official_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |file: &Path| {
        let run = folder.path().join("run");
        let output =
            train(&run, &["--resume-from", file.to_str().unwrap()]).assert().code(1).get_output().stderr.clone();
        String::from_utf8_lossy(&output).lines().last().unwrap_or_default().to_owned()
    };
    let weights = folder.path().join("weights.pt");
    vjepa().arg("convert").arg(tiny("weights.safetensors")).arg(&weights).assert().success();
    assert!(refused(&weights).contains("meta.read_checkpoint"), "{}", refused(&weights));
    let matrix = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/weights/tests/checkpoints");
    assert!(refused(&matrix.join("official.pth.tar")).contains("do not fit the model"));
    assert!(refused(&matrix.join("refused-amsgrad.pth.tar")).contains("amsgrad"));
    vjepa().arg("convert").args([&weights, &folder.path().join("x.onnx")]).assert().code(1);
}
