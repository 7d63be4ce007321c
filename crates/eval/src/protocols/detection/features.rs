//! Features of boxes around key frames, by a frozen encoder.

use std::time::Instant;

use vjepa_collective::Collective;
use vjepa_data::detection::{KeyFrameClip, KeyFrameClips};
use vjepa_graphs::{EncoderConfig, position};
use vjepa_programs::{DetectorRecord, box_features};
use vjepa_recipe::config::Positions;
use vjepa_recipe::counter::CounterRng;
use vjepa_runtime::plan::{Device, DeviceExecutor, HostTensor};

use super::shared::{Seen, collected, in_pixels, read, shared};
use super::{BoxValues, LabelledFrame, LabelledRegion};
use crate::protocols::videos::OpenEncoder;
use crate::{EvalError, OnProgress};

/// Distinguishes crops from other uses of the seed.
const CROPS: u64 = 0x6372_6f70;

/// A plan for clips of one size.
struct Sized {
    size: (usize, usize),
    executor: DeviceExecutor,
}

/// Which part of frames a clip shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameView {
    /// All of it.
    Whole,
    /// A random crop, mirrored or not, as SlowFast trains on: a function of the seed, the epoch and the number of the key
    /// frame. Boxes of which it shows nothing are left out.
    Random {
        /// The run's seed.
        seed: u64,
        /// The epoch.
        epoch: u64,
    },
}

/// An encoder that makes features of boxes, compiled for clips of one size at a time.
pub struct BoxEncoder<'a> {
    opened: &'a mut OpenEncoder,
    record: &'a DetectorRecord,
    /// The sizes that it was trained with.
    trained: EncoderConfig,
    /// Its position table for clips of that size.
    table: Option<(Vec<usize>, Vec<f32>)>,
    plan: Option<Sized>,
}

impl<'a> BoxEncoder<'a> {
    /// Of an encoder that was opened, for the clips and layers of a detector.
    pub fn new(opened: &'a mut OpenEncoder, record: &'a DetectorRecord) -> Self {
        let (trained, table) = (opened.model.encoder.clone(), opened.encoder.position_table());
        Self { opened, record, trained, table, plan: None }
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.opened.encoder.device()
    }

    /// Features of the boxes of key frames, which `ranks` share, in the order of `frames`; none on ranks other than 0. A video
    /// that cannot be read leaves its frames out.
    ///
    /// # Errors
    /// [`EvalError::Compile`] and [`EvalError::Run`] for an encoder that does not fit the clips; [`EvalError::Data`] where videos
    /// cannot be reached; [`EvalError::Collective`] where a rank is lost; [`EvalError::Setup`] when no key frame is left.
    pub fn extract(
        &mut self,
        frames: &[LabelledFrame],
        view: FrameView,
        ranks: &dyn Collective,
        progress: OnProgress<'_>,
    ) -> Result<Option<BoxValues>, EvalError> {
        let clips = self.clips();
        shared(frames, self.width(), ranks, progress, |number, frame| self.seen(&clips, view, number, frame))
    }

    /// Seconds that `ranks` together take for a key frame, by some of them: none on ranks other than 0, nor where none of their
    /// clips shows a box. They are seen twice, as the encoder may be compiled the first time.
    ///
    /// # Errors
    /// As [`BoxEncoder::extract`], but that it is none when no key frame is left.
    pub fn seconds_each(
        &mut self,
        frames: &[LabelledFrame],
        view: FrameView,
        ranks: &dyn Collective,
    ) -> Result<Option<f64>, EvalError> {
        let (clips, width) = (self.clips(), self.width());
        let mut each = None;
        for _ in 0..2 {
            let began = Instant::now();
            let seen = |number: usize, frame: &LabelledFrame| self.seen(&clips, view, number, frame);
            let found = collected(frames, width, ranks, &mut |_| {}, seen)?;
            let read = found.filter(|found| !found.boxes.is_empty()).map(|found| frames.len() - found.bad.len());
            each = read.map(|read| began.elapsed().as_secs_f64() / read as f64);
        }
        Ok(each)
    }

    /// How the clips of key frames are made.
    fn clips(&self) -> KeyFrameClips {
        KeyFrameClips {
            frames: self.record.frames,
            step: self.record.step,
            side: self.record.side,
            patch: self.trained.patch,
            normalization: self.opened.model.preprocessing.normalization,
            grayscale: self.opened.model.preprocessing.grayscale,
        }
    }

    /// Width of a box's features.
    pub fn width(&self) -> usize {
        self.record.layers.len() * self.trained.embed_dim
    }

    /// Features of the boxes of one key frame that its clip shows.
    fn seen(
        &mut self,
        clips: &KeyFrameClips,
        view: FrameView,
        number: usize,
        frame: &LabelledFrame,
    ) -> Result<Result<Seen, String>, EvalError> {
        let mut random = match view {
            FrameView::Whole => None,
            FrameView::Random { seed, epoch } => Some(CounterRng::new(&[seed, CROPS, epoch, number as u64])),
        };
        let KeyFrameClip { placed, values, beyond } = match read(clips, frame, random.as_mut())? {
            Ok(clip) => clip,
            Err(why) => return Ok(Err(why)),
        };
        let shows = |region: &LabelledRegion| view == FrameView::Whole || placed.shows(region.corners);
        let shown: Vec<bool> = frame.regions.iter().map(shows).collect();
        let boxes = in_pixels(placed, frame.regions.iter().filter(|region| shows(region)));
        let values = if boxes.is_empty() { Vec::new() } else { self.features(placed.size, values, boxes)? };
        Ok(Ok(Seen { shown, values, beyond }))
    }

    /// Features of boxes `f32[boxes, 5]` of one clip of a size, `[boxes, width]`.
    fn features(&mut self, size: (usize, usize), clip: Vec<f32>, boxes: Vec<f32>) -> Result<Vec<f32>, EvalError> {
        if self.plan.as_ref().is_none_or(|plan| plan.size != size) {
            self.plan = Some(self.planned(size)?);
        }
        let Some(Sized { executor, .. }) = &mut self.plan else { return Err(EvalError::setup("there is no plan")) };
        let clip = HostTensor::F32 { shape: vec![1, 3, self.record.frames, size.0, size.1], data: clip };
        let boxes = HostTensor::F32 { shape: vec![boxes.len() / 5, 5], data: boxes };
        let mut outputs = executor.run(self.opened.encoder.params_mut(), vec![("clip", clip), ("boxes", boxes)])?;
        let features = outputs.remove("box_features").ok_or_else(|| EvalError::setup("the plan has no features"))?;
        Ok(features.into_floats())
    }

    /// Compiles the encoder for clips of a size, and sets its position table to it.
    fn planned(&mut self, size: (usize, usize)) -> Result<Sized, EvalError> {
        let config = EncoderConfig {
            out_layers: Some(self.record.layers.clone()),
            ..self.trained.clone().with_clip(self.record.frames, size.0, size.1)
        };
        if let (Some(table), Positions::Table) = (&self.table, config.positions) {
            let mut resized = table.clone();
            position::resize_table(&mut resized, self.trained.grid(), config.grid())
                .map_err(|error| EvalError::setup(error.to_string()))?;
            let (shape, data) = resized;
            self.opened.encoder.params_mut().set("encoder.pos_embed", HostTensor::F32 { shape, data });
        }
        let executor = self.device().plan(&box_features(&config)?)?;
        Ok(Sized { size, executor })
    }
}
