use super::*;
use crate::interp::{self, Tensor};
use crate::ir::{Graph, Sizes};
use crate::testing::{dims, ty, with_gradients};
use std::collections::BTreeMap;

/// The known answers of the authors' Random123.
#[test]
fn reference_numbers_of_philox() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

fn kept(seed: u64, step: u64, place: usize) -> Vec<bool> {
    DropKey::new(seed, step).kept(place, 0.3, 10_000).collect()
}

#[test]
fn draws_are_those_of_their_key() {
    let first = kept(7, 3, 1);
    assert_eq!(first, kept(7, 3, 1));
    let share = first.iter().filter(|kept| **kept).count();
    assert!((6_800..7_200).contains(&share), "{share}");
    for other in [kept(8, 3, 1), kept(7, 4, 1), kept(7, 3, 2), kept(7 | 1 << 40, 3, 1), kept(7, 3 | 1 << 40, 1)] {
        let alike = first.iter().zip(other).filter(|(a, b)| **a == *b).count();
        // Independent draws agree at 0.58.
        assert!((5_500..6_100).contains(&alike), "{alike}");
    }
    assert!(DropKey::new(7, 3).kept(0, 0.0, 100).all(|kept| kept));
    let key = DropKey::new(u64::MAX - 5, 1 << 33);
    assert_eq!(DropKey::of_tensor(&key.to_tensor()), Some(key));
    assert_eq!(DropKey::of_tensor(&[1, 2, 3]), None);
}

#[test]
fn operands_must_fit() {
    let key = TensorType::new(DType::I32, dims("4"));
    let infer = |rate, axes, x: &str, key: &TensorType| {
        Op::Dropout { rate, place: 0, axes }.infer(&[&ty(x), key]).map_err(|error| error.to_string())
    };
    assert_eq!(infer(0.5, 1, "B N 4", &key), Ok(vec![ty("B N 4")]));
    assert!(infer(1.0, 1, "B N 4", &key).unwrap_err().contains("rate 1"));
    assert!(infer(f64::NAN, 1, "B N 4", &key).is_err());
    assert!(infer(0.5, 0, "B N 4", &key).is_err() && infer(0.5, 4, "B N 4", &key).is_err());
    assert!(infer(0.5, 1, "B N 4", &ty("4")).unwrap_err().contains("seed and step"));
}

/// Drop path keeps or drops samples whole, keeps the mean, and drops the gradient alike.
#[test]
fn samples_are_dropped_whole_with_their_gradient() {
    let mut graph = Graph::new("g", &[]);
    let x = graph.input("x", ty("64 3")).unwrap();
    let key = graph.input("key", TensorType::new(DType::I32, dims("4"))).unwrap();
    let y = graph.push1(Op::Dropout { rate: 0.2, place: 5, axes: 1 }, &[x, key]).unwrap();
    let loss = graph.sum_to(y, &[]).unwrap();
    graph.output("y", y);
    graph.output("loss", loss);
    let graph = with_gradients(graph, &["x"]);
    let inputs = BTreeMap::from([
        ("x".to_owned(), Tensor::f32([64, 3], vec![2.0; 192])),
        ("key".to_owned(), Tensor::i32([4], DropKey::new(1, 2).to_tensor().to_vec())),
    ]);
    let outputs = interp::run(&graph, &Sizes::new(), &inputs).unwrap().outputs;
    let (y, dx) = (outputs["y"].as_f32().unwrap(), outputs["d x"].as_f32().unwrap());
    let kept: Vec<bool> = DropKey::new(1, 2).kept(5, 0.2, 64).collect();
    assert!(kept.contains(&true) && kept.contains(&false));
    for ((y, dx), kept) in y.chunks(3).zip(dx.chunks(3)).zip(kept) {
        let (value, slope) = if kept { (2.5, 1.25) } else { (0.0, 0.0) };
        assert!(y.iter().all(|x| *x == value) && dx.iter().all(|x| *x == slope), "{y:?} {dx:?}");
    }
}
