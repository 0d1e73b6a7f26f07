//! How much of something one address, account or name may have in a time. Kept in memory: a restart forgives.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::problem::{ProblemKind, refuse};
use crate::error::Result;

/// So many in that time, and then one each `time / count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// What is counted, for the sentence.
    pub what: &'static str,
    /// How many at once.
    pub count: u32,
    /// In how many seconds the whole count comes back.
    pub seconds: u32,
}

impl Quota {
    /// New accounts from one address (for IPv6, one network of 64 bits).
    pub const ACCOUNTS: Self = Self { what: "new accounts from one address", count: 100, seconds: 3600 };
    /// Accounts with an external account binding that did not hold, from one address: nobody guesses.
    pub const BINDINGS: Self = Self { what: "wrong account bindings from one address", count: 10, seconds: 3600 };
    /// New orders of one account.
    pub const ORDERS: Self = Self { what: "new orders of one account", count: 300, seconds: 3 * 3600 };
    /// Proofs that were not found, for one account and name.
    pub const FAILURES: Self = Self { what: "failed validations of one name", count: 10, seconds: 3600 };

    /// In how many microseconds all of it comes back.
    fn whole(self) -> i64 {
        i64::from(self.seconds) * 1_000_000
    }

    /// In how many one of it does.
    fn one(self) -> i64 {
        self.whole() / i64::from(self.count.max(1))
    }
}

/// How many things can be counted at once. Beyond that, who was not counted yet is refused.
const MOST: usize = 100_000;

/// Who had how much.
#[derive(Debug, Default)]
pub struct Quotas {
    /// For each, the time in microseconds at which all of its quota is back. Held for one look.
    full: Mutex<HashMap<(Quota, String), i64>>,
}

impl Quotas {
    /// Takes one off the quota of `whom`.
    ///
    /// # Errors
    /// `rateLimited`, with the time at which there is one again.
    pub fn take(&self, quota: Quota, whom: &str, now: Timestamp) -> Result<()> {
        self.look(quota, whom, now, true)
    }

    /// Whether there is one left, without taking it.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn check(&self, quota: Quota, whom: &str, now: Timestamp) -> Result<()> {
        self.look(quota, whom, now, false)
    }

    /// Gives back one that was taken.
    pub fn give_back(&self, quota: Quota, whom: &str) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(back) = full.get_mut(&(quota, whom.to_owned())) {
            *back -= quota.one();
        }
    }

    fn look(&self, quota: Quota, whom: &str, now: Timestamp, take: bool) -> Result<()> {
        let now = now.as_microsecond();
        let (whole, one) = (quota.whole(), quota.one());
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (quota, whom.to_owned());
        let back = full.get(&key).copied().unwrap_or(now).max(now) + one;
        if back - now > whole {
            return Err(limited(quota, back - now - whole));
        }
        if !take {
            return Ok(());
        }
        if full.len() >= MOST && !full.contains_key(&key) {
            full.retain(|_, back| *back > now);
            if full.len() >= MOST {
                return Err(limited(quota, one));
            }
        }
        full.insert(key, back);
        Ok(())
    }
}

fn limited(quota: Quota, wait: i64) -> crate::error::Error {
    let wait = Duration::from_micros(u64::try_from(wait).unwrap_or(0)).max(Duration::from_secs(1));
    let text = format!("too many {}: {} in {} seconds", quota.what, quota.count, quota.seconds);
    refuse(ProblemKind::RateLimited, text).retry_after(wait)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_quota_is_used_up_and_comes_back() {
        let (quotas, start) = (Quotas::default(), Timestamp::from_second(1_000_000).unwrap());
        let quota = Quota { what: "tries", count: 3, seconds: 30 };
        for _ in 0..3 {
            quotas.check(quota, "a", start).unwrap();
            quotas.take(quota, "a", start).unwrap();
        }
        let error = quotas.take(quota, "a", start).unwrap_err();
        assert_eq!((ProblemKind::of(&error), error.wait()), (ProblemKind::RateLimited, Some(Duration::from_secs(10))));
        assert!(quotas.check(quota, "a", start).is_err());
        quotas.take(quota, "b", start).unwrap();
        let later = start + SignedDuration::from_secs(10);
        quotas.take(quota, "a", later).unwrap();
        assert!(quotas.take(quota, "a", later).is_err());
        quotas.give_back(quota, "a");
        quotas.take(quota, "a", later).unwrap();
        assert!(quotas.take(quota, "a", later).is_err());
        let much_later = start + SignedDuration::from_secs(1000);
        for _ in 0..3 {
            quotas.take(quota, "a", much_later).unwrap();
        }
        assert!(quotas.take(quota, "a", much_later).is_err());
    }

    #[test]
    fn many_who_ask_cost_no_more_memory_than_that() {
        let (quotas, start) = (Quotas::default(), Timestamp::from_second(1_000_000).unwrap());
        for number in 0..MOST {
            quotas.take(Quota::ORDERS, &number.to_string(), start).unwrap();
        }
        assert!(quotas.take(Quota::ORDERS, "one more", start).is_err());
        quotas.take(Quota::ORDERS, "7", start).unwrap();
        quotas.take(Quota::ORDERS, "one more", start + SignedDuration::from_hours(4)).unwrap();
    }
}
