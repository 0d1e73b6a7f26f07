//! Spans of time as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};

/// A whole number of seconds, written as a number and one unit: `30s`, `15m`, `24h`, `90d`, `2w`. A day is 24 hours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period(u64);

impl Period {
    /// The longest period: a hundred years of 365 days.
    pub const MAX: Self = Self(100 * 365 * 86_400);

    /// That many seconds, at most [`Self::MAX`].
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        if seconds > Self::MAX.0 { Self::MAX } else { Self(seconds) }
    }

    /// The length in seconds.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// For timers.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// For calendars.
    #[must_use]
    pub fn as_signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::from_secs(i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl FromStr for Period {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let unit = text.chars().last()?;
            let (_, size) = UNITS.into_iter().find(|(letter, _)| *letter == unit)?;
            let digits = text.strip_suffix(unit)?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let seconds = digits.parse::<u64>().ok()?.checked_mul(size)?;
            (seconds <= Self::MAX.0).then_some(Self(seconds))
        };
        parse().ok_or_else(|| {
            Error::new(Kind::Invalid, "not a period of time")
                .hint("write a whole number and one unit, such as 30s, 15m, 24h, 90d or 2w; at most 36500d")
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |size: &u64| self.0 > 0 && self.0.is_multiple_of(*size);
        // Weeks are read but not written: people compare days.
        let (unit, size) = UNITS.into_iter().skip(1).find(|(_, size)| fits(size)).unwrap_or(('s', 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_written_as_they_are_read() {
        for (text, seconds, shown) in
            [("30s", 30, "30s"), ("2w", 1_209_600, "14d"), ("24h", 86_400, "1d"), ("0s", 0, "0s"), ("90m", 5400, "90m")]
        {
            let period: Period = text.parse().unwrap();
            assert_eq!((period.as_secs(), period.to_string().as_str()), (seconds, shown));
        }
        for bad in ["", "d", "-1d", "1", "1.5h", "1 d", "99999999999999999999s", "36501d", "5é"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
    }
}
