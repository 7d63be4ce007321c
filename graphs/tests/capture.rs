//! What a capture device records: semantic operations whole, parameters (and here inputs) as `empty`, without values.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{CapturedGraph, Device, Tensor, TensorId};
use burn_capture::CaptureBackend;
use burn_ir::OperationIr;
use vjepa_graphs::{
    AttentiveClassifier, Encoder, EncoderConfig, JepaLoss, MaskPair, ParameterVisitor, Predictor, PredictorConfig,
    ProbeConfig, cross_entropy, visit_parameters,
};

struct Ids(BTreeMap<String, TensorId>);
impl ParameterVisitor for Ids {
    fn parameter<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        self.0.insert(name.to_owned(), id(&parameter.val()));
    }
}

fn id<const D: usize>(tensor: &Tensor<D>) -> TensorId {
    tensor.clone().try_into_primitive::<CaptureBackend>().unwrap().id()
}

fn ids<M: Module>(module: &M) -> BTreeMap<String, TensorId> {
    let mut ids = Ids(BTreeMap::new());
    visit_parameters(module, &mut ids);
    ids.0
}

/// Name of an operation: `Module(LayerNorm` and the like.
fn name(operation: &OperationIr) -> String {
    let text = format!("{operation:?}");
    let name = text.split(" {").next().unwrap_or(&text);
    name.rsplit_once('(').map_or(name, |(name, _)| name).to_owned()
}

/// How often each operation was recorded.
fn histogram(captured: &CapturedGraph) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for operation in &captured.graph.operations {
        *counts.entry(name(operation)).or_default() += 1;
    }
    counts
}

fn small() -> (EncoderConfig, PredictorConfig) {
    let encoder = EncoderConfig { embed_dim: 96, depth: 3, num_heads: 3, ..EncoderConfig::tiny().with_clip(8, 64, 64) };
    let predictor = PredictorConfig { embed_dim: 48, depth: 2, ..PredictorConfig::for_encoder(&encoder) };
    (encoder, predictor)
}

#[test]
fn pretraining_forward() {
    let (encoder, predictor) = small();
    let device = Device::capture();
    let captured = device
        .capture_scope(|scope| {
            let target = Encoder::empty(&encoder, &device).unwrap();
            let encoder = Encoder::empty(&encoder, &device).unwrap();
            let predictor = Predictor::empty(&predictor, &device).unwrap();
            let clip = Tensor::<5>::empty([4, 3, 8, 64, 64], &device);
            let pairs = [(20, 36), (16, 48)].map(|(context, target)| MaskPair {
                context: Tensor::empty([4, context], &device),
                target: Tensor::empty([4, target], &device),
                weights: None,
            });
            let output = JepaLoss { loss_exp: 1.0, reg_coeff: 0.5 }
                .forward(&encoder, &predictor, &target, clip.clone(), &pairs)
                .unwrap();
            let named: usize = [ids(&target), ids(&encoder), ids(&predictor)].iter().map(BTreeMap::len).sum();
            assert_eq!(named, 2 * 41 + 33, "every parameter has an id by its name");
            scope.complete([], [id(&output.loss), id(&output.loss_jepa), id(&output.loss_reg)])
        })
        .unwrap();
    assert!(captured.values.is_empty(), "a forward makes no constant from data");
    let counts = histogram(&captured);
    for (name, count) in &counts {
        println!("{count:4} {name}");
    }
    // Three encoder runs of 3 blocks, two predictor runs of 2.
    let blocks = 3 * 3 + 2 * 2;
    let linears = 4 * blocks + 3 + 2 * 2;
    assert_eq!(counts["Module(Attention"], blocks);
    assert_eq!(counts["Activation(Gelu"], blocks);
    assert_eq!(counts["Module(LayerNorm"], 2 * blocks + 3 + 2);
    assert_eq!(counts["Float(F32, Matmul"], linears);
    // Context and targets of two pairs; positions of both in the predictor.
    assert_eq!(counts["BaseFloat(Gather"], 2 + 2 + 4);
    // Query, key and value; the predictor's target tokens.
    assert_eq!(counts["BaseFloat(Slice"], 3 * blocks + 2);
    // A weight and two sides of an attention's heads.
    assert_eq!(counts["BaseFloat(SwapDims"], linears + 4 * blocks);
}

/// The structure of a trace does not depend on sizes, not even at one row: a compiler may unify two of them.
#[test]
fn sizes_change_no_structure() {
    let record = |batch: usize, kept: usize| {
        let device = Device::capture();
        let captured = device.capture_scope(|scope| {
            let encoder = Encoder::empty(&small().0, &device).unwrap();
            let mask = Tensor::empty([batch, kept], &device);
            let x = encoder.forward(Tensor::empty([batch, 3, 8, 64, 64], &device), Some(mask)).unwrap();
            scope.complete([], [id(&x)])
        });
        captured.unwrap().graph.operations.iter().map(name).collect::<Vec<_>>()
    };
    let one = record(1, 1);
    assert_eq!(one, record(2, 7));
    assert_eq!(one, record(5, 64));
}

#[test]
fn probe_forward() {
    let (encoder, _) = small();
    let device = Device::capture();
    let captured = device
        .capture_scope(|scope| {
            let probe = AttentiveClassifier::empty(&ProbeConfig::for_encoder(&encoder, 7), &device).unwrap();
            let features = Tensor::<3>::empty([2, 64, 96], &device);
            let targets = Tensor::<2>::empty([2, 7], &device);
            let logits = probe.forward(features.clone()).unwrap();
            let loss = cross_entropy(logits.clone(), targets.clone()).unwrap();
            scope.complete([], [id(&logits), id(&loss)])
        })
        .unwrap();
    assert!(captured.values.is_empty());
    let counts = histogram(&captured);
    for (name, count) in &counts {
        println!("{count:4} {name}");
    }
    assert_eq!(counts["Module(Attention"], 1);
    assert_eq!(counts["Float(F32, Matmul"], 2 + 2 + 1);
}
