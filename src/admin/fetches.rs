//! `/fetches`: the downloads under way, as a table for people or as JSON.
//!
//! Not for: what a download says of itself (`fetcher::Progress`).
//! Called by: `pages`; `assetgate fetch` reads the JSON.

use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;
use http::{Request, header};
use serde_json::{Value, json};

use super::pages::escape;
use crate::fetcher::Entry;

/// JSON by `?format=json`, or by an Accept that names it and no HTML: browsers
/// name HTML.
pub(super) fn wants_json<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    if let Some(format) = query.split('&').find_map(|p| p.strip_prefix("format=")) {
        return format == "json";
    }
    let accepts = |kind: &str| {
        let mut all = request.headers().get_all(header::ACCEPT).iter();
        all.any(|value| value.to_str().is_ok_and(|value| value.contains(kind)))
    };
    accepts("application/json") && !accepts("text/html")
}

/// For programs.
pub(super) fn json(list: &[Entry]) -> String {
    let fetches: Vec<Value> = list.iter().map(entry).collect();
    format!("{:#}\n", json!({ "fetches": fetches }))
}

fn entry(entry: &Entry) -> Value {
    json!({
        "uri": entry.uri,
        "host": entry.host,
        "phase": entry.phase.name(),
        "bytes": entry.bytes,
        "total": entry.total,
        "waiters": entry.waiters,
        "attempts": entry.attempts,
        "waits_for": entry.waits_for,
        "age_seconds": entry.age.as_secs_f64(),
    })
}

/// For people; renews itself.
pub(super) fn page(list: &[Entry]) -> String {
    let mut rows = String::new();
    for entry in list {
        let _ = writeln!(
            rows,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            escape(&entry.uri),
            phase(entry),
            received(entry.bytes, entry.total),
            entry.waiters,
            entry.attempts,
            humantime::format_duration(Duration::from_secs(entry.age.as_secs())),
        );
    }
    let summary = match list.len() {
        0 => "Nothing is being downloaded.".to_owned(),
        1 => "1 download.".to_owned(),
        n => format!("{n} downloads."),
    };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2>\
         <title>Assetgate: fetches</title>\n\
         <style>body{{font:1rem sans-serif;margin:2rem}}th,td{{text-align:left;padding-right:1rem}}</style>\n\
         <h1>Fetches</h1>\n<p>{summary}\n<table>\n\
         <tr><th>URI<th>phase<th>received<th>waiting<th>requests<th>for\n{rows}</table>\n\
         <p><a href=/>status page</a> <a href=\"/fetches?format=json\">as JSON</a>\n"
    )
}

fn phase(entry: &Entry) -> String {
    match &entry.waits_for {
        Some(what) => format!("{}: {}", entry.phase.name(), escape(what)),
        None => entry.phase.name().to_owned(),
    }
}

fn received(bytes: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => {
            let percent = u128::from(bytes) * 100 / u128::from(total);
            format!("{} of {} ({percent} %)", ByteSize(bytes), ByteSize(total))
        }
        _ => ByteSize(bytes).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetcher::Progress;

    fn asked(path: &str, accept: Option<&str>) -> bool {
        let mut request = Request::builder().uri(path);
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        wants_json(&request.body(()).unwrap())
    }

    #[test]
    fn programs_get_json_and_browsers_do_not() {
        assert!(asked("/fetches?format=json", None));
        assert!(asked("/fetches?a=b&format=json", Some("text/html")));
        assert!(asked("/fetches", Some("application/json")));
        assert!(!asked("/fetches?format=html", Some("application/json")));
        assert!(!asked("/fetches", None));
        let browser = "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8";
        assert!(!asked("/fetches", Some(browser)));
    }

    #[tokio::test(start_paused = true)]
    async fn both_forms_show_the_same() {
        let progress = Progress::default();
        let tracker = progress.begin("https://h/<a>".to_owned(), "h".to_owned());
        tracker.attempt(2);
        tracker.announce(Some(4096));
        tracker.received(1024);
        tokio::time::advance(Duration::from_millis(61_500)).await;
        let html = page(&progress.list());
        let row = "<tr><td>https://h/&lt;a&gt;<td>receiving<td>1.0 KiB of 4.0 KiB (25 %)<td>0<td>2<td>1m 1s\n";
        assert!(html.contains(row), "{html}");
        let told: Value = serde_json::from_str(&json(&progress.list())).unwrap();
        let want = json!({"fetches": [{
            "uri": "https://h/<a>", "host": "h", "phase": "receiving", "bytes": 1024,
            "total": 4096, "waiters": 0, "attempts": 2, "waits_for": null, "age_seconds": 61.5,
        }]});
        assert_eq!(told, want);
        drop(tracker);
        assert!(page(&progress.list()).contains("Nothing is being downloaded."));
        assert_eq!(json(&[]), "{\n  \"fetches\": []\n}\n");
    }
}
