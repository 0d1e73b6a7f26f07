//! The one strict template that makes every key, and its comparison with what the token made of it.
//!
//! A key does one thing, never leaves, and cannot be changed or copied into one that does more: with these attributes a
//! holder of the PIN is refused what ordinary templates allow (wrap and decrypt with one key, switching a role on later,
//! copying with another role, unwrapping a blob as a readable key). Tokens are free to ignore attributes, and stored objects
//! get damaged: so all of them are read back after creation and at each load.
//!
//! Seen on SoftHSM 2.6.1, which accepts and enforces all of this: roles of a key that was made as it should are still
//! changeable unless `CKA_MODIFIABLE` is false; `CKA_ALLOWED_MECHANISMS` is enforced; an unwrap template wants each of its
//! attributes stated again by the one who unwraps, though by the standard they would be added.

use pkcs11_raw::{Attribute, Error, Object, Session, ck};

use crate::device::pkcs11::{recipe, share};
use crate::device::{Fault, KekRole, Wrapping};
use crate::types::{Algorithm, KeyId, PublicKey, Version};

/// A key-encryption key has 256 bits, so that no wrapped key is stronger than its wrapping.
const KEK_BYTES: ck::CK_ULONG = 32;

/// How a key object lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// A token object, for ever in its token.
    Resident,
    /// A session object that exists to be wrapped, and is destroyed at once.
    Unborn,
    /// A session object, unwrapped for use.
    Loaded,
    /// A token object that came from another token, and goes on to others under trusted keys alone.
    Shared,
}

/// `CKA_ID`: the id, then the version in big-endian.
pub(super) fn id_bytes(id: KeyId, version: Version) -> Vec<u8> {
    [id.as_bytes().as_slice(), &version.number().to_be_bytes()].concat()
}

/// The id and version in a `CKA_ID` of our form.
pub(super) fn parse_id(bytes: &[u8]) -> Option<(KeyId, Version)> {
    let (id, version) = bytes.split_first_chunk::<16>()?;
    let version = Version::new(u32::from_be_bytes(version.try_into().ok()?)).ok()?;
    Some((KeyId::from_bytes(*id), version))
}

/// `CKA_LABEL`, for people with other tools: nothing is ever found by it.
pub(super) fn label(id: KeyId, version: Version) -> String {
    format!("signet {id} v{version}")
}

/// The template of the part of a key that stays in the token.
pub(super) fn key(id: KeyId, version: Version, algorithm: Algorithm, life: Life) -> Vec<Attribute> {
    let mut all = vec![
        Attribute::number(ck::CKA_CLASS, recipe::class(algorithm)),
        Attribute::number(ck::CKA_KEY_TYPE, recipe::key_type(algorithm)),
    ];
    all.extend(guards(life));
    all.extend(roles(recipe::class(algorithm), recipe::rights(recipe::kek_role(algorithm))));
    all.push(Attribute::numbers(ck::CKA_ALLOWED_MECHANISMS, &[recipe::mechanism(algorithm).number()]));
    all.extend(names(id, version));
    all.push(sealed());
    all
}

/// The template to make that part with; a secret is told its size here, a pair in its public half.
pub(super) fn newborn(id: KeyId, version: Version, algorithm: Algorithm, life: Life) -> Vec<Attribute> {
    let mut all = key(id, version, algorithm, life);
    if recipe::class(algorithm) == ck::CKO_SECRET_KEY {
        all.extend(recipe::size_attributes(algorithm));
    }
    all
}

/// The template of the public half. It is a session object, read once and destroyed: what stays in the token is then one
/// object per key, and a crash leaves no half of a pair behind.
pub(super) fn public_half(id: KeyId, version: Version, algorithm: Algorithm) -> Vec<Attribute> {
    let mut all = vec![
        Attribute::number(ck::CKA_CLASS, ck::CKO_PUBLIC_KEY),
        Attribute::number(ck::CKA_KEY_TYPE, recipe::key_type(algorithm)),
        Attribute::flag(ck::CKA_TOKEN, false),
        Attribute::flag(ck::CKA_PRIVATE, false),
    ];
    let (rights, granted) =
        ([ck::CKA_VERIFY, ck::CKA_ENCRYPT, ck::CKA_WRAP, ck::CKA_DERIVE], recipe::public_right(algorithm));
    all.extend(rights.map(|right| Attribute::flag(right, right == granted)));
    all.extend((!rights.contains(&granted)).then(|| Attribute::flag(granted, true)));
    all.extend(recipe::size_attributes(algorithm));
    all.extend(names(id, version));
    all
}

/// The template of a key-encryption key: it wraps and unwraps, and what it unwraps has exactly the flags of `role`.
pub(super) fn kek(id: KeyId, role: KekRole, wrapping: Wrapping, life: Life) -> Vec<Attribute> {
    let mut all = aes();
    if life == Life::Shared {
        // Its length came with it.
        all.push(Attribute::flag(ck::CKA_WRAP_WITH_TRUSTED, true));
    } else {
        all.push(Attribute::number(ck::CKA_VALUE_LEN, KEK_BYTES));
    }
    all.extend(guards(life));
    all.extend(roles(ck::CKO_SECRET_KEY, &[ck::CKA_WRAP, ck::CKA_UNWRAP]));
    all.push(Attribute::numbers(ck::CKA_ALLOWED_MECHANISMS, &[recipe::wrapping(wrapping).number()]));
    all.extend(names(id, Version::FIRST));
    all.push(Attribute::template(ck::CKA_UNWRAP_TEMPLATE, unwrapped(role)));
    all.push(sealed());
    all
}

fn aes() -> Vec<Attribute> {
    vec![Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY), Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_AES)]
}

/// The template of a key-encryption key that is made to be sent to several tokens, and destroyed at once.
pub(super) fn unborn_kek() -> Vec<Attribute> {
    let mut all = aes();
    all.push(Attribute::number(ck::CKA_VALUE_LEN, KEK_BYTES));
    all.extend(guards(Life::Unborn));
    all.extend(roles(ck::CKO_SECRET_KEY, &[ck::CKA_WRAP, ck::CKA_UNWRAP]));
    all.push(sealed());
    all
}

/// The template of the private half of a transport: it unwraps by one mechanism, and goes with its session.
pub(super) fn transport() -> Vec<Attribute> {
    let mut all =
        vec![Attribute::number(ck::CKA_CLASS, ck::CKO_PRIVATE_KEY), Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_RSA)];
    all.extend(guards(Life::Loaded));
    all.extend(roles(ck::CKO_PRIVATE_KEY, &[ck::CKA_UNWRAP]));
    all.push(Attribute::numbers(ck::CKA_ALLOWED_MECHANISMS, &[share::OAEP.number()]));
    all.push(sealed());
    all
}

/// Reads the private half of a transport back.
pub(super) fn compare_transport(
    session: &Session,
    object: Object,
    stated: &[Attribute],
) -> Result<Option<String>, Error> {
    Ok(join(&compare(session, object, stated, Life::Loaded)?))
}

/// The template to make the public half of a transport with.
pub(super) fn transport_half() -> Vec<Attribute> {
    let mut all = wrapping_half(false);
    all.extend(recipe::size_attributes(share::SHAPE));
    all
}

/// The template of the public half of another token's transport: an object of one session.
pub(super) fn known_transport(public: &PublicKey) -> Result<Vec<Attribute>, Fault> {
    let mut all = wrapping_half(false);
    all.extend(share::numbers(public)?);
    all.push(sealed());
    Ok(all)
}

/// The same as the security officer makes it: a token object that shared keys may leave under.
pub(super) fn trusted_transport(id: KeyId, public: &PublicKey) -> Result<Vec<Attribute>, Fault> {
    let mut all = wrapping_half(true);
    all.extend(share::numbers(public)?);
    all.push(Attribute::flag(ck::CKA_TRUSTED, true));
    all.extend(names(id, Version::FIRST));
    all.push(sealed());
    Ok(all)
}

/// An RSA public key that wraps.
fn wrapping_half(stays: bool) -> Vec<Attribute> {
    let mut all =
        vec![Attribute::number(ck::CKA_CLASS, ck::CKO_PUBLIC_KEY), Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_RSA)];
    all.extend([Attribute::flag(ck::CKA_TOKEN, stays), Attribute::flag(ck::CKA_PRIVATE, false)]);
    let rights = [ck::CKA_VERIFY, ck::CKA_ENCRYPT, ck::CKA_WRAP, ck::CKA_DERIVE];
    all.extend(rights.map(|right| Attribute::flag(right, right == ck::CKA_WRAP)));
    all
}

/// What an unwrapped key always is, whoever unwraps it.
fn unwrapped(role: KekRole) -> Vec<Attribute> {
    let class = match role {
        KekRole::Sign | KekRole::Agree | KekRole::Decrypt | KekRole::Decapsulate => ck::CKO_PRIVATE_KEY,
        KekRole::Mac | KekRole::Cipher => ck::CKO_SECRET_KEY,
    };
    let mut all = vec![Attribute::number(ck::CKA_CLASS, class)];
    all.extend(guards(Life::Loaded));
    all.extend(roles(class, recipe::rights(role)));
    all.push(sealed());
    all
}

/// The secret that a key finds by a point or a ciphertext: a session object that is read and destroyed at once, since the rest of HPKE is
/// not the token's.
pub(super) fn found(length: usize) -> Vec<Attribute> {
    vec![
        Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY),
        Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_GENERIC_SECRET),
        Attribute::number(ck::CKA_VALUE_LEN, length as ck::CK_ULONG),
        Attribute::flag(ck::CKA_TOKEN, false),
        Attribute::flag(ck::CKA_PRIVATE, true),
        Attribute::flag(ck::CKA_SENSITIVE, false),
        Attribute::flag(ck::CKA_EXTRACTABLE, true),
    ]
}

/// Where the key is, and that it stays there as it is.
fn guards(life: Life) -> [Attribute; 5] {
    [
        Attribute::flag(ck::CKA_TOKEN, matches!(life, Life::Resident | Life::Shared)),
        Attribute::flag(ck::CKA_PRIVATE, true),
        Attribute::flag(ck::CKA_SENSITIVE, true),
        Attribute::flag(ck::CKA_EXTRACTABLE, matches!(life, Life::Unborn | Life::Shared)),
        Attribute::flag(ck::CKA_COPYABLE, false),
    ]
}

/// That nothing of the object can be changed. It is stated last: SoftHSM takes an unwrap template attribute by attribute, and
/// obeys this one from the moment it reads it (`CKR_ATTRIBUTE_READ_ONLY` for the next).
const fn sealed() -> Attribute {
    Attribute::flag(ck::CKA_MODIFIABLE, false)
}

/// All roles that objects of `class` have, `granted` ones true.
fn roles(class: ck::CK_ULONG, granted: &[ck::CK_ATTRIBUTE_TYPE]) -> Vec<Attribute> {
    let known: &[ck::CK_ATTRIBUTE_TYPE] = if class == ck::CKO_PRIVATE_KEY {
        &[ck::CKA_SIGN, ck::CKA_SIGN_RECOVER, ck::CKA_DECRYPT, ck::CKA_UNWRAP, ck::CKA_DERIVE]
    } else {
        &[ck::CKA_SIGN, ck::CKA_VERIFY, ck::CKA_ENCRYPT, ck::CKA_DECRYPT, ck::CKA_WRAP, ck::CKA_UNWRAP, ck::CKA_DERIVE]
    };
    // Tokens older than version 3.2 do not know this one: it is stated where it is granted, and false where nobody states it.
    let newer = granted.iter().filter(|role| **role == ck::CKA_DECAPSULATE);
    known.iter().chain(newer).map(|role| Attribute::flag(*role, granted.contains(role))).collect()
}

fn names(id: KeyId, version: Version) -> [Attribute; 2] {
    [
        Attribute::bytes(ck::CKA_ID, &id_bytes(id, version)),
        Attribute::bytes(ck::CKA_LABEL, label(id, version).as_bytes()),
    ]
}

/// The search for a token object of this id, of one class or of any.
pub(super) fn search(id: KeyId, version: Version, class: Option<ck::CK_ULONG>) -> Vec<Attribute> {
    let mut all = vec![Attribute::flag(ck::CKA_TOKEN, true), Attribute::bytes(ck::CKA_ID, &id_bytes(id, version))];
    all.extend(class.map(|class| Attribute::number(ck::CKA_CLASS, class)));
    all
}

/// Reads a key back: the names of the attributes that are not as they were stated, or `None` where all are.
pub(super) fn compare_key(
    session: &Session,
    object: Object,
    algorithm: Algorithm,
    stated: &[Attribute],
    life: Life,
) -> Result<Option<String>, Error> {
    let mut wrong = compare(session, object, stated, life)?;
    let strength = session.attributes(object, &[recipe::strength_attribute(algorithm)])?;
    // SoftHSM shows 0 as the length of an unwrapped secret. It is the length that was wrapped: the blob is authenticated.
    let unknown = life == Life::Loaded
        && recipe::class(algorithm) == ck::CKO_SECRET_KEY
        && matches!(strength.as_slice(), [Some(value)] if value.iter().all(|byte| *byte == 0));
    if !unknown && !matches!(strength.as_slice(), [Some(value)] if recipe::is_strong(algorithm, value)) {
        wrong.push("the size of the key");
    }
    Ok(join(&wrong))
}

/// Reads a key-encryption key back, its unwrap template included.
pub(super) fn compare_kek(
    session: &Session,
    object: Object,
    stated: &[Attribute],
    life: Life,
) -> Result<Option<String>, Error> {
    let mut wrong = compare(session, object, stated, life)?;
    let wanted = stated.iter().find_map(Attribute::inner).unwrap_or_default();
    let found = session.inner_template(object, ck::CKA_UNWRAP_TEMPLATE)?.unwrap_or_default();
    let same = wanted.len() == found.len()
        && wanted.iter().all(|one| found.iter().any(|(kind, value)| *kind == one.kind() && one.agrees(value)));
    if !same {
        wrong.push("CKA_UNWRAP_TEMPLATE");
    }
    Ok(join(&wrong))
}

fn compare(session: &Session, object: Object, stated: &[Attribute], life: Life) -> Result<Vec<&'static str>, Error> {
    let mut wanted: Vec<&Attribute> = stated.iter().filter(|attribute| attribute.inner().is_none()).collect();
    // What was made in the token and never could leave says so, and nobody can set this by hand.
    let born_here = [Attribute::flag(ck::CKA_LOCAL, true), Attribute::flag(ck::CKA_NEVER_EXTRACTABLE, true)];
    if life == Life::Resident {
        wanted.extend(&born_here);
    }
    let kinds: Vec<_> = wanted.iter().map(|attribute| attribute.kind()).collect();
    let found = session.attributes(object, &kinds)?;
    let differs =
        |(wanted, found): &(&&Attribute, &Option<Vec<u8>>)| !found.as_ref().is_some_and(|found| wanted.agrees(found));
    Ok(wanted.iter().zip(&found).filter(differs).map(|(wanted, _)| attribute_name(wanted.kind())).collect())
}

/// Whether an object is a session object, as it was to be.
pub(super) fn goes_with_its_session(session: &Session, object: Object) -> Result<bool, Error> {
    let transient = Attribute::flag(ck::CKA_TOKEN, false);
    Ok(matches!(session.attributes(object, &[ck::CKA_TOKEN])?.as_slice(), [Some(value)] if transient.agrees(value)))
}

fn join(wrong: &[&str]) -> Option<String> {
    if wrong.is_empty() { None } else { Some(wrong.join(", ")) }
}

/// The standard's name of an attribute that our templates state.
fn attribute_name(kind: ck::CK_ATTRIBUTE_TYPE) -> &'static str {
    match kind {
        ck::CKA_CLASS => "CKA_CLASS",
        ck::CKA_KEY_TYPE => "CKA_KEY_TYPE",
        ck::CKA_VALUE_LEN => "CKA_VALUE_LEN",
        ck::CKA_TOKEN => "CKA_TOKEN",
        ck::CKA_PRIVATE => "CKA_PRIVATE",
        ck::CKA_SENSITIVE => "CKA_SENSITIVE",
        ck::CKA_EXTRACTABLE => "CKA_EXTRACTABLE",
        ck::CKA_MODIFIABLE => "CKA_MODIFIABLE",
        ck::CKA_COPYABLE => "CKA_COPYABLE",
        ck::CKA_SIGN => "CKA_SIGN",
        ck::CKA_SIGN_RECOVER => "CKA_SIGN_RECOVER",
        ck::CKA_VERIFY => "CKA_VERIFY",
        ck::CKA_ENCRYPT => "CKA_ENCRYPT",
        ck::CKA_DECRYPT => "CKA_DECRYPT",
        ck::CKA_WRAP => "CKA_WRAP",
        ck::CKA_WRAP_WITH_TRUSTED => "CKA_WRAP_WITH_TRUSTED",
        ck::CKA_UNWRAP => "CKA_UNWRAP",
        ck::CKA_DERIVE => "CKA_DERIVE",
        ck::CKA_DECAPSULATE => "CKA_DECAPSULATE",
        ck::CKA_ALLOWED_MECHANISMS => "CKA_ALLOWED_MECHANISMS",
        ck::CKA_ID => "CKA_ID",
        ck::CKA_LABEL => "CKA_LABEL",
        ck::CKA_LOCAL => "CKA_LOCAL",
        ck::CKA_NEVER_EXTRACTABLE => "CKA_NEVER_EXTRACTABLE",
        _ => "an attribute",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_was_written() {
        let (id, version) = (KeyId::from_bytes([9; 16]), Version::new(258).unwrap());
        let bytes = id_bytes(id, version);
        assert_eq!(bytes.get(16..), Some([0, 0, 1, 2].as_slice()));
        assert_eq!(parse_id(&bytes), Some((id, version)));
        assert_eq!(parse_id(&[0; 20]), None, "version 0");
        assert_eq!(parse_id(&[1; 19]), None);
    }

    #[test]
    fn each_role_is_stated_and_that_of_the_algorithm_granted() {
        for algorithm in Algorithm::ALL.iter().copied() {
            let (id, version) = (KeyId::from_bytes([1; 16]), Version::FIRST);
            let template = key(id, version, algorithm, Life::Resident);
            let rights = recipe::rights(recipe::kek_role(algorithm));
            assert!(template.contains(&Attribute::flag(ck::CKA_EXTRACTABLE, false)), "{algorithm}");
            let all = [
                ck::CKA_SIGN,
                ck::CKA_SIGN_RECOVER,
                ck::CKA_VERIFY,
                ck::CKA_ENCRYPT,
                ck::CKA_DECRYPT,
                ck::CKA_WRAP,
                ck::CKA_UNWRAP,
                ck::CKA_DERIVE,
                ck::CKA_DECAPSULATE,
            ];
            let granted = |role: &ck::CK_ATTRIBUTE_TYPE| template.contains(&Attribute::flag(*role, true));
            let granted: Vec<_> = all.into_iter().filter(granted).collect();
            assert_eq!(granted, rights, "{algorithm}");
        }
    }
}
