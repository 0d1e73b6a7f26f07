//! Keys of a TPM in files that other programs read: OpenSSL's `tpm2` provider, and what is built on it.
//!
//! ```text
//! -----BEGIN TSS2 PRIVATE KEY-----
//! TPMKey ::= SEQUENCE {
//!     type       OBJECT IDENTIFIER   2.23.133.10.1.3, a key to be loaded
//!     emptyAuth  [0] BOOLEAN         TRUE
//!     parent     INTEGER             0x40000001, the owner's hierarchy: its storage key is made by a template that all know
//!     pubkey     OCTET STRING        TPM2B_PUBLIC
//!     privkey    OCTET STRING        TPM2B_PRIVATE, which only this TPM opens
//! }
//! ```
//!
//! That is [ASN.1 Specification for TPM 2.0 Key Files](https://www.hansenpartnership.com/draft-bottomley-tpm2-keys.html), 3. The
//! service itself keeps no keys so: its own have an authorisation value and a stronger parent (see [`super::template`]).
//!
//! **Promises.** The key is made in the TPM and leaves it only wrapped; it signs digests of any hash, because a TLS stack chooses, and
//! does nothing else. Each signature is checked before it is given out.
//!
//! **Limits.** Whoever reads the file *and* may use this TPM can use the key. Calls block, with no limit of time.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use der::asn1::{ObjectIdentifier, OctetString};
use der::pem::{LineEnding, decode_vec, encode_string};
use der::{Decode, Encode, Sequence};
use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, HashScheme, Signature, SignatureScheme};

use super::codes::{Trouble, during};
use super::tcti::Address;
use super::{engine, link, template};
use crate::device::{Class, Fault};
use crate::types::{Algorithm, Hash, PublicKey, SignatureFormat, Verifier};

/// What stands above and below the base64.
pub const LABEL: &str = "TSS2 PRIVATE KEY";
const LOADABLE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");
const OWNER: u32 = 0x4000_0001;

#[derive(Sequence)]
struct TpmKey {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    empty_auth: Option<bool>,
    parent: u32,
    public: OctetString,
    private: OctetString,
}

/// That this can be the address of a TPM.
///
/// # Errors
/// [`Class::Config`] with the mend.
pub fn check(tcti: &str) -> Result<(), Fault> {
    Address::new(tcti).map(drop)
}

/// The public key of such a file, for which no TPM is asked.
///
/// # Errors
/// [`Class::KeyDamaged`] for anything else.
pub fn public_key(pem: &str) -> Result<PublicKey, Fault> {
    let broken = || Fault::new(Class::KeyDamaged, "this is no file with a key of a TPM that can be read");
    let (_, der) =
        decode_vec(pem.trim_ascii_start().as_bytes()).ok().filter(|(label, _)| *label == LABEL).ok_or_else(broken)?;
    let key = TpmKey::from_der(&der).ok().filter(|key| key.kind == LOADABLE).ok_or_else(broken)?;
    let area = template::read_public(key.public.as_bytes())?;
    let algorithm = [Algorithm::EcdsaP256, Algorithm::EcdsaP384].into_iter().find(|one| fits(*one, &area));
    let public = template::public_key(algorithm.ok_or_else(broken)?, &area).map_err(Trouble::fault)?;
    public.ok_or_else(broken)
}

/// Whether a public area is one that is made here.
fn fits(algorithm: Algorithm, area: &tss_esapi::structures::Public) -> bool {
    template::file_key(algorithm).is_ok_and(|wanted| template::blank(area.clone()) == Some(wanted))
}

/// A key that was made just now and is in the TPM until it is dropped.
pub struct MadeKey {
    algorithm: Algorithm,
    hash: Hash,
    public: PublicKey,
    point: Vec<u8>,
    pem: String,
    /// Held for one command.
    loaded: Mutex<Loaded>,
}

struct Loaded {
    context: Context,
    handle: KeyHandle,
}

impl MadeKey {
    /// Makes a key in the TPM at `tcti`: ECDSA on P-256 or P-384.
    ///
    /// # Errors
    /// [`Class::Config`] for a malformed address and a hierarchy with a password, [`Class::DeviceGone`] where no TPM answers,
    /// [`Class::Unsupported`] for what this TPM does not make, and the general ones.
    pub fn make(tcti: &str, algorithm: Algorithm) -> Result<Self, Fault> {
        let address = Address::new(tcti)?;
        Self::make_at(&address, algorithm).map_err(Trouble::fault)
    }

    fn make_at(address: &Address, algorithm: Algorithm) -> Result<Self, Trouble> {
        let internal = |text: &'static str| Fault::new(Class::Internal, text);
        let (area, hash) = (template::file_key(algorithm)?, algorithm.hash().ok_or_else(|| internal("no hash"))?);
        let mut context = Context::new(address.conf()).map_err(during("connecting"))?;
        let parameters = template::file_parameters(algorithm)?;
        if context.execute_without_session(|context| context.test_parms(parameters)).is_err() {
            let text = format!("this TPM makes no keys of {algorithm}");
            return Err(Fault::new(Class::Unsupported, text).hint("take ecdsa-p256, which each TPM 2.0 has").into());
        }
        let storage = link::derive(&mut context, template::usual_storage()?)?.key_handle;
        let made = context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.create(storage, area.clone(), None, None, None, None)
            })
            .map_err(during("TPM2_Create"))?;
        if !fits(algorithm, &made.out_public) {
            return Err(Fault::new(Class::KeyDamaged, "the TPM made another key than the one asked for").into());
        }
        let blobs = (template::write_public(&made.out_public)?, template::sized(made.out_private.value())?);
        let public = template::public_key(algorithm, &made.out_public)?.ok_or_else(|| internal("no public half"))?;
        let handle = context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.load(storage, made.out_private, made.out_public)
            })
            .map_err(during("TPM2_Load"))?;
        link::flush(&mut context, storage.into())?;
        let pem = written(blobs.0, blobs.1).map_err(|_| internal("a key's file cannot be written"))?;
        let point = public.raw().map_err(|e| Fault::new(Class::Internal, e.chain()))?;
        Ok(Self { algorithm, hash, public, point, pem, loaded: Mutex::new(Loaded { context, handle }) })
    }

    /// What is stored.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The public half as a point: `04 || X || Y`.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// Signs a message. Answers ECDSA's DER.
    ///
    /// # Errors
    /// The general classes; [`Class::Internal`] for a signature that does not hold.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let digest = self.hash.digest(message);
        let raw = self.signed(&digest).map_err(Trouble::fault)?;
        let good = Verifier::new(self.algorithm, &self.public).is_ok_and(|one| one.verifies_digest(&digest, &raw));
        if !good {
            return Err(Fault::new(Class::Internal, "the TPM gave a signature that does not hold"));
        }
        SignatureFormat::Der.encode(self.algorithm, &raw).map_err(|e| Fault::new(Class::Internal, e.chain()))
    }

    fn signed(&self, digest: &[u8]) -> Result<Vec<u8>, Trouble> {
        let input = Digest::try_from(digest).map_err(during("TPM2_Sign"))?;
        let hash_scheme = HashScheme::new(template::hash_of(self.hash));
        let (scheme, ticket) = (SignatureScheme::EcDsa { hash_scheme }, engine::no_ticket()?);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { context, handle } = &mut *loaded;
        let handle = *handle;
        let signature: Signature = context
            .execute_with_session(Some(AuthSession::Password), |context| context.sign(handle, input, scheme, ticket))
            .map_err(during("TPM2_Sign"))?;
        engine::raw(self.algorithm, self.hash, &signature)
    }
}

impl Drop for MadeKey {
    /// The TPM has few places, and a software TPM keeps what nobody takes out.
    fn drop(&mut self) {
        let Loaded { context, handle } = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = link::flush(context, (*handle).into());
    }
}

impl fmt::Debug for MadeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

fn written(public: Vec<u8>, private: Vec<u8>) -> der::Result<String> {
    let key = TpmKey {
        kind: LOADABLE,
        empty_auth: Some(true),
        parent: OWNER,
        public: OctetString::new(public)?,
        private: OctetString::new(private)?,
    };
    Ok(encode_string(LABEL, LineEnding::LF, &key.to_der()?)?)
}
