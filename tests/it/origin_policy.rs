//! Rules about which URLs are asked, and this service's own credentials for
//! origins: what an operator decides about origins.
//!
//! Not for: addresses (`uris`), credentials of clients (`redirects`, `secrets`).

use crate::support::answer::says;
use crate::support::origin::Serving;
use crate::support::{
    Answer as _, Code, File, Function, Gate, Origin, Pki, Proxy, Qualified as _, Reply, Running,
    Upstream, digest_of, eventually, fetch_blob, hit, inline, sri,
};

async fn mirror() -> Serving {
    let mirror = Origin::new().ip("127.0.0.2");
    mirror.file("/m/a", "mirrored").start().await
}

/// A rule that has `mirror` asked for everything of `origin`.
fn to_mirror(origin: &Serving, mirror: &Serving) -> String {
    let from = origin.address().to_string().replace('.', r"\.");
    format!("rewrite {from}/(.*) {}/m/$1\n", mirror.address())
}

fn with_rules(rules: &File) -> Proxy {
    Proxy::new().arg("--origin-rules").arg(rules.path())
}

async fn decisions(proxy: &Running, decision: &str, mode: &str) -> f64 {
    let labels = [
        format!("decision=\"{decision}\""),
        format!("mode=\"{mode}\""),
    ];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let name = "assetgate_origin_rule_decisions_total";
    proxy.metrics().await.sum(name, &labels)
}

#[tokio::test]
async fn u5_a_rewritten_url_is_asked_under_the_uri_of_the_request() {
    let (origin, mirror) = (Origin::new().file("/a", "original"), mirror().await);
    let origin = origin.start().await;
    let rules = File::new(&to_mirror(&origin, &mirror));
    let cache = Upstream::start();
    let (proxy, client) = with_rules(&rules).upstream(&cache).connected().await;
    let answer = client.fetch_blob(fetch_blob(&[origin.url("/a")])).await;
    let answer = answer.unwrap();
    assert_eq!(answer.uri(), origin.url("/a"));
    assert_eq!(hit(Ok(answer)), digest_of(b"mirrored"));
    assert_eq!((origin.total(), mirror.count("/m/a")), (0, 1));
    assert_eq!(decisions(&proxy, "rewritten", "enforced").await, 1.0);
    // The reference is one of the URI, and says nothing of the mirror.
    let stored = cache.contents();
    let mirror = mirror.address().to_string();
    let found = stored.windows(mirror.len()).any(|w| w == mirror.as_bytes());
    assert!(!found, "{}", String::from_utf8_lossy(&stored));
}

#[tokio::test]
async fn u5_several_rewrites_are_asked_in_order_and_failures_say_whom() {
    let (origin, first) = (Origin::new().start().await, Origin::new().start().await);
    let second = mirror().await;
    let text = to_mirror(&origin, &first) + &to_mirror(&origin, &second);
    let (_proxy, client) = with_rules(&File::new(&text)).connected().await;
    let fetch = fetch_blob(&[origin.url("/a")]);
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"mirrored"));
    assert_eq!((first.count("/m/a"), second.count("/m/a")), (1, 1));
    let answer = client.fetch_blob(fetch_blob(&[origin.url("/none")])).await;
    let said = inline(answer, Code::NotFound);
    says(
        &said,
        &[
            &origin.url("/none"),
            &format!(
                "404 Not Found (asked {}, as a URL rule says)",
                first.url("")
            ),
            &format!(
                "404 Not Found (asked {}, as a URL rule says)",
                second.url("")
            ),
        ],
    );
    assert_eq!(origin.total(), 0);
}

#[tokio::test]
async fn u5_a_blocked_url_is_not_asked_and_the_next_mirror_is() {
    let (origin, mirror) = (Origin::new().file("/a", "original"), mirror().await);
    let origin = origin.start().await;
    let rules = File::new("block 127.0.0.1\nall_blocked_message Ask platform@ for a mirror.\n");
    let (proxy, client) = with_rules(&rules).connected().await;
    for spelling in [
        origin.url("/a"),
        origin.url("/a").replace("127.0.0.1", "127.1"),
    ] {
        let said = inline(
            client.fetch_blob(fetch_blob(&[&spelling])).await,
            Code::PermissionDenied,
        );
        says(
            &said,
            &[
                &spelling,
                "blocked by this server's URL rules: Ask platform@ for a mirror.",
            ],
        );
    }
    let fetch = fetch_blob(&[origin.url("/a"), mirror.url("/m/a")]);
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"mirrored"));
    assert_eq!(origin.total(), 0);
    assert_eq!(decisions(&proxy, "blocked", "enforced").await, 3.0);
}

#[tokio::test]
async fn u5_rules_do_not_apply_to_redirects() {
    let far = mirror().await;
    let near = Origin::new().reply("/a", Reply::redirect(&far.url("/m/a")));
    let near = near.start().await;
    let (_proxy, client) = with_rules(&File::new("block 127.0.0.2\n"))
        .connected()
        .await;
    let fetch = fetch_blob(&[near.url("/a")]);
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"mirrored"));
}

#[tokio::test]
async fn u5_report_only_changes_nothing_and_tells_everything() {
    let (origin, mirror) = (Origin::new().file("/a", "original"), mirror().await);
    let origin = origin.start().await;
    let rules = File::new(&(to_mirror(&origin, &mirror) + "block 127.0.0.2\n"));
    let proxy = with_rules(&rules).config("[fetch]\nrules_report_only = true\n");
    let (proxy, client) = proxy.connected().await;
    let fetch = fetch_blob(&[origin.url("/a")]);
    assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"original"));
    rules.write(&to_mirror(&origin, &mirror));
    eventually("a decision by the new rules", async || {
        let fetch = fetch_blob(&[origin.url("/a")]);
        assert_eq!(hit(client.fetch_blob(fetch).await), digest_of(b"original"));
        let told = decisions(&proxy, "rewritten", "report_only").await;
        (told > 0.0).then_some(())
    })
    .await;
    assert!(decisions(&proxy, "blocked", "report_only").await >= 1.0);
    assert_eq!(decisions(&proxy, "", "enforced").await, 0.0);
    assert_eq!(mirror.total(), 0);
    let logs = proxy.stderr().text();
    says(
        &logs,
        &[
            "would be blocked by a URL rule",
            "would be rewritten by a URL rule",
        ],
    );
}

#[tokio::test]
async fn rules_are_read_again_and_broken_ones_leave_the_old_in_force() {
    let origin = Origin::new().file("/a", "original").start().await;
    let rules = File::new("block 127.0.0.1\n");
    let (proxy, client) = with_rules(&rules).connected().await;
    let ask = async || client.fetch_blob(fetch_blob(&[origin.url("/a")])).await;
    inline(ask().await, Code::PermissionDenied);
    rules.write("# no rules\nblok 127.0.0.1\nrewrite (.*) me:sw0rdfish@127.0.0.2/$9\n");
    eventually("the mistakes in the log", async || {
        let logs = proxy.stderr().text();
        let told = logs.contains("line 2 begins with none of") && logs.contains("line 3 has");
        (told && logs.contains("the old ones stay in use")).then_some(())
    })
    .await;
    inline(ask().await, Code::PermissionDenied);
    // What would lend a credential nobody was asked about is no rule either.
    rules.write("rewrite (.*) me:sw0rdfish@127.0.0.2/$1\n");
    eventually("the refusal in the log", async || {
        let refused = proxy.stderr().text().contains("its rules hold user info");
        refused.then_some(())
    })
    .await;
    inline(ask().await, Code::PermissionDenied);
    rules.write("allow 127.0.0.1\nblock *\n");
    eventually("the new rules", async || {
        let answer = ask().await.unwrap();
        (answer.status().code == 0).then_some(())
    })
    .await;
    assert!(!proxy.stderr().text().contains("sw0rdfish"));
}

#[tokio::test]
async fn l7_a_rewrite_to_another_origin_leaves_the_clients_credentials_behind() {
    let (origin, mirror) = (Origin::new().file("/s/a", "same"), mirror().await);
    let origin = origin.start().await;
    let same = origin.address().to_string();
    let text = format!(
        "rewrite {same}/same/(.*) {same}/s/$1\n{}",
        to_mirror(&origin, &mirror)
    );
    let (_proxy, client) = with_rules(&File::new(&text)).connected().await;
    for (path, content) in [("/a", "mirrored"), ("/same/a", "same")] {
        let user = origin.url(path).replace("http://", "http://user:pass@");
        for (fetch, pinned) in [
            (fetch_blob(&[user]), false),
            (
                fetch_blob(&[origin.url(path)])
                    .qualifier("http_header:Authorization", "Bearer mine")
                    .qualifier("http_header:X-Token", "mine")
                    .qualifier("http_header:Accept-Language", "eo"),
                true,
            ),
        ] {
            let fetch = match pinned {
                true => fetch.qualifier("checksum.sri", &sri(Function::Sha256, content.as_bytes())),
                false => fetch,
            };
            hit(client.fetch_blob(fetch).await);
        }
    }
    for seen in mirror.seen_at("/m/a") {
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("x-token"), None);
    }
    let languages = mirror.seen_at("/m/a");
    assert_eq!(languages[1].header("accept-language"), Some("eo"));
    let same = origin.seen_at("/s/a");
    assert_eq!(same[0].header("authorization"), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(same[1].header("authorization"), Some("Bearer mine"));
}

/// A netrc for the first of these origins and the second, if there is one.
fn netrc(first: &Serving, second: Option<&Serving>) -> File {
    let entry = |origin: &Serving, password| {
        let at = origin.address();
        format!("machine http://{at} login me password {password}\n")
    };
    let second = second.map_or_else(String::new, |second| entry(second, "netrc-three"));
    let default = "default login anybody password everywhere\n";
    File::new(&format!("{}{second}{default}", entry(first, "netrc-one")))
}

const ONE: &str = "Basic bWU6bmV0cmMtb25l";
const THREE: &str = "Basic bWU6bmV0cmMtdGhyZWU=";

#[tokio::test]
async fn l7_netrc_goes_to_its_host_alone_on_every_hop() {
    let third = Origin::new().ip("127.0.0.3").file("/c", "content");
    let third = third.start().await;
    let second = Origin::new().ip("127.0.0.2");
    let second = second.reply("/b", Reply::redirect(&third.url("/c")));
    let second = second.start().await;
    let first = Origin::new().reply("/a", Reply::redirect(&second.url("/b")));
    let first = first.start().await;
    let netrc = netrc(&first, Some(&third));
    let proxy = Proxy::new().arg("--origin-netrc").arg(netrc.path());
    let (proxy, client) = proxy.connected().await;
    hit(client.fetch_blob(fetch_blob(&[first.url("/a")])).await);
    let shown = |origin: &Serving, path: &str| {
        let seen = origin.seen_at(path);
        seen[0].header("authorization").map(str::to_owned)
    };
    assert_eq!(shown(&first, "/a").as_deref(), Some(ONE));
    assert_eq!(shown(&second, "/b"), None, "not even `default`");
    assert_eq!(shown(&third, "/c").as_deref(), Some(THREE));
    let logs = proxy.stderr().text();
    says(
        &logs,
        &["`default` entry is left out", "go over plain http"],
    );
    assert!(!logs.contains("netrc-one") && !logs.contains(ONE));
}

/// Over https to the usual ports; what else is allowed has to be said.
#[tokio::test]
async fn p4_credentials_for_origins_go_where_their_entry_says_and_nowhere_else() {
    let end = Origin::new().ip("127.0.0.2").file("/b", "content");
    let end = end.start().await;
    let first = Origin::new().reply("/a", Reply::redirect(&end.url("/b")));
    let first = first.start().await;
    let pki = Pki::new();
    let secure = Origin::new().tls(&pki).file("/c", "content").start().await;
    let headers = File::new("X-Own: ours\n");
    let (at, tls) = (first.address().port(), secure.address().port());
    for (host, plain, over_tls) in [
        ("127.0.0.1".to_owned(), false, false),
        (format!("127.0.0.1:{at}"), false, false),
        (format!("127.0.0.1:{tls}"), false, true),
        (format!("https://127.0.0.1:{tls}"), false, true),
        ("http://127.0.0.1".to_owned(), false, false),
        (format!("http://127.0.0.1:{at}"), true, false),
        (format!("http://127.0.0.1:{tls}"), false, true),
    ] {
        let netrc = File::new(&format!("machine {host} login me password netrc-one\n"));
        let file = format!("{host}={}", headers.path().display());
        let proxy = Proxy::new().arg("--origin-netrc").arg(netrc.path());
        let proxy = proxy
            .origin_ca(&pki.ca())
            .arg("--origin-credentials")
            .arg(file);
        let (_proxy, client) = proxy.connected().await;
        for url in [first.url("/a"), secure.url("/c")] {
            hit(client.fetch_blob(fetch_blob(&[url])).await);
        }
        let shown = |origin: &Serving, path: &str| {
            let seen = origin.seen_at(path).pop().unwrap();
            let both = [seen.header("authorization"), seen.header("x-own")];
            assert_eq!(both[0].is_some(), both[1].is_some(), "{host}");
            both[0].is_some()
        };
        let got = (shown(&first, "/a"), shown(&secure, "/c"));
        assert_eq!(got, (plain, over_tls), "{host}");
        assert!(!shown(&end, "/b"), "{host}");
    }
}

#[tokio::test]
async fn l7_what_a_client_sends_goes_before_what_this_service_would() {
    let origin = Origin::new().file("/a", "content").start().await;
    let netrc = netrc(&origin, None);
    let headers = File::new("X-Tenant: ours\nX-Key: ours\n");
    let proxy = Proxy::new().arg("--origin-netrc").arg(netrc.path());
    let proxy = proxy.config(format!(
        "[fetch]\ncredentials = [\"http://{}={}\"]\n",
        origin.address(),
        headers.path().display()
    ));
    let (_proxy, client) = proxy.connected().await;
    let plain = fetch_blob(&[origin.url("/a")]);
    let theirs = plain
        .clone()
        .qualifier("http_header:authorization", "Bearer theirs")
        .qualifier("http_header:x-tenant", "theirs");
    let user = fetch_blob(&[origin.url("/a").replace("http://", "http://user:pass@")]);
    for fetch in [plain, theirs, user] {
        hit(client.fetch_blob(fetch).await);
    }
    let seen = origin.seen_at("/a");
    let header = |index: usize, name: &str| seen[index].header(name).unwrap().to_owned();
    assert_eq!(header(0, "authorization"), ONE);
    assert_eq!(header(1, "authorization"), "Bearer theirs");
    assert_eq!(header(2, "authorization"), "Basic dXNlcjpwYXNz");
    let tenants = [0, 1, 2].map(|index| header(index, "x-tenant"));
    assert_eq!(tenants, ["ours", "theirs", "ours"]);
    assert_eq!([0, 1, 2].map(|i| header(i, "x-key")), ["ours"; 3]);
}

#[tokio::test]
async fn l7_a_redirect_to_a_host_with_a_header_file_gets_it_and_no_other_does() {
    let far = Origin::new().ip("127.0.0.2").file("/far", "content");
    let far = far.start().await;
    let near = Origin::new().reply("/a", Reply::redirect(&far.url("/far")));
    let near = near.start().await;
    let headers = File::new("Authorization: Bearer of-far\n");
    let argument = format!("http://{}={}", far.address(), headers.path().display());
    let proxy = Proxy::new().arg("--origin-credentials").arg(argument);
    let (_proxy, client) = proxy.connected().await;
    let ask = async || {
        let fetch = fetch_blob(&[near.url("/a")]);
        let fetch = fetch.qualifier("http_header:Authorization", "Bearer of-near");
        hit(client.fetch_blob(fetch).await);
        let near = near.seen_at("/a").pop().unwrap();
        assert_eq!(near.header("authorization"), Some("Bearer of-near"));
        let far = far.seen_at("/far").pop().unwrap();
        far.header("authorization").map(str::to_owned)
    };
    assert_eq!(ask().await.as_deref(), Some("Bearer of-far"));
    headers.write("Authorization: Bearer renewed\n");
    eventually("the renewed token", async || {
        (ask().await.as_deref() == Some("Bearer renewed")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn p4_content_got_with_this_services_credentials_is_shared_by_checksum_alone() {
    let reply = Reply::ok("content").header("ETag", "\"of-me\"");
    let origin = Origin::new().reply("/a", reply).start().await;
    let netrc = netrc(&origin, None);
    let cache = Upstream::start();
    let proxy = Proxy::new().arg("--origin-netrc").arg(netrc.path());
    let (_proxy, client) = proxy.upstream(&cache).connected().await;
    let unpinned = fetch_blob(&[origin.url("/a")]);
    hit(client.fetch_blob(unpinned.clone()).await);
    assert_eq!(cache.entries().len(), 0, "nothing is recorded");
    let pinned = unpinned.qualifier("checksum.sri", &sri(Function::Sha256, b"content"));
    hit(client.fetch_blob(pinned).await);
    assert_eq!(cache.entries().len(), 1, "but under its checksum");
    let stored = cache.contents();
    assert!(!stored.windows(5).any(|w| w == b"of-me"), "no validator");
}

#[tokio::test]
async fn l7_user_info_in_a_rule_is_a_credential_of_this_service() {
    let (origin, mirror) = (Origin::new().start().await, mirror().await);
    let from = origin.address();
    let to = mirror.address();
    let rules = File::new(&format!("rewrite {from}/(.*) me:netrc-one@{to}/m/$1\n"));
    let cache = Upstream::start();
    let (proxy, client) = with_rules(&rules).upstream(&cache).connected().await;
    hit(client.fetch_blob(fetch_blob(&[origin.url("/a")])).await);
    assert_eq!(mirror.seen_at("/m/a")[0].header("authorization"), Some(ONE));
    assert_eq!(cache.entries().len(), 0);
    let none = client.fetch_blob(fetch_blob(&[origin.url("/none")])).await;
    let said = inline(none, Code::NotFound);
    let logs = proxy.stderr().text();
    assert!(!format!("{said}{logs}").contains("netrc-one"));
}

/// A client's user info may read like that of a rule. What came with the one
/// is no answer to who came by the other, or it would be recorded.
#[tokio::test]
async fn p4_a_download_with_a_clients_credentials_is_not_shared_by_a_rules() {
    let gate = Gate::new();
    let content = Reply::ok("mirrored").gated(&gate);
    let mirror = Origin::new().ip("127.0.0.2").reply("/m/a", content);
    let (origin, mirror) = (Origin::new().start().await, mirror.start().await);
    let (from, to) = (origin.address(), mirror.address());
    let rules = File::new(&format!("rewrite {from}/(.*) me:netrc-one@{to}/m/$1\n"));
    let cache = Upstream::start();
    let (_proxy, client) = with_rules(&rules).upstream(&cache).connected().await;
    let theirs = mirror.url("/m/a").replace("//", "//me:netrc-one@");
    let theirs = client.fetch_blob(fetch_blob(&[theirs]));
    let ours = async {
        eventually("the first download", async || {
            (mirror.total() == 1).then_some(())
        })
        .await;
        client.fetch_blob(fetch_blob(&[origin.url("/a")])).await
    };
    let both = async {
        eventually("another download", async || {
            (mirror.total() == 2).then_some(())
        })
        .await;
        gate.open();
    };
    let (theirs, ours, ()) = tokio::join!(theirs, ours, both);
    assert_eq!(hit(theirs), hit(ours));
    let shown = mirror.seen();
    let shown = shown.iter().all(|s| s.header("authorization") == Some(ONE));
    assert!(shown && cache.entries().is_empty());
}

#[tokio::test]
async fn p5_an_open_listener_does_not_lend_credentials_for_origins_unasked() {
    let netrc = File::new("machine h.example login me password netrc-one\n");
    let headers = File::new("Authorization: Bearer x\n");
    let rules = File::new("rewrite (.*) me:pass@mirror.example/$1\n");
    let for_host = format!("h.example={}", headers.path().display());
    for (flag, value, key) in [
        (
            "--origin-netrc",
            netrc.path().display().to_string(),
            "fetch.netrc",
        ),
        ("--origin-credentials", for_host, "fetch.credentials"),
        (
            "--origin-rules",
            rules.path().display().to_string(),
            "fetch.rules",
        ),
    ] {
        let open = || Proxy::new().listen("0.0.0.0:0").arg(flag).arg(&value);
        let (status, printed) = open().start_to_end().await;
        assert_eq!(status.code(), Some(64), "{printed}");
        says(
            &printed,
            &[&format!("`{key}` would lend"), "allow_anonymous"],
        );
        open().config("allow_anonymous = true\n").start().await;
    }
    let harmless = File::new("block h.example\n");
    with_rules(&harmless).listen("0.0.0.0:0").start().await;
}

#[tokio::test]
async fn broken_files_are_configuration_errors_all_at_once() {
    let rules = File::new("block\nrewrite (x y\n");
    let netrc = File::new("machine h login hunter2 oops\n");
    let headers = File::new("hunter2\n");
    let file = headers.path().display().to_string();
    let proxy = with_rules(&rules)
        .arg("--origin-netrc")
        .arg(netrc.path())
        .config(format!(
            "[fetch]\ncredentials = [\"h={file}\", \"h=hunter2\", \"hunter2\"]\n"
        ));
    let (status, printed) = proxy.start_to_end().await;
    assert_eq!(status.code(), Some(64), "{printed}");
    says(
        &printed,
        &[
            "`fetch.rules`: ",
            "line 1 is not of the form `block HOST`",
            "line 2 has a pattern that cannot be used: unclosed group",
            "`fetch.netrc` is the path of a netrc file: line 1 has a word",
            "`fetch.credentials`: the file for h: line 1 is not of the form",
            "`fetch.credentials` names h twice",
            "`fetch.credentials`: is HOST=FILE",
        ],
    );
    assert!(!printed.contains("hunter2"), "{printed}");
    let alone = Proxy::new().config("[fetch]\nrules_report_only = true\n");
    let (status, printed) = alone.start_to_end().await;
    assert_eq!(status.code(), Some(64));
    says(&printed, &["`fetch.rules_report_only` needs `fetch.rules`"]);
}
