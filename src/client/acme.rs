//! ACME endpoints and binding keys, for those who run them.

use http::Method;

use super::{Client, PageRequest};
use crate::error::Result;
use crate::types::EndpointName;
use crate::wire::{AcmeEndpoint, CreateAcmeEndpoint, CreateEabKey, EabKeyCreated, EabKeyInfo, Page};

impl Client {
    /// Makes an ACME endpoint.
    pub async fn create_acme_endpoint(&self, body: &CreateAcmeEndpoint) -> Result<AcmeEndpoint> {
        self.json(self.api(Method::POST, &["acme", "endpoints"]).body(body)?.change()?).await
    }

    /// Lists ACME endpoints.
    pub async fn acme_endpoints(&self, page: &PageRequest) -> Result<Page<AcmeEndpoint>> {
        self.json(self.api(Method::GET, &["acme", "endpoints"]).page(page)).await
    }

    /// Reads an ACME endpoint.
    pub async fn acme_endpoint(&self, name: &EndpointName) -> Result<AcmeEndpoint> {
        self.json(self.api(Method::GET, &["acme", "endpoints", &name.to_string()])).await
    }

    /// Removes an ACME endpoint, with its accounts and orders.
    pub async fn delete_acme_endpoint(&self, name: &EndpointName) -> Result<()> {
        let call = self.api(Method::DELETE, &["acme", "endpoints", &name.to_string()]);
        self.bytes(call.change()?).await.map(drop)
    }

    /// Makes a key that binds ACME accounts to an identity.
    pub async fn create_eab_key(&self, endpoint: &EndpointName, body: &CreateEabKey) -> Result<EabKeyCreated> {
        let call = self.api(Method::POST, &["acme", "endpoints", &endpoint.to_string(), "eab-keys"]);
        self.json(call.body(body)?.change()?).await
    }

    /// Lists the binding keys of an endpoint.
    pub async fn eab_keys(&self, endpoint: &EndpointName, page: &PageRequest) -> Result<Page<EabKeyInfo>> {
        let call = self.api(Method::GET, &["acme", "endpoints", &endpoint.to_string(), "eab-keys"]);
        self.json(call.page(page)).await
    }

    /// Revokes a binding key.
    pub async fn revoke_eab_key(&self, endpoint: &EndpointName, id: &str) -> Result<EabKeyInfo> {
        let id = super::system::token_id(id)?;
        let call = self.api(Method::DELETE, &["acme", "endpoints", &endpoint.to_string(), "eab-keys", id]);
        self.json(call.change()?).await
    }
}
