//! What can be wrong with a clip: every variant names the file, what is wrong, and what to do about it.

use std::path::PathBuf;

/// Why a clip, or some frames of it, cannot be read.
///
/// The message is one sentence for a person at the command line. A loader that skips bad clips can log it as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VideoError {
    /// The path does not exist.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("{}: the file is empty (0 bytes); download or copy it again", path.display())]
    Empty {
        /// The file asked for.
        path: PathBuf,
    },
    /// The bytes are not a video container this crate knows.
    #[error("{}: not a video file ({why}); expected mp4, mov, webm or mkv", path.display())]
    NotAVideo {
        /// The file asked for.
        path: PathBuf,
        /// What the first bytes look like.
        why: String,
    },
    /// A media file without any video track.
    #[error("{}: has no video track, only audio or data", path.display())]
    AudioOnly {
        /// The file asked for.
        path: PathBuf,
    },
    /// A container, codec, profile or bit depth outside the decoders of this build.
    #[error(
        "{}: not supported by {} (codec {codec}); {}re-encode to 8-bit H.264 in mp4: \
         ffmpeg -i \"{}\" -c:v libx264 -pix_fmt yuv420p \"{}\"",
        path.display(),
        asked(*pure),
        otherwise(*pure),
        path.display(),
        reencoded(path).display()
    )]
    UnsupportedCodec {
        /// The file asked for.
        path: PathBuf,
        /// Codec, container or profile, e.g. `AV1` or `H.264 10-bit`.
        codec: String,
        /// The pure-Rust decoders alone were asked, as [`Decoder::Pure`](crate::Decoder::Pure) and builds without FFmpeg do.
        pure: bool,
    },
    /// The file ends before the data its index promises.
    #[error(
        "{}: the file is cut off: {detail}; frames before {first_bad_frame} are intact, download it again for the rest",
        path.display()
    )]
    Truncated {
        /// The file asked for.
        path: PathBuf,
        /// The first frame (in presentation order) that cannot be read; 0 when none can.
        first_bad_frame: usize,
        /// What is missing.
        detail: String,
    },
    /// The bytes are damaged: the container's tables or the coded picture make no sense.
    #[error("{}: damaged{}: {detail}; re-encode or replace the file", path.display(), at_frame(*frame))]
    Corrupt {
        /// The file asked for.
        path: PathBuf,
        /// The frame whose decoding failed, when it is known (it may precede the frame asked for).
        frame: Option<usize>,
        /// What the parser or decoder reported.
        detail: String,
    },
    /// The index is not below [`ClipInfo::frames`](crate::ClipInfo::frames).
    #[error("{}: frame {frame} asked for, but the clip has {frames} frames (0..{frames})", path.display())]
    FrameOutOfRange {
        /// The file asked for.
        path: PathBuf,
        /// The frame asked for.
        frame: usize,
        /// Number of frames shown.
        frames: usize,
    },
    /// The picture is larger than this crate will allocate for.
    #[error(
        "{}: pictures of {width}x{height} exceed the limit of {side} a side and {area} in all; re-encode it smaller",
        path.display(),
        side = crate::MAX_SIDE,
        area = crate::MAX_AREA
    )]
    TooLarge {
        /// The file asked for.
        path: PathBuf,
        /// Coded width in pixels.
        width: usize,
        /// Coded height in pixels.
        height: usize,
    },
    /// The operating system could not open or read the file.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A decoder was asked for that this build does not have.
    #[error("{}: the decoder `{asked}` is not in this build; {}", path.display(), known_decoders())]
    NoSuchDecoder {
        /// The file asked for.
        path: PathBuf,
        /// The decoder asked for.
        asked: String,
    },
    /// A third-party parser or decoder panicked; the panic was contained and the decoder thrown away.
    #[error("{}: the decoder gave up on damaged data ({detail}); re-encode or replace the file", path.display())]
    Panicked {
        /// The file asked for.
        path: PathBuf,
        /// The panic message.
        detail: String,
    },
}

impl VideoError {
    /// The same of the pure-Rust decoders alone.
    pub(crate) fn of_pure(self) -> Self {
        match self {
            Self::UnsupportedCodec { path, codec, .. } => Self::UnsupportedCodec { path, codec, pure: true },
            other => other,
        }
    }
}

/// A name for the re-encoded file that is not the name of the file itself.
fn reencoded(path: &std::path::Path) -> PathBuf {
    match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("mp4")) {
        true => path.with_extension("h264.mp4"),
        false => path.with_extension("mp4"),
    }
}

/// Who does not read a file.
fn asked(pure: bool) -> &'static str {
    if pure || !cfg!(feature = "ffmpeg") { "the pure-Rust decoder" } else { "the FFmpeg libraries of this system" }
}

/// Who may read it as it is.
fn otherwise(pure: bool) -> &'static str {
    match (cfg!(feature = "ffmpeg"), pure) {
        (false, _) => {
            "build with `--features ffmpeg` to read it as it is, make shards with `vjepa data pack --ffmpeg ffmpeg`, or "
        }
        (true, true) => "VJEPA_DECODER=pure is set and leaves FFmpeg out: unset it to read the file as it is, or ",
        (true, false) => "",
    }
}

fn known_decoders() -> &'static str {
    match cfg!(feature = "ffmpeg") {
        true => "set VJEPA_DECODER to `auto`, `pure` or `ffmpeg`",
        false => "set VJEPA_DECODER to `auto` or `pure`, or build with `--features ffmpeg`",
    }
}

fn at_frame(frame: Option<usize>) -> String {
    frame.map(|f| format!(" at frame {f}")).unwrap_or_default()
}

/// What went wrong inside a parser or decoder, before the file's name is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Unsupported(String),
    Corrupt(String),
    Cut(String),
    TooLarge(usize, usize),
    AudioOnly,
    NotAVideo(String),
    Panicked(String),
    Io(String),
}

impl Fault {
    pub(crate) fn corrupt(detail: impl Into<String>) -> Self {
        Fault::Corrupt(detail.into())
    }

    /// Attach the file, and the frame where there is one.
    pub(crate) fn at(self, path: &std::path::Path, frame: Option<usize>) -> VideoError {
        let path = path.to_path_buf();
        match self {
            Fault::Unsupported(codec) => VideoError::UnsupportedCodec { path, codec, pure: false },
            Fault::Corrupt(detail) => VideoError::Corrupt { path, frame, detail },
            Fault::Cut(detail) => VideoError::Truncated { path, first_bad_frame: frame.unwrap_or(0), detail },
            Fault::TooLarge(width, height) => VideoError::TooLarge { path, width, height },
            Fault::AudioOnly => VideoError::AudioOnly { path },
            Fault::NotAVideo(why) => VideoError::NotAVideo { path, why },
            Fault::Panicked(detail) => VideoError::Panicked { path, detail },
            Fault::Io(detail) => VideoError::Io { path, source: std::io::Error::other(detail) },
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(e: std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::UnexpectedEof {
            Fault::Cut("it ends in the middle of a table".into())
        } else {
            Fault::Io(e.to_string())
        }
    }
}
