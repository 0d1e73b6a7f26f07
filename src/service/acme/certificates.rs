//! Where ACME meets the authority: certificates are issued, shown, renewed and revoked.

use super::{Account, Endpoint, Id, Opened, Order, OrderState, ProblemKind, Recorded, Signer, of, put, refuse};
use crate::admission::{Details, Permit, Released};
use crate::ca::acme::{AuthorizationState, CertificateId, Holding, Identifier};
use crate::ca::inventory::Entry;
use crate::ca::renewal::Renewal;
use crate::ca::request::Request;
use crate::error::{Error, Kind, Result};
use crate::policy::{Facts, Target};
use crate::service::Service;
use crate::store::Expected;
use crate::types::operation::{RevokeCertificate, UseAcme};
use crate::types::{Caller, Credential, EndpointName, Resource};
use crate::x509::crl::Reason;
use crate::x509::{Certificate, Csr, San, Serial};

/// A certificate that is to be revoked.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// In DER.
    pub certificate: Vec<u8>,
    /// The code of the reason ([RFC 5280, 5.3.1](https://www.rfc-editor.org/rfc/rfc5280#section-5.3.1)).
    pub reason: Option<u8>,
}

impl Service {
    /// Issues the certificate of an order that is being processed; the order has it in the same commit, so there is one certificate,
    /// whoever asks how often and whatever crashes in between. What fails for the moment leaves the order as it is: it is tried again
    /// when the order is read, until the order ends.
    pub(super) async fn acme_issue(
        &self,
        permit: &Permit<UseAcme>,
        endpoint: &Endpoint,
        caller: &Caller,
        mut order: Order,
        revision: u64,
    ) -> Result<Order> {
        let issued = match order.due(self.parts.ledger.clock().now()) {
            None => return Ok(order),
            Some(Err(late)) => Err(late),
            Some(Ok(csr)) => match self.acme_certify(endpoint, caller, &order, csr, revision).await {
                Err(error) if matches!(error.kind(), Kind::Busy | Kind::Unavailable) => {
                    tracing::warn!(order = %order.id, cause = error.chain(), "a certificate is to be issued later");
                    return Ok(order);
                }
                Err(error) if matches!(error.kind(), Kind::Internal | Kind::Tampered) => {
                    tracing::error!(order = %order.id, cause = error.chain(), "a certificate was not issued");
                    Err(Recorded::from(&error))
                }
                issued => issued.map_err(|error| Recorded::from(&error)),
            },
        };
        let refused = issued.is_err();
        order.issued(issued);
        if refused {
            let path = Order::path(&endpoint.name, order.account, order.id);
            let change = put(path, Expected::Revision(revision), &order)?;
            self.acme_commit(permit, &of(&order, "certificate refused"), vec![change]).await?;
        }
        Ok(order)
    }

    async fn acme_certify(
        &self,
        endpoint: &Endpoint,
        caller: &Caller,
        order: &Order,
        csr: &[u8],
        revision: u64,
    ) -> Result<Serial> {
        let mut request = Request::by_csr(Csr::parse(csr)?);
        request.names = order.identifiers.iter().map(Identifier::san).collect();
        let also = |made: &[Option<&Entry>]| {
            let mut changes = Vec::new();
            for entry in made.iter().flatten() {
                let mut done = order.clone();
                done.issued(Ok(entry.serial));
                let path = Order::path(&endpoint.name, order.account, order.id);
                changes.push(put(path, Expected::Revision(revision), &done)?);
                let path = Holding::path(&endpoint.name, &entry.serial.to_string());
                changes.push(put(path, Expected::Absent, &Holding::new(order.account, order.id))?);
            }
            Ok(changes)
        };
        let made = self.issue_with(caller, &endpoint.issuer, &order.profile, request, &also).await?;
        Ok(made.into_inner().entry.serial)
    }

    /// The chains of the certificate of an order, each a leaf and what is above it, in PEM; the usual one first.
    ///
    /// # Errors
    /// `NotFound` where the order has no certificate.
    pub async fn acme_chains(&self, opened: &Opened, id: Id) -> Result<Released<Vec<String>>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let result = async {
            let none = || Error::new(Kind::NotFound, "the order has no certificate");
            let path = Order::path(&opened.endpoint.name, account.id, id);
            let (order, _) = self.acme_read::<Order>(path).await?.ok_or_else(none)?;
            let serial = order.certificate.as_deref().filter(|_| order.state == OrderState::Valid).ok_or_else(none)?;
            let entry = self.parts.authority.find(&serial.parse()?).await?.ok_or_else(none)?;
            self.acme_chains_of(&entry)
        };
        let result = result.await;
        permit.close(result, Details::default().fact("acme", "certificate read").fact("order", id)).await
    }

    fn acme_chains_of(&self, entry: &Entry) -> Result<Vec<String>> {
        let authority = &self.parts.authority;
        let leaf = entry.certificate()?;
        let pem = |chain: &[&[u8]]| -> Result<String> {
            chain
                .iter()
                .map(|der| Certificate::parse(der)?.to_pem())
                .collect::<Result<Vec<_>>>()
                .map(|all| all.concat())
        };
        let issuer = authority.issuer(&entry.issuer)?;
        let version = issuer.version(entry.version)?;
        let mut above = authority.chain(&entry.issuer, entry.version)?;
        if above.is_empty() {
            // The issuer is a root. Clients have it, or should not believe us; but certbot refuses a chain of one.
            above.push(version.certificate()?.der().to_vec());
        }
        let usual: Vec<&[u8]> = std::iter::once(leaf).chain(above.iter().map(Vec::as_slice)).collect();
        // Each other certificate of the issuer's key is another way up.
        let others = version.record.cross.iter().map(|cross| pem(&[leaf, &cross.0]));
        std::iter::once(pem(&usual)).chain(others).collect()
    }

    /// When to renew a certificate. Everybody may ask: who knows its names sees its times.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn acme_renewal(&self, endpoint: &EndpointName, id: &CertificateId) -> Result<Renewal> {
        let endpoint = self.acme_endpoint(endpoint).await?;
        let (entry, _) = self.acme_identified(&endpoint, id).await?;
        self.parts.authority.renewal(&entry)
    }

    /// The certificate of the endpoint's issuer that has this name: all of it counts, key identifier and serial number.
    pub(super) async fn acme_identified(
        &self,
        endpoint: &Endpoint,
        id: &CertificateId,
    ) -> Result<(Entry, Certificate)> {
        let none = || Error::new(Kind::NotFound, "there is no such certificate here");
        let entry = self.parts.authority.find(&id.serial).await?;
        let entry = entry.filter(|entry| entry.issuer == endpoint.issuer).ok_or_else(none)?;
        let certificate = Certificate::parse(entry.certificate().map_err(|_| none())?)?;
        if certificate.authority_key_id() != Some(id.authority.as_slice()) {
            return Err(none());
        }
        Ok((entry, certificate))
    }

    /// Revokes a certificate, for its account, for an account that controls all of its names, or for its own key
    /// ([RFC 8555, 7.6](https://www.rfc-editor.org/rfc/rfc8555#section-7.6)).
    ///
    /// # Errors
    /// `unauthorized`, `alreadyRevoked`, `badRevocationReason`.
    pub async fn acme_revoke(&self, opened: &Opened, revocation: Revocation) -> Result<Released<()>> {
        let Revocation { certificate: der, reason } = revocation;
        let issuer = &opened.endpoint.issuer;
        let (entry, caller) = match self.acme_revoker(opened, &der).await {
            Ok(found) => found,
            Err(refused) => return self.acme_refuse(opened, "a revocation", refused).await,
        };
        let facts = Facts { proven: Some(true), ..Facts::default() };
        let target = Target::named(Resource::Issuer(issuer.clone()));
        let permit = self.parts.admission.admit::<RevokeCertificate>(&caller, &target, &facts).await?;
        let result = async {
            // Only what a subscriber can know of: not that an authority fell, nor that a list is no more.
            let reason = Reason::from_code(reason.unwrap_or(0)).filter(|reason| matches!(reason.code(), 0 | 1 | 3..=5));
            let reason = reason.ok_or_else(|| {
                refuse(ProblemKind::BadRevocationReason, "the reasons that a client can give are 0, 1, 3, 4 and 5")
            })?;
            let revoked = self.parts.authority.revoke(&permit, issuer, &[entry.serial], reason, None).await?;
            if revoked == 0 {
                return Err(refuse(ProblemKind::AlreadyRevoked, "the certificate is revoked already"));
            }
            Ok(())
        };
        let result = result.await;
        permit.close(result, Details::default().fact("acme", "certificate revoked").fact("serial", entry.serial)).await
    }

    /// The certificate with these bytes, and who revokes it.
    async fn acme_revoker(&self, opened: &Opened, der: &[u8]) -> Result<(Entry, Caller)> {
        let malformed = |e: Error| refuse(ProblemKind::Malformed, e.public().to_owned());
        let certificate = Certificate::parse(der).map_err(malformed)?;
        let entry = self.parts.authority.find(certificate.serial()).await?;
        let here = |entry: &Entry| entry.issuer == opened.endpoint.issuer && entry.der.as_deref() == Some(der);
        let none = || Error::new(Kind::NotFound, "there is no such certificate here");
        let entry = entry.filter(here).ok_or_else(none)?;
        let caller = self.acme_may_revoke(opened, &certificate, &entry).await?;
        Ok((entry, caller))
    }

    async fn acme_may_revoke(&self, opened: &Opened, certificate: &Certificate, entry: &Entry) -> Result<Caller> {
        let refused =
            || refuse(ProblemKind::Unauthorized, "neither this account nor this key may revoke the certificate");
        match &opened.signer {
            Signer::Key(key) if &key.public == certificate.public_key() => {
                let mut caller = Caller::system("acme", opened.request_id.clone());
                caller.credential = Credential::Certificate(entry.fingerprint());
                caller.address = opened.address;
                Ok(caller)
            }
            Signer::Key(_) => Err(refused()),
            Signer::Account(account, caller) => {
                let path = Holding::path(&opened.endpoint.name, &entry.serial.to_string());
                let holding = self.acme_read::<Holding>(path).await?;
                let own = holding.is_some_and(|(holding, _)| holding.account == account.id);
                if own || self.acme_controls(&opened.endpoint, account, certificate.sans()).await? {
                    return Ok(caller.clone());
                }
                Err(refused())
            }
        }
    }

    /// Whether an account has shown control of all of `names`, and still counts as having it.
    async fn acme_controls(&self, endpoint: &Endpoint, account: &Account, names: &[San]) -> Result<bool> {
        let now = self.parts.ledger.clock().now();
        let mut shown = std::collections::HashSet::new();
        for mut order in self.acme_scan::<Order>(Order::folder(&endpoint.name, account.id)).await? {
            order.look_at(now);
            for (authorization, name) in order.authorizations.iter().zip(&order.identifiers) {
                if authorization.state == AuthorizationState::Valid {
                    shown.insert(name.san());
                }
            }
        }
        Ok(!names.is_empty() && names.iter().all(|name| shown.contains(name)))
    }
}
