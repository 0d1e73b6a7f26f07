//! Keys and their versions.

use reqwest::Method;

use super::{Client, PageRequest};
use crate::attestation::Nonce;
use crate::error::Result;
use crate::types::{KeyName, Name, Version};
use crate::wire::{Batch, CreateKey, Key, KeyVersion, Page, PublicKeyInfo, RotateKey, ScheduleDestruction, UpdateKey};

/// A change of a version's state that needs no more words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Makes a prepared version the primary one.
    Activate,
    /// Does nothing until it is resumed.
    Suspend,
    /// Undoes a suspension.
    Resume,
    /// Opens and verifies only.
    Deactivate,
    /// Is no longer trusted.
    Compromise,
    /// Stops a scheduled destruction.
    CancelDestruction,
}

impl Transition {
    const fn segment(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Deactivate => "deactivate",
            Self::Compromise => "compromise",
            Self::CancelDestruction => "cancel-destruction",
        }
    }
}

impl Client {
    /// Makes a key and its first version.
    pub async fn create_key(&self, body: &CreateKey) -> Result<Key> {
        self.json(self.api(Method::POST, &["keys"]).body(body)?.change()?).await
    }

    /// Makes up to 1,000 wrapped keys, all of them or none. Whoever gives the same `id` again, with the same keys, is answered by what
    /// came of them the first time.
    pub async fn create_keys(&self, body: &Batch<CreateKey>, id: Option<&str>) -> Result<Vec<Key>> {
        let call = self.api(Method::POST, &["keys-batch"]).body(body)?;
        let call = match id {
            Some(id) => call.change_as(id)?,
            None => call.change()?,
        };
        self.json::<Page<Key>>(call).await.map(|made| made.items)
    }

    /// Lists keys, of one namespace or of all that the caller may see.
    pub async fn keys(&self, namespace: Option<&Name>, page: &PageRequest) -> Result<Page<Key>> {
        self.json(self.api(Method::GET, &["keys"]).query("namespace", namespace).page(page)).await
    }

    /// Reads a key.
    pub async fn key(&self, key: &KeyName) -> Result<Key> {
        self.json(self.api(Method::GET, &["keys", &key.to_string()])).await
    }

    /// Changes a key that still has this ETag.
    pub async fn update_key(&self, key: &KeyName, etag: &str, body: &UpdateKey) -> Result<Key> {
        self.json(self.api(Method::PATCH, &["keys", &key.to_string()]).if_match(etag)?.body(body)?.change()?).await
    }

    /// Makes a new primary version.
    pub async fn rotate_key(&self, key: &KeyName, body: &RotateKey) -> Result<Key> {
        self.json(self.api(Method::POST, &["keys", &key.to_string(), "rotate"]).body(body)?.change()?).await
    }

    /// Schedules the destruction of all versions.
    pub async fn delete_key(&self, key: &KeyName) -> Result<Key> {
        self.json(self.api(Method::DELETE, &["keys", &key.to_string()]).change()?).await
    }

    /// Lists the versions of a key.
    pub async fn versions(&self, key: &KeyName, page: &PageRequest) -> Result<Page<KeyVersion>> {
        self.json(self.api(Method::GET, &["keys", &key.to_string(), "versions"]).page(page)).await
    }

    /// Reads one version.
    pub async fn version(&self, key: &KeyName, version: Version) -> Result<KeyVersion> {
        self.json(self.api(Method::GET, &["keys", &key.to_string(), "versions", &version.to_string()])).await
    }

    /// Changes the state of a version.
    pub async fn change_version(&self, key: &KeyName, version: Version, to: Transition) -> Result<KeyVersion> {
        let path = ["keys", &key.to_string(), "versions", &version.to_string(), to.segment()];
        self.json(self.api(Method::POST, &path).change()?).await
    }

    /// Schedules the destruction of a version.
    pub async fn schedule_destruction(
        &self,
        key: &KeyName,
        version: Version,
        body: &ScheduleDestruction,
    ) -> Result<KeyVersion> {
        let path = ["keys", &key.to_string(), "versions", &version.to_string(), "schedule-destruction"];
        self.json(self.api(Method::POST, &path).body(body)?.change()?).await
    }

    /// Reads what the device says of a version, or of the primary one: at its birth, or for a nonce.
    pub async fn attestation(&self, key: &KeyName, version: Option<Version>, nonce: Option<&Nonce>) -> Result<String> {
        let call = self.api(Method::GET, &["keys", &key.to_string(), "attestation"]);
        self.text(call.query("version", version).query("nonce", nonce)).await
    }

    /// Reads the public key of a version, or of the primary one.
    pub async fn public_key(&self, key: &KeyName, version: Option<Version>) -> Result<PublicKeyInfo> {
        self.json(self.api(Method::GET, &["keys", &key.to_string(), "public-key"]).query("version", version)).await
    }
}
