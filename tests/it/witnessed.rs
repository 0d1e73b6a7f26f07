//! A service whose log is witnessed: what waits, what is noticed, and what a witness can do to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use signet::audit::note::Signature;
use signet::audit::{checkpoint, cosigned as kept};
use signet::config::Cosigner;
use signet::error::Kind;
use signet::outbound::Place as Address;
use signet::types::{NoteKey, Period, PublicKey, cosigned};
use signet::wire::{CertificateMatch, Identity, WitnessPosition};
use signet::witness::Witness;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::process::{Installation, eventually};
use crate::proof::proven;
use crate::rollback::put_back;
use crate::server::{Devices, PROGRAM, TestServer, lasting, name, new_key, options};
use crate::softhsm::copy_all;
use crate::witness::{Place, judged};

/// What a witness is told of the log of `t`.
async fn log_key(t: &TestServer) -> NoteKey {
    let head = t.client.audit_head().await.unwrap();
    let origin = checkpoint::Head::parse(&head.note).unwrap().origin().to_string();
    NoteKey::of_log(&origin, &checkpoint::public_key_from_pem(&head.public_key).unwrap()).unwrap()
}

fn cosigner(url: &str, key: &NoteKey, required: bool) -> Cosigner {
    let place = Address { address: url.parse().unwrap(), anchors: None };
    Cosigner { key: key.clone(), place, required, patience: Period::seconds(2) }
}

/// A service and a witness that watches its log.
pub(crate) async fn watched(required: bool) -> (TestServer, Place, Witness) {
    let mut t = TestServer::start().await;
    t.key("first", "aes256-gcm-derived").await;
    let mut place = Place::new(&[]).await;
    place.watch(&log_key(&t).await);
    let witness = place.start().await;
    place.config.listen = witness.address();
    t.stop().await;
    t.config.witnesses = vec![cosigner(&format!("http://{}", witness.address()), place.key(), required)];
    t.start_again().await.unwrap();
    (t, place, witness)
}

fn folder(t: &TestServer) -> PathBuf {
    t.data().join("audit")
}

async fn position(t: &TestServer) -> WitnessPosition {
    t.client.status().await.unwrap().witnesses.remove(0)
}

/// Waits until the witness holds all that was in the log by now.
pub(crate) async fn followed(t: &TestServer) {
    let size = t.client.status().await.unwrap().audit_size;
    eventually("the witness follows", async || (position(t).await.size? >= size).then_some(())).await;
}

async fn signet(words: &[&str]) -> (bool, String) {
    let output = tokio::process::Command::new(PROGRAM).args(words).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// The median time of a change that asks no device but for its anchor.
async fn change(t: &TestServer, count: u32) -> Duration {
    let certificates = vec![CertificateMatch::Dns("somebody.example".to_owned())];
    let (body, mut times) = (Identity { name: None, groups: vec![], certificates }, Vec::new());
    for number in 0..count {
        let (name, started) = (format!("somebody-{number}").parse().unwrap(), Instant::now());
        t.client.put_identity(&name, &body).await.unwrap();
        times.push(started.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_a_witness_that_is_required() {
    let (mut t, place, witness) = watched(true).await;
    // 0. What the wait costs, for people.
    let waiting = change(&t, 20).await;
    t.stop().await;
    t.config.witnesses[0].required = false;
    let error = t.start_again().await.expect_err("it is on record that it is required");
    assert!(error.public().contains("not configured as required"), "{error}");
    t.accept_rollback().await.unwrap().unwrap();
    t.start_again().await.unwrap();
    let following = change(&t, 20).await;
    t.stop().await;
    t.config.witnesses[0].required = true;
    t.start_again().await.unwrap();
    println!("a change waits {waiting:?} with a required witness, {following:?} with one that follows");
    // 1. What is acknowledged is below a head that the witness cosigned.
    t.key("second", "aes256-gcm-derived").await;
    let records = t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let change = records.iter().rposition(|record| record["phase"] == "change").unwrap() as u64;
    let held = kept(&folder(&t), place.key()).unwrap();
    assert!(held.head.size() > change, "{} of {change}", held.head.size());
    // 2. Others share a head and a cosignature.
    let started = Instant::now();
    let made = (0..20).map(|n| {
        let client = t.client(Some(t.token()));
        async move { client.create_key(&new_key(&format!("many-{n}"), "aes256-gcm-derived")).await }
    });
    assert!(futures_util::future::join_all(made).await.iter().all(Result::is_ok));
    println!("20 keys at once, witnessed: {:?}", started.elapsed());
    // 3. Without the witness nothing is acknowledged, and nothing else is either; with it all goes on.
    witness.stop().await.unwrap();
    let error = t.impatient_client().create_key(&new_key("third", "aes256-gcm-derived")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Unavailable | Kind::Busy), "{error:?}");
    assert!(t.server().service().ready().is_err());
    let witness = place.start().await;
    eventually("it goes on by itself", async || t.impatient_client().key(&name("third")).await.ok()).await;
    t.key("fourth", "aes256-gcm-derived").await;
    followed(&t).await;
    let position = position(&t).await;
    assert!(position.required && position.problem.is_none() && position.cosigned.is_some(), "{position:?}");
    let metrics = t.client.metrics().await.unwrap();
    assert!(metrics.contains("signet_audit_witness_up{witness=\"witness.example/w1\"} 1"), "{metrics}");
    witness.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_demands_the_cosignature() {
    let (mut t, place, witness) = watched(false).await;
    t.key("second", "aes256-gcm-derived").await;
    let pem = t.data().join("log.pem");
    std::fs::write(&pem, t.client.audit_head().await.unwrap().public_key).unwrap();
    followed(&t).await;
    t.stop().await;
    // The last head came with the end of the service.
    t.start_again().await.unwrap();
    let (log, key, pem) = (folder(&t).display().to_string(), place.key().to_string(), pem.display().to_string());
    eventually("the last head is cosigned", async || {
        let (good, said) = signet(&["audit", "verify", &log, "--public-key", &pem, "--witness", &key]).await;
        (good && said.contains("\nwitness witness.example/w1: ") && said.contains(" records, ")).then_some(())
    })
    .await;
    followed(&t).await;
    t.stop().await;
    // 1. An export carries it, and a foreign program verifies it.
    let to = t.data().join("export").display().to_string();
    let (good, said) = signet(&["audit", "export", &log, &to, "--public-key", &pem]).await;
    assert!(good, "{said}");
    let checkpoint = std::fs::read_to_string(Path::new(&to).join("checkpoint")).unwrap();
    let head = checkpoint::Head::parse(&checkpoint).unwrap();
    if head.signers().len() == 3 {
        let lines: String = checkpoint.lines().skip(6).map(|line| format!("{line}\n")).collect();
        if let Some(said) = judged(&checkpoint, &lines, place.key()) {
            assert!(said.contains("witness.example/w1"), "{said}");
        }
        let (good, said) = signet(&["audit", "verify", &to, "--public-key", &pem, "--witness", &key]).await;
        assert!(good, "{said}");
    }
    // 2. That of another witness is missing; a log that was cut behind it does not hold it.
    let other = Place::new(&[]).await;
    let (good, said) = signet(&["audit", "verify", &log, "--witness", &other.key().to_string()]).await;
    assert!(!good && said.contains("no head is kept that witness"), "{said}");
    std::fs::remove_file(folder(&t).join("heads")).unwrap();
    std::fs::write(folder(&t).join("heads"), "").unwrap();
    let (good, said) = signet(&["audit", "verify", &log, "--witness", &key]).await;
    assert!(!good && said.contains("that this log does not hold"), "{said}");
    witness.stop().await.unwrap();
}

/// Data folder and token together, as who has the machine can put them back.
struct Everything(tempfile::TempDir);

impl Everything {
    fn take(t: &TestServer) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        copy_all(t.data(), &copy.0.path().join("data"));
        copy_all(&t.hsm.tokens(), &copy.0.path().join("tokens"));
        copy
    }

    fn put_back(&self, t: &TestServer, parts: &[&str]) {
        let (tokens, others): (Vec<_>, Vec<_>) = parts.iter().partition(|part| **part == "tokens");
        put_back(&self.0.path().join("data"), t.data(), &others);
        if !tokens.is_empty() {
            std::fs::remove_dir_all(t.hsm.tokens()).unwrap();
            copy_all(&self.0.path().join("tokens"), &t.hsm.tokens());
        }
    }
}

const ALL: &[&str] = &["tokens", "signet.db", "root.json", "audit"];

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_notices_what_no_device_can() {
    for required in [true, false] {
        let (mut t, place, witness) = watched(required).await;
        t.stop().await;
        let old = Everything::take(&t);
        t.start_again().await.unwrap();
        t.key("second", "aes256-gcm-derived").await;
        followed(&t).await;
        t.stop().await;
        let new = Everything::take(&t);
        // 1. Everything is put back, the token as well: its anchor agrees, and the witness does not.
        old.put_back(&t, ALL);
        let error = t.start_again().await.expect_err("everything put back");
        assert_eq!(error.kind(), Kind::Tampered);
        let said = error.public().to_owned();
        assert!(
            said.contains("rollback: witness witness.example/w1 has cosigned ") && error.mend().is_some(),
            "{said}"
        );
        // 2. The newest log beside them: what is in it tells.
        new.put_back(&t, &["audit"]);
        let error = t.start_again().await.expect_err("database and token put back");
        assert!(error.public().contains("changes that came after the last one of the store"), "{error}");
        // 3. A witness that is left out is missed where it was required; one that is away is, too.
        let witnesses = std::mem::take(&mut t.config.witnesses);
        new.put_back(&t, ALL);
        match t.start_again().await {
            Err(error) => assert!(required && error.public().contains("not configured as required"), "{error}"),
            Ok(()) => {
                assert!(!required);
                t.stop().await;
                new.put_back(&t, ALL);
            }
        }
        t.config.witnesses = witnesses;
        witness.stop().await.unwrap();
        match t.start_again().await {
            Err(error) => {
                assert!(required && error.kind() == Kind::Unavailable && error.mend().is_some(), "{error}");
            }
            Ok(()) => {
                let told = eventually("it says so", async || position(&t).await.problem).await;
                assert!(!required && told.contains("cannot be reached"), "{told}");
                t.stop().await;
                new.put_back(&t, ALL);
            }
        }
        // 4. Where it was away at the start of an older state, it tells when it is back: nothing is acknowledged from then on.
        if !required {
            old.put_back(&t, ALL);
            t.start_again().await.unwrap();
            let witness = place.start().await;
            let ready = async || t.server().service().ready().is_err().then_some(());
            eventually("it stops", ready).await;
            let refused = eventually("changes are refused", async || {
                t.impatient_client().create_key(&new_key("lost", "aes256-gcm-derived")).await.err()
            });
            refused.await;
            t.stop_somehow().await;
            witness.stop().await.unwrap();
            new.put_back(&t, ALL);
        }
        // 5. The newest state starts: nothing above was refused for another reason.
        let witness = place.start().await;
        t.start_again().await.unwrap();
        t.key("third", "aes256-gcm-derived").await;
        t.stop().await;

        // 6. Accepted by name, the old state counts; but the witness does not forget, and another one takes its place.
        old.put_back(&t, ALL);
        let gap = t.accept_rollback().await.unwrap().unwrap();
        assert!(gap.contains("rollback: witness"), "{gap}");
        let error = t.start_again().await.expect_err("it goes on contradicting");
        assert!(error.public().contains("rollback: witness"), "{error}");
        let mut second = Place::new(&[]).await;
        second.config.logs = place.config.logs.clone();
        let other = second.start().await;
        t.config.witnesses = vec![cosigner(&format!("http://{}", other.address()), second.key(), required)];
        if required {
            let error = t.start_again().await.expect_err("the first one is on record");
            assert!(error.public().contains("not configured as required"), "{error}");
            t.accept_rollback().await.unwrap().unwrap();
        }
        t.start_again().await.unwrap();
        t.key("after", "aes256-gcm-derived").await;
        followed(&t).await;
        t.stop().await;
        witness.stop().await.unwrap();
        other.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_with_a_token_each_the_witness_vouches_for_one() {
    let (mut t, _place, witness) = watched(true).await;
    t.stop().await;
    let copy = t.hsm.copy();
    let data = tempfile::tempdir().unwrap();
    copy_all(t.data(), &data.path().join("data"));
    t.start_again().await.unwrap();
    let mut config = t.config.clone();
    config.data = data.path().join("data");
    config.devices.insert("hsm".parse().unwrap(), signet::device::Settings::Pkcs11(copy.settings()));
    let second = signet::server::Server::start(&config, options(&t.clock)).await.unwrap();
    let theirs = crate::server::client(&second, Some(t.token()));
    // No device tells them apart. The one that changes something first is the one that counts.
    theirs.create_key(&new_key("theirs", "aes256-gcm-derived")).await.unwrap();
    let ours = t.impatient_client().create_key(&new_key("ours", "aes256-gcm-derived")).await;
    assert!(ours.is_err(), "two histories were both acknowledged");
    eventually("it says why", async || {
        t.server().service().ready().err().filter(|error| error.public().contains("witness"))
    })
    .await;
    theirs.create_key(&new_key("more", "aes256-gcm-derived")).await.unwrap();
    second.stop().await.unwrap();
    t.stop_somehow().await;
    let error = t.start_again().await.expect_err("the loser");
    assert!(error.kind() == Kind::Tampered && error.public().contains("rollback: witness"), "{error}");
    witness.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_was_put_back_is_told_of() {
    let (t, place, witness) = watched(false).await;
    t.key("second", "aes256-gcm-derived").await;
    followed(&t).await;
    witness.stop().await.unwrap();
    let old = std::fs::read(place.book()).unwrap();
    let witness = place.start().await;
    t.key("third", "aes256-gcm-derived").await;
    followed(&t).await;
    witness.stop().await.unwrap();
    std::fs::write(place.book(), old).unwrap();
    // It cannot know that; the log, which holds its later cosignature, does.
    let witness = place.start().await;
    t.key("fourth", "aes256-gcm-derived").await;
    let told = async || position(&t).await.problem.filter(|problem| problem.contains("was put back itself"));
    eventually("it says so", told).await;
    // It vouches again from there.
    followed(&t).await;
    witness.stop().await.unwrap();
}

/// What a witness of the test's own does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Cosigns whatever it is sent.
    Cosigns,
    Hangs,
    Closes,
    Fails,
    Nonsense,
    SmallerEachTime,
    LongAnswer,
    ForeignSignature,
    OtherText,
    NoAnswer,
}

/// One that does as it is told.
struct Liar {
    url: String,
    key: NoteKey,
    mood: Arc<Mutex<Mood>>,
}

impl Liar {
    async fn start() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = PublicKey::ed25519(pair.public_key().as_ref()).unwrap();
        let key = NoteKey::of_witness("liar.example/w", &public).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        let mood = Arc::new(Mutex::new(Mood::Cosigns));
        let (told, own, pair) = (mood.clone(), key.clone(), Arc::new(pair));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (told, own, pair) = (told.clone(), own.clone(), pair.clone());
                tokio::spawn(async move {
                    let mut request = vec![0; 32 * 1024];
                    let mut length = 0;
                    // Our requests end with the newline of a signature.
                    while !(request[..length].windows(4).any(|end| end == b"\r\n\r\n")
                        && request[..length].ends_with(b"\n")
                        && request[..length].windows(4).any(|dash| dash == "\n\u{2014}".as_bytes()))
                    {
                        match stream.read(&mut request[length..]).await {
                            Ok(0) | Err(_) => return,
                            Ok(more) => length += more,
                        }
                    }
                    let text = String::from_utf8_lossy(&request[..length]).into_owned();
                    let mood = *told.lock().unwrap();
                    let answer = Self::answer(mood, &text, &own, &pair);
                    if mood == Mood::Hangs {
                        std::future::pending::<()>().await;
                    }
                    if mood != Mood::Closes {
                        drop(stream.write_all(answer.as_bytes()).await);
                    }
                });
            }
        });
        Self { url, key, mood }
    }

    fn answer(mood: Mood, request: &str, key: &NoteKey, pair: &Ed25519KeyPair) -> String {
        let respond = |status: &str, kind: &str, body: &str| {
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        };
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let (proof, note) = body.split_once("\n\n").unwrap();
        let old: u64 = proof.lines().next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let text = format!("{}\n", note.split_once("\n\n").unwrap().0);
        let sign = |text: &str| {
            let time = 1_900_000_000_u64;
            let signature = pair.sign(cosigned(text, time).as_bytes());
            Signature::line(key, &[&time.to_be_bytes(), signature.as_ref()].concat())
        };
        match mood {
            Mood::Cosigns => respond("200 OK", "text/plain", &sign(&text)),
            Mood::Fails => respond("500 Internal Server Error", "text/plain", "no"),
            Mood::Nonsense => respond("409 Conflict", "text/html", "<b>12</b>"),
            Mood::SmallerEachTime => {
                respond("409 Conflict", "text/x.tlog.size", &format!("{}\n", old.saturating_sub(1)))
            }
            Mood::LongAnswer => respond("200 OK", "text/plain", &sign(&text).repeat(10_000)),
            Mood::ForeignSignature => {
                let other = Ed25519KeyPair::generate().unwrap();
                let signature = other.sign(cosigned(&text, 1).as_bytes());
                respond(
                    "200 OK",
                    "text/plain",
                    &Signature::line(key, &[&1_u64.to_be_bytes(), signature.as_ref()].concat()),
                )
            }
            Mood::OtherText => respond("200 OK", "text/plain", &sign("another log\n1\nAAAA\n")),
            Mood::NoAnswer | Mood::Hangs | Mood::Closes => "nothing of HTTP\n".to_owned(),
        }
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

const MOODS: &[Mood] = &[
    Mood::Hangs,
    Mood::Closes,
    Mood::Fails,
    Mood::Nonsense,
    Mood::SmallerEachTime,
    Mood::LongAnswer,
    Mood::ForeignSignature,
    Mood::OtherText,
    Mood::NoAnswer,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_lies_or_hangs_vouches_for_nothing() {
    let liar = Liar::start().await;
    let mut t = TestServer::start().await;
    t.key("first", "aes256-gcm-derived").await;
    // 1. One that is only followed holds up nothing, whatever it does; what it does is said.
    t.stop().await;
    t.config.witnesses = vec![cosigner(&liar.url, &liar.key, false)];
    t.start_again().await.unwrap();
    followed(&t).await;
    for (number, mood) in MOODS.iter().enumerate() {
        liar.be(*mood);
        let started = Instant::now();
        t.key(&format!("mood-{number}"), "aes256-gcm-derived").await;
        assert!(started.elapsed() < Duration::from_secs(2), "{mood:?} held up a change");
        let said = eventually(&format!("{mood:?} is said"), async || position(&t).await.problem).await;
        assert!(said.contains("liar.example/w"), "{mood:?}: {said}");
        // What was on its way before it changed its mind has arrived by now.
        let before = kept(&folder(&t), &liar.key).unwrap();
        t.key(&format!("again-{number}"), "aes256-gcm-derived").await;
        let size = t.client.status().await.unwrap().audit_size;
        let signed = async || (t.client.status().await.ok()?.audit_signed >= size).then_some(());
        eventually("there is a new head", signed).await;
        assert_eq!(kept(&folder(&t), &liar.key).unwrap(), before, "{mood:?} vouched for something");
        liar.be(Mood::Cosigns);
        followed(&t).await;
        // One that was asked twice meanwhile, and answered both ways, is said to have been put back.
        let well = async || position(&t).await.problem.is_none_or(|what| what.contains("put back")).then_some(());
        eventually("it is well again", well).await;
    }
    t.stop().await;
    // 2. One that is required holds up the change, within its bound, and nothing is acknowledged on its word.
    t.config.witnesses = vec![Cosigner { patience: Period::seconds(1), ..cosigner(&liar.url, &liar.key, true) }];
    t.start_again().await.unwrap();
    for (number, mood) in MOODS.iter().enumerate() {
        liar.be(*mood);
        let key = format!("held-{number}");
        let started = Instant::now();
        let answer = t.impatient_client().create_key(&new_key(&key, "aes256-gcm-derived")).await;
        assert!(answer.is_err(), "{mood:?}: acknowledged");
        assert!(started.elapsed() < Duration::from_secs(8), "{mood:?}: {:?}", started.elapsed());
        liar.be(Mood::Cosigns);
        eventually("it goes on", async || t.impatient_client().key(&name(&key)).await.ok()).await;
    }
    // 3. At a start as well.
    t.stop().await;
    for mood in [Mood::Hangs, Mood::Fails, Mood::ForeignSignature] {
        liar.be(mood);
        let error = t.start_again().await.expect_err("a required witness that does not vouch");
        assert!(error.kind() == Kind::Unavailable && error.mend().is_some(), "{mood:?}: {error:?}");
    }
    liar.be(Mood::Cosigns);
    t.start_again().await.unwrap();
    proven("lies and failures of a witness", 2 * MOODS.len() + 3, "nothing acknowledged on its word, no hang");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_around_the_witness_is_no_rollback() {
    let t = Installation::bare(Devices::SoftHsm);
    let config = t.config().to_str().unwrap().to_owned();
    let first = t.command(&["init", "--config", &config], None).succeeds().await;
    let service = t.serve().await;
    let token = lasting(&t.client(Some(first.trim()))).await;
    let client = t.client(Some(&token));
    let head = eventually("there is a head", async || client.audit_head().await.ok()).await;
    let origin = checkpoint::Head::parse(&head.note).unwrap().origin().to_string();
    let log = NoteKey::of_log(&origin, &checkpoint::public_key_from_pem(&head.public_key).unwrap()).unwrap();
    service.kill().await;
    let mut place = Place::new(&[]).await;
    place.watch(&log);
    let witness = place.start().await;
    let stanza = format!(
        "[[witness]]\nurl = \"http://{}\"\nkey = \"{}\"\nrequired = true\n{}",
        witness.address(),
        place.key(),
        std::fs::read_to_string(t.config()).unwrap()
    );
    std::fs::write(t.config(), stanza).unwrap();
    for point in ["ledger.before_witness", "ledger.witnessed", "ledger.recorded", "ledger.anchored", "ledger.committed"]
    {
        let mut service = t.serve_until(&format!("{point}:2"));
        service.serves().await.unwrap();
        let client = t.client(Some(&token));
        // The last of them is the one that it dies of.
        for n in 0..3 {
            let key = new_key(&format!("{}-{n}", point.replace(['.', '_'], "-")), "aes256-gcm-derived");
            let _ = client.create_key(&key).await;
        }
        service.dies(point).await;
        let service = t.serve().await;
        let client = t.client(Some(&token));
        let key = new_key(&format!("{}-after", point.replace(['.', '_'], "-")), "aes256-gcm-derived");
        client.create_key(&key).await.unwrap_or_else(|error| panic!("{point}: {error}"));
        service.kill().await;
    }
    t.audit_is_good();
    witness.stop().await.unwrap();
}
