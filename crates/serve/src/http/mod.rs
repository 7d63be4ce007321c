//! HTTP: routes, access to them, and how responses are counted.

mod body;
mod classify;
mod page;
mod reply;
mod request;
mod tensor;
mod v2;
mod words;

use crate::error::InferError;
use crate::listen::{is_grpc, refuse};
use crate::protocol;
use crate::state::{Core, shortened};
use crate::web::Web;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts, uri::Authority};
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;

/// Routes.
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
    Models,
    Index,
    /// The prefix without the slash behind it.
    Prefix,
    /// A path of the protocol or of Triton's extensions that is not supported; its gRPC name.
    Absent(&'static str),
}

impl Route {
    /// The name in metrics, and the methods.
    fn about(self) -> (&'static str, &'static str) {
        match self {
            Route::Page => ("page", "GET, HEAD"),
            Route::Metrics => ("metrics", "GET, HEAD"),
            Route::Live | Route::Ready | Route::ModelReady => ("health", "GET, HEAD"),
            Route::Server | Route::Model | Route::Configuration | Route::Statistics | Route::Models => {
                ("metadata", "GET, HEAD")
            }
            Route::Index => ("metadata", "POST"),
            Route::Prefix => ("page", "GET, HEAD"),
            Route::Absent(_) => ("unknown", ANY),
            Route::Classify => ("classify", "POST"),
            Route::Infer => ("infer", "POST"),
        }
    }

    /// Health reveals nothing else and the page contains no data: both are open to everybody.
    fn is_open(self) -> bool {
        matches!(self, Route::Page | Route::Prefix | Route::Live | Route::Ready)
    }
}

/// Methods of a path that is refused anyway.
const ANY: &str = "";

/// Answers a request; never fails.
pub(crate) async fn answer(core: Arc<Core>, request: Request<Body>) -> Response {
    if is_grpc(request.headers()) {
        let place = core.addresses.grpc.map_or("this server has no gRPC port, see --grpc-port".to_owned(), |grpc| {
            format!("gRPC is answered at port {}", grpc.port())
        });
        return refuse(core, format!("this port speaks HTTP; {place}"), request).await;
    }
    let (parts, mut body) = request.into_parts();
    let place = place(&core, parts.uri.path());
    let (endpoint, methods) = place.as_ref().map_or(("unknown", ""), |place| place.route.about());
    let outcome = match is_preflight(&parts) {
        true => preflight(&core, &parts),
        false => go(&core, place, &parts, &mut body).await,
    };
    core.answered(endpoint, outcome.as_ref().map(|response| response.status().as_u16()));
    if outcome.is_err() {
        body::discard(&core, &parts.headers, body);
    }
    let allow = matches!(outcome, Err(InferError::Method { .. })).then_some(methods);
    let response = outcome.unwrap_or_else(|error| reply::refusal(&error, allow));
    finished(&core, &parts.headers, reply::encoded(&parts.headers, response).await)
}

/// Refuses a request, whatever it asks for.
pub(crate) fn refusal(core: &Core, error: &InferError, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    body::discard(core, &parts.headers, body);
    finished(core, &parts.headers, reply::refusal(error, None))
}

/// Adds the headers that every response has.
fn finished(core: &Core, asked: &HeaderMap, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    core.settings.web.describe(asked, headers);
    response
}

/// True for a browser's preflight request on behalf of another site's page.
fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers preflight requests of the admitted origins. Such a request never has the token.
fn preflight(core: &Core, parts: &Parts) -> Result<Response, InferError> {
    check_host(core, parts)?;
    if core.settings.web.admitted(&parts.headers).is_none() {
        let origin = value_of(&parts.headers, "origin").unwrap_or_default();
        return Err(InferError::Origin(shortened(&origin)));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Web::invite(&parts.headers, response.headers_mut());
    Ok(response)
}

/// A route, with the model and version that the path names.
struct Place<'a> {
    route: Route,
    model: Option<(&'a str, &'a str)>,
}

/// Paths that also work without the prefix: probes and scrapers bypass the proxy.
const DIRECT: [&str; 3] = ["/v2/health/live", "/v2/health/ready", "/metrics"];

fn place<'a>(core: &Core, path: &'a str) -> Result<Place<'a>, InferError> {
    let unknown = || InferError::UnknownPath(format!("`{}`", shortened(path)));
    let prefix = core.settings.web.prefix();
    let path = match path.strip_prefix(prefix) {
        Some("") if !prefix.is_empty() => return Ok(Place { route: Route::Prefix, model: None }),
        Some(rest) if prefix.is_empty() || rest.starts_with('/') => rest,
        _ if DIRECT.contains(&path) => path,
        _ => return Err(InferError::UnknownPath(format!("`{}`, but under `{prefix}/`", shortened(path)))),
    };
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').take(8).collect();
    let route = match segments.as_slice() {
        [""] => Route::Page,
        ["metrics"] => Route::Metrics,
        ["v1", "classify"] => Route::Classify,
        ["v2"] | ["v2", ""] => Route::Server,
        ["v2", "health", "live"] => Route::Live,
        ["v2", "health", "ready"] => Route::Ready,
        ["v2", "models"] | ["v2", "models", ""] => Route::Models,
        ["v2", "repository", "index"] => Route::Index,
        ["v2", "repository", "models", _, "load"] => Route::Absent("RepositoryModelLoad"),
        ["v2", "repository", "models", _, "unload"] => Route::Absent("RepositoryModelUnload"),
        ["v2", "systemsharedmemory", ..] => Route::Absent("SystemSharedMemoryStatus"),
        ["v2", "cudasharedmemory", ..] => Route::Absent("CudaSharedMemoryStatus"),
        ["v2", "tpusharedmemory", ..] => Route::Absent("TpuSharedMemoryStatus"),
        ["v2", "trace", "setting"] => Route::Absent("TraceSetting"),
        ["v2", "logging"] => Route::Absent("LogSettings"),
        ["v1", "models", ..] => Route::Absent("Predict"),
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
                ["generate"] => Route::Absent("Generate"),
                ["generate_stream"] => Route::Absent("GenerateStream"),
                ["trace", "setting"] => Route::Absent("TraceSetting"),
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
    // Without access a client learns nothing, not even the model's name.
    if !place.as_ref().is_ok_and(|place| place.route.is_open()) {
        admit(core, parts)?;
    }
    let Place { route, model } = place?;
    if let Route::Absent(name) = route {
        let why = protocol::absent(name).unwrap_or("it is not offered");
        return Err(InferError::Unimplemented(format!("`{}` is not offered: {why}", shortened(parts.uri.path()))));
    }
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
        Route::Prefix => Ok(reply::moved(&format!("{}/", core.settings.web.prefix()))),
        Route::Metrics => Ok(metrics(core, &parts.headers)),
        Route::Live => Ok(reply::json(&serde_json::json!({"live": true}))),
        Route::Ready => Ok(readiness(core, serde_json::json!({})).await),
        Route::ModelReady => Ok(readiness(core, serde_json::json!({"name": core.info.name})).await),
        Route::Models => Ok(reply::json(&serde_json::json!({"models": [core.info.name]}))),
        Route::Index => v2::index(core, &parts.headers, body).await,
        Route::Absent(name) => Err(InferError::Unimplemented(format!("{name} is not offered"))),
        Route::Server => Ok(v2::server_metadata()),
        Route::Model => Ok(v2::model_metadata(core)),
        Route::Configuration => Ok(v2::configuration(core)),
        Route::Statistics => Ok(v2::statistics(core)),
        Route::Infer => v2::infer(core, parts, body).await,
        Route::Classify => classify::classify(core, &parts.headers, parts.uri.query(), body).await,
    }
}

/// A header's value.
fn value_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Without a token, host names that another site could point at this machine are refused, because its page would count as
/// the server's own. HTTP/2 has the name in the URI.
fn check_host(core: &Core, parts: &Parts) -> Result<(), InferError> {
    let foreign = |host: &String| core.settings.security.token.is_none() && !is_own(host);
    let hosts = [value_of(&parts.headers, "host"), parts.uri.authority().map(ToString::to_string)];
    hosts.into_iter().flatten().find(foreign).map_or(Ok(()), |host| Err(InferError::Host(shortened(&host))))
}

/// Requires the token, and refuses pages of other sites that are not admitted.
fn admit(core: &Core, parts: &Parts) -> Result<(), InferError> {
    let headers = &parts.headers;
    check_host(core, parts)?;
    if core.settings.web.admitted(headers).is_some() {
        // Admitted by the list.
    } else if let Some(site) = value_of(headers, "sec-fetch-site") {
        if site != "same-origin" && site != "none" {
            return Err(InferError::Origin("another site".to_owned()));
        }
    } else if let Some(origin) = value_of(headers, "origin") {
        let host =
            value_of(headers, "host").or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default();
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

async fn readiness(core: &Arc<Core>, mut document: serde_json::Value) -> Response {
    let ready = core.ready().await;
    document["ready"] = ready.is_ok().into();
    let status = if ready.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if let Err(reason) = ready {
        document["error"] = reason.into();
    }
    let mut response = reply::json(&document);
    *response.status_mut() = status;
    response
}

/// Prometheus' text format, or OpenMetrics if requested.
fn metrics(core: &Core, headers: &HeaderMap) -> Response {
    let accept = value_of(headers, "accept").unwrap_or_default();
    let (text, kind) = if prefers_open_metrics(&accept) {
        (core.metrics.open_metrics(), "application/openmetrics-text; version=1.0.0; charset=utf-8")
    } else {
        (core.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
    };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// True if OpenMetrics is accepted with a weight not below plain text's. A client that accepts anything gets the format
/// that most scrapers read.
fn prefers_open_metrics(accept: &str) -> bool {
    let weight = |kind: &str| {
        let entries = accept.split(',').filter_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(kind));
            let q = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
            named.then(|| q.unwrap_or(0.0))
        });
        entries.fold(0.0, f32::max)
    };
    let open = weight("application/openmetrics-text");
    open > 0.0 && open >= weight("text/plain")
}

#[cfg(test)]
mod tests {
    use super::{is_own, prefers_open_metrics};

    #[test]
    fn open_metrics_is_for_who_prefers_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [prometheus, "application/openmetrics-text", "Application/OpenMetrics-Text; version=1.0.0, */*"] {
            assert!(prefers_open_metrics(accept), "{accept}");
        }
        let telegraf = "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1";
        let refused = "application/openmetrics-text;q=0";
        for accept in ["", "*/*", "text/plain;version=0.0.4", "text/html, */*;q=0.8", telegraf, refused] {
            assert!(!prefers_open_metrics(accept), "{accept}");
        }
    }

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
