//! Keys, their versions and their states: what exists, which version protects now, and where its private part is.
//!
//! All keys stand in a catalogue in memory, as immutable snapshots that a change replaces; the path of a request reads it
//! and nothing else. Changes go through `ledger`. A version exists only once the device has made it and it has proved itself.
//!
//! ```text
//! intent recorded ─▶ pending row ─▶ device makes the key ─▶ probe ─▶ key and version rows, pending row removed
//!                        └──────── after a crash, start-up destroys what the device may have made and says so
//! ```

mod attest;
mod birth;
mod bound;
mod bulk;
mod catalogue;
mod change;
mod check;
mod counter;
mod reconcile;
mod record;
mod schedule;
pub mod state;
mod trial;

pub use birth::NewKey;
pub use change::{KeyUpdate, job_id};
pub use reconcile::Report;
pub use record::{KeyCopy, KeyRecord, VersionRecord};
pub use schedule::{Scheduler, Tick};
pub use trial::Trial;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, PoisonError};

use catalogue::Catalogue;
use check::Gate;
use counter::{Counter, Taken};
use record::{Lease, counter_path, put, read};

use crate::admission::{Admission, no_key};
use crate::device::{KeyRef, Worker};
use crate::error::{Error, Kind, Result};
use crate::ledger::Ledger;
use crate::policy::KeyFacts;
use crate::store::{Expected, Store};
use crate::telemetry::Metrics;
use crate::types::{
    Action, Caller, CipherCall, Direction, Encapsulated, KeyId, KeyName, Name, Protection, PublicKey, Purpose,
    Resource, Role, Rotation, SecretBytes, State, Turns, Verifier, Version, same,
};

/// The most keys of the domain `jwt`: their public halves stand in one document, which strangers may read.
pub const MAX_PUBLISHED: usize = 1000;

/// A key at one moment.
#[derive(Debug)]
pub struct Key {
    /// What is stored of it.
    pub record: KeyRecord,
    pub(crate) revision: u64,
    /// In order of their numbers, from 1.
    versions: Vec<Arc<KeyVersion>>,
}

impl Key {
    /// The version with that number.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn version(&self, version: Version) -> Result<&Arc<KeyVersion>> {
        self.find(version)
            .ok_or_else(|| Error::new(Kind::NotFound, format!("{} has no version {version}", self.record.name)))
    }

    fn find(&self, version: Version) -> Option<&Arc<KeyVersion>> {
        let found = self.versions.binary_search_by_key(&version, |one| one.record.version);
        found.ok().and_then(|index| self.versions.get(index))
    }

    /// All versions, oldest first.
    #[must_use]
    pub fn versions(&self) -> &[Arc<KeyVersion>] {
        &self.versions
    }

    /// The version that protects now.
    ///
    /// # Errors
    /// [`Kind::State`] where none does.
    pub fn primary(&self) -> Result<&Arc<KeyVersion>> {
        self.record.primary.and_then(|version| self.find(version)).ok_or_else(|| {
            Error::new(Kind::State, format!("{} has no version that may protect", self.record.name))
                .hint("resume or activate a version, or rotate the key")
        })
    }

    /// Changes with every change of the key or one of its versions.
    #[must_use]
    pub fn etag(&self) -> String {
        let newest = self.versions.iter().map(|version| version.revision).max().unwrap_or(0);
        format!("\"{}\"", self.revision.max(newest))
    }

    /// When it rotates, with what its algorithm bears.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.record.rotation.within(self.record.algorithm)
    }

    /// Whether its primary version has served so often that another is to be made in its place, though it may go on serving.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        let uses = self.primary().map_or(0, |primary| primary.counted().0);
        self.record.algorithm.uses().is_some_and(|of| uses >= of.rotates)
    }

    /// What policies may read of it.
    #[must_use]
    pub fn facts(&self) -> KeyFacts<'_> {
        let KeyRecord { algorithm, domain, device, labels, .. } = &self.record;
        KeyFacts { purpose: algorithm.purpose(), algorithm: *algorithm, domain: *domain, device, labels }
    }

    /// When its next rotation by age falls due.
    #[must_use]
    pub fn rotates_at(&self) -> Option<jiff::Timestamp> {
        let every = self.record.rotation.every?;
        let primary = self.find(self.record.primary?)?;
        primary.record.created.checked_add(every.as_signed()).ok()
    }
}

/// A version at one moment.
#[derive(Debug)]
pub struct KeyVersion {
    /// What is stored of it.
    pub record: VersionRecord,
    pub(crate) revision: u64,
    id: KeyId,
    algorithm: crate::types::Algorithm,
    /// What its devices need; `None` once it is destroyed, or where no device that has it is configured.
    key_ref: Option<Arc<KeyRef>>,
    /// The devices that have it, that of its birth first: one, or several that share it.
    holders: Arc<[Holder]>,
    verifier: OnceLock<Option<Verifier>>,
    kid: OnceLock<Arc<str>>,
    expected: Option<Arc<[u8]>>,
    counter: Arc<Counter>,
}

impl KeyVersion {
    /// The number.
    #[must_use]
    pub const fn number(&self) -> Version {
        self.record.version
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.record.state
    }

    /// A device that has it, one that answers where there is one, and how it is named there.
    ///
    /// # Errors
    /// [`Kind::State`] once it is destroyed, [`Kind::Unavailable`] where its device is not configured.
    pub fn place(&self) -> Result<(&Arc<KeyRef>, &Arc<Worker>)> {
        let mut holders = self.holders();
        self.key_ref.as_ref().zip(holders.next().map(|holder| &holder.worker)).ok_or_else(|| self.placeless())
    }

    /// The devices that have it, beginning with the first that answers, and rather one that proved so a moment ago.
    fn holders(&self) -> impl Iterator<Item = &Holder> {
        let which = |is: fn(&Worker) -> bool| self.holders.iter().position(|holder| is(&holder.worker));
        let first = match &*self.holders {
            [] | [_] => 0,
            _ => which(Worker::is_lively).or_else(|| which(|worker| worker.state().is_ok())).unwrap_or(0),
        };
        self.holders.iter().cycle().skip(first).take(self.holders.len())
    }

    /// How many of the configured devices have a shared version; `None` for all others.
    #[must_use]
    pub fn shared_by(&self) -> Option<usize> {
        self.record.copies.iter().find_map(KeyCopy::shared_kek).map(|_| self.holders.len())
    }

    fn placeless(&self) -> Error {
        let VersionRecord { version, copies, .. } = &self.record;
        match copies.first() {
            None => Error::new(Kind::State, format!("version {version} is destroyed")),
            Some(KeyCopy { device, .. }) => {
                let text = format!("version {version} is in device {device}, which is not configured");
                Error::new(Kind::Unavailable, text).hint(format!("put the stanza [devices.{device}] back"))
            }
        }
    }

    /// What protects it; a destroyed version is shown as its algorithm's last place would be.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.record.copies.first().map_or(Protection::Hsm, KeyCopy::protection)
    }

    /// The public half.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a key that has none.
    pub fn public_key(&self) -> Result<PublicKey> {
        self.record
            .public_key()
            .ok_or_else(|| Error::new(Kind::Unsupported, format!("an {} key has no public half", self.algorithm)))
    }

    /// The judge of its signatures.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a key that makes none.
    pub fn verifier(&self) -> Result<&Verifier> {
        let parse = || self.record.public_key().and_then(|key| Verifier::new(self.algorithm, &key).ok());
        self.verifier
            .get_or_init(parse)
            .as_ref()
            .ok_or_else(|| Error::new(Kind::Unsupported, format!("an {} key makes no signatures", self.algorithm)))
    }

    /// The name of its public key, remembered as `make` made it: a version's public key never changes.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn kid(&self, make: impl FnOnce() -> Result<String>) -> Result<Arc<str>> {
        if let Some(kid) = self.kid.get() {
            return Ok(kid.clone());
        }
        let made = make()?;
        Ok(self.kid.get_or_init(|| made.into()).clone())
    }

    /// Counted uses and bytes, never less than the true ones.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        let Lease { uses, bytes } = self.counter.spent();
        (uses, bytes)
    }

    /// The HMAC of each input, released only after the key proved, after all of them, that it is itself. That proves the key and
    /// not the result, so a device whose answers are not authenticated gives each result twice.
    ///
    /// # Errors
    /// Per input, those of the device; for all, those of the check.
    pub async fn mac(&self, inputs: Vec<Vec<u8>>) -> Result<Vec<Result<SecretBytes>>> {
        self.answers(inputs, Proof::Key).await
    }

    /// What the device answers to each input, for a result that is judged afterwards, as a signature is, or authenticates itself, as an
    /// unwrapped plaintext does.
    ///
    /// # Errors
    /// Per input, those of the device.
    pub async fn ask(&self, inputs: Vec<Vec<u8>>) -> Result<Vec<Result<SecretBytes>>> {
        self.answers(inputs, Proof::Later).await
    }

    /// Has the devices that have it answer, one after the other: what one cannot answer now, the next one is asked. Each proves its own.
    async fn answers(&self, inputs: Vec<Vec<u8>>, proof: Proof) -> Result<Vec<Result<SecretBytes>>> {
        let key = self.key_ref.as_ref().ok_or_else(|| self.placeless())?;
        if let [only] = &*self.holders {
            return self.answers_of(key, only, inputs, proof).await;
        }
        let mut answers: Vec<Option<Result<SecretBytes>>> = inputs.iter().map(|_| None).collect();
        let mut left: Vec<(usize, Vec<u8>)> = inputs.into_iter().enumerate().collect();
        let mut last = None;
        for holder in self.holders() {
            let asked = left.iter().map(|(_, input)| input.clone()).collect();
            let given = match self.answers_of(key, holder, asked, proof).await {
                Err(error) if passes(&error) => {
                    last = Some(error);
                    continue;
                }
                other => other?,
            };
            if self.holders.first().is_some_and(|home| !std::ptr::eq(home, holder)) {
                holder.worker.stood_in(given.iter().filter(|answer| answer.is_ok()).count());
            }
            let mut again = Vec::new();
            for ((index, input), answer) in left.into_iter().zip(given) {
                if answer.as_ref().is_err_and(passes) {
                    again.push((index, input));
                }
                if let Some(slot) = answers.get_mut(index) {
                    *slot = Some(answer);
                }
            }
            left = again;
            if left.is_empty() {
                break;
            }
        }
        match last {
            Some(error) if answers.iter().all(Option::is_none) => Err(error),
            _ => Ok(answers.into_iter().map(|one| one.unwrap_or_else(no_answer)).collect()),
        }
    }

    async fn answers_of(
        &self,
        key: &Arc<KeyRef>,
        holder: &Holder,
        inputs: Vec<Vec<u8>>,
        proof: Proof,
    ) -> Result<Vec<Result<SecretBytes>>> {
        match proof {
            Proof::Later => Ok(holder.ask(key, inputs).await),
            Proof::Key => self.mac_of(key, holder, inputs).await,
            Proof::Result => self.encrypt_of(key, holder, inputs).await,
        }
    }

    async fn mac_of(
        &self,
        key: &Arc<KeyRef>,
        holder: &Holder,
        inputs: Vec<Vec<u8>>,
    ) -> Result<Vec<Result<SecretBytes>>> {
        let results: Vec<Result<SecretBytes>> = if holder.worker.authenticates_answers() {
            holder.ask(key, inputs).await
        } else {
            let count = inputs.len();
            let mut first = holder.worker.use_key_batch(key, [inputs.clone(), inputs].concat()).await;
            let second = first.split_off(count.min(first.len()));
            first.into_iter().zip(second).map(|(one, other)| same_twice(one?, &other?)).collect()
        };
        if results.iter().any(Result::is_ok) {
            self.check(key, holder).await?;
        }
        Ok(results)
    }

    /// What the device encrypts by each of these calls ([`CipherCall`]), released only after it has decrypted it to the same again, and
    /// the key has proved that it is itself.
    ///
    /// # Errors
    /// Per call, those of the device, and [`Kind::Tampered`] for what does not come back as it was; for all, those of the check.
    pub async fn encrypt(&self, calls: Vec<Vec<u8>>) -> Result<Vec<Result<SecretBytes>>> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        self.answers(calls, Proof::Result).await
    }

    async fn encrypt_of(
        &self,
        key: &Arc<KeyRef>,
        holder: &Holder,
        calls: Vec<Vec<u8>>,
    ) -> Result<Vec<Result<SecretBytes>>> {
        let encrypted = holder.ask(key, calls.clone()).await;
        let asked: Vec<_> = calls.iter().map(|call| CipherCall::parse(call).map(|(_, call)| call)).collect();
        let back = |(call, encrypted): (&Option<CipherCall<'_>>, &Result<SecretBytes>)| {
            let data = encrypted.as_ref().ok()?.expose();
            Some(CipherCall { data, ..(*call)? }.encode(Direction::Decrypt))
        };
        let back: Vec<_> = asked.iter().zip(&encrypted).filter_map(back).collect();
        if back.is_empty() {
            return Ok(encrypted);
        }
        // Both begin after the device has encrypted.
        let (decrypted, checked) = futures_util::future::join(holder.ask(key, back), self.check(key, holder)).await;
        checked?;
        let mut decrypted = decrypted.into_iter();
        let release = |(call, encrypted): (Option<CipherCall<'_>>, Result<SecretBytes>)| {
            let encrypted = encrypted?;
            match (call, decrypted.next()) {
                (Some(call), Some(Ok(data))) if same(data.expose(), call.data) => Ok(encrypted),
                (_, Some(Err(error))) if error.kind() != Kind::Invalid => Err(error),
                _ => Err(wrong_results("it does not decrypt what it encrypted: look at the device")),
            }
        };
        Ok(asked.into_iter().zip(encrypted).map(release).collect())
    }

    /// Whether what the device did with a ciphertext is right, as far as can be known: it does so again, and finds in another one what
    /// we know to be in it. `None` for a ciphertext that it refused.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where the fault is the device's own, and those of the device.
    pub async fn acquit(&self, sent: &[u8], found: Option<&SecretBytes>) -> Result<()> {
        let (known, inside) = self.known()?;
        let mut answers = self.ask(vec![sent.to_vec(), known]).await?.into_iter();
        let mut next = || answers.next().unwrap_or_else(no_answer);
        let refused = |error: &Error| error.kind() == Kind::Invalid;
        match (next(), found) {
            (Err(error), None) if refused(&error) => {}
            (Ok(_), None) => return Err(two_results()),
            (again, Some(found)) => drop(same_twice(again?, found)?),
            (Err(error), None) => return Err(error),
        }
        match next() {
            Ok(found) if same(found.expose(), inside.expose()) => Ok(()),
            Err(error) if !refused(&error) => Err(error),
            Ok(_) | Err(_) => Err(wrong_results("it does not open what was made for it: look at the device")),
        }
    }

    /// A ciphertext for this key, and what is in it: of a key that encrypts the one that it made at its birth.
    fn known(&self) -> Result<(Vec<u8>, SecretBytes)> {
        if self.algorithm.role() == Role::Cipher {
            let key = self.key_ref.as_ref().ok_or_else(|| self.placeless())?;
            let made = self.expected.as_deref().unwrap_or_default();
            return Ok((check::back(key, made), SecretBytes::new(check::text(key.id, key.version))));
        }
        let Encapsulated { sent, secret } = Encapsulated::to(self.algorithm, &self.public_key()?)?;
        Ok((sent, secret))
    }

    /// Waits for a check of a secret key in a device that begins from now on.
    async fn check(&self, key: &Arc<KeyRef>, holder: &Holder) -> Result<()> {
        let expected = self
            .expected
            .as_ref()
            .ok_or_else(|| Error::new(Kind::Tampered, format!("version {} has no check value", self.record.version)))?;
        holder.gate.check(&holder.worker, key, expected).await
    }

    /// Whether uses of this version count, and the wrong place to ask for the sum of a whole key.
    fn new(
        record: VersionRecord,
        revision: u64,
        algorithm: crate::types::Algorithm,
        devices: &BTreeMap<Name, Arc<Worker>>,
        lease: Lease,
    ) -> Self {
        let held = record.copies.iter().find_map(|copy| {
            let holders: Arc<[_]> = holders_of(copy, devices).into_iter().map(Holder::new).collect();
            let key = || Arc::new(copy.key_ref(record.key, record.version, algorithm));
            (!holders.is_empty()).then(|| (key(), holders))
        });
        let (key_ref, holders) = held.unzip();
        Self {
            id: record.key,
            expected: record.check.clone().map(Arc::from),
            record,
            revision,
            algorithm,
            key_ref,
            holders: holders.unwrap_or_default(),
            verifier: OnceLock::new(),
            kid: OnceLock::new(),
            counter: Arc::new(Counter::new(lease)),
        }
    }

    /// The same version with another record: its checks and counts go on.
    fn changed(&self, record: VersionRecord, revision: u64) -> Self {
        let lives = !record.copies.is_empty();
        Self {
            key_ref: self.key_ref.clone().filter(|_| lives),
            holders: if lives { self.holders.clone() } else { Arc::default() },
            record,
            revision,
            id: self.id,
            algorithm: self.algorithm,
            verifier: OnceLock::new(),
            kid: OnceLock::new(),
            expected: self.expected.clone(),
            counter: self.counter.clone(),
        }
    }
}

/// A device that has a version.
#[derive(Debug)]
struct Holder {
    worker: Arc<Worker>,
    gate: Arc<Gate>,
}

impl Holder {
    fn new(worker: Arc<Worker>) -> Self {
        Self { worker, gate: Arc::default() }
    }

    async fn ask(&self, key: &Arc<KeyRef>, inputs: Vec<Vec<u8>>) -> Vec<Result<SecretBytes>> {
        if inputs.len() == 1 {
            let input = inputs.into_iter().next().unwrap_or_default();
            return vec![self.worker.use_key(key, input).await.map_err(Error::from)];
        }
        self.worker.use_key_batch(key, inputs).await.into_iter().map(|one| one.map_err(Error::from)).collect()
    }
}

/// How an answer of a device is proved.
#[derive(Clone, Copy, Debug)]
enum Proof {
    /// By whoever asked.
    Later,
    /// The key proves that it is itself, and the device gives each result twice.
    Key,
    /// As that, and the device decrypts what it encrypted.
    Result,
}

/// Whether another device that has the key may do what this one cannot now.
fn passes(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Busy)
}

/// The configured devices that have a copy, that of its birth first.
fn holders_of(copy: &KeyCopy, devices: &BTreeMap<Name, Arc<Worker>>) -> Vec<Arc<Worker>> {
    let home = devices.get(&copy.device);
    let Some(kek) = copy.shared_kek() else { return home.cloned().into_iter().collect() };
    let shares = |worker: &&Arc<Worker>| worker.identity().is_some_and(|identity| identity.shares(kek));
    let others = devices.iter().filter(|(name, _)| **name != copy.device).map(|(_, worker)| worker);
    home.into_iter().chain(others).filter(shares).cloned().collect()
}

/// All keys.
pub struct Keyring {
    ledger: Arc<Ledger>,
    admission: Arc<Admission>,
    devices: BTreeMap<Name, Arc<Worker>>,
    metrics: Metrics,
    /// Keys in the devices that belong to the house itself and have no record of a key.
    house: Vec<KeyId>,
    catalogue: Catalogue,
    /// One turn per key, so that two changes of one key do not both make a version only for one to lose.
    turns: Turns<KeyName>,
    /// Keys whose rotation was due and failed.
    overdue: std::sync::Mutex<std::collections::BTreeSet<KeyName>>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.len())
    }
}

impl Keyring {
    /// Reads all keys from the store. `house` are the ids of the service's own keys, sentinels aside.
    ///
    /// # Errors
    /// `Tampered` where a record does not hold; `Unavailable` where the store cannot be read.
    pub fn load(
        ledger: Arc<Ledger>,
        admission: Arc<Admission>,
        devices: BTreeMap<Name, Arc<Worker>>,
        house: Vec<KeyId>,
        metrics: Metrics,
    ) -> Result<Self> {
        let catalogue = read_all(&*ledger.store(), &devices)?;
        Ok(Self {
            ledger,
            admission,
            devices,
            metrics,
            house,
            catalogue,
            turns: Turns::default(),
            overdue: std::sync::Mutex::default(),
        })
    }

    /// The key with that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn find(&self, name: &KeyName) -> Result<Arc<Key>> {
        self.catalogue.find(name).ok_or_else(|| no_key(name))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.catalogue.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `limit` keys after `after`, in the order of their names, of one namespace or of all.
    #[must_use]
    pub fn list(&self, namespace: Option<&Name>, after: Option<&KeyName>, limit: usize) -> Vec<Arc<Key>> {
        self.catalogue.page(namespace, after, limit)
    }

    /// All keys at this moment: for what looks at each of them, at a start or for a backup.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Key>> {
        self.list(None, None, usize::MAX)
    }

    /// The keys of the domain `jwt`, whose public halves everybody may read, in the order of their names: at most [`MAX_PUBLISHED`].
    #[must_use]
    pub fn published(&self) -> Vec<Arc<Key>> {
        self.catalogue.published()
    }

    /// The devices.
    #[must_use]
    pub const fn devices(&self) -> &BTreeMap<Name, Arc<Worker>> {
        &self.devices
    }

    /// How many keys there are whose rotation is due and was not possible, and the first `limit` of them.
    #[must_use]
    pub fn overdue(&self, limit: usize) -> (usize, Vec<KeyName>) {
        let overdue = self.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        (overdue.len(), overdue.iter().take(limit).cloned().collect())
    }

    /// Whether this key is one of them.
    #[must_use]
    pub fn is_overdue(&self, name: &KeyName) -> bool {
        self.overdue.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// The version that protects now, with `uses` of `bytes` in all counted against its limits, durably where they count.
    /// A version whose limit is reached is rotated first: it never serves more.
    ///
    /// # Errors
    /// `NotFound`, `State` where nothing may protect, `Limit` where even a new version could not serve this, and those of a
    /// rotation.
    pub async fn primary(&self, name: &KeyName, uses: usize, bytes: usize) -> Result<(Arc<Key>, Arc<KeyVersion>)> {
        loop {
            let key = self.find(name)?;
            let primary = key.primary()?.clone();
            if !key.rotation().counts() {
                return Ok((key, primary));
            }
            if self.count(&key, &primary, uses as u64, bytes as u64).await? {
                return Ok((key, primary));
            }
            if self.counter_is_fresh(&primary) {
                return Err(Error::new(Kind::Limit, "this request alone passes the key's limit of uses or bytes")
                    .hint("cut the batch into smaller ones, or raise the limit of the key"));
            }
            self.rotate_exhausted(&key).await?;
        }
    }

    fn counter_is_fresh(&self, version: &KeyVersion) -> bool {
        version.counted() == (0, 0)
    }

    /// Counts, writing a larger lease where one is needed; `false` where the limit is reached.
    async fn count(&self, key: &Key, version: &KeyVersion, uses: u64, bytes: u64) -> Result<bool> {
        let rule = &key.rotation();
        loop {
            match version.counter.take(rule, uses, bytes) {
                Taken::Granted => break,
                Taken::Exhausted => return Ok(false),
                Taken::NeedsLease(_) => {}
            }
            let _writing = version.counter.leasing.lock().await;
            // Whoever held the lock before may have leased enough.
            let lease = match version.counter.take(rule, uses, bytes) {
                Taken::Granted => break,
                Taken::Exhausted => return Ok(false),
                Taken::NeedsLease(lease) => lease,
            };
            let path = counter_path(key.record.id, version.number());
            let leaf = change::system_record("count", Action::UpdateKey, &key.record.name);
            self.ledger.commit(leaf, vec![put(path, Expected::Any, &lease)?]).await?;
            version.counter.leased(lease);
        }
        if key.is_worn() {
            self.catalogue.reconsider(key);
        }
        Ok(true)
    }

    /// Rotates a key whose primary version has served all it may.
    async fn rotate_exhausted(&self, key: &Key) -> Result<()> {
        let caller = Caller::system("rotate-by-use", job_id());
        let rotated = self.rotate_as(&caller, &key.record.name, Some(key.record.latest)).await;
        match rotated {
            Ok(_) => Ok(()),
            // Another request saw the same and was first.
            Err(error) if error.kind() == Kind::Stale => Ok(()),
            Err(error) => Err(error.context("the version has served all it may, and rotating it failed")),
        }
    }

    /// Versions of shared keys that fewer than two of the configured devices have: the next loss may be their last.
    #[must_use]
    pub fn single_copies(&self) -> Vec<(KeyName, Version)> {
        let mut found = Vec::new();
        for key in self.all() {
            let single = key.versions().iter().filter(|version| version.shared_by().is_some_and(|count| count < 2));
            found.extend(single.map(|version| (key.record.name.clone(), version.number())));
        }
        found
    }

    /// The device that makes the next version of a key: its own, or, where that does not answer, another one that shares its versions.
    fn maker(&self, key: &Key) -> Result<Arc<Worker>> {
        let own = self.worker(&key.record.device);
        if own.as_ref().is_ok_and(|own| own.state().is_ok()) {
            return own.cloned();
        }
        let shared = key.versions.iter().rev().filter(|version| version.shared_by().is_some());
        let others = shared.filter_map(|version| version.place().ok()).map(|(_, worker)| worker);
        others.into_iter().find(|worker| worker.state().is_ok()).map_or_else(|| own.cloned(), |found| Ok(found.clone()))
    }

    fn publish(&self, key: Arc<Key>) {
        self.catalogue.put([key]);
    }

    fn worker(&self, device: &Name) -> Result<&Arc<Worker>> {
        self.devices.get(device).ok_or_else(|| {
            let known: Vec<_> = self.devices.keys().map(Name::as_str).collect();
            Error::new(Kind::Invalid, format!("there is no device {device}"))
                .hint(format!("the configuration names: {}", known.join(", ")))
        })
    }
}

/// Refuses an operation of another purpose.
///
/// # Errors
/// [`Kind::Invalid`], naming the operations of the key's purpose.
pub fn demand(key: &Key, purpose: Purpose) -> Result<()> {
    let own = key.record.algorithm.purpose();
    if own == purpose {
        return Ok(());
    }
    let verbs = match own {
        Purpose::Wrap => "wrap, unwrap, rewrap and make data keys",
        Purpose::Sign => "sign and verify",
        Purpose::Mac => "make and check message authentication codes",
    };
    let name = &key.record.name;
    Err(Error::new(Kind::Invalid, format!("{name} is a key to {verbs}, and does nothing else"))
        .hint("make a key of the algorithm you need: a key does one thing"))
}

/// The resource of a key.
#[must_use]
pub fn resource(name: &KeyName) -> Resource {
    Resource::Key(name.clone())
}

/// What a device gave is refuted.
#[must_use]
pub fn wrong_results(mend: &'static str) -> Error {
    Error::new(Kind::Tampered, "the key in the device gives wrong results").hint(mend)
}

/// A result that the device gave twice.
fn same_twice(one: SecretBytes, other: &SecretBytes) -> Result<SecretBytes> {
    if same(one.expose(), other.expose()) {
        return Ok(one);
    }
    Err(two_results())
}

fn no_answer<T>() -> Result<T> {
    Err(Error::internal("the device gave no answer"))
}

fn two_results() -> Error {
    Error::new(Kind::Tampered, "the device gave two results for one input")
        .hint("nothing was released: look at the device if it stays")
}

fn read_all(store: &dyn Store, devices: &BTreeMap<Name, Arc<Worker>>) -> Result<Catalogue> {
    let mut leases = HashMap::new();
    store.visit("counters/", &mut |record| {
        leases.insert(record.path.replacen("counters/", "versions/", 1), read::<Lease>(&record)?);
        Ok(())
    })?;
    let mut versions: HashMap<KeyId, Vec<(VersionRecord, u64, Lease)>> = HashMap::new();
    store.visit("versions/", &mut |record| {
        let version: VersionRecord = read(&record)?;
        let lease = leases.get(&record.path).copied().unwrap_or_default();
        versions.entry(version.key).or_default().push((version, record.revision, lease));
        Ok(())
    })?;
    let catalogue = Catalogue::default();
    store.visit("keys/", &mut |stored| {
        let record: KeyRecord = read(&stored)?;
        let mut own = versions.remove(&record.id).unwrap_or_default();
        own.sort_by_key(|(version, ..)| version.version);
        let complete = own.len() == record.latest.number() as usize;
        if !complete {
            let text = format!("{} has {} versions, the store holds {}", record.name, record.latest, own.len());
            return Err(Error::new(Kind::Tampered, text)
                .hint("a record was removed behind the service's back: restore a backup"));
        }
        let versions = own
            .into_iter()
            .map(|(version, revision, lease)| {
                Arc::new(KeyVersion::new(version, revision, record.algorithm, devices, lease))
            })
            .collect();
        catalogue.put([Arc::new(Key { revision: stored.revision, versions, record })]);
        Ok(())
    })?;
    if let Some(id) = versions.keys().next() {
        return Err(Error::new(Kind::Tampered, format!("the store holds versions of {id}, which has no key"))
            .hint("a record was removed behind the service's back: restore a backup"));
    }
    Ok(catalogue)
}
