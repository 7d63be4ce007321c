//! mp4 and mov: find the boxes that matter, let `re_mp4` parse each in bounded memory, and describe the video track.
//!
//! The walk over top-level boxes is ours, so that a file cut off inside `mdat` still opens and `mdat` is never read here;
//! `re_mp4` only ever sees one `trak`, `mvex` or `moof` at a time.

use std::io::{Read, Seek, SeekFrom};

use re_mp4::{MoofBox, MvexBox, MvhdBox, ReadBox, TrakBox};

use crate::error::Fault;
use crate::frame::Orientation;
use crate::guard::{Budgeted, contained};
use crate::look::{SampleFile, index};
use crate::mp4_entries::{Common, Entry, common_setup, sample_entries};
use crate::mp4_samples::{SampleTable, fragment_samples, table_samples};
use crate::table::{Edit, Track, typical_step};

/// Index the video track of an mp4 or mov of `len` bytes.
pub(crate) fn read_track(file: &mut (impl Read + Seek), len: u64, wide: bool) -> Result<Track, Fault> {
    let top = walk_file(file, len)?;
    let Some(moov) = &top.moov else {
        return Err(if top.cut {
            Fault::Cut("the index (moov box) at its end is missing".into())
        } else {
            Fault::corrupt("it has no index (moov box)")
        });
    };
    let movie = parse_moov(moov)?;
    // The first decodable video track: cover pictures and other codecs may come before it. FFmpeg decodes them all, so
    // that single pictures come last there.
    let mut first = None;
    let single = |trak: &TrakBox| wide && trak.mdia.minf.stbl.stsz.sample_count == 1;
    let (pictures, films): (Vec<_>, Vec<_>) = movie.videos.iter().partition(|(trak, _)| single(trak));
    for (trak, entries) in films.into_iter().chain(pictures) {
        match contained(|| describe(file, (trak, entries), &movie, &top, len, wide)) {
            Err(fault @ Fault::Unsupported(_)) => first = first.or(Some(fault)),
            result => return result,
        }
    }
    Err(first.or(movie.fault).unwrap_or(Fault::AudioOnly))
}

struct TopLevel {
    /// The `moov` box with an 8-byte header.
    moov: Option<Vec<u8>>,
    moofs: Vec<(u64, MoofBox)>,
    cut: bool,
    /// It ends inside the description of a fragment, whose frames are in no table.
    lost_end: bool,
}

fn walk_file(file: &mut (impl Read + Seek), len: u64) -> Result<TopLevel, Fault> {
    let mut top = TopLevel { moov: None, moofs: Vec::new(), cut: false, lost_end: false };
    let mut at = 0u64;
    while at + 8 <= len {
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0u8; 8];
        file.read_exact(&mut head)?;
        let [s0, s1, s2, s3, name @ ..] = head;
        let (header, size) = match u32::from_be_bytes([s0, s1, s2, s3]) {
            // "To the end of the file": where that is, a cut file does not say.
            0 => {
                top.cut = true;
                (8, len - at)
            }
            1 => {
                let mut large = [0u8; 8];
                if file.read_exact(&mut large).is_err() {
                    top.cut = true;
                    break;
                }
                (16, u64::from_be_bytes(large))
            }
            small => (8, u64::from(small)),
        };
        if size < header {
            // Junk after the last box; what was found before it counts.
            break;
        }
        let whole = at.checked_add(size).is_some_and(|end| end <= len);
        if !whole {
            top.cut = true;
            top.lost_end = &name == b"moof";
        }
        if whole && (&name == b"moov" || &name == b"moof") {
            let bytes = boxed(file, &name, size - header)?;
            if &name == b"moof" {
                let moof = parse::<MoofBox>(&bytes)?;
                top.moofs.push((at, moof));
            } else {
                top.moov = Some(bytes);
            }
        }
        let Some(next) = at.checked_add(size) else { break };
        at = next;
    }
    Ok(top)
}

/// Read a payload and put an 8-byte header before it, whatever header the file had.
fn boxed(file: &mut impl Read, name: &[u8; 4], payload: u64) -> Result<Vec<u8>, Fault> {
    let size = u32::try_from(payload + 8).map_err(|_| Fault::corrupt("an index of more than 4 GiB"))?;
    let mut bytes = Vec::with_capacity(size as usize);
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(name);
    if file.take(payload).read_to_end(&mut bytes)? as u64 != payload {
        return Err(Fault::Cut("it ends inside its index".into()));
    }
    Ok(bytes)
}

/// Let `re_mp4` parse one box given with its 8-byte header.
fn parse<T>(bytes: &[u8]) -> Result<T, Fault>
where
    T: for<'a, 'b> ReadBox<&'a mut Budgeted<'b>>,
{
    contained(|| {
        let mut reader = Budgeted::new(bytes);
        reader.seek(SeekFrom::Start(8))?;
        T::read_box(&mut reader, bytes.len() as u64).map_err(|e| Fault::corrupt(format!("its index: {e}")))
    })
}

struct Movie {
    timescale: u32,
    /// The video tracks, and what their sample entries ask for.
    videos: Vec<(TrakBox, Vec<Entry>)>,
    mvex: Option<MvexBox>,
    /// Why a track could not be parsed; reported when no video track was found.
    fault: Option<Fault>,
}

fn parse_moov(moov: &[u8]) -> Result<Movie, Fault> {
    let mut movie = Movie { timescale: 0, videos: Vec::new(), mvex: None, fault: None };
    for (name, bytes) in children(moov.get(8..).unwrap_or(&[])) {
        let bytes = bytes?;
        match &name {
            b"mvhd" => movie.timescale = parse::<MvhdBox>(bytes)?.timescale,
            b"mvex" => movie.mvex = Some(parse::<MvexBox>(bytes)?),
            b"trak" => match parse::<TrakBox>(bytes) {
                Ok(trak) if &trak.mdia.hdlr.handler_type.value == b"vide" => {
                    movie.videos.push((trak, sample_entries(bytes)));
                }
                Ok(_) => {}
                Err(fault) => movie.fault = Some(fault),
            },
            _ => {}
        }
    }
    Ok(movie)
}

type Child<'a> = ([u8; 4], Result<&'a [u8], Fault>);

/// The boxes inside a payload, each with its 8-byte header; a bad size ends the walk with an error.
pub(crate) fn children(mut payload: &[u8]) -> impl Iterator<Item = Child<'_>> {
    std::iter::from_fn(move || {
        let &[s0, s1, s2, s3, n0, n1, n2, n3, ..] = payload else { return None };
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
        let name = [n0, n1, n2, n3];
        match payload.split_at_checked(size) {
            Some((child, rest)) if size >= 8 => {
                payload = rest;
                Some((name, Ok(child)))
            }
            _ => {
                payload = &[];
                Some((name, Err(Fault::corrupt("its index holds a box of impossible size"))))
            }
        }
    })
}

fn describe(
    file: &mut (impl Read + Seek),
    (trak, entries): (&TrakBox, &[Entry]),
    movie: &Movie,
    top: &TopLevel,
    len: u64,
    wide: bool,
) -> Result<Track, Fault> {
    let cut = top.cut;
    let timescale = trak.mdia.mdhd.timescale;
    if timescale == 0 {
        return Err(Fault::corrupt("its clock has no rate (mdhd timescale 0)"));
    }
    let SampleTable { mut samples, end: table_end, complete } = table_samples(&trak.mdia.minf.stbl, len)?;
    let fragments_from = samples.len();
    let end = fragment_samples(&mut samples, table_end, trak.tkhd.track_id, movie.mvex.as_ref(), &top.moofs, len)?;
    let fragmented = samples.len() > fragments_from;
    if samples.is_empty() {
        return Err(if cut {
            Fault::Cut("no frame of it is left".into())
        } else {
            Fault::corrupt("its video track has no frames")
        });
    }
    // "Nothing changed", as some recorders write it: players show the frame before on.
    samples.retain(|sample| sample.size > 0);
    let Common { setup, other_sets, color } = common_setup(entries, &mut samples)?;
    if let Some(fault) = setup.unsupported().filter(|_| !wide) {
        return Err(fault);
    }
    let seconds_per_tick = 1.0 / f64::from(timescale);
    let edits = edits(trak, movie.timescale, fragmented);
    let source = SampleFile { file, len, seconds_per_tick, complete, wide };
    let (shown, left_out) = index(source, &setup, &other_sets, &mut samples, &edits)?;
    // The last frame lasts as long as the others; an only frame until the media ends.
    let last = shown.last().map_or(0.0, |s| s.time);
    let tail = match shown.as_slice() {
        [only] => match samples.get(only.sample as usize) {
            Some(s) => end.saturating_sub(s.pts).max(0) as f64 * seconds_per_tick,
            None => 0.0,
        },
        _ => typical_step(&shown),
    };
    let m = &trak.tkhd.matrix;
    let orientation = Orientation::from_matrix(m.a, m.b, m.c, m.d);
    let duration = last + tail;
    Ok(Track { setup, other_sets, orientation, color, samples, shown, duration, cut, lost_end: top.lost_end, left_out })
}

fn edits(trak: &TrakBox, movie_timescale: u32, fragmented: bool) -> Vec<Edit> {
    let Some(elst) = trak.edts.as_ref().and_then(|e| e.elst.as_ref()) else { return Vec::new() };
    let timescale = i128::from(trak.mdia.mdhd.timescale);
    let last = elst.entries.len().saturating_sub(1);
    let entries = elst.entries.iter().enumerate();
    let edits = entries.map(|(i, entry)| {
        let empty = if elst.version == 1 { u64::MAX } else { u64::from(u32::MAX) };
        let ticks = match i128::from(movie_timescale) {
            0 => 0,
            rate => (i128::from(entry.segment_duration) * timescale + rate / 2) / rate,
        };
        // A muxer that writes fragments does not know the length yet when it writes the edit.
        let open_ended = ticks == 0 || (fragmented && i == last);
        let start = (entry.media_time != empty).then(|| i64::try_from(entry.media_time).unwrap_or(i64::MAX));
        let length = (start.is_none() || !open_ended).then(|| i64::try_from(ticks).unwrap_or(i64::MAX));
        Edit { start, length }
    });
    edits.collect()
}
