//! The served model: its description and the engines that run it.

use crate::error::ServeError;
use crate::settings::Limits;
use vjepa_runtime::is_model_name;
use vjepa_runtime::{ClipBatch, NamedOutput, Runtime, Session, TensorInfo};

/// The only version of a model.
pub(crate) const VERSION: &str = "1";

/// Runs clips: a [`Session`], or a test's substitute. Each engine is owned by one thread.
pub trait ServingEngine: Send {
    /// Runs a batch.
    ///
    /// # Errors
    /// A sentence for the client.
    fn run(&mut self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, String>;
}

impl ServingEngine for Session {
    fn run(&mut self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, String> {
        Session::run(self, clips).map_err(|error| error.to_string())
    }
}

/// Batch sizes worth running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchSizes {
    /// Batched clips cost less than single ones.
    #[default]
    Any,
    /// They cost the same, and each batch size has its own plan and copy of the weights (tract): every result is run alone.
    One,
}

/// A model's description, which clients see and requests are checked against.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// Name in paths and requests.
    pub name: String,
    /// Runtime, for people and as the protocol's `platform`.
    pub runtime: String,
    /// The clips `f32[B, 3, T, H, W]`, or `f32[B, V, 3, T, H, W]` where a result is made of V clips.
    pub input: TensorInfo,
    /// The outputs, `f32`.
    pub outputs: Vec<TensorInfo>,
    /// Names of the classes of `logits`; may be empty.
    pub labels: Vec<String>,
    /// Which batches are run.
    pub batch_sizes: BatchSizes,
}

impl ModelInfo {
    /// The description of an open session under a name.
    pub fn of(name: &str, session: &Session) -> Self {
        Self {
            name: name.to_owned(),
            batch_sizes: if session.runs_on() == Runtime::Tract { BatchSizes::One } else { BatchSizes::Any },
            runtime: session.runtime(),
            input: session.input().clone(),
            outputs: session.outputs().to_vec(),
            labels: session.labels().to_vec(),
        }
    }

    /// Clips that every request must have; none if the batch is dynamic.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.input.shape.first()?.size()
    }

    /// True when a request may have any number of clips: the batch is free, and every output has it first.
    pub fn batched(&self) -> bool {
        self.input.has_free_batch() && self.outputs.iter().all(TensorInfo::has_free_batch)
    }

    /// True when clips of several requests run together.
    pub fn joined(&self) -> bool {
        self.batched() && self.batch_sizes == BatchSizes::Any
    }

    /// How the clips of a run are split, which is possible with a dynamic batch only.
    pub(crate) fn run_sizes(&self) -> BatchSizes {
        if self.batched() { self.batch_sizes } else { BatchSizes::Any }
    }

    /// The clips of one result, if the model fixes their sizes.
    pub fn row(&self) -> Option<BatchShape> {
        BatchShape::of(&[&[1], self.input.row()?.as_slice()].concat())
    }
}

/// The shape of a request's clips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Results.
    pub rows: usize,
    /// Clips of a result.
    pub views: usize,
    /// `[3, T, H, W]`.
    pub clip: [usize; 4],
}

impl BatchShape {
    /// Reads `[B, 3, T, H, W]` or `[B, V, 3, T, H, W]`; none for another number of dimensions.
    pub fn of(shape: &[usize]) -> Option<Self> {
        match *shape {
            [rows, a, b, c, d] => Some(Self { rows, views: 1, clip: [a, b, c, d] }),
            [rows, views, a, b, c, d] => Some(Self { rows, views, clip: [a, b, c, d] }),
            _ => None,
        }
    }

    /// Number of values; none if it overflows.
    pub fn values(&self) -> Option<usize> {
        [self.views].iter().chain(&self.clip).try_fold(self.rows, |product, size| product.checked_mul(*size))
    }

    /// The same clips for another number of results.
    pub fn with_rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// Shape for a session: `[B · V, 3, T, H, W]`.
    pub(crate) fn batch(&self) -> [usize; 5] {
        let [a, b, c, d] = self.clip;
        [self.rows * self.views, a, b, c, d]
    }
}

/// A model with its engines, one per instance.
pub struct Model {
    pub(crate) info: ModelInfo,
    pub(crate) engines: Vec<Box<dyn ServingEngine>>,
}

impl Model {
    /// A model run by `sessions`, all of the same file; each is an instance with its own thread.
    ///
    /// # Errors
    /// [`ServeError::Name`]; [`ServeError::Setting`] without a session.
    pub fn new(name: &str, sessions: Vec<Session>) -> Result<Self, ServeError> {
        let first =
            sessions.first().ok_or_else(|| ServeError::Setting("a model needs at least one session".to_owned()))?;
        let info = ModelInfo::of(name, first);
        Self::with_engines(
            info,
            sessions.into_iter().map(|session| Box::new(session) as Box<dyn ServingEngine>).collect(),
        )
    }

    /// A model run by any engines.
    ///
    /// # Errors
    /// [`ServeError::Name`] for a name that cannot stand in a path; [`ServeError::Setting`] without an engine.
    pub fn with_engines(info: ModelInfo, engines: Vec<Box<dyn ServingEngine>>) -> Result<Self, ServeError> {
        if !is_model_name(&info.name) {
            return Err(ServeError::Name(info.name));
        }
        if engines.is_empty() {
            return Err(ServeError::Setting("a model needs at least one engine".to_owned()));
        }
        Ok(Self { info, engines })
    }

    /// Refuses memory limits under which no request could be served.
    ///
    /// # Errors
    /// [`ServeError::Setting`] with the limit to change.
    pub fn fits(&self, limits: &Limits) -> Result<(), ServeError> {
        let Limits { body, bodies, .. } = *limits;
        if body > bodies {
            return Err(ServeError::Setting(format!(
                "--max-body is {body} bytes and --max-bodies, the memory for all bodies, only {bodies}: give \
                 --max-bodies as much or more"
            )));
        }
        let Some(row) = self.info.row() else { return Ok(()) };
        let rows = self.info.fixed_batch().unwrap_or(1);
        let bytes = row.with_rows(rows).values().map_or(usize::MAX, |values| values.saturating_mul(size_of::<f32>()));
        if bytes > bodies {
            return Err(ServeError::Setting(format!(
                "the model takes {}, {bytes} bytes for the smallest request, and --max-bodies is {bodies}: give \
                 --max-bodies {}MiB or more",
                self.info.input,
                bytes.div_ceil(1 << 20)
            )));
        }
        Ok(())
    }

    /// Runs clips of zeros through every engine, so that no request pays for first-time work: one clip, and for batched
    /// models the largest batch, so that a lack of memory shows now. Models with variable clip sizes are left alone.
    ///
    /// # Errors
    /// The engine's error.
    pub fn warm_up(&mut self, max_clips: usize) -> Result<(), String> {
        let Some(row) = self.info.row() else { return Ok(()) };
        let least = self.info.fixed_batch().unwrap_or(1);
        let most = if self.info.joined() { max_clips.max(least) } else { least };
        let shape = row.with_rows(most);
        let values = shape.values().ok_or("its clips are too large")?;
        let mut zeros = Vec::new();
        let short = |_| format!("there is not enough memory for {most} clips at once; give a smaller --max-batch");
        zeros.try_reserve_exact(values).map_err(short)?;
        zeros.resize(values, 0.0);
        for engine in &mut self.engines {
            for rows in [least, most].iter().take(if most > least { 2 } else { 1 }) {
                let shape = row.with_rows(*rows);
                let part = zeros.get(..shape.values().unwrap_or(values)).unwrap_or(&zeros);
                engine.run(&ClipBatch::new(shape.batch(), part).map_err(|error| error.to_string())?)?;
            }
        }
        Ok(())
    }
}
