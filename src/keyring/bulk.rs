//! Many keys at once: one transaction and one write of each anchor for all of them, an intent and an end in the log for each.
//!
//! ```text
//! intents recorded ─▶ the device makes each key, which proves itself ─▶ all rows in one transaction ─▶ published
//! ```
//!
//! Only keys are made so of which nothing stays in their device: what a crash before the transaction leaves is nothing, so that
//! there are no pending rows, and after it all of them are there.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;

use super::birth::{Born, NewKey, generate, prove, version_record};
use super::record::{FORMAT, KeyRecord, Pending, VersionRecord, key_path, put, version_path};
use super::{Key, KeyVersion, Keyring, Lease};
use crate::admission::{Details, Permit, RECORDS_AT_ONCE};
use crate::audit::Phase;
use crate::crash_point;
use crate::device::{Class, KeySpec, Settings, Worker};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected};
use crate::types::operation::{CreateKey, Includes, Operation};
use crate::types::{Domain, Residency, Resource, State, Version};

/// How many keys of one batch are at their device at once: enough that a token does not wait for us between two. A TPM does one thing
/// at a time, and what waits there for its turn may come too late.
fn at_once(worker: &Worker) -> usize {
    match worker.settings() {
        Settings::Pkcs11(_) => 32,
        Settings::Tpm(_) => 1,
    }
}

impl Keyring {
    /// Makes keys with their first versions, all of them or none. Where nothing else is said they are wrapped. `also` is committed with
    /// them, such as the answer to an idempotency key. There is a permit for each, in the order of the keys.
    ///
    /// # Errors
    /// As [`Self::create`], naming the key; `Unsupported` for keys that stay in their device, `Invalid` for a name that is there twice.
    pub async fn create_many<O: Operation + Includes<CreateKey>>(
        &self,
        permits: &[Permit<O>],
        new: Vec<NewKey>,
        also: impl FnOnce() -> Result<Option<Change>>,
    ) -> Result<Vec<Arc<Key>>> {
        if permits.len() != new.len() {
            return Err(Error::internal("a batch of keys has a permit for each"));
        }
        for (permit, new) in permits.iter().zip(&new) {
            permit.covers::<CreateKey>(&new.name)?;
        }
        // 1. Nobody else makes a key of one of these names meanwhile. In their order, so that no two batches wait for each other.
        let names: BTreeSet<_> = new.iter().map(|new| new.name.clone()).collect();
        if names.len() < new.len() {
            return Err(Error::new(Kind::Invalid, "a name stands twice in the batch"));
        }
        let mut turns = Vec::new();
        for name in &names {
            turns.push(self.turns.of(name).lock_owned().await);
        }
        // 2. What is wanted, before anything is written.
        let mut planned = Vec::new();
        let published = new.iter().filter(|new| new.domain == Some(Domain::Jwt)).count();
        self.check_published(published)?;
        for mut new in new {
            let name = new.name.clone();
            let residency = *new.residency.get_or_insert(Residency::Wrapped);
            if residency != Residency::Wrapped {
                let text = format!("{name}: keys of residency {residency} are made one by one");
                return Err(Error::new(Kind::Unsupported, text).hint("in a batch all are wrapped: leave residency out"));
            }
            planned.push(self.plan(new).await.map_err(|error| error.context(name))?);
        }
        // 3. The intents; 4. the keys; 5. their rows.
        self.intend(permits, &planned).await?;
        let born = self.bear_all(&planned).await?;
        let mut change = self.rows(planned, born)?;
        change.rows.extend(also()?);
        let Some(first) = permits.first() else { return Err(Error::new(Kind::Invalid, "the batch is empty")) };
        let details = Details::default().fact("keys", change.keys.len());
        let mut leaf = first.record(Phase::Change, &details);
        leaf.resource = Resource::Service.to_string();
        let revision = self.ledger.commit(leaf, change.rows).await?;
        crash_point!("keyring.published");
        let key = |(record, version): (KeyRecord, VersionRecord)| {
            let version = KeyVersion::new(version, revision, record.algorithm, &self.devices, Lease::default());
            Arc::new(Key { record, revision, versions: vec![Arc::new(version)] })
        };
        let keys: Vec<_> = change.keys.into_iter().map(key).collect();
        self.catalogue.put(keys.iter().cloned());
        Ok(keys)
    }

    /// Records what is about to be made.
    async fn intend<O: Operation>(&self, permits: &[Permit<O>], planned: &[(KeyRecord, Arc<Worker>)]) -> Result<()> {
        let both: Vec<_> = permits.iter().zip(planned).collect();
        for some in both.chunks(RECORDS_AT_ONCE) {
            let intents = some.iter().map(|(permit, (record, _))| async move {
                let details = Details::of(record.id, Version::FIRST);
                let mut details = details.fact("device", &record.device).fact("algorithm", record.algorithm);
                if let Some(pcrs) = record.pcrs {
                    details = details.fact("pcrs", pcrs);
                }
                permit.intent(&details).await
            });
            for recorded in join_all(intents).await {
                recorded?;
            }
        }
        Ok(())
    }

    /// Has the devices make the keys. What was made when one fails is nowhere but in their memory.
    async fn bear_all(&self, planned: &[(KeyRecord, Arc<Worker>)]) -> Result<Vec<Born>> {
        let (mut born, mut rest) = (Vec::with_capacity(planned.len()), planned);
        while let Some((_, device)) = rest.first() {
            let same = rest.iter().take(at_once(device)).take_while(|(_, other)| Arc::ptr_eq(device, other)).count();
            let (some, more) = rest.split_at(same);
            let births = some.iter().map(|(record, worker)| async move {
                self.bear(record, worker).await.map_err(|error| error.context(&record.name))
            });
            for one in join_all(births).await {
                born.push(one?);
            }
            rest = more;
        }
        Ok(born)
    }

    async fn bear(&self, record: &KeyRecord, worker: &Arc<Worker>) -> Result<Born> {
        let KeyRecord { id, algorithm, residency, pcrs, .. } = *record;
        let version = Version::FIRST;
        let pending = Pending {
            format: FORMAT,
            name: record.name.clone(),
            key: id,
            version,
            algorithm,
            device: record.device.clone(),
            residency,
        };
        let made = async {
            let generated = generate(worker, KeySpec { id, version, algorithm, residency, pcrs }).await?;
            let born = prove(worker, &pending, generated).await?;
            self.attest_birth(worker, &pending, born).await
        };
        made.await.map_err(|mut fault| {
            // Whatever was made of it is gone with the session that made it.
            if fault.class == Class::Ambiguous {
                fault.class = Class::Retry;
            }
            fault.into()
        })
    }

    /// What is to be written.
    fn rows(&self, planned: Vec<(KeyRecord, Arc<Worker>)>, born: Vec<Born>) -> Result<Rows> {
        let mut change = Rows { rows: Vec::with_capacity(3 * born.len() + 1), keys: Vec::with_capacity(born.len()) };
        for ((record, _), mut born) in planned.into_iter().zip(born) {
            let attested = born.attested(record.id, Version::FIRST);
            let version = version_record(&record, Version::FIRST, State::Active, born, record.created);
            change.rows.push(put(key_path(&record.name), Expected::Absent, &record)?);
            change.rows.push(put(version_path(record.id, Version::FIRST), Expected::Absent, &version)?);
            change.rows.extend(attested);
            change.keys.push((record, version));
        }
        Ok(change)
    }
}

/// A batch before it is written.
struct Rows {
    rows: Vec<Change>,
    keys: Vec<(KeyRecord, VersionRecord)>,
}
