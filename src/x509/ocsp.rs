//! The status of single certificates: OCSP ([RFC 6960](https://www.rfc-editor.org/rfc/rfc6960), and its lighter profile
//! [RFC 5019](https://www.rfc-editor.org/rfc/rfc5019)) between bytes and types.
//!
//! ```text
//! request bytes ─▶ Request { certificates, nonce } ─▶ (the engine looks up) ─▶ Answers
//! Answers ─▶ to_be_signed ─▶ (a device signs) ─▶ respond: the response with the responder's certificate
//! ```
//!
//! A certificate is named by hashes of its issuer's name and key, and its serial number. Both hashes that are in use are taken,
//! SHA-1 because most clients ask by it: it names an issuer that we know, and protects nothing.
//!
//! A request's own signature is not looked at: status is for everybody.

use aws_lc_rs::digest;
use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, IntRef, Null, ObjectIdentifier, OctetString, OctetStringRef};
use der::{Choice, Decode, Encode, Enumerated, Sequence};
use jiff::Timestamp;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::CrlReason;

use super::Serial;
use super::certificate::IssuerView;
use super::crl::{Reason, date, unwritable};
use super::extensions::extension;
use super::signature::assemble;
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, PublicKey};

/// The longest request, in bytes: eight certificates and a nonce need less than a thousand.
pub const MAX_REQUEST: usize = 4096;
/// How many certificates one request may ask for.
pub const MAX_CERTIFICATES: usize = 8;
/// The longest nonce, in bytes; the shortest has one ([RFC 9654, 2.1](https://www.rfc-editor.org/rfc/rfc9654#section-2.1)).
pub const MAX_NONCE: usize = 128;
/// The longest serial number, in bytes ([RFC 5280, 4.1.2.2](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.2)).
const MAX_SERIAL: usize = 20;

const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

/// By which hash a request names an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IssuerHash {
    /// SHA-1, as RFC 5019 asks of its clients.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// An issuer as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerId {
    hash: IssuerHash,
    name: Vec<u8>,
    key: Vec<u8>,
}

/// A certificate as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateId {
    issuer: IssuerId,
    /// The content of an INTEGER in DER.
    serial: Vec<u8>,
}

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The certificates, from one to [`MAX_CERTIFICATES`].
    pub certificates: Vec<CertificateId>,
    /// What the answer is to repeat, so that nobody can replay an older one.
    pub nonce: Option<Vec<u8>>,
}

/// The status of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was issued, and is not revoked.
    Good,
    /// It is revoked.
    Revoked {
        /// Since when.
        at: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// The issuer has not issued it.
    Unknown,
}

/// The answer for one certificate.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Which.
    pub certificate: &'a CertificateId,
    /// Its status.
    pub status: Status,
    /// Since when the status is known to be so.
    pub this_update: Timestamp,
    /// When there is a newer answer at the latest.
    pub next_update: Timestamp,
}

/// What a response says.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// The key that signs it.
    pub responder: &'a PublicKey,
    /// When it was made.
    pub produced_at: Timestamp,
    /// The answers.
    pub answers: &'a [Answer<'a>],
    /// The nonce of the request.
    pub nonce: Option<&'a [u8]>,
}

/// Why there is no answer ([RFC 6960, 4.2.1](https://www.rfc-editor.org/rfc/rfc6960#section-4.2.1)). Such a response is not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The request is none.
    MalformedRequest,
    /// Something is wrong here.
    InternalError,
    /// Not now.
    TryLater,
    /// The certificate is of an issuer that this responder does not speak for.
    Unauthorized,
}

impl Failure {
    /// The response.
    #[must_use]
    pub const fn response(self) -> [u8; 5] {
        let code = match self {
            Self::MalformedRequest => 1,
            Self::InternalError => 2,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        };
        // SEQUENCE { ENUMERATED }
        [0x30, 3, 0x0a, 1, code]
    }
}

impl IssuerHash {
    /// Both.
    pub const ALL: &[Self] = &[Self::Sha1, Self::Sha256];

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => SHA1,
            Self::Sha256 => SHA256,
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

impl IssuerId {
    /// The id of `issuer` by `hash`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where its key is not an SPKI.
    pub fn new(hash: IssuerHash, issuer: &IssuerView) -> Result<Self> {
        Ok(Self { hash, name: hash.digest(&issuer.subject), key: hash.digest(&issuer.public_key.raw()?) })
    }
}

impl CertificateId {
    /// The id of the certificate of `issuer` with that serial number.
    #[must_use]
    pub fn new(issuer: IssuerId, serial: &Serial) -> Self {
        let bytes = serial.as_bytes();
        // As short as it can be, and never with the sign bit set.
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let digits = bytes.get(zeros..).unwrap_or_default();
        let sign = digits.first().is_none_or(|first| *first >= 0x80);
        let serial = sign.then_some(&0).into_iter().chain(digits).copied().collect();
        Self { issuer, serial }
    }

    /// A request for it alone, as a client sends it.
    ///
    /// # Errors
    /// [`Kind::Internal`] for what cannot be encoded.
    pub fn request(&self) -> Result<Vec<u8>> {
        let list = vec![SingleRequest { id: CertId::write(self)?, extensions: None }];
        let body = RequestBody { version: 0, requestor: None, list, extensions: None };
        OcspRequest { body, signature: None }.to_der().map_err(unwritable)
    }

    /// Who issued it.
    #[must_use]
    pub const fn issuer(&self) -> &IssuerId {
        &self.issuer
    }

    /// Its serial number, where it could be one of ours: negative ones are not.
    #[must_use]
    pub fn serial(&self) -> Option<Serial> {
        let negative = self.serial.first().is_none_or(|first| *first >= 0x80);
        let missing = MAX_SERIAL.checked_sub(self.serial.len()).filter(|_| !negative)?;
        let mut bytes = [0; MAX_SERIAL];
        bytes.get_mut(missing..)?.copy_from_slice(&self.serial);
        Some(Serial::from_bytes(bytes))
    }
}

// The structures of the standard, whose module has explicit tags.

#[derive(Sequence)]
struct OcspRequest<'a> {
    body: RequestBody<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    signature: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct RequestBody<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "Default::default")]
    version: u8,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    requestor: Option<AnyRef<'a>>,
    list: Vec<SingleRequest<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct SingleRequest<'a> {
    id: CertId<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct CertId<'a> {
    hash: HashIdentifier<'a>,
    issuer_name: &'a OctetStringRef,
    issuer_key: &'a OctetStringRef,
    serial: IntRef<'a>,
}

#[derive(Sequence)]
struct HashIdentifier<'a> {
    oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

#[derive(Enumerated, Clone, Copy)]
#[repr(u8)]
enum ResponseStatus {
    Successful = 0,
}

#[derive(Sequence)]
struct Response<'a> {
    status: ResponseStatus,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    bytes: ResponseBytes<'a>,
}

#[derive(Sequence)]
struct ResponseBytes<'a> {
    kind: ObjectIdentifier,
    response: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Basic<'a> {
    body: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certificates: Option<Vec<AnyRef<'a>>>,
}

#[derive(Sequence)]
struct ResponseBody<'a> {
    /// The SHA-1 of the responder's key.
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    by_key: OctetString,
    produced_at: GeneralizedTime,
    answers: Vec<SingleResponse<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct SingleResponse<'a> {
    id: CertId<'a>,
    status: CertStatus,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    next_update: GeneralizedTime,
}

#[derive(Choice)]
enum CertStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Sequence)]
struct RevokedInfo {
    at: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    reason: Option<CrlReason>,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Kind::Limit`] for one that is too long or asks for too much, [`Kind::Invalid`] for what is not a request. Both are answered
    /// by [`Failure::MalformedRequest`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_REQUEST {
            return Err(Error::new(Kind::Limit, format!("an OCSP request has at most {MAX_REQUEST} bytes")));
        }
        let OcspRequest { body, signature: _ } =
            OcspRequest::from_der(bytes).map_err(|e| malformed("it is not DER of that structure").because(e))?;
        let RequestBody { version, requestor: _, list, extensions } = body;
        if version != 0 {
            return Err(malformed("it is of another version than 1"));
        }
        if list.is_empty() || list.len() > MAX_CERTIFICATES {
            return Err(Error::new(
                Kind::Limit,
                format!("an OCSP request is for 1 to {MAX_CERTIFICATES} certificates"),
            ));
        }
        let nonce = nonce(extensions.unwrap_or_default())?;
        let certificates = list.into_iter().map(SingleRequest::read).collect::<Result<_>>()?;
        Ok(Self { certificates, nonce })
    }
}

impl SingleRequest<'_> {
    fn read(self) -> Result<CertificateId> {
        let Self { id, extensions } = self;
        refuse_critical(&extensions.unwrap_or_default())?;
        id.read()
    }
}

impl CertId<'_> {
    fn read(self) -> Result<CertificateId> {
        let Self { hash: HashIdentifier { oid, parameters }, issuer_name, issuer_key, serial } = self;
        let hash = match oid {
            SHA1 => IssuerHash::Sha1,
            SHA256 => IssuerHash::Sha256,
            _ => return Err(malformed("it names an issuer by a hash that is neither SHA-1 nor SHA-256")),
        };
        let (name, key) = (issuer_name.as_bytes().to_vec(), issuer_key.as_bytes().to_vec());
        let sound = parameters.is_none_or(|one| one == AnyRef::NULL);
        if !sound || name.len() != hash.size() || key.len() != hash.size() {
            return Err(malformed("the hashes of an issuer do not fit their algorithm"));
        }
        let serial = serial.as_bytes().to_vec();
        if serial.len() > MAX_SERIAL {
            return Err(malformed("a serial number is longer than 20 bytes"));
        }
        Ok(CertificateId { issuer: IssuerId { hash, name, key }, serial })
    }

    /// With NULL as parameters of the hash, as nearly all clients write it: who compares ids compares the hash, not its spelling.
    fn write(id: &CertificateId) -> Result<CertId<'_>> {
        let CertificateId { issuer: IssuerId { hash, name, key }, serial } = id;
        Ok(CertId {
            hash: HashIdentifier { oid: hash.oid(), parameters: Some(AnyRef::NULL) },
            issuer_name: OctetStringRef::new(name).map_err(unwritable)?,
            issuer_key: OctetStringRef::new(key).map_err(unwritable)?,
            serial: IntRef::new(serial).map_err(unwritable)?,
        })
    }
}

/// The nonce, which is an OCTET STRING within the value of the extension.
fn nonce(extensions: Vec<Extension>) -> Result<Option<Vec<u8>>> {
    let (mut nonces, others): (Vec<_>, Vec<_>) = extensions.into_iter().partition(|one| one.extn_id == NONCE);
    refuse_critical(&others)?;
    let Some(last) = nonces.pop() else { return Ok(None) };
    if !nonces.is_empty() {
        return Err(malformed("it has two nonces"));
    }
    let nonce =
        OctetString::from_der(last.extn_value.as_bytes()).map_err(|e| malformed("its nonce is none").because(e))?;
    if nonce.as_bytes().is_empty() || nonce.as_bytes().len() > MAX_NONCE {
        return Err(malformed("its nonce does not have 1 to 128 bytes"));
    }
    Ok(Some(nonce.as_bytes().to_vec()))
}

/// "Unrecognized extensions MUST be ignored (unless they have the critical flag set and are not understood)"
/// ([RFC 6960, 4.4](https://www.rfc-editor.org/rfc/rfc6960#section-4.4)).
fn refuse_critical(extensions: &[Extension]) -> Result<()> {
    if extensions.iter().any(|one| one.critical) { Err(malformed("it has a critical extension")) } else { Ok(()) }
}

fn malformed(what: &'static str) -> Error {
    Error::new(Kind::Invalid, "this is not an OCSP request").because(what)
}

/// The bytes of a response that are signed.
///
/// # Errors
/// [`Kind::Internal`] for what cannot be encoded.
pub fn to_be_signed(response: &Answers<'_>) -> Result<Vec<u8>> {
    let Answers { responder, produced_at, answers, nonce } = response;
    let extensions = match nonce {
        Some(nonce) => {
            let value = OctetStringRef::new(nonce).map_err(unwritable)?;
            Some(vec![extension(NONCE, false, &value)?])
        }
        None => None,
    };
    let body = ResponseBody {
        by_key: OctetString::new(IssuerHash::Sha1.digest(&responder.raw()?)).map_err(unwritable)?,
        produced_at: time(*produced_at)?,
        answers: answers.iter().map(single).collect::<Result<_>>()?,
        extensions,
    };
    body.to_der().map_err(unwritable)
}

fn single<'a>(answer: &Answer<'a>) -> Result<SingleResponse<'a>> {
    let Answer { certificate, status, this_update, next_update } = answer;
    let status = match status {
        Status::Good => CertStatus::Good(Null),
        Status::Revoked { at, reason } => CertStatus::Revoked(RevokedInfo { at: time(*at)?, reason: reason.written() }),
        Status::Unknown => CertStatus::Unknown(Null),
    };
    Ok(SingleResponse {
        id: CertId::write(certificate)?,
        status,
        this_update: time(*this_update)?,
        next_update: time(*next_update)?,
    })
}

fn time(time: Timestamp) -> Result<GeneralizedTime> {
    date(time).map(GeneralizedTime::from_date_time)
}

/// The whole response of signed bytes: `raw_signature` is the device's, `responder` the certificate of its key in DER.
///
/// # Errors
/// As those of [`assemble`].
pub fn respond(to_be_signed: &[u8], algorithm: Algorithm, raw_signature: &[u8], responder: &[u8]) -> Result<Vec<u8>> {
    let signed = assemble(to_be_signed, algorithm, raw_signature)?;
    let mut basic = Basic::from_der(&signed).map_err(unwritable)?;
    basic.certificates = Some(vec![AnyRef::from_der(responder).map_err(unwritable)?]);
    let basic = basic.to_der().map_err(unwritable)?;
    let bytes = ResponseBytes { kind: BASIC, response: OctetStringRef::new(&basic).map_err(unwritable)? };
    Response { status: ResponseStatus::Successful, bytes }.to_der().map_err(unwritable)
}
