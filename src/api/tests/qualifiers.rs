//! Part A, section 2.

use super::*;

fn unsupported(names: &[&str]) -> Vec<(String, String)> {
    let all = names.iter().map(|n| {
        (
            "qualifiers.name".to_owned(),
            format!("\"{n}\" not supported"),
        )
    });
    all.collect()
}

#[tokio::test]
async fn q1_q5_unknown_qualifiers_are_named_and_nothing_is_fetched() {
    let server = Server::new();
    let with = [("foo", "1"), ("bar", "2"), ("bazel.canonical_id", "x")];
    let said = violations(server.fetch(blob(&[HTTP], &with)).await);
    assert_eq!(said, unsupported(&["bar", "foo"]));
    assert_eq!(server.world.fetcher.count(), 0);
}

#[tokio::test]
async fn q2_without_push_unknown_qualifiers_are_refused_before_any_lookup() {
    let mut server = Server::new();
    server.settings.push = false;
    let said = violations(server.fetch(blob(&[URN], &[("foo", "1")])).await);
    assert_eq!(said, unsupported(&["foo"]));
    assert!(server.world.store.gets.lock().is_empty());
}

#[tokio::test]
async fn q3_a_pushed_qualifier_is_a_label() {
    let server = Server::new();
    server
        .push(push(&[HTTP], &[("foo", "1")], b"x"))
        .await
        .unwrap();
    let answer = server.fetch(blob(&[HTTP], &[("foo", "1")])).await;
    assert_eq!(digest(answer), sha256(b"x"));
}

#[tokio::test]
async fn q4_unknown_qualifier_of_a_urn_is_not_found() {
    let server = Server::new();
    let (code, text) = inline(server.fetch(blob(&[URN], &[("foo", "1")])).await);
    assert_eq!(code, Code::NotFound);
    assert!(text.contains("nobody pushed"), "{text}");
}

#[tokio::test]
async fn q6_known_names_in_wrong_combination() {
    let server = Server::new();
    let with = [("vcs.commit", "abc"), ("directory", "a/")];
    let said = violations(server.fetch(blob(&[HTTP], &with)).await);
    assert_eq!(said, unsupported(&["directory", "vcs.commit"]));
}

#[tokio::test]
async fn q7_names_are_compared_exactly() {
    let server = Server::new();
    let said = violations(server.fetch(blob(&[HTTP], &[("Checksum.SRI", "x")])).await);
    assert_eq!(said, unsupported(&["Checksum.SRI"]));
}

#[tokio::test]
async fn l2_checksums() {
    let server = Server::new();
    let good = sri(DigestFunction::Sha256, b"from the origin");
    let wrong = sri(DigestFunction::Sha256, b"something else");
    for value in [
        good.clone(),
        format!("{wrong} {good}"),
        format!("foo99-AAAA\n{good}"),
        format!("{good}?opt"),
        format!("{wrong}\t{good}"),
    ] {
        let answer = server
            .fetch(blob(&[HTTP], &[("checksum.sri", &value)]))
            .await;
        assert_eq!(digest(answer), sha256(b"from the origin"), "{value}");
    }
    assert_eq!(server.world.fetcher.count(), 1, "one hash, one fetch");
    for value in [
        "",
        "foo99-AAAA",
        "sha256",
        "sha256-",
        "sha256-!!!!",
        "sha256-AAAA",
    ] {
        let with = [("checksum.sri", value)];
        assert_eq!(
            fields(server.fetch(blob(&[HTTP], &with)).await),
            ["qualifiers.value"]
        );
        assert_eq!(
            fields(server.push(push(&[URN], &with, b"x")).await),
            ["qualifiers.value"]
        );
    }
    assert_eq!(server.world.fetcher.count(), 1);
}

#[tokio::test]
async fn l2_a_wrong_checksum_stores_nothing() {
    let server = Server::new();
    server
        .world
        .fetcher
        .fails(crate::fetcher::Failure::Mismatch);
    let wrong = sri(DigestFunction::Sha256, b"something else");
    let (code, _) = inline(
        server
            .fetch(blob(&[HTTP], &[("checksum.sri", &wrong)]))
            .await,
    );
    assert_eq!(code, Code::Aborted);
    assert!(server.world.store.entries.lock().is_empty());
}

#[tokio::test]
async fn l2_a_pushed_claim_that_contradicts_its_checksum_is_passed_over() {
    let server = Server::new();
    let pinned = sri(DigestFunction::Sha256, b"from the origin");
    let with = [("checksum.sri", pinned.as_str())];
    server
        .push(push(&[HTTP, URN], &with, b"forged"))
        .await
        .unwrap();
    let answer = server.fetch(blob(&[HTTP], &with)).await;
    assert_eq!(digest(answer), sha256(b"from the origin"));
    // Another algorithm than the digest's: the content is read back.
    server.holds(DigestFunction::Sha256, b"claimed");
    for (content, code) in [(&b"whatever"[..], Code::NotFound), (b"claimed", Code::Ok)] {
        let other = sri(DigestFunction::Sha512, content);
        let with = [("checksum.sri", other.as_str())];
        server.push(push(&[URN], &with, b"claimed")).await.unwrap();
        let answer = server.fetch(blob(&[URN], &with)).await;
        match code {
            Code::Ok => assert_eq!(digest(answer), sha256(b"claimed")),
            _ => assert_eq!(inline(answer).0, code),
        }
    }
}

#[tokio::test]
async fn l4_directory_is_trimmed_before_keying() {
    let server = Server::new();
    let mut message = push_directory(&[URN], b"tree");
    message.qualifiers = qualifiers(&[("directory", "a/b/")]);
    server.push_directory(message).await.unwrap();
    let answer = server
        .fetch_directory(directory(&[URN], &[("directory", "a/b")]))
        .await
        .unwrap();
    assert_eq!(answer.root_directory_digest, Some(sha256(b"tree")));
    for bad in ["/a", "..", "a//b", "."] {
        let answer = server
            .fetch_directory(directory(&[URN], &[("directory", bad)]))
            .await;
        assert_eq!(fields(answer), ["qualifiers.value"]);
    }
}

#[tokio::test]
async fn l7_bazels_qualifiers() {
    let server = Server::new();
    let pinned = sri(DigestFunction::Sha256, b"from the origin");
    for (id, fetches) in [("1", 1), ("1", 1), ("2", 2)] {
        let with = [
            ("checksum.sri", pinned.as_str()),
            ("bazel.canonical_id", id),
        ];
        digest(server.fetch(blob(&[HTTP], &with)).await);
        assert_eq!(
            server.world.fetcher.count(),
            fetches,
            "a new id is a new download"
        );
    }
    let with = [("http_header_url:1:X", "s3cret")];
    let said = violations(server.fetch(blob(&[HTTP], &with)).await);
    assert_eq!(said[0].0, "qualifiers.name");
    assert!(
        said[0].1.contains("below the number of URIs, 1"),
        "{said:?}"
    );
}
