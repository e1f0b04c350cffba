//! Waiting without sleeping blindly: everything has a deadline and says what
//! it waited for.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Far above what any step takes, so that a busy machine fails no test.
const DEADLINE: Duration = Duration::from_secs(40);

/// The outcome of `future`, which must not take for ever.
pub async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("still waiting for {what} after {DEADLINE:?}"),
    }
}

/// Asks again and again until there is something.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "never saw {what} in {DEADLINE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}
