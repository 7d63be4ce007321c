//! Files of V-JEPA 2 and 2.1 as they are released, through the export that `vjepa compile` runs, against the official code's
//! numbers on tract and, where there is one, on ONNX Runtime.

mod support;

use std::path::Path;

use support::{ShapedClips, agrees, golden, golden_path, output, prepared, sessions};
use vjepa_deploy::{Export, Form, Origin, export};
use vjepa_export::Target;
use vjepa_programs::DeployedHead;
use vjepa_recipe::config::Config;
use vjepa_runtime::NamedOutput;

/// Sizes of the files of the hub, which they do not say themselves.
const SECOND: &str = "
model: {generation: vjepa2, embed_dim: 24, depth: 2, num_heads: 2, pred_embed_dim: 24, pred_depth: 2, pred_num_heads: 2}
data: {crop_size: 64, num_frames: 8, tubelet_size: 2, patch_size: 16}
";
const DENSE: &str = "
model: {generation: vjepa2_1, embed_dim: 16, depth: 12, num_heads: 2, pred_embed_dim: 24, pred_depth: 4, pred_num_heads: 2}
data: {crop_size: 64, num_frames: 8, tubelet_size: 2, patch_size: 16}
";

/// Exports a file for each target and compares every session with what is expected of the clips.
fn verify(
    file: &Path,
    config: Option<&str>,
    probe: Option<&Path>,
    form: &Form,
    clips: &ShapedClips,
    expected: &NamedOutput,
) {
    let config = config.map(|text| Config::from_yaml(text, "", &[]).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for target in [Target::Portable, Target::OrtCpu, Target::Tract] {
        let out = folder.path().join(format!("{target:?}.onnx"));
        let request = Export {
            origin: Origin::Checkpoint(file),
            probe,
            config: config.as_ref(),
            out: &out,
            shown_as: &out,
            verify: false,
            ort_lib: None,
            form: Form { target, ..form.clone() },
        };
        let what = format!("{}, {target:?}", file.display());
        export(&request).unwrap_or_else(|error| panic!("{what}: {error}"));
        for session in sessions(&out, target) {
            agrees(&what, &session, (clips.0, &clips.1), expected);
        }
    }
}

#[test]
fn exported_files_of_the_hub_give_the_official_numbers() {
    let (Some(folder), Some(expected)) = (golden_path("vjepa2_hub"), golden("vjepa2_hub/expected.safetensors")) else {
        return;
    };
    let clips = prepared(&expected, "clip_u8");
    let tokens = |stored: &str| output("encoder_out", &expected, stored);
    let all = Form { head: Some(DeployedHead::Tokens), ..Form::default() };
    verify(&folder.join("vjepa2_tiny.pt"), Some(SECOND), None, &all, &clips, &tokens("v2.target.out"));
    for (file, name) in [("vjepa2_1_tiny_G.pt", "G"), ("vjepa2_1_tiny_distilled.pt", "distilled")] {
        let file = folder.join(file);
        verify(&file, Some(DENSE), None, &all, &clips, &tokens(&format!("v21.{name}.out")));
        let (image, one) = (prepared(&expected, "image_u8"), Form { frames: Some(1), ..all.clone() });
        verify(&file, Some(DENSE), None, &one, &image, &tokens(&format!("v21.{name}.out_image")));
    }
}

#[test]
fn exported_folders_of_hugging_face_give_the_official_numbers() {
    let (Some(folder), Some(expected)) = (golden_path("vjepa2_hf"), golden("vjepa2_hf/expected.safetensors")) else {
        return;
    };
    let &[1, frames, channels, height, width] = expected.shape("pixel_values_videos").unwrap() else { panic!() };
    let values = expected.f32("pixel_values_videos").unwrap();
    let planes: Vec<&[f32]> = values.chunks_exact(height * width).collect();
    let first = (0..channels).flat_map(|c| (0..frames).map(move |t| t * channels + c));
    let clips: ShapedClips =
        ([1, channels, frames, height, width], first.flat_map(|plane| planes[plane].to_vec()).collect());
    let all = Form { head: Some(DeployedHead::Tokens), ..Form::default() };
    let tokens = output("encoder_out", &expected, "last_hidden_state");
    verify(&folder.join("model"), None, None, &all, &clips, &tokens);
    let classifier = folder.join("classifier");
    let logits = output("logits", &expected, "logits");
    verify(&classifier, None, Some(&classifier), &Form::default(), &clips, &logits);
}
