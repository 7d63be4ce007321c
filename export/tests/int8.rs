//! 8-bit products are the same on every processor: no sum of theirs saturates in 16 bits.

mod fixtures;

use fixtures::{Head, Model, Sizes, Split};
use prost::Message;
use std::collections::BTreeMap;
use vjepa_export::proto::tensor_proto::DataType;
use vjepa_export::proto::{GraphProto, ModelProto, NodeProto};
use vjepa_export::{Int8, OnnxOptions, Precision, Target, WeightRange, to_onnx};

/// `vpmaddubsw`: two products of unsigned activations and signed weights, added in 16 bits with saturation. This is how
/// ONNX Runtime multiplies on x86 without VNNI.
fn pair(activations: [u8; 2], weights: [i8; 2]) -> i16 {
    // 255 · 128 fits into 16 bits.
    let product = |at: usize| i16::from(activations[at]).wrapping_mul(i16::from(weights[at]));
    product(0).saturating_add(product(1))
}

/// The sum of a whole product: pairs in 16 bits, then added in 32.
fn saturating(activations: &[u8], weights: &[i8]) -> i32 {
    let pairs = activations.chunks(2).zip(weights.chunks(2));
    let both = |values: &[u8]| [values[0], values.get(1).copied().unwrap_or(0)];
    let signed = |values: &[i8]| [values[0], values.get(1).copied().unwrap_or(0)];
    pairs.map(|(a, w)| i32::from(pair(both(a), signed(w)))).sum()
}

fn exact(activations: &[u8], weights: &[i8]) -> i32 {
    activations.iter().zip(weights).map(|(a, w)| i32::from(*a) * i32::from(*w)).sum()
}

/// The weights of every 8-bit product, a column of the product at a time: those that meet in one sum.
fn columns(graph: &GraphProto) -> BTreeMap<String, Vec<Vec<i8>>> {
    let constant = |name: &str| graph.initializer.iter().find(|tensor| tensor.name() == name);
    let mut layers = BTreeMap::new();
    let mut of = |node: &NodeProto, input: usize, turned: bool| {
        let Some(tensor) = constant(&node.input[input]).filter(|tensor| tensor.data_type() == DataType::Int8 as i32)
        else {
            return;
        };
        let (rows, width) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
        let values: Vec<i8> = tensor.raw_data().iter().map(|byte| *byte as i8).collect();
        let column = |at: usize| match turned {
            true => (0..rows).map(|row| values[row * width + at]).collect(),
            false => values[at * width..(at + 1) * width].to_vec(),
        };
        layers.insert(tensor.name().to_owned(), (0..if turned { width } else { rows }).map(column).collect());
    };
    for node in &graph.node {
        match node.op_type() {
            "MatMulInteger" => of(node, 1, true),
            "DequantizeLinear" => of(node, 0, false),
            _ => {}
        }
    }
    layers
}

/// Columns whose sum saturates for some activations: all that meet positive weights at their largest, all others at 0.
fn saturated(model: &Model, options: &OnnxOptions) -> (usize, usize) {
    let bytes = to_onnx(&model.graph, &model.weights, options).unwrap().to_bytes().unwrap();
    let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
    let layers = columns(&graph);
    assert_eq!(layers.len(), 12, "6 products in each of 2 blocks");
    let worst = |column: &Vec<i8>| {
        [1, -1].iter().any(|sign| {
            let meets = |weight: &i8| i32::from(*weight) * sign > 0;
            let activations: Vec<u8> = column.iter().map(|weight| if meets(weight) { 255 } else { 0 }).collect();
            // Whatever order a kernel packs its pairs in: the heaviest two may be neighbours.
            let mut sorted = column.clone();
            sorted.sort_by_key(|weight| -i32::from(*weight) * sign);
            saturating(&activations, column) != exact(&activations, column)
                || i32::from(pair([255, 255], [sorted[0], sorted[1]])) != exact(&[255, 255], &sorted[..2])
        })
    };
    let all = layers.values().flatten();
    (all.clone().filter(|column| worst(column)).count(), all.count())
}

/// Two products by hand.
#[test]
fn sums_saturate_in_16_bits() {
    // 255 · 127 · 2 = 64770 is cut off at 32767, 255 · 64 · 2 = 32640 is not.
    assert_eq!(pair([255, 255], [127, 127]), 32767);
    assert_eq!(pair([255, 255], [64, 64]), 32640);
    assert_eq!(pair([255, 255], [65, 65]), 32767);
    assert_eq!(pair([255, 255], [-128, -128]), -32768);
    assert_eq!(pair([255, 255], [-64, -64]), -32640);
    assert_eq!(pair([255, 255], [127, -127]), 0);
    // 255 · (127 + 127 - 127 + 1) = 32640 exactly; 32767 + 255 · (1 - 127) = 637 in pairs.
    let (activations, weights) = ([255; 4], [127, 127, -127, 1]);
    assert_eq!(exact(&activations, &weights), 32640);
    assert_eq!(saturating(&activations, &weights), 637);
}

/// The models: weights as drawn, an outlier in one channel, one number everywhere, nothing but zeros in a row.
fn models() -> Vec<(&'static str, Model)> {
    let edited = |edit: &dyn Fn(&mut [f32])| {
        let mut model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
        for (name, (_, values)) in &mut model.weights {
            if name.contains("blocks") && name.ends_with("weight") && !name.contains("norm") {
                edit(values);
            }
        }
        model
    };
    vec![
        ("drawn", edited(&|_| {})),
        ("outlier", edited(&|values| values[..24].iter_mut().for_each(|value| *value *= 100.0))),
        ("one large weight", edited(&|values| values[1] = -1e6)),
        ("equal", edited(&|values| values.fill(0.25))),
        ("equal and negative", edited(&|values| values.fill(-3.0))),
        ("zeros", edited(&|values| values[..48].fill(0.0))),
    ]
}

fn options(model: &Model, target: Target, precision: Precision) -> OnnxOptions {
    let ranges = model.weights.keys().map(|name| (name.clone(), [-8.0, 8.0])).collect();
    let plain = OnnxOptions::new(target, precision);
    OnnxOptions { int8: Int8 { ranges, ..plain.int8.clone() }, ..plain }
}

#[test]
fn no_sum_of_an_exported_product_saturates() {
    for (name, model) in models() {
        for target in [Target::Portable, Target::OrtCpu, Target::Tract] {
            for precision in [Precision::Int8Dynamic, Precision::Int8Static] {
                let options = options(&model, target, precision);
                let (wrong, all) = saturated(&model, &options);
                assert_eq!(wrong, 0, "{name}, {target}, {precision}: of {all} columns");

                let folded = OnnxOptions { fold_norms: precision == Precision::Int8Dynamic, ..options };
                assert_eq!(saturated(&model, &folded).0, 0, "{name}, {target}, {precision}, folded norms");
            }
        }
    }
}

/// What the test above would find.
#[test]
fn sums_of_the_full_range_saturate() {
    for (name, model) in models() {
        for precision in [Precision::Int8Dynamic, Precision::Int8Static] {
            let mut options = options(&model, Target::Portable, precision);
            options.int8.range = WeightRange::Full;
            let (wrong, all) = saturated(&model, &options);
            assert!(wrong > 0, "{name}, {precision}: none of {all} columns");
        }
    }
    let (_, model) = models().remove(0);
    let engine = options(&model, Target::TensorRt, Precision::Int8Static);
    assert_eq!(engine.int8.range, WeightRange::Full);
}

/// A row's largest weight takes the whole of the range, so that as little as possible is lost.
#[test]
fn the_largest_weight_of_a_row_takes_the_whole_range() {
    for (name, model) in models().into_iter().filter(|(name, _)| *name != "zeros") {
        for range in [WeightRange::Reduced, WeightRange::Full] {
            let mut options = options(&model, Target::Portable, Precision::Int8Static);
            options.int8.range = range;
            let bytes = to_onnx(&model.graph, &model.weights, &options).unwrap().to_bytes().unwrap();
            let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
            for (layer, columns) in columns(&graph) {
                for column in columns {
                    let largest = column.iter().map(|weight| weight.unsigned_abs()).max();
                    assert_eq!(largest, Some(range.limit().unsigned_abs()), "{name}, {layer}, {range}");
                }
            }
        }
    }
}

/// Rounding shifts a layer's results by the same amount for every token; the bias takes that back.
#[test]
fn the_bias_takes_back_what_rounding_shifts() {
    let (_, model) = models().remove(0);
    let width = Sizes::SMALL.width;
    let weight = "encoder.blocks.0.attn.proj.weight";
    let mean: Vec<f32> = (0..width).map(|channel| channel as f32 - 3.5).collect();
    for precision in [Precision::Int8Dynamic, Precision::Int8Static] {
        let mut options = options(&model, Target::Portable, precision);
        options.int8.means.insert(weight.to_owned(), mean.clone());
        let bytes = to_onnx(&model.graph, &model.weights, &options).unwrap().to_bytes().unwrap();
        let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let floats = |name: String| {
            let tensor = graph.initializer.iter().find(|tensor| tensor.name() == name).unwrap();
            let words = tensor.raw_data().chunks_exact(4).map(|word| <[u8; 4]>::try_from(word).unwrap());
            if tensor.data_type() == DataType::Int32 as i32 {
                words.map(|word| i32::from_le_bytes(word) as f32).collect::<Vec<_>>()
            } else {
                words.map(f32::from_le_bytes).collect()
            }
        };
        let bias = "encoder.blocks.0.attn.proj.bias.corrected";
        let biases = match precision {
            Precision::Int8Static => {
                let steps = floats(format!("{bias}.scale"));
                floats(format!("{bias}.int32")).into_iter().zip(steps).map(|(whole, step)| whole * step).collect()
            }
            _ => floats(bias.to_owned()),
        };
        let scales = floats(format!("{weight}.scale"));
        let layers = columns(&graph);
        let narrow = &layers[&format!("{weight}.int8")];
        let (wide, plain) = (&model.weights[weight].1, &model.weights["encoder.blocks.0.attn.proj.bias"].1);
        let mut moved = 0.0f32;
        for (row, (bias, scale)) in biases.iter().zip(&scales).enumerate() {
            let wide = &wide[row * width..(row + 1) * width];
            let wanted: f32 = wide.iter().zip(&mean).map(|(w, x)| w * x).sum::<f32>() + plain[row];
            let found: f32 = narrow[row].iter().zip(&mean).map(|(w, x)| f32::from(*w) * scale * x).sum::<f32>() + bias;
            assert!((wanted - found).abs() < 2e-3, "{precision}, row {row}: {wanted} and {found}");
            moved = moved.max((bias - plain[row]).abs());
        }
        assert!(moved > 1e-2, "{precision}: {moved}");
        options.int8.means.insert(weight.to_owned(), vec![0.0; 3]);
        let error = to_onnx(&model.graph, &model.weights, &options).err().unwrap().to_string();
        assert!(error.contains("means of 3"), "{error}");
    }
}
