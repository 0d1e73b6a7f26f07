//! A TPM with an endorsement certificate proves that an attestation key is in it; nobody else can.

use std::path::{Path, PathBuf};
use std::process::Command;

use signet::attestation::Attestation;
use signet::attestation::endorsement::Challenge;
use signet::device::Settings;
use signet::types::Name;

use super::run;
use crate::server::{Devices, TestServer, name, options};
use crate::swtpm::Swtpm;

/// A service on a TPM that a local authority certified.
struct Certified {
    t: TestServer,
    _tpm: Swtpm,
    folder: tempfile::TempDir,
    attestation: Attestation,
}

impl Certified {
    async fn start(authority: &Path) -> Self {
        let tpm = Swtpm::certified(authority);
        let settings = Settings::Tpm(tpm.settings(true));
        let mut t = TestServer::configured(Devices::Tpm, |config| {
            config.devices.insert("tpm".parse().unwrap(), settings);
        })
        .await;
        t.key("release", "ecdsa-p256-sha256").await;
        let text = t.client.attestation(&name("release"), None, None).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("attestation"), &text).unwrap();
        t.stop().await;
        let der = signet::server::endorsement(&t.config, &options(&t.clock), &tpm_name()).await.unwrap();
        std::fs::write(folder.path().join("ek.der"), der).unwrap();
        let attestation = Attestation::parse(text.as_bytes()).unwrap();
        let one = Self { t, _tpm: tpm, folder, attestation };
        one.openssl(&["x509", "-inform", "DER", "-in", &one.file("ek.der"), "-out", &one.file("ek.pem")]);
        let chain =
            [one.path("ek.pem"), authority.join("issuercert.pem")].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(one.path("chain.pem"), chain.concat()).unwrap();
        one
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn openssl(&self, words: &[&str]) {
        let output = Command::new("openssl").args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// `signet attest challenge`, with this chain and these roots.
    async fn challenge(&self, chain: &str, roots: &str, code: i32) -> String {
        let words =
            ["attest", "challenge", &self.file("attestation"), "--endorsement", chain, "--roots", roots, "--force"];
        let (secret, out) = (self.file("secret"), self.file("challenge"));
        run_offline(&[&words[..], &["--secret", &secret, "--out", &out]].concat(), code).await
    }

    async fn answer(&self, challenge: &[u8]) -> signet::error::Result<()> {
        let challenge = Challenge::parse(challenge).unwrap();
        let answered = signet::server::answer(&self.t.config, &options(&self.t.clock), &tpm_name(), &challenge).await?;
        std::fs::write(self.path("answer"), serde_json::to_vec(&answered).unwrap()).unwrap();
        Ok(())
    }

    async fn accept(&self, answer: &str, code: i32) -> String {
        let words =
            ["attest", "accept", answer, "--secret", &self.file("secret"), "--force", "--out", &self.file("trust")];
        run_offline(&words, code).await
    }
}

fn tpm_name() -> Name {
    "tpm".parse().unwrap()
}

async fn run_offline(words: &[&str], code: i32) -> String {
    run(None, words, code).await
}

#[tokio::test]
async fn a_tpm_proves_that_its_attestation_key_is_in_it() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = Certified::start(ours.path()).await;
    let (sister, stranger) = (Certified::start(ours.path()).await, Certified::start(theirs.path()).await);
    let root = |folder: &tempfile::TempDir| folder.path().join("swtpm-localca-rootca-cert.pem").display().to_string();
    let (ours, theirs) = (root(&ours), root(&theirs));
    // 1. OpenSSL follows the chain as we do.
    one.openssl(&["verify", "-CAfile", &ours, "-untrusted", &one.file("chain.pem"), &one.file("ek.pem")]);
    let said = one.challenge(&one.file("chain.pem"), &ours, 0).await;
    assert!(said.contains("leads to"), "{said}");
    // 2. The TPM answers, and its attestation is trusted from then on.
    let challenge = std::fs::read(one.path("challenge")).unwrap();
    one.answer(&challenge).await.unwrap();
    one.accept(&one.file("answer"), 0).await;
    let verify = ["attest", "verify", &one.file("attestation"), "--trust", &one.file("trust")];
    let said = run_offline(&verify, 0).await;
    assert!(said.contains("is in the TPM of the endorsement certificate"), "{said}");
    // 3. Not by another TPM's word, nor by that of another one of the same maker.
    for other in [&sister, &stranger] {
        let verify = ["attest", "verify", &other.file("attestation"), "--trust", &one.file("trust")];
        assert!(run_offline(&verify, 6).await.contains("another one than was pinned"));
    }
    // The sister's endorsement key, asked about our attestation key: she has no such object.
    one.challenge(&sister.file("chain.pem"), &ours, 0).await;
    let mixed = std::fs::read(one.path("challenge")).unwrap();
    let refused = sister.answer(&mixed).await.unwrap_err();
    assert!(refused.mend().unwrap().contains("for another TPM"), "{refused:?}");
    // 4. A challenge that was changed anywhere is none; another one's answer neither.
    one.challenge(&one.file("chain.pem"), &ours, 0).await;
    let challenge = std::fs::read(one.path("challenge")).unwrap();
    let mut parsed = Challenge::parse(&challenge).unwrap();
    for at in [0, 1, 2, 20, 34, 35, 40, 67] {
        parsed.credential.0[at] ^= 1;
        assert!(one.answer(&serde_json::to_vec(&parsed).unwrap()).await.is_err(), "byte {at}");
        parsed.credential.0[at] ^= 1;
    }
    assert!(one.accept(&one.file("answer"), 6).await.contains("not the secret of this challenge"));
    one.answer(&challenge).await.unwrap();
    one.accept(&one.file("answer"), 0).await;
    // 5. Chains that do not hold, by name.
    assert!(one.challenge(&one.file("chain.pem"), &theirs, 6).await.contains("is not signed by"));
    assert!(one.challenge(&one.file("ek.pem"), &ours, 6).await.contains("leads to none of the roots"));
    let forged = forged_chain(&one);
    assert!(one.challenge(&forged, &ours, 6).await.contains("is not signed by"));
    let server = one.t.data().join("tls/ca.pem").display().to_string();
    let said = one.challenge(&server, &server, 6).await;
    assert!(said.contains("error: "), "{said}");
    assert_eq!(one.attestation.claim.key, name("release"));
    // 6. A seed for another endorsement key. This comes last: libtpms answers it by TPM_RC_FAILURE.
    for other in [&sister, &stranger] {
        assert!(other.answer(&challenge).await.is_err());
    }
    parsed.seed.0[100] ^= 1;
    assert!(one.answer(&serde_json::to_vec(&parsed).unwrap()).await.is_err());
}

/// The chain with another signature on the certificate of the endorsement key.
fn forged_chain(one: &Certified) -> String {
    let mut der = std::fs::read(one.path("ek.der")).unwrap();
    *der.last_mut().unwrap() ^= 1;
    std::fs::write(one.path("forged.der"), der).unwrap();
    one.openssl(&["x509", "-inform", "DER", "-in", &one.file("forged.der"), "-out", &one.file("forged.pem")]);
    let text = |name: &str| std::fs::read_to_string(one.path(name)).unwrap();
    let chain = text("chain.pem").replace(&text("ek.pem"), &text("forged.pem"));
    std::fs::write(one.path("forged.pem"), chain).unwrap();
    one.file("forged.pem")
}
