//! Revocation: a certificate is good until somebody says that it is not, and then for good.
//!
//! Each revocation is a sealed record, read into memory at start, where lists and answers are made from. A serial number whose
//! certificate was lost on the way counts as revoked: nobody knows whether a device signed it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::inventory::{Entry, State};
use super::issue::still_signed;
use super::issuer::Issuer;
use super::{Authority, FORMAT, parse, put};
use crate::admission::{Details, Permit};
use crate::audit::Phase;
use crate::error::{Error, Kind, Result};
use crate::store::certificates::{Reservation, Search};
use crate::store::{Change, Expected, Store};
use crate::types::operation::RevokeCertificate;
use crate::types::{IssuerName, State as KeyState, Verifier, Version};
use crate::x509::crl::{Reason, Revoked};
use crate::x509::{Certificate, KeyKind, Serial};

/// What is stored of one revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    format: u32,
    /// Whose certificate.
    pub issuer: IssuerName,
    /// Of which version.
    pub version: Version,
    /// Which.
    pub serial: Serial,
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// Who said so, as in the audit log.
    pub by: String,
    /// The last second of the certificate: after it nobody has to be told.
    pub not_after: Timestamp,
}

/// The revocations of one version of an issuer, by serial number.
pub(super) type Known = BTreeMap<(IssuerName, Version), BTreeMap<Serial, (Revoked, Timestamp)>>;

impl Revocation {
    fn path(&self) -> String {
        let Self { issuer, version, serial, .. } = self;
        format!("revocations/{}/{}/{:010}/{serial}", issuer.namespace, issuer.name, version.number())
    }
}

/// Whether `signature` proves the certified key, over [`proof`]: ECDSA in DER, RSA by PKCS#1 v1.5 with SHA-256, Ed25519 as it is.
/// That is what `openssl dgst -sign` and `openssl pkeyutl -sign` write.
///
/// # Errors
/// `State` for a certificate that was never signed.
pub fn proves(entry: &Entry, reason: Reason, signature: &[u8]) -> Result<bool> {
    let certificate = Certificate::parse(entry.certificate()?)?;
    let key = certificate.public_key();
    let verifier = Verifier::new(KeyKind::of(key)?.algorithm(), key)?;
    let message = proof(&entry.issuer, &entry.serial, reason);
    Ok(verifier.verifies_der(message.as_bytes(), signature) || verifier.verifies(message.as_bytes(), signature))
}

/// What the holder of a certified key signs to have its certificate revoked.
#[must_use]
pub fn proof(issuer: &IssuerName, serial: &Serial, reason: Reason) -> String {
    format!("signet revoke v1\n{issuer}\n{serial}\n{reason}\n")
}

/// Reads all revocations.
pub(super) fn read_all(store: &dyn Store) -> Result<Known> {
    let mut known = Known::new();
    for record in store.scan("revocations/")? {
        keep(&mut known, &parse(&record)?);
    }
    Ok(known)
}

fn keep(known: &mut Known, revocation: &Revocation) {
    let Revocation { issuer, version, serial, at, reason, not_after, .. } = revocation;
    let revoked = Revoked { serial: *serial, at: *at, reason: *reason };
    known.entry((issuer.clone(), *version)).or_default().insert(*serial, (revoked, *not_after));
}

impl Authority {
    /// Revokes certificates of one issuer. Those that are revoked already stay as they are, with their first time and reason.
    /// `also` is committed with them. Answers how many were revoked now.
    ///
    /// # Errors
    /// `NotFound` where one of them is not of this issuer.
    pub async fn revoke(
        &self,
        permit: &Permit<RevokeCertificate>,
        issuer: &IssuerName,
        serials: &[Serial],
        reason: Reason,
        also: Option<Change>,
    ) -> Result<usize> {
        permit.covers_issuer(issuer)?;
        let mut entries = Vec::new();
        for serial in serials {
            let entry = self.certificate(issuer, serial).await?;
            if entry.state == State::Reserved {
                return Err(Error::new(Kind::Busy, format!("certificate {serial} is being signed")).hint("ask again"));
            }
            entries.push(entry);
        }
        self.revoke_entries(permit, &entries, reason, also).await
    }

    /// Revokes every certificate of an issuer that is not over, or of one version of it, in steps. Answers how many were; `also` is told
    /// as much, and is committed last. Its own two kinds stay: a root does not speak about itself, and responders end soon by themselves.
    ///
    /// # Errors
    /// Those of the store, and `Busy` where some are being signed for too long; what was revoked until then stays so.
    pub async fn revoke_all(
        &self,
        permit: &Permit<RevokeCertificate>,
        issuer: &IssuerName,
        version: Option<Version>,
        reason: Reason,
        also: impl Fn(usize) -> Result<Option<Change>> + Send,
    ) -> Result<usize> {
        permit.covers_issuer(issuer)?;
        // 1. All that was reserved until now is meant: what is being signed will be certificates in a moment.
        let last = self.parts.ledger.reserved().await?;
        let (mut count, waiting) = self.revoke_up_to(permit, issuer, version, reason, last).await?;
        if waiting {
            // 2. Once they are signed, they are revoked as well.
            self.settled().await?;
            let (more, waiting) = self.revoke_up_to(permit, issuer, version, reason, last).await?;
            if waiting {
                // The next tick looks whether anybody signs them.
                return Err(still_signed());
            }
            count += more;
        }
        self.revoke_entries(permit, &[], reason, also(count)?).await?;
        Ok(count)
    }

    /// One pass over the certificates with numbers up to `last`. Answers how many were revoked, and whether some were being signed.
    async fn revoke_up_to(
        &self,
        permit: &Permit<RevokeCertificate>,
        issuer: &IssuerName,
        version: Option<Version>,
        reason: Reason,
        last: u64,
    ) -> Result<(usize, bool)> {
        let (mut after, mut count, mut waiting) = (None, 0, false);
        loop {
            let (now, limit) = (self.now(), super::issue::MAX_BATCH);
            let ends = Some((now, Timestamp::MAX));
            let search = Search { issuer: Some(issuer.clone()), ends, after, limit, ..Search::default() };
            let (page, next) = self.search(search).await?;
            let of_version = |entry: &Entry| version.is_none_or(|version| entry.version == version);
            let meant = |entry: &Entry| of_version(entry) && !entry.is_own() && entry.number <= last;
            let (some, others): (Vec<_>, Vec<_>) =
                page.into_iter().filter(meant).partition(|entry| entry.state == State::Issued);
            waiting |= others.iter().any(|entry| entry.state == State::Reserved);
            count += self.revoke_entries(permit, &some, reason, None).await?;
            if next.is_none() {
                return Ok((count, waiting));
            }
            after = next;
        }
    }

    pub(super) async fn revoke_entries(
        &self,
        permit: &Permit<RevokeCertificate>,
        entries: &[Entry],
        reason: Reason,
        also: Option<Change>,
    ) -> Result<usize> {
        let (at, by) = (self.now(), permit.caller().principal.to_string());
        let new: Vec<_> = entries
            .iter()
            .filter(|entry| self.recorded(&entry.issuer, entry.version, &entry.serial).is_none())
            .map(|entry| Revocation {
                format: FORMAT,
                issuer: entry.issuer.clone(),
                version: entry.version,
                serial: entry.serial,
                at,
                reason,
                by: by.clone(),
                not_after: entry.validity.not_after,
            })
            .collect();
        let mut changes: Vec<_> = changes(&new)?;
        changes.extend(also);
        if changes.is_empty() {
            return Ok(0);
        }
        let serials: Vec<_> = new.iter().map(|one| one.serial.to_string()).collect();
        let details = Details::default().fact("revoked", serials.join(" ")).fact("reason", reason);
        match self.parts.ledger.commit(permit.record(Phase::Change, &details), changes).await {
            Ok(_) => {}
            // Somebody else revoked one of them at this moment.
            Err(error) if error.kind() == Kind::Conflict => return Err(busy(error)),
            Err(error) => return Err(error),
        }
        self.learn(&new);
        Ok(new.len())
    }

    /// When and why a certificate was revoked, where it was; or since when nobody can tell it from one that somebody else signed.
    #[must_use]
    pub fn revocation(&self, issuer: &IssuerName, version: Version, serial: &Serial) -> Option<Revoked> {
        let fell = || self.fell(issuer, version);
        self.recorded(issuer, version, serial)
            .or_else(|| fell().map(|at| Revoked { serial: *serial, at, reason: Reason::CaCompromise }))
    }

    /// The revocation that was recorded of a certificate.
    pub(super) fn recorded(&self, issuer: &IssuerName, version: Version, serial: &Serial) -> Option<Revoked> {
        let known = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(issuer.clone(), version))?.get(serial).map(|(revoked, _)| *revoked)
    }

    /// Whether the certificate of ours with this serial number was revoked.
    pub(super) fn is_serial_revoked(&self, serial: &Serial) -> bool {
        let known = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        known.values().any(|revoked| revoked.contains_key(serial))
    }

    /// Since when the key of a version is declared compromised: nothing that it signed counts any more, whenever that was.
    #[must_use]
    pub fn fell(&self, issuer: &IssuerName, version: Version) -> Option<Timestamp> {
        let key = self.parts.keyring.find(&issuer.key()).ok()?;
        let record = &key.version(version).ok()?.record;
        let compromised = [Some(record.state), record.before].contains(&Some(KeyState::Compromised));
        // Certificates and answers know whole seconds.
        compromised.then(|| Timestamp::from_second(record.changed.as_second()).unwrap_or(record.changed))
    }

    /// Whether the certificate with this name of its issuer, in DER, and this serial number, as it stands in it, is one of ours
    /// that was revoked.
    #[must_use]
    pub fn is_revoked(&self, issuer: &[u8], serial: &[u8]) -> bool {
        let padding = 20_usize.saturating_sub(serial.len());
        let padded: Vec<u8> = std::iter::repeat_n(0, padding).chain(serial.iter().copied()).collect();
        let Ok(serial) = <[u8; 20]>::try_from(padded).map(Serial::from_bytes) else { return false };
        let with_serial: Vec<_> = {
            let known = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
            known.iter().filter(|(_, revoked)| revoked.contains_key(&serial)).map(|(of, _)| of.clone()).collect()
        };
        with_serial.iter().any(|(name, version)| {
            let subject = |own: &Issuer| Ok(own.version(*version)?.certificate()?.subject_der() == issuer);
            self.issuer(name).and_then(|own| subject(&own)).unwrap_or(false)
        })
    }

    /// How many certificates of one version were ever revoked: it grows with each.
    #[must_use]
    pub fn revocations(&self, issuer: &IssuerName, version: Version) -> usize {
        let known = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&(issuer.clone(), version)).map_or(0, BTreeMap::len)
    }

    /// The revoked certificates of one version that are not over at `now`: what its list has to say.
    #[must_use]
    pub fn revoked(&self, issuer: &IssuerName, version: Version, now: Timestamp) -> Vec<Revoked> {
        let known = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        let own = known.get(&(issuer.clone(), version)).into_iter().flat_map(BTreeMap::values);
        own.filter(|(_, not_after)| *not_after >= now).map(|(revoked, _)| *revoked).collect()
    }

    /// The revocations to commit with the end of reservations that were lost.
    pub(super) fn lost(&self, reservations: &[Reservation], at: Timestamp) -> Result<Vec<Change>> {
        changes(&of_lost(reservations, at))
    }

    /// Knows them as well, once they are committed.
    pub(super) fn count_lost(&self, reservations: &[Reservation], at: Timestamp) {
        self.learn(&of_lost(reservations, at));
    }

    fn learn(&self, revocations: &[Revocation]) {
        let mut known = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        for revocation in revocations {
            keep(&mut known, revocation);
        }
    }
}

fn changes(revocations: &[Revocation]) -> Result<Vec<Change>> {
    revocations.iter().map(|one| put(one.path(), Expected::Absent, one)).collect()
}

fn of_lost(reservations: &[Reservation], at: Timestamp) -> Vec<Revocation> {
    let lost = |one: &Reservation| Revocation {
        format: FORMAT,
        issuer: one.issuer.clone(),
        version: one.version,
        serial: Serial::from_bytes(one.serial),
        at,
        reason: Reason::Unspecified,
        by: "system/close-reservations".to_owned(),
        not_after: one.not_after,
    };
    reservations.iter().map(lost).collect()
}

fn busy(error: Error) -> Error {
    Error::new(Kind::Busy, "another request revokes the same certificate").hint("ask again").because(error.chain())
}
