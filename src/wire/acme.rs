//! ACME endpoints, and the keys that bind their accounts to identities.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SecretText;
use crate::types::{EndpointName, IssuerName, Name, Period, ProfileName};

/// Makes an ACME endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAcmeEndpoint {
    /// Its name, which stands in its address.
    #[schema(value_type = String, example = "default:web")]
    pub name: EndpointName,
    /// Who signs.
    #[schema(value_type = String)]
    pub issuer: IssuerName,
    /// What may be asked for; the first where a client names none.
    #[schema(value_type = Vec<String>)]
    pub profiles: Vec<ProfileName>,
    /// For whom every account speaks. Where absent, an account needs an external account binding, which says for whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub identity: Option<Name>,
    /// The groups of that identity.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// `http-01`, `dns-01`, `tls-alpn-01`: all of them where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenges: Option<Vec<String>>,
    /// Private networks where proofs are looked for, such as `10.0.0.0/8`.
    #[serde(default)]
    pub networks: Vec<String>,
    /// The terms of service that an account must agree to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
    /// Where people read about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website: Option<String>,
    /// The names of this authority in CAA records. Where there are none, CAA records are not looked at.
    #[serde(default)]
    pub caa: Vec<String>,
}

/// An ACME endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AcmeEndpoint {
    /// What it was made from.
    #[serde(flatten)]
    pub endpoint: CreateAcmeEndpoint,
    /// The path of its directory, which is all that a client needs.
    pub directory: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

/// Makes a key that binds ACME accounts to an identity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEabKey {
    /// For whom its accounts speak.
    #[schema(value_type = String, example = "web-servers")]
    pub identity: Name,
    /// The groups that policies may name.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// How long accounts can be made with it; without end where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ttl: Option<Period>,
    /// How many accounts can be made with it; any number where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
}

/// A binding key that was made: shown this once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EabKeyCreated {
    /// The key in base64url, as clients want it; absent in the answer to a repeated request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretText>,
    /// What everybody may know of it.
    #[serde(flatten)]
    pub info: EabKeyInfo,
}

/// What everybody may know of a binding key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EabKeyInfo {
    /// Its id, which clients call the key identifier.
    pub id: String,
    /// For whom its accounts speak.
    #[schema(value_type = String)]
    pub identity: Name,
    /// The groups.
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Until when accounts can be made with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// How many more accounts can be made with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked: Option<Timestamp>,
}
