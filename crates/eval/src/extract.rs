//! Features of many windows of many videos, row by row into a table.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vjepa_data::windows::{Prepared, Window};
use vjepa_data::{DataError, Quarantine};
use vjepa_graphs::EncoderConfig;
use vjepa_programs::frozen::Frozen;
use vjepa_programs::{Head, Probe};
use vjepa_runtime::plan::Device;
use vjepa_weights::Tensors;
use vjepa_weights::rows::{Column, Place, Rows};

use crate::EvalError;

/// Clips encoded at once.
const BATCH: usize = 4;
/// Time after which what has been computed is kept.
const KEPT_AFTER: Duration = Duration::from_secs(60);

/// What is kept of a clip's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// All of them, `[N, D]`.
    Tokens,
    /// Their mean, `[D]`.
    Mean,
    /// What an attentive probe's query takes of them, `[D]`.
    Attentive,
    /// The mean of each moment's, `[T / tubelet, D]`.
    Frames,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tokens, Self::Mean, Self::Attentive, Self::Frames];

    /// Its name at the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Mean => "mean",
            Self::Attentive => "attentive",
            Self::Frames => "frames",
        }
    }

    /// What it keeps, for the help.
    pub fn about(self) -> &'static str {
        match self {
            Self::Tokens => "All tokens, [N, D]",
            Self::Mean => "The mean token, [D]",
            Self::Attentive => "What the query of an attentive probe takes (with --probe), [D]",
            Self::Frames => "The mean token of each moment, [T / tubelet, D]",
        }
    }

    fn head(self) -> Head {
        match self {
            Self::Tokens | Self::Frames => Head::Tokens,
            Self::Mean => Head::Features,
            Self::Attentive => Head::Pooled,
        }
    }

    /// Its column, where it is of the last block.
    fn column(self) -> &'static str {
        match self {
            Self::Tokens => "encoder_out",
            Self::Mean => "features",
            Self::Attentive => "pooled",
            Self::Frames => "frames",
        }
    }
}

/// A frozen encoder that gives rows of features.
pub struct Extractor {
    frozen: Frozen,
    pooling: Pooling,
    /// Moments of a clip.
    moments: usize,
    columns: Vec<Column>,
    /// The plan's output that each column is made of.
    outputs: Vec<String>,
}

impl Extractor {
    /// Compiles an encoder, whose `out_layers` are the blocks whose features are wanted. `weights` has the parameters under `encoder.` and
    /// `probe.`.
    ///
    /// # Errors
    /// [`EvalError::Frozen`].
    pub fn new(
        device: Device,
        encoder: &EncoderConfig,
        probe: Option<&Probe>,
        pooling: Pooling,
        weights: &Tensors,
    ) -> Result<Self, EvalError> {
        let frozen = Frozen::with_head(device, encoder, probe, pooling.head(), weights)?;
        let moments = (encoder.num_frames / encoder.tubelet.max(1)).max(1);
        let shape = match pooling {
            Pooling::Tokens => vec![encoder.tokens(), encoder.embed_dim],
            Pooling::Mean | Pooling::Attentive => vec![encoder.embed_dim],
            Pooling::Frames => vec![moments, encoder.embed_dim],
        };
        let (columns, outputs) = match &encoder.out_layers {
            None => {
                let output = match pooling {
                    Pooling::Frames => Pooling::Tokens.column(),
                    Pooling::Tokens | Pooling::Mean | Pooling::Attentive => pooling.column(),
                };
                (vec![Column { name: pooling.column().into(), shape }], vec![output.to_owned()])
            }
            Some(layers) => {
                let mut layers = layers.clone();
                layers.sort_unstable();
                layers.dedup();
                let names: Vec<String> = layers.iter().map(|layer| format!("layer_{layer}")).collect();
                (names.iter().map(|name| Column { name: name.clone(), shape: shape.clone() }).collect(), names)
            }
        };
        Ok(Self { frozen, pooling, moments, columns, outputs })
    }

    /// The columns of its rows.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Runs over windows and adds a row for each, from where `rows` stopped. Videos that cannot be used go to `bad`, by the names that
    /// `paths` has; `progress` is told the video that has been reached.
    ///
    /// # Errors
    /// [`EvalError`]: a store that cannot be reached, features that are NaN or infinite, a full disk. What had been kept stays.
    pub fn run(
        &mut self,
        windows: impl Iterator<Item = Result<Prepared, DataError>>,
        paths: &[PathBuf],
        rows: &mut Rows,
        bad: &mut Quarantine,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), EvalError> {
        let (mut places, mut clips, mut kept) = (Vec::new(), Vec::new(), Instant::now());
        for prepared in windows {
            match prepared? {
                Prepared::Bad { video, reason } => {
                    bad.add(paths.get(video).map_or(Path::new(""), PathBuf::as_path), &reason);
                }
                Prepared::Clip { video, window: Window { number, time, .. }, values } => {
                    progress(video);
                    places.push(Place { video, window: number, time });
                    clips.extend(values);
                }
            }
            if places.len() == BATCH {
                self.encode(std::mem::take(&mut clips), std::mem::take(&mut places), rows)?;
                if rows.is_full() || kept.elapsed() > KEPT_AFTER {
                    rows.keep()?;
                    kept = Instant::now();
                }
            }
        }
        if !places.is_empty() {
            self.encode(clips, places, rows)?;
        }
        rows.keep()?;
        Ok(())
    }

    fn encode(&mut self, clips: Vec<f32>, places: Vec<Place>, rows: &mut Rows) -> Result<(), EvalError> {
        let outputs = self.frozen.run(clips)?;
        let lost = || EvalError::setup("the encoder's plan lacks an output");
        let values: Vec<&[f32]> = self
            .outputs
            .iter()
            .map(|name| outputs.get(name).map(|tensor| tensor.floats()))
            .collect::<Option<_>>()
            .ok_or_else(lost)?;
        let bad: usize = values.iter().map(|values| values.iter().filter(|value| !value.is_finite()).count()).sum();
        if bad > 0 {
            let all: usize = values.iter().map(|values| values.len()).sum();
            return Err(EvalError::Setup(format!(
                "{bad} of {all} features are NaN or infinite: the weights are damaged or belong to another model"
            )));
        }
        let count = places.len();
        for (index, place) in places.into_iter().enumerate() {
            let row: Vec<Cow<'_, [f32]>> = values
                .iter()
                .zip(&self.columns)
                .map(|(values, column)| {
                    let each = values.len() / count.max(1);
                    self.kept(values.get(index * each..(index + 1) * each).unwrap_or_default(), column)
                })
                .collect();
            rows.add(place, &row)?;
        }
        Ok(())
    }
}

impl Extractor {
    /// What is kept of one clip's output.
    fn kept<'a>(&self, values: &'a [f32], column: &Column) -> Cow<'a, [f32]> {
        match self.pooling {
            Pooling::Frames => Cow::Owned(moments(values, self.moments, column.shape.last().copied().unwrap_or(1))),
            Pooling::Tokens | Pooling::Mean | Pooling::Attentive => Cow::Borrowed(values),
        }
    }
}

/// The mean of each moment's tokens: `[T * S, dim]` to `[T, dim]`.
fn moments(tokens: &[f32], count: usize, dim: usize) -> Vec<f32> {
    let each = tokens.len() / count.max(1);
    let mean = |moment: &[f32]| {
        let mut sums = vec![0f64; dim];
        for token in moment.chunks_exact(dim.max(1)) {
            sums.iter_mut().zip(token).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let tokens = (moment.len() / dim.max(1)).max(1) as f64;
        sums.into_iter().map(move |sum| (sum / tokens) as f32)
    };
    tokens.chunks_exact(each.max(1)).flat_map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_moment_has_the_mean_of_its_tokens() {
        // Two moments of two tokens, two wide.
        assert_eq!(moments(&[1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0], 2, 2), [2.0, 3.0, 20.0, 30.0]);
    }
}
