//! Tokens, identities, policies, audit, status.

use reqwest::Method;

use super::{Client, Download, PageRequest};
use crate::error::{Error, Kind, Result};
use crate::types::Name;
use crate::wire::{
    AuditConsistency, AuditHead, AuditProof, AuditPruned, AuditRecords, CreateToken, Explain, Explanation, Identity,
    Page, Policy, PruneAudit, Status, TokenCreated, TokenInfo, WhoAmI,
};

impl Client {
    /// Makes a token. Where the first answer was lost on the way, the repeated one has no secret: revoke and make another.
    pub async fn create_token(&self, body: &CreateToken) -> Result<TokenCreated> {
        self.json(self.api(Method::POST, &["tokens"]).body(body)?.change()?).await
    }

    /// Lists tokens.
    pub async fn tokens(&self, page: &PageRequest) -> Result<Page<TokenInfo>> {
        self.json(self.api(Method::GET, &["tokens"]).page(page)).await
    }

    /// Reads a token by its public id.
    pub async fn token(&self, id: &str) -> Result<TokenInfo> {
        self.json(self.api(Method::GET, &["tokens", token_id(id)?])).await
    }

    /// Revokes a token by its public id.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenInfo> {
        self.json(self.api(Method::DELETE, &["tokens", token_id(id)?]).change()?).await
    }

    /// Asks who the server takes this client for.
    pub async fn whoami(&self) -> Result<WhoAmI> {
        self.json(self.api(Method::GET, &["whoami"])).await
    }

    /// Stores an identity.
    pub async fn put_identity(&self, name: &Name, body: &Identity) -> Result<Identity> {
        self.json(self.api(Method::PUT, &["identities", name.as_str()]).body(body)?.change()?).await
    }

    /// Reads an identity.
    pub async fn identity(&self, name: &Name) -> Result<Identity> {
        self.json(self.api(Method::GET, &["identities", name.as_str()])).await
    }

    /// Lists identities.
    pub async fn identities(&self, page: &PageRequest) -> Result<Page<Identity>> {
        self.json(self.api(Method::GET, &["identities"]).page(page)).await
    }

    /// Removes an identity.
    pub async fn delete_identity(&self, name: &Name) -> Result<()> {
        self.bytes(self.api(Method::DELETE, &["identities", name.as_str()]).change()?).await.map(drop)
    }

    /// Stores a policy; over an existing one only where it still has the ETag.
    pub async fn put_policy(&self, name: &Name, etag: Option<&str>, body: &Policy) -> Result<Policy> {
        let mut call = self.api(Method::PUT, &["policies", name.as_str()]).body(body)?.change()?;
        if let Some(etag) = etag {
            call = call.if_match(etag)?;
        }
        self.json(call).await
    }

    /// Reads a policy.
    pub async fn policy(&self, name: &Name) -> Result<Policy> {
        self.json(self.api(Method::GET, &["policies", name.as_str()])).await
    }

    /// Lists policies.
    pub async fn policies(&self, page: &PageRequest) -> Result<Page<Policy>> {
        self.json(self.api(Method::GET, &["policies"]).page(page)).await
    }

    /// Removes a policy.
    pub async fn delete_policy(&self, name: &Name) -> Result<()> {
        self.bytes(self.api(Method::DELETE, &["policies", name.as_str()]).change()?).await.map(drop)
    }

    /// Asks why somebody may, or may not.
    pub async fn explain(&self, body: &Explain) -> Result<Explanation> {
        self.json(self.api(Method::POST, &["policies", "explain"]).body(body)?).await
    }

    /// Reads audit records from index `first` on.
    pub async fn audit_records(&self, first: u64, limit: Option<u32>) -> Result<AuditRecords> {
        let call = self.api(Method::GET, &["audit", "records"]).query("first", Some(first)).query("limit", limit);
        self.json(call).await
    }

    /// Reads the newest signed head of the audit log.
    pub async fn audit_head(&self) -> Result<AuditHead> {
        self.json(self.api(Method::GET, &["audit", "head"])).await
    }

    /// Reads a record of the audit log with the proof that it is in it.
    pub async fn audit_proof(&self, index: u64) -> Result<AuditProof> {
        self.json(self.api(Method::GET, &["audit", "records", &index.to_string(), "proof"])).await
    }

    /// Reads the proof that the log of the first `old` records is the beginning of the one below the newest head.
    pub async fn audit_consistency(&self, old: u64) -> Result<AuditConsistency> {
        self.json(self.api(Method::GET, &["audit", "heads", &old.to_string(), "consistency"])).await
    }

    /// Has records removed from the audit log that its archive holds.
    pub async fn audit_prune(&self, body: &PruneAudit) -> Result<AuditPruned> {
        self.json(self.api(Method::POST, &["audit", "prune"]).body(body)?).await
    }

    /// Reads a resource of the tiled log: `checkpoint`, or a tile such as `tile/0/x001/234`.
    pub async fn audit_resource(&self, path: &str) -> Result<Vec<u8>> {
        let segments: Vec<_> = ["audit", "log"].into_iter().chain(path.split('/')).collect();
        Ok(self.bytes(self.api(Method::GET, &segments)).await?.to_vec())
    }

    /// Reads the state of the service.
    pub async fn status(&self) -> Result<Status> {
        self.json(self.api(Method::GET, &["status"])).await
    }

    /// Reads the metrics, in the text form of Prometheus.
    pub async fn metrics(&self) -> Result<String> {
        self.text(self.api(Method::GET, &["metrics"])).await
    }

    /// Takes a backup: a tar archive whose first entry is `manifest.json`. It is not tried again by itself, because it is
    /// dear and half of it may already be written.
    pub async fn backup(&self) -> Result<Download> {
        self.download(self.api(Method::POST, &["backup"]).once()).await
    }

    /// Reads the OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value> {
        self.json(self.api(Method::GET, &["openapi.json"])).await
    }

    /// Whether the process runs. Needs no credential.
    pub async fn live(&self) -> Result<()> {
        self.bytes(self.root(Method::GET, &["health", "live"]).once()).await.map(drop)
    }

    /// Whether the service serves everything it should. Needs no credential.
    pub async fn ready(&self) -> Result<()> {
        self.bytes(self.root(Method::GET, &["health", "ready"]).once()).await.map(drop)
    }

    /// Reads the public keys of the domain `jwt` as a JWK set. Needs no credential.
    pub async fn jwks(&self) -> Result<serde_json::Value> {
        self.json(self.root(Method::GET, &[".well-known", "jwks.json"])).await
    }
}

/// What cannot be an id is not sent: an address drops the segments `.` and `..`, and the rest would be another route.
pub(super) fn token_id(id: &str) -> Result<&str> {
    let good = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    good.then_some(id).ok_or_else(|| {
        Error::new(Kind::Invalid, "not the id of a token")
            .hint("signet token list shows the ids; an id is not the secret")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_segment() {
        assert!(token_id("1f00-a_b").is_ok());
        for bad in ["", "..", ".", "a/b", "a b", "é"] {
            assert!(token_id(bad).is_err(), "{bad}");
        }
    }
}
