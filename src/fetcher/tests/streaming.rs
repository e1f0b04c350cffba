//! Content of known digest goes into the cache as it arrives.

use std::sync::atomic::Ordering;

use super::origin::{Origin, Step, answer, ok};
use super::*;

const SIZE: usize = 3 << 20;

fn served(path: &str) -> Vec<Step> {
    let content = vec![b'x'; SIZE];
    match path {
        "/cut" => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
            let part = [head.as_bytes(), &content[..SIZE - 1]].concat();
            vec![
                Step::Send(part),
                Step::Sleep(Duration::from_millis(50)),
                Step::Reset,
            ]
        }
        "/changed" => {
            let mut other = content;
            *other.last_mut().unwrap() = b'y';
            ok(&other)
        }
        "/chunked" => {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let body = format!("{SIZE:x}\r\n");
            let steps = [head.as_bytes(), body.as_bytes(), &content, b"\r\n0\r\n\r\n"].concat();
            vec![Step::Send(steps)]
        }
        _ => answer("200 OK", "", &content),
    }
}

/// A rig that has no room to keep what is large.
fn without_room() -> Rig {
    Rig::with(|s| s.spool_size = 1 << 20, FakeCache::default())
}

#[tokio::test]
async fn content_of_known_digest_takes_no_room_on_its_way() {
    let (origin, rig) = (Origin::start(served).await, without_room());
    let content = vec![b'x'; SIZE];
    let fetched = rig
        .fetch(&pinned(&[&origin.url("/x")], &content))
        .await
        .unwrap();
    assert_eq!(rig.cache.streamed.load(Ordering::SeqCst), 1);
    assert_eq!(rig.cache.get(&fetched.digest).unwrap(), content);
    // Of the others the digest is not known beforehand.
    let chunked = pinned(&[&origin.url("/chunked")], b"");
    let no_checksum = request(&[&origin.url("/x")]);
    let other = crate::asset::Algorithm::Sha512;
    let raw = Digest::of(other.function(), &content).unwrap().raw();
    let checksum = crate::asset::Checksum::new(other, &raw).unwrap();
    let mut other_function = super::request(&[&origin.url("/other")]);
    other_function.integrity = Some(Integrity::parse(&checksum.to_string()).unwrap());
    for request in [chunked, no_checksum, other_function] {
        let error = rig.fetch(&request).await.unwrap_err();
        assert!(matches!(error, FetchError::NoRoom(_)), "{error}");
    }
}

#[tokio::test]
async fn scenario_6_and_9_what_is_wrong_at_the_very_end_is_never_stored() {
    let origin = Origin::start(served).await;
    let rig = Rig::with(
        |s| {
            s.spool_size = 1 << 20;
            s.attempts = 1;
        },
        FakeCache::default(),
    );
    let content = vec![b'x'; SIZE];
    for (path, want) in [
        ("/changed", Failure::Mismatch),
        ("/cut", Failure::Unavailable { retry_after: None }),
    ] {
        let (failure, ..) = rig.failure(&pinned(&[&origin.url(path)], &content)).await;
        assert_eq!(failure, want, "{path}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(rig.cache.blobs.lock().is_empty(), "{path}");
        assert_eq!(rig.open_files(), 0);
    }
    // The next mirror has it right.
    let urls = [origin.url("/changed"), origin.url("/x")];
    let fetched = rig.fetch(&pinned(&[&urls[0], &urls[1]], &content)).await;
    assert_eq!(fetched.unwrap().uri_index, 1);
}

#[tokio::test]
async fn a_cache_is_asked_before_and_after_and_not_in_between() {
    let origin = Origin::start(|path| match path {
        "/small" => ok(b"small"),
        _ => served(path),
    });
    let (origin, rig) = (origin.await, Rig::new());
    let large = vec![b'x'; SIZE];
    for (path, content) in [("/small", &b"small"[..]), ("/x", &large)] {
        let before = rig.cache.asked.load(Ordering::SeqCst);
        let request = pinned(&[&origin.url(path)], content);
        rig.fetch(&request).await.unwrap();
        assert_eq!(rig.cache.asked.load(Ordering::SeqCst) - before, 2, "{path}");
    }
}

#[tokio::test]
async fn h3_a_cache_that_ends_an_upload_early_is_believed_for_what_came_only() {
    let origin = Origin::start(served).await;
    let content = vec![b'x'; SIZE];
    let cache = FakeCache {
        ends_early: true,
        ignores_size: true,
        ..FakeCache::default()
    };
    // As casd and BuildGrid do, which look at the hash alone.
    let blob = bytes::Bytes::from(content.clone());
    cache.blobs.lock().insert(digest(&content), blob);
    let rig = Rig::with(|s| s.attempts = 1, cache);
    let request = pinned(&[&origin.url("/x")], &content);
    assert_eq!(rig.fetch(&request).await.unwrap().digest, digest(&content));
    let request = pinned(&[&origin.url("/changed")], &content);
    let (failure, ..) = rig.failure(&request).await;
    assert_eq!(failure, Failure::Mismatch);
}

#[tokio::test]
async fn a_list_of_checksums_leaves_the_digest_open() {
    let origin = Origin::start(served).await;
    let rig = Rig::new();
    let content = vec![b'x'; SIZE];
    let right = pinned(&[], &content).integrity.unwrap().to_string();
    let wrong = pinned(&[], b"other").integrity.unwrap().to_string();
    let mut request = request(&[&origin.url("/x")]);
    request.integrity = Some(Integrity::parse(&format!("{wrong} {right}")).unwrap());
    let fetched = rig.fetch(&request).await.unwrap();
    assert_eq!(fetched.digest, digest(&content));
}

#[tokio::test]
async fn a_cache_that_refuses_the_upload_is_heard_at_once() {
    let origin = Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
        vec![
            Step::Send(head.as_bytes().to_vec()),
            Step::Repeat(vec![0; 64 << 10], 64),
            Step::Hang,
        ]
    });
    let origin = origin.await;
    let cache = FakeCache {
        refuses_writes: true,
        ..FakeCache::default()
    };
    let rig = Rig::with(|s| s.max_size = u64::MAX, cache);
    let error = rig
        .fetch(&pinned(&[&origin.url("/x")], b""))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, FetchError::Upstream(e) if e.code() == Some(tonic::Code::ResourceExhausted)),
        "{error}"
    );
}
