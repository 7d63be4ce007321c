//! Content codings, the same for bodies over HTTP and messages over gRPC: gzip and deflate, bounded when they are undone.

use crate::error::InferError;
use crate::state::Core;
use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use std::io::{ErrorKind, Read, Result, Write};
use tokio::sync::OwnedSemaphorePermit;

/// The codings, as in `Accept-Encoding` and `grpc-accept-encoding`.
pub(crate) const CODINGS: &str = "gzip, deflate";

/// Bytes that are decompressed before memory is taken for more.
const STEP: usize = 1 << 16;

/// Shorter answers are not worth compressing.
pub(crate) const WORTH_IT: usize = 1 << 10;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// The format of zlib, which is what HTTP and gRPC call deflate.
    Deflate,
}

impl Coding {
    /// A coding by its name; none for one that is not read.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            Some(Self::Gzip)
        } else if name.eq_ignore_ascii_case("deflate") {
            Some(Self::Deflate)
        } else {
            None
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// What a client's `Accept-Encoding` prefers of them.
    pub fn accepted(accept: &str) -> Option<Self> {
        let weight = |coding: &str| {
            accept.split(',').find_map(|entry| {
                let (name, rest) = entry.split_once(';').unwrap_or((entry, ""));
                let q = rest.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse::<f32>().ok());
                name.trim().eq_ignore_ascii_case(coding).then(|| q.unwrap_or(0.0))
            })
        };
        let of = |coding: Self| weight(coding.name()).or_else(|| weight("*")).unwrap_or(0.0);
        let best = if of(Self::Deflate) > of(Self::Gzip) { Self::Deflate } else { Self::Gzip };
        (of(best) > 0.0).then_some(best)
    }

    /// Decompresses within `limit` bytes; takes memory for them before it makes them, together with what `held` has.
    ///
    /// # Errors
    /// [`InferError::Inflated`], [`InferError::Busy`] when other bodies fill the memory, [`InferError::Invalid`] for bytes
    /// that are something else, damaged or cut off.
    pub fn inflate(
        self,
        core: &Core,
        bytes: &[u8],
        limit: usize,
        held: &mut Option<OwnedSemaphorePermit>,
    ) -> std::result::Result<Bytes, InferError> {
        match self {
            Self::Gzip => self.read_all(core, bytes, MultiGzDecoder::new(bytes), |_| 0, limit, held),
            Self::Deflate if is_zlib(bytes) => {
                self.read_all(core, bytes, ZlibDecoder::new(bytes), |zlib| zlib.into_inner().len(), limit, held)
            }
            // Some clients leave zlib's frame out.
            Self::Deflate => {
                self.read_all(core, bytes, DeflateDecoder::new(bytes), |plain| plain.into_inner().len(), limit, held)
            }
        }
    }

    fn read_all<R: Read>(
        self,
        core: &Core,
        bytes: &[u8],
        mut decoder: R,
        left: impl Fn(R) -> usize,
        limit: usize,
        held: &mut Option<OwnedSemaphorePermit>,
    ) -> std::result::Result<Bytes, InferError> {
        let mut out = Vec::new();
        loop {
            let before = out.len();
            core.hold(held, bytes.len().saturating_add(before).saturating_add(STEP))?;
            out.resize(before + STEP, 0);
            let rest = out.get_mut(before..).unwrap_or_default();
            let count = decoder.read(rest).map_err(|error| self.damaged(&error))?;
            out.truncate(before + count);
            if out.len() > limit {
                return Err(InferError::Inflated(core.settings.limits.body));
            }
            if count == 0 {
                break;
            }
        }
        match left(decoder) {
            0 => Ok(out.into()),
            more => Err(InferError::Invalid(format!("{more} bytes follow the end of the {} data", self.name()))),
        }
    }

    fn damaged(self, error: &std::io::Error) -> InferError {
        let name = self.name();
        InferError::Invalid(match error.kind() {
            ErrorKind::UnexpectedEof => format!("the {name} data ends early; send all of it"),
            _ => format!(
                "the body is not valid {name} data, or it is damaged; compress it again, or send it uncompressed"
            ),
        })
    }

    /// Compresses quickly.
    ///
    /// # Errors
    /// None that a vector gives.
    pub fn deflate(self, bytes: &[u8]) -> Result<Vec<u8>> {
        let out = Vec::with_capacity(bytes.len() / 2);
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::fast());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(out, Compression::fast());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }
}

/// True for bytes that begin as RFC 1950 says.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [first, second, ..]
        if first & 15 == 8 && ((u16::from(*first) << 8) | u16::from(*second)).is_multiple_of(31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_accepts_is_read_with_its_weights() {
        for (accept, wanted) in [
            ("gzip", Some(Coding::Gzip)),
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("gzip;q=0.2, deflate;q=0.9", Some(Coding::Deflate)),
            ("*", Some(Coding::Gzip)),
            ("br, *;q=0.1", Some(Coding::Gzip)),
            ("gzip;q=0, *;q=0", None),
            ("gzip;q=x", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(Coding::accepted(accept), wanted, "{accept}");
        }
    }
}
