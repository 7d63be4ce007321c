//! Features of many windows of many videos, row by row into a table.

mod pooling;

pub use pooling::Pooling;

use std::borrow::Cow;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vjepa_collective::{Collective, broadcast_all, broadcast_floats};
use vjepa_data::windows::{Prepared, Window};
use vjepa_data::{DataError, Quarantine};
use vjepa_graphs::EncoderConfig;
use vjepa_programs::Probe;
use vjepa_programs::frozen::Frozen;
use vjepa_runtime::plan::Device;
use vjepa_weights::Tensors;
use vjepa_weights::rows::{Column, Place, Rows};

use crate::EvalError;

/// Clips encoded at once.
const BATCH: usize = 4;
/// Videos that a rank is dealt at once. Clips of different units are not encoded together, so that a row does not depend on the
/// number of ranks.
const UNIT: usize = 8;
/// Bytes of features from which they are sent to rank 0, which writes them.
const BLOCK: usize = 64 << 20;
/// Time after which what has been computed is kept.
const KEPT_AFTER: Duration = Duration::from_secs(60);

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
    /// Compiles an encoder, whose `out_layers` are the blocks whose features are wanted. `weights` has the parameters under
    /// `encoder.` and `probe.`.
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
        // A probe pools the tokens of all blocks that it reads into one.
        let apart = encoder.out_layers.as_ref().filter(|_| pooling != Pooling::Attentive);
        let (columns, outputs) = match apart {
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

    /// Runs over this rank's windows, those of [`videos_of`], and adds a row for each window of all ranks to the `table`, which
    /// rank 0 has, in their order. `first` is the video with which the table begins or goes on, `videos` how many there are;
    /// `progress` is told the video that has been reached.
    ///
    /// # Errors
    /// [`EvalError`]: a store that cannot be reached, features that are NaN or infinite, a full disk, a rank that is lost. What had
    /// been kept stays.
    pub fn run(
        &mut self,
        windows: impl Iterator<Item = Result<Prepared, DataError>>,
        (first, videos): (usize, usize),
        ranks: &dyn Collective,
        mut table: Option<RowSink<'_>>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), EvalError> {
        let (mut windows, mut kept) = (windows.peekable(), Instant::now());
        for unit in (first / UNIT..videos.div_ceil(UNIT)).step_by(ranks.world()) {
            let mine = unit + ranks.rank();
            let mut block = self.block(&mut windows, mine)?;
            // One rank's rows after the other's. Each has the first of them by now.
            for root in 0..ranks.world() {
                let own = root == ranks.rank();
                loop {
                    let sent = if own { std::mem::take(&mut block) } else { Block::default() };
                    let sent = sent.travel(ranks, root)?;
                    let more = sent.more;
                    if let Some(table) = &mut table {
                        sent.events.iter().for_each(|event| progress(event.video));
                        table.add(sent, &self.columns)?;
                        if table.rows.is_full() || kept.elapsed() > KEPT_AFTER {
                            table.rows.keep()?;
                            kept = Instant::now();
                        }
                    }
                    if !more {
                        break;
                    }
                    if own {
                        block = self.block(&mut windows, mine)?;
                    }
                }
            }
        }
        if let Some(table) = table {
            table.rows.keep()?;
        }
        Ok(())
    }

    /// The rows of a unit, as far as a block takes them.
    fn block(
        &mut self,
        windows: &mut Peekable<impl Iterator<Item = Result<Prepared, DataError>>>,
        unit: usize,
    ) -> Result<Block, EvalError> {
        let (mut block, began) = (Block::default(), Instant::now());
        let (mut waiting, mut clips) = (0, Vec::new());
        let of_unit = |next: &Result<Prepared, DataError>| match next {
            Ok(Prepared::Bad { video, .. } | Prepared::Clip { video, .. }) => video / UNIT == unit,
            Err(_) => true,
        };
        while let Some(prepared) = windows.next_if(of_unit) {
            match prepared? {
                Prepared::Bad { video, reason } => {
                    block.events.push(Event { video, window: 0, time: 0, bad: Some(reason) })
                }
                Prepared::Clip { video, window: Window { number, time, .. }, values } => {
                    block.events.push(Event { video, window: number, time: time.to_bits(), bad: None });
                    clips.extend(values);
                    waiting += 1;
                }
            }
            if waiting == BATCH {
                self.encode(std::mem::take(&mut clips), waiting, &mut block.values)?;
                waiting = 0;
                if size_of_val(block.values.as_slice()) >= BLOCK || began.elapsed() > KEPT_AFTER {
                    block.more = windows.peek().is_some_and(of_unit);
                    return Ok(block);
                }
            }
        }
        if waiting > 0 {
            self.encode(clips, waiting, &mut block.values)?;
        }
        Ok(block)
    }

    /// Adds the rows of `count` clips to `rows`, of each clip all columns.
    fn encode(&mut self, clips: Vec<f32>, count: usize, rows: &mut Vec<f32>) -> Result<(), EvalError> {
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
        for index in 0..count {
            for (values, column) in values.iter().zip(&self.columns) {
                let each = values.len() / count.max(1);
                rows.extend_from_slice(
                    &self.kept(values.get(index * each..(index + 1) * each).unwrap_or_default(), column),
                );
            }
        }
        Ok(())
    }
}

/// The videos of which a rank computes the windows, where `first` is the first of `videos` that is left.
pub fn videos_of(ranks: &dyn Collective, first: usize, videos: usize) -> Vec<usize> {
    let own = |video: &usize| (video / UNIT - first / UNIT) % ranks.world() == ranks.rank();
    (first..videos).filter(own).collect()
}

/// Where rows go.
pub struct RowSink<'a> {
    /// The table, which may have rows already.
    pub rows: &'a mut Rows,
    /// Takes videos that cannot be used.
    pub bad: &'a mut Quarantine,
    /// Names of the videos.
    pub paths: &'a [PathBuf],
}

impl RowSink<'_> {
    fn add(&mut self, block: Block, columns: &[Column]) -> Result<(), EvalError> {
        let mut rest = block.values.as_slice();
        for Event { video, window, time, bad } in block.events {
            if let Some(reason) = bad {
                self.bad.add(self.paths.get(video).map_or(Path::new(""), PathBuf::as_path), &reason);
                continue;
            }
            let mut row = Vec::with_capacity(columns.len());
            for column in columns {
                let short = || EvalError::setup("a rank sent fewer features than it has windows");
                let (values, after) = rest.split_at_checked(column.len()).ok_or_else(short)?;
                row.push(Cow::Borrowed(values));
                rest = after;
            }
            self.rows.add(Place { video, window, time: f64::from_bits(time) }, &row)?;
        }
        Ok(())
    }
}

/// A window that has been encoded, or a video that cannot be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Event {
    video: usize,
    window: usize,
    /// When the window begins, the bits of its seconds.
    time: u64,
    /// Why the video cannot be used.
    bad: Option<String>,
}

/// Rows on their way to rank 0.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    events: Vec<Event>,
    /// Of each window all columns.
    values: Vec<f32>,
    /// Whether the unit has more.
    more: bool,
}

impl Block {
    /// Sends the block of rank `root` to rank 0. Other ranks learn only whether it has more.
    fn travel(self, ranks: &dyn Collective, root: usize) -> Result<Self, EvalError> {
        if ranks.world() == 1 {
            return Ok(self);
        }
        let broken = |error: serde_json::Error| EvalError::setup(format!("a rank sent what cannot be read: {error}"));
        let header = serde_json::to_vec(&(self.more, self.values.len(), &self.events)).map_err(broken)?;
        let header = broadcast_all(ranks, &header, root)?;
        let (more, count, events): (bool, usize, Vec<Event>) = serde_json::from_slice(&header).map_err(broken)?;
        let mut values = if root == ranks.rank() { self.values } else { vec![0.0; count] };
        broadcast_floats(ranks, &mut values, root)?;
        Ok(Self { events, values, more })
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
    use vjepa_collective::{Alone, CollectiveError, Sum};

    /// Rank of so many.
    struct Of(usize, usize);

    impl Collective for Of {
        fn rank(&self) -> usize {
            self.0
        }

        fn world(&self) -> usize {
            self.1
        }

        fn begin_sum(&self, values: Vec<f32>) -> Sum {
            Alone.begin_sum(values)
        }

        fn broadcast(&self, _: &mut [u8], _: usize) -> Result<(), CollectiveError> {
            Err(CollectiveError::Lost { ranks: vec![1], limit: Duration::ZERO })
        }

        fn barrier(&self) -> Result<(), CollectiveError> {
            Ok(())
        }

        fn abort(&self, _: i32) {}
    }

    #[test]
    fn every_video_is_one_ranks_by_whole_units() {
        // From the beginning, and from the middle of the second unit.
        for (first, videos) in [(0, 37), (11, 37), (36, 37), (3, 3)] {
            assert_eq!(videos_of(&Alone, first, videos), (first..videos).collect::<Vec<_>>());
            let shares: Vec<Vec<usize>> = (0..3).map(|rank| videos_of(&Of(rank, 3), first, videos)).collect();
            let mut all = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (first..videos).collect::<Vec<_>>());
            // Rank r has the units after the first one's, r, r + 3, ... of them.
            for (rank, share) in shares.iter().enumerate() {
                assert!(share.iter().all(|video| (video / UNIT - first / UNIT) % 3 == rank), "{share:?}");
            }
        }
    }

    #[test]
    fn a_block_stays_where_there_is_one_rank() {
        let event = Event { video: 3, window: 1, time: f64::NAN.to_bits(), bad: None };
        let block = Block { events: vec![event], values: vec![1.0, -0.0], more: true };
        assert_eq!(block.clone().travel(&Alone, 0).unwrap(), block);
        assert!(block.travel(&Of(0, 2), 0).is_err());
    }

    #[test]
    fn each_moment_has_the_mean_of_its_tokens() {
        // Two moments of two tokens, two wide.
        assert_eq!(moments(&[1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0], 2, 2), [2.0, 3.0, 20.0, 30.0]);
    }
}
