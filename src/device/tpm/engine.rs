//! What the driver does with a [`Link`], and how it heals: any failure of the TPM throws the link away.
//!
//! One command may fail because the TPM was restarted, its handles were flushed, or the transport broke. Then all is
//! built anew, the pinned Name of the storage key is compared again, and the command is tried once more. That is safe
//! for every command here, even for making a key: what a failed command made is nowhere, since a TPM hands out a key as
//! a blob or not at all.
//!
//! There is no time limit in here, and none is possible: a frozen TPM blocks this thread for ever. Whoever runs the
//! worker process ends it.

use std::sync::mpsc;
use std::time::Duration;

use tss_esapi::constants::PropertyTag;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::structures::{
    Data, Digest, EccParameter, EccPoint, HashcheckTicket, MaxBuffer, PublicKeyRsa, RsaDecryptionScheme, Signature,
    SignatureScheme,
};
use tss_esapi::traits::Marshall;
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::codes::{Remedy, Trouble, during};
use super::link::{Blobs, Link};
use super::tcti::Address;
use super::{abilities, anchor, template};
use crate::attestation::tpm::Certified;
use crate::device::{
    AnchorPlace, AnchorSlot, AnchorWrite, Attest, AttestationKey, Class, Description, Fault, Generated, Health,
    Identity, KeyRef, KeySpec, TpmChallenge, TpmSettings,
};
use crate::types::{
    Agreed, Algorithm, Base64Bytes, Hash, KeyId, PcrValues, Pcrs, Residency, Role, SecretBytes, Verifier, Version,
    is_point, sha256,
};

/// The longest message of TPM2_HMAC. Longer ones take a sequence of commands that the wrapper crate does not have.
pub(super) const MAX_MAC_INPUT: usize = 1024;

/// The most random bytes of one request.
const MAX_RANDOM: usize = 1024;

/// How long to wait before asking a busy TPM again: three quarters of a second in all.
const DELAYS: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// The driver's state, owned by one thread at a time.
pub(super) struct Engine {
    address: Address,
    sessions: bool,
    identity: Option<Identity>,
    /// The Name every storage key must have: of the identity, or else of the first one seen.
    pinned: Option<Vec<u8>>,
    link: Option<Link>,
    description: Option<Description>,
}

impl Engine {
    /// Checks the settings and opens the first link, so that a wrong TPM is refused at the start.
    pub(super) fn open(settings: &TpmSettings, identity: Option<&Identity>) -> Result<Self, Fault> {
        let address = Address::new(&settings.tcti)?;
        let pinned = identity.map(|one| hex::decode(&one.serial)).transpose().map_err(|_| {
            Fault::new(Class::Config, "the enrolled identity is not the Name of a storage key")
                .hint("was this device enrolled as something else than a TPM?")
        })?;
        let sessions = settings.sessions;
        let mut engine = Self { address, sessions, identity: identity.cloned(), pinned, link: None, description: None };
        engine.run(|_| Ok(()))?;
        Ok(engine)
    }

    /// Throws the link away, after a panic in the middle of a command.
    pub(super) fn distrust(&mut self) {
        self.link = None;
    }

    /// Runs `act` on a link, with the remedies of the table of codes.
    fn run<T>(&mut self, act: impl Fn(&mut Link) -> Result<T, Trouble>) -> Result<T, Fault> {
        let mut delays = DELAYS.iter();
        let mut rebuilt = false;
        loop {
            let trouble = match self.link().and_then(&act) {
                Ok(value) => return Ok(value),
                Err(Trouble::Found(fault)) => return Err(fault),
                Err(trouble) => trouble,
            };
            match trouble.remedy() {
                Remedy::Wait if let Some(delay) = delays.next() => pause(*delay),
                Remedy::Rebuild if !rebuilt => {
                    self.link = None;
                    rebuilt = true;
                }
                Remedy::Wait | Remedy::Rebuild | Remedy::Report => {
                    self.link = None;
                    return Err(trouble.fault());
                }
            }
        }
    }

    fn link(&mut self) -> Result<&mut Link, Trouble> {
        let link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.address, self.sessions, self.pinned.as_deref())?,
        };
        self.pinned.get_or_insert_with(|| link.name().to_vec());
        Ok(self.link.insert(link))
    }

    /// As [`Self::run`], for a use of a key: that it is gone is said only when the TPM proved itself by its sentinel.
    fn use_key<T>(&mut self, act: impl Fn(&mut Link) -> Result<T, Trouble>) -> Result<T, Fault> {
        self.run(act).map_err(|fault| {
            if fault.class != Class::KeyGone || self.is_proven() {
                return fault;
            }
            Fault { class: Class::DeviceGone, ..fault }
        })
    }

    /// Whether the sentinel signs for its public half.
    fn is_proven(&mut self) -> bool {
        let Some(identity) = self.identity.clone() else { return false };
        let Ok(verifier) = Verifier::new(Algorithm::EcdsaP256, &identity.sentinel_public) else { return false };
        let mut challenge = [0; 32];
        if getrandom::fill(&mut challenge).is_err() {
            return false;
        }
        let signature = self.run(|link| sign(link, &identity.sentinel, Hash::Sha256, &challenge));
        signature.is_ok_and(|signature| verifier.verifies_digest(&challenge, &signature))
    }

    /// See [`crate::device::Device::describe`]; asked of the TPM once.
    pub(super) fn describe(&mut self) -> Result<Description, Fault> {
        if let Some(description) = &self.description {
            return Ok(description.clone());
        }
        let description = self.run(abilities::describe)?;
        Ok(self.description.insert(description).clone())
    }

    /// See [`crate::device::Device::generate`].
    pub(super) fn generate(&mut self, spec: &KeySpec) -> Result<Generated, Fault> {
        match spec.residency {
            Residency::Wrapped => {}
            Residency::Resident => return Err(Fault::new(Class::Unsupported, abilities::NOTHING_RESIDENT)),
            Residency::Shared => return Err(super::shares_none()),
        }
        self.run(|link| match abilities::refusal(link, spec.algorithm)? {
            Some((refusal, _)) => Err(Fault::new(Class::Unsupported, refusal).into()),
            None => link.create(spec.id, spec.version, spec.algorithm, spec.pcrs),
        })
    }

    /// See [`crate::device::Device::sign`].
    pub(super) fn sign(&mut self, key: &KeyRef, digest: &[u8]) -> Result<Vec<u8>, Fault> {
        let own = self.identity.as_ref().and_then(|identity| identity.attestation_key.as_ref());
        if own.is_some_and(|own| own.key.id == key.id) {
            return Err(Fault::new(
                Class::Refused,
                "this is the attestation key, which signs nothing but attestations",
            ));
        }
        let hash = hash_for(key.algorithm, Role::Sign)?;
        if digest.len() != hash.size() {
            let text = format!("{} signs a digest of {} bytes, not {}", key.algorithm, hash.size(), digest.len());
            return Err(Fault::new(Class::Refused, text));
        }
        self.use_key(|link| sign(link, key, hash, digest))
    }

    /// See [`crate::device::Device::mac`].
    pub(super) fn mac(&mut self, key: &KeyRef, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let hash = hash_for(key.algorithm, Role::Mac)?;
        if message.len() > MAX_MAC_INPUT {
            let text = format!("a TPM makes the HMAC of at most {MAX_MAC_INPUT} bytes, not {}", message.len());
            return Err(Fault::new(Class::Refused, text).hint("hash the message first, or use a PKCS#11 device"));
        }
        self.use_key(|link| mac(link, key, hash, message))
    }

    /// See [`crate::device::Device::agree`].
    pub(super) fn agree(&mut self, key: &KeyRef, point: &[u8]) -> Result<Vec<u8>, Fault> {
        hash_for(key.algorithm, Role::Agree)?;
        if !is_point(point) {
            return Err(Fault::new(Class::Refused, "this is no point of P-256"));
        }
        self.use_key(|link| agree(link, key, point))
    }

    /// See [`crate::device::Device::decrypt`].
    pub(super) fn decrypt(&mut self, key: &KeyRef, ciphertext: &[u8]) -> Result<Vec<u8>, Fault> {
        hash_for(key.algorithm, Role::Decrypt)?;
        self.use_key(|link| decrypt(link, key, ciphertext))
    }

    /// See [`crate::device::Device::forget`]. Nothing is loaded where there is no link.
    pub(super) fn forget(&mut self, id: KeyId, version: Version) -> Result<(), Fault> {
        if self.link.is_none() {
            return Ok(());
        }
        self.run(|link| link.forget(id, version))
    }

    /// See [`crate::device::Device::random`].
    pub(super) fn random(&mut self, length: usize) -> Result<SecretBytes, Fault> {
        if length > MAX_RANDOM {
            return Err(Fault::new(Class::Refused, format!("at most {MAX_RANDOM} random bytes at a time")));
        }
        self.run(|link| random(link, length))
    }

    /// See [`crate::device::Device::health`].
    pub(super) fn health(&mut self, challenge: &[u8; 32]) -> Result<Health, Fault> {
        let identity = self
            .identity
            .clone()
            .ok_or_else(|| Fault::new(Class::Config, "this TPM is not enrolled").hint("run `signet init`"))?;
        let digest = sha256(&[challenge]);
        let health = self.run(|link| {
            Ok(Health {
                signature: sign(link, &identity.sentinel, Hash::Sha256, &digest)?,
                sessions: None,
                loaded: u64::try_from(link.objects()).unwrap_or(u64::MAX),
                warning: lockout(link)?,
            })
        });
        health.map_err(|fault| match fault.class {
            Class::KeyGone | Class::KeyDamaged => Fault { class: Class::DeviceGone, ..fault },
            Class::Retry | Class::Ambiguous | Class::DeviceGone | Class::PinRefused | Class::PinLocked => fault,
            Class::PcrsChanged | Class::Full | Class::Unsupported | Class::Refused | Class::Busy | Class::Expired => {
                fault
            }
            Class::WorkerLost | Class::Config | Class::Internal => fault,
        })
    }

    /// See [`crate::device::Device::make_anchor`]. Where it fails the index may be there.
    pub(super) fn make_anchor(&mut self, place: &AnchorPlace) -> Result<(), Fault> {
        self.run(|link| anchor::make(link, place))
    }

    /// See [`crate::device::Device::read_anchor`].
    pub(super) fn read_anchor(&mut self, place: &AnchorPlace) -> Result<Vec<AnchorSlot>, Fault> {
        self.run(|link| anchor::read(link, place))
    }

    /// See [`crate::device::Device::write_anchor`].
    pub(super) fn write_anchor(&mut self, write: &AnchorWrite) -> Result<(), Fault> {
        self.run(|link| anchor::write(link, write))
    }

    /// See [`crate::device::Device::make_attestation_key`].
    pub(super) fn make_attestation_key(&mut self) -> Result<AttestationKey, Fault> {
        if self.identity.as_ref().is_some_and(|identity| identity.attestation_key.is_some()) {
            return Err(Fault::new(Class::Refused, "this TPM has an attestation key"));
        }
        let id = KeyId::random().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
        let made = self.run(|link| link.create_attestation_key(id))?;
        let public =
            made.public.ok_or_else(|| Fault::new(Class::Internal, "the attestation key has no public half"))?;
        let (version, algorithm) = (Version::FIRST, Algorithm::EcdsaP256);
        Ok(AttestationKey { key: KeyRef { id, version, algorithm, locator: made.locator }, public })
    }

    /// See [`crate::device::Device::attest`].
    pub(super) fn attest(&mut self, wanted: &Attest) -> Result<Certified, Fault> {
        let by = self.identity.as_ref().and_then(|identity| identity.attestation_key.clone());
        let by = by.ok_or_else(no_attestation_key)?.key;
        let (object, signer) = (Blobs::of(&wanted.key)?, Blobs::of(&by)?);
        let area = |blob: &[u8]| template::unsized_bytes(blob).map(|area| Base64Bytes(area.to_vec()));
        let parent = Base64Bytes(object.parent.to_vec());
        let (object, signer) = (area(object.public)?, area(signer.public)?);
        let (attest, signature) = self.use_key(|link| {
            let (attest, signature) = link.certify(&wanted.key, &by, wanted.binding)?;
            let attest = attest.marshall().map_err(during("TPM2_Certify"))?;
            Ok((attest, raw(by.algorithm, Hash::Sha256, &signature)?))
        })?;
        Ok(Certified { object, attest: Base64Bytes(attest), signature: Base64Bytes(signature), signer, parent })
    }

    /// See [`crate::device::Device::endorsement`].
    pub(super) fn endorsement(&mut self) -> Result<Vec<u8>, Fault> {
        self.run(Link::endorsement)
    }

    /// See [`crate::device::Device::pcrs`].
    pub(super) fn pcrs(&mut self, wanted: Pcrs) -> Result<PcrValues, Fault> {
        self.run(|link| link.pcrs(wanted))
    }

    /// See [`crate::device::Device::answer`].
    pub(super) fn answer(&mut self, challenge: &TpmChallenge) -> Result<SecretBytes, Fault> {
        let by = self.identity.as_ref().and_then(|identity| identity.attestation_key.clone());
        let by = by.ok_or_else(no_attestation_key)?.key;
        self.run(|link| link.activate(&by, challenge)).map_err(|fault| match fault.class {
            // The integrity value is of another Name, or the seed for another key.
            Class::KeyGone | Class::KeyDamaged | Class::Refused | Class::Unsupported | Class::Internal => {
                Fault { class: Class::Refused, ..fault }
                    .hint("the challenge was made for another TPM or another attestation key")
            }
            Class::Retry | Class::Ambiguous | Class::DeviceGone | Class::PinRefused | Class::PinLocked => fault,
            Class::PcrsChanged | Class::Full | Class::Busy | Class::Expired | Class::WorkerLost | Class::Config => {
                fault
            }
        })
    }

    /// Makes the sentinel and the attestation key, and pins this TPM from now on.
    pub(super) fn enrol(&mut self) -> Result<Identity, Fault> {
        let (version, algorithm) = (Version::FIRST, Algorithm::EcdsaP256);
        let id = KeyId::random().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
        let (made, name) = self.run(|link| Ok((link.create(id, version, algorithm, None)?, link.name().to_vec())))?;
        let public = made.public.ok_or_else(|| Fault::new(Class::Internal, "the sentinel has no public half"))?;
        let identity = Identity {
            serial: hex::encode(&name),
            sentinel: KeyRef { id, version, algorithm, locator: made.locator },
            sentinel_public: public,
            keks: Vec::new(),
            attestation_key: Some(self.make_attestation_key()?),
        };
        self.identity = Some(identity.clone());
        Ok(identity)
    }

    /// The orderly end. A TPM that does not answer any more ends as it likes: our keys do not count towards its
    /// lockout.
    pub(super) fn close(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = link.close();
        }
    }
}

fn no_attestation_key() -> Fault {
    Fault::new(Class::Unsupported, "this TPM has no attestation key")
        .hint("end the service; `signet init --upgrade` makes one")
}

/// Waits without sleeping: nobody ever sends.
fn pause(delay: Duration) {
    let (_silent, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(delay);
}

/// The hash of an algorithm, where its keys have that role.
fn hash_for(algorithm: Algorithm, role: Role) -> Result<Hash, Fault> {
    let hash = algorithm.hash().filter(|_| algorithm.role() == role);
    hash.ok_or_else(|| Fault::new(Class::Refused, format!("a key of {algorithm} does not {role} in a TPM")))
}

/// One signature. The padding and the hash are part of the key, and not chosen here.
pub(super) fn sign(link: &mut Link, key: &KeyRef, hash: Hash, digest: &[u8]) -> Result<Vec<u8>, Trouble> {
    let digest = Digest::try_from(digest).map_err(during("TPM2_Sign"))?;
    let ticket = no_ticket()?;
    let handle = link.handle(key)?;
    let signature = link.using(key, "TPM2_Sign", |tpm| tpm.sign(handle, digest, SignatureScheme::Null, ticket))?;
    raw(key.algorithm, hash, &signature)
}

/// A ticket that says that the TPM did not hash the message itself. Keys that sign digests of anything do not want one.
pub(super) fn no_ticket() -> Result<HashcheckTicket, Trouble> {
    let ticket = TPMT_TK_HASHCHECK { tag: TPM2_ST_HASHCHECK, hierarchy: TPM2_RH_NULL, digest: Default::default() };
    HashcheckTicket::try_from(ticket).map_err(during("TPM2_Sign"))
}

/// The signature in the form of [`crate::device::Device::sign`].
pub(super) fn raw(algorithm: Algorithm, hash: Hash, signature: &Signature) -> Result<Vec<u8>, Trouble> {
    let wrong = || Fault::new(Class::KeyDamaged, format!("the TPM's signature is not one of {algorithm}"));
    let hash = template::hash_of(hash);
    match (signature, algorithm.curve(), algorithm.rsa_bits()) {
        (Signature::EcDsa(pair), Some(curve), None) if pair.hashing_algorithm() == hash => {
            let r = template::padded(pair.signature_r().value(), curve.size())?;
            let s = template::padded(pair.signature_s().value(), curve.size())?;
            Ok([r, s].concat())
        }
        (Signature::RsaSsa(rsa), None, Some(bits)) if !algorithm.is_pss() && rsa.hashing_algorithm() == hash => {
            Ok(template::padded(rsa.signature().value(), bits as usize / 8)?)
        }
        (Signature::RsaPss(rsa), None, Some(bits)) if algorithm.is_pss() && rsa.hashing_algorithm() == hash => {
            Ok(template::padded(rsa.signature().value(), bits as usize / 8)?)
        }
        _ => Err(wrong().into()),
    }
}

/// One HMAC.
pub(super) fn mac(link: &mut Link, key: &KeyRef, hash: Hash, message: &[u8]) -> Result<Vec<u8>, Trouble> {
    let message = MaxBuffer::try_from(message).map_err(during("TPM2_HMAC"))?;
    let handle = link.handle(key)?;
    let tag = link.using(key, "TPM2_HMAC", |tpm| tpm.hmac(handle.into(), message, template::hash_of(hash)))?;
    if tag.value().len() != hash.size() {
        return Err(Fault::new(Class::KeyDamaged, "the TPM's HMAC has the wrong length").into());
    }
    Ok(tag.value().to_vec())
}

/// One agreement on a secret, by TPM2_ECDH_ZGen.
pub(super) fn agree(link: &mut Link, key: &KeyRef, point: &[u8]) -> Result<Vec<u8>, Trouble> {
    const COMMAND: &str = "TPM2_ECDH_ZGen";
    let (x, y) = point.get(1..).and_then(|point| point.split_at_checked(Agreed::SECRET)).unwrap_or_default();
    let number = |bytes: &[u8]| EccParameter::try_from(bytes).map_err(during(COMMAND));
    let point = EccPoint::new(number(x)?, number(y)?);
    let handle = link.handle(key)?;
    let common = link.using(key, COMMAND, |tpm| tpm.ecdh_z_gen(handle, point))?;
    Ok(template::padded(common.x().value(), Agreed::SECRET)?)
}

/// One decryption by RSA-OAEP, whose label is empty. To a ciphertext that does not decrypt, TPMs answer as if they were broken
/// (`TPM_RC_FAILURE`): then it is asked for a random byte, which one in failure mode would not give.
fn decrypt(link: &mut Link, key: &KeyRef, ciphertext: &[u8]) -> Result<Vec<u8>, Trouble> {
    const COMMAND: &str = "TPM2_RSA_Decrypt";
    let handle = link.handle(key)?;
    let input = PublicKeyRsa::try_from(ciphertext).map_err(during(COMMAND))?;
    let opened =
        link.using(key, COMMAND, |tpm| tpm.rsa_decrypt(handle, input, RsaDecryptionScheme::Null, Data::default()));
    match opened {
        Ok(plaintext) => Ok(plaintext.value().to_vec()),
        Err(trouble) if trouble.may_be_a_bad_ciphertext() && random(link, 1).is_ok() => {
            Err(Fault::new(Class::Refused, "the ciphertext does not decrypt").into())
        }
        Err(trouble) => Err(trouble),
    }
}

/// Random bytes. A TPM gives fewer than were asked for, without an error, above the size of its longest digest.
fn random(link: &mut Link, length: usize) -> Result<SecretBytes, Trouble> {
    const AT_ONCE: usize = 32;
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(length));
    while bytes.len() < length {
        let want = AT_ONCE.min(length - bytes.len());
        let some = link.concealed("TPM2_GetRandom", |tpm| tpm.get_random(want))?;
        if some.is_empty() || some.len() > want {
            return Err(Fault::new(Class::Internal, "TPM2_GetRandom gave another number of bytes").into());
        }
        bytes.extend_from_slice(some.value());
    }
    Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
}

/// A warning while the TPM is in lockout: keys of ours go on, those of others do not, and enrolling an owner will not
/// either.
fn lockout(link: &mut Link) -> Result<Option<String>, Trouble> {
    const IN_LOCKOUT: u32 = 1 << 9;
    let permanent = link.property(PropertyTag::Permanent)?;
    Ok(permanent.filter(|bits| bits & IN_LOCKOUT != 0).map(|_| {
        "the TPM is in dictionary-attack lockout; keys made here work on, others do not: \
         see `tpm2_getcap properties-variable` and `tpm2_dictionarylockout`"
            .to_owned()
    }))
}
