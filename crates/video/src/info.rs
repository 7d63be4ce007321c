//! What is known about a clip after opening it, before any picture is decoded.

use crate::frame::Orientation;

/// What a video track is coded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264 / AVC.
    H264,
    /// VP9.
    Vp9,
    /// Another one, which FFmpeg decodes (feature `ffmpeg`): its name.
    Other(&'static str),
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Codec::H264 => "H.264",
            Codec::Vp9 => "VP9",
            Codec::Other(name) => name,
        })
    }
}

/// Description of an opened clip. Everything comes from one pass over the container's sample tables.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipInfo {
    /// Codec of the video track.
    pub codec: Codec,
    /// Width of a decoded picture in pixels, before rotation.
    pub coded_width: usize,
    /// Height of a decoded picture in pixels, before rotation.
    pub coded_height: usize,
    /// How decoded pictures are turned for display.
    pub orientation: Orientation,
    /// Number of frames shown: indices `0..frames` are valid. Pre-roll that an edit list hides is not counted.
    pub frames: usize,
    /// Number of leading frames, in presentation order, whose data is all in the file. Equals `frames` unless the file
    /// is cut off.
    pub intact_frames: usize,
    /// Presentation time of every frame in seconds, ascending, the first usually 0.
    pub timestamps: Vec<f64>,
    /// Presentation duration in seconds: up to the end of the last frame.
    pub duration: f64,
    /// Number of pictures at the start that are in the file and cannot be decoded, because what they refer to is not:
    /// a stream cut inside a group of pictures. They are not shown and have no index.
    pub left_out: usize,
    /// Whether frames behind the last were lost with the end of the file, as far as an MP4 or Matroska file says how long it was;
    /// never of other containers. The frames that are left are all that have an index.
    pub lost_end: bool,
}

impl ClipInfo {
    /// Width in pixels as displayed, after rotation.
    pub fn width(&self) -> usize {
        if self.orientation.swaps_sides() { self.coded_height } else { self.coded_width }
    }

    /// Height in pixels as displayed, after rotation.
    pub fn height(&self) -> usize {
        if self.orientation.swaps_sides() { self.coded_width } else { self.coded_height }
    }

    /// Average rate in frames per second: frames divided by duration. 0 when the duration is unknown.
    pub fn average_fps(&self) -> f64 {
        if self.duration > 0.0 { self.frames as f64 / self.duration } else { 0.0 }
    }
}
