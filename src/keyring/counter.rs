//! Counts the uses of a version so that a crash over-counts and never under-counts.
//!
//! Uses are leased from the store in blocks, durably, before they are spent; after a start the whole lease counts as spent.

use std::sync::{Mutex, PoisonError};

use super::record::Lease;
use crate::types::Rotation;

/// The most blocks a limit is cut into: each costs one commit.
const BLOCKS: u64 = 16;
/// The largest blocks, so that a crash never costs more of a limit than this.
const MAX_USES: u64 = 65_536;
const MAX_BYTES: u64 = 64 << 20;

/// The uses of one version.
#[derive(Debug)]
pub(super) struct Counter {
    /// Protects both; held for a few instructions.
    tally: Mutex<Tally>,
    /// Held while a lease is being written, so that one is written at a time.
    pub(super) leasing: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    spent: Lease,
    leased: Lease,
}

/// What came of asking for uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// They are counted.
    Granted,
    /// A larger lease must be written first: this one.
    NeedsLease(Lease),
    /// The limit of the version is reached.
    Exhausted,
}

impl Counter {
    /// A counter whose whole `lease` counts as spent.
    pub(super) fn new(lease: Lease) -> Self {
        let tally = Tally { spent: lease, leased: lease };
        Self { tally: Mutex::new(tally), leasing: tokio::sync::Mutex::new(()) }
    }

    /// Counts `uses` of `bytes` in all against the limits of `rule`.
    pub(super) fn take(&self, rule: &Rotation, uses: u64, bytes: u64) -> Taken {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let Tally { spent, leased } = *tally;
        let wanted = Lease { uses: spent.uses.saturating_add(uses), bytes: spent.bytes.saturating_add(bytes) };
        let over = |limit: Option<u64>, wanted: u64| limit.is_some_and(|limit| wanted > limit);
        if over(rule.after_uses, wanted.uses) || over(rule.after_bytes, wanted.bytes) {
            return Taken::Exhausted;
        }
        if wanted.uses > leased.uses || wanted.bytes > leased.bytes {
            return Taken::NeedsLease(Lease {
                uses: ahead(wanted.uses, leased.uses, rule.after_uses, MAX_USES),
                bytes: ahead(wanted.bytes, leased.bytes, rule.after_bytes, MAX_BYTES),
            });
        }
        tally.spent = wanted;
        Taken::Granted
    }

    /// Notes a lease that is durable now.
    pub(super) fn leased(&self, lease: Lease) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.leased.uses = tally.leased.uses.max(lease.uses);
        tally.leased.bytes = tally.leased.bytes.max(lease.bytes);
    }

    /// What is counted so far.
    pub(super) fn spent(&self) -> Lease {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).spent
    }
}

/// The next lease: one block beyond what is wanted, never beyond the limit. What has no limit is leased in large blocks.
fn ahead(wanted: u64, leased: u64, limit: Option<u64>, most: u64) -> u64 {
    if wanted <= leased {
        return leased;
    }
    let block = limit.map_or(most, |limit| (limit / BLOCKS).clamp(1, most));
    wanted.saturating_add(block).min(limit.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Algorithm;

    #[test]
    fn a_crash_over_counts_and_the_limit_holds() {
        let rule = Rotation { after_uses: Some(100), ..Rotation::default() };
        let mut granted = 0;
        let mut durable = Lease::default();
        for _crash in 0..5 {
            let counter = Counter::new(durable);
            for _ in 0..7 {
                match counter.take(&rule, 1, 32) {
                    Taken::Granted => granted += 1,
                    Taken::NeedsLease(lease) => {
                        durable = lease;
                        counter.leased(lease);
                        assert_eq!(counter.take(&rule, 1, 32), Taken::Granted);
                        granted += 1;
                    }
                    Taken::Exhausted => {}
                }
                assert!(durable.uses >= granted, "{durable:?} after {granted} uses");
            }
        }
        assert!(granted <= 100);
        let counter = Counter::new(Lease { uses: 100, bytes: 0 });
        assert_eq!(counter.take(&rule, 1, 1), Taken::Exhausted);
    }

    #[test]
    fn a_key_that_draws_nonces_serves_2_to_the_31_uses_whatever_its_rules() {
        let own = [None, Some(1 << 40), Some(1 << 31)];
        for rule in own.map(|after_uses| Rotation { after_uses, ..Rotation::default() }) {
            let rule = rule.within(Algorithm::Aes256Gcm);
            assert!(rule.counts());
            let counter = Counter::new(Lease { uses: (1 << 31) - 2, bytes: 0 });
            assert_eq!(counter.take(&rule, 3, 0), Taken::Exhausted);
            // Never counted ahead beyond the end.
            assert_eq!(counter.take(&rule, 1, 0), Taken::NeedsLease(Lease { uses: 1 << 31, bytes: 0 }));
            counter.leased(Lease { uses: 1 << 31, bytes: 0 });
            assert_eq!([(); 3].map(|()| counter.take(&rule, 1, 0)), [Taken::Granted, Taken::Granted, Taken::Exhausted]);
        }
        let strict = Rotation { after_uses: Some(5), ..Rotation::default() }.within(Algorithm::Aes256Gcm);
        assert_eq!(strict.after_uses, Some(5));
        assert!(!Rotation::default().within(Algorithm::Aes256GcmDerived).counts());
    }

    #[test]
    fn bytes_have_a_limit_of_their_own() {
        let rule = Rotation { after_bytes: Some(1000), ..Rotation::default() };
        let counter = Counter::new(Lease::default());
        assert_eq!(counter.take(&rule, 1, 1001), Taken::Exhausted);
        assert!(matches!(counter.take(&rule, 1, 1000), Taken::NeedsLease(Lease { bytes: 1000, .. })));
    }
}
