//! PEM in bodies ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)).

use der::pem::LineEnding;

use crate::error::{Error, Kind, Result};

/// The most certificates of a file.
const MAX_CERTIFICATES: usize = 16;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of `text`, in order; what stands between them is passed over, as people put words there.
pub(super) fn certificates(text: &str) -> Result<Vec<Vec<u8>>> {
    let broken = || {
        Error::new(Kind::Invalid, "this is not a file of certificates in PEM")
            .hint("each certificate stands between BEGIN CERTIFICATE and END CERTIFICATE")
    };
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(BEGIN) {
        let one = rest.get(at..).ok_or_else(broken)?;
        let end = one.find(END).ok_or_else(broken)? + END.len();
        let (label, der) = der::pem::decode_vec(one.get(..end).ok_or_else(broken)?.as_bytes()).map_err(|_| broken())?;
        if label != "CERTIFICATE" || found.len() == MAX_CERTIFICATES {
            return Err(broken());
        }
        found.push(der);
        rest = one.get(end..).ok_or_else(broken)?;
    }
    if found.is_empty() { Err(broken()) } else { Ok(found) }
}

/// Certificates, one below the other.
pub(super) fn chain(ders: &[Vec<u8>]) -> Result<String> {
    ders.iter().map(|der| encode("CERTIFICATE", der)).collect()
}

/// A request.
pub(super) fn request(der: &[u8]) -> Result<String> {
    encode("CERTIFICATE REQUEST", der)
}

/// A certificate.
pub(super) fn certificate(der: &[u8]) -> Result<String> {
    encode("CERTIFICATE", der)
}

fn encode(label: &'static str, der: &[u8]) -> Result<String> {
    der::pem::encode_string(label, LineEnding::LF, der).map_err(|e| Error::internal(format!("pem: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_with_words_between_them() {
        let ders = vec![vec![1, 2, 3], vec![4; 100]];
        let text = chain(&ders).unwrap();
        assert_eq!(certificates(&format!("issuer: x\n{text}\nend\n")).unwrap(), ders);
        for bad in ["", "-----BEGIN CERTIFICATE-----\nAQID\n", &text.replace("AQID", "A*ID")] {
            assert_eq!(certificates(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }
}
