//! Certificate revocation lists ([RFC 5280, 5](https://www.rfc-editor.org/rfc/rfc5280#section-5)): full ones, version 2, one
//! for each version of an issuer.
//!
//! ```text
//! TBSCertList = version 1 || algorithm || issuer || this update || next update || entries? || [0] extensions
//! entry       = serial || revocation date || (reason)?                                       at most 51 bytes
//! extensions  = authority key identifier || number || (issuing distribution point, critical)?
//! ```
//!
//! Entries are encoded as they come, so a list costs its own bytes and no tree beside them. They stand in the order in which
//! they come; give them in one order, and the same facts make the same bytes.

use der::asn1::{AnyRef, GeneralizedTime, ObjectIdentifier, Uint, UintRef, UtcTime};
use der::{DateTime, Decode, Encode, Sequence, Tag};
use jiff::Timestamp;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::CrlReason;
use x509_cert::ext::pkix::name::DistributionPointName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, IssuingDistributionPoint};
use x509_cert::time::Time;
use x509_parser::prelude::{CertificateRevocationList, FromDer, ParsedExtension};

use super::Serial;
use super::certificate::IssuerView;
use super::extensions::{AUTHORITY_KEY_ID, extension, octets, uri};
use super::key::KeyKind;
use super::signature::{Signed, algorithm_identifier};
use crate::error::{Error, Kind, Result};
use crate::types::words;

const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");

words! {
    /// Why a certificate is revoked ([RFC 5280, 5.3.1](https://www.rfc-editor.org/rfc/rfc5280#section-5.3.1)). Revocation is for
    /// good here: there is no `certificateHold`, and so no `removeFromCRL`. `aACompromise` is for attribute certificates, which
    /// nobody issues here.
    Reason: "reason of a revocation" {
        /// None is given.
        Unspecified = "unspecified",
        /// Somebody else has the key of the subject, or may have it.
        KeyCompromise = "key-compromise",
        /// Somebody else has the key of an authority, or may have it.
        CaCompromise = "ca-compromise",
        /// A name or another fact about the subject is not true any more.
        AffiliationChanged = "affiliation-changed",
        /// Another certificate has taken its place.
        Superseded = "superseded",
        /// It is not needed any more.
        CessationOfOperation = "cessation-of-operation",
        /// A right that it stands for was taken away.
        PrivilegeWithdrawn = "privilege-withdrawn",
    }
}

impl Reason {
    /// The number of the standard, which ACME uses too.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The reason of that number, where it is offered.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.code() == code)
    }

    /// What is written of it: "the reason code CRL entry extension SHOULD be absent instead of using the unspecified (0)
    /// reasonCode value".
    pub(super) const fn written(self) -> Option<CrlReason> {
        match self {
            Self::Unspecified => None,
            Self::KeyCompromise => Some(CrlReason::KeyCompromise),
            Self::CaCompromise => Some(CrlReason::CaCompromise),
            Self::AffiliationChanged => Some(CrlReason::AffiliationChanged),
            Self::Superseded => Some(CrlReason::Superseded),
            Self::CessationOfOperation => Some(CrlReason::CessationOfOperation),
            Self::PrivilegeWithdrawn => Some(CrlReason::PrivilegeWithdrawn),
        }
    }
}

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Which.
    pub serial: Serial,
    /// Since when, in whole seconds.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// What a list says beside its entries.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Who signs it.
    pub issuer: &'a IssuerView,
    /// Its number, greater than that of each list before it.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When the next one will be there at the latest.
    pub next_update: Timestamp,
    /// Where it is found, as its certificates say, so that the list of another version cannot stand in for it. Empty where they
    /// name no place: a list that names one would not count for them.
    pub places: &'a [String],
}

#[derive(Sequence)]
struct Body<'a> {
    version: u8,
    signature: AnyRef<'a>,
    issuer: AnyRef<'a>,
    this_update: Time,
    next_update: Time,
    revoked: Option<AnyRef<'a>>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Entry<'a> {
    serial: UintRef<'a>,
    at: Time,
    extensions: Option<AnyRef<'a>>,
}

/// The bytes of a list that are signed.
///
/// # Errors
/// [`Kind::Internal`] for what cannot be encoded, such as times before 1970.
pub fn to_be_signed(head: &Head<'_>, revoked: impl IntoIterator<Item = Revoked>) -> Result<Vec<u8>> {
    let entries = entries(revoked)?;
    let revoked = match entries.as_slice() {
        // "When there are no revoked certificates, the revoked certificates list MUST be absent."
        [] => None,
        some => Some(AnyRef::new(Tag::Sequence, some).map_err(unwritable)?),
    };
    let body = Body {
        version: 1,
        signature: AnyRef::from_der(algorithm_identifier(head.issuer.algorithm)?).map_err(unwritable)?,
        issuer: AnyRef::from_der(&head.issuer.subject).map_err(unwritable)?,
        this_update: time(head.this_update)?,
        next_update: time(head.next_update)?,
        revoked,
        extensions: extensions(head)?,
    };
    body.to_der().map_err(unwritable)
}

fn entries(revoked: impl IntoIterator<Item = Revoked>) -> Result<Vec<u8>> {
    let mut reasons = Vec::new();
    for reason in Reason::ALL {
        reasons.push(reason.written().map(of_entry).transpose()?);
    }
    let mut out = Vec::new();
    for Revoked { serial, at, reason } in revoked {
        let place = Reason::ALL.iter().position(|one| *one == reason);
        let extensions = place.and_then(|place| reasons.get(place)?.as_deref());
        let entry = Entry {
            serial: UintRef::new(serial.as_bytes()).map_err(unwritable)?,
            at: time(at)?,
            extensions: extensions.map(AnyRef::from_der).transpose().map_err(unwritable)?,
        };
        entry.encode_to_vec(&mut out).map_err(unwritable)?;
    }
    Ok(out)
}

/// The extensions of an entry.
fn of_entry(reason: CrlReason) -> Result<Vec<u8>> {
    vec![extension(REASON_CODE, false, &reason)?].to_der().map_err(unwritable)
}

fn extensions(head: &Head<'_>) -> Result<Vec<Extension>> {
    let key_identifier = Some(octets(&head.issuer.key_id)?);
    let authority = AuthorityKeyIdentifier { key_identifier, ..AuthorityKeyIdentifier::default() };
    let number = Uint::new(&head.number.to_be_bytes()).map_err(unwritable)?;
    let mut extensions = vec![extension(AUTHORITY_KEY_ID, false, &authority)?, extension(CRL_NUMBER, false, &number)?];
    if !head.places.is_empty() {
        let names = head.places.iter().map(|place| uri(place)).collect::<Result<_>>()?;
        let point = IssuingDistributionPoint {
            distribution_point: Some(DistributionPointName::FullName(names)),
            only_contains_user_certs: false,
            only_contains_ca_certs: false,
            only_some_reasons: None,
            indirect_crl: false,
            only_contains_attribute_certs: false,
        };
        // "This extension MUST be critical": whoever does not know it would take the list for all of the issuer.
        extensions.push(extension(ISSUING_DISTRIBUTION_POINT, true, &point)?);
    }
    Ok(extensions)
}

/// "CRL issuers ... MUST encode thisUpdate as UTCTime for dates through the year 2049", and in the other form from then on.
fn time(time: Timestamp) -> Result<Time> {
    let date = date(time)?;
    Ok(match UtcTime::from_date_time(date) {
        Ok(short) => Time::UtcTime(short),
        Err(_) => Time::GeneralTime(GeneralizedTime::from_date_time(date)),
    })
}

/// To the second: fractions have no place in any of these structures.
pub(super) fn date(time: Timestamp) -> Result<DateTime> {
    let seconds = u64::try_from(time.as_second()).map_err(|_| Error::internal("a time before 1970"))?;
    DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)).map_err(unwritable)
}

pub(super) fn unwritable(error: der::Error) -> Error {
    Error::internal(format!("der: {error}"))
}

/// Reads the signed bytes with another parser than the encoder's, and compares them with what was asked for.
///
/// # Errors
/// [`Kind::Tampered`] for a signature that is not the issuer's, [`Kind::Internal`] for a list that says anything else.
pub fn check(der: &[u8], head: &Head<'_>, revoked: impl IntoIterator<Item = Revoked>) -> Result<()> {
    let differs = |what: &str| Error::internal(format!("the list differs from what was asked for: {what}"));
    let (rest, list) = CertificateRevocationList::from_der(der).map_err(|e| differs(&e.to_string()))?;
    let says = |what: &str, holds: bool| if holds { Ok(()) } else { Err(differs(what)) };
    says("what follows it", rest.is_empty())?;
    says("version", list.version() == Some(x509_parser::x509::X509Version::V2))?;
    says("issuer", list.issuer().as_raw() == head.issuer.subject)?;
    says("this update", list.last_update().timestamp() == head.this_update.as_second())?;
    says("next update", list.next_update().map(|at| at.timestamp()) == Some(head.next_update.as_second()))?;
    says("number", list.crl_number() == Some(&head.number.into()))?;
    let mut found = list.iter_revoked_certificates();
    for Revoked { serial, at, reason } in revoked {
        let entry = found.next().ok_or_else(|| differs("an entry is missing"))?;
        let digits = entry.raw_serial();
        let padded = serial.as_bytes().len().checked_sub(digits.len()).is_some_and(|missing| {
            let (zeros, rest) = serial.as_bytes().split_at(missing);
            zeros.iter().all(|byte| *byte == 0) && rest == digits
        });
        says("the serial number of an entry", padded)?;
        says("the date of an entry", entry.revocation_date.timestamp() == at.as_second())?;
        let own = entry.reason_code().map_or(0, |(_, code)| code.0);
        says("the reason of an entry", own == reason.code())?;
    }
    says("an entry too many", found.next().is_none())?;
    let mut extensions = list.extensions().iter();
    let placed = extensions.any(|one| matches!(one.parsed_extension(), ParsedExtension::IssuingDistributionPoint(_)));
    says("issuing distribution point", placed != head.places.is_empty())?;
    let signed = Signed::parse(der)?;
    says("algorithm", signed.algorithm == algorithm_identifier(head.issuer.algorithm)?)?;
    signed
        .verify(KeyKind::of_algorithm(head.issuer.algorithm)?, &head.issuer.public_key)
        .map_err(|e| Error::new(Kind::Tampered, "the signature of a revocation list is not its issuer's").because(e))
}
