//! What is public of issuers, ready to be sent: certificates, trust bundles, and whatever `status` signs.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Authority;
use crate::error::{Error, Result};
use crate::jose::Jwk;
use crate::types::{IssuerName, Version, sha256};
use crate::x509::{Certificate, KeyKind};

/// How often a SPIFFE client should look for a new bundle, in seconds. A new version is published long before it is used.
const REFRESH: u64 = 300;

/// Bytes that are ready to be sent.
#[derive(Clone, Debug)]
pub struct Published {
    /// What is sent.
    pub bytes: Bytes,
    /// Names these bytes: the SHA-256 of them, in hex.
    pub etag: Arc<str>,
    /// Since when it is so, where that is known.
    pub made: Option<Timestamp>,
    /// When it ends, where it does.
    pub until: Option<Timestamp>,
}

impl Published {
    /// Bytes that hold until they are replaced.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { etag: hex::encode(sha256(&[&bytes])).into(), bytes, made: None, until: None }
    }

    /// Bytes that hold from `made` to `until`.
    #[must_use]
    pub fn between(bytes: impl Into<Bytes>, made: Timestamp, until: Timestamp) -> Self {
        Self { made: Some(made), until: Some(until), ..Self::new(bytes) }
    }
}

impl Authority {
    /// The certificate of a version of an issuer, in DER.
    ///
    /// # Errors
    /// `NotFound`, and `State` where an outside authority has not given one yet.
    pub fn published_certificate(&self, issuer: &IssuerName, version: Version) -> Result<Published> {
        let issuer = self.issuer(issuer)?;
        let certificate = issuer.version(version)?.certificate()?;
        let made = Some(certificate.validity().not_before);
        Ok(Published { made, ..Published::new(certificate.der().to_vec()) })
    }

    /// The certificates to trust for an issuer, in PEM.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn published_bundle(&self, issuer: &IssuerName) -> Result<Published> {
        let mut text = String::new();
        for der in self.bundle(issuer)?.certificates {
            text.push_str(&Certificate::parse(&der)?.to_pem()?);
        }
        Ok(Published::new(text))
    }

    /// The same as a [SPIFFE bundle](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md#4-spiffe-bundle-format).
    ///
    /// # Errors
    /// `NotFound`.
    pub fn published_spiffe_bundle(&self, issuer: &IssuerName) -> Result<Published> {
        let certificates = self.bundle(issuer)?.certificates;
        let keys = certificates.iter().map(|der| svid_authority(der)).collect::<Result<Vec<_>>>()?;
        let bundle = json!({ "keys": keys, "spiffe_refresh_hint": REFRESH });
        Ok(Published::new(bundle.to_string()))
    }
}

/// An authority of X.509-SVIDs: its key, and its certificate in `x5c`. "The use parameter MUST be set to x509-svid"
/// ([X509-SVID, 6.2](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md)).
fn svid_authority(der: &[u8]) -> Result<Map<String, Value>> {
    let certificate = Certificate::parse(der)?;
    let algorithm = KeyKind::of(certificate.public_key())?.algorithm();
    let key = serde_json::to_value(Jwk::new(algorithm, certificate.public_key())?);
    let Ok(Value::Object(mut key)) = key else { return Err(Error::internal("a JWK is no object")) };
    // A JWK of ours says how its key signs; this one says only what it is.
    key.remove("alg");
    key.remove("kid");
    key.insert("use".to_owned(), json!("x509-svid"));
    key.insert("x5c".to_owned(), json!([STANDARD.encode(der)]));
    Ok(key)
}
