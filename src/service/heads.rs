//! Signs the heads of the audit log with the log's own key, which signs nothing else.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::audit::{Head, HeadSigner, Log};
use crate::device::{KeyRef, Worker};
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, Hash, PublicKey, SignatureFormat, Verifier};

/// The log, its signing key, and when it last signed.
#[derive(Debug)]
pub struct Heads {
    log: Arc<Log>,
    worker: Arc<Worker>,
    key: Arc<KeyRef>,
    public: PublicKey,
    verifier: Verifier,
    /// When the newest head was known to be signed and durable.
    signed: Mutex<Option<Instant>>,
}

impl Heads {
    /// Signs the heads of `log` with `key` of `worker`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a public key of another kind.
    pub fn new(log: Arc<Log>, worker: Arc<Worker>, key: KeyRef, public: PublicKey) -> Result<Self> {
        let verifier = Verifier::new(Algorithm::EcdsaP256, &public)?;
        Ok(Self { log, worker, key: Arc::new(key), public, verifier, signed: Mutex::new(None) })
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
        Box::pin(async move {
            let raw = self.worker.use_key(&self.key, Hash::Sha256.digest(note)).await?;
            if !self.verifier.verifies(note, raw.expose()) {
                return Err(Error::new(Kind::Tampered, "the log's key gives signatures that do not verify"));
            }
            SignatureFormat::Der.encode(Algorithm::EcdsaP256, raw.expose())
        })
    }

    fn public_key(&self) -> &PublicKey {
        &self.public
    }
}
