//! Key-encryption keys that several tokens have, so that each of them opens what was wrapped in another.
//!
//! ```text
//! token A                                                      token B
//!                                    ◀──── public half ─────   transport: an RSA pair of one session, used once
//! shared key, a session object ── RSA-OAEP to each transport ─▶ unwrapped: a token object
//!      └── destroyed; A takes its own in by a transport too
//! ```
//!
//! No key is ever outside a token but under a transport, whose private half goes with its session: what was sent is worthless then.
//! In each token the shared key is *extractable*, since a token that is lost must be replaced some day, but *with trusted keys alone*
//! (`CKA_WRAP_WITH_TRUSTED`). Only the security officer can make a key trusted: the user's PIN gets it out of no token. Each token is
//! tried as somebody would who has that PIN, and keeps no such key where it would let it go.
//!
//! OAEP is with SHA-1, which all tokens know: it asks of its hash no resistance to collisions
//! ([RFC 8017, section 7.1](https://www.rfc-editor.org/rfc/rfc8017#section-7.1)).

use std::sync::Arc;

use pkcs11_raw::{Attribute, Digest, Error, Mechanism, Object, Session, ck};

use crate::device::pkcs11::anchor::Cached;
use crate::device::pkcs11::codes::Effect;
use crate::device::pkcs11::lane::Lane;
use crate::device::pkcs11::make::ignores;
use crate::device::pkcs11::shared::Shared;
use crate::device::pkcs11::template::{self, Life};
use crate::device::pkcs11::{pin, recipe};
use crate::device::{Class, Fault, Identity, Kek, KekRole, LEFT_TRANSPORT, PinSource, SharedKek};
use crate::types::{Algorithm, KeyId, PublicKey, Version};

/// How a shared key travels.
pub(super) const OAEP: Mechanism = Mechanism::RsaOaep { hash: Digest::Sha1, mgf: Digest::Sha1 };
/// The shape of a transport: RSA of 3072 bits.
pub(super) const SHAPE: Algorithm = Algorithm::Rsa3072Oaep;

/// The pair that shared keys come in under.
#[derive(Debug)]
pub(super) struct Transport {
    /// Its own, so that no failure of another call takes the pair along, and none survives its use.
    session: Session,
    public: PublicKey,
    private: Object,
}

impl Lane {
    /// See [`crate::device::Device::open_transport`].
    pub(super) fn open_transport_pair(&mut self) -> Result<PublicKey, Fault> {
        let shared = Arc::clone(&self.shared);
        let idle = |error| shared.fault(error, Effect::Idle);
        let session = shared.session().map_err(idle)?;
        let stated = template::transport();
        let made = session.generate_pair(Mechanism::RsaPkcsKeyPairGen, &template::transport_half(), &stated);
        let (half, private) = made.map_err(idle)?;
        if let Some(wrong) = template::compare_transport(&session, private, &stated).map_err(idle)? {
            return Err(careless(&format!("it makes keys otherwise than it was told: {wrong}")));
        }
        let public = recipe::public_key(&session, half, SHAPE)?
            .ok_or_else(|| Fault::new(Class::Internal, "the token gave a pair no public key"))?;
        *shared.lock_transport() = Some(Transport { session, public: public.clone(), private });
        Ok(public)
    }

    /// See [`crate::device::Device::make_shared`].
    pub(super) fn make_shared_keks(
        &mut self,
        roles: &[KekRole],
        transports: &[PublicKey],
    ) -> Result<Vec<Vec<SharedKek>>, Fault> {
        if self.enrolled()?.shared_keks().next().is_some() {
            return Err(Fault::new(Class::Refused, "this token shares key-encryption keys already"));
        }
        let mut for_each: Vec<Vec<SharedKek>> = transports.iter().map(|_| Vec::new()).collect();
        for role in roles {
            let id = KeyId::random().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
            let blobs = self.born_and_sent(transports)?;
            for (list, blob) in for_each.iter_mut().zip(blobs) {
                list.push(SharedKek { role: *role, id, blob });
            }
        }
        Ok(for_each)
    }

    /// Makes a key as a session object and encrypts it to each transport. Where anything fails, it goes with its session.
    fn born_and_sent(&mut self, transports: &[PublicKey]) -> Result<Vec<Vec<u8>>, Fault> {
        let shared = Arc::clone(&self.shared);
        let idle = |error| shared.fault(error, Effect::Idle);
        self.run(idle, |session| {
            let key = session.generate(Mechanism::AesKeyGen, &template::unborn_kek()).map_err(idle)?;
            let blobs: Result<Vec<_>, Fault> = transports
                .iter()
                .map(|transport| {
                    let wrapper = session.create(&template::known_transport(transport)?).map_err(idle)?;
                    let blob = session.wrap(OAEP, wrapper, key).map_err(idle)?;
                    session.destroy(wrapper).map_err(idle)?;
                    Ok(blob)
                })
                .collect();
            session.destroy(key).map_err(idle)?;
            blobs
        })
    }

    /// See [`crate::device::Device::take_shared`].
    pub(super) fn take_shared_keks(&mut self, keks: &[SharedKek]) -> Result<Vec<Kek>, Fault> {
        let shared = Arc::clone(&self.shared);
        let identity = self.enrolled()?;
        let transport = shared.lock_transport().take().ok_or_else(|| {
            Fault::new(Class::Refused, "this token has no transport open, or it was used: each serves once")
        })?;
        if identity.shared_keks().next().is_some() {
            return Err(Fault::new(Class::Refused, "this token shares key-encryption keys already"));
        }
        let _changing = shared.changing();
        let mut taken: Vec<(Object, Kek)> = Vec::new();
        for kek in keks {
            match self.take_one(kek, &transport) {
                Ok(one) => taken.push(one),
                // All or none: one of several would wrap keys that no other token opens.
                Err(fault) => return Err(taken.iter().fold(fault, |fault, (object, _)| self.undo(*object, fault))),
            }
        }
        shared.sync()?;
        shared.lock_keks().extend(taken.iter().map(|(object, kek)| (kek.id, *object)));
        let taken: Vec<Kek> = taken.into_iter().map(|(_, kek)| kek).collect();
        let mut identity = Identity::clone(&identity);
        identity.keks.extend(taken.iter().cloned());
        shared.pin_identity(identity);
        // What it can do is more now.
        *shared.lock_abilities() = None;
        Ok(taken)
    }

    fn take_one(&mut self, kek: &SharedKek, transport: &Transport) -> Result<(Object, Kek), Fault> {
        let SharedKek { role, id, blob } = kek;
        let shared = Arc::clone(&self.shared);
        let wrapping = shared.wrapping()?;
        // 0. What a try before this took in and nobody pinned, as it died too soon. The token that gives has it still.
        for left in
            self.look(|session| session.find(&template::search(*id, Version::FIRST, Some(ck::CKO_SECRET_KEY))))?
        {
            self.call(|session| session.destroy(left)).map_err(|error| shared.fault(error, Effect::Change))?;
        }
        self.must_be_new(*id, Version::FIRST)?;
        let stated = template::kek(*id, *role, wrapping, Life::Shared);
        // 1. Take it in. A failure here may hide a key.
        let object = transport
            .session
            .unwrap(OAEP, transport.private, blob, &stated)
            .map_err(|error| shared.fault(error, Effect::Change))?;
        // 2. Read it back, and try whether it stays.
        let read = self
            .call(|session| template::compare_kek(session, object, &stated, Life::Shared))
            .map_err(|error| shared.fault(error, Effect::Idle));
        let kept = read.and_then(ignores).and_then(|()| stays(&shared, object, &transport.public));
        kept.map_err(|fault| self.undo(object, fault))?;
        Ok((object, Kek { role: *role, id: *id, wrapping, shared: true }))
    }

    /// See [`crate::device::Device::pass_on_shared`].
    pub(super) fn pass_on_shared_keks(
        &mut self,
        transport: &PublicKey,
        officer: &PinSource,
    ) -> Result<Vec<SharedKek>, Fault> {
        let identity = self.enrolled()?;
        let keks: Vec<_> = identity.keks.iter().filter(|kek| kek.shared).cloned().collect();
        if keks.is_empty() {
            return Err(Fault::new(Class::Refused, "this token shares no key-encryption keys"));
        }
        let shared = Arc::clone(&self.shared);
        // The one PIN is read before the other one is given up.
        let (officer, user) = (pin::read(officer)?, pin::read(&shared.settings.pin)?);
        let trusted = template::trusted_transport(LEFT_TRANSPORT, transport)?;
        // 0. One that a try before this left, whose private half is no more.
        for left in self.trusted_transports()? {
            self.remove_transport(left)?;
        }
        // 1. The officer makes the transport trusted.
        let mut anchor = shared.lock_anchor();
        let changing = shared.changing();
        let made = self.call(|session| {
            let officer = session.logout().and_then(|()| session.login_officer(officer));
            let made = officer.and_then(|()| session.create(&trusted).map(drop));
            // Whatever came of that, the user comes back, who may never have left.
            let _ = session.logout();
            match session.login(user) {
                Err(error) if error.code != ck::CKR_USER_ALREADY_LOGGED_IN => made.and(Err(error)),
                Ok(()) | Err(_) => made,
            }
        });
        // No handle of before is good any more, or may be another object's.
        shared.wipe();
        *anchor = Cached::default();
        made.map_err(|error| {
            let fault = shared.fault(error, Effect::Change);
            let text = format!("making the transport a trusted key, as the security officer: {}", fault.text);
            Fault { text, ..fault }
        })?;
        drop((changing, anchor));
        // 2. The user sends the keys under it, and removes it whatever came of that.
        let found = self.trusted_transports()?;
        let [wrapper] = found.as_slice() else {
            return Err(Fault::new(Class::Internal, "the token does not show the trusted key that was just made"));
        };
        let sent = keks.iter().map(|kek| self.sent_under(kek, *wrapper)).collect();
        self.remove_transport(*wrapper)?;
        sent
    }

    /// Those that an officer made here for other tokens: one while keys are passed on, and what a death in that moment left.
    fn trusted_transports(&mut self) -> Result<Vec<Object>, Fault> {
        let search = template::search(LEFT_TRANSPORT, Version::FIRST, Some(ck::CKO_PUBLIC_KEY));
        self.look(|session| session.find(&search))
    }

    fn remove_transport(&mut self, wrapper: Object) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let changing = shared.changing();
        let removed = self.call(|session| session.destroy(wrapper));
        removed.map_err(|error| shared.fault(error, Effect::Change))?;
        drop(changing);
        shared.sync()
    }

    fn sent_under(&mut self, kek: &Kek, wrapper: Object) -> Result<SharedKek, Fault> {
        let Kek { role, id, .. } = *kek;
        let object = self.kek(id, role)?.object;
        let shared = Arc::clone(&self.shared);
        let blob = self.call(|session| session.wrap(OAEP, wrapper, object));
        Ok(SharedKek { role, id, blob: blob.map_err(|error| shared.fault(error, Effect::Idle))? })
    }
}

/// A way to come by a key that wraps.
type Try<'a> = &'a dyn Fn(&Session) -> pkcs11_raw::Result<Object>;

/// Tries to get a shared key out as the holder of the user's PIN: under a key that nobody made trusted, and under one that the user
/// makes trusted. Each in a session of its own: it is to fail.
fn stays(shared: &Shared, object: Object, public: &PublicKey) -> Result<(), Fault> {
    let idle = |error| shared.fault(error, Effect::Idle);
    let plain = template::known_transport(public)?;
    let trusted = || Attribute::flag(ck::CKA_TRUSTED, true);
    let open: Vec<_> = plain.iter().filter(|one| one.kind() != ck::CKA_MODIFIABLE).cloned().collect();
    let tries: [Try<'_>; 3] = [
        &|session| session.create(&plain),
        &|session| session.create(&[plain.as_slice(), &[trusted()]].concat()),
        &|session| {
            let wrapper = session.create(&open)?;
            session.set(wrapper, &[trusted()])?;
            Ok(wrapper)
        },
    ];
    for attempt in tries {
        let session = shared.session().map_err(idle)?;
        match attempt(&session).and_then(|wrapper| session.wrap(OAEP, wrapper, object)) {
            Ok(_) => return Err(careless("it lets a key out that is to leave under trusted keys alone")),
            Err(error) if is_refusal(error) => {}
            Err(error) => return Err(idle(error)),
        }
    }
    Ok(())
}

/// Whether a token says that a key is not trusted, or not by the user. The standard has the first of each; Kryoptic says the others.
const fn is_refusal(error: Error) -> bool {
    match error.function.as_bytes() {
        b"C_WrapKey" => matches!(error.code, ck::CKR_KEY_NOT_WRAPPABLE | ck::CKR_WRAPPING_KEY_HANDLE_INVALID),
        b"C_CreateObject" | b"C_SetAttributeValue" => matches!(
            error.code,
            ck::CKR_ATTRIBUTE_READ_ONLY
                | ck::CKR_ATTRIBUTE_TYPE_INVALID
                | ck::CKR_ATTRIBUTE_VALUE_INVALID
                | ck::CKR_TEMPLATE_INCONSISTENT
                | ck::CKR_ACTION_PROHIBITED
        ),
        _ => false,
    }
}

fn careless(why: &str) -> Fault {
    Fault::new(Class::Unsupported, format!("this token can share no keys: {why}"))
        .hint("keys that are to outlive a token need two that heed CKA_WRAP_WITH_TRUSTED")
}

/// Modulus and exponent, as a template states them.
pub(super) fn numbers(public: &PublicKey) -> Result<[Attribute; 2], Fault> {
    let (modulus, exponent) = public
        .rsa_numbers()
        .map_err(|error| Fault::new(Class::Refused, format!("the transport of the other token: {error}")))?;
    Ok([Attribute::bytes(ck::CKA_MODULUS, &modulus), Attribute::bytes(ck::CKA_PUBLIC_EXPONENT, &exponent)])
}
