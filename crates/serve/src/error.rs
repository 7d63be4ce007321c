//! Reasons to refuse a request, for HTTP and gRPC.

use std::time::Duration;

/// Why a request failed: its class, and one sentence.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InferError {
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
    /// Another model was requested.
    #[error("there is no model `{wanted}` here; this server has `{here}`, version 1")]
    UnknownModel {
        /// Model (and version) of the request.
        wanted: String,
        /// The model that is served.
        here: String,
    },
    /// Unknown path.
    #[error("there is nothing at {0}; see `GET /v2` and `GET /`")]
    UnknownPath(String),
    /// The path accepts other methods.
    #[error("{path} does not accept {method}")]
    Method {
        /// The path.
        path: String,
        /// The method of the request.
        method: String,
    },
    /// The body's media type or encoding is not supported.
    #[error("{0}")]
    MediaType(String),
    /// No token, or another one.
    #[error("this server requires a token: send `Authorization: Bearer TOKEN`")]
    Unauthorized,
    /// Sent by a browser for a page of another site.
    #[error("requests from pages of {0} are refused; open this server's own page")]
    Origin(String),
    /// Without a token, the server was addressed by a name that is not its own.
    #[error(
        "without a token this server answers to its address and to `localhost`, not to `{0}`; give it --token-file, or ask \
         it by its address"
    )]
    Host(String),
    /// The body is over the limit.
    #[error("the body is larger than {0} bytes, the limit of this server; see --max-body")]
    TooLarge(usize),
    /// The body is over the limit once it is decompressed.
    #[error("decompressed, the body is larger than {0} bytes, the limit of this server; see --max-body")]
    Inflated(usize),
    /// Part of the protocol that this server does not implement.
    #[error("{0}")]
    Unimplemented(String),
    /// A client spoke the wrong protocol for the port.
    #[error("{0}")]
    Port(String),
    /// The body did not arrive in time.
    #[error("the body did not arrive within {} s", .0.as_secs_f64())]
    SlowBody(Duration),
    /// The client went away, or its body ended early.
    #[error("the body ended early: {0}")]
    BrokenBody(String),
    /// Too much is waiting already.
    #[error("{0}; try again in a second")]
    Busy(String),
    /// The server is shutting down.
    #[error("the server is shutting down; send the request to another one")]
    Draining,
    /// The deadline has passed.
    #[error("the request was not finished within its {} ms", .0.as_secs_f64() * 1e3)]
    Expired(Duration),
    /// The model failed.
    #[error("{0}")]
    Failed(String),
}

impl InferError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Invalid(_) | Self::BrokenBody(_) | Self::Port(_) => 400,
            Self::Unauthorized => 401,
            Self::Origin(_) | Self::Host(_) => 403,
            Self::UnknownModel { .. } | Self::UnknownPath(_) => 404,
            Self::Method { .. } => 405,
            Self::SlowBody(_) => 408,
            Self::TooLarge(_) | Self::Inflated(_) => 413,
            Self::MediaType(_) => 415,
            Self::Failed(_) => 500,
            Self::Unimplemented(_) => 501,
            Self::Busy(_) | Self::Draining => 503,
            Self::Expired(_) => 504,
        }
    }

    /// The gRPC status code.
    pub(crate) fn code(&self) -> tonic::Code {
        use tonic::Code;
        match self {
            Self::Invalid(_) | Self::BrokenBody(_) | Self::MediaType(_) => Code::InvalidArgument,
            Self::Unauthorized => Code::Unauthenticated,
            Self::Origin(_) | Self::Host(_) => Code::PermissionDenied,
            Self::UnknownModel { .. } => Code::NotFound,
            Self::UnknownPath(_) | Self::Method { .. } | Self::Unimplemented(_) | Self::Port(_) => Code::Unimplemented,
            // The code tonic itself uses if it notices first.
            Self::TooLarge(_) | Self::Inflated(_) => Code::OutOfRange,
            Self::Failed(_) => Code::Internal,
            Self::Busy(_) | Self::Draining => Code::Unavailable,
            Self::SlowBody(_) | Self::Expired(_) => Code::DeadlineExceeded,
        }
    }

    /// The reason under which the metrics count it as rejected, if they do.
    pub(crate) fn rejection(&self) -> Option<&'static str> {
        match self {
            Self::Busy(_) => Some("busy"),
            Self::Draining => Some("draining"),
            Self::Unauthorized | Self::Origin(_) | Self::Host(_) => Some("unauthorized"),
            Self::TooLarge(_) | Self::Inflated(_) => Some("too_large"),
            Self::Port(_) => Some("wrong_port"),
            Self::SlowBody(_) => Some("slow_body"),
            _ => None,
        }
    }
}

impl From<InferError> for tonic::Status {
    fn from(error: InferError) -> Self {
        let mut status = tonic::Status::new(error.code(), error.to_string());
        status.set_source(std::sync::Arc::new(error));
        status
    }
}

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Cannot listen on an address.
    #[error("cannot listen on {address}: {source}; choose another --host, --port or --grpc-port")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Reachable from elsewhere without a token.
    #[error(
        "{0} can be reached from other machines, so a token is needed: give --token-file FILE, or serve on 127.0.0.1"
    )]
    NeedsToken(std::net::IpAddr),
    /// Reachable from elsewhere without TLS.
    #[error(
        "{0} can be reached from other machines, and without TLS the token and the clips are sent in clear text: give --tls-cert and \
         --tls-key, or --insecure behind a proxy that has TLS"
    )]
    NeedsTls(std::net::IpAddr),
    /// The token is not acceptable.
    #[error("the token {0}; write 16 to 1024 printable characters, as `openssl rand -hex 32` does")]
    Token(&'static str),
    /// The certificate or its key cannot be used.
    #[error("{what}: {reason}")]
    Tls {
        /// What was read.
        what: String,
        /// Why it is refused, and what to do.
        reason: String,
    },
    /// Videos cannot be stored.
    #[error("cannot write videos to the temporary folder {}: {source}; set TMPDIR to a folder with room", folder.display())]
    Temporary {
        /// The folder.
        folder: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The name cannot be part of a path.
    #[error("--name {0}: a model name may contain only letters, digits, `_`, `-` and `.`")]
    Name(String),
    /// An invalid setting.
    #[error("{0}")]
    Setting(String),
    /// The system refuses threads.
    #[error("cannot start the server's threads: {0}")]
    Threads(std::io::Error),
}
