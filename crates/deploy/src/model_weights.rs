//! Where an exported model's weights come from: a checkpoint, read a tensor at a time, or a seed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vjepa_compiler::ir::DType;
use vjepa_export::WeightSource;
use vjepa_graphs::{EncoderConfig, init, is_frozen, position};
use vjepa_recipe::config::Positions;

use crate::DeployError;
use vjepa_weights::{Tensors, Weights};

/// Weights under `encoder.*` and `probe.*`. No more than one tensor of the encoder is in memory at a time.
pub struct ModelWeights {
    base: Base,
    shapes: BTreeMap<String, Vec<usize>>,
    /// Tensors that are not in the file as such: the probe, a resized position table.
    own: Tensors,
    /// The tensor read last: query, key and value are parts of one.
    last: Mutex<Option<(String, Arc<Vec<f32>>)>>,
}

enum Base {
    File { weights: Box<Weights>, model: &'static str },
    Drawn { seed: u64, init: init::Init },
}

impl ModelWeights {
    /// Of a checkpoint whose encoder is `stored`, for an encoder that may have another clip size: its position table is
    /// interpolated as the official encoder does.
    pub fn file(weights: Weights, stored: &EncoderConfig, wanted: &EncoderConfig) -> Result<Self, DeployError> {
        let model = weights.encoder()?;
        let mut own = Tensors::new();
        // Rotary positions have no table: angles are those of any clip.
        if stored.grid() != wanted.grid() && stored.positions == Positions::Table {
            let mut table = weights.get(&format!("{model}.pos_embed"))?;
            position::resize_table(&mut table, stored.grid(), wanted.grid())?;
            own.insert("encoder.pos_embed".to_owned(), table);
        }
        Ok(Self::new(Base::File { weights: Box::new(weights), model }, wanted, own))
    }

    /// Drawn from a seed as pre-training starts.
    pub fn drawn(seed: u64, encoder: &EncoderConfig) -> Self {
        let mut own = Tensors::new();
        if encoder.positions == Positions::Table {
            let table = (vec![1, encoder.tokens(), encoder.embed_dim], encoder.position_table());
            own.insert("encoder.pos_embed".to_owned(), table);
        }
        let init = init::in_force(init::Init::Official, encoder.positions);
        Self::new(Base::Drawn { seed, init }, encoder, own)
    }

    fn new(base: Base, encoder: &EncoderConfig, own: Tensors) -> Self {
        let shapes = encoder.parameter_shapes().into_iter();
        let shapes = shapes.map(|(name, shape)| (format!("encoder.{name}"), shape)).collect();
        Self { base, shapes, own, last: Mutex::new(None) }
    }

    /// Adds the tensors of a probe.
    pub fn extend(&mut self, tensors: &Tensors) {
        self.own.extend(tensors.clone());
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        let stored = self.shapes.iter().filter(|(name, _)| !self.own.contains_key(*name));
        let stored: usize = stored.map(|(_, shape)| shape.iter().product::<usize>()).sum();
        stored + self.own.values().map(|(_, values)| values.len()).sum::<usize>()
    }

    fn produce(&self, name: &str) -> io::Result<Vec<f32>> {
        let (Some(shape), Some(rest)) = (self.shapes.get(name), name.strip_prefix("encoder.")) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match &self.base {
            Base::File { weights, model } => {
                let (_, values) = weights.get(&format!("{model}.{rest}")).map_err(io::Error::other)?;
                Ok(values)
            }
            Base::Drawn { .. } if is_frozen(rest) => Err(io::ErrorKind::NotFound.into()),
            Base::Drawn { seed, init } => Ok(init::encoder_weight(rest, shape, *init, *seed)),
        }
    }
}

impl WeightSource for ModelWeights {
    fn describe(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        let shape = self.own.get(name).map(|(shape, _)| shape).or_else(|| self.shapes.get(name))?;
        Some((DType::F32, shape.clone()))
    }

    fn read(&self, name: &str) -> io::Result<Cow<'_, [f32]>> {
        if let Some((_, values)) = self.own.get(name) {
            return Ok(Cow::Borrowed(values));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, values)) = last.as_ref()
            && known == name
        {
            return Ok(Cow::Owned(values.to_vec()));
        }
        // The old one goes first, so that there is only one.
        *last = None;
        let values = Arc::new(self.produce(name)?);
        *last = Some((name.to_owned(), values.clone()));
        Ok(Cow::Owned(values.to_vec()))
    }
}
