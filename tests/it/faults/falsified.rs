//! A token that spoils its answers, leaves them out, and gives those of other questions: nothing wrong leaves the service.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine;
use futures_util::future::join_all;
use signet::client::Client;
use signet::error::{Kind, Result};
use signet::types::{Algorithm, Context, PublicKey, SignatureFormat, Verifier};
use signet::wire::{Base64, Batch, BatchResults, MakeMac, Sign};

use super::message;
use crate::process::eventually;
use crate::proof::proven;
use crate::server::{Devices, TestServer, name};
use crate::wrap::{plain, sealed};

/// How many operations, unless `SIGNET_TEST_FALSIFIED` says otherwise. What is refused because the device is being looked for does
/// not count.
const OPERATIONS: usize = 1000;
/// After so many of them what was encrypted is opened again, on a token that has come to its senses.
const ROUND: usize = 10_000;
const CALLERS: usize = 4;
/// How many operations of one kind are asked for at once.
const ITEMS: usize = 10;

/// One answer of a few dozens. Never two to one question that are spoilt alike: whoever can do that is no fault any more.
const PLAN: &str = "
C_Sign after=5 every=97 flip
C_Sign after=31 every=101 empty
C_Sign after=61 every=103 replay
C_Encrypt after=3 every=29 flip
C_Encrypt after=11 every=31 empty
C_Encrypt after=17 every=37 replay
C_Decrypt after=5 every=41 flip
C_Decrypt after=13 every=43 empty
C_Decrypt after=23 every=47 replay
";

/// What came of the operations.
#[derive(Default)]
struct Tally {
    asked: AtomicUsize,
    released: AtomicUsize,
    refused: Mutex<BTreeMap<String, usize>>,
    /// Key, text and ciphertext.
    wrapped: Mutex<Vec<(&'static str, String, Base64)>>,
}

impl Tally {
    /// Has each answer judged; says whether the device was there.
    fn judge<T>(&self, answer: Result<BatchResults<T>>, mut right: impl FnMut(usize, T)) -> bool {
        let refuse = |code: &str, count: usize| {
            let expected = [Kind::Tampered, Kind::Unavailable, Kind::DoesNotOpen, Kind::Busy, Kind::Internal];
            assert!(expected.iter().any(|kind| kind.code() == code), "{code}");
            *self.refused.lock().unwrap().entry(code.to_owned()).or_insert(0) += count;
            let reached = code != Kind::Unavailable.code() && code != Kind::Busy.code();
            self.asked.fetch_add(if reached { count } else { 0 }, Ordering::SeqCst);
            reached
        };
        match answer {
            Ok(answers) => {
                let mut there = true;
                for (number, one) in answers.results.into_iter().enumerate() {
                    match (one.ok, one.error) {
                        (Some(answer), None) => {
                            right(number, answer);
                            self.released.fetch_add(1, Ordering::SeqCst);
                            self.asked.fetch_add(1, Ordering::SeqCst);
                        }
                        (_, error) => there &= refuse(&error.unwrap().code, 1),
                    }
                }
                there
            }
            Err(error) => refuse(error.kind().code(), ITEMS),
        }
    }
}

/// What is asked, and what the right answers are.
struct Questions {
    verifier: Verifier,
    code: MakeMac,
    mac: Base64,
    /// Key and ciphertext of one text.
    blobs: [(&'static str, Base64); 2],
}

const SECRET: &[u8] = b"secret";

impl Questions {
    async fn of(t: &TestServer) -> Self {
        let none = Context::default();
        t.key("release", "ecdsa-p256-sha256").await;
        t.key("codes", "hmac-sha256").await;
        t.key("data", "aes256-gcm-derived").await;
        t.key("cipher", "aes256-gcm").await;
        let public = t.client.public_key(&name("release"), None).await.unwrap();
        let public = PublicKey::from_pem(&public.pem).unwrap();
        let code = MakeMac { message: Base64(b"text".to_vec()) };
        let mac = t.client.mac(&name("codes"), &code).await.unwrap().mac;
        let blob =
            async |key: &'static str| (key, t.client.wrap(&name(key), &plain(SECRET, &none)).await.unwrap().ciphertext);
        let blobs = [blob("data").await, blob("cipher").await];
        Self { verifier: Verifier::new(Algorithm::EcdsaP256, &public).unwrap(), code, mac, blobs }
    }

    /// Asks some of one kind, and judges the answers.
    async fn ask(&self, client: &Client, turn: usize, tally: &Tally) -> bool {
        let none = Context::default();
        let text = |number: usize| format!("{turn}-{number}");
        let (key, blob) = &self.blobs[turn / 4 % self.blobs.len()];
        match turn % 4 {
            0 => {
                let raw = |number| Sign { format: Some(SignatureFormat::Raw), ..message(text(number).as_bytes()) };
                let items = (0..ITEMS).map(raw).collect();
                let signed = client.sign_batch(&name("release"), &Batch { items }).await;
                tally.judge(signed, |number, signed| {
                    let signature = base64::prelude::BASE64_STANDARD.decode(&signed.signature).unwrap();
                    assert!(
                        self.verifier.verifies(text(number).as_bytes(), &signature),
                        "a wrong signature was released"
                    );
                })
            }
            1 => {
                let items = (0..ITEMS).map(|number| plain(text(number).as_bytes(), &none)).collect();
                let wrapped = client.wrap_batch(&name(key), &Batch { items }).await;
                tally.judge(wrapped, |number, one| {
                    tally.wrapped.lock().unwrap().push((key, text(number), one.ciphertext));
                })
            }
            2 => {
                let items = (0..ITEMS).map(|_| sealed(blob, &none)).collect();
                let opened = client.unwrap_batch(&name(key), &Batch { items }).await;
                tally.judge(opened, |_, one| {
                    assert_eq!(one.plaintext.0.expose(), SECRET, "a wrong plaintext was released");
                })
            }
            _ => {
                let items = (0..ITEMS).map(|_| MakeMac { message: self.code.message.clone() }).collect();
                let made = client.mac_batch(&name("codes"), &Batch { items }).await;
                tally.judge(made, |_, one| assert_eq!(one.mac, self.mac, "a wrong MAC was released"))
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_results_that_are_falsified_at_random_none_is_wrong() {
    let t = TestServer::with(Devices::Faulty).await;
    let (questions, client) = (Questions::of(&t).await, t.impatient_client());
    let operations = std::env::var("SIGNET_TEST_FALSIFIED").ok().and_then(|n| n.parse().ok()).unwrap_or(OPERATIONS);
    let (tally, turns, began) = (Tally::default(), AtomicUsize::new(0), Instant::now());
    let is_ready = || eventually("the device is sound", async || t.client(None).ready().await.ok());
    let mut opened = 0;
    while tally.asked.load(Ordering::SeqCst) < operations {
        let until = operations.min(tally.asked.load(Ordering::SeqCst) + ROUND);
        t.hsm.plan(PLAN);
        join_all((0..CALLERS).map(async |_| {
            while tally.asked.load(Ordering::SeqCst) < until {
                if !questions.ask(&client, turns.fetch_add(1, Ordering::SeqCst), &tally).await {
                    is_ready().await;
                }
            }
        }))
        .await;
        t.hsm.plan("");
        is_ready().await;
        let wrapped = std::mem::take(&mut *tally.wrapped.lock().unwrap());
        for (key, _) in &questions.blobs {
            let of_key: Vec<_> = wrapped.iter().filter(|(of, ..)| of == key).collect();
            for some in of_key.chunks(500) {
                let items = some.iter().map(|(_, _, blob)| sealed(blob, &Context::default())).collect();
                let answers = t.client.unwrap_batch(&name(key), &Batch { items }).await.unwrap().results;
                for ((_, text, _), answer) in some.iter().zip(answers) {
                    let answer =
                        answer.ok.unwrap_or_else(|| panic!("a wrong ciphertext was released: {:?}", answer.error));
                    assert_eq!(answer.plaintext.0.expose(), text.as_bytes(), "a wrong ciphertext was released");
                    opened += 1;
                }
            }
        }
        // The trace of all calls would fill the disk.
        t.hsm.calls();
    }
    let (asked, released) = (tally.asked.into_inner(), tally.released.into_inner());
    let refused = tally.refused.into_inner().unwrap();
    println!(
        "{asked} operations in {:?}: {released} released and judged, {opened} of them opened again; refused: {refused:?}",
        began.elapsed()
    );
    let found = asked - released;
    assert!(found > operations / 100, "only {found} operations met a fault");
    proven("operations while results are falsified", asked, "0 wrong results released");
}
