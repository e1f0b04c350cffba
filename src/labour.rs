//! Threads for work that takes long for what somebody else sent: few, and of
//! low priority, so that the threads that answer calls always come first.
//!
//! On threads of their own, and not by a limit on how many of the others it
//! keeps busy: one that runs already would have to be waited for.
//! Not for: waiting, and short work (tokio's own blocking threads).
//! Called by: `api` (large requests), `embedded` (checks of Trees), `server`.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// What the kernel subtracts from their priority: a tenth of the time of a
/// thread that has none to give away.
const NICE: i32 = 10;

/// Lowest priority that there is.
const LOWEST: i32 = 19;

/// The priority of the process, as the first thread has it that gives way:
/// those that it starts begin with its own.
static USUAL: LazyLock<i32> = LazyLock::new(|| getpriority_process(None).unwrap_or(0));

/// Has the thread that calls this run after those that do not, by so much
/// (`nice`; 5 is a third of their time).
pub fn give_way(nice: i32) {
    // Refused, it does its work all the same.
    let _ = setpriority_process(None, (*USUAL + nice).min(LOWEST));
}

/// There is one for the process, never ended: what it does is given up with it.
static LABOUR: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let threads = available_parallelism().map_or(2, |n| n.get().max(2));
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(threads)
        .thread_name("labour")
        .on_thread_start(|| give_way(NICE))
        .enable_time()
        .build();
    runtime
        .inspect_err(|error| tracing::warn!(%error, "no threads of low priority"))
        .ok()
});

/// The runtime of these threads; the caller's, if they cannot be had.
///
/// # Panics
/// Then, outside of one.
#[must_use]
pub fn handle() -> Handle {
    match &*LABOUR {
        Some(runtime) => runtime.handle().clone(),
        None => Handle::current(),
    }
}

/// Has work done there that keeps its thread busy.
pub fn spawn<T, F>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    handle().spawn_blocking(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_have_low_priority_and_those_of_others_do_not() {
        let priority = || getpriority_process(None).unwrap();
        let usual = priority();
        let lowest = (usual + NICE).min(LOWEST);
        assert_eq!(spawn(priority).await.unwrap(), lowest);
        let worker = handle().spawn(async move { priority() }).await;
        assert_eq!(worker.unwrap(), lowest);
        assert_eq!(tokio::task::spawn_blocking(priority).await.unwrap(), usual);
        // Not twice, for a thread that one of them starts.
        let started =
            spawn(move || std::thread::spawn(move || (give_way(NICE), priority())).join());
        assert_eq!(started.await.unwrap().unwrap().1, lowest);
    }
}
