//! What the store keeps of keys: JSON with a `format` number, sealed below.
//!
//! ```text
//! keys/NAMESPACE/NAME             KeyRecord
//! versions/KEY ID/NNNNNNNNNN      VersionRecord
//! pending/KEY ID/NNNNNNNNNN       Pending: a version that is being made, or was when the service died
//! attestations/KEY ID/NNNNNNNNNN  what the device said of a version at its birth: a file of `attestation`, as it is
//! counters/KEY ID/NNNNNNNNNN      Lease: how far the uses of a version are counted ahead
//! trials/DEVICE                   Trial: what a device was found able to do
//! ```

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::device::{KeyRef, Locator};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected, Record};
use crate::types::{
    Algorithm, Base64Bytes, Domain, KeyId, KeyName, Name, PcrValues, Pcrs, Protection, PublicKey, Residency, Retention,
    Rotation, SecretBytes, State, Version,
};

/// The format of all records here.
pub(super) const FORMAT: u32 = 1;

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub(super) format: u32,
    /// Its full name.
    pub name: KeyName,
    /// Its identity.
    pub id: KeyId,
    /// What it does.
    pub algorithm: Algorithm,
    /// What it may sign.
    pub domain: Option<Domain>,
    /// Where its next version is made.
    pub device: Name,
    /// Where the private part of its next version stays.
    pub residency: Residency,
    /// The registers of the machine to whose values at its birth its next version is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcrs: Option<Pcrs>,
    /// When a new version is made by itself.
    pub rotation: Rotation,
    /// Which old versions are scheduled for destruction by themselves.
    pub retention: Retention,
    /// What people wrote on it.
    pub labels: BTreeMap<String, String>,
    /// Whether destruction is refused.
    pub deletion_protection: bool,
    /// When it was made.
    pub created: Timestamp,
    /// The version that protects now.
    pub primary: Option<Version>,
    /// The newest version, whatever its state.
    pub latest: Version,
}

/// A version of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionRecord {
    pub(super) format: u32,
    /// The key.
    pub key: KeyId,
    /// The number.
    pub version: Version,
    /// The state.
    pub state: State,
    /// The state it was in when it was suspended or scheduled.
    pub before: Option<State>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed its state.
    pub changed: Timestamp,
    /// When it will be destroyed.
    pub destroy_at: Option<Timestamp>,
    /// Where it is: fixed at birth, empty once destroyed.
    pub copies: Vec<KeyCopy>,
    /// The public half of a pair.
    #[serde(with = "optional_base64")]
    pub(super) public: Option<Vec<u8>>,
    /// The HMAC of `"signet check v1" || id || version`, or its encryption, by a secret key.
    #[serde(with = "optional_base64")]
    pub(super) check: Option<Vec<u8>>,
}

impl VersionRecord {
    /// The public half, as its type.
    pub(super) fn public_key(&self) -> Option<PublicKey> {
        self.public.clone().map(PublicKey::from_der)
    }

    /// A version of which nothing is known but that it was.
    pub(super) const fn tombstone(key: KeyId, version: Version, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            key,
            version,
            state: State::Destroyed,
            before: None,
            created: now,
            changed: now,
            destroy_at: None,
            copies: Vec::new(),
            public: None,
            check: None,
        }
    }

    /// Whether it waited for its destruction, and the waiting period is over: nothing brings it back.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.state == State::DestroyScheduled && self.destroy_at.is_some_and(|due| due <= now)
    }
}

/// One copy of a version's private part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyCopy {
    /// The device that holds it or can open it; of a shared one that where it was made: each that has its key-encryption key opens it.
    pub device: Name,
    #[serde(flatten)]
    place: Place,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "residency", rename_all = "snake_case")]
enum Place {
    Resident,
    Wrapped {
        kek: KeyId,
        blob: Base64Bytes,
    },
    Shared {
        kek: KeyId,
        blob: Base64Bytes,
    },
    Tpm {
        parent: Base64Bytes,
        public: Base64Bytes,
        private: Base64Bytes,
        auth: Base64Bytes,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pcrs: Option<PcrValues>,
    },
}

impl KeyCopy {
    pub(super) fn new(device: Name, locator: &Locator) -> Self {
        let place = match locator {
            Locator::Resident => Place::Resident,
            Locator::Wrapped { kek, blob } => Place::Wrapped { kek: *kek, blob: Base64Bytes(blob.clone()) },
            Locator::Shared { kek, blob } => Place::Shared { kek: *kek, blob: Base64Bytes(blob.clone()) },
            Locator::Tpm { parent, public, private, auth }
            | Locator::TpmBound { parent, public, private, auth, pcrs: _ } => Place::Tpm {
                parent: Base64Bytes(parent.clone()),
                public: Base64Bytes(public.clone()),
                private: Base64Bytes(private.clone()),
                auth: Base64Bytes(auth.expose().to_vec()),
                pcrs: locator.pcrs().cloned(),
            },
        };
        Self { device, place }
    }

    /// What must stand in which registers of the machine for it to be used.
    #[must_use]
    pub const fn pcrs(&self) -> Option<&PcrValues> {
        match &self.place {
            Place::Tpm { pcrs, .. } => pcrs.as_ref(),
            Place::Resident | Place::Wrapped { .. } | Place::Shared { .. } => None,
        }
    }

    /// What protects it.
    pub(super) const fn protection(&self) -> Protection {
        match self.place {
            Place::Resident => Protection::Hsm,
            Place::Wrapped { .. } => Protection::HsmWrapped,
            Place::Shared { .. } => Protection::HsmShared,
            Place::Tpm { .. } => Protection::Tpm,
        }
    }

    /// The key-encryption key that several devices share, and each of them opens it by.
    pub(super) const fn shared_kek(&self) -> Option<KeyId> {
        match self.place {
            Place::Shared { kek, .. } => Some(kek),
            Place::Resident | Place::Wrapped { .. } | Place::Tpm { .. } => None,
        }
    }

    /// As the device needs it named.
    #[must_use]
    pub fn key_ref(&self, id: KeyId, version: Version, algorithm: Algorithm) -> KeyRef {
        let locator = match &self.place {
            Place::Resident => Locator::Resident,
            Place::Wrapped { kek, blob } => Locator::Wrapped { kek: *kek, blob: blob.0.clone() },
            Place::Shared { kek, blob } => Locator::Shared { kek: *kek, blob: blob.0.clone() },
            Place::Tpm { parent, public, private, auth, pcrs } => {
                let (parent, public, private) = (parent.0.clone(), public.0.clone(), private.0.clone());
                let auth = SecretBytes::new(auth.0.clone());
                match pcrs.clone() {
                    None => Locator::Tpm { parent, public, private, auth },
                    Some(pcrs) => Locator::TpmBound { parent, public, private, auth, pcrs },
                }
            }
        };
        KeyRef { id, version, algorithm, locator }
    }
}

/// A version whose making was begun.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) format: u32,
    pub(super) name: KeyName,
    pub(super) key: KeyId,
    pub(super) version: Version,
    pub(super) algorithm: Algorithm,
    pub(super) device: Name,
    pub(super) residency: Residency,
}

/// How far uses are counted ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) uses: u64,
    pub(super) bytes: u64,
}

mod optional_base64 {
    use super::{Base64Bytes, Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it by reference")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Base64Bytes).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Base64Bytes>::deserialize(deserializer)?.map(|bytes| bytes.0))
    }
}

pub(super) fn key_path(name: &KeyName) -> String {
    format!("keys/{}/{}", name.namespace, name.name)
}

pub(super) fn version_path(id: KeyId, version: Version) -> String {
    format!("versions/{id}/{:010}", version.number())
}

pub(super) fn pending_path(id: KeyId, version: Version) -> String {
    format!("pending/{id}/{:010}", version.number())
}

pub(super) fn attestation_path(id: KeyId, version: Version) -> String {
    format!("attestations/{id}/{:010}", version.number())
}

pub(super) fn counter_path(id: KeyId, version: Version) -> String {
    format!("counters/{id}/{:010}", version.number())
}

/// A change that writes `value`.
pub(super) fn put(path: String, expected: Expected, value: &impl Serialize) -> Result<Change> {
    let value = serde_json::to_vec(value).map_err(|e| Error::internal(format!("{path}: {e}")))?;
    Ok(Change { path, expected, value: Some(value) })
}

/// Reads a record of the store.
pub(super) fn read<T: DeserializeOwned>(record: &Record) -> Result<T> {
    serde_json::from_slice(&record.value).map_err(|e| {
        Error::new(Kind::Tampered, format!("the record {} cannot be read", record.path))
            .because(e)
            .hint("a newer program may have written it: start the version that did, or restore a backup")
    })
}
