//! Everything that the system's FFmpeg decodes (feature `ffmpeg`), behind the same trait and the same index as the pure-Rust
//! decoders.
//!
//! mp4 and Matroska keep the index that this crate reads from their tables: frame numbers, edit lists and what is left out
//! are the same whichever decoder runs. Other containers are demultiplexed by libavformat (`demux`). libavcodec decodes one
//! packet after the other on one thread; a picture carries the number of its packet through reordering.
//!
//! `sys` alone holds `unsafe` code.

mod demux;
mod inspect;
mod planes;
mod sys;
mod units;
mod vop;
mod write;

use std::collections::BTreeSet;

use ffmpeg_sys_next::AVCodecID as Id;

use crate::backend::{Backend, Coded, Look, Pictures, Start};
use crate::error::Fault;
use crate::h264::{kind, nals, sps_info};
use crate::h264_params::Sets;
use crate::info::Codec;
use crate::table::{Other, Sample, Setup, Track};
use crate::vp9;
use crate::vp9_check::Slots;

pub(crate) use demux::{Demuxed, Opened, open};
pub(crate) use inspect::inspect;
use units::{Units, between_start_codes, look_h264, look_hevc, with_start_codes};
pub(crate) use write::write;

/// Name and version of the library that decodes, as the system has it.
pub(crate) fn version() -> String {
    let version = sys::avcodec_version();
    format!("libavcodec {}.{}.{}", version >> 16, version >> 8 & 0xFF, version & 0xFF)
}

/// What is read of a packet before it is decoded.
enum Syntax {
    H264 {
        units: Units,
        entries: Vec<Vec<Vec<u8>>>,
        sets: Sets,
    },
    Hevc(Units),
    Vp9(Slots),
    /// Nothing: the container says where decoding can start.
    Opaque,
}

pub(crate) struct Ffmpeg {
    decoder: sys::Decoder,
    syntax: Syntax,
    size: (usize, usize),
    codec: Codec,
    /// Numbers of the pictures asked for that have not come out yet.
    awaited: BTreeSet<usize>,
    /// The entry whose parameter sets were fed last.
    entry: Option<u16>,
    delay: usize,
    packet: Vec<u8>,
}

impl Ffmpeg {
    /// A decoder for `track`; `first` is its first key packet.
    pub(crate) fn new(track: &Track, first: &[u8]) -> Result<Self, Fault> {
        let reorder = reorder(&track.samples);
        let spec = |codec, tag: [u8; 4], extradata: &[u8], (width, height): (usize, usize)| sys::Spec {
            codec,
            tag: u32::from_le_bytes(tag),
            extradata: extradata.to_vec(),
            width,
            height,
            reorder,
        };
        match &track.setup {
            Setup::H264 { length_size, parameter_sets } => {
                let inband = nals(first, *length_size)?;
                let sets: Vec<Vec<u8>> =
                    parameter_sets.iter().cloned().chain(inband.iter().map(|n| n.to_vec())).collect();
                let sets: Vec<Vec<u8>> = sets.into_iter().filter(|nal| matches!(kind(nal), 7 | 8 | 15)).collect();
                let Some(sps) = sets.iter().find(|nal| kind(nal) == 7) else {
                    return Err(Fault::corrupt("it has no H.264 sequence parameters"));
                };
                let info = sps_info(sps)?;
                let size = (info.width as usize, info.height as usize);
                let mut known = Sets::default();
                sets.iter().for_each(|nal| known.add(nal));
                let spec = spec(Id::AV_CODEC_ID_H264, [0; 4], &with_start_codes(&sets), (0, 0));
                let entries = std::iter::once(sets).chain(track.other_sets.iter().cloned()).collect();
                Self::with(spec, Syntax::H264 { units: Units::Prefixed(*length_size), entries, sets: known }, size)
            }
            Setup::Vp9 => {
                let size = vp9::size(first)?;
                Self::with(spec(Id::AV_CODEC_ID_VP9, [0; 4], &[], (0, 0)), Syntax::Vp9(Slots::default()), size)
            }
            Setup::Other(other) => {
                let codec = codec_of(other)?;
                let syntax = match codec {
                    // ISO/IEC 14496-15, 8.3.3.1: the size of lengths stands in the 22nd byte.
                    Id::AV_CODEC_ID_HEVC => Syntax::Hevc(match other.extradata.get(21) {
                        Some(bits) if other.extradata.first() == Some(&1) => Units::Prefixed(usize::from(bits & 3) + 1),
                        _ => Units::StartCodes,
                    }),
                    _ => Syntax::Opaque,
                };
                crate::backend::check_size(other.size.0, other.size.1)?;
                Self::with(spec(codec, other.tag, &other.extradata, other.size), syntax, other.size)
            }
        }
    }

    fn with(spec: sys::Spec, syntax: Syntax, size: (usize, usize)) -> Result<Self, Fault> {
        let decoder = sys::Decoder::open(&spec)?;
        let (codec, delay) = (named(spec.codec), spec.reorder.max(1));
        let (awaited, entry, packet) = (BTreeSet::new(), None, Vec::new());
        Ok(Ffmpeg { decoder, syntax, size, codec, awaited, entry, delay, packet })
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// Take out what is ready.
    fn receive(&mut self, out: &mut Pictures) -> Result<(), Fault> {
        while let Some(decoded) = self.decoder.receive()? {
            let Ok(sample) = usize::try_from(decoded.tag()) else { continue };
            if decoded.damaged() {
                // Others may refer to it.
                return Err(Fault::corrupt("a picture of which a part is missing"));
            }
            if self.awaited.remove(&sample) {
                out.push((sample, planes::picture(&decoded)?));
            }
        }
        Ok(())
    }
}

impl Backend for Ffmpeg {
    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn reset(&mut self, _fill: bool) -> Result<(), Fault> {
        self.decoder.flush();
        self.awaited.clear();
        self.entry = None;
        if let Syntax::Vp9(slots) = &mut self.syntax {
            *slots = Slots::default();
        }
        Ok(())
    }

    fn look(&self, packet: &[u8], entry: u16) -> Result<Look, Fault> {
        match &self.syntax {
            Syntax::H264 { units, entries, sets } => {
                let nals = match *units {
                    Units::Prefixed(size) => nals(packet, size)?,
                    Units::StartCodes => between_start_codes(packet).collect(),
                };
                look_h264(nals, sets_for(entries, entry, self.entry, sets).as_ref().unwrap_or(sets))
            }
            Syntax::Hevc(units) => Ok(look_hevc(packet, *units)),
            Syntax::Vp9(_) => vp9::look(packet, true),
            Syntax::Opaque => Ok(Look { clean_start: false, droppable: false, start: Start::Open, number: None }),
        }
    }

    fn decode(&mut self, packet: Coded<'_>, out: &mut Pictures) -> Result<(), Fault> {
        let Coded { bytes, entry, sample, wanted } = packet;
        if self.entry.is_none() && matches!(self.syntax, Syntax::H264 { .. }) {
            // Orders to forget pictures that were never there are no fault in a stream that is entered in the middle.
            let clean = self.look(bytes, entry).is_ok_and(|look| look.clean_start);
            self.decoder.strict(clean);
        }
        self.packet.clear();
        let bytes = match &mut self.syntax {
            Syntax::H264 { units, entries, sets } => {
                if self.entry != Some(entry) {
                    let own = entries.get(usize::from(entry)).map(Vec::as_slice).unwrap_or_default();
                    own.iter().for_each(|nal| sets.add(nal));
                    self.packet.extend(with_start_codes(own));
                }
                match *units {
                    Units::Prefixed(size) => {
                        for nal in nals(bytes, size)? {
                            sets.add(nal);
                            self.packet.extend_from_slice(&[0, 0, 0, 1]);
                            self.packet.extend_from_slice(nal);
                        }
                    }
                    Units::StartCodes => {
                        between_start_codes(bytes).for_each(|nal| sets.add(nal));
                        self.packet.extend_from_slice(bytes);
                    }
                }
                &self.packet
            }
            Syntax::Vp9(slots) => {
                vp9::check(bytes, slots)?;
                bytes
            }
            _ => bytes,
        };
        self.entry = Some(entry);
        if wanted {
            self.awaited.insert(sample);
        }
        self.decoder.send(bytes, i64::try_from(sample).unwrap_or(i64::MAX), !wanted)?;
        self.receive(out)
    }

    fn delay(&self) -> usize {
        self.delay
    }

    fn finish(&mut self, out: &mut Pictures) -> Result<bool, Fault> {
        self.decoder.end();
        self.receive(out)?;
        Ok(false)
    }

    fn fall_back(&mut self) -> bool {
        false
    }
}

/// The parameter sets that hold for a packet of `entry`, where they are not those in force.
fn sets_for(entries: &[Vec<Vec<u8>>], entry: u16, in_force: Option<u16>, sets: &Sets) -> Option<Sets> {
    if in_force.is_none_or(|known| known == entry) {
        return None;
    }
    let mut sets = sets.clone();
    entries.get(usize::from(entry))?.iter().for_each(|nal| sets.add(nal));
    Some(sets)
}

fn codec_of(other: &Other) -> Result<Id, Fault> {
    let known = match &other.tag {
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => Some(Id::AV_CODEC_ID_HEVC),
        b"av01" => Some(Id::AV_CODEC_ID_AV1),
        b"vp08" => Some(Id::AV_CODEC_ID_VP8),
        b"mp2v" => Some(Id::AV_CODEC_ID_MPEG2VIDEO),
        b"mp1v" => Some(Id::AV_CODEC_ID_MPEG1VIDEO),
        tag => sys::codec_of_tag(*tag, other.riff),
    };
    known.ok_or_else(|| Fault::Unsupported(other.name.clone()))
}

fn named(id: Id) -> Codec {
    Codec::Other(match id {
        Id::AV_CODEC_ID_H264 => return Codec::H264,
        Id::AV_CODEC_ID_VP9 => return Codec::Vp9,
        Id::AV_CODEC_ID_HEVC => "HEVC",
        Id::AV_CODEC_ID_AV1 => "AV1",
        Id::AV_CODEC_ID_VP8 => "VP8",
        Id::AV_CODEC_ID_MPEG4 => "MPEG-4 part 2",
        Id::AV_CODEC_ID_MPEG2VIDEO => "MPEG-2",
        Id::AV_CODEC_ID_MPEG1VIDEO => "MPEG-1",
        Id::AV_CODEC_ID_PRORES => "ProRes",
        Id::AV_CODEC_ID_MJPEG => "Motion JPEG",
        other => sys::codec_name(other),
    })
}

/// How many pictures are decoded before one that is shown earlier than they, at most.
fn reorder(samples: &[Sample]) -> usize {
    // Pictures not passed yet, by time: with 16 at most (what codecs allow), this is linear.
    let mut ahead: Vec<i64> = Vec::new();
    let mut most = 0;
    for sample in samples {
        let later = ahead.iter().filter(|&&pts| pts > sample.pts).count();
        most = most.max(later);
        ahead.push(sample.pts);
        if ahead.len() > 32 {
            ahead.remove(0);
        }
    }
    most.min(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reordering_is_counted() {
        let samples = |pts: &[i64]| -> Vec<Sample> {
            pts.iter().map(|&pts| Sample { offset: 0, size: 1, pts, key: false, visible: true, entry: 0 }).collect()
        };
        assert_eq!(reorder(&samples(&[0, 1, 2])), 0);
        assert_eq!(reorder(&samples(&[0, 4, 2, 1, 3, 8])), 2);
    }
}
