//! Settings of a server.

use crate::error::ServeError;
use crate::tls::Tls;
use crate::web::Web;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// All settings; [`Settings::default`] is a server for this machine only.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of HTTP; port 0 picks a free one.
    pub http: SocketAddr,
    /// Address of gRPC, if any.
    pub grpc: Option<SocketAddr>,
    /// How requests are batched.
    pub batching: Batching,
    /// Limits on clients.
    pub limits: Limits,
    /// Access.
    pub security: Security,
    /// Proxies and pages of other sites.
    pub web: Web,
    /// Where videos are stored while they are read; the system's temporary folder if none.
    pub temporary: Option<PathBuf>,
}

impl Settings {
    /// The folder for videos.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.temporary.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            http: local(8000),
            grpc: Some(local(8001)),
            batching: Batching::default(),
            limits: Limits::default(),
            security: Security::default(),
            web: Web::default(),
            temporary: None,
        }
    }
}

/// How requests are combined into batches.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Maximum number of clips per run and per request.
    pub max_clips: usize,
    /// Maximum time that a request waits for others. It waits for as many as came together last time, so a lone client
    /// never waits.
    pub max_delay: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_clips: 8, max_delay: Duration::from_millis(2) }
    }
}

/// Limits on what clients may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests waiting for an instance.
    pub queue: usize,
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of all bodies in memory together.
    pub bodies: usize,
    /// Connections, for HTTP and gRPC each.
    pub connections: usize,
    /// Time for TLS and a request's head; a connection without a first request is closed after it too.
    pub head: Duration,
    /// How long an idle HTTP connection is kept. Longer than load balancers do (60 s for most), so that none sends a
    /// request into a connection that is being closed.
    pub keep_alive: Duration,
    /// Time for a request's body. An HTTP client that reads nothing of a response for as long is disconnected; over gRPC a
    /// response has this time, and as much again for each MiB in flight.
    pub body_time: Duration,
    /// Deadline of requests that have none of their own, and the longest they can ask for.
    pub request: Duration,
    /// How long running requests may take at shutdown.
    pub drain: Duration,
    /// Videos decoded at the same time.
    pub decoders: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 64,
            body: 64 << 20,
            bodies: 512 << 20,
            connections: 256,
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_time: Duration::from_secs(30),
            request: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            decoders: vjepa_runtime::cores().unwrap_or(1),
        }
    }
}

/// Who may send requests, and over what.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Required by every request except health.
    pub token: Option<Token>,
    /// Certificate and key, for HTTP and gRPC.
    pub tls: Option<Tls>,
    /// Allows addresses that others can reach without TLS.
    pub insecure: bool,
}

impl Security {
    /// Refuses to listen where others can reach the server unprotected.
    pub(crate) fn allows(&self, address: IpAddr) -> Result<(), ServeError> {
        if address.is_loopback() {
            return Ok(());
        }
        if self.token.is_none() {
            return Err(ServeError::NeedsToken(address));
        }
        if self.tls.is_none() && !self.insecure {
            return Err(ServeError::NeedsTls(address));
        }
        Ok(())
    }
}

/// The secret that clients send.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// A token as a file holds it: surrounding white space does not count.
    ///
    /// # Errors
    /// [`ServeError::Token`] for one that is short enough to guess or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, ServeError> {
        let text = text.trim();
        match text.len() {
            0..16 => Err(ServeError::Token("is too short")),
            1025.. => Err(ServeError::Token("is too long")),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err(ServeError::Token("has other characters")),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// True for the value of an `Authorization` header with this token; takes as long for any wrong token.
    pub(crate) fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some((scheme, given)) = authorization.and_then(|value| value.split_at_checked(7)) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(given.ct_eq(self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        let token = Token::new("  0123456789abcdef\n").unwrap();
        assert!(token.admits(Some(b"Bearer 0123456789abcdef")));
        assert!(token.admits(Some(b"bearer 0123456789abcdef")));
        for wrong in [&b"Bearer 0123456789abcdeX"[..], b"Bearer 0123456789abcde", b"0123456789abcdef", b"Bearer ", b""]
        {
            assert!(!token.admits(Some(wrong)));
        }
        assert!(!token.admits(None));
        assert!(!format!("{token:?}").contains("0123"));
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcdéf"] {
            assert!(Token::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn open_addresses_need_a_token_and_tls() {
        let open = "0.0.0.0".parse().unwrap();
        let mut security = Security::default();
        security.allows("127.0.0.1".parse().unwrap()).unwrap();
        security.allows("::1".parse().unwrap()).unwrap();
        assert!(matches!(security.allows(open), Err(ServeError::NeedsToken(_))));
        security.insecure = true;
        assert!(matches!(security.allows(open), Err(ServeError::NeedsToken(_))));
        security = Security { token: Some(Token::new("0123456789abcdef").unwrap()), ..Security::default() };
        assert!(matches!(security.allows(open), Err(ServeError::NeedsTls(_))));
        security.insecure = true;
        security.allows(open).unwrap();
    }
}
