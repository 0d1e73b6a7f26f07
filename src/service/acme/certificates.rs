//! Where ACME meets the authority: certificates are issued, shown, renewed and revoked.

use super::{Endpoint, Id, Opened, Order};
use crate::admission::Released;
use crate::ca::acme::CertificateId;
use crate::ca::acme::renewal::Window;
use crate::error::{Error, Kind, Result};
use crate::service::Service;
use crate::types::{Caller, EndpointName};

/// When a certificate should be renewed, and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// When to renew.
    pub window: Window,
    /// When to ask again.
    pub ask_again: std::time::Duration,
}

/// A certificate that is to be revoked.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// In DER.
    pub certificate: Vec<u8>,
    /// The code of the reason ([RFC 5280, 5.3.1](https://www.rfc-editor.org/rfc/rfc5280#section-5.3.1)).
    pub reason: Option<u8>,
}

fn missing() -> Error {
    Error::new(Kind::Unsupported, "this service issues no certificates yet")
}

impl Service {
    /// Issues the certificate of an order that is being processed. What fails for the moment leaves the order as it is: it is
    /// tried again when the order is read.
    pub(super) async fn acme_issue(&self, _: &Endpoint, _: &Caller, order: Order, _: u64) -> Result<Order> {
        Ok(order)
    }

    /// The chains of the certificate of an order, each a leaf and what is above it, in PEM; the usual one first.
    ///
    /// # Errors
    /// `NotFound` where the order has no certificate.
    pub async fn acme_chains(&self, _: &Opened, _: Id) -> Result<Released<Vec<String>>> {
        Err(missing())
    }

    /// When to renew a certificate. Everybody may ask: who knows its names sees its times.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn acme_renewal(&self, _: &EndpointName, _: &CertificateId) -> Result<Renewal> {
        Err(missing())
    }

    /// Revokes a certificate, for its account, for an account that controls all of its names, or for its own key.
    ///
    /// # Errors
    /// `unauthorized`, `alreadyRevoked`, `badRevocationReason`.
    pub async fn acme_revoke(&self, _: &Opened, _: Revocation) -> Result<Released<()>> {
        Err(missing())
    }
}
