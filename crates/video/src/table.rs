//! The exact index of a clip: every coded sample in decoding order, and which of them are shown when.

use crate::error::Fault;
use crate::frame::{ColorMatrix, Orientation};

/// One coded packet, in decoding order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u32,
    /// Presentation time in ticks of the track.
    pub pts: i64,
    /// The container (or bitstream) says that decoding can start here.
    pub key: bool,
    /// The packet yields a picture that is shown (a VP9 packet may hold a hidden reference only).
    pub visible: bool,
    /// The sample entry that describes it: 0 for [`Track::setup`], others for [`Track::other_sets`].
    pub entry: u16,
}

/// One frame shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shown {
    /// Index into [`Track::samples`].
    pub sample: u32,
    /// Seconds.
    pub time: f64,
}

/// What the decoder needs besides packets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Setup {
    /// H.264: bytes per NAL length, then SPS and PPS units without start codes.
    H264 { length_size: usize, parameter_sets: Vec<Vec<u8>> },
    /// VP9 carries everything in the bitstream.
    Vp9,
    /// What only FFmpeg decodes.
    Other(Other),
}

/// A codec that only FFmpeg decodes, as the container describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Other {
    /// For people.
    pub name: String,
    /// Its four characters in mp4 (in AVI, with `riff`).
    pub tag: [u8; 4],
    pub riff: bool,
    /// What a decoder needs before the first packet, in the container's form.
    pub extradata: Vec<u8>,
    /// Width and height, where the container states them.
    pub size: (usize, usize),
}

/// Matrix and range of colours, as far as a container states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stated {
    pub matrix: Option<ColorMatrix>,
    pub full_range: Option<bool>,
}

impl Setup {
    /// What no decoder here does, as far as the container's description tells.
    pub(crate) fn unsupported(&self) -> Option<Fault> {
        match self {
            Setup::H264 { parameter_sets, .. } => crate::h264::unsupported(parameter_sets),
            Setup::Vp9 => None,
            Setup::Other(other) => Some(Fault::Unsupported(other.name.clone())),
        }
    }
}

/// The video track of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Track {
    pub setup: Setup,
    /// H.264 parameter sets of sample entries 1 and on.
    pub other_sets: Vec<Vec<Vec<u8>>>,
    pub orientation: Orientation,
    /// Colour from the container, which holds where the bitstream says nothing.
    pub color: Stated,
    pub samples: Vec<Sample>,
    pub shown: Vec<Shown>,
    /// Seconds, from zero to the end of the last frame.
    pub duration: f64,
    /// The container ends before it says it does.
    pub cut: bool,
    /// Frames behind the last were lost with the end of the file, and are not among the samples.
    pub lost_end: bool,
    /// Pictures at the start that cannot be decoded.
    pub left_out: usize,
}

/// A stretch of media time that is shown: an entry of an edit list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Edit {
    /// First tick shown; `None` is an empty edit, a pause before the next one.
    pub start: Option<i64>,
    /// Length in ticks; `None` runs to the end.
    pub length: Option<i64>,
}

/// Which samples are shown, in presentation order, when `edits` apply. No edits show everything from the first frame on.
///
/// Frames outside every edit are pre-roll or leftovers: decoded when needed, never shown.
pub(crate) fn shown_frames(samples: &[Sample], edits: &[Edit], seconds_per_tick: f64) -> Result<Vec<Shown>, Fault> {
    in_order(samples, None, edits, seconds_per_tick)
}

/// As [`shown_frames`], where `places` gives each sample's place in display order and timestamps do not: edits still
/// choose by timestamp, and the timestamps are given out in display order, here and in `samples`.
pub(crate) fn shown_in_order(
    samples: &mut [Sample],
    places: &[u32],
    edits: &[Edit],
    seconds_per_tick: f64,
) -> Result<Vec<Shown>, Fault> {
    let shown = in_order(samples, Some(places), edits, seconds_per_tick)?;
    retime(samples, places);
    Ok(shown)
}

fn in_order(
    samples: &[Sample],
    places: Option<&[u32]>,
    edits: &[Edit],
    seconds_per_tick: f64,
) -> Result<Vec<Shown>, Fault> {
    let place = |i: u32| places.and_then(|places| places.get(i as usize)).copied().unwrap_or(i);
    let mut order: Vec<u32> = (0..samples.len() as u32).filter(|&i| sample(samples, i).visible).collect();
    // Stable: equal timestamps (damaged files) keep decoding order.
    order.sort_by_key(|&i| sample(samples, i).pts);
    let whole = [Edit { start: order.first().map(|&i| sample(samples, i).pts), length: None }];
    let edits = if edits.is_empty() { &whole[..] } else { edits };
    let mut shown = Vec::with_capacity(order.len());
    let mut clock = 0i64;
    for edit in edits {
        if let Some(start) = edit.start {
            let end = edit.length.map(|l| start.saturating_add(l)).unwrap_or(i64::MAX);
            let first = order.partition_point(|&i| sample(samples, i).pts < start);
            let last = order.partition_point(|&i| sample(samples, i).pts < end);
            let chosen = order.get(first..last).unwrap_or(&[]);
            let mut displayed = chosen.to_vec();
            if places.is_some() {
                displayed.sort_by_key(|&i| place(i));
            }
            for (&i, &slot) in displayed.iter().zip(chosen) {
                let ticks = clock.saturating_add(sample(samples, slot).pts.saturating_sub(start));
                shown.push(Shown { sample: i, time: ticks as f64 * seconds_per_tick });
            }
        }
        // An edit list may repeat frames, but a small table must not multiply into a huge one.
        if shown.len() > 4096 + 16 * samples.len() {
            return Err(Fault::corrupt("the edit list repeats the clip too often"));
        }
        clock = clock.saturating_add(edit.length.unwrap_or(0).max(0));
    }
    Ok(shown)
}

/// Give the timestamps of `samples` out anew, so that they ascend in display order.
fn retime(samples: &mut [Sample], places: &[u32]) {
    let mut times: Vec<i64> = samples.iter().map(|s| s.pts).collect();
    times.sort_unstable();
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&i| places.get(i).copied().unwrap_or(u32::MAX));
    for (i, time) in order.into_iter().zip(times) {
        if let Some(sample) = samples.get_mut(i) {
            sample.pts = time;
        }
    }
}

fn sample(samples: &[Sample], i: u32) -> Sample {
    samples.get(i as usize).copied().unwrap_or(Sample {
        offset: 0,
        size: 0,
        pts: 0,
        key: false,
        visible: false,
        entry: 0,
    })
}

/// Average distance between the timestamps of neighbouring frames: the length given to the last frame where the
/// container does not say.
pub(crate) fn typical_step(shown: &[Shown]) -> f64 {
    match (shown.first(), shown.last()) {
        (Some(first), Some(last)) if shown.len() > 1 => (last.time - first.time) / (shown.len() - 1) as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pts: &[i64]) -> Vec<Sample> {
        pts.iter().map(|&pts| Sample { offset: 0, size: 1, pts, key: pts == 0, visible: true, entry: 0 }).collect()
    }

    fn order(shown: &[Shown]) -> Vec<(u32, f64)> {
        shown.iter().map(|s| (s.sample, s.time)).collect()
    }

    #[test]
    fn b_frames_are_sorted_by_presentation_time() {
        let shown = shown_frames(&samples(&[2, 8, 4, 6]), &[], 0.5).unwrap();
        assert_eq!(order(&shown), [(0, 0.0), (2, 1.0), (3, 2.0), (1, 3.0)]);
        assert_eq!(typical_step(&shown), 1.0);
    }

    #[test]
    fn edits_hide_pre_roll_pause_and_repeat() {
        let s = samples(&[0, 1, 2, 3]);
        let hide = [Edit { start: Some(2), length: Some(2) }];
        assert_eq!(order(&shown_frames(&s, &hide, 1.0).unwrap()), [(2, 0.0), (3, 1.0)]);
        let pause = [Edit { start: None, length: Some(5) }, Edit { start: Some(3), length: None }];
        assert_eq!(order(&shown_frames(&s, &pause, 1.0).unwrap()), [(3, 5.0)]);
        let twice = [Edit { start: Some(0), length: Some(1) }; 2];
        assert_eq!(order(&shown_frames(&s, &twice, 1.0).unwrap()), [(0, 0.0), (0, 1.0)]);
    }

    #[test]
    fn a_bomb_of_edits_is_refused() {
        let edits = vec![Edit { start: Some(0), length: None }; 100_000];
        assert!(shown_frames(&samples(&[0, 1, 2, 3]), &edits, 1.0).is_err());
    }
}
