//! What every objective must hold, over the whole table.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use burn::tensor::{Int, TensorData};

fn models() -> Models {
    let encoder = EncoderConfig { embed_dim: 32, depth: 2, num_heads: 2, patch: 8, ..EncoderConfig::tiny() };
    let encoder = encoder.with_clip(4, 16, 16);
    let predictor = PredictorConfig { embed_dim: 16, depth: 1, ..PredictorConfig::for_encoder(&encoder) };
    Models {
        encoder,
        predictor,
        generators: 2,
        context_weight: None,
        normalization: Normalization::Imagenet,
        bucket: 0,
    }
}

fn all() -> impl Iterator<Item = AnyObjective> {
    ObjectiveName::ALL.into_iter().map(|objective| open(&LossConfig { objective, ..LossConfig::default() }, &models()))
}

fn batch(objective: &AnyObjective, apart: bool, device: &Device) -> Batch {
    let declaration = objective.declaration();
    let inputs = if apart { declaration.inputs_apart() } else { declaration.inputs.clone() };
    let [c, t, h, w] = declaration.clip;
    let clips = |_: &str, used: ClipUse| {
        let turned = usize::from(used == ClipUse::Context);
        let values = (0..3 * c * t * h * w).map(|i| (((i + turned) * 7919 % 1013) as f32 / 506.5) - 1.0).collect();
        Ok::<_, ShapeError>(Tensor::from_data(TensorData::new(values, [3, c, t, h, w]), device))
    };
    let indices = |_: &str, which: Indices| {
        let tokens = if matches!(which, Indices::Context(_)) { [0, 2, 5] } else { [1, 3, 4] };
        let values: Vec<i32> = (0..3).flat_map(|_| tokens).collect();
        Ok(Tensor::<2, Int>::from_data(TensorData::new(values, [3, 3]), device))
    };
    Batch::gather(&inputs, &mut (clips, indices)).unwrap()
}

fn start() -> Start {
    Start { init: Init::Xavier, zero_mask_tokens: false, seed: 1 }
}

#[test]
fn declarations_are_consistent() {
    for objective in all() {
        let declaration = objective.declaration();
        let roles: BTreeMap<&str, &ParameterSet> = declaration.sets.iter().map(|set| (set.name, set)).collect();
        assert_eq!(roles.len(), declaration.sets.len(), "{objective:?}: two sets of one name");
        // Prefixes that readers of checkpoints give a meaning of their own.
        let taken = ["adam", "module", "backbone", "model", "state_dict", "probe", "classifier"];
        assert!(!roles.keys().any(|name| taken.contains(name) || name.contains('.')), "{:?}", roles.keys());
        for (average, of) in declaration.averages() {
            assert_eq!((roles[of].role, &roles[of].shapes), (Role::Trained, &average.shapes), "{objective:?}");
        }
        assert_eq!(roles[declaration.monitor.gradient].role, Role::Trained, "{objective:?}");
        assert!(roles.contains_key(declaration.monitor.features), "{objective:?}");
        let outputs: BTreeSet<&str> = declaration.terms.iter().copied().chain(["loss"]).collect();
        assert_eq!(outputs.len(), declaration.terms.len() + 1, "{objective:?}: two scalars of one name");
        let inputs = declaration.inputs_apart();
        let names: BTreeSet<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        assert_eq!(names.len(), inputs.len(), "{objective:?}: two inputs of one name");
    }
}

#[test]
fn the_model_has_the_declared_parameters_in_the_declared_order() {
    for objective in all() {
        let built = objective.build(&Device::flex()).unwrap();
        let mut found = Vec::new();
        built.visit(
            |_| true,
            |name, tensor| {
                found.push((name.to_owned(), Tensor::<1>::from_dispatch(tensor).shape().to_vec()));
            },
        );
        let sets: Vec<&str> = objective.declaration().sets.iter().map(|set| set.name).collect();
        let mut seen: Vec<&str> = found.iter().filter_map(|(name, _)| name.split('.').next()).collect();
        seen.dedup();
        assert_eq!(seen, sets, "{objective:?}");
        let declared = objective.declaration().parameters().map(|(name, shape)| (name, shape.to_vec()));
        assert_eq!(found.iter().cloned().collect::<BTreeMap<_, _>>(), declared.collect(), "{objective:?}");
        let initial = objective.initial(start());
        assert_eq!(initial.keys().collect::<Vec<_>>(), {
            let names: BTreeSet<&String> = found.iter().map(|(name, _)| name).collect();
            names.into_iter().collect::<Vec<_>>()
        });
    }
}

#[test]
fn trained_sets_alone_have_gradients_and_the_right_context_matters_only_to_losses() {
    for objective in all() {
        let device = Device::flex().autodiff();
        let mut built = objective.build(&device).unwrap();
        built.load(objective.initial(start())).unwrap();
        let losses = built.losses(&batch(&objective, false, &device)).unwrap();
        let other = built.losses(&batch(&objective, true, &device)).unwrap();
        let value = |tensor: &Tensor<1>| tensor.clone().into_scalar::<f32>();
        assert!(value(&losses.loss).is_finite() && value(&losses.loss) > 0.0, "{objective:?}");
        assert!(value(&losses.loss) != value(&other.loss), "{objective:?} ignores the context's clips");
        let declaration = objective.declaration();
        let gradients = built.gradients(&losses.loss.backward());
        let of: BTreeSet<&str> = gradients.keys().filter_map(|name| name.split('.').next()).collect();
        assert_eq!(of, declaration.trained().map(|set| set.name).collect(), "{objective:?}");
        let [c, t, h, w] = declaration.clip;
        let features = built.monitored(Tensor::zeros([2, c, t, h, w], &device)).unwrap();
        assert_eq!(features.dims()[0], 2, "{objective:?}");
    }
}

#[test]
fn averages_start_as_copies_unless_given() {
    let objective = open(&LossConfig::default(), &models());
    let mut tensors = NamedTensors::from([("encoder.norm.bias".to_owned(), (vec![1], vec![0.5]))]);
    objective.declaration().start_averages(&mut tensors);
    assert_eq!(tensors["target_encoder.norm.bias"], (vec![1], vec![0.5]));
    tensors.insert("encoder.norm.weight".to_owned(), (vec![1], vec![2.0]));
    objective.declaration().start_averages(&mut tensors);
    assert!(!tensors.contains_key("target_encoder.norm.weight"), "an average that is there is left alone");
}

#[test]
fn half_a_mask_pair_and_missing_clips_are_errors() {
    let device = Device::flex();
    let clip = |_: &str, _| Ok(Tensor::zeros([1, 3, 4, 16, 16], &device));
    let index = |_: &str, _| Ok::<_, ShapeError>(Tensor::zeros([1, 2], &device));
    let inputs = Declaration::masked_clips(1);
    assert_eq!(Batch::gather(&inputs, &mut (clip, index)).unwrap().pairs.len(), 1);
    let half = Batch::gather(&inputs[..2], &mut (clip, index)).unwrap_err();
    assert!(half.to_string().contains("a context and a target"), "{half}");
    let missing = Batch::gather(&inputs[1..], &mut (clip, index)).unwrap_err();
    assert!(missing.to_string().contains("must be clips"), "{missing}");
}
