//! What the token shows of a key, signed in the token.
//!
//! The attestation key is a token object like the sentinel. It is never in the cache of loaded keys, so no use finds it: the one
//! way to a signature of it is [`Lane::state`], which signs what it has just read and nothing else.

use std::sync::Arc;

use pkcs11_raw::{Mechanism, Object, Session, ck};

use crate::attestation::token::{Attributes, Kek, Stated, Statement, Token};
use crate::device::pkcs11::codes::Effect;
use crate::device::pkcs11::lane::Lane;
use crate::device::pkcs11::{own_key, recipe};
use crate::device::{Attest, AttestationKey, Class, Fault, Identity, KeyRef, Locator, check_input};
use crate::types::{Base64Bytes, Encapsulated, KeyId, Role, Verifier, same, sha256};

/// How a value is written down.
#[derive(Clone, Copy)]
enum Form {
    Flag,
    Numbers,
    Bytes,
}

/// What is read of each object.
const SHOWN: &[(ck::CK_ATTRIBUTE_TYPE, &str, Form)] = &[
    (ck::CKA_CLASS, "CKA_CLASS", Form::Numbers),
    (ck::CKA_KEY_TYPE, "CKA_KEY_TYPE", Form::Numbers),
    (ck::CKA_ID, "CKA_ID", Form::Bytes),
    (ck::CKA_TOKEN, "CKA_TOKEN", Form::Flag),
    (ck::CKA_PRIVATE, "CKA_PRIVATE", Form::Flag),
    (ck::CKA_SENSITIVE, "CKA_SENSITIVE", Form::Flag),
    (ck::CKA_EXTRACTABLE, "CKA_EXTRACTABLE", Form::Flag),
    (ck::CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE", Form::Flag),
    (ck::CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", Form::Flag),
    (ck::CKA_LOCAL, "CKA_LOCAL", Form::Flag),
    (ck::CKA_KEY_GEN_MECHANISM, "CKA_KEY_GEN_MECHANISM", Form::Numbers),
    (ck::CKA_MODIFIABLE, "CKA_MODIFIABLE", Form::Flag),
    (ck::CKA_COPYABLE, "CKA_COPYABLE", Form::Flag),
    (ck::CKA_ALLOWED_MECHANISMS, "CKA_ALLOWED_MECHANISMS", Form::Numbers),
    (ck::CKA_SIGN, "CKA_SIGN", Form::Flag),
    (ck::CKA_SIGN_RECOVER, "CKA_SIGN_RECOVER", Form::Flag),
    (ck::CKA_VERIFY, "CKA_VERIFY", Form::Flag),
    (ck::CKA_ENCRYPT, "CKA_ENCRYPT", Form::Flag),
    (ck::CKA_DECRYPT, "CKA_DECRYPT", Form::Flag),
    (ck::CKA_WRAP, "CKA_WRAP", Form::Flag),
    (ck::CKA_UNWRAP, "CKA_UNWRAP", Form::Flag),
    (ck::CKA_DERIVE, "CKA_DERIVE", Form::Flag),
    (ck::CKA_DECAPSULATE, "CKA_DECAPSULATE", Form::Flag),
];

/// What an object shows. Values that are not of their form are left out, as those that are not shown.
pub(super) fn shown(session: &Session, object: Object) -> pkcs11_raw::Result<Attributes> {
    let kinds: Vec<_> = SHOWN.iter().map(|(kind, ..)| *kind).collect();
    let values = session.attributes(object, &kinds)?;
    let written = SHOWN.iter().zip(values).filter_map(|((_, name, form), value)| Some((*name, write(*form, &value?)?)));
    Ok(written.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// What a key-encryption key makes of what it unwraps.
fn unwraps(session: &Session, object: Object) -> pkcs11_raw::Result<Attributes> {
    let inner = session.inner_template(object, ck::CKA_UNWRAP_TEMPLATE)?.unwrap_or_default();
    let written = inner.into_iter().filter_map(|(kind, value)| {
        let (_, name, form) = SHOWN.iter().find(|(known, ..)| *known == kind)?;
        Some(((*name).to_owned(), write(*form, &value)?))
    });
    Ok(written.collect())
}

fn write(form: Form, value: &[u8]) -> Option<String> {
    match (form, value) {
        (Form::Flag, [0]) => Some("false".to_owned()),
        (Form::Flag, [_]) => Some("true".to_owned()),
        (Form::Flag, _) => None,
        (Form::Bytes, bytes) => Some(hex::encode(bytes)),
        (Form::Numbers, bytes) => {
            let (chunks, rest) = bytes.as_chunks::<{ size_of::<ck::CK_ULONG>() }>();
            let mut numbers: Vec<_> = chunks.iter().map(|chunk| ck::CK_ULONG::from_ne_bytes(*chunk)).collect();
            numbers.sort_unstable();
            let numbers: Vec<_> = numbers.iter().map(|number| format!("{number:#x}")).collect();
            (rest.is_empty() && !numbers.is_empty()).then(|| numbers.join(","))
        }
    }
}

impl Lane {
    /// See [`crate::device::Device::make_attestation_key`].
    pub(super) fn make_attestation_object(&mut self) -> Result<AttestationKey, Fault> {
        let identity = self.shared.identity();
        if identity.as_ref().is_some_and(|identity| identity.attestation_key.is_some()) {
            return Err(Fault::new(Class::Refused, "this token has an attestation key"));
        }
        let (key, public) = own_key(self)?;
        // Nothing is to find it as a key that is loaded for use.
        self.shared.cache.forget((key.id, key.version));
        let made = AttestationKey { key, public };
        if let Some(identity) = identity {
            self.shared.pin_identity(Identity { attestation_key: Some(made.clone()), ..Identity::clone(&identity) });
        }
        Ok(made)
    }

    /// See [`crate::device::Device::attest`].
    pub(super) fn state(&mut self, wanted: &Attest) -> Result<Stated, Fault> {
        let Attest { key, public, binding } = wanted;
        let identity = self.enrolled()?;
        let own = identity.attestation_key.as_ref().ok_or_else(|| {
            Fault::new(Class::Unsupported, "this token has no attestation key")
                .hint("end the service; `signet init --upgrade` makes one")
        })?;
        let signer = self.attestation_object(&own.key)?;
        // 1. The key proves that it is that key, and is loaded then.
        let check = match (key.algorithm.role(), public) {
            (Role::Sign, Some(public)) => {
                let verifier = Verifier::new(key.algorithm, public)
                    .map_err(|error| Fault::new(Class::Refused, format!("the public key: {error}")))?;
                let message = [b"signet attestation".as_slice(), binding].concat();
                let input = key.algorithm.hash().map_or_else(|| message.clone(), |hash| hash.digest(&message));
                let signature = self.use_key(key, &recipe::sign_input(key.algorithm, &input)?)?;
                if !verifier.verifies(&message, &signature) {
                    let text = "the key in the token is not the private half of its public key";
                    return Err(Fault::new(Class::KeyDamaged, text));
                }
                None
            }
            (Role::Agree | Role::Decrypt | Role::Decapsulate, Some(public)) => {
                let known = Encapsulated::to(key.algorithm, public)
                    .map_err(|error| Fault::new(Class::Refused, format!("the public key: {error}")))?;
                if !same(&self.use_key(key, &known.sent)?, known.secret.expose()) {
                    let text = "the key in the token is not the private half of its public key";
                    return Err(Fault::new(Class::KeyDamaged, text));
                }
                None
            }
            (Role::Mac | Role::Cipher, None) => {
                let check = self.use_key(key, &check_input(key))?;
                Some(hex::encode(sha256(&[&check])))
            }
            (Role::Sign | Role::Agree | Role::Decrypt | Role::Decapsulate, None)
            | (Role::Mac | Role::Cipher, Some(_)) => {
                return Err(Fault::new(Class::Refused, "pairs have a public key, and secret keys have none"));
            }
        };
        // 2. What the token shows.
        let (shared, loaded) = (Arc::clone(&self.shared), self.load(key)?);
        let idle = |error| shared.fault(error, Effect::Idle);
        let object = self.call(|session| shown(session, loaded.object)).map_err(idle)?;
        let kek = match &key.locator {
            Locator::Wrapped { kek, .. } | Locator::Shared { kek, .. } => Some(self.kek_shown(*kek, key)?),
            Locator::Resident | Locator::Tpm { .. } | Locator::TpmBound { .. } => None,
        };
        let born = kek.as_ref().and_then(|_| shared.take_birth((key.id, key.version)));
        // 3. Signed.
        let statement = Statement {
            binding: hex::encode(binding),
            token: Token {
                manufacturer: shared.info.manufacturer.clone(),
                model: shared.info.model.clone(),
                serial: shared.info.serial.clone(),
                firmware: shared.info.firmware.clone(),
            },
            object,
            born,
            kek,
            public_key: public.as_ref().map(|public| Base64Bytes(public.as_der().to_vec())),
            check,
        };
        let signed = statement.signed().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
        let signature = self.call(|session| session.sign(Mechanism::Ecdsa, signer, &sha256(&[&signed])));
        let signature = signature.map_err(|error| {
            shared.lock_keks().remove(&own.key.id);
            shared.fault(error, Effect::Idle)
        })?;
        Ok(Stated { statement, signature: Base64Bytes(signature) })
    }

    fn kek_shown(&mut self, id: KeyId, key: &KeyRef) -> Result<Kek, Fault> {
        let (shared, object) = (Arc::clone(&self.shared), self.kek(id, recipe::kek_role(key.algorithm))?.object);
        let trust = matches!(key.locator, Locator::Shared { .. });
        self.call(|session| {
            let mut attributes = shown(session, object)?;
            if trust {
                let value = session.attributes(object, &[ck::CKA_WRAP_WITH_TRUSTED])?.pop().flatten();
                let written = value.and_then(|value| write(Form::Flag, &value));
                attributes.extend(written.map(|value| ("CKA_WRAP_WITH_TRUSTED".to_owned(), value)));
            }
            Ok(Kek { attributes, unwraps: unwraps(session, object)? })
        })
        .map_err(|error| shared.fault(error, Effect::Idle))
    }

    /// The handle of the attestation key, which stays where those of the key-encryption keys are.
    fn attestation_object(&mut self, own: &KeyRef) -> Result<Object, Fault> {
        let known = self.shared.lock_keks().get(&own.id).copied();
        if let Some(object) = known {
            return Ok(object);
        }
        let object = self.find_resident(own)?;
        self.shared.lock_keks().insert(own.id, object);
        Ok(object)
    }
}
