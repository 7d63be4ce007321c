//! Expand the run-length tables of an mp4 (`stbl`, and `trun` of fragments) into one list of samples.
//!
//! Counts in the tables are the file's claim; nothing is allocated beyond what a file of this length can hold.

use re_mp4::{MoofBox, MvexBox, StblBox, TfhdBox, TrafBox, TrunBox};

use crate::error::Fault;
use crate::table::Sample;

/// A packet has at least one byte, so a file cannot hold more samples than bytes (a cut file held more before).
fn sample_limit(len: u64) -> usize {
    usize::try_from(len.clamp(4096, 1 << 26)).unwrap_or(1 << 26)
}

/// Samples of a plain (not fragmented) track.
pub(crate) struct SampleTable {
    pub samples: Vec<Sample>,
    /// Decoding time at their end.
    pub end: i64,
    /// Every sample has a timestamp of its own. Where the tables of times end early, players go on with the last step;
    /// what is shown when the file does not say then.
    pub complete: bool,
}

/// Expand the tables.
pub(crate) fn table_samples(stbl: &StblBox, len: u64) -> Result<SampleTable, Fault> {
    let stsz = &stbl.stsz;
    let count = if stsz.sample_size == 0 { stsz.sample_sizes.len() } else { stsz.sample_count as usize };
    if count > sample_limit(len) {
        return Err(Fault::corrupt(format!("its index promises {count} frames in {len} bytes")));
    }
    let mut samples = Vec::with_capacity(count);
    let mut offsets = chunk_offsets(stbl, count)?.into_iter();
    let mut durations = runs(stbl.stts.entries.iter().map(|e| (e.sample_count, i64::from(e.sample_delta))));
    let ctts = stbl.ctts.as_ref().map_or(&[][..], |c| &c.entries);
    let mut shifts = runs(ctts.iter().map(|e| (e.sample_count, i64::from(e.sample_offset))));
    // The delay between decoding and showing a picture that is not reordered.
    let delay = ctts.first().map_or(0, |e| i64::from(e.sample_offset));
    let step = stbl.stts.entries.last().map(|e| i64::from(e.sample_delta));
    let mut complete = true;
    let mut dts = 0i64;
    for i in 0..count {
        let size =
            if stsz.sample_size == 0 { stsz.sample_sizes.get(i).copied().unwrap_or(0) } else { stsz.sample_size };
        let Some(Place { start_of_chunk, chunk, entry }) = offsets.next() else {
            return Err(Fault::corrupt("its index has fewer chunks than frames"));
        };
        let offset = match samples.last() {
            Some(Sample { offset, size, .. }) if !start_of_chunk => offset.saturating_add(u64::from(*size)),
            _ => chunk,
        };
        let Some(duration) = durations.next().or(step) else {
            return Err(Fault::corrupt("its index has no timestamps"));
        };
        let shift = if ctts.is_empty() { Some(0) } else { shifts.next() };
        complete &= shift.is_some();
        let pts = dts + shift.unwrap_or(delay);
        samples.push(Sample { offset, size, pts, key: stbl.stss.is_none(), visible: true, entry });
        dts += duration;
    }
    for &number in stbl.stss.iter().flat_map(|s| &s.entries) {
        match (number as usize).checked_sub(1).and_then(|i| samples.get_mut(i)) {
            Some(sample) => sample.key = true,
            None => return Err(Fault::corrupt("its index names a key frame that does not exist")),
        }
    }
    Ok(SampleTable { samples, end: dts, complete })
}

/// Repeat each value as often as its run says.
fn runs(entries: impl Iterator<Item = (u32, i64)>) -> impl Iterator<Item = i64> {
    entries.flat_map(|(n, value)| std::iter::repeat_n(value, n as usize))
}

/// Where a sample is.
struct Place {
    start_of_chunk: bool,
    /// Where its chunk starts.
    chunk: u64,
    /// Its sample entry, counted from 0.
    entry: u16,
}

fn chunk_offsets(stbl: &StblBox, count: usize) -> Result<Vec<Place>, Fault> {
    let offsets: Vec<u64> = match (&stbl.stco, &stbl.co64) {
        (Some(stco), _) => stco.entries.iter().map(|&o| u64::from(o)).collect(),
        (None, Some(co64)) => co64.entries.clone(),
        (None, None) => Vec::new(),
    };
    let mut of_sample = Vec::with_capacity(count);
    let entries = &stbl.stsc.entries;
    for (i, entry) in entries.iter().enumerate() {
        let first = (entry.first_chunk as usize).saturating_sub(1);
        let end = entries.get(i + 1).map_or(offsets.len(), |next| (next.first_chunk as usize).saturating_sub(1));
        let Some(chunks) = offsets.get(first..end) else {
            return Err(Fault::corrupt("its index maps frames to chunks that do not exist"));
        };
        let described = entry_number(entry.sample_description_index);
        for &chunk in chunks {
            let left = count - of_sample.len();
            let n = left.min(entry.samples_per_chunk as usize);
            of_sample.extend((0..n).map(|k| Place { start_of_chunk: k == 0, chunk, entry: described }));
        }
    }
    Ok(of_sample)
}

/// Sample entries are counted from 1 in files; 0, which is not valid, is taken for the first.
fn entry_number(index: u32) -> u16 {
    u16::try_from(index.saturating_sub(1)).unwrap_or(u16::MAX)
}

/// Append the samples of `track` found in fragments; returns the decoding time at the end.
pub(crate) fn fragment_samples(
    samples: &mut Vec<Sample>,
    mut dts: i64,
    track: u32,
    mvex: Option<&MvexBox>,
    moofs: &[(u64, MoofBox)],
    len: u64,
) -> Result<i64, Fault> {
    let trex = mvex.and_then(|m| m.trexs.iter().find(|t| t.track_id == track));
    let described = trex.map_or(1, |t| t.default_sample_description_index);
    let (duration, size, flags) =
        trex.map_or((0, 0, 0), |t| (t.default_sample_duration, t.default_sample_size, t.default_sample_flags));
    for (moof_start, moof) in moofs {
        let mut data_end = *moof_start;
        for (i, traf) in moof.trafs.iter().enumerate() {
            let tfhd = &traf.tfhd;
            let defaults = Defaults {
                duration: tfhd.default_sample_duration.unwrap_or(duration),
                size: tfhd.default_sample_size.unwrap_or(size),
                flags: tfhd.default_sample_flags.unwrap_or(flags),
                entry: entry_number(tfhd.sample_description_index.unwrap_or(described)),
            };
            let from_moof = i == 0 || tfhd.flags & TfhdBox::FLAG_DEFAULT_BASE_IS_MOOF != 0;
            let base = tfhd.base_data_offset.unwrap_or(if from_moof { *moof_start } else { data_end });
            if tfhd.track_id == track {
                if let Some(tfdt) = &traf.tfdt {
                    dts = i64::try_from(tfdt.base_media_decode_time)
                        .map_err(|_| Fault::corrupt("a fragment with an impossible timestamp"))?;
                }
                (data_end, dts) = run_samples(traf, base, dts, defaults, len, |s| samples.push(s))?;
            } else {
                (data_end, _) = run_samples(traf, base, 0, defaults, len, |_| {})?;
            }
            if samples.len() > sample_limit(len) {
                return Err(Fault::corrupt("its fragments promise more frames than the file has bytes"));
            }
        }
    }
    Ok(dts)
}

#[derive(Clone, Copy)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
    entry: u16,
}

/// Walk the runs of one track fragment; returns where its data ends and the decoding time there.
fn run_samples(
    traf: &TrafBox,
    base: u64,
    mut dts: i64,
    defaults: Defaults,
    len: u64,
    mut push: impl FnMut(Sample),
) -> Result<(u64, i64), Fault> {
    let bad = || Fault::corrupt("a fragment points outside the file");
    let mut at = base;
    for trun in &traf.truns {
        if trun.sample_count as usize > sample_limit(len) {
            return Err(Fault::corrupt("a fragment promises more frames than the file has bytes"));
        }
        if trun.flags & TrunBox::FLAG_DATA_OFFSET != 0 {
            at = base.checked_add_signed(i64::from(trun.data_offset.unwrap_or(0))).ok_or_else(bad)?;
        }
        for i in 0..trun.sample_count as usize {
            let size = trun.sample_sizes.get(i).copied().unwrap_or(defaults.size);
            let first = if i == 0 { trun.first_sample_flags } else { None };
            let flags = trun.sample_flags.get(i).copied().or(first).unwrap_or(defaults.flags);
            // Version 0 declares offsets unsigned, but writers store negative ones in it all the same.
            let shift = i64::from(trun.sample_cts.get(i).copied().unwrap_or(0) as i32);
            // Bit 16 is sample_is_non_sync_sample (ISO/IEC 14496-12, 8.8.3.1).
            let key = flags >> 16 & 1 == 0;
            let (pts, entry) = (dts.saturating_add(shift), defaults.entry);
            push(Sample { offset: at, size, pts, key, visible: true, entry });
            at = at.checked_add(u64::from(size)).ok_or_else(bad)?;
            dts = dts.saturating_add(i64::from(trun.sample_durations.get(i).copied().unwrap_or(defaults.duration)));
        }
    }
    Ok((at, dts))
}
