//! Enrolment over TLS, in the service's words. It is issuing by a CSR, and is decided and recorded as such.

use std::collections::BTreeSet;

use super::{Certified, Idempotency, Service};
use crate::admission::Released;
use crate::auth::certificate::Claims;
use crate::ca::request::Request;
use crate::error::{Error, Kind, Result};
use crate::types::{Caller, IssuerName, ProfileName};
use crate::x509::{Certificate, Csr, KeyKind, San, Subject};

/// A certificate that is asked for by nothing but a CSR.
#[derive(Debug)]
pub struct Enrolment<'a> {
    /// Who is to sign.
    pub issuer: &'a IssuerName,
    /// What it is to look like.
    pub profile: &'a ProfileName,
    /// The key, and all that is asked for.
    pub csr: Csr,
}

impl Service {
    /// All certificates of an issuer that somebody below it may need: the anchors, its own of each version that is alive, what
    /// stands between them, and its key as others have certified it. Anybody may have them.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn issuer_certificates(&self, issuer: &IssuerName) -> Result<Vec<Vec<u8>>> {
        let authority = &self.parts.authority;
        let mut all: BTreeSet<_> = authority.bundle(issuer)?.certificates.into_iter().collect();
        for version in authority.issuer(issuer)?.versions() {
            if authority.stands(issuer, version) {
                all.insert(version.certificate()?.der().to_vec());
                all.extend(authority.chain(issuer, version.record.version)?);
                all.extend(version.record.cross.iter().map(|cross| cross.0.clone()));
            }
        }
        Ok(all.into_iter().collect())
    }

    /// The kinds of keys that an issuer certifies by a profile. Anybody may know.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn certified_keys(&self, issuer: &IssuerName, profile: &ProfileName) -> Result<Vec<KeyKind>> {
        self.parts.authority.issuer(issuer)?;
        Ok(self.parts.authority.profile(profile)?.profile.keys.clone())
    }

    /// Issues a certificate by a CSR alone: its names and its subject are what is asked for, as if they stood beside it.
    ///
    /// # Errors
    /// As [`Self::issue`]; `Invalid` for a request with a challenge password.
    pub async fn enrol_by_csr(&self, caller: &Caller, enrolment: Enrolment<'_>) -> Result<Released<Certified>> {
        let Enrolment { issuer, profile, csr } = enrolment;
        if csr.challenge_password().is_some() {
            return Err(Error::new(
                Kind::Invalid,
                "the request has a challenge password, which cannot be checked here",
            )
            .hint("leave it out: TLS 1.3 has no tls-unique for it to hold"));
        }
        let (names, subject) = (csr.sans().to_vec(), csr.subject().clone());
        let request = Request { names, subject, ..Request::by_csr(csr) };
        self.issue(caller, issuer, profile, request, &Idempotency::default()).await
    }

    /// Issues the next certificate for somebody who connected with the one that is to be replaced.
    ///
    /// "The request Subject field and SubjectAltName extension MUST be identical to the corresponding fields in the certificate
    /// being renewed/rekeyed" ([RFC 7030, 4.2.2](https://www.rfc-editor.org/rfc/rfc7030#section-4.2.2)).
    ///
    /// # Errors
    /// As [`Self::enrol_by_csr`], and `Forbidden` for a request for another subject or other names.
    pub async fn enrol_again(
        &self,
        caller: &Caller,
        current: &Claims,
        enrolment: Enrolment<'_>,
    ) -> Result<Released<Certified>> {
        let current = Certificate::parse(current.der())?;
        let same_subject = Subject::from_der(current.subject_der())? == *enrolment.csr.subject();
        let names = |sans: &[San]| sans.iter().cloned().collect::<BTreeSet<_>>();
        if !same_subject || names(current.sans()) != names(enrolment.csr.sans()) {
            return Err(Error::new(
                Kind::Forbidden,
                "the request is not for the subject and the names of the certificate that it replaces",
            )
            .hint("copy both from that certificate, or use simpleenroll"));
        }
        self.enrol_by_csr(caller, enrolment).await
    }
}
