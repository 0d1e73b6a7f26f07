//! What is done to an issuer by those who run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chain::{MAX_CHAIN, check_chain};
use super::equip::{Next, only};
use super::record::{Der, Parent, Record, Rules, VersionRecord, VersionState};
use super::{Issuer, path};
use crate::admission::{Details, Permit};
use crate::audit::{self, Phase};
use crate::ca::inventory::Entry;
use crate::ca::issue::Wanted;
use crate::ca::{Authority, FORMAT, parse, put};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::keyring::state::Step;
use crate::keyring::{Key, NewKey};
use crate::store::{Change, Expected};
use crate::types::operation::{
    Builds, CreateIssuer, CreateKey, ImportIssuerCertificate, Includes, RotateIssuer, SignIntermediate, UpdateIssuer,
};
use crate::types::{Algorithm, Domain, IssuerName, Name, Purpose, Residency, Retention, Rotation, State, Version};
use crate::x509::{Certificate, Subject, certificate, lint};

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

impl Authority {
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
        let turn = self.turns.of(&new.name);
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
            pcrs: None,
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
        let (_turn, issuer) = self.hold(name).await?;
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
        let (_turn, issuer) = self.hold(name).await?;
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
        let (_turn, issuer) = self.hold(name).await?;
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
        let (_turn, issuer) = self.hold(name).await?;
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
        let (_turn, issuer) = self.hold(name).await?;
        let above = self.issuer(signer)?;
        let by = self.signer(&above, self.now())?;
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
        let committed = |made: &[Option<&Entry>]| {
            let Some(Some(entry)) = made.first() else { return Ok(Vec::new()) };
            if let Some(one) = record.versions.iter_mut().find(|one| one.version == version) {
                one.cross.push(Der(entry.certificate()?.to_vec()));
            }
            Ok([put(path(name), Expected::Revision(revision), &record)?].into_iter().chain(also).collect())
        };
        only(self.certify(permit, &by, vec![Ok(wanted)], committed).await?)?;
        crash_point!("issuer.published");
        self.reload(name).await
    }
    fn check_parent(&self, parent: &Parent) -> Result<()> {
        match parent {
            Parent::Itself | Parent::Outside => Ok(()),
            Parent::Issuer(name) => self.signer(&*self.issuer(name)?, self.now()).map(drop),
        }
    }

    /// Commits a changed record and shows it.
    pub(in crate::ca) async fn replace(
        &self,
        leaf: audit::Record,
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
    pub(super) async fn reload(&self, name: &IssuerName) -> Result<Arc<Issuer>> {
        let path = path(name);
        let stored = self.read(move |store| store.get(&path)).await?;
        let stored = stored.ok_or_else(|| Error::internal(format!("issuer {name} is not where it was put")))?;
        self.show(parse(&stored)?, stored.revision)
    }
}
