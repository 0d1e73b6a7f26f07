//! Where private keys live.
//!
//! [`Device`] is what we need of hardware, and its contract. Two drivers keep it: `pkcs11` and `tpm`. A driver runs only
//! inside a worker process (`signet device-worker`), one per device, so that a hung, crashing or lying library costs the
//! requests in flight and nothing else; [`Worker`] is the front's end of it. Everything that crosses the socket is a plain
//! value of this file.
//!
//! ```text
//! front                                        worker process
//! Worker ── lane 0 ── socket ── owner thread: one session ─┐
//!        ── lane 1 ── socket ── owner thread: one session ─┼── library ── token
//!        ── control ─ socket ── owner thread: one session ─┘
//! ```

mod breaker;
mod classes;
mod event;
mod frame;
mod link;
mod lock;
pub mod pkcs11;
mod process;
mod refused;
#[cfg(feature = "tpm")]
pub mod tpm;
mod worker;

pub use classes::{Effect, Row};
pub use event::{Event, What};
#[cfg(fuzzing)]
pub use frame::fuzz as fuzz_frames;
pub use lock::lock;
pub use process::run as run_worker;
pub use worker::{MAX_JOBS, Worker};

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::attestation::Evidence;
use crate::error::{Error, Kind};
use crate::types::{
    Algorithm, CipherCall, Direction, KeyId, PcrValues, Pcrs, Protection, PublicKey, Residency, Role, SecretBytes,
    Version,
};

/// One session of a token, or the one context of a TPM, owned by one thread that may block.
///
/// **Contract**, held by `tests/device/contract.rs` for each driver:
/// * What a device cannot do is in its [`Description`], and asking for it anyway is [`Class::Unsupported`], never another
///   algorithm or residency.
/// * Keys are made by one strict template and read back; a key whose attributes differ is destroyed and reported.
/// * A key is used only as its [`KeyRef`] says; nothing is found by label, and nothing is found at all on the path of a use
///   but the first.
/// * Any error throws the session (the TPM context) away, and the next call works on a fresh one. Only an error whose class
///   is [`Class::Retry`] promises that nothing happened.
/// * "The key is not there" ([`Class::KeyGone`]) is said only after the sentinel was found and proved itself; otherwise it
///   is [`Class::DeviceGone`], and all session objects are dropped before anything else is answered.
/// * Results are *not* checked here: the front verifies each signature and each MAC key before it releases anything.
pub trait Device {
    /// What the device is and, after a real round trip of each, what it can do.
    ///
    /// # Errors
    /// Any class; see [`Class`].
    fn describe(&mut self) -> Result<Description, Fault>;

    /// Makes a key and reads it back. Durable when this returns. `Ambiguous` where it may have been made all the same.
    ///
    /// # Errors
    /// [`Class::Unsupported`], [`Class::Full`], [`Class::Ambiguous`] and the general ones.
    fn generate(&mut self, spec: &KeySpec) -> Result<Generated, Fault>;

    /// Signs `input`: a digest of the algorithm's hash, or the message itself for Ed25519 and ML-DSA. ECDSA answers `r || s`, each of
    /// the length of the curve ([`crate::types::Curve::size`]).
    ///
    /// # Errors
    /// [`Class::Refused`] for an input of the wrong length, and the general ones.
    fn sign(&mut self, key: &KeyRef, input: &[u8]) -> Result<Vec<u8>, Fault>;

    /// The HMAC of `message`, whole.
    ///
    /// # Errors
    /// [`Class::Refused`] for a message longer than [`Description::max_mac_input`], and the general ones.
    fn mac(&mut self, key: &KeyRef, message: &[u8]) -> Result<Vec<u8>, Fault>;

    /// What the key and `point`, an uncompressed point of its curve, agree on: the x-coordinate of the common point, as long as the
    /// curve's numbers. It leaves the device, and stays with whoever derives keys from it.
    ///
    /// # Errors
    /// [`Class::Refused`] for what is no point of the curve, and the general ones.
    fn agree(&mut self, key: &KeyRef, point: &[u8]) -> Result<Vec<u8>, Fault>;

    /// Decrypts what was encrypted to the public half of the key.
    ///
    /// # Errors
    /// [`Class::Refused`] for a ciphertext that does not decrypt, whatever is wrong with it, and the general ones.
    fn decrypt(&mut self, key: &KeyRef, ciphertext: &[u8]) -> Result<Vec<u8>, Fault>;

    /// The secret of 32 bytes that was encapsulated to the public half of the key. What nobody encapsulated to it gives a secret as well,
    /// which nobody knows ([FIPS 203, 6.3](https://doi.org/10.6028/NIST.FIPS.203)). It leaves the device as in [`Self::agree`].
    ///
    /// # Errors
    /// [`Class::Refused`] for a ciphertext of another length, and the general ones.
    fn decapsulate(&mut self, key: &KeyRef, ciphertext: &[u8]) -> Result<Vec<u8>, Fault>;

    /// Encrypts or decrypts by AES-256-GCM, as `input` says: a [`crate::types::CipherCall`].
    ///
    /// # Errors
    /// [`Class::Refused`] for what does not decrypt, whatever is wrong with it, and for an input that is none or too long; and the
    /// general ones.
    fn cipher(&mut self, key: &KeyRef, input: &[u8]) -> Result<Vec<u8>, Fault>;

    /// Destroys the key for good, with whatever of it is loaded. A key that is already gone is success, once the sentinel
    /// has been seen.
    ///
    /// # Errors
    /// [`Class::Ambiguous`] where it may have been destroyed, and the general ones.
    fn destroy(&mut self, key: &KeyRef) -> Result<(), Fault>;

    /// Drops whatever is loaded of a key; the key itself stays.
    ///
    /// # Errors
    /// The general ones.
    fn forget(&mut self, id: KeyId, version: Version) -> Result<(), Fault>;

    /// Random bytes of the device, at most 1024 at a time.
    ///
    /// # Errors
    /// The general ones.
    fn random(&mut self, length: usize) -> Result<SecretBytes, Fault>;

    /// Signs SHA-256 of `challenge` with the sentinel and looks at the token.
    ///
    /// # Errors
    /// [`Class::DeviceGone`] where the sentinel is not there, and the general ones.
    fn health(&mut self, challenge: &[u8; 32]) -> Result<Health, Fault>;

    /// The keys of our making that the device itself stores (none for a TPM), for reconciliation.
    ///
    /// # Errors
    /// The general ones.
    fn inventory(&mut self) -> Result<Inventory, Fault>;

    /// Tries the known attacks on the device's interface, on scratch keys that do not stay.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where none are known, and the general ones.
    fn attack(&mut self) -> Result<Vec<Attempt>, Fault>;

    /// Makes room for the two slots of an anchor, both blank. Durable when this returns.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where the device keeps no data, [`Class::Refused`] where the room is there already,
    /// [`Class::Full`], [`Class::Ambiguous`] and the general ones.
    fn make_anchor(&mut self, place: &AnchorPlace) -> Result<(), Fault>;

    /// What stands in the slots of an anchor: one or two, in no order, also what was torn.
    ///
    /// # Errors
    /// [`Class::KeyGone`] where there is no such place, [`Class::KeyDamaged`] where it takes another authorisation value, and
    /// the general ones.
    fn read_anchor(&mut self, place: &AnchorPlace) -> Result<Vec<AnchorSlot>, Fault>;

    /// Replaces the slot that holds the older value. Durable when this returns; cut short, it leaves the other slot as it is.
    ///
    /// # Errors
    /// [`Class::Refused`] where the slots are not as `write` says: then somebody else writes this anchor; [`Class::Ambiguous`] where it may have been
    /// written, and those of [`Self::read_anchor`].
    fn write_anchor(&mut self, write: &AnchorWrite) -> Result<(), Fault>;

    /// Makes the key that signs what the device says of its keys, and nothing else. Durable when this returns.
    ///
    /// # Errors
    /// [`Class::Refused`] where there is one already, and those of [`Self::generate`].
    fn make_attestation_key(&mut self) -> Result<AttestationKey, Fault>;

    /// Makes the key-encryption keys that the device could use and does not have, since it was enrolled by an older program. Durable
    /// when this returns.
    ///
    /// # Errors
    /// Those of [`Self::generate`]. What was made before a failure stays in the device, and nothing points to it.
    fn make_missing_keks(&mut self) -> Result<Vec<Kek>, Fault>;

    /// Makes a pair for key-encryption keys to come in under, and answers its public half. It serves [`Self::take_shared`] once.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where the device keeps no such keys, and the general ones.
    fn open_transport(&mut self) -> Result<PublicKey, Fault>;

    /// Makes key-encryption keys of which nothing stays here, and answers them once for each transport, in order.
    ///
    /// # Errors
    /// [`Class::Refused`] where the device shares keys already, and those of [`Self::open_transport`].
    fn make_shared(&mut self, roles: &[KekRole], transports: &[PublicKey]) -> Result<Vec<Vec<SharedKek>>, Fault>;

    /// Gives out the key-encryption keys that the device shares, once more, by leave of its security officer.
    ///
    /// # Errors
    /// [`Class::PinRefused`] for the officer's PIN, [`Class::Refused`] where the device shares none, and the general ones.
    fn pass_on_shared(&mut self, transport: &PublicKey, officer: &PinSource) -> Result<Vec<SharedKek>, Fault>;

    /// Takes in what came for its own transport, and keeps it. Durable when this returns.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where the device would let such a key out again without its security officer; those of
    /// [`Self::generate`].
    fn take_shared(&mut self, keks: &[SharedKek]) -> Result<Vec<Kek>, Fault>;

    /// What the device says of a key, signed by its attestation key together with the binding.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where it has no attestation key, [`Class::KeyDamaged`] where the key is not the private half of that
    /// public key, and the general ones.
    fn attest(&mut self, wanted: &Attest) -> Result<Evidence, Fault>;

    /// What the device keeps as the certificate of its endorsement key: DER, and perhaps bytes behind it.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where it has none, and the general ones.
    fn endorsement(&mut self) -> Result<Vec<u8>, Fault>;

    /// What stands in these registers now.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where the device has no such registers, and the general ones.
    fn pcrs(&mut self, wanted: Pcrs) -> Result<PcrValues, Fault>;

    /// Opens a challenge that was made for its endorsement key and its attestation key.
    ///
    /// # Errors
    /// [`Class::Unsupported`] where it has no such keys, [`Class::Refused`] for a challenge to others, and the general ones.
    fn answer(&mut self, challenge: &TpmChallenge) -> Result<SecretBytes, Fault>;
}

/// The two parts of what TPM2_MakeCredential makes, without their lengths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TpmChallenge {
    /// The credential.
    #[serde(with = "serde_bytes")]
    pub credential: Vec<u8>,
    /// The encrypted seed.
    #[serde(with = "serde_bytes")]
    pub seed: Vec<u8>,
}

/// What is to be attested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attest {
    /// The key.
    pub key: KeyRef,
    /// Its public half, where it has one.
    pub public: Option<PublicKey>,
    /// What the evidence is to carry.
    pub binding: [u8; 32],
}

/// The nonce of what a key that encrypts proves itself by. It is drawn for nothing else.
const CHECK_NONCE: [u8; CipherCall::NONCE] = [0; CipherCall::NONCE];

/// What a key is made to prove itself by: `"signet check v1" || id || version`.
#[must_use]
pub fn check_text(id: KeyId, version: Version) -> Vec<u8> {
    [b"signet check v1".as_slice(), id.as_bytes(), &version.number().to_be_bytes()].concat()
}

/// What a secret key is asked for its check value: the HMAC of that text, or its encryption by the nonce of twelve zeros, which is
/// never used for anything else.
#[must_use]
pub fn check_input(key: &KeyRef) -> Vec<u8> {
    let text = check_text(key.id, key.version);
    match key.algorithm.role() {
        Role::Cipher => CipherCall { nonce: &CHECK_NONCE, aad: &text, data: &text }.encode(Direction::Encrypt),
        Role::Sign | Role::Mac | Role::Agree | Role::Decrypt | Role::Decapsulate => text,
    }
}

/// What a key that encrypts is asked to give that text again.
#[must_use]
pub fn check_back(key: &KeyRef, check: &[u8]) -> Vec<u8> {
    let text = check_text(key.id, key.version);
    CipherCall { nonce: &CHECK_NONCE, aad: &text, data: check }.encode(Direction::Decrypt)
}

/// An attack on the interface of a device, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What was tried.
    pub attack: String,
    /// Whether we know and say that it works on our keys as well.
    pub owned: bool,
    /// On a key as most programs make them.
    pub ordinary: Outcome,
    /// On a key by our template.
    pub ours: Outcome,
}

/// What came of an attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The attacker got what they wanted.
    Works,
    /// The device said yes and did nothing.
    Ignored,
    /// The device refused: which call, with which code.
    Refused(String),
}

/// How many bytes a slot of an anchor has.
pub const ANCHOR_SLOT: usize = 48;

/// What a slot of an anchor holds. Its meaning is `ledger`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorSlot(#[serde(with = "serde_bytes")] pub [u8; ANCHOR_SLOT]);

impl AnchorSlot {
    /// One that nothing was written to yet.
    pub const BLANK: Self = Self([0; ANCHOR_SLOT]);
}

impl AnchorPlace {
    /// A copy, for another request.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { instance: self.instance, auth: self.auth.duplicate() }
    }
}

/// Where a device keeps an anchor for us.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnchorPlace {
    /// Whose it is: the random id of the installation.
    pub instance: [u8; 8],
    /// What a TPM must be told to show or write it: 32 bytes, of which the last is not zero.
    pub auth: SecretBytes,
}

/// A change of an anchor.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnchorWrite {
    /// Which anchor.
    pub place: AnchorPlace,
    /// What one of the slots must hold, and goes on holding.
    pub known: AnchorSlot,
    /// What else stands there, as it was last read: it makes room. Where something else does, somebody else wrote it.
    pub others: Vec<AnchorSlot>,
    /// What the other slot is to hold.
    pub value: AnchorSlot,
}

impl AnchorWrite {
    /// Where the known slot is among `slots`; `None` unless they are all as they were last read, in whatever order.
    #[must_use]
    pub fn known_in(&self, slots: &[AnchorSlot]) -> Option<usize> {
        let mut others = self.others.clone();
        let mut known = None;
        for (at, slot) in slots.iter().enumerate() {
            if known.is_none() && *slot == self.known {
                known = Some(at);
            } else {
                others.swap_remove(others.iter().position(|other| other == slot)?);
            }
        }
        known.filter(|_| others.is_empty())
    }
}

/// A device library, loaded and logged in, that hands out one [`Device`] per owner thread.
pub trait Driver: Send + Sync {
    /// How many threads may own a [`Device`] at once, the control lane not counted.
    fn lanes(&self) -> usize;

    /// A session of its own for the calling thread.
    ///
    /// # Errors
    /// The general classes.
    fn session(&self) -> Result<Box<dyn Device>, Fault>;

    /// Makes the sentinel, the attestation key and the key-encryption keys of a device that is used for the first time.
    ///
    /// # Errors
    /// [`Class::Full`], [`Class::Unsupported`] and the general ones.
    fn enrol(&self) -> Result<Identity, Fault>;

    /// The orderly end, after all owner threads have ended.
    fn shutdown(&self);
}

/// Where a device is and how to open it. Holds no secret: the worker process reads the PIN by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settings {
    /// A PKCS#11 token.
    Pkcs11(Pkcs11Settings),
    /// A TPM 2.0.
    Tpm(TpmSettings),
}

impl Settings {
    /// How often a day an anchor in the device may be written, where its memory wears out.
    #[must_use]
    pub const fn anchor_writes_per_day(&self) -> Option<u32> {
        match self {
            Self::Pkcs11(settings) => settings.anchor_writes_per_day,
            Self::Tpm(settings) => settings.anchor_writes_per_day,
        }
    }

    /// Whether the device is reached over the network.
    fn network(&self) -> bool {
        match self {
            Self::Pkcs11(settings) => settings.network,
            Self::Tpm(settings) => settings.tcti.starts_with("swtpm:"),
        }
    }
}

/// How to open a PKCS#11 token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pkcs11Settings {
    /// The vendor's library.
    pub module: PathBuf,
    /// Which token: never by slot number, which changes.
    pub token: TokenSelector,
    /// Where the PIN is.
    pub pin: PinSource,
    /// Owner threads for private-key operations; more than the cores only costs.
    pub threads: u8,
    /// The most unwrapped keys held as session objects.
    pub loaded_keys: u32,
    /// A folder to `syncfs` after a key was made, for software tokens that do not sync by themselves.
    pub sync_dir: Option<PathBuf>,
    /// Extra environment of the worker process, such as `SOFTHSM2_CONF`.
    pub environment: Vec<(String, String)>,
    /// Whether the library reaches the token over the network. Its worker can open no such socket otherwise.
    pub network: bool,
    /// How often a day the anchor may be written, where the token's memory wears out.
    pub anchor_writes_per_day: Option<u32>,
}

/// How to find a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenSelector {
    /// By its serial number, which is unique.
    Serial(String),
    /// By its label; two tokens with the label are an error.
    Label(String),
}

/// Where a PIN is read from. Never a command line, never the configuration itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinSource {
    /// A file; one trailing line feed is not part of the PIN. Others must not be able to read it.
    File(PathBuf),
    /// An environment variable of the service.
    Environment(String),
    /// A systemd credential: a file of that name below `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// How to open a TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmSettings {
    /// `device:/dev/tpmrm0` or `swtpm:host=127.0.0.1,port=2321`.
    pub tcti: String,
    /// Whether each command runs in a salted HMAC session with parameter encryption. Off is 20 to 40 times faster on a
    /// software TPM, and shows key authorisation values and results to whoever can read the bus; a restarted TPM is then
    /// noticed only by the checks of the front.
    pub sessions: bool,
    /// How often a day the anchor may be written: the memory of a hardware TPM wears out.
    pub anchor_writes_per_day: Option<u32>,
}

/// What is pinned of a device at enrolment, and must be met again at each start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The serial number of the token, or the Name of the TPM's storage key in hex.
    pub serial: String,
    /// The key that proves that the token is there, and is this one: ECDSA P-256.
    pub sentinel: KeyRef,
    /// The public half of the sentinel.
    pub sentinel_public: PublicKey,
    /// The key-encryption keys for wrapped residency, one per role; empty where the device has no such residency.
    pub keks: Vec<Kek>,
    /// The key that signs attestations; none in an installation that was made before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation_key: Option<AttestationKey>,
}

impl Identity {
    /// Whether the device opens what was wrapped under a key-encryption key that several share.
    #[must_use]
    pub fn shares(&self, kek: KeyId) -> bool {
        self.keks.iter().any(|own| own.shared && own.id == kek)
    }

    /// The ids of the key-encryption keys that it shares with others.
    pub fn shared_keks(&self) -> impl Iterator<Item = KeyId> {
        self.keks.iter().filter(|kek| kek.shared).map(|kek| kek.id)
    }
}

/// The key that signs what a device says of its keys, and nothing else: ECDSA P-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationKey {
    /// The key.
    pub key: KeyRef,
    /// Its public half.
    pub public: PublicKey,
}

/// A key-encryption key of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kek {
    /// What its unwrap template makes of a blob.
    pub role: KekRole,
    /// Its id; the `CKA_ID` is id and version as for every key.
    pub id: KeyId,
    /// The one mechanism that it wraps by, and so the one that made each blob under it.
    #[serde(default, skip_serializing_if = "Wrapping::is_pad")]
    pub wrapping: Wrapping,
    /// Whether other tokens have it too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shared: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The name, in the token that passes shared keys on, of the public key that they leave under. It is there for that moment, and after
/// it only where a worker died then: worthless, as the private half has gone with its session.
pub(crate) const LEFT_TRANSPORT: KeyId = KeyId::from_bytes(*b"signet transport");

/// A key-encryption key on its way to a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedKek {
    /// What its unwrap template is to make of a blob.
    pub role: KekRole,
    /// Its id, the same in each token.
    pub id: KeyId,
    /// The key, encrypted to the token's transport.
    #[serde(with = "serde_bytes")]
    pub blob: Vec<u8>,
}

/// How a token wraps keys: two numbers of the standard for what is [RFC 5649](https://www.rfc-editor.org/rfc/rfc5649) in most tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrapping {
    /// `CKM_AES_KEY_WRAP_PAD`, 0x210A: that RFC in SoftHSM, another padding in some others.
    #[default]
    Pad,
    /// `CKM_AES_KEY_WRAP_KWP`, 0x210B: that RFC by the letter of version 3 of the standard.
    Kwp,
}

impl Wrapping {
    /// Whether it is the one of all installations that were made before there was another, and did not say so.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    const fn is_pad(&self) -> bool {
        matches!(self, Self::Pad)
    }
}

/// What may be unwrapped under a key-encryption key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KekRole {
    /// Private keys that sign and do nothing else.
    Sign,
    /// Secret keys that make HMACs and do nothing else.
    Mac,
    /// Private keys that agree on secrets and do nothing else.
    Agree,
    /// Private keys that decrypt and do nothing else.
    Decrypt,
    /// Private keys that decapsulate and do nothing else.
    Decapsulate,
    /// Secret keys that encrypt and decrypt and do nothing else.
    Cipher,
}

impl KekRole {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sign, Self::Mac, Self::Agree, Self::Decrypt, Self::Decapsulate, Self::Cipher];
}

/// What to generate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpec {
    /// The key's id.
    pub id: KeyId,
    /// The version's number.
    pub version: Version,
    /// The one thing it will do.
    pub algorithm: Algorithm,
    /// Where it stays.
    pub residency: Residency,
    /// The registers of the machine whose present values it is bound to: it works while these stand there, and only then.
    pub pcrs: Option<Pcrs>,
}

/// A version's private part, as the device needs it named.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRef {
    /// The key's id.
    pub id: KeyId,
    /// The version's number.
    pub version: Version,
    /// The one thing it does.
    pub algorithm: Algorithm,
    /// Where it is.
    pub locator: Locator,
}

impl Clone for KeyRef {
    fn clone(&self) -> Self {
        Self { id: self.id, version: self.version, algorithm: self.algorithm, locator: self.locator.duplicate() }
    }
}

/// Where a private part is.
#[derive(Debug, Serialize, Deserialize)]
pub enum Locator {
    /// A token object whose `CKA_ID` is id and version.
    Resident,
    /// A blob under a key-encryption key of the token.
    Wrapped {
        /// The key-encryption key.
        kek: KeyId,
        /// What `C_WrapKey` gave.
        #[serde(with = "serde_bytes")]
        blob: Vec<u8>,
    },
    /// A blob under a key-encryption key that several tokens share: each of them opens it.
    Shared {
        /// The key-encryption key.
        kek: KeyId,
        /// What `C_WrapKey` gave.
        #[serde(with = "serde_bytes")]
        blob: Vec<u8>,
    },
    /// A TPM object under the storage key.
    Tpm {
        /// The Name of the storage key it was made under.
        #[serde(with = "serde_bytes")]
        parent: Vec<u8>,
        /// TPM2B_PUBLIC.
        #[serde(with = "serde_bytes")]
        public: Vec<u8>,
        /// TPM2B_PRIVATE.
        #[serde(with = "serde_bytes")]
        private: Vec<u8>,
        /// The object's random authorisation value.
        auth: SecretBytes,
    },
    /// A TPM object that is used only while the machine is as it was at its birth. A variant of its own, so that the files of
    /// installations without such keys stay as they are to the byte.
    TpmBound {
        /// The Name of the storage key it was made under.
        #[serde(with = "serde_bytes")]
        parent: Vec<u8>,
        /// TPM2B_PUBLIC, with the policy of `pcrs`.
        #[serde(with = "serde_bytes")]
        public: Vec<u8>,
        /// TPM2B_PRIVATE.
        #[serde(with = "serde_bytes")]
        private: Vec<u8>,
        /// The object's random authorisation value.
        auth: SecretBytes,
        /// What must stand in which registers.
        pcrs: PcrValues,
    },
}

impl Locator {
    /// A copy, for the second owner of a [`KeyRef`].
    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Resident => Self::Resident,
            Self::Wrapped { kek, blob } => Self::Wrapped { kek: *kek, blob: blob.clone() },
            Self::Shared { kek, blob } => Self::Shared { kek: *kek, blob: blob.clone() },
            Self::Tpm { parent, public, private, auth } => Self::Tpm {
                parent: parent.clone(),
                public: public.clone(),
                private: private.clone(),
                auth: auth.duplicate(),
            },
            Self::TpmBound { parent, public, private, auth, pcrs } => Self::TpmBound {
                parent: parent.clone(),
                public: public.clone(),
                private: private.clone(),
                auth: auth.duplicate(),
                pcrs: pcrs.clone(),
            },
        }
    }

    /// What must stand in which registers of the machine for the key to be used.
    #[must_use]
    pub const fn pcrs(&self) -> Option<&PcrValues> {
        match self {
            Self::TpmBound { pcrs, .. } => Some(pcrs),
            Self::Resident | Self::Wrapped { .. } | Self::Shared { .. } | Self::Tpm { .. } => None,
        }
    }

    /// What protects the key.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        match self {
            Self::Resident => Protection::Hsm,
            Self::Wrapped { .. } => Protection::HsmWrapped,
            Self::Shared { .. } => Protection::HsmShared,
            Self::Tpm { .. } | Self::TpmBound { .. } => Protection::Tpm,
        }
    }

    /// Where the key stays. A TPM's blobs are the only residency a TPM has.
    #[must_use]
    pub const fn residency(&self) -> Residency {
        match self {
            Self::Resident => Residency::Resident,
            Self::Wrapped { .. } | Self::Tpm { .. } | Self::TpmBound { .. } => Residency::Wrapped,
            Self::Shared { .. } => Residency::Shared,
        }
    }
}

impl PartialEq for Locator {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Resident, Self::Resident) => true,
            (Self::Wrapped { kek, blob }, Self::Wrapped { kek: kek2, blob: blob2 })
            | (Self::Shared { kek, blob }, Self::Shared { kek: kek2, blob: blob2 }) => kek == kek2 && blob == blob2,
            (Self::Tpm { public, private, .. }, Self::Tpm { public: public2, private: private2, .. }) => {
                public == public2 && private == private2
            }
            (
                Self::TpmBound { public, private, pcrs, .. },
                Self::TpmBound { public: public2, private: private2, pcrs: pcrs2, .. },
            ) => public == public2 && private == private2 && pcrs == pcrs2,
            (
                Self::Resident | Self::Wrapped { .. } | Self::Shared { .. } | Self::Tpm { .. } | Self::TpmBound { .. },
                _,
            ) => false,
        }
    }
}

impl Eq for Locator {}

/// A key that was made.
#[derive(Debug, Serialize, Deserialize)]
pub struct Generated {
    /// Where it is.
    pub locator: Locator,
    /// Its public half, for pairs.
    pub public: Option<PublicKey>,
}

/// What a device is and can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The maker's name.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// The firmware or library version.
    pub version: String,
    /// The longest message of [`Device::mac`], in bytes.
    pub max_mac_input: usize,
    /// One row per algorithm and residency.
    pub abilities: Vec<Ability>,
}

impl Description {
    /// Whether it is as the other one, however long each took.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let Self { manufacturer, model, version, max_mac_input, abilities } = self;
        (manufacturer, model, version) == (&other.manufacturer, &other.model, &other.version)
            && *max_mac_input == other.max_mac_input
            && abilities.len() == other.abilities.len()
            && abilities.iter().zip(&other.abilities).all(|(one, another)| one.is_as(another))
    }

    /// Whether it is software: what it keeps stands in files, and whoever can write those can put them back.
    #[must_use]
    pub fn is_software(&self) -> bool {
        let Self { manufacturer, model, .. } = self;
        let token =
            ["SoftHSM", "Kryoptic"].iter().any(|name| manufacturer.starts_with(name) || model.starts_with(name));
        // That of IBM and of libtpms: "SW   TPM".
        token || (manufacturer == "IBM" && model.starts_with("SW") && model.ends_with("TPM"))
    }
}

/// Whether a device can keep and use one kind of key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The residency.
    pub residency: Residency,
    /// `None` where it can; otherwise why not, as a clause such as "this token cannot wrap Ed25519 keys".
    pub refusal: Option<String>,
    /// The device's own code, where it is the device that refuses and not this program.
    pub code: Option<String>,
    /// How long one use took when it was tried, in microseconds; `None` where there was none: what is refused, and what was concluded
    /// from another size or from the device's word.
    pub micros: Option<u64>,
}

impl Ability {
    /// What is said of it, for people.
    #[must_use]
    pub fn verdict(&self) -> String {
        match (&self.refusal, &self.code) {
            (None, _) => "works".to_owned(),
            (Some(refusal), Some(_)) => format!("refused by the device: {refusal}"),
            (Some(refusal), None) => format!("refused by this program: {refusal}"),
        }
    }

    /// Whether it is as the other one, however long each took.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let Self { algorithm, residency, refusal, code, micros: _ } = self;
        (algorithm, residency, refusal, code) == (&other.algorithm, &other.residency, &other.refusal, &other.code)
    }
}

/// Does one use of a key that is on trial, and says how many microseconds it took.
fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(T, Option<u64>), E> {
    let began = Instant::now();
    let done = work()?;
    Ok((done, u64::try_from(began.elapsed().as_micros()).ok()))
}

/// A sign of life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// The sentinel's signature over the challenge, `r || s`.
    pub signature: Vec<u8>,
    /// Sessions open, where the device says.
    pub sessions: Option<u64>,
    /// Session objects or transient handles that are loaded.
    pub loaded: u64,
    /// A warning for the operator, such as "one PIN try is left".
    pub warning: Option<String>,
}

/// What stands in a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Whole keys with an id of our form, sentinel and key-encryption keys included.
    pub keys: Vec<(KeyId, Version)>,
    /// Halves of key pairs with an id of our form: left behind by a crash.
    pub halves: Vec<(KeyId, Version)>,
    /// Objects that are not ours, or nameless leftovers; only their number.
    pub foreign: usize,
}

/// What to make of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Nothing happened; the same call may succeed on a new session.
    Retry,
    /// It may or may not have happened: look before doing it again.
    Ambiguous,
    /// The device, or the token in it, is not there, or it is another one.
    DeviceGone,
    /// The device is there and does not have this key.
    KeyGone,
    /// The key is there, but not as it was made, or gives wrong results.
    KeyDamaged,
    /// The key is bound to registers of the machine in which something else stands now.
    PcrsChanged,
    /// The PIN is wrong; it is not tried again.
    PinRefused,
    /// The PIN is locked, or the TPM is in lockout.
    PinLocked,
    /// No room for another key.
    Full,
    /// The device cannot do this.
    Unsupported,
    /// The device refuses this input.
    Refused,
    /// The queue is full.
    Busy,
    /// The deadline passed before the device was asked.
    Expired,
    /// The worker process died, or was ended, with this call in flight.
    WorkerLost,
    /// The configuration is wrong: no such module, no such token, no PIN.
    Config,
    /// A defect of ours or of the library.
    Internal,
}

impl Class {
    /// Whether it says of the device alone that it cannot now, and nothing of the key.
    #[must_use]
    pub const fn is_of_the_moment(self) -> bool {
        match self {
            Self::Retry | Self::DeviceGone | Self::PinRefused | Self::PinLocked => true,
            Self::Busy | Self::Expired | Self::WorkerLost | Self::Config => true,
            Self::Ambiguous | Self::KeyGone | Self::KeyDamaged | Self::Full => false,
            Self::Unsupported | Self::Refused | Self::PcrsChanged | Self::Internal => false,
        }
    }
}

/// A failure of a device, fit to cross the socket: no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What to make of it.
    pub class: Class,
    /// The device's own code by name, such as `CKR_DEVICE_ERROR` or `TPM_RC_LOCKOUT`.
    pub code: Option<String>,
    /// What was being done, such as `C_Sign`, and what the operator can do: the row of the table of return codes.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// When the device is tried again, where calls are refused until then.
    pub wait: Option<Duration>,
}

impl Fault {
    /// A fault without a code of the device.
    pub fn new(class: Class, text: impl Into<String>) -> Self {
        Self { class, code: None, text: text.into(), hint: None, wait: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let (kind, public) = match fault.class {
            Class::Retry | Class::WorkerLost => (Kind::Unavailable, "the device failed; nothing was done".to_owned()),
            Class::Ambiguous => (Kind::Unavailable, "the device failed; what was done is being looked into".to_owned()),
            Class::DeviceGone => (Kind::Unavailable, "the device is not there".to_owned()),
            Class::KeyGone => (Kind::Unavailable, "the device does not show this key".to_owned()),
            Class::KeyDamaged => (Kind::Tampered, "the key in the device is damaged".to_owned()),
            Class::PcrsChanged => (Kind::State, fault.text.clone()),
            Class::PinRefused => (Kind::Unavailable, "the device refuses its PIN".to_owned()),
            Class::PinLocked => (Kind::Unavailable, "the device is locked".to_owned()),
            Class::Full => (Kind::Unavailable, "the device has no room for another key".to_owned()),
            Class::Unsupported => (Kind::Unsupported, fault.text.clone()),
            Class::Refused => (Kind::Invalid, fault.text.clone()),
            Class::Busy => (Kind::Busy, "the device has too much to do".to_owned()),
            Class::Expired => (Kind::Busy, "the device did not get to this in time".to_owned()),
            Class::Config => (Kind::Unavailable, fault.text.clone()),
            Class::Internal => (Kind::Internal, "internal error".to_owned()),
        };
        let hint = fault.hint.clone();
        let slow = matches!(fault.class, Class::PinRefused | Class::PinLocked | Class::Full | Class::Config);
        let wait = if slow { Some(Duration::from_secs(60)) } else { fault.wait };
        let mut error = Self::new(kind, public).because(fault);
        if let Some(hint) = hint {
            error = error.hint(hint);
        }
        if let Some(wait) = wait { error.retry_after(wait) } else { error }
    }
}
