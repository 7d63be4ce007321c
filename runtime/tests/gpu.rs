//! What a GPU's back end refuses, and how it fails: on `VJEPA_TEST_DEVICE`, else on `wgpu`, which may be a software device.
//!
//! A device that failed stays so for its process: such tests are run by others, in processes of their own.
#![cfg(feature = "wgpu-base")]

use burn_backend::ops::FloatTensorOps;
use burn_backend::{DType as Element, FloatDType, TensorData};
use std::collections::BTreeMap;
use vjepa_compiler::ir::{DType, Dim, Graph, TensorType, ValueId};
use vjepa_compiler::ops::{Op, Unary};
use vjepa_cube::{CubeBackend, Gpu, WgpuRuntime};
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor, RunError, gpus};

fn device() -> Device {
    Device::open(&std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned())).unwrap()
}

/// Bytes of the device's largest buffer, once it has been started.
fn largest_buffer() -> u64 {
    device();
    vjepa_cube::largest_buffer::<WgpuRuntime>(&WgpuRuntime::device(0))
}

fn floats(sizes: &[usize]) -> TensorType {
    TensorType::f32(sizes.iter().map(|size| Dim::from(*size)))
}

/// `y = f(x)`, where `x` is of this type.
fn graph(ty: TensorType, symbols: &[&str], f: impl Fn(&mut Graph, ValueId) -> ValueId) -> Graph {
    let mut graph = Graph::new("g", symbols);
    let x = graph.input("x", ty).unwrap();
    let y = f(&mut graph, x);
    graph.output("y", y);
    graph
}

/// `y = exp(x)·w`, and `w` becomes `y`.
fn step() -> Graph {
    let mut graph = Graph::new("step", &[]);
    let x = graph.input("x", floats(&[3])).unwrap();
    let w = graph.param("w", floats(&[3])).unwrap();
    let e = graph.unary(Unary::Exp, x).unwrap();
    let y = graph.mul(e, w).unwrap();
    graph.output("y", y);
    graph.update(w, y).unwrap();
    graph
}

fn x(values: &[f32]) -> Vec<(&'static str, HostTensor)> {
    vec![("x", HostTensor::f32([values.len()], values.to_vec()).unwrap())]
}

/// A step on the device that has run once.
fn running() -> (DeviceExecutor, DeviceParams) {
    let device = device();
    let (mut plan, mut params) = (device.plan(&step()).unwrap(), device.params());
    params.set("w", HostTensor::f32([3], vec![1.0, 2.0, 3.0]).unwrap());
    let y = plan.run(&mut params, x(&[0.0; 3])).unwrap();
    assert_eq!(y["y"].floats(), [1.0, 2.0, 3.0]);
    (plan, params)
}

/// Every further run is this error, and no parameter is read.
fn fails(plan: &mut DeviceExecutor, params: &mut DeviceParams, words: &str) {
    for _ in 0..2 {
        let error = plan.run(params, x(&[0.0; 3])).unwrap_err();
        assert!(matches!(error, RunError::Device(_)), "{error:?}");
        let said = error.to_string();
        assert!(said.starts_with(&device().to_string()) && said.contains(words), "{said}");
        assert_eq!(params.read("w").unwrap_err().to_string(), said);
    }
    assert_eq!(params.get("w"), None);
}

/// Runs a test of this file alone.
fn alone(test: &str) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_panic_on_the_devices_thread_is_an_error_of_every_later_run() {
    alone("panics");
}

#[test]
#[ignore = "ends the device of its process"]
fn panics() {
    let (mut plan, mut params) = running();
    // What planning refuses: WGSL has no bf16, and the compiler panics on the device's thread.
    type B = CubeBackend<WgpuRuntime>;
    let values = B::float_from_data(TensorData::from([1.5f32, 2.5]), &WgpuRuntime::device(0));
    let _ = burn_backend::try_read_sync(B::float_into_data(B::float_cast(values, FloatDType::BF16)));
    fails(&mut plan, &mut params, "its thread panicked");
}

#[test]
fn a_lost_device_is_an_error_of_every_later_run() {
    alone("is_lost");
}

#[test]
#[ignore = "ends the device of its process"]
fn is_lost() {
    let (mut plan, mut params) = running();
    vjepa_cube::lose(0);
    fails(&mut plan, &mut params, "");
}

#[test]
fn a_device_that_executes_nothing_fails_comparisons() {
    alone("executes_nothing");
}

/// In a dry run CubeCL compiles kernels and launches none: what is read is what the memory held.
#[test]
#[ignore = "nothing is executed in its process"]
fn executes_nothing() {
    let (mut plan, mut params) = running();
    let _dry = vjepa_cube::dry_run::DryRun::new();
    let y = plan.run(&mut params, x(&[1.0, 2.0, 3.0])).unwrap();
    let want = [1f32.exp(), 2.0 * 2f32.exp(), 3.0 * 3f32.exp()];
    let near = y["y"].floats().iter().zip(want).all(|(got, want)| (got - want).abs() <= 1e-5 * want);
    assert!(!near, "{:?}", y["y"].floats());
}

#[test]
fn an_element_type_that_the_device_lacks_is_refused_when_planning() {
    let graph = graph(floats(&[3]), &[], |graph, x| {
        let narrow = graph.cast(x, DType::BF16).unwrap();
        graph.cast(narrow, DType::F32).unwrap()
    });
    let device = device();
    let place = WgpuRuntime::device(0);
    assert_eq!(vjepa_cube::without::<WgpuRuntime>(&place, [Element::F32, Element::I32]), None);
    let error = device.plan(&graph).map(|_| ()).unwrap_err().to_string();
    let wanted = format!("{device} does not compute in bf16: use f32");
    assert!(error.starts_with(&wanted) && error.contains("--device cpu"), "{error}");
}

#[test]
fn half_precision_is_computed() {
    let graph = graph(floats(&[3]), &[], |graph, x| {
        let narrow = graph.cast(x, DType::F16).unwrap();
        let double = graph.add(narrow, narrow).unwrap();
        graph.cast(double, DType::F32).unwrap()
    });
    let y = device().plan(&graph).unwrap().run(&mut device().params(), x(&[1.0, 0.333_333_34, -7.0])).unwrap();
    // 1/3 in f16, doubled.
    assert_eq!(y["y"].floats(), [2.0, 0.666_503_9, -14.0]);
}

#[test]
fn a_tensor_larger_than_the_devices_buffers_is_refused() {
    let largest = largest_buffer();
    let count = usize::try_from(largest / 4 + 1).unwrap();
    let double = |graph: &mut Graph, x| graph.add(x, x).unwrap();
    // Its size is in the graph: refused when planning.
    let error = device().plan(&graph(floats(&[count]), &[], double)).map(|_| ()).unwrap_err().to_string();
    let has = format!("the largest buffer of this device has {} MiB", largest >> 20);
    assert!(error.starts_with("`x`, f32[") && error.contains(&has) && error.contains("fewer clips"), "{error}");
    // It is known when it runs: refused before anything is sent.
    let ty = TensorType::f32([Dim::symbol("N"), Dim::from(1024usize)]);
    let mut plan = device().plan(&graph(ty, &["N"], double)).unwrap();
    let mut run = |rows: usize| {
        let input = HostTensor::f32([rows, 1024], vec![1.0; rows * 1024]).unwrap();
        plan.run(&mut device().params(), vec![("x", input)]).map(|y| y["y"].floats().to_vec())
    };
    assert!(run(count / 1024 + 1).unwrap_err().to_string().contains(&has));
    assert_eq!(run(3).unwrap(), vec![2.0; 3 * 1024]);
}

#[test]
fn scores_larger_than_the_devices_buffers_are_refused() {
    let largest = largest_buffer();
    let tokens = usize::try_from((largest / 4).isqrt() + 64).unwrap();
    let graph = graph(floats(&[1, 1, tokens, 1]), &[], |graph, x| {
        graph.push1(Op::Attention { scale: 1.0 }, &[x, x, x]).unwrap()
    });
    let lowered = Device::open(&device().to_string().replace(':', "-lowered:")).unwrap();
    let error = lowered.plan(&graph).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("the scores of one clip in `attention` takes"), "{error}");
    // Our kernel stores none.
    assert!(device().plan(&graph).is_ok());
}

#[test]
fn tokens_that_are_not_there_are_refused() {
    let mut graph = Graph::new("g", &[]);
    let x = graph.input("x", floats(&[1, 5, 3])).unwrap();
    let index = graph.input("index", TensorType::new(DType::I32, [1usize, 4].map(Dim::from))).unwrap();
    let y = graph.push1(Op::GatherTokens, &[x, index]).unwrap();
    graph.output("y", y);
    let mut plan = device().plan(&graph).unwrap();
    let mut run = |index: [i32; 4]| {
        let x = HostTensor::f32([1, 5, 3], (0..15u8).map(f32::from).collect()).unwrap();
        let index = HostTensor::i32([1, 4], index.to_vec()).unwrap();
        plan.run(&mut device().params(), vec![("x", x), ("index", index)]).map_err(|error| error.to_string())
    };
    for bad in [5, -1] {
        let error = run([0, bad, 1, 2]).unwrap_err();
        assert!(error.ends_with(&format!("token {bad} is not one of the 5 there are")), "{error}");
    }
    assert_eq!(run([4, 0, 0, 1]).unwrap()["y"].floats()[..6], [12.0, 13.0, 14.0, 0.0, 1.0, 2.0]);
    // A kernel that gathers on its way.
    let mut graph = Graph::new("g", &[]);
    let [y, x] = [("y", 4), ("x", 5)].map(|(name, tokens)| graph.input(name, floats(&[1, tokens, 3])).unwrap());
    let index = graph.input("index", TensorType::new(DType::I32, [1usize, 4].map(Dim::from))).unwrap();
    let distance = graph.push1(Op::TokenL1 { eps: 1e-5 }, &[y, x, index]).unwrap();
    graph.output("distance", distance);
    let given = vec![
        ("y", HostTensor::f32([1, 4, 3], vec![0.0; 12]).unwrap()),
        ("x", HostTensor::f32([1, 5, 3], vec![0.0; 15]).unwrap()),
        ("index", HostTensor::i32([1, 4], vec![0, 5, 1, 2]).unwrap()),
    ];
    let error = device().plan(&graph).unwrap().run(&mut device().params(), given).unwrap_err().to_string();
    assert_eq!(error, "operation token_l1 (node 0): token 5 is not one of the 5 there are");
}

#[test]
fn plans_and_parameters_of_two_devices_do_not_mix() {
    let mut plan = device().plan(&step()).unwrap();
    let error = plan.run(&mut Device::CPU.params(), x(&[0.0; 3])).unwrap_err();
    assert_eq!(error.to_string(), format!("the plan is for {} but its parameters are on cpu", device()));
}

#[test]
fn devices_are_listed_with_what_they_can_do() {
    let listed: BTreeMap<String, String> = gpus("wgpu").unwrap().into_iter().collect();
    let about = &listed["wgpu:0"];
    for words in ["GiB", "f16", "bf16", "subgroups", "buffers of at most"] {
        assert!(about.contains(words), "{about}");
    }
    let past = format!("wgpu:{}", listed.len());
    let error = Device::open(&past).unwrap_err().to_string();
    assert!(error.starts_with(&format!("there is no {past}: this machine has {} of them", listed.len())), "{error}");
}
