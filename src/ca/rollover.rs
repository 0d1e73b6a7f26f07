//! A change of an issuer's key needs nobody: the next version is made ahead of time, published, put in force at its time, and
//! the old one retires and ends.
//!
//! ```text
//! life of a version     0 ──────────── prepare ──────── activate ─────────────── 100
//! the version           active ─────────────────────────▶ retired ──▶ ended (its last certificate is dead)
//! the next version                     prepared ────────▶ active
//! ```
//!
//! There is no timer: each tick looks at the clock, so a service that was down when something fell due does it at its first
//! tick. Below an outside authority the next version makes a request and waits; that shows as overdue.

use std::sync::Arc;

use jiff::Timestamp;

use super::Authority;
use super::inventory::RESPONDER;
use super::issuer::{Issuer, IssuerVersion, Parent, VersionState, close_parent};
use super::notice::Notices;
use crate::admission::{Details, Released};
use crate::error::Result;
use crate::policy::{Facts, Target};
use crate::types::operation::{Operation, RotateIssuer, SignIntermediate};
use crate::types::{Caller, IssuerName, Resource, Rollover, Version};
use crate::x509::Validity;

/// Who asks, in the audit log.
const JOB: &str = "rollover";

/// What one tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Versions that were made.
    pub prepared: usize,
    /// Versions that were put in force.
    pub activated: usize,
    /// Versions whose last certificate is dead.
    pub ended: usize,
    /// Reservations that nobody was signing any more.
    pub closed: usize,
    /// Announcements whose time had come, or whose certificates are over.
    pub announced: usize,
    /// What was due and failed.
    pub failed: usize,
}

/// What is due for an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Prepare(Version),
    Activate(Version),
}

impl Authority {
    /// Does all that is due now, one after the other. What fails is tried again at the next tick.
    pub async fn tick(&self) -> Tick {
        let (now, mut tick) = (self.now(), Tick::default());
        match self.close_reservations().await {
            Ok(closed) => tick.closed = closed.len(),
            Err(error) => tracing::warn!(cause = error.chain(), "open reservations could not be closed"),
        }
        for issuer in self.issuers() {
            // Preparing and activating may both be due: a service that was down for long does one after the other.
            for _ in 0..2 {
                let Ok(issuer) = self.issuer(&issuer.record.name) else { continue };
                let (done, count) = match self.due(&issuer, now) {
                    Some(Due::Prepare(newest)) => (self.prepare_as_house(&issuer, newest).await, &mut tick.prepared),
                    Some(Due::Activate(version)) => {
                        (self.activate_as_house(&issuer, version).await, &mut tick.activated)
                    }
                    None => break,
                };
                match done {
                    Ok(()) => *count += 1,
                    Err(error) => {
                        tracing::warn!(issuer = %issuer.record.name, cause = error.chain(), "the rollover of an issuer is overdue");
                        tick.failed += 1;
                        break;
                    }
                }
            }
            self.end_retired(&issuer, now, &mut tick).await;
        }
        self.keep_announcements(now, &mut tick).await;
        tick
    }

    /// Tells the metrics which issuers need somebody.
    pub fn measure(&self) {
        let now = self.now();
        let overdue = self.issuers().iter().filter(|issuer| needs_somebody(issuer, now)).count();
        self.parts.metrics.issuers_overdue(overdue);
    }

    /// What an operator should look at, as sentences.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let now = self.now();
        let late = |issuer: &Arc<Issuer>| {
            let name = &issuer.record.name;
            needs_somebody(issuer, now).then(|| {
                format!("issuer {name} should have a new version by now: `signet issuer show {name}` tells what it waits for")
            })
        };
        self.issuers()
            .iter()
            .flat_map(|issuer| late(issuer).or_else(|| self.silenced(issuer, now)))
            .chain(self.late_certificates())
            .chain(self.notices.as_ref().and_then(Notices::problem))
            .collect()
    }

    /// Why the version that should issue cannot: its key is compromised, or a certificate that it needs was revoked.
    fn silenced(&self, issuer: &Issuer, now: Timestamp) -> Option<String> {
        issuer.active().ok().filter(|_| issuer.record.enabled)?;
        let refused = self.signer(issuer, now).err()?;
        Some(format!("issuer {} cannot issue: {}", issuer.record.name, refused.public()))
    }

    /// What an issuer's rule asks for at `now`. Nothing is due for one that is stopped, nor a version that could not end later than
    /// the active one, because the parent's end bounds both: each would be made for nothing, and soon the next one.
    fn due(&self, issuer: &Issuer, now: Timestamp) -> Option<Due> {
        let Rollover { prepare, activate } = issuer.record.rules.rollover.filter(|_| issuer.record.enabled)?;
        let life = issuer.active().ok()?.certificate().ok()?.validity();
        let newest = issuer.versions().last()?;
        match newest.record.state {
            VersionState::Prepared => (point(life, activate) <= now).then_some(Due::Activate(newest.record.version)),
            VersionState::Active if point(life, prepare) <= now => {
                let parent = match &issuer.record.parent {
                    Parent::Issuer(above) => self.issuer(above).and_then(|above| above.ends()).ok()?,
                    Parent::Itself | Parent::Outside => Timestamp::MAX,
                };
                let lifetime = issuer.record.rules.lifetime.as_signed();
                let end = now.checked_add(lifetime).unwrap_or(Timestamp::MAX).min(parent);
                (end > life.not_after).then_some(Due::Prepare(newest.record.version))
            }
            VersionState::Active | VersionState::Requested | VersionState::Retired | VersionState::Ended => None,
        }
    }

    async fn prepare_as_house(&self, issuer: &Issuer, newest: Version) -> Result<()> {
        let name = &issuer.record.name;
        let permit = self.permit::<RotateIssuer>(JOB, name, &Facts::default()).await?;
        let asked = Facts { subject: Some(&issuer.record.subject), ..Facts::default() };
        let parent = match &issuer.record.parent {
            Parent::Issuer(above) => Some(self.permit::<SignIntermediate>(JOB, above, &asked).await?),
            Parent::Itself | Parent::Outside => None,
        };
        let made = self.prepare(&permit, parent.as_ref(), name, Some(newest), None).await;
        let made = match close_parent(parent, &made).await {
            Ok(()) => made,
            Err(unrecorded) => Err(unrecorded),
        };
        permit.close(made.map(drop), Details::default()).await.map(Released::into_inner)
    }

    async fn activate_as_house(&self, issuer: &Issuer, version: Version) -> Result<()> {
        let name = &issuer.record.name;
        let permit = self.permit::<RotateIssuer>(JOB, name, &Facts::default()).await?;
        let activated = self.activate(&permit, name, version, None).await;
        permit
            .close(activated.map(drop), Details { version: Some(version), ..Details::default() })
            .await
            .map(Released::into_inner)
    }

    pub(super) async fn permit<O: Operation>(
        &self,
        job: &'static str,
        name: &IssuerName,
        facts: &Facts<'_>,
    ) -> Result<crate::admission::Permit<O>> {
        let caller = Caller::system(job, crate::keyring::job_id());
        let target = Target::named(Resource::Issuer(name.clone()));
        self.parts.admission.admit(&caller, &target, facts).await
    }

    /// Ends the retired versions whose last certificate is dead.
    async fn end_retired(&self, issuer: &Arc<Issuer>, now: Timestamp, tick: &mut Tick) {
        for version in issuer.versions().iter().filter(|one| one.record.state == VersionState::Retired) {
            match self.end_version(&issuer.record.name, version, now).await {
                Ok(true) => tick.ended += 1,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(issuer = %issuer.record.name, cause = error.chain(), "a retired version could not be looked at");
                    tick.failed += 1;
                }
            }
        }
    }

    /// Whether the version ended now. When its last certificate ends is looked up once, and again when that has come. Those of its
    /// responders do not count: they are made as long as it is there.
    async fn end_version(&self, name: &IssuerName, version: &IssuerVersion, now: Timestamp) -> Result<bool> {
        if version.record.last_end.is_some_and(|last| now <= last) {
            return Ok(false);
        }
        let number = version.record.version;
        let asked = (name.clone(), number);
        let last = self.read(move |store| store.last_end(&asked.0, asked.1, RESPONDER)).await?;
        let over = last.is_none_or(|last| last < now);
        let (_turn, issuer) = self.hold(name).await?;
        let mut record = issuer.record.clone();
        if let Some(one) = record.versions.iter_mut().find(|one| one.version == number) {
            one.last_end = last.or(Some(now));
            if over {
                one.state = VersionState::Ended;
            }
        }
        let leaf = self.parts.admission.record_tidying("rollover");
        self.replace(leaf, issuer.revision(), record, None).await?;
        Ok(over)
    }
}

/// Whether the next version is due and does not come by itself: it waits for an outside authority, for a device, or for the
/// hand of somebody who wanted to do it by hand. Then the certificate of the active one is two thirds over.
fn needs_somebody(issuer: &Issuer, now: Timestamp) -> bool {
    let Ok(life) = issuer.active().and_then(|active| active.certificate().map(|one| one.validity())) else {
        return false;
    };
    let rule = issuer.record.rules.rollover.unwrap_or_default();
    issuer.record.enabled && point(life, rule.activate.saturating_add(2)) <= now
}

/// When that many hundredths of a life are over.
fn point(life: Validity, hundredths: u8) -> Timestamp {
    let (from, until) = (life.not_before.as_second(), life.not_after.as_second());
    let part = (until - from) / 100 * i64::from(hundredths);
    Timestamp::from_second(from + part).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_within_a_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let life = Validity { not_before: at(1000), not_after: at(2000) };
        assert_eq!(point(life, 0), at(1000));
        assert_eq!(point(life, 50), at(1500));
        assert_eq!(point(life, 100), at(2000));
    }
}
