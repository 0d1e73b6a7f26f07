//! A public key as a JSON Web Key, named by its own thumbprint.
//!
//! ```text
//! {"kty":"EC","crv":"P-256","x":"…","y":"…","alg":"ES256","use":"sig","kid":"…"}
//! ```
//!
//! `kid` is the thumbprint of [RFC 7638](https://www.rfc-editor.org/rfc/rfc7638#section-3): two services that hold the same key
//! give it the same name, and a key that is swapped cannot keep its name.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::Decode;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, PublicKey, Verifier, sha256};

/// A public signature key ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517#section-4)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwk {
    #[serde(flatten)]
    material: Material,
    alg: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    kid: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kty")]
enum Material {
    /// A point of a NIST curve ([RFC 7518](https://www.rfc-editor.org/rfc/rfc7518#section-6.2)).
    #[serde(rename = "EC")]
    Ec { crv: &'static str, x: String, y: String },
    /// Ed25519 ([RFC 8037](https://www.rfc-editor.org/rfc/rfc8037#section-2)).
    #[serde(rename = "OKP")]
    Okp { crv: &'static str, x: String },
    /// RSA ([RFC 7518](https://www.rfc-editor.org/rfc/rfc7518#section-6.3)).
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

impl Jwk {
    /// The key `key` of `algorithm`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the key is of another type or size, [`Kind::Unsupported`] for an algorithm without public keys.
    pub fn new(algorithm: Algorithm, key: &PublicKey) -> Result<Self> {
        Verifier::new(algorithm, key)?;
        let none = || Error::new(Kind::Unsupported, format!("{algorithm} has no public keys"));
        let material = Material::of(algorithm, &key.raw()?)?;
        let kid = URL_SAFE_NO_PAD.encode(sha256(&[material.canonical().as_bytes()]));
        Ok(Self { material, alg: algorithm.jose().ok_or_else(none)?, purpose: "sig", kid })
    }

    /// The thumbprint, which names the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

impl Material {
    fn of(algorithm: Algorithm, raw: &[u8]) -> Result<Self> {
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let malformed = || Error::new(Kind::Invalid, format!("not a public key of {algorithm}"));
        if let Some(curve) = algorithm.curve() {
            let (x, y) = raw.get(1..).and_then(|point| point.split_at_checked(curve.size())).ok_or_else(malformed)?;
            return Ok(Self::Ec { crv: curve.as_str(), x: base64(x), y: base64(y) });
        }
        if algorithm.rsa_bits().is_some() {
            let key = pkcs1::RsaPublicKeyRef::from_der(raw).map_err(|e| malformed().because(e))?;
            return Ok(Self::Rsa { n: base64(key.modulus.as_bytes()), e: base64(key.public_exponent.as_bytes()) });
        }
        Ok(Self::Okp { crv: "Ed25519", x: base64(raw) })
    }

    /// The required members in lexicographic order, without white space; no value needs escaping.
    fn canonical(&self) -> String {
        match self {
            Self::Ec { crv, x, y } => format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Self::Okp { crv, x } => format!(r#"{{"crv":"{crv}","kty":"OKP","x":"{x}"}}"#),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        }
    }
}
