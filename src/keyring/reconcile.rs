//! Makes store and devices agree after a crash, and says what it found.
//!
//! Nothing is deleted on suspicion: only what a pending row of ours names is destroyed. An object that nobody knows and a
//! version whose object is missing are reported, because a second service or a mistaken operator may be behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::birth::remove;
use super::change::system_record;
use super::record::{Pending, VersionRecord, key_path, put, read, version_path};
use super::{Key, KeyVersion, Keyring};
use crate::crash_point;
use crate::device::{LEFT_TRANSPORT, Locator, Settings};
use crate::error::Result;
use crate::store::Expected;
use crate::types::{Action, KeyId, KeyName, Name, Residency, Version, blocking};

/// What reconciliation found.
#[derive(Debug, Default)]
pub struct Report {
    /// What it mended, as sentences.
    pub mended: Vec<String>,
    /// What an operator should look at, as sentences.
    pub problems: Vec<String>,
}

impl Keyring {
    /// Finishes what a crash cut short, and compares what the devices hold with what the store knows. In a store that is
    /// fresh from a restore nothing is destroyed: what was being made when the backup was taken may live elsewhere by now.
    ///
    /// # Errors
    /// Where the store cannot be read or written. A device that does not answer is a problem in the report, not an error.
    pub async fn reconcile(&self, restored: bool) -> Result<Report> {
        let mut report = if restored { self.forget_pending().await? } else { self.finish_pending().await? };
        for device in self.devices.keys() {
            self.compare(device, &mut report).await?;
        }
        Ok(report)
    }

    /// Destroys what unfinished births may have left in the devices that answer.
    ///
    /// # Errors
    /// As [`Self::reconcile`].
    pub async fn finish_pending(&self) -> Result<Report> {
        let mut report = Report::default();
        let store = self.ledger.store();
        let pending = blocking(move || store.scan("pending/")).await?;
        for record in pending {
            let pending: Pending = read(&record)?;
            let Pending { name, version, device, .. } = &pending;
            // A birth that is under way right now holds the key's turn, and one that has ended since the scan has no such
            // row any more: what it made is alive.
            let turn = self.turns.of(name);
            let Ok(_turn) = turn.try_lock() else { continue };
            let (store, path) = (self.ledger.store(), record.path.clone());
            if blocking(move || store.get(&path)).await?.is_none_or(|now| now.revision != record.revision) {
                continue;
            }
            let Some(worker) = self.devices.get(device) else {
                if pending.residency == Residency::Shared {
                    // It was a blob that nobody kept: there is nothing of it anywhere.
                    let leaf = system_record("reconcile", Action::Start, name);
                    self.ledger.commit(leaf, vec![remove(record.path)]).await?;
                    report.mended.push(format!("version {version} of {name} was begun and never finished: forgot it"));
                    continue;
                }
                report
                    .problems
                    .push(format!("version {version} of {name} is unfinished on {device}, which is not configured"));
                continue;
            };
            crash_point!("reconcile.before_destroy");
            match worker.destroy(pending.key_ref()).await {
                Ok(()) => {
                    crash_point!("reconcile.destroyed");
                    let leaf = system_record("reconcile", Action::Start, name);
                    self.ledger.commit(leaf, vec![remove(record.path)]).await?;
                    report.mended.push(format!("version {version} of {name} was begun and never finished: removed it"));
                }
                Err(fault) => report.problems.push(format!("version {version} of {name} is unfinished: {fault}")),
            }
        }
        Ok(report)
    }

    /// Removes the rows of unfinished births, and leaves alone what they may have made.
    async fn forget_pending(&self) -> Result<Report> {
        let mut report = Report::default();
        let store = self.ledger.store();
        for record in blocking(move || store.scan("pending/")).await? {
            let Pending { name, version, .. } = &read(&record)?;
            self.ledger.commit(system_record("restore", Action::Start, name), vec![remove(record.path)]).await?;
            report
                .mended
                .push(format!("version {version} of {name} was being made when the backup was taken: forgot it"));
        }
        Ok(report)
    }

    /// After a restore: gives a tombstone to each version that a token shows and the backup did not know yet, so that no
    /// number is given twice. The objects stay, and are reported. Answers how many there are.
    ///
    /// # Errors
    /// Where a device or the store does not answer.
    pub async fn bury_unknown(&self) -> Result<usize> {
        let mut newest: BTreeMap<KeyId, Version> = BTreeMap::new();
        for worker in self.devices.values() {
            for (id, version) in worker.inventory().await?.keys {
                let newest = newest.entry(id).or_insert(version);
                *newest = version.max(*newest);
            }
        }
        let mut buried = 0;
        for key in self.all() {
            let Some(newest) = newest.get(&key.record.id) else { continue };
            buried += self.bury_until(&key.record.name, *newest).await?;
        }
        Ok(buried)
    }

    async fn bury_until(&self, name: &KeyName, newest: Version) -> Result<usize> {
        let turn = self.turns.of(name);
        let _turn = turn.lock().await;
        let key = self.find(name)?;
        let (mut record, now) = (key.record.clone(), self.ledger.clock().now());
        let (mut tombstones, mut changes) = (Vec::new(), Vec::new());
        while record.latest < newest {
            record.latest = record.latest.next()?;
            let tombstone = VersionRecord::tombstone(record.id, record.latest, now);
            changes.push(put(version_path(record.id, record.latest), Expected::Absent, &tombstone)?);
            tombstones.push(tombstone);
        }
        if tombstones.is_empty() {
            return Ok(0);
        }
        changes.push(put(key_path(name), Expected::Revision(key.revision), &record)?);
        let revision = self.ledger.commit(system_record("restore", Action::Start, name), changes).await?;
        let (mut versions, count) = (key.versions.clone(), tombstones.len());
        versions.extend(tombstones.into_iter().map(|one| {
            Arc::new(KeyVersion::new(one, revision, record.algorithm, &self.devices, super::Lease::default()))
        }));
        self.publish(Arc::new(Key { record, revision, versions }));
        Ok(count)
    }

    /// Compares the objects of a token with the rows of the store.
    async fn compare(&self, device: &Name, report: &mut Report) -> Result<()> {
        let Some(worker) = self.devices.get(device) else { return Ok(()) };
        if matches!(worker.settings(), Settings::Tpm(_)) {
            return Ok(()); // A TPM stores none of our keys.
        }
        let inventory = match worker.inventory().await {
            Ok(inventory) => inventory,
            Err(fault) => {
                report.problems.push(format!("{device} could not be compared with the store: {fault}"));
                return Ok(());
            }
        };
        let mut expected: BTreeSet<(KeyId, Version)> = BTreeSet::new();
        let mut house: BTreeSet<KeyId> = BTreeSet::new();
        if let Some(identity) = worker.identity() {
            house.insert(identity.sentinel.id);
            house.extend(identity.keks.iter().map(|kek| kek.id));
            house.extend(identity.attestation_key.iter().map(|own| own.key.id));
        }
        house.extend(&self.house);
        let present: BTreeSet<_> = inventory.keys.iter().copied().collect();
        for (name, id, version, doomed) in self.resident_on(device) {
            expected.insert((id, version));
            if doomed && !present.contains(&(id, version)) {
                // The scheduler does the rest at its first tick.
                report
                    .mended
                    .push(format!("version {version} of {name} was being destroyed: it is gone from {device}"));
            } else if !present.contains(&(id, version)) {
                let text = format!(
                    "version {version} of {name} (key {id}) has a record, and {device} shows no object for it: \
                     put the token back as it was, or declare the version lost"
                );
                report.problems.push(text);
            }
        }
        for (id, version) in present.iter().filter(|one| !expected.contains(one) && !house.contains(&one.0)) {
            report.problems.push(format!(
                "{device} holds an object of key {id} version {version} that no record names: another service's, or a \
                 leftover; it was left alone"
            ));
        }
        for (id, version) in &inventory.halves {
            report.problems.push(if *id == LEFT_TRANSPORT {
                format!(
                    "{device} holds the trusted key of a `signet init --share` that was cut short: the next one from {device} removes it"
                )
            } else {
                format!("{device} holds half a key pair of key {id} version {version}: a leftover")
            });
        }
        Ok(())
    }

    /// The versions that are objects of a token, and whether each has had its time: then its destruction may have begun.
    fn resident_on(&self, device: &Name) -> Vec<(KeyName, KeyId, Version, bool)> {
        let (mut found, now) = (Vec::new(), self.ledger.clock().now());
        for key in self.all() {
            for version in key.versions() {
                let Ok((place, worker)) = version.place() else { continue };
                if worker.name() == device.as_str() && matches!(place.locator, Locator::Resident) {
                    let doomed = version.record.is_over(now);
                    found.push((key.record.name.clone(), key.record.id, version.number(), doomed));
                }
            }
        }
        found
    }
}
