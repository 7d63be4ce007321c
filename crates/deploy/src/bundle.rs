//! A bundle: one folder with everything a device needs, and the proof that nothing in it was changed.
//!
//! ```text
//! bundle.json         what is in the folder, with sizes and SHA-256 sums; provenance and licence
//! model.onnx          the model, and model.onnx.data where its weights are external
//! preprocessing.json  how clips are prepared
//! labels.json         names of the classes
//! parity.safetensors  clips, and what the plan gives for them
//! SHA256SUMS          the sums again and that of bundle.json, for `sha256sum --check`
//! ```
//!
//! Folders are written under a temporary name and renamed. Reading trusts nothing: names are single components, files are
//! regular, have one name, and are as long and have the sum they should.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vjepa_export::Precision;
use vjepa_runtime::files::{Tree, is_name};
use vjepa_runtime::{ClipBatch, Difference, NamedOutput, Session, Tolerance, compare};

use super::{Export, Exported, TOLERANCE, accuracy, calibrate, export_opened, open, sha256};
use crate::DeployError;
use vjepa_runtime::write_atomically;
use vjepa_weights::TensorFile as Stored;
use vjepa_weights::{Tensors, save_safetensors};

/// The format of `bundle.json`.
const FORMAT: u32 = 1;
const MANIFEST: &str = "bundle.json";
const SUMS: &str = "SHA256SUMS";
const MODEL: &str = "model.onnx";
const PARITY: &str = "parity.safetensors";
/// Largest manifest that is read.
const LARGEST_MANIFEST: u64 = 1 << 20;

/// `bundle.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The model among the files.
    pub model: String,
    /// The clips and results among the files.
    pub parity: String,
    /// How far results may be from the stored ones: largest difference, and relative length of all of them.
    pub tolerance: [f64; 2],
    /// The licence of the weights, as given to the exporter.
    pub licence: String,
    /// Checkpoint, probe, precision, target, exporter; for a low precision what it was evaluated with.
    pub provenance: BTreeMap<String, String>,
    /// Every other file of the folder.
    pub files: BTreeMap<String, FileRecord>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    bytes: u64,
    sha256: String,
}

/// Exports into a new folder, `request.out`.
///
/// # Errors
/// The errors of an export; a folder that is already there.
pub fn write(request: &Export<'_>, licence: &str) -> Result<Exported, DeployError> {
    let place = request.out;
    if place.symlink_metadata().is_ok() {
        return Err(format!(
            "{} already exists, and bundles are written as a whole: remove it or give another --out",
            place.display()
        )
        .into());
    }
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let at = |path: &Path, error: std::io::Error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(parent).map_err(|error| at(parent, error))?;
    let folder =
        tempfile::Builder::new().prefix(".vjepa-bundle-").tempdir_in(parent).map_err(|error| at(parent, error))?;
    let model = folder.path().join(MODEL);
    let inner = Export { out: &model, form: request.form.clone(), ort_lib: request.ort_lib.clone(), ..*request };
    let opened = open(&inner)?;
    let mut exported = export_opened(&inner, &opened)?;

    let (form, normalization) = (&inner.form, opened.model.preprocessing.normalization);
    let clips = calibrate::clips(&[], form.batch.unwrap_or(1), form.clip_views, &opened.record, normalization)?;
    let [channels, frames, height, width] = opened.clip;
    let mut vectors = Tensors::new();
    for output in accuracy::named(&mut opened.plan()?, &clips.data)? {
        vectors.insert(format!("expected.{}", output.name), (output.shape, output.data));
    }
    vectors.insert("clip".to_owned(), (vec![clips.count, channels, frames, height, width], clips.data));
    save_safetensors(&folder.path().join(PARITY), &vectors, &BTreeMap::new())?;
    json(&folder.path().join("preprocessing.json"), &serde_json::from_str(&opened.record.to_json())?)?;
    if let Some(labels) = exported.metadata.get("vjepa.labels") {
        json(&folder.path().join("labels.json"), &serde_json::from_str(labels)?)?;
    }
    let tolerance = match exported.accuracy.as_ref() {
        _ if inner.form.precision == Precision::F32 => TOLERANCE,
        Some((report, _)) => report.tolerance(),
        None => return Err("a bundle below f32 needs its accuracy report; omit --no-verify".into()),
    };
    let provenance =
        exported.metadata.iter().filter(|(key, _)| !key.ends_with("labels") && !key.ends_with("preprocessing"));
    let mut provenance: BTreeMap<String, String> =
        provenance.map(|(key, value)| (key.clone(), value.clone())).collect();
    if let Some((report, _)) = &exported.accuracy {
        provenance.insert("judged.runtime".to_owned(), report.runtime.clone());
        provenance.insert("judged.processor".to_owned(), report.processor.to_string());
    }
    let manifest = Manifest {
        format: FORMAT,
        model: MODEL.to_owned(),
        parity: PARITY.to_owned(),
        tolerance: [tolerance.absolute, tolerance.relative],
        licence: licence.to_owned(),
        provenance,
        files: records(folder.path())?,
    };
    json(&folder.path().join(MANIFEST), &serde_json::to_value(&manifest)?)?;
    let sums = sums(&manifest, folder.path())?;
    let sums_path = folder.path().join(SUMS);
    write_atomically(&sums_path, |out| std::io::Write::write_all(out, sums.as_bytes()))
        .map_err(|error| at(&sums_path, error))?;
    // Only the owner may look into a temporary folder.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(|error| at(place, error))?;
    }
    fs::rename(folder.keep(), place).map_err(|error| at(place, error))?;
    exported.written.model = place.join(MODEL);
    exported.written.data = exported.written.data.and_then(|data| Some(place.join(data.file_name()?)));
    exported.accuracy = exported.accuracy.and_then(|(report, path)| Some((report, place.join(path.file_name()?))));
    Ok(exported)
}

fn json(path: &Path, value: &serde_json::Value) -> Result<(), DeployError> {
    let text = serde_json::to_vec_pretty(value)?;
    write_atomically(path, |out| std::io::Write::write_all(out, &text))
        .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// The text of `SHA256SUMS`: every file of the manifest, and the manifest.
pub(super) fn sums(manifest: &Manifest, folder: &Path) -> Result<String, DeployError> {
    let files: String = manifest.files.iter().map(|(name, file)| format!("{}  {name}\n", file.sha256)).collect();
    Ok(format!("{files}{}  {MANIFEST}\n", sha256(&folder.join(MANIFEST))?))
}

fn records(folder: &Path) -> Result<BTreeMap<String, FileRecord>, DeployError> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, FileRecord { bytes: entry.metadata()?.len(), sha256: sha256(&entry.path())? });
    }
    Ok(files)
}

/// Reads `bundle.json` and checks every file of the folder.
///
/// # Errors
/// A sentence that names the file: missing, changed, cut off, added, a link, or a name that leads elsewhere.
pub fn check(folder: &Path) -> Result<Manifest, DeployError> {
    let refuse = |what: String| -> DeployError { format!("{}: {what}", folder.display()).into() };
    let manifest: Manifest = serde_json::from_slice(&small(folder, MANIFEST)?)
        .map_err(|error| refuse(format!("`{MANIFEST}` is malformed ({error}); copy the bundle again")))?;
    if manifest.format != FORMAT {
        return Err(refuse(format!(
            "its format is {}, but this program reads {FORMAT}; use a newer vjepa",
            manifest.format
        )));
    }
    if manifest.tolerance.iter().any(|limit| !limit.is_finite() || *limit < 0.0) {
        return Err(refuse("its tolerance is not a number".to_owned()));
    }
    for name in manifest.files.keys() {
        if !is_name(name) {
            return Err(refuse(format!("`{name}` is not the name of a file in the folder")));
        }
    }
    for wanted in [&manifest.model, &manifest.parity] {
        if !manifest.files.contains_key(wanted) {
            return Err(refuse(format!("`{wanted}` is not among its files")));
        }
    }
    if small(folder, SUMS)? != sums(&manifest, folder)?.into_bytes() {
        return Err(refuse(format!(
            "`{MANIFEST}` or `{SUMS}` was changed: they contradict each other; copy the bundle again"
        )));
    }
    for entry in fs::read_dir(folder).map_err(|error| refuse(error.to_string()))? {
        let name = entry.map_err(|error| refuse(error.to_string()))?.file_name().to_string_lossy().into_owned();
        if name != MANIFEST && name != SUMS && !manifest.files.contains_key(&name) {
            return Err(refuse(format!("`{name}` does not belong to it; remove it")));
        }
    }
    let tree = Tree::of(&folder.join(MANIFEST)).map_err(|error| refuse(error.to_string()))?;
    manifest.files.iter().try_for_each(|(name, record)| check_file(&tree, name, record).map_err(refuse))?;
    Ok(manifest)
}

/// A file of the folder that is read whole: the manifest or its sums.
fn small(folder: &Path, name: &str) -> Result<Vec<u8>, DeployError> {
    let refuse = |what: String| -> DeployError { format!("{}: {what}", folder.display()).into() };
    let path = folder.join(name);
    let tree = Tree::of(&path).map_err(|error| {
        refuse(format!(
            "it is not a bundle: `{name}` cannot be read ({error}); make one with `vjepa compile --export bundle`"
        ))
    })?;
    let (_, about) = tree.file(name).map_err(|why| refuse(format!("`{name}` {why}")))?;
    if about.len() > LARGEST_MANIFEST {
        return Err(refuse(format!("`{name}` has {} bytes, too large for a manifest", about.len())));
    }
    fs::read(&path).map_err(|error| refuse(format!("`{name}` cannot be read ({error})")))
}

fn check_file(tree: &Tree, name: &str, record: &FileRecord) -> Result<(), String> {
    let (path, about) = tree.file(name).map_err(|why| format!("`{name}` {why}"))?;
    if about.len() != record.bytes {
        let (is, was) = (about.len(), record.bytes);
        return Err(format!("`{name}` has {is} bytes instead of {was}; copy the bundle again"));
    }
    if sha256(&path).map_err(|error| error.to_string())? != record.sha256 {
        return Err(format!("`{name}` was changed: its SHA-256 differs; copy the bundle again"));
    }
    Ok(())
}

/// The model of a path: the path itself, or the model of a bundle whose files are as they should be.
pub fn model_of(path: &Path) -> Result<PathBuf, DeployError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    Ok(path.join(check(path)?.model))
}

/// Runs the stored clips and compares with the stored results.
///
/// # Errors
/// The first output that is too far; clips or results that are none.
pub fn prove(folder: &Path, manifest: &Manifest, session: &Session) -> Result<Vec<Difference>, DeployError> {
    let path = folder.join(&manifest.parity);
    let stored = Stored::read(&path)?;
    let shape: [usize; 5] =
        stored.shape("clip")?.try_into().map_err(|_| format!("{}: `clip` is not [B, 3, T, H, W]", path.display()))?;
    let clips = stored.f32("clip")?;
    let names: Vec<&str> = stored.names().filter_map(|name| name.strip_prefix("expected.")).collect();
    let mut expected = Vec::with_capacity(names.len());
    for name in names {
        let key = format!("expected.{name}");
        expected.push(NamedOutput {
            name: name.to_owned(),
            shape: stored.shape(&key)?.to_vec(),
            data: stored.f32(&key)?,
        });
    }
    if expected.is_empty() {
        return Err(format!("{} holds no results to compare with", path.display()).into());
    }
    let [absolute, relative] = manifest.tolerance;
    Ok(compare(session, &ClipBatch::new(shape, &clips)?, &expected, Tolerance { absolute, relative })?)
}
