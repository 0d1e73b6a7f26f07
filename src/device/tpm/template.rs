//! What our keys look like inside the TPM: one template per algorithm, and nothing that differs from it.
//!
//! Each key is fixed to its TPM and its parent, its secret was drawn in the TPM, it is used with an authorisation value
//! of its own, it does one thing by one scheme with one hash, and it has `noDA`. Without `noDA` each boot after an
//! unclean stop counts as a wrong password, and three of them lock all keys with right passwords.
//!
//! A key that is bound to registers of the machine has a policy, and no `userWithAuth`: the TPM uses it by that policy alone. Without
//! `adminWithPolicy` it is certified by its authorisation value, also while the machine is another one.

use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Digest, EccPoint, EccScheme, HashScheme, HmacScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Public,
    PublicBuilder, PublicEccParameters, PublicKeyRsa, PublicKeyedHashParameters, PublicParameters, PublicRsaParameters,
    RsaExponent, RsaScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::codes::{Trouble, during};
use crate::device::{Class, Fault};
use crate::types::{Algorithm, Curve, Hash, PcrValues, PublicKey, Role, sha256};

/// The exponent of each RSA key here; the TPM writes 0 for it.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// The storage key: P-256, protecting its children by AES-256. The usual storage key protects them by AES-128.
pub(super) fn storage() -> Result<Public, Trouble> {
    storage_by(SymmetricDefinitionObject::AES_256_CFB)
}

/// The usual storage key, below which files of keys stand: every program makes the same one
/// ([TPM 2.0 Key Files, 3.1.8](https://www.hansenpartnership.com/draft-bottomley-tpm2-keys.html#section-3.1.8)).
pub(super) fn usual_storage() -> Result<Public, Trouble> {
    storage_by(SymmetricDefinitionObject::AES_128_CFB)
}

fn storage_by(cipher: SymmetricDefinitionObject) -> Result<Public, Trouble> {
    let parameters =
        PublicEccParameters::new(cipher, EccScheme::Null, EccCurve::NistP256, KeyDerivationFunctionScheme::Null);
    build(
        PublicParameters::Ecc(parameters),
        attributes(|all| all.with_restricted(true).with_decrypt(true), None)?,
        None,
    )
}

/// The template of a key for a file: ECDSA with the hash that the program chooses, or why there is none.
pub(super) fn file_key(algorithm: Algorithm) -> Result<Public, Trouble> {
    build(file_parameters(algorithm)?, attributes(|all| all.with_sign_encrypt(true), None)?, None)
}

/// What the TPM is to make for a file.
pub(super) fn file_parameters(algorithm: Algorithm) -> Result<PublicParameters, Fault> {
    let curve = algorithm.curve().ok_or_else(no_edwards)?;
    Ok(PublicParameters::Ecc(PublicEccParameters::new(
        SymmetricDefinitionObject::Null,
        EccScheme::Null,
        curve_of(curve),
        KeyDerivationFunctionScheme::Null,
    )))
}

/// The template of a key, perhaps bound to the values of registers, or why a TPM has none.
pub(super) fn key(algorithm: Algorithm, pcrs: Option<&PcrValues>) -> Result<Public, Trouble> {
    let role = |all: ObjectAttributesBuilder| match algorithm.role() {
        Role::Sign | Role::Mac | Role::Cipher => all.with_sign_encrypt(true),
        Role::Agree | Role::Decrypt | Role::Decapsulate => all.with_decrypt(true),
    };
    build(parameters(algorithm)?, attributes(role, pcrs)?, pcrs)
}

/// The template of the attestation key: "restricted", so that it signs nothing but what the TPM itself says.
pub(super) fn attestation_key() -> Result<Public, Trouble> {
    let attributes = attributes(|all| all.with_restricted(true).with_sign_encrypt(true), None)?;
    build(parameters(Algorithm::EcdsaP256)?, attributes, None)
}

/// What the TPM is to make, or why it cannot.
pub(super) fn parameters(algorithm: Algorithm) -> Result<PublicParameters, Fault> {
    if algorithm.role() == Role::Cipher {
        return Err(no_gcm());
    }
    if algorithm.role() == Role::Decapsulate {
        return Err(no_kem());
    }
    if algorithm == Algorithm::MlDsa65 {
        return Err(
            no_lattices("ML-DSA").hint("use ecdsa-p256-sha256, or keep this key in a PKCS#11 device that has it")
        );
    }
    let hash = algorithm.hash().map(hash_of).ok_or_else(no_edwards)?;
    if let Some(curve) = algorithm.curve() {
        return Ok(PublicParameters::Ecc(PublicEccParameters::new(
            SymmetricDefinitionObject::Null,
            match algorithm.role() {
                Role::Sign | Role::Mac | Role::Cipher => EccScheme::EcDsa(HashScheme::new(hash)),
                Role::Agree | Role::Decrypt | Role::Decapsulate => EccScheme::EcDh(HashScheme::new(hash)),
            },
            curve_of(curve),
            KeyDerivationFunctionScheme::Null,
        )));
    }
    if let Some(bits) = algorithm.rsa_bits() {
        let scheme = HashScheme::new(hash);
        let scheme = match algorithm.role() {
            Role::Decrypt => RsaScheme::Oaep(scheme),
            Role::Sign | Role::Mac | Role::Agree | Role::Decapsulate | Role::Cipher if algorithm.is_pss() => {
                RsaScheme::RsaPss(scheme)
            }
            Role::Sign | Role::Mac | Role::Agree | Role::Decapsulate | Role::Cipher => RsaScheme::RsaSsa(scheme),
        };
        return Ok(PublicParameters::Rsa(PublicRsaParameters::new(
            SymmetricDefinitionObject::Null,
            scheme,
            modulus_of(bits)?,
            RsaExponent::ZERO_EXPONENT,
        )));
    }
    let hmac_scheme = HmacScheme::new(hash);
    Ok(PublicParameters::KeyedHash(PublicKeyedHashParameters::new(KeyedHashScheme::Hmac { hmac_scheme })))
}

/// Of symmetric ciphers the commands of a TPM know the modes that authenticate nothing.
pub(super) fn no_gcm() -> Fault {
    Fault::new(Class::Unsupported, "a TPM 2.0 has no AES-GCM")
        .hint("use aes256-gcm-derived, or keep this key in a PKCS#11 device")
}

/// Why there is no ML-KEM.
pub(super) fn no_kem() -> Fault {
    no_lattices("ML-KEM").hint("use hpke-p256, or keep this key in a PKCS#11 device that has it")
}

/// Version 1.85 of the standard has ML-DSA and ML-KEM; the commands that this driver is built on are older.
fn no_lattices(what: &str) -> Fault {
    Fault::new(Class::Unsupported, format!("this driver knows no TPM that has {what}"))
}

fn no_edwards() -> Fault {
    Fault::new(Class::Unsupported, "a TPM 2.0 has no Edwards curves, hence no Ed25519")
        .hint("use ecdsa-p256-sha256, or keep this key in a PKCS#11 device")
}

/// The hash by the name the wrapper crate has for it.
pub(super) const fn hash_of(hash: Hash) -> HashingAlgorithm {
    match hash {
        Hash::Sha256 => HashingAlgorithm::Sha256,
        Hash::Sha384 => HashingAlgorithm::Sha384,
        Hash::Sha512 => HashingAlgorithm::Sha512,
    }
}

const fn curve_of(curve: Curve) -> EccCurve {
    match curve {
        Curve::P256 => EccCurve::NistP256,
        Curve::P384 => EccCurve::NistP384,
        Curve::P521 => EccCurve::NistP521,
    }
}

fn modulus_of(bits: u32) -> Result<RsaKeyBits, Fault> {
    let bits = u16::try_from(bits).ok().and_then(|bits| RsaKeyBits::try_from(bits).ok());
    bits.ok_or_else(|| Fault::new(Class::Unsupported, "a TPM has no RSA keys of that size"))
}

fn attributes(
    role: impl FnOnce(ObjectAttributesBuilder) -> ObjectAttributesBuilder,
    pcrs: Option<&PcrValues>,
) -> Result<ObjectAttributes, Trouble> {
    let all = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(pcrs.is_none())
        .with_no_da(true);
    role(all).build().map_err(during("attributes"))
}

fn build(
    parameters: PublicParameters,
    attributes: ObjectAttributes,
    pcrs: Option<&PcrValues>,
) -> Result<Public, Trouble> {
    let policy = pcrs.map(|pcrs| pcrs.policy().to_vec()).unwrap_or_default();
    let area = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(Digest::try_from(policy).map_err(during("template"))?);
    let area = match parameters {
        PublicParameters::Ecc(ecc) => area
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(ecc)
            .with_ecc_unique_identifier(EccPoint::default()),
        PublicParameters::Rsa(rsa) => area
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(rsa)
            .with_rsa_unique_identifier(PublicKeyRsa::default()),
        PublicParameters::KeyedHash(hmac) => area
            .with_public_algorithm(PublicAlgorithm::KeyedHash)
            .with_keyed_hash_parameters(hmac)
            .with_keyed_hash_unique_identifier(Digest::default()),
        PublicParameters::SymCipher(_) => {
            return Err(Fault::new(Class::Internal, "no key of ours is a cipher key").into());
        }
    };
    area.build().map_err(during("template"))
}

/// Compares all of a public area but the key itself with its template.
pub(super) fn check(algorithm: Algorithm, template: &Public, public: &Public) -> Result<(), Trouble> {
    if blank(public.clone()).as_ref() == Some(template) {
        return Ok(());
    }
    Err(damaged(format!("the key is not made as {algorithm} demands")).into())
}

/// A public area without the part that differs from key to key.
pub(super) fn blank(mut public: Public) -> Option<Public> {
    match &mut public {
        Public::Ecc { unique, .. } => *unique = EccPoint::default(),
        Public::Rsa { unique, .. } => *unique = PublicKeyRsa::default(),
        Public::KeyedHash { unique, .. } => *unique = Digest::default(),
        Public::SymCipher { .. } => return None,
    }
    Some(public)
}

fn damaged(text: impl Into<String>) -> Fault {
    Fault::new(Class::KeyDamaged, text).hint("restore the key's record from a backup")
}

/// The Name of an object: its name algorithm and the hash of its public area. We use SHA-256 alone.
pub(super) fn name(public: &Public) -> Result<Vec<u8>, Trouble> {
    const SHA256_ID: [u8; 2] = [0x00, 0x0b];
    let area = public.marshall().map_err(during("TPMT_PUBLIC"))?;
    Ok([SHA256_ID.as_slice(), &sha256(&[&area])].concat())
}

/// The public half in the house's own form; `None` for a MAC key.
pub(super) fn public_key(algorithm: Algorithm, public: &Public) -> Result<Option<PublicKey>, Trouble> {
    let key = match public {
        Public::Ecc { unique, .. } => {
            let curve = algorithm.curve().ok_or_else(|| damaged("an elliptic curve key was made"))?;
            let mut point = vec![4];
            point.extend(padded(unique.x().value(), curve.size())?);
            point.extend(padded(unique.y().value(), curve.size())?);
            PublicKey::ec(curve, &point)
        }
        Public::Rsa { unique, .. } => PublicKey::rsa(unique.value(), &RSA_EXPONENT),
        Public::KeyedHash { .. } => return Ok(None),
        Public::SymCipher { .. } => return Err(damaged("a cipher key was made").into()),
    };
    key.map(Some).map_err(|error| damaged(error.chain()).into())
}

/// A number on the left of which some TPMs leave out the zeros.
pub(super) fn padded(number: &[u8], size: usize) -> Result<Vec<u8>, Fault> {
    let missing = size.checked_sub(number.len());
    let missing = missing.ok_or_else(|| Fault::new(Class::KeyDamaged, "the TPM gave a number that is too long"))?;
    Ok([vec![0; missing].as_slice(), number].concat())
}

/// A TPM2B: two bytes of length, then the bytes. Files of `tpm2_create` have this form too.
pub(super) fn sized(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let length = u16::try_from(bytes.len()).map_err(|_| Fault::new(Class::Internal, "the blob is too long"))?;
    Ok([length.to_be_bytes().as_slice(), bytes].concat())
}

/// The bytes of a TPM2B that ends where it says.
pub(super) fn unsized_bytes(blob: &[u8]) -> Result<&[u8], Fault> {
    let (length, bytes) = blob.split_first_chunk().ok_or_else(|| damaged("the key's blob is too short"))?;
    if usize::from(u16::from_be_bytes(*length)) != bytes.len() {
        return Err(damaged("the key's blob has another length than it says"));
    }
    Ok(bytes)
}

/// Reads a TPM2B_PUBLIC that is written as the TPM itself would write it.
pub(super) fn read_public(blob: &[u8]) -> Result<Public, Fault> {
    let area = unsized_bytes(blob)?;
    let public = Public::unmarshall(area).map_err(|_| damaged("the key's public area cannot be read"))?;
    let same = public.marshall().is_ok_and(|again| again == area);
    if same { Ok(public) } else { Err(damaged("the key's public area has bytes that do not belong there")) }
}

/// Writes a TPM2B_PUBLIC.
pub(super) fn write_public(public: &Public) -> Result<Vec<u8>, Trouble> {
    Ok(sized(&public.marshall().map_err(during("TPMT_PUBLIC"))?)?)
}
