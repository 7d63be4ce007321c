//! The first bytes of a connection: which protocol its client speaks, regardless of the port.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a client starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.1, or something that its parser will refuse.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A TLS handshake.
    Tls,
}

/// The first byte of a TLS handshake, with which no HTTP method starts.
pub(crate) const HANDSHAKE: u8 = 0x16;

/// The start of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the client's protocol is clear; the returned bytes belong before the rest of the stream.
///
/// # Errors
/// Those of reading.
pub(crate) async fn first<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<(Spoken, Bytes)> {
    let mut bytes = BytesMut::with_capacity(PREFACE.len());
    loop {
        let ended = stream.read_buf(&mut bytes).await? == 0;
        match spoken(&bytes) {
            Some(spoken) => return Ok((spoken, bytes.freeze())),
            None if ended => return Ok((Spoken::Http1, bytes.freeze())),
            None => {}
        }
    }
}

/// The protocol that these bytes start; none while it is not clear.
fn spoken(bytes: &[u8]) -> Option<Spoken> {
    if bytes.first() == Some(&HANDSHAKE) {
        return Some(Spoken::Tls);
    }
    let same = bytes.iter().zip(PREFACE).take_while(|(byte, wanted)| byte == wanted).count();
    if same == PREFACE.len() { Some(Spoken::Http2) } else { (same < bytes.len()).then_some(Spoken::Http1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_known_as_soon_as_it_can_be() {
        assert_eq!(spoken(b""), None);
        assert_eq!(spoken(b"P"), None);
        assert_eq!(spoken(b"PO"), Some(Spoken::Http1));
        assert_eq!(spoken(b"PRI * HTTP/2.0\r\n"), None);
        assert_eq!(spoken(b"PRI * HTTP/1.1\r\n"), Some(Spoken::Http1));
        assert_eq!(spoken(PREFACE), Some(Spoken::Http2));
        assert_eq!(spoken(&[0x16, 3, 1]), Some(Spoken::Tls));
        assert_eq!(spoken(&[0, 1]), Some(Spoken::Http1));
    }
}
