//! Issuers: who certifies, with which key, under whom.
//!
//! An issuer is a root, which certifies itself; or it stands below an issuer of ours, or below an outside authority, which gets a
//! request and gives a certificate that is imported. Its rules are fixed in each certificate that it gets, so a change of them
//! counts from its next version on.
//!
//! The key comes first, then what it signs for the issuer, then the record, which is committed together with the certificate. A
//! crash in between leaves a key without an issuer, or a key version without a version of the issuer: the next try takes it up.

mod chain;
mod change;
mod equip;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::issue::Signer;
use super::{Authority, parse};
use crate::error::{Error, Kind, Result};
use crate::store::Store;
use crate::types::{Algorithm, IssuerName, Version};
use crate::x509::{Certificate, IssuerView};

pub use change::{IssuerUpdate, NewIssuer};
pub use equip::close_parent;
pub use record::{Der, Parent, Record, Rules, VersionRecord, VersionState};

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
    /// The certificates above it, nearest first, where an outside authority certified it.
    above: Vec<Certificate>,
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

    /// The active version, as whoever signs.
    ///
    /// # Errors
    /// [`Kind::State`] where none is active, it is over, or the issuer was stopped.
    fn signer(&self, now: Timestamp) -> Result<Signer> {
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
        let above = record.above.iter().map(|Der(der)| Certificate::parse(der)).collect::<Result<_>>()?;
        Ok(Self { record: record.clone(), certified, above })
    }

    /// The certificates above it, nearest first, where an outside authority certified it.
    #[must_use]
    pub fn above(&self) -> &[Certificate] {
        &self.above
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

impl Authority {
    /// The active version of an issuer, ready to sign at `now`.
    ///
    /// # Errors
    /// [`Kind::State`] where none is active, it is over, or the issuer was stopped; or where nobody would believe it, because its
    /// certificate or one above it was revoked, or a key of theirs is compromised.
    pub fn signer(&self, issuer: &Issuer, now: Timestamp) -> Result<Signer> {
        let signer = issuer.signer(now)?;
        if self.fell(&signer.issuer, signer.version).is_some() {
            let Signer { issuer: name, version, .. } = &signer;
            return Err(Error::new(
                Kind::State,
                format!("the key of version {version} of issuer {name} is compromised"),
            )
            .hint(format!("`signet issuer rotate {name}` makes a new version, and `activate` puts it in force")));
        }
        for (one, version) in self.line(&signer.issuer, signer.version)? {
            let (name, own) = (&one.record.name, one.version(version)?);
            let by = own.record.signer.as_ref();
            let serial = own.certificate()?.serial();
            if let Some(revoked) = by.and_then(|(above, by)| self.revocation(above, *by, serial)) {
                let text =
                    format!("the certificate of version {version} of issuer {name} is revoked: {}", revoked.reason);
                return Err(Error::new(Kind::State, text).hint(format!(
                    "`signet issuer rotate {name}` makes a new version, and `activate` puts it in force"
                )));
            }
        }
        Ok(signer)
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

fn path(name: &IssuerName) -> String {
    format!("issuers/{}/{}", name.namespace, name.name)
}
