//! Files with other models, other files than checkpoints, and checkpoints in several files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_weights::{Tensors, save_safetensors};

use super::support::pytorch::{self, Value};
use super::support::{refused, texture, tiny, vjepa};
use super::{Scene, encoder, inspect, target};

/// Tensors of an official classifier for the golden encoder; `projected` as V-JEPA 1 has it.
fn classifier(projected: bool) -> Vec<(String, Value)> {
    let mut shapes = vec![
        ("pooler.query_tokens".to_owned(), vec![1, 1, 96]),
        ("linear.weight".to_owned(), vec![4, 96]),
        ("linear.bias".to_owned(), vec![4]),
    ];
    for (name, outputs, inputs) in [
        ("xattn.q", 96, 96),
        ("xattn.kv", 192, 96),
        ("xattn.proj", 96, 96),
        ("mlp.fc1", 384, 96),
        ("mlp.fc2", 96, 384),
        ("norm1", 96, 0),
        ("norm2", 96, 0),
    ] {
        if name == "xattn.proj" && !projected {
            continue;
        }
        let name = format!("pooler.cross_attention_block.{name}");
        shapes.push((format!("{name}.bias"), vec![outputs]));
        shapes.push((format!("{name}.weight"), if inputs == 0 { vec![outputs] } else { vec![outputs, inputs] }));
    }
    let value = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product::<usize>();
        let data = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
        (format!("module.{name}"), Value::Tensor { shape, data })
    };
    shapes.into_iter().map(value).collect()
}

#[test]
fn the_official_classifier_is_a_probe() {
    let scene = Scene::new();
    let file =
        |key: &str, entries| pytorch::checkpoint(&[(key.to_owned(), entries), ("epoch".to_owned(), Value::Int(20))]);
    let probe = scene.write("probe.pth.tar", file("classifier", Value::Dict(classifier(true))));
    assert_eq!(inspect(&probe)["holds"]["probe"]["tensors"], 17);
    let list = scene.write(
        "list.csv",
        format!("{} 1\n{} 3\n", texture("t0_d0_s0.mp4").display(), texture("t0_d0_s1.webm").display()),
    );
    let with = |command: &str, probe: &Path| {
        let mut program = vjepa();
        program.arg(command).arg("--checkpoint").arg(tiny("weights.safetensors")).arg("--config").arg(&scene.config);
        program.arg("--probe").arg(probe);
        program
    };
    let evaluate = |probe: &Path| {
        let mut command = with("eval", probe);
        command.arg("--data").arg(&list).args(["--labels-from", "0", "--no-cache"]);
        command
    };
    let output = evaluate(&probe).arg("--json").assert().success().get_output().stdout.clone();
    let found: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!((&found["classes"], &found["videos"]), (&4.into(), &2.into()));
    let model = scene.path("model.onnx");
    with("compile", &probe).args(["--export", "onnx", "--no-verify", "--out"]).arg(&model).assert().success();
    let mut run = vjepa();
    run.arg("run").arg(tiny("weights.safetensors")).arg(texture("t0_d0_s0.mp4")).args(["--runtime", "plan", "--json"]);
    let output = run
        .arg("--probe")
        .arg(&probe)
        .arg("--config")
        .arg(&scene.config)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let found: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(found["top"].as_array().unwrap().len(), 4);

    // V-JEPA 2's probes, whose blocks work on the features, and files that are not probes.
    let list = [("0".to_owned(), Value::Dict(classifier(false)))];
    for (name, bytes) in [
        ("second.pt", file("classifiers", Value::Dict(list.into()))),
        ("alone.pt", file("classifier", Value::Dict(classifier(false)))),
    ] {
        evaluate(&scene.write(name, bytes)).assert().success().stdout(predicates::str::contains("top-1"));
    }
    assert!(refused(&mut evaluate(&tiny("weights.safetensors"))).contains("holds no probe"));
    assert!(refused(&mut scene.features(&probe)).contains("only probe"));
}

#[test]
fn a_configuration_of_another_generation_is_refused_by_name() {
    let scene = Scene::new();
    let tensor = |shape: &[usize]| Value::Tensor { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] };
    let without_positions: Vec<_> =
        pytorch::state_dict(&encoder()).into_iter().filter(|(name, _)| name != "pos_embed").collect();
    let second = |model: &str, more: &[(&str, Value)]| {
        let mut entries = pytorch::state_dict(&encoder());
        entries.retain(|(name, _)| name != "pos_embed");
        for (name, value) in more {
            let Value::Tensor { shape, .. } = value else { continue };
            entries.push(((*name).to_owned(), tensor(shape)));
        }
        let entries = entries.into_iter().map(|(name, value)| (format!("module.backbone.{name}"), value)).collect();
        pytorch::checkpoint(&[(model.to_owned(), Value::Dict(entries))])
    };
    let mut released = vec![("target_encoder".to_owned(), target(|_, value| value).1)];
    released.push((
        "predictor".to_owned(),
        Value::Dict((0..10).map(|i| (format!("module.backbone.mask_tokens.{i}"), tensor(&[1, 1, 48]))).collect()),
    ));
    let hugging_face = [
        ("vjepa2.encoder.embeddings.patch_embeddings.proj.weight", tensor(&[96, 3, 2, 1, 1])),
        ("vjepa2.encoder.embeddings.patch_embeddings.proj.bias", tensor(&[96])),
        ("vjepa2.encoder.layer.0.norm1.weight", tensor(&[96])),
    ];
    let hugging_face: Vec<_> = hugging_face.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for (name, bytes, generation) in [
        ("second.pt", second("target_encoder", &[]), "V-JEPA 2 encoder (96 wide, 3 blocks)"),
        ("bare.pt", pytorch::checkpoint(&without_positions), "V-JEPA 2 encoder (96 wide, 3 blocks)"),
        ("with-table.pt", pytorch::checkpoint(&released), "V-JEPA 2 encoder (96 wide, 3 blocks)"),
        ("distilled.pt", second("ema_encoder", &[("norms_block.0.weight", tensor(&[96]))]), "V-JEPA 2.1 encoder"),
        ("third.pt", second("target_encoder", &[("video_mod_embed", tensor(&[1, 1, 96]))]), "V-JEPA 2.1 encoder"),
        (
            "hugging-face.pt",
            pytorch::checkpoint(&hugging_face),
            "V-JEPA 2 encoder (96 wide, 1 blocks) in Hugging Face's",
        ),
    ] {
        let message = scene.refuses(name, &bytes);
        // Parts of a model say what is missing, whatever is asked for.
        let whole = !["with-table.pt", "hugging-face.pt"].contains(&name);
        let said = message.contains(generation) && message.contains("model.generation");
        assert!(if whole { said } else { message.contains("sizes cannot be determined without") }, "{message}");
        let about = inspect(&scene.path(name));
        assert!(about["model"].as_str().unwrap().contains(generation), "{about}");
    }
}

#[test]
fn what_is_not_the_file_is_named() {
    let scene = Scene::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1308415264\n";
    for name in ["pointer.pth.tar", "pointer.safetensors"] {
        assert!(scene.refuses(name, pointer).contains("git lfs pull"));
    }
    assert!(scene.refuses("page.pt", "<!DOCTYPE html>\n<html><head>").contains("HTML page"));
    assert!(scene.refuses("packed.pt", b"\x1f\x8b\x08\0\0\0\0\0").contains("gunzip"));
    assert!(scene.refuses("plain.pt", b"\x80\x02}q\0.").contains("torch.save did not write"));
    assert!(scene.refuses("any.pt", b"{\"a\": 1}").contains("weight_map"));
    assert!(refused(&mut scene.features(scene.folder.path())).contains("a folder"));
    // The same wherever a file is taken.
    let pointed = scene.write("clip.mp4", pointer);
    let model = scene.write("model.onnx", pointer);
    let mut commands: Vec<assert_cmd::Command> = (0..5).map(|_| vjepa()).collect();
    commands[0].arg("inspect").arg(&pointed);
    commands[1].arg("inspect").arg(scene.path("pointer.safetensors"));
    commands[2].arg("frames").arg(&pointed).args(["--indices", "0", "--out"]).arg(scene.path("frames"));
    commands[3].arg("run").arg(&model).arg(texture("t0_d0_s0.mp4"));
    commands[4].arg("features").arg("--checkpoint").arg(tiny("weights.safetensors")).arg("--config").arg(&scene.config);
    commands[4].arg("--input").arg(&pointed).arg("--out").arg(scene.path("none"));
    for command in &mut commands {
        let message = refused(command);
        assert!(message.contains("git lfs pull"), "{message}");
    }
}

#[test]
fn weights_in_several_files_are_read_through_their_index() {
    let scene = Scene::new();
    let tensors: Tensors =
        encoder().into_iter().map(|(name, tensor)| (format!("target_encoder.{name}"), tensor)).collect();
    let names: Vec<String> = tensors.keys().cloned().collect();
    let mut map = serde_json::Map::new();
    for (number, part) in names.chunks(names.len() / 3 + 1).enumerate() {
        let file = format!("model-0000{number}-of-00003.safetensors");
        let part: Tensors = part.iter().map(|name| (name.clone(), tensors[name].clone())).collect();
        save_safetensors(&scene.path(&file), &part, &BTreeMap::new()).unwrap();
        part.keys().for_each(|name| drop(map.insert(name.clone(), file.clone().into())));
    }
    let index = |map: &serde_json::Map<String, serde_json::Value>| {
        serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string()
    };
    scene.gives_features("model.safetensors.index.json", index(&map));
    let about = inspect(&scene.path("model.safetensors.index.json"));
    assert_eq!((&about["files"], &about["holds"]["target_encoder"]["tensors"]), (&3.into(), &names.len().into()));
    assert!(refused(&mut scene.features(&scene.path("model-00001-of-00003.safetensors"))).contains("give their index"));
    // Parts that are missing, that lack a tensor, that lie elsewhere.
    let changed = |key: &str, value: &str| {
        let mut map = map.clone();
        map.insert(key.to_owned(), value.into());
        scene.write("changed.index.json", index(&map))
    };
    let told = |path: PathBuf| refused(&mut scene.features(&path));
    assert!(told(changed("target_encoder.extra", "model-00000-of-00003.safetensors")).contains("do not hold"));
    assert!(told(changed("target_encoder.extra", "model-00009-of-00009.safetensors")).contains("model-00009"));
    for elsewhere in ["../model.safetensors", "/etc/passwd", ".", "a/b"] {
        assert!(told(changed("x", elsewhere)).contains("same folder"), "{elsewhere}");
    }
    // PyTorch files with an index.
    let half = |keep: bool| -> Vec<(String, Value)> {
        let all = pytorch::state_dict(&encoder()).into_iter().enumerate();
        all.filter(|(i, _)| (i % 2 == 0) == keep).map(|(_, entry)| entry).collect()
    };
    scene.write("a.bin", pytorch::checkpoint(&half(true)));
    scene.write("b.bin", pytorch::checkpoint(&half(false)));
    let map = encoder().into_keys().enumerate();
    let map = map.map(|(i, name)| (name, if i % 2 == 0 { "a.bin" } else { "b.bin" }.into())).collect();
    scene.gives_features("pytorch_model.bin.index.json", index(&map));
}
