//! How certificates are signed: reserved, signed, read back, recorded. One way for all of them, leaves and authorities.

use std::sync::PoisonError;
use std::time::Duration;

use super::Authority;
use super::inventory::{Entry, after_body};
use crate::admission::{Details, Permit};
use crate::audit::{Phase, Record};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::store::Change;
use crate::store::certificates::{End, Found, Reservation};
use crate::types::operation::Builds;
use crate::types::{IssuerName, Verified, Version};
use crate::x509::lint::{self, Subjectmatter};
use crate::x509::{IssuerView, Serial, Template, certificate};

/// The most certificates that are reserved, and ended, in one transaction.
pub const MAX_BATCH: usize = 1000;

/// How long is waited for what is being signed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who signs: one version of an issuer.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The issuer.
    pub issuer: IssuerName,
    /// The version.
    pub version: Version,
    /// What certificates take over from it.
    pub view: IssuerView,
    /// Its own certificate; a root that is about to sign its own has none yet.
    pub certificate: Option<Vec<u8>>,
}

/// A certificate that is wanted, and may be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// All that it says.
    pub template: Template,
    /// What it was made from: a profile's name, or a word of ours in brackets.
    pub profile: String,
    /// What it is for, which decides the rules that it has to keep.
    pub kind: lint::Kind,
}

/// A certificate ready to be signed.
struct Prepared {
    template: Template,
    serial: Serial,
    reservation: Reservation,
}

/// Serial numbers of reservations whose certificates are being signed; forgotten when dropped.
struct UnderWay<'a> {
    authority: &'a Authority,
    serials: Vec<[u8; 20]>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut now = self.authority.signing_now.lock().unwrap_or_else(PoisonError::into_inner);
        for serial in &self.serials {
            now.remove(serial);
        }
        drop(now);
        self.authority.signed.notify_waiters();
    }
}

impl Authority {
    /// Signs each of `wanted` and records it. `also` makes of the certificates, each in the place where it was wanted, what is
    /// committed with them, such as the answer to an idempotency key, or the record of the issuer that was certified; it is not
    /// asked where none was made.
    ///
    /// # Errors
    /// For all: those of the ledger, and `State` where the version may not sign this. Per item: `Invalid` for what breaks a
    /// rule of the linter, `Internal` for a certificate that is not the one asked for, and those of the device. What was
    /// reserved and not signed stays in the inventory as lost.
    pub(super) async fn certify<O: Builds>(
        &self,
        permit: &Permit<O>,
        signer: &Signer,
        wanted: Vec<Result<Wanted>>,
        also: impl FnOnce(&[Option<&Entry>]) -> Result<Vec<Change>>,
    ) -> Result<Vec<Result<Entry>>> {
        permit.covers_issuer(&signer.issuer)?;
        if wanted.len() > MAX_BATCH {
            return Err(Error::new(Kind::Limit, format!("a batch has at most {MAX_BATCH} items")));
        }
        // 1. What is signed is fixed and held against the rules.
        let requester = permit.caller().principal.to_string();
        let ready_to_sign = |one| self.ready(one, signer, &requester);
        let (mut ready, mut outcomes) = (Vec::new(), Vec::new());
        for one in wanted {
            match one.and_then(ready_to_sign) {
                Ok(prepared) => {
                    ready.push(prepared);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        // Responders are not looked for in any list.
        let own =
            |one: &&Prepared| signer.certificate.is_some() && one.reservation.profile != super::inventory::RESPONDER;
        let said: Vec<_> = ready.iter().filter(own).map(|one| one.template.distribution.crl.as_slice()).collect();
        self.remember_places(signer, &said).await?;
        let is_ready: Vec<_> = outcomes.iter().map(Option::is_none).collect();
        let also = |made: &[Result<Entry>]| {
            let mut made = made.iter().map(|one| one.as_ref().ok());
            let in_place: Vec<_> =
                is_ready.iter().map(|ready| if *ready { made.next().flatten() } else { None }).collect();
            also(&in_place)
        };
        let mut made =
            if ready.is_empty() { Vec::new() } else { self.sign(permit, signer, ready, also).await? }.into_iter();
        let mut next = || made.next().unwrap_or_else(|| Err(Error::internal("a certificate of a batch was lost")));
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(&mut next)).collect())
    }

    /// Signs and records what is ready.
    async fn sign<O: Builds>(
        &self,
        permit: &Permit<O>,
        signer: &Signer,
        mut ready: Vec<Prepared>,
        also: impl FnOnce(&[Result<Entry>]) -> Result<Vec<Change>>,
    ) -> Result<Vec<Result<Entry>>> {
        // 2. All of it is durable, and named in the log, before any of it is signed: this is the intent.
        let serials: Vec<_> = ready.iter().map(|one| one.serial.to_string()).collect();
        let details =
            Details { version: Some(signer.version), ..Details::default() }.fact("reserved", serials.join(" "));
        let reservations = ready.iter().map(|one| one.reservation.clone()).collect();
        let leaf = permit.record(Phase::Change, &details);
        // Before anybody can see them: who finds a reservation that nobody is signing closes it.
        let under_way = self.under_way(ready.iter().map(|one| one.reservation.serial).collect());
        crash_point!("issue.before_reserve");
        let numbers = self.parts.ledger.reserve(leaf, Vec::new(), reservations).await?;
        for (one, number) in ready.iter_mut().zip(numbers) {
            one.reservation.number = number;
        }
        crash_point!("issue.reserved");
        // 3. The device signs.
        let bodies = ready.iter().map(|one| one.reservation.body.clone()).collect();
        let signatures = self.parts.signing.sign_structures(permit, &signer.issuer.key(), signer.version, bodies).await;
        crash_point!("issue.signed");
        let signatures = match signatures {
            Ok(signatures) => signatures,
            Err(error) => {
                let lost: Vec<_> = ready.into_iter().map(|one| one.reservation).collect();
                if let Err(unrecorded) = self.abandon(permit.record(Phase::Change, &details), &lost).await {
                    tracing::warn!(cause = unrecorded.chain(), "reservations stay open until they are looked at again");
                }
                return Err(error);
            }
        };
        // 4. Each certificate is read back from its bytes, by a parser that had no part in writing them.
        let at = self.now();
        let (mut made, mut ends, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for (one, signature) in ready.into_iter().zip(signatures) {
            let after = signature.and_then(|signature| one.finish(signer, &signature));
            let end = End { number: one.reservation.number, at, signature: after.as_ref().ok().cloned(), tag: [0; 32] };
            ends.push(end.clone());
            if after.is_err() {
                lost.push(one.reservation.clone());
            }
            made.push(after.and_then(|_| Entry::new(Found { reservation: one.reservation, end: Some(end) })));
        }
        // 5. What came of each is durable before any of it leaves.
        let mut changes = if made.iter().any(Result::is_ok) { also(&made)? } else { Vec::new() };
        changes.extend(self.lost(&lost, at)?);
        let hashes: Vec<_> =
            made.iter().flatten().map(|entry| format!("{}:{}", entry.serial, entry.fingerprint())).collect();
        let details = Details { version: Some(signer.version), ..Details::default() }.fact("issued", hashes.join(" "));
        crash_point!("issue.before_end");
        self.parts.ledger.end(permit.record(Phase::Change, &details), changes, ends).await?;
        drop(under_way);
        crash_point!("issue.recorded");
        self.count_lost(&lost, at);
        self.parts.metrics.issued(hashes.len(), lost.len());
        Ok(made)
    }

    /// Draws the serial number, writes what is to be signed, and holds it against the rules.
    fn ready(&self, wanted: Wanted, signer: &Signer, requester: &str) -> Result<Prepared> {
        let Wanted { template, profile, kind } = wanted;
        let serial = Serial::random()?;
        let body = certificate::to_be_signed(&template, &serial, &signer.view)?;
        lint::check(&body, &Subjectmatter { kind, issuer: signer.certificate.as_deref() })?;
        let names = template.sans.iter().map(ToString::to_string).collect();
        let reservation = Reservation {
            number: 0,
            serial: *serial.as_bytes(),
            issuer: signer.issuer.clone(),
            version: signer.version,
            profile,
            requester: requester.to_owned(),
            subject: template.subject.to_string(),
            names,
            not_before: template.validity.not_before,
            not_after: template.validity.not_after,
            at: self.now(),
            body,
            tag: [0; 32],
        };
        Ok(Prepared { template, serial, reservation })
    }

    fn under_way(&self, serials: Vec<[u8; 20]>) -> UnderWay<'_> {
        self.signing_now.lock().unwrap_or_else(PoisonError::into_inner).extend(&serials);
        UnderWay { authority: self, serials }
    }

    /// Waits until nothing of what is being signed now is being signed any more.
    ///
    /// # Errors
    /// `Busy` where that takes too long.
    pub(super) async fn settled(&self) -> Result<()> {
        let signing = || self.signing_now.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = signing().clone();
        let settled = async {
            loop {
                let signed = self.signed.notified();
                if signing().is_disjoint(&meant) {
                    return;
                }
                signed.await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.map_err(|_| still_signed())
    }

    /// Ends reservations of which no certificate came, or nobody knows.
    pub(super) async fn abandon(&self, leaf: Record, reservations: &[Reservation]) -> Result<()> {
        let at = self.now();
        let end = |one: &Reservation| End { number: one.number, at, signature: None, tag: [0; 32] };
        let ends = reservations.iter().map(end).collect();
        crash_point!("issue.before_abandon");
        self.parts.ledger.end(leaf, self.lost(reservations, at)?, ends).await?;
        crash_point!("issue.abandoned");
        self.count_lost(reservations, at);
        self.parts.metrics.issued(0, reservations.len());
        Ok(())
    }
}

/// The answer to who would wait for too long.
pub(super) fn still_signed() -> Error {
    Error::new(Kind::Busy, "some certificates are still being signed").hint("ask again")
}

impl Prepared {
    /// What follows the body in the certificate, once the whole was compared with what was asked.
    fn finish(&self, signer: &Signer, signature: &Verified) -> Result<Vec<u8>> {
        let body = &self.reservation.body;
        let der = certificate::assemble(body, signer.view.algorithm, signature.signature())?;
        certificate::check(&der, &self.template, &self.serial, &signer.view, signature)?;
        after_body(&der, body)
    }
}
