//! A container that libavformat reads, through a reader of ours.

use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ptr::{NonNull, null, null_mut};

use super::{Spec, codec_name, fault, no_memory, quiet};
use crate::error::Fault;
use ffmpeg_sys_next as av;

/// The file that a container is read from. Reads are counted: a demuxer that runs in circles comes to an end.
struct Reader {
    file: File,
    len: u64,
    at: u64,
    /// Bytes that may still be read.
    budget: u64,
}

unsafe extern "C" fn read(opaque: *mut c_void, buffer: *mut u8, size: c_int) -> c_int {
    // SAFETY: `opaque` is the boxed reader of `Container::open`, which outlives the context; libavformat gives a buffer of
    // `size` bytes, of which as many are written as are returned. Nothing here unwinds.
    let (reader, buffer) =
        unsafe { (&mut *opaque.cast::<Reader>(), std::slice::from_raw_parts_mut(buffer, size.max(0) as usize)) };
    let take = (buffer.len() as u64).min(reader.budget) as usize;
    let Some(buffer) = buffer.get_mut(..take).filter(|b| !b.is_empty()) else { return av::AVERROR_EOF };
    match reader.file.read(buffer) {
        Ok(0) => av::AVERROR_EOF,
        Ok(n) => {
            reader.at += n as u64;
            // A call costs something too, or a loop of short reads would not end.
            reader.budget = reader.budget.saturating_sub(n as u64 + 64);
            n as c_int
        }
        Err(_) => av::AVERROR_EXTERNAL,
    }
}

unsafe extern "C" fn seek(opaque: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: as in `read`.
    let reader = unsafe { &mut *opaque.cast::<Reader>() };
    reader.budget = reader.budget.saturating_sub(64);
    let from = |base: u64| base.checked_add_signed(offset);
    let target = match whence & !av::AVSEEK_FORCE {
        av::AVSEEK_SIZE => return i64::try_from(reader.len).unwrap_or(i64::MAX),
        0 => from(0),
        1 => from(reader.at),
        2 => from(reader.len),
        _ => None,
    };
    match target.map(|at| reader.file.seek(SeekFrom::Start(at))) {
        Some(Ok(at)) => {
            reader.at = at;
            i64::try_from(at).unwrap_or(i64::MAX)
        }
        _ => c_int::from(-1i8).into(),
    }
}

/// A container opened for reading one of its video streams.
pub(crate) struct Container {
    context: NonNull<av::AVFormatContext>,
    io: NonNull<av::AVIOContext>,
    reader: NonNull<Reader>,
    packet: NonNull<av::AVPacket>,
    stream: c_int,
}

// SAFETY: everything is owned; libavformat ties a context to no thread, and `&mut self` keeps calls apart.
unsafe impl Send for Container {}

/// What a container says of its video stream.
pub(crate) struct Stream {
    pub spec: Spec,
    pub seconds_per_tick: f64,
    /// As [`Decoded::color`].
    pub color: (c_int, c_int),
}

/// One packet of the stream.
pub(crate) struct Packet<'a> {
    pub bytes: &'a [u8],
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub position: i64,
    pub key: bool,
    /// It ends early or was not received whole.
    pub corrupt: bool,
    /// Decoded where needed, never shown.
    pub hidden: bool,
}

/// Bytes that libavformat asks for at a time.
const BUFFER: usize = 1 << 16;

impl Container {
    /// Open `file` as `format` and no other, without following references to other files.
    pub(crate) fn open(file: File, len: u64, format: &CStr) -> Result<(Self, Stream), Fault> {
        quiet();
        // SAFETY: a lookup in static tables.
        let input = unsafe { av::av_find_input_format(format.as_ptr()) };
        if input.is_null() {
            return Err(Fault::Unsupported(format!(
                "in a container that this FFmpeg does not read ({})",
                format.to_string_lossy()
            )));
        }
        // Twice for the index and its headers, once for reading on, and some for opening.
        let reader = Box::new(Reader { file, len, at: 0, budget: 4 * len + (1 << 24) });
        let reader = NonNull::from(Box::leak(reader));
        // SAFETY: buffer and contexts come from the library's allocators; the reader is a leaked box, taken back in `Drop`
        // after the contexts are gone. On failure `avformat_open_input` frees the format context by itself but not the
        // I/O context, which is ours.
        let mut this = unsafe {
            let free = |reader: NonNull<Reader>| drop(Box::from_raw(reader.as_ptr()));
            let buffer = av::av_malloc(BUFFER).cast::<u8>();
            let io = av::avio_alloc_context(
                buffer,
                BUFFER as c_int,
                0,
                reader.as_ptr().cast(),
                Some(read),
                None,
                Some(seek),
            );
            let (Some(io), Some(packet)) = (NonNull::new(io), NonNull::new(av::av_packet_alloc())) else {
                free(reader);
                return Err(no_memory());
            };
            let mut context = av::avformat_alloc_context();
            if let Some(context) = context.as_mut() {
                context.pb = io.as_ptr();
                // Time stamps that follow from those of neighbours are filled in.
                context.flags |= av::AVFMT_FLAG_CUSTOM_IO | av::AVFMT_FLAG_GENPTS;
            }
            let opened = match context.is_null() {
                true => Err(no_memory()),
                false => match av::avformat_open_input(&mut context, null(), input, null_mut()) {
                    0 => NonNull::new(context).ok_or_else(no_memory),
                    error => Err(fault(error)),
                },
            };
            match opened {
                Ok(context) => Container { context, io, reader, packet, stream: -1 },
                Err(fault) => {
                    free_io(io, packet);
                    free(reader);
                    return Err(fault);
                }
            }
        };
        // SAFETY: the context is open.
        let found = unsafe { av::avformat_find_stream_info(this.context.as_ptr(), null_mut()) };
        if found < 0 {
            return Err(fault(found));
        }
        let stream = this.choose()?;
        Ok((this, stream))
    }

    /// The first video stream that is no cover picture and has a decoder; all others are left unread.
    fn choose(&mut self) -> Result<Stream, Fault> {
        // SAFETY: `streams` holds `nb_streams` pointers to streams that live as long as the context; it is null, which no slice
        // may be, where there is none.
        let streams = unsafe {
            let context = self.context.as_ref();
            match context.streams.is_null() {
                true => &mut [],
                false => std::slice::from_raw_parts_mut(context.streams, context.nb_streams as usize),
            }
        };
        let mut found: Option<Stream> = None;
        let mut without = None;
        for (index, stream) in streams.iter().enumerate() {
            // SAFETY: as above; `codecpar` is never null, and its extradata holds the bytes that it says.
            unsafe {
                let stream = &mut **stream;
                let parameters = &*stream.codecpar;
                let video = parameters.codec_type == av::AVMediaType::AVMEDIA_TYPE_VIDEO;
                let cover = stream.disposition & av::AV_DISPOSITION_ATTACHED_PIC as c_int != 0;
                let decodable = !av::avcodec_find_decoder(parameters.codec_id).is_null();
                if video && !decodable {
                    without = without.or(Some(parameters.codec_id));
                }
                if !video || cover || !decodable || found.is_some() {
                    stream.discard = av::AVDiscard::AVDISCARD_ALL;
                    continue;
                }
                self.stream = index as c_int;
                let extradata = match parameters.extradata.is_null() {
                    true => Vec::new(),
                    false => {
                        std::slice::from_raw_parts(parameters.extradata, parameters.extradata_size.max(0) as usize)
                            .to_vec()
                    }
                };
                let rate = stream.time_base;
                found = Some(Stream {
                    spec: Spec {
                        codec: parameters.codec_id,
                        tag: parameters.codec_tag,
                        extradata,
                        width: parameters.width.max(0) as usize,
                        height: parameters.height.max(0) as usize,
                        reorder: 16,
                    },
                    seconds_per_tick: if rate.den > 0 { f64::from(rate.num) / f64::from(rate.den) } else { 0.0 },
                    color: (
                        (&raw const parameters.color_space).cast::<c_int>().read(),
                        (&raw const parameters.color_range).cast::<c_int>().read(),
                    ),
                });
            }
        }
        found.ok_or_else(|| match without {
            Some(codec) => Fault::Unsupported(format!("{}, which this FFmpeg has no decoder for", codec_name(codec))),
            None => Fault::AudioOnly,
        })
    }

    /// Allow as many bytes again as opening did: one walk through the file is over.
    pub(crate) fn refill(&mut self) {
        // SAFETY: the reader belongs to this container; the library only touches it inside calls.
        let reader = unsafe { self.reader.as_mut() };
        reader.budget = 2 * reader.len + (1 << 24);
    }

    /// The next packet of the stream, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Packet<'_>>, Fault> {
        loop {
            // SAFETY: context and packet are owned; the packet is emptied before it is filled again.
            let result = unsafe {
                av::av_packet_unref(self.packet.as_ptr());
                av::av_read_frame(self.context.as_ptr(), self.packet.as_ptr())
            };
            match result {
                0 => {}
                av::AVERROR_EOF => return Ok(None),
                error => return Err(fault(error)),
            }
            // SAFETY: filled by the call above, and its data holds `size` bytes until the next call, which needs
            // `&mut self`.
            let packet = unsafe { self.packet.as_ref() };
            if packet.stream_index != self.stream || packet.size <= 0 || packet.data.is_null() {
                continue;
            }
            let known = |time: i64| (time != av::AV_NOPTS_VALUE).then_some(time);
            let has = |flag: c_int| packet.flags & flag != 0;
            return Ok(Some(Packet {
                // SAFETY: as above.
                bytes: unsafe { std::slice::from_raw_parts(packet.data, packet.size as usize) },
                pts: known(packet.pts),
                dts: known(packet.dts),
                position: packet.pos,
                key: has(av::AV_PKT_FLAG_KEY),
                corrupt: has(av::AV_PKT_FLAG_CORRUPT),
                hidden: has(av::AV_PKT_FLAG_DISCARD),
            }));
        }
    }

    /// Go to a packet near, and not after, the one with decoding time `dts` or at byte `position`.
    pub(crate) fn seek(&mut self, dts: i64, position: Option<i64>) -> bool {
        let (target, flags) = match position {
            Some(position) => (position, av::AVSEEK_FLAG_BYTE),
            None => (dts, av::AVSEEK_FLAG_BACKWARD),
        };
        // SAFETY: the context is open and the stream is one of its.
        unsafe { av::av_seek_frame(self.context.as_ptr(), self.stream, target, flags) >= 0 }
    }
}

/// Frees what libavformat leaves to whoever made it.
unsafe fn free_io(mut io: NonNull<av::AVIOContext>, packet: NonNull<av::AVPacket>) {
    // SAFETY: the caller gives up both; the buffer may have been replaced, so that the context's is the one to free.
    unsafe {
        av::av_free(io.as_mut().buffer.cast());
        av::avio_context_free(&mut io.as_ptr());
        av::av_packet_free(&mut packet.as_ptr());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // SAFETY: all made in `open` and freed only here; the format context goes first, for closing it may read.
        unsafe {
            av::avformat_close_input(&mut self.context.as_ptr());
            free_io(self.io, self.packet);
            drop(Box::from_raw(self.reader.as_ptr()));
        }
    }
}
