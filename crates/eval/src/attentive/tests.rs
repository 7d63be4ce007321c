//! Both probes, trained and run.

use super::*;
use vjepa_graphs::ProbeConfig;
use vjepa_metrics::top_k;
use vjepa_recipe::counter::CounterRng;

/// One token of each clip says its class; where it stands differs from clip to clip.
fn features(clips: usize, seed: u64) -> (Features, Vec<usize>) {
    let mut rng = CounterRng::new(&[seed]);
    let (mut features, mut labels) = (Features::empty(6, 16), Vec::new());
    for _ in 0..clips {
        let (class, place) = (rng.below(3) as usize, rng.below(6) as usize);
        for token in 0..6 {
            for j in 0..16 {
                let signal = if token == place && j == class { 4.0 } else { 0.0 };
                features.values.push((signal + rng.uniform(-0.5, 0.5)) as f32);
            }
        }
        labels.push(class);
    }
    (features, labels)
}

fn probe() -> Probe {
    Probe::Attentive(ProbeConfig::sized(16, 2, 3))
}

#[test]
fn both_probes_learn_through_the_compiled_step() {
    let (train, train_labels) = features(90, 1);
    let (test, test_labels) = features(60, 2);
    let rows: Vec<usize> = (0..90).collect();
    let options = ProbeOptions { epochs: 30, batch: 16, lr: 3e-3, ..ProbeOptions::default() };
    for (probe, least) in [(probe(), 0.8), (Probe::Linear { embed_dim: 16, num_classes: 3 }, 0.6)] {
        let mut trainer = ProbeTrainer::new(&probe).unwrap();
        let mut epochs = 0;
        let weights = trainer.fit(&train, &train_labels, &rows, &options, &mut |p| epochs = p.done).unwrap();
        assert_eq!(epochs, 30);
        let again = trainer.fit(&train, &train_labels, &rows, &options, &mut |_| ()).unwrap();
        assert_eq!(weights, again);
        let mut runner = ProbeRunner::new(&probe, &weights).unwrap();
        let accuracy = top_k(&runner.probabilities(&test).unwrap(), 3, &test_labels, 1);
        assert!(accuracy > least, "{probe:?}: {accuracy}");
    }
}

#[test]
fn wrong_sizes_are_errors() {
    let (train, labels) = features(4, 1);
    let mut trainer = ProbeTrainer::new(&probe()).unwrap();
    let mut fit = |features: &Features, labels: &[usize], rows: &[usize], options: &ProbeOptions| {
        trainer.fit(features, labels, rows, options, &mut |_| ()).map(drop).unwrap_err().to_string()
    };
    let options = ProbeOptions::default();
    assert!(fit(&train, &labels, &[9], &options).contains("rows"));
    assert!(fit(&train, &labels, &[], &options).contains("rows"));
    assert!(fit(&train, &[7, 7, 7, 7], &[0], &options).contains("label 7"));
    assert!(fit(&train, &labels, &[0], &ProbeOptions { batch: 0, ..options }).contains("epoch"));
    let wide = Features { tokens: 1, dim: 96, values: train.values.clone() };
    assert!(fit(&wide, &labels, &[0], &options).contains("96 wide"));
}
