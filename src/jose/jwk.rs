//! A public key as a JSON Web Key, named by its own thumbprint: those of ours, to be shown, and those of others, to be checked.
//!
//! ```text
//! {"kty":"EC","crv":"P-256","x":"…","y":"…","alg":"ES256","use":"sig","kid":"…"}
//! ```
//!
//! `kid` is the thumbprint of [RFC 7638](https://www.rfc-editor.org/rfc/rfc7638#section-3): two services that hold the same key
//! give it the same name, and a key that is swapped cannot keep its name.

use der::Decode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Flaw, flawed, from_base64, to_base64};
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, Curve, PublicKey, Role, sha256};

/// A public key ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517#section-4)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Jwk {
    #[serde(flatten)]
    material: Material,
    /// None for a key to encrypt with, whose ciphertexts are none of JOSE, but where it is a part of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
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
    /// ML-DSA ([RFC 9964](https://www.rfc-editor.org/rfc/rfc9964)) and ML-KEM
    /// ([draft-ietf-jose-pqc-kem](https://datatracker.ietf.org/doc/draft-ietf-jose-pqc-kem/)), where `alg` is a part of the key.
    #[serde(rename = "AKP")]
    Akp {
        #[serde(skip)]
        alg: &'static str,
        #[serde(rename = "pub")]
        public: String,
    },
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
        let raw = key.raw()?;
        key.check(algorithm)?;
        let purpose = if algorithm.role() == Role::Sign { "sig" } else { "enc" };
        let material = Material::of(algorithm, &raw)?;
        let kid = to_base64(&sha256(&[material.canonical().as_bytes()]));
        let alg = if let Material::Akp { alg, .. } = &material { Some(*alg) } else { algorithm.jose() };
        Ok(Self { material, alg, purpose, kid })
    }

    /// The thumbprint, which names the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// The public key of somebody else who signs JSON, and the one algorithm that it may be used with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignerKey {
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The key.
    pub public: PublicKey,
    /// The thumbprint, in base64url.
    pub thumbprint: String,
}

/// The members of a JWK that only a private key has ([RFC 7518, 6](https://www.rfc-editor.org/rfc/rfc7518#section-6),
/// [RFC 9964](https://www.rfc-editor.org/rfc/rfc9964)).
const PRIVATE: [&str; 10] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "r", "priv"];

impl SignerKey {
    /// Reads a public JWK. It must be an EC key on P-256, P-384 or P-521, an Ed25519 key, or an RSA key of 2048, 3072 or 4096
    /// bits; where it says what it is for, that must be signatures by the algorithm of its kind.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for every other key, and for a private one, which does not belong in a request.
    pub fn parse(jwk: &Map<String, Value>) -> Result<Self> {
        if PRIVATE.iter().any(|member| jwk.contains_key(*member)) {
            return Err(flawed(Flaw::Key, "the JWK has private members").hint("send the public key alone"));
        }
        let text = |name: &'static str| {
            let found = jwk.get(name).and_then(Value::as_str);
            found.ok_or_else(|| flawed(Flaw::Key, format!("the JWK has no text {name}")))
        };
        let number = |name: &'static str| from_base64(text(name)?, "a member of the JWK");
        let refused = |e: Error| flawed(Flaw::Key, format!("the JWK: {e}"));
        let (algorithm, public) = match text("kty")? {
            "EC" => {
                let (curve, algorithm) = match text("crv")? {
                    "P-256" => (Curve::P256, Algorithm::EcdsaP256),
                    "P-384" => (Curve::P384, Algorithm::EcdsaP384),
                    "P-521" => (Curve::P521, Algorithm::EcdsaP521),
                    _ => return Err(unknown_key()),
                };
                let (x, y) = (number("x")?, number("y")?);
                if x.len() != curve.size() || y.len() != curve.size() {
                    return Err(flawed(Flaw::Key, format!("the coordinates of {curve} have {} bytes", curve.size())));
                }
                (algorithm, PublicKey::ec(curve, &[&[4], x.as_slice(), &y].concat()).map_err(refused)?)
            }
            "OKP" if text("crv")? == "Ed25519" => {
                (Algorithm::Ed25519, PublicKey::ed25519(&number("x")?).map_err(refused)?)
            }
            "RSA" => {
                let modulus = number("n")?;
                // A modulus that starts with zeros would have two spellings, and with them two thumbprints.
                let algorithm = match (modulus.first(), modulus.len() * 8) {
                    (Some(128..), 2048) => Algorithm::Rsa2048Pkcs1,
                    (Some(128..), 3072) => Algorithm::Rsa3072Pkcs1,
                    (Some(128..), 4096) => Algorithm::Rsa4096Pkcs1,
                    _ => return Err(flawed(Flaw::Key, "an RSA key has 2048, 3072 or 4096 bits")),
                };
                let exponent = number("e")?;
                if exponent != [1, 0, 1] {
                    return Err(flawed(Flaw::Key, "the public exponent of an RSA key is 65537"));
                }
                (algorithm, PublicKey::rsa(&modulus, &exponent).map_err(refused)?)
            }
            _ => return Err(unknown_key()),
        };
        let says = |name: &str, expected| jwk.get(name).is_none_or(|value| value.as_str() == expected);
        if !says("alg", algorithm.jose()) || !says("use", Some("sig")) {
            return Err(flawed(Flaw::Key, "the JWK is for something else, as it says itself"));
        }
        // This also looks whether the point is on its curve.
        let thumbprint = Jwk::new(algorithm, &public).map_err(refused)?.kid;
        Ok(Self { algorithm, public, thumbprint })
    }
}

fn unknown_key() -> Error {
    flawed(Flaw::Key, "this kind of key is not known here")
        .hint("use EC on P-256, P-384 or P-521, Ed25519, or RSA of 2048, 3072 or 4096 bits")
}

impl Material {
    fn of(algorithm: Algorithm, raw: &[u8]) -> Result<Self> {
        let base64 = to_base64;
        let malformed = || Error::new(Kind::Invalid, format!("not a public key of {algorithm}"));
        if let Some(curve) = algorithm.curve() {
            let (x, y) = raw.get(1..).and_then(|point| point.split_at_checked(curve.size())).ok_or_else(malformed)?;
            return Ok(Self::Ec { crv: curve.as_str(), x: base64(x), y: base64(y) });
        }
        if algorithm.rsa_bits().is_some() {
            let key = pkcs1::RsaPublicKeyRef::from_der(raw).map_err(|e| malformed().because(e))?;
            return Ok(Self::Rsa { n: base64(key.modulus.as_bytes()), e: base64(key.public_exponent.as_bytes()) });
        }
        let names = [(Algorithm::MlDsa65, "ML-DSA-65"), (Algorithm::MlKem768, "ML-KEM-768")];
        if let Some((_, alg)) = names.into_iter().find(|(one, _)| *one == algorithm) {
            return Ok(Self::Akp { alg, public: base64(raw) });
        }
        Ok(Self::Okp { crv: "Ed25519", x: base64(raw) })
    }

    /// The required members in lexicographic order, without white space; no value needs escaping.
    fn canonical(&self) -> String {
        match self {
            Self::Ec { crv, x, y } => format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Self::Okp { crv, x } => format!(r#"{{"crv":"{crv}","kty":"OKP","x":"{x}"}}"#),
            Self::Akp { alg, public } => format!(r#"{{"alg":"{alg}","kty":"AKP","pub":"{public}"}}"#),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SignerKey> {
        SignerKey::parse(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap())
    }

    /// The key of [RFC 7638, 3.1](https://www.rfc-editor.org/rfc/rfc7638#section-3.1).
    const RSA: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        assert_eq!(parse(RSA).unwrap().thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        // RFC 8037, appendix A.3
        let okp = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert_eq!(parse(okp).unwrap().thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_is_read_is_shown_the_same() {
        let key = parse(RSA).unwrap();
        let shown = serde_json::to_value(Jwk::new(key.algorithm, &key.public).unwrap()).unwrap();
        let read: Value = serde_json::from_str(RSA).unwrap();
        assert_eq!((&shown["n"], &shown["e"], &shown["alg"]), (&read["n"], &read["e"], &read["alg"]));
    }

    #[test]
    fn other_keys_are_refused() {
        // RFC 7515, appendix A.3: a good one, to begin with.
        let ec = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        assert_eq!(parse(ec).unwrap().algorithm, Algorithm::EcdsaP256);
        let bad = [
            ec.replace("P-256", "P-384"),
            ec.replace("P-256", "secp256k1"),
            ec.replace("x_FE", "x_FF"),
            ec.replace("\"EC\"", "\"oct\""),
            ec.replace('{', r#"{"d":"AA","#),
            ec.replace('{', r#"{"use":"enc","#),
            ec.replace('{', r#"{"alg":"ES384","#),
            ec.replace("\"x\":", "\"x\":[],\"z\":"),
            ec.replace("a0\"", "a0=\""),
            RSA.replace("AQAB", "Aw"),
            RSA.replace("0vx7", "AAAA"),
            RSA.replace("\"n\":\"0vx7agoe", "\"n\":\""),
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qY"}"#.to_owned(),
            r#"{"kty":"oct","k":"AAAA"}"#.to_owned(),
            r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"AAAA"}"#.to_owned(),
            r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"AAAA","priv":"AAAA"}"#.to_owned(),
            "{}".to_owned(),
        ];
        for text in bad {
            let flaw = parse(&text).unwrap_err().cause().copied();
            assert!(matches!(flaw, Some(Flaw::Key | Flaw::Form)), "{text}");
        }
    }
}
