//! What it costs to check the audit log, and how large its proofs are: `make bench`. No device: the key that signs the heads is in
//! memory here, and a signature is one, whatever the log holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement may stop, and prints"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use signet::audit::checkpoint::HeadKeys;
use signet::audit::{self, HeadSigner, Log, Origin, Phase, Record, Settings};
use signet::error::Result;
use signet::types::{Curve, PublicKey};

/// How many records, unless `BENCH_RECORDS` says otherwise.
const RECORDS: u64 = 1_000_000;
/// A head over each so many: a thousand operations a second.
const HEAD: u64 = 1000;
/// How often each is measured; the median counts.
const ROUNDS: usize = 3;

struct Signer(EcdsaKeyPair, PublicKey);

impl HeadSigner for Signer {
    fn sign<'a>(&'a self, note: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send + 'a>> {
        let signature = self.0.sign(&SystemRandom::new(), note).unwrap().as_ref().to_vec();
        Box::pin(async move { Ok(signature) })
    }
    fn public_key(&self) -> &PublicKey {
        &self.1
    }
}

/// A signature by a key of one's own, as the service records it.
fn record(n: u64) -> Record {
    Record {
        time: "2026-01-02T03:04:05.678901Z".into(),
        phase: Phase::Done,
        request: format!("{:032x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        principal: "identity/build-pipeline".into(),
        credential: "token/0123456789abcdef0123".into(),
        address: "192.0.2.7".into(),
        action: "Sign".into(),
        resource: "key/default:release-artifacts".into(),
        decision: "builders-sign#1".into(),
        outcome: "ok".into(),
        reason: String::new(),
        key_id: "00112233445566778899aabbccddeeff".into(),
        version: 3,
        context: BTreeMap::from([
            ("pipeline".into(), format!("build/{n}")),
            ("repository".into(), "services/front".into()),
        ]),
        items: Vec::new(),
        facts: BTreeMap::from([
            ("algorithm".into(), "ecdsa-p256-sha256".into()),
            ("digest".into(), format!("{:064x}", n.wrapping_mul(0x1234_5678_9abc_def1))),
        ]),
    }
}

#[tokio::main]
async fn main() {
    let records = std::env::var("BENCH_RECORDS").map_or(RECORDS, |text| text.parse().unwrap());
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public = PublicKey::ec(Curve::P256, pair.public_key().as_ref()).unwrap();
    let signer = Signer(pair, public);
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = home.path().join("audit");
    let before = processor();
    (0..records).for_each(|n| drop(std::hint::black_box(record(n))));
    let made = (processor() - before) / u32::try_from(records).unwrap();
    let before = processor();
    let log = filled(&folder, records, &signer).await;
    let each = (processor() - before) / u32::try_from(records).unwrap();
    let bytes = serde_json::to_vec(&record(0)).unwrap().len();
    println!("{records} records of {bytes} bytes, a head over each {HEAD}");
    println!("a record, made, written and signed for: {each:?} of processor time, of which {made:?} to make it");

    let receipt = log.append_for(&record(records)).await.unwrap();
    let whole = Instant::now();
    let length: usize = (0..records).map(|_| receipt.clone().to_string().len()).sum();
    let each = whole.elapsed() / u32::try_from(records).unwrap();
    println!("receipt of an answer: {} bytes, {each:?}", length as u64 / records);

    let key = HeadKeys::new([&signer.1]).unwrap();
    let tree = log.tree().unwrap();
    let mut at = 0;
    let mut largest = 0;
    let prove = median(1000, || {
        at = (at + 7_654_321) % records;
        let proof = tree.prove(at).unwrap();
        proof.verify(Some(&key)).unwrap();
        largest = largest.max(proof.encode().len());
    });
    println!("proof of one record, made and verified: {prove:?}; the largest has {largest} bytes");
    println!("consistency of two heads: {:?}", median(100, || drop(tree.consistency(records / 3).unwrap())));
    drop(log);

    let verify = || assert!(audit::verify(&folder, Some(&signer.1)).unwrap().is_good());
    println!("signet audit verify: {:?}", median(ROUNDS, verify));
    let www = home.path().join("www");
    println!("signet audit export: {:?}", median(1, || drop(audit::export(&folder, &www, Some(&key)).unwrap())));
    let verify = || assert!(audit::verify_export(&www, Some(&key)).unwrap().is_good());
    println!("signet audit verify of the export: {:?}", median(ROUNDS, verify));
    let settings = Settings::new(&folder, Origin::of_instance("bench").unwrap());
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with(audit::TILES) {
            std::fs::remove_file(path).unwrap();
        }
    }
    let log = Log::open(settings, Some(&signer.1)).unwrap().log;
    let begin = Instant::now();
    log.tend().await.unwrap();
    println!("stored hashes, made anew: {:?}", begin.elapsed());
}

async fn filled(folder: &Path, records: u64, signer: &Signer) -> Log {
    let log = Log::create(Settings::new(folder, Origin::of_instance("bench").unwrap())).unwrap();
    let mut at = 0;
    while at < records {
        let next = (at + HEAD).min(records);
        let waiting: Vec<_> = (at..next).map(|n| log.append(&record(n))).collect();
        for record in waiting {
            record.await.unwrap();
        }
        log.sign_head(signer).await.unwrap();
        if at == 0 {
            log.tend().await.unwrap();
        }
        at = next;
    }
    log
}

/// The processor time of this process.
fn processor() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

fn median(rounds: usize, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}
