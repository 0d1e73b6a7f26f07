//! Keys and their versions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::{
    Algorithm, Domain, KeyId, KeyName, Name, PcrValues, Pcrs, Period, Protection, Purpose, Residency, Retention,
    Rotation, State, Version, entries, optional_entries,
};

/// Makes a key and its first version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// `name`, or `namespace:name`.
    #[schema(value_type = String, example = "payments:card-data")]
    pub name: KeyName,
    /// What it does, for good.
    #[schema(value_type = String, example = "aes256-gcm-derived")]
    pub algorithm: Algorithm,
    /// The device that keeps it; the configuration's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub device: Option<Name>,
    /// Where the private part stays; the device's default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "wrapped")]
    pub residency: Option<Residency>,
    /// In a TPM: the platform configuration registers to whose values each version is bound at its birth. It works while these stand
    /// there, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "sha256:0,2,7")]
    pub pcrs: Option<Pcrs>,
    /// What a signing key may sign: `artifact` where absent. Not for other purposes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "artifact")]
    pub domain: Option<Domain>,
    /// When a new version is made without being asked.
    #[serde(default)]
    pub rotation: Rotation,
    /// How long old versions stay.
    #[serde(default)]
    pub retention: Retention,
    /// Free labels, which policies can read: up to 32, keys of the alphabet of names, values up to 128 characters.
    #[serde(default, deserialize_with = "entries")]
    pub labels: BTreeMap<String, String>,
    /// While true, neither the key nor a version of it can be scheduled for destruction.
    #[serde(default = "yes")]
    pub deletion_protection: bool,
}

const fn yes() -> bool {
    true
}

/// Changes a key; what is absent stays. Needs the header `If-Match` with the key's ETag.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateKey {
    /// The new rotation rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// The new retention rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// All the new labels.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_entries")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The new deletion protection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
}

/// A key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// `namespace:name`.
    #[schema(value_type = String)]
    pub name: KeyName,
    /// Random, never used again.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// What it is for.
    #[schema(value_type = String)]
    pub purpose: Purpose,
    /// What it does.
    #[schema(value_type = String)]
    pub algorithm: Algorithm,
    /// What it may sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub domain: Option<Domain>,
    /// The device that keeps it.
    #[schema(value_type = String)]
    pub device: Name,
    /// What protects it.
    #[schema(value_type = String, example = "hsm")]
    pub protection: Protection,
    /// The registers of the machine to whose values at its birth its next version is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "sha256:0,2,7")]
    pub pcrs: Option<Pcrs>,
    /// The version that wraps, signs or MACs now; absent where none may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub primary: Option<Version>,
    /// The newest version, whatever its state.
    #[schema(value_type = u32)]
    pub latest: Version,
    /// The rotation rule.
    pub rotation: Rotation,
    /// When the next rotation by age falls due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub rotates_at: Option<Timestamp>,
    /// Whether a rotation is due and has not been possible.
    #[serde(default)]
    pub rotation_overdue: bool,
    /// The retention rule.
    pub retention: Retention,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Whether destruction is refused.
    pub deletion_protection: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Changes with every change of the key or a version; send it as `If-Match`.
    pub etag: String,
}

/// A version of a key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyVersion {
    /// Its number.
    #[schema(value_type = u32)]
    pub version: Version,
    /// Its state.
    #[schema(value_type = String, example = "active")]
    pub state: State,
    /// Whether new ciphertexts and signatures are made with it.
    pub primary: bool,
    /// What protects it.
    #[schema(value_type = String)]
    pub protection: Protection,
    /// The devices that hold it.
    #[schema(value_type = Vec<String>)]
    pub devices: Vec<Name>,
    /// What must stand in which registers of the machine for it to be used: `{"bank": "sha256", "values": {"7": "…"}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub pcrs: Option<PcrValues>,
    /// The registers in which something else stands now: where there is one, the device does not use this version. Absent where it is
    /// bound to none, where the device cannot be asked, and in the answer to a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcrs_changed: Option<Vec<u8>>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it last changed its state.
    #[schema(value_type = String, format = DateTime)]
    pub changed: Timestamp,
    /// When it will be destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub destroy_at: Option<Timestamp>,
    /// Uses counted so far, for keys that rotate by uses: never less than the true number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Bytes counted so far, for keys that rotate by bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The public key in PEM, for keys that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// Makes a new primary version.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// The latest version that the caller knows of: of several at once exactly one wins.
    #[schema(value_type = Option<u32>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<Version>,
    /// Only make the version, ahead of time: it becomes the primary one when it is activated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prepare: bool,
}

/// Schedules the destruction of a version.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleDestruction {
    /// How long it can still be cancelled: 30 days where absent, at least `1d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "30d")]
    pub after: Option<Period>,
}

/// A public key in both forms, with all that wrapping by it takes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PublicKeyInfo {
    /// `namespace:name`.
    #[schema(value_type = String)]
    pub key: KeyName,
    /// The key's id.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// The version.
    #[schema(value_type = u32)]
    pub version: Version,
    /// What it does.
    #[schema(value_type = String)]
    pub algorithm: Algorithm,
    /// PEM of SubjectPublicKeyInfo.
    pub pem: String,
    /// JWK ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)); its `kid` is the thumbprint of RFC 7638.
    #[schema(value_type = Object)]
    pub jwk: serde_json::Value,
}
