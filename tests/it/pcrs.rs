//! Keys that are bound to the state of the machine, through the front: bound, used, refused after a register was extended, made anew, and
//! good again after a restart of the machine. `tpm2_pcrextend` changes the machine.

use std::process::Command;

use jiff::SignedDuration;
use signet::attestation::{Attestation, Evidence, Expected};
use signet::error::Kind;
use signet::types::{Context, PcrValues, Rotation, Version};
use signet::wire::{Base64, CreateKey, KeyVersion, MakeMac, RotateKey, Sign};

use crate::attest::run;
use crate::proof::proven;
use crate::server::{Devices, TestServer, name, new_key};
use crate::wrap::{plain, sealed};

fn bound(key: &str, algorithm: &str, pcrs: &str) -> CreateKey {
    let (device, pcrs) = (Some("tpm".parse().unwrap()), Some(pcrs.parse().unwrap()));
    CreateKey { device, pcrs, ..new_key(key, algorithm) }
}

/// Runs one of tpm2-tools on the server's TPM.
fn tool(t: &TestServer, words: &[&str]) -> String {
    let tcti = format!("swtpm:host=127.0.0.1,port={}", t.tpm.as_ref().unwrap().port());
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).env("TPM2TOOLS_TCTI", tcti).output().expect("tpm2-tools are installed");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a firmware or a boot loader does that is another one than before.
fn extend(t: &TestServer, register: u8) {
    tool(t, &["tpm2_pcrextend", &format!("{register}:sha256={}", "5a".repeat(32))]);
}

fn failures(t: &TestServer) -> String {
    let text = tool(t, &["tpm2_getcap", "properties-variable"]);
    text.lines().find(|line| line.contains("LOCKOUT_COUNTER")).unwrap().rsplit("0x").next().unwrap().trim().to_owned()
}

async fn versions(t: &TestServer, key: &str) -> Vec<KeyVersion> {
    t.client.versions(&name(key), &Default::default()).await.unwrap().items
}

fn message() -> Sign {
    Sign { message: Some(Base64(b"what was meant".to_vec())), ..Sign::default() }
}

fn code() -> MakeMac {
    MakeMac { message: Base64(b"what was meant".to_vec()) }
}

#[tokio::test]
async fn a_key_is_bound_to_the_machine_refused_on_another_and_made_anew() {
    let mut t = TestServer::with(Devices::WithTpm).await;
    let none = Context::default();

    // 1. Only a TPM binds, by registers that it keeps; nothing else is made in its stead.
    let elsewhere =
        CreateKey { device: Some("hsm".parse().unwrap()), ..bound("disk", "aes256-gcm-derived", "sha256:7") };
    let error = t.client.create_key(&elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.public().contains("hsm has no PCRs") && error.mend().unwrap().contains("tpm"), "{error:?}");
    run(Some(&t), &["key", "create", "disk", "--algorithm", "hmac-sha256", "--pcr", "sha1:7"], 2).await;

    // 2. By the command line and by the API, one of each role.
    let create =
        ["key", "create", "disk", "--algorithm", "aes256-gcm-derived", "--device", "tpm", "--pcr", "sha256:7,0,2"];
    let said = run(Some(&t), &create, 0).await;
    assert!(said.contains("bound to PCRs") && said.contains("sha256:0,2,7"), "{said}");
    for (key, algorithm) in [
        ("release", "ecdsa-p256-sha256"),
        ("codes", "hmac-sha256"),
        ("inbox", "hpke-p256"),
        ("seeds", "rsa2048-oaep-sha256"),
    ] {
        t.client.create_key(&bound(key, algorithm, "sha256:0,2,7")).await.unwrap();
    }
    t.client.create_key(&CreateKey { pcrs: None, ..bound("free", "ecdsa-p256-sha256", "sha256:0") }).await.unwrap();
    let daily = Rotation { every: Some("1d".parse().unwrap()), ..Rotation::default() };
    t.client.create_key(&CreateKey { rotation: daily, ..bound("daily", "hmac-sha256", "sha256:7") }).await.unwrap();
    let wraps = ["disk", "inbox", "seeds"];
    let mut blobs = Vec::new();
    for key in wraps {
        blobs.push(t.client.wrap(&name(key), &plain(b"secret", &none)).await.unwrap().ciphertext);
    }
    let opens = async |t: &TestServer, at: usize| t.client.unwrap(&name(wraps[at]), &sealed(&blobs[at], &none)).await;
    for at in 0..wraps.len() {
        assert_eq!(opens(&t, at).await.unwrap().plaintext.0.expose(), b"secret");
    }
    t.client.sign(&name("release"), &message()).await.unwrap();
    let tag = t.client.mac(&name("codes"), &code()).await.unwrap().mac;
    let first = versions(&t, "release").await;
    assert_eq!(first[0].pcrs_changed.as_deref(), Some([].as_slice()));
    assert_eq!(first[0].pcrs.as_ref().unwrap().registers().to_string(), "sha256:0,2,7");
    assert!(versions(&t, "free").await[0].pcrs.is_none());

    // 3. What the device says: the policy is that of the values of the claim, and of no others.
    let key = signet::server::attestation_key(&t.config, &"tpm".parse().unwrap()).unwrap();
    let text = t.client.attestation(&name("release"), None, None).await.unwrap();
    let attestation = Attestation::parse(text.as_bytes()).unwrap();
    let report = attestation.verify(&Expected::of(key.clone())).unwrap();
    let used = report.proven.iter().find(|fact| fact.about == "used").unwrap();
    assert!(used.fact.contains("sha256:0,2,7") && used.by == "the TPM", "{report:?}");
    assert_eq!(attestation.claim.pcrs, first[0].pcrs);
    for pcrs in [None, Some(values("sha256:0,2,7", 1)), Some(values("sha256:0,2", 0))] {
        let mut other = attestation.clone();
        other.claim.pcrs = pcrs;
        assert_eq!(other.verify(&Expected::of(key.clone())).unwrap_err().kind(), Kind::DoesNotOpen);
    }
    judged(&text, &key.to_pem().unwrap());
    let Evidence::Tpm(certified) = &attestation.evidence else { panic!("not a TPM's") };
    assert_eq!(certified.object.0[10..42], first[0].pcrs.as_ref().unwrap().policy());

    // 4. Another machine: each use is refused with its mend, as often as one likes, and nothing else suffers.
    extend(&t, 7);
    let mut refused = 0;
    for _ in 0..4 {
        let mut errors = vec![
            t.client.sign(&name("release"), &message()).await.unwrap_err(),
            t.client.mac(&name("codes"), &code()).await.unwrap_err(),
            t.client.wrap(&name("disk"), &plain(b"x", &none)).await.unwrap_err(),
        ];
        for at in 0..wraps.len() {
            errors.push(opens(&t, at).await.unwrap_err());
        }
        for error in &errors {
            assert_eq!(error.kind(), Kind::State, "{error:?}");
            assert!(error.public().contains("the machine's PCRs are not what the key was bound to"), "{error:?}");
            assert!(error.public().contains("something else stands in 7 "), "{error:?}");
            assert!(error.mend().unwrap().contains("rotate the key"), "{error:?}");
        }
        refused += errors.len();
        t.client.sign(&name("free"), &message()).await.unwrap();
    }
    assert_eq!(failures(&t), "0");
    let status = t.client.status().await.unwrap();
    let tpm = status.devices.iter().find(|device| device.name.as_str() == "tpm").unwrap();
    assert_eq!((tpm.up, tpm.breaker.as_str(), tpm.restarts, &tpm.problem), (true, "closed", 0, &None));
    assert!(status.problems.iter().all(|problem| !problem.starts_with("device")), "{:?}", status.problems);
    let told = status.problems.iter().find(|problem| problem.contains("release")).unwrap();
    assert!(told.contains("version 1 of default:release") && told.ends_with("PCR 7"), "{told}");
    assert!(status.problems.iter().all(|problem| !problem.contains("free")));
    assert_eq!(versions(&t, "release").await[0].pcrs_changed, Some(vec![7]));
    let said = run(Some(&t), &["key", "versions", "release"], 0).await;
    assert!(said.contains("sha256:0,2,7 CHANGED: 7"), "{said}");
    // It is still certified, by whoever has its authorisation value: what it is does not depend on the machine.
    let fresh = t.client.attestation(&name("release"), None, Some(&"07".repeat(16).parse().unwrap())).await.unwrap();
    Attestation::parse(fresh.as_bytes()).unwrap().verify(&Expected::of(key.clone())).unwrap();

    // 5. The house binds nothing anew by itself; whoever may rotate does.
    let tick = t.advance(SignedDuration::from_hours(25)).await;
    assert_eq!((tick.rotated, tick.failed), (0, 1));
    assert_eq!(t.client.key(&name("daily")).await.unwrap().latest, Version::FIRST);
    for key in ["release", "codes", "disk", "inbox", "seeds", "daily"] {
        let rotated = t.client.rotate_key(&name(key), &RotateKey::default()).await.unwrap();
        assert_eq!((rotated.latest.number(), rotated.pcrs.is_some()), (2, true));
    }
    t.client.sign(&name("release"), &message()).await.unwrap();
    assert_ne!(t.client.mac(&name("codes"), &code()).await.unwrap().mac, tag);
    let anew = t.client.wrap(&name("disk"), &plain(b"anew", &none)).await.unwrap().ciphertext;
    assert_eq!(opens(&t, 0).await.unwrap_err().kind(), Kind::State);
    let now = versions(&t, "release").await;
    assert_eq!((&now[0].pcrs_changed, &now[1].pcrs_changed), (&Some(vec![7]), &Some(vec![])));
    let problems = t.client.status().await.unwrap().problems;
    assert!(problems.iter().all(|problem| !problem.contains("release")), "{problems:?}");

    // 6. The service is started again: a version's record is all that it takes.
    t.restart().await;
    t.client.sign(&name("release"), &message()).await.unwrap();
    assert_eq!(opens(&t, 0).await.unwrap_err().kind(), Kind::State);

    // 7. The machine is started as it was: the old versions work, and the new ones are what is refused.
    t.tpm.as_mut().unwrap().restart();
    let began = std::time::Instant::now();
    while opens(&t, 0).await.is_err() {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "the TPM is not taken up again");
    }
    for at in 0..wraps.len() {
        assert_eq!(opens(&t, at).await.unwrap().plaintext.0.expose(), b"secret");
    }
    let error = t.client.unwrap(&name("disk"), &sealed(&anew, &none)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::State, "{error:?}");
    assert_eq!(failures(&t), "0");
    proven(
        "uses of keys that are bound to another state of the machine",
        refused,
        "refused with the mend; breaker closed, lockout 0",
    );
}

/// Other values than stand in a machine that was just started.
fn values(registers: &str, byte: u8) -> PcrValues {
    let of: signet::types::Pcrs = registers.parse().unwrap();
    PcrValues::new(of, of.registers().map(|_| vec![byte; of.bank().size()]).collect()).unwrap()
}

/// The judge in Python knows the policy from the standard alone.
fn judged(attestation: &str, pem: &str) {
    let Some(python) = crate::judges::judge("python") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [file, key] = [("bound", attestation), ("key.pem", pem)].map(|(name, text)| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    });
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/attestation_judge.py");
    let judged = Command::new(python).arg(script).args([file, key]).output().unwrap();
    let text = String::from_utf8_lossy(&judged.stdout).into_owned() + &String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success() && text.contains("holds"), "{text}");
}
