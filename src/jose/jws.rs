//! Signed JSON as ACME and its kin send it: the flattened form, one signature, everything that counts under it.
//!
//! ```text
//! {"protected":"BASE64URL(header)","payload":"BASE64URL(payload)","signature":"BASE64URL(signature)"}
//! header = {"alg":"ES256","nonce":"…","url":"https://…","kid":"https://…"}      or "jwk":{…} in place of "kid"
//! ```

use aws_lc_rs::hmac;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Flaw, SignerKey, flawed, from_base64, strict};
use crate::error::Result;
use crate::types::{SecretBytes, Verifier};

/// The most bytes of a signed object: a request for a certificate of a hundred names, in base64 twice, and room to spare.
pub const MAX_JWS: usize = 128 * 1024;
/// The most bytes of its header: an RSA key of 4096 bits and two addresses.
const MAX_HEADER: usize = 8 * 1024;

/// A signed object that was read. Nothing of it is true before [`Self::verify`] or [`Self::verify_code`].
#[derive(Clone, Debug)]
pub struct Jws {
    algorithm: String,
    /// Who says to have signed it.
    pub key: KeyReference,
    /// The nonce, where it has one.
    pub nonce: Option<String>,
    /// The address that it is meant for.
    pub url: String,
    payload: Vec<u8>,
    input: Vec<u8>,
    signature: Vec<u8>,
}

/// How a signed object names its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyReference {
    /// By the key itself.
    Own(SignerKey),
    /// By a name that both sides know.
    Named(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
}

/// What is not named here is not looked at, as [RFC 7515, 4](https://www.rfc-editor.org/rfc/rfc7515#section-4) wants it; whatever a
/// reader must understand stands in `crit`, and we understand nothing of that kind.
#[derive(Deserialize)]
struct Header {
    alg: String,
    nonce: Option<String>,
    url: Option<String>,
    kid: Option<String>,
    jwk: Option<Map<String, Value>>,
    crit: Option<Value>,
    b64: Option<Value>,
}

impl Jws {
    /// Reads a signed object: exactly one of `jwk` and `kid`, an address, no member twice, nothing unprotected.
    ///
    /// # Errors
    /// [`crate::error::Kind::Invalid`], whose cause is the [`Flaw`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_JWS {
            return Err(flawed(Flaw::Form, format!("a signed object has at most {MAX_JWS} bytes")));
        }
        // [RFC 8555, 6.2](https://www.rfc-editor.org/rfc/rfc8555#section-6.2): "The JWS Unprotected Header [RFC7515] MUST NOT be
        // used", "The JWS MUST NOT have multiple signatures".
        let Flattened { protected, payload, signature } = strict(bytes, "the signed object")?;
        if protected.len() > MAX_HEADER {
            return Err(flawed(Flaw::Form, format!("a protected header has at most {MAX_HEADER} characters")));
        }
        let header: Header = strict(&from_base64(&protected, "the protected header")?, "the protected header")?;
        let Header { alg, nonce, url, kid, jwk, crit, b64 } = header;
        if crit.is_some() || b64.is_some() {
            return Err(flawed(Flaw::Form, "the header asks for an extension that is not known here"));
        }
        let key = match (jwk, kid) {
            (Some(jwk), None) => KeyReference::Own(SignerKey::parse(&jwk)?),
            (None, Some(kid)) => KeyReference::Named(kid),
            // "The "jwk" and "kid" fields are mutually exclusive. Servers MUST reject requests that contain both."
            (Some(_), Some(_)) => return Err(flawed(Flaw::Form, "the header has both jwk and kid")),
            (None, None) => return Err(flawed(Flaw::Form, "the header has neither jwk nor kid")),
        };
        let url = url.ok_or_else(|| flawed(Flaw::Form, "the header has no url"))?;
        Ok(Self {
            algorithm: alg,
            key,
            nonce,
            url,
            input: [protected.as_bytes(), b".", payload.as_bytes()].concat(),
            payload: from_base64(&payload, "the payload")?,
            signature: from_base64(&signature, "the signature")?,
        })
    }

    /// The payload, once `key` has been seen to have signed it.
    ///
    /// # Errors
    /// `Invalid` for an algorithm that is not that of the key, `Unauthenticated` for a signature that does not verify.
    pub fn verify(&self, key: &SignerKey) -> Result<&[u8]> {
        if key.algorithm.jose() != Some(&self.algorithm) {
            return Err(flawed(Flaw::Algorithm, "the algorithm is not that of the key")
                .hint("ES256, ES384, ES512, EdDSA and RS256 are known, each with its own kind of key"));
        }
        let verifier = Verifier::new(key.algorithm, &key.public)?;
        if !verifier.verifies(&self.input, &self.signature) {
            return Err(flawed(Flaw::Signature, "the signature does not verify"));
        }
        Ok(&self.payload)
    }

    /// The payload, once it is seen that whoever made its HMAC-SHA-256 knows `secret`.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_code(&self, secret: &SecretBytes) -> Result<&[u8]> {
        if self.algorithm != "HS256" {
            return Err(flawed(Flaw::Algorithm, "a shared key is used with HS256"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        // In constant time.
        hmac::verify(&key, &self.input, &self.signature)
            .map_err(|_| flawed(Flaw::Signature, "the code does not verify"))?;
        Ok(&self.payload)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;
    use crate::jose::to_base64;

    fn key_pair() -> (EcdsaKeyPair, Value) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let jwk = json!({"kty":"EC","crv":"P-256","x":to_base64(&point[1..33]),"y":to_base64(&point[33..])});
        (pair, jwk)
    }

    fn signed(pair: &EcdsaKeyPair, header: &str, payload: &str) -> Value {
        let (protected, payload) = (to_base64(header.as_bytes()), to_base64(payload.as_bytes()));
        let signature = pair.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).unwrap();
        json!({"protected":protected,"payload":payload,"signature":to_base64(signature.as_ref())})
    }

    fn parse(value: &Value) -> Result<Jws> {
        Jws::parse(value.to_string().as_bytes())
    }

    #[test]
    fn what_was_signed_is_read() {
        let (pair, jwk) = key_pair();
        let header = json!({"alg":"ES256","nonce":"n","url":"https://a/b","jwk":jwk,"typ":"whatever"}).to_string();
        let jws = parse(&signed(&pair, &header, r#"{"a":1}"#)).unwrap();
        let KeyReference::Own(key) = jws.key.clone() else { panic!("{jws:?}") };
        assert_eq!(jws.verify(&key).unwrap(), br#"{"a":1}"#);
        assert_eq!((jws.nonce.as_deref(), jws.url.as_str()), (Some("n"), "https://a/b"));
        let (_, other) = key_pair();
        let other = SignerKey::parse(other.as_object().unwrap()).unwrap();
        assert_eq!(jws.verify(&other).unwrap_err().cause(), Some(&Flaw::Signature));
    }

    #[test]
    fn headers_that_mean_two_things_or_nothing_are_refused() {
        let (pair, jwk) = key_pair();
        let bad = [
            r#"{"alg":"ES256","url":"u"}"#.to_owned(),
            r#"{"alg":"ES256","kid":"k"}"#.to_owned(),
            r#"{"kid":"k","url":"u"}"#.to_owned(),
            json!({"alg":"ES256","url":"u","kid":"k","jwk":jwk}).to_string(),
            r#"{"alg":"ES256","url":"u","kid":"k","crit":["b64"],"b64":false}"#.to_owned(),
            r#"{"alg":"ES256","url":"u","kid":"k","crit":[]}"#.to_owned(),
            r#"{"alg":"ES256","url":"u","url":"v","kid":"k"}"#.to_owned(),
            r#"{"alg":"ES256","url":"u","kid":"k","x":1,"x":1}"#.to_owned(),
            r#"{"alg":"ES256","url":"u","kid":7}"#.to_owned(),
            "[]".to_owned(),
            String::new(),
            format!(r#"{{"alg":"ES256","url":"u","kid":"{}"}}"#, "k".repeat(9000)),
        ];
        for header in bad {
            assert_eq!(parse(&signed(&pair, &header, "{}")).unwrap_err().cause(), Some(&Flaw::Form), "{header}");
        }
        let good = signed(&pair, r#"{"alg":"ES256","url":"u","kid":"k"}"#, "");
        assert_eq!(parse(&good).unwrap().key, KeyReference::Named("k".to_owned()));
        for (member, value) in
            [("header", json!({})), ("signatures", json!([])), ("payload", json!(null)), ("payload", json!("e30="))]
        {
            let mut bad = good.clone();
            bad[member] = value;
            assert!(parse(&bad).is_err(), "{member}");
        }
        assert!(Jws::parse(format!("{}{good}", " ".repeat(MAX_JWS)).as_bytes()).is_err());
    }

    #[test]
    fn the_key_chooses_the_algorithm() {
        let (pair, jwk) = key_pair();
        let key = SignerKey::parse(jwk.as_object().unwrap()).unwrap();
        for algorithm in ["none", "HS256", "ES384", "RS256", "EdDSA", "es256", ""] {
            let header = json!({"alg":algorithm,"url":"u","jwk":jwk}).to_string();
            let jws = parse(&signed(&pair, &header, "{}")).unwrap();
            assert_eq!(jws.verify(&key).unwrap_err().cause(), Some(&Flaw::Algorithm), "{algorithm}");
        }
    }

    #[test]
    fn codes_verify_by_their_secret_alone() {
        let secret = SecretBytes::new(vec![7; 32]);
        let make = |alg: &str| {
            let protected = to_base64(json!({"alg":alg,"kid":"k","url":"u"}).to_string().as_bytes());
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
            let code = hmac::sign(&key, format!("{protected}.{}", to_base64(b"{}")).as_bytes());
            json!({"protected":protected,"payload":to_base64(b"{}"),"signature":to_base64(code.as_ref())})
        };
        let jws = parse(&make("HS256")).unwrap();
        assert_eq!(jws.verify_code(&secret).unwrap(), b"{}");
        assert_eq!(jws.verify_code(&SecretBytes::new(vec![8; 32])).unwrap_err().cause(), Some(&Flaw::Signature));
        assert_eq!(parse(&make("HS384")).unwrap().verify_code(&secret).unwrap_err().cause(), Some(&Flaw::Algorithm));
    }
}
