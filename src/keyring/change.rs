//! Rotation, changes of state, changes of a key's rules, destruction.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::birth::{check_labels, check_retention, remove, version_record};
use super::record::{KeyRecord, VersionRecord, counter_path, key_path, pending_path, put, version_path};
use super::state::{Step, after};
use super::{Key, KeyVersion, Keyring, resource};
use crate::admission::{Details, Permit};
use crate::audit::{Phase, Record};
use crate::crash_point;
use crate::device::{KeyRef, Worker};
use crate::error::{Error, Kind, Result};
use crate::policy::{Facts, Target};
use crate::store::{Change, Expected};
use crate::types::operation::{DestroyVersion, Operation, RotateKey, UpdateKey};
use crate::types::{Action, Caller, KeyName, Period, Retention, Rotation, State, Version};

/// How long a scheduled destruction can be cancelled, unless asked otherwise.
pub(super) const DEFAULT_WAIT: Period = Period::seconds(30 * 86_400);
/// The shortest such time.
const MIN_WAIT: Period = Period::seconds(86_400);

/// What of a key is to be changed; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct KeyUpdate {
    /// The rotation rule.
    pub rotation: Option<Rotation>,
    /// The retention rule.
    pub retention: Option<Retention>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Deletion protection.
    pub deletion_protection: Option<bool>,
}

impl Keyring {
    /// Makes the next version, and with it the primary one unless it is only to be prepared.
    ///
    /// # Errors
    /// `Stale` where `expected` is not the newest version, `State` for a key whose last version is destroyed, and those of
    /// the device.
    pub async fn rotate<O: Operation + crate::types::operation::Includes<RotateKey>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        expected: Option<Version>,
        prepare: bool,
        also: impl FnOnce(&KeyRecord) -> Result<Option<Change>>,
    ) -> Result<Arc<Key>> {
        permit.covers::<RotateKey>(name)?;
        let turn = self.turns.of(name);
        let _turn = turn.lock().await;
        let key = self.find(name)?;
        expect_version(&key, expected)?;
        if key.versions.iter().all(|version| version.state() == State::Destroyed) {
            return Err(Error::new(Kind::State, format!("{name} is destroyed")).hint("make a new key"));
        }
        let worker = self.maker(&key)?;
        let number = key.record.latest.next()?;
        let mut born = self.give_birth(permit, &key.record, number, &worker).await?;
        let attested = born.attested(key.record.id, number);
        let now = self.ledger.clock().now();
        let (state, primary) =
            if prepare { (State::PreActive, key.record.primary) } else { (State::Active, Some(number)) };
        let record = KeyRecord { latest: number, primary, ..key.record.clone() };
        let version = version_record(&record, number, state, born, now);
        let superseded = if prepare { None } else { supersede(&key, now)? };
        let mut changes = vec![
            put(key_path(name), Expected::Revision(key.revision), &record)?,
            put(version_path(record.id, number), Expected::Absent, &version)?,
            remove(pending_path(record.id, number)),
        ];
        changes.extend(attested);
        if let Some((old, record)) = &superseded {
            changes.push(put(version_path(record.key, record.version), Expected::Revision(old.revision), record)?);
        }
        changes.extend(also(&record)?);
        let details = Details::of(record.id, number).fact("device", worker.name());
        let revision = self.ledger.commit(permit.record(Phase::Change, &details), changes).await?;
        crash_point!("keyring.published");
        let mut versions = key.versions.clone();
        if let Some((old, record)) = superseded {
            replace(&mut versions, Arc::new(old.changed(record, revision)));
        }
        let new = KeyVersion::new(version, revision, record.algorithm, &self.devices, super::Lease::default());
        versions.push(Arc::new(new));
        let key = Arc::new(Key { record, revision, versions });
        self.publish(key.clone());
        self.metrics.rotated();
        Ok(key)
    }

    /// Rotates as a job of the house.
    ///
    /// # Errors
    /// As [`Self::rotate`].
    pub(super) async fn rotate_as(
        &self,
        caller: &Caller,
        name: &KeyName,
        expected: Option<Version>,
    ) -> Result<Arc<Key>> {
        let key = self.find(name)?;
        let target = Target { resource: resource(name), key: Some(key.facts()) };
        let permit = self.admission.admit::<RotateKey>(caller, &target, &Facts::default()).await?;
        let rotated = match self.stays_bound(&key).await {
            Ok(()) => self.rotate(&permit, name, expected, false, |_| Ok(None)).await,
            Err(error) => Err(error),
        };
        let details =
            rotated.as_ref().map_or_else(|_| Details::default(), |key| Details::of(key.record.id, key.record.latest));
        permit.close(rotated, details).await.map(crate::admission::Released::into_inner)
    }

    /// Moves a version along the table of states. Destruction itself has a method of its own.
    ///
    /// # Errors
    /// `State` where the table has no such way, or deletion protection refuses it; `Invalid` for a waiting period that is
    /// too short.
    pub async fn step<O: Operation, Also: IntoIterator<Item = Change>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        number: Version,
        step: Step,
        wait: Option<Period>,
        also: impl FnOnce(&KeyRecord) -> Result<Also>,
    ) -> Result<Arc<Key>> {
        permit.covers::<O>(name)?;
        let turn = self.turns.of(name);
        let _turn = turn.lock().await;
        let key = self.find(name)?;
        let version = key.version(number)?.clone();
        let now = self.ledger.clock().now();
        let mut changed = self.stepped(&key, &version, step, wait, now)?;
        let mut record = key.record.clone();
        let mut superseded = None;
        match changed.state {
            State::Active if record.primary.is_none() || step == Step::Activate => {
                superseded = supersede(&key, now)?;
                record.primary = Some(number);
            }
            // Another version took its place in the meantime.
            State::Active => changed.state = State::Deactivated,
            State::PreActive
            | State::Suspended
            | State::Deactivated
            | State::Compromised
            | State::DestroyScheduled
            | State::Destroyed => {
                if record.primary == Some(number) {
                    record.primary = None;
                }
            }
        }
        let mut changes = vec![put(version_path(record.id, number), Expected::Revision(version.revision), &changed)?];
        if record != key.record {
            changes.push(put(key_path(name), Expected::Revision(key.revision), &record)?);
        }
        if let Some((old, record)) = &superseded {
            changes.push(put(version_path(record.key, record.version), Expected::Revision(old.revision), record)?);
        }
        changes.extend(also(&record)?);
        let details = Details::of(record.id, number).fact("from", version.state()).fact("to", changed.state);
        let revision = self.ledger.commit(permit.record(Phase::Change, &details), changes).await?;
        crash_point!("keyring.published");
        let key_revision = if record == key.record { key.revision } else { revision };
        let mut versions = key.versions.clone();
        replace(&mut versions, Arc::new(version.changed(changed, revision)));
        if let Some((old, record)) = superseded {
            replace(&mut versions, Arc::new(old.changed(record, revision)));
        }
        let key = Arc::new(Key { record, revision: key_revision, versions });
        self.publish(key.clone());
        Ok(key)
    }

    fn stepped(
        &self,
        key: &Key,
        version: &KeyVersion,
        step: Step,
        wait: Option<Period>,
        now: Timestamp,
    ) -> Result<VersionRecord> {
        let from = &version.record;
        if from.is_over(now) {
            // Its object may be gone already, where a crash or a device came between it and its tombstone.
            return Err(Error::new(Kind::State, format!("the waiting period of version {} is over", from.version))
                .hint("it is being destroyed: nothing can stop that any more"));
        }
        let state = after(from.version, from.state, from.before, step)?;
        let mut changed = VersionRecord { state, changed: now, ..from.clone() };
        match step {
            Step::ScheduleDestruction => {
                if key.record.deletion_protection {
                    return Err(Error::new(Kind::State, format!("{} is protected from deletion", key.record.name))
                        .hint("`signet key update --deletion-protection false` lifts that"));
                }
                let wait = wait.unwrap_or(DEFAULT_WAIT);
                if wait < MIN_WAIT {
                    return Err(
                        Error::new(Kind::Invalid, "a destruction waits for at least a day").hint("say 1d or more")
                    );
                }
                changed.before = Some(from.state);
                let due = now.checked_add(wait.as_signed());
                changed.destroy_at =
                    Some(due.map_err(|e| Error::new(Kind::Invalid, "the waiting period is too long").because(e))?);
            }
            Step::Suspend => changed.before = Some(from.state),
            Step::Activate | Step::Resume | Step::Deactivate | Step::Compromise | Step::CancelDestruction => {
                changed.before = None;
                changed.destroy_at = None;
            }
            Step::Destroy => return Err(Error::internal("a version is destroyed by its own method")),
        }
        Ok(changed)
    }

    /// Destroys a version whose waiting period is over: in the device first, then its row becomes a tombstone.
    ///
    /// # Errors
    /// `State` before its time, and those of the device: then the version stays scheduled.
    pub async fn destroy(&self, permit: &Permit<DestroyVersion>, name: &KeyName, number: Version) -> Result<Arc<Key>> {
        permit.covers::<DestroyVersion>(name)?;
        let turn = self.turns.of(name);
        let _turn = turn.lock().await;
        let key = self.find(name)?;
        let version = key.version(number)?.clone();
        let now = self.ledger.clock().now();
        let state = after(number, version.state(), version.record.before, Step::Destroy)?;
        if !version.record.is_over(now) {
            return Err(Error::new(Kind::State, format!("the waiting period of version {number} is not over")));
        }
        let details = Details::of(key.record.id, number);
        permit.intent(&details).await?;
        crash_point!("keyring.before_destroy");
        // Each copy: a version is destroyed when nothing of it is left anywhere.
        for (worker, key) in self.copies_to_destroy(&key, &version)? {
            worker.destroy(key).await?;
        }
        crash_point!("keyring.destroyed");
        let changed = VersionRecord {
            state,
            changed: now,
            destroy_at: None,
            copies: Vec::new(),
            check: None,
            ..version.record.clone()
        };
        let changes = vec![
            put(version_path(key.record.id, number), Expected::Revision(version.revision), &changed)?,
            remove(counter_path(key.record.id, number)),
        ];
        let revision = self.ledger.commit(permit.record(Phase::Change, &details), changes).await?;
        crash_point!("keyring.published");
        let mut versions = key.versions.clone();
        replace(&mut versions, Arc::new(version.changed(changed, revision)));
        let key = Arc::new(Key { record: key.record.clone(), revision: key.revision, versions });
        self.publish(key.clone());
        Ok(key)
    }

    /// Where something of a version is. Of a shared one nothing is loaded in a device that is down, as its process has ended.
    fn copies_to_destroy(&self, key: &Key, version: &KeyVersion) -> Result<Vec<(Arc<Worker>, KeyRef)>> {
        let mut all = Vec::new();
        for copy in &version.record.copies {
            let mut workers = super::holders_of(copy, &self.devices);
            if workers.iter().any(|worker| worker.state().is_ok()) {
                workers.retain(|worker| worker.state().is_ok());
            }
            if workers.is_empty() {
                workers.push(self.worker(&copy.device)?.clone());
            }
            let place = || copy.key_ref(key.record.id, version.number(), key.record.algorithm);
            all.extend(workers.into_iter().map(|worker| (worker, place())));
        }
        Ok(all)
    }

    /// Changes the rules and labels of a key.
    ///
    /// # Errors
    /// `Stale` where `etag` is not the current one, `Invalid` for rules that cannot be.
    pub async fn update(
        &self,
        permit: &Permit<UpdateKey>,
        name: &KeyName,
        etag: Option<&str>,
        update: KeyUpdate,
        also: impl FnOnce(&KeyRecord) -> Result<Option<Change>>,
    ) -> Result<Arc<Key>> {
        permit.covers::<UpdateKey>(name)?;
        let turn = self.turns.of(name);
        let _turn = turn.lock().await;
        let key = self.find(name)?;
        if etag.is_some_and(|etag| etag != key.etag()) {
            return Err(Error::new(Kind::Stale, format!("{name} was changed in the meantime"))
                .hint("read it again and repeat the change with its new ETag"));
        }
        let KeyUpdate { rotation, retention, labels, deletion_protection } = update;
        let mut record = key.record.clone();
        record.rotation = rotation.unwrap_or(record.rotation);
        record.retention = retention.unwrap_or(record.retention);
        record.labels = labels.unwrap_or(record.labels);
        record.deletion_protection = deletion_protection.unwrap_or(record.deletion_protection);
        record.rotation.check()?;
        check_labels(&record.labels)?;
        check_retention(&record.retention, record.deletion_protection)?;
        let mut changes = vec![put(key_path(name), Expected::Revision(key.revision), &record)?];
        changes.extend(also(&record)?);
        let details = Details { key_id: Some(record.id), ..Details::default() };
        let revision = self.ledger.commit(permit.record(Phase::Change, &details), changes).await?;
        crash_point!("keyring.published");
        let key = Arc::new(Key { record, revision, versions: key.versions.clone() });
        self.publish(key.clone());
        Ok(key)
    }
}

/// The old primary version and its record as a deactivated one.
fn supersede(key: &Key, now: Timestamp) -> Result<Option<(Arc<KeyVersion>, VersionRecord)>> {
    let Some(old) = key.record.primary else { return Ok(None) };
    let old = key.version(old)?.clone();
    let state = after(old.number(), old.state(), old.record.before, Step::Deactivate)?;
    let record = VersionRecord { state, changed: now, ..old.record.clone() };
    Ok(Some((old, record)))
}

fn replace(versions: &mut [Arc<KeyVersion>], new: Arc<KeyVersion>) {
    if let Some(slot) = versions.iter_mut().find(|version| version.number() == new.number()) {
        *slot = new;
    }
}

fn expect_version(key: &Key, expected: Option<Version>) -> Result<()> {
    match expected {
        Some(expected) if expected != key.record.latest => {
            let text = format!("the newest version of {} is {}, not {expected}", key.record.name, key.record.latest);
            Err(Error::new(Kind::Stale, text)
                .hint("somebody rotated it in the meantime; look, and ask again if you must"))
        }
        Some(_) | None => Ok(()),
    }
}

/// A random id for the records of one run of a background job.
#[must_use]
pub fn job_id() -> String {
    let mut bytes = [0; 8];
    // An id that repeats would only make two records harder to tell apart.
    let _ = getrandom::fill(&mut bytes);
    format!("job-{}", hex::encode(bytes))
}

/// The leaf of a change that the house makes on its own account and that nobody has to permit: counting ahead, tidying.
pub(super) fn system_record(job: &'static str, action: Action, name: &KeyName) -> Record {
    Record::of(&Caller::system(job, job_id()), action, &resource(name), Phase::Change)
}
