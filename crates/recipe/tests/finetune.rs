//! Fine-tuning's tables against VideoMAE's: `eval_finetune`, at 1e-12.

use std::path::{Path, PathBuf};

use serde_json::Value;
use vjepa_recipe::finetune::{FinetuneSchedule, LayerDecay, decayed, drop_path_rates};

fn files(name: &str) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden/eval_finetune").join(name);
    assert!(carried.is_file(), "{} is part of the repository", carried.display());
    let beside: PathBuf = root.join("../shared/golden/eval_finetune").join(name);
    let read = |path: &PathBuf| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    [carried, beside].iter().filter(|path| path.is_file()).map(read).collect()
}

fn close(got: f64, want: &Value) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= 1e-12 * want.abs(), "{got} is not {want}");
}

#[test]
fn layer_decay_and_drop_path() {
    for file in files("layer_decay.json") {
        let mut compared = 0;
        for (_, model) in file.as_object().unwrap().iter().filter(|(_, model)| model.is_object()) {
            let model = model.as_object().unwrap();
            let scales = model.iter().filter_map(|(key, list)| Some((key.parse::<f64>().ok()?, list.as_array()?)));
            let mut depth = 0;
            for (factor, want) in scales {
                depth = want.len() - 2;
                let got = LayerDecay { decay: factor, depth }.scales();
                assert_eq!(got.len(), want.len());
                got.iter().zip(want).for_each(|(got, want)| close(*got, want));
                compared += 1;
            }
            let decay = LayerDecay { decay: 0.5, depth };
            for (name, layer) in model["layer_id"].as_object().unwrap() {
                assert_eq!(Some(decay.layer(name) as u64), layer.as_u64(), "{name}");
            }
            for (key, want) in model {
                let Some(rate) = key.strip_prefix("drop_path_") else { continue };
                let want = want.as_array().unwrap();
                let got = drop_path_rates(rate.parse().unwrap(), want.len());
                got.iter().zip(want).for_each(|(got, want)| close(f64::from(*got), want));
                compared += 1;
            }
        }
        assert!(compared > 0);
    }
}

#[test]
fn rates_of_every_step() {
    for file in files("schedule.json") {
        for run in file["schedules"].as_array().unwrap() {
            let (real, whole) = (|key: &str| run[key].as_f64().unwrap(), |key: &str| run[key].as_u64().unwrap());
            let schedule = FinetuneSchedule::new(
                [real("base"), real("min")],
                whole("epochs"),
                whole("steps_per_epoch"),
                whole("warmup_epochs"),
                run["warmup_steps"].as_i64().unwrap(),
            );
            let schedule = schedule.unwrap();
            assert_eq!(schedule.total_steps, whole("total"));
            for row in run["rows"].as_array().unwrap() {
                close(schedule.at(row[0].as_u64().unwrap()), &row[1]);
            }
        }
    }
}

#[test]
fn groups_of_the_recorded_run() {
    for info in files("info.json") {
        let (config, hparams) = (&info["config"], &info["hparams"]);
        let decay = LayerDecay {
            decay: hparams["layer_decay"].as_f64().unwrap(),
            depth: config["depth"].as_u64().unwrap() as usize,
        };
        for run in info["runs"].as_object().unwrap().values() {
            for group in run["groups"].as_array().unwrap() {
                for name in group["names"].as_array().unwrap() {
                    let name = name.as_str().unwrap();
                    close(decay.scale(decay.layer(name)), &group["lr_scale"]);
                    // Norms and biases are vectors, every other weight has at least two axes.
                    let vector = name.ends_with(".bias") || name.contains("norm");
                    let shape: &[usize] = if vector { &[4] } else { &[4, 4] };
                    let weight_decay =
                        if decayed(name, shape) { hparams["weight_decay"].as_f64().unwrap() } else { 0.0 };
                    assert_eq!(Some(weight_decay), group["weight_decay"].as_f64(), "{name}");
                }
            }
        }
        let schedule = FinetuneSchedule::new(
            [hparams["lr"].as_f64().unwrap(), hparams["min_lr"].as_f64().unwrap()],
            hparams["epochs"].as_u64().unwrap(),
            hparams["steps_per_epoch"].as_u64().unwrap(),
            hparams["warmup_epochs"].as_u64().unwrap(),
            hparams["warmup_steps"].as_i64().unwrap(),
        );
        for (step, want) in info["lr_schedule"].as_array().unwrap().iter().enumerate() {
            close(schedule.clone().unwrap().at(step as u64), want);
        }
    }
}
