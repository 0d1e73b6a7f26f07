//! What devices say of their keys, through the front; and what a verifier does with files that say something else.

mod endorsement;

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use signet::attestation::{Attestation, Evidence, Expected, Nonce, Report};
use signet::audit::{Log, Origin, Settings as LogSettings};
use signet::ciphertext::derived::{Header, device_input, open};
use signet::client::Client;
use signet::device::{Identity, KeyRef, Settings, Worker};
use signet::error::Kind;
use signet::ledger::{Anchors, Ledger};
use signet::store::{Change, Expected as Was, Sealed, Sqlite, StorageKey, Store};
use signet::telemetry::Metrics;
use signet::types::{
    Action, Algorithm, Base64Bytes, Caller, Clock, Context, Curve, Name, PublicKey, Residency, Resource, Version,
    sha256,
};
use signet::wire::{Base64, CreateKey, MakeMac, RotateKey};

use crate::server::{Devices, PROGRAM, TestServer, name, new_key};
use crate::softhsm::SoftHsm;
use crate::wrap::{plain, sealed};

/// What is tried on each device: the kinds that its attestations differ in.
const KINDS: &[(&str, &str, Residency)] = &[
    ("p256", "ecdsa-p256-sha256", Residency::Resident),
    ("ed", "ed25519", Residency::Resident),
    ("rsa", "rsa2048-pss-sha256", Residency::Resident),
    ("codes", "hmac-sha384", Residency::Resident),
    ("p384-wrapped", "ecdsa-p384-sha384", Residency::Wrapped),
    ("rsa-wrapped", "rsa2048-pkcs1-sha256", Residency::Wrapped),
    ("codes-wrapped", "hmac-sha512", Residency::Wrapped),
    ("inbox", "hpke-p256", Residency::Resident),
    ("inbox-wrapped", "hpke-p256", Residency::Wrapped),
    ("seeds", "rsa2048-oaep-sha256", Residency::Wrapped),
    ("cipher", "aes256-gcm", Residency::Resident),
    ("cipher-wrapped", "aes256-gcm", Residency::Wrapped),
    ("data-wrapped", "aes256-gcm-derived", Residency::Wrapped),
];

fn wanted(key: &str, algorithm: &str, residency: Residency) -> CreateKey {
    CreateKey { residency: Some(residency), ..new_key(key, algorithm) }
}

fn nonce(byte: u8) -> Nonce {
    hex::encode([byte; 32]).parse().unwrap()
}

/// The attestation key of a device, as an operator reads it out.
fn pinned(t: &TestServer, device: &str) -> PublicKey {
    signet::server::attestation_key(&t.config, &device.parse::<Name>().unwrap()).unwrap()
}

async fn said(client: &Client, key: &str, nonce: Option<&Nonce>) -> Attestation {
    let text = client.attestation(&name(key), None, nonce).await.unwrap();
    Attestation::parse(text.as_bytes()).unwrap()
}

fn proven(report: &Report, about: &str) -> String {
    report.proven.iter().filter(|one| one.about == about).map(|one| one.fact.clone()).collect::<Vec<_>>().join("; ")
}

/// Why a file does not hold.
fn refused(attestation: &Attestation, expected: &Expected) -> String {
    let error = attestation.verify(expected).unwrap_err();
    assert_eq!(error.kind(), Kind::DoesNotOpen);
    error.public().to_owned()
}

#[tokio::test]
async fn every_version_is_attested_at_its_birth_and_again_for_a_nonce() {
    for devices in [Devices::SoftHsm, Devices::Tpm] {
        let t = TestServer::with(devices).await;
        let tpm = devices == Devices::Tpm;
        let key = pinned(&t, if tpm { "tpm" } else { "hsm" });
        for (id, algorithm, residency) in KINDS {
            // SoftHSM knows OAEP with SHA-1 only, and a TPM no AES-GCM.
            let lacks = if tpm { *algorithm == "aes256-gcm" } else { algorithm.contains("oaep") };
            if lacks || (tpm && *residency == Residency::Resident) {
                continue;
            }
            t.client.create_key(&wanted(id, algorithm, *residency)).await.unwrap();
            // 1. At birth.
            let born = said(&t.client, id, None).await;
            let report = born.verify(&Expected::of(key.clone())).unwrap();
            assert!(proven(&report, "made").starts_with("in the "), "{report:?}");
            assert!(report.unproven.iter().any(|one| one.contains("it has no nonce")), "{report:?}");
            // 2. For a nonce, and for no other. A wrapped key of a token shows its birth once.
            let fresh = said(&t.client, id, Some(&nonce(7))).await;
            let expected = Expected { nonce: Some(nonce(7)), ..Expected::of(key.clone()) };
            let report = fresh.verify(&expected).unwrap();
            assert!(proven(&report, "fresh").contains("nonce"), "{report:?}");
            assert_eq!(
                proven(&report, "made").is_empty(),
                !tpm && *residency == Residency::Wrapped,
                "{id}: {report:?}"
            );
            let other = Expected { nonce: Some(nonce(8)), ..Expected::of(key.clone()) };
            assert_eq!(refused(&fresh, &other), "the nonce is another one than was asked with");
            assert_eq!(refused(&born, &other), "the nonce is another one than was asked with");
            // 3. It is about this key and no other.
            let expected = Expected { key: Some(name(id)), version: Some(Version::FIRST), ..Expected::of(key.clone()) };
            born.verify(&expected).unwrap();
            assert!(
                refused(&born, &Expected { key: Some(name("other")), ..expected })
                    .starts_with("it is about another key")
            );
        }
        // 4. A rotation is a birth; what was said of the version before stays.
        let id = KINDS.last().unwrap().0;
        t.client.rotate_key(&name(id), &RotateKey::default()).await.unwrap();
        assert_eq!(said(&t.client, id, None).await.claim.version.number(), 2);
        let first = t.client.attestation(&name(id), Some(Version::FIRST), None).await.unwrap();
        assert_eq!(Attestation::parse(first.as_bytes()).unwrap().claim.version, Version::FIRST);
        // 5. Nobody signs with the attestation key, and nobody can ask the token's worker to.
        let missing = t.client.attestation(&name("nothing"), None, None).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        let own = own_key(&t, if tpm { "tpm" } else { "hsm" });
        let device: Name = if tpm { "tpm" } else { "hsm" }.parse().unwrap();
        let worker = t.server().service().keyring().devices()[&device].clone();
        let fault = worker.use_key(&Arc::new(own), vec![1; 32]).await.unwrap_err();
        assert!(fault.to_string().contains("signs nothing but attestations"), "{fault}");
    }
}

fn own_key(t: &TestServer, device: &str) -> KeyRef {
    let root: serde_json::Value = serde_json::from_slice(&std::fs::read(t.data().join("root.json")).unwrap()).unwrap();
    serde_json::from_value(root["devices"][device]["attestation_key"]["key"].clone()).unwrap()
}

/// A key that is in no device.
struct Forger(EcdsaKeyPair);

impl Forger {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn public(&self) -> PublicKey {
        PublicKey::ec(Curve::P256, self.0.public_key().as_ref()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Base64Bytes {
        Base64Bytes(self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec())
    }

    /// The same with what `change` makes of it, signed by this key.
    fn forge(&self, genuine: &Attestation, change: impl FnOnce(&mut Attestation)) -> Attestation {
        let mut forged = genuine.clone();
        change(&mut forged);
        forged.attestation_key = Base64Bytes(self.public().as_der().to_vec());
        let binding = forged.claim.binding().unwrap();
        match &mut forged.evidence {
            Evidence::Pkcs11(stated) => {
                stated.statement.binding = hex::encode(binding);
                stated.signature = self.sign(&stated.statement.signed().unwrap());
            }
            Evidence::Tpm(certified) => {
                // The Name of the object is at the end, before the qualified one; the binding before the clock.
                let name = signet::attestation::tpm::name(&certified.object.0);
                let attest = &mut certified.attest.0;
                let end = attest.len();
                attest[end - 36 - 34..end - 36].copy_from_slice(&name);
                let extra = 4 + 2 + 2 + 34 + 2;
                attest[extra..extra + 32].copy_from_slice(&binding);
                certified.signature = self.sign(attest);
            }
        }
        forged
    }
}

#[tokio::test]
async fn what_a_token_did_not_say_is_refused_by_name() {
    let t = TestServer::start().await;
    let (key, forger) = (pinned(&t, "hsm"), Forger::new());
    t.client.create_key(&wanted("resident", "ecdsa-p256-sha256", Residency::Resident)).await.unwrap();
    t.client.create_key(&wanted("wrapped", "ecdsa-p256-sha256", Residency::Wrapped)).await.unwrap();
    let (resident, wrapped) = (said(&t.client, "resident", None).await, said(&t.client, "wrapped", None).await);
    let trusting = Expected::of(forger.public());
    // 1. The forger's key is believed only by who pins it; then each attribute counts.
    assert_eq!(
        refused(&forger.forge(&resident, |_| ()), &Expected::of(key.clone())),
        "the attestation key is another one than was pinned"
    );
    forger.forge(&resident, |_| ()).verify(&trusting).unwrap();
    forger.forge(&wrapped, |_| ()).verify(&trusting).unwrap();
    let attribute = |genuine: &Attestation,
                     which: fn(&mut Attestation) -> &mut signet::attestation::token::Attributes| {
        let mut found = genuine.clone();
        let names: Vec<_> = which(&mut found).keys().cloned().collect();
        names
            .into_iter()
            .filter_map(|name| {
                let forged = forger.forge(genuine, |one| {
                    let value = which(one).get_mut(&name).unwrap();
                    *value = if value == "true" { "false".to_owned() } else { "true".to_owned() };
                });
                forged.verify(&trusting).err().map(|error| (name.clone(), error.public().to_owned()))
            })
            .collect::<Vec<_>>()
    };
    let object = attribute(&resident, |one| &mut stated(one).object);
    for name in [
        "CKA_LOCAL",
        "CKA_ALWAYS_SENSITIVE",
        "CKA_NEVER_EXTRACTABLE",
        "CKA_EXTRACTABLE",
        "CKA_SENSITIVE",
        "CKA_KEY_GEN_MECHANISM",
        "CKA_ALLOWED_MECHANISMS",
        "CKA_MODIFIABLE",
        "CKA_DECRYPT",
        "CKA_ID",
    ] {
        assert!(object.iter().any(|(of, why)| of == name && why.starts_with(name)), "{name}: {object:?}");
    }
    let kek = attribute(&wrapped, |one| &mut stated(one).kek.as_mut().unwrap().attributes);
    assert!(kek.iter().any(|(_, why)| why.starts_with("CKA_NEVER_EXTRACTABLE of the key-encryption key")), "{kek:?}");
    let template = attribute(&wrapped, |one| &mut stated(one).kek.as_mut().unwrap().unwraps);
    assert!(template.iter().any(|(_, why)| why.starts_with("CKA_EXTRACTABLE of the unwrap template")), "{template:?}");
    let birth = attribute(&wrapped, |one| stated(one).born.as_mut().unwrap());
    assert!(birth.iter().any(|(_, why)| why.starts_with("CKA_LOCAL of the key at its birth")), "{birth:?}");
    // 2. Parts of two files do not go together.
    let mut mixed = resident.clone();
    mixed.evidence = wrapped.evidence.clone();
    assert_eq!(refused(&mixed, &Expected::of(key.clone())), "the statement was signed for another claim");
    let mut swapped = resident.clone();
    swapped.claim.public_key = wrapped.claim.public_key.clone();
    assert_eq!(refused(&swapped, &Expected::of(key.clone())), "the statement was signed for another claim");
    let other = forger.forge(&resident, |one| one.claim.public_key = wrapped.claim.public_key.clone());
    assert_eq!(refused(&other, &trusting), "the statement is about another public key");
    let mut unsigned = resident.clone();
    stated(&mut unsigned).object.insert("CKA_LOCAL".into(), "false".into());
    assert_eq!(refused(&unsigned, &Expected::of(key.clone())), "the statement is not signed by the attestation key");
    no_byte_can_be_changed(&wrapped, &key);
}

fn stated(attestation: &mut Attestation) -> &mut signet::attestation::token::Statement {
    match &mut attestation.evidence {
        Evidence::Pkcs11(stated) => &mut stated.statement,
        Evidence::Tpm(_) => panic!("a TPM's"),
    }
}

/// Truncated anywhere, changed anywhere, or with something behind it: never accepted.
fn no_byte_can_be_changed(genuine: &Attestation, key: &PublicKey) {
    let text = genuine.encode().unwrap().into_bytes();
    let expected = Expected::of(key.clone());
    let holds = |bytes: &[u8]| Attestation::parse(bytes).and_then(|one| one.verify(&expected)).is_ok();
    assert!(holds(&text));
    for at in 0..text.len() {
        assert!(!holds(&text[..at]), "cut at {at}");
        for bit in [1, 2, 4, 32] {
            let mut changed = text.clone();
            changed[at] ^= bit;
            assert!(!holds(&changed), "bit {bit} of byte {at}");
        }
    }
    assert!(!holds(&[text.as_slice(), b"\n"].concat()));
}

#[tokio::test]
async fn what_a_tpm_did_not_certify_is_refused_by_name() {
    let (t, stranger) = (TestServer::with(Devices::Tpm).await, TestServer::with(Devices::Tpm).await);
    let (key, forger) = (pinned(&t, "tpm"), Forger::new());
    for t in [&t, &stranger] {
        t.key("release", "ecdsa-p256-sha256").await;
        t.key("codes", "hmac-sha256").await;
    }
    let (genuine, codes) = (said(&t.client, "release", None).await, said(&t.client, "codes", None).await);
    let expected = Expected::of(key.clone());
    // 1. Another TPM's word.
    let strange = said(&stranger.client, "release", None).await;
    assert_eq!(refused(&strange, &expected), "the attestation key is another one than was pinned");
    let mut worn = strange.clone();
    worn.attestation_key = genuine.attestation_key.clone();
    assert_eq!(refused(&worn, &expected), "what the TPM certified is not signed by the attestation key");
    // 2. Parts of two files.
    let mut mixed = genuine.clone();
    mixed.evidence = codes.evidence.clone();
    assert_eq!(refused(&mixed, &expected), "the TPM certified it for another claim");
    let mut object = genuine.clone();
    let (Evidence::Tpm(mine), Evidence::Tpm(others)) = (&mut object.evidence, &codes.evidence) else { panic!() };
    mine.object = others.object.clone();
    assert_eq!(refused(&object, &expected), "the TPM certified another object than this one");
    // 3. What only a key outside a TPM signs: seen by who pinned that.
    let trusting = Expected::of(forger.public());
    let forged = forger.forge(&genuine, |one| {
        let Evidence::Tpm(certified) = &mut one.evidence else { panic!() };
        // TPMA_OBJECT stands behind two algorithms: without fixedTPM and fixedParent the key could be taken elsewhere.
        certified.object.0[7] &= !0x12;
    });
    assert!(
        refused(&forged, &trusting).starts_with("the attributes of the object are 0x00040460"),
        "{}",
        refused(&forged, &trusting)
    );
    assert_eq!(
        refused(&forger.forge(&genuine, |_| ()), &trusting),
        "the public area of the attestation key is that of another one",
    );
    let restricted = forger.forge(&genuine, |one| {
        let Evidence::Tpm(certified) = &mut one.evidence else { panic!() };
        certified.signer = certified.object.clone();
    });
    assert_eq!(refused(&restricted, &trusting), "the attestation key is none that signs only what its TPM says");
    no_byte_can_be_changed(&genuine, &key);
    no_byte_can_be_changed(&codes, &key);
}

#[tokio::test]
async fn foreign_judges_read_what_the_command_line_writes() {
    let mut t = TestServer::with(Devices::WithTpm).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let in_tpm = CreateKey { device: Some("tpm".parse().unwrap()), ..new_key("in-tpm", "rsa2048-pss-sha256") };
    t.client.create_key(&in_tpm).await.unwrap();
    t.client.create_key(&wanted("in-token", "ecdsa-p256-sha256", Residency::Wrapped)).await.unwrap();
    let asked = nonce(9).to_string();
    for (key, device) in [("in-token", "hsm"), ("in-tpm", "tpm")] {
        std::fs::write(file(&format!("{key}.pem")), pinned(&t, device).to_pem().unwrap()).unwrap();
        let out = file(&format!("{key}.attestation"));
        run(Some(&t), &["key", "attest", key, "--nonce", &asked, "--out", &out], 0).await;
        let pem = file(&format!("{key}.pem"));
        let verify = ["attest", "verify", &out, "--attestation-key", &pem, "--name", key, "--nonce", &asked];
        let said = run(Some(&t), &verify, 0).await;
        assert!(said.contains("the nonce that was asked with") && said.contains("not proven: that"), "{said}");
        let other = nonce(1).to_string();
        let wrong = ["attest", "verify", &out, "--attestation-key", &pem, "--nonce", &other];
        assert!(run(Some(&t), &wrong, 6).await.contains("error: the nonce is another one"), "{key}");
        if let Some(python) = crate::judges::judge("python") {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/attestation_judge.py");
            let judged =
                std::process::Command::new(python).args([script.to_str().unwrap(), &out, &pem]).output().unwrap();
            let text = String::from_utf8_lossy(&judged.stdout).into_owned() + &String::from_utf8_lossy(&judged.stderr);
            assert!(judged.status.success() && text.contains("holds"), "{text}");
        }
    }
    // tpm2-tools read the structure.
    let attestation = said(&t.client, "in-tpm", None).await;
    let binding = hex::encode(attestation.claim.binding().unwrap());
    let Evidence::Tpm(certified) = attestation.evidence else { panic!("not a TPM's") };
    std::fs::write(file("attest"), &certified.attest.0).unwrap();
    let print = std::process::Command::new("tpm2_print").args(["-t", "TPMS_ATTEST", &file("attest")]).output();
    match print {
        Ok(print) => {
            let text = String::from_utf8_lossy(&print.stdout).into_owned();
            assert!(text.contains("type: 8017") && text.contains(&format!("extraData: {binding}")), "{text}");
        }
        Err(_) => crate::skip::skipped("no tpm2_print; it is in Debian's tpm2-tools"),
    }
    t.stop().await;
}

/// What the program says, on both outputs.
pub(crate) async fn run(t: Option<&TestServer>, words: &[&str], code: i32) -> String {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(words);
    if let Some(t) = t {
        command.env("SIGNET_SERVER", format!("https://{}", t.server().address()));
        command.env("SIGNET_CA", t.server().own_authority().unwrap()).env("SIGNET_TOKEN", t.token());
    }
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
    text
}

#[tokio::test]
async fn an_older_installation_is_upgraded() {
    let mut t = TestServer::start().await;
    t.stop().await;
    make_older(t.data(), &t.hsm).await;
    t.start_again().await.unwrap();
    // 1. It works without, and says what is missing.
    t.key("older", "ecdsa-p256-sha256").await;
    let none = t.client.attestation(&name("older"), None, None).await.unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);
    let none = t.client.attestation(&name("older"), None, Some(&nonce(1))).await.unwrap_err();
    assert!(none.kind() == Kind::Unsupported && none.mend().unwrap().contains("--upgrade"), "{none:?}");
    for algorithm in ["hpke-p256", "aes256-gcm"] {
        let wrapped = wanted(&format!("{algorithm}-wrapped"), algorithm, Residency::Wrapped);
        let error = t.client.create_key(&wrapped).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.public().contains("enrolled without a key-encryption key"), "{error:?}");
        assert!(error.public().contains("--upgrade"), "{error:?}");
        t.client.create_key(&wanted(algorithm, algorithm, Residency::Resident)).await.unwrap();
    }
    t.client.create_key(&wanted("code", "hmac-sha256", Residency::Wrapped)).await.unwrap();
    t.stop().await;
    // 2. Upgraded once; a second time there is nothing to do.
    let options = crate::server::options(&t.clock);
    let hsm: Name = "hsm".parse().unwrap();
    let made = signet::server::upgrade(&t.config, &options).await.unwrap();
    assert!(made.attestation_keys.contains(&hsm) && made.anchors.contains(&hsm), "{made:?}");
    assert!(made.key_encryption_keys.contains(&hsm), "{made:?}");
    assert_eq!(signet::server::upgrade(&t.config, &options).await.unwrap(), Default::default());
    // 3. New versions are attested, and the older one is for a nonce.
    t.start_again().await.unwrap();
    let expected = Expected::of(pinned(&t, "hsm"));
    t.key("newer", "ecdsa-p256-sha256").await;
    said(&t.client, "newer", None).await.verify(&expected).unwrap();
    said(&t.client, "older", Some(&nonce(1))).await.verify(&expected).unwrap();
    let status = t.client.status().await.unwrap();
    // What was wrapped before works on, and so does what could not be wrapped before.
    let mac = MakeMac { message: Base64(vec![1]) };
    t.client.mac(&name("code"), &mac).await.unwrap();
    for algorithm in ["hpke-p256", "aes256-gcm"] {
        let key = format!("{algorithm}-wrapped");
        t.client.create_key(&wanted(&key, algorithm, Residency::Wrapped)).await.unwrap();
        for key in [algorithm, &key] {
            let blob = t.client.wrap(&name(key), &plain(b"secret", &Context::default())).await.unwrap().ciphertext;
            let opened = t.client.unwrap(&name(key), &sealed(&blob, &Context::default())).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), b"secret");
        }
        said(&t.client, &key, None).await.verify(&expected).unwrap();
    }
    // The attestation key, the key of the log and two key-encryption keys of before it was made older are still in the token.
    let strange: Vec<_> = status.problems.iter().filter(|one| !one.contains("that no record names")).collect();
    assert!(strange.is_empty() && status.problems.len() == 4, "{:?}", status.problems);
}

/// Makes of an installation on SoftHSM that does not run one as it was before there were attestation keys and anchors,
/// and keys that agree, decrypt or encrypt.
pub(crate) async fn make_older(data: &Path, hsm: &SoftHsm) {
    make_older_with(data, hsm, Vec::new()).await;
}

/// The same, and writes these records as the service would.
pub(crate) async fn make_older_with(data: &Path, hsm: &SoftHsm, mut changes: Vec<Change>) {
    // 1. The file as it is vouched for, without what older ones do not have.
    let text = std::fs::read_to_string(data.join("root.json")).unwrap();
    let compact: String = text.lines().map(str::trim).collect::<String>().replace("\": ", "\":");
    let root: serde_json::Value = serde_json::from_str(&compact).unwrap();
    let members = [",\"attestation_key\":", ",\"anchors\":", ",\"log_ed25519\":"];
    let mut older = members.into_iter().fold(compact.clone(), without);
    for role in ["Agree", "Decrypt", "Cipher"] {
        let member = format!(",{{\"role\":\"{role}\"");
        if let Some(start) = older.find(&member) {
            let end = start + older[start..].find('}').unwrap() + 1;
            older.replace_range(start..end, "");
        }
    }
    let older_still: serde_json::Value = serde_json::from_str(&older).unwrap();
    assert!(older_still.get("anchors").is_none() && older_still["devices"]["hsm"].get("attestation_key").is_none());
    // 2. Unsealed as a start does.
    let identity: Identity = serde_json::from_value(root["devices"]["hsm"].clone()).unwrap();
    let settings = Settings::Pkcs11(hsm.settings());
    let worker = Worker::start("hsm", settings, Some(identity), PROGRAM.into(), Metrics::new());
    let key: KeyRef = serde_json::from_value(root["root_key"].clone()).unwrap();
    assert_eq!(key.algorithm, Algorithm::Aes256GcmDerived);
    let blob = STANDARD.decode(root["storage_key"].as_str().unwrap()).unwrap();
    let hash = Context::new([("signet".to_owned(), "storage key".to_owned())].into()).unwrap().hash();
    let (header, _) = Header::parse(&blob).unwrap();
    let mac = worker.use_key(&Arc::new(key), device_input(&header, &hash)).await.unwrap();
    let ikm: [u8; 32] = mac.expose().try_into().unwrap();
    let storage = StorageKey::try_from(open(&ikm, &blob, &hash).unwrap()).unwrap();
    worker.shutdown().await;
    // 3. The store vouches for the older file.
    let store: Arc<dyn Store> = Arc::new(Sealed::new(Sqlite::open(&data.join("signet.db")).unwrap(), storage));
    let origin = Origin::of_instance(root["instance"].as_str().unwrap()).unwrap();
    let log = Arc::new(Log::open(LogSettings::new(data.join("audit"), origin), None).unwrap().log);
    let (ledger, _) = Ledger::open(store, log, Clock::System, Anchors::none()).await.unwrap();
    let vouching =
        Change { path: "house/root".to_owned(), expected: Was::Any, value: Some(sha256(&[older.as_bytes()]).to_vec()) };
    let leaf = signet::audit::Record::of(
        &Caller::system("test", "test"),
        Action::Start,
        &Resource::Service,
        signet::audit::Phase::Change,
    );
    changes.push(vouching);
    ledger.commit(leaf, changes).await.unwrap();
    std::fs::write(data.join("root.json"), older).unwrap();
}

/// The text without a member and its value, which is an object or a list.
fn without(text: String, member: &str) -> String {
    let Some(start) = text.find(member) else { return text };
    let (mut depth, mut end) = (0, start + member.len());
    loop {
        match text.as_bytes()[end] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        end += 1;
        if depth == 0 {
            return format!("{}{}", &text[..start], &text[end..]);
        }
    }
}
