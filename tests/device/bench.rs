//! An enrolled device behind its worker, keys with a judge, and a way to wait.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet::device::{Class, Fault, Identity, KeyRef, KeySpec, Settings, Worker};
use signet::telemetry::Metrics;
use signet::types::{
    Algorithm, CipherCall, Direction, Encapsulated, KeyId, PublicKey, Residency, Role, SecretBytes, Verifier, Version,
};
use tokio::time::Instant;

use crate::softhsm::{MODULE, SoftHsm};

/// What is signed.
pub(crate) const MESSAGE: &[u8] = b"the message";
/// How long a test waits for what should come in moments; only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program that is its own worker.
pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_signet").into()
}

/// A token of one's own, or a word of why not.
pub(crate) fn softhsm() -> Option<SoftHsm> {
    if !Path::new(MODULE).exists() {
        println!("skipped: no softhsm2");
        return None;
    }
    Some(SoftHsm::new())
}

/// A software TPM of one's own, or a word of why not.
#[cfg(feature = "tpm")]
pub(crate) fn swtpm() -> Option<crate::swtpm::Swtpm> {
    if std::process::Command::new("swtpm").arg("--version").output().is_err() {
        println!("skipped: no swtpm");
        return None;
    }
    Some(crate::swtpm::Swtpm::start())
}

/// Waits until `holds` does, looking again and again.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// The worker processes on a token, whoever started them.
pub(crate) fn worker_processes(hsm: &SoftHsm) -> Vec<i32> {
    let folder = hsm.folder().to_str().unwrap().as_bytes().to_vec();
    let is_one = |pid: &i32| {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        has(&read("cmdline"), b"device-worker") && has(&read("environ"), &folder)
    };
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    names.filter(is_one).collect()
}

/// Ends a process of ours as nothing can prevent.
pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// A key with the judge of its signatures; `None` for a MAC key.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) key: Arc<KeyRef>,
    pub(crate) verifier: Option<Arc<Verifier>>,
    /// The public half of a pair.
    pub(crate) public: Option<PublicKey>,
}

impl Key {
    /// What the device is given to sign `message`.
    pub(crate) fn input(&self, message: &[u8]) -> Vec<u8> {
        match (self.key.algorithm.role(), self.key.algorithm.hash()) {
            (Role::Sign, Some(hash)) => hash.digest(message),
            (Role::Sign | Role::Mac, _) => message.to_vec(),
            (Role::Cipher, _) => {
                CipherCall { nonce: &[1; 12], aad: b"beside", data: message }.encode(Direction::Encrypt)
            }
            // Nothing can be said to such a key but what was made for it.
            (Role::Agree | Role::Decrypt | Role::Decapsulate, _) => {
                Encapsulated::to(self.key.algorithm, self.public.as_ref().unwrap()).unwrap().sent
            }
        }
    }

    /// Whether this is the key's signature of [`MESSAGE`].
    pub(crate) fn verifies(&self, signature: &SecretBytes) -> bool {
        self.verifier.as_ref().unwrap().verifies(MESSAGE, signature.expose())
    }
}

/// An enrolled device behind its worker.
pub(crate) struct Bench {
    pub(crate) worker: Arc<Worker>,
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
}

impl Bench {
    /// Enrols a device, and opens it as the service does.
    pub(crate) async fn enrol(settings: Settings) -> Self {
        let first = Self::unenrolled(settings.clone());
        let identity = first.enrol().await.unwrap();
        first.shutdown().await;
        let worker = Self::open(settings.clone(), &identity);
        worker.settled().await.unwrap();
        Self { worker: Arc::new(worker), settings, identity }
    }

    pub(crate) async fn softhsm(hsm: &SoftHsm) -> Self {
        Self::enrol(Settings::Pkcs11(hsm.settings())).await
    }

    pub(crate) async fn faulty(hsm: &SoftHsm) -> Self {
        Self::enrol(Settings::Pkcs11(hsm.faulty_settings())).await
    }

    pub(crate) fn unenrolled(settings: Settings) -> Worker {
        Worker::start("test", settings, None, program(), Metrics::new())
    }

    pub(crate) fn open(settings: Settings, identity: &Identity) -> Worker {
        Worker::start("test", settings, Some(identity.clone()), program(), Metrics::new())
    }

    pub(crate) async fn try_make(&self, algorithm: Algorithm, residency: Residency) -> Result<Key, (KeyId, Fault)> {
        let spec = KeySpec { id: KeyId::random().unwrap(), version: Version::FIRST, algorithm, residency, pcrs: None };
        let id = spec.id;
        let made = self.worker.generate(spec).await.map_err(|fault| (id, fault))?;
        let signs = |_: &&PublicKey| algorithm.role() == Role::Sign;
        let verifier = made.public.as_ref().filter(signs);
        let verifier = verifier.map(|public| Arc::new(Verifier::new(algorithm, public).unwrap()));
        let key = KeyRef { id, version: Version::FIRST, algorithm, locator: made.locator };
        Ok(Key { key: Arc::new(key), verifier, public: made.public })
    }

    pub(crate) async fn make(&self, algorithm: Algorithm, residency: Residency) -> Key {
        match self.try_make(algorithm, residency).await {
            Ok(key) => key,
            Err((_, fault)) => panic!("{algorithm} {residency}: {fault:?}"),
        }
    }

    /// Makes the worker process find out what its device can do, which the next key needs.
    pub(crate) async fn warm(&self) {
        self.make(Algorithm::HmacSha256, Residency::Wrapped).await;
    }

    pub(crate) async fn sign(&self, key: &Key) -> Result<SecretBytes, Fault> {
        self.worker.use_key(&key.key, key.input(MESSAGE)).await
    }

    pub(crate) async fn class(&self, key: &Key) -> Option<Class> {
        self.sign(key).await.err().map(|fault| fault.class)
    }

    /// Uses a signing key, and judges the signature.
    pub(crate) async fn works(&self, key: &Key) {
        let signature = self.sign(key).await.unwrap_or_else(|fault| panic!("{}: {fault:?}", key.key.algorithm));
        assert!(key.verifies(&signature), "{}: a wrong signature", key.key.algorithm);
    }

    /// Waits until a signing key works; no signature on the way may be wrong. Says how long it took.
    pub(crate) async fn works_again(&self, key: &Key) -> Duration {
        eventually("the device works again", async || match self.sign(key).await {
            Ok(signature) => {
                assert!(key.verifies(&signature), "a wrong signature");
                true
            }
            Err(_) => false,
        })
        .await
    }

    pub(crate) async fn has(&self, id: KeyId) -> bool {
        self.worker.inventory().await.unwrap().keys.iter().any(|(key, _)| *key == id)
    }
}
