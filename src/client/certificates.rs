//! Issuers, profiles and certificates.

use jiff::Timestamp;
use reqwest::Method;

use super::{Client, PageRequest};
use crate::error::Result;
use crate::types::{IssuerName, Name, ProfileName};
use crate::wire::{
    ActivateIssuer, Announce, Announcement, BatchResults, Certificate, CreateIssuer, CrossSign, ImportIssuer,
    IssueCertificate, IssueCertificates, Issuer, Page, Profile, Renewal, RevokeCertificate, RevokeCertificates,
    RevokedCount, RotateIssuer, UpdateIssuer,
};

/// Which certificates are looked for; all conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct CertificateQuery {
    /// Of this issuer.
    pub issuer: Option<IssuerName>,
    /// Of the issuers of this namespace.
    pub namespace: Option<Name>,
    /// From this profile.
    pub profile: Option<String>,
    /// Asked for by this one, as in the audit log.
    pub requester: Option<String>,
    /// With this name, as `dns:web.example.com`.
    pub name: Option<String>,
    /// That end before this time.
    pub expires_before: Option<Timestamp>,
    /// That end at this time or later; now, where only the other is given.
    pub expires_after: Option<Timestamp>,
}

impl Client {
    /// Makes an issuer, its key and its first certificate or request.
    pub async fn create_issuer(&self, body: &CreateIssuer) -> Result<Issuer> {
        self.json(self.api(Method::POST, &["issuers"]).body(body)?.change()?).await
    }

    /// Lists issuers, of one namespace or of all that the caller may see.
    pub async fn issuers(&self, namespace: Option<&Name>, page: &PageRequest) -> Result<Page<Issuer>> {
        self.json(self.api(Method::GET, &["issuers"]).query("namespace", namespace).page(page)).await
    }

    /// Reads an issuer.
    pub async fn issuer(&self, issuer: &IssuerName) -> Result<Issuer> {
        self.json(self.api(Method::GET, &["issuers", &issuer.to_string()])).await
    }

    /// Changes an issuer that still has this ETag.
    pub async fn update_issuer(&self, issuer: &IssuerName, etag: &str, body: &UpdateIssuer) -> Result<Issuer> {
        let path = ["issuers", &issuer.to_string()];
        self.json(self.api(Method::PATCH, &path).if_match(etag)?.body(body)?.change()?).await
    }

    /// Makes the next version of an issuer.
    pub async fn rotate_issuer(&self, issuer: &IssuerName, body: &RotateIssuer) -> Result<Issuer> {
        self.json(self.api(Method::POST, &["issuers", &issuer.to_string(), "rotate"]).body(body)?.change()?).await
    }

    /// Puts a prepared version of an issuer in force.
    pub async fn activate_issuer(&self, issuer: &IssuerName, body: &ActivateIssuer) -> Result<Issuer> {
        self.json(self.api(Method::POST, &["issuers", &issuer.to_string(), "activate"]).body(body)?.change()?).await
    }

    /// Gives an issuer the certificate that an outside authority made for it.
    pub async fn import_issuer(&self, issuer: &IssuerName, body: &ImportIssuer) -> Result<Issuer> {
        self.json(self.api(Method::POST, &["issuers", &issuer.to_string(), "import"]).body(body)?.change()?).await
    }

    /// Has another issuer certify the newest version of this one as well.
    pub async fn cross_sign(&self, issuer: &IssuerName, body: &CrossSign) -> Result<Issuer> {
        self.json(self.api(Method::POST, &["issuers", &issuer.to_string(), "cross-sign"]).body(body)?.change()?).await
    }

    /// Announces what will become of certificates of an issuer.
    pub async fn announce(&self, issuer: &IssuerName, body: &Announce) -> Result<Announcement> {
        let path = ["issuers", &issuer.to_string(), "announcements"];
        self.json(self.api(Method::POST, &path).body(body)?.change()?).await
    }

    /// Lists the announcements of an issuer.
    pub async fn announcements(&self, issuer: &IssuerName, page: &PageRequest) -> Result<Page<Announcement>> {
        self.json(self.api(Method::GET, &["issuers", &issuer.to_string(), "announcements"]).page(page)).await
    }

    /// Takes an announcement back before its time.
    pub async fn cancel_announcement(&self, issuer: &IssuerName, id: &str) -> Result<()> {
        let path = ["issuers", &issuer.to_string(), "announcements", id];
        self.bytes(self.api(Method::DELETE, &path).change()?).await.map(drop)
    }

    /// Reads the certificates that those who trust an issuer should trust, in PEM. Needs no credential.
    pub async fn trust_bundle(&self, issuer: &IssuerName) -> Result<String> {
        let path = ["pki", issuer.namespace.as_str(), issuer.name.as_str(), "bundle.pem"];
        self.text(self.root(Method::GET, &path)).await
    }

    /// Lists profiles, of one namespace or of all that the caller may see.
    pub async fn profiles(&self, namespace: Option<&Name>, page: &PageRequest) -> Result<Page<Profile>> {
        self.json(self.api(Method::GET, &["profiles"]).query("namespace", namespace).page(page)).await
    }

    /// Reads a profile.
    pub async fn profile(&self, profile: &ProfileName) -> Result<Profile> {
        self.json(self.api(Method::GET, &["profiles", &profile.to_string()])).await
    }

    /// Stores a profile; over an existing one only where it still has the ETag.
    pub async fn put_profile(&self, profile: &ProfileName, etag: Option<&str>, body: &Profile) -> Result<Profile> {
        let mut call = self.api(Method::PUT, &["profiles", &profile.to_string()]).body(body)?.change()?;
        if let Some(etag) = etag {
            call = call.if_match(etag)?;
        }
        self.json(call).await
    }

    /// Removes a profile.
    pub async fn delete_profile(&self, profile: &ProfileName) -> Result<()> {
        self.bytes(self.api(Method::DELETE, &["profiles", &profile.to_string()]).change()?).await.map(drop)
    }

    /// Issues a certificate. Where the first answer was lost on the way, the repeated one has no private key.
    pub async fn issue(&self, issuer: &IssuerName, body: &IssueCertificate) -> Result<Certificate> {
        self.json(self.api(Method::POST, &["issuers", &issuer.to_string(), "issue"]).body(body)?.change()?).await
    }

    /// Issues many certificates.
    pub async fn issue_batch(
        &self,
        issuer: &IssuerName,
        body: &IssueCertificates,
    ) -> Result<BatchResults<Certificate>> {
        let path = ["issuers", &issuer.to_string(), "issue-batch"];
        self.json(self.api(Method::POST, &path).body(body)?.change()?).await
    }

    /// Reads a certificate by its serial number.
    pub async fn certificate(&self, serial: &str) -> Result<Certificate> {
        self.json(self.api(Method::GET, &["certificates", serial])).await
    }

    /// Reads when a certificate should be renewed.
    pub async fn renewal(&self, serial: &str) -> Result<Renewal> {
        self.json(self.api(Method::GET, &["certificates", serial, "renewal"])).await
    }

    /// Searches certificates.
    pub async fn certificates(&self, query: &CertificateQuery, page: &PageRequest) -> Result<Page<Certificate>> {
        let CertificateQuery { issuer, namespace, profile, requester, name, expires_before, expires_after } = query;
        let call = self
            .api(Method::GET, &["certificates"])
            .query("issuer", issuer.as_ref())
            .query("namespace", namespace.as_ref())
            .query("profile", profile.as_ref())
            .query("requester", requester.as_ref())
            .query("name", name.as_ref())
            .query("expires_before", expires_before.as_ref())
            .query("expires_after", expires_after.as_ref());
        self.json(call.page(page)).await
    }

    /// Revokes a certificate.
    pub async fn revoke(&self, serial: &str, body: &RevokeCertificate) -> Result<Certificate> {
        self.json(self.api(Method::POST, &["certificates", serial, "revoke"]).body(body)?.change()?).await
    }

    /// Revokes every certificate of an issuer that is not over.
    pub async fn revoke_all(&self, issuer: &IssuerName, body: &RevokeCertificates) -> Result<RevokedCount> {
        self.json(self.api(Method::POST, &["issuers", &issuer.to_string(), "revoke"]).body(body)?.change()?).await
    }
}
