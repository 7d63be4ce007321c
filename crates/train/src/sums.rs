//! Sums of gradients over groups and ranks.

use super::TrainError;
use super::engine::Named;
use vjepa_collective::Collective;
use vjepa_runtime::plan::{DeviceParams, HostTensor};

/// Floats that travel together: few enough to be copied beside the model, many enough that waiting for the other ranks does
/// not count. 16 MiB.
const BUCKET: usize = 1 << 22;

/// Adds `more` to the sums of the same names.
pub(super) fn add(sums: &mut Named, more: &Named) {
    for (name, sum) in sums {
        if let (HostTensor::F32 { data, .. }, Some(more)) = (sum, more.get(name)) {
            data.iter_mut().zip(more.floats()).for_each(|(sum, more)| *sum += more);
        }
    }
}

/// Replaces the sums by those over all ranks.
///
/// # Errors
/// [`TrainError::Collective`]; [`TrainError::Unsupported`] for a device that lost them.
pub(super) fn reduce(
    params: &mut DeviceParams,
    sums: &[(String, Vec<usize>)],
    ranks: &dyn Collective,
) -> Result<(), TrainError> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let sizes = sums.iter().map(|(_, shape)| shape.iter().product());
    for members in buckets(sizes) {
        let members = &sums[members];
        let mut bucket: Vec<f32> = Vec::new();
        for (name, _) in members {
            let lost = || TrainError::Unsupported(format!("{} lost the gradients of `{name}`", params.device()));
            bucket.extend(params.get(name).ok_or_else(lost)?.1);
        }
        ranks.all_reduce(&mut bucket)?;
        let mut rest = bucket.as_slice();
        for (name, shape) in members {
            let Some((data, after)) = rest.split_at_checked(shape.iter().product()) else { break };
            rest = after;
            // The old sum goes first, so that one set is all there is.
            params.remove(name);
            params.set(name, HostTensor::F32 { shape: shape.clone(), data: data.to_vec() });
        }
    }
    Ok(())
}

/// Replaces sums on the host by those over all ranks times `share`.
///
/// # Errors
/// [`TrainError::Collective`].
pub(super) fn reduce_host(sums: &mut Named, share: f32, ranks: &dyn Collective) -> Result<(), TrainError> {
    for sum in sums.values_mut() {
        if let HostTensor::F32 { data, .. } = sum {
            ranks.all_reduce(data)?;
            if share != 1.0 {
                data.iter_mut().for_each(|value| *value *= share);
            }
        }
    }
    Ok(())
}

/// Neighbours that make up buckets: as many as fit, at least one.
fn buckets(sizes: impl Iterator<Item = usize>) -> Vec<std::ops::Range<usize>> {
    let mut buckets: Vec<std::ops::Range<usize>> = Vec::new();
    let mut held = 0;
    for (at, size) in sizes.enumerate() {
        match buckets.last_mut() {
            Some(last) if held + size <= BUCKET => (last.end, held) = (at + 1, held + size),
            _ => {
                buckets.push(at..at + 1);
                held = size;
            }
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sum_is_in_one_bucket() {
        assert!(buckets([].into_iter()).is_empty());
        assert_eq!(buckets([1, 2, 3].into_iter()).as_slice(), std::slice::from_ref(&(0..3)));
        assert_eq!(buckets([BUCKET, 1, BUCKET + 5, 7, 8].into_iter()), [0..1, 1..2, 2..3, 3..5]);
    }

    #[test]
    fn sums_on_the_host_are_added_by_name() {
        let one =
            |value: f32| Named::from([("grad/a".to_owned(), HostTensor::F32 { shape: vec![1], data: vec![value] })]);
        let mut sums = one(1.5);
        add(&mut sums, &one(2.0));
        assert_eq!(sums, one(3.5));
        reduce_host(&mut sums, 0.5, &vjepa_collective::Alone).unwrap();
        assert_eq!(sums, one(1.75));
    }
}
