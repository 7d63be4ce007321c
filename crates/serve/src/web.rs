//! Between browser and server: pages of other sites that may send requests, and a proxy's path prefix.

use crate::error::ServeError;
use axum::http::{HeaderMap, HeaderValue, header};

/// Sites whose pages may send requests, and the path prefix that a proxy does not strip.
#[derive(Clone, Debug, Default)]
pub struct Web {
    origins: Vec<String>,
    prefix: String,
}

/// Headers of a request that a page of another site may set.
const REQUEST_HEADERS: &str = "Authorization, Content-Type, Content-Encoding, Inference-Header-Content-Length";

/// Response headers that such a page may read.
const ANSWER_HEADERS: &str = "Inference-Header-Content-Length, Retry-After";

impl Web {
    /// Origins as a browser sends them (`https://lab.example`, `http://localhost:3000`), or `*` for all; a path such as
    /// `/models/textures`, or nothing.
    ///
    /// # Errors
    /// [`ServeError::Setting`] for an origin that no browser sends and a path that no request has.
    pub fn new(origins: &[String], prefix: &str) -> Result<Self, ServeError> {
        for origin in origins.iter().filter(|origin| *origin != "*") {
            let (scheme, authority) = origin.split_once("://").unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
            if !matches!(scheme, "http" | "https") || authority.is_empty() || !authority.chars().all(plain) {
                return Err(ServeError::Setting(format!(
                    "--allow-origin {origin}: give scheme, host and port of the pages' address without a path, \
                     `https://lab.example` for example"
                )));
            }
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~');
        let good = |path: &str| path.split('/').all(|part| !part.is_empty() && part != ".." && part.chars().all(plain));
        if !prefix.is_empty() && !prefix.strip_prefix('/').is_some_and(good) {
            return Err(ServeError::Setting(format!(
                "--path-prefix {prefix}: give a path of letters, digits, `-`, `_`, `.` and `~`, `/models/textures` for \
                 example"
            )));
        }
        Ok(Self {
            origins: origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            prefix: prefix.to_owned(),
        })
    }

    /// The path prefix; empty for none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// True if pages of every site may send requests.
    pub(crate) fn admits_all(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }

    /// The origin of a request, if it is admitted.
    pub(crate) fn admitted<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        let known = |known: &String| known == "*" || known.eq_ignore_ascii_case(text);
        self.origins.iter().any(known).then_some(origin)
    }

    /// Lets the page of an admitted origin read a response.
    pub(crate) fn describe(&self, asked: &HeaderMap, answer: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.admitted(asked) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
        }
    }

    /// Tells a browser what a page of an admitted origin may send.
    pub(crate) fn invite(asked: &HeaderMap, answer: &mut HeaderMap) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // Chromium asks this before a public page may reach a server on the local network.
        if asked.contains_key("access-control-request-private-network") {
            answer.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_prefixes_are_what_requests_have() {
        let web = |origin: &str, prefix: &str| Web::new(&[origin.to_owned()], prefix);
        assert_eq!(web("https://lab.example", "/models/textures/").unwrap().prefix(), "/models/textures");
        assert_eq!(web("http://localhost:3000", "").unwrap().prefix(), "");
        assert!(web("*", "/").unwrap().admits_all());
        for origin in ["lab.example", "https://lab.example/", "https://", "ftp://x", "https://a b", "null"] {
            assert!(web(origin, "").is_err(), "{origin}");
        }
        for prefix in ["models", "/a//b", "/a?b", "/../x", "//", "/a b"] {
            assert!(web("*", prefix).is_err(), "{prefix}");
        }
    }
}
