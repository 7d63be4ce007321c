//! Several probes in one file, as V-JEPA 2's evaluations write them: `classifiers`, one for each of a run's rates.

use std::collections::{BTreeMap, BTreeSet};

use super::{OTHER_PROBES, Weights, WeightsError};

/// The first part of the names of the probe that is read.
const PROBE: &str = "probe.";

impl Weights {
    /// How many probes the file holds.
    pub fn probes(&self) -> usize {
        let others: BTreeSet<&str> = self.under(OTHER_PROBES).filter_map(|(name, _)| name.split('.').nth(1)).collect();
        usize::from(self.has("probe")) + others.len()
    }

    /// The file with its probe of this number, from 0, as the one that is read: unasked the first is. A file without any probe is
    /// as it was.
    ///
    /// # Errors
    /// [`WeightsError::ProbeNumber`] where it has probes, and none of this number.
    pub fn choosing_probe(self, number: usize) -> Result<Self, WeightsError> {
        let chosen = format!("{OTHER_PROBES}.{number}.");
        match (number, self.probes()) {
            (_, 0) => Ok(self),
            (0, _) if self.has("probe") => Ok(self),
            (1.., _) if self.entries.keys().any(|name| name.starts_with(&chosen)) => {
                Ok(Self { entries: renamed(self.entries, &chosen), others: renamed(self.others, &chosen), ..self })
            }
            (_, held) => Err(WeightsError::ProbeNumber { path: self.path, held }),
        }
    }
}

/// Names with the chosen probe's in the place of the first's, and the reverse.
fn renamed<T>(names: BTreeMap<String, T>, chosen: &str) -> BTreeMap<String, T> {
    let rename = |name: String| match (name.strip_prefix(chosen), name.strip_prefix(PROBE)) {
        (Some(rest), _) => format!("{PROBE}{rest}"),
        (None, Some(rest)) => format!("{OTHER_PROBES}.0.{rest}"),
        (None, None) => name,
    };
    names.into_iter().map(|(name, value)| (rename(name), value)).collect()
}

#[cfg(test)]
mod tests {
    use crate::{Tensors, load, save_safetensors};

    #[test]
    fn any_of_several_probes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probes.safetensors");
        let linear =
            |number: usize| (format!("classifiers.{number}.module.linear.bias"), (vec![1], vec![number as f32]));
        save_safetensors(&path, &Tensors::from([0, 1, 2].map(linear)), &Default::default()).unwrap();
        assert_eq!(load(&path).unwrap().probes(), 3);
        for number in 0..3 {
            let chosen = load(&path).unwrap().choosing_probe(number).unwrap();
            assert_eq!(chosen.get("probe.linear.bias").unwrap().1, [number as f32]);
            assert_eq!(chosen.tensors().count(), 3);
        }
        let refused = |path, number| load(path).unwrap().choosing_probe(number).err().unwrap().to_string();
        assert!(refused(&path, 3).ends_with("holds 3 probes: give --probe-number a number from 0 to 2"));
        let single = folder.path().join("single.safetensors");
        let alone = Tensors::from([("probe.linear.bias".to_owned(), (vec![1], vec![0.0]))]);
        save_safetensors(&single, &alone, &Default::default()).unwrap();
        assert_eq!(load(&single).unwrap().probes(), 1);
        assert!(refused(&single, 1).ends_with("holds one probe: give --probe-number 0, or leave it out"));
        // What is no probe is found out by who reads one.
        let none = folder.path().join("none.safetensors");
        let encoder = Tensors::from([("encoder.norm.bias".to_owned(), (vec![1], vec![0.0]))]);
        save_safetensors(&none, &encoder, &Default::default()).unwrap();
        assert!(load(&none).unwrap().choosing_probe(1).is_ok());
    }
}
