//! The audit log, through its front: what is acknowledged is there, what is changed is noticed, nothing waits for ever.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may end in a panic")]

mod archive;
mod fair;
mod faults;
mod prune;
mod receipts;
mod sinks;
#[path = "../support/skip.rs"]
mod skip;
mod tamper;
mod tiled;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use signet::audit::{self, HeadSigner, Log, Origin, Phase, Record, Settings, verify};
use signet::error::Result;
use signet::types::{Curve, PublicKey};
use tempfile::TempDir;

/// A key in memory in place of one in a device.
struct Signer {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl Signer {
    fn new() -> Self {
        Self::from_pair(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn from_pair(pair: EcdsaKeyPair) -> Self {
        let public = PublicKey::ec(Curve::P256, pair.public_key().as_ref()).unwrap();
        Self { pair, public }
    }
}

impl HeadSigner for Signer {
    fn sign<'a>(&'a self, note: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send + 'a>> {
        let signature = self.pair.sign(&SystemRandom::new(), note).unwrap().as_ref().to_vec();
        Box::pin(async move { Ok(signature) })
    }
    fn public_key(&self) -> &PublicKey {
        &self.public
    }
}

/// A log's settings in a folder of its own, and the key that signs its heads.
struct Bench {
    settings: Settings,
    signer: Signer,
    home: TempDir,
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let settings = Settings::new(home.path().join("audit"), Origin::of_instance("test").unwrap());
        Self { settings, signer: Signer::new(), home }
    }

    /// Small segments: about four records each.
    fn small_segments(mut self) -> Self {
        self.settings.segment_bytes = 1000;
        self
    }

    fn create(&self) -> Log {
        Log::create(self.settings.clone()).unwrap()
    }

    fn open(&self) -> Result<audit::Opened> {
        Log::open(self.settings.clone(), Some(&self.signer.public))
    }

    fn verify(&self) -> audit::Report {
        verify(&self.settings.folder, Some(&self.signer.public)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.folder.join(name)
    }

    fn segments(&self) -> Vec<PathBuf> {
        segments(&self.settings.folder)
    }

    /// A log of `heads` heads, ten records each.
    async fn filled(&self, heads: u64) -> Log {
        let log = self.create();
        for n in 0..heads * 10 {
            assert_eq!(log.append(&record(n)).await.unwrap(), n);
            if n % 10 == 9 {
                log.sign_head(&self.signer).await.unwrap();
            }
        }
        log
    }

    /// A copy of the folder to spoil.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.home.path().join(name);
        fs::create_dir_all(&copy).unwrap();
        for entry in fs::read_dir(&self.settings.folder).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        copy
    }
}

/// The segments in a folder, in order.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
        .collect();
    found.sort();
    found
}

fn record(n: u64) -> Record {
    Record {
        time: "2026-01-02T03:04:05.678901Z".into(),
        phase: Phase::Done,
        request: format!("request-{n}"),
        principal: "identity/builder".into(),
        credential: "token/abc".into(),
        address: "192.0.2.7".into(),
        action: "Sign".into(),
        resource: "key/default:release".into(),
        decision: "builders-sign".into(),
        outcome: "ok".into(),
        reason: String::new(),
        key_id: "00112233445566778899aabbccddeeff".into(),
        version: 3,
        context: BTreeMap::new(),
        items: Vec::new(),
        facts: BTreeMap::new(),
    }
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        skip::skipped(&format!("no {program}"));
    }
    found
}
