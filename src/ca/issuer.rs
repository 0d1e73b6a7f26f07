//! Issuers: who certifies, with which key, under whom.
//!
//! An issuer is a root, which certifies itself; or it stands below an issuer of ours, or below an outside authority, which gets a
//! request and gives a certificate that is imported. Its rules are fixed in each certificate that it gets, so a change of them
//! counts from its next version on.
//!
//! The key comes first, then what it signs for the issuer, then the record, which is committed together with the certificate. A
//! crash in between leaves a key without an issuer, or a key version without a version of the issuer: the next try takes it up.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::ObjectIdentifier;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::inventory::Entry;
use super::issue::{Signer, Wanted};
use super::{FORMAT, parse, put};
use crate::admission::{Details, Permit, Released};
use crate::audit::Phase;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::keyring::state::Step;
use crate::keyring::{Key, NewKey};
use crate::store::{Change, Expected, Store};
use crate::types::operation::CreateKey;
use crate::types::operation::{
    Builds, CreateIssuer, ImportIssuerCertificate, Includes, RotateIssuer, SignIntermediate, UpdateIssuer,
};
use crate::types::{
    Algorithm, Domain, IssuerName, Name, Period, PublicKey, Purpose, Residency, Retention, Rollover, Rotation, State,
    Version, words,
};
use crate::x509::{
    Authority as Powers, Certificate, Csr, Distribution, IssuerView, KeyUsage, Subject, Template, Validity,
    certificate, lint, request,
};

/// How far certificates begin before they were made, for clocks that are late.
pub(super) const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// The most certificates between ours and an outside root, and the most cross-certificates of a version.
const MAX_CHAIN: usize = 8;
/// The shortest life of an issuer's certificate.
const MIN_LIFETIME: Period = Period::seconds(3600);
/// The most policies of an issuer, and the most places of each kind.
const MAX_LIST: usize = 16;

words! {
    /// What a version of an issuer does.
    VersionState: "state of an issuer's version" {
        /// An outside authority has its request and has not answered yet.
        Requested = "requested",
        /// It has a certificate, which is published; it issues nothing yet.
        Prepared = "prepared",
        /// It issues.
        Active = "active",
        /// It issues no more and tells of revocation.
        Retired = "retired",
        /// Its last certificate is dead: it does nothing any more.
        Ended = "ended",
    }
}

/// Who certifies an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// Itself: a root.
    Itself,
    /// An issuer of ours.
    Issuer(IssuerName),
    /// Somebody else, who gets a request.
    Outside,
}

/// What counts for an issuer from its next version on; the last two at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// How long its certificate lives, unless its parent's ends before.
    pub lifetime: Period,
    /// How many authorities may stand below it, and which names it may certify.
    pub powers: Powers,
    /// Under which policies it is certified.
    #[serde(with = "oids")]
    pub policies: Vec<ObjectIdentifier>,
    /// What its certificates say about where to look; the service's own places where absent. `{version}` stands for the version
    /// that signs.
    pub distribution: Option<Distribution>,
    /// When its next version comes by itself; only by hand where absent.
    pub rollover: Option<Rollover>,
}

/// What is stored of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// Its full name, and that of its key.
    pub name: IssuerName,
    /// The subject of its certificates.
    pub subject: Subject,
    /// Who certifies it.
    pub parent: Parent,
    /// How its key signs.
    pub algorithm: Algorithm,
    /// The device that keeps its key.
    pub device: Name,
    /// As said.
    pub rules: Rules,
    /// Whether it issues; it tells of revocation all the same.
    pub enabled: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its versions, oldest first.
    pub versions: Vec<VersionRecord>,
}

/// What is stored of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The number: that of the key's version, too.
    pub version: Version,
    /// What it does.
    pub state: VersionState,
    /// When it was made.
    pub created: Timestamp,
    /// When it began to issue.
    pub activated: Option<Timestamp>,
    /// When it stopped.
    pub retired: Option<Timestamp>,
    /// When the last certificate that it signed is dead, once it is retired.
    pub last_end: Option<Timestamp>,
    /// The issuer and version that signed its certificate; absent for roots and below outside authorities.
    pub signer: Option<(IssuerName, Version)>,
    /// Its certificate.
    pub certificate: Option<Der>,
    /// The certificates above it, nearest first, where an outside authority certified it.
    pub above: Vec<Der>,
    /// The same key certified by other issuers.
    pub cross: Vec<Der>,
    /// Its request to an outside authority.
    pub request: Option<Der>,
}

/// DER, as base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Der(pub Vec<u8>);

/// An issuer that is wanted.
#[derive(Clone, Debug)]
pub struct NewIssuer {
    /// Its full name.
    pub name: IssuerName,
    /// The subject of its certificates.
    pub subject: Subject,
    /// Who certifies it.
    pub parent: Parent,
    /// How its key signs.
    pub algorithm: Algorithm,
    /// The device that keeps its key.
    pub device: Name,
    /// Where the key stays there; the first that the device can where absent.
    pub residency: Option<Residency>,
    /// As said.
    pub rules: Rules,
}

/// What of an issuer is to be changed; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct IssuerUpdate {
    /// Whether it issues.
    pub enabled: Option<bool>,
    /// All of its rules.
    pub rules: Option<Rules>,
}

/// An issuer at one moment.
#[derive(Debug)]
pub struct Issuer {
    /// What is stored of it.
    pub record: Record,
    revision: u64,
    /// In the order of their numbers.
    versions: Vec<IssuerVersion>,
}

/// A version at one moment.
#[derive(Debug)]
pub struct IssuerVersion {
    /// What is stored of it.
    pub record: VersionRecord,
    /// Its certificate, and what certificates take over from it.
    certified: Option<(Certificate, IssuerView)>,
}

impl Issuer {
    fn new(record: Record, revision: u64) -> Result<Self> {
        let versions: Result<_> = record.versions.iter().map(|one| IssuerVersion::new(one, record.algorithm)).collect();
        let versions = versions.map_err(|e| e.context(format!("issuer {}", record.name)))?;
        Ok(Self { record, revision, versions })
    }

    /// All versions, oldest first.
    #[must_use]
    pub fn versions(&self) -> &[IssuerVersion] {
        &self.versions
    }

    /// The version with that number.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn version(&self, version: Version) -> Result<&IssuerVersion> {
        self.versions
            .iter()
            .find(|one| one.record.version == version)
            .ok_or_else(|| Error::new(Kind::NotFound, format!("issuer {} has no version {version}", self.record.name)))
    }

    /// The version that issues.
    ///
    /// # Errors
    /// [`Kind::State`] where none does.
    pub fn active(&self) -> Result<&IssuerVersion> {
        self.versions.iter().find(|one| one.record.state == VersionState::Active).ok_or_else(|| {
            let hint = match self.versions.last().map(|last| last.record.state) {
                Some(VersionState::Requested) => "give it the certificate of its authority: `signet issuer import`",
                Some(VersionState::Prepared) => "`signet issuer rotate --activate` puts its newest version in force",
                Some(VersionState::Active | VersionState::Retired | VersionState::Ended) | None => {
                    "`signet issuer rotate` makes a new version"
                }
            };
            Error::new(Kind::State, format!("issuer {} has no version that issues", self.record.name)).hint(hint)
        })
    }

    /// The commit that wrote it.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Changes with every change of the issuer.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.revision)
    }

    /// The active version, ready to sign.
    ///
    /// # Errors
    /// [`Kind::State`] where none is active, it is over, or the issuer was stopped.
    pub fn signer(&self, now: Timestamp) -> Result<Signer> {
        if !self.record.enabled {
            return Err(Error::new(Kind::State, format!("issuer {} is stopped", self.record.name))
                .hint("`signet issuer update --enabled true` lets it issue again"));
        }
        let active = self.active()?;
        let signer = active.signer(&self.record.name)?;
        if active.certificate()?.validity().not_after <= now {
            return Err(Error::new(Kind::State, format!("the certificate of issuer {} is over", self.record.name))
                .hint("`signet issuer rotate` makes a new version"));
        }
        Ok(signer)
    }

    /// Until when its active certificate lives.
    ///
    /// # Errors
    /// [`Kind::State`] where none is active.
    pub fn ends(&self) -> Result<Timestamp> {
        Ok(self.active()?.certificate()?.validity().not_after)
    }
}

impl IssuerVersion {
    fn new(record: &VersionRecord, algorithm: Algorithm) -> Result<Self> {
        let certified = match &record.certificate {
            None => None,
            Some(Der(der)) => {
                let certificate = Certificate::parse(der)?;
                let view = certificate.issuer_view(algorithm)?;
                Some((certificate, view))
            }
        };
        Ok(Self { record: record.clone(), certified })
    }

    /// Its certificate.
    ///
    /// # Errors
    /// [`Kind::State`] where an outside authority has not given one yet.
    pub fn certificate(&self) -> Result<&Certificate> {
        self.certified.as_ref().map(|(certificate, _)| certificate).ok_or_else(|| self.uncertified())
    }

    /// What its certificates take over from it.
    ///
    /// # Errors
    /// As [`Self::certificate`].
    pub fn view(&self) -> Result<&IssuerView> {
        self.certified.as_ref().map(|(_, view)| view).ok_or_else(|| self.uncertified())
    }

    /// This version, as whoever signs.
    ///
    /// # Errors
    /// As [`Self::certificate`].
    pub fn signer(&self, issuer: &IssuerName) -> Result<Signer> {
        Ok(Signer {
            issuer: issuer.clone(),
            version: self.record.version,
            view: self.view()?.clone(),
            certificate: Some(self.certificate()?.der().to_vec()),
        })
    }

    fn uncertified(&self) -> Error {
        Error::new(Kind::State, format!("version {} of the issuer has no certificate yet", self.record.version))
            .hint("`signet issuer csr` prints its request; `signet issuer import` takes the answer")
    }
}

impl Rules {
    /// Refuses what makes no sense, whoever the parent is.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the mend.
    pub fn check(&self) -> Result<()> {
        let Self { lifetime, powers, policies, distribution, rollover } = self;
        if *lifetime < MIN_LIFETIME {
            return Err(Error::new(Kind::Invalid, "an issuer's certificate lives for at least an hour")
                .hint("usual are 3650d for a root and 1825d for an intermediate"));
        }
        let constraints = &powers.constraints;
        constraints.permitted.iter().chain(&constraints.excluded).try_for_each(crate::x509::Subtree::check)?;
        let places =
            distribution.iter().flat_map(|Distribution { crl, ocsp, issuer }| [crl.len(), ocsp.len(), issuer.len()]);
        let longest = places.chain([policies.len(), constraints.permitted.len(), constraints.excluded.len()]).max();
        if longest > Some(MAX_LIST) {
            return Err(Error::new(
                Kind::Limit,
                format!("each list of an issuer's rules has at most {MAX_LIST} items"),
            ));
        }
        match rollover {
            Some(Rollover { prepare, activate }) if !(1 <= *prepare && prepare <= activate && *activate <= 95) => {
                Err(Error::new(Kind::Invalid, "a version is prepared before it is activated, and that before its end")
                    .hint("in hundredths of its life, such as prepare 50 and activate 67; at most 95"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl VersionRecord {
    /// A version that has nothing yet.
    fn new(version: Version, state: VersionState, now: Timestamp) -> Self {
        Self {
            version,
            state,
            created: now,
            activated: (state == VersionState::Active).then_some(now),
            retired: None,
            last_end: None,
            signer: None,
            certificate: None,
            above: Vec::new(),
            cross: Vec::new(),
            request: None,
        }
    }
}

/// A version on its way into the record of its issuer.
struct Next {
    record: Record,
    own: VersionRecord,
    expected: Expected,
    also: Option<Change>,
}

impl Next {
    /// What is committed with the certificate that was made for it.
    fn certified(mut self, made: &[Result<Entry>]) -> Result<Vec<Change>> {
        let Some(Ok(entry)) = made.first() else { return Ok(Vec::new()) };
        self.own.certificate = Some(Der(entry.certificate()?.to_vec()));
        self.changes()
    }

    fn changes(self) -> Result<Vec<Change>> {
        let Self { mut record, own, expected, also } = self;
        record.versions.push(own);
        Ok([put(path(&record.name), expected, &record)?].into_iter().chain(also).collect())
    }
}

/// Reads all issuers.
pub(super) fn read_all(store: &dyn Store) -> Result<BTreeMap<IssuerName, Arc<Issuer>>> {
    let mut issuers = BTreeMap::new();
    for stored in store.scan("issuers/")? {
        let record: Record = parse(&stored)?;
        issuers.insert(record.name.clone(), Arc::new(Issuer::new(record, stored.revision)?));
    }
    Ok(issuers)
}

impl super::Authority {
    /// Makes an issuer, its key and, unless an outside authority has to, its first certificate. `parent` is the right to have the
    /// issuer above certify it. `also` is committed with it.
    ///
    /// # Errors
    /// `Conflict` for a name that is taken, `Invalid` for rules that make no sense or that the parent does not allow, and
    /// those of the device.
    pub async fn create(
        &self,
        permit: &Permit<CreateIssuer>,
        parent: Option<&Permit<SignIntermediate>>,
        new: NewIssuer,
        also: Option<Change>,
    ) -> Result<Arc<Issuer>> {
        permit.covers_issuer(&new.name)?;
        let turn = self.turn(&new.name);
        let _turn = turn.lock().await;
        if self.issuer(&new.name).is_ok() {
            return Err(Error::new(Kind::Conflict, format!("the name {} is taken", new.name))
                .hint("`signet issuer show` tells what it is; issuers are never removed"));
        }
        new.name.responder()?;
        new.rules.check()?;
        new.subject.check()?;
        if new.subject.is_empty() {
            return Err(Error::new(Kind::Invalid, "an issuer needs a subject").hint("give it a common name at least"));
        }
        certificate::algorithm_identifier(new.algorithm)?;
        self.check_parent(&new.parent)?;
        let key = self.key_of(permit, &new).await?;
        let NewIssuer { name, subject, parent: above, algorithm, device, residency: _, rules } = new;
        let record = Record {
            format: FORMAT,
            name,
            subject,
            parent: above,
            algorithm,
            device,
            rules,
            enabled: true,
            created: self.now(),
            versions: Vec::new(),
        };
        let own = VersionRecord::new(key.primary()?.number(), VersionState::Active, self.now());
        self.equip(permit, parent, Next { record, own, expected: Expected::Absent, also }).await
    }

    /// The key of a new issuer. One that stands there unused, of the same kind, is what a crash left.
    async fn key_of<O: Builds + Includes<CreateKey>>(&self, permit: &Permit<O>, new: &NewIssuer) -> Result<Arc<Key>> {
        let name = new.name.key();
        if let Ok(key) = self.parts.keyring.find(&name) {
            let record = &key.record;
            let fits =
                record.domain == Some(Domain::X509) && record.algorithm == new.algorithm && record.device == new.device;
            if fits && key.versions().len() == 1 && key.primary().is_ok() {
                return Ok(key);
            }
            return Err(Error::new(Kind::Conflict, format!("there is another key with the name {name}"))
                .hint("an issuer's key has the issuer's name: choose another one"));
        }
        if new.algorithm.purpose() != Purpose::Sign {
            return Err(Error::new(Kind::Invalid, format!("an {} key signs nothing", new.algorithm)));
        }
        let wanted = NewKey {
            name,
            algorithm: new.algorithm,
            device: new.device.clone(),
            residency: new.residency,
            domain: Some(Domain::X509),
            rotation: Rotation::default(),
            retention: Retention::default(),
            labels: BTreeMap::new(),
            deletion_protection: true,
        };
        self.parts.keyring.create(permit, wanted, |_| Ok(None)).await
    }

    /// Makes the next version: its key and its certificate, or a request for one. It is published, and issues only once it is
    /// activated.
    ///
    /// # Errors
    /// `Stale` where `expected` is not the newest version, `State` where the newest one was not activated yet, and those of
    /// the device.
    pub async fn prepare(
        &self,
        permit: &Permit<RotateIssuer>,
        parent: Option<&Permit<SignIntermediate>>,
        name: &IssuerName,
        expected: Option<Version>,
        also: Option<Change>,
    ) -> Result<Arc<Issuer>> {
        permit.covers_issuer(name)?;
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let issuer = self.issuer(name)?;
        let newest = issuer.versions.last().ok_or_else(|| Error::internal(format!("issuer {name} has no version")))?;
        if expected.is_some_and(|expected| expected != newest.record.version) {
            let text = format!("the newest version of issuer {name} is {}", newest.record.version);
            return Err(Error::new(Kind::Stale, text).hint("look at it, and ask again if you must"));
        }
        match newest.record.state {
            VersionState::Active | VersionState::Retired | VersionState::Ended => {}
            VersionState::Requested => {
                return Err(Error::new(
                    Kind::State,
                    format!("version {} waits for its certificate", newest.record.version),
                )
                .hint("`signet issuer import` takes it"));
            }
            VersionState::Prepared => {
                return Err(Error::new(Kind::State, format!("version {} is prepared already", newest.record.version))
                    .hint("`signet issuer rotate --activate` puts it in force"));
            }
        }
        self.check_parent(&issuer.record.parent)?;
        let mut key = self.parts.keyring.find(&name.key())?;
        // A version of the key that the issuer does not know is what a crash left.
        if key.record.latest == newest.record.version {
            let latest = Some(key.record.latest);
            key = self.parts.keyring.rotate(permit, &name.key(), latest, true, |_| Ok(None)).await?;
        }
        let own = VersionRecord::new(key.record.latest, VersionState::Prepared, self.now());
        let (record, expected) = (issuer.record.clone(), Expected::Revision(issuer.revision));
        self.equip(permit, parent, Next { record, own, expected, also }).await
    }

    /// Puts a prepared version in force: it issues from now on, and the one before tells only of revocation.
    ///
    /// # Errors
    /// `State` for a version that is not prepared.
    pub async fn activate(
        &self,
        permit: &Permit<RotateIssuer>,
        name: &IssuerName,
        version: Version,
        also: Option<Change>,
    ) -> Result<Arc<Issuer>> {
        permit.covers_issuer(name)?;
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let issuer = self.issuer(name)?;
        let state = issuer.version(version)?.record.state;
        if state != VersionState::Prepared {
            return Err(Error::new(
                Kind::State,
                format!("version {version} of issuer {name} is {state}, not prepared"),
            )
            .hint("`signet issuer rotate` prepares the next version"));
        }
        let now = self.now();
        let mut record = issuer.record.clone();
        for one in &mut record.versions {
            if one.version == version {
                (one.state, one.activated) = (VersionState::Active, Some(now));
            } else if one.state == VersionState::Active {
                (one.state, one.retired) = (VersionState::Retired, Some(now));
            }
        }
        let change = put(path(name), Expected::Revision(issuer.revision), &record)?;
        let changes: Vec<_> = [change].into_iter().chain(also).collect();
        let key = self.parts.keyring.find(&name.key())?;
        let revision = match key.version(version)?.state() {
            // The key of an issuer that had none in force is in force already.
            State::Active => {
                let details = Details::of(key.record.id, version);
                self.parts.ledger.commit(permit.record(Phase::Change, &details), changes).await?
            }
            State::PreActive
            | State::Suspended
            | State::Deactivated
            | State::Compromised
            | State::DestroyScheduled
            | State::Destroyed => {
                // The states of key and issuer change in one transaction.
                self.parts.keyring.step(permit, &name.key(), version, Step::Activate, None, |_| Ok(changes)).await?;
                self.read({
                    let path = path(name);
                    move |store| store.get(&path)
                })
                .await?
                .map_or(0, |record| record.revision)
            }
        };
        crash_point!("issuer.published");
        self.show(record, revision)
    }

    /// Takes the certificate that an outside authority made for the newest version, and those above it, nearest first.
    ///
    /// # Errors
    /// `State` where no version waits for one; `Invalid` for a certificate of another key, one that is no authority's, is over,
    /// or is not signed by the next in the chain.
    pub async fn import(
        &self,
        permit: &Permit<ImportIssuerCertificate>,
        name: &IssuerName,
        chain: Vec<Certificate>,
        also: Option<Change>,
    ) -> Result<Arc<Issuer>> {
        permit.covers_issuer(name)?;
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let issuer = self.issuer(name)?;
        let waiting = issuer.versions.iter().rev().find(|one| one.record.state == VersionState::Requested);
        let version = waiting.map(|one| one.record.version).ok_or_else(|| {
            Error::new(Kind::State, format!("no version of issuer {name} waits for a certificate"))
                .hint("`signet issuer rotate` makes the next version and its request")
        })?;
        let key = self.parts.keyring.find(&name.key())?;
        check_chain(&chain, &key.version(version)?.public_key()?, self.now())?;
        let mut ders = chain.into_iter().map(|one| Der(one.der().to_vec()));
        let (certificate, above) = (ders.next(), ders.collect());
        let mut record = issuer.record.clone();
        let first = record.versions.iter().all(|one| one.state != VersionState::Active);
        if let Some(one) = record.versions.iter_mut().find(|one| one.version == version) {
            (one.certificate, one.above) = (certificate, above);
            one.state = VersionState::Prepared;
            // A first version has nothing to wait for: its key is in force already.
            if first && key.version(version)?.state() == State::Active {
                (one.state, one.activated) = (VersionState::Active, Some(self.now()));
            }
        }
        Issuer::new(record.clone(), 0)?;
        self.replace(permit.record(Phase::Change, &Details::of(key.record.id, version)), issuer.revision, record, also)
            .await
    }

    /// Changes the rules of an issuer, or stops it.
    ///
    /// # Errors
    /// `Stale` where `etag` is not the current one, `Invalid` for rules that make no sense.
    pub async fn update(
        &self,
        permit: &Permit<UpdateIssuer>,
        name: &IssuerName,
        etag: Option<&str>,
        update: IssuerUpdate,
        also: Option<Change>,
    ) -> Result<Arc<Issuer>> {
        permit.covers_issuer(name)?;
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let issuer = self.issuer(name)?;
        if etag.is_some_and(|etag| etag != issuer.etag()) {
            return Err(Error::new(Kind::Stale, format!("issuer {name} was changed in the meantime"))
                .hint("read it again and repeat the change with its new ETag"));
        }
        let IssuerUpdate { enabled, rules } = update;
        let mut record = issuer.record.clone();
        record.enabled = enabled.unwrap_or(record.enabled);
        if let Some(rules) = rules {
            rules.check()?;
            record.rules = rules;
        }
        let leaf = permit.record(Phase::Change, &Details::default().fact("enabled", record.enabled));
        self.replace(leaf, issuer.revision, record, also).await
    }

    /// Has one issuer certify the newest version of another, which keeps its own certificate: a chain to either will do.
    /// The permit is for the one that signs.
    ///
    /// # Errors
    /// `Invalid` for an issuer that would certify itself.
    pub async fn cross_sign(
        &self,
        permit: &Permit<SignIntermediate>,
        signer: &IssuerName,
        name: &IssuerName,
        also: Option<Change>,
    ) -> Result<Arc<Issuer>> {
        permit.covers_issuer(signer)?;
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let issuer = self.issuer(name)?;
        let above = self.issuer(signer)?;
        let by = above.signer(self.now())?;
        let newest = issuer.versions.last().ok_or_else(|| Error::internal(format!("issuer {name} has no version")))?;
        let version = newest.record.version;
        if signer == name && by.version == version {
            return Err(Error::new(Kind::Invalid, "this version would certify itself")
                .hint("an issuer's older version may certify its newest one before that is activated"));
        }
        if newest.record.cross.len() >= MAX_CHAIN {
            return Err(Error::new(Kind::Limit, format!("a version has at most {MAX_CHAIN} cross-certificates")));
        }
        let public_key = self.parts.keyring.find(&name.key())?.version(version)?.public_key()?;
        let template = self.below(&issuer.record, public_key, above.active()?, &above.record)?;
        let wanted = Wanted { template, profile: "(cross)".to_owned(), kind: lint::Kind::Intermediate };
        let (mut record, revision) = (issuer.record.clone(), issuer.revision);
        let committed = |made: &[Result<Entry>]| {
            let Some(Ok(entry)) = made.first() else { return Ok(Vec::new()) };
            if let Some(one) = record.versions.iter_mut().find(|one| one.version == version) {
                one.cross.push(Der(entry.certificate()?.to_vec()));
            }
            Ok([put(path(name), Expected::Revision(revision), &record)?].into_iter().chain(also).collect())
        };
        only(self.certify(permit, &by, vec![Ok(wanted)], committed).await?)?;
        crash_point!("issuer.published");
        self.reload(name).await
    }

    /// Gives a version of the key what makes it one of the issuer: a certificate, or a request for one. The record is committed
    /// with it.
    async fn equip<O: Builds>(
        &self,
        permit: &Permit<O>,
        parent: Option<&Permit<SignIntermediate>>,
        mut next: Next,
    ) -> Result<Arc<Issuer>> {
        let (name, version) = (next.record.name.clone(), next.own.version);
        let key = self.parts.keyring.find(&name.key())?;
        let public_key = key.version(version)?.public_key()?;
        let now = self.now();
        match next.record.parent.clone() {
            Parent::Itself => {
                let template = root(&next.record, public_key, now);
                let view = IssuerView::of_root(&template, next.record.algorithm)?;
                let signer = Signer { issuer: name.clone(), version, view, certificate: None };
                let wanted = Wanted { template, profile: "(root)".to_owned(), kind: lint::Kind::Root };
                only(self.certify(permit, &signer, vec![Ok(wanted)], |made| next.certified(made)).await?)?;
            }
            Parent::Issuer(above) => {
                let permit =
                    parent.ok_or_else(|| Error::internal("an intermediate without the right to certify it"))?;
                let above = self.issuer(&above)?;
                let signer = above.signer(now)?;
                let template = self.below(&next.record, public_key, above.active()?, &above.record)?;
                next.own.signer = Some((signer.issuer.clone(), signer.version));
                let wanted = Wanted { template, profile: "(intermediate)".to_owned(), kind: lint::Kind::Intermediate };
                only(self.certify(permit, &signer, vec![Ok(wanted)], |made| next.certified(made)).await?)?;
            }
            Parent::Outside => {
                let Rules { powers, .. } = &next.record.rules;
                let body = request::to_be_signed(&next.record.subject, &public_key, &[], Some(powers))?;
                let signing = &self.parts.signing;
                crash_point!("issuer.before_request");
                let signature = signing.sign_structure(permit, &name.key(), version, body.clone()).await?;
                crash_point!("issuer.requested");
                let request = certificate::assemble(&body, next.record.algorithm, &signature)?;
                Csr::parse(&request)?;
                (next.own.state, next.own.activated) = (VersionState::Requested, None);
                next.own.request = Some(Der(request));
                let leaf = permit.record(Phase::Change, &Details::of(key.record.id, version));
                self.parts.ledger.commit(leaf, next.changes()?).await?;
            }
        }
        crash_point!("issuer.published");
        self.reload(&name).await
    }

    /// What a certificate for `record`'s key says that the active version of `above` signs.
    fn below(
        &self,
        record: &Record,
        public_key: PublicKey,
        version: &IssuerVersion,
        above: &Record,
    ) -> Result<Template> {
        let (certificate, now) = (version.certificate()?, self.now());
        let mut powers = record.rules.powers.clone();
        if let Some(own) = certificate.authority().and_then(|authority| authority.path_length) {
            let left = own.checked_sub(1).ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    format!("issuer {} may certify no authorities: its path length is 0", above.name),
                )
                .hint("take another parent, or make one with a longer path")
            })?;
            if powers.path_length.is_some_and(|wanted| wanted > left) {
                let text = format!("below issuer {} the path length is at most {left}", above.name);
                return Err(Error::new(Kind::Invalid, text).hint("ask for less, or leave it out"));
            }
            powers.path_length = Some(powers.path_length.unwrap_or(left));
        }
        let parents = certificate.validity();
        Ok(Template {
            validity: Validity {
                not_before: backdated(now).max(parents.not_before),
                not_after: end(now, record.rules.lifetime).min(parents.not_after),
            },
            authority: Some(powers),
            distribution: self.distribution(above, version.record.version),
            ..root(record, public_key, now)
        })
    }

    /// What the certificates say that this version of an issuer signs.
    #[must_use]
    pub fn distribution(&self, issuer: &Record, version: Version) -> Distribution {
        if let Some(Distribution { crl, ocsp, issuer }) = &issuer.rules.distribution {
            let number = version.to_string();
            let fill = |places: &[String]| places.iter().map(|place| place.replace("{version}", &number)).collect();
            return Distribution { crl: fill(crl), ocsp: fill(ocsp), issuer: fill(issuer) };
        }
        let Some(url) = &self.parts.url else { return Distribution::default() };
        let IssuerName { namespace, name } = &issuer.name;
        let below = format!("{url}/pki/{namespace}/{name}");
        Distribution {
            crl: vec![format!("{below}/{version}.crl")],
            ocsp: vec![format!("{below}/ocsp")],
            issuer: vec![format!("{below}/{version}.cer")],
        }
    }

    fn check_parent(&self, parent: &Parent) -> Result<()> {
        match parent {
            Parent::Itself | Parent::Outside => Ok(()),
            Parent::Issuer(name) => self.issuer(name)?.signer(self.now()).map(drop),
        }
    }

    /// Commits a changed record and shows it.
    pub(super) async fn replace(
        &self,
        leaf: crate::audit::Record,
        revision: u64,
        record: Record,
        also: Option<Change>,
    ) -> Result<Arc<Issuer>> {
        let change = put(path(&record.name), Expected::Revision(revision), &record)?;
        let revision = self.parts.ledger.commit(leaf, [change].into_iter().chain(also).collect()).await?;
        crash_point!("issuer.published");
        self.show(record, revision)
    }

    fn show(&self, record: Record, revision: u64) -> Result<Arc<Issuer>> {
        let issuer = Arc::new(Issuer::new(record, revision)?);
        self.publish(issuer.clone());
        Ok(issuer)
    }

    /// Shows an issuer as it is stored.
    async fn reload(&self, name: &IssuerName) -> Result<Arc<Issuer>> {
        let path = path(name);
        let stored = self.read(move |store| store.get(&path)).await?;
        let stored = stored.ok_or_else(|| Error::internal(format!("issuer {name} is not where it was put")))?;
        self.show(parse(&stored)?, stored.revision)
    }
}

/// Closes the right to have an issuer certified together with what it was for.
///
/// # Errors
/// `Unavailable` where it cannot be recorded: then nothing leaves.
pub async fn close_parent<T>(parent: Option<Permit<SignIntermediate>>, outcome: &Result<T>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    let result = outcome.as_ref().map(drop).map_err(|e| Error::new(e.kind(), e.public().to_owned()));
    let failed = result.is_err();
    match parent.close(result, Details::default()).await {
        // The failure is answered by whoever closes the other permit.
        Err(_) if failed => Ok(()),
        closed => closed.map(Released::into_inner),
    }
}

fn path(name: &IssuerName) -> String {
    format!("issuers/{}/{}", name.namespace, name.name)
}

/// The only result of a batch of one.
fn only(mut made: Vec<Result<Entry>>) -> Result<Entry> {
    made.pop().unwrap_or_else(|| Err(Error::internal("a certificate was not made")))
}

fn backdated(now: Timestamp) -> Timestamp {
    now.checked_sub(BACKDATE).unwrap_or(now)
}

/// The last second of what lives for `lifetime` from now on; the last one that a certificate can name where that is sooner.
pub(super) fn end(now: Timestamp, lifetime: Period) -> Timestamp {
    now.checked_add(lifetime.as_signed()).unwrap_or(Timestamp::MAX)
}

/// What a root says about itself.
fn root(record: &Record, public_key: PublicKey, now: Timestamp) -> Template {
    Template {
        subject: record.subject.clone(),
        sans: Vec::new(),
        public_key,
        validity: Validity { not_before: backdated(now), not_after: end(now, record.rules.lifetime) },
        usages: vec![KeyUsage::CertSign, KeyUsage::CrlSign],
        extended: Vec::new(),
        authority: Some(record.rules.powers.clone()),
        policies: record.rules.policies.clone(),
        distribution: Distribution::default(),
        must_staple: false,
        no_check: false,
    }
}

/// Whether the first of `chain` certifies `key` as an authority, each is signed by the next, and all of them live.
fn check_chain(chain: &[Certificate], key: &PublicKey, now: Timestamp) -> Result<()> {
    let invalid = |text: String| Error::new(Kind::Invalid, text);
    let Some(own) = chain.first() else { return Err(invalid("there is no certificate".to_owned())) };
    if own.public_key() != key {
        return Err(invalid("the first certificate is for another key than that of this issuer".to_owned())
            .hint("send the answer to the request of `signet issuer csr`, and above it the chain, nearest first"));
    }
    if chain.len() < 2 || chain.len() > MAX_CHAIN {
        return Err(invalid(format!("a chain has 2 to {MAX_CHAIN} certificates"))
            .hint("put the certificate of the authority that signed, and those above it, below ours in the file"));
    }
    for (below, one) in chain.iter().enumerate() {
        let Some(authority) = one.authority() else {
            return Err(invalid(format!("certificate {} of the chain is not that of an authority", below + 1)));
        };
        // Our own counts for nothing: a path length says how many authorities may stand below.
        if below > 0 && authority.path_length.is_some_and(|length| usize::from(length) < below) {
            return Err(invalid(format!("certificate {} of the chain allows fewer authorities below it", below + 1)));
        }
        let Validity { not_before, not_after } = one.validity();
        if now < not_before || not_after < now {
            return Err(invalid(format!("certificate {} of the chain is over, or not valid yet", below + 1)));
        }
    }
    for (below, above) in chain.iter().zip(chain.iter().skip(1)) {
        if below.issuer_der() != above.subject_der() {
            return Err(invalid("a certificate of the chain names another issuer than the next one".to_owned())
                .hint("the order is: ours, the one that signed it, and so on up"));
        }
        below.verify(above.public_key()).map_err(|e| e.context("the chain"))?;
    }
    Ok(())
}

impl std::fmt::Debug for Der {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Der({})", self.0.len())
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Object identifiers as texts.
mod oids {
    use super::{Deserialize, Deserializer, ObjectIdentifier, Serializer};

    pub(super) fn serialize<S: Serializer>(oids: &[ObjectIdentifier], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(oids.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ObjectIdentifier>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}
