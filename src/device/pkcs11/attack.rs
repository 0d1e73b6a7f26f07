//! The known attacks on the interface of PKCS#11, tried on scratch keys of the token itself: what can somebody do who stole the PIN?
//!
//! The interface lets whoever is logged in combine its functions, and some combinations bring out a key that was never to be seen
//! ([Clulow 2003](https://link.springer.com/chapter/10.1007/978-3-540-45238-6_32),
//! [Bortolozzo et al. 2010](https://dl.acm.org/doi/10.1145/1866307.1866337)). A token refuses some of them by itself; a
//! strict template has it refuse the rest, if it heeds the template. So each attack is made twice: on keys as most programs make them, and on keys by
//! our template. All keys are session objects: nothing stays in the token.

use pkcs11_raw::{Attribute, Error, Mechanism, Object, Session, ck, name_of};

use crate::device::pkcs11::codes::{self, Effect};
use crate::device::pkcs11::recipe;
use crate::device::pkcs11::shared::Shared;
use crate::device::pkcs11::template::{self, Life};
use crate::device::{Attempt, Class, Fault, KekRole, Outcome, Wrapping};
use crate::types::{Algorithm, KeyId, Version};

/// Where a blob of [RFC 5649](https://www.rfc-editor.org/rfc/rfc5649#section-3) has its constant.
const KWP_CONSTANT: [u8; 4] = [0xa6, 0x59, 0x59, 0xa6];
const ECB: Mechanism = Mechanism::Other(ck::CKM_AES_ECB);
/// P-256, in DER.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Who made the keys that are attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Ordinary,
    Ours,
}

/// What is tried: its name, whether the design owns that it works on our keys, and how.
type Attack = (&'static str, bool, fn(&Scratch<'_>) -> Result<bool, Error>);

const ATTACKS: &[Attack] = &[
    ("read the value of a secret key", false, |s| s.readable(s.secret()?)),
    ("make a secret key readable", false, |s| s.change(s.secret()?, Attribute::flag(ck::CKA_SENSITIVE, false))),
    ("make a secret key extractable", false, |s| s.change(s.secret()?, Attribute::flag(ck::CKA_EXTRACTABLE, true))),
    ("have a secret key decrypt as well", false, |s| s.change(s.secret()?, Attribute::flag(ck::CKA_DECRYPT, true))),
    ("have a secret key wrap as well", false, |s| s.change(s.secret()?, Attribute::flag(ck::CKA_WRAP, true))),
    ("have a secret key unwrap as well", false, |s| s.change(s.secret()?, Attribute::flag(ck::CKA_UNWRAP, true))),
    ("have a secret key derive as well", false, |s| s.change(s.secret()?, Attribute::flag(ck::CKA_DERIVE, true))),
    ("have a private key decrypt as well", false, |s| s.change(s.private()?, Attribute::flag(ck::CKA_DECRYPT, true))),
    ("have a private key unwrap as well", false, |s| s.change(s.private()?, Attribute::flag(ck::CKA_UNWRAP, true))),
    ("have a private key derive as well", false, |s| s.change(s.private()?, Attribute::flag(ck::CKA_DERIVE, true))),
    ("have a wrapping key decrypt as well", false, |s| s.change(s.wrapper()?, Attribute::flag(ck::CKA_DECRYPT, true))),
    ("give a key the name of another", false, |s| s.change(s.secret()?, Attribute::bytes(ck::CKA_ID, b"another"))),
    ("give a key the label of another", false, |s| s.change(s.secret()?, Attribute::bytes(ck::CKA_LABEL, b"another"))),
    ("make a key changeable", false, |s| s.sealed(ck::CKA_MODIFIABLE)),
    ("make a key copyable", false, |s| s.sealed(ck::CKA_COPYABLE)),
    ("have a key be trusted", false, |s| s.change(s.wrapper()?, Attribute::flag(ck::CKA_TRUSTED, true))),
    ("allow a key more mechanisms", false, |s| {
        s.change(s.secret()?, Attribute::numbers(ck::CKA_ALLOWED_MECHANISMS, &[ck::CKM_AES_ECB]))
    }),
    ("copy a secret key with another role", false, |s| {
        s.copied(s.secret()?, &[Attribute::flag(ck::CKA_DECRYPT, true)])
    }),
    ("copy a secret key as extractable", false, |s| {
        s.copied(s.secret()?, &[Attribute::flag(ck::CKA_EXTRACTABLE, true)])
    }),
    ("copy a secret key as readable", false, |s| s.copied(s.secret()?, &[Attribute::flag(ck::CKA_SENSITIVE, false)])),
    ("copy a private key with another role", false, |s| {
        s.copied(s.private()?, &[Attribute::flag(ck::CKA_DECRYPT, true)])
    }),
    ("encrypt single blocks with a secret key", false, |s| s.session.encrypt(ECB, s.secret()?, &[0; 16]).map(|_| true)),
    ("use a secret key with a weaker hash", false, |s| {
        s.session.sign(Mechanism::Other(ck::CKM_SHA_1_HMAC), s.secret()?, b"x").map(|_| true)
    }),
    ("use a private key with a weaker hash", false, |s| {
        s.session.sign(Mechanism::Other(ck::CKM_ECDSA_SHA1), s.private()?, b"x").map(|_| true)
    }),
    ("wrap a key, and decrypt the blob", false, |s| s.wrap_and_decrypt()),
    ("unwrap a key as readable", false, |s| s.unwrap_readable()),
    ("unwrap a key with another role", false, |s| s.unwrap_with_another_role()),
    ("wrap a key under a weaker one", false, |s| s.wrapped_under(s.weaker()?)),
    ("wrap a key under one that the attacker knows", false, |s| s.wrapped_under(s.known()?)),
    ("wrap a key under another wrapping mechanism", false, |s| {
        s.session.wrap(Mechanism::Other(ck::CKM_AES_KEY_WRAP), s.wrapper()?, s.secret()?).map(|_| true)
    }),
    ("wrap the wrapping key", false, |s| {
        s.session.wrap(recipe::wrapping(s.wrapping), s.wrapper()?, s.wrapper()?).map(|_| true)
    }),
    ("have a shared wrapping key leave under any key", false, |s| {
        s.change(s.shared()?, Attribute::flag(ck::CKA_WRAP_WITH_TRUSTED, false))
    }),
    ("copy a shared wrapping key as one that leaves under any key", false, |s| {
        s.copied(s.shared()?, &[Attribute::flag(ck::CKA_WRAP_WITH_TRUSTED, false)])
    }),
    ("wrap a shared wrapping key under one that the attacker knows", false, |s| s.passed_on(s.known()?)),
    ("make a known key trusted, and wrap a shared wrapping key", false, |s| s.passed_on(s.trusted()?)),
    ("learn the hash of a secret key", true, |s| s.session.digest_key(s.secret()?).map(|_| true)),
    ("destroy a key", true, |s| s.session.destroy(s.secret()?).map(|()| true)),
];

/// Tries all of them.
pub(super) fn all(shared: &Shared) -> Result<Vec<Attempt>, Fault> {
    let wrapping = shared.wrapping()?;
    leaves_nothing(shared, wrapping)?;
    ATTACKS
        .iter()
        .map(|(attack, owned, run)| {
            let outcome = |maker| -> Result<Outcome, Fault> {
                // Each in a session of its own: a call that fails may leave it stuck, and its keys go with it.
                let session = shared.session().map_err(|error| codes::fault(error, Effect::Idle))?;
                let scratch = Scratch { session: &session, maker, wrapping };
                Ok(match run(&scratch) {
                    Ok(true) => Outcome::Works,
                    Ok(false) => Outcome::Ignored,
                    Err(error) => Outcome::Refused(refusal(error)),
                })
            };
            Ok(Attempt {
                attack: (*attack).to_owned(),
                owned: *owned,
                ordinary: outcome(Maker::Ordinary)?,
                ours: outcome(Maker::Ours)?,
            })
        })
        .collect()
}

/// Whether scratch keys go with their session: a token that keeps them would be littered.
fn leaves_nothing(shared: &Shared, wrapping: Wrapping) -> Result<(), Fault> {
    let idle = |error| codes::fault(error, Effect::Idle);
    let session = shared.session().map_err(idle)?;
    let key = Scratch { session: &session, maker: Maker::Ordinary, wrapping }.secret().map_err(idle)?;
    if template::goes_with_its_session(&session, key).map_err(idle)? {
        return Ok(());
    }
    session.destroy(key).map_err(idle)?;
    Err(Fault::new(
        Class::Unsupported,
        "this token keeps keys that were to go with their session; nothing was tried on it",
    ))
}

fn refusal(error: Error) -> String {
    let code = name_of(error.code).map_or_else(|| format!("{:#x}", error.code), str::to_owned);
    format!("{}: {code}", error.function)
}

/// One session, and keys that are made as they are needed.
struct Scratch<'a> {
    session: &'a Session,
    maker: Maker,
    wrapping: Wrapping,
}

impl Scratch<'_> {
    /// A secret key: sensitive, and used for one thing so far.
    fn secret(&self) -> Result<Object, Error> {
        match self.maker {
            Maker::Ordinary => self.aes(32, &[ck::CKA_SIGN, ck::CKA_ENCRYPT], false),
            Maker::Ours => self.ours(Life::Loaded),
        }
    }

    /// A secret key that may be wrapped: ours may for the moment in which its blob is made.
    fn wrappable(&self) -> Result<Object, Error> {
        match self.maker {
            Maker::Ordinary => self.aes(32, &[ck::CKA_SIGN, ck::CKA_ENCRYPT], true),
            Maker::Ours => self.ours(Life::Unborn),
        }
    }

    fn private(&self) -> Result<Object, Error> {
        let public = [
            Attribute::flag(ck::CKA_TOKEN, false),
            Attribute::flag(ck::CKA_VERIFY, true),
            Attribute::bytes(ck::CKA_EC_PARAMS, P256),
        ];
        let private = match self.maker {
            Maker::Ordinary => vec![
                Attribute::flag(ck::CKA_TOKEN, false),
                Attribute::flag(ck::CKA_PRIVATE, true),
                Attribute::flag(ck::CKA_SENSITIVE, true),
                Attribute::flag(ck::CKA_EXTRACTABLE, false),
                Attribute::flag(ck::CKA_SIGN, true),
                Attribute::flag(ck::CKA_DECRYPT, false),
                Attribute::flag(ck::CKA_UNWRAP, false),
                Attribute::flag(ck::CKA_DERIVE, false),
            ],
            Maker::Ours => template::newborn(scratch_id(), Version::FIRST, Algorithm::EcdsaP256, Life::Loaded),
        };
        Ok(self.session.generate_pair(Mechanism::EcKeyPairGen, &public, &private)?.1)
    }

    /// A key that wraps others.
    fn wrapper(&self) -> Result<Object, Error> {
        match self.maker {
            Maker::Ordinary => self.aes(32, &[ck::CKA_WRAP, ck::CKA_UNWRAP], false),
            Maker::Ours => self.session.generate(
                Mechanism::AesKeyGen,
                &template::kek(scratch_id(), KekRole::Mac, self.wrapping, Life::Loaded),
            ),
        }
    }

    fn ours(&self, life: Life) -> Result<Object, Error> {
        let algorithm = Algorithm::Aes256GcmDerived;
        let template = template::newborn(scratch_id(), Version::FIRST, algorithm, life);
        self.session.generate(recipe::generator(algorithm), &template)
    }

    /// An AES key as most programs make them.
    fn aes(&self, length: ck::CK_ULONG, roles: &[ck::CK_ATTRIBUTE_TYPE], extractable: bool) -> Result<Object, Error> {
        let mut all = vec![
            Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY),
            Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_AES),
            Attribute::number(ck::CKA_VALUE_LEN, length),
            Attribute::flag(ck::CKA_TOKEN, false),
            Attribute::flag(ck::CKA_PRIVATE, true),
            Attribute::flag(ck::CKA_SENSITIVE, true),
            Attribute::flag(ck::CKA_EXTRACTABLE, extractable),
            Attribute::bytes(ck::CKA_ID, b"scratch"),
        ];
        let known = [
            ck::CKA_SIGN,
            ck::CKA_VERIFY,
            ck::CKA_ENCRYPT,
            ck::CKA_DECRYPT,
            ck::CKA_WRAP,
            ck::CKA_UNWRAP,
            ck::CKA_DERIVE,
        ];
        all.extend(known.iter().map(|role| Attribute::flag(*role, roles.contains(role))));
        self.session.generate(Mechanism::AesKeyGen, &all)
    }

    /// Half as long as what it wraps.
    fn weaker(&self) -> Result<Object, Error> {
        self.aes(16, &[ck::CKA_WRAP], false)
    }

    /// One whose value the attacker chose.
    fn known(&self) -> Result<Object, Error> {
        self.session.create(&[
            Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY),
            Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_AES),
            Attribute::bytes(ck::CKA_VALUE, &[7; 32]),
            Attribute::flag(ck::CKA_TOKEN, false),
            Attribute::flag(ck::CKA_WRAP, true),
        ])
    }

    /// The same, and trusted.
    fn trusted(&self) -> Result<Object, Error> {
        let known = self.known()?;
        self.session.set(known, &[Attribute::flag(ck::CKA_TRUSTED, true)])?;
        Ok(known)
    }

    /// A key that wraps others, and that other tokens are to have too.
    fn shared(&self) -> Result<Object, Error> {
        if self.maker == Maker::Ordinary {
            return self.aes(32, &[ck::CKA_WRAP, ck::CKA_UNWRAP], true);
        }
        let mut template = template::kek(scratch_id(), KekRole::Mac, self.wrapping, Life::Shared);
        template.retain(|stated| stated.kind() != ck::CKA_TOKEN);
        template.extend([Attribute::flag(ck::CKA_TOKEN, false), Attribute::number(ck::CKA_VALUE_LEN, 32)]);
        self.session.generate(Mechanism::AesKeyGen, &template)
    }

    fn passed_on(&self, wrapper: Object) -> Result<bool, Error> {
        self.session.wrap(recipe::wrapping(self.wrapping), wrapper, self.shared()?).map(|_| true)
    }

    fn readable(&self, key: Object) -> Result<bool, Error> {
        Ok(matches!(self.session.attributes(key, &[ck::CKA_VALUE])?.as_slice(), [Some(value)] if !value.is_empty()))
    }

    /// Changes an attribute. False where the token says yes and does nothing.
    fn change(&self, key: Object, attribute: Attribute) -> Result<bool, Error> {
        let kind = attribute.kind();
        self.session.set(key, std::slice::from_ref(&attribute))?;
        let now = self.session.attributes(key, &[kind])?;
        Ok(matches!(now.as_slice(), [Some(value)] if attribute.agrees(value)))
    }

    /// Takes back that a key cannot be changed or copied.
    fn sealed(&self, kind: ck::CK_ATTRIBUTE_TYPE) -> Result<bool, Error> {
        let key = self.secret()?;
        if self.maker == Maker::Ordinary {
            // As most programs make them, they were open from the beginning.
            return Ok(true);
        }
        self.change(key, Attribute::flag(kind, true))
    }

    fn copied(&self, key: Object, template: &[Attribute]) -> Result<bool, Error> {
        self.session.copy(key, template).map(|_| true)
    }

    fn wrapped_under(&self, wrapper: Object) -> Result<bool, Error> {
        // What the attacker finds in the token is a key at rest, not one in the moment of its birth.
        let key = if self.maker == Maker::Ours { self.secret()? } else { self.wrappable()? };
        self.session.wrap(recipe::wrapping(self.wrapping), wrapper, key).map(|_| true)
    }

    fn blob(&self, wrapper: Object) -> Result<Vec<u8>, Error> {
        self.session.wrap(recipe::wrapping(self.wrapping), wrapper, self.wrappable()?)
    }

    /// Wraps a sensitive key and opens the blob block by block with the key that wrapped it, as if it were a ciphertext.
    fn wrap_and_decrypt(&self) -> Result<bool, Error> {
        let wrapper = match self.maker {
            // Many programs give a wrapping key all roles of an AES key.
            Maker::Ordinary => {
                self.aes(32, &[ck::CKA_WRAP, ck::CKA_UNWRAP, ck::CKA_ENCRYPT, ck::CKA_DECRYPT], false)?
            }
            Maker::Ours => self.wrapper()?,
        };
        let blob = self.blob(wrapper)?;
        let opened = open_by_blocks(&blob, |block| self.session.decrypt(ECB, wrapper, block))?;
        Ok(opened.is_some_and(|first| first.starts_with(&KWP_CONSTANT)))
    }

    /// What a template for unwrapping says, with some of it otherwise.
    fn unwrap_as(&self, otherwise: &[Attribute]) -> Result<Object, Error> {
        let wrapper = self.wrapper()?;
        let blob = self.blob(wrapper)?;
        let mut template = match self.maker {
            Maker::Ordinary => vec![
                Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY),
                Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_AES),
                Attribute::flag(ck::CKA_TOKEN, false),
            ],
            Maker::Ours => template::key(scratch_id(), Version::FIRST, Algorithm::Aes256GcmDerived, Life::Loaded),
        };
        template.retain(|stated| otherwise.iter().all(|other| other.kind() != stated.kind()));
        template.splice(0..0, otherwise.iter().cloned());
        self.session.unwrap(recipe::wrapping(self.wrapping), wrapper, &blob, &template)
    }

    fn unwrap_readable(&self) -> Result<bool, Error> {
        let flags = [Attribute::flag(ck::CKA_SENSITIVE, false), Attribute::flag(ck::CKA_EXTRACTABLE, true)];
        self.readable(self.unwrap_as(&flags)?)
    }

    fn unwrap_with_another_role(&self) -> Result<bool, Error> {
        self.unwrap_as(&[Attribute::flag(ck::CKA_DECRYPT, true)]).map(|_| true)
    }
}

const fn scratch_id() -> KeyId {
    KeyId::from_bytes([0xa7; 16])
}

/// The inverse of key wrapping ([RFC 3394, 2.2.2](https://www.rfc-editor.org/rfc/rfc3394#section-2.2.2)) with somebody else decrypting
/// the blocks. Answers the first 8 bytes that come out, where its constant stands; nothing for what is no blob.
fn open_by_blocks(
    blob: &[u8],
    mut decrypt: impl FnMut(&[u8]) -> Result<Vec<u8>, Error>,
) -> Result<Option<[u8; 8]>, Error> {
    let (halves, rest) = blob.as_chunks::<8>();
    let [first, registers @ ..] = halves else { return Ok(None) };
    if !rest.is_empty() || registers.len() < 2 {
        return Ok(None);
    }
    let (mut first, mut registers) = (*first, registers.to_vec());
    let count = registers.len() as u64;
    for round in (0..6).rev() {
        for (at, register) in registers.iter_mut().enumerate().rev() {
            let step = count * round + at as u64 + 1;
            let mixed = (u64::from_be_bytes(first) ^ step).to_be_bytes();
            let opened = decrypt(&[mixed, *register].concat())?;
            let (Some(high), Some(low)) = (opened.first_chunk(), opened.last_chunk()) else { return Ok(None) };
            (first, *register) = (*high, *low);
        }
    }
    Ok(Some(first))
}
