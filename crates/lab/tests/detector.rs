//! A detector exported as ONNX, on ONNX Runtime, against the official pieces' scores: in a session, and where Python has one,
//! there.

use std::path::{Path, PathBuf};
use std::process::Command;

use vjepa_deploy::Parity;
use vjepa_deploy::detector::{DetectorExport, write};
use vjepa_programs::{DetectorRecord, ExportedDetector};
use vjepa_recipe::config::{Config, Normalization};
use vjepa_runtime::{NamedInput, Options, Runtime, Session};
use vjepa_weights::{TensorFile, Tensors};

const TINY: &str = "
model: {embed_dim: 96, depth: 3, num_heads: 3}
data: {crop_size: 64, num_frames: 8, tubelet_size: 2, patch_size: 16}
";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// The recorded scores by a session of ours, and what the file says of itself.
fn in_a_session(out: &Path, file: &TensorFile, record: &DetectorRecord, parity: &Parity) {
    if !matches!(parity, Parity::Agrees { .. }) {
        assert!(std::env::var("VJEPA_REQUIRE_ORT").is_err(), "{parity}");
        return;
    }
    let options = Options { runtime: Runtime::Ort, any_inputs: true, ..Options::default() };
    let session = Session::open(out, &options).unwrap();
    let about = ExportedDetector::from_metadata(session.metadata()).unwrap();
    let normalization = Normalization::Imagenet;
    let (record, detector) = (record.clone(), "cd".to_owned());
    assert_eq!(about, ExportedDetector { record, detector, patch: 16, normalization, grayscale: false });
    let bytes = file.bytes("head.clip_u8").unwrap();
    let shape = file.shape("head.clip_u8").unwrap();
    let (clip_shape, boxes_shape) = (shape.to_vec(), file.shape("head.boxes").unwrap().to_vec());
    let one: usize = shape[1..].iter().product();
    let clip: Vec<f32> = bytes.chunks_exact(one).flat_map(|clip| normalization.of_planes(clip)).collect();
    let (boxes, scores) = (file.f32("head.boxes").unwrap(), file.f32("head.scores").unwrap());
    let found = session
        .run_named(&[
            NamedInput::new("clip", &clip_shape, &clip).unwrap(),
            NamedInput::new("boxes", &boxes_shape, &boxes).unwrap(),
        ])
        .unwrap();
    let apart = found[0].data.iter().zip(&scores).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(found[0].data.len() == scores.len() && apart <= 1e-4, "{apart}");
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
    let record = DetectorRecord {
        frames: 8,
        step: 4,
        side: 64,
        layers: vec![0, 1, 2],
        encoder: String::new(),
        actions: [(1, "bend".to_owned())].into(),
    };
    let request = DetectorExport {
        checkpoint: &checkpoint,
        config: Some(&config),
        classifier: &classifier,
        record: &record,
        digest: "cd",
        inputs: &[],
        size: [64, 64],
        out: &out,
        verify: true,
        ort_lib: None,
    };
    let parity = write(&request).unwrap().parity;
    let [("tract", tract), ("ort", ort)] = &parity[..] else { panic!("{} runtimes", parity.len()) };
    assert!(matches!(tract, Parity::Unable { why } if why.contains("RoiAlign")), "{tract}");
    in_a_session(&out, &file, &record, ort);
    let over = DetectorExport { inputs: &[&out], verify: false, ..request };
    assert!(write(&over).err().unwrap().to_string().contains("would overwrite"));
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
