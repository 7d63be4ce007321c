//! Every kernel of a ViT-L's step, encoder and probe through NVRTC, on a device that compiles and runs nothing
//! (`tests/gpu/stand-in`). Numbers mean nothing there: what is tested is that the plans lower, that their kernels compile for
//! sm_90a, and that no launch is past the device's limits.
#![cfg(feature = "cuda-base")]

use std::path::Path;
use std::time::Instant;
use vjepa_compiler::ir::{DType, Def, Dim, Graph, Sizes, TensorType};
use vjepa_compiler::ops::Op;
use vjepa_graphs::ProbeConfig;
use vjepa_programs::{MaskSizes, Precision, Probe, TrainOptions, drawn_sizes, encoder_config, objective};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{Device, Exchange, HostTensor, Pixels, Resident};

/// Clips of the plans: kernels are chosen by shape, and what differs between few clips and many is their number of blocks.
const CLIPS: usize = 2;

fn config() -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/vitl16.yaml");
    Config::from_file(&file, &[]).unwrap()
}

/// The device, which must be the stand-in: everything else would be given garbage.
fn stand_in() -> Device {
    let device = Device::open("cuda:0").unwrap();
    let about = vjepa_runtime::plan::gpus("cuda").unwrap_or_default();
    assert!(about.iter().any(|(_, about)| about.contains("stand-in")), "cuda:0 is a GPU: {about:?}");
    device
}

/// Another rank with the same values, on the stand-in's device, whose memory is the host's.
struct Twin {
    ended: bool,
}

impl Exchange for Twin {
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
        for floats in floats {
            // SAFETY: the stand-in's addresses are the process's, and the run touches nothing until the bucket has ended.
            let values = unsafe { std::slice::from_raw_parts_mut(floats.address() as *mut f32, floats.count()) };
            values.iter_mut().for_each(|value| *value *= 2.0);
        }
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
    let types = [3, 500].map(|count| TensorType::f32([Dim::from(count as usize)]));
    let params = ["a", "b"].into_iter().zip(types).map(|(name, ty)| graph.param(name, ty).unwrap()).collect::<Vec<_>>();
    let sums = graph.push(Op::AllReduce, &params).unwrap();
    params.iter().zip(sums).for_each(|(param, sum)| graph.update(*param, sum).unwrap());
    let device = stand_in();
    let mut plan = device.plan(&graph).unwrap();
    let mut stored = device.params();
    let values = |count: usize, scale: f32| (0..count).map(|i| scale * i as f32).collect::<Vec<_>>();
    for (name, count) in [("a", 3), ("b", 500)] {
        stored.set(name, HostTensor::f32([count], values(count, 1.0)).unwrap());
    }
    let mut twin = Twin { ended: false };
    plan.run_among(&mut stored, Vec::new(), Some(&mut twin)).unwrap();
    assert!(twin.ended);
    for (name, count) in [("a", 3), ("b", 500)] {
        assert_eq!(stored.get(name).unwrap().1, values(count, 2.0), "{name}");
    }
}

/// Plans a graph and launches all of it once, on parameters and inputs of zeros.
fn compiles(graph: &Graph, sizes: &Sizes) {
    let device = stand_in();
    let began = Instant::now();
    let mut plan = device.plan(graph).unwrap();
    let mut params = device.params();
    let mut inputs = Vec::new();
    let graph = plan.graph().clone();
    for value in &graph.values {
        let shape: Vec<usize> =
            value.ty.shape.iter().map(|dim| dim.eval(sizes)).collect::<Option<_>>().unwrap_or_default();
        let count = shape.iter().product();
        match (&value.def, value.ty.dtype) {
            (Def::Param(name), _) => params.zeros(name, &shape),
            (Def::Input(name), DType::I32) => {
                inputs.push((name.as_str(), HostTensor::i32(shape, vec![0; count]).unwrap()));
            }
            // Clips as bytes (`data.clip_bytes`), for their kernel.
            (Def::Input(name), _) if shape.len() == 5 => {
                let scaling = vec![(1.0, 0.0); shape[1]];
                inputs.push((name.as_str(), HostTensor::Pixels(Pixels::new(shape, vec![0; count], scaling).unwrap())));
            }
            (Def::Input(name), _) => inputs.push((name.as_str(), HostTensor::f32(shape, vec![0.0; count]).unwrap())),
            (Def::Node { .. }, _) => {}
        }
    }
    plan.run(&mut params, inputs).unwrap();
    let ours = device.by_kernel(&graph).into_iter().filter(|ours| *ours).count();
    println!(
        "{}: {} nodes, {ours} of them by kernels of ours, compiled and launched in {:.1} s",
        graph.name,
        graph.nodes.len(),
        began.elapsed().as_secs_f64()
    );
}

/// The official step with its mean mask lengths.
fn step(precision: Precision) {
    let config = config();
    let options = TrainOptions { precision, ..TrainOptions::of(&config).unwrap() };
    let graph = vjepa_programs::step(&objective(&config).unwrap(), options).unwrap();
    let mut sizes = drawn_sizes(&config, MaskSizes::Mean).unwrap();
    sizes.insert("B".to_owned(), CLIPS);
    compiles(&graph, &sizes);
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
