//! Every metric there is, in one table: name, kind, unit, help.
//!
//! `grpc_server_*` are the names of the gRPC ecosystem, so that dashboards for
//! other servers work; the rest begins with `assetgate_`. `tests/it/layers.rs`
//! fails when `src` records a metric that is not here.
//! Not for: recording.
//! Called by: `telemetry`.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

/// Says which version runs; the value is always 1.
pub(super) const BUILD_INFO: &str = "assetgate_build_info";

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// From a memory lookup to the longest fetch.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Histograms and their bounds; without bounds they would be summaries, which
/// cannot be added up over replicas.
pub(super) const BUCKETS: &[(&str, &[f64])] = &[
    ("grpc_server_handling_seconds", SECONDS),
    ("assetgate_asset_duration_seconds", SECONDS),
    ("assetgate_origin_request_duration_seconds", SECONDS),
];

#[rustfmt::skip]
const TABLE: &[(&str, Kind, Unit, &str)] = &[
    (BUILD_INFO, Gauge, Unit::Count, "The running version; always 1."),
    ("grpc_server_started_total", Counter, Unit::Count, "Calls begun, by service, method and type."),
    ("grpc_server_handled_total", Counter, Unit::Count, "Calls ended, by service, method, type and code."),
    ("grpc_server_handling_seconds", Histogram, Unit::Seconds, "How long calls took, by service, method and type."),
    ("assetgate_asset_requests_total", Counter, Unit::Count, "Fetches and pushes ended, by rpc, code (that inside the answer counts) and outcome."),
    ("assetgate_asset_duration_seconds", Histogram, Unit::Seconds, "How long fetches and pushes took, by rpc and outcome."),
    ("assetgate_fetch_misses_total", Counter, Unit::Count, "Fetches that the cache did not answer, by reason."),
    ("assetgate_reference_unusable_total", Counter, Unit::Count, "Entries under our keys that were taken for misses, by reason."),
    ("assetgate_reference_write_failures_total", Counter, Unit::Count, "References of fetched content that could not be recorded."),
    ("assetgate_lookups_total", Counter, Unit::Count, "Keys looked up, by key space and what was found."),
    ("assetgate_checksum_claims_total", Counter, Unit::Count, "References whose checksum had to be proven by their content, by what that showed."),
    ("assetgate_references_renewed_total", Counter, Unit::Count, "References signed anew while they are used, by outcome."),
    ("assetgate_references_migrated_total", Counter, Unit::Count, "References of bb-remote-asset found, by whether they could be recorded again."),
    ("assetgate_push_subsets_limited_total", Counter, Unit::Count, "Pushes with too many qualifiers to be found by any subset of them."),
    ("assetgate_push_references_dropped_total", Counter, Unit::Count, "Referenced blobs and directories of pushes that could not be kept alive."),
    ("assetgate_directories_healed_total", Counter, Unit::Count, "Directory messages written again from their Tree."),
    ("assetgate_probe_result", Gauge, Unit::Count, "What the last probe of the cache found, by check and instance: 1 yes, 0 no, -1 unknown."),
    ("assetgate_probe_runs_total", Counter, Unit::Count, "Probes of the cache ended, by outcome."),
    ("assetgate_probe_last_success", Gauge, Unit::Seconds, "Unix time of the last probe that saw all it had to, by instance."),
    ("assetgate_origin_requests_total", Counter, Unit::Count, "Requests to origins, by class of result and host."),
    ("assetgate_origin_bytes_total", Counter, Unit::Bytes, "Bytes received from origins, by host."),
    ("assetgate_origin_request_duration_seconds", Histogram, Unit::Seconds, "How long requests to origins took, from waiting for their turn to the end of the body, by class of result."),
    ("assetgate_origin_bodies_total", Counter, Unit::Count, "Bodies received whole, by where they were held on their way to the cache."),
    ("assetgate_origin_retries_total", Counter, Unit::Count, "Waits for origins to recover, by class of the failure."),
    ("assetgate_origin_resumes_total", Counter, Unit::Count, "Bodies that were cut off and asked for again, by result."),
    ("assetgate_fetches_waiting", Gauge, Unit::Count, "Downloads that wait for an origin to recover."),
    ("assetgate_origin_requests_waiting", Gauge, Unit::Count, "Requests to origins that wait for their turn."),
    ("assetgate_origin_requests_delayed_total", Counter, Unit::Count, "Requests to origins that could not go at once, by what they waited for."),
    ("assetgate_origin_pauses_total", Counter, Unit::Count, "Times an origin asked with 429 to be left alone for a while."),
    ("assetgate_origin_connections", Gauge, Unit::Count, "Connections to origins open, idle ones included."),
    ("assetgate_origin_connections_displaced_total", Counter, Unit::Count, "Idle connections to origins closed because all places were taken."),
    ("assetgate_origin_rule_decisions_total", Counter, Unit::Count, "URLs that URL rules changed or blocked, by decision, and by whether that is enforced or only told."),
    ("assetgate_origin_drift_total", Counter, Unit::Count, "Fetches that found other content under a URL than before, without a checksum."),
    ("assetgate_fetch_in_flight", Gauge, Unit::Count, "Fetches from origins under way."),
    ("assetgate_fetches_unattended", Gauge, Unit::Count, "Fetches under way for callers who left and may ask again."),
    ("assetgate_fetches_joined_total", Counter, Unit::Count, "Fetches answered by an earlier identical one, by whether that was running or is remembered."),
    ("assetgate_fetches_abandoned_total", Counter, Unit::Count, "Fetches ended because nobody waited for them, and nobody would come back, too many were so, or at a stop."),
    ("assetgate_negative_hits_total", Counter, Unit::Count, "Fetches answered with what the origin said a few seconds ago: that there is no such content."),
    ("assetgate_spool_bytes", Gauge, Unit::Bytes, "Bytes that downloads hold, in memory and in temporary files."),
    ("assetgate_received_bytes", Gauge, Unit::Bytes, "Bytes held of what was received and is not yet answered here."),
    ("assetgate_received_waiting", Gauge, Unit::Count, "Messages that are not read, or not decoded, for want of room."),
    ("assetgate_received_refused_total", Counter, Unit::Count, "Messages refused before they were whole or decoded, by reason."),
    ("assetgate_connections", Gauge, Unit::Count, "Client connections open."),
    ("assetgate_connections_accepted_total", Counter, Unit::Count, "Client connections accepted."),
    ("assetgate_connections_refused_total", Counter, Unit::Count, "Client connections turned away, by reason."),
    ("assetgate_connections_ended_total", Counter, Unit::Count, "Client connections that spoke HTTP/2 and ended, by reason."),
    ("assetgate_upstream_connections", Gauge, Unit::Count, "Connections to the cache open."),
    ("assetgate_upstream_connections_opened_total", Counter, Unit::Count, "Connections to the cache opened."),
    ("assetgate_upstream_connections_lost_total", Counter, Unit::Count, "Connections to the cache that broke."),
    ("assetgate_upstream_dial_failures_total", Counter, Unit::Count, "Attempts to connect to the cache that failed."),
    ("assetgate_upstream_calls_stalled_total", Counter, Unit::Count, "Calls ended because they stood still on a congested connection that clients share."),
    ("assetgate_upstream_calls_retried_total", Counter, Unit::Count, "Calls sent again because the cache had provably not processed them."),
    ("assetgate_log_lines_dropped_total", Counter, Unit::Count, "Log lines left out because standard error took no more."),
    ("assetgate_panics_total", Counter, Unit::Count, "Calls that ended by a bug; each has a log line."),
    ("assetgate_embedded_bytes", Gauge, Unit::Bytes, "Bytes in the embedded cache."),
    ("assetgate_embedded_blobs", Gauge, Unit::Count, "Files in the embedded cache."),
    ("assetgate_embedded_evictions_total", Counter, Unit::Count, "Files the embedded cache dropped for space."),
    ("assetgate_embedded_corrupt_total", Counter, Unit::Count, "Damaged files the embedded cache found and removed."),
];

/// Why a look-up found nothing.
const MISSED: &[&str] = &[
    "absent",
    "unusable",
    "contradicted",
    "unproven",
    "half_pushed",
    "gone",
    "expired",
    "unconfirmed",
    "stale",
];

/// Labels of counters and what these say, where that is known at start: all of
/// them are 0 from then on, so that the first event is a rise. Not what rules
/// of HTTP/2 were broken.
#[rustfmt::skip]
const LABELS: &[(&str, &str, &[&str])] = &[
    ("assetgate_fetch_misses_total", "reason", MISSED),
    ("assetgate_reference_write_failures_total", "source", &["fetch"]),
    ("assetgate_checksum_claims_total", "result", &["right", "wrong", "unproven"]),
    ("assetgate_references_renewed_total", "outcome", &["signed", "failed"]),
    ("assetgate_references_migrated_total", "outcome", &["recorded", "read"]),
    ("assetgate_probe_runs_total", "outcome", &["complete", "refused", "unreachable", "incomplete"]),
    ("assetgate_origin_bodies_total", "through", &["memory", "disk", "streamed"]),
    ("assetgate_origin_resumes_total", "result", &["resumed", "restarted", "refused", "unusable"]),
    ("assetgate_origin_requests_delayed_total", "by", &["max_per_host", "rate", "pause", "max_concurrent", "max_connections"]),
    ("assetgate_fetches_joined_total", "how", &["running", "remembered"]),
    ("assetgate_received_refused_total", "reason", &["no_room", "stalled", "parts"]),
    ("assetgate_connections_refused_total", "reason", &["limit", "client_limit", "timeout", "crowded_out", "tls", "http1", "garbage"]),
    ("assetgate_connections_ended_total", "reason", &["closed", "idle", "displaced", "stopping", "lost", "ping_timeout", "client_error"]),
];

/// Counters whose labels only events tell: methods, hosts, codes, texts.
const TOLD_BY_EVENTS: &[&str] = &[
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "assetgate_asset_requests_total",
    "assetgate_reference_unusable_total",
    "assetgate_lookups_total",
    "assetgate_origin_requests_total",
    "assetgate_origin_bytes_total",
    "assetgate_origin_retries_total",
    "assetgate_origin_rule_decisions_total",
];

/// Makes every counter 0 whose labels are known.
pub(super) fn begin() {
    for (name, kind, ..) in TABLE {
        let labels = LABELS.iter().find(|(labelled, ..)| labelled == name);
        match (kind, labels) {
            (Counter, Some((name, label, values))) => {
                for value in *values {
                    counter!(*name, *label => *value).increment(0);
                }
            }
            (Counter, None) if !TOLD_BY_EVENTS.contains(name) => counter!(*name).increment(0),
            _ => {}
        }
    }
}

/// Gives every metric its help text.
pub(super) fn describe() {
    for (name, kind, unit, help) in TABLE {
        match kind {
            Counter => describe_counter!(*name, *unit, *help),
            Gauge => describe_gauge!(*name, *unit, *help),
            Histogram => describe_histogram!(*name, *unit, *help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_what_they_are() {
        let mut seen = std::collections::BTreeSet::new();
        for (name, kind, _, help) in TABLE {
            assert!(seen.insert(name), "{name} stands twice");
            assert!(
                name.starts_with("assetgate_") || name.starts_with("grpc_"),
                "{name}"
            );
            assert_eq!(matches!(kind, Counter), name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.'), "{name}");
            let bounded = BUCKETS.iter().any(|(bounded, _)| bounded == name);
            assert_eq!(matches!(kind, Histogram), bounded, "{name}");
        }
        let begun = LABELS.iter().map(|(name, ..)| name);
        for name in begun.chain(TOLD_BY_EVENTS) {
            assert!(seen.contains(name), "{name} is no metric");
        }
    }
}
