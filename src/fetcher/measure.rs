//! What is counted about requests to origins.
//!
//! A host may stand in a label, but hosts come from callers, so there is an
//! end: the first [`NAMED`] that gave content have names, no more than
//! [`PER_DOMAIN`] of them under one domain, all others together are `other`.
//! Names that somebody made up give no content, and whoever has a domain of
//! his own can have any number under it.
//! Not for: what a single call did (`middleware::observe` logs that).
//! Called by: `fetch`, `mirrors`, `download`, `progress`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use metrics::SharedString;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::Failure;

/// Hosts with a label of their own.
const NAMED: usize = 64;

/// Of these, under one domain; all that are addresses count as one.
const PER_DOMAIN: usize = 16;

/// Longest name of the DNS.
const LONGEST: usize = 253;

const OTHER: SharedString = SharedString::const_str("other");

/// Hosts seen so far. A set that stops growing, so that no series ever changes
/// its meaning.
struct Hosts(RwLock<BTreeSet<String>>);

static HOSTS: LazyLock<Hosts> = LazyLock::new(Hosts::new);

impl Hosts {
    fn new() -> Self {
        Self(RwLock::default())
    }

    /// `admit`: whether a host that is new gets a name, if there is one left
    /// for its domain.
    fn label(&self, host: &str, admit: bool) -> SharedString {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b);
        if host.is_empty() || host.len() > LONGEST || !host.bytes().all(plain) {
            return OTHER;
        }
        let host = host.to_ascii_lowercase();
        if self.0.read().contains(&host) {
            return host.into();
        }
        let mut known = self.0.write();
        let room = || {
            let related = known.iter().filter(|k| domain(k) == domain(&host));
            known.len() < NAMED && related.count() < PER_DOMAIN
        };
        if known.contains(&host) || (admit && room()) {
            known.insert(host.clone());
            return host.into();
        }
        OTHER
    }
}

/// The last two labels of a name, near enough to what can be bought.
fn domain(host: &str) -> &str {
    let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if is_address {
        return "";
    }
    let host = host.trim_end_matches('.');
    match host.rmatch_indices('.').nth(1) {
        Some((at, _)) => &host[at + 1..],
        None => host,
    }
}

/// The series of bytes from one host, which gave some.
pub(super) fn bytes_of(host: &str) -> metrics::Counter {
    metrics::counter!("assetgate_origin_bytes_total", "host" => HOSTS.label(host, true))
}

/// Counts one request to an origin by the class of its outcome. One that
/// brought no content gives no host a name.
pub(super) fn request(class: &'static str, host: &str, since: Instant) {
    let host = HOSTS.label(host, class == "ok");
    metrics::counter!("assetgate_origin_requests_total", "class" => class, "host" => host)
        .increment(1);
    metrics::histogram!("assetgate_origin_request_duration_seconds", "class" => class)
        .record(since.elapsed().as_secs_f64());
}

/// Counts a body that came whole: `memory`, `disk` or `streamed`.
pub(super) fn body(through: &'static str) {
    metrics::counter!("assetgate_origin_bodies_total", "through" => through).increment(1);
}

/// Counts a body that was cut off: `resumed`; `restarted`, as the origin sent
/// all of it again; or its rest was `refused`, or `unusable`.
pub(super) fn resumed(result: &'static str) {
    metrics::counter!("assetgate_origin_resumes_total", "result" => result).increment(1);
}

/// Counts a wait for origins that failed in a way that may pass.
pub(super) fn retried(reason: &'static str) {
    metrics::counter!("assetgate_origin_retries_total", "reason" => reason).increment(1);
}

/// The class of a failed request.
pub(super) fn class(failure: &Failure) -> &'static str {
    match failure {
        Failure::NotFound => "not_found",
        Failure::Refused => "refused",
        Failure::Disallowed => "disallowed",
        Failure::Unusable => "unusable",
        Failure::TooLarge => "too_large",
        Failure::Mismatch => "mismatch",
        Failure::Truncated => "truncated",
        Failure::TimedOut => "timed_out",
        Failure::TooManyRequests { .. } => "too_many_requests",
        Failure::Unavailable { .. } => "unavailable",
    }
}

/// A fetch under way: counts itself as long as it lives.
pub(super) struct Running;

impl Running {
    pub(super) fn new() -> Self {
        metrics::gauge!("assetgate_fetch_in_flight").increment(1.0);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        metrics::gauge!("assetgate_fetch_in_flight").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hosts_have_names_and_keep_them() {
        let hosts = Hosts::new();
        let label = |host: &str, admit| hosts.label(host, admit).into_owned();
        assert_eq!(label("GitHub.com", true), "github.com");
        assert_eq!(label("10.0.0.1", true), "10.0.0.1");
        assert_eq!(label("[::1]", true), "[::1]");
        assert_eq!(label("refused.example", false), "other");
        for n in 3..NAMED {
            let host = format!("h.d{n}.example");
            assert_eq!(label(&host, true), host);
        }
        assert_eq!(label("late.example", true), "other");
        assert_eq!(label("github.com", true), "github.com");
        assert_eq!(label("GITHUB.COM", false), "github.com");
        assert_eq!(hosts.0.read().len(), NAMED);
    }

    #[test]
    fn one_domain_cannot_take_every_name() {
        let hosts = Hosts::new();
        let named = |host: String| *hosts.label(&host, true) == *host;
        let count =
            |hosts: &mut dyn Iterator<Item = String>| hosts.filter(|h| named(h.clone())).count();
        assert_eq!(
            count(&mut (0..99).map(|n| format!("h{n}.evil.example"))),
            PER_DOMAIN
        );
        assert_eq!(
            count(&mut (0..99).map(|n| format!("a.h{n}.evil.example."))),
            0
        );
        assert_eq!(
            count(&mut (0..99).map(|n| format!("10.0.0.{n}"))),
            PER_DOMAIN
        );
        assert_eq!(count(&mut (0..9).map(|n| format!("[fd00::{n}]"))), 0);
        assert!(named("github.com".to_owned()) && named("localhost".to_owned()));
    }

    #[test]
    fn what_is_no_host_is_no_label() {
        let hosts = Hosts::new();
        for bad in ["", "a b", "a\"b", "a\nb", "é.example", &"a".repeat(254)] {
            assert_eq!(&*hosts.label(bad, true), "other", "{bad}");
        }
        assert!(hosts.0.read().is_empty());
    }
}
