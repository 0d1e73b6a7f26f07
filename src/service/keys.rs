//! Keys and versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::idempotency::Turn;
use super::{Idempotency, Outcome, Service, check_batch};
use crate::admission::{Details, Permit, Released};
use crate::attestation::Nonce;
use crate::audit::Phase;
use crate::error::{Error, Kind, Result};
use crate::keyring::state::Step;
use crate::keyring::{Key, KeyRecord, KeyUpdate, KeyVersion, NewKey, resource};
use crate::policy::{Facts, KeyFacts, Target};
use crate::types::operation::{
    ActivateVersion, CancelDestruction, CompromiseVersion, CreateKey, DeactivateVersion, ListKeys, Operation, ReadKey,
    ReadPublicKey, ResumeVersion, RotateKey, ScheduleDestruction, SuspendVersion, UpdateKey,
};
use crate::types::{Action, Caller, Domain, IssuerName, KeyName, Name, Period, Purpose, Resource, State, Version};

/// A page of keys.
#[derive(Debug)]
pub struct KeyPage {
    /// The keys, in order of their names.
    pub keys: Vec<Arc<Key>>,
    /// The last one looked at, where there may be more.
    pub next: Option<KeyName>,
}

/// A key, and the changed registers of each of its bound versions.
pub type Versions = (Arc<Key>, BTreeMap<Version, Vec<u8>>);

/// A change of a version's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionStep {
    /// Make a prepared version the primary one.
    Activate,
    /// Stop its use for now.
    Suspend,
    /// Use it again.
    Resume,
    /// End its use to protect.
    Deactivate,
    /// Declare it compromised.
    Compromise,
    /// Destroy it after a waiting period; 30 days where none is given.
    ScheduleDestruction(Option<Period>),
    /// Stop that.
    CancelDestruction,
}

impl Service {
    /// Makes a key.
    ///
    /// # Errors
    /// Those of [`crate::keyring::Keyring::create`].
    pub async fn create_key(
        &self,
        caller: &Caller,
        new: NewKey,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Key>>> {
        let (target, asked) = wanted(&new);
        let permit = self.parts.admission.admit::<CreateKey>(caller, &target, &asked).await?;
        let name = new.name.clone();
        let create = async |turn: Turn| {
            belongs_to_us(&new)?;
            self.parts.keyring.create(&permit, new, turn.of_key()).await
        };
        close_key(self.key_once(caller, &name, idempotency, create).await, permit).await
    }

    /// Makes keys, all of them or none: each is asked about, and recorded, by itself.
    ///
    /// # Errors
    /// Those of [`crate::keyring::Keyring::create_many`].
    pub async fn create_keys(
        &self,
        caller: &Caller,
        new: Vec<NewKey>,
        idempotency: &Idempotency,
    ) -> Result<Released<Vec<Arc<Key>>>> {
        check_batch(new.len())?;
        let questions: Vec<_> = new.iter().map(wanted).collect();
        let permits = self.parts.admission.admit_each::<CreateKey>(caller, &questions).await?;
        let result = async {
            let turn = match self.once(caller, idempotency).await? {
                Ok(Outcome::Keys(names)) => return names.iter().map(|name| self.parts.keyring.find(name)).collect(),
                Ok(_) => return Err(Error::internal("another outcome under this idempotency key")),
                Err(turn) => turn,
            };
            for new in &new {
                belongs_to_us(new)?;
            }
            let names = new.iter().map(|new| new.name.clone()).collect();
            self.parts.keyring.create_many(&permits, new, || turn.record(Outcome::Keys(names))).await
        };
        let result: Result<Vec<Arc<Key>>> = result.await;
        let made = result.iter().flatten();
        let details = made.map(|key| Details::of(key.record.id, key.record.latest)).collect();
        Permit::close_each(permits, result, details).await
    }

    /// Reads a key.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_key(&self, caller: &Caller, name: &KeyName) -> Result<Released<Arc<Key>>> {
        let permit = self.admit_key::<ReadKey>(caller, name, &[Facts::default()]).await?;
        close_key(self.parts.keyring.find(name), permit).await
    }

    /// Reads a key, and for each bound version the registers of the machine in which something else stands now.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_versions(&self, caller: &Caller, name: &KeyName) -> Result<Released<Versions>> {
        let permit = self.admit_key::<ReadKey>(caller, name, &[Facts::default()]).await?;
        let read = match self.parts.keyring.find(name) {
            Ok(key) => Ok((key.clone(), self.parts.keyring.changed_pcrs(&key).await)),
            Err(error) => Err(error),
        };
        let details = match &read {
            Ok((key, _)) => Details::of(key.record.id, key.record.latest),
            Err(_) => Details::default(),
        };
        permit.close(read, details).await
    }

    /// Lists the keys that the caller may read, of one namespace or of all.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        namespace: Option<Name>,
        after: Option<KeyName>,
        limit: usize,
    ) -> Result<Released<KeyPage>> {
        let resource_of = namespace.clone().map_or(Resource::Service, Resource::Namespace);
        let permit = self.admit::<ListKeys>(caller, resource_of).await?;
        let found = self.parts.keyring.list(namespace.as_ref(), after.as_ref(), limit);
        let next = (found.len() == limit).then(|| found.last().map(|key| key.record.name.clone())).flatten();
        let policies = self.parts.admission.policies();
        let now = self.parts.ledger.clock().now();
        let readable = |key: &Arc<Key>| {
            let target = Target { resource: resource(&key.record.name), key: Some(key.facts()) };
            let facts = Facts { time: Some(now), ..Facts::default() };
            policies.decide(caller, Action::ReadKey, &target, &facts).allow
        };
        let keys = found.into_iter().filter(readable).collect();
        permit.close(Ok(KeyPage { keys, next }), Details::default()).await
    }

    /// Changes rules and labels.
    ///
    /// # Errors
    /// Those of [`crate::keyring::Keyring::update`].
    pub async fn update_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        etag: Option<&str>,
        update: KeyUpdate,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Key>>> {
        let permit = self.admit_key::<UpdateKey>(caller, name, &[Facts::default()]).await?;
        let update = async |turn: Turn| self.parts.keyring.update(&permit, name, etag, update, turn.of_key()).await;
        close_key(self.key_once(caller, name, idempotency, update).await, permit).await
    }

    /// Makes the next version, and makes it the primary one unless it is only to be prepared.
    ///
    /// # Errors
    /// Those of [`crate::keyring::Keyring::rotate`].
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        expected: Option<Version>,
        prepare: bool,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Key>>> {
        let permit = self.admit_key::<RotateKey>(caller, name, &[Facts::default()]).await?;
        let rotate = async |turn: Turn| {
            self.belongs_to_nobody(name)?;
            self.parts.keyring.rotate(&permit, name, expected, prepare, turn.of_key()).await
        };
        close_key(self.key_once(caller, name, idempotency, rotate).await, permit).await
    }

    /// Changes the state of a version.
    ///
    /// # Errors
    /// Those of [`crate::keyring::Keyring::step`].
    pub async fn change_version(
        &self,
        caller: &Caller,
        name: &KeyName,
        version: Version,
        step: VersionStep,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Key>>> {
        let change = Change { name, version, idempotency };
        match step {
            VersionStep::Activate => self.step::<ActivateVersion>(caller, change, Step::Activate, None).await,
            VersionStep::Suspend => self.step::<SuspendVersion>(caller, change, Step::Suspend, None).await,
            VersionStep::Resume => self.step::<ResumeVersion>(caller, change, Step::Resume, None).await,
            VersionStep::Deactivate => self.step::<DeactivateVersion>(caller, change, Step::Deactivate, None).await,
            VersionStep::Compromise => self.step::<CompromiseVersion>(caller, change, Step::Compromise, None).await,
            VersionStep::ScheduleDestruction(wait) => {
                self.step::<ScheduleDestruction>(caller, change, Step::ScheduleDestruction, wait).await
            }
            VersionStep::CancelDestruction => {
                self.step::<CancelDestruction>(caller, change, Step::CancelDestruction, None).await
            }
        }
    }

    async fn step<O: Operation>(
        &self,
        caller: &Caller,
        change: Change<'_>,
        step: Step,
        wait: Option<Period>,
    ) -> Result<Released<Arc<Key>>> {
        let Change { name, version, idempotency } = change;
        let permit = self.admit_key::<O>(caller, name, &[Facts::default()]).await?;
        let change = async |turn: Turn| {
            if matches!(step, Step::Activate | Step::Deactivate) {
                self.belongs_to_nobody(name)?;
            }
            let also = |_: &KeyRecord| turn.record(Outcome::Version(name.clone(), version));
            self.parts.keyring.step(&permit, name, version, step, wait, also).await
        };
        let result = self.key_once(caller, name, idempotency, change).await;
        let details = result.as_ref().map_or_else(|_| Details::default(), |key| Details::of(key.record.id, version));
        permit.close(result, details).await
    }

    /// Refuses to rotate the key of an issuer but with the issuer: a version without a certificate would issue nothing.
    fn belongs_to_nobody(&self, name: &KeyName) -> Result<()> {
        let issuer = IssuerName { namespace: name.namespace.clone(), name: name.name.clone() };
        if self.parts.authority.issuer(&issuer).is_err() {
            return Ok(());
        }
        Err(Error::new(Kind::State, format!("{name} is the key of an issuer and is rotated with it"))
            .hint("use `signet issuer rotate`; to stop a version at once, suspend it or declare it compromised"))
    }

    /// Schedules the destruction of all versions of a key that are not destroyed.
    ///
    /// # Errors
    /// `State` where deletion protection refuses it.
    pub async fn delete_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        wait: Option<Period>,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Key>>> {
        let permit = self.admit_key::<ScheduleDestruction>(caller, name, &[Facts::default()]).await?;
        let schedule = async |turn: Turn| {
            let mut key = self.parts.keyring.find(name)?;
            let waiting = |version: &&Arc<KeyVersion>| match version.state() {
                State::DestroyScheduled | State::Destroyed => false,
                State::PreActive | State::Active | State::Suspended | State::Deactivated | State::Compromised => true,
            };
            let versions: Vec<_> = key.versions().iter().filter(waiting).map(|version| version.number()).collect();
            let last = versions.last().copied();
            if last.is_none()
                && let Some(done) = turn.record(Outcome::Key(name.clone()))?
            {
                // On record all the same: a repetition must not find more to do than the first.
                self.parts.ledger.commit(permit.record(Phase::Change, &Details::default()), vec![done]).await?;
            }
            for version in versions {
                let step = Step::ScheduleDestruction;
                // A repetition goes on where the first stopped, until the last step was done.
                let also = |key: &KeyRecord| if Some(version) == last { turn.of_key()(key) } else { Ok(None) };
                key = self.parts.keyring.step(&permit, name, version, step, wait, also).await?;
            }
            Ok(key)
        };
        close_key(self.key_once(caller, name, idempotency, schedule).await, permit).await
    }

    /// Does `change`, or answers the key as it is now where that was done before.
    async fn key_once(
        &self,
        caller: &Caller,
        name: &KeyName,
        idempotency: &Idempotency,
        change: impl AsyncFnOnce(Turn) -> Result<Arc<Key>>,
    ) -> Result<Arc<Key>> {
        match self.once(caller, idempotency).await? {
            Ok(_) => self.parts.keyring.find(name),
            Err(turn) => change(turn).await,
        }
    }

    /// Reads a public key: of the primary version where none is given.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for a key that has none.
    pub async fn read_public_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        version: Option<Version>,
    ) -> Result<Released<(Arc<Key>, Arc<KeyVersion>)>> {
        let permit = self.admit_key::<ReadPublicKey>(caller, name, &[Facts::default()]).await?;
        let read = || {
            let key = self.parts.keyring.find(name)?;
            let version = match version {
                Some(version) => key.version(version)?.clone(),
                None => key.primary()?.clone(),
            };
            version.public_key()?;
            Ok((key, version))
        };
        let result = read();
        let details = match &result {
            Ok((key, version)) => Details::of(key.record.id, version.number()),
            Err(_) => Details::default(),
        };
        permit.close(result, details).await
    }

    /// What the device says of a version, as a file: what it said at the birth of the version, or says now, for a nonce. Of the
    /// primary version where none is given.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` where its device has no attestation key, and those of the device.
    pub async fn attest_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        version: Option<Version>,
        nonce: Option<Nonce>,
    ) -> Result<Released<String>> {
        let permit = self.admit_key::<ReadKey>(caller, name, &[Facts::default()]).await?;
        let mut details = Details::default();
        let read = async {
            let key = self.parts.keyring.find(name)?;
            let version = match version {
                Some(version) => key.version(version)?,
                None => key.primary()?,
            };
            details = Details::of(key.record.id, version.number());
            match nonce {
                None => self.parts.keyring.attestation(&key, version).await,
                Some(nonce) => {
                    details = std::mem::take(&mut details).fact("nonce", &nonce);
                    self.parts.keyring.attest(&key, version, nonce).await
                }
            }
        };
        let result = read.await;
        permit.close(result, details).await
    }

    /// The versions whose signatures a relying party should accept as JWTs. Open to everybody: public keys without names.
    #[must_use]
    pub fn published_keys(&self) -> Vec<(Arc<Key>, Arc<KeyVersion>)> {
        let mut published = Vec::new();
        for key in self.parts.keyring.published() {
            for version in key.versions() {
                match version.state() {
                    State::PreActive | State::Active | State::Deactivated => {
                        published.push((key.clone(), version.clone()));
                    }
                    State::Suspended | State::Compromised | State::DestroyScheduled | State::Destroyed => {}
                }
            }
        }
        published
    }
}

/// What policies are asked about a key that is to be made.
fn wanted(new: &NewKey) -> (Target<'_>, Facts<'_>) {
    let facts = KeyFacts {
        purpose: new.algorithm.purpose(),
        algorithm: new.algorithm,
        domain: match new.algorithm.purpose() {
            Purpose::Sign => Some(new.domain.unwrap_or(Domain::Artifact)),
            Purpose::Wrap | Purpose::Mac => None,
        },
        device: &new.device,
        labels: &new.labels,
    };
    let target = Target { resource: resource(&new.name), key: Some(facts) };
    (target, Facts { algorithm: Some(new.algorithm), ..Facts::default() })
}

/// Refuses what the service makes for itself alone.
fn belongs_to_us(new: &NewKey) -> Result<()> {
    if new.domain != Some(Domain::Tls) {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, "the domain tls belongs to the service itself")
        .hint("tls.device in the configuration has it make such a key for its own certificate"))
}

/// Which version is to be changed, and under which idempotency key.
struct Change<'a> {
    name: &'a KeyName,
    version: Version,
    idempotency: &'a Idempotency,
}

/// Closes an operation that answers with a key.
pub(super) async fn close_key<O: Operation>(result: Result<Arc<Key>>, permit: Permit<O>) -> Result<Released<Arc<Key>>> {
    let details = match &result {
        Ok(key) => Details::of(key.record.id, key.record.latest),
        Err(_) => Details::default(),
    };
    permit.close(result, details).await
}
