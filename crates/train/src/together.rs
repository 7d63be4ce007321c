//! Ranks that train together: they mean the same run, and begin it with the same weights.

use super::{TrainError, TrainProgress, TrainState};
use sha2::{Digest, Sha256};
use vjepa_collective::{Collective, broadcast_all};
use vjepa_data::Contents;
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::Config;
use vjepa_runtime::files::hex;

/// What all ranks have to have alike.
struct Facts<'a> {
    config: &'a Config,
    contents: Option<Contents>,
    /// The step's graph, printed.
    plan: String,
    /// What the program was built from, where it says so.
    commit: Option<&'a str>,
}

impl Facts<'_> {
    /// Each by its name.
    fn named(self) -> Result<[(&'static str, String); 4], TrainError> {
        let version = [Some(env!("CARGO_PKG_VERSION")), self.commit];
        Ok([
            ("program version", version.into_iter().flatten().collect::<Vec<_>>().join(" ")),
            ("configuration", digest(self.config.to_yaml()?.as_bytes())),
            ("data list", self.contents.map(|contents| contents.sha256).unwrap_or_default()),
            ("plan", digest(self.plan.as_bytes())),
        ])
    }
}

/// Checks that all ranks have the same program (version and commit), configuration, plan and data lists.
///
/// # Errors
/// [`vjepa_collective::CollectiveError::Differs`] names what differs and the ranks.
pub(super) fn agree(
    ranks: &dyn Collective,
    config: &Config,
    state: &TrainState,
    contents: Option<Contents>,
    commit: Option<&str>,
) -> Result<(), TrainError> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let plan = vjepa_compiler::text::print(state.graph());
    Ok(vjepa_collective::agree(ranks, &Facts { config, contents, plan, commit }.named()?)?)
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Gives every rank the weights, moments and counters of rank 0, the only one that has read or made any.
///
/// # Errors
/// [`TrainError::Collective`].
pub(super) fn begin_alike(ranks: &dyn Collective, state: &mut TrainState) -> Result<(), TrainError> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let mine = if ranks.rank() == 0 { state.weights() } else { NamedTensors::new() };
    let shapes: Vec<(&String, &Vec<usize>)> = mine.iter().map(|(name, (shape, _))| (name, shape)).collect();
    let broken = |error: serde_json::Error| TrainError::Observer(error.to_string());
    let header = serde_json::to_vec(&(state.progress(), shapes)).map_err(broken)?;
    let header = broadcast_all(ranks, &header, 0)?;
    let (progress, shapes): (TrainProgress, Vec<(String, Vec<usize>)>) =
        serde_json::from_slice(&header).map_err(broken)?;
    let mut tensors = NamedTensors::new();
    for (name, shape) in shapes {
        let mut bytes = match mine.get(&name) {
            Some((_, data)) => data.iter().flat_map(|value| value.to_le_bytes()).collect(),
            None => vec![0u8; 4 * shape.iter().product::<usize>()],
        };
        ranks.broadcast(&mut bytes, 0)?;
        if ranks.rank() != 0 && state.keeps(&name) {
            let data = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
            tensors.insert(name, (shape, data));
        }
    }
    if ranks.rank() != 0 {
        state.set_weights(tensors)?;
        state.proceed(progress);
    }
    state.keep_own();
    Ok(())
}

/// How the optimiser's state is shared, in words for rank 0; none where it is not.
///
/// # Errors
/// [`TrainError::Collective`].
pub(super) fn sharing(
    ranks: &dyn Collective,
    config: &Config,
    state: &TrainState,
) -> Result<Option<String>, TrainError> {
    if !config.optimization.shard_states {
        return Ok(None);
    }
    if ranks.world() == 1 {
        return Ok(Some("`optimization.shard_states`: one process keeps the whole state of the optimiser".to_owned()));
    }
    let held: Vec<u64> = vjepa_collective::gather(ranks, &state.moment_bytes().to_le_bytes())?
        .iter()
        .map(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).map_or(0, u64::from_le_bytes))
        .collect();
    let (all, most) = (held.iter().sum::<u64>(), held.iter().max().copied().unwrap_or(0));
    Ok(Some(format!(
        "{} ranks share the optimiser's state: of {:.1} MB of moments a rank holds {:.1} MB at most, {:.3} of them",
        ranks.world(),
        all as f64 / 1e6,
        most as f64 / 1e6,
        most as f64 / all.max(1) as f64
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds of one version from two commits are two programs, and plans that differ are two.
    #[test]
    fn every_fact_tells_ranks_apart() {
        let config = Config::default();
        let other =
            Config { meta: vjepa_recipe::config::MetaConfig { seed: 7, ..config.meta.clone() }, ..config.clone() };
        let facts = |config: &Config, plan: &str, commit: Option<&str>| {
            Facts { config, contents: None, plan: plan.to_owned(), commit }.named().unwrap()
        };
        let own = facts(&config, "a", Some("0123"));
        let differing = |mine: [(&'static str, String); 4]| {
            let both = own.iter().zip(&mine).filter(|(own, mine)| own != mine);
            both.map(|(own, _)| own.0).collect::<Vec<_>>()
        };
        assert!(differing(facts(&config, "a", Some("0123"))).is_empty());
        assert_eq!(differing(facts(&config, "a", Some("4567"))), ["program version"]);
        assert_eq!(differing(facts(&config, "a", None)), ["program version"]);
        assert_eq!(differing(facts(&config, "b", Some("0123"))), ["plan"]);
        assert_eq!(differing(facts(&other, "a", Some("0123"))), ["configuration"]);
    }
}
