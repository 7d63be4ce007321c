//! The data sets of a run, read once: lists and the indices of shards serve survey, training and diagnostics alike.

use std::path::Path;
use std::sync::Arc;

use vjepa_recipe::config::{AugmentConfig, DataConfig, DatasetType};

use crate::annotations::{Share, subset};
use crate::dataset::VideoDataset;
use crate::list::VideoList;
use crate::media::Opener;
use crate::reading::{Reading, opener_of};
use crate::source::{ClipSource, DataError};
use crate::survey::Survey;
use crate::textures::DriftingTextures;

/// The data sets of a configuration and what opens their samples. Copies share both.
#[derive(Debug, Clone)]
pub struct DataSets {
    lists: Arc<Vec<VideoList>>,
    opener: Arc<Opener>,
    of: DataConfig,
}

impl DataSets {
    /// Reads the data sets; clips that are made on the fly have none.
    ///
    /// # Errors
    /// As [`Reading::read`]; [`DataError::List`] for a list of which no video exists.
    pub fn read(data: &DataConfig) -> Result<Self, DataError> {
        Self::read_with(data, Arc::new(opener_of(data)?))
    }

    /// As [`DataSets::read`], with an opener of one's own.
    ///
    /// # Errors
    /// As [`DataSets::read`].
    pub fn read_with(data: &DataConfig, opener: Arc<Opener>) -> Result<Self, DataError> {
        let lists = match data.dataset_type {
            DatasetType::Video => read_lists(data, &opener)?,
            DatasetType::DriftingTextures => Vec::new(),
        };
        lists.iter().try_for_each(VideoList::check_found)?;
        Ok(Self { lists: Arc::new(lists), opener, of: data.clone() })
    }

    /// The lists, in the order of the configuration.
    pub fn lists(&self) -> &[VideoList] {
        &self.lists
    }

    /// The lists with what opens their samples, shared.
    pub(crate) fn shared(&self) -> (Arc<Vec<VideoList>>, Arc<Opener>) {
        (Arc::clone(&self.lists), Arc::clone(&self.opener))
    }

    /// A class-balanced share of each list, as [`subset`] draws it, and what to say of classes that are too small.
    ///
    /// # Errors
    /// [`DataError::Setup`] for samples without a label, and for clips that are made on the fly.
    pub fn subset(&self, share: Share, split: u64) -> Result<(Self, Vec<String>), DataError> {
        let (mut lists, mut notes) = (Vec::with_capacity(self.lists.len()), Vec::new());
        for list in self.lists.iter() {
            let chosen = subset(list, share, split).map_err(|error| DataError::Setup(error.to_string()))?;
            lists.push(chosen.of(list));
            notes.extend(chosen.notes);
        }
        if lists.is_empty() {
            return Err(DataError::Setup("a share is taken of lists with labels, and there is none".into()));
        }
        Ok((Self { lists: Arc::new(lists), ..self.clone() }, notes))
    }

    /// Looks at each: how many videos it has, and what of them cannot be used. Empty for clips that are made on the fly.
    pub fn survey(&self) -> Vec<Survey> {
        self.lists.iter().map(|list| Survey::with(list, &self.opener)).collect()
    }

    /// Their clips, as `data` asks for them: the configuration that they were read for, or one that differs in how clips are
    /// made.
    ///
    /// # Errors
    /// [`DataError::Setup`] for weights that do not fit, or a configuration of other data sets.
    pub fn source(&self, data: &DataConfig, augment: &AugmentConfig) -> Result<Arc<dyn ClipSource>, DataError> {
        Ok(match data.dataset_type {
            DatasetType::Video => Arc::new(self.videos(data, augment)?),
            DatasetType::DriftingTextures => Arc::new(DriftingTextures::of(data)),
        })
    }

    /// As [`DataSets::videos`], each clip as long as `data.dataset_fpcs` says of its data set; see
    /// [`VideoDataset::with_lengths`].
    ///
    /// # Errors
    /// As [`DataSets::videos`].
    pub fn of_lengths(&self, data: &DataConfig, augment: &AugmentConfig) -> Result<VideoDataset, DataError> {
        self.videos(data, augment)?.with_lengths(data.dataset_fpcs.clone().unwrap_or_default())
    }

    /// As [`DataSets::source`], where they are videos.
    ///
    /// # Errors
    /// As [`DataSets::source`]; [`DataError::Setup`] for clips that are made on the fly.
    pub fn videos(&self, data: &DataConfig, augment: &AugmentConfig) -> Result<VideoDataset, DataError> {
        let read = |data: &DataConfig| (data.dataset_type, data.datasets.clone(), data.folders_hold);
        if read(data) != read(&self.of) {
            return Err(DataError::Setup("the data sets that were read are not those of the configuration".into()));
        }
        VideoDataset::of(data, augment, Arc::clone(&self.lists), Arc::clone(&self.opener))
    }
}

/// The data sets of a configuration.
pub(crate) fn read_lists(data: &DataConfig, opener: &Opener) -> Result<Vec<VideoList>, DataError> {
    let reading = Reading { folders_hold: data.folders_hold, opener, ..Reading::default() };
    data.datasets.iter().map(|dataset| reading.read(Path::new(dataset))).collect()
}

/// The source of clips that a configuration names.
///
/// # Errors
/// As [`DataSets::read`] and [`DataSets::source`].
pub fn open_source(data: &DataConfig, augment: &AugmentConfig) -> Result<Arc<dyn ClipSource>, DataError> {
    DataSets::read(data)?.source(data, augment)
}

/// Looks at the data sets of a configuration; none for clips that are made on the fly.
///
/// # Errors
/// As [`DataSets::read`].
pub fn survey(data: &DataConfig) -> Result<Vec<Survey>, DataError> {
    Ok(DataSets::read(data)?.survey())
}
