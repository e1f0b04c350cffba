//! When probes run, and what their reports replace.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::metadata::MetadataMap;

use super::super::{Condition, Modes, ProberSettings, Probes};
use super::{ctx, prober};
use crate::digest::InstanceName;
use crate::upstream::CallContext;
use crate::upstream::double::{Checks, Double};

const INTERVAL: Duration = Duration::from_secs(600);

fn name(text: &str) -> InstanceName {
    InstanceName::new(text).unwrap()
}

fn good() -> Double {
    let double = Double::new();
    double.set(|s| s.checks = Checks::all());
    double
}

fn lazy() -> ProberSettings {
    ProberSettings {
        instances: Vec::new(),
        interval: INTERVAL,
        ..ProberSettings::default()
    }
}

/// Lets background tasks run until they wait for time to pass.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    settle().await;
}

fn checks(probes: &Probes, instance: &str) -> bool {
    let modes = probes.modes(&name(instance));
    modes.checks_files && modes.checks_trees
}

fn runs(double: &Double) -> usize {
    // One per probe.
    double.calls("BatchUpdateBlobs")
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_of_a_name_has_it_probed_and_the_next_after_the_interval() {
    let double = good();
    let (probes, _prober, _drain) = prober(&double, lazy());
    assert_eq!(probes.modes(&name("a")), Modes::default());
    for _ in 0..5 {
        probes.on_call(&ctx(), &name("a"));
    }
    settle().await;
    assert!(checks(&probes, "a") && !checks(&probes, "b"));
    assert_eq!(runs(&double), 1);
    pass(INTERVAL - Duration::from_secs(1)).await;
    probes.on_call(&ctx(), &name("a"));
    settle().await;
    assert_eq!(runs(&double), 1);
    pass(Duration::from_secs(2)).await;
    assert_eq!(runs(&double), 1, "nobody's credentials are kept");
    double.set(|s| s.checks = Checks::default());
    probes.on_call(&ctx(), &name("a"));
    settle().await;
    assert_eq!(runs(&double), 2);
    assert!(!checks(&probes, "a"), "careful at once");
}

#[tokio::test(start_paused = true)]
async fn a_refused_caller_is_followed_by_another_and_takes_nothing_away() {
    let double = good();
    let (probes, _prober, _drain) = prober(&double, lazy());
    double.set(|s| s.refuse_updates = true);
    probes.on_call(&ctx(), &name("a"));
    settle().await;
    assert_eq!(probes.reports()[0].outcome(), "refused");
    double.set(|s| s.refuse_updates = false);
    pass(Duration::from_secs(59)).await;
    probes.on_call(&ctx(), &name("a"));
    settle().await;
    assert_eq!(runs(&double), 1, "at most once a minute");
    pass(Duration::from_secs(2)).await;
    probes.on_call(&ctx(), &name("a"));
    settle().await;
    assert!(checks(&probes, "a"));

    double.set(|s| s.refuse_updates = true);
    pass(INTERVAL + Duration::from_secs(1)).await;
    probes.on_call(&ctx(), &name("a"));
    settle().await;
    assert_eq!(runs(&double), 3);
    assert!(checks(&probes, "a"), "one caller's refusal is no news");
    assert_eq!(probes.reports()[0].outcome(), "complete");
}

#[tokio::test(start_paused = true)]
async fn a_probe_runs_under_its_caller_and_leaves_the_credentials() {
    let double = good();
    let (probes, _prober, _drain) = prober(&double, lazy());
    let mut caller = MetadataMap::new();
    caller.insert("authorization", "Bearer s3cr3t-token".parse().unwrap());
    let context = CallContext::from_caller(&caller);
    probes.on_call(&context, &name("a"));
    settle().await;
    let seen = double.set(|s| std::mem::take(&mut s.authorizations));
    assert!(seen.len() > 20);
    assert!(
        seen.iter()
            .all(|a| a.as_deref() == Some("Bearer s3cr3t-token"))
    );
    assert!(!format!("{probes:?}").contains("s3cr3t"));
}

#[tokio::test(start_paused = true)]
async fn names_of_requests_are_bounded_in_number_and_pace() {
    let double = good();
    let settings = ProberSettings {
        remembered: 20,
        ..lazy()
    };
    let (probes, _prober, _drain) = prober(&double, settings);
    for n in 0..10 {
        probes.on_call(&ctx(), &name(&format!("burst-{n}")));
    }
    settle().await;
    assert_eq!(runs(&double), 1);
    for n in 0..30 {
        pass(Duration::from_secs(1)).await;
        probes.on_call(&ctx(), &name(&format!("n-{n}")));
        settle().await;
    }
    assert_eq!(probes.reports().len(), 20);
    assert!(checks(&probes, "n-29"));
}

#[tokio::test(start_paused = true)]
async fn names_of_the_configuration_are_probed_at_intervals() {
    let double = good();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&told);
    let settings = ProberSettings {
        instances: vec![name(""), name("b")],
        interval: INTERVAL,
        told: Arc::new(move |report| hear.lock().push(report.text())),
        ..ProberSettings::default()
    };
    let (probes, prober, drain) = prober(&double, settings);
    drain.spawn(prober.watch(probes.clone(), false));
    settle().await;
    assert!(checks(&probes, "") && checks(&probes, "b"));
    assert_eq!(told.lock().len(), 2);
    pass(INTERVAL).await;
    assert_eq!(runs(&double), 4);
    assert_eq!(told.lock().len(), 2, "no news");
    probes.on_call(&ctx(), &name(""));
    settle().await;
    assert_eq!(runs(&double), 4, "callers leave it to the interval");
    double.set(|s| s.checks.trees = false);
    pass(INTERVAL).await;
    assert!(probes.modes(&name("")).checks_files && !checks(&probes, ""));
    assert_eq!(told.lock().len(), 4);
    drain.start();
    settle().await;
    assert!(drain.finish(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn once_is_once() {
    let double = good();
    let settings = ProberSettings {
        interval: Duration::ZERO,
        ..ProberSettings::default()
    };
    let (probes, prober, drain) = prober(&double, settings);
    let watch = drain.spawn(prober.watch(probes.clone(), false));
    settle().await;
    assert!(watch.is_finished() && checks(&probes, ""));
    probes.on_call(&ctx(), &name("a"));
    settle().await;
    pass(Duration::from_secs(1_000_000)).await;
    for instance in ["", "a"] {
        probes.on_call(&ctx(), &name(instance));
        pass(Duration::from_secs(2)).await;
    }
    assert_eq!(runs(&double), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_down_is_tried_again_soon_and_less_and_less_often() {
    let double = good();
    double.set(|s| s.unreachable = true);
    let (probes, prober, drain) = prober(&double, ProberSettings::default());
    drain.spawn(prober.watch(probes.clone(), false));
    settle().await;
    pass(Duration::from_secs(3)).await;
    assert!(double.calls("GetCapabilities") >= 2);
    for _ in 0..600 {
        pass(Duration::from_secs(1)).await;
    }
    assert!(double.calls("GetCapabilities") < 20);
    assert!(probes.reports()[0].unreachable);
    double.set(|s| s.unreachable = false);
    for _ in 0..61 {
        pass(Duration::from_secs(1)).await;
    }
    assert!(checks(&probes, ""));
    // Down again: what was seen holds.
    double.set(|s| s.unreachable = true);
    pass(INTERVAL).await;
    assert!(checks(&probes, ""));
    assert!(!probes.reports()[0].unreachable);
}

#[tokio::test(start_paused = true)]
async fn what_is_required_is_waited_for_if_it_may_yet_come() {
    let double = good();
    let settings = ProberSettings::default();
    let (probes, prober, drain) = prober(&double, settings);
    let all = [Condition::Writable, Condition::Complete];
    prober.require(&probes, &all).await.unwrap();

    double.set(|s| s.refuse_updates = true);
    let before = tokio::time::Instant::now();
    let why = prober.require(&probes, &all).await.unwrap_err();
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "no use in waiting"
    );
    assert!(why.contains("`writable` (the Action Cache keeps"), "{why}");
    assert!(why.contains("PERMISSION_DENIED"), "{why}");

    double.set(|s| s.unreachable = true);
    let cache = double.clone();
    let heal = drain.spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        cache.set(|s| (s.unreachable, s.refuse_updates) = (false, false));
    });
    prober.require(&probes, &all).await.unwrap();
    heal.await.unwrap();

    double.set(|s| s.unreachable = true);
    let fresh = Double(Arc::clone(&double.0));
    let (probes, prober, _drain) = super::prober(&fresh, ProberSettings::default());
    let before = tokio::time::Instant::now();
    let why = prober.require(&probes, &all).await.unwrap_err();
    assert!(before.elapsed() >= Duration::from_secs(30));
    assert!(why.contains("the cache did not answer"), "{why}");
}
