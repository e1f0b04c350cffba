//! An explanation says of every key what a fetch makes of it, and ends as the
//! fetch does; without fetching or recording.

use super::super::{Explanation, Missed, ResolveError, Settings, Verdict};
use super::*;
use crate::store;
use crate::upstream;

async fn explain(world: &World, query: &Query) -> Explanation {
    let resolver = world.resolver(Settings::default());
    let context = CallContext::default();
    let explanation = resolver.explain(&context, query).await.unwrap();
    let unharmed = world.fetcher.count() == 0 && world.store.puts.lock().is_empty();
    assert!(unharmed, "explaining must change nothing");
    explanation
}

/// The reason both a fetch and an explanation give.
async fn reason(world: &World, query: &Query) -> Missed {
    let Verdict::Miss { missed, origin } = explain(world, query).await.verdict else {
        panic!("a hit");
    };
    let resolver = world.resolver(Settings::default());
    let fetched = resolver.fetch(&CallContext::default(), query.clone()).await;
    let said = fetched.unwrap_err().to_string();
    assert_eq!(origin.unwrap_err().to_string(), said);
    let resolver = world.resolver(Settings::default());
    match resolver.fetch(&CallContext::default(), query.clone()).await {
        Err(ResolveError::NotFound { missed: other, .. }) => assert_eq!(missed, Some(other)),
        other => panic!("{other:?}"),
    }
    missed.unwrap()
}

const FIRST: &str = "urn:x:1";
const SECOND: &str = "urn:x:2";

fn pushed() -> AssetReference {
    reference(b"pushed", Source::Push)
}

/// A world with one entry, and a query that it does not answer for `missed`.
fn world_for(missed: Missed) -> (World, Query) {
    let world = World::default();
    let (mut query, mut entry) = (query(&[FIRST, SECOND], None), pushed());
    let mut at = FIRST;
    match missed {
        Missed::Absent => return (world, query),
        Missed::Unusable => entry.source = Source::Fetch,
        Missed::Contradicted => {
            let plain = exact(&query, FIRST);
            query = super::query(&[FIRST], Some(b"something else"));
            put(&world.store, &query, plain, entry);
            return (world, query);
        }
        Missed::Unproven => {
            query = super::query(&[FIRST], Some(b"pushed"));
            let hash = entry.digest.hash().to_owned();
            entry.digest = Digest::new(DigestFunction::Sha256, &hash, 1 << 40).unwrap();
        }
        Missed::HalfPushed => {
            at = SECOND;
            entry.uri = FIRST.to_owned();
        }
        Missed::Gone => {
            world.store.gone.lock().insert(entry.digest.clone());
        }
        Missed::Expired => entry.expire_at = Some(SystemTime::now()),
        Missed::Unconfirmed => unreachable!("it has an origin that can be asked"),
        Missed::Stale => query.request.oldest = Some(entry.content_time + Duration::from_nanos(1)),
    }
    put(&world.store, &query, exact(&query, at), entry);
    (world, query)
}

#[tokio::test]
async fn every_reason_is_the_one_a_fetch_gives() {
    // What has to be confirmed is a case of its own (`freshness.rs`).
    let all = Missed::ALL.into_iter();
    for missed in all.filter(|missed| *missed != Missed::Unconfirmed) {
        let (world, query) = world_for(missed);
        assert_eq!(reason(&world, &query).await, missed);
        let explanation = explain(&world, &query).await;
        let told = explanation.keys.iter().filter_map(|key| key.missed);
        assert_eq!(told.max(), Some(missed));
        assert!(explanation.keys.iter().all(|key| !key.answers));
    }
}

#[tokio::test]
async fn keys_after_the_one_that_answers_are_shown_too() {
    let world = World::default();
    let query = query(&["urn:x:0", FIRST, SECOND], None);
    for uri in [FIRST, SECOND] {
        put(&world.store, &query, exact(&query, uri), pushed());
    }
    let explanation = explain(&world, &query).await;
    let shown: Vec<_> = explanation
        .keys
        .iter()
        .map(|key| (key.key.space.name(), key.missed, key.answers))
        .collect();
    let absent = Some(Missed::Absent);
    let subset = ("subset", absent, false);
    let expected = [
        ("exact", absent, false),
        ("exact", None, true),
        ("exact", None, false),
    ];
    assert_eq!(shown, [&expected[..], &[subset; 3]].concat());
    let Verdict::Hit(told) = explanation.verdict else {
        panic!()
    };
    let resolver = world.resolver(Settings::default());
    let answer = resolver.fetch(&CallContext::default(), query).await;
    assert_eq!(answer.unwrap(), told);
}

#[tokio::test]
async fn a_subset_is_shown_with_the_exact_entry_that_decides() {
    for (withdrawn, missed) in [(false, None), (true, Some(Missed::Expired))] {
        let world = World::default();
        let query = query(&[FIRST], None);
        let mut entry = pushed();
        entry.qualifiers = Qualifiers::new([("a".to_owned(), "1".to_owned())]).unwrap();
        let (uri, all) = (Uri::new(FIRST), entry.qualifiers.clone());
        let none = Qualifiers::default();
        let subset = KeySpace::Subset {
            uri: uri.clone(),
            qualifiers: none,
        };
        put(&world.store, &query, subset, entry.clone());
        entry.expire_at = withdrawn.then(SystemTime::now);
        let exact = KeySpace::Exact {
            uri,
            qualifiers: all,
        };
        put(&world.store, &query, exact, entry);
        let explanation = explain(&world, &query).await;
        let key = explanation.keys.last().unwrap();
        assert_eq!((key.key.space.name(), key.missed), ("subset", missed));
        assert_eq!(key.answers, missed.is_none());
        assert!(key.confirmed_by.is_some());
    }
}

#[tokio::test]
async fn whether_the_origin_would_be_asked() {
    let world = World::default();
    let origin = async |query: &Query| match explain(&world, query).await.verdict {
        Verdict::Miss { origin, .. } => origin,
        Verdict::Hit(hit) => panic!("{hit:?}"),
    };
    assert!(origin(&query(&[URL], None)).await.is_ok());
    let mut labelled = query(&[URL], None);
    let pairs = [("label".to_owned(), "x".to_owned())];
    labelled.request.qualifiers = Qualifiers::new(pairs).unwrap();
    let refused = origin(&labelled).await;
    assert!(
        matches!(refused, Err(ResolveError::Unsupported(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_a_fetch_refuses_before_looking_has_no_keys() {
    let world = World::default();
    let mut query = query(&[URL], None);
    query.request.scope.function = DigestFunction::GitSha1;
    let explanation = explain(&world, &query).await;
    assert!(explanation.keys.is_empty());
    let refused = explanation.verdict;
    assert!(
        matches!(
            refused,
            Verdict::Miss {
                missed: None,
                origin: Err(ResolveError::NotAnnounced { .. })
            }
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_cache_that_cannot_be_asked_is_an_error() {
    let world = World::default();
    let error = || upstream::Error::Unreachable {
        method: "GetActionResult",
        reason: "nobody there".to_owned(),
        detail: None,
    };
    let resolver = world.resolver(Settings::default());
    let (context, query) = (CallContext::default(), query(&[URL], None));
    *world.store.get_error.lock() = Some(store::Error::Upstream(error()));
    let explained = resolver.explain(&context, &query).await;
    assert!(
        matches!(explained, Err(ResolveError::Upstream(_))),
        "{explained:?}"
    );
    *world.store.get_error.lock() = None;
    *world.announce.0.lock() = Err(error());
    assert!(resolver.explain(&context, &query).await.is_err());
}
