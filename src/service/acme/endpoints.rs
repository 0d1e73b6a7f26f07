//! Endpoints: made, shown and removed by administrators.

use super::{Endpoint, Speaker, no_endpoint, put};
use crate::admission::{Details, Released};
use crate::error::{Error, Kind, Result};
use crate::service::tokens::check_groups;
use crate::service::{Idempotency, Outcome, Service};
use crate::store::{Change, Expected};
use crate::types::operation::{CreateToken, DeleteAcmeEndpoint, ReadAcmeEndpoint, WriteAcmeEndpoint};
use crate::types::{Caller, EndpointName, IssuerName, Name, ProfileName, Resource};

impl Service {
    /// An endpoint with the usual rules, made now.
    #[must_use]
    pub fn new_acme_endpoint(&self, name: EndpointName, issuer: IssuerName, profiles: Vec<ProfileName>) -> Endpoint {
        Endpoint::new(name, issuer, profiles, self.parts.ledger.clock().now())
    }

    /// Who lets others speak for an identity must be one who may make tokens for it.
    pub(super) async fn may_speak_for(&self, caller: &Caller, speaker: &Speaker) -> Result<()> {
        check_groups(caller, &speaker.groups)?;
        let permit = self.admit::<CreateToken>(caller, Resource::Identity(speaker.identity.clone())).await?;
        permit.close(Ok(()), Details::default().fact("for", "ACME accounts")).await.map(Released::into_inner)
    }

    /// Makes an endpoint.
    ///
    /// # Errors
    /// `Conflict` where there is one of that name, `Invalid` for one that makes no sense, `Forbidden` for groups that the caller
    /// is not in.
    pub async fn create_acme_endpoint(
        &self,
        caller: &Caller,
        endpoint: Endpoint,
        idempotency: &Idempotency,
    ) -> Result<Released<Endpoint>> {
        let name = endpoint.name.clone();
        let permit = self.admit::<WriteAcmeEndpoint>(caller, Resource::AcmeEndpoint(name.clone())).await?;
        let details = || Details::default().fact("issuer", &endpoint.issuer);
        let result = async {
            endpoint.check()?;
            if let Some(speaker) = &endpoint.open_to {
                self.may_speak_for(caller, speaker).await?;
            }
            let Err(turn) = self.once(caller, idempotency).await? else { return self.acme_endpoint(&name).await };
            let mut changes = vec![put(Endpoint::path(&name), Expected::Absent, &endpoint)?];
            changes.extend(turn.record(Outcome::AcmeEndpoint(name.clone()))?);
            let taken = |e: Error| {
                if e.kind() == Kind::Conflict {
                    return Error::new(Kind::Conflict, format!("there is an ACME endpoint {name} already"));
                }
                e
            };
            self.acme_commit(&permit, &details(), changes).await.map_err(taken)?;
            Ok(endpoint.clone())
        };
        let result = result.await;
        permit.close(result, details()).await
    }

    /// Reads an endpoint.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_acme_endpoint(&self, caller: &Caller, name: &EndpointName) -> Result<Released<Endpoint>> {
        let permit = self.admit::<ReadAcmeEndpoint>(caller, Resource::AcmeEndpoint(name.clone())).await?;
        let found = self.acme_endpoint(name).await;
        permit.close(found, Details::default()).await
    }

    /// Lists the endpoints of a namespace, or of all.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn list_acme_endpoints(
        &self,
        caller: &Caller,
        namespace: Option<&Name>,
    ) -> Result<Released<Vec<Endpoint>>> {
        let resource = namespace.map_or(Resource::Service, |namespace| Resource::Namespace(namespace.clone()));
        let permit = self.admit::<ReadAcmeEndpoint>(caller, resource).await?;
        let folder = namespace.map_or_else(|| "acme/".to_owned(), |namespace| format!("acme/{namespace}/"));
        let all = self.acme_endpoints(folder).await;
        permit.close(all, Details::default()).await
    }

    /// The endpoints of a folder; of what else stands there nothing is opened.
    pub(super) async fn acme_endpoints(&self, folder: String) -> Result<Vec<Endpoint>> {
        let store = self.parts.ledger.store();
        super::blocking(move || {
            let paths = store.paths(&folder)?.into_iter().filter(|path| path.ends_with("/endpoint"));
            let records = paths.filter_map(|path| store.get(&path).transpose());
            records.map(|record| Ok(super::parse(&record?)?.0)).collect()
        })
        .await
    }

    /// Removes an endpoint, with its accounts, orders and binding keys. Certificates stay as they are.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_acme_endpoint(
        &self,
        caller: &Caller,
        name: &EndpointName,
        idempotency: &Idempotency,
    ) -> Result<Released<()>> {
        let permit = self.admit::<DeleteAcmeEndpoint>(caller, Resource::AcmeEndpoint(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return Ok(()) };
            let folder = format!("{}/", Endpoint::folder(name));
            let store = self.parts.ledger.store();
            let records = super::blocking(move || store.scan(&folder)).await?;
            if records.is_empty() {
                return Err(no_endpoint(name));
            }
            let mut changes: Vec<_> = records
                .into_iter()
                .map(|record| Change { path: record.path, expected: Expected::Any, value: None })
                .collect();
            changes.extend(turn.record(Outcome::AcmeEndpoint(name.clone()))?);
            self.acme_commit(&permit, &Details::default(), changes).await?;
            Ok(())
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }
}
