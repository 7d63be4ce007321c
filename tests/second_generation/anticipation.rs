//! Action anticipation, from a CSV file and from the official evaluation's configuration.

use std::path::Path;

use super::{Scene, said, textures, vjepa};
use vjepa_data::annotations::official_classes;
use vjepa_eval::attentive::first_weights;
use vjepa_eval::probe_file::save_probe;
use vjepa_eval::protocols::anticipation::{AnticipationRecord, FutureEncoder, FutureTimes, load_actions, save_actions};
use vjepa_programs::{Probe, ProbeRecord, first_action_weights};
use vjepa_runtime::plan::Device;

/// Annotations of the carried videos: what texture it is, and how it moves, follows from what was seen.
fn annotations(videos: &[&str]) -> String {
    let mut text = "narration_id,participant_id,video_id,start_frame,stop_frame,verb_class,noun_class\n".to_owned();
    for (number, video) in videos.iter().enumerate() {
        let (noun, verb) = (&video[1..2], &video[4..5]);
        text.push_str(&format!("n{number},P01,{video},{},{},{verb},{noun}\n", 12, 20));
    }
    text
}

/// The probe `out` as the official code saves one, evaluated with the classes of its list and refused with others.
fn as_officially(scene: &Scene, frozen: &[&str], actions: &str, out: &str) {
    let (official, classes) = (scene.path("official.safetensors"), official_classes(Path::new(actions)).unwrap());
    let (record, mut probe) = load_actions(Path::new(out)).unwrap();
    // The official code numbers classes in another order than this program.
    let places = |own: &[i64], theirs: &[i64]| -> Vec<usize> {
        theirs.iter().map(|class| own.iter().position(|own| own == class).unwrap()).collect()
    };
    let of_actions =
        classes.actions.iter().map(|action| record.actions.iter().position(|own| own == action).unwrap()).collect();
    for (head, places) in [
        ("verb", places(&record.verbs, &classes.verbs)),
        ("noun", places(&record.nouns, &classes.nouns)),
        ("action", of_actions),
    ] {
        for part in ["weight", "bias"] {
            let (shape, values) = probe.get_mut(&format!("probe.{head}_classifier.{part}")).unwrap();
            let row = values.len() / shape[0];
            *values = places.iter().flat_map(|place| values[place * row..(place + 1) * row].to_vec()).collect();
        }
    }
    // The second of two, as of two rates; the first knows nothing.
    let named = probe.into_iter().flat_map(|(name, (shape, values))| {
        let nothing = vec![0.0; values.len()];
        let of = |number: usize| name.replacen("probe.", &format!("classifiers.{number}.module."), 1);
        [(of(0), (shape.clone(), nothing)), (of(1), (shape, values))]
    });
    vjepa_weights::save_safetensors(Path::new(&official), &named.collect(), &Default::default()).unwrap();
    let eval = |more: &[&str]| {
        let mut command = vjepa(&["anticipate", "eval", "--probe", &official, "--actions", actions]);
        said(command.args(frozen).args(more))
    };
    let clips = ["--frames", "4", "--seconds", "0.25"];
    let second = [&["--classes", actions, "--probe-number", "1"][..], &clips].concat();
    let (told, fine) = eval(&second);
    assert!(fine && told.contains("recall at 5: verb 100.0 %, noun 100.0 %") && !told.contains("2 probes"), "{told}");
    let (told, fine) = eval(&[&["--classes", actions][..], &clips].concat());
    assert!(fine && told.contains("holds 2 probes, of which number 0 is taken"), "{told}");
    let (told, fine) = eval(&[&["--classes", actions, "--probe-number", "2"][..], &clips].concat());
    assert!(!fine && told.contains("give --probe-number a number from 0 to 1"), "{told}");
    let (told, fine) = eval(&[&["--classes", &scene.path("more.csv")][..], &clips].concat());
    assert!(
        !fine && told.contains("tells 2 verbs, 2 nouns and 4 actions apart") && told.contains("--classes"),
        "{told}"
    );
    let (told, fine) = eval(&[]);
    assert!(!fine && told.contains("--classes EPIC_100_train.csv"), "{told}");
}

/// Futures beyond what a predictor sees, in words.
fn refused_futures(scene: &Scene, frozen: &[&str], actions: &str) {
    let out = scene.path("none.safetensors");
    let train = |seconds: &str, frames: &str| {
        let mut command = vjepa(&["anticipate", "train", "--train", actions, "--out", &out, "--epochs", "1"]);
        said(command.args(frozen).args(["--seconds", seconds, "--frames", frames]))
    };
    // A predictor sees at least 64 frames, as the released ones do: with 4 of them at 8 a second it sees 7.5 seconds ahead.
    for seconds in ["7.5", "60", "1e5", "1e9", "1e300"] {
        let (told, fine) = train(seconds, "4");
        let words = "encoder (32 wide, 3 blocks), whose predictor sees 64 frames: after clips of 4 at 8 a second it sees less than 7.5";
        let errors = told.lines().filter(|line| line.starts_with("error:")).count();
        assert!(!fine && told.contains(words) && errors == 1, "{told}");
    }
    let (told, fine) = train("1", "64");
    assert!(!fine && told.contains("sees 64 frames: clips of 64 leave it no future"), "{told}");
}

/// Probes of another width than the features, refused by every command with the names of both.
fn refused_widths(scene: &Scene, frozen: &[&str], (actions, out): (&str, &str)) {
    let (checkpoint, val) = (scene.checkpoint(), scene.path("val.csv"));
    let probe = Probe::Linear { embed_dim: 16, num_classes: 2 };
    let plain = scene.path("narrow.safetensors");
    save_probe(Path::new(&plain), &ProbeRecord::of(&probe, &[]), &first_weights(&probe, 1), &Default::default())
        .unwrap();
    let (record, _) = load_actions(Path::new(out)).unwrap();
    let record = AnticipationRecord { embed_dim: 16, ..record };
    let weights = first_action_weights(&record.probe(), record.classes(), 1).into_iter();
    let narrow = scene.path("narrow-actions.safetensors");
    save_actions(Path::new(&narrow), &record, &weights.collect()).unwrap();
    let model = scene.path("narrow.onnx");
    for (probe, command) in [
        (&plain, vec!["eval", "--checkpoint", &checkpoint, "--data", &val]),
        (&plain, vec!["compile", "--checkpoint", &checkpoint, "--export", "onnx", "--out", &model]),
        (&narrow, [&["anticipate", "eval", "--actions", actions], frozen].concat()),
    ] {
        let (told, fine) = said(vjepa(&command).args(["--probe", probe]));
        let (holds, but) = (format!("{probe} holds a probe"), "for features 16 wide, but V-JEPA 2");
        assert!(!fine && told.contains(&holds) && told.contains(but), "{}: {told}", command[0]);
        assert!(told.contains("encoder (32 wide, 3 blocks) has features 32 wide"), "{}: {told}", command[0]);
    }
}

/// An evaluation of action anticipation in the official layout.
fn configuration(scene: &Scene, actions: &str, more: &str) -> String {
    format!(
        "nodes: 8\ntag: mine\neval_name: action_anticipation_frozen\nfolder: /out\nresume_checkpoint: true\nexperiment:\n\
         \x20 classifier: {{num_probe_blocks: 2, num_heads: 4}}\n  data:\n    dataset: EK100\n    base_path: {}\n    file_format: 0\n\
         \x20   dataset_train: {actions}\n    dataset_val: {more}\n    frames_per_clip: 4\n    frames_per_second: 8\n    resolution: 48\n\
         \x20   anticipation_time_sec: [0.25, 0.25]\n    auto_augment: true\n  optimization:\n    num_epochs: 3\n    batch_size: 4\n\
         \x20   use_bfloat16: true\n    use_focal_loss: true\n    multihead_kwargs:\n\
         \x20   - {{weight_decay: 0.1, final_weight_decay: 0.1, lr: 0.003, start_lr: 0.003, final_lr: 0.0, warmup: 0.}}\n\
         \x20   - {{weight_decay: 0.01, final_weight_decay: 0.01, lr: 0.001, start_lr: 0.001, final_lr: 0.0, warmup: 1.}}\n\
         model_kwargs:\n  checkpoint: {}\n  module_name: evals.action_anticipation_frozen.modelcustom.vit_encoder_predictor_concat_ar\n\
         \x20 wrapper_kwargs: {{no_predictor: false, num_output_frames: 2, num_steps: 1}}\n  pretrain_kwargs:\n\
         \x20   encoder: {{checkpoint_key: target_encoder, patch_size: 8, tubelet_size: 2, uniform_power: true, use_rope: true}}\n\
         \x20   predictor: {{model_name: vit_predictor, num_frames: 64}}\n",
        textures().display(),
        scene.checkpoint()
    )
}

#[test]
fn the_official_file_of_anticipation_trains_and_measures_its_probes() {
    let scene = Scene::new("vjepa2");
    let train = ["t0_d0_s0", "t1_d0_s0", "t0_d1_s0", "t1_d1_s0", "t0_d0_s1", "t1_d0_s1"];
    std::fs::write(scene.at("actions.csv"), annotations(&train)).unwrap();
    std::fs::write(scene.at("more.csv"), annotations(&["t0_d1_s1", "t1_d0_s0"])).unwrap();
    let text = configuration(&scene, &scene.path("actions.csv"), &scene.path("more.csv"));
    std::fs::write(scene.at("ek100.yaml"), text).unwrap();
    let (config, out) = (scene.path("ek100.yaml"), scene.path("probe.safetensors"));
    let train = ["anticipate", "train", "--config", &config, "--out", &out, "--json"];
    let (told, fine) = said(vjepa(&train).arg("--cached"));
    for key in ["experiment.data.auto_augment", "encoder.use_rope", "encoder.uniform_power"] {
        assert!(fine && told.contains(&format!("{key}` has no effect")), "{key}: {told}");
    }
    let summary: serde_json::Value =
        serde_json::from_str(told.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    let rates: Vec<(f64, f64)> = (summary["probes"].as_array().unwrap().iter())
        .map(|probe| (probe["lr"].as_f64().unwrap(), probe["wd"].as_f64().unwrap()))
        .collect();
    assert_eq!((rates, &summary["seconds"]), (vec![(0.003, 0.1), (0.001, 0.01)], &0.25.into()));
    let (record, _) = load_actions(Path::new(&out)).unwrap();
    assert_eq!((record.depth, record.num_heads, record.side, record.frames), (2, 4, 48, 4));
    let fixed = std::fs::read(&out).unwrap();
    // As the file says: clips are drawn and augmented in every epoch, the same for the same seed.
    let augmented = || {
        let (told, fine) = said(&mut vjepa(&train));
        assert!(fine && told.contains("as the configuration says how training clips are made"), "{told}");
        assert!(!told.contains("auto_augment"), "{told}");
        std::fs::read(&out).unwrap()
    };
    // Each clip has its own future, which does not depend on how far the predictor may look.
    let opened = |farthest| {
        let (path, times) = (scene.checkpoint(), FutureTimes { fps: 8.0, seconds: 0.25, farthest });
        FutureEncoder::open(Device::CPU, Path::new(&path), None, (4, None), times).unwrap()
    };
    let clips: Vec<f32> = (0..2 * 3 * 4 * 32 * 32).map(|place| (place % 97) as f32 / 97.0).collect();
    let near = opened(0.25).encode(clips.clone(), &[0.25, 0.25]).unwrap();
    assert_eq!(opened(1.75).encode(clips.clone(), &[0.25, 0.25]).unwrap(), near);
    let apart = opened(1.75).encode(clips.clone(), &[0.25, 1.75]).unwrap();
    let one = near.values.len() / 2;
    assert!(apart.values[..one] == near.values[..one] && apart.values[one..] != near.values[one..]);
    assert!(opened(0.25).encode(clips, &[0.25, 1.75]).is_err());
    let drawn = augmented();
    assert!(drawn != fixed && drawn == augmented());
    let (told, fine) = said(vjepa(&train).args(["--set", "experiment.data.motion_shift=true"]));
    assert!(!fine && told.contains("motion_shift` is true"), "{told}");
    std::fs::write(&out, fixed).unwrap();
    let eval = ["anticipate", "eval", "--config", &config, "--probe", &out];
    let (told, fine) = said(&mut vjepa(&eval));
    assert!(fine && told.contains("recall at 5: verb 100.0 %, noun 100.0 %"), "{told}");
    assert!(!told.contains("the probe was trained with"), "{told}");
    // What the file says otherwise than the probe is named, and what it says otherwise than the checkpoint refused.
    let (told, fine) = said(vjepa(&eval).args(["--set", "experiment.data.resolution=32"]));
    assert!(fine && told.contains("ek100.yaml: `experiment.data.resolution` (32) has no effect: the probe"), "{told}");
    assert_eq!(told.matches("the probe was trained with").count(), 1, "{told}");
    for (set, words) in
        [("model_name=vit_large", "(32 wide, 3 blocks) with 2 heads"), ("patch_size=16", "has 8: correct it")]
    {
        let set = format!("model_kwargs.pretrain_kwargs.encoder.{set}");
        let (told, fine) = said(vjepa(&eval).args(["--set", &set]));
        assert!(!fine && told.contains(words), "{words}: {told}");
    }
    let (told, fine) = said(&mut vjepa(&["anticipate", "eval", "--config", &config, "--probe", &out, "--fps", "4"]));
    assert!(!fine && told.contains("says its classes and clips itself"), "{told}");
    let set = "experiment.data.dataset=COIN_anticipation";
    let (told, fine) = said(&mut vjepa(&["anticipate", "train", "--config", &config, "--out", &out, "--set", set]));
    assert!(!fine && told.contains("experiment.data.dataset") && told.contains("EK100"), "{told}");
    let (told, fine) = said(&mut vjepa(&["anticipate", "train", "--out", &out]));
    assert!(!fine && told.contains("--videos"), "{told}");
}

#[test]
fn actions_are_anticipated_from_a_csv_and_a_folder_of_videos() {
    for generation in ["vjepa2", "vjepa2_1"] {
        let scene = Scene::new(generation);
        let train = ["t0_d0_s0", "t1_d0_s0", "t0_d1_s0", "t1_d1_s0", "t0_d0_s1", "t1_d0_s1", "t0_d1_s1", "t1_d1_s1"];
        std::fs::write(scene.at("actions.csv"), annotations(&train)).unwrap();
        std::fs::write(scene.at("more.csv"), annotations(&["t0_d2_s0", "t1_d0_s0", "t9_d0_s9"])).unwrap();
        let (checkpoint, videos) = (scene.checkpoint(), textures().display().to_string());
        let (actions, more, out) =
            (scene.path("actions.csv"), scene.path("more.csv"), scene.path("actions.safetensors"));
        let frozen = ["--checkpoint", &checkpoint, "--videos", &videos];
        let trained = ["--frames", "4", "--seconds", "0.25", "--epochs", "3", "--lr", "1e-3,3e-3"];
        let mut command = vjepa(&["anticipate", "train", "--train", &actions, "--val", &more, "--out", &out, "--json"]);
        let (told, fine) = said(command.args(frozen).args(trained));
        assert!(fine, "{told}");
        assert!(told.contains("1 actions have no file in"), "{told}");
        let summary: serde_json::Value =
            serde_json::from_str(told.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
        // The classes are those of --train; what only --val has is counted.
        assert_eq!((&summary["verbs"], &summary["nouns"], &summary["actions"]), (&2.into(), &2.into(), &4.into()));
        assert_eq!(summary["probes"].as_array().unwrap().len(), 2);
        assert_eq!(summary["probes"][0]["recall_at_5"]["unknown"], 1, "{summary}");
        // Both anchors, of which they read other frames.
        for anchor in ["stop", "start"] {
            let mut command =
                vjepa(&["anticipate", "eval", "--probe", &out, "--actions", &actions, "--anchor", anchor]);
            let (told, fine) = said(command.args(frozen));
            assert!(fine && told.contains("recall at 5: verb 100.0 %, noun 100.0 %"), "{told}");
        }
        let (told, fine) =
            said(vjepa(&["anticipate", "eval", "--probe", &checkpoint, "--actions", &actions]).args(frozen));
        assert!(!fine && told.contains("is not a probe of actions"), "{told}");
        as_officially(&scene, &frozen, &actions, &out);
        refused_futures(&scene, &frozen, &actions);
        refused_widths(&scene, &frozen, (&actions, &out));
        let bad = ["--fps", "100"];
        let mut command = vjepa(&["anticipate", "train", "--train", &actions, "--out", &out]);
        let (told, fine) = said(command.args(frozen).args(trained).args(bad));
        assert!(!fine && told.contains("fewer than the 100 of a clip"), "{told}");
    }
}
