//! HTTPS origins, HTTP/1.1 and HTTP/2.

use super::origin::{Origin, TlsOrigin, ok};
use super::*;

fn trusting(origin: &TlsOrigin) -> Rig {
    let ca = origin.ca.clone();
    Rig::with(|s| s.ca = Some(ca), FakeCache::default())
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    for (offered, spoken) in [
        (&["h2", "http/1.1"][..], "h2"),
        (&["http/1.1"], "http/1.1"),
        (&["h2"], "h2"),
    ] {
        let origin = TlsOrigin::start(offered, None, 3 << 20).await;
        let fetched = trusting(&origin).get(&[&origin.url()]).await.unwrap();
        assert_eq!(fetched.digest, digest(&vec![b'h'; 3 << 20]));
        assert_eq!(*origin.spoken.lock(), [spoken]);
    }
    let origin = TlsOrigin::start(&["h2", "http/1.1"], None, 1).await;
    let ca = origin.ca.clone();
    let rig = Rig::with(
        |s| {
            s.ca = Some(ca);
            s.http2 = false;
        },
        FakeCache::default(),
    );
    rig.get(&[&origin.url()]).await.unwrap();
    assert_eq!(*origin.spoken.lock(), ["http/1.1"]);
}

#[tokio::test]
async fn an_untrusted_certificate_and_a_wrong_name_fail() {
    let origin = TlsOrigin::start(&["http/1.1"], None, 1).await;
    let (failure, _, message) = Rig::new().failure(&request(&[&origin.url()])).await;
    assert_eq!(failure, Failure::Unavailable { retry_after: None });
    assert!(message.contains("TLS with localhost failed"), "{message}");
    assert!(
        !message.contains("tries"),
        "it would be the same: {message}"
    );
    let by = scripted(&["127.0.0.1"]);
    let ca = origin.ca.clone();
    let rig = Rig::resolving(|s| s.ca = Some(ca), FakeCache::default(), by);
    let url = format!("https://other.example:{}/x", origin.port);
    let (_, _, message) = rig.failure(&request(&[&url])).await;
    assert!(
        message.contains("TLS with other.example failed"),
        "{message}"
    );
    let plain = Origin::start(|_| ok(b"x")).await;
    let url = plain.url("/").replace("http:", "https:");
    let (failure, ..) = rig.failure(&request(&[&url])).await;
    assert_eq!(failure, Failure::Unavailable { retry_after: None });
}

#[tokio::test]
async fn from_https_to_http_only_with_a_checksum_and_without_credentials() {
    let plain = Origin::start(|_| ok(b"plain")).await;
    let origin = TlsOrigin::start(&["http/1.1"], Some(plain.url("/x")), 0).await;
    let rig = trusting(&origin);
    let (failure, _, message) = rig.failure(&request(&[&origin.url()])).await;
    assert_eq!(failure, Failure::Disallowed, "{message}");
    let mut request = with_headers(&[&origin.url()], &[("http_header:Authorization", "S3CRET")]);
    request.integrity = pinned(&[], b"plain").integrity;
    rig.fetch(&request).await.unwrap();
    assert_eq!(plain.requests(), 1);
    assert!(!plain.head(0).contains("S3CRET"));
}

#[test]
fn a_ca_file_that_holds_none_is_told_with_the_other_errors() {
    let settings = Settings {
        ca: Some("/nonexistent.pem".into()),
        max_size: 0,
        ..Settings::default()
    };
    let errors = HttpFetcher::new(settings, FakeCache::default().client())
        .err()
        .unwrap();
    let keys: Vec<_> = errors.iter().map(|e| e.key).collect();
    assert_eq!(keys, ["max_size", "ca"]);
}
