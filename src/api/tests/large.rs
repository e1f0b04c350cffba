//! What is large is read on another thread than the listener's.

use std::thread;

use super::super::aside_if;
use super::super::convert::{FetchMessage, PushMessage};
use super::{FetchBlobRequest, PushBlobRequest, Qualifier, rev2};

#[tokio::test]
async fn large_requests_are_read_elsewhere() {
    let here = thread::current().id();
    let read = async |large| aside_if(large, || thread::current().id()).await;
    assert_eq!(read(false).await.unwrap(), here);
    assert_ne!(read(true).await.unwrap(), here);
}

#[tokio::test]
#[should_panic(expected = "found by the layer for panics")]
async fn a_panic_elsewhere_is_one_here() {
    let panic = || panic!("found by the layer for panics");
    aside_if::<(), _>(true, panic).await.ok();
}

#[test]
fn ordinary_requests_are_not_large() {
    let uri = |bytes| "https://h.example/".bytes().cycle().take(bytes).collect();
    let fetch = |uris: usize, bytes: usize, headers: usize| {
        let header = |i| Qualifier {
            name: format!("http_header_url:{i}:Authorization"),
            value: "Bearer abcdefghijklmnop".to_owned(),
        };
        let uris: Vec<Vec<u8>> = vec![uri(bytes); uris];
        FetchMessage::from(FetchBlobRequest {
            uris: uris.into_iter().map(Into::into).collect(),
            qualifiers: (0..headers).map(header).collect(),
            ..Default::default()
        })
    };
    assert!(!fetch(1, 100, 1).is_large());
    assert!(!fetch(64, 100, 64).is_large());
    assert!(fetch(64, 16 << 10, 0).is_large());
    assert!(fetch(2, 16 << 10, 0).is_large());
    assert!(fetch(1, 100, 1001).is_large());
    let push = |references| {
        PushMessage::from(PushBlobRequest {
            references_blobs: vec![rev2::Digest::default(); references],
            ..Default::default()
        })
    };
    assert!(!push(100).is_large());
    assert!(push(1001).is_large());
}
