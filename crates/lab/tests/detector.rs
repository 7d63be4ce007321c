//! A detector exported as ONNX, on ONNX Runtime where Python has one, against the official pieces' scores.

use std::path::{Path, PathBuf};
use std::process::Command;

use vjepa_deploy::detector::{DetectorExport, write};
use vjepa_recipe::config::Config;
use vjepa_weights::{TensorFile, Tensors};

const TINY: &str = "
model: {embed_dim: 96, depth: 3, num_heads: 3}
data: {crop_size: 64, num_frames: 8, tubelet_size: 2, patch_size: 16}
";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

#[test]
fn an_exported_detector_gives_the_recorded_scores() {
    let file = TensorFile::read(golden("eval_detection/detection.safetensors")).unwrap();
    let tensor = |stored: &str| (file.shape(stored).unwrap().to_vec(), file.f32(stored).unwrap());
    let classifier = Tensors::from([
        ("linear.weight".to_owned(), tensor("head.weight")),
        ("linear.bias".to_owned(), tensor("head.bias")),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (Config::from_yaml(TINY, "", &[]).unwrap(), folder.path().join("detector.onnx"));
    let checkpoint = golden("tiny/weights.safetensors");
    let request = DetectorExport {
        checkpoint: &checkpoint,
        config: Some(&config),
        classifier: &classifier,
        layers: &[0, 1, 2],
        clip: [8, 64, 64],
        out: &out,
    };
    write(&request).unwrap();
    let Ok(python) = std::env::var("VJEPA_PYTHON") else {
        assert!(std::env::var("VJEPA_REQUIRE_ORT").is_err(), "VJEPA_PYTHON is not set");
        return;
    };
    let script = "
import sys, numpy, onnxruntime
from safetensors.numpy import load_file
file = load_file(sys.argv[2])
mean, std = numpy.array([0.485, 0.456, 0.406]), numpy.array([0.229, 0.224, 0.225])
planes = lambda values: values.reshape(1, 3, 1, 1, 1)
clip = ((file['head.clip_u8'] / 255 - planes(mean)) / planes(std)).astype('float32')
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
boxes = file['head.boxes']
scores = session.run(['scores'], {'clip': clip, 'boxes': boxes})[0]
apart = numpy.abs(scores - file['head.scores']).max()
assert apart <= 1e-4, apart
# Another number of boxes and of clips.
one = boxes[boxes[:, 0] == 0]
apart = numpy.abs(session.run(['scores'], {'clip': clip[:1], 'boxes': one})[0] - scores[boxes[:, 0] == 0]).max()
assert apart <= 1e-5, apart
";
    let stored = golden("eval_detection/detection.safetensors");
    let run = Command::new(python).args(["-c", script]).arg(&out).arg(stored).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}
