//! What is stored of an issuer and its versions, and the rules that count for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::ObjectIdentifier;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, IssuerName, Name, Period, Rollover, Version, words};
use crate::x509::{Authority as Powers, Distribution, Subject};

/// The shortest life of an issuer's certificate.
const MIN_LIFETIME: Period = Period::seconds(3600);
/// The most policies of an issuer, and the most places of each kind.
const MAX_LIST: usize = 16;

words! {
    /// What a version of an issuer does.
    VersionState: "state of an issuer's version" {
        /// An outside authority has its request and has not answered yet.
        Requested = "requested",
        /// It has a certificate, which is published; it issues nothing yet.
        Prepared = "prepared",
        /// It issues.
        Active = "active",
        /// It issues no more and tells of revocation.
        Retired = "retired",
        /// Its last certificate is dead: it does nothing any more.
        Ended = "ended",
    }
}

/// Who certifies an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parent {
    /// Itself: a root.
    Itself,
    /// An issuer of ours.
    Issuer(IssuerName),
    /// Somebody else, who gets a request.
    Outside,
}

/// What counts for an issuer from its next version on; the last two at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// How long its certificate lives, unless its parent's ends before.
    pub lifetime: Period,
    /// How many authorities may stand below it, and which names it may certify.
    pub powers: Powers,
    /// Under which policies it is certified.
    #[serde(with = "oids")]
    pub policies: Vec<ObjectIdentifier>,
    /// What its certificates say about where to look; the service's own places where absent. `{version}` stands for the version
    /// that signs.
    pub distribution: Option<Distribution>,
    /// When its next version comes by itself; only by hand where absent.
    pub rollover: Option<Rollover>,
}

/// What is stored of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(super) format: u32,
    /// Its full name, and that of its key.
    pub name: IssuerName,
    /// The subject of its certificates.
    pub subject: Subject,
    /// Who certifies it.
    pub parent: Parent,
    /// How its key signs.
    pub algorithm: Algorithm,
    /// The device that keeps its key.
    pub device: Name,
    /// As said.
    pub rules: Rules,
    /// Whether it issues; it tells of revocation all the same.
    pub enabled: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its versions, oldest first.
    pub versions: Vec<VersionRecord>,
}

/// What is stored of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The number: that of the key's version, too.
    pub version: Version,
    /// What it does.
    pub state: VersionState,
    /// When it was made.
    pub created: Timestamp,
    /// When it began to issue.
    pub activated: Option<Timestamp>,
    /// When it stopped.
    pub retired: Option<Timestamp>,
    /// When the last certificate that it signed is dead, once it is retired.
    pub last_end: Option<Timestamp>,
    /// The issuer and version that signed its certificate; absent for roots and below outside authorities.
    pub signer: Option<(IssuerName, Version)>,
    /// Its certificate.
    pub certificate: Option<Der>,
    /// The certificates above it, nearest first, where an outside authority certified it.
    pub above: Vec<Der>,
    /// The same key certified by other issuers.
    pub cross: Vec<Der>,
    /// Its request to an outside authority.
    pub request: Option<Der>,
}

/// DER, as base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Der(pub Vec<u8>);

impl Rules {
    /// Refuses what makes no sense, whoever the parent is.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the mend.
    pub fn check(&self) -> Result<()> {
        let Self { lifetime, powers, policies, distribution, rollover } = self;
        if *lifetime < MIN_LIFETIME {
            return Err(Error::new(Kind::Invalid, "an issuer's certificate lives for at least an hour")
                .hint("usual are 3650d for a root and 1825d for an intermediate"));
        }
        let constraints = &powers.constraints;
        constraints.permitted.iter().chain(&constraints.excluded).try_for_each(crate::x509::Subtree::check)?;
        let urls = distribution.iter().flat_map(|Distribution { crl, ocsp, issuer }| [crl, ocsp, issuer]).flatten();
        let fetched = |url: &&String| url.starts_with("http://") && url.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(url) = urls.into_iter().find(|url| !fetched(url)) {
            return Err(Error::new(Kind::Invalid, format!("{url:?} is no address that certificates can name"))
                .hint("http://: what is fetched there is signed, and https would need it first"));
        }
        let places =
            distribution.iter().flat_map(|Distribution { crl, ocsp, issuer }| [crl.len(), ocsp.len(), issuer.len()]);
        let longest = places.chain([policies.len(), constraints.permitted.len(), constraints.excluded.len()]).max();
        if longest > Some(MAX_LIST) {
            return Err(Error::new(
                Kind::Limit,
                format!("each list of an issuer's rules has at most {MAX_LIST} items"),
            ));
        }
        match rollover {
            Some(Rollover { prepare, activate }) if !(1 <= *prepare && prepare <= activate && *activate <= 95) => {
                Err(Error::new(Kind::Invalid, "a version is prepared before it is activated, and that before its end")
                    .hint("in hundredths of its life, such as prepare 50 and activate 67; at most 95"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl VersionRecord {
    /// A version that has nothing yet.
    pub(super) fn new(version: Version, state: VersionState, now: Timestamp) -> Self {
        Self {
            version,
            state,
            created: now,
            activated: (state == VersionState::Active).then_some(now),
            retired: None,
            last_end: None,
            signer: None,
            certificate: None,
            above: Vec::new(),
            cross: Vec::new(),
            request: None,
        }
    }
}

impl std::fmt::Debug for Der {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Der({})", self.0.len())
    }
}

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Object identifiers as texts.
mod oids {
    use super::{Deserialize, Deserializer, ObjectIdentifier, Serializer};

    pub(super) fn serialize<S: Serializer>(oids: &[ObjectIdentifier], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(oids.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ObjectIdentifier>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}
