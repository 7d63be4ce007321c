//! Which rank updates which parameter (ZeRO-1: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
//! Models", 2020, section 5.1), and how the others get what came of it.
//!
//! Whole parameters are dealt out, the largest first, each to the rank that has least so far. Every rank has all gradients and
//! takes the same norm over them, so that it clips as one process would; what is updated where does not change a bit.
//!
//! A checkpoint is what one process would have written: rank 0 is sent the others' moments and writes them with its own. So it
//! is one file of one form that every command reads, any number of ranks goes on from it, and there are no parts that could get
//! lost or be of different steps. It costs rank 0 room for one copy of all moments on the host while it writes.

use super::TrainError;
use super::sums::buckets;
use std::collections::BTreeMap;
use vjepa_collective::{Collective, broadcast_floats};
use vjepa_compiler::accumulate::SUM;
use vjepa_graphs::NamedTensors;
use vjepa_graphs::objectives::Declaration;
use vjepa_runtime::plan::{DeviceParams, HostTensor};

/// Moments of a parameter, before its name.
const MOMENTS: [&str; 2] = ["adam.m.", "adam.v."];

/// What is done with a tensor that another rank sent: its name, shape and values.
type Take<'a> = &'a mut dyn FnMut(&mut DeviceParams, String, Vec<usize>, Vec<f32>);

/// The parameters that are updated, and who does it.
pub(super) struct Shards {
    rank: usize,
    /// By parameter: its owner and its shape.
    owners: BTreeMap<String, (usize, Vec<usize>)>,
    /// By parameter: the averages that follow it.
    averages: BTreeMap<String, Vec<String>>,
}

impl Shards {
    /// Deals out to `ranks` the parameters whose gradients these sums hold, with their shapes.
    pub(super) fn of_sums(sums: &[(String, Vec<usize>)], declaration: &Declaration, ranks: &dyn Collective) -> Self {
        let full = |name: &String| name.strip_prefix(SUM).unwrap_or(name).to_owned();
        let parameters: Vec<(String, Vec<usize>)> =
            sums.iter().map(|(name, shape)| (full(name), shape.clone())).collect();
        Self::new(&parameters, declaration, ranks)
    }

    /// Deals `parameters`, with their shapes, out to `ranks`.
    fn new(parameters: &[(String, Vec<usize>)], declaration: &Declaration, ranks: &dyn Collective) -> Self {
        let dealt = deal(parameters, ranks.world());
        let owners = parameters.iter().zip(dealt).map(|((name, shape), owner)| (name.clone(), (owner, shape.clone())));
        let followers = |name: &String| {
            let (set, rest) = name.split_once('.').unwrap_or((name, ""));
            let of_set = declaration.averages().filter(|(_, of)| *of == set);
            of_set.map(|(average, _)| format!("{}.{rest}", average.name)).collect()
        };
        let averages = parameters.iter().map(|(name, _)| (name.clone(), followers(name))).collect();
        Self { rank: ranks.rank(), owners: owners.collect(), averages }
    }

    /// Whether this rank updates a parameter.
    pub(super) fn owns(&self, parameter: &str) -> bool {
        self.owners.get(parameter).is_none_or(|(owner, _)| *owner == self.rank)
    }

    /// Whether a tensor of the run's state is kept here: all but the moments of other ranks' parameters.
    pub(super) fn keeps(&self, tensor: &str) -> bool {
        MOMENTS.iter().find_map(|moment| tensor.strip_prefix(moment)).is_none_or(|parameter| self.owns(parameter))
    }

    /// Gives every rank the weights and averages that others have updated.
    ///
    /// # Errors
    /// [`TrainError::Collective`]; [`TrainError::Unsupported`] for a device that lost them.
    pub(super) fn spread(&self, params: &mut DeviceParams, ranks: &dyn Collective) -> Result<(), TrainError> {
        self.travel(
            params,
            ranks,
            &|parameter| {
                let averages = self.averages.get(parameter).into_iter().flatten().cloned();
                std::iter::once(parameter.to_owned()).chain(averages).collect()
            },
            &mut |params, name, shape, data| {
                params.set(&name, HostTensor::F32 { shape, data });
            },
        )
    }

    /// The moments that other ranks keep, on rank 0; nothing elsewhere.
    ///
    /// # Errors
    /// As [`Shards::spread`].
    pub(super) fn moments(
        &self,
        params: &mut DeviceParams,
        ranks: &dyn Collective,
    ) -> Result<NamedTensors, TrainError> {
        let mut moments = NamedTensors::new();
        self.travel(
            params,
            ranks,
            &|parameter| MOMENTS.map(|moment| format!("{moment}{parameter}")).into(),
            &mut |_, name, shape, data| {
                if self.rank == 0 {
                    moments.insert(name, (shape, data));
                }
            },
        )?;
        Ok(moments)
    }

    /// Sends the tensors that belong to each parameter, as `of` names them, from its owner to all, who `take` them.
    fn travel(
        &self,
        params: &mut DeviceParams,
        ranks: &dyn Collective,
        of: &dyn Fn(&str) -> Vec<String>,
        take: Take<'_>,
    ) -> Result<(), TrainError> {
        for owner in 0..ranks.world() {
            let theirs = self.owners.iter().filter(|(_, (of, _))| *of == owner);
            let tensors: Vec<(String, &Vec<usize>)> =
                theirs.flat_map(|(name, (_, shape))| of(name).into_iter().map(move |name| (name, shape))).collect();
            for members in buckets(tensors.iter().map(|(_, shape)| shape.iter().product())) {
                let members = tensors.get(members).unwrap_or_default();
                let mut values: Vec<f32> = Vec::new();
                if owner == self.rank {
                    for (name, _) in members {
                        let lost = || TrainError::Unsupported(format!("{} lost `{name}`", params.device()));
                        values.extend(params.get(name).ok_or_else(lost)?.1);
                    }
                } else {
                    values.resize(members.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum(), 0.0);
                }
                broadcast_floats(ranks, &mut values, owner)?;
                let mut rest = values.as_slice();
                for (name, shape) in members.iter().filter(|_| owner != self.rank) {
                    let Some((data, after)) = rest.split_at_checked(shape.iter().product()) else { break };
                    rest = after;
                    take(params, name.clone(), (*shape).clone(), data.to_vec());
                }
            }
        }
        Ok(())
    }
}

/// Owners of parameters, in their order.
fn deal(parameters: &[(String, Vec<usize>)], world: usize) -> Vec<usize> {
    let size = |at: usize| parameters.get(at).map_or(0, |(_, shape)| shape.iter().product::<usize>());
    let mut largest: Vec<usize> = (0..parameters.len()).collect();
    largest.sort_by_key(|at| std::cmp::Reverse(size(*at)));
    let mut held = vec![0; world.max(1)];
    let mut owners = vec![0; parameters.len()];
    for at in largest {
        let least = (0..held.len()).min_by_key(|rank| held.get(*rank)).unwrap_or(0);
        if let (Some(held), Some(owner)) = (held.get_mut(least), owners.get_mut(at)) {
            (*held, *owner) = (*held + size(at), least);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_dealt_out_evenly() {
        let named = |sizes: &[usize]| -> Vec<(String, Vec<usize>)> {
            sizes.iter().enumerate().map(|(at, size)| (format!("a.{at}"), vec![*size, 2])).collect()
        };
        assert_eq!(deal(&named(&[1, 5, 2, 3, 3]), 2), [1, 0, 0, 1, 1]);
        assert_eq!(deal(&named(&[4]), 3), [0]);
        // The blocks of a transformer: matrices of three sizes, biases and norms.
        let block = [768 * 3 * 192, 192 * 192, 192 * 768, 768 * 192, 768 * 3, 192, 768, 192, 192, 192];
        let sizes: Vec<usize> = block.iter().copied().cycle().take(120).collect();
        for world in [2, 3, 4, 8, 64] {
            let owners = deal(&named(&sizes), world);
            let held = (0..world).map(|rank| {
                let of_rank = owners.iter().zip(&sizes).filter(|(owner, _)| **owner == rank);
                of_rank.map(|(_, size)| *size).sum::<usize>()
            });
            let (most, all) = (held.max().unwrap() as f64, sizes.iter().sum::<usize>() as f64);
            let largest = *sizes.iter().max().unwrap() as f64;
            assert!(most <= all / world as f64 + largest, "{world} ranks: {}", most / all);
            assert!(world != 2 || most / all <= 0.51, "{}", most / all);
        }
    }
}
