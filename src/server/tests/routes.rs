//! Our own services, and the embedded cache in the upstream's place.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, service_fn};

use super::support::*;
use crate::forward::{Forward, Observer, Target};
use crate::intake::{Intake, IntakeLayer};
use crate::server::{Dispatch, Native, PeerInfo};
use crate::upstream::{Pool, PoolSettings};

const ASSET: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";
const OTHER: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

/// A router that answers `ASSET` itself and forwards the rest.
fn router(forward: Forward) -> Routes {
    let mut routes = Routes::default();
    let own = |request: axum::extract::Request| async move {
        let peer = request.extensions().get::<Arc<PeerInfo>>().unwrap();
        format!("ours, for {}", peer.address.unwrap().ip())
    };
    let router = std::mem::take(routes.axum_router_mut());
    *routes.axum_router_mut() = router
        .route(ASSET, axum::routing::post(own))
        .fallback_service(forward.into_fallback());
    routes
}

fn native(routes: Routes) -> Native {
    BoxCloneSyncService::new(routes)
}

fn dispatch(pool: &PoolSettings, short_cut: bool) -> Dispatch {
    let target = Target::Pool(Pool::new(pool.clone()));
    let forward = Forward::new(target, Arc::new(Observer::default()));
    let native = native(router(forward.clone()));
    if short_cut {
        return Dispatch::new(forward, native);
    }
    // Everything "forwarded" goes through the router instead.
    let all = Routes::default();
    let mut all = all;
    *all.axum_router_mut() = axum::Router::new().fallback_service(service_fn(
        move |mut request: axum::extract::Request| {
            let mut native = native.clone();
            request.extensions_mut().insert(Arc::new(PeerInfo {
                address: Some("127.0.0.1:1".parse().unwrap()),
                ..PeerInfo::default()
            }));
            async move {
                let answer = tower::Service::call(&mut native, request.map(Body::new)).await;
                Ok::<Response<Body>, Infallible>(answer.unwrap())
            }
        },
    ));
    let forward = Forward::new(Target::Routes(taken_in(all)), Arc::new(Observer::default()));
    Dispatch::forward_only(forward)
}

fn taken_in(routes: Routes) -> Intake<Routes> {
    IntakeLayer::here().layer(routes)
}

#[tokio::test]
async fn the_short_cut_and_the_router_answer_alike() {
    let stub = Stub::start(echo).await;
    let pool = pool_settings(&[&stub.url()]);
    let mut answers = Vec::new();
    for short_cut in [true, false] {
        let pool = pool.clone();
        let proxy = Proxy::serve(listener_settings(), move || dispatch(&pool, short_cut));
        let client = Client::connect(proxy.address).await;
        let mut all = Vec::new();
        for path in [ASSET, OTHER, "/build.bazel.remote.asset.v1.Fetch/New", "/x"] {
            let answer = client.call(request(path), "body").await;
            all.push((
                answer.head.status,
                answer.head.headers,
                answer.body,
                answer.trailers,
            ));
        }
        answers.push(all);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][0].2, "ours, for 127.0.0.1");
    assert_eq!(answers[0][1].2, "body");
}

#[tokio::test]
async fn the_embedded_cache_takes_the_upstreams_place() {
    let cache = service_fn(|request: axum::extract::Request| async move {
        let (head, body) = request.into_parts();
        assert_eq!(head.headers["content-type"], "application/grpc");
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert("path", head.uri.path().parse().unwrap());
        Ok::<_, Infallible>(response)
    });
    let mut routes = Routes::default();
    *routes.axum_router_mut() = axum::Router::new().fallback_service(cache);
    let proxy = Proxy::serve(listener_settings(), move || {
        let target = Target::Routes(taken_in(routes.clone()));
        Dispatch::forward_only(Forward::new(target, Arc::new(Observer::default())))
    });
    let client = Client::connect(proxy.address).await;
    let answer = client.call(request(OTHER), vec![5; 3_000_000]).await;
    assert_eq!(answer.head.headers["path"], OTHER);
    assert_eq!(answer.body.len(), 3_000_000);
}

#[tokio::test]
async fn typed_clients_reach_the_upstream_over_the_pool() {
    use tower::ServiceExt;
    let stub = Stub::start(echo).await;
    let upstream = Pool::new(pool_settings(&[&stub.url()])).into_upstream();
    let request = Request::post(OTHER)
        .header("content-type", "application/grpc")
        .body(Body::new(http_body_util::Full::from("hello")))
        .unwrap();
    let response = upstream.oneshot(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "hello");

    let nobody = format!("grpc://{}", free_port().await);
    let upstream = Pool::new(pool_settings(&[&nobody])).into_upstream();
    let error = upstream
        .oneshot(Request::new(Body::empty()))
        .await
        .unwrap_err();
    let error = error.downcast::<crate::upstream::TransportError>().unwrap();
    assert!(error.to_string().contains("cannot reach"), "{error}");
    assert!(!error.to_string().contains(&nobody), "{error}");
}

#[tokio::test]
async fn some_services_have_a_server_of_their_own() {
    let [cache, other, special] = [
        Stub::start(echo).await,
        Stub::start(echo).await,
        Stub::start(echo).await,
    ];
    let pools = [&cache, &other, &special].map(|stub| pool_settings(&[&stub.url()]));
    let proxy = Proxy::serve(listener_settings(), move || {
        let target = |i: usize| Target::Pool(Pool::new(pools[i].clone()));
        let forward = Forward::new(target(0), Arc::new(Observer::default()))
            .with_route("execution.", target(1))
            .with_route("execution.Special", target(2));
        Dispatch::forward_only(forward)
    });
    let client = Client::connect(proxy.address).await;
    for path in [
        "/execution.Any/Run",
        "/execution.Special/Run",
        "/cache.execution.X/Get",
        "/exec/Y",
    ] {
        let answer = client.call(request(path), "body").await;
        assert_eq!(answer.body, "body", "{path}");
    }
    let calls =
        [&cache, &other, &special].map(|stub| stub.calls.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(calls, [2, 1, 1]);
}
