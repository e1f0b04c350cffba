//! What becomes of unpinned content: asked about, answered from the cache, or
//! refused, by policy; and what is kept of content that took credentials.

use std::sync::atomic::Ordering;

use super::super::testing::refused;
use super::super::{Answer, Missed, UnpinnedRule, Verdict};
use super::*;
use crate::asset::KeyHeaders;
use crate::fetcher::{FetchError, Fetched};
use crate::store;

const MIRROR: &str = "https://mirror.example/a";
const CONTENT: &[u8] = b"from the origin";
const HOUR: Duration = Duration::from_secs(3600);

fn fetched(query: &Query, uri: &str) -> KeySpace {
    KeySpace::Fetched {
        uri: Uri::new(uri.to_owned()),
        qualifiers: query.request.qualifiers.clone(),
    }
}

/// What the origin served an age ago, under this name.
fn served(content: &[u8], age: Duration, etag: Option<&str>) -> AssetReference {
    let mut entry = reference(content, Source::Fetch);
    entry.content_time -= age;
    entry.validators.etag = etag.map(str::to_owned);
    entry
}

fn unmodified(request: &FetchRequest, index: usize) -> Fetched {
    let known = request.known[index].as_ref().expect("a condition");
    Fetched {
        digest: known.digest.clone(),
        uri_index: index,
        not_modified: true,
        origin_bytes: 0,
        ..content(request, b"")
    }
}

fn settings(rules: &[&str]) -> Settings {
    let rules: Vec<UnpinnedRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Settings {
        unpinned: rules,
        ..Settings::default()
    }
}

async fn fetch(world: &World, settings: Settings, query: &Query) -> Result<Answer, ResolveError> {
    let resolver = world.resolver(settings);
    resolver.fetch(&CallContext::default(), query.clone()).await
}

/// A world in which an origin served something an age ago and has it still.
fn steady(age: Duration) -> (World, Query) {
    let world = World::default();
    let query = query(&[URL], None);
    let entry = served(CONTENT, age, Some("\"1\""));
    put(&world.store, &query, fetched(&query, URL), entry);
    world.fetcher.script(|request| {
        Ok(match request.known.first().cloned().flatten() {
            Some(_) => unmodified(request, 0),
            None => content(request, CONTENT),
        })
    });
    (world, query)
}

fn at(ago: Duration) -> Option<SystemTime> {
    Some(SystemTime::now() - ago)
}

#[tokio::test]
async fn n6_what_is_known_answers_once_the_origin_confirmed_it() {
    let (world, query) = steady(HOUR);
    let before = SystemTime::now();
    let answer = fetch(&world, Settings::default(), &query).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Revalidated);
    assert_eq!(answer.digest, reference(CONTENT, Source::Fetch).digest);
    assert_eq!(answer.stats.missed, Some(Missed::Unconfirmed));
    // It was retrieved now, under the name it had (C5).
    let entries = world.store.entries.lock();
    let entry = entries.values().next().unwrap();
    assert!(entries.len() == 1 && entry.content_time >= before);
    assert_eq!(entry.validators.etag.as_deref(), Some("\"1\""));
    let checks = world.store.checks.load(Ordering::SeqCst);
    assert_eq!((world.fetcher.count(), checks), (1, 1));
}

#[tokio::test]
async fn n3_n4_a_confirmation_is_the_origins_word_of_now() {
    let (world, mut query) = steady(HOUR);
    query.request.oldest = Some(SystemTime::now() + HOUR);
    let resolver = world.resolver(Settings::default());
    let context = CallContext::default();
    let answer = resolver.fetch(&context, query.clone()).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Revalidated);
    // The retry with the same time gets what the first one got.
    let answer = resolver.fetch(&context, query.clone()).await.unwrap();
    assert_eq!(
        (answer.outcome, world.fetcher.count()),
        (Outcome::Joined, 1)
    );
    query.request.oldest = Some(SystemTime::now() + HOUR);
    resolver.fetch(&context, query).await.unwrap();
    assert_eq!(world.fetcher.count(), 2);
}

#[tokio::test]
async fn content_that_went_while_the_origin_was_asked_is_fetched() {
    let (world, query) = steady(HOUR);
    let store = Arc::clone(&world.store);
    world.fetcher.script(move |request| {
        let mut gone = store.gone.lock();
        if request.known.iter().any(Option::is_some) {
            let unmodified = unmodified(request, 0);
            gone.insert(unmodified.digest.clone());
            return Ok(unmodified);
        }
        let fetched = content(request, CONTENT);
        gone.remove(&fetched.digest);
        Ok(fetched)
    });
    let answer = fetch(&world, Settings::default(), &query).await.unwrap();
    assert_eq!(
        (answer.outcome, world.fetcher.count()),
        (Outcome::Fetched, 2)
    );
    assert_eq!(answer.stats.attempts, 2);
}

#[tokio::test]
async fn a_caller_who_may_not_see_confirmed_content_does_not_get_it() {
    let (world, query) = steady(HOUR);
    let denied = refused(tonic::Code::PermissionDenied);
    *world.store.check_error.lock() = Some(store::Error::Upstream(denied));
    let answer = fetch(&world, Settings::default(), &query).await;
    assert!(
        matches!(answer, Err(ResolveError::Upstream(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_confirmation_nobody_asked_for_is_a_failure() {
    let world = World::default();
    world.fetcher.script(|request| {
        Ok(Fetched {
            not_modified: true,
            ..content(request, CONTENT)
        })
    });
    let answer = fetch(&world, Settings::default(), &query(&[URL], None)).await;
    let said = matches!(answer, Err(ResolveError::Fetch(FetchError::Internal(_))));
    assert!(said && world.store.entries.lock().is_empty(), "{answer:?}");
}

#[tokio::test]
async fn an_origin_is_asked_only_about_what_it_gave_a_name() {
    let dated = |ago| Some(httpdate::fmt_http_date(SystemTime::now() - ago));
    for (etag, last_modified, asked) in [
        (None, None, false),
        (Some("W/\"1\""), None, true),
        (Some("\"1\""), dated(HOUR), true),
        (None, dated(2 * HOUR), true),
        // Dates count seconds: it may have changed within this one.
        (None, dated(HOUR), false),
        (None, dated(Duration::ZERO), false),
        (None, Some("yesterday".to_owned()), false),
    ] {
        let world = World::default();
        let query = query(&[MIRROR, URL], None);
        let mut entry = served(CONTENT, HOUR, etag);
        entry.validators.last_modified = last_modified;
        put(&world.store, &query, fetched(&query, URL), entry.clone());
        fetch(&world, Settings::default(), &query).await.unwrap();
        let requests = world.fetcher.requests.lock();
        let known = requests[0].known.clone();
        assert_eq!((known.len(), known[0].is_none()), (2, true));
        let told = known[1].as_ref().map(|known| known.validators.clone());
        assert_eq!(told, asked.then_some(entry.validators));
    }
}

#[tokio::test]
async fn nothing_is_known_of_what_is_pinned_private_or_gone() {
    let secret = "https://user:pass@origin.example/a";
    for what in [
        "pinned",
        "private",
        "secret",
        "gone",
        "pushed",
        "unreadable",
    ] {
        let (world, mut query) = steady(HOUR);
        match what {
            "pinned" => query = super::query(&[URL], Some(CONTENT)),
            "private" => {
                let headers = &mut query.request.headers;
                let insert = headers.insert("http_header:Authorization", "Bearer x", 1);
                insert.unwrap();
            }
            "secret" => query = super::query(&[secret], None),
            "gone" => {
                let digest = reference(CONTENT, Source::Fetch).digest;
                world.store.gone.lock().insert(digest);
            }
            "pushed" => {
                let mut forged = served(CONTENT, HOUR, Some("\"1\""));
                forged.source = Source::Push;
                put(&world.store, &query, fetched(&query, URL), forged);
            }
            _ => world.store.entries.lock().clear(),
        }
        world
            .fetcher
            .script(|request| Ok(content(request, CONTENT)));
        fetch(&world, Settings::default(), &query).await.unwrap();
        let requests = world.fetcher.requests.lock();
        assert!(requests[0].known.iter().all(Option::is_none), "{what}");
    }
}

#[tokio::test]
async fn of_many_mirrors_the_first_ones_are_looked_up() {
    let world = World::default();
    let uris: Vec<String> = (0..40).map(|i| format!("https://m{i}.example/a")).collect();
    let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
    let query = query(&uris, None);
    let entry = served(CONTENT, HOUR, Some("\"1\""));
    put(&world.store, &query, fetched(&query, uris[15]), entry);
    fetch(&world, Settings::default(), &query).await.unwrap();
    let known = world.fetcher.requests.lock()[0].known.clone();
    assert!(known.len() == 40 && known[15].is_some());
    let gets = world.store.gets.lock();
    let past = gets.iter().filter(|key| key.space.name() == "fetched");
    assert_eq!(past.count(), 16);
}

#[tokio::test]
async fn ttl_answers_within_its_time_and_asks_after_it() {
    let rules = ["ttl=1h https://origin.example/*"];
    let minute = Duration::from_secs(60);
    for (age, oldest, requests) in [
        (minute, None, 0),
        (2 * HOUR, None, 1),
        // The client's own limit goes first, in both directions.
        (minute, at(Duration::ZERO), 1),
        (2 * HOUR, at(3 * HOUR), 0),
        (minute, Some(SystemTime::now() + HOUR), 1),
    ] {
        let (world, mut query) = steady(age);
        query.request.oldest = oldest;
        let answer = fetch(&world, settings(&rules), &query).await.unwrap();
        assert_eq!(world.fetcher.count(), requests, "{age:?} {oldest:?}");
        let outcome = [Outcome::HitExact, Outcome::Revalidated][requests];
        assert_eq!(answer.outcome, outcome);
    }
    // An entry from a future that no clock is ahead by.
    let (world, query) = steady(Duration::ZERO);
    for entry in world.store.entries.lock().values_mut() {
        entry.content_time += 2 * HOUR;
    }
    fetch(&world, settings(&rules), &query).await.unwrap();
    assert_eq!(world.fetcher.count(), 1);
}

#[tokio::test]
async fn refetch_takes_nothing_from_the_cache() {
    for oldest in [None, at(3 * HOUR)] {
        let (world, mut query) = steady(HOUR);
        query.request.oldest = oldest;
        let answer = fetch(&world, settings(&["refetch *"]), &query).await;
        assert_eq!(answer.unwrap().outcome, Outcome::Fetched);
        let known = world.fetcher.requests.lock()[0].known.clone();
        assert!(known.iter().all(Option::is_none));
    }
}

#[tokio::test]
async fn reject_wants_a_checksum_or_a_push() {
    let rules = || settings(&["revalidate https://mirror.example/", "reject *"]);
    for uris in [&[URL][..], &[MIRROR, URL]] {
        for oldest in [None, at(3 * HOUR)] {
            let (world, _) = steady(HOUR);
            let mut query = query(uris, None);
            query.request.oldest = oldest;
            let error = fetch(&world, rules(), &query).await.unwrap_err();
            let said = error.to_string();
            assert!(matches!(error, ResolveError::NotPinned { .. }), "{said}");
            assert!(
                said.contains(URL) && said.contains("checksum.sri"),
                "{said}"
            );
            assert_eq!(world.fetcher.count(), 0);
            let pinned = super::query(uris, Some(CONTENT));
            fetch(&world, rules(), &pinned).await.unwrap();
            let entry = reference(b"pushed", Source::Push);
            put(&world.store, &query, exact(&query, URL), entry);
            let answer = fetch(&world, rules(), &query).await;
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
    let world = World::default();
    fetch(&world, rules(), &query(&[MIRROR], None))
        .await
        .unwrap();
    let urn = fetch(&world, rules(), &query(&["urn:x"], None)).await;
    assert!(matches!(urn, Err(ResolveError::NotFound { .. })), "{urn:?}");
}

#[tokio::test]
async fn key_headers_select_a_representation() {
    let world = World::default();
    let with = |value: &str| {
        let mut query = query(&[URL], None);
        let headers = &mut query.request.headers;
        headers.insert("http_header:X-Variant", value, 1).unwrap();
        query.request.oldest = at(HOUR);
        query
    };
    let selected = || Settings {
        key_headers: KeyHeaders::new(&["X-Variant".parse().unwrap()]),
        ..Settings::default()
    };
    for requests in [1, 2] {
        fetch(&world, Settings::default(), &with("a"))
            .await
            .unwrap();
        assert_eq!(world.fetcher.count(), requests, "a credential otherwise");
    }
    assert!(world.store.entries.lock().is_empty());
    for (value, requests) in [("a", 3), ("b", 4), ("a", 4), ("b", 4)] {
        fetch(&world, selected(), &with(value)).await.unwrap();
        assert_eq!(world.fetcher.count(), requests, "{value}");
    }
    assert_eq!(world.store.entries.lock().len(), 2);
}

#[tokio::test]
async fn private_content_is_shared_by_its_checksum_unless_the_operator_objects() {
    for share in [true, false] {
        let world = World::default();
        let settings = || Settings {
            share_private: share,
            ..Settings::default()
        };
        let public = query(&[URL], Some(CONTENT));
        let mut private = public.clone();
        let headers = &mut private.request.headers;
        let insert = headers.insert("http_header:Authorization", "Bearer x", 1);
        insert.unwrap();
        fetch(&world, settings(), &private).await.unwrap();
        // Others prove it by what is in the CAS.
        let digest = Digest::of(DigestFunction::Sha256, CONTENT).unwrap();
        world.store.contents.lock().insert(digest, CONTENT.to_vec());
        assert_eq!(world.store.entries.lock().len(), usize::from(share));
        fetch(&world, settings(), &public).await.unwrap();
        assert_eq!(world.fetcher.count(), if share { 1 } else { 2 });
        // What others fetched in public is there, and not for this one.
        assert_eq!(world.store.entries.lock().len(), 1);
        fetch(&world, settings(), &private).await.unwrap();
        assert_eq!(world.fetcher.count(), if share { 1 } else { 3 });
        fetch(&world, settings(), &public).await.unwrap();
        assert_eq!(world.fetcher.count(), if share { 1 } else { 3 });
    }
}

#[tokio::test]
async fn an_explanation_says_what_the_origin_would_be_asked() {
    for (rules, asked) in [(&[][..], 1), (&["ttl=1m *"], 1), (&["refetch *"], 0)] {
        let (world, query) = steady(HOUR);
        let resolver = world.resolver(settings(rules));
        let context = CallContext::default();
        let explanation = resolver.explain(&context, &query).await.unwrap();
        assert_eq!(world.fetcher.count(), 0);
        let key = explanation
            .keys
            .iter()
            .find(|k| k.key.space.name() == "fetched");
        assert_eq!(key.unwrap().missed, Some(Missed::Unconfirmed), "{rules:?}");
        let Verdict::Miss { missed, origin } = explanation.verdict else {
            panic!("a hit");
        };
        let asking = origin.unwrap();
        assert_eq!(asking.len(), asked, "{rules:?}");
        let answer = resolver.fetch(&context, query).await.unwrap();
        assert_eq!(answer.stats.missed, missed);
        assert_eq!(answer.outcome == Outcome::Revalidated, asked == 1);
    }
    let (world, query) = steady(HOUR);
    let resolver = world.resolver(settings(&["reject *"]));
    let explanation = resolver.explain(&CallContext::default(), &query).await;
    let verdict = explanation.unwrap().verdict;
    assert!(matches!(
        verdict,
        Verdict::Miss {
            origin: Err(ResolveError::NotPinned { .. }),
            ..
        }
    ));
}
