//! What an index of H.264 samples needs from the bitstream: the first picture that can be shown, and the order of display
//! where timestamps do not state it.
//!
//! Only headers are read, and only as many packets as the question takes: one for a clip that begins cleanly and whose
//! timestamps are in order.

use std::io::{Read, Seek, SeekFrom};

use crate::backend::Start;
use crate::error::Fault;
use crate::h264::{kind, units};
use crate::h264_params::{PocType, Sets};
use crate::h264_slice::Counter;
use crate::h264_survey::{FIELD, Survey, survey};
use crate::table::Sample;

/// Bytes of a packet read at first; its headers nearly always lie within.
const HEAD: u64 = 1024;

/// What was found out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Inspection {
    /// Each sample's place in display order, where timestamps do not say.
    pub places: Option<Vec<u32>>,
    /// Pictures at the start that cannot be decoded.
    pub left_out: usize,
}

/// Look into the samples: mark those that cannot be decoded as not visible, and find the display order if need be.
///
/// `entries` are the parameter sets of every sample entry. `complete` says that the container gives every sample a
/// timestamp of its own (an index may end early). With `wide`, coding tools that only FFmpeg knows are no fault.
pub(crate) fn inspect(
    file: &mut (impl Read + Seek),
    len: u64,
    length_size: usize,
    entries: &[&[Vec<u8>]],
    samples: &mut [Sample],
    complete: bool,
    wide: bool,
) -> Result<Inspection, Fault> {
    let mut reader = Reader::new(file, len, length_size, entries);
    reader.wide = wide;
    let Some(first) = samples.first().and_then(|sample| reader.survey(sample)).transpose()? else {
        return Ok(Inspection::default()); // Damaged: opening the decoder says how.
    };
    if !wide && reader.sets().all_sps().any(|sps| sps.bypass || sps.profile == 88) {
        // Tools that these profiles may use and no decoder here has: better named now than in the middle of training.
        for sample in samples.iter() {
            reader.survey(sample).transpose()?;
        }
    }
    let places = match wants_order(samples, &reader, complete) {
        Wanted::Nothing => None,
        wanted => reader.places(samples, wanted == Wanted::Ties),
    };
    let left_out = match first.start {
        Start::Clean => 0,
        _ => reader.hide(samples, places.as_deref())?,
    };
    Ok(Inspection { places, left_out })
}

#[derive(PartialEq)]
enum Wanted {
    Nothing,
    /// Equal timestamps only: the others are in order.
    Ties,
    Everything,
}

fn wants_order<F>(samples: &[Sample], reader: &Reader<F>, complete: bool) -> Wanted {
    let in_decoding_order = |sps: &crate::h264_params::Sps| {
        // Baseline has no pictures that are shown before one decoded earlier.
        sps.poc == PocType::Decoding || sps.reorder == Some(0) || sps.profile == 66
    };
    if reader.sets().all_sps().all(in_decoding_order) {
        return Wanted::Nothing;
    }
    let ascending = samples.iter().zip(samples.iter().skip(1)).all(|(a, b)| a.pts <= b.pts);
    if ascending || !complete {
        return Wanted::Everything;
    }
    let mut times: Vec<i64> = samples.iter().map(|s| s.pts).collect();
    times.sort_unstable();
    if times.windows(2).any(|w| matches!(w, [a, b] if a == b)) { Wanted::Ties } else { Wanted::Nothing }
}

struct Reader<'a, F> {
    file: &'a mut F,
    len: u64,
    length_size: usize,
    entries: Vec<Sets>,
    entry: usize,
    packet: Vec<u8>,
    /// What the pure-Rust decoders lack is no fault.
    wide: bool,
}

impl<'a, F: Read + Seek> Reader<'a, F> {
    fn new(file: &'a mut F, len: u64, length_size: usize, entries: &[&[Vec<u8>]]) -> Self {
        let sets = |units: &&[Vec<u8>]| {
            let mut sets = Sets::default();
            units.iter().for_each(|nal| sets.add(nal));
            sets
        };
        let entries = entries.iter().map(sets).collect();
        Reader { file, len, length_size, entries, entry: 0, packet: Vec::new(), wide: false }
    }

    /// Survey the packet of `sample`; `None` when it cannot be read or parsed.
    fn survey(&mut self, sample: &Sample) -> Option<Result<Survey, Fault>> {
        if sample.offset.saturating_add(u64::from(sample.size)) > self.len {
            return None;
        }
        self.entry = usize::from(sample.entry);
        for limit in [HEAD, u64::from(sample.size)] {
            let wanted = limit.min(u64::from(sample.size));
            self.packet.clear();
            self.file.seek(SeekFrom::Start(sample.offset)).ok()?;
            self.file.by_ref().take(wanted).read_to_end(&mut self.packet).ok()?;
            let whole = wanted == u64::from(sample.size);
            let (units, at_slice) = head_units(&self.packet, self.length_size, whole);
            if at_slice || whole {
                let sets = self.entries.get_mut(self.entry)?;
                units.iter().for_each(|nal| sets.add(nal));
                let survey = survey(units.into_iter(), sets);
                return match survey.unsupported {
                    // The other field may lie beyond what was read.
                    Some(FIELD) if !whole => continue,
                    Some(what) if !self.wide => Some(Err(Fault::Unsupported(what.into()))),
                    _ if survey.slices == 0 => None,
                    _ => Some(Ok(survey)),
                };
            }
        }
        None
    }

    /// Every sample's place in display order; `None` when headers are damaged, or timestamps say the same already.
    fn places(&mut self, samples: &[Sample], ties: bool) -> Option<Vec<u32>> {
        let mut counter = Counter::default();
        let mut keys = Vec::with_capacity(samples.len());
        let mut last = (0, 0);
        for (i, sample) in samples.iter().enumerate() {
            // What is cut off keeps its place behind the rest.
            if let Some(survey) = self.survey(sample) {
                let slice = survey.ok()?.first?;
                let (sps, _) = self.sets().of(slice.pps)?;
                last = counter.place(&slice, sps);
            }
            keys.push((if ties { sample.pts } else { 0 }, last, i));
        }
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&i| keys.get(i).copied());
        let by_time = {
            let mut by_time: Vec<usize> = (0..keys.len()).collect();
            by_time.sort_by_key(|&i| samples.get(i).map(|s| s.pts));
            by_time
        };
        if order == by_time {
            return None;
        }
        let mut places = vec![0; order.len()];
        for (place, i) in order.into_iter().enumerate() {
            if let Some(slot) = places.get_mut(i) {
                *slot = u32::try_from(place).ok()?;
            }
        }
        Some(places)
    }

    /// Hide what cannot be decoded in a clip that does not begin cleanly; returns how many pictures that is.
    fn hide(&mut self, samples: &mut [Sample], places: Option<&[u32]>) -> Result<usize, Fault> {
        let Some((start, shown_from)) = self.first_shown(samples) else {
            return Err(Fault::corrupt("it has no picture that decoding could start from"));
        };
        let place = |i: usize, sample: &Sample| match places.and_then(|places| places.get(i)) {
            Some(&place) => i64::from(place),
            None => sample.pts,
        };
        let first = samples.get(shown_from).map_or(0, |sample| place(shown_from, sample));
        let mut left_out = 0;
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.key = (sample.key && i > start) || i == start;
            if i < start || place(i, sample) < first {
                left_out += usize::from(sample.visible);
                sample.visible = false;
            }
        }
        Ok(left_out)
    }

    /// The sample that decoding starts from, and the first one shown.
    fn first_shown(&mut self, samples: &[Sample]) -> Option<(usize, usize)> {
        let mut gradual = None;
        for (i, sample) in samples.iter().enumerate() {
            // Where the first packet is read twice its parameter sets are the same: no harm.
            let survey = match self.survey(sample) {
                Some(Ok(survey)) => survey,
                _ => continue,
            };
            let number = survey.number;
            if let (Some((start, wanted)), Some(number)) = (gradual, number)
                && number.reference
                && number.frame_num == wanted
            {
                return Some((start, i));
            }
            match (survey.start, number) {
                (Start::Clean | Start::Recovery | Start::Intra, _) => return Some((i, i)),
                (Start::Gradual(pictures), Some(number)) if gradual.is_none() => {
                    gradual = Some((i, number.frame_num.wrapping_add(pictures) % number.modulus.max(1)));
                }
                _ => {}
            }
        }
        None
    }
}

impl<F> Reader<'_, F> {
    /// The parameter sets in force.
    fn sets(&self) -> &Sets {
        static NONE: std::sync::LazyLock<Sets> = std::sync::LazyLock::new(Sets::default);
        self.entries.get(self.entry).unwrap_or(&NONE)
    }
}

/// The units at the start of a packet up to its first slice, and whether that was reached; all of a `whole` packet. The
/// last may be incomplete.
fn head_units(bytes: &[u8], length_size: usize, whole: bool) -> (Vec<&[u8]>, bool) {
    let mut found = Vec::new();
    for nal in units(bytes, length_size) {
        found.push(nal);
        if !whole && matches!(kind(nal), 1..=5) {
            return (found, true);
        }
    }
    (found, false)
}
