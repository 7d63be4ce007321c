//! Every kernel of a ViT-L's step, encoder and probe through NVRTC, on a device that compiles and runs nothing
//! (`tests/gpu/stand-in`). Numbers mean nothing there: what is tested is that the plans lower, that their kernels compile for
//! sm_90a, and that no launch is past the device's limits.
#![cfg(feature = "cuda-base")]

use std::path::Path;
use std::time::Instant;
use vjepa_compiler::interp;
use vjepa_compiler::ir::{DType, Def, Dim, Graph, Sizes, TensorType};
use vjepa_compiler::ops::Op;
use vjepa_compiler::plan::largest_value;
use vjepa_graphs::ProbeConfig;
use vjepa_programs::{MaskSizes, Precision, Probe, TrainOptions, drawn_sizes, encoder_config, objective};
use vjepa_recipe::config::Config;
use vjepa_recipe::counter::noise;
use vjepa_runtime::plan::{Device, DeviceParams, Exchange, HostTensor, Pixels, Resident};

/// Clips of the plans: kernels are chosen by shape, and what differs between few clips and many is their number of blocks.
const CLIPS: usize = 2;

fn config() -> Config {
    config_with(&[])
}

fn config_with(sets: &[&str]) -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/vitl16.yaml");
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    Config::from_file(&file, &sets).unwrap()
}

/// The device, which must be the stand-in: everything else would be given garbage.
fn stand_in() -> Device {
    let device = Device::open("cuda:0").unwrap();
    let about = vjepa_runtime::plan::gpus("cuda").unwrap_or_default();
    assert!(about.iter().any(|(_, about)| about.contains("stand-in")), "cuda:0 is a GPU: {about:?}");
    device
}

/// Writes noise into the first bucket that it is handed, and keeps what lies in all of them: the stand-in's memory is the
/// process's, whose pages copies to the device do not reach.
#[derive(Default)]
struct Kept {
    buckets: Vec<Vec<(Resident, Vec<f32>)>>,
    ended: bool,
}

impl Exchange for Kept {
    fn begin(&mut self, _: usize, _: Vec<f32>) -> Result<(), String> {
        Err("sums travelled over the host".to_owned())
    }

    fn end(&mut self, _: usize) -> Result<Vec<f32>, String> {
        Err("sums travelled over the host".to_owned())
    }

    fn on_device(&self) -> bool {
        true
    }

    fn begin_on(&mut self, _: usize, floats: &[Resident]) -> Result<(), String> {
        let fill = self.buckets.is_empty();
        let of = |floats: &Resident| {
            // SAFETY: the stand-in's addresses are the process's, and the run touches nothing until the bucket has ended.
            let values = unsafe { std::slice::from_raw_parts_mut(floats.address() as *mut f32, floats.count()) };
            if fill {
                values.copy_from_slice(&noise(floats.count()));
            }
            (*floats, values.to_vec())
        };
        self.buckets.push(floats.iter().map(of).collect());
        Ok(())
    }

    fn end_on(&mut self, _: usize) -> Result<(), String> {
        self.ended = true;
        Ok(())
    }
}

#[test]
fn sums_over_ranks_are_taken_where_they_lie() {
    let mut graph = Graph::new("sums", &[]);
    let sizes = [("a", 3), ("b", 500)];
    let inputs = sizes.map(|(name, count)| graph.input(name, TensorType::f32([Dim::from(count)])).unwrap());
    let sums = graph.push(Op::AllReduce, &inputs).unwrap();
    sizes.iter().zip(sums).for_each(|((name, _), sum)| graph.output(name, sum));
    let device = stand_in();
    let mut plan = device.plan(&graph).unwrap();
    let inputs = sizes.map(|(name, count)| (name, HostTensor::f32([count], vec![0.5; count]).unwrap()));
    let mut kept = Kept::default();
    let outputs = plan.run_among(&mut device.params(), inputs.into(), Some(&mut kept)).unwrap();
    assert!(kept.ended);
    // Memory that is there and can be written, of each tensor its own.
    let floats = kept.buckets.iter().flatten();
    let places: Vec<_> = floats.map(|(floats, _)| (floats.address(), floats.count())).collect();
    assert_eq!(places.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 500]);
    let (first, second) = (places[0].0, places[1].0);
    assert!(first + 12 <= second || second + 2000 <= first, "{places:?}");
    for (name, count) in sizes {
        assert_eq!(outputs[name].shape(), [count], "{name}");
    }
}

/// Products of the stand-in for cuBLASLt, which computes: what it is told is what a product's operands and result are. Run with
/// `VJEPA_KERNELS=+linear,+matmul`, which a process reads once.
#[test]
#[ignore = "run with VJEPA_KERNELS=+linear,+matmul"]
fn products_by_cublaslt() {
    let shapes: [(&str, &[usize]); 7] = [
        ("x", &[2, 5, 6]),
        ("weight", &[7, 6]),
        ("bias", &[7]),
        ("a", &[3, 4, 5]),
        ("at", &[3, 5, 4]),
        ("b", &[3, 5, 2]),
        ("bt", &[3, 2, 5]),
    ];
    let mut graph = Graph::new("products", &[]);
    let inputs = shapes
        .map(|(name, shape)| graph.input(name, TensorType::f32(shape.iter().map(|size| Dim::from(*size)))).unwrap());
    let filled = graph.push(Op::AllReduce, &inputs).unwrap();
    let [x, weight, bias, a, at, b, bt] = filled[..] else { unreachable!() };
    let mut products =
        vec![graph.push1(Op::Linear, &[x, weight, bias]).unwrap(), graph.push1(Op::Linear, &[x, weight]).unwrap()];
    for (ta, left) in [(false, a), (true, at)] {
        for (tb, right) in [(false, b), (true, bt)] {
            products.push(graph.push1(Op::MatMul { ta, tb }, &[left, right]).unwrap());
        }
    }
    let done = graph.push(Op::AllReduce, &products).unwrap();
    done.iter().enumerate().for_each(|(i, id)| graph.output(&format!("y{i}"), *id));
    let device = stand_in();
    let mut plan = device.plan(&graph).unwrap();
    let blank = shapes.map(|(name, shape)| {
        let count = shape.iter().product();
        (name, HostTensor::f32(shape.to_vec(), vec![0.0; count]).unwrap())
    });
    let mut kept = Kept::default();
    plan.run_among(&mut device.params(), blank.into(), Some(&mut kept)).unwrap();
    let [operands, results] = &kept.buckets[..] else { panic!("{} buckets", kept.buckets.len()) };
    let sources = shapes
        .iter()
        .zip(operands)
        .map(|((name, shape), (_, values))| ((*name).to_owned(), interp::Tensor::f32(shape.to_vec(), values.clone())));
    let expected = interp::run(&graph, &Sizes::new(), &sources.collect()).unwrap();
    for (i, (_, got)) in results.iter().enumerate() {
        let expected = expected.outputs[&format!("y{i}")].as_f32().unwrap();
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "product {i}: {got} is not {expected}");
        }
    }
    // A whole step asks for them between kernels, in 16 bits as such.
    step(Precision::Bf16);
    // They are sent by another stream than the one that is recorded.
    let mut graph = Graph::new("product", &[]);
    let [x, weight] = [("x", [4usize, 6]), ("weight", [3, 6])]
        .map(|(name, shape)| graph.input(name, TensorType::f32(shape.map(Dim::from))).unwrap());
    let y = graph.push1(Op::Linear, &[x, weight]).unwrap();
    graph.output("y", y);
    let mut plan = device.plan(&graph).unwrap();
    let (mut params, inputs) = zeros(device, &graph, &Sizes::new());
    plan.record_launches();
    for _ in 0..2 {
        plan.run(&mut params, named(&inputs)).unwrap();
    }
    let (_, why) = plan.recorded().unwrap().refused.unwrap();
    assert!(why.contains("cuBLASLt"), "{why}");
}

/// The shape of a value under these sizes.
fn shape_of(ty: &TensorType, sizes: &Sizes) -> Vec<usize> {
    ty.shape.iter().map(|dim| dim.eval(sizes)).collect::<Option<_>>().unwrap_or_default()
}

/// Parameters and inputs of zeros.
fn zeros(device: Device, graph: &Graph, sizes: &Sizes) -> (DeviceParams, Vec<(String, HostTensor)>) {
    let mut params = device.params();
    for value in &graph.values {
        if let Def::Param(name) = &value.def {
            params.zeros(name, &shape_of(&value.ty, sizes));
        }
    }
    (params, blank(graph, sizes))
}

/// Inputs of zeros.
fn blank(graph: &Graph, sizes: &Sizes) -> Vec<(String, HostTensor)> {
    let mut inputs = Vec::new();
    for value in &graph.values {
        let Def::Input(name) = &value.def else { continue };
        let shape = shape_of(&value.ty, sizes);
        let count = shape.iter().product();
        let tensor = match value.ty.dtype {
            DType::I32 => HostTensor::i32(shape, vec![0; count]).unwrap(),
            // Clips as bytes (`data.clip_bytes`), for their kernel.
            _ if shape.len() == 5 => {
                let scaling = vec![(1.0, 0.0); shape[1]];
                HostTensor::Pixels(Pixels::new(shape, vec![0; count], scaling).unwrap())
            }
            _ => HostTensor::f32(shape, vec![0.0; count]).unwrap(),
        };
        inputs.push((name.clone(), tensor));
    }
    inputs
}

fn named(inputs: &[(String, HostTensor)]) -> Vec<(&str, HostTensor)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect()
}

/// Plans a graph and launches all of it once.
fn compiles(graph: &Graph, sizes: &Sizes) {
    let device = stand_in();
    let began = Instant::now();
    let mut plan = device.plan(graph).unwrap();
    let graph = plan.graph().clone();
    let (mut params, inputs) = zeros(device, &graph, sizes);
    plan.run(&mut params, named(&inputs)).unwrap();
    let ours = device.by_kernel(&graph).into_iter().filter(|ours| *ours).count();
    println!(
        "{}: {} nodes, {ours} of them by kernels of ours, compiled and launched in {:.1} s",
        graph.name,
        graph.nodes.len(),
        began.elapsed().as_secs_f64()
    );
}

/// Launched one by one, then recorded and replayed: nothing in the recorded run allocates, waits or loads, which ends a
/// recording, here as with NVIDIA's driver.
#[test]
fn a_step_is_recorded_and_replayed() {
    let config = config();
    let graph = vjepa_programs::step(
        &objective(&config).unwrap(),
        TrainOptions { precision: Precision::F32, ..TrainOptions::of(&config).unwrap() },
    )
    .unwrap();
    let mut sizes = drawn_sizes(&config, MaskSizes::Mean).unwrap();
    sizes.insert("B".to_owned(), CLIPS);
    let device = stand_in();
    let mut plan = device.plan(&graph).unwrap();
    let (mut params, inputs) = zeros(device, &plan.graph().clone(), &sizes);
    plan.read_late();
    plan.record_launches();
    for run in 0..5u64 {
        plan.run(&mut params, named(&inputs)).unwrap();
        let how = plan.recorded().unwrap();
        assert_eq!(how.refused, None);
        assert_eq!((how.sizes, how.replays), (usize::from(run > 0), run.saturating_sub(1)));
    }
    assert!(plan.unread(&params).unwrap().is_some());
}

/// What the device's allocator holds after steps of several sizes, beside the plan's peak; in a process of its own, whose
/// device is empty. The stand-in gives out addresses and no memory, so that a ViT-L's step of 24 clips can be laid out
/// anywhere.
#[test]
#[ignore = "run alone"]
fn memory_is_laid_out_for_the_plan() {
    // The library's own layout takes 1.5 to 3.1 times the peak.
    let (model, clips, precision, most) = match std::env::var("STAND_IN_STEP").as_deref() {
        Ok("f32") => ("vit_large", 24, Precision::F32, 1.15),
        Ok("base") => ("vit_base", 8, Precision::Bf16, 1.5),
        _ => ("vit_large", 24, Precision::Bf16, 1.4),
    };
    let config = config_with(&[&format!("model.model_name={model}"), &format!("data.batch_size={clips}")]);
    let options = TrainOptions { precision, ..TrainOptions::of(&config).unwrap() };
    let graph = vjepa_programs::step(&objective(&config).unwrap(), options).unwrap();
    let sizes = [MaskSizes::Mean, MaskSizes::Largest].map(|which| drawn_sizes(&config, which).unwrap());
    let device = stand_in();
    let mut plan = device.plan(&graph).unwrap();
    let graph = plan.graph().clone();
    if std::env::var_os("STAND_IN_LIBRARYS").is_none() {
        assert_eq!(device.lay_out(largest_value(&graph, &sizes[1])), Ok(true));
    }
    let (mut params, _) = zeros(device, &graph, &sizes[1]);
    plan.read_late();
    for sizes in sizes.iter().cycle().take(4) {
        plan.run(&mut params, named(&blank(&graph, sizes))).unwrap();
    }
    let (peak, held) = (plan.plan().memory(&graph, &sizes[1]).unwrap().peak, params.device_memory().unwrap());
    let ratio = held as f64 / peak as f64;
    println!("{model}, {clips} clips, {precision:?}: {held} bytes held, {ratio:.2} of the plan's peak of {peak}");
    assert!(ratio < most, "{ratio}");
}

/// The official step with its mean mask lengths.
fn step(precision: Precision) {
    step_of(&config(), precision);
}

fn step_of(config: &Config, precision: Precision) {
    let options = TrainOptions { precision, ..TrainOptions::of(config).unwrap() };
    let graph = vjepa_programs::step(&objective(config).unwrap(), options).unwrap();
    let mut sizes = drawn_sizes(config, MaskSizes::Mean).unwrap();
    sizes.insert("B".to_owned(), CLIPS);
    compiles(&graph, &sizes);
}

/// V-JEPA 2: rows are turned on their way into attention. Its width is ViT-L's, by which kernels are chosen.
#[test]
fn a_step_with_rotary_positions() {
    let config = config_with(&["model.generation=vjepa2", "model.depth=2", "model.pred_depth=2"]);
    for precision in [Precision::F32, Precision::Bf16] {
        step_of(&config, precision);
    }
}

/// Kernels that no plan of a pre-training step has: those of fine-tuning, of steps in parts, and of images' tokens.
#[test]
fn a_step_has_not_all_of_them() {
    let mut graph = Graph::new("others", &[]);
    let ty = |shape: [usize; 3]| TensorType::f32(shape.map(Dim::from));
    let x = graph.input("x", ty([2, 6, 64])).unwrap();
    let dy = graph.input("dy", ty([2, 6, 64])).unwrap();
    let key = graph.input("key", TensorType::new(DType::I32, [Dim::from(4usize)])).unwrap();
    let index = graph.input("index", TensorType::new(DType::I32, [2usize, 6].map(Dim::from))).unwrap();
    let scalar = graph.input("momentum", TensorType::f32([])).unwrap();
    let both = graph.push(Op::GeluWithGrad, &[x, dy]).unwrap();
    let dropped = graph.push1(Op::Dropout { rate: 0.3, place: 2, axes: 1 }, &[both[0], key]).unwrap();
    let spread = graph.push1(Op::ScatterTokens { tokens: Dim::from(9usize) }, &[dropped, index]).unwrap();
    let target = graph.input("target", ty([2, 9, 64])).unwrap();
    let mean = graph.push1(Op::Ema, &[target, spread, scalar]).unwrap();
    graph.output("mean", mean);
    graph.output("dx", both[1]);
    compiles(&graph, &Sizes::new());
}

#[test]
fn a_step_in_f32() {
    step(Precision::F32);
}

#[test]
fn a_step_in_bf16() {
    step(Precision::Bf16);
}

#[test]
fn encoder_and_probe() {
    let encoder = encoder_config(&config()).unwrap();
    let sizes = Sizes::from([("B".to_owned(), CLIPS), ("N".to_owned(), 1568)]);
    let probe = Probe::Attentive(ProbeConfig::for_encoder(&encoder, 400));
    let graph = vjepa_programs::encoder(&encoder, "encoder.").unwrap();
    let graph = vjepa_programs::optimised(&graph).unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        compiles(&precision.apply(graph.clone()).unwrap(), &sizes);
        let options = TrainOptions { precision, ..TrainOptions::default() };
        compiles(&vjepa_programs::probe_step(&probe, options).unwrap(), &sizes);
    }
}
