//! One test for each shape of cache in conformance C1 and C6.

use tonic::Code;

use super::super::{
    CHECKS, Carrier, Condition, Modes, Overwrite, ProbeTarget, Report, Writes, probe,
};
use super::{ctx, line, probed, target, values};
use crate::digest::InstanceName;
use crate::proto::rev2;
use crate::upstream::CallContext;
use crate::upstream::double::{Checks, Double, LostTree};

const FULL: Modes = Modes {
    checks_files: true,
    checks_trees: true,
    carrier: Carrier::Metadata,
};

/// A cache as good as they get.
fn good() -> Double {
    let double = Double::new();
    double.set(|s| {
        s.checks = Checks::all();
        s.knows_instances = true;
        s.has_get_tree = true;
    });
    double
}

fn modes(report: &Report) -> Modes {
    report.modes(Modes::default())
}

#[tokio::test]
async fn a_cache_that_does_everything() {
    let double = good();
    let report = probed(&double).await;
    let yes: Vec<_> = CHECKS.iter().map(|check| (*check, "yes")).collect();
    assert_eq!(values(&report), yes, "{}", report.text());
    assert_eq!(modes(&report), FULL);
    assert!(report.is_complete() && report.references_work());
    assert_eq!(report.outcome(), "complete");
    assert_eq!(report.unmet(&Condition::ALL), []);
    assert_eq!(
        report.text().lines().next().unwrap(),
        "Probe of the default instance (SHA256): references work; the cache checks that content \
         is complete, so a hit is one call"
    );
}

#[tokio::test]
async fn a_probe_is_small_and_leaves_no_reference() {
    let double = good();
    probed(&double).await;
    let calls = double.take_log();
    assert!(calls.len() <= 32, "{calls:?}");
    let stored: usize = double.set(|s| s.blobs.values().map(bytes::Bytes::len).sum());
    assert!(stored < 8 << 10, "{stored} bytes");
    let first: Vec<String> = double.set(|s| s.entries.keys().cloned().collect());
    probed(&double).await;
    let both = double.set(|s| s.entries.len());
    assert_eq!(both, 2 * first.len(), "each probe has keys of its own");
}

#[tokio::test]
async fn no_completeness_check() {
    let double = good();
    double.set(|s| s.checks = Checks::default());
    let report = probed(&double).await;
    assert_eq!(modes(&report), Modes::default());
    assert!(report.is_complete() && report.references_work());
    for check in [
        "files_checked",
        "trees_checked",
        "pins_checked",
        "lost_trees_checked",
    ] {
        let (value, text) = line(&report, check);
        assert_eq!(value, "no");
        assert!(text.contains("Assetgate asks the CAS itself"), "{text}");
    }
    assert_eq!(report.unmet(&Condition::ALL), [Condition::Complete]);
    let text = report.refusal(&[Condition::Complete]);
    assert!(
        text.starts_with("probe.require is not met: `complete` (the cache withholds entries"),
        "{text}"
    );
}

#[tokio::test]
async fn files_checked_and_trees_not() {
    let double = good();
    double.set(|s| s.checks.trees = false);
    let report = probed(&double).await;
    let want = Modes {
        checks_trees: false,
        ..FULL
    };
    assert_eq!(modes(&report), want);
}

#[tokio::test]
async fn a_cache_that_loses_the_root_digest_and_checks_nothing_without_a_tree() {
    let double = good();
    double.set(|s| {
        s.loses_root_digest = true;
        s.checks.lost_tree = LostTree::GivenOut;
        s.refuse_instances_with = Some(Code::Internal);
    });
    let report = probed(&double).await;
    assert_eq!(line(&report, "root_digest").0, "no");
    assert_eq!(line(&report, "lost_trees_checked").0, "no");
    assert_eq!(line(&report, "instances").0, "yes");
    assert!(modes(&report).checks_files && !modes(&report).checks_trees);
}

#[tokio::test]
async fn a_root_may_stand_in_for_a_lost_tree_and_sizes_may_be_ignored() {
    for code in [Code::InvalidArgument, Code::PermissionDenied] {
        let double = good();
        double.set(|s| {
            s.checks.lost_tree = LostTree::RootWalked;
            s.refuse_instances_with = Some(code);
            s.ignores_sizes = true;
        });
        let report = probed(&double).await;
        assert_eq!(modes(&report), FULL, "{}", report.text());
        assert_eq!(line(&report, "instances").0, "yes");
        assert_eq!(line(&report, "sizes").0, "no");
    }
}

#[tokio::test]
async fn entries_that_are_refused_say_nothing_of_what_is_lost_later() {
    let double = good();
    double.set(|s| {
        s.checks.lost_tree = LostTree::UpdateRefused;
        s.knows_instances = false;
    });
    let report = probed(&double).await;
    let (value, text) = line(&report, "lost_trees_checked");
    assert_eq!(value, "refused");
    assert!(
        text.contains("is not taken (UNKNOWN: tree not found), which says nothing of content"),
        "{text}"
    );
    assert_eq!(line(&report, "instances").0, "no");
    assert!(report.is_complete() && report.references_work());
    assert!(modes(&report).checks_files && !modes(&report).checks_trees);
    let unmet = report.unmet(&Condition::ALL);
    assert_eq!(unmet, [Condition::Complete, Condition::Instances]);
}

#[tokio::test]
async fn payloads_that_are_dropped_go_into_blobs() {
    let double = good();
    double.set(|s| s.loses_payload = true);
    let report = probed(&double).await;
    assert_eq!(modes(&report).carrier, Carrier::Blob);
    assert!(report.is_complete() && report.references_work());
    assert_eq!(report.unmet(&Condition::ALL), [Condition::Payload]);
}

#[tokio::test]
async fn refused_writes_with_each_code() {
    for (code, name, for_credentials) in [
        (Code::PermissionDenied, "PERMISSION_DENIED", true),
        (Code::Unauthenticated, "UNAUTHENTICATED", true),
        (Code::Unimplemented, "UNIMPLEMENTED", false),
        (Code::Internal, "INTERNAL", false),
    ] {
        let double = good();
        double.set(|s| s.refuse_updates_with = Some((code, "no\nway".to_owned())));
        let report = probed(&double).await;
        let (value, text) = line(&report, "writable");
        assert_eq!(value, "refused");
        let want = format!("writes refused ({name}: no way): fetching works, nothing is");
        assert!(text.starts_with(&want), "{text}");
        assert!(text.ends_with("or set references.upstream"), "{text}");
        assert_eq!(line(&report, "content").0, "yes");
        assert_eq!(report.is_refused(), for_credentials);
        assert!(!report.is_complete() && !report.references_work());
        assert_eq!(double.calls("UpdateActionResult"), 1, "one no is enough");
        assert_eq!(report.unmet(&[Condition::Writable]), [Condition::Writable]);
        assert!(!Condition::Writable.is_open(&report));
    }
}

#[tokio::test]
async fn buildbuddy_acknowledges_and_stores_nothing() {
    let double = good();
    double.set(|s| s.drop_updates = true);
    let report = probed(&double).await;
    assert!(report.writes.is(Writes::Dropped));
    let (value, text) = line(&report, "writable");
    assert_eq!(value, "no");
    assert!(
        text.contains("acknowledged and nothing is stored"),
        "{text}"
    );
    // That nothing is found is no completeness check.
    assert_eq!(line(&report, "files_checked").0, "unknown");
    assert_eq!(line(&report, "pins_checked").0, "unknown");
    assert_eq!(modes(&report), Modes::default());
    assert!(!report.is_complete() && !report.references_work());
    assert_eq!(report.summary(), "references do not work in this cache");
}

#[tokio::test]
async fn a_cache_that_keeps_something_else() {
    let double = good();
    double.set(|s| s.alter_updates = true);
    let report = probed(&double).await;
    assert!(report.writes.is(Writes::Altered), "{}", report.text());
    assert_eq!(modes(&report), Modes::default());
    assert!(!report.references_work());
}

#[tokio::test]
async fn a_write_once_cache() {
    let double = good();
    double.set(|s| s.refuse_overwrites_with = Some(Code::Internal));
    let report = probed(&double).await;
    let (value, text) = line(&report, "overwrite");
    assert_eq!(value, "refused");
    assert!(text.contains("(INTERNAL: write once)"), "{text}");
    assert!(report.is_complete() && !report.references_work());
    assert_eq!(modes(&report), FULL, "what is there can be read as ever");

    let double = good();
    double.set(|s| s.first_writer_wins = true);
    let report = probed(&double).await;
    assert!(report.overwrite.is(Overwrite::FirstWins));
    assert!(!report.references_work());
    assert_eq!(report.unmet(&Condition::ALL), [Condition::Overwrite]);
}

#[tokio::test]
async fn stale_front_ends() {
    let double = good();
    double.set(|s| s.stale_reads = true);
    let report = probed(&double).await;
    assert!(report.overwrite.is(Overwrite::Stale), "{}", report.text());
    assert_eq!(line(&report, "overwrite").0, "partly");
    assert!(report.references_work());
}

#[tokio::test]
async fn content_that_cannot_be_written() {
    let double = good();
    double.set(|s| s.refuse_cas_writes = true);
    let report = probed(&double).await;
    let (value, text) = line(&report, "content");
    assert_eq!(value, "refused");
    assert!(text.contains("PERMISSION_DENIED"), "{text}");
    assert_eq!(line(&report, "writable").0, "yes", "told by itself");
    assert!(report.is_refused() && !report.is_complete() && !report.references_work());
}

#[tokio::test]
async fn a_cache_that_is_not_there() {
    let double = good();
    double.set(|s| s.unreachable = true);
    let report = probed(&double).await;
    assert!(report.unreachable);
    assert_eq!(report.outcome(), "unreachable");
    assert_eq!(
        report.text(),
        "Probe of the default instance (no digest function): the cache did not answer: \
         connecting to 127.0.0.1:1: refused (GetCapabilities was due)\n"
    );
    assert!(Condition::ALL.into_iter().all(|c| c.is_open(&report)));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_hangs() {
    let double = good();
    double.set(|s| s.hang = Some("UpdateActionResult"));
    let report = probed(&double).await;
    let (value, text) = line(&report, "writable");
    assert_eq!(value, "unknown");
    assert!(text.contains("within the 10 s"), "{text}");
    assert!(!report.unreachable && !report.is_complete());
}

#[tokio::test]
async fn another_digest_function_and_none() {
    let double = good();
    double.set(|s| s.functions = vec![rev2::digest_function::Value::Murmur3 as i32]);
    let report = probed(&double).await;
    assert_eq!(report.function, None);
    let (value, text) = line(&report, "content");
    assert_eq!(value, "unknown");
    assert!(text.contains("computes no digest function"), "{text}");
}

#[tokio::test]
async fn credentials_are_in_no_report() {
    let double = good();
    let text = "token s3cr3t-token may not write".to_owned();
    double.set(|s| s.refuse_updates_with = Some((Code::PermissionDenied, text)));
    let mut caller = tonic::metadata::MetadataMap::new();
    caller.insert("authorization", "Bearer s3cr3t-token".parse().unwrap());
    let context = CallContext::from_caller(&caller);
    let report = probe(&target(&double), &context, &InstanceName::default()).await;
    let told = format!("{}{}{report:?}", report.text(), report.json());
    assert!(!told.contains("s3cr3t"), "{told}");
    assert!(told.contains("token … may not write"), "{told}");
}

#[tokio::test]
async fn incomplete_reports_make_modes_more_careful_at_most() {
    let double = good();
    double.set(|s| s.refuse_updates = true);
    let refused = probed(&double).await;
    assert_eq!(refused.modes(FULL), FULL);
    assert_eq!(refused.modes(Modes::default()), Modes::default());

    let mut partial = refused.clone();
    partial.files = super::super::Finding::Known(false);
    assert!(!partial.modes(FULL).checks_files && partial.modes(FULL).checks_trees);
    partial.files = super::super::Finding::Known(true);
    assert!(!partial.modes(Modes::default()).checks_files);
}

#[tokio::test]
async fn reports_for_machines_name_every_check() {
    let report = probed(&good()).await;
    let json = report.json();
    for check in CHECKS {
        assert_eq!(json["findings"][check]["value"], "yes", "{check}");
    }
    assert_eq!(json["instance"], "");
    assert_eq!(json["outcome"], "complete");
    assert_eq!(json["references_work"], true);
    assert_eq!(json["digest_function"], "SHA256");
}

#[tokio::test]
async fn references_may_be_kept_elsewhere() {
    let (content, references) = (good(), good());
    content.set(|s| s.refuse_updates = true);
    let target = ProbeTarget {
        content: content.cache(),
        elsewhere: Some(references.cache()),
    };
    let name = InstanceName::default();
    let report = probe(&target, &ctx(), &name).await;
    assert!(report.is_complete() && report.references_work());
    assert!(
        report.overwrite.is(Overwrite::LastWins),
        "{}",
        report.text()
    );
    assert_eq!(line(&report, "payload").0, "yes");
    assert_eq!(line(&report, "instances").0, "yes");
    assert_eq!(modes(&report), Modes::default());
    assert!(report.summary().contains("kept apart from content"));
    assert_eq!(content.calls("UpdateActionResult"), 0);
    assert_eq!(references.calls("FindMissingBlobs"), 0);

    references.set(|s| s.refuse_updates = true);
    let report = probe(&target, &ctx(), &name).await;
    assert_eq!(line(&report, "writable").0, "refused");
    assert!(!Condition::Complete.is_open(&report));
}
