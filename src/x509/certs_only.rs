//! Certificates wrapped for protocols that speak PKCS #7: a SignedData that nobody signed, "certs-only"
//! ([RFC 5652, 5.1](https://www.rfc-editor.org/rfc/rfc5652#section-5.1), [RFC 5272, 4.1](https://www.rfc-editor.org/rfc/rfc5272#section-4.1)).
//!
//! ```text
//! ContentInfo ::= SEQUENCE { signedData, [0] EXPLICIT SEQUENCE {
//!     version 1, digestAlgorithms {}, encapContentInfo SEQUENCE { data },
//!     certificates [0] IMPLICIT SET OF Certificate, signerInfos {} } }
//! ```

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Encode, Tag, TagNumber};

use crate::error::{Error, Result};

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const ZERO: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };

/// DER of the message that holds these certificates. It is a set: their order is lost, and each is there once.
///
/// # Errors
/// [`crate::error::Kind::Internal`] where they are too long to be written.
pub fn encode(certificates: &[Vec<u8>]) -> Result<Vec<u8>> {
    message(certificates).map_err(|e| Error::internal(format!("certs-only: {e}")))
}

fn message(certificates: &[Vec<u8>]) -> der::Result<Vec<u8>> {
    // "The encodings of the component values of a set-of value shall appear in ascending order" (X.690, 11.6).
    let mut set = certificates.to_vec();
    set.sort();
    set.dedup();
    let none = value(Tag::Set, &[])?;
    let content = value(Tag::Sequence, &DATA.to_der()?)?;
    let signed = [1_u8.to_der()?, none.clone(), content, value(ZERO, &set.concat())?, none].concat();
    let signed = value(ZERO, &value(Tag::Sequence, &signed)?)?;
    value(Tag::Sequence, &[SIGNED_DATA.to_der()?, signed].concat())
}

fn value(tag: Tag, content: &[u8]) -> der::Result<Vec<u8>> {
    AnyRef::new(tag, content)?.to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_shortest_message_of_its_kind() {
        let (one, two) = (vec![0x30, 1, 1], vec![0x30, 1, 2]);
        let made = encode(&[two.clone(), one.clone(), two.clone()]).unwrap();
        let expected =
            "302b 06092a864886f70d010702 a01e 301c 020101 3100 300b06092a864886f70d010701 a006 300101 300102 3100";
        assert_eq!(hex::encode(&made), expected.replace(' ', ""));
        assert!(encode(&[]).unwrap().ends_with(&[0xa0, 0, 0x31, 0]));
    }
}
