//! Promises P4 and P5 where they meet: the service's own credential, who may
//! borrow it, and what may be written with it (scenarios 37 and 46).

use assetgate::proto::asset::PushBlobRequest;
use assetgate::proto::rev2::{FindMissingBlobsRequest, GetCapabilitiesRequest};
use tonic::Status;

use crate::support::answer::{fields, says};
use crate::support::upstream::Call;
use crate::support::{
    Code, Dir, File, Function, Origin, Proxy, Qualified as _, Upstream, digest_of, eventually,
    fetch_blob, fetch_directory, hit, inline, push_blob, push_directory, refused, sri,
};

const URN: [&str; 1] = ["urn:example:credentials"];
const SERVICE: &str = "Bearer of-the-service";
const CALLER: &str = "Bearer of-the-caller";

fn service() -> File {
    File::new(&format!("authorization: {SERVICE}\nx-tenant: service\n"))
}

fn with_credential(cache: &Upstream, file: &File) -> Proxy {
    let proxy = Proxy::new().upstream(cache).arg("--upstream-credential");
    let proxy = proxy.arg(file.path());
    proxy.config("[push]\ninstances = [\"*\"]\n")
}

fn own(call: &Call) -> bool {
    call.metadata
        .contains_key("build.bazel.remote.execution.v2.requestmetadata-bin")
        && call.tool() == "assetgate"
}

#[tokio::test]
async fn p5_asset_calls_carry_the_services_credential_and_nothing_of_the_callers() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    cache.demand_token(SERVICE, Code::PermissionDenied);
    let file = service();
    let (_proxy, client) = with_credential(&cache, &file).connected().await;
    let client = client
        .with("authorization", CALLER)
        .with("x-tenant", "caller")
        .with("x-buildbuddy-api-key", "of-the-caller")
        .with("x-more-bin", "of-the-caller");
    let blob = cache.put(b"blob");
    let dir = Dir::new().file("f", b"blob");
    cache.put_all(&dir.closure());
    client
        .push_blob(push_blob(&URN, blob.clone()))
        .await
        .unwrap();
    let push = push_directory(&["urn:example:dir"], dir.digest());
    client.push_directory(push).await.unwrap();
    assert_eq!(hit(client.fetch_blob(fetch_blob(&URN)).await), blob);
    let fetch = fetch_directory(&["urn:example:dir"]);
    assert_eq!(hit(client.fetch_directory(fetch).await), dir.digest());
    let pinned = fetch_blob(&[origin.url("/a")]);
    let pinned = pinned.qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    hit(client.fetch_blob(pinned).await);
    hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);

    let calls = cache.calls();
    let mut methods: Vec<&str> = calls.iter().map(Call::method).collect();
    methods.sort_unstable();
    methods.dedup();
    for method in [
        "BatchUpdateBlobs",
        "FindMissingBlobs",
        "GetActionResult",
        "GetCapabilities",
        "UpdateActionResult",
    ] {
        assert!(methods.contains(&method), "{methods:?}");
    }
    for call in &calls {
        assert!(own(call), "{}", call.path);
        assert_eq!(call.value("authorization"), Some(SERVICE), "{}", call.path);
        assert_eq!(call.value("x-tenant"), Some("service"), "{}", call.path);
        assert_eq!(call.value("x-buildbuddy-api-key"), None, "{}", call.path);
        assert_eq!(call.value("x-more-bin"), None, "{}", call.path);
    }
    let all = String::from_utf8_lossy(&cache.everything()).into_owned();
    assert!(!all.contains("of-the-caller"), "{all}");
}

#[tokio::test]
async fn p5_forwarded_calls_keep_carrying_the_callers_metadata() {
    let cache = Upstream::start();
    let file = service();
    let (_proxy, client) = with_credential(&cache, &file).connected().await;
    let capabilities = GetCapabilitiesRequest::default;
    client.get_capabilities(capabilities()).await.unwrap();
    let with = client.with("authorization", CALLER);
    with.get_capabilities(capabilities()).await.unwrap();
    with.upload(b"blob").await;
    let find = FindMissingBlobsRequest::default();
    with.find_missing_blobs(find).await.unwrap();
    with.blob(&digest_of(b"blob")).await.unwrap();
    let calls = cache.calls();
    assert_eq!(calls.len(), 5);
    for (index, call) in calls.iter().enumerate() {
        let sent = (index > 0).then_some(CALLER);
        assert_eq!(call.value("authorization"), sent, "{}", call.path);
        assert_eq!(call.value("x-tenant"), None, "{}", call.path);
    }
}

#[tokio::test]
async fn p5_a_changed_credential_is_used_and_a_broken_one_is_not() {
    let cache = Upstream::start();
    let file = service();
    let (proxy, client) = with_credential(&cache, &file).connected().await;
    let sent = async || {
        client.fetch_blob(fetch_blob(&URN)).await.unwrap();
        let calls = cache.calls_of("GetActionResult");
        calls
            .last()
            .unwrap()
            .value("authorization")
            .map(str::to_owned)
    };
    assert_eq!(sent().await.as_deref(), Some(SERVICE));
    file.write("Bearer half-a-secret");
    eventually("the complaint", async || {
        let text = proxy.stderr().text();
        text.contains("line 1 is not of the form").then_some(())
    })
    .await;
    assert_eq!(sent().await.as_deref(), Some(SERVICE));
    file.write("authorization: Bearer of-tomorrow");
    eventually("the new credential", async || {
        (sent().await.as_deref() == Some("Bearer of-tomorrow")).then_some(())
    })
    .await;
    let printed = proxy.stderr().text();
    for secret in ["of-the-service", "of-tomorrow", "half-a-secret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    // Quoted by a cache that still knows the old one.
    let quote = "no longer valid: of-the-service; no good: of-tomorrow";
    cache.fail("GetActionResult", Status::unauthenticated(quote));
    let status = refused(
        client.fetch_blob(fetch_blob(&URN)).await,
        Code::Unauthenticated,
    );
    says(status.message(), &["no longer valid: …; no good: …"]);
}

#[tokio::test]
async fn p5_an_open_listener_with_a_credential_does_not_start() {
    let file = service();
    let open = |config: &str| {
        let proxy = Proxy::new().listen("0.0.0.0:0").config(config);
        let proxy = proxy.upstream_at("grpc://127.0.0.1:1");
        proxy.arg("--upstream-credential").arg(file.path())
    };
    let (status, printed) = open("[push]\nenabled = false\n").start_to_end().await;
    assert_eq!(status.code(), Some(64), "{printed}");
    says(
        &printed,
        &["`upstream.credential` would lend", "allow_anonymous"],
    );
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let allowed = open("allow_anonymous = true\n[push]\nenabled = false\n");
    allowed.start().await;
    // Whoever may push with it has to be said.
    let (status, printed) = open("allow_anonymous = true\n").start_to_end().await;
    assert_eq!(status.code(), Some(64), "{printed}");
    says(&printed, &["push.instances = ["]);
    file.write("hunter2");
    let (status, printed) = open("allow_anonymous = true\npush.instances = \"*\"\n")
        .start_to_end()
        .await;
    assert_eq!(status.code(), Some(64), "{printed}");
    says(&printed, &["line 1 is not of the form"]);
    assert!(!printed.contains("hunter2"), "{printed}");
}

/// Scenario 37: where pushing is not allowed, fetching may be, and the other
/// way round.
#[tokio::test]
async fn p4_pushes_and_fetches_are_allowed_instance_by_instance() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let config = "[push]\ninstances = [\"p/*\"]\n[fetch]\ninstances = [\"\", \"f\"]\n";
    let (_proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(config)
        .connected()
        .await;
    let blob = digest_of(b"");
    for name in ["", "f", "pp"] {
        for message in [PushBlobRequest::default(), push_blob(&URN, blob.clone())] {
            let push = client.push_blob(message.instance(name)).await;
            let status = refused(push, Code::PermissionDenied);
            says(status.message(), &["push.instances", &format!("{name:?}")]);
        }
        let push = push_directory(&URN, blob.clone()).instance(name);
        refused(client.push_directory(push).await, Code::PermissionDenied);
    }
    assert_eq!(cache.calls().len(), 0, "decided before the cache is asked");
    for name in ["p", "p/q"] {
        let probe = client.push_blob(PushBlobRequest::default().instance(name));
        assert_eq!(
            fields(&refused(probe.await, Code::InvalidArgument)),
            ["uris"]
        );
        let push = push_blob(&[origin.url("/a")], blob.clone()).instance(name);
        client.push_blob(push).await.unwrap();
    }
    let fetch = |name| client.fetch_blob(fetch_blob(&[origin.url("/a")]).instance(name));
    // A hit is answered, whatever the instance.
    assert_eq!(hit(fetch("p/q").await), blob);
    for name in ["", "f"] {
        assert_eq!(hit(fetch(name).await), digest_of(b"content"));
    }
    assert_eq!(origin.total(), 2);
}

/// Scenario 46.
#[tokio::test]
async fn s46_a_miss_that_may_not_be_written_asks_no_origin() {
    let origin = Origin::new().file("/a", "content").start().await;
    let cache = Upstream::start();
    let config = "[fetch]\ninstances = [\"other\"]\n";
    let (_proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(config)
        .connected()
        .await;
    let blob = cache.put(b"blob");
    let pushed = format!("{}?pushed", origin.url("/a"));
    client
        .push_blob(push_blob(&[&pushed], blob.clone()))
        .await
        .unwrap();
    assert_eq!(hit(client.fetch_blob(fetch_blob(&[&pushed])).await), blob);
    let before = cache.blobs().len();
    let cold = fetch_blob(&[origin.url("/a")]);
    let pinned = cold
        .clone()
        .qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    for request in [cold, pinned] {
        let answer = client.tool("bazel", "9.0.0").fetch_blob(request).await;
        let status = refused(answer, Code::PermissionDenied);
        says(
            status.message(),
            &["fetch.instances", "instance \"\"", "origin"],
        );
    }
    assert_eq!((origin.total(), cache.blobs().len()), (0, before));
    // Scenario 43: what no origin can be asked for is merely not there.
    inline(client.fetch_blob(fetch_blob(&URN)).await, Code::NotFound);
    inline(
        client.fetch_directory(fetch_directory(&URN)).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn p4_uris_are_allowed_by_prefix_and_denied_ones_win() {
    let cache = Upstream::start();
    let config = "[push]\nallow_uris = [\"https://good.example/\", \"urn:\"]\n\
                  deny_uris = [\"https://good.example/no/\"]\n";
    let (_proxy, client) = Proxy::new()
        .upstream(&cache)
        .config(config)
        .connected()
        .await;
    let digest = cache.put(b"blob");
    let good = "https://good.example/a";
    for (bad, setting) in [
        ("https://good.example.evil/a", "push.allow_uris"),
        ("http://good.example/a", "push.allow_uris"),
        ("https://good.example/no/a", "push.deny_uris"),
        (
            "https://u:hunter2@good.example/no/a?sig=hunter2",
            "push.deny_uris",
        ),
    ] {
        let push = push_blob(&[good, bad], digest.clone());
        let status = refused(client.push_blob(push).await, Code::PermissionDenied);
        says(status.message(), &[setting, "/a"]);
        assert!(!status.message().contains("hunter2"), "{status:?}");
    }
    assert_eq!(cache.calls().len(), 0, "decided before the cache is asked");
    let push = push_blob(&[good, URN[0]], digest.clone());
    client.push_blob(push).await.unwrap();
    assert_eq!(hit(client.fetch_blob(fetch_blob(&[good])).await), digest);
}
