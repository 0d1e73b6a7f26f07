//! How a version comes to be, in two phases, and what is done when that is cut short.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{
    FORMAT, KeyCopy, KeyRecord, Pending, VersionRecord, attestation_path, key_path, pending_path, put, version_path,
};
use super::{Key, KeyVersion, Keyring, MAX_PUBLISHED, check, holders_of};
use crate::admission::{Details, Permit};
use crate::audit::Phase;
use crate::crash_point;
use crate::device::{Ability, Class, Fault, Generated, KeyRef, KeySpec, Locator, Worker};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected};
use crate::types::operation::{CreateKey, Includes, Operation};
use crate::types::{
    Algorithm, Domain, Encapsulated, Hash, KeyId, KeyName, Name, Pcrs, PublicKey, Purpose, Residency, Retention, Role,
    Rotation, State, Verifier, Version, blocking, same,
};

/// The most labels of a key, and the most characters of a label's value.
const MAX_LABELS: usize = 32;
const MAX_LABEL_VALUE: usize = 128;

/// A key that is wanted.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its full name.
    pub name: KeyName,
    /// What it does.
    pub algorithm: Algorithm,
    /// The device that keeps it.
    pub device: Name,
    /// Where the private part stays; the first that the device can where absent.
    pub residency: Option<Residency>,
    /// The registers of the machine whose values at the birth of a version it is bound to.
    pub pcrs: Option<Pcrs>,
    /// What a signing key may sign; `artifact` where absent.
    pub domain: Option<Domain>,
    /// When a new version is made by itself.
    pub rotation: Rotation,
    /// Which old versions are scheduled for destruction by themselves.
    pub retention: Retention,
    /// What people wrote on it.
    pub labels: BTreeMap<String, String>,
    /// Whether destruction is refused.
    pub deletion_protection: bool,
}

/// What the device has made and proved.
pub(super) struct Born {
    /// The device that made it.
    device: Name,
    locator: Locator,
    public: Option<Vec<u8>>,
    check: Option<Vec<u8>>,
    /// What the device says of it, where it has an attestation key.
    attestation: Option<String>,
}

impl Born {
    /// The record of what the device says of it.
    pub(super) fn attested(&mut self, id: KeyId, version: Version) -> Option<Change> {
        let text = self.attestation.take()?;
        let path = attestation_path(id, version);
        Some(Change { path, expected: Expected::Absent, value: Some(text.into_bytes()) })
    }
}

impl Keyring {
    /// Makes a key and its first version. `also` is committed with it, such as the answer to an idempotency key.
    ///
    /// # Errors
    /// `Conflict` for a name that is taken, `Unsupported` where the device cannot keep such keys (listing what it can),
    /// `Invalid` for rules that cannot be, and those of the device.
    pub async fn create<O: Operation + Includes<CreateKey>>(
        &self,
        permit: &Permit<O>,
        new: NewKey,
        also: impl FnOnce(&KeyRecord) -> Result<Option<Change>>,
    ) -> Result<Arc<Key>> {
        permit.covers::<CreateKey>(&new.name)?;
        let turn = self.turns.of(&new.name);
        let _turn = turn.lock().await;
        self.check_published(usize::from(new.domain == Some(Domain::Jwt)))?;
        let (record, worker) = self.plan(new).await?;
        let now = record.created;
        let mut born = self.give_birth(permit, &record, Version::FIRST, &worker).await?;
        let attested = born.attested(record.id, Version::FIRST);
        let version = version_record(&record, Version::FIRST, State::Active, born, now);
        let mut changes = vec![
            put(key_path(&record.name), Expected::Absent, &record)?,
            put(version_path(record.id, Version::FIRST), Expected::Absent, &version)?,
            remove(pending_path(record.id, Version::FIRST)),
        ];
        changes.extend(attested);
        changes.extend(also(&record)?);
        let details = Details::of(record.id, Version::FIRST).fact("device", &record.device);
        let revision = self.ledger.commit(permit.record(Phase::Change, &details), changes).await?;
        crash_point!("keyring.published");
        let version = KeyVersion::new(version, revision, record.algorithm, &self.devices, super::Lease::default());
        let key = Arc::new(Key { record, revision, versions: vec![Arc::new(version)] });
        self.publish(key.clone());
        Ok(key)
    }

    /// The record of a new key, once all about it holds, and the device that is to make it.
    pub(super) async fn plan(&self, new: NewKey) -> Result<(KeyRecord, Arc<Worker>)> {
        if self.find(&new.name).is_ok() {
            return Err(Error::new(Kind::Conflict, format!("the name {} is taken", new.name))
                .hint("names are never used again, not even those of destroyed keys"));
        }
        let domain = check_rules(&new)?;
        let worker = self.worker(&new.device)?.clone();
        if new.pcrs.is_some() && !worker.has_pcrs() {
            return Err(self.without_pcrs(&new.device));
        }
        let residency = match choose_residency(&worker, new.algorithm, new.residency).await {
            Err(error) if error.kind() == Kind::Unsupported => {
                return Err(self.elsewhere(error, &new.device, new.algorithm).await);
            }
            residency => residency?,
        };
        let now = self.ledger.clock().now();
        let record = KeyRecord {
            format: FORMAT,
            name: new.name,
            id: KeyId::random()?,
            algorithm: new.algorithm,
            domain,
            device: new.device,
            residency,
            pcrs: new.pcrs,
            rotation: new.rotation,
            retention: new.retention,
            labels: new.labels,
            deletion_protection: new.deletion_protection,
            created: now,
            primary: Some(Version::FIRST),
            latest: Version::FIRST,
        };
        Ok((record, worker))
    }

    /// Whether so many more keys may have their public halves read by everybody.
    pub(super) fn check_published(&self, more: usize) -> Result<()> {
        if more > 0 && self.catalogue.count_published() + more > MAX_PUBLISHED {
            let text = format!("a service has at most {MAX_PUBLISHED} keys of the domain jwt");
            return Err(
                Error::new(Kind::Limit, text).hint("their public halves stand in one document, which everybody reads")
            );
        }
        Ok(())
    }

    /// Why a device binds no key to the state of the machine, and which ones do.
    fn without_pcrs(&self, refusing: &Name) -> Error {
        let able: Vec<_> =
            self.devices.iter().filter(|(_, worker)| worker.has_pcrs()).map(|(name, _)| name.as_str()).collect();
        let mend = if able.is_empty() {
            "only a TPM does, and the configuration names none".to_owned()
        } else {
            format!("these do: {}", able.join(", "))
        };
        Error::new(Kind::Unsupported, format!("device {refusing} has no PCRs to bind a key to")).hint(mend)
    }

    /// A refusal that names the other devices which can keep such keys.
    async fn elsewhere(&self, error: Error, refusing: &Name, algorithm: Algorithm) -> Error {
        let mut able = Vec::new();
        for (name, worker) in self.devices.iter().filter(|(name, worker)| *name != refusing && worker.state().is_ok()) {
            let Ok(description) = worker.describe().await else { continue };
            let works = |one: &&Ability| one.algorithm == algorithm && one.refusal.is_none();
            let rows = description.abilities.iter().filter(works);
            able.extend(rows.map(|one| format!("{name} ({})", one.residency)));
        }
        let others =
            if able.is_empty() { "no other device keeps".to_owned() } else { format!("{} can keep", able.join(", ")) };
        let mend = error.mend().unwrap_or_default().to_owned();
        error.hint(format!("{mend}; {others} {algorithm} keys"))
    }

    /// Records the intent, has the device make the version, and lets it prove itself. What fails is cleaned up, or left
    /// pending for reconciliation where the device cannot be asked.
    pub(super) async fn give_birth<O: Operation>(
        &self,
        permit: &Permit<O>,
        key: &KeyRecord,
        version: Version,
        worker: &Arc<Worker>,
    ) -> Result<Born> {
        let mut details = Details::of(key.id, version).fact("device", worker.name()).fact("algorithm", key.algorithm);
        if let Some(pcrs) = key.pcrs {
            details = details.fact("pcrs", pcrs);
        }
        permit.intent(&details).await?;
        let pending = Pending {
            format: FORMAT,
            name: key.name.clone(),
            key: key.id,
            version,
            algorithm: key.algorithm,
            device: Name::new(worker.name())?,
            residency: key.residency,
        };
        let path = pending_path(key.id, version);
        self.finish_earlier(&path, worker, &pending).await?;
        let change = put(path, Expected::Any, &pending)?;
        self.ledger.commit(permit.record(Phase::Change, &details), vec![change]).await?;
        if key.residency == Residency::Shared {
            // As another device made an earlier try at this version, this one may have loaded that.
            worker.forget(key.id, version).await?;
        }
        let spec = KeySpec { id: key.id, version, algorithm: key.algorithm, residency: key.residency, pcrs: key.pcrs };
        let made = match generate(worker, spec).await {
            // What the device refuses was not made by this birth. It may have such an object of somebody else's already.
            Err(fault) if fault.class == Class::Refused => {
                self.forget(permit, &pending, &details).await;
                return Err(fault.into());
            }
            Err(fault) => Err(fault),
            Ok(generated) => prove(worker, &pending, generated).await,
        };
        let made = match made {
            Ok(born) => self.prove_elsewhere(&pending, born).await,
            Err(fault) => Err(fault),
        };
        let made = match made {
            Ok(born) => self.attest_birth(worker, &pending, born).await,
            Err(fault) => Err(fault),
        };
        match made {
            Ok(born) => Ok(born),
            Err(fault) => {
                self.clean_up(permit, worker, &pending, &details).await;
                Err(fault.into())
            }
        }
    }

    /// Has each other device that shares the new version and answers prove that it has it too. Where none does, the device of its birth
    /// proves an older one: a key-encryption key that somebody put in the place of the shared one opens neither.
    async fn prove_elsewhere(&self, pending: &Pending, born: Born) -> Result<Born, Fault> {
        let Pending { key: id, version, algorithm, .. } = *pending;
        let copy = KeyCopy::new(born.device.clone(), &born.locator);
        let Some(kek) = copy.shared_kek() else { return Ok(born) };
        let (key, mut is_proved) = (Arc::new(copy.key_ref(id, version, algorithm)), false);
        let public = born.public.clone().map(PublicKey::from_der);
        for worker in holders_of(&copy, &self.devices) {
            if worker.name() == born.device.as_str() || worker.state().is_err() {
                continue;
            }
            // An earlier try at this version may be loaded there.
            match probe_anew(&worker, &key, public.as_ref(), born.check.as_deref()).await {
                Ok(()) => is_proved = true,
                Err(fault) if fault.class.is_of_the_moment() => {
                    tracing::warn!(device = worker.name(), key = %pending.name, cause = %fault, "a new version is unproved there");
                }
                Err(fault) => {
                    let text = format!("device {} does not prove the new key: {}", worker.name(), fault.text);
                    return Err(Fault { text, ..fault });
                }
            }
            crash_point!("keyring.probed_elsewhere");
        }
        if !is_proved {
            self.prove_older(kek, &born.device).await?;
        }
        Ok(born)
    }

    /// Has a device open a version that was there before, under a key-encryption key that it shares.
    async fn prove_older(&self, kek: KeyId, device: &Name) -> Result<(), Fault> {
        let keys = self.all();
        let mut versions = keys.iter().flat_map(|key| key.versions());
        let older = versions.find_map(|version| {
            let record = &version.record;
            let is_so = record.copies.iter().any(|copy| copy.shared_kek() == Some(kek));
            version.key_ref.as_ref().filter(|_| is_so).map(|key| (key, record))
        });
        let (Some((key, record)), Some(worker)) = (older, self.devices.get(device)) else {
            let text = "no other device that shares it answers, and no older key proves the one that wraps it";
            return Err(
                Fault::new(Class::Config, text).hint("make the first shared key of its kind while both devices answer")
            );
        };
        probe_anew(worker, key, record.public_key().as_ref(), record.check.as_deref()).await.map_err(|fault| {
            let text = format!("an older key that device {device} shares does not open there: {}", fault.text);
            Fault { text, ..fault }
        })
    }

    /// Has the device say what it made.
    pub(super) async fn attest_birth(&self, worker: &Worker, pending: &Pending, born: Born) -> Result<Born, Fault> {
        let Pending { key: id, version, algorithm, name, .. } = pending;
        let key = KeyRef { id: *id, version: *version, algorithm: *algorithm, locator: born.locator.duplicate() };
        let public = born.public.clone().map(PublicKey::from_der);
        let attestation = self.ask_device(worker, name, key, public, None).await?;
        crash_point!("keyring.attested");
        Ok(Born { attestation, ..born })
    }

    /// Destroys what an earlier try at the very same version left, where that could not be done then: two objects with one
    /// id must never be.
    async fn finish_earlier(&self, path: &str, worker: &Arc<Worker>, pending: &Pending) -> Result<()> {
        let (store, path) = (self.ledger.store(), path.to_owned());
        if blocking(move || store.get(&path)).await?.is_some() {
            crash_point!("keyring.before_second_try");
            worker.destroy(pending.key_ref()).await?;
            crash_point!("keyring.second_try");
        }
        Ok(())
    }

    /// Destroys what a failed birth may have left. Where the device cannot be asked now, the pending row stays, and the
    /// scheduler asks again.
    async fn clean_up<O: Operation>(
        &self,
        permit: &Permit<O>,
        worker: &Arc<Worker>,
        pending: &Pending,
        details: &Details,
    ) {
        let key = pending.key_ref();
        crash_point!("keyring.before_cleanup");
        if let Err(fault) = worker.destroy(key).await {
            tracing::warn!(key = %pending.name, version = %pending.version, cause = %fault, "a failed version is left pending");
            return;
        }
        crash_point!("keyring.cleaned_up");
        self.forget(permit, pending, details).await;
    }

    /// Removes the pending row of a birth that left nothing.
    async fn forget<O: Operation>(&self, permit: &Permit<O>, pending: &Pending, details: &Details) {
        let change = remove(pending_path(pending.key, pending.version));
        if let Err(error) = self.ledger.commit(permit.record(Phase::Change, details), vec![change]).await {
            tracing::warn!(key = %pending.name, cause = error.chain(), "a failed version is left pending");
        }
    }
}

impl Pending {
    /// What a device may have made: a token object. A blob that nobody kept is nothing.
    pub(super) const fn key_ref(&self) -> KeyRef {
        KeyRef { id: self.key, version: self.version, algorithm: self.algorithm, locator: Locator::Resident }
    }
}

pub(super) async fn generate(worker: &Arc<Worker>, spec: KeySpec) -> Result<Generated, Fault> {
    crash_point!("keyring.before_generate");
    let generated = worker.generate(spec).await?;
    crash_point!("keyring.generated");
    Ok(generated)
}

/// A version that cannot do its one thing does not exist.
pub(super) async fn prove(worker: &Arc<Worker>, pending: &Pending, generated: Generated) -> Result<Born, Fault> {
    let Pending { key: id, version, algorithm, .. } = *pending;
    let key = Arc::new(KeyRef { id, version, algorithm, locator: generated.locator });
    let check = probe(worker, &key, generated.public.as_ref()).await?;
    crash_point!("keyring.probed");
    let public = generated.public.map(|public| public.as_der().to_vec());
    Ok(Born { device: pending.device.clone(), locator: key.locator.duplicate(), public, check, attestation: None })
}

/// Has a key that is not loaded any more do its one thing in a device: it is what `public` or `check` says.
async fn probe_anew(
    worker: &Worker,
    key: &Arc<KeyRef>,
    public: Option<&PublicKey>,
    check: Option<&[u8]>,
) -> Result<(), Fault> {
    worker.forget(key.id, key.version).await?;
    if probe(worker, key, public).await?.as_deref() == check {
        return Ok(());
    }
    Err(Fault::new(Class::KeyDamaged, format!("device {} has another key", worker.name())))
}

/// Has a key do its one thing in a device. Answers the check value of one that has no public half.
async fn probe(worker: &Worker, key: &Arc<KeyRef>, public: Option<&PublicKey>) -> Result<Option<Vec<u8>>, Fault> {
    match key.algorithm.role() {
        Role::Sign => probe_signature(worker, key, public).await.map(|()| None),
        Role::Agree | Role::Decrypt | Role::Decapsulate => probe_secret(worker, key, public).await.map(|()| None),
        Role::Mac => probe_mac(worker, key).await.map(Some),
        Role::Cipher => probe_cipher(worker, key).await.map(Some),
    }
}

async fn probe_signature(worker: &Worker, key: &Arc<KeyRef>, public: Option<&PublicKey>) -> Result<(), Fault> {
    let damaged = |why: &str| Fault::new(Class::KeyDamaged, format!("the new key failed its probe: {why}"));
    let public = public.ok_or_else(|| damaged("the device gave no public key"))?;
    let verifier = Verifier::new(key.algorithm, public).map_err(|e| damaged(&e.chain()))?;
    let message = check::text(key.id, key.version);
    let input = key.algorithm.hash().map_or_else(|| message.clone(), |hash: Hash| hash.digest(&message));
    let signature = worker.use_key(key, input).await?;
    if verifier.verifies(&message, signature.expose()) { Ok(()) } else { Err(damaged("its signature does not verify")) }
}

async fn probe_secret(worker: &Worker, key: &Arc<KeyRef>, public: Option<&PublicKey>) -> Result<(), Fault> {
    let damaged = |why: &str| Fault::new(Class::KeyDamaged, format!("the new key failed its probe: {why}"));
    let public = public.ok_or_else(|| damaged("the device gave no public key"))?;
    let known = Encapsulated::to(key.algorithm, public).map_err(|e| damaged(&e.chain()))?;
    let secret = worker.use_key(key, known.sent).await?;
    if same(secret.expose(), known.secret.expose()) { Ok(()) } else { Err(damaged("it finds another secret")) }
}

/// The check value, asked for twice: a key that answers differently is none.
async fn probe_mac(worker: &Worker, key: &Arc<KeyRef>) -> Result<Vec<u8>, Fault> {
    let first = worker.use_key(key, check::input(key)).await?;
    let second = worker.use_key(key, check::input(key)).await?;
    let whole = key.algorithm.hash().is_some_and(|hash| hash.size() == first.expose().len());
    if whole && same(first.expose(), second.expose()) {
        Ok(first.expose().to_vec())
    } else {
        Err(Fault::new(Class::KeyDamaged, "the new key failed its probe: it gives different codes"))
    }
}

/// The check value, asked for twice, and the text that it decrypts to.
async fn probe_cipher(worker: &Worker, key: &Arc<KeyRef>) -> Result<Vec<u8>, Fault> {
    let first = worker.use_key(key, check::input(key)).await?;
    let second = worker.use_key(key, check::input(key)).await?;
    let text = worker.use_key(key, check::back(key, first.expose())).await?;
    if same(first.expose(), second.expose()) && same(text.expose(), &check::text(key.id, key.version)) {
        Ok(first.expose().to_vec())
    } else {
        Err(Fault::new(Class::KeyDamaged, "the new key failed its probe: it does not decrypt what it encrypts"))
    }
}

/// The record of a version that was born.
pub(super) fn version_record(
    key: &KeyRecord,
    version: Version,
    state: State,
    born: Born,
    now: jiff::Timestamp,
) -> VersionRecord {
    let Born { device, locator, public, check, attestation: _ } = born;
    VersionRecord {
        format: FORMAT,
        key: key.id,
        version,
        state,
        before: None,
        created: now,
        changed: now,
        destroy_at: None,
        copies: vec![KeyCopy::new(device, &locator)],
        public,
        check,
    }
}

/// A change that removes a record.
pub(super) const fn remove(path: String) -> Change {
    Change { path, expected: Expected::Any, value: None }
}

/// The residency that was asked for, or the first that the device can; refused by name otherwise.
async fn choose_residency(worker: &Worker, algorithm: Algorithm, wanted: Option<Residency>) -> Result<Residency> {
    let description = worker.describe().await?;
    let of =
        |residency| description.abilities.iter().find(|one| one.algorithm == algorithm && one.residency == residency);
    let able = |residency: &Residency| of(*residency).is_some_and(|ability| ability.refusal.is_none());
    let choices = wanted.map_or_else(|| Residency::ALONE.to_vec(), |one| vec![one]);
    if let Some(found) = choices.iter().copied().find(able) {
        return Ok(found);
    }
    let why: Vec<_> = choices
        .iter()
        .map(|residency| {
            let unknown = match residency {
                Residency::Shared => "it shares no keys with another device: `signet init --share` has two do so",
                Residency::Resident | Residency::Wrapped => "it is unknown to it",
            };
            let refusal = of(*residency).and_then(|ability| ability.refusal.as_deref()).unwrap_or(unknown);
            format!("{residency}: {refusal}")
        })
        .collect();
    let can: Vec<_> = description
        .abilities
        .iter()
        .filter(|ability| ability.refusal.is_none())
        .map(|ability| format!("{} ({})", ability.algorithm, ability.residency))
        .collect();
    let text = format!("device {} cannot keep {algorithm} keys: {}", worker.name(), why.join("; "));
    Err(Error::new(Kind::Unsupported, text).hint(format!("it can keep: {}", can.join(", "))))
}

/// The domain of the new key, once all its rules hold together.
fn check_rules(new: &NewKey) -> Result<Option<Domain>> {
    new.rotation.check()?;
    check_labels(&new.labels)?;
    check_retention(&new.retention, new.deletion_protection)?;
    match (new.algorithm.purpose(), new.domain) {
        (Purpose::Sign, Some(Domain::Raw)) if new.algorithm.hash().is_none() => {
            let text = format!("{} signs messages, not digests", new.algorithm);
            Err(Error::new(Kind::Invalid, text).hint("choose another domain"))
        }
        (Purpose::Sign, Some(domain @ (Domain::X509 | Domain::Ssh | Domain::Tls)))
            if new.algorithm == Algorithm::MlDsa65 =>
        {
            let text = format!("{} keys have no domain {domain} here", new.algorithm);
            Err(Error::new(Kind::Unsupported, text).hint("they sign artifacts and tokens: domain artifact or jwt"))
        }
        (Purpose::Sign, Some(Domain::Log)) => {
            Err(Error::new(Kind::Invalid, "the domain log belongs to the service itself"))
        }
        (Purpose::Sign, domain) => Ok(Some(domain.unwrap_or(Domain::Artifact))),
        (Purpose::Wrap | Purpose::Mac, None) => Ok(None),
        (Purpose::Wrap | Purpose::Mac, Some(_)) => {
            Err(Error::new(Kind::Invalid, "only signing keys have a domain").hint("leave it out"))
        }
    }
}

pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    if labels.len() > MAX_LABELS {
        return Err(Error::new(Kind::Limit, format!("a key has at most {MAX_LABELS} labels")));
    }
    for (name, value) in labels {
        Name::new(name).map_err(|e| e.context("label"))?;
        if value.chars().count() > MAX_LABEL_VALUE || value.chars().any(char::is_control) {
            let text = format!("the value of label {name} is not up to {MAX_LABEL_VALUE} printable characters");
            return Err(Error::new(Kind::Invalid, text));
        }
    }
    Ok(())
}

pub(super) fn check_retention(retention: &Retention, deletion_protection: bool) -> Result<()> {
    let destroys = retention.versions.is_some() || retention.period.is_some();
    if destroys && deletion_protection {
        return Err(Error::new(Kind::Invalid, "a retention rule destroys versions, which deletion protection refuses")
            .hint("set deletion_protection to false, or leave retention out"));
    }
    Ok(())
}
