//! What a request should hold, told to whoever is about to make one: the CSR attributes of EST
//! ([RFC 7030, 4.5.2](https://www.rfc-editor.org/rfc/rfc7030#section-4.5.2)).
//!
//! ```text
//! CsrAttrs ::= SEQUENCE OF CHOICE { oid, attribute SEQUENCE { type, SET OF value } }
//! ```
//!
//! Only the kinds of keys are told, in the words of [RFC 9908](https://www.rfc-editor.org/rfc/rfc9908): the curves of EC keys, the sizes of
//! RSA keys, and Ed25519 as an identifier alone. Names and subject are for whoever asks to know.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Encode, Tag};

use super::KeyKind;
use crate::error::{Error, Result};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// DER of the attributes for requests with keys of these kinds.
///
/// # Errors
/// [`crate::error::Kind::Internal`] where the encoder refuses.
pub fn encode(keys: &[KeyKind]) -> Result<Vec<u8>> {
    attributes(keys).map_err(|e| Error::internal(format!("CSR attributes: {e}")))
}

fn attributes(keys: &[KeyKind]) -> der::Result<Vec<u8>> {
    let (mut curves, mut sizes, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for key in keys {
        match key {
            KeyKind::EcdsaP256 => curves.push(P256.to_der()?),
            KeyKind::EcdsaP384 => curves.push(P384.to_der()?),
            KeyKind::EcdsaP521 => curves.push(P521.to_der()?),
            KeyKind::Ed25519 => others.push(ED25519.to_der()?),
            KeyKind::Rsa2048 => sizes.push(2048_u16.to_der()?),
            KeyKind::Rsa3072 => sizes.push(3072_u16.to_der()?),
            KeyKind::Rsa4096 => sizes.push(4096_u16.to_der()?),
        }
    }
    let mut all = [attribute(EC_PUBLIC_KEY, curves)?, attribute(RSA_ENCRYPTION, sizes)?].concat();
    all.extend(others.concat());
    AnyRef::new(Tag::Sequence, &all)?.to_der()
}

/// An attribute with these values, or nothing where there are none.
fn attribute(oid: ObjectIdentifier, mut values: Vec<Vec<u8>>) -> der::Result<Vec<u8>> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    values.sort();
    let set = AnyRef::new(Tag::Set, &values.concat())?.to_der()?;
    AnyRef::new(Tag::Sequence, &[oid.to_der()?, set].concat())?.to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_key_has_its_words() {
        let hex = |keys: &[KeyKind]| hex::encode(encode(keys).unwrap());
        assert_eq!(
            hex(&[KeyKind::EcdsaP256]),
            "30173015".to_owned() + "06072a8648ce3d0201" + "310a06082a8648ce3d030107"
        );
        assert_eq!(hex(&[KeyKind::Rsa3072]), "30133011".to_owned() + "06092a864886f70d010101" + "310402020c00");
        assert_eq!(hex(&[KeyKind::Ed25519]), "300506032b6570");
        assert_eq!(hex(&[]), "3000");
        // All of them: one attribute for the curves, one for the sizes, one identifier.
        let all = encode(KeyKind::ALL).unwrap();
        assert_eq!(all.len(), 2 + (2 + 9 + 2 + 10 + 7 + 7) + (2 + 11 + 2 + 12) + 5);
    }
}
