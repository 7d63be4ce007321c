//! The only place that calls libavcodec and libavformat: owners of their objects, with safe methods.
//!
//! Every pointer kept here comes from an allocator of the libraries, is checked once, belongs to one owner and is freed by
//! its `Drop`. Nothing the libraries own is lent out beyond the borrow of its owner.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Once;

use crate::error::Fault;
use ffmpeg_sys_next as av;

/// What a decoder is told before the first packet.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub codec: av::AVCodecID,
    /// Four characters by which the container names the codec; some decoders tell dialects apart by it.
    pub tag: u32,
    pub extradata: Vec<u8>,
    pub width: usize,
    pub height: usize,
    /// How many pictures are decoded before one that is shown earlier, at most.
    pub reorder: usize,
}

/// The libraries write to stderr by themselves; what they report comes back as errors here.
fn quiet() {
    static ONCE: Once = Once::new();
    // SAFETY: sets one atomic number.
    ONCE.call_once(|| unsafe { av::av_log_set_level(av::AV_LOG_QUIET) });
}

/// What an error number means, in the library's words.
fn words(error: c_int) -> String {
    let mut text = [0u8; 128];
    // SAFETY: the length is that of the buffer, which the function ends with a zero byte within it.
    unsafe { av::av_strerror(error, text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text).map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

fn fault(error: c_int) -> Fault {
    match error {
        av::AVERROR_PATCHWELCOME => Fault::Unsupported("a coding tool that FFmpeg does not decode".into()),
        _ => Fault::corrupt(format!("FFmpeg: {}", words(error))),
    }
}

fn no_memory() -> Fault {
    Fault::Io("out of memory".into())
}

/// The codec that mp4 or AVI means by four characters.
pub(super) fn codec_of_tag(tag: [u8; 4], riff: bool) -> Option<av::AVCodecID> {
    // SAFETY: static tables, and a list of them that ends with a null pointer, as the function asks.
    let id = unsafe {
        let table = if riff { av::avformat_get_riff_video_tags() } else { av::avformat_get_mov_video_tags() };
        av::av_codec_get_id([table, null()].as_ptr(), u32::from_le_bytes(tag))
    };
    (id != av::AVCodecID::AV_CODEC_ID_NONE).then_some(id)
}

/// The short name of a codec, e.g. `mpeg4`.
pub(super) fn codec_name(id: av::AVCodecID) -> &'static str {
    // SAFETY: returns a static string for any id.
    unsafe { CStr::from_ptr(av::avcodec_get_name(id)) }.to_str().unwrap_or("unknown")
}

/// An opened decoder on one thread.
pub(super) struct Decoder {
    context: NonNull<av::AVCodecContext>,
    packet: NonNull<av::AVPacket>,
    frame: NonNull<av::AVFrame>,
    layout: Option<(c_int, Layout)>,
}

// SAFETY: the three objects are owned, and libavcodec ties a context to no thread; `&mut self` keeps calls apart.
unsafe impl Send for Decoder {}

impl Decoder {
    pub(super) fn open(spec: &Spec) -> Result<Self, Fault> {
        quiet();
        // SAFETY: a lookup in static tables.
        let codec = unsafe { av::avcodec_find_decoder(spec.codec) };
        if codec.is_null() {
            return Err(Fault::Unsupported(format!(
                "{}, which this FFmpeg has no decoder for",
                codec_name(spec.codec)
            )));
        }
        // SAFETY: the allocators return null or an object of their type, which `Decoder` frees; with one of them
        // missing the others are freed by the `Drop` of what was made.
        let this = unsafe {
            let context = NonNull::new(av::avcodec_alloc_context3(codec)).ok_or_else(no_memory)?;
            let (packet, frame) = (NonNull::new(av::av_packet_alloc()), NonNull::new(av::av_frame_alloc()));
            let (Some(packet), Some(frame)) = (packet, frame) else {
                av::avcodec_free_context(&mut context.as_ptr());
                return Err(no_memory());
            };
            Decoder { context, packet, frame, layout: None }
        };
        // SAFETY: the context is owned and not opened yet, which is when these fields may be set; extradata lies in
        // memory of `av_mallocz` with the padding asked for, and the context frees it.
        unsafe {
            let context = &mut *this.context.as_ptr();
            context.thread_count = 1;
            context.codec_tag = spec.tag;
            context.width = spec.width as c_int;
            context.height = spec.height as c_int;
            context.has_b_frames = spec.reorder.min(16) as c_int;
            context.max_pixels = crate::MAX_AREA as i64;
            // Which pictures are shown is known from the index; the decoder's own guesses would hide some.
            context.flags |= av::AV_CODEC_FLAG_OUTPUT_CORRUPT as c_int;
            context.flags2 |= av::AV_CODEC_FLAG2_SHOW_ALL as c_int;
            // A damaged picture is an error, not one made up from its neighbours.
            context.err_recognition = av::AV_EF_EXPLODE as c_int;
            if !spec.extradata.is_empty() {
                let padded = spec.extradata.len() + av::AV_INPUT_BUFFER_PADDING_SIZE as usize;
                let buffer = av::av_mallocz(padded).cast::<u8>();
                if buffer.is_null() {
                    return Err(no_memory());
                }
                std::ptr::copy_nonoverlapping(spec.extradata.as_ptr(), buffer, spec.extradata.len());
                context.extradata = buffer;
                context.extradata_size = spec.extradata.len() as c_int;
            }
            match av::avcodec_open2(context, codec, null_mut()) {
                0 => Ok(this),
                error => Err(fault(error)),
            }
        }
    }

    /// Hands over one packet whose picture will carry `tag`. With `skip`, a picture that nothing refers to may be left
    /// out.
    pub(super) fn send(&mut self, bytes: &[u8], tag: i64, skip: bool) -> Result<(), Fault> {
        let size = c_int::try_from(bytes.len()).map_err(|_| Fault::corrupt("a packet of more than 2 GiB"))?;
        // SAFETY: `av_new_packet` gives the packet a buffer of `size` bytes and the padding; after that it is written
        // once and lent to the decoder, which takes references of its own.
        let result = unsafe {
            let packet = self.packet.as_ptr();
            if av::av_new_packet(packet, size) != 0 {
                return Err(no_memory());
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (*packet).data, bytes.len());
            ((*packet).pts, (*packet).dts) = (tag, tag);
            (*self.context.as_ptr()).skip_frame =
                if skip { av::AVDiscard::AVDISCARD_NONREF } else { av::AVDiscard::AVDISCARD_DEFAULT };
            let result = av::avcodec_send_packet(self.context.as_ptr(), packet);
            av::av_packet_unref(packet);
            result
        };
        if result == 0 { Ok(()) } else { Err(fault(result)) }
    }

    /// Says that no packet follows: pictures held back come out.
    pub(super) fn end(&mut self) {
        // SAFETY: a null packet is how the end is told; a second one is answered with an error that changes nothing.
        unsafe { av::avcodec_send_packet(self.context.as_ptr(), null()) };
    }

    /// Whether what is missing or damaged is an error at once, or only marks the picture as [`Decoded::damaged`].
    pub(super) fn strict(&mut self, strict: bool) {
        let flags = if strict { av::AV_EF_EXPLODE as c_int } else { 0 };
        // SAFETY: the context is owned, and the field may be set at any time between calls.
        unsafe { (*self.context.as_ptr()).err_recognition = flags };
    }

    /// Forgets all references and pictures.
    pub(super) fn flush(&mut self) {
        // SAFETY: the context is open.
        unsafe { av::avcodec_flush_buffers(self.context.as_ptr()) }
    }

    /// The next picture, if one is ready.
    pub(super) fn receive(&mut self) -> Result<Option<Decoded<'_>>, Fault> {
        // SAFETY: context and frame are owned; the frame is emptied by the call before it is filled.
        match unsafe { av::avcodec_receive_frame(self.context.as_ptr(), self.frame.as_ptr()) } {
            0 => {}
            error if error == av::AVERROR(EAGAIN) || error == av::AVERROR_EOF => return Ok(None),
            error => return Err(fault(error)),
        }
        // SAFETY: filled by the call above.
        let format = unsafe { (*self.frame.as_ptr()).format };
        let layout = match &self.layout {
            Some((known, layout)) if *known == format => layout.clone(),
            _ => {
                let layout = Layout::of(format)?;
                self.layout = Some((format, layout.clone()));
                layout
            }
        };
        Ok(Some(Decoded { frame: self.frame.as_ptr(), layout, owner: std::marker::PhantomData }))
    }
}

/// `EAGAIN` is 11 on Linux and Windows, 35 on macOS and the BSDs.
const EAGAIN: c_int = if cfg!(any(target_os = "linux", target_os = "android", windows)) { 11 } else { 35 };

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: allocated in `open`, freed only here.
        unsafe {
            av::av_frame_free(&mut self.frame.as_ptr());
            av::av_packet_free(&mut self.packet.as_ptr());
            av::avcodec_free_context(&mut self.context.as_ptr());
        }
    }
}

/// How the samples of one component lie in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Component {
    pub plane: usize,
    /// Bytes from one sample to the next.
    pub step: usize,
    /// Bytes before the first.
    pub offset: usize,
    /// Bits below the value.
    pub shift: u32,
    pub depth: u32,
}

/// A pixel format, as far as reading it takes.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub name: String,
    /// One (grey), or luma, blue and red difference, or red, green and blue.
    pub components: Vec<Component>,
    pub rgb: bool,
    /// Bytes of a palette index; colours stand in the second plane.
    pub palette: bool,
    pub big_endian: bool,
    pub chroma_shift: (u32, u32),
}

impl Layout {
    fn of(format: c_int) -> Result<Self, Fault> {
        // SAFETY: walks a static table from its begin (null) to its end (null); ids are compared as numbers, since a
        // format newer than the bindings has no name there.
        let descriptor = unsafe {
            let mut descriptor = av::av_pix_fmt_desc_next(null());
            while !descriptor.is_null() && av::av_pix_fmt_desc_get_id(descriptor) as c_int != format {
                descriptor = av::av_pix_fmt_desc_next(descriptor);
            }
            descriptor.as_ref()
        };
        let Some(d) = descriptor else { return Err(Fault::Unsupported("an unknown pixel format".into())) };
        // SAFETY: static and ended by a zero byte.
        let name = unsafe { CStr::from_ptr(d.name) }.to_string_lossy().into_owned();
        let has = |flag: c_int| d.flags & flag as u64 != 0;
        let strange = av::AV_PIX_FMT_FLAG_BITSTREAM
            | av::AV_PIX_FMT_FLAG_HWACCEL
            | av::AV_PIX_FMT_FLAG_BAYER
            | av::AV_PIX_FMT_FLAG_FLOAT;
        if has(strange) {
            return Err(Fault::Unsupported(format!("pictures in the pixel format {name}")));
        }
        let colours = if d.nb_components < 3 { 1 } else { 3 };
        let components = d.comp.iter().take(colours).map(|c| Component {
            plane: c.plane as usize,
            step: c.step as usize,
            offset: c.offset as usize,
            shift: c.shift as u32,
            depth: c.depth as u32,
        });
        Ok(Layout {
            components: components.collect(),
            rgb: has(av::AV_PIX_FMT_FLAG_RGB),
            palette: has(av::AV_PIX_FMT_FLAG_PAL),
            big_endian: has(av::AV_PIX_FMT_FLAG_BE),
            chroma_shift: (u32::from(d.log2_chroma_w), u32::from(d.log2_chroma_h)),
            name,
        })
    }
}

/// A picture that the decoder owns.
pub(super) struct Decoded<'a> {
    frame: *const av::AVFrame,
    pub layout: Layout,
    owner: std::marker::PhantomData<&'a Decoder>,
}

impl Decoded<'_> {
    fn frame(&self) -> &av::AVFrame {
        // SAFETY: the decoder's frame, which stays filled while `self` borrows the decoder.
        unsafe { &*self.frame }
    }

    /// The tag of its packet.
    pub(super) fn tag(&self) -> i64 {
        self.frame().pts
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.frame().width.max(0) as usize, self.frame().height.max(0) as usize)
    }

    /// The decoder made up a part of it.
    pub(super) fn damaged(&self) -> bool {
        self.frame().decode_error_flags != 0
    }

    /// Matrix coefficients and range as numbers (H.273; 1 limited, 2 full, 0 unknown): values that the bindings have no
    /// name for must not become an enum.
    pub(super) fn color(&self) -> (c_int, c_int) {
        let frame = self.frame();
        // SAFETY: both are C enums, which are read as the integers that they are.
        unsafe {
            (
                (&raw const frame.colorspace).cast::<c_int>().read(),
                (&raw const frame.color_range).cast::<c_int>().read(),
            )
        }
    }

    /// Row `y` of `plane`, `bytes` long; `None` where there is no such row.
    pub(super) fn row(&self, plane: usize, y: usize, bytes: usize) -> Option<&[u8]> {
        let frame = self.frame();
        let (data, stride) = (*frame.data.get(plane)?, *frame.linesize.get(plane)?);
        let rows = frame.height.max(0) as usize;
        if data.is_null() || y >= rows || bytes > stride.unsigned_abs() as usize {
            return None;
        }
        // SAFETY: a plane holds `height` rows (fewer for chroma, which callers count by the layout) `linesize` apart,
        // each at least as long as its pixels, and `bytes` does not go beyond the line.
        unsafe { Some(std::slice::from_raw_parts(data.offset(y as isize * stride as isize), bytes)) }
    }

    /// The colours of a palette picture, blue, green, red, alpha each.
    pub(super) fn palette(&self) -> Option<&[u8]> {
        let data = self.frame().data[1];
        // SAFETY: pictures with a palette keep its 256 colours of 4 bytes there.
        (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data, 1024) })
    }
}

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
pub(super) struct Container {
    context: NonNull<av::AVFormatContext>,
    io: NonNull<av::AVIOContext>,
    reader: NonNull<Reader>,
    packet: NonNull<av::AVPacket>,
    stream: c_int,
}

// SAFETY: everything is owned; libavformat ties a context to no thread, and `&mut self` keeps calls apart.
unsafe impl Send for Container {}

/// What a container says of its video stream.
pub(super) struct Stream {
    pub spec: Spec,
    pub seconds_per_tick: f64,
    /// As [`Decoded::color`].
    pub color: (c_int, c_int),
}

/// One packet of the stream.
pub(super) struct Packet<'a> {
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
    pub(super) fn open(file: File, len: u64, format: &CStr) -> Result<(Self, Stream), Fault> {
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
        // SAFETY: `streams` holds `nb_streams` pointers to streams that live as long as the context.
        let streams = unsafe {
            let context = self.context.as_ref();
            std::slice::from_raw_parts_mut(
                context.streams,
                if context.streams.is_null() { 0 } else { context.nb_streams as usize },
            )
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
    pub(super) fn refill(&mut self) {
        // SAFETY: the reader belongs to this container; the library only touches it inside calls.
        let reader = unsafe { self.reader.as_mut() };
        reader.budget = 2 * reader.len + (1 << 24);
    }

    /// The next packet of the stream, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, Fault> {
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
    pub(super) fn seek(&mut self, dts: i64, position: Option<i64>) -> bool {
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
