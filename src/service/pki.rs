//! What relying parties fetch. Anybody may, so there is no caller and no permit: what is given out is public and signed, and what
//! has to be signed for it is admitted and recorded by the engine.

use jiff::Timestamp;

use super::Service;
use crate::ca::published::Published;
use crate::ca::status::StatusAnswer;
use crate::error::Result;
use crate::types::{IssuerName, Version};

impl Service {
    /// The time by which what is published is fresh.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.parts.ledger.clock().now()
    }

    /// The revocation list of a version of an issuer.
    ///
    /// # Errors
    /// `NotFound`, and `Unavailable` where none can be signed.
    pub async fn revocation_list(&self, issuer: &IssuerName, version: Version) -> Result<Published> {
        self.status.list(issuer, version).await
    }

    /// The certificate of a version of an issuer, in DER.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn issuer_certificate(&self, issuer: &IssuerName, version: Version) -> Result<Published> {
        self.parts.authority.published_certificate(issuer, version)
    }

    /// The certificates that those who trust an issuer should trust, in PEM.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn trust_bundle(&self, issuer: &IssuerName) -> Result<Published> {
        self.parts.authority.published_bundle(issuer)
    }

    /// The same as a SPIFFE bundle.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn spiffe_bundle(&self, issuer: &IssuerName) -> Result<Published> {
        self.parts.authority.published_spiffe_bundle(issuer)
    }

    /// Answers an OCSP request.
    ///
    /// # Errors
    /// `NotFound` for an issuer that does not exist; all else is an answer.
    pub async fn certificate_status(&self, issuer: &IssuerName, request: &[u8]) -> Result<StatusAnswer> {
        self.status.answer(issuer, request).await
    }
}
