//! Durations and timestamps of messages, within the ranges their definitions
//! give them.

use std::time::{Duration, SystemTime};

/// 0001-01-01 and 9999-12-31T23:59:59 (timestamp.proto).
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// About 10,000 years (duration.proto).
const LONGEST: i64 = 315_576_000_000;
const NANOS: std::ops::Range<i32> = 0..1_000_000_000;

/// A request's timeout. One of zero is none: it is what clients send that
/// always fill the field in.
pub(super) fn timeout(
    wire: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, &'static str> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    if wire.seconds < 0 || wire.nanos < 0 {
        return Err("a timeout cannot be negative");
    }
    if wire.seconds > LONGEST || !NANOS.contains(&wire.nanos) {
        return Err("not a valid duration: seconds or nanos are out of range");
    }
    let timeout = Duration::new(wire.seconds.unsigned_abs(), wire.nanos.unsigned_abs());
    Ok(Some(timeout).filter(|timeout| !timeout.is_zero()))
}

/// A point in time.
pub(super) fn instant(
    wire: Option<&prost_types::Timestamp>,
) -> Result<Option<SystemTime>, &'static str> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    if !SECONDS.contains(&wire.seconds) || !NANOS.contains(&wire.nanos) {
        return Err("not a valid timestamp: seconds or nanos are out of range");
    }
    let seconds = Duration::from_secs(wire.seconds.unsigned_abs());
    let whole = if wire.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    let nanos = Duration::from_nanos(u64::from(wire.nanos.unsigned_abs()));
    let instant = whole.and_then(|whole| whole.checked_add(nanos));
    instant
        .map(Some)
        .ok_or("a timestamp this system cannot hold")
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{Duration as D, Timestamp as T};

    #[test]
    fn v7_ranges() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (LONGEST + 1, 0), (1, 1_000_000_000)] {
            assert!(
                timeout(Some(&D { seconds, nanos })).is_err(),
                "{seconds} {nanos}"
            );
        }
        for (seconds, nanos) in [
            (-62_135_596_801, 0),
            (253_402_300_800, 0),
            (0, -1),
            (0, 1_000_000_000),
        ] {
            assert!(
                instant(Some(&T { seconds, nanos })).is_err(),
                "{seconds} {nanos}"
            );
        }
        assert_eq!(timeout(None), Ok(None));
        assert_eq!(
            timeout(Some(&D {
                seconds: 0,
                nanos: 0
            })),
            Ok(None)
        );
        let short = timeout(Some(&D {
            seconds: 0,
            nanos: 5,
        }));
        assert_eq!(short, Ok(Some(Duration::from_nanos(5))));
        let before = instant(Some(&T {
            seconds: -1,
            nanos: 250_000_000,
        }));
        let want = SystemTime::UNIX_EPOCH - Duration::from_millis(750);
        assert_eq!(before, Ok(Some(want)));
        assert!(
            instant(Some(&T {
                seconds: 253_402_300_799,
                nanos: 999_999_999
            }))
            .is_ok()
        );
    }
}
