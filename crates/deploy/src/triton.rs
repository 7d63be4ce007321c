//! A Triton model repository: `NAME/config.pbtxt`, `NAME/1/model.onnx`, and `NAME/labels.txt` where classes have names.
//!
//! The backend is ONNX Runtime for every target; the target `tensorrt` adds its TensorRT accelerator with an engine cache.
//! A batch of any size becomes `max_batch_size` and dynamic batching; a fixed one is part of the shape, since Triton
//! refuses to batch what cannot vary.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use vjepa_export::Target;
use vjepa_runtime::CLASS_OUTPUTS;
use vjepa_runtime::onnx::{OnnxFile, TensorInfo};

use super::{Export, Exported, export_opened, open};
use crate::DeployError;
use vjepa_runtime::write_atomically;

/// Clips that Triton may join, and how long it waits for them.
const LARGEST_BATCH: usize = 8;
const QUEUE_DELAY: usize = 2000;

/// Exports the model `name` into the repository `request.out`.
///
/// # Errors
/// The errors of an export; a name that cannot be a folder; a model that is already there.
pub fn write(request: &Export<'_>, name: &str) -> Result<Exported, DeployError> {
    if !vjepa_runtime::is_model_name(name) {
        return Err(format!("--name {name}: a model name may contain only letters, digits, `_`, `-` and `.`").into());
    }
    let place = request.out.join(name);
    if place.symlink_metadata().is_ok() {
        return Err(format!("{} already exists; remove it or give another --name", place.display()).into());
    }
    let at = |path: &Path, error: std::io::Error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(request.out).map_err(|error| at(request.out, error))?;
    let folder = tempfile::Builder::new().prefix(".vjepa-triton-").tempdir_in(request.out);
    let folder = folder.map_err(|error| at(request.out, error))?;
    let model = folder.path().join("1").join("model.onnx");
    let inner = Export {
        out: &model,
        shown_as: &place,
        form: request.form.clone(),
        ort_lib: request.ort_lib.clone(),
        ..*request
    };
    let mut exported = export_opened(&inner, &open(&inner)?)?;
    let labels = exported.probe.as_ref().map(|probe| probe.labels.as_slice()).unwrap_or_default();
    let labelled = exported.metadata.contains_key("vjepa.labels");
    if labelled {
        text(&folder.path().join("labels.txt"), &(labels.join("\n") + "\n"))?;
    }
    let file = OnnxFile::read(&model)?;
    text(&folder.path().join("config.pbtxt"), &config(name, &file, request.form.target, labelled))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(|error| at(&place, error))?;
    }
    fs::rename(folder.keep(), &place).map_err(|error| at(&place, error))?;
    let version = place.join("1");
    exported.written.model = version.join("model.onnx");
    exported.written.data = exported.written.data.and_then(|data| Some(version.join(data.file_name()?)));
    exported.accuracy = exported.accuracy.and_then(|(report, path)| Some((report, version.join(path.file_name()?))));
    Ok(exported)
}

fn text(path: &Path, text: &str) -> Result<(), DeployError> {
    write_atomically(path, |out| std::io::Write::write_all(out, text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// `config.pbtxt`, in protobuf's text form.
fn config(name: &str, file: &OnnxFile, target: Target, labelled: bool) -> String {
    let batched = file.inputs.iter().all(TensorInfo::has_free_batch);
    let gpu = target == Target::TensorRt;
    let mut text = format!("name: \"{name}\"\nbackend: \"onnxruntime\"\n");
    let tensor = |info: &TensorInfo, label: &str| {
        let dims: Vec<String> = info
            .shape
            .iter()
            .skip(usize::from(batched))
            .map(|dim| dim.size().map_or("-1".to_owned(), |size| size.to_string()))
            .collect();
        format!("{{ name: \"{}\" data_type: TYPE_FP32 dims: [ {} ]{label} }}", info.name, dims.join(", "))
    };
    let list = |infos: &[TensorInfo], label: &dyn Fn(&TensorInfo) -> &'static str| {
        infos.iter().map(|info| tensor(info, label(info))).collect::<Vec<_>>().join(",\n  ")
    };
    let label = |info: &TensorInfo| {
        if labelled && CLASS_OUTPUTS.contains(&info.name.as_str()) { " label_filename: \"labels.txt\"" } else { "" }
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "max_batch_size: {}", if batched { LARGEST_BATCH } else { 0 });
    let _ = writeln!(text, "input [\n  {}\n]", list(&file.inputs, &|_| ""));
    let _ = writeln!(text, "output [\n  {}\n]", list(&file.outputs, &label));
    if batched {
        let _ = writeln!(text, "dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY} }}");
    }
    let _ = writeln!(text, "instance_group [ {{ count: 1 kind: {} }} ]", if gpu { "KIND_GPU" } else { "KIND_CPU" });
    if gpu {
        text.push_str(
            "optimization {\n  execution_accelerators {\n    gpu_execution_accelerator [ {\n      name: \"tensorrt\"\n      \
             parameters { key: \"trt_engine_cache_enable\" value: \"true\" }\n      \
             parameters { key: \"trt_engine_cache_path\" value: \"/tmp/triton-engines\" }\n    } ]\n  }\n}\n",
        );
    }
    text
}
