//! How the samples of a picture lie in memory.

use std::ffi::{CStr, c_int};
use std::ptr::null;

use crate::error::Fault;
use ffmpeg_sys_next as av;

/// How the samples of one component lie in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Component {
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
pub(crate) struct Layout {
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
    pub(crate) fn of(format: c_int) -> Result<Self, Fault> {
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
