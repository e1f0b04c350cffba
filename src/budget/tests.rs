//! The rules of the budget, without anything that is charged.

use std::future::Future;
use std::pin::pin;
use std::task::Waker;

use super::*;

const MIB: u64 = 1 << 20;

fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn one_connection_has_a_quarter_and_more_for_its_oldest() {
    let budget = Budget::new(256 * MIB);
    // Of the process: not held to anything.
    let _elder = budget.share().claim();
    let share = budget.share();
    let mut oldest = share.claim();
    assert!(oldest.try_grow(60 * MIB));
    let mut younger = share.claim();
    assert!(younger.try_grow(4 * MIB));
    assert!(!younger.try_grow(1), "a quarter is full");
    assert!(oldest.try_grow(16 * MIB), "the oldest goes on");
    assert_eq!((budget.used(), share.used()), (80 * MIB, 80 * MIB));
    assert!(!oldest.try_grow(60 * MIB), "as much as it leaves");
    drop(oldest);
    assert!(younger.try_grow(MIB), "the oldest now");
    drop(younger);
    assert_eq!(budget.used(), 0);
}

#[test]
fn however_many_hold_what_they_may_the_next_finds_room() {
    let budget = Budget::new(256 * MIB);
    let _elder = budget.share().claim();
    let greedy = || {
        let share = budget.share();
        let mut held = vec![share.claim()];
        while held.last_mut().is_some_and(|last| last.try_grow(MIB / 4)) {
            held.push(share.claim());
        }
        held
    };
    let held: Vec<_> = (0..10).map(|_| greedy()).collect();
    let sum: u64 = held.iter().flatten().map(Permit::bytes).sum();
    assert_eq!(sum, budget.used());
    assert!(sum > 200 * MIB, "{sum}");
    assert!(budget.share().claim().try_grow(4 * MIB));
}

#[test]
fn the_oldest_of_the_process_goes_on_when_everything_is_full() {
    let budget = Budget::new(LEAST);
    let (one, other) = (budget.share(), budget.share());
    let mut oldest = one.claim();
    let mut younger = other.claim();
    younger.charge(LEAST);
    assert!(!younger.try_grow(1));
    assert!(oldest.try_grow(16 * MIB));
    oldest.complete();
    // Now the other is the oldest.
    assert!(younger.try_grow(1));
}

#[test]
fn who_waits_is_given_what_was_given_back_and_in_order() {
    let budget = Budget::new(64 * MIB);
    let mut held = budget.share().claim();
    held.charge(64 * MIB);
    let (a, b) = (budget.share(), budget.share());
    let (mut first, mut second) = (a.claim(), b.claim());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(first.poll_grow(&mut cx, 10 * MIB).is_pending());
    assert!(second.poll_grow(&mut cx, 10 * MIB).is_pending());
    assert_eq!(budget.waiting(), 2);
    held.shrink_to(42 * MIB);
    assert_eq!(budget.waiting(), 1);
    assert!(first.poll_grow(&mut cx, 10 * MIB).is_ready());
    assert!(second.poll_grow(&mut cx, 10 * MIB).is_pending());
    assert_eq!(budget.used(), 52 * MIB);
    drop(held);
    assert!(second.poll_grow(&mut cx, 10 * MIB).is_ready());
    drop((first, second));
    assert_eq!((budget.used(), budget.waiting()), (0, 0));
}

#[test]
fn who_leaves_while_waiting_or_granted_takes_nothing_along() {
    let budget = Budget::new(64 * MIB);
    let mut held = budget.share().claim();
    held.charge(64 * MIB);
    let mut cx = Context::from_waker(Waker::noop());
    let mut gone = budget.share().claim();
    assert!(gone.poll_grow(&mut cx, MIB).is_pending());
    drop(gone);
    assert_eq!(budget.waiting(), 0);
    let mut granted = budget.share().claim();
    assert!(granted.poll_grow(&mut cx, MIB).is_pending());
    drop(held);
    assert_eq!(budget.used(), MIB, "granted, not yet known");
    drop(granted);
    assert_eq!(budget.used(), 0);
}

#[test]
fn small_messages_cost_the_process_nothing_but_are_few() {
    let budget = Budget::new(64 * MIB);
    let share = budget.share();
    let held: Vec<_> = std::iter::from_fn(|| share.small(16 << 10)).collect();
    assert_eq!(held.len(), 32);
    assert_eq!(budget.used(), 0);
    drop(held);
    assert!(share.small(16 << 10).is_some());
}

#[test]
fn reserving_waits_or_says_no() {
    let budget = Budget::new(64 * MIB);
    let elder = budget.share().claim();
    let share = budget.share();
    let permit = now(share.reserve(10 * MIB)).expect("there is room");
    assert_eq!(permit.bytes(), 10 * MIB);
    assert!(share.try_reserve(30 * MIB).is_none());
    assert!(now(share.reserve(30 * MIB)).is_none());
    assert!(now(share.reserve(10 * MIB)).is_some());
    drop(elder);
}

#[test]
fn as_many_bodies_may_stall_as_the_window_has_room_for() {
    let share = Budget::new(LEAST).share();
    let held: Vec<_> = std::iter::from_fn(|| share.stall(16)).collect();
    assert_eq!(held.len(), 16);
    drop(held);
    assert!(share.stall(16).is_some());
}
