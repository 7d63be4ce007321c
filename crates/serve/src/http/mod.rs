//! HTTP: which path leads where, who may go there, and how the end of a request is counted.

mod body;
mod classify;
mod page;
mod reply;
mod request;
mod tensor;
mod v2;

use crate::error::InferError;
use crate::state::{Core, shortened};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts, uri::Authority};
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Page,
    Metrics,
    Classify,
    Live,
    Ready,
    Server,
    Model,
    ModelReady,
    Configuration,
    Statistics,
    Infer,
}

impl Route {
    /// The name in metrics, and the methods.
    fn about(self) -> (&'static str, &'static str) {
        match self {
            Route::Page => ("page", "GET, HEAD"),
            Route::Metrics => ("metrics", "GET, HEAD"),
            Route::Live | Route::Ready | Route::ModelReady => ("health", "GET, HEAD"),
            Route::Server | Route::Model | Route::Configuration | Route::Statistics => ("metadata", "GET, HEAD"),
            Route::Classify => ("classify", "POST"),
            Route::Infer => ("infer", "POST"),
        }
    }

    /// Health tells nothing but health, and the page holds nothing: both are open to everybody.
    fn is_open(self) -> bool {
        matches!(self, Route::Page | Route::Live | Route::Ready)
    }
}

/// Answers a request; never fails.
pub(crate) async fn answer(core: Arc<Core>, request: Request<Body>) -> Response {
    let (parts, mut body) = request.into_parts();
    let place = place(&core, parts.uri.path());
    let (endpoint, methods) = place.as_ref().map_or(("unknown", ""), |place| place.route.about());
    let outcome = go(&core, place, &parts, &mut body).await;
    core.answered(endpoint, outcome.as_ref().map(|response| response.status().as_u16()));
    if outcome.is_err() {
        body::discard(&core, &parts.headers, body);
    }
    let allow = matches!(outcome, Err(InferError::Method { .. })).then_some(methods);
    let mut response = outcome.unwrap_or_else(|error| reply::refusal(&error, allow));
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Where a path leads, and the model and version that it names.
struct Place<'a> {
    route: Route,
    model: Option<(&'a str, &'a str)>,
}

fn place<'a>(core: &Core, path: &'a str) -> Result<Place<'a>, InferError> {
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').take(8).collect();
    let unknown = || InferError::UnknownPath(format!("`{}`", shortened(path)));
    let route = match segments.as_slice() {
        [""] => Route::Page,
        ["metrics"] => Route::Metrics,
        ["v1", "classify"] => Route::Classify,
        ["v2"] | ["v2", ""] => Route::Server,
        ["v2", "health", "live"] => Route::Live,
        ["v2", "health", "ready"] => Route::Ready,
        ["v2", "models", "stats"] if core.info.name != "stats" => Route::Statistics,
        ["v2", "models", model, rest @ ..] => {
            let (version, rest) = match rest {
                ["versions", version, rest @ ..] => (*version, rest),
                rest => ("", rest),
            };
            let route = match rest {
                [] => Route::Model,
                ["ready"] => Route::ModelReady,
                ["config"] => Route::Configuration,
                ["stats"] => Route::Statistics,
                ["infer"] => Route::Infer,
                _ => return Err(unknown()),
            };
            return Ok(Place { route, model: Some((model, version)) });
        }
        _ => return Err(unknown()),
    };
    Ok(Place { route, model: None })
}

async fn go(
    core: &Arc<Core>,
    place: Result<Place<'_>, InferError>,
    parts: &Parts,
    body: &mut Body,
) -> Result<Response, InferError> {
    // Who may not come in learns nothing, not even the model's name.
    if !place.as_ref().is_ok_and(|place| place.route.is_open()) {
        admit(core, &parts.headers)?;
    }
    let Place { route, model } = place?;
    let get = matches!(parts.method, Method::GET | Method::HEAD);
    let (_, methods) = route.about();
    let fits = if methods == "POST" { parts.method == Method::POST } else { get };
    if !fits {
        let (path, method) = (shortened(parts.uri.path()), shortened(parts.method.as_str()));
        return Err(InferError::Method { path, method });
    }
    if let Some((model, version)) = model {
        core.check_model(model, version)?;
    }
    match route {
        Route::Page => Ok(page::page()),
        Route::Metrics => Ok(metrics(core)),
        Route::Live => Ok(reply::json(&serde_json::json!({"live": true}))),
        Route::Ready => Ok(readiness(core, serde_json::json!({"ready": core.ready()}))),
        Route::ModelReady => Ok(readiness(core, serde_json::json!({"name": core.info.name, "ready": core.ready()}))),
        Route::Server => Ok(v2::server_metadata()),
        Route::Model => Ok(v2::model_metadata(core)),
        Route::Configuration => Ok(v2::configuration(core)),
        Route::Statistics => Ok(v2::statistics(core)),
        Route::Infer => v2::infer(core, &parts.headers, body).await,
        Route::Classify => classify::classify(core, &parts.headers, parts.uri.query(), body).await,
    }
}

/// The token, and no page of another site. Where there is no token, a name that another site can give to this machine is
/// none of the server's: its page would count as the server's own.
fn admit(core: &Core, headers: &HeaderMap) -> Result<(), InferError> {
    let told = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let foreign = |host: &String| core.settings.security.token.is_none() && !is_own(host);
    if let Some(host) = told("host").filter(foreign) {
        return Err(InferError::Host(shortened(&host)));
    }
    if let Some(site) = told("sec-fetch-site") {
        if site != "same-origin" && site != "none" {
            return Err(InferError::Origin("another site".to_owned()));
        }
    } else if let Some(origin) = told("origin") {
        let host = told("host").unwrap_or_default();
        if origin.split_once("://").is_none_or(|(_, authority)| authority != host) {
            return Err(InferError::Origin(shortened(&origin)));
        }
    }
    match &core.settings.security.token {
        Some(token) if !token.admits(headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes)) => {
            Err(InferError::Unauthorized)
        }
        _ => Ok(()),
    }
}

/// True for an address or `localhost`, with a port or without.
fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn readiness(core: &Core, document: serde_json::Value) -> Response {
    let mut response = reply::json(&document);
    if !core.ready() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn metrics(core: &Core) -> Response {
    let mut response = Response::new(Body::from(core.metrics.text()));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn names_that_others_can_give_are_not_its_own() {
        for own in ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "10.0.0.7:80"]
        {
            assert!(is_own(own), "{own}");
        }
        for other in ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "", "a b", "x"]
        {
            assert!(!is_own(other), "{other}");
        }
    }
}
