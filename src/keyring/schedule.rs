//! What happens to keys on time, without a human: rotation by age, retention, destruction, unfinished births.
//!
//! There is no timer per key. Each tick looks at the clock and at what the catalogue says is due by then, so a service that was down when
//! something fell due does it once, at its first tick.

use std::sync::{Arc, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::change::job_id;
use super::state::Step;
use super::{Key, KeyVersion, Keyring, resource};
use crate::admission::{Details, Released};
use crate::error::Result;
use crate::policy::{Facts, Target};
use crate::types::operation::{DestroyVersion, ScheduleDestruction};
use crate::types::{Caller, State, Version};

/// Rotations that fall due within this time are counted as near.
const NEAR: SignedDuration = SignedDuration::from_hours(24);

/// Does what is due.
#[derive(Debug)]
pub struct Scheduler {
    keyring: Arc<Keyring>,
}

/// What one tick did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Keys that were rotated.
    pub rotated: usize,
    /// Versions that were scheduled for destruction by a retention rule.
    pub scheduled: usize,
    /// Versions that were destroyed.
    pub destroyed: usize,
    /// What was due and failed.
    pub failed: usize,
}

impl Scheduler {
    /// Looks after the keys of `keyring`.
    #[must_use]
    pub const fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// Does all that is due now, one after the other. What fails is tried again at the next tick, and shows as overdue.
    pub async fn tick(&self) -> Tick {
        let now = self.keyring.ledger.clock().now();
        let mut tick = Tick::default();
        for key in self.keyring.catalogue.due(now) {
            if key.is_worn() || key.rotates_at().is_some_and(|due| due <= now) {
                self.rotate(&key, &mut tick).await;
            }
            self.retain(&key, now, &mut tick).await;
            self.destroy(&key, now, &mut tick).await;
        }
        if let Err(error) = self.keyring.finish_pending().await {
            tracing::warn!(cause = error.chain(), "unfinished versions could not be looked at");
        }
        let near = now.checked_add(NEAR).map_or(0, |until| self.keyring.catalogue.rotations(now, until));
        self.keyring.metrics.rotations(near, self.keyring.overdue(0).0);
        tick
    }

    async fn rotate(&self, key: &Key, tick: &mut Tick) {
        let name = &key.record.name;
        let caller = Caller::system("rotate", job_id());
        let rotated = self.keyring.rotate_as(&caller, name, Some(key.record.latest)).await;
        let mut overdue = self.keyring.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        match rotated {
            Ok(_) => {
                overdue.remove(name);
                tick.rotated += 1;
            }
            Err(error) => {
                tracing::warn!(key = %name, cause = error.chain(), "rotation is overdue");
                overdue.insert(name.clone());
                tick.failed += 1;
            }
        }
    }

    /// Schedules the destruction of versions that the retention rule no longer keeps.
    async fn retain(&self, key: &Key, now: Timestamp, tick: &mut Tick) {
        for version in beyond_retention(key, now) {
            match self.schedule_destruction(key, version).await {
                Ok(()) => tick.scheduled += 1,
                Err(error) => {
                    tracing::warn!(key = %key.record.name, %version, cause = error.chain(), "retention failed");
                    tick.failed += 1;
                }
            }
        }
    }

    async fn schedule_destruction(&self, key: &Key, version: Version) -> Result<()> {
        let name = &key.record.name;
        let caller = Caller::system("retain", job_id());
        let target = Target { resource: resource(name), key: Some(key.facts()) };
        let admission = &self.keyring.admission;
        let permit = admission.admit::<ScheduleDestruction>(&caller, &target, &Facts::default()).await?;
        let step = self.keyring.step(&permit, name, version, Step::ScheduleDestruction, None, |_| Ok(None)).await;
        permit.close(step.map(drop), Details::of(key.record.id, version)).await.map(Released::into_inner)
    }

    /// Destroys the versions whose waiting period is over.
    async fn destroy(&self, key: &Key, now: Timestamp, tick: &mut Tick) {
        for version in key.versions().iter().filter(|version| version.record.is_over(now)) {
            match self.destroy_version(key, version.number()).await {
                Ok(()) => tick.destroyed += 1,
                Err(error) => {
                    let (name, version) = (&key.record.name, version.number());
                    tracing::warn!(key = %name, %version, cause = error.chain(), "destruction failed");
                    tick.failed += 1;
                }
            }
        }
    }

    async fn destroy_version(&self, key: &Key, version: Version) -> Result<()> {
        let name = &key.record.name;
        let caller = Caller::system("destroy", job_id());
        let target = Target { resource: resource(name), key: Some(key.facts()) };
        let permit = self.keyring.admission.admit::<DestroyVersion>(&caller, &target, &Facts::default()).await?;
        let destroyed = self.keyring.destroy(&permit, name, version).await;
        permit.close(destroyed.map(drop), Details::of(key.record.id, version)).await.map(Released::into_inner)
    }
}

/// When there is something to do about a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The first time, never later than that; the beginning of all time for what waits already.
    pub(super) first: Option<Timestamp>,
    /// The next rotation by age.
    pub(super) rotation: Option<Timestamp>,
}

/// When there is something to do about a key, as it is now.
pub(super) fn due(key: &Key) -> Due {
    let rotation = key.rotates_at();
    if key.is_worn() || !beyond_retention(key, Timestamp::MIN).is_empty() {
        return Due { first: Some(Timestamp::MIN), rotation };
    }
    let kept = key.record.retention.period;
    let ends = |version: &Arc<KeyVersion>| match version.state() {
        State::Deactivated => version.record.changed.checked_add(kept?.as_signed()).ok(),
        State::DestroyScheduled => version.record.destroy_at,
        State::PreActive | State::Active | State::Suspended | State::Compromised | State::Destroyed => None,
    };
    let first = key.versions().iter().filter_map(ends).chain(rotation).min();
    Due { first, rotation }
}

/// Deactivated versions that a key's retention rule no longer keeps, oldest first.
fn beyond_retention(key: &Key, now: Timestamp) -> Vec<Version> {
    let rule = &key.record.retention;
    let old: Vec<_> = key.versions().iter().filter(|version| version.state() == State::Deactivated).collect();
    let surplus = rule.versions.map_or(0, |keep| old.len().saturating_sub(keep as usize));
    let too_old = |changed: Timestamp| {
        let ends = rule.period.and_then(|period| changed.checked_add(period.as_signed()).ok());
        ends.is_some_and(|ends| ends <= now)
    };
    old.iter()
        .enumerate()
        .filter(|(index, version)| *index < surplus || too_old(version.record.changed))
        .map(|(_, version)| version.number())
        .collect()
}
