//! `aes256-gcm`: the token encrypts by itself, is watched at it, and its uses are counted.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use jiff::SignedDuration;
use signet::error::Kind;
use signet::store::{Change, Expected};
use signet::types::{Algorithm, Context, KeyId, Name, Residency, Rotation, State, Version};
use signet::wire::{Base64, Batch, GenerateDataKey, MakeMac, Rewrap, UpdateKey};

use crate::attest::make_older_with;
use crate::rollback::put_back;
use crate::server::{Devices, TestServer, name, new_key};
use crate::softhsm::{LABEL, MODULE, copy_all};
use crate::wrap::{context, plain, sealed};

/// Keys in both residencies.
async fn ciphers(t: &TestServer) -> [&'static str; 2] {
    for residency in [Residency::Resident, Residency::Wrapped] {
        let mut new = new_key(residency.as_str(), "aes256-gcm");
        new.residency = Some(residency);
        t.client.create_key(&new).await.unwrap();
    }
    ["resident", "wrapped"]
}

async fn wrap(t: &TestServer, key: &str, text: &[u8], context: &Context) -> Base64 {
    t.client.wrap(&name(key), &plain(text, context)).await.unwrap().ciphertext
}

#[tokio::test]
async fn the_token_encrypts_by_itself_and_a_tpm_says_that_it_cannot() {
    let t = TestServer::with(Devices::WithTpm).await;
    let own = context(&[("tenant", "a"), ("file", "2026/ü")]);
    for key in ciphers(&t).await {
        // 1. From nothing to the longest, and no longer.
        for size in [0, 1, 32, 65_536] {
            let secret = vec![7; size];
            let blob = wrap(&t, key, &secret, &own).await;
            assert_eq!((blob.0.len(), blob.0[3]), (size + 84, 6));
            let opened = t.client.unwrap(&name(key), &sealed(&blob, &own)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), secret, "{key} {size}");
        }
        let over = t.client.wrap(&name(key), &plain(&vec![0; 65_537], &own)).await.unwrap_err();
        assert_eq!(over.kind(), Kind::Limit);
        // 2. In batches, each item for itself; a nonce never comes twice.
        let mut items: Vec<_> = (0..100).map(|n| plain(format!("item {n}").as_bytes(), &own)).collect();
        items[50] = plain(&vec![0; 65_537], &own);
        let results = t.client.wrap_batch(&name(key), &Batch { items }).await.unwrap().results;
        let blobs: Vec<_> = results.iter().filter_map(|one| Some(&one.ok.as_ref()?.ciphertext)).collect();
        assert_eq!((blobs.len(), results[50].error.as_ref().unwrap().code.as_str()), (99, "limit"));
        let nonces: BTreeSet<_> = blobs.iter().map(|blob| &blob.0[24..36]).collect();
        assert_eq!(nonces.len(), 99);
        let mut items: Vec<_> = blobs.iter().map(|blob| sealed(blob, &own)).collect();
        items[7].ciphertext.0[60] ^= 1;
        let opened = t.client.unwrap_batch(&name(key), &Batch { items }).await.unwrap().results;
        let wrong: Vec<_> = opened.iter().enumerate().filter(|(_, one)| one.ok.is_none()).collect();
        assert_eq!((wrong.len(), wrong[0].0), (1, 7));
        assert_eq!(wrong[0].1.error.as_ref().unwrap().code, "does_not_open");
        assert_eq!(opened[99 - 1].ok.as_ref().unwrap().plaintext.0.expose(), b"item 99");
        // 3. Data keys; after a rotation the old version opens, and a ciphertext moves on.
        let ask = GenerateDataKey { length: 32, context: own.clone(), plaintext: true };
        let made = t.client.datakey(&name(key), &ask).await.unwrap();
        t.client.rotate_key(&name(key), &Default::default()).await.unwrap();
        let rewrap = Rewrap { ciphertext: made.ciphertext.clone(), context: own.clone(), to: None };
        let moved = t.client.rewrap(&name(key), &rewrap).await.unwrap();
        assert_eq!(moved.version.number(), 2);
        for blob in [&made.ciphertext, &moved.ciphertext] {
            let opened = t.client.unwrap(&name(key), &sealed(blob, &own)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), made.plaintext.as_ref().unwrap().0.expose());
        }
        // 4. It does nothing else.
        let error = t.client.mac(&name(key), &MakeMac { message: Base64(vec![1]) }).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert_eq!(t.client.public_key(&name(key), None).await.unwrap_err().kind(), Kind::Unsupported);
    }
    let mut new = new_key("refused", "aes256-gcm");
    new.device = Some("tpm".parse().unwrap());
    let error = t.client.create_key(&new).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
    assert!(error.public().contains("a TPM 2.0 has no AES-GCM"), "{error:?}");
    assert!(error.mend().unwrap().contains("aes256-gcm-derived (wrapped)"), "{error:?}");
}

#[tokio::test]
async fn everything_wrong_with_a_gcm_ciphertext_is_one_answer() {
    let t = TestServer::start().await;
    let right = context(&[("tenant", "a")]);
    for key in ciphers(&t).await {
        t.key(&format!("{key}-other"), "aes256-gcm").await;
        let blob = wrap(&t, key, b"secret", &right).await;
        let other = wrap(&t, &format!("{key}-other"), b"secret", &right).await;
        let swapped = Base64([&blob.0[..24], &other.0[24..]].concat());
        let mut wrong = vec![
            ("another context", blob.clone(), context(&[("tenant", "b")])),
            ("no context", blob.clone(), Context::default()),
            ("another key's", other, right.clone()),
            ("another key's under our label", swapped, right.clone()),
        ];
        for position in [0, 3, 10, 23, 24, 35, 36, 67, 68, 73, blob.0.len() - 1] {
            let mut damaged = blob.clone();
            damaged.0[position] ^= 1;
            wrong.push(("a flipped bit", damaged, right.clone()));
        }
        for length in [0, 24, 36, 83, 84, blob.0.len() - 1] {
            wrong.push(("cut off", Base64(blob.0[..length].to_vec()), right.clone()));
        }
        let mut answers = BTreeSet::new();
        for (what, blob, context) in wrong {
            let error = t.client.unwrap(&name(key), &sealed(&blob, &context)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::DoesNotOpen, "{what}: {error:?}");
            answers.insert(error.public().split(" (").next().unwrap().to_owned());
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
        let opened = t.client.unwrap(&name(key), &sealed(&blob, &right)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"secret");
    }
    let (service, hsm) = (t.server().service(), "hsm".parse::<Name>().unwrap());
    assert_eq!(service.keyring().devices()[&hsm].restarts(), 0, "nobody's ciphertext costs a worker");
}

#[tokio::test]
async fn a_token_that_spoils_what_it_encrypts_or_decrypts_is_found_out() {
    let t = TestServer::with(Devices::Faulty).await;
    let own = context(&[("file", "1")]);
    for key in ciphers(&t).await {
        let blob = wrap(&t, key, b"secret", &own).await;
        let asked = || plain(b"secret", &own);
        // 1. What was encrypted wrongly is not given out, whether the token errs once or always.
        for bad in ["flip", "short", "empty"] {
            for (function, count) in [("C_Encrypt", " count=1"), ("C_Encrypt", ""), ("C_Decrypt", " count=1")] {
                t.hsm.plan(&format!("{function}{count} {bad}"));
                let error = t.client.wrap(&name(key), &asked()).await.unwrap_err();
                assert_eq!(error.kind(), Kind::Tampered, "{function}{count} {bad}: {error:?}");
            }
        }
        // 2. Nor is what was decrypted wrongly: and it is the token that is blamed, never the ciphertext.
        for plan in ["C_Decrypt count=1 flip", "C_Decrypt flip", "C_Decrypt count=1 short", "C_Decrypt empty"] {
            t.hsm.plan(plan);
            let error = t.client.unwrap(&name(key), &sealed(&blob, &own)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Tampered, "{plan}: {error:?}");
        }
        // 3. A token that fails as it does for a bad tag: once, for as long as the driver tries, and always.
        t.hsm.plan("C_Decrypt count=1 pre=0x5");
        assert_eq!(t.client.unwrap(&name(key), &sealed(&blob, &own)).await.unwrap().plaintext.0.expose(), b"secret");
        for plan in ["C_Decrypt count=2 pre=0x5", "C_Decrypt pre=0x5", "C_Decrypt post=0x40"] {
            t.hsm.plan(plan);
            let error = t.client.unwrap(&name(key), &sealed(&blob, &own)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Tampered, "{plan}: {error:?}");
        }
        // 4. One that lets every tag pass gives out nothing that was changed.
        t.hsm.plan("");
        let opened = t.client.unwrap(&name(key), &sealed(&blob, &own)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"secret");
        let again = wrap(&t, key, b"again", &own).await;
        t.client.unwrap(&name(key), &sealed(&again, &own)).await.unwrap();
    }
}

/// What a foreign program makes of the token.
fn judge(t: &TestServer, verb: &str, words: &[&str], blob: &Base64) -> Option<Vec<u8>> {
    let python = crate::judges::judge("python")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/gcm_judge.py");
    let mut judge = Command::new(python);
    judge.args([script, verb, MODULE, LABEL, t.hsm.pin_file().to_str().unwrap()]).args(words);
    judge.env("SOFTHSM2_CONF", t.hsm.conf()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut judge = judge.spawn().unwrap();
    judge.stdin.take().unwrap().write_all(&blob.0).unwrap();
    let said = judge.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Some(said.stdout)
}

#[tokio::test]
async fn a_foreign_program_opens_and_makes_them_with_the_token_alone() {
    let t = TestServer::start().await;
    let [key, _] = ciphers(&t).await;
    let (own, words) = (context(&[("tenant", "a"), ("file", "2026/ü")]), ["tenant=a", "file=2026/ü"]);
    let blob = wrap(&t, key, "größe".as_bytes(), &own).await;
    let Some(opened) = judge(&t, "open", &words, &blob) else { return };
    assert_eq!(opened, "größe".as_bytes());
    let made = judge(&t, "seal", &["from elsewhere", words[0], words[1]], &blob).unwrap();
    let opened = t.client.unwrap(&name(key), &sealed(&Base64(made), &own)).await.unwrap();
    assert_eq!(opened.plaintext.0.expose(), b"from elsewhere");
}

/// Has the store say that a version was used so often.
async fn used(t: &TestServer, id: KeyId, uses: u64) {
    let value = serde_json::to_vec(&serde_json::json!({ "uses": uses, "bytes": 0 })).unwrap();
    let path = format!("counters/{id}/0000000001");
    make_older_with(t.data(), &t.hsm, vec![Change { path, expected: Expected::Any, value: Some(value) }]).await;
}

#[tokio::test]
async fn a_version_is_replaced_after_2_to_the_30_uses_and_serves_2_to_the_31() {
    let limits = Algorithm::Aes256Gcm.uses().unwrap();
    assert_eq!((limits.rotates, limits.stops), (1 << 30, 1 << 31));
    let mut t = TestServer::with(Devices::Faulty).await;
    let none = Context::default();
    // 1. Uses are counted without any rule, ahead and durably: after a start all that was counted ahead is spent.
    let key = t.key("cipher", "aes256-gcm").await;
    let uses = async |t: &TestServer| t.client.version(&name("cipher"), Version::FIRST).await.unwrap().uses.unwrap();
    assert_eq!(uses(&t).await, 0);
    wrap(&t, "cipher", b"x", &none).await;
    assert_eq!(uses(&t).await, 1);
    t.restart().await;
    assert_eq!(uses(&t).await, 65_537);
    // 2. One use short of 2^30 nothing happens.
    t.stop().await;
    used(&t, key.id, (1 << 30) - 1).await;
    t.start_again().await.unwrap();
    assert_eq!(t.advance(SignedDuration::ZERO).await.rotated, 0);
    // 3. At 2^30 it rotates by itself; where the token has no room for another version, the old one serves on, and that shows.
    t.hsm.plan("C_GenerateKey pre=0x31");
    wrap(&t, "cipher", b"x", &none).await;
    let tick = t.advance(SignedDuration::ZERO).await;
    assert_eq!((tick.rotated, tick.failed), (0, 1));
    assert_eq!(t.client.status().await.unwrap().rotations_overdue, [name("cipher")]);
    let blob = wrap(&t, "cipher", b"x", &none).await;
    // 4. Up to 2^31 and no further; what was wrapped opens.
    t.stop().await;
    used(&t, key.id, (1 << 31) - 3).await;
    t.start_again().await.unwrap();
    let batch = |count| Batch { items: (0..count).map(|_| plain(b"x", &none)).collect() };
    t.client.wrap_batch(&name("cipher"), &batch(2)).await.unwrap();
    let error = t.client.wrap_batch(&name("cipher"), &batch(2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    wrap(&t, "cipher", b"the last one", &none).await;
    assert_eq!(uses(&t).await, 1 << 31);
    t.client.wrap(&name("cipher"), &plain(b"x", &none)).await.unwrap_err();
    t.client.unwrap(&name("cipher"), &sealed(&blob, &none)).await.unwrap();
    // 5. Once there is room, the next request has a new version.
    t.hsm.plan("");
    let wrapped = t.client.wrap(&name("cipher"), &plain(b"x", &none)).await.unwrap();
    assert_eq!(wrapped.version.number(), 2);
    t.client.unwrap(&name("cipher"), &sealed(&blob, &none)).await.unwrap();
    // 6. A rule of the key's own is obeyed where it is stricter.
    let strict =
        UpdateKey { rotation: Some(Rotation { after_uses: Some(3), ..Rotation::default() }), ..UpdateKey::default() };
    let etag = t.client.key(&name("cipher")).await.unwrap().etag;
    t.client.update_key(&name("cipher"), &etag, &strict).await.unwrap();
    for _ in 0..4 {
        wrap(&t, "cipher", b"x", &none).await;
    }
    assert!(t.client.key(&name("cipher")).await.unwrap().latest.number() > 2);
}

#[tokio::test]
async fn an_older_state_that_is_accepted_costs_the_version_its_place() {
    let mut t = TestServer::start().await;
    let none = Context::default();
    t.key("cipher", "aes256-gcm").await;
    t.key("derived", "aes256-gcm-derived").await;
    let blob = wrap(&t, "cipher", b"before", &none).await;
    t.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    copy_all(t.data(), &old);
    // Uses that the older state knows nothing of.
    t.start_again().await.unwrap();
    let lost = wrap(&t, "cipher", b"lost", &none).await;
    t.key("another", "aes256-gcm-derived").await;
    t.stop().await;
    put_back(&old, t.data(), &["signet.db", "audit", "root.json"]);
    t.clock.advance(SignedDuration::from_secs(1));
    t.accept_rollback().await.unwrap().unwrap();
    for _ in 0..2 {
        t.start_again().await.unwrap();
        let key = t.client.key(&name("cipher")).await.unwrap();
        assert_eq!((key.latest.number(), key.primary.unwrap().number()), (2, 2), "once, and not at each start");
        assert_eq!(t.client.version(&name("cipher"), Version::FIRST).await.unwrap().state, State::Deactivated);
        assert_eq!(t.client.key(&name("derived")).await.unwrap().latest.number(), 1, "nothing of it is counted");
        for (blob, text) in [(&blob, "before"), (&lost, "lost")] {
            let opened = t.client.unwrap(&name("cipher"), &sealed(blob, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), text.as_bytes());
        }
        t.stop().await;
    }
}
