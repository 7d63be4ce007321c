//! Decoding runs: packets in decoding order from a key frame to the last one wanted.

use std::collections::BTreeMap;

use super::packets::backend;
use super::start::From;
use super::{Clip, DecoderChoice};
use crate::backend::{Coded, Picture, Start};
use crate::error::Fault;
use crate::guard::contained;

/// A decoding run in progress: the decoder holds all references of samples before `next`.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) next: usize,
    /// Set while decoding the pictures around a key frame that is no clean start: those before it in presentation order
    /// lack their references and are left out.
    not_before: Option<i64>,
    /// The number of the last reference picture, where the bitstream numbers them.
    number: Option<u32>,
}

/// A fault and the sample whose decoding met it.
pub(super) struct Stop {
    pub(super) fault: Fault,
    pub(super) sample: usize,
}

impl Clip {
    /// Set the decoder up for a run from sample `start`.
    fn begin(&mut self, start: usize) -> Result<Run, Fault> {
        let kind = self.start_at(start)?;
        let nothing_before = start == self.first_key(start);
        let fill = kind == Start::Recovery || (kind != Start::Clean && nothing_before);
        contained(|| self.backend.reset(fill))?;
        self.order.clear();
        self.ahead.clear();
        self.out.clear();
        let leading = matches!(kind, Start::Recovery | Start::Intra | Start::Open);
        let not_before = if leading { Some(self.sample(start)?.pts) } else { None };
        Ok(Run { next: start, not_before, number: None })
    }

    /// Decode up to sample `target` and return its picture; pictures of `wanted` samples on the way are kept too.
    fn decode_to(&mut self, target: usize, wanted: &mut BTreeMap<usize, Option<Picture>>) -> Result<(), Stop> {
        let mut from = From::Usual;
        loop {
            let at_target = |fault| Stop { fault, sample: target };
            let start = self.start_for(target, from).map_err(at_target)?;
            let run = match self.run.take() {
                Some(run) if run.next <= target && run.next >= start && from == From::Usual => run,
                _ => self.begin(start).map_err(at_target)?,
            };
            let clean = matches!(self.start_at(start).map_err(at_target)?, Start::Clean | Start::Open);
            match self.decode_run(run, target, wanted) {
                Ok(()) => return Ok(()),
                Err(Stop { fault: Fault::Unsupported(_), .. }) if self.backend.fall_back() || self.replace() => {}
                Err(_) if !clean && from == From::Usual => from = From::Clean,
                Err(stop) => {
                    let nearest = self.start_for(target, From::Nearest).map_err(at_target)?;
                    if from == From::Nearest || nearest <= stop.sample {
                        return Err(stop);
                    }
                    from = From::Nearest;
                }
            }
        }
    }

    /// Change to FFmpeg's decoder, if that is allowed and possible.
    fn replace(&mut self) -> bool {
        if self.choice != DecoderChoice::PureFirst {
            return false;
        }
        self.choice = DecoderChoice::Ffmpeg;
        let first = self.keys.first().copied().unwrap_or(0);
        let made = self
            .packets
            .read(self.len, &self.track.samples, first, &mut self.packet)
            .and_then(|()| backend(&self.track, &self.packet, DecoderChoice::Ffmpeg));
        match made {
            Ok((backend, _)) => {
                (self.backend, self.run) = (backend, None);
                self.starts.clear();
                true
            }
            Err(_) => false,
        }
    }

    /// Decode up to all of `targets`, which ascend, in as few runs as possible.
    pub(super) fn decode_all(
        &mut self,
        targets: &[usize],
        wanted: &mut BTreeMap<usize, Option<Picture>>,
    ) -> Result<(), Stop> {
        let mut rest = targets;
        while let Some((&target, others)) = rest.split_first() {
            // A restart for an earlier target may have passed over this one already.
            if matches!(wanted.get(&target), Some(Some(_))) {
                rest = others;
                continue;
            }
            let mut last = target;
            let mut together = 1;
            for &next in others {
                let start = self.start_for(next, From::Usual);
                // Cheaper to go on than to start again.
                if !start.is_ok_and(|start| start <= last + 1) {
                    break;
                }
                (last, together) = (next, together + 1);
            }
            let at_target = |fault| Stop { fault, sample: target };
            let start = self.start_for(target, From::Usual).map_err(at_target)?;
            let run = match self.run.take() {
                Some(run) if self.ahead.contains_key(&target) || (run.next <= target && run.next >= start) => run,
                _ => self.begin(start).map_err(at_target)?,
            };
            let (group, after) = rest.split_at_checked(together).unwrap_or((rest, &[]));
            if self.decode_run(run, last, wanted).is_err() {
                // One by one, which finds other key frames to start from and the first frame that cannot be had.
                self.run = None;
                for &target in group {
                    if !matches!(wanted.get(&target), Some(Some(_))) {
                        self.decode_to(target, wanted)?;
                    }
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// Decode up to sample `last`; the pictures of `wanted` samples on the way are kept.
    fn decode_run(
        &mut self,
        mut run: Run,
        last: usize,
        wanted: &mut BTreeMap<usize, Option<Picture>>,
    ) -> Result<(), Stop> {
        let begin = run.next;
        // Pictures decoded ahead by the call before.
        let before: Vec<usize> = self.ahead.range(..=last).map(|(&sample, _)| sample).collect();
        for sample in before {
            // Those still inside the decoder come later.
            if let (Some(slot), Some(Some(picture))) = (wanted.get_mut(&sample), self.ahead.remove(&sample)) {
                *slot = Some(picture);
            }
        }
        for i in begin..=last {
            self.step(&mut run, i, begin, wanted, false)?;
        }
        let lacks = |wanted: &BTreeMap<usize, Option<Picture>>| {
            wanted.range(..=last).find(|(_, picture)| picture.is_none()).map(|(&sample, _)| sample)
        };
        let mut next = run.next.max(last + 1);
        if self.in_order {
            // The next call will want what follows: rather decode it now than start again then.
            let end = (last + 2 * self.backend.delay()).min(self.track.samples.len().saturating_sub(1));
            while next <= end && lacks(wanted).is_some() {
                self.ahead.insert(next, None);
                if self.step(&mut run, next, begin, wanted, true).is_err() {
                    self.ahead.clear();
                    break;
                }
                next += 1;
            }
        }
        let mut goes_on = true;
        if lacks(wanted).is_some() {
            let at = |fault| Stop { fault, sample: last };
            let (backend, out) = (&mut self.backend, &mut self.out);
            goes_on = contained(|| backend.finish(out)).map_err(at)?;
            self.deliver(wanted).map_err(at)?;
        }
        if let Some(sample) = lacks(wanted) {
            return Err(Stop { fault: Fault::corrupt("a packet without picture"), sample });
        }
        self.stopped = Some(last + 1);
        self.run = goes_on.then_some(Run { next, ..run });
        Ok(())
    }

    /// Decode sample `i` of a run that began with `begin`, unless nobody needs it.
    fn step(
        &mut self,
        run: &mut Run,
        i: usize,
        begin: usize,
        wanted: &mut BTreeMap<usize, Option<Picture>>,
        ahead: bool,
    ) -> Result<(), Stop> {
        let at = |fault| Stop { fault, sample: i };
        let sample = self.sample(i).map_err(at)?;
        if i > begin && sample.key {
            run.not_before = None;
        }
        let look = self.look(i).map_err(at)?;
        if let Some(number) = look.number {
            if number.misses_one(run.number) {
                return Err(at(Fault::corrupt(format!(
                    "a picture that it may depend on is missing (frame_num goes from {} to {})",
                    run.number.unwrap_or(0),
                    number.frame_num
                ))));
            }
            run.number = number.after(run.number);
        }
        // One that is here already, from a run before, may lack its references in this one.
        let asked = ahead || matches!(wanted.get(&i), Some(None));
        if (run.not_before.is_some_and(|pts| sample.pts < pts) || look.droppable) && !asked {
            return Ok(());
        }
        if look.clean_start {
            self.order.clear();
        }
        let (backend, out) = (&mut self.backend, &mut self.out);
        let packet = Coded { bytes: &self.packet, entry: sample.entry, sample: i, wanted: asked };
        contained(|| backend.decode(packet, out)).map_err(at)?;
        self.deliver(wanted).map_err(at)?;
        if look.number.is_some_and(|number| number.forgets) {
            self.order.clear();
        }
        Ok(())
    }

    /// Hand the pictures that came out to those who asked for them.
    fn deliver(&mut self, wanted: &mut BTreeMap<usize, Option<Picture>>) -> Result<(), Fault> {
        for (sample, picture) in std::mem::take(&mut self.out) {
            if let Some(order) = picture.order {
                let pts = self.sample(sample)?.pts;
                agree(&mut self.order, order, pts)?;
            }
            if let Some(slot) = wanted.get_mut(&sample) {
                slot.get_or_insert(picture);
            } else if let Some(slot) = self.ahead.get_mut(&sample) {
                *slot = Some(picture);
            }
        }
        Ok(())
    }
}

/// Check that timestamps order pictures as the bitstream does; a garbled index would show frames in the wrong order.
fn agree(seen: &mut BTreeMap<i32, i64>, order: i32, pts: i64) -> Result<(), Fault> {
    let before = seen.range(..order).next_back().is_none_or(|(_, &p)| p <= pts);
    let after = seen.range(order.saturating_add(1)..).next().is_none_or(|(_, &p)| pts <= p);
    if !(before && after) {
        return Err(Fault::corrupt("the timestamps contradict the order of the pictures"));
    }
    seen.insert(order, pts);
    // Reordering reaches back 16 pictures at most.
    if seen.len() > 64 {
        seen.pop_first();
    }
    Ok(())
}
