//! Has memory given back that was freed.
//!
//! glibc has up to eight heaps for each processor, keeps as much at the end of
//! each as the largest message that was ever freed, and all that is free in the
//! middle: after a storm of large messages 288 MiB stayed for ever, of which 7
//! were in use. So there are fewer heaps here, large pieces are mapped one by
//! one, and whole pages in the middle are given back when the process has grown:
//! 24 MiB stay, and the peak is lower too, as what one thread freed serves
//! others. jemalloc gives back as much, but needs make beside a C compiler and 5
//! MiB more at rest; mimalloc keeps most of it.
//!
//! This is the one place of the crate with `unsafe`: two functions that glibc
//! offers to C only, of which neither takes a pointer.
//! Not for: how much may be held (`budget`).
//! Called by: `run`.

use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Budget;

/// How often is looked whether there is something to give back.
const LOOK: Duration = Duration::from_secs(1);

/// Growth that is not worth a look into the heaps, in pages: 8 MiB.
const WORTH: u64 = 2048;

/// Longest pause between two looks into the heaps while more is resident than
/// ever was needed.
const LONGEST: Duration = Duration::from_secs(16);

/// Pieces from this size on are mapped, and unmapped when freed. Mapping costs a
/// twentieth of what hashing them does.
const MAPPED: i32 = 1 << 20;

/// What may stay free at the end of a heap.
const SPARE: i32 = 1 << 20;

/// How the allocator is to work in a process with so many listener threads. To
/// be said before there are threads.
pub(super) fn set_up(threads: usize) {
    let heaps = i32::try_from(2 * threads + 4).unwrap_or(i32::MAX);
    configure(heaps);
}

/// Bytes that are received or not yet sent, above which the heaps are in use:
/// looking into one keeps whoever allocates waiting, for up to 50 ms where much
/// is free.
const IN_USE: u64 = 16 << 20;

/// Gives memory back for as long as the process lives.
pub(super) async fn keep_small(budget: Budget) {
    if !give_back() {
        return;
    }
    let Some(first) = resident() else { return };
    let mut pace = Pace::new(first);
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(before) = resident() else { return };
        let in_use = budget.used() + budget.unsent() > IN_USE;
        if in_use || !pace.is_due(before) {
            continue;
        }
        let begun = Instant::now();
        if tokio::task::spawn_blocking(give_back).await.is_err() {
            return;
        }
        let after = resident().unwrap_or(before);
        pace.gave_back(before, after);
        let took = begun.elapsed();
        tracing::debug!(
            before,
            after,
            ?took,
            "pages resident before and after some were given back"
        );
    }
}

/// When to look into the heaps. All in pages.
#[derive(Debug)]
struct Pace {
    /// The least that was ever resident after a look.
    least: u64,
    /// What was resident after the last one.
    last: u64,
    /// How many times [`LOOK`] to wait.
    pause: u32,
    waited: u32,
}

impl Pace {
    fn new(resident: u64) -> Self {
        Self {
            least: resident,
            last: resident,
            pause: 1,
            waited: 0,
        }
    }

    /// Whether it is time, one [`LOOK`] after the last question: at once when it
    /// has grown since the last look, else less and less often while more is
    /// resident than at the least.
    fn is_due(&mut self, resident: u64) -> bool {
        self.waited += 1;
        let grown = |from: u64| resident > from + from / 4 + WORTH;
        grown(self.last) || (grown(self.least) && self.waited >= self.pause)
    }

    fn gave_back(&mut self, before: u64, after: u64) {
        let longest = (LONGEST.as_secs() / LOOK.as_secs()) as u32;
        let in_vain = before - after.min(before) < WORTH;
        self.pause = if in_vain {
            (self.pause * 2).min(longest)
        } else {
            1
        };
        self.waited = 0;
        self.last = after;
        self.least = self.least.min(after);
    }
}

/// Pages of this process in memory.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn configure(heaps: i32) {
    let options = [
        (libc::M_ARENA_MAX, heaps),
        (libc::M_MMAP_THRESHOLD, MAPPED),
        (libc::M_TRIM_THRESHOLD, SPARE),
    ];
    for (option, value) in options {
        #[expect(unsafe_code, reason = "glibc offers this to C only")]
        // SAFETY: it takes numbers, and the locks it needs. A refusal changes nothing.
        unsafe {
            libc::mallopt(option, value);
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn configure(_heaps: i32) {}

/// Gives free pages of all heaps back; `false` where the allocator has no way
/// to be asked.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() -> bool {
    #[expect(unsafe_code, reason = "glibc offers this to C only")]
    // SAFETY: it takes the locks of the heaps it looks at, and 0 is how much free
    // memory is to be left at the end of each.
    unsafe {
        libc::malloc_trim(0);
    }
    true
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until the next look, with so many pages resident.
    fn waits(pace: &mut Pace, resident: u64) -> u32 {
        (1..100).find(|_| pace.is_due(resident)).unwrap()
    }

    #[test]
    fn heaps_are_looked_into_when_they_grew_and_seldom_when_it_gives_nothing() {
        let mut pace = Pace::new(4000);
        assert!((0..100).all(|_| !pace.is_due(7000)), "little growth");
        assert_eq!(waits(&mut pace, 100_000), 1);
        pace.gave_back(100_000, 90_000);
        assert_eq!(waits(&mut pace, 90_000), 1, "there may be more");
        for wait in [2, 4, 8, 16, 16] {
            pace.gave_back(90_000, 90_000);
            assert_eq!(waits(&mut pace, 90_000), wait);
        }
        pace.gave_back(90_000, 90_000);
        assert_eq!(waits(&mut pace, 130_000), 1, "it grew");
        pace.gave_back(130_000, 5000);
        assert!((0..100).all(|_| !pace.is_due(5000)), "all is given back");
    }

    #[test]
    fn freed_memory_goes_back() {
        // Small pieces, every other one freed: the heap cannot shrink.
        set_up(2);
        let mut pieces: Vec<Option<Vec<u8>>> =
            (0..20_000).map(|_| Some(vec![1; 8 << 10])).collect();
        let before = resident().unwrap();
        for piece in pieces.chunks_mut(16) {
            piece[1..].fill(None);
        }
        assert!(give_back());
        let after = resident().unwrap();
        assert!(after + 20_000 < before, "{before} -> {after} pages");
        drop(pieces);
    }
}
