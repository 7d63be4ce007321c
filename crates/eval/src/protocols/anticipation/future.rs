//! The frozen models of anticipation: an encoder of clips, and the predictor that sees the time after them.

use std::path::Path;

use rayon::prelude::*;
use vjepa_collective::{Collective, Portion, turn};
use vjepa_data::DataError;
use vjepa_data::annotations::ActionSegment;
use vjepa_data::anticipation::AnticipationClips;
use vjepa_data::media::Opener;
use vjepa_graphs::{EncoderConfig, PredictorConfig, ProbeConfig};
use vjepa_programs as compile;
use vjepa_recipe::config::{Config, Positions, Preprocessing};
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};
use vjepa_weights as weights;

use crate::features::Features;
use crate::{EvalError, OnProgress, Progress};

/// The mask token that the official evaluation predicts with.
const MASK_TOKEN: usize = 1;
/// Clips encoded at once; a unit of work that ranks are dealt.
pub(super) const BATCH: usize = 4;

/// Frames of the longest clips that released predictors were trained on; the official evaluation builds them for as many.
const FRAMES: usize = 64;

/// When futures are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FutureTimes {
    /// Clip frames a second.
    pub fps: f64,
    /// Seconds after a clip, where nothing else is said.
    pub seconds: f64,
    /// The most seconds that are asked for after a clip.
    pub farthest: f64,
}

impl FutureTimes {
    /// Time steps of `tubelet` frames between a clip's end and a future.
    fn steps(&self, seconds: f64, tubelet: usize) -> usize {
        (seconds * self.fps / tubelet.max(1) as f64) as usize
    }

    /// The time step of the farthest future of a model's clips, which its predictor's grid of `grid` steps must have.
    ///
    /// # Errors
    /// [`EvalError::Setup`] names the model and the largest number of seconds.
    fn farthest_step(&self, encoder: &EncoderConfig, grid: usize, path: &Path) -> Result<usize, EvalError> {
        let EncoderConfig { num_frames, tubelet, .. } = *encoder;
        let ([time, ..], grid) = (encoder.grid(), grid.max(FRAMES / tubelet.max(1)));
        let seconds = self.farthest.max(self.seconds);
        let steps = self.steps(seconds, tubelet);
        let room = grid.saturating_sub(time);
        if steps < room {
            return Ok(time + steps);
        }
        let predictor = format!(
            "{} holds {}, whose predictor sees {} frames",
            path.display(),
            compile::encoder_name(encoder),
            grid * tubelet
        );
        Err(EvalError::setup(match room {
            0 => format!("{predictor}: clips of {num_frames} leave it no future"),
            _ => format!(
                "{predictor}: after clips of {num_frames} at {} a second it sees less than {} seconds ahead, not {seconds}",
                self.fps,
                (room * tubelet) as f64 / self.fps
            ),
        }))
    }
}

/// The frozen models: an encoder of clips, and the predictor of the time after them.
pub struct FutureEncoder {
    encoder: DeviceExecutor,
    predictor: DeviceExecutor,
    params: DeviceParams,
    config: EncoderConfig,
    future: PredictorConfig,
    times: FutureTimes,
    /// How frames become clips.
    pub preprocessing: Preprocessing,
    /// SHA-256 of the checkpoint.
    pub digest: String,
    /// Attention heads and depth of the probe that belongs to the encoder.
    pub probe: ProbeConfig,
}

impl FutureEncoder {
    /// Opens a checkpoint's encoder and predictor for clips of `frames` frames and futures after them; `side` is that of a clip
    /// in pixels, the encoder's unless given.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for a model without rotary positions, whose predictor sees no future, or without a predictor, and for a
    /// future beyond the predictor's grid; [`EvalError::Weights`].
    pub fn open(
        device: Device,
        checkpoint: &Path,
        config: Option<&Config>,
        (frames, side): (usize, Option<usize>),
        times: FutureTimes,
    ) -> Result<Self, EvalError> {
        let file = weights::load(checkpoint)?;
        let model = compile::describe(&file, config)?;
        let path = checkpoint.display();
        let Some(config) = model.config.as_ref().filter(|_| model.encoder.positions != Positions::Table) else {
            return Err(EvalError::setup(format!(
                "{path} is a V-JEPA 1, whose predictor knows no time after its clips: give a V-JEPA 2 or 2.1"
            )));
        };
        if !file.has("predictor") {
            return Err(EvalError::setup(format!("{path} has no predictor, which rolls the future out")));
        }
        let side = side.unwrap_or(model.encoder.height);
        let encoder = model.encoder.clone().with_clip(frames, side, side);
        encoder.validate().map_err(|error| EvalError::setup(error.to_string()))?;
        let [_, height, width] = encoder.grid();
        let tokens = file.tensors().filter(|(name, ..)| name.starts_with("predictor.mask_tokens.")).count();
        let own = compile::predictor_config(config).map_err(|error| EvalError::setup(error.to_string()))?;
        let farthest = times.farthest_step(&encoder, own.grid[0], checkpoint)?;
        // Room for the future: angles do not depend on how many frames a predictor was built for.
        let future = PredictorConfig { grid: [farthest + 1, height, width], num_mask_tokens: tokens.max(1), ..own };
        let mut params = device.params();
        let entry = file.encoder()?;
        let mut tensors = file.take(entry, "encoder", encoder.parameter_shapes())?;
        tensors.extend(file.take("predictor", "predictor", future.parameter_shapes())?);
        for (name, (shape, data)) in tensors {
            params.set(&name, HostTensor::F32 { shape, data });
        }
        let graph = match future.levels {
            1 => compile::encoder(&encoder, "encoder.")?,
            _ => compile::levels(&encoder, "encoder.", false)?,
        };
        let mask = MASK_TOKEN.min(tokens.saturating_sub(1));
        let predictions = compile::predictions(&future, mask, vjepa_graphs::Modality::Video)?;
        let preprocessing = Preprocessing { num_frames: frames, crop_size: side, ..model.preprocessing.clone() };
        Ok(Self {
            encoder: device.plan(&compile::optimised(&graph)?)?,
            predictor: device.plan(&compile::optimised(&predictions)?)?,
            params,
            probe: ProbeConfig::for_encoder(&encoder, 2),
            config: encoder,
            future,
            times,
            preprocessing,
            digest: compile::digest(&file)?,
        })
    }

    /// Sizes of the encoder.
    pub fn sizes(&self) -> &EncoderConfig {
        &self.config
    }

    /// Tokens of a clip with its future, and their width.
    pub fn tokens(&self) -> [usize; 2] {
        let [_, height, width] = self.config.grid();
        [self.config.tokens() + height * width, self.config.embed_dim]
    }

    /// Features of whole clips `[B, C, T, H, W]`: the encoder's tokens, and after them those of the time step that the predictor
    /// sees so many seconds after each. Of a wider prediction the last channels, as officially.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for part of a clip or none, and a future beyond the farthest; [`EvalError::Run`].
    pub fn encode(&mut self, clips: Vec<f32>, seconds: &[f64]) -> Result<Features, EvalError> {
        let EncoderConfig { channels, num_frames, height, width, embed_dim: dim, tubelet, .. } = self.config;
        let (shape, count) = ([channels, num_frames, height, width], seconds.len());
        let clip = HostTensor::f32([&[count][..], &shape[..]].concat(), clips)
            .filter(|_| count > 0)
            .ok_or_else(|| EvalError::setup("the encoder needs whole clips, and at least one"))?;
        let mut outputs = self.encoder.run(&mut self.params, vec![("clip", clip)])?;
        let name = if self.future.levels == 1 { "encoder_out" } else { "encoder_levels" };
        let context = outputs.remove(name).ok_or_else(|| EvalError::setup("the encoder's plan has no output"))?;
        let [time, rows, columns] = self.config.grid();
        let steps: Vec<usize> = seconds.iter().map(|seconds| time + self.times.steps(*seconds, tubelet)).collect();
        if steps.iter().any(|step| *step >= self.future.grid[0]) {
            return Err(EvalError::setup("a future is farther than the predictor was opened for"));
        }
        let (tokens, plane) = (self.config.tokens(), rows * columns);
        let ids = |from: &[usize], number: usize| -> Vec<i32> {
            let all = from.iter().flat_map(|from| *from..*from + number);
            all.map(|id| i32::try_from(id).unwrap_or(i32::MAX)).collect()
        };
        let ahead: Vec<usize> = steps.into_iter().map(|step| plane * step).collect();
        let values = context.floats().to_vec();
        let inputs = vec![
            ("context", context),
            ("mask_enc", HostTensor::I32 { shape: vec![count, tokens], data: ids(&vec![0; count], tokens) }),
            ("mask_pred", HostTensor::I32 { shape: vec![count, plane], data: ids(&ahead, plane) }),
        ];
        let mut outputs = self.predictor.run(&mut self.params, inputs)?;
        let future = outputs.remove("predictor_out").ok_or_else(|| EvalError::setup("the predictor has no output"))?;
        Ok(Features {
            tokens: tokens + plane,
            dim,
            values: joined(count, [(&values, tokens), (future.floats(), plane)], dim),
        })
    }

    /// Features of the clips before actions, which `ranks` share; those whose video cannot be used are left out of both lists and
    /// counted. None on ranks other than 0.
    ///
    /// # Errors
    /// As [`FutureEncoder::encode`]; [`EvalError::Data`] where no clip can be had; [`EvalError::Collective`] where a rank is lost.
    pub fn features(
        &mut self,
        clips: &AnticipationClips,
        segments: &[ActionSegment],
        ranks: &dyn Collective,
        progress: OnProgress<'_>,
    ) -> Result<Option<Anticipated>, EvalError> {
        let [tokens, dim] = self.tokens();
        let mut found = Anticipated { features: Features::empty(tokens, dim), segments: Vec::new(), bad: Vec::new() };
        let mut done = 0;
        for units in segments.chunks(BATCH * ranks.world()) {
            let mine = units.chunks(BATCH).nth(ranks.rank());
            let mine = mine.map(|unit| self.portion(clips, unit)).transpose()?;
            for (unit, portion) in units.chunks(BATCH).zip(turn(ranks, mine)?) {
                found.features.values.extend(portion.values);
                for (segment, bad) in unit.iter().zip(portion.samples) {
                    match bad {
                        Some(why) => found.bad.push(why),
                        None => found.segments.push(segment.clone()),
                    }
                }
            }
            done += units.len();
            progress(Progress { what: "encoding the clips before actions", done, total: segments.len() });
        }
        if ranks.rank() != 0 {
            return Ok(None);
        }
        if found.segments.is_empty() {
            let why = found.bad.first().map_or_else(String::new, |first| format!(": {first}"));
            return Err(EvalError::setup(format!("no clip could be read{why}")));
        }
        Ok(Some(found))
    }

    /// Features of a unit of actions, as many as are encoded at once.
    fn portion(&mut self, clips: &AnticipationClips, unit: &[ActionSegment]) -> Result<Portion, EvalError> {
        let EncoderConfig { channels, num_frames, height, width, .. } = self.config;
        let (len, opener, seconds) = (channels * num_frames * height * width, Opener::shared(), self.times.seconds);
        let read = unit.par_iter().map(|segment| {
            let mut clip = vec![0f32; len];
            clips.read(opener, segment, &mut clip).map(|()| (seconds, clip))
        });
        self.portion_of(read.collect())
    }

    /// Features of a unit of clips, each with the seconds to its future.
    pub(super) fn portion_of(&mut self, clips: Vec<Result<(f64, Vec<f32>), DataError>>) -> Result<Portion, EvalError> {
        let (mut portion, mut values, mut times) = (Portion::default(), Vec::new(), Vec::new());
        for clip in clips {
            portion.samples.push(match clip {
                Ok((seconds, clip)) => {
                    times.push(seconds);
                    values.extend(clip);
                    None
                }
                Err(error) if error.is_bad_sample() => Some(error.to_string()),
                Err(error) => return Err(error.into()),
            });
        }
        if !values.is_empty() {
            portion.values = self.encode(values, &times)?.values;
        }
        Ok(portion)
    }
}

/// The last `dim` channels of the tokens of two parts, `(values, tokens of a clip)` of `count` clips each, one part after the
/// other within each clip.
fn joined(count: usize, parts: [(&[f32], usize); 2], dim: usize) -> Vec<f32> {
    let mut all = Vec::new();
    for clip in 0..count {
        for (values, tokens) in parts {
            let row = values.len() / count.max(1);
            let width = row / tokens.max(1);
            let of_clip = values.get(clip * row..(clip + 1) * row).unwrap_or_default();
            let tokens = of_clip.chunks_exact(width.max(1));
            all.extend(tokens.flat_map(|token| token.get(width.saturating_sub(dim)..).unwrap_or_default()));
        }
    }
    all
}

/// Features of actions whose clips could be read.
#[derive(Clone, Debug)]
pub struct Anticipated {
    /// One row an action.
    pub features: Features,
    /// The actions.
    pub segments: Vec<ActionSegment>,
    /// Why the others are not there, one line each.
    pub bad: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_channels_of_a_clip_and_its_future_are_joined() {
        // Two clips of two tokens three wide, and a future of one token four wide: the last two channels of each.
        let clip: Vec<f32> = (0..12u8).map(f32::from).collect();
        let future: Vec<f32> = (100..108u8).map(f32::from).collect();
        let all = joined(2, [(&clip, 2), (&future, 1)], 2);
        assert_eq!(all, [1.0, 2.0, 4.0, 5.0, 102.0, 103.0, 7.0, 8.0, 10.0, 11.0, 106.0, 107.0]);
    }
}
