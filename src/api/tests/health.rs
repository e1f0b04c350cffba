//! Health and reflection.

use crate::proto::health::HealthCheckRequest;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_client::HealthClient;

use super::*;

async fn check(server: &Server, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let answer = HealthClient::new(server.routes()).check(request).await;
    answer
        .map(|a| a.into_inner().status())
        .map_err(|s| s.code())
}

const FETCH: &str = "build.bazel.remote.asset.v1.Fetch";
const PUSH: &str = "build.bazel.remote.asset.v1.Push";

#[tokio::test]
async fn our_names_serve_until_draining_begins() {
    let mut server = Server::new();
    for name in ["", FETCH, PUSH] {
        assert_eq!(check(&server, name).await, Ok(ServingStatus::Serving));
    }
    let request = HealthCheckRequest::default();
    let watched = HealthClient::new(server.routes()).watch(request).await;
    let mut watched = watched.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    server.world.drain.start();
    let second = watched.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert_eq!(watched.message().await.unwrap(), None, "the stream ends");
    assert_eq!(check(&server, "").await, Ok(ServingStatus::NotServing));

    server.world.drain = crate::drain::Drain::new();
    server.settings.push = false;
    assert_eq!(check(&server, PUSH).await, Ok(ServingStatus::NotServing));
    assert_eq!(check(&server, FETCH).await, Ok(ServingStatus::Serving));
}

#[tokio::test]
async fn other_names_are_the_caches() {
    let mut server = Server::new();
    assert_eq!(
        check(&server, "x.Y").await,
        Err(Code::Unimplemented),
        "a cache without health"
    );
    let down = tower::service_fn(|_| async {
        Err::<http::Response<tonic::body::Body>, tower::BoxError>("connection refused".into())
    });
    server.upstream = Upstream::new(down);
    assert_eq!(check(&server, "x.Y").await, Err(Code::Unavailable));
    assert_eq!(check(&server, "").await, Ok(ServingStatus::Serving));
    // A cache that has it, played by another of these.
    let other = Server::new();
    other.world.drain.start();
    server.upstream = cache(other.routes());
    assert_eq!(
        check(&server, "unknown.Service").await,
        Err(Code::Unimplemented)
    );
}

#[tokio::test]
async fn a_cache_whose_health_makes_no_sense_is_not_the_callers_fault() {
    let mut server = Server::new();
    let nonsense = tower::service_fn(|_| async {
        let frame = Bytes::from_static(b"\0\0\0\0\x02\x0a\xff");
        let answer = http::Response::builder().header("content-type", "application/grpc");
        let body = tonic::body::Body::new(http_body_util::Full::new(frame));
        Ok::<_, tower::BoxError>(answer.body(body).unwrap())
    });
    server.upstream = Upstream::new(nonsense);
    assert_eq!(check(&server, "x.Y").await, Err(Code::Internal));
    let request = HealthCheckRequest {
        service: "x.Y".into(),
    };
    let watched = HealthClient::new(server.routes()).watch(request).await;
    let error = watched.unwrap().into_inner().message().await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let stream = tokio_stream::iter([request]);
    let mut client = ServerReflectionClient::new(Server::new().routes_with_reflection());
    let mut answers = client
        .server_reflection_info(stream)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    for want in [
        FETCH,
        PUSH,
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
        "google.bytestream.ByteStream",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|n| n == want), "{want} in {names:?}");
    }
}
