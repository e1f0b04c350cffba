//! Going on with a body that was cut off.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::origin::{Origin, Step};
use super::*;

const SIZE: usize = 200_000;
const CUT: usize = 120_000;

fn content(version: u8) -> Vec<u8> {
    let bytes = (0..SIZE).map(|i| (i as u8).wrapping_mul(31) ^ version);
    bytes.collect()
}

/// An origin whose first answer breaks off.
#[derive(Clone)]
struct Cutting {
    /// More of the first head.
    headers: &'static str,
    chunked: bool,
    /// How it answers what asks for the rest.
    rest: Rest,
}

#[derive(Clone, Copy)]
enum Rest {
    /// The rest.
    Right,
    /// All of another version.
    Whole,
    /// The rest of another version, as if it were of this one.
    OfAnother,
    /// A part that begins elsewhere.
    Elsewhere,
    Unsatisfiable,
    /// The same beginning, cut off again.
    CutAgain,
}

fn first(headers: &str, chunked: bool) -> Vec<Step> {
    let framing = match chunked {
        true => format!("transfer-encoding: chunked\r\n\r\n{SIZE:x}\r\n"),
        false => format!("content-length: {SIZE}\r\n\r\n"),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{headers}{framing}");
    let part = [head.as_bytes(), &content(0)[..CUT]].concat();
    // What was sent shall arrive before the connection breaks.
    let wait = Step::Sleep(Duration::from_millis(50));
    vec![Step::Send(part), wait, Step::Reset]
}

fn whole(version: u8) -> Vec<Step> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
    vec![Step::Send([head.as_bytes(), &content(version)].concat())]
}

fn part(version: u8, start: usize) -> Vec<Step> {
    let (end, left) = (SIZE - 1, SIZE - start);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{end}/{SIZE}\r\n\
         content-length: {left}\r\n\r\n"
    );
    let body = &content(version)[start..];
    vec![Step::Send([head.as_bytes(), body].concat())]
}

async fn start(how: Cutting) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::by_head(move |head| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        let range = head.lines().find_map(|l| l.strip_prefix("range: bytes="));
        let from: Option<usize> = range.map(|r| r.trim_end_matches('-').parse().unwrap());
        match (number, from) {
            (0, None) => first(how.headers, how.chunked),
            (_, None) => whole(0),
            (_, Some(from)) => match how.rest {
                Rest::Right => part(0, from),
                Rest::Whole => whole(1),
                Rest::OfAnother => part(1, from),
                Rest::Elsewhere => part(0, from - 1),
                Rest::Unsatisfiable => super::origin::status("416 Range Not Satisfiable"),
                Rest::CutAgain => first(how.headers, how.chunked),
            },
        }
    })
    .await
}

const TAGGED: &str = "etag: \"v\"\r\n";

fn cutting(headers: &'static str, rest: Rest) -> Cutting {
    Cutting {
        headers,
        chunked: false,
        rest,
    }
}

fn ranges(origin: &Origin) -> Vec<(bool, bool)> {
    let heads = origin.heads.lock();
    let said = |head: &String, what: &str| head.contains(what);
    let each = heads.iter();
    each.map(|h| (said(h, "\r\nrange: "), said(h, "\r\nif-range: ")))
        .collect()
}

#[tokio::test]
async fn a_body_that_was_cut_off_is_gone_on_with() {
    for (headers, pinned, chunked, held) in [
        (TAGGED, false, false, true),
        (TAGGED, true, false, true),
        (TAGGED, false, true, true),
        ("", true, false, false),
        ("etag: W/\"v\"\r\n", true, true, false),
    ] {
        let how = Cutting {
            chunked,
            ..cutting(headers, Rest::Right)
        };
        let (origin, rig) = (start(how).await, Rig::new());
        let url = origin.url("/x");
        let request = match pinned {
            true => super::pinned(&[&url], &content(0)),
            false => request(&[&url]),
        };
        let fetched = rig.fetch(&request).await.unwrap();
        assert_eq!(fetched.digest, digest(&content(0)), "{headers}");
        assert_eq!(ranges(&origin), [(false, false), (true, held)], "{headers}");
        assert_eq!((fetched.origin_bytes, fetched.attempts), (SIZE as u64, 2));
        assert_eq!(rig.cache.get(&fetched.digest).unwrap(), content(0));
        assert_eq!(rig.open_files(), 0);
    }
}

#[tokio::test]
async fn without_anything_to_hold_an_origin_to_it_starts_again() {
    for headers in ["", "etag: W/\"v\"\r\n"] {
        let origin = start(cutting(headers, Rest::Right)).await;
        let rig = Rig::new();
        let fetched = rig.get(&[&origin.url("/x")]).await.unwrap();
        assert_eq!(fetched.digest, digest(&content(0)));
        assert_eq!(ranges(&origin), [(false, false); 2], "{headers}");
    }
}

#[tokio::test]
async fn a_part_that_was_asked_for_is_not_gone_on_with() {
    let origin = Origin::start(|_| {
        let mut steps = part(0, 10);
        if let Step::Send(bytes) = &mut steps[0] {
            bytes.truncate(CUT);
        }
        steps.extend([Step::Sleep(Duration::from_millis(50)), Step::Reset]);
        steps
    });
    let origin = origin.await;
    let rig = Rig::with(|s| s.attempts = 2, FakeCache::default());
    let request = with_headers(&[&origin.url("/x")], &[("http_header:Range", "bytes=10-")]);
    rig.fetch(&request).await.unwrap_err();
    let heads = origin.heads.lock();
    assert!(heads.iter().all(|h| h.contains("range: bytes=10-\r\n")));
    assert_eq!(heads.len(), 2);
}

#[tokio::test]
async fn what_changed_meanwhile_comes_whole() {
    let (origin, rig) = (start(cutting(TAGGED, Rest::Whole)).await, Rig::new());
    let fetched = rig.get(&[&origin.url("/x")]).await.unwrap();
    assert_eq!(fetched.digest, digest(&content(1)));
}

#[tokio::test]
async fn what_is_not_the_rest_is_never_taken_for_it() {
    for rest in [Rest::Elsewhere, Rest::Unsatisfiable] {
        let (origin, rig) = (start(cutting(TAGGED, rest)).await, Rig::new());
        let fetched = rig.get(&[&origin.url("/x")]).await.unwrap();
        assert_eq!(fetched.digest, digest(&content(0)));
        assert_eq!(origin.requests(), 3);
    }
}

#[tokio::test]
async fn two_versions_that_do_not_fit_are_fetched_again_in_one_piece() {
    let (origin, rig) = (start(cutting("", Rest::OfAnother)).await, Rig::new());
    let fetched = rig.fetch(&pinned(&[&origin.url("/x")], &content(0))).await;
    assert_eq!(fetched.unwrap().digest, digest(&content(0)));
    assert_eq!(
        ranges(&origin),
        [(false, false), (true, false), (false, false)]
    );
}

#[tokio::test]
async fn parts_that_never_fit_have_an_end() {
    let origin = Origin::by_head(|head| {
        let range = head.lines().find_map(|l| l.strip_prefix("range: bytes="));
        match range {
            None => first("", false),
            Some(from) => part(1, from.trim_end_matches('-').parse().unwrap()),
        }
    });
    let (origin, rig) = (origin.await, Rig::new());
    let (failure, ..) = rig
        .failure(&pinned(&[&origin.url("/x")], &content(0)))
        .await;
    assert_eq!(failure, Failure::Mismatch);
    assert_eq!(origin.requests(), 4, "twice in two parts, and no more");
}

#[tokio::test]
async fn an_origin_that_only_begins_again_is_left_for_the_next() {
    let (origin, rig) = (start(cutting(TAGGED, Rest::CutAgain)).await, Rig::new());
    let other = Origin::start(|_| whole(0)).await;
    let urls = [origin.url("/x"), other.url("/x")];
    let fetched = rig.get(&[&urls[0], &urls[1]]).await.unwrap();
    assert_eq!((fetched.uri_index, origin.requests()), (1, 2));
}

#[tokio::test]
async fn an_origin_that_cuts_after_every_piece_has_an_end() {
    let origin = Origin::by_head(|head| {
        let range = head.lines().find_map(|l| l.strip_prefix("range: bytes="));
        let from = range.map_or(0, |r| r.trim_end_matches('-').parse().unwrap());
        let total: usize = 1 << 30;
        let (status, more) = match from {
            0 => ("200 OK", String::new()),
            from => {
                let range = format!("content-range: bytes {from}-{}/{total}\r\n", total - 1);
                ("206 Partial Content", range)
            }
        };
        let left = total - from;
        let head = format!("HTTP/1.1 {status}\r\n{TAGGED}{more}content-length: {left}\r\n\r\n");
        let piece = [head.as_bytes(), &[b'x'; 20_000]].concat();
        vec![
            Step::Send(piece),
            Step::Sleep(Duration::from_millis(5)),
            Step::Reset,
        ]
    });
    let origin = origin.await;
    let rig = Rig::with(|s| s.attempts = 1, FakeCache::default());
    let (failure, ..) = rig.failure(&request(&[&origin.url("/x")])).await;
    assert!(origin.requests() <= 64, "{}", origin.requests());
    assert!(matches!(
        failure,
        Failure::Unavailable { .. } | Failure::Truncated
    ));
}
