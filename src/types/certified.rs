//! What a certificate says of its subject and of its issuer, before `x509` checks and encodes it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The attributes of a subject, each at most once, in the order in which they are encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Two letters of ISO 3166.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// State or province.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub province: Option<String>,
    /// The town.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// The organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// A part of the organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organizational_unit: Option<String>,
    /// The common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
}

/// Where relying parties find what belongs to the issuer; `{version}` in a rule stands for the version that signs. All URLs are
/// `http`: what is fetched is signed, and TLS would need it first ([RFC 5280, 8](https://www.rfc-editor.org/rfc/rfc5280#section-8)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// Revocation lists.
    #[serde(default)]
    pub crl: Vec<String>,
    /// OCSP responders.
    #[serde(default)]
    pub ocsp: Vec<String>,
    /// The issuer's certificate, in DER.
    #[serde(default)]
    pub issuer: Vec<String>,
}
