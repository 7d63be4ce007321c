//! The only place that calls libavcodec and libavformat: owners of their objects, with safe methods.
//!
//! Every pointer kept here comes from an allocator of the libraries, is checked once, belongs to one owner and is freed by
//! its `Drop`. Nothing the libraries own is lent out beyond the borrow of its owner.
#![allow(unsafe_code)]

mod container;
mod decoder;
mod encoder;
mod layout;

use std::ffi::{CStr, c_int};
use std::ptr::null;
use std::sync::Once;

use crate::error::Fault;
use ffmpeg_sys_next as av;

pub(super) use container::{Container, Packet, Stream};
pub(super) use decoder::{Decoded, Decoder, Spec};
pub(super) use encoder::Encoder;
pub(super) use layout::{Component, Layout};

/// `EAGAIN` is 11 on Linux and Windows, 35 on macOS and the BSDs.
const EAGAIN: c_int = if cfg!(any(target_os = "linux", target_os = "android", windows)) { 11 } else { 35 };

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

const NO_MEMORY: &str = "out of memory";

fn no_memory() -> Fault {
    Fault::Io(NO_MEMORY.into())
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

/// The version of libavcodec: major, minor and micro, eight bits each for the latter two.
pub(super) fn avcodec_version() -> u32 {
    // SAFETY: reads a constant.
    unsafe { av::avcodec_version() }
}

/// The short name of a codec, e.g. `mpeg4`.
pub(super) fn codec_name(id: av::AVCodecID) -> &'static str {
    // SAFETY: returns a static string for any id.
    unsafe { CStr::from_ptr(av::avcodec_get_name(id)) }.to_str().unwrap_or("unknown")
}
