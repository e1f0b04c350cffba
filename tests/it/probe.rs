//! What is found out of the cache, where it is told, and what follows.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tonic::Status;

use crate::support::answer::says;
use crate::support::logs::field;
use crate::support::{
    Code, Proxy, Running, Upstream, admin, eventually, fetch_blob, hit, push_blob,
};

/// The report of `/status` for an instance name, once it is there.
async fn report(proxy: &Running, instance: &str, outcome: &str) -> Value {
    eventually("the report", async || {
        let (_, body) = admin::get(proxy.admin(), "/status").await;
        let status: Value = serde_json::from_str(&body).ok()?;
        let mut reports = status["probes"].as_array()?.iter();
        let found = reports.find(|r| r["instance"] == instance && r["outcome"] == outcome);
        found.cloned()
    })
    .await
}

struct Doctor {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn doctor(arguments: Vec<String>) -> Doctor {
    let run = move || {
        let output = Command::new(env!("CARGO_BIN_EXE_assetgate"))
            .arg("doctor")
            .args(arguments)
            .env_clear()
            .env("HOME", "/home/nobody")
            .output()
            .unwrap();
        Doctor {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn at(cache: &Upstream, more: &[&str]) -> Vec<String> {
    let url = cache.url();
    let all = ["--upstream", &url].into_iter().chain(more.iter().copied());
    all.map(str::to_owned).collect()
}

#[tokio::test]
async fn what_was_found_is_told_everywhere() {
    let cache = Upstream::start();
    let proxy = Proxy::new().probing().upstream(&cache).start().await;
    let report = report(&proxy, "", "complete").await;
    assert_eq!(report["findings"]["files_checked"]["value"], "yes");
    assert_eq!(report["references_work"], true);

    let (_, page) = admin::get(proxy.admin(), "/").await;
    says(
        &page,
        &[
            "Probe of instance",
            "<th>Action Cache<td>yes<td>entries are kept",
        ],
    );

    let metrics = proxy.metrics().await;
    let labels = ["check=\"writable\"", "instance=\"\""];
    assert_eq!(metrics.sum("assetgate_probe_result", &labels), 1.0);
    let complete = ["outcome=\"complete\""];
    assert_eq!(metrics.sum("assetgate_probe_runs_total", &complete), 1.0);
    assert!(metrics.sum("assetgate_probe_last_success", &["instance=\"\""]) > 1.7e9);

    let event = eventually("the event", async || {
        let events = proxy.stderr().events();
        let is = |e: &Value| field(e, "probe.outcome").is_some();
        events.into_iter().find(is)
    })
    .await;
    assert_eq!(field(&event, "probe.writable").as_deref(), Some("yes"));
    assert_eq!(field(&event, "probe.outcome").as_deref(), Some("complete"));
    assert!(proxy.stdout().text().is_empty(), "JSON is for scripts");
}

#[tokio::test]
async fn text_stands_under_the_banner() {
    let cache = Upstream::start();
    let proxy = Proxy::new()
        .probing()
        .upstream(&cache)
        .text_logs()
        .start()
        .await;
    let text = eventually("the report", async || {
        let text = proxy.stdout().text();
        text.contains("overwriting").then_some(text)
    })
    .await;
    let (banner, report) = text.split_once("Probe of the default instance").unwrap();
    assert!(banner.contains("upstream  grpc://"), "{text}");
    says(report, &["references work", "files checked      yes"]);
}

#[tokio::test]
async fn a_hit_costs_one_call_where_the_cache_checks_and_two_where_it_does_not() {
    let cache = Upstream::start();
    let (proxy, client) = Proxy::new().probing().upstream(&cache).connected().await;
    report(&proxy, "", "complete").await;
    let digest = client.upload(b"content").await;
    client
        .push_blob(push_blob(&["urn:a"], digest))
        .await
        .unwrap();
    let asked = |method: &str| {
        cache
            .calls()
            .iter()
            .filter(|c| c.method() == method)
            .count()
    };
    let before = asked("FindMissingBlobs");
    hit(client.fetch_blob(fetch_blob(&["urn:a"])).await);
    assert_eq!(asked("FindMissingBlobs"), before);

    let cache = Upstream::start();
    cache.check_completeness(false);
    let (proxy, client) = Proxy::new().probing().upstream(&cache).connected().await;
    report(&proxy, "", "complete").await;
    let digest = client.upload(b"content").await;
    client
        .push_blob(push_blob(&["urn:a"], digest))
        .await
        .unwrap();
    let asked = |method: &str| {
        cache
            .calls()
            .iter()
            .filter(|c| c.method() == method)
            .count()
    };
    let before = asked("FindMissingBlobs");
    hit(client.fetch_blob(fetch_blob(&["urn:a"])).await);
    assert_eq!(asked("FindMissingBlobs"), before + 1);
}

#[tokio::test]
async fn it_starts_while_the_cache_is_down_and_probes_when_it_comes() {
    let cache = Upstream::start();
    cache.stop().await;
    let proxy = Proxy::new().probing().upstream(&cache).start().await;
    let down = report(&proxy, "", "unreachable").await;
    says(
        down["summary"].as_str().unwrap(),
        &["did not answer", &cache.address().to_string()],
    );
    cache.restart();
    report(&proxy, "", "complete").await;
}

#[tokio::test]
async fn what_we_are_refused_is_probed_under_the_first_caller_who_may() {
    let cache = Upstream::start();
    cache.demand_token("Bearer s3cr3t-token", Code::Unauthenticated);
    let (proxy, client) = Proxy::new().probing().upstream(&cache).connected().await;
    let refused = report(&proxy, "", "refused").await;
    assert_eq!(refused["references_work"], false);
    let mut request = fetch_blob(&["urn:a"]);
    request.instance_name = "team".to_owned();
    let caller = client.with("authorization", "Bearer s3cr3t-token");
    caller.fetch_blob(request).await.unwrap();
    report(&proxy, "team", "complete").await;
    let (_, status) = admin::get(proxy.admin(), "/status").await;
    let told = format!(
        "{status}{}{}",
        proxy.stderr().text(),
        proxy.metrics().await.0
    );
    assert!(!told.contains("s3cr3t"), "{told}");
    let metrics = proxy.metrics().await;
    let other = ["check=\"writable\"", "instance=\"other\""];
    assert_eq!(metrics.sum("assetgate_probe_result", &other), 1.0);
    assert!(
        !metrics.0.contains("team"),
        "names of requests are no labels"
    );
}

#[tokio::test]
async fn what_is_required_and_not_so_ends_the_start() {
    let cache = Upstream::start();
    cache.check_completeness(false);
    let proxy = Proxy::new().probing().upstream(&cache);
    let (status, text) = proxy.arg("--require").arg("complete").start_to_end().await;
    assert_eq!(status.code(), Some(1));
    says(
        &text,
        &[
            "probe.require is not met",
            "withholds entries whose content is gone",
            "lost trees",
        ],
    );
    cache.check_completeness(true);
    let proxy = Proxy::new().probing().upstream(&cache);
    let proxy = proxy.arg("--require").arg("complete").start().await;
    report(&proxy, "", "complete").await;
}

#[tokio::test]
async fn doctor_says_by_its_exit_code_whether_references_work() {
    let cache = Upstream::start();
    let ran = doctor(at(&cache, &[])).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    says(&ran.out, &["references work", "overwriting        yes"]);

    let ran = doctor(at(
        &cache,
        &["--json", "--instance", "a/b", "--instance", ""],
    ))
    .await;
    let reports: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(reports[0]["instance"], "a/b");
    assert_eq!(reports[1]["findings"]["writable"]["value"], "yes");

    cache.check_completeness(false);
    let ran = doctor(at(&cache, &["--require", "complete"])).await;
    assert_eq!(ran.code, Some(1));
    says(&ran.err, &["`complete` is not met"]);

    let refusal = Status::permission_denied("read only");
    cache.fail("UpdateActionResult", refusal);
    let ran = doctor(at(&cache, &[])).await;
    assert_eq!(ran.code, Some(1));
    says(
        &ran.out,
        &["PERMISSION_DENIED: read only", "give callers write access"],
    );

    cache.stop().await;
    let ran = tokio::time::timeout(Duration::from_secs(30), doctor(at(&cache, &[]))).await;
    let ran = ran.unwrap();
    assert_eq!(ran.code, Some(69), "{}", ran.out);
    says(&ran.out, &[&cache.address().to_string()]);

    let ran = doctor(vec!["--instance".to_owned(), "a//b".to_owned()]).await;
    assert_eq!(ran.code, Some(64));
}
