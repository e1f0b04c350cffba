//! The answers: which path says what.
//!
//! Not for: connections (`serve`).
//! Called by: `server`.

use std::fmt::Write as _;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::any;
use http::{Method, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{AllowedHosts, State, fetches as listing, host};
use crate::store::Report;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The admin pages.
pub fn router(state: State, hosts: AllowedHosts) -> Router {
    Router::new()
        .route("/", any(page))
        .route("/status", any(status))
        .route("/fetches", any(fetches))
        .route("/livez", any(alive))
        .route("/healthz", any(alive))
        .route("/-/healthy", any(alive))
        .route("/readyz", any(ready))
        .route("/metrics", any(numbers))
        .fallback(nothing)
        .layer(from_fn_with_state(hosts, guard))
        .with_state(state)
}

/// Only reads, and only under our own names.
async fn guard(Shared(hosts): Shared<AllowedHosts>, request: Request, next: Next) -> Response {
    let Ok(host) = host::named(&request) else {
        let text = "A request names one host: one Host header, and no other in its target.\n";
        return answer(StatusCode::BAD_REQUEST, TEXT, text.to_owned());
    };
    if !hosts.allows(host) {
        let text = "This port does not answer to the name it was asked under: use an address, or \
                    have the operator add the name to admin.hosts.\n";
        return answer(StatusCode::MISDIRECTED_REQUEST, TEXT, text.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = answer(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "Only GET and HEAD.\n".to_owned(),
        );
        refused
            .headers_mut()
            .insert(header::ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    next.run(request).await
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
             base-uri 'none'; form-action 'none'",
        ),
    ] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    response
}

async fn alive() -> Response {
    answer(StatusCode::OK, TEXT, "alive\n".to_owned())
}

async fn ready(Shared(state): Shared<State>) -> Response {
    let readiness = state.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer(status, TEXT, readiness.reason + "\n")
}

async fn numbers(Shared(state): Shared<State>) -> Response {
    answer(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        (state.metrics)(),
    )
}

async fn status(Shared(state): Shared<State>) -> Response {
    let readiness = state.readiness();
    let facts: Map<String, Value> = (state.facts)()
        .into_iter()
        .map(|(name, fact)| (name.to_owned(), json!(fact)))
        .collect();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": readiness.ready,
        "reason": readiness.reason,
        "facts": facts,
        "probes": (state.reports)().iter().map(|r| r.json()).collect::<Vec<_>>(),
    });
    answer(StatusCode::OK, "application/json", format!("{body:#}\n"))
}

async fn fetches(Shared(state): Shared<State>, request: Request) -> Response {
    let list = (state.fetches)();
    if listing::wants_json(&request) {
        return answer(StatusCode::OK, "application/json", listing::json(&list));
    }
    answer(StatusCode::OK, HTML, listing::page(&list))
}

async fn page(Shared(state): Shared<State>) -> Response {
    let readiness = state.readiness();
    let mut rows = String::new();
    let own = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("state", readiness.reason),
    ];
    for (name, fact) in own.into_iter().chain((state.facts)()) {
        let _ = writeln!(rows, "<tr><th>{}<td>{}", escape(name), escape(&fact));
    }
    let probes: String = (state.reports)().iter().map(|r| probe(r)).collect();
    let body = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Assetgate</title>\n\
         <style>body{{font:1rem sans-serif;margin:2rem}}th{{text-align:left;padding-right:1rem}}</style>\n\
         <h1>Assetgate</h1>\n<table>\n{rows}</table>\n{probes}\
         <p><a href=/metrics>metrics</a> <a href=/readyz>readyz</a> \
         <a href=/livez>livez</a> <a href=/status>status</a> <a href=/fetches>fetches</a>\n"
    );
    answer(StatusCode::OK, HTML, body)
}

/// What was found out of the cache, for one instance name.
fn probe(report: &Report) -> String {
    let mut rows = String::new();
    for line in report.lines() {
        let (title, text) = (escape(line.title), escape(&line.text));
        let _ = writeln!(rows, "<tr><th>{title}<td>{}<td>{text}", line.value);
    }
    format!(
        "<h2>Probe of instance &quot;{}&quot;</h2>\n<p>{}: {}\n<table>\n{rows}</table>\n",
        escape(report.instance.as_str()),
        humantime::format_rfc3339_seconds(report.at),
        escape(&report.summary()),
    )
}

async fn nothing() -> Response {
    let text = "Here are /, /status, /fetches, /metrics, /livez and /readyz.\n";
    answer(StatusCode::NOT_FOUND, TEXT, text.to_owned())
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::sync::watch;
    use tower::ServiceExt as _;

    use super::super::Readiness;
    use super::*;

    fn pages() -> (watch::Sender<Readiness>, Router) {
        let (told, readiness) = watch::channel(Readiness::unready("cache grpc://c:1 is <down>"));
        let facts = || vec![("upstream", "grpc://c:1 \"&'".to_owned())];
        let state = State::new(readiness, || "some_total 1\n".to_owned(), facts);
        (
            told,
            router(state, AllowedHosts::of("127.0.0.1:1".parse().unwrap(), &[])),
        )
    }

    async fn ask(router: &Router, method: &str, path: &str, host: &str) -> (u16, String) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .body(Body::empty())
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn alive_whatever_the_cache_does_and_ready_with_it() {
        let (told, router) = pages();
        for path in ["/livez", "/healthz", "/-/healthy"] {
            assert_eq!(
                ask(&router, "GET", path, "localhost").await.0,
                200,
                "{path}"
            );
        }
        let (status, body) = ask(&router, "GET", "/readyz", "localhost").await;
        assert_eq!(
            (status, body.as_str()),
            (503, "cache grpc://c:1 is <down>\n")
        );
        told.send(Readiness::ready()).unwrap();
        assert_eq!(
            ask(&router, "GET", "/readyz", "localhost").await,
            (200, "ready\n".to_owned())
        );
        told.send(Readiness::unready("draining")).unwrap();
        assert_eq!(ask(&router, "GET", "/readyz", "localhost").await.0, 503);
    }

    #[tokio::test]
    async fn pages_show_facts_and_escape_them() {
        let (_told, router) = pages();
        let (status, body) = ask(&router, "GET", "/", "localhost").await;
        assert_eq!(status, 200);
        assert!(body.contains("cache grpc://c:1 is &lt;down&gt;"), "{body}");
        assert!(
            body.contains("<th>upstream<td>grpc://c:1 &quot;&amp;&#39;"),
            "{body}"
        );

        let (_, body) = ask(&router, "GET", "/status", "localhost").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], false);
        assert_eq!(body["reason"], "cache grpc://c:1 is <down>");
        assert_eq!(body["facts"]["upstream"], "grpc://c:1 \"&'");
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));

        assert_eq!(
            ask(&router, "GET", "/metrics", "[::1]:1").await.1,
            "some_total 1\n"
        );
        assert_eq!(
            ask(&router, "HEAD", "/metrics", "localhost").await,
            (200, String::new())
        );
        assert_eq!(ask(&router, "GET", "/nope", "localhost").await.0, 404);
    }

    #[tokio::test]
    async fn only_reads_and_only_under_our_names() {
        let (_told, router) = pages();
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            for path in ["/livez", "/", "/nope"] {
                assert_eq!(
                    ask(&router, method, path, "localhost").await.0,
                    405,
                    "{method} {path}"
                );
            }
        }
        for path in ["/metrics", "/", "/nope"] {
            assert_eq!(
                ask(&router, "GET", path, "evil.example").await.0,
                421,
                "{path}"
            );
        }
    }
}
