//! Models and features of others: an ONNX encoder per clip or per frame, and features from a file.

use std::path::{Path, PathBuf};

use vjepa_graphs::ProbeConfig;
use vjepa_runtime::{ClipBatch, Options, Preprocessing, Session, SessionError};
use vjepa_weights::rows::LABELS_KEY;
use vjepa_weights::{TensorFile, TensorFileError};

use crate::EvalError;
use crate::features::{ClipEncoder, Features};
use crate::videos::VideoFeatures;

/// Width of an attention head of ordinary vision transformers.
const HEAD_WIDTH: usize = 64;

/// The attention heads of a probe on features of this width: those asked for, or one for every 64 channels.
///
/// # Errors
/// [`EvalError::Setup`] for a number that does not divide the width.
pub fn probe_heads(width: usize, asked: Option<usize>) -> Result<usize, EvalError> {
    match asked {
        Some(heads) if heads > 0 && width.is_multiple_of(heads) => Ok(heads),
        Some(heads) => Err(EvalError::setup(format!(
            "{heads} attention heads do not divide features {width} wide: choose another --probe-heads"
        ))),
        None if width.is_multiple_of(HEAD_WIDTH) => Ok(width / HEAD_WIDTH),
        None => Err(EvalError::setup(format!(
            "features {width} wide are not a whole number of attention heads of {HEAD_WIDTH} channels: name the number for attentive \
             probes, --probe-heads N"
        ))),
    }
}

/// An exported encoder on tract or ONNX Runtime.
pub struct SessionEncoder {
    session: Session,
    path: PathBuf,
    clip: [usize; 4],
    tokens: [usize; 2],
    heads: Result<usize, String>,
    per_frame: bool,
    output: String,
    one_by_one: bool,
}

impl SessionEncoder {
    /// Opens a model that takes clips `f32[B, C, T, H, W]`, or with `per_frame` pictures `f32[B, C, H, W]` (or clips of one
    /// frame), whose features are then joined in time. Its first output of three sizes is taken for tokens `[B, N, D]`, else
    /// its first of two for one token `[B, D]`. `record` says how clips are prepared; sizes that the model fixes are put into
    /// it.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for a model that is no encoder of such clips.
    pub fn open(
        path: &Path,
        options: &Options,
        record: Option<Preprocessing>,
        (per_frame, heads): (bool, Option<usize>),
    ) -> Result<(Self, Preprocessing), EvalError> {
        let bad = |why: String| EvalError::file(path, why);
        let session = Session::open(path, &Options { pictures: per_frame, ..options.clone() }).map_err(|error| {
            let hint = match &error {
                SessionError::Inputs { .. } if !per_frame => "; for a model of pictures [B, 3, H, W] add --per-frame",
                _ => "",
            };
            EvalError::setup(format!("{error}{hint}"))
        })?;
        let own = session.preprocessing().ok();
        let mut record = record.or(own).ok_or_else(|| {
            bad("does not say how its clips are prepared: give a --config with a `data` section".into())
        })?;
        let sizes: Vec<Option<usize>> = session.input().shape.iter().map(|size| size.size()).collect();
        let (frames, height, width) = match sizes.as_slice() {
            [_, _, height, width] => (None, *height, *width),
            [_, _, frames, height, width] => (*frames, *height, *width),
            _ => return Err(bad("averages several views itself; export the encoder alone".into())),
        };
        let [own_height, own_width] = record.size();
        // Where one side is fixed alone, the other is as long.
        let sides = [height.or(width).unwrap_or(own_height), width.or(height).unwrap_or(own_width)];
        record.set_size(sides);
        match (per_frame, frames) {
            (true, Some(frames @ 2..)) => {
                return Err(bad(format!("takes clips of {frames} frames: leave --per-frame out")));
            }
            (false, Some(frames)) => record.num_frames = frames,
            _ => {}
        }
        let one_by_one = !session.input().has_free_batch();
        if one_by_one && sizes.first() != Some(&Some(1)) {
            return Err(bad(format!("takes {}: export it for single clips, or for any batch", session.input())));
        }
        let clip = record.clip_shape();
        let output = String::new();
        let mut encoder =
            Self { session, path: path.into(), clip, tokens: [0; 2], heads: Ok(1), per_frame, output, one_by_one };
        encoder.look()?;
        let [_, width] = encoder.tokens;
        encoder.heads = probe_heads(width, heads).map_err(|error| error.to_string());
        Ok((encoder, record))
    }

    /// Learns the shape of its features from a grey clip.
    fn look(&mut self) -> Result<(), EvalError> {
        let values: usize = self.clip.iter().product();
        let frames = if self.per_frame { self.clip[1] } else { 1 };
        let part = vec![0.0; values / frames.max(1)];
        let mut shape = [1, self.clip[0], self.clip[1], self.clip[2], self.clip[3]];
        if self.per_frame {
            shape[2] = 1;
        }
        let clips = ClipBatch::new(shape, &part).map_err(|error| EvalError::setup(error.to_string()))?;
        let outputs = self.session.run(&clips).map_err(|error| EvalError::setup(error.to_string()))?;
        let of_rank = |rank: usize| outputs.iter().find(|output| output.shape.len() == rank);
        let (tokens, width, name) = match (of_rank(3), of_rank(2)) {
            (Some(output), _) => (output.shape[1], output.shape[2], &output.name),
            (None, Some(output)) => (1, output.shape[1], &output.name),
            (None, None) => {
                let why =
                    "has no output of tokens [B, N, D], nor of one vector [B, D]: export the encoder without its head";
                return Err(EvalError::file(&self.path, why));
            }
        };
        self.output.clone_from(name);
        self.tokens = [tokens * frames, width];
        Ok(())
    }

    /// What runs it.
    pub fn runtime(&self) -> String {
        self.session.runtime()
    }

    fn run(&self, shape: [usize; 5], data: &[f32]) -> Result<Vec<f32>, EvalError> {
        let clips = ClipBatch::new(shape, data).map_err(|error| EvalError::setup(error.to_string()))?;
        let outputs = self.session.run(&clips).map_err(|error| EvalError::setup(error.to_string()))?;
        let output = outputs.into_iter().find(|output| output.name == self.output);
        output.map(|output| output.data).ok_or_else(|| EvalError::file(&self.path, "lost its output"))
    }
}

impl ClipEncoder for SessionEncoder {
    fn clip(&self) -> [usize; 4] {
        self.clip
    }

    fn tokens(&self) -> [usize; 2] {
        self.tokens
    }

    fn probe(&self, classes: usize) -> Result<ProbeConfig, EvalError> {
        let heads = self.heads.clone().map_err(EvalError::Setup)?;
        Ok(ProbeConfig::sized(self.tokens[1], heads, classes))
    }

    fn describe(&self) -> String {
        format!("{:?} {:?} {} {}", self.clip, self.tokens, self.per_frame, self.output)
    }

    fn encode(&mut self, clips: Vec<f32>) -> Result<Features, EvalError> {
        let [channels, frames, height, width] = self.clip;
        let len = channels * frames * height * width;
        let count = clips.len() / len.max(1);
        if count == 0 || clips.len() != count * len {
            return Err(EvalError::setup("the encoder needs whole clips, and at least one"));
        }
        let (data, each, shape) = match self.per_frame {
            false => (clips, count, [1, channels, frames, height, width]),
            true => (frame_by_frame(&clips, self.clip), count * frames, [1, channels, 1, height, width]),
        };
        let values = match self.one_by_one {
            false => self.run([each, shape[1], shape[2], shape[3], shape[4]], &data)?,
            true => {
                let one: usize = shape.iter().product();
                let parts = data.chunks_exact(one.max(1)).map(|part| self.run(shape, part));
                parts.collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        let [tokens, dim] = self.tokens;
        if values.len() != count * tokens * dim || values.iter().any(|value| !value.is_finite()) {
            return Err(EvalError::file(
                &self.path,
                "gives features that are NaN, infinite, or of another number than before",
            ));
        }
        Ok(Features { tokens, dim, values })
    }
}

/// Clips `[B, C, T, H, W]` as frames `[B, T, C, H, W]`.
fn frame_by_frame(clips: &[f32], [channels, frames, height, width]: [usize; 4]) -> Vec<f32> {
    let plane = (height * width).max(1);
    let planes: Vec<&[f32]> = clips.chunks_exact(plane).collect();
    let at =
        |clip: usize, t: usize, c: usize| planes.get((clip * channels + c) * frames + t).copied().unwrap_or_default();
    let count = planes.len() / (channels * frames).max(1);
    let all = (0..count).flat_map(|b| (0..frames).flat_map(move |t| (0..channels).map(move |c| (b, t, c))));
    all.flat_map(|(b, t, c)| at(b, t, c)).copied().collect()
}

/// Tensors of features, by name: those of others, and the columns of tables of `vjepa features`.
const COLUMNS: [&str; 4] = ["features", "pooled", "encoder_out", "frames"];

/// Reads features that were computed elsewhere: a safetensors file with `features` f32 `[samples, N, D]` or `[samples, D]` and
/// `labels` as integers `[samples]`. Tables that `vjepa features` made of labelled lists are read, too, and files of the feature
/// cache; both have labels in the metadata.
///
/// # Errors
/// [`EvalError::File`] for tensors that are missing, do not fit, or are not finite.
pub fn features_file(path: &Path) -> Result<VideoFeatures, EvalError> {
    let fail = |error: TensorFileError| EvalError::setup(error.to_string());
    let bad = |why: String| EvalError::file(path, why);
    let file = TensorFile::read(path).map_err(fail)?;
    let column = COLUMNS.into_iter().find(|column| file.contains(column)).unwrap_or("features");
    let (samples, tokens, dim) = match *file.shape(column).map_err(fail)? {
        [samples, tokens, dim] => (samples, tokens, dim),
        [samples, dim] => (samples, 1, dim),
        ref other => return Err(bad(format!("`{column}` is {other:?}; it must be [samples, N, D] or [samples, D]"))),
    };
    let labels = match file.contains("labels") {
        true => file.i64("labels").map_err(fail)?,
        false => stored_labels(path, &file)?.ok_or_else(|| {
            bad("holds no `labels`: add them as integers [samples], or give `vjepa features` a list with labels".into())
        })?,
    };
    if labels.len() != samples || samples == 0 || tokens == 0 || dim == 0 {
        return Err(bad(format!("holds {} labels for {samples} samples of {tokens} tokens {dim} wide", labels.len())));
    }
    if let Some(label) = labels.iter().find(|label| **label < 0) {
        return Err(bad(format!("holds the label {label}; labels are 0 or more")));
    }
    let values = file.f32(column).map_err(fail)?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(bad("holds features that are NaN or infinite: compute them again".into()));
    }
    let paths = (0..samples).map(|row| path.join(format!("row {row}"))).collect();
    Ok(VideoFeatures { features: Features { tokens, dim, values }, labels, paths, bad: Vec::new() })
}

/// Labels in the metadata: one per sample, or one per video of a table whose rows say which video they are of.
fn stored_labels(path: &Path, file: &TensorFile) -> Result<Option<Vec<i64>>, EvalError> {
    let weights = vjepa_weights::load(path)?;
    let list = |key: &str| -> Option<Vec<i64>> { serde_json::from_str(weights.metadata().get(key)?).ok() };
    let Some(of_videos) = list(LABELS_KEY) else { return Ok(list("labels")) };
    let videos = file.i64("video").map_err(|error| EvalError::setup(error.to_string()))?;
    let label = |video: &i64| usize::try_from(*video).ok().and_then(|video| of_videos.get(video).copied());
    Ok(videos.iter().map(label).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_weights::{Tensors, save_safetensors};

    #[test]
    fn frames_come_out_of_clips() {
        // Two clips of two channels, three frames, one pixel: channel * 10 + frame, the second clip from 100.
        let clips = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 100.0, 101.0, 102.0, 110.0, 111.0, 112.0];
        let frames = frame_by_frame(&clips, [2, 3, 1, 1]);
        assert_eq!(frames, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 100.0, 110.0, 101.0, 111.0, 102.0, 112.0]);
    }

    #[test]
    fn heads_of_probes() {
        assert_eq!((probe_heads(384, None).unwrap(), probe_heads(48, Some(4)).unwrap()), (6, 4));
        assert!(probe_heads(48, None).unwrap_err().to_string().contains("--probe-heads"));
        assert!(probe_heads(48, Some(7)).unwrap_err().to_string().contains("do not divide"));
    }

    #[test]
    fn features_of_others_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.safetensors");
        let write = |shape: Vec<usize>, values: Vec<f32>, labels: &str| {
            let tensors = Tensors::from([("features".to_owned(), (shape, values))]);
            let metadata = [("labels".to_owned(), labels.to_owned())].into();
            save_safetensors(&path, &tensors, &metadata).unwrap();
        };
        let said = || features_file(&path).unwrap_err().to_string();
        write(vec![2, 3], vec![0.0; 6], "[0, 1]");
        let read = features_file(&path).unwrap();
        assert_eq!((read.features.tokens, read.features.dim, read.labels), (1, 3, vec![0, 1]));
        write(vec![2, 3], vec![0.0; 6], "[0]");
        assert!(said().contains("1 labels for 2 samples"), "{}", said());
        write(vec![2, 3], vec![f32::NAN; 6], "[0, 1]");
        assert!(said().contains("NaN"), "{}", said());
        write(vec![6], vec![0.0; 6], "[0]");
        assert!(said().contains("[samples, D]"), "{}", said());
        write(vec![1, 6], vec![0.0; 6], "[-1]");
        assert!(said().contains("label -1"), "{}", said());
    }
}
