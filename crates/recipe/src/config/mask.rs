//! The `mask` section: a list of generators, each giving one (context, target) pair a step.

use serde::Serialize;
use serde_norway::Value;

use super::data::MaskType;
use super::error::ConfigError;
use super::reader::{Section, Source, describe};
use crate::masks::{Geometry, MaskCollator, MaskError, MultiBlockConfig, TubeCollator, TubeConfig};

/// The mask generators, all of the kind that `data.mask_type` names.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MaskConfig {
    /// Spatio-temporal blocks.
    MultiBlock(Vec<MultiBlockConfig>),
    /// Random tubes.
    RandomTube(Vec<TubeConfig>),
}

impl Default for MaskConfig {
    /// The two official generators: eight short-range blocks, two long-range ones.
    fn default() -> Self {
        Self::MultiBlock(vec![MultiBlockConfig::short_range(), MultiBlockConfig::long_range()])
    }
}

impl MaskConfig {
    /// Reads the list; absent or null means the default of the kind.
    pub(super) fn read(source: &Source, kind: MaskType, value: Option<Value>) -> Result<Self, ConfigError> {
        let list = match value {
            None | Some(Value::Null) => None,
            Some(Value::Sequence(list)) => Some(list),
            Some(other) => {
                return Err(ConfigError::Type {
                    at: source.place("mask"),
                    key: "mask".into(),
                    expected: "a list of mask generators".into(),
                    found: describe(&other),
                });
            }
        };
        let sections = |list: Vec<Value>| {
            list.into_iter().enumerate().map(|(i, value)| Section::open(source, &format!("mask.{i}"), value))
        };
        match (kind, list) {
            (MaskType::MultiBlock3d, None) => Ok(Self::default()),
            (MaskType::RandomTube, None) => Ok(Self::RandomTube(vec![TubeConfig::default()])),
            (MaskType::MultiBlock3d, Some(list)) => {
                sections(list).map(|s| multi_block(s?)).collect::<Result<_, _>>().map(Self::MultiBlock)
            }
            (MaskType::RandomTube, Some(list)) => {
                sections(list).map(|s| tube(s?)).collect::<Result<_, _>>().map(Self::RandomTube)
            }
        }
    }

    /// Generators, that is (context, target) pairs a step, and mask tokens of the predictor.
    pub fn len(&self) -> usize {
        match self {
            Self::MultiBlock(list) => list.len(),
            Self::RandomTube(list) => list.len(),
        }
    }

    /// True for an empty list, which validation refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Builds the generators and draws from them: sizes out of range and masks that leave no context show here.
    pub(super) fn check(&self, geometry: Geometry) -> Result<(), ConfigError> {
        let drawn = match self {
            Self::MultiBlock(list) => {
                for (i, config) in list.iter().enumerate() {
                    if config.num_blocks > MAX_BLOCKS {
                        let rule = format!("is {}; it must lie between 1 and {MAX_BLOCKS}", config.num_blocks);
                        return Err(ConfigError::rule(format!("mask.{i}.num_blocks"), rule));
                    }
                }
                MaskCollator::new(geometry, list.clone()).and_then(|masks| draw(&masks))
            }
            Self::RandomTube(list) => TubeCollator::new(geometry, list.clone()).map(drop),
        };
        drawn.map_err(|error| match error {
            // `mask[0].ratio` is `mask.0.ratio` in overrides and here.
            MaskError::Invalid { key, rule } => ConfigError::rule(key.replace('[', ".").replace(']', ""), rule),
            MaskError::NoContext { generator, .. } => ConfigError::rule(
                format!("mask.{generator}"),
                "leaves no context: its blocks cover every token; lower its spatial_scale, temporal_scale or num_blocks",
            ),
        })
    }
}

/// More blocks than this cover any grid many times over.
const MAX_BLOCKS: usize = 1 << 10;

/// Looks for generators that can never leave a context: a block as large as the grid in any of the first steps (sizes change
/// with the step), and, where that is quick, so many blocks that no draw leaves a gap.
fn draw(masks: &MaskCollator) -> Result<(), MaskError> {
    let grid = masks.grid();
    for step in 0..16 {
        let sizes = masks.block_sizes(step);
        if let Some(generator) = sizes.iter().position(|s| s.t >= grid.t && s.h >= grid.h && s.w >= grid.w) {
            return Err(MaskError::NoContext { generator, tries: 1 });
        }
    }
    let blocks: usize = masks.configs().iter().map(|config| config.num_blocks).sum();
    if grid.tokens().saturating_mul(blocks) <= 1 << 16 { masks.sample_at(0, 0, 1).map(drop) } else { Ok(()) }
}

fn multi_block(mut section: Section) -> Result<MultiBlockConfig, ConfigError> {
    // The released generators share everything but the number and size of blocks; one without those is a short-range one.
    let d = MultiBlockConfig::short_range();
    let pair = |(low, high): (f64, f64)| [low, high];
    let config = MultiBlockConfig {
        aspect_ratio: section.or("aspect_ratio", pair(d.aspect_ratio))?.into(),
        num_blocks: section.or("num_blocks", d.num_blocks)?,
        spatial_scale: section.or("spatial_scale", pair(d.spatial_scale))?.into(),
        temporal_scale: section.or("temporal_scale", pair(d.temporal_scale))?.into(),
        max_temporal_keep: section.or("max_temporal_keep", d.max_temporal_keep)?,
        max_keep: section.opt("max_keep", d.max_keep)?,
    };
    section.finish()?;
    Ok(config)
}

fn tube(mut section: Section) -> Result<TubeConfig, ConfigError> {
    let config = TubeConfig { ratio: section.or("ratio", TubeConfig::default().ratio)? };
    section.finish()?;
    Ok(config)
}
