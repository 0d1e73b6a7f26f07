//! Signing and message authentication codes: what a key may sign, by which version, and in which form it leaves.
//!
//! Each signature is verified against the stored public key before it is released, each code after the key has proved that
//! it is itself: a device that lies costs an error, never a wrong answer.

pub mod domain;

use std::sync::Arc;

use crate::admission::Permit;
use crate::error::{Error, Kind, Result};
use crate::keyring::{Key, KeyVersion, Keyring, demand};
use crate::types::operation::{Builds, Includes, Mac, Operation, Sign, Structure, Verify, VerifyMac};
use crate::types::{
    Algorithm, Domain, Hash, KeyName, Purpose, SecretBytes, SignatureFormat, State, Verified, Version, blocking, same,
};

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// The longest structure that goes to a device whole, in bytes: it must fit into a frame.
pub const MAX_STRUCTURE: usize = 512 * 1024;
/// From how many signatures on they are verified off the request threads.
const MANY: usize = 16;

/// Signs with the keys of a keyring.
#[derive(Debug)]
pub struct Signing {
    keyring: Arc<Keyring>,
}

/// What is to be signed or was.
#[derive(Clone, Debug)]
pub enum Input {
    /// The message.
    Message(Vec<u8>),
    /// A digest that the caller made, and of which hash it says it is.
    Digest(Hash, Vec<u8>),
}

/// Raw signatures or codes, all by one version.
#[derive(Debug)]
pub struct Results {
    /// The key.
    pub key: Arc<Key>,
    /// The version.
    pub version: Arc<KeyVersion>,
    /// One per item, in order.
    pub results: Vec<Result<Vec<u8>>>,
}

/// The outcome of a verification.
#[derive(Debug)]
pub struct Verdict {
    /// The key.
    pub key: Arc<Key>,
    /// The version that was asked.
    pub version: Version,
    /// Its state: a compromised one proves nothing.
    pub state: State,
    /// Whether the signature or code is one of that version.
    pub valid: bool,
}

impl Signing {
    /// Signs with the keys of `keyring`.
    #[must_use]
    pub const fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// Signs each item with the version of `name` that protects now. Signatures are raw: see [`format`].
    ///
    /// # Errors
    /// For all: `State` where no version may sign. Per item: `Invalid` for what the key's domain does not allow, `Tampered`
    /// for a signature that does not verify, and those of the device.
    pub async fn sign<O: Operation + Includes<Sign>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        items: Vec<Input>,
    ) -> Result<Results> {
        permit.covers::<Sign>(name)?;
        let key = self.keyring.find(name)?;
        demand(&key, Purpose::Sign)?;
        let prepared: Vec<_> = items.into_iter().map(|item| prepare(&key, item)).collect();
        let bytes = prepared.iter().flatten().map(Vec::len).sum();
        let (key, version) = self.keyring.primary(name, prepared.len(), bytes).await?;
        let signed = sign_prepared(&version, prepared).await?;
        let results = signed.into_iter().map(|one| one.map(Verified::into_signature)).collect();
        Ok(Results { key, version, results })
    }

    /// Signs each of `bodies`, which the service built, with that very version of an issuer's key. Which versions may is said by
    /// the operation: see [`Structure`].
    ///
    /// # Errors
    /// For all: `State` for a version that may not sign this, [`Kind::Internal`] for a key of another domain. Per item:
    /// `Limit` for a body that is too long for a device, `Tampered` for a signature that does not verify, and those of the
    /// device.
    pub async fn sign_structures<O: Builds>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        version: Version,
        bodies: Vec<Vec<u8>>,
    ) -> Result<Vec<Result<Verified>>> {
        permit.covers::<O>(name)?;
        let key = self.keyring.find(name)?;
        if key.record.domain != Some(Domain::X509) {
            return Err(Error::internal(format!("{name} is no key of an issuer")));
        }
        let version = key.version(version)?.clone();
        may_build(O::STRUCTURE, &version)?;
        let algorithm = key.record.algorithm;
        let prepared: Vec<_> = bodies.into_iter().map(|body| digest(algorithm, body)).collect();
        sign_prepared(&version, prepared).await
    }

    /// As [`Self::sign_structures`], for one. Its signature is raw: see [`format`].
    ///
    /// # Errors
    /// As [`Self::sign_structures`].
    pub async fn sign_structure<O: Builds>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        version: Version,
        body: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let mut signed = self.sign_structures(permit, name, version, vec![body]).await?;
        signed.pop().unwrap_or_else(no_answer).map(Verified::into_signature)
    }

    /// Signs a handshake of the service's own TLS server, in DER, with a key of the domain `tls`. Each stranger who connects causes
    /// one, before anybody knows who it is: so it is no operation, there is no permit, and no record. What makes up for that is
    /// that such a key signs nothing else, and what it signs means nothing elsewhere.
    ///
    /// # Errors
    /// [`Kind::Internal`] for another key or message, `State` for a version that is not trusted any more, `Tampered` for a
    /// signature that does not verify, and those of the device.
    pub async fn sign_handshake(&self, name: &KeyName, version: Version, message: Vec<u8>) -> Result<Vec<u8>> {
        let key = self.keyring.find(name)?;
        if key.record.domain != Some(Domain::Tls) || !domain::is_own_handshake(&message) {
            return Err(Error::internal(format!("{name} signs handshakes of our own TLS server and nothing else")));
        }
        let version = key.version(version)?.clone();
        match version.state() {
            // A superseded one serves until the certificate of the next one is there.
            State::Active | State::Deactivated => {}
            State::PreActive | State::Suspended | State::Compromised | State::DestroyScheduled | State::Destroyed => {
                let text = format!("version {} of the server's key is {}", version.number(), version.state());
                return Err(Error::new(Kind::State, text));
            }
        }
        let algorithm = key.record.algorithm;
        let mut signed = sign_prepared(&version, vec![digest(algorithm, message)]).await?;
        SignatureFormat::Der.encode(algorithm, signed.pop().unwrap_or_else(no_answer)?.signature())
    }

    /// Whether `signature`, in `form`, is one over `input` by the given version, the primary one where none is given.
    ///
    /// # Errors
    /// `NotFound` for a version that does not exist, `State` for one that is destroyed, `Invalid` for what the domain does
    /// not allow. A malformed signature is not an error: it is not valid.
    pub fn verify<O: Operation + Includes<Verify>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        version: Option<Version>,
        input: Input,
        form: SignatureFormat,
        signature: &[u8],
    ) -> Result<Verdict> {
        permit.covers::<Verify>(name)?;
        let key = self.keyring.find(name)?;
        demand(&key, Purpose::Sign)?;
        let version = retained(&key, version)?;
        let input = prepare(&key, input)?;
        let raw = form.decode(key.record.algorithm, signature);
        let valid = match raw {
            Ok(raw) => verifies(&version, &input, &raw)?,
            Err(_) => false,
        };
        Ok(Verdict { version: version.number(), state: version.state(), key, valid })
    }

    /// The code of each message by the version of `name` that protects now.
    ///
    /// # Errors
    /// For all: `State`, and `Tampered` where the key did not prove itself. Per item: `Limit` for a message that is too long
    /// for the device, and those of the device.
    pub async fn mac<O: Operation + Includes<Mac>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        messages: Vec<Vec<u8>>,
    ) -> Result<Results> {
        permit.covers::<Mac>(name)?;
        demand(&*self.keyring.find(name)?, Purpose::Mac)?;
        let bytes = messages.iter().map(Vec::len).sum();
        let (key, version) = self.keyring.primary(name, messages.len(), bytes).await?;
        let codes = version.mac(messages).await?;
        let results = codes.into_iter().map(|code| code.map(|code| code.expose().to_vec())).collect();
        Ok(Results { key, version, results })
    }

    /// Whether `code`, whole, is the one of `message` by the given version, the primary one where none is given.
    ///
    /// # Errors
    /// `NotFound`, `State` for a version that is suspended, scheduled or destroyed, and those of the device.
    pub async fn verify_mac<O: Operation + Includes<VerifyMac>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        version: Option<Version>,
        message: Vec<u8>,
        code: &[u8],
    ) -> Result<Verdict> {
        permit.covers::<VerifyMac>(name)?;
        let key = self.keyring.find(name)?;
        demand(&key, Purpose::Mac)?;
        let version = retained(&key, version)?;
        // A compromised key still tells whether a code is its own; the verdict says what that is worth.
        crate::keyring::state::may_open(version.number(), version.state(), true)?;
        let mut codes = version.mac(vec![message]).await?;
        let own = codes.pop().unwrap_or_else(|| Err(Error::internal("the device answered nothing")))?;
        let valid = same(own.expose(), code);
        Ok(Verdict { version: version.number(), state: version.state(), key, valid })
    }
}

/// Has the device sign what could be prepared, and verifies what it answers.
async fn sign_prepared(version: &Arc<KeyVersion>, prepared: Vec<Result<Vec<u8>>>) -> Result<Vec<Result<Verified>>> {
    let inputs: Vec<_> = prepared.iter().flatten().cloned().collect();
    let signatures = version.ask(inputs.clone()).await?;
    let mut checked = check_all(version, inputs, signatures).await?.into_iter();
    Ok(prepared.into_iter().map(|one| one.and_then(|_| checked.next().unwrap_or_else(no_answer))).collect())
}

fn no_answer<T>() -> Result<T> {
    Err(Error::internal("an item of a batch got no answer"))
}

/// Whether `version` may sign such a structure.
fn may_build(structure: Structure, version: &KeyVersion) -> Result<()> {
    let may = match version.state() {
        State::Active => true,
        State::PreActive => structure == Structure::Own,
        State::Deactivated => structure == Structure::Status,
        State::Suspended | State::Compromised | State::DestroyScheduled | State::Destroyed => false,
    };
    if may {
        return Ok(());
    }
    let text = format!(
        "version {} of the issuer's key is {} and signs nothing of this kind",
        version.number(),
        version.state()
    );
    Err(Error::new(Kind::State, text).hint("`signet issuer show` tells which version issues now"))
}

/// What the device is asked to sign of a body of ours: its digest, or all of it where the algorithm hashes by itself.
fn digest(algorithm: Algorithm, body: Vec<u8>) -> Result<Vec<u8>> {
    match algorithm.hash() {
        Some(hash) => Ok(hash.digest(&body)),
        None if body.len() > MAX_STRUCTURE => {
            Err(Error::new(Kind::Limit, format!("a key of {algorithm} signs at most {MAX_STRUCTURE} bytes"))
                .hint("issuers with very many revocations need an ECDSA or RSA key"))
        }
        None => Ok(body),
    }
}

/// What the device is asked to sign: the message where the algorithm hashes by itself, a digest otherwise.
fn prepare(key: &Key, input: Input) -> Result<Vec<u8>> {
    let algorithm = key.record.algorithm;
    let domain = key.record.domain.unwrap_or(Domain::Artifact);
    match input {
        Input::Message(message) => {
            if message.len() > MAX_MESSAGE {
                return Err(Error::new(Kind::Limit, format!("a message has at most {MAX_MESSAGE} bytes"))
                    .hint("sign the digest of larger ones, with a key of domain raw"));
            }
            domain::allows(domain, algorithm, &message)?;
            Ok(algorithm.hash().map_or(message.clone(), |hash| hash.digest(&message)))
        }
        Input::Digest(hash, digest) => {
            if algorithm.hash() != Some(hash) {
                return Err(Error::new(Kind::Invalid, format!("{algorithm} does not sign {hash} digests"))
                    .hint("the key's algorithm fixes the hash"));
            }
            domain::allows_digest(domain, algorithm, &digest)?;
            Ok(digest)
        }
    }
}

/// Verifies what the device answered, off the request threads where there is much of it.
async fn check_all(
    version: &Arc<KeyVersion>,
    inputs: Vec<Vec<u8>>,
    signatures: Vec<Result<SecretBytes>>,
) -> Result<Vec<Result<Verified>>> {
    let (judge, many) = (version.clone(), inputs.len() >= MANY);
    let check = move || {
        Ok(inputs.into_iter().zip(signatures).map(|(input, signature)| check(&judge, input, signature)).collect())
    };
    if many { blocking(check).await } else { check() }
}

fn check(version: &KeyVersion, input: Vec<u8>, signature: Result<SecretBytes>) -> Result<Verified> {
    version.verifier()?.prove(input, signature?.expose().to_vec()).ok_or_else(|| {
        Error::new(Kind::Tampered, "the device gave a signature that does not verify")
            .hint("nothing was released: look at the device, and rotate the key once it is sound")
    })
}

fn verifies(version: &KeyVersion, input: &[u8], raw: &[u8]) -> Result<bool> {
    let verifier = version.verifier()?;
    Ok(match verifier.algorithm().hash() {
        Some(_) => verifier.verifies_digest(input, raw),
        None => verifier.verifies(input, raw),
    })
}

/// A version whose public half still judges: all but destroyed ones.
fn retained(key: &Key, version: Option<Version>) -> Result<Arc<KeyVersion>> {
    let version = match version {
        Some(version) => key.version(version)?.clone(),
        None => key.primary()?.clone(),
    };
    match version.state() {
        State::Destroyed => Err(Error::new(Kind::State, format!("version {} is destroyed", version.number()))),
        State::PreActive | State::Active | State::Suspended => Ok(version),
        State::Deactivated | State::Compromised | State::DestroyScheduled => Ok(version),
    }
}
