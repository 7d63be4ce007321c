//! Models taken from a file, strictly: every name and shape, and no other.

use std::collections::BTreeMap;

use super::{
    LoadError, MODELS, Misshapen, OPTIMISER, OTHER_PROBES, Shapes, Tensors, Weights, WeightsError, first_part, mismatch,
};

impl Weights {
    /// Compares the names and shapes under each `(model, parameters)` with what is there. Models not mentioned are not
    /// looked at. Other first parts are unexpected, unless the file has a record of our own: an objective may have parameter
    /// sets that only it knows.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] with every name at fault.
    pub fn check(&self, models: &[(&str, Shapes)]) -> Result<(), WeightsError> {
        let mut faults = LoadError::default();
        let foreign = |name: &&String| {
            let model = first_part(name);
            let known = MODELS.contains(&model)
                || [OPTIMISER, OTHER_PROBES].contains(&model)
                || models.iter().any(|(wanted, _)| *wanted == model);
            !known && self.record.is_none()
        };
        faults.unexpected.extend(self.entries.keys().chain(self.others.keys()).filter(foreign).cloned());
        for (model, parameters) in models {
            let mut wanted: BTreeMap<String, &[usize]> =
                parameters.iter().map(|(name, shape)| (format!("{model}.{name}"), shape.as_slice())).collect();
            for (name, entry) in self.under(model) {
                match wanted.remove(name) {
                    None => faults.unexpected.push(name.to_owned()),
                    Some(shape) if shape != entry.shape => faults.misshapen.push(Misshapen {
                        name: name.to_owned(),
                        expected: shape.to_vec(),
                        got: entry.shape.clone(),
                        values: entry.shape.iter().product(),
                    }),
                    Some(_) => {}
                }
            }
            let others = self.others.keys().filter(|name| first_part(name) == *model);
            faults.unexpected.extend(others.filter(|name| !wanted.contains_key(*name)).cloned());
            if let Some((name, found)) = self.others.iter().find(|(name, _)| wanted.contains_key(*name)) {
                let (name, found) = (name.clone(), found.clone());
                return Err(WeightsError::Type { path: self.path.clone(), name, found });
            }
            faults.missing.extend(wanted.into_keys());
        }
        if faults == LoadError::default() {
            return Ok(());
        }
        let absent = models.iter().map(|(model, _)| *model).find(|model| !self.has(model));
        let part = self.path.file_name().is_some_and(|name| name.to_string_lossy().contains("-of-"));
        let remedy = match absent {
            _ if part => "it is one of several files: give their index, *.index.json".to_owned(),
            Some(model) => format!("the file holds no {}: give a whole training checkpoint", model.replace('_', " ")),
            None => mismatch::remedy(&faults),
        };
        Err(WeightsError::Mismatch { path: self.path.clone(), error: faults, remedy })
    }

    /// All parameters of one model under the names `<as_model>.<parameter>`, after a strict check of that model.
    ///
    /// # Errors
    /// [`WeightsError::NoModel`], [`WeightsError::Mismatch`], or a file that cannot be read.
    pub fn take(
        &self,
        model: &str,
        as_model: &str,
        parameters: Vec<(String, Vec<usize>)>,
    ) -> Result<Tensors, WeightsError> {
        if !self.has(model) {
            return Err(self.no_model(&format!("`{model}.*`")));
        }
        let names: Vec<String> = parameters.iter().map(|(name, _)| name.clone()).collect();
        self.check(&[(model, parameters)])?;
        names
            .into_iter()
            .map(|name| Ok((format!("{as_model}.{name}"), self.get(&format!("{model}.{name}"))?)))
            .collect()
    }

    /// The encoder of [`Weights::encoder`] under `encoder.*`, after a strict check of its parameters.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn take_encoder(&self, parameters: Shapes) -> Result<Tensors, WeightsError> {
        self.take(self.encoder()?, "encoder", parameters)
    }
}
