//! Log lines that somebody else can cause at will: one per reason and period,
//! with the number of those left out since.
//!
//! Not for: lines about our own doing, which are as rare as it is.
//! Called by: `server`, for what clients do.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often a reason may be logged.
const PERIOD: Duration = Duration::from_secs(10);

static CLIENTS: LogLimit = LogLimit::new(PERIOD);

/// Whether a line about a client may be logged now for `reason`, and how many
/// were left out since the last one.
#[must_use]
pub fn may_log(reason: &'static str) -> Option<u64> {
    CLIENTS.admit(reason)
}

/// One line per reason and period.
struct LogLimit {
    period: Duration,
    /// By reason: when a line was logged last, and how many were left out.
    reasons: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

impl LogLimit {
    const fn new(period: Duration) -> Self {
        Self {
            period,
            reasons: Mutex::new(BTreeMap::new()),
        }
    }

    fn admit(&self, reason: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut reasons = self.reasons.lock();
        let Some((last, left_out)) = reasons.get_mut(reason) else {
            reasons.insert(reason, (now, 0));
            return Some(0);
        };
        if now.duration_since(*last) < self.period {
            *left_out += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_per_reason_and_period_counts_those_left_out() {
        let limit = LogLimit::new(PERIOD);
        assert_eq!(limit.admit("a"), Some(0));
        for _ in 0..7 {
            assert_eq!(limit.admit("a"), None);
        }
        assert_eq!(limit.admit("b"), Some(0), "each reason has its own");
        tokio::time::advance(PERIOD).await;
        assert_eq!(limit.admit("a"), Some(7));
        assert_eq!(limit.admit("a"), None);
        tokio::time::advance(PERIOD).await;
        assert_eq!(limit.admit("a"), Some(1), "counted anew");
    }
}
