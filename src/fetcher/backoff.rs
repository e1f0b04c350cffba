//! How long an origin is left alone after a failure that may pass.
//!
//! Not for: which failures those are (`failed`), nor for keeping count
//! (`downloads`).
//! Called by: `downloads`, `download`.

use std::time::Duration;

/// The longest wait that grows by itself.
const LONGEST: Duration = Duration::from_secs(10);

/// The waits of one URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    first: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration) -> Self {
        Self { first }
    }

    /// The wait after so many failures in a row, at least as long as the
    /// origin asked for. Spread by half, so that replicas which failed together
    /// do not come back together.
    pub(super) fn after(self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let grown = self.first.saturating_mul(1 << doublings).min(LONGEST);
        let spread = grown.mul_f64(0.5 + fastrand::f64());
        spread.max(retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_have_an_end_and_obey_the_origin() {
        let backoff = Backoff::new(Duration::from_millis(500));
        for (failures, want) in [(1, 500), (2, 1000), (3, 2000), (20, 10_000), (99, 10_000)] {
            for _ in 0..20 {
                let wait = backoff.after(failures, None).as_millis();
                assert!(
                    (want / 2..=want * 3 / 2).contains(&wait),
                    "{failures}: {wait}"
                );
            }
        }
        let asked = Some(Duration::from_secs(30));
        assert_eq!(backoff.after(1, asked), Duration::from_secs(30));
        let short = Some(Duration::ZERO);
        assert!(backoff.after(3, short) >= Duration::from_secs(1));
    }
}
