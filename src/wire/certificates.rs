//! Issuers, profiles and certificates.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Base64;
use crate::types::{
    Algorithm, Distribution, IssuerName, Name, Period, ProfileName, Residency, Rollover, Subject, Version,
};

/// What counts for an issuer from its next version on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerRules {
    /// How long its certificate lives, unless its parent's ends before: 3650d for a root and 1825d below another where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "3650d")]
    pub lifetime: Option<Period>,
    /// How many authorities may stand below it; any number where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_length: Option<u8>,
    /// The names that it may certify, as `dns:example.com`, `ip:10.0.0.0/8`, `email:example.com` or `uri:example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    /// Those that it may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// Under which policies it is certified, as object identifiers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// What its certificates say about where to look; the service's own places where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// When its next version is made and put in force by itself, in hundredths of the active one's life: 50 and 67 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollover: Option<Rollover>,
    /// Whether its next version comes only by hand.
    #[serde(default)]
    pub manual_rollover: bool,
}

/// Makes an issuer, its key and its first certificate.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateIssuer {
    /// `name`, or `namespace:name`; also the name of its key.
    #[schema(value_type = String, example = "fleet:root")]
    pub name: IssuerName,
    /// The subject of its certificates.
    pub subject: Subject,
    /// The issuer that certifies it; itself where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent: Option<IssuerName>,
    /// Whether an outside authority certifies it, by a request and an import.
    #[serde(default)]
    pub outside: bool,
    /// How its key signs.
    #[schema(value_type = String, example = "ecdsa-p256-sha256")]
    pub algorithm: Algorithm,
    /// The device that keeps its key; the configuration's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub device: Option<Name>,
    /// Where the key stays there; the device's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub residency: Option<Residency>,
    /// As said.
    #[serde(default)]
    pub rules: IssuerRules,
}

/// Changes an issuer; what is absent stays. Needs the header `If-Match` with the issuer's ETag.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateIssuer {
    /// Whether it issues; it tells of revocation all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// All the new rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<IssuerRules>,
}

/// Makes the next version of an issuer, which is published and issues nothing yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateIssuer {
    /// Refuse unless this is the newest version: of several at once, one wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub expected_version: Option<Version>,
}

/// Puts a prepared version in force.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateIssuer {
    /// Which.
    #[schema(value_type = u32)]
    pub version: Version,
}

/// Gives an issuer the certificate that an outside authority made for it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportIssuer {
    /// PEM: its certificate, and below it those above it, nearest first.
    pub chain: String,
}

/// Has another issuer certify the newest version of this one as well.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossSign {
    /// Who signs.
    #[schema(value_type = String)]
    pub signer: IssuerName,
}

/// An issuer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Issuer {
    /// `namespace:name`; also the name of its key.
    #[schema(value_type = String)]
    pub name: IssuerName,
    /// Its subject, for people.
    pub subject: String,
    /// The issuer that certifies it; absent for a root and below an outside authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent: Option<IssuerName>,
    /// Whether an outside authority certifies it.
    pub outside: bool,
    /// How its key signs.
    #[schema(value_type = String)]
    pub algorithm: Algorithm,
    /// The device that keeps its key.
    #[schema(value_type = String)]
    pub device: Name,
    /// Whether it issues.
    pub enabled: bool,
    /// The version that issues now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub active: Option<Version>,
    /// As said.
    pub rules: IssuerRules,
    /// Its versions, oldest first.
    pub versions: Vec<IssuerVersion>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Changes with every change; send it as `If-Match`.
    pub etag: String,
}

/// A version of an issuer: a version of its key, and a certificate for it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IssuerVersion {
    /// The number.
    #[schema(value_type = u32)]
    pub version: Version,
    /// `requested`, `prepared`, `active`, `retired` or `ended`; or `compromised`, where its key is.
    pub state: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it began to issue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub activated: Option<Timestamp>,
    /// When it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retired: Option<Timestamp>,
    /// Its certificate in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The certificates above it in PEM, nearest first, without the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
    /// The same key certified by other issuers, in PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cross: String,
    /// The first second of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// The last second of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_after: Option<Timestamp>,
    /// Its request to an outside authority, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A profile: what certificates from it look like. `docs/certificates.md` tells its fields.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `namespace:name`; may be left out where the address has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<ProfileName>,
    /// What it says.
    #[schema(value_type = Object)]
    pub profile: serde_json::Value,
    /// Whether it is one to start with, that nobody stored. Not sent.
    #[serde(default)]
    pub built_in: bool,
    /// Changes with every change. Not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// A certificate that is asked for: by a CSR, or by the kind of a key that the service makes outside any device.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateWanted {
    /// The CSR in PEM. It proves the key; whether its names and subject count is said by the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// The kind of key to make, such as `ecdsa-p256`, where there is no CSR and the profile allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Names, as `dns:web.example.com`, `ip:10.0.0.1`, `email:a@b.example` or `uri:spiffe://td/x`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The subject, where the profile lets it be asked for.
    #[serde(default)]
    pub subject: Subject,
    /// How long it is to live; as the profile says where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "24h")]
    pub lifetime: Option<Period>,
    /// When it is to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// When it is to end, in place of a lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_after: Option<Timestamp>,
}

/// Asks for a certificate.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueCertificate {
    /// The profile.
    #[schema(value_type = String, example = "server")]
    pub profile: ProfileName,
    /// What is wanted.
    pub request: CertificateWanted,
}

/// Asks for many certificates from one profile.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueCertificates {
    /// The profile.
    #[schema(value_type = String, example = "server")]
    pub profile: ProfileName,
    /// What is wanted, up to 1,000.
    pub items: Vec<CertificateWanted>,
}

/// A certificate.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// Its serial number: 40 hexadecimal digits.
    pub serial: String,
    /// Who signed it.
    #[schema(value_type = String)]
    pub issuer: IssuerName,
    /// With which version.
    #[schema(value_type = u32)]
    pub version: Version,
    /// The profile; `(root)`, `(intermediate)`, `(cross)` or `[ocsp]` for what the service makes for itself.
    pub profile: String,
    /// Who asked for it.
    pub requester: String,
    /// Its subject, for people.
    pub subject: String,
    /// Its names.
    pub names: Vec<String>,
    /// Its first second.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Timestamp,
    /// Its last second.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// `reserved`, `lost` or `issued`.
    pub state: String,
    /// Since when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// SHA-256 of its DER, in hex.
    pub fingerprint: String,
    /// PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The certificates between it and the root in PEM, nearest first: what a TLS server sends after its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
    /// Its private key in PEM, where the service has just made it: shown once and kept nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKeyText>,
}

/// When a certificate should be renewed: draw a moment of the window, and keep it while the window ends at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Renewal {
    /// The first moment.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// The last one. Where it is over, renew at once.
    #[schema(value_type = String, format = DateTime)]
    pub end: Timestamp,
    /// Whether that is before its time: it is or will be revoked, or its issuer has a new version.
    pub early: bool,
    /// After how many seconds to ask again.
    pub ask_again: u64,
    /// Where people read why, if that was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// A private key in PEM; `Debug` does not show it.
#[derive(Serialize, Deserialize, ToSchema, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct PrivateKeyText(pub String);

impl std::fmt::Debug for PrivateKeyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKeyText")
    }
}

/// Revokes a certificate for good.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeCertificate {
    /// `unspecified` where absent, `key-compromise`, `affiliation-changed`, `superseded`, `cessation-of-operation` or
    /// `privilege-withdrawn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A signature by the certified key over `"signet revoke v1\n" issuer "\n" serial "\n" reason "\n"`: ECDSA in DER, RSA by
    /// PKCS #1 v1.5 with SHA-256. With it no policy has to allow the revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Byte)]
    pub proof: Option<Base64>,
}

/// Revokes every certificate of an issuer that is not over.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeCertificates {
    /// Only those of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub version: Option<Version>,
    /// As for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How many certificates were revoked now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokedCount {
    /// How many.
    pub revoked: usize,
}

/// Announces that certificates of an issuer, as many as were made until now, will be revoked at a time, or are to be replaced until
/// then. All conditions hold together; without any it is about all of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// Only those of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub version: Option<Version>,
    /// Only those from this profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub profile: Option<ProfileName>,
    /// Only these, by their serial numbers; at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serials: Vec<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why they are revoked then, as for a revocation; where absent nothing is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<String>,
    /// An http or https address where people read about it; ACME clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// An announcement.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Announcement {
    /// Its id.
    pub id: String,
    /// Whose certificates.
    #[schema(value_type = String)]
    pub issuer: IssuerName,
    /// As said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub version: Option<Version>,
    /// As said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub profile: Option<ProfileName>,
    /// As said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serials: Vec<String>,
    /// As said.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// As said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<String>,
    /// As said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// Since when it is told: certificates that were made later are not meant.
    #[schema(value_type = String, format = DateTime)]
    pub told: Timestamp,
    /// Who said so.
    pub by: String,
    /// Whether its time has come and what it said was done.
    pub done: bool,
}
