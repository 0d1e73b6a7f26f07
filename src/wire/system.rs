//! Tokens, identities, policies, audit, status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SecretText;
use crate::types::{Algorithm, IssuerName, KeyName, Name, Period, ProfileName, Residency, Version};

/// Makes a bearer token for an identity.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Who it speaks for.
    #[schema(value_type = String, example = "ci")]
    pub identity: Name,
    /// The groups that policies may name.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// How long it lives: `24h` where absent, at most `365d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ttl: Option<Period>,
    /// How many requests it serves; without limit where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
}

/// A token that was made: shown this once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// The secret; absent in the answer to a repeated request, because only its hash is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretText>,
    /// What everybody may know of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// What everybody may know of a token.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Its public id, as in the audit log.
    pub id: String,
    /// Who it speaks for.
    #[schema(value_type = String)]
    pub identity: Name,
    /// The groups.
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
    /// Requests left, where limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked: Option<Timestamp>,
}

/// An identity that proves itself by a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name; on writing it may be left out, because the address names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    /// The groups that policies may name.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// Which certificates are this identity: any one of them.
    pub certificates: Vec<CertificateMatch>,
}

/// What a client certificate must hold. The chain must lead to the configured authority as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CertificateMatch {
    /// This SPIFFE id as its only URI name.
    Spiffe(String),
    /// This DNS name among its names.
    Dns(String),
    /// The SHA-256 of its public key (SPKI), in hex.
    PublicKey(String),
}

/// A policy in Cedar.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name; on writing it may be left out, because the address names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    /// Cedar, one or more statements.
    pub text: String,
    /// Changes with every change; send it as `If-Match` to write over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// Asks why somebody may, or may not.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// Who.
    #[schema(value_type = String)]
    pub identity: Name,
    /// The groups to assume.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// The operation, such as `Sign`.
    pub action: String,
    /// On which key; without key, issuer and profile it is the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyName>,
    /// On which issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub issuer: Option<IssuerName>,
    /// From which profile a certificate of the issuer would be; without an issuer, on which profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub profile: Option<ProfileName>,
    /// For which name a certificate of the issuer would be, as `dns:web.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The answer to [`Explain`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The statements that decided, as `policy#n`.
    pub because: Vec<String>,
    /// The statements that were looked at.
    pub candidates: Vec<String>,
    /// Statements that could not be evaluated: each is a refusal.
    pub errors: Vec<String>,
}

/// Who the service takes the caller for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// The principal, such as `identity/ci`.
    pub principal: String,
    /// Its groups.
    #[schema(value_type = Vec<String>)]
    pub groups: Vec<Name>,
    /// The credential, such as `token/1f...`.
    pub credential: String,
}

/// Records of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditRecords {
    /// The index of the first record: a later one than was asked for, where that was pruned.
    pub first: u64,
    /// The records, each as it stands in the log.
    #[schema(value_type = Vec<Object>)]
    pub records: Vec<serde_json::Value>,
    /// The index to go on at: an answer may hold fewer records than were asked for.
    pub next: u64,
    /// The number of records in the log.
    pub size: u64,
}

/// Has records removed from the audit log that its archive holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneAudit {
    /// Nothing from that record on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<u64>,
    /// Nothing that is younger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "90d")]
    pub keep: Option<Period>,
    /// Whether it is only said what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What went from the audit log, or would go.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPruned {
    /// The first record that went.
    pub first: u64,
    /// The first record that stays.
    pub below: u64,
    /// The segments that went.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The records of the signed head that covers them.
    pub head: u64,
    /// What keeps records, each with the first that it keeps.
    pub limits: BTreeMap<String, u64>,
    /// The folder of the archive, which was found to hold what went.
    pub archive: String,
    /// Whether more may go: ask again.
    pub more: bool,
    /// Whether it was done.
    pub done: bool,
}

/// The newest signed head of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditHead {
    /// The signed note (C2SP tlog-checkpoint).
    pub note: String,
    /// The ECDSA P-256 key that signs heads, in PEM.
    pub public_key: String,
    /// The Ed25519 key that signs them as well, in PEM; absent where no device keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ed25519_public_key: Option<String>,
}

/// A record of the audit log, and the proof that it is in it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditProof {
    /// The index of the record.
    pub index: u64,
    /// The records of the head.
    pub size: u64,
    /// The proof (C2SP tlog-proof), whose extra line is the record.
    pub proof: String,
    /// The ECDSA P-256 key that signs heads, in PEM.
    pub public_key: String,
}

/// The proof that the audit log only grew since an earlier head.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditConsistency {
    /// The records of the earlier head.
    pub old: u64,
    /// The records of the later head.
    pub size: u64,
    /// The proof and the later head, as they are sent to a witness (C2SP tlog-witness).
    pub proof: String,
    /// The ECDSA P-256 key that signs heads, in PEM.
    pub public_key: String,
}

/// The state of the service.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The random id of this installation.
    pub instance: String,
    /// Whether it serves everything it should.
    pub ready: bool,
    /// Why not, in full.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What start-up found and mended, newest first.
    #[serde(default)]
    pub recovered: Vec<String>,
    /// The certificate that the server shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ServerCertificate>,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
    /// How many keys there are.
    pub keys: u64,
    /// Keys whose rotation is overdue: the first 1,000 of them.
    #[schema(value_type = Vec<String>)]
    pub rotations_overdue: Vec<KeyName>,
    /// Records in the audit log.
    pub audit_size: u64,
    /// Records below the newest signed head.
    pub audit_signed: u64,
    /// The keys that sign each head.
    #[serde(default)]
    pub audit_keys: Vec<AuditKey>,
    /// The further places of the audit log.
    #[serde(default)]
    pub audit_sinks: Vec<SinkPosition>,
    /// The witnesses of the audit log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<WitnessPosition>,
}

/// A key that signs the heads of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditKey {
    /// Its algorithm.
    #[schema(value_type = String)]
    pub algorithm: Algorithm,
    /// The device that keeps it.
    pub device: String,
}

/// How a further place of the audit log stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SinkPosition {
    /// Its name in the configuration.
    #[schema(value_type = String)]
    pub name: Name,
    /// What it is: `folder`, `otlp` or `archive`.
    #[serde(default)]
    pub kind: String,
    /// Whether a record counts only once it is durable there.
    pub required: bool,
    /// The records that are durable there.
    pub size: u64,
    /// The records that it lacks.
    pub behind: u64,
    /// The records that it was given and did not accept.
    #[serde(default)]
    pub rejected: u64,
    /// What keeps it from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How a witness of the audit log stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct WitnessPosition {
    /// Its name.
    pub name: String,
    /// Whether changes are acknowledged only once it holds them.
    pub required: bool,
    /// How many records it cosigned last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cosigned: Option<Timestamp>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The certificate that the server shows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerCertificate {
    /// Where it comes from: `files`, `self-made` or `issued`.
    pub source: String,
    /// The serial number, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its names, as `dns:kms.example.com`.
    #[serde(default)]
    pub names: Vec<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}

/// The state of a device.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceStatus {
    /// Its name in the configuration.
    #[schema(value_type = String)]
    pub name: Name,
    /// `pkcs11` or `tpm`.
    pub kind: String,
    /// Maker, model and version.
    pub model: String,
    /// The serial number, or the Name of the storage key.
    pub serial: String,
    /// Whether it answers.
    pub up: bool,
    /// Why not, or a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How often its worker process was replaced.
    pub restarts: u64,
    /// How its breaker stands: `closed`, `open` (calls are refused at once) or `half-open` (it is tried).
    #[serde(default)]
    pub breaker: String,
    /// What it can and cannot keep.
    pub abilities: Vec<DeviceAbility>,
    /// When it was first found to be so; absent before its first trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub tried: Option<Timestamp>,
    /// How that differs from what was found before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// The anchor of the store in it; absent where it holds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<AnchorPosition>,
    /// Whether it is software: its anchor proves nothing against whoever can put its files back.
    #[serde(default)]
    pub software: bool,
}

/// How an anchor stands: what the device vouches for, so that an older store is noticed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AnchorPosition {
    /// The number of the last commit that it is known to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How many commits it is behind: 0, but for what waits for the next second, or for the next write that its memory is
    /// allowed.
    pub behind: u64,
    /// Why it could not be written at the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Whether a device can keep one kind of key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceAbility {
    /// The algorithm.
    #[schema(value_type = String)]
    pub algorithm: Algorithm,
    /// The residency.
    #[schema(value_type = String)]
    pub residency: Residency,
    /// Why not; absent where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The device's own code, where it is the device that refuses and not this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How long one use took when it was tried, in microseconds; absent where it was concluded from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
}

/// What a backup holds, and what it cannot bring back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BackupManifest {
    /// The form of the archive: 1.
    pub format: u32,
    /// The installation it was taken from.
    pub instance: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub taken: Timestamp,
    /// Records in the audit log.
    pub audit_size: u64,
    /// SHA-256 of each file of the archive, in hex.
    pub files: BTreeMap<String, String>,
    /// The versions that only their own device can bring back: the first 1,000 of each device and reason.
    pub bound_to_device: Vec<BoundVersion>,
    /// How many there are of each; absent in archives of older programs, which name all versions.
    #[serde(default)]
    pub bound: Vec<Bound>,
}

/// How many versions only one device can bring back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Bound {
    /// The device without which they are lost.
    #[schema(value_type = String)]
    pub device: Name,
    /// Why.
    pub reason: String,
    /// How many versions.
    pub versions: u64,
}

/// A version that a backup alone cannot bring back.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BoundVersion {
    /// The key.
    #[schema(value_type = String)]
    pub key: KeyName,
    /// The version.
    #[schema(value_type = u32)]
    pub version: Version,
    /// The device without which it is lost.
    #[schema(value_type = String)]
    pub device: Name,
    /// Why.
    pub reason: String,
}
