//! Certificates: issued, found, revoked.

use jiff::Timestamp;

use super::{Idempotency, Outcome, Service, check_batch, only};
use crate::admission::{Details, Permit, Released};
use crate::ca::inventory::{Entry, no_certificate};
use crate::ca::profile::Kind as ProfileKind;
use crate::ca::profiles::Known;
use crate::ca::renewal::Renewal;
use crate::ca::request::{Issued, Request};
use crate::ca::revocation::proves;
use crate::error::{Error, Kind, Result};
use crate::policy::{Facts, Target};
use crate::store::Change;
use crate::store::certificates::{Cursor, Search};
use crate::types::operation::{
    Builds, IssueCertificate, ListCertificates, Operation, ReadCertificate, ReadRenewal, RevokeCertificate,
    SignIntermediate,
};
use crate::types::{Action, Algorithm, Caller, IssuerName, ProfileName, Resource, Subject, Version};
use crate::x509::crl::{Reason, Revoked};
use crate::x509::{San, Serial};

/// A certificate, what stands above it, and whether it counts.
#[derive(Debug)]
pub struct Certified {
    /// The certificate.
    pub entry: Entry,
    /// The certificates between it and the anchor, nearest first.
    pub chain: Vec<Vec<u8>>,
    /// Since when and why it was revoked.
    pub revoked: Option<Revoked>,
    /// Its private key in PEM, where the service made it just now.
    pub key: Option<crate::types::SecretBytes>,
}

/// A page of certificates.
#[derive(Debug)]
pub struct CertificatePage {
    /// The certificates, in the order of the search.
    pub certificates: Vec<Certified>,
    /// Where the next page begins, where there may be one.
    pub next: Option<Cursor>,
}

/// How somebody may revoke.
#[derive(Debug)]
pub enum Right {
    /// A policy says so.
    Policy,
    /// By the certified key: a signature over [`crate::ca::revocation::proof`].
    Proof(Vec<u8>),
}

impl Service {
    /// Issues one certificate.
    ///
    /// # Errors
    /// As [`Self::issue_batch`], and those of the item.
    pub async fn issue(
        &self,
        caller: &Caller,
        issuer: &IssuerName,
        profile: &ProfileName,
        request: Request,
        idempotency: &Idempotency,
    ) -> Result<Released<Certified>> {
        let made = self.issue_batch(caller, issuer, profile, vec![request], idempotency).await?;
        made.try_map(only)
    }

    /// Issues many certificates from one profile. A policy has to allow every name of each.
    ///
    /// # Errors
    /// `Forbidden` where one of the names is not allowed, `NotFound` for an issuer or profile that is not there; per item those
    /// of [`crate::ca::Authority::issue`].
    pub async fn issue_batch(
        &self,
        caller: &Caller,
        issuer: &IssuerName,
        profile: &ProfileName,
        requests: Vec<Request>,
        idempotency: &Idempotency,
    ) -> Result<Released<Vec<Result<Certified>>>> {
        check_batch(requests.len())?;
        self.issue_all(caller, Asked { issuer, profile, requests, idempotency, also: &|_| Ok(Vec::new()) }).await
    }

    /// As [`Self::issue`], with what `also` makes of the certificate in the commit that records it.
    pub(super) async fn issue_with(
        &self,
        caller: &Caller,
        issuer: &IssuerName,
        profile: &ProfileName,
        request: Request,
        also: &Also<'_>,
    ) -> Result<Released<Certified>> {
        let idempotency = &Idempotency::default();
        let asked = Asked { issuer, profile, requests: vec![request], idempotency, also };
        self.issue_all(caller, asked).await?.try_map(only)
    }

    async fn issue_all(&self, caller: &Caller, asked: Asked<'_>) -> Result<Released<Vec<Result<Certified>>>> {
        let known = self.parts.authority.profile(asked.profile).ok();
        // Who makes an authority does more than who makes a leaf.
        match known {
            Some(known) if known.profile.kind == ProfileKind::Intermediate => {
                self.issue_as::<SignIntermediate>(caller, asked, Some(known)).await
            }
            known => self.issue_as::<IssueCertificate>(caller, asked, known).await,
        }
    }

    async fn issue_as<O: Builds>(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
        known: Option<Known>,
    ) -> Result<Released<Vec<Result<Certified>>>> {
        let Asked { issuer, profile, requests, idempotency, also } = asked;
        let permit: Permit<O> = self.admit_names(caller, issuer, profile, &requests, known.as_ref()).await?;
        let mut details = Details::default().fact("profile", profile);
        let result = async {
            let known = known.ok_or_else(|| crate::admission::no_profile(profile))?;
            let turn = match self.once(caller, idempotency).await? {
                Ok(Outcome::Certificates(serials)) => return self.issued_before(issuer, serials).await,
                Ok(_) => return Err(Error::internal("another outcome under this idempotency key")),
                Err(turn) => turn,
            };
            let also = |made: &[Option<&Entry>]| {
                let serials = made.iter().map(|one| one.map(|entry| entry.serial)).collect();
                let mut changes = also(made)?;
                changes.extend(turn.record(Outcome::Certificates(serials))?);
                Ok(changes)
            };
            let made = self.parts.authority.issue(&permit, issuer, &known, &requests, also).await?;
            Ok(made.into_iter().map(|one| one.and_then(|issued| self.certified(issued))).collect())
        };
        let result: Result<Vec<Result<Certified>>> = result.await;
        if let Ok(made) = &result {
            details.version = made.iter().flatten().next().map(|one| one.entry.version);
            details.items = made.iter().map(|one| super::item(one, details.version, None)).collect();
            let serials: Vec<_> = made.iter().flatten().map(|one| one.entry.serial.to_string()).collect();
            details = details.fact("serials", serials.join(" "));
        }
        permit.close(result, details).await
    }

    /// A permit where every name of every request is allowed, each with the subject that it stands beside. A request without names is asked
    /// about once, without.
    pub(super) async fn admit_names<O: Operation>(
        &self,
        caller: &Caller,
        issuer: &IssuerName,
        profile: &ProfileName,
        requests: &[Request],
        known: Option<&Known>,
    ) -> Result<Permit<O>> {
        let mut questions: Vec<(Option<String>, Algorithm, Subject)> = Vec::new();
        for request in requests {
            let (names, algorithm) = (request.names(known), request.key_kind().algorithm());
            let subject = request.subject(known);
            questions.extend(names.iter().map(|name: &San| (Some(name.to_string()), algorithm, subject.clone())));
            if names.is_empty() {
                questions.push((None, algorithm, subject));
            }
        }
        questions.sort();
        questions.dedup();
        let facts: Vec<_> = questions
            .iter()
            .map(|(name, algorithm, subject)| Facts {
                profile: Some(profile),
                name: name.as_deref(),
                subject: Some(subject),
                algorithm: Some(*algorithm),
                ..Facts::default()
            })
            .collect();
        self.parts.admission.admit_all(caller, &Target::named(Resource::Issuer(issuer.clone())), &facts).await
    }

    /// What a repetition gets. A key that was made with a certificate is not shown again.
    async fn issued_before(&self, issuer: &IssuerName, serials: Vec<Option<Serial>>) -> Result<Vec<Result<Certified>>> {
        let mut made = Vec::new();
        for serial in serials {
            made.push(match serial {
                Some(serial) => {
                    let entry = self.parts.authority.certificate(issuer, &serial).await?;
                    self.certified(Issued { entry, key: None })
                }
                None => Err(Error::new(Kind::Conflict, "this item failed the first time")
                    .hint("ask for it again under another idempotency key")),
            });
        }
        Ok(made)
    }

    fn certified(&self, issued: Issued) -> Result<Certified> {
        let Issued { entry, key } = issued;
        let Entry { issuer, version, serial, .. } = &entry;
        // The version of a certificate that was lost may never have come to be.
        let signed = entry.der.is_some();
        let chain = if signed { self.parts.authority.chain(issuer, *version)? } else { Vec::new() };
        let revoked = self.parts.authority.revocation(issuer, *version, serial);
        Ok(Certified { chain, revoked, entry, key })
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// `NotFound`, also for one that the caller may not know of.
    pub async fn read_certificate(&self, caller: &Caller, serial: &Serial) -> Result<Released<Certified>> {
        let (permit, entry) = self.admit_certificate::<ReadCertificate>(caller, serial, &Facts::default()).await?;
        let result = entry.and_then(|entry| self.certified(Issued { entry, key: None }));
        permit.close(result, Details::default().fact("serial", serial)).await
    }

    /// When a certificate should be renewed. Who asked for it may know; others as policies say.
    ///
    /// # Errors
    /// `NotFound`, also for one that the caller may not know of.
    pub async fn certificate_renewal(&self, caller: &Caller, serial: &Serial) -> Result<Released<Renewal>> {
        let known = self.parts.authority.find(serial).await?;
        let requested = known.map(|entry| entry.requester == caller.principal.to_string());
        let facts = Facts { requested, ..Facts::default() };
        let (permit, entry) = self.admit_certificate::<ReadRenewal>(caller, serial, &facts).await?;
        let result = entry.and_then(|entry| self.parts.authority.renewal(&entry));
        permit.close(result, Details::default().fact("serial", serial)).await
    }

    /// The span of ends that a search means: from now on where no beginning is given.
    #[must_use]
    pub fn span(&self, after: Option<Timestamp>, before: Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        let from = || after.unwrap_or_else(|| self.parts.ledger.clock().now());
        (after.is_some() || before.is_some()).then(|| (from(), before.unwrap_or(Timestamp::MAX)))
    }

    /// A page of the certificates of an issuer, of a namespace or of all, that the caller may read.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn search_certificates(&self, caller: &Caller, search: Search) -> Result<Released<CertificatePage>> {
        let resource = match (&search.issuer, &search.namespace) {
            (Some(issuer), _) => Resource::Issuer(issuer.clone()),
            (None, Some(namespace)) => Resource::Namespace(namespace.clone()),
            (None, None) => Resource::Service,
        };
        let permit = self.admit::<ListCertificates>(caller, resource).await?;
        let result = self.page(caller, search).await;
        permit.close(result, Details::default()).await
    }

    async fn page(&self, caller: &Caller, search: Search) -> Result<CertificatePage> {
        let (found, next) = self.parts.authority.search(search).await?;
        let policies = self.parts.admission.policies();
        let facts = Facts { time: Some(self.parts.ledger.clock().now()), ..Facts::default() };
        let readable = |entry: &Entry| {
            let target = Target::named(Resource::Issuer(entry.issuer.clone()));
            policies.decide(caller, Action::ReadCertificate, &target, &facts).allow
        };
        let certified = |entry| self.certified(Issued { entry, key: None });
        let certificates = found.into_iter().filter(readable).map(certified).collect::<Result<_>>()?;
        Ok(CertificatePage { certificates, next })
    }

    /// Revokes a certificate, by policy or by its key. One that is revoked already stays so, with its first time and reason.
    ///
    /// # Errors
    /// `NotFound`, also for one that the caller may not know of; `Forbidden`; `Invalid` for a proof that does not hold.
    pub async fn revoke_certificate(
        &self,
        caller: &Caller,
        serial: &Serial,
        reason: Reason,
        right: Right,
        idempotency: &Idempotency,
    ) -> Result<Released<Certified>> {
        let proven = match &right {
            Right::Policy => None,
            Right::Proof(signature) => {
                let entry = self.parts.authority.find(serial).await?;
                Some(entry.is_some_and(|entry| proves(&entry, reason, signature).unwrap_or(false)))
            }
        };
        let facts = Facts { proven, ..Facts::default() };
        let (permit, entry) = self.admit_certificate::<RevokeCertificate>(caller, serial, &facts).await?;
        let result = async {
            let entry = entry?;
            if let Err(turn) = self.once(caller, idempotency).await? {
                let also = turn.record(Outcome::Revoked(1))?;
                self.parts.authority.revoke(&permit, &entry.issuer, std::slice::from_ref(serial), reason, also).await?;
            }
            self.certified(Issued { entry, key: None })
        };
        let result = result.await;
        permit.close(result, Details::default().fact("serial", serial).fact("reason", reason)).await
    }

    /// Revokes every certificate of an issuer that is not over, or of one version of it. Answers how many.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, and those of the store.
    pub async fn revoke_certificates(
        &self,
        caller: &Caller,
        issuer: &IssuerName,
        version: Option<Version>,
        reason: Reason,
        idempotency: &Idempotency,
    ) -> Result<Released<usize>> {
        let permit = self.admit::<RevokeCertificate>(caller, Resource::Issuer(issuer.clone())).await?;
        let result = async {
            self.parts.authority.issuer(issuer)?;
            let turn = match self.once(caller, idempotency).await? {
                Ok(Outcome::Revoked(count)) => return Ok(count),
                Ok(_) => return Err(Error::internal("another outcome under this idempotency key")),
                Err(turn) => turn,
            };
            let also = |count| turn.record(Outcome::Revoked(count));
            self.parts.authority.revoke_all(&permit, issuer, version, reason, also).await
        };
        let result = result.await;
        permit.close(result, Details { version, ..Details::default() }.fact("reason", reason)).await
    }

    /// A permit for one operation on a certificate. A serial number that nobody knows, and one that the caller may not know of,
    /// have the same answer.
    async fn admit_certificate<O: Operation>(
        &self,
        caller: &Caller,
        serial: &Serial,
        facts: &Facts<'_>,
    ) -> Result<(Permit<O>, Result<Entry>)> {
        let entry = self.parts.authority.find(serial).await?;
        let known = entry.is_some();
        let resource = entry.as_ref().map_or(Resource::Service, |entry| Resource::Issuer(entry.issuer.clone()));
        let permit = self.parts.admission.admit::<O>(caller, &Target::named(resource), facts).await.map_err(
            |error| match error.kind() {
                Kind::NotFound => no_certificate(serial),
                Kind::Forbidden if !known => no_certificate(serial),
                Kind::Forbidden
                | Kind::Invalid
                | Kind::Unauthenticated
                | Kind::Conflict
                | Kind::Stale
                | Kind::State
                | Kind::Limit
                | Kind::DoesNotOpen
                | Kind::Unsupported
                | Kind::Busy
                | Kind::Unavailable
                | Kind::Tampered
                | Kind::Internal => error,
            },
        )?;
        Ok((permit, entry.ok_or_else(|| no_certificate(serial))))
    }
}

/// What is asked for.
struct Asked<'a> {
    issuer: &'a IssuerName,
    profile: &'a ProfileName,
    requests: Vec<Request>,
    idempotency: &'a Idempotency,
    also: &'a Also<'a>,
}

/// What is committed with certificates that were made.
type Also<'a> = dyn Fn(&[Option<&Entry>]) -> Result<Vec<Change>> + Send + Sync + 'a;
