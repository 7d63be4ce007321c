//! Operations whose operands are more than any numbers: bytes, indices, keys, boxes.

use super::*;
use vjepa_compiler::ops::{DropKey, RoiSampling};
use vjepa_runtime::plan::{Cpu, Executor, Params, Pixels};

/// Bytes stand for floats: on every device a plan computes the same on them, and refuses those that do not fit.
#[test]
fn clips_of_bytes_are_scaled() {
    let shape = [3, 2, 5, 7, 3];
    let bytes: Vec<u8> = (0..3 * 2 * 5 * 7 * 3u32).map(|i| (i * 37 % 256) as u8).collect();
    let pixels = Pixels::new(shape.to_vec(), bytes, vec![(0.017, -2.1), (0.25, 3.5)]).unwrap();
    let floats = pixels.scaled(Vec::new());
    assert_eq!((floats[0], floats[1], floats[105]), (-2.1, 37.0 * 0.017 - 2.1, 45.0 * 0.25 + 3.5));
    let mut graph = Graph::new("g", &[]);
    let x = graph.input("x", ty(&shape)).unwrap();
    let y = graph.push1(Op::Unary(Unary::Neg), &[x]).unwrap();
    graph.output("y", y);
    for device in devices() {
        let (mut plan, mut params) = (device.plan(&graph).unwrap(), device.params());
        let given = vec![("x", HostTensor::Pixels(pixels.clone()))];
        let got = plan.run(&mut params, given).unwrap();
        let expected: Vec<f32> = floats.iter().map(|x| -x).collect();
        let apart = got["y"].floats().iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // A device may multiply and add at once.
        assert!(apart <= 4e-6 && got["y"].shape() == shape, "{device}: {apart}");
        let short = HostTensor::F32 { shape: shape.to_vec(), data: vec![0.0; 5] };
        let refused = plan.run(&mut params, vec![("x", short)]).unwrap_err();
        assert!(refused.to_string().contains("5 values"), "{refused}");
    }
    assert!(Pixels::new(vec![1, 2, 1], vec![0; 2], vec![(1.0, 0.0)]).is_none());
    assert!(Pixels::new(vec![1, 2, 1], vec![0; 3], vec![(1.0, 0.0); 2]).is_none());
}

/// What is returned may be indices: they are read back as they are.
#[test]
fn an_output_of_indices_is_returned() {
    let mut graph = Graph::new("g", &[]);
    let index = graph.input("i", TensorType::new(DType::I32, [4usize].map(Dim::from))).unwrap();
    let y = graph.reshape(index, &[2usize, 2].map(Dim::from)).unwrap();
    graph.output("y", y);
    let input = HostTensor::i32([4], vec![3, 1, 2, 0]).unwrap();
    let mut executor = Executor::<Cpu>::new(&graph).unwrap();
    let outputs = executor.run(&mut Params::new(Default::default()), vec![("i", input)]).unwrap();
    assert_eq!(outputs["y"], HostTensor::i32([2, 2], vec![3, 1, 2, 0]).unwrap());
}

#[test]
fn tokens() {
    let index = || TensorType::new(DType::I32, [2usize, 4].map(Dim::from));
    let rows = BTreeMap::from([("index", vec![0, 5, 2, 2, 6, 1, 0, 3])]);
    for batch in [1, 2] {
        let mut graph = Graph::new("gather", &[]);
        let x = graph.input("x", ty(&[batch, 7, 5])).unwrap();
        let i = graph.input("index", index()).unwrap();
        let y = graph.push1(Op::GatherTokens, &[x, i]).unwrap();
        graph.output("y", y);
        compare("gather_tokens", &graph, &rows);
    }
    let mut graph = Graph::new("scatter", &[]);
    let x = graph.input("x", ty(&[2, 4, 5])).unwrap();
    let i = graph.input("index", index()).unwrap();
    let y = graph.push1(Op::ScatterTokens { tokens: Dim::from(7usize) }, &[x, i]).unwrap();
    graph.output("y", y);
    compare("scatter_tokens", &graph, &rows);
}

/// Per sample and per element, by the interpreter's numbers, with kernels and without.
#[test]
fn dropped_branches() {
    for axes in [1, 3] {
        let mut graph = Graph::new("dropout", &[]);
        let x = graph.input("x", ty(&[9, 5, 4])).unwrap();
        let key = graph.input("key", TensorType::new(DType::I32, [Dim::from(4usize)])).unwrap();
        let y = graph.push1(Op::Dropout { rate: 0.3, place: 2, axes }, &[x, key]).unwrap();
        graph.output("y", y);
        let (data, key) = (values(180, 4), DropKey::new(5, 6).to_tensor().to_vec());
        let sources = BTreeMap::from([
            ("x".to_owned(), Tensor::f32([9, 5, 4], data.clone())),
            ("key".to_owned(), Tensor::i32([4], key.clone())),
        ]);
        let expected = interp::run(&graph, &Sizes::new(), &sources).unwrap();
        let want = expected.outputs["y"].as_f32().unwrap();
        assert!(want.contains(&0.0));
        for device in devices() {
            let x = HostTensor::f32([9, 5, 4], data.clone()).unwrap();
            let inputs = vec![("x", x), ("key", HostTensor::i32([4], key.clone()).unwrap())];
            let got = device.plan(&graph).unwrap().run(&mut device.params(), inputs).unwrap();
            for (want, have) in want.iter().zip(got["y"].floats()) {
                assert!((want - have).abs() <= 1e-6, "{axes}, {device}: {have} instead of {want}");
            }
        }
    }
}

/// Boxes are sample, x1, y1, x2, y2; with kernels and as products.
#[test]
fn features_of_boxes() {
    let rows: Vec<f32> = [
        [0.0, 0.0, 0.0, 112.0, 96.0],
        [1.0, 30.5, 40.25, 100.75, 90.0],
        [0.0, -40.0, -20.0, 70.0, 80.0],
        [1.0, 60.0, 60.0, 60.0, 90.0],
        [1.0, 90.0, 80.0, 40.0, 10.0],
    ]
    .concat();
    for (samples, aligned) in [(0, true), (0, false), (2, true)] {
        let sampling = RoiSampling { scale: 0.0625, samples, aligned };
        let grad = Op::RoiAlignGrad { shape: ty(&[2, 19, 6, 7]).shape, sampling };
        for (op, shape) in [(Op::RoiAlign { size: 3, sampling }, [2, 19, 6, 7]), (grad, [5, 19, 3, 3])] {
            let mut graph = Graph::new("boxes", &[]);
            let [x, boxes] =
                [("x", ty(&shape)), ("boxes", ty(&[5, 5]))].map(|(name, ty)| graph.input(name, ty).unwrap());
            let y = graph.push1(op.clone(), &[x, boxes]).unwrap();
            graph.output("y", y);
            let data = values(shape.iter().product(), 3);
            let sources = BTreeMap::from([
                ("x".to_owned(), Tensor::f32(shape.to_vec(), data.clone())),
                ("boxes".to_owned(), Tensor::f32([5, 5], rows.clone())),
            ]);
            let expected = interp::run(&graph, &Sizes::new(), &sources).unwrap();
            let inputs = |rows: &[f32]| {
                let boxes = HostTensor::f32([5, 5], rows.to_vec()).unwrap();
                vec![("x", HostTensor::f32(shape.to_vec(), data.clone()).unwrap()), ("boxes", boxes)]
            };
            let mut other = rows.clone();
            other[0] = 2.0;
            for device in devices() {
                let mut plan = device.plan(&graph).unwrap();
                let got = plan.run(&mut device.params(), inputs(&rows)).unwrap();
                for (want, have) in expected.outputs["y"].as_f32().unwrap().iter().zip(got["y"].floats()) {
                    assert!(
                        f64::from((want - have).abs()) <= 1e-5 + coarse(&graph)[0],
                        "{}, {sampling:?}, {device}: {have} instead of {want}",
                        op.name()
                    );
                }
                let said = plan.run(&mut device.params(), inputs(&other)).unwrap_err().to_string();
                assert!(said.contains("a box is of sample 2, but there are 2"), "{device}: {said}");
            }
        }
    }
}
