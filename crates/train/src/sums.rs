//! Sums of gradients over groups and ranks.

use super::TrainError;
use super::step_executor::Named;
use std::time::{Duration, Instant};
use vjepa_collective::{Collective, CollectiveError, OnDevice, Sum};
use vjepa_runtime::plan::{Device, DeviceParams, Exchange, HostTensor, Resident};

/// Values that travel together where a graph does not say it: few enough to be copied beside the model, many enough that
/// waiting for the other ranks does not count. 16 MiB.
const BUCKET: usize = 1 << 22;

/// How the sums of gradients travelled between ranks, over one step or several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Travel {
    /// Steps.
    pub steps: u64,
    /// Calls of the engine that connects the ranks.
    pub buckets: u64,
    /// Bytes of this rank's gradients.
    pub bytes: u64,
    /// How long the engine was at it, waiting for other ranks included.
    pub took: Duration,
    /// How long this rank waited for sums and computed nothing.
    pub waited: Duration,
}

impl Travel {
    /// The share of the sums' time, between 0 and 1, in which this rank went on computing; none where nothing was summed.
    pub fn hidden(&self) -> Option<f64> {
        let took = self.took.as_secs_f64();
        (took > 0.0).then(|| (1.0 - self.waited.as_secs_f64() / took).max(0.0))
    }
}

impl std::ops::AddAssign for Travel {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.buckets += other.buckets;
        self.bytes += other.bytes;
        self.took += other.took;
        self.waited += other.waited;
    }
}

/// The sums over ranks that a graph asks for.
pub(super) struct Travelling<'a> {
    ranks: &'a dyn Collective,
    begun: Vec<(usize, Sum)>,
    /// Those of floats that lie on the device, where the ranks' engine works on that device.
    begun_on: Vec<(usize, Sum)>,
    on_device: bool,
    pub(super) travel: Travel,
    /// Why the ranks cannot go on.
    pub(super) lost: Option<CollectiveError>,
}

impl<'a> Travelling<'a> {
    /// Of a run on `device`.
    pub(super) fn new(ranks: &'a dyn Collective, device: Device) -> Self {
        let on_device = ranks.sums_on_device().is_some_and(|gpu| device.to_string() == format!("cuda:{gpu}"));
        let travel = Travel { steps: 1, ..Travel::default() };
        Self { ranks, begun: Vec::new(), begun_on: Vec::new(), on_device, travel, lost: None }
    }
}

impl Exchange for Travelling<'_> {
    fn begin(&mut self, bucket: usize, values: Vec<f32>) -> Result<(), String> {
        self.travel.buckets += 1;
        self.travel.bytes += size_of_val(values.as_slice()) as u64;
        self.begun.push((bucket, self.ranks.begin_sum(values)));
        Ok(())
    }

    fn end(&mut self, bucket: usize) -> Result<Vec<f32>, String> {
        let begun = taken(&mut self.begun, bucket)?;
        self.ended(begun)
    }

    fn on_device(&self) -> bool {
        self.on_device
    }

    fn begin_on(&mut self, bucket: usize, floats: &[Resident]) -> Result<(), String> {
        self.travel.buckets += 1;
        self.travel.bytes += floats.iter().map(|floats| size_of::<f32>() as u64 * floats.count() as u64).sum::<u64>();
        let place = |floats: &Resident| {
            // SAFETY: a run keeps what it hands to `begin_on` where it is, untouched, until the bucket has ended. What a run that
            // fails gives back to the device's pool stays there, and nothing takes it before this is dropped, which waits. The
            // ranks' engine works on the device that the run is on, or `on_device` is false.
            #[allow(unsafe_code)]
            unsafe {
                OnDevice::new(floats.address(), floats.count())
            }
        };
        self.begun_on.push((bucket, self.ranks.begin_sum_on(floats.iter().map(place).collect())));
        Ok(())
    }

    fn end_on(&mut self, bucket: usize) -> Result<(), String> {
        let begun = taken(&mut self.begun_on, bucket)?;
        self.ended(begun).map(drop)
    }
}

/// Takes a sum that was begun.
fn taken(begun: &mut Vec<(usize, Sum)>, bucket: usize) -> Result<Sum, String> {
    let at = begun.iter().position(|(begun, _)| *begun == bucket);
    at.map(|at| begun.remove(at).1).ok_or_else(|| "a sum over ranks ends that was not begun".to_owned())
}

impl Drop for Travelling<'_> {
    /// Memory on the device is not handed on while ranks add to it.
    fn drop(&mut self) {
        for (_, sum) in self.begun_on.drain(..) {
            let _ = sum.wait();
        }
    }
}

impl Travelling<'_> {
    /// What came of a sum, once it is there; no values of what stayed on a device.
    fn ended(&mut self, sum: Sum) -> Result<Vec<f32>, String> {
        let asked = Instant::now();
        match sum.wait() {
            Ok(summed) => {
                self.travel.waited += asked.elapsed();
                self.travel.took += summed.took;
                Ok(summed.values)
            }
            Err(error) => {
                let why = error.to_string();
                self.lost = Some(error);
                Err(why)
            }
        }
    }
}

/// Adds `more` to the sums of the same names.
pub(super) fn add(sums: &mut Named, more: &Named) {
    for (name, sum) in sums {
        if let (HostTensor::F32 { data, .. }, Some(more)) = (sum, more.get(name)) {
            data.iter_mut().zip(more.floats()).for_each(|(sum, more)| *sum += more);
        }
    }
}

/// Replaces sums in parameters by those over all ranks, for steps whose graphs do not say where a sum ends: those of several
/// kinds of samples.
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
    for members in buckets(sums.iter().map(|(_, shape)| shape.iter().product())) {
        let members = sums.get(members).unwrap_or_default();
        let mut values: Vec<f32> = Vec::new();
        for (name, _) in members {
            let lost = || TrainError::Unsupported(format!("{} lost the gradients of `{name}`", params.device()));
            values.extend(params.get(name).ok_or_else(lost)?.1);
        }
        ranks.all_reduce(&mut values)?;
        let mut rest = values.as_slice();
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

/// Neighbours that make up buckets: as many as fit, at least one.
pub(super) fn buckets(sizes: impl Iterator<Item = usize>) -> Vec<std::ops::Range<usize>> {
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

/// Replaces sums on the host by those over all ranks times `share`.
///
/// # Errors
/// [`TrainError::Collective`].
pub(super) fn reduce_host(sums: &mut Named, share: f32, ranks: &dyn Collective) -> Result<(), TrainError> {
    for sum in sums.values_mut() {
        if let HostTensor::F32 { data, .. } = sum {
            if ranks.world() > 1 {
                ranks.all_reduce(data)?;
            }
            if share != 1.0 {
                data.iter_mut().for_each(|value| *value *= share);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_collective::Alone;

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
        reduce_host(&mut sums, 0.5, &Alone).unwrap();
        assert_eq!(sums, one(1.75));
    }

    #[test]
    fn sums_are_ended_by_their_bucket_in_any_order() {
        let mut sums = Travelling::new(&Alone, Device::CPU);
        sums.begin(7, vec![1.0]).unwrap();
        sums.begin(9, vec![2.0, 3.0]).unwrap();
        assert_eq!(sums.end(9).unwrap(), [2.0, 3.0]);
        assert_eq!(sums.end(7).unwrap(), [1.0]);
        assert!(sums.end(7).is_err());
        assert_eq!((sums.travel.buckets, sums.travel.bytes), (2, 12));
    }

    #[test]
    fn the_hidden_share_is_what_was_not_waited_for() {
        let travel = |took, waited| Travel {
            took: Duration::from_millis(took),
            waited: Duration::from_millis(waited),
            ..Travel::default()
        };
        assert_eq!(travel(0, 0).hidden(), None);
        assert_eq!(travel(8, 2).hidden(), Some(0.75));
        assert_eq!(travel(8, 9).hidden(), Some(0.0));
        let mut both = travel(8, 2);
        both += travel(2, 2);
        assert_eq!(both, travel(10, 4));
    }
}
