//! What it costs to tell of revocation: `make bench`. Lists are measured without a device, because the signature of a list is one,
//! whatever its length; answers over HTTP, by many who ask for the same certificate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement may stop, and prints"
)]

#[path = "../tests/support/house.rs"]
mod house;
#[path = "../tests/support/softhsm.rs"]
#[allow(unused_macros, reason = "the macro is for tests")]
mod softhsm;

use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jiff::{SignedDuration, Timestamp};
use signet::types::{Algorithm, Curve, PublicKey};
use signet::x509::crl::{self, Head, Reason, Revoked};
use signet::x509::ocsp::{CertificateId, IssuerHash, IssuerId, Request};
use signet::x509::{IssuerView, Serial, signature};

/// How many certificates are revoked.
const REVOKED: usize = 100_000;
/// How often each is measured; the median counts.
const ROUNDS: usize = 5;

/// How many ask at once, and for how long.
const ASKING: usize = 16;
const TIME: Duration = Duration::from_secs(2);

fn main() {
    lists();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(answers());
}

/// OCSP answers that are kept, over connections that are kept; client and service share the machine.
async fn answers() {
    let house = house::House::start().await;
    let (url, request) = (format!("http://{}/pki/default/root/ocsp", house.address), house.request(&house.serial()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let begin = Instant::now();
    let ask = || async {
        let mut count = 0_u32;
        while begin.elapsed() < TIME {
            let ask = client.post(&url).header("content-type", "application/ocsp-request").body(request.clone());
            let answer = ask.send().await.unwrap().bytes().await.unwrap();
            assert!(answer.len() > 100, "a failure is no answer");
            count += 1;
        }
        count
    };
    let counts = futures_util::future::join_all((0..ASKING).map(|_| ask())).await;
    let rate = f64::from(counts.iter().sum::<u32>()) / begin.elapsed().as_secs_f64();
    println!("OCSP answers that are kept, {ASKING} connections: {rate:.0}/s with the client on the same machine");
    house.stop().await;
}

fn lists() {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let issuer = IssuerView {
        subject: b"\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x0c\x04Root".to_vec(),
        key_id: vec![7; 20],
        public_key: PublicKey::ec(Curve::P256, key.public_key().as_ref()).unwrap(),
        algorithm: Algorithm::EcdsaP256,
    };
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let entry =
        |at: usize| Revoked { serial: Serial::random().unwrap(), at: now, reason: Reason::ALL[at % Reason::ALL.len()] };
    let revoked: Vec<_> = (0..REVOKED).map(entry).collect();
    let next_update = now + SignedDuration::from_hours(24);
    let head = Head { issuer: &issuer, number: 1, this_update: now, next_update, places: &[] };

    let body = crl::to_be_signed(&head, revoked.iter().copied()).unwrap();
    let raw = key.sign(&SystemRandom::new(), &body).unwrap();
    let list = signature::assemble(&body, issuer.algorithm, raw.as_ref()).unwrap();
    let built = median(|| drop(crl::to_be_signed(&head, revoked.iter().copied()).unwrap()));
    let checked = median(|| crl::check(&list, &head, revoked.iter().copied()).unwrap());
    println!(
        "revocation list, {REVOKED} revoked: built in {built:.1?}, read back in {checked:.1?}, {} bytes",
        list.len()
    );

    // SEQUENCE { SEQUENCE { list of one } } as OpenSSL sends it, with SHA-1.
    let id = CertificateId::new(IssuerId::new(IssuerHash::Sha1, &issuer).unwrap(), &revoked[0].serial);
    let request = id.request().unwrap();
    let read = median(|| (0..1000).for_each(|_| drop(Request::parse(&request).unwrap()))) / 1000;
    println!("OCSP request: read in {read:.1?}");
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}
