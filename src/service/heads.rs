//! Signs the heads of the audit log with the log's own keys, which sign nothing else.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::audit::{Head, HeadSigner, Log};
use crate::device::{KeyRef, Worker};
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, PublicKey, SignatureFormat, Verifier};

/// The log, its signing keys, and when it was last signed.
#[derive(Debug)]
pub struct Heads {
    log: Arc<Log>,
    first: HeadKey,
    second: Option<HeadKey>,
    /// When the newest head was known to be signed and durable.
    signed: Mutex<Option<Instant>>,
}

/// A key in a device that signs heads: of ECDSA P-256 or Ed25519.
#[derive(Debug)]
pub struct HeadKey {
    worker: Arc<Worker>,
    key: Arc<KeyRef>,
    public: PublicKey,
    verifier: Verifier,
}

impl HeadKey {
    /// Signs with `key` of `worker`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a public key of another kind.
    pub fn new(worker: Arc<Worker>, key: KeyRef, public: PublicKey) -> Result<Self> {
        let verifier = Verifier::new(key.algorithm, &public)?;
        Ok(Self { worker, key: Arc::new(key), public, verifier })
    }
}

impl Heads {
    /// Signs the heads of `log` with its key, and with the second one where it has it.
    #[must_use]
    pub const fn new(log: Arc<Log>, first: HeadKey, second: Option<HeadKey>) -> Self {
        Self { log, first, second, signed: Mutex::new(None) }
    }

    /// The keys that sign each head: the name of the device and the algorithm.
    pub fn keys(&self) -> impl Iterator<Item = (&str, Algorithm)> {
        let all = [Some(&self.first), self.second.as_ref()].into_iter().flatten();
        all.map(|one| (one.worker.name(), one.key.algorithm))
    }

    /// Looks at the files of the log and signs a head over what is new.
    ///
    /// # Errors
    /// `Tampered` where somebody else's hand shows, and those of the device.
    pub async fn sign(&self) -> Result<Head> {
        self.log.inspect().await?;
        let head = self.log.sign_head(self).await?;
        *self.signed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(head)
    }

    /// How long ago the log was last known to be whole and signed.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

impl HeadSigner for Heads {
    fn sign<'a>(&'a self, note: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send + 'a>> {
        self.first.sign(note)
    }

    fn public_key(&self) -> &PublicKey {
        &self.first.public
    }

    fn second(&self) -> Option<&dyn HeadSigner> {
        self.second.as_ref().map(|second| second as &dyn HeadSigner)
    }
}

impl HeadSigner for HeadKey {
    fn sign<'a>(&'a self, note: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send + 'a>> {
        Box::pin(async move {
            let algorithm = self.key.algorithm;
            let input = algorithm.hash().map_or_else(|| note.to_vec(), |hash| hash.digest(note));
            let raw = self.worker.use_key(&self.key, input).await?;
            if !self.verifier.verifies(note, raw.expose()) {
                return Err(Error::new(Kind::Tampered, "the log's key gives signatures that do not verify"));
            }
            SignatureFormat::Der.encode(algorithm, raw.expose())
        })
    }

    fn public_key(&self) -> &PublicKey {
        &self.public
    }
}
