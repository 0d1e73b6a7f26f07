//! What a key may sign: its domain, fixed at birth, decides.
//!
//! A signature does not say what was meant. If an artifact key could be made to sign the body of a certificate, whoever may
//! sign artifacts would be a certification authority. So:
//!
//! | domain | signs |
//! | --- | --- |
//! | `artifact` | any message that does not look like one of the structures below |
//! | `jwt` | JWS signing inputs whose header names the key's own algorithm, without extensions |
//! | `raw` | digests only: the caller vouches for what was hashed |
//! | `x509`, `ssh`, `log` | nothing that a caller sends: the service builds these itself |
//! | `tls` | the handshakes of the service's own TLS server ([`is_own_handshake`]), and nothing that a caller sends |
//!
//! Refusing is broader than the structures: lenient readers exist, so BER lengths, padded base64 and unencoded payloads count
//! as well. A digest hides its message, so only `raw` keys sign digests. What this cannot see is a structure of some other
//! protocol: use one key for one thing.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, Domain};

/// Whether a key of `domain` and `algorithm` may sign `message`.
///
/// # Errors
/// [`Kind::Invalid`] with what the message looks like, or what it should be.
pub fn allows(domain: Domain, algorithm: Algorithm, message: &[u8]) -> Result<()> {
    match domain {
        Domain::Artifact => match looks_like(message) {
            None => Ok(()),
            Some(structure) => Err(Error::new(Kind::Invalid, format!("an artifact key does not sign {structure}"))
                .hint("make a key of the domain that this is for")),
        },
        Domain::Jwt => check_jwt(algorithm, message),
        Domain::Raw => Err(Error::new(Kind::Invalid, "a key of domain raw signs digests only")
            .hint("send the digest instead of the message")),
        Domain::X509 | Domain::Ssh | Domain::Log | Domain::Tls => Err(built_by_the_service(domain)),
    }
}

/// Whether a key of `domain` and `algorithm` may sign `digest`, made by the caller.
///
/// # Errors
/// [`Kind::Invalid`] for another domain than `raw` and for a digest of another length, [`Kind::Unsupported`] for an algorithm
/// that takes the whole message.
pub fn allows_digest(domain: Domain, algorithm: Algorithm, digest: &[u8]) -> Result<()> {
    match domain {
        Domain::Raw => {}
        Domain::Artifact | Domain::Jwt => {
            let sentence = format!("a key of domain {domain} signs messages, not digests");
            return Err(Error::new(Kind::Invalid, sentence)
                .hint("send the message, or make a key of domain raw if you vouch for what is hashed"));
        }
        Domain::X509 | Domain::Ssh | Domain::Log | Domain::Tls => return Err(built_by_the_service(domain)),
    }
    let Some(hash) = algorithm.hash() else {
        return Err(Error::new(Kind::Unsupported, format!("{algorithm} signs whole messages, not digests")));
    };
    if digest.len() == hash.size() {
        Ok(())
    } else {
        Err(Error::new(Kind::Invalid, format!("a digest for {algorithm} is {hash} and has {} bytes", hash.size())))
    }
}

fn built_by_the_service(domain: Domain) -> Error {
    Error::new(Kind::Invalid, format!("a key of domain {domain} signs only what the service builds itself"))
        .hint("ask for the certificate, or make a key of domain artifact")
}

/// Which of the structures that have a domain of their own `message` could be taken for.
fn looks_like(message: &[u8]) -> Option<&'static str> {
    x509_structure(message)
        .or_else(|| ssh_structure(message))
        .or_else(|| is_jws(message).then_some("a JWS signing input"))
        .or_else(|| is_checkpoint(message).then_some("a checkpoint of a transparency log"))
        .or_else(|| is_tls_handshake(message).then_some("a TLS handshake"))
}

/// What a server of TLS 1.3 signs, and nothing else: 64 spaces, its context string, a zero byte, and a hash of the handshake so far
/// ([RFC 8446, 4.4.3](https://www.rfc-editor.org/rfc/rfc8446#section-4.4.3)).
#[must_use]
pub fn is_own_handshake(message: &[u8]) -> bool {
    let hash = message
        .strip_prefix(&[b' '; 64])
        .and_then(|rest| rest.strip_prefix(b"TLS 1.3, server CertificateVerify\0".as_slice()));
    hash.is_some_and(|hash| matches!(hash.len(), 32 | 48))
}

/// Each CertificateVerify of TLS 1.3 starts so ([RFC 8446](https://www.rfc-editor.org/rfc/rfc8446#section-4.4.3)).
fn is_tls_handshake(message: &[u8]) -> bool {
    message.strip_prefix(&[b' '; 64]).is_some_and(|rest| rest.starts_with(b"TLS 1.3, "))
}

// X.509: the tags of the first children of a SEQUENCE that is the whole message.

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
const CONTEXT_2: u8 = 0xa2;

/// How deep elements of indefinite length may nest; OpenSSL gives up at 30.
const MAX_DEPTH: u8 = 32;

fn x509_structure(message: &[u8]) -> Option<&'static str> {
    let (SEQUENCE, mut content, []) = element(message, 0)? else { return None };
    let mut tags = Vec::new();
    // As many as the longest beginning below has.
    while tags.len() < 7
        && let Some((tag, _, rest)) = element(content, 0)
    {
        tags.push(tag);
        content = rest;
    }
    match tags.as_slice() {
        // version? serialNumber signature issuer validity subject subjectPublicKeyInfo (RFC 5280, 4.1)
        [CONTEXT_0, INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, ..]
        | [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, ..] => Some("the body of an X.509 certificate"),
        // version? signature issuer thisUpdate (RFC 5280, 5.1)
        [INTEGER, SEQUENCE, SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..]
        | [SEQUENCE, SEQUENCE, UTC_TIME | GENERALIZED_TIME, ..] => Some("the body of a revocation list"),
        // version subject subjectPKInfo attributes, which some leave out (RFC 2986, 4.1)
        [INTEGER, SEQUENCE, SEQUENCE] | [INTEGER, SEQUENCE, SEQUENCE, CONTEXT_0, ..] => {
            Some("the body of a certificate request")
        }
        // version? responderID producedAt responses (RFC 6960, 4.2.1)
        [CONTEXT_0, CONTEXT_1 | CONTEXT_2, GENERALIZED_TIME, SEQUENCE, ..]
        | [CONTEXT_1 | CONTEXT_2, GENERALIZED_TIME, SEQUENCE, ..] => Some("the body of an OCSP response"),
        _ => None,
    }
}

/// The first element of `bytes` in BER: its tag, its content, and what follows it. Any encoding of the length is taken.
fn element(bytes: &[u8], depth: u8) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, mut rest) = bytes.split_first()?;
    if depth > MAX_DEPTH {
        return None;
    }
    if tag & 0x1f == 0x1f {
        // The number of the tag goes on, up to a byte below 0x80.
        let last = rest.iter().position(|byte| *byte < 0x80)?;
        rest = rest.get(last + 1..)?;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0x80 => {
            // Indefinite: elements up to one of two zero bytes.
            let mut inner = rest;
            while !inner.starts_with(&[0, 0]) {
                (_, _, inner) = element(inner, depth + 1)?;
            }
            return Some((tag, rest.get(..rest.len() - inner.len())?, inner.get(2..)?));
        }
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let push = |length: usize, byte: &u8| length.checked_mul(256)?.checked_add(usize::from(*byte));
            (length.iter().try_fold(0, push)?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// What SSH signs: certificates, files, revocation lists and logins.
fn ssh_structure(message: &[u8]) -> Option<&'static str> {
    if message.starts_with(b"SSHSIG") {
        return Some("an SSH signature");
    }
    if message.starts_with(b"SSHKRL\n\0") {
        return Some("an SSH revocation list");
    }
    let (first, rest) = ssh_string(message)?;
    if first.is_ascii() && first.windows(5).any(|part| part == b"-cert") {
        return Some("the body of an SSH certificate");
    }
    // RFC 4252, 7: session identifier, SSH_MSG_USERAUTH_REQUEST, user, service, ...
    let (_user, rest) = ssh_string(rest.strip_prefix(&[50])?)?;
    let (service, _) = ssh_string(rest)?;
    service.starts_with(b"ssh-").then_some("an SSH login")
}

fn ssh_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// Whether what stands before the first dot is base64 of a JSON object. The payload may be anything: it need not be encoded
/// ([RFC 7797](https://www.rfc-editor.org/rfc/rfc7797#section-3)).
fn is_jws(message: &[u8]) -> bool {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let lenient = GeneralPurpose::new(&alphabet::URL_SAFE, lenient);
    let Some((header, _)) = split_at_dot(message) else { return false };
    let header: Vec<u8> = header
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    let Ok(header) = lenient.decode(header) else { return false };
    let header = header.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&header);
    header.trim_ascii_start().starts_with(b"{")
}

/// A [C2SP checkpoint](https://c2sp.org/tlog-checkpoint), ours or another's: origin, size and root hash, a line each. Witnesses
/// sign two lines and then a checkpoint ([C2SP cosignature](https://c2sp.org/tlog-cosignature)).
fn is_checkpoint(message: &[u8]) -> bool {
    let mut lines = message.split(|byte| *byte == b'\n');
    let Some(origin) = lines.next() else { return false };
    if matches!(origin, b"cosignature/v1" | b"subtree/v1") {
        return true;
    }
    let (Some(size), Some(root)) = (lines.next(), lines.next()) else { return false };
    let is_size = !size.is_empty() && size.iter().all(u8::is_ascii_digit);
    !origin.is_empty() && is_size && STANDARD.decode(root).is_ok_and(|root| root.len() == 32)
}

fn split_at_dot(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = message.iter().position(|byte| *byte == b'.')?;
    Some((message.get(..dot)?, message.get(dot + 1..)?))
}

fn check_jwt(algorithm: Algorithm, message: &[u8]) -> Result<()> {
    let malformed = |what: &'static str| {
        Error::new(Kind::Invalid, what)
            .hint("a JWS signing input is base64url(header) '.' base64url(payload), without padding")
    };
    let (header, payload) = split_at_dot(message).ok_or_else(|| malformed("the message is not a JWS signing input"))?;
    let decode = |part: &[u8], what| URL_SAFE_NO_PAD.decode(part).map_err(|e| malformed(what).because(e));
    decode(payload, "the payload is not base64url")?;
    let header = decode(header, "the header is not base64url")?;
    let header =
        Header::parse(&header).map_err(|e| malformed("the header is not a JSON object with an alg").because(e))?;
    let Header { alg, extension } = header;
    if let Some(name) = extension {
        return Err(Error::new(Kind::Invalid, format!("the header has {name}, which changes what is signed")));
    }
    if alg.is_some() && alg.as_deref() == algorithm.jose() {
        Ok(())
    } else {
        let own = algorithm.jose().unwrap_or("none of JOSE's");
        Err(Error::new(Kind::Invalid, format!("the header must have the alg of this key, which is {own}")))
    }
}

/// What matters of a JWS header. A name that stands twice is refused: which of the two counts would be up to the reader
/// ([RFC 7515](https://www.rfc-editor.org/rfc/rfc7515#section-4)).
struct Header {
    alg: Option<String>,
    extension: Option<&'static str>,
}

impl Header {
    fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let header = reader.deserialize_map(HeaderVisitor)?;
        reader.end()?;
        Ok(header)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JWS header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { alg: None, extension: None };
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "alg" => header.alg = Some(map.next_value()?),
                "crit" => header.extension = map.next_value::<IgnoredAny>().map(|_| Some("crit"))?,
                "b64" => header.extension = map.next_value::<IgnoredAny>().map(|_| Some("b64"))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            if !seen.insert(name) {
                return Err(serde::de::Error::custom("a name stands twice"));
            }
        }
        Ok(header)
    }
}
