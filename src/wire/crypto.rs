//! Wrap, sign and MAC.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Base64, SecretBase64};
use crate::types::{Algorithm, Context, Hash, KeyName, SignatureFormat, State, Version};

/// Wraps a plaintext of up to 64 KiB.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wrap {
    /// What to wrap.
    #[schema(value_type = String, format = Byte)]
    pub plaintext: SecretBase64,
    /// Must be given again to unwrap.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub context: Context,
}

/// A ciphertext.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Wrapped {
    /// The blob: it names key and version by itself.
    #[schema(value_type = String, format = Byte)]
    pub ciphertext: Base64,
    /// The version that made it.
    #[schema(value_type = u32)]
    pub version: Version,
}

/// Unwraps a ciphertext.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Unwrap {
    /// The blob.
    #[schema(value_type = String, format = Byte)]
    pub ciphertext: Base64,
    /// As it was given to wrap.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub context: Context,
    /// Open it even though its version was declared compromised. Needs the action `UnwrapCompromised`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub danger_allow_compromised: bool,
}

/// A plaintext.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Unwrapped {
    /// What was wrapped.
    #[schema(value_type = String, format = Byte)]
    pub plaintext: SecretBase64,
    /// The version that opened it.
    #[schema(value_type = u32)]
    pub version: Version,
}

/// Moves a ciphertext to the newest version, or to another key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrap {
    /// The blob.
    #[schema(value_type = String, format = Byte)]
    pub ciphertext: Base64,
    /// As it was given to wrap; the new ciphertext has the same.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub context: Context,
    /// The key to move to; the same where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub to: Option<KeyName>,
}

/// Makes a random data key and wraps it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateDataKey {
    /// Its length in bytes: 16 to 64; 32 where absent.
    #[serde(default = "thirty_two")]
    pub length: usize,
    /// Must be given again to unwrap.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub context: Context,
    /// Whether the answer holds the plaintext, too.
    #[serde(default = "yes")]
    pub plaintext: bool,
}

const fn thirty_two() -> usize {
    32
}

const fn yes() -> bool {
    true
}

/// A data key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DataKey {
    /// Its plaintext, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Byte)]
    pub plaintext: Option<SecretBase64>,
    /// Its wrapped form, to keep beside the data.
    #[schema(value_type = String, format = Byte)]
    pub ciphertext: Base64,
    /// The version that wrapped it.
    #[schema(value_type = u32)]
    pub version: Version,
}

/// Signs a message, or a digest where the key's domain is `raw`. Exactly one of the two.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The message: up to 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Byte)]
    pub message: Option<Base64>,
    /// The digest of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// `der` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "der")]
    pub format: Option<SignatureFormat>,
}

/// A digest with the name of its hash, so that no digest of one kind is signed as another.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// The hash: must be the one of the key's algorithm.
    #[schema(value_type = String, example = "sha256")]
    pub hash: Hash,
    /// The digest.
    #[schema(value_type = String, format = Byte)]
    pub value: Base64,
}

/// A signature.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Signed {
    /// The signature, in base64, or base64url for the format `jws`.
    pub signature: String,
    /// The version that made it.
    #[schema(value_type = u32)]
    pub version: Version,
    /// What it does.
    #[schema(value_type = String)]
    pub algorithm: Algorithm,
    /// The `kid` of the version's JWK.
    pub kid: String,
}

/// Verifies a signature.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Byte)]
    pub message: Option<Base64>,
    /// The digest of the message, where the key's domain is `raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The signature, as [`Signed::signature`].
    pub signature: String,
    /// How it is written: `der` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub format: Option<SignatureFormat>,
    /// The version that made it; the primary one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub version: Option<Version>,
}

/// What became of a verification.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// Whether the signature, or the code, is one of that version over that message.
    pub valid: bool,
    /// The version that was asked.
    #[schema(value_type = u32)]
    pub version: Version,
    /// The state of that version: a compromised one proves nothing.
    #[schema(value_type = String)]
    pub state: State,
}

/// Makes a message authentication code.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeMac {
    /// The message: up to 64 KiB, or what the device takes (a TPM: 1,024 bytes).
    #[schema(value_type = String, format = Byte)]
    pub message: Base64,
}

/// A message authentication code.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MacMade {
    /// The code, whole.
    #[schema(value_type = String, format = Byte)]
    pub mac: Base64,
    /// The version that made it.
    #[schema(value_type = u32)]
    pub version: Version,
}

/// Checks a message authentication code.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyMac {
    /// The message.
    #[schema(value_type = String, format = Byte)]
    pub message: Base64,
    /// The code, whole: a shortened one is refused.
    #[schema(value_type = String, format = Byte)]
    pub mac: Base64,
    /// The version that made it; the primary one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub version: Option<Version>,
}
