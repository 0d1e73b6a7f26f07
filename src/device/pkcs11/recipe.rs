//! What each algorithm is in PKCS#11: generator, mechanism, key type, input and public key.

use std::borrow::Cow;

use der::Decode;
use der::asn1::OctetStringRef;
use pkcs11_raw::{Attribute, Digest, Mechanism, Object, Session, ck};

use crate::device::pkcs11::codes::{self, Effect};
use crate::device::pkcs11::template;
use crate::device::{Class, Fault, KekRole, Wrapping};
use crate::types::{Agreed, Algorithm, CipherCall, Curve, Direction, Encapsulated, Hash, PublicKey, Purpose, Role};

/// The `DigestInfo` of SHA-256 up to the digest ([RFC 8017, section 9.2, note 1](https://www.rfc-editor.org/rfc/rfc8017#page-47)).
const DIGEST_INFO_SHA256: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

/// The length of an AES-256 key.
const AES_BYTES: ck::CK_ULONG = 32;

/// 65537 ([FIPS 186-5, section 5.1](https://doi.org/10.6028/NIST.FIPS.186-5): odd, and above 2^16).
const PUBLIC_EXPONENT: [u8; 3] = [1, 0, 1];

/// OBJECT IDENTIFIERs of curves in DER ([RFC 5480](https://www.rfc-editor.org/rfc/rfc5480#section-2.1.1.1)).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
/// Ed25519 by its OID ([RFC 8410](https://www.rfc-editor.org/rfc/rfc8410#section-3)), as we state it.
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// Ed25519 by its name, a PrintableString, as SoftHSM shows it.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

/// What kind of key an algorithm has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// ECDSA or ECDH.
    Ec(Curve),
    /// Ed25519.
    Edwards,
    /// ML-DSA-65.
    MlDsa,
    /// ML-KEM-768.
    MlKem,
    /// RSA with a modulus of so many bits.
    Rsa(u32),
    /// HMAC, of so many bytes.
    Secret(Hash),
    /// AES-256.
    Aes,
}

/// The kind of key of an algorithm.
pub(super) const fn family(algorithm: Algorithm) -> Family {
    match algorithm {
        Algorithm::EcdsaP256 | Algorithm::HpkeP256 => Family::Ec(Curve::P256),
        Algorithm::EcdsaP384 => Family::Ec(Curve::P384),
        Algorithm::EcdsaP521 => Family::Ec(Curve::P521),
        Algorithm::Ed25519 => Family::Edwards,
        Algorithm::MlDsa65 => Family::MlDsa,
        Algorithm::MlKem768 => Family::MlKem,
        Algorithm::Rsa2048Pkcs1 | Algorithm::Rsa2048Pss | Algorithm::Rsa2048Oaep => Family::Rsa(2048),
        Algorithm::Rsa3072Pkcs1 | Algorithm::Rsa3072Pss | Algorithm::Rsa3072Oaep => Family::Rsa(3072),
        Algorithm::Rsa4096Pkcs1 | Algorithm::Rsa4096Pss | Algorithm::Rsa4096Oaep => Family::Rsa(4096),
        Algorithm::HmacSha256 | Algorithm::Aes256GcmDerived => Family::Secret(Hash::Sha256),
        Algorithm::HmacSha384 => Family::Secret(Hash::Sha384),
        Algorithm::HmacSha512 => Family::Secret(Hash::Sha512),
        Algorithm::Aes256Gcm => Family::Aes,
    }
}

/// The one mechanism a key of this algorithm is used with.
pub(super) const fn mechanism(algorithm: Algorithm) -> Mechanism {
    match family(algorithm) {
        Family::Ec(_) if matches!(algorithm.role(), Role::Agree) => Mechanism::Ecdh1Derive,
        Family::Ec(_) => Mechanism::Ecdsa,
        Family::Edwards => Mechanism::Eddsa,
        Family::MlDsa => Mechanism::MlDsa,
        Family::MlKem => Mechanism::MlKem,
        Family::Rsa(_) if matches!(algorithm.role(), Role::Decrypt) => {
            Mechanism::RsaOaep { hash: Digest::Sha256, mgf: Digest::Sha256 }
        }
        Family::Rsa(_) if algorithm.is_pss() => {
            Mechanism::RsaPss { hash: Digest::Sha256, mgf: Digest::Sha256, salt: Hash::Sha256.size() }
        }
        Family::Rsa(_) => Mechanism::RsaPkcs,
        Family::Secret(Hash::Sha256) => Mechanism::Sha256Hmac,
        Family::Secret(Hash::Sha384) => Mechanism::Sha384Hmac,
        Family::Secret(Hash::Sha512) => Mechanism::Sha512Hmac,
        Family::Aes => Mechanism::AesGcm,
    }
}

/// The mechanism that makes such keys.
pub(super) const fn generator(algorithm: Algorithm) -> Mechanism {
    match family(algorithm) {
        Family::Ec(_) => Mechanism::EcKeyPairGen,
        Family::Edwards => Mechanism::EdwardsKeyPairGen,
        Family::MlDsa => Mechanism::MlDsaKeyPairGen,
        Family::MlKem => Mechanism::MlKemKeyPairGen,
        Family::Rsa(_) => Mechanism::RsaPkcsKeyPairGen,
        Family::Secret(_) => Mechanism::GenericSecretKeyGen,
        Family::Aes => Mechanism::AesKeyGen,
    }
}

/// `CKA_CLASS` of the part that stays in the token.
pub(super) const fn class(algorithm: Algorithm) -> ck::CK_ULONG {
    match family(algorithm) {
        Family::Ec(_) | Family::Edwards | Family::MlDsa | Family::MlKem | Family::Rsa(_) => ck::CKO_PRIVATE_KEY,
        Family::Secret(_) | Family::Aes => ck::CKO_SECRET_KEY,
    }
}

/// `CKA_KEY_TYPE`.
pub(super) const fn key_type(algorithm: Algorithm) -> ck::CK_ULONG {
    match family(algorithm) {
        Family::Ec(_) => ck::CKK_EC,
        Family::Edwards => ck::CKK_EC_EDWARDS,
        Family::MlDsa => ck::CKK_ML_DSA,
        Family::MlKem => ck::CKK_ML_KEM,
        Family::Rsa(_) => ck::CKK_RSA,
        // Not CKK_SHA256_HMAC and its sisters, which few tokens generate; the mechanism is fixed by CKA_ALLOWED_MECHANISMS.
        Family::Secret(_) => ck::CKK_GENERIC_SECRET,
        Family::Aes => ck::CKK_AES,
    }
}

/// Which key-encryption key wraps such keys.
pub(super) const fn kek_role(algorithm: Algorithm) -> KekRole {
    match algorithm.role() {
        Role::Sign => KekRole::Sign,
        Role::Mac => KekRole::Mac,
        Role::Agree => KekRole::Agree,
        Role::Decrypt => KekRole::Decrypt,
        Role::Decapsulate => KekRole::Decapsulate,
        Role::Cipher => KekRole::Cipher,
    }
}

/// The mechanism of a way to wrap. A token that means something else by its number opens only its own blobs; where tokens share a key,
/// each version shows in both what it is before it exists.
pub(super) const fn wrapping(wrapping: Wrapping) -> Mechanism {
    match wrapping {
        Wrapping::Pad => Mechanism::AesKeyWrapPad,
        Wrapping::Kwp => Mechanism::AesKeyWrapKwp,
    }
}

/// The one thing that keys under such a key-encryption key may do.
pub(super) const fn rights(role: KekRole) -> &'static [ck::CK_ATTRIBUTE_TYPE] {
    match role {
        KekRole::Sign | KekRole::Mac => &[ck::CKA_SIGN],
        KekRole::Agree => &[ck::CKA_DERIVE],
        KekRole::Decrypt => &[ck::CKA_DECRYPT],
        KekRole::Decapsulate => &[ck::CKA_DECAPSULATE],
        KekRole::Cipher => &[ck::CKA_ENCRYPT, ck::CKA_DECRYPT],
    }
}

/// What its public half may do.
pub(super) const fn public_right(algorithm: Algorithm) -> ck::CK_ATTRIBUTE_TYPE {
    match algorithm.role() {
        Role::Sign | Role::Mac | Role::Cipher => ck::CKA_VERIFY,
        Role::Agree => ck::CKA_DERIVE,
        Role::Decrypt => ck::CKA_ENCRYPT,
        Role::Decapsulate => ck::CKA_ENCAPSULATE,
    }
}

/// Has a key do its one thing.
pub(super) fn act(session: &Session, algorithm: Algorithm, key: Object, input: &[u8]) -> pkcs11_raw::Result<Vec<u8>> {
    match algorithm.role() {
        Role::Sign | Role::Mac => session.sign(mechanism(algorithm), key, input),
        Role::Decrypt => session.decrypt(mechanism(algorithm), key, input),
        Role::Agree => session.agree(key, input, &template::found(Agreed::SECRET)),
        Role::Decapsulate => {
            session.decapsulate(mechanism(algorithm), key, input, &template::found(Encapsulated::SECRET))
        }
        Role::Cipher => match CipherCall::parse(input) {
            Some((Direction::Encrypt, CipherCall { nonce, aad, data })) => session.seal(key, nonce, aad, data),
            Some((Direction::Decrypt, CipherCall { nonce, aad, data })) => session.open_sealed(key, nonce, aad, data),
            None => Err(pkcs11_raw::Error { function: "C_EncryptInit", code: ck::CKR_ARGUMENTS_BAD }),
        },
    }
}

/// What a key to be made must be told of its size: for the public half of a pair, or for a secret.
pub(super) fn size_attributes(algorithm: Algorithm) -> Vec<Attribute> {
    match family(algorithm) {
        Family::Ec(curve) => vec![Attribute::bytes(ck::CKA_EC_PARAMS, curve_oid(curve))],
        Family::Edwards => vec![Attribute::bytes(ck::CKA_EC_PARAMS, ED25519)],
        Family::MlDsa => vec![Attribute::number(ck::CKA_PARAMETER_SET, ck::CKP_ML_DSA_65)],
        Family::MlKem => vec![Attribute::number(ck::CKA_PARAMETER_SET, ck::CKP_ML_KEM_768)],
        Family::Rsa(bits) => vec![
            Attribute::number(ck::CKA_MODULUS_BITS, bits.into()),
            Attribute::bytes(ck::CKA_PUBLIC_EXPONENT, &PUBLIC_EXPONENT),
        ],
        Family::Secret(hash) => vec![Attribute::number(ck::CKA_VALUE_LEN, hash.size() as ck::CK_ULONG)],
        Family::Aes => vec![Attribute::number(ck::CKA_VALUE_LEN, AES_BYTES)],
    }
}

const fn curve_oid(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::P256 => P256,
        Curve::P384 => P384,
        Curve::P521 => P521,
    }
}

/// The attribute of the private part that shows curve or size.
pub(super) const fn strength_attribute(algorithm: Algorithm) -> ck::CK_ATTRIBUTE_TYPE {
    match family(algorithm) {
        Family::Ec(_) | Family::Edwards => ck::CKA_EC_PARAMS,
        Family::MlDsa | Family::MlKem => ck::CKA_PARAMETER_SET,
        Family::Rsa(_) => ck::CKA_MODULUS,
        Family::Secret(_) | Family::Aes => ck::CKA_VALUE_LEN,
    }
}

/// Whether that attribute has the right value.
pub(super) fn is_strong(algorithm: Algorithm, value: &[u8]) -> bool {
    match family(algorithm) {
        Family::Ec(curve) => value == curve_oid(curve),
        Family::Edwards => value == ED25519 || value == ED25519_NAME,
        Family::MlDsa => Attribute::number(ck::CKA_PARAMETER_SET, ck::CKP_ML_DSA_65).agrees(value),
        Family::MlKem => Attribute::number(ck::CKA_PARAMETER_SET, ck::CKP_ML_KEM_768).agrees(value),
        Family::Rsa(bits) => unsigned(value).len() * 8 == bits as usize,
        Family::Secret(hash) => Attribute::number(ck::CKA_VALUE_LEN, hash.size() as ck::CK_ULONG).agrees(value),
        Family::Aes => Attribute::number(ck::CKA_VALUE_LEN, AES_BYTES).agrees(value),
    }
}

/// A big integer without leading zeros, which the standard does not want and some tokens write.
fn unsigned(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// What is handed to `C_Sign` for `input`, after its length was checked: tokens sign digests of any length.
pub(super) fn sign_input(algorithm: Algorithm, input: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    if algorithm.purpose() != Purpose::Sign {
        return Err(Fault::new(Class::Refused, format!("{algorithm} makes no signatures")));
    }
    if let Some(hash) = algorithm.hash()
        && input.len() != hash.size()
    {
        let text = format!("{algorithm} signs a {hash} digest of {} bytes, not {}", hash.size(), input.len());
        return Err(Fault::new(Class::Refused, text));
    }
    match mechanism(algorithm) {
        Mechanism::RsaPkcs => Ok([DIGEST_INFO_SHA256.as_slice(), input].concat().into()),
        Mechanism::Ecdsa | Mechanism::Eddsa | Mechanism::MlDsa | Mechanism::RsaPss { .. } => Ok(input.into()),
        Mechanism::EcKeyPairGen
        | Mechanism::EdwardsKeyPairGen
        | Mechanism::MlDsaKeyPairGen
        | Mechanism::MlKemKeyPairGen
        | Mechanism::MlKem
        | Mechanism::RsaPkcsKeyPairGen
        | Mechanism::GenericSecretKeyGen
        | Mechanism::AesKeyGen
        | Mechanism::Ecdh1Derive
        | Mechanism::AesGcm
        | Mechanism::RsaOaep { .. }
        | Mechanism::AesKeyWrapPad
        | Mechanism::AesKeyWrapKwp
        | Mechanism::Other(_)
        | Mechanism::Sha256Hmac
        | Mechanism::Sha384Hmac
        | Mechanism::Sha512Hmac => Err(Fault::new(Class::Internal, format!("{algorithm} has no signature mechanism"))),
    }
}

/// Reads the public half of a pair.
pub(super) fn public_key(session: &Session, object: Object, algorithm: Algorithm) -> Result<Option<PublicKey>, Fault> {
    let read = |kinds: &[ck::CK_ATTRIBUTE_TYPE]| {
        session.attributes(object, kinds).map_err(|error| codes::fault(error, Effect::Idle))
    };
    let key = match family(algorithm) {
        Family::Ec(curve) => {
            let values = read(&[ck::CKA_EC_POINT])?;
            point(first(&values), 1 + 2 * curve.size()).map(|point| PublicKey::ec(curve, point))
        }
        Family::Edwards => {
            let values = read(&[ck::CKA_EC_POINT])?;
            point(first(&values), 32).map(PublicKey::ed25519)
        }
        Family::MlDsa => read(&[ck::CKA_VALUE])?.first().and_then(Option::as_deref).map(PublicKey::ml_dsa_65),
        Family::MlKem => read(&[ck::CKA_VALUE])?.first().and_then(Option::as_deref).map(PublicKey::ml_kem_768),
        Family::Rsa(_) => match read(&[ck::CKA_MODULUS, ck::CKA_PUBLIC_EXPONENT])?.as_slice() {
            [Some(modulus), Some(exponent)] => Some(PublicKey::rsa(unsigned(modulus), unsigned(exponent))),
            _ => None,
        },
        Family::Secret(_) | Family::Aes => return Ok(None),
    };
    match key {
        Some(Ok(key)) => Ok(Some(key)),
        Some(Err(_)) | None => {
            Err(Fault::new(Class::Internal, format!("the token shows no public key of {algorithm} in a known form")))
        }
    }
}

fn first(values: &[Option<Vec<u8>>]) -> &[u8] {
    values.first().and_then(Option::as_deref).unwrap_or_default()
}

/// The point in `CKA_EC_POINT`. The standard wants a DER OCTET STRING around it; for Edwards keys versions and tokens differ,
/// and some show the bare point. The length tells which: no DER form is as long as its content.
fn point(value: &[u8], size: usize) -> Option<&[u8]> {
    if value.len() == size {
        return Some(value);
    }
    <&OctetStringRef>::from_der(value).ok().map(OctetStringRef::as_bytes).filter(|point| point.len() == size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_bare_and_wrapped() {
        let bare = [7; 32];
        let wrapped = [&[4, 32], bare.as_slice()].concat();
        assert_eq!(point(&bare, 32), Some(bare.as_slice()));
        assert_eq!(point(&wrapped, 32), Some(bare.as_slice()));
        assert_eq!(point(&wrapped, 65), None);
        assert_eq!(point(&[], 32), None);
    }

    #[test]
    fn only_one_parameter_set_is_right() {
        for (algorithm, set) in [(Algorithm::MlDsa65, ck::CKP_ML_DSA_65), (Algorithm::MlKem768, ck::CKP_ML_KEM_768)] {
            for number in 0..4_u64 {
                assert_eq!(is_strong(algorithm, &number.to_ne_bytes()), number == set, "{algorithm} {number}");
            }
            assert!(!is_strong(algorithm, &[]) && !is_strong(algorithm, &[2]), "{algorithm}");
        }
    }

    #[test]
    fn only_digests_of_the_right_length_are_signed() {
        for wrong in [0, 31, 33, 48, 1000] {
            let fault = sign_input(Algorithm::EcdsaP256, &vec![0; wrong]).unwrap_err();
            assert_eq!(fault.class, Class::Refused);
        }
        assert_eq!(sign_input(Algorithm::Rsa2048Pkcs1, &[0; 32]).unwrap().len(), 51);
        assert_eq!(sign_input(Algorithm::Ed25519, &[0; 1000]).unwrap().len(), 1000);
        assert_eq!(sign_input(Algorithm::MlDsa65, &[0; 1000]).unwrap().len(), 1000);
        for none in [Algorithm::HmacSha256, Algorithm::MlKem768] {
            assert_eq!(sign_input(none, &[0; 32]).unwrap_err().class, Class::Refused, "{none}");
        }
    }
}
