//! Issuers of certificates.

use std::sync::Arc;

use super::{Idempotency, Outcome, Service};
use crate::admission::{Details, Permit, Released};
use crate::ca::issuer::{Issuer, IssuerUpdate, NewIssuer, Parent, close_parent};
use crate::error::Result;
use crate::policy::{Facts, Target};
use crate::types::operation::{
    CreateIssuer, ImportIssuerCertificate, ListIssuers, Operation, ReadIssuer, RotateIssuer, SignIntermediate,
    UpdateIssuer,
};
use crate::types::{Action, Caller, IssuerName, Name, Resource, Subject, Version};
use crate::x509::Certificate;

/// A page of issuers.
#[derive(Debug)]
pub struct IssuerPage {
    /// The issuers, in order of their names.
    pub issuers: Vec<Arc<Issuer>>,
    /// The last one looked at, where there may be more.
    pub next: Option<IssuerName>,
}

impl Service {
    /// Makes an issuer and its key. Below an issuer of ours, that one has to be allowed to certify it.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::create`].
    pub async fn create_issuer(
        &self,
        caller: &Caller,
        new: NewIssuer,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Issuer>>> {
        let name = new.name.clone();
        let asked = Facts { algorithm: Some(new.algorithm), ..Facts::default() };
        let target = Target::named(Resource::Issuer(name.clone()));
        let permit = self.parts.admission.admit::<CreateIssuer>(caller, &target, &asked).await?;
        let parent = self.admit_parent(caller, &new.parent, &new.subject).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return self.parts.authority.issuer(&name) };
            let also = turn.record(Outcome::Issuer(name.clone()))?;
            self.parts.authority.create(&permit, parent.as_ref(), new, also).await
        };
        let result = result.await;
        close_parent(parent, &result).await?;
        close(result, permit).await
    }

    /// Reads an issuer.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_issuer(&self, caller: &Caller, name: &IssuerName) -> Result<Released<Arc<Issuer>>> {
        let permit = self.admit::<ReadIssuer>(caller, Resource::Issuer(name.clone())).await?;
        close(self.parts.authority.issuer(name), permit).await
    }

    /// Lists the issuers that the caller may read, of one namespace or of all.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn list_issuers(
        &self,
        caller: &Caller,
        namespace: Option<Name>,
        after: Option<IssuerName>,
        limit: usize,
    ) -> Result<Released<IssuerPage>> {
        let resource_of = namespace.clone().map_or(Resource::Service, Resource::Namespace);
        let permit = self.admit::<ListIssuers>(caller, resource_of).await?;
        let found = self.parts.authority.list(namespace.as_ref(), after.as_ref(), limit);
        let next = (found.len() == limit).then(|| found.last().map(|last| last.record.name.clone())).flatten();
        let policies = self.parts.admission.policies();
        let facts = Facts { time: Some(self.parts.ledger.clock().now()), ..Facts::default() };
        let readable = |issuer: &Arc<Issuer>| {
            let target = Target::named(Resource::Issuer(issuer.record.name.clone()));
            policies.decide(caller, Action::ReadIssuer, &target, &facts).allow
        };
        let issuers = found.into_iter().filter(readable).collect();
        permit.close(Ok(IssuerPage { issuers, next }), Details::default()).await
    }

    /// Changes the rules of an issuer, or stops it.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::update`].
    pub async fn update_issuer(
        &self,
        caller: &Caller,
        name: &IssuerName,
        etag: Option<&str>,
        update: IssuerUpdate,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Issuer>>> {
        let permit = self.admit::<UpdateIssuer>(caller, Resource::Issuer(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return self.parts.authority.issuer(name) };
            let also = turn.record(Outcome::Issuer(name.clone()))?;
            self.parts.authority.update(&permit, name, etag, update, also).await
        };
        close(result.await, permit).await
    }

    /// Makes the next version of an issuer, which is published and issues nothing yet.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::prepare`].
    pub async fn rotate_issuer(
        &self,
        caller: &Caller,
        name: &IssuerName,
        expected: Option<Version>,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Issuer>>> {
        let permit = self.admit::<RotateIssuer>(caller, Resource::Issuer(name.clone())).await?;
        let parent = match self.parts.authority.issuer(name) {
            Ok(known) => self.admit_parent(caller, &known.record.parent, &known.record.subject).await?,
            Err(_) => None,
        };
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return self.parts.authority.issuer(name) };
            let also = turn.record(Outcome::Issuer(name.clone()))?;
            self.parts.authority.prepare(&permit, parent.as_ref(), name, expected, also).await
        };
        let result = result.await;
        close_parent(parent, &result).await?;
        close(result, permit).await
    }

    /// Puts a prepared version of an issuer in force.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::activate`].
    pub async fn activate_issuer(
        &self,
        caller: &Caller,
        name: &IssuerName,
        version: Version,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Issuer>>> {
        let permit = self.admit::<RotateIssuer>(caller, Resource::Issuer(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return self.parts.authority.issuer(name) };
            let also = turn.record(Outcome::Issuer(name.clone()))?;
            self.parts.authority.activate(&permit, name, version, also).await
        };
        close(result.await, permit).await
    }

    /// Takes the certificate that an outside authority made.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::import`].
    pub async fn import_issuer(
        &self,
        caller: &Caller,
        name: &IssuerName,
        chain: Vec<Certificate>,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Issuer>>> {
        let permit = self.admit::<ImportIssuerCertificate>(caller, Resource::Issuer(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return self.parts.authority.issuer(name) };
            let also = turn.record(Outcome::Issuer(name.clone()))?;
            self.parts.authority.import(&permit, name, chain, also).await
        };
        close(result.await, permit).await
    }

    /// Has `signer` certify the newest version of `name` as well.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::cross_sign`].
    pub async fn cross_sign(
        &self,
        caller: &Caller,
        name: &IssuerName,
        signer: &IssuerName,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Issuer>>> {
        let changed = self.admit::<UpdateIssuer>(caller, Resource::Issuer(name.clone())).await?;
        let subject = self.parts.authority.issuer(name).map(|known| known.record.subject.clone()).unwrap_or_default();
        let permit = self.admit_above(caller, signer, &subject).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return self.parts.authority.issuer(name) };
            let also = turn.record(Outcome::Issuer(name.clone()))?;
            self.parts.authority.cross_sign(&permit, signer, name, also).await
        };
        let result = result.await;
        close_parent(Some(permit), &result).await?;
        close(result, changed).await
    }

    /// The right to have an issuer with this subject certified by its parent, where that is an issuer of ours.
    async fn admit_parent(
        &self,
        caller: &Caller,
        parent: &Parent,
        subject: &Subject,
    ) -> Result<Option<Permit<SignIntermediate>>> {
        match parent {
            Parent::Issuer(above) => Ok(Some(self.admit_above(caller, above, subject).await?)),
            Parent::Itself | Parent::Outside => Ok(None),
        }
    }

    async fn admit_above(
        &self,
        caller: &Caller,
        above: &IssuerName,
        subject: &Subject,
    ) -> Result<Permit<SignIntermediate>> {
        let facts = Facts { subject: Some(subject), ..Facts::default() };
        self.parts.admission.admit(caller, &Target::named(Resource::Issuer(above.clone())), &facts).await
    }
}

/// Closes an operation that answers with an issuer.
async fn close<O: Operation>(result: Result<Arc<Issuer>>, permit: Permit<O>) -> Result<Released<Arc<Issuer>>> {
    let newest = |issuer: &Arc<Issuer>| issuer.versions().last().map(|version| version.record.version);
    let version = result.as_ref().ok().and_then(newest);
    permit.close(result, Details { version, ..Details::default() }).await
}
