//! The guard before both protocols: which scope a request needs, and whether its key has it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::access::{AccessError, KeyFile, Scope};
use crate::rest::error_body;

/// Asks each request for a key, health apart. It is to be the outermost layer but for logs.
pub fn guarded(router: Router, keys: Arc<KeyFile>) -> Router {
    router.layer(from_fn_with_state(keys, check))
}

async fn check(State(keys): State<Arc<KeyFile>>, request: Request, next: Next) -> Response {
    let Some(scope) = scope(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let known = keys.keys().check(authorization, scope, SystemTime::now()).map(|_| ());
    match known {
        Ok(()) => next.run(request).await,
        Err(error) => refused(&request, &error),
    }
}

/// What a request needs; nothing for health, which those ask who have no key. What is not known
/// needs the most, whatever becomes of it.
fn scope(method: &Method, path: &str) -> Option<Scope> {
    match path {
        "/v2/health/live"
        | "/v2/health/ready"
        | "/inference.GRPCInferenceService/ServerLive"
        | "/inference.GRPCInferenceService/ServerReady" => None,
        "/metrics" => Some(Scope::Metrics),
        "/inference.GRPCInferenceService/ServerMetadata"
        | "/inference.GRPCInferenceService/ModelMetadata"
        | "/inference.GRPCInferenceService/ModelReady" => Some(Scope::Read),
        _ if method == Method::GET || method == Method::HEAD => Some(Scope::Read),
        _ => Some(Scope::Infer),
    }
}

fn refused(request: &Request, error: &AccessError) -> Response {
    let known = matches!(error, AccessError::Scope { .. });
    let grpc = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if grpc.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        // UNAUTHENTICATED and PERMISSION_DENIED.
        let status = if known { tonic::Code::PermissionDenied } else { tonic::Code::Unauthenticated };
        return tonic::Status::new(status, error.to_string()).into_http::<Body>();
    }
    if known {
        return error_body(StatusCode::FORBIDDEN, &error.to_string());
    }
    let bearer = [(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
    (bearer, error_body(StatusCode::UNAUTHORIZED, &error.to_string())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_open_and_what_is_not_known_needs_the_most() {
        let get = |path| scope(&Method::GET, path);
        let post = |path| scope(&Method::POST, path);
        assert_eq!(get("/v2/health/ready"), None);
        assert_eq!(get("/v2/models/infer"), Some(Scope::Read));
        assert_eq!(get("/metrics"), Some(Scope::Metrics));
        assert_eq!(post("/v2/models/m/infer"), Some(Scope::Infer));
        assert_eq!(post("/inference.GRPCInferenceService/ModelInfer"), Some(Scope::Infer));
        assert_eq!(post("/inference.GRPCInferenceService/RepositoryIndex"), Some(Scope::Infer));
        assert_eq!(post("/inference.GRPCInferenceService/ModelReady"), Some(Scope::Read));
        assert_eq!(get("/v2/health/live/"), Some(Scope::Read));
        assert_eq!(get("/v2/health/%72eady"), Some(Scope::Read));
    }
}
