//! A video of one stream, encoded into an mp4 file in memory.

use std::ffi::{CStr, c_int};
use std::ptr::{NonNull, null, null_mut};

use super::{EAGAIN, NO_MEMORY, quiet, words};
use ffmpeg_sys_next as av;

/// Encoders and the option that sets their quality, the best first. libx264's files are read everywhere; a FFmpeg without it
/// has MPEG-4.
const ENCODERS: [(&CStr, Option<(&CStr, &CStr)>); 2] = [(c"libx264", Some((c"crf", c"16"))), (c"mpeg4", None)];

/// An mp4 file that is being written.
pub(crate) struct Encoder {
    context: NonNull<av::AVCodecContext>,
    output: NonNull<av::AVFormatContext>,
    frame: NonNull<av::AVFrame>,
    packet: NonNull<av::AVPacket>,
    /// Ticks of the encoder that a picture is shown.
    ticks: i64,
    pictures: i64,
}

/// Planes of a picture in 4:2:0, each row after row without gaps: luma of the width and height that were given, chroma of half
/// of both.
pub(crate) type Planes<'a> = [&'a [u8]; 3];

impl Encoder {
    /// A file of pictures of even `width` and `height`, each shown `ticks` hundredths of a second.
    pub(crate) fn open(width: c_int, height: c_int, ticks: c_int) -> Result<Self, String> {
        quiet();
        let mut reasons = Vec::new();
        for (name, quality) in ENCODERS {
            match Self::with(name, quality, [width, height, ticks]) {
                Ok(encoder) => return Ok(encoder),
                Err(why) => reasons.push(format!("{}: {why}", name.to_string_lossy())),
            }
        }
        Err(reasons.join("; "))
    }

    fn with(name: &CStr, quality: Option<(&CStr, &CStr)>, [width, height, ticks]: [c_int; 3]) -> Result<Self, String> {
        // SAFETY: a lookup in static tables.
        let codec = unsafe { av::avcodec_find_encoder_by_name(name.as_ptr()) };
        if codec.is_null() {
            return Err("this FFmpeg does not have it".into());
        }
        // SAFETY: the allocators return null or an object of their type; those made are freed where another is missing, and by
        // `Drop` from then on.
        let this = unsafe {
            let mut output = null_mut();
            av::avformat_alloc_output_context2(&mut output, null(), c"mp4".as_ptr(), null());
            let context = av::avcodec_alloc_context3(codec);
            let (frame, packet) = (av::av_frame_alloc(), av::av_packet_alloc());
            match (NonNull::new(context), NonNull::new(output), NonNull::new(frame), NonNull::new(packet)) {
                (Some(context), Some(output), Some(frame), Some(packet)) => {
                    Self { context, output, frame, packet, ticks: ticks.into(), pictures: 0 }
                }
                _ => {
                    free(context, output, frame, packet);
                    return Err(NO_MEMORY.to_owned());
                }
            }
        };
        this.begin(codec, quality, [width, height, ticks])?;
        Ok(this)
    }

    fn begin(
        &self,
        codec: *const av::AVCodec,
        quality: Option<(&CStr, &CStr)>,
        [width, height, ticks]: [c_int; 3],
    ) -> Result<(), String> {
        // SAFETY: context, frame and output are owned and not opened yet, which is when their fields may be set; the options
        // belong to this block, and the stream that is made to the output, which gets a buffer of its own in memory.
        unsafe {
            let context = &mut *self.context.as_ptr();
            (context.width, context.height) = (width, height);
            context.pix_fmt = av::AVPixelFormat::AV_PIX_FMT_YUV420P;
            context.time_base = av::AVRational { num: 1, den: 100 };
            context.framerate = av::AVRational { num: 100, den: ticks };
            // Pictures leave in the order in which they came.
            context.max_b_frames = 0;
            context.thread_count = 1;
            context.colorspace = av::AVColorSpace::AVCOL_SPC_SMPTE170M;
            context.color_range = av::AVColorRange::AVCOL_RANGE_MPEG;
            // mp4 keeps headers apart from the packets; the same pictures give the same bytes.
            context.flags |= (av::AV_CODEC_FLAG_GLOBAL_HEADER | av::AV_CODEC_FLAG_BITEXACT) as c_int;
            let mut options = null_mut();
            match quality {
                Some((key, value)) => {
                    av::av_dict_set(&mut options, key.as_ptr(), value.as_ptr(), 0);
                }
                None => {
                    context.flags |= av::AV_CODEC_FLAG_QSCALE as c_int;
                    context.global_quality = 2 * av::FF_QP2LAMBDA;
                }
            }
            let opened = av::avcodec_open2(context, codec, &mut options);
            av::av_dict_free(&mut options);
            checked(opened)?;
            let frame = &mut *self.frame.as_ptr();
            (frame.width, frame.height) = (width, height);
            frame.format = av::AVPixelFormat::AV_PIX_FMT_YUV420P as c_int;
            checked(av::av_frame_get_buffer(frame, 0))?;
            let output = &mut *self.output.as_ptr();
            output.flags |= av::AVFMT_FLAG_BITEXACT;
            let stream = av::avformat_new_stream(output, codec);
            if stream.is_null() {
                return Err(NO_MEMORY.to_owned());
            }
            (*stream).time_base = context.time_base;
            (*stream).avg_frame_rate = context.framerate;
            checked(av::avcodec_parameters_from_context((*stream).codecpar, context))?;
            checked(av::avio_open_dyn_buf(&mut output.pb))?;
            checked(av::avformat_write_header(output, null_mut()))
        }
    }

    /// Adds a picture.
    pub(crate) fn add(&mut self, planes: Planes<'_>) -> Result<(), String> {
        // SAFETY: frame and context are owned. Once writable the frame's planes are its alone; each holds as many rows as are
        // written, `linesize` bytes apart and at least as wide, for `av_frame_get_buffer` made them for these sizes.
        unsafe {
            let frame = &mut *self.frame.as_ptr();
            checked(av::av_frame_make_writable(frame))?;
            for (plane, values) in planes.into_iter().enumerate() {
                let half = usize::from(plane > 0);
                let (width, rows) = (frame.width as usize >> half, frame.height as usize >> half);
                if values.len() != width * rows {
                    return Err("a picture of another size".into());
                }
                for (row, values) in values.chunks_exact(width).enumerate() {
                    let line = frame.data[plane].offset(row as isize * frame.linesize[plane] as isize);
                    std::ptr::copy_nonoverlapping(values.as_ptr(), line, width);
                }
            }
            frame.pts = self.pictures * self.ticks;
            self.pictures += 1;
            checked(av::avcodec_send_frame(self.context.as_ptr(), frame))?;
        }
        self.drain()
    }

    /// Writes what the encoder has ready.
    fn drain(&mut self) -> Result<(), String> {
        // SAFETY: context, packet and output are owned and open, and the output has one stream; the packet's data goes over to
        // the output, which leaves the packet empty.
        unsafe {
            let (context, packet) = (self.context.as_ptr(), self.packet.as_ptr());
            loop {
                match av::avcodec_receive_packet(context, packet) {
                    0 => {}
                    error if error == av::AVERROR(EAGAIN) || error == av::AVERROR_EOF => return Ok(()),
                    error => return Err(words(error)),
                }
                let stream = *(*self.output.as_ptr()).streams;
                (*packet).duration = self.ticks;
                (*packet).stream_index = 0;
                av::av_packet_rescale_ts(packet, (*context).time_base, (*stream).time_base);
                checked(av::av_interleaved_write_frame(self.output.as_ptr(), packet))?;
            }
        }
    }

    /// The file.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, String> {
        // SAFETY: no frame is how the end is told.
        checked(unsafe { av::avcodec_send_frame(self.context.as_ptr(), null()) })?;
        self.drain()?;
        // SAFETY: the output's buffer is closed once, which hands over as many bytes as it says; they are copied and freed.
        unsafe {
            checked(av::av_write_trailer(self.output.as_ptr()))?;
            let bytes = close(self.output.as_ptr());
            bytes.ok_or_else(|| NO_MEMORY.to_owned())
        }
    }
}

/// Closes the buffer of an output, and gives what was written to it.
///
/// # Safety
/// `output` is a context whose `pb`, unless it is null, was opened by `avio_open_dyn_buf`.
unsafe fn close(output: *mut av::AVFormatContext) -> Option<Vec<u8>> {
    // SAFETY: the caller's promise; `pb` is emptied so that it is closed once.
    unsafe {
        let buffer = std::mem::replace(&mut (*output).pb, null_mut());
        if buffer.is_null() {
            return None;
        }
        let mut bytes = null_mut();
        let length = av::avio_close_dyn_buf(buffer, &mut bytes);
        let copied = (!bytes.is_null()).then(|| std::slice::from_raw_parts(bytes, length.max(0) as usize).to_vec());
        av::av_free(bytes.cast());
        copied
    }
}

/// Frees what is not null.
///
/// # Safety
/// Each is null, or owned by the caller and not used again; the output as in [`close`].
unsafe fn free(
    mut context: *mut av::AVCodecContext,
    output: *mut av::AVFormatContext,
    mut frame: *mut av::AVFrame,
    mut packet: *mut av::AVPacket,
) {
    // SAFETY: the caller's promise; all of these take null.
    unsafe {
        av::av_packet_free(&mut packet);
        av::av_frame_free(&mut frame);
        av::avcodec_free_context(&mut context);
        if !output.is_null() {
            close(output);
            av::avformat_free_context(output);
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: made in `with`, freed only here.
        unsafe { free(self.context.as_ptr(), self.output.as_ptr(), self.frame.as_ptr(), self.packet.as_ptr()) }
    }
}

fn checked(result: c_int) -> Result<(), String> {
    if result < 0 { Err(words(result)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoder_writes_a_file_or_says_why_not() {
        let luma: Vec<u8> = (0..64 * 48).map(|i| (i % 64) as u8 * 3).collect();
        let chroma = [128; 32 * 24];
        for (name, quality) in ENCODERS {
            let mut encoder = match Encoder::with(name, quality, [64, 48, 12]) {
                Ok(encoder) => encoder,
                Err(why) => {
                    assert!(name != c"mpeg4" && why.contains("does not have it"), "{name:?}: {why}");
                    continue;
                }
            };
            for _ in 0..5 {
                encoder.add([&luma, &chroma, &chroma]).unwrap();
            }
            assert!(encoder.add([&luma, &chroma, &luma]).unwrap_err().contains("another size"));
            let path = std::env::temp_dir().join(format!("vjepa-encoder-{}-{}", std::process::id(), luma.len()));
            std::fs::write(&path, encoder.finish().unwrap()).unwrap();
            let mut clip = crate::open_with(&path, crate::Decoder::Ffmpeg).unwrap();
            assert_eq!(clip.info().frames, 5, "{name:?}");
            let frames = clip.frames(&[4]).unwrap();
            let differs = frames[0].y.iter().zip(&luma).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(differs < 16, "{name:?}: {differs}");
            std::fs::remove_file(path).unwrap();
        }
        // Left half way, all is freed.
        drop(Encoder::with(c"mpeg4", None, [64, 48, 12]));
        assert!(Encoder::open(0, 48, 12).is_err());
    }
}
