//! A decoder of libavcodec and its pictures.

use std::ffi::c_int;
use std::ptr::{NonNull, null, null_mut};

use super::{EAGAIN, Layout, codec_name, fault, no_memory, quiet};
use crate::error::Fault;
use ffmpeg_sys_next as av;

/// What a decoder is told before the first packet.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub codec: av::AVCodecID,
    /// Four characters by which the container names the codec; some decoders tell dialects apart by it.
    pub tag: u32,
    pub extradata: Vec<u8>,
    pub width: usize,
    pub height: usize,
    /// How many pictures are decoded before one that is shown earlier, at most.
    pub reorder: usize,
}

/// An opened decoder on one thread.
pub(crate) struct Decoder {
    context: NonNull<av::AVCodecContext>,
    packet: NonNull<av::AVPacket>,
    frame: NonNull<av::AVFrame>,
    layout: Option<(c_int, Layout)>,
}

// SAFETY: the three objects are owned, and libavcodec ties a context to no thread; `&mut self` keeps calls apart.
unsafe impl Send for Decoder {}

impl Decoder {
    pub(crate) fn open(spec: &Spec) -> Result<Self, Fault> {
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
    pub(crate) fn send(&mut self, bytes: &[u8], tag: i64, skip: bool) -> Result<(), Fault> {
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
    pub(crate) fn end(&mut self) {
        // SAFETY: a null packet is how the end is told; a second one is answered with an error that changes nothing.
        unsafe { av::avcodec_send_packet(self.context.as_ptr(), null()) };
    }

    /// Whether what is missing or damaged is an error at once, or only marks the picture as [`Decoded::damaged`].
    pub(crate) fn strict(&mut self, strict: bool) {
        let flags = if strict { av::AV_EF_EXPLODE as c_int } else { 0 };
        // SAFETY: the context is owned, and the field may be set at any time between calls.
        unsafe { (*self.context.as_ptr()).err_recognition = flags };
    }

    /// Forgets all references and pictures.
    pub(crate) fn flush(&mut self) {
        // SAFETY: the context is open.
        unsafe { av::avcodec_flush_buffers(self.context.as_ptr()) }
    }

    /// The next picture, if one is ready.
    pub(crate) fn receive(&mut self) -> Result<Option<Decoded<'_>>, Fault> {
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

/// A picture that the decoder owns.
pub(crate) struct Decoded<'a> {
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
    pub(crate) fn tag(&self) -> i64 {
        self.frame().pts
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        (self.frame().width.max(0) as usize, self.frame().height.max(0) as usize)
    }

    /// The decoder made up a part of it.
    pub(crate) fn damaged(&self) -> bool {
        self.frame().decode_error_flags != 0
    }

    /// Matrix coefficients and range as numbers (H.273; 1 limited, 2 full, 0 unknown): values that the bindings have no
    /// name for must not become an enum.
    pub(crate) fn color(&self) -> (c_int, c_int) {
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
    pub(crate) fn row(&self, plane: usize, y: usize, bytes: usize) -> Option<&[u8]> {
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
    pub(crate) fn palette(&self) -> Option<&[u8]> {
        let data = self.frame().data[1];
        // SAFETY: pictures with a palette keep its 256 colours of 4 bytes there.
        (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data, 1024) })
    }
}
