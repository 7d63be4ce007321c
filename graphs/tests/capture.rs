//! What a capture device records: semantic operations whole, parameters without values.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{CapturedGraph, Device, Int, Tensor, TensorId};
use burn_capture::CaptureBackend;
use vjepa_graphs::{
    AttentiveClassifier, Encoder, EncoderConfig, MaskPair, ParameterVisitor, Predictor, PredictorConfig, PretrainLoss,
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

fn int_id(tensor: &Tensor<2, Int>) -> TensorId {
    tensor.clone().try_into_primitive::<CaptureBackend>().unwrap().id()
}

fn ids<M: Module>(module: &M) -> BTreeMap<String, TensorId> {
    let mut ids = Ids(BTreeMap::new());
    visit_parameters(module, &mut ids);
    ids.0
}

/// How often each operation was recorded: `Module(LayerNorm` and the like.
fn histogram(captured: &CapturedGraph) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for operation in &captured.graph.operations {
        let text = format!("{operation:?}");
        let name = text.split(" {").next().unwrap_or(&text);
        let name = name.rsplit_once('(').map_or(name, |(name, _)| name);
        *counts.entry(name.to_owned()).or_default() += 1;
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
            });
            let output = PretrainLoss { loss_exp: 1.0, reg_coeff: 0.5 }
                .forward(&encoder, &predictor, &target, clip.clone(), &pairs)
                .unwrap();
            let mut inputs: Vec<_> = pairs.iter().flat_map(|p| [int_id(&p.context), int_id(&p.target)]).collect();
            inputs.push(id(&clip));
            for module in [ids(&target), ids(&encoder), ids(&predictor)] {
                inputs.extend(module.into_values());
            }
            scope.complete(inputs, [id(&output.loss), id(&output.loss_jepa), id(&output.loss_reg)])
        })
        .unwrap();
    assert!(captured.values.is_empty(), "a forward makes no constant from data");
    let counts = histogram(&captured);
    for (name, count) in &counts {
        println!("{count:4} {name}");
    }
    // Three encoder runs of 3 blocks, two predictor runs of 2.
    let blocks = 3 * 3 + 2 * 2;
    assert_eq!(counts["Module(Attention"], blocks);
    assert_eq!(counts["Activation(Gelu"], blocks);
    assert_eq!(counts["Module(LayerNorm"], 2 * blocks + 3 + 2);
    assert_eq!(counts["Module(Linear"], 4 * blocks + 3 + 2 * 2);
    // Context and targets of two pairs; positions of both in the predictor.
    assert_eq!(counts["NumericFloat(F32, Gather"], 2 + 2 + 4);
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
            let inputs = ids(&probe).into_values().chain([id(&features), id(&targets)]).collect::<Vec<_>>();
            scope.complete(inputs, [id(&logits), id(&loss)])
        })
        .unwrap();
    assert!(captured.values.is_empty());
    let counts = histogram(&captured);
    for (name, count) in &counts {
        println!("{count:4} {name}");
    }
    assert_eq!(counts["Module(Attention"], 1);
    assert_eq!(counts["Module(Linear"], 2 + 2 + 1);
}
