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
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use axum::response::Response;
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
    let route = route(&core, parts.uri.path());
    let (endpoint, methods) = route.as_ref().map_or(("unknown", ""), |route| route.about());
    let outcome = match route {
        Ok(route) => go(&core, route, &parts, methods, &mut body).await,
        Err(error) => Err(error),
    };
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

fn route(core: &Core, path: &str) -> Result<Route, InferError> {
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').take(8).collect();
    let unknown = || InferError::UnknownPath(format!("`{}`", shortened(path)));
    Ok(match segments.as_slice() {
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
            core.check_model(model, version)?;
            route
        }
        _ => return Err(unknown()),
    })
}

async fn go(
    core: &Arc<Core>,
    route: Route,
    parts: &Parts,
    methods: &str,
    body: &mut Body,
) -> Result<Response, InferError> {
    let get = matches!(parts.method, Method::GET | Method::HEAD);
    let fits = if methods == "POST" { parts.method == Method::POST } else { get };
    if !fits {
        let (path, method) = (shortened(parts.uri.path()), shortened(parts.method.as_str()));
        return Err(InferError::Method { path, method });
    }
    if !route.is_open() {
        admit(core, &parts.headers)?;
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

/// The token, and no page of another site.
fn admit(core: &Core, headers: &HeaderMap) -> Result<(), InferError> {
    let told = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
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
