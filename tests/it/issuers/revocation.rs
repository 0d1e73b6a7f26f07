//! Certificates and issuers that are revoked or compromised.

use super::*;

#[tokio::test]
async fn a_revocation_of_all_that_is_sent_twice_happens_once() {
    let t = TestServer::start().await;
    root(&t, "ca").await;
    server(&t, "ca", "dns:a.example").await;
    let revoke = async |body: &str| t.post(t.token(), "k1", "issuers/ca/revoke", body).await;
    let first = revoke("{}").await;
    let later = server(&t, "ca", "dns:b.example").await;
    assert_eq!(revoke("{}").await, first);
    assert_eq!(t.client.certificate(&later.serial).await.unwrap().revoked, None);
    assert_eq!(revoke(r#"{"reason":"superseded"}"#).await.0, 409);
}

#[tokio::test]
async fn certificates_are_revoked_by_policy_by_key_and_all_at_once() {
    let t = TestServer::start().await;
    let root = root(&t, "ca").await;
    let name = "ca".parse().unwrap();
    let page = PageRequest::default();
    // 1. By policy; a second time changes nothing.
    let one = server(&t, "ca", "dns:a.example").await;
    let why = RevokeCertificate { reason: Some("superseded".to_owned()), proof: None };
    let revoked = t.client.revoke(&one.serial, &why).await.unwrap();
    assert_eq!(revoked.reason.as_deref(), Some("superseded"));
    t.clock.advance(SignedDuration::from_secs(60));
    let again = t.client.revoke(&one.serial, &RevokeCertificate::default()).await.unwrap();
    assert_eq!((again.revoked, again.reason), (revoked.revoked, revoked.reason));
    // 2. By its key, by somebody whom no policy lets do anything.
    let body = signet::wire::CreateToken { identity: "nobody".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let nobody = t.client(Some(&t.client.create_token(&body).await.unwrap().token.unwrap().0));
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let wanted_ =
        CertificateWanted { csr: Some(csr), names: vec!["dns:b.example".into()], ..CertificateWanted::default() };
    let two = issue(&t, "ca", wanted_).await.unwrap();
    let prove = |key: &KeyPair, serial: &str| {
        use rcgen::SigningKey;
        let message = format!("signet revoke v1\ndefault:ca\n{serial}\nkey-compromise\n");
        RevokeCertificate {
            reason: Some("key-compromise".to_owned()),
            proof: Some(signet::wire::Base64(key.sign(message.as_bytes()).unwrap())),
        }
    };
    let refused = nobody.revoke(&two.serial, &RevokeCertificate::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound, "{refused}");
    let other = KeyPair::generate().unwrap();
    assert_eq!(nobody.revoke(&two.serial, &prove(&other, &two.serial)).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(nobody.revoke(&two.serial, &prove(&key, &one.serial)).await.unwrap_err().kind(), Kind::NotFound);
    let revoked = nobody.revoke(&two.serial, &prove(&key, &two.serial)).await.unwrap();
    assert_eq!(revoked.reason.as_deref(), Some("key-compromise"));
    // 3. What is left, all at once.
    let three = server(&t, "ca", "dns:c.example").await;
    let count = t.client.revoke_all(&name, &RevokeCertificates::default()).await.unwrap();
    assert_eq!(count.revoked, 1, "the third, and not the root itself");
    let all = t.client.certificates(&CertificateQuery::default(), &page).await.unwrap().items;
    assert!(all.iter().all(|one| one.revoked.is_some() == (one.profile == "default:server")));
    assert_eq!(t.server().service().authority().revoked(&name, three.version, t.clock_now()).len(), 3);
    assert_eq!(t.client.certificate(&"0".repeat(40)).await.unwrap_err().kind(), Kind::NotFound);
    drop(root);
}

/// What is being signed at that moment is meant, too.
#[tokio::test]
async fn all_are_revoked_and_those_that_are_being_signed() {
    let t = TestServer::with(Devices::WithTpm).await;
    let name = "ca".parse().unwrap();
    t.client.create_issuer(&new_issuer("ca", "tpm", "ecdsa-p256-sha256")).await.unwrap();
    let first = server(&t, "ca", "dns:a.example").await;
    let tpm = t.tpm.as_ref().unwrap();
    tpm.freeze();
    let late = issue(&t, "ca", wanted("dns:b.example"));
    let revoking = async {
        let query = CertificateQuery { name: Some("dns:b.example".to_owned()), ..CertificateQuery::default() };
        eventually("it is being signed", async || {
            let found = t.client.certificates(&query, &PageRequest::default()).await.unwrap().items;
            found.first().filter(|one| one.state == "reserved").map(drop)
        })
        .await;
        let whole = RevokeCertificates::default();
        let thaw = async {
            eventually("the first pass is over", async || t.client.certificate(&first.serial).await.unwrap().revoked)
                .await;
            tpm.thaw();
        };
        tokio::join!(t.client.revoke_all(&name, &whole), thaw).0.unwrap()
    };
    let (late, count) = tokio::join!(late, revoking);
    let late = t.client.certificate(&late.unwrap().serial).await.unwrap();
    assert!(late.state == "issued" && late.revoked.is_some());
    assert_eq!(count.revoked, 2);
    server(&t, "ca", "dns:c.example").await;
    assert_eq!(t.server().service().authority().revocations(&name, first.version), 2, "what came later is not meant");
}

/// What a root takes back, nobody below it can hand out.
#[tokio::test]
async fn a_revoked_intermediate_issues_no_more() {
    let t = TestServer::start().await;
    let root = root(&t, "root").await;
    below(&t, "middle", "root", "hsm", "ecdsa-p256-sha256").await;
    below(&t, "low", "middle", "hsm", "ecdsa-p256-sha256").await;
    t.server().service().revocation_status().tick().await;
    let count = t.client.revoke_all(&"root".parse().unwrap(), &RevokeCertificates::default()).await.unwrap();
    assert_eq!(count.revoked, 1, "that of the intermediate: neither the root's own nor its responder's");
    for issuer in ["middle", "low"] {
        let refused = issue(&t, issuer, wanted("dns:a.example")).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::State, "{refused}");
        assert!(refused.public().contains("issuer default:middle"), "{refused}");
    }
    let mut more = new_issuer("more", "hsm", "ecdsa-p256-sha256");
    more.parent = Some("middle".parse().unwrap());
    assert_eq!(t.client.create_issuer(&more).await.unwrap_err().kind(), Kind::State);
    // The root goes on: with its list, which does not name it, openssl verifies what it signs.
    let leaf = server(&t, "root", "dns:b.example").await;
    t.clock.advance(SignedDuration::from_secs(60));
    t.server().service().revocation_status().tick().await;
    let list = t.server().service().revocation_status().list(&"root".parse().unwrap(), leaf.version).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("root.pem"), pem(&root)).unwrap();
    std::fs::write(at("leaf.pem"), leaf.certificate.as_deref().unwrap()).unwrap();
    std::fs::write(at("list.der"), &list.bytes).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["crl", "-inform", "DER", "-in", "list.der", "-out", "list.pem"]);
    run(&["verify", "-x509_strict", "-crl_check_all", "-CAfile", "root.pem", "-CRLfile", "list.pem", "leaf.pem"]);
    // A new version of the intermediate issues again.
    let name = "middle".parse().unwrap();
    let rotated = t.client.rotate_issuer(&name, &RotateIssuer::default()).await.unwrap();
    let body = ActivateIssuer { version: rotated.versions[1].version };
    t.client.activate_issuer(&name, &body).await.unwrap();
    holds(&root, &server(&t, "middle", "dns:a.example").await);
}

/// Whoever has the key of an authority signs whatever they like: nothing below it is told to be good.
#[tokio::test]
async fn a_compromised_issuer_is_trusted_no_more() {
    let mut t = TestServer::start().await;
    let root = root(&t, "root").await;
    let (name, key) = ("root".parse().unwrap(), "root".parse().unwrap());
    let leaf = server(&t, "root", "dns:a.example").await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("root.pem"), pem(&root)).unwrap();
    std::fs::write(at("leaf.pem"), leaf.certificate.as_deref().unwrap()).unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").arg("ocsp").args(arguments).current_dir(folder.path()).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    openssl(&["-issuer", "root.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", "request"]);
    let told = async |t: &TestServer| {
        let service = t.server().service();
        service.revocation_status().tick().await;
        let answer = service.certificate_status(&name, &std::fs::read(at("request")).unwrap()).await.unwrap();
        let bytes = match answer {
            signet::service::StatusAnswer::Lasting(published) => published.bytes,
            signet::service::StatusAnswer::Once(bytes) => bytes,
        };
        std::fs::write(at("answer"), bytes).unwrap();
        openssl(&["-respin", "answer", "-issuer", "root.pem", "-cert", "leaf.pem", "-CAfile", "root.pem", "-no_nonce"])
    };
    assert!(told(&t).await.contains("leaf.pem: good"));
    assert_eq!(t.server().service().authority().bundle(&name).unwrap().certificates.len(), 1);
    t.client.change_version(&key, root.versions[0].version, signet::client::Transition::Compromise).await.unwrap();
    // 1. OCSP takes back what it said; the bundle and the API have no such version.
    let said = told(&t).await;
    assert!(said.contains("leaf.pem: revoked") && said.contains("Reason: cACompromise"), "{said}");
    assert!(t.server().service().authority().bundle(&name).unwrap().certificates.is_empty());
    let shown = t.client.issuer(&name).await.unwrap();
    assert_eq!((shown.active, shown.versions[0].state.as_str()), (None, "compromised"));
    let reason = t.client.certificate(&leaf.serial).await.unwrap().reason;
    assert_eq!(reason.as_deref(), Some("ca-compromise"));
    // 2. It issues nothing, no number is lost by trying, and the operator is told.
    let refused = issue(&t, "root", wanted("dns:b.example")).await.unwrap_err();
    assert!(refused.kind() == Kind::State && refused.public().contains("compromised"), "{refused}");
    let all = t.client.certificates(&CertificateQuery::default(), &PageRequest::default()).await.unwrap().items;
    assert!(all.iter().all(|one| one.state == "issued"));
    let problems = t.client.status().await.unwrap().problems;
    assert!(problems.iter().any(|one| one.contains("issuer default:root cannot issue")), "{problems:?}");
    // 3. The next version takes over, alone, after a restart as well.
    let rotated = t.client.rotate_issuer(&name, &RotateIssuer::default()).await.unwrap();
    let body = ActivateIssuer { version: rotated.versions[1].version };
    let new = t.client.activate_issuer(&name, &body).await.unwrap();
    holds(&new, &server(&t, "root", "dns:b.example").await);
    assert_eq!(t.server().service().authority().bundle(&name).unwrap().certificates.len(), 1);
    assert!(t.client.status().await.unwrap().problems.is_empty());
    // 4. Its responder speaks until its certificate is over, through a restart; its key signs no other one, and nobody is told to come again.
    t.clock.advance(SignedDuration::from_hours(6 * 24));
    t.restart().await;
    let said = told(&t).await;
    assert!(said.contains("Reason: cACompromise"), "{said}");
    t.clock.advance(SignedDuration::from_hours(2 * 24));
    let said = told(&t).await;
    assert!(said.contains("Responder Error: unauthorized (6)"), "{said}");
}
