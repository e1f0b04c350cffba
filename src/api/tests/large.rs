//! What is large is read on another thread than the listener's.

use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::super::aside_if;
use super::super::convert::{FetchMessage, PushMessage};
use super::{FetchBlobRequest, PushBlobRequest, Qualifier, rev2};
use crate::budget::Budget;

#[tokio::test]
async fn large_requests_are_read_elsewhere() {
    let here = thread::current().id();
    let read = async |large| aside_if(large, None, || thread::current().id()).await;
    assert_eq!(read(false).await.unwrap(), here);
    assert_ne!(read(true).await.unwrap(), here);
}

#[tokio::test]
#[should_panic(expected = "found by the layer for panics")]
async fn a_panic_elsewhere_is_one_here() {
    let panic = || panic!("found by the layer for panics");
    aside_if::<(), _>(true, None, panic).await.ok();
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

#[tokio::test]
async fn one_connection_has_one_thing_done_aside_at_a_time() {
    let budget = Budget::default();
    let (one, other) = (budget.share(), budget.share());
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let wait = move || {
        let _ = gate.recv();
    };
    let mut held = Box::pin(aside_if(true, Some(&one), wait));
    assert!((&mut held).now_or_never().is_none());
    // It has not even begun, so that nothing is left of it when it is given up.
    let second = aside_if(true, Some(&one), || ());
    let second = tokio::time::timeout(Duration::from_millis(100), second).await;
    assert!(second.is_err());
    aside_if(true, Some(&other), || ()).await.unwrap();
    drop(open);
    held.await.unwrap();
    aside_if(true, Some(&one), || ()).await.unwrap();
}
