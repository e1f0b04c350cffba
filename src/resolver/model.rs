//! A model of pushes and fetches: random interleavings of two replicas over one
//! cache that evicts, fails and is restarted under them, judged by an oracle
//! that knows the history and nothing of how it came about.
//!
//! Every upstream call waits until the case lets it through, so that a case is
//! the same each time it runs. `ASSETGATE_MODEL_CASES` says how many are drawn
//! (`tests/model.sh` draws 10,000 each), `PROPTEST_RNG_SEED` which.
//!
//! In reading order: `case` (what is drawn), `world` (what runs it), `history`
//! (what happened), `oracle` (what may be answered), `mutant` (what the oracle
//! has to find).

mod case;
mod history;
mod keys;
mod mutant;
mod oracle;
mod world;

use std::cell::Cell;

use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::asset::AssetKind;
use case::{Case, Expiry, Layout, Oldest, Op};
use mutant::Mutant;
use oracle::{Oracle, Seen};

/// How many cases a plain `cargo test` runs of each property.
const CASES: u32 = 300;

/// Most cases until one has to show what is wrong with a mutant.
const MUTANT_CASES: u32 = 20_000;

fn cases() -> u32 {
    let set = std::env::var("ASSETGATE_MODEL_CASES").ok();
    set.map_or(CASES, |n| n.parse().expect("ASSETGATE_MODEL_CASES"))
}

fn run(case: &Case, mutant: Mutant, seen: &mut Seen) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let history = runtime.block_on(async { world::World::new(case, mutant).run().await });
    let oracle = Oracle {
        case,
        history: &history,
    };
    let verdict = oracle.judge(seen);
    verdict.map_err(|why| history::story(case, &history, &why))
}

/// Runs cases until one is wrong; says what these were.
fn search(failing: bool, mutant: Mutant, cases: u32, shrink: u32) -> (Result<(), String>, Seen) {
    let config = Config {
        cases,
        max_shrink_iters: shrink,
        failure_persistence: None,
        ..Config::default()
    };
    let seen = Cell::new(Seen::default());
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&case::cases(failing), |case| {
        let mut all = seen.get();
        let outcome = run(&case, mutant, &mut all);
        seen.set(all);
        outcome.map_err(TestCaseError::fail)
    });
    let outcome = outcome.map_err(|error| match error {
        TestError::Fail(why, case) => format!("{why}\n\n{case:?}"),
        TestError::Abort(why) => why.to_string(),
    });
    (outcome, seen.get())
}

fn holds(failing: bool) -> Seen {
    let (outcome, seen) = search(failing, Mutant::None, cases(), 4_000);
    println!("model: {} cases: {seen:?}", cases());
    if let Err(story) = outcome {
        panic!("{story}");
    }
    let counts = [
        seen.exact,
        seen.subset,
        seen.origin,
        seen.revalidated,
        seen.misses,
        seen.due,
        seen.due_subset,
        seen.killed,
        seen.overlapping,
    ];
    assert!(counts.iter().all(|n| *n > 0), "a rule is idle: {seen:?}");
    seen
}

#[test]
fn nothing_is_answered_that_may_not_be_and_nothing_is_lost() {
    holds(false);
}

#[test]
fn nor_where_the_cache_fails_writes() {
    let seen = holds(true);
    assert!(seen.failed_pushes > 0 && seen.half_pushed > 0, "{seen:?}");
}

/// Three directories without a Tree are more than is walked at once: found by
/// the model, a look-up that was confirmed waited for memory that the others
/// of the same fetch held, for ever.
#[test]
fn a_fetch_does_not_wait_for_memory_its_own_look_ups_hold() {
    let (kind, uris) = (AssetKind::Directory, vec![0, 1, 2]);
    let push = case::Push {
        replica: 0,
        kind,
        uris: uris.clone(),
        set: [0, 1, 0],
        content: 4,
        expiry: Expiry::None,
        blobs: None,
        directories: None,
    };
    let fetch = case::Fetch {
        replica: 1,
        kind,
        uris,
        set: [0, 0, 0],
        oldest: Oldest::None,
    };
    let case = Case {
        layout: Layout::Detached,
        subset_max: 4,
        ops: vec![Op::Push(push), Op::Fetch(fetch)],
        schedule: Vec::new(),
        failing: Vec::new(),
    };
    let mut seen = Seen::default();
    run(&case, Mutant::None, &mut seen).unwrap();
    assert_eq!(seen.subset, 1);
}

#[test]
fn the_oracle_finds_every_mutant() {
    for mutant in mutant::ALL {
        let (found, _) = search(true, mutant, MUTANT_CASES, 0);
        let Err(story) = found else {
            panic!("{mutant:?} is not found in {MUTANT_CASES} cases");
        };
        println!("{mutant:?}: {}", story.lines().next().unwrap_or_default());
    }
}
