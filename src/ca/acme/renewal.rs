//! How clients name a certificate that they ask about ([RFC 9773](https://www.rfc-editor.org/rfc/rfc9773)); [`crate::ca::renewal`]
//! has the answer.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::{ProblemKind, refuse};
use crate::error::Error;
use crate::x509::Serial;

/// How a certificate is named: by its issuer's key identifier and its serial number
/// ([RFC 9773, 4.1](https://www.rfc-editor.org/rfc/rfc9773#section-4.1)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateId {
    /// The key identifier of the authority.
    pub authority: Vec<u8>,
    /// The serial number.
    pub serial: Serial,
}

impl FromStr for CertificateId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || refuse(ProblemKind::Malformed, "this is no identifier of a certificate");
        let (authority, serial) = text.split_once('.').ok_or_else(wrong)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| (1..=64).contains(&bytes.len()));
        let authority = decode(authority).ok_or_else(wrong)?;
        let serial = decode(serial).ok_or_else(wrong)?;
        // The bytes of a DER INTEGER: as few as can be, and positive.
        let minimal = match serial.as_slice() {
            [0, 128..=255, ..] | [1..=127, ..] => true,
            [..] => false,
        };
        let mut bytes = [0; 20];
        let start = bytes.len().checked_sub(serial.len()).filter(|_| minimal).ok_or_else(wrong)?;
        for (to, from) in bytes.iter_mut().skip(start).zip(&serial) {
            *to = *from;
        }
        Ok(Self { authority, serial: Serial::from_bytes(bytes) })
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.serial.as_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = bytes.get(zeros..).unwrap_or_default();
        let sign: &[u8] = if significant.first().is_none_or(|byte| *byte >= 128) { &[0] } else { &[] };
        let serial = [sign, significant].concat();
        write!(f, "{}.{}", URL_SAFE_NO_PAD.encode(&self.authority), URL_SAFE_NO_PAD.encode(serial))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identifiers_are_those_of_the_standard() {
        // RFC 9773, 4.1
        let id: CertificateId = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".parse().unwrap();
        assert_eq!(hex::encode(&id.authority), "69885b6b87464041e1b37b847ba0ae2cde01c8d4");
        assert!(id.serial.to_string().ends_with("0087654321"));
        assert_eq!(id.to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
        for bad in
            ["", ".", "AA.", ".AA", "aYhb", "aYhb.AAAB", "aYhb.gAAA", "aYhb.AA", "aYhb.AQ==", "a b.AQ", "aYhb.AQ.AQ"]
        {
            assert!(bad.parse::<CertificateId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn identifiers_have_one_spelling(authority in proptest::collection::vec(any::<u8>(), 1..40), mut serial: [u8; 20]) {
            serial[0] &= 0x7f;
            prop_assume!(serial != [0; 20]);
            let id = CertificateId { authority, serial: Serial::from_bytes(serial) };
            prop_assert_eq!(id.to_string().parse::<CertificateId>().unwrap(), id);
        }
    }
}
