//! One damaged file in a token: whatever the library makes of it, no signature that is handed out may pass for a right one
//! and be wrong, and the device does not die in a circle.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use signet::device::Class;
use signet::types::{Algorithm, Residency};

use crate::away::copy_all;
use crate::bench::{Bench, Key, softhsm};
use crate::softhsm::SoftHsm;

/// How many places of the file are tried.
const PLACES: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_file_never_makes_a_wrong_signature_pass() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::softhsm(&hsm).await;
    let before = object_files(&hsm);
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let other = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.worker.shutdown().await;
    let files: Vec<_> = object_files(&hsm).into_iter().filter(|file| !before.contains(file)).collect();
    let good = hsm.folder().join("good");
    copy_all(&hsm.tokens(), &good);
    let mut seen = BTreeMap::new();
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let places = PLACES / files.len();
        let spoilt = (0..places).map(|n| flipped(&bytes, n * bytes.len() / places));
        for bytes in spoilt.chain([vec![], bytes[..bytes.len() / 2].to_vec(), bytes[..bytes.len() - 1].to_vec()]) {
            fs::remove_dir_all(hsm.tokens()).unwrap();
            copy_all(&good, &hsm.tokens());
            fs::write(file, bytes).unwrap();
            *seen.entry(outcome(&bench, &key, &other).await).or_insert(0) += 1;
        }
    }
    println!("a damaged file: {seen:?}");
}

fn flipped(bytes: &[u8], place: usize) -> Vec<u8> {
    let mut spoilt = bytes.to_vec();
    spoilt[place] ^= 0x41;
    spoilt
}

/// The token's object files, but for the one of the token itself.
fn object_files(hsm: &SoftHsm) -> Vec<PathBuf> {
    let folders = fs::read_dir(hsm.tokens()).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    files
        .filter(|file| file.extension().is_some_and(|end| end == "object") && !file.ends_with("token.object"))
        .collect()
}

/// What a caller sees of the damaged key and of a sound one.
async fn outcome(bench: &Bench, key: &Key, other: &Key) -> String {
    let worker = Bench::open(bench.settings.clone(), &bench.identity);
    let bench = Bench { worker: worker.into(), settings: bench.settings.clone(), identity: bench.identity.clone() };
    let mut words = Vec::new();
    for one in [key, other] {
        for _ in 0..3 {
            words.push(match bench.sign(one).await {
                Ok(signature) if one.verifies(&signature) => "right".to_owned(),
                Ok(_) => "wrong, and noticed".to_owned(),
                Err(fault) => {
                    let expected = [
                        Class::KeyGone,
                        Class::KeyDamaged,
                        Class::Refused,
                        Class::Retry,
                        Class::DeviceGone,
                        Class::WorkerLost,
                    ];
                    assert!(expected.contains(&fault.class), "{fault:?}");
                    format!("{:?}", fault.class)
                }
            });
        }
        words.dedup();
    }
    let restarts = bench.worker.restarts();
    assert!(restarts <= 6, "{restarts} workers died of {words:?}");
    bench.worker.shutdown().await;
    format!("{} ({restarts} restarts)", words.join(", "))
}
