//! Operations that a device's passes make, and plans in which they are made.

use super::*;
use vjepa_compiler::optimizer::{ClipGroup, TrainSpec, append_optimizer};

const CONSTANTS: (f64, f64, f64) = (0.9, 0.999, 1e-8);

#[test]
fn gelu_of_a_sum() {
    // A row, several in one share of the bias's gradient, and several shares, the last of one row.
    for shape in [vec![1, 1], vec![3, 31, 17], vec![257, 33]] {
        let (x, width): (&[usize], _) = (&shape, shape[shape.len() - 1]);
        both(&Op::BiasGelu, &[x, &[width]]);
        for result in [false, true] {
            both(&Op::BiasGeluGrad { result }, &[x, &[width], x]);
        }
    }
}

/// Tokens of one clip for all, and of each; narrow, wider than a cube has units, and views.
#[test]
fn distances_of_tokens() {
    let indices = BTreeMap::from([("index", vec![0, 5, 2, 2, 6, 1, 0, 3])]);
    for (batch, width, views) in [(1, 5, false), (2, 5, true), (2, 1031, false), (2, 67, true)] {
        let mut graph = Graph::new("distances", &[]);
        let tokens = |graph: &mut Graph, name: &str, [clips, count]: [usize; 2]| {
            let shape = if views { [width, count, clips] } else { [clips, count, width] };
            let x = graph.input(name, ty(&shape)).unwrap();
            if views { graph.permute(x, &[2, 1, 0]).unwrap() } else { x }
        };
        let (y, x) = (tokens(&mut graph, "y", [2, 4]), tokens(&mut graph, "x", [batch, 7]));
        let index = graph.input("index", TensorType::new(DType::I32, [2usize, 4].map(Dim::from))).unwrap();
        let (eps, scale) = (1e-5, Scalar::recip(Dim::from(8 * width)));
        for (name, op) in [("rows", Op::TokenL1 { eps }), ("dy", Op::TokenL1Grad { eps, scale })] {
            let result = graph.push1(op, &[y, x, index]).unwrap();
            graph.output(name, result);
        }
        compare(&format!("token_l1 {batch}x{width}, views {views}"), &graph, &indices);
    }
}

/// More parameters than a launch takes, of a single element and of more than a cube steps.
#[test]
fn steps_of_all_parameters() {
    let shapes: Vec<Vec<usize>> =
        (1..38).map(|i| [vec![i % 7 + 1], vec![700, 3], vec![1], vec![5, i]][i % 4].clone()).collect();
    for average in [false, true] {
        let mut graph = Graph::new("adamw", &[]);
        let rates = [1e-2, 0.1, 0.1, 0.001, 0.5, 0.99].map(|rate| graph.full(rate, ty(&[])).unwrap());
        let mut operands = rates[..if average { 6 } else { 5 }].to_vec();
        for (i, shape) in shapes.iter().enumerate() {
            for name in ["p", "g", "m", "v", "target"].iter().take(if average { 5 } else { 4 }) {
                let x = graph.input(&format!("{name}{i}"), ty(shape)).unwrap();
                // Second moments are positive.
                operands.push(if *name == "v" { graph.mul(x, x).unwrap() } else { x });
            }
        }
        let (beta1, beta2, eps) = CONSTANTS;
        let results = graph.push(Op::AdamWAll { beta1, beta2, eps, average }, &operands).unwrap();
        for (i, result) in results.iter().enumerate() {
            graph.output(&format!("y{i}"), *result);
        }
        compare(&format!("adamw of all, average {average}"), &graph, &BTreeMap::new());
    }
}

/// Names of the operations that a device runs.
fn names(device: Device, graph: &Graph) -> Vec<&'static str> {
    device.lower(graph).unwrap().nodes.iter().map(|node| node.op.name()).collect()
}

/// A perceptron with a bias before its GELU, and the distance of what it makes from normalised tokens.
fn model() -> (Graph, [ValueId; 4], ValueId) {
    let mut graph = Graph::new("model", &[]);
    let (x, target) = (graph.input("x", ty(&[2, 4, 9])).unwrap(), graph.input("target", ty(&[2, 7, 9])).unwrap());
    let index = graph.input("index", TensorType::new(DType::I32, [2usize, 4].map(Dim::from))).unwrap();
    let shapes: [(&str, &[usize]); 4] = [("w", &[35, 9]), ("b", &[35]), ("v", &[9, 35]), ("c", &[9])];
    let weights = shapes.map(|(name, shape)| graph.param(name, ty(shape)).unwrap());
    let [w, b, v, c] = weights;
    let h = graph.push1(Op::Linear, &[x, w, b]).unwrap();
    let h = graph.unary(Unary::Gelu, h).unwrap();
    let y = graph.push1(Op::Linear, &[h, v, c]).unwrap();
    let normal = graph.push1(Op::LayerNorm { eps: 1e-5 }, &[target]).unwrap();
    let wanted = graph.push1(Op::GatherTokens, &[normal, index]).unwrap();
    let difference = graph.sub(y, wanted).unwrap();
    let distance = graph.unary(Unary::Abs, difference).unwrap();
    let rows = graph.mean(distance, &[2]).unwrap();
    let loss = graph.mean(rows, &[0, 1, 2]).unwrap();
    let loss = graph.reshape(loss, &[]).unwrap();
    graph.output("loss", loss);
    (graph, weights, loss)
}

fn inputs() -> Vec<(&'static str, HostTensor)> {
    let mut inputs = vec![
        ("x", HostTensor::f32([2, 4, 9], values(72, 1)).unwrap()),
        ("target", HostTensor::f32([2, 7, 9], values(126, 2)).unwrap()),
        ("index", HostTensor::i32([2, 4], vec![0, 5, 2, 2, 6, 1, 0, 3]).unwrap()),
    ];
    for (name, rate) in [("lr", 0.01), ("wd", 0.1), ("c1", 0.1), ("c2", 0.001), ("max_norm", 0.5), ("momentum", 0.9)] {
        inputs.push((name, HostTensor::f32([], vec![rate]).unwrap()));
    }
    inputs
}

/// Two steps of training, with the device's passes and without, against the CPU's.
#[test]
fn whole_steps() {
    let (mut graph, weights, loss) = model();
    let gradients = vjepa_compiler::grad::differentiate(&mut graph, loss, &weights).unwrap();
    let mut ema = Vec::new();
    for (name, weight) in ["w", "b", "v", "c"].iter().zip(weights) {
        let ty = graph.ty(weight).clone();
        ema.push((graph.param(&format!("target.{name}"), ty).unwrap(), weight));
    }
    let spec = TrainSpec {
        gradients: weights.into_iter().zip(gradients).collect(),
        decay: vec![weights[0], weights[2]],
        clip: vec![ClipGroup { name: "all".to_owned(), params: weights.to_vec(), norm_of: None }],
        ema,
        ..TrainSpec::default()
    };
    append_optimizer(&mut graph, &spec).unwrap();
    let graph = vjepa_compiler::passes::Pipeline::training("loss", None, false).run(&graph).unwrap().graph;
    let run = |device: Device| {
        let (mut plan, mut params) = (device.plan(&graph).unwrap(), device.params());
        for (seed, id) in graph.params.iter().enumerate() {
            let (name, ty) = (graph.source_name(*id).unwrap(), graph.ty(*id));
            let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.eval(&Sizes::new()).unwrap()).collect();
            let data = if name.starts_with("adam.") {
                vec![0.0; shape.iter().product()]
            } else {
                values(shape.iter().product(), seed as u32 + 10)
            };
            params.set(name, HostTensor::f32(shape, data).unwrap());
        }
        [(); 2].map(|()| {
            let outputs = plan.run(&mut params, inputs()).unwrap();
            let names: Vec<String> = params.names().map(str::to_owned).collect();
            let read = |name: String| (name.clone(), params.get(&name).unwrap().1);
            (outputs, names.into_iter().map(read).collect::<BTreeMap<_, _>>())
        })
    };
    let wanted = run(Device::CPU);
    let fused = ["bias_gelu", "bias_gelu_grad", "token_l1", "token_l1_grad", "adamw_ema_all"];
    let lists = devices().map(|device| names(device, &graph));
    let on_device = !devices()[0].is_cpu();
    for name in fused {
        assert_eq!(lists[0].contains(&name), on_device, "{name}");
        assert!(!lists[1].contains(&name), "{name}");
    }
    for device in devices() {
        // AdamW makes a full step of the rounding of a small gradient.
        for ((step, limit), (outputs, params)) in [2e-5, 1e-4].iter().enumerate().zip(run(device)) {
            let limit = f64::max(*limit, coarse(&graph)[0]);
            let (wanted_outputs, wanted) = &wanted[step];
            for (name, want) in wanted_outputs {
                let error = distance(want.floats(), outputs[name].floats());
                assert!(error <= limit * distance(want.floats(), &[0.0]), "{device}: {name} is off by {error}");
            }
            for (name, want) in wanted {
                let (error, norm) = (distance(want, &params[name]), distance(want, &vec![0.0; want.len()]));
                assert!(error <= limit * norm, "{device}, step {step}: {name} is off by {error} of {norm}");
            }
        }
    }
}
