//! What this TPM is and can do, by asking it.
//!
//! Elliptic curves and HMACs are tried: a key is made, loaded and used. RSA keys take a hardware TPM many seconds to
//! make, so for them its word is taken (TPM2_TestParms); the first real key is probed by whoever makes it.

use tss_esapi::constants::PropertyTag;

use super::codes::Trouble;
use super::engine::{self, MAX_MAC_INPUT};
use super::link::Link;
use super::template;
use crate::device::{Ability, Class, Description, Fault, KeyRef, timed};
use crate::types::{Agreed, Algorithm, KeyId, Residency, Role, Version, same};

/// Why there is no other residency.
pub(super) const NOTHING_RESIDENT: &str =
    "a TPM keeps no keys of ours in itself: each is a blob that only it can open, residency `wrapped`";

/// Asks the TPM everything.
pub(super) fn describe(link: &mut Link) -> Result<Description, Trouble> {
    let manufacturer = text(link, &[PropertyTag::Manufacturer])?;
    let model = text(
        link,
        &[
            PropertyTag::VendorString1,
            PropertyTag::VendorString2,
            PropertyTag::VendorString3,
            PropertyTag::VendorString4,
        ],
    )?;
    let version = version(link)?;
    let mut abilities = Vec::new();
    for &algorithm in Algorithm::ALL {
        for residency in Residency::ALONE {
            let found = if residency == Residency::Resident {
                Err((NOTHING_RESIDENT.to_owned(), None))
            } else {
                tried(link, algorithm)?
            };
            let (refusal, code, micros) = match found {
                Ok(micros) => (None, None, micros),
                Err((refusal, code)) => (Some(refusal), code, None),
            };
            abilities.push(Ability { algorithm, residency, refusal, code, micros });
        }
    }
    Ok(Description { manufacturer, model, version, max_mac_input: MAX_MAC_INPUT, abilities })
}

/// Why there are no such keys, and the code of the TPM where it is the TPM that says so.
type Refusal = (String, Option<String>);

/// Why the TPM takes no keys of `algorithm`, by its own word.
pub(super) fn refusal(link: &mut Link, algorithm: Algorithm) -> Result<Option<Refusal>, Trouble> {
    let parameters = match template::parameters(algorithm) {
        Ok(parameters) => parameters,
        Err(Fault { class: Class::Unsupported, text, .. }) => return Ok(Some((text, None))),
        Err(fault) => return Err(fault.into()),
    };
    Ok(answer(algorithm, link.takes(parameters))?.err())
}

/// As [`refusal`], and by a real key where that is cheap: how long one use took, in microseconds, where there was one.
fn tried(link: &mut Link, algorithm: Algorithm) -> Result<Result<Option<u64>, Refusal>, Trouble> {
    if let Some(refusal) = refusal(link, algorithm)? {
        return Ok(Err(refusal));
    }
    if algorithm.rsa_bits().is_some() {
        return Ok(Ok(None));
    }
    let id = KeyId::random().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
    let tried = try_one(link, id, algorithm);
    answer(algorithm, tried)
}

fn try_one(link: &mut Link, id: KeyId, algorithm: Algorithm) -> Result<Option<u64>, Trouble> {
    let version = Version::FIRST;
    let Some(hash) = algorithm.hash() else { return Ok(None) };
    let made = link.create(id, version, algorithm, None)?;
    let key = KeyRef { id, version, algorithm, locator: made.locator };
    let time = match algorithm.role() {
        Role::Sign => timed(|| engine::sign(link, &key, hash, &hash.digest(b"signet")))?.1,
        Role::Mac => timed(|| engine::mac(link, &key, hash, b"signet"))?.1,
        // As all RSA, it is not tried; and no TPM decapsulates, or makes ciphers of ours.
        Role::Decrypt | Role::Decapsulate | Role::Cipher => None,
        Role::Agree => {
            let internal = |why: String| Fault::new(Class::Internal, why);
            let public = made.public.ok_or_else(|| internal("a pair without a public half".to_owned()))?;
            let known = Agreed::with(&public).map_err(|error| internal(error.chain()))?;
            let (secret, time) = timed(|| engine::agree(link, &key, &known.point))?;
            if !same(&secret, known.secret.expose()) {
                return Err(internal(format!("this TPM agrees on wrong secrets by {algorithm}")).into());
            }
            time
        }
    };
    link.forget(id, version)?;
    Ok(time)
}

/// A refusal of the TPM is an answer, any other failure is none.
fn answer<T>(algorithm: Algorithm, tried: Result<T, Trouble>) -> Result<Result<T, Refusal>, Trouble> {
    match tried {
        Ok(found) => Ok(Ok(found)),
        Err(trouble) if trouble.is_refusal() => {
            Ok(Err((format!("this TPM makes no keys of {algorithm}"), trouble.fault().code)))
        }
        Err(trouble) => Err(trouble),
    }
}

/// Four letters per property, as the TPM packs them.
fn text(link: &mut Link, tags: &[PropertyTag]) -> Result<String, Trouble> {
    let mut text = String::new();
    for &tag in tags {
        let letters = link.property(tag)?.unwrap_or_default().to_be_bytes();
        text.extend(
            letters.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ').map(|&byte| char::from(byte)),
        );
    }
    Ok(text.trim().to_owned())
}

/// The two words of the firmware's version, each written as two numbers.
fn version(link: &mut Link) -> Result<String, Trouble> {
    let first = link.property(PropertyTag::FirmwareVersion1)?.unwrap_or_default();
    let second = link.property(PropertyTag::FirmwareVersion2)?.unwrap_or_default();
    Ok(format!("{}.{}.{}.{}", first >> 16, first & 0xffff, second >> 16, second & 0xffff))
}
