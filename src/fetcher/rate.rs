//! How many requests in what time.
//!
//! Called by: `hosts`; `config` reads it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest burst, in requests.
const MAX_BURST: u32 = 10;
const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// Requests in a second, minute or hour, as in `10/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: usize,
}

impl Rate {
    /// The time between two requests.
    pub(super) fn interval(self) -> Duration {
        Duration::from_secs(UNITS[self.unit].1) / self.count
    }

    /// How far a burst may run ahead: what a second brings, at least one
    /// request and at most ten, may go at once.
    pub(super) fn ahead(self) -> Duration {
        let a_second = Duration::from_secs(1).as_nanos() / self.interval().as_nanos().max(1);
        let burst = u32::try_from(a_second).unwrap_or(MAX_BURST);
        self.interval() * (burst.clamp(1, MAX_BURST) - 1)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, UNITS[self.unit].0)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (count, unit) = text.split_once('/')?;
            let count: u32 = count.trim().parse().ok()?;
            let unit = UNITS.iter().position(|(name, _)| *name == unit.trim())?;
            (1..=1_000_000)
                .contains(&count)
                .then_some(Self { count, unit })
        };
        read().ok_or_else(|| {
            format!("`{text}` is not a rate; write it as in `10/s`, `60/m` or `1000/h`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_read_and_told() {
        for (text, interval, at_once) in [
            ("10/s", Duration::from_millis(100), 10),
            ("1/s", Duration::from_secs(1), 1),
            ("100/s", Duration::from_millis(10), 10),
            ("60/m", Duration::from_secs(1), 1),
            ("2/m", Duration::from_secs(30), 1),
            ("36000/h", Duration::from_millis(100), 10),
        ] {
            assert_eq!(rate(text).interval(), interval, "{text}");
            assert_eq!(rate(text).ahead(), interval * (at_once - 1), "{text}");
            assert_eq!(rate(text).to_string(), text);
        }
        for text in [
            "",
            "10",
            "0/s",
            "-1/s",
            "x/s",
            "10/d",
            "1.5/s",
            "/s",
            "9999999/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
