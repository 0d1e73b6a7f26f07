//! External account binding: a key, made by an administrator, that ties an account to an identity
//! ([RFC 8555, 7.3.4](https://www.rfc-editor.org/rfc/rfc8555#section-7.3.4)).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Speaker};
use super::problem::{ProblemKind, refuse};
use super::{Id, random};
use crate::error::Result;
use crate::jose::{Jws, KeyReference, SignerKey, strict};
use crate::types::{EndpointName, SecretBytes};

/// A binding key. Who has it makes accounts that speak for its identity, as long as it is not revoked.
#[derive(Debug, Serialize, Deserialize)]
pub struct EabKey {
    format: u32,
    /// Its public name, the `kid`.
    pub id: Id,
    secret: SecretBytes,
    /// For whom its accounts speak.
    pub speaker: Speaker,
    /// When it was made.
    pub created: Timestamp,
    /// Until when accounts can be made with it.
    pub expires: Option<Timestamp>,
    /// How many more accounts can be made with it; any number where absent.
    pub uses_left: Option<u64>,
    /// When it was revoked. From then on its accounts are refused as well.
    pub revoked: Option<Timestamp>,
}

impl EabKey {
    /// Draws a key of 32 bytes.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] where the generator fails.
    pub fn generate(
        speaker: Speaker,
        created: Timestamp,
        expires: Option<Timestamp>,
        uses: Option<u64>,
    ) -> Result<Self> {
        let secret = SecretBytes::new(random::<32>()?.to_vec());
        Ok(Self { format: 1, id: Id::random()?, secret, speaker, created, expires, uses_left: uses, revoked: None })
    }

    /// The key itself, for the one answer that shows it.
    #[must_use]
    pub const fn secret(&self) -> &SecretBytes {
        &self.secret
    }

    /// Where the keys of an endpoint stand.
    #[must_use]
    pub fn folder(endpoint: &EndpointName) -> String {
        format!("{}/eab/", Endpoint::folder(endpoint))
    }

    /// Where one stands.
    #[must_use]
    pub fn path(endpoint: &EndpointName, id: Id) -> String {
        format!("{}{id}", Self::folder(endpoint))
    }

    /// Whether accounts may be made with it.
    #[must_use]
    pub fn usable(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.uses_left != Some(0) && self.expires.is_none_or(|expires| now < expires)
    }

    /// The name of the key that a binding was made with, before anything of it is believed.
    #[must_use]
    pub fn named_by(binding: &Jws) -> Option<Id> {
        match &binding.key {
            KeyReference::Named(kid) => kid.parse().ok(),
            KeyReference::Own(_) => None,
        }
    }

    /// Checks that `binding` was made with this key for `account`, at the address of the request around it, and takes one use.
    ///
    /// # Errors
    /// `unauthorized` where it is not; whether the key is unknown, wrong or used up is for the audit log alone.
    pub fn bind(&mut self, binding: &Jws, account: &SignerKey, url: &str, now: Timestamp) -> Result<()> {
        // "The "nonce" field MUST NOT be present", "The "url" field MUST be set to the same value as the outer JWS"
        if binding.nonce.is_some() || binding.url != url {
            return Err(refuse(ProblemKind::Malformed, "the binding has a nonce, or another url than the request"));
        }
        let payload = binding.verify_code(&self.secret).map_err(|_| unbound())?;
        if !self.usable(now) {
            return Err(unbound());
        }
        // "The payload of this JWS is the ACME account key being registered, in JWK form."
        let bound = SignerKey::parse(&strict(payload, "the payload of the binding")?)?;
        if bound.thumbprint != account.thumbprint {
            return Err(refuse(ProblemKind::Malformed, "the binding is for another account key"));
        }
        self.uses_left = self.uses_left.map(|left| left.saturating_sub(1));
        Ok(())
    }
}

/// The one answer to each binding that does not hold.
#[must_use]
pub fn unbound() -> crate::error::Error {
    refuse(ProblemKind::Unauthorized, "the external account binding is not accepted")
        .hint("its key may be wrong, expired, revoked or used up: ask an administrator for a new one")
}
