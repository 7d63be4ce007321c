//! The groups of a step in their order, whichever kind of samples each is of.

use super::TrainError;
use super::task::Supply;
use vjepa_data::{ClipBatch, Loader, LoaderConfig};
use vjepa_recipe::config::Config;

/// A loader for each kind of samples that this process has groups of.
pub(super) struct Feeds {
    /// By the place of the kind; none for a kind whose groups are all on other processes.
    loaders: Vec<Option<Loader>>,
    /// The kinds of this process's groups of a step, in their order.
    order: Vec<usize>,
    /// Groups handed out.
    number: usize,
}

impl Feeds {
    /// Loaders of process `rank` of `world`, from step `first` on, with settings as `adapt` changes them.
    ///
    /// # Errors
    /// [`TrainError::Data`], as [`Loader::new`].
    pub(super) fn open(
        supplies: &[Supply],
        config: &Config,
        first: u64,
        (rank, world): (usize, usize),
        adapt: impl Fn(LoaderConfig) -> LoaderConfig,
    ) -> Result<Self, TrainError> {
        let groups = supplies.iter().map(|supply| supply.kind.groups.end).max().unwrap_or(0);
        let own = (rank as u64..groups).step_by(world.max(1));
        let kind_of = |group: u64| supplies.iter().position(|supply| supply.kind.groups.contains(&group));
        let order: Vec<usize> = own.filter_map(kind_of).collect();
        let mut loaders = Vec::new();
        for (place, Supply { source, kind }) in supplies.iter().enumerate() {
            let settings = LoaderConfig::of_kind(config, kind, first, rank, world);
            loaders.push(match order.contains(&place) {
                true => Some(Loader::new(source.clone(), adapt(settings))?),
                false => None,
            });
        }
        Ok(Self { loaders, order, number: 0 })
    }

    /// Groups of a step that this process computes.
    pub(super) fn own(&self) -> usize {
        self.order.len()
    }

    /// The next group, and its kind.
    ///
    /// # Errors
    /// [`TrainError::Data`].
    pub(super) fn next(&mut self) -> Result<(usize, ClipBatch), TrainError> {
        let kind = self.order.get(self.number % self.order.len().max(1)).copied();
        self.number += 1;
        match kind.and_then(|kind| Some((kind, self.loaders.get_mut(kind)?.as_mut()?))) {
            Some((kind, loader)) => Ok((kind, loader.next_batch()?)),
            None => Err(TrainError::Unsupported("this process has no group of the step".to_owned())),
        }
    }

    /// The loader of a kind of samples, which has a use for the memory of floats.
    pub(super) fn takes_back(&mut self, kind: usize) -> Option<&mut Loader> {
        self.loaders.get_mut(kind)?.as_mut().filter(|loader| loader.hands_out_floats())
    }

    /// Unreadable files so far.
    pub(super) fn bad(&self) -> u64 {
        self.loaders.iter().flatten().map(|loader| loader.quarantine().len() as u64).sum()
    }
}
