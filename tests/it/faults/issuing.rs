//! A device on a bad day while it signs for an issuer: no certificate leaves that the inventory does not know, no serial number
//! stands in two, and what a relying party gets is right or asks it to come again.

use std::collections::BTreeSet;

use signet::client::{CertificateQuery, PageRequest};
use signet::error::Kind;
use signet::wire::{Certificate, IssueCertificate};

use crate::issuers::wanted;
use crate::process::eventually;
use crate::revocation::Scene;
use crate::server::Devices;

/// What the sign call does: for one call, which the service may make good by itself, and for as long as the plan holds.
const PLANS: &[&str] = &[
    "C_Sign pre=0x30 once",
    "C_Sign pre=0x30",
    "C_Sign post=0x30 once",
    "C_Sign post=0x30",
    "C_Sign flip once",
    "C_Sign flip",
    "C_Sign empty once",
    "C_Sign empty",
    "C_Sign hang once",
    "C_Sign abort once",
    "C_Sign abort_after once",
    "C_Sign abort_after",
];

async fn inventory(scene: &Scene) -> Vec<Certificate> {
    let query = CertificateQuery { issuer: Some("fleet".parse().unwrap()), ..CertificateQuery::default() };
    let page = PageRequest { size: Some(1000), token: None };
    scene.t.client.certificates(&query, &page).await.unwrap().items
}

async fn sound(scene: &Scene) {
    scene.t.hsm.plan("");
    eventually("the device is sound", async || scene.t.client(None).ready().await.ok()).await;
}

#[tokio::test]
async fn a_certificate_is_issued_once_whatever_the_device_does() {
    let scene = Scene::on(Devices::Faulty).await;
    let (mut good_at_once, mut failed) = (0, 0);
    for (number, plan) in PLANS.iter().enumerate() {
        eventually("the device is sound", async || scene.t.client(None).ready().await.ok()).await;
        let name = format!("dns:h{number}.example");
        let body = IssueCertificate { profile: "server".parse().unwrap(), request: wanted(&name) };
        let body = serde_json::to_string(&body).unwrap();
        let ask = async || scene.t.post(scene.t.token(), &format!("try-{number}"), "issuers/fleet/issue", &body).await;
        // 1. A certificate, or an error that says to come again.
        scene.t.hsm.plan(&format!("{plan}\n"));
        let (status, text) = ask().await;
        match status {
            201 => good_at_once += 1,
            429 | 500 | 502 | 503 | 504 => failed += 1,
            _ => panic!("{plan}: {status} {text}"),
        }
        // 2. The same request gets that certificate, or one now.
        sound(&scene).await;
        let (again, certificate) = ask().await;
        assert_eq!(again, 201, "{plan}: {certificate}");
        let certificate: Certificate = serde_json::from_str(&certificate).unwrap();
        if status == 201 {
            let first: Certificate = serde_json::from_str(&text).unwrap();
            assert_eq!(first.certificate, certificate.certificate, "{plan}");
        }
        // 3. It is the only one with this name that was signed; what was lost on the way counts as revoked.
        let all: Vec<_> = inventory(&scene).await.into_iter().filter(|one| one.names == [name.clone()]).collect();
        let signed: Vec<_> = all.iter().filter(|one| one.state == "issued").collect();
        assert_eq!(signed.len(), 1, "{plan}: {all:?}");
        assert_eq!((&signed[0].serial, &signed[0].certificate), (&certificate.serial, &certificate.certificate));
        let lost = all.iter().filter(|one| one.state != "issued");
        assert!(lost.clone().all(|one| one.state == "lost" && one.revoked.is_some()), "{plan}: {all:?}");
        scene.put("leaf.pem", certificate.certificate.as_deref().unwrap().as_bytes());
        let (good, said) = scene.openssl("verify -CAfile root.pem -untrusted fleet.pem leaf.pem").await;
        assert!(good, "{plan}: {said}");
    }
    let all = inventory(&scene).await;
    let serials: BTreeSet<_> = all.iter().map(|one| &one.serial).collect();
    assert_eq!(serials.len(), all.len(), "a serial number was used twice");
    let lost = all.iter().filter(|one| one.state == "lost").count();
    assert!(failed >= 4 && lost >= 4, "{failed} failed, {lost} lost");
    println!(
        "{} plans: {good_at_once} made good at once, {failed} failed and issued later, {lost} serials lost",
        PLANS.len()
    );
}

#[tokio::test]
async fn a_batch_under_faults_gives_certificates_that_verify_or_errors() {
    let scene = Scene::on(Devices::Faulty).await;
    // Never two in a row: whoever falsifies two answers alike is no fault any more.
    let plan: String = (0..40).map(|block| format!("C_Sign after={} count=1 flip\n", block * 7 + 3)).collect();
    scene.t.hsm.plan(&plan);
    let impatient = scene.t.impatient_client();
    let (mut issued, mut failed) = (Vec::new(), 0);
    for round in 0..5 {
        let items = (0..20).map(|number| wanted(&format!("dns:h{number}.r{round}.example"))).collect();
        let body = signet::wire::IssueCertificates { profile: "server".parse().unwrap(), items };
        match impatient.issue_batch(&"fleet".parse().unwrap(), &body).await {
            Ok(results) => {
                for one in results.results {
                    match (one.ok, one.error) {
                        (Some(certificate), None) => issued.push(certificate),
                        (None, Some(error)) => {
                            let codes = ["tampered", "unavailable", "internal", "busy"];
                            assert!(codes.contains(&error.code.as_str()), "{error:?}");
                            failed += 1;
                        }
                        both => panic!("{both:?}"),
                    }
                }
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), Kind::Tampered | Kind::Unavailable | Kind::Internal | Kind::Busy),
                    "{error:?}"
                );
                failed += 20;
            }
        }
    }
    sound(&scene).await;
    let known = inventory(&scene).await;
    for certificate in &issued {
        let own = known.iter().find(|one| one.serial == certificate.serial).expect("it is in the inventory");
        assert_eq!((own.state.as_str(), &own.certificate), ("issued", &certificate.certificate));
        scene.put("leaf.pem", certificate.certificate.as_deref().unwrap().as_bytes());
        let (good, said) = scene.openssl("verify -CAfile root.pem -untrusted fleet.pem leaf.pem").await;
        assert!(good, "{said}");
    }
    let serials: BTreeSet<_> = known.iter().map(|one| &one.serial).collect();
    assert_eq!(serials.len(), known.len());
    assert!(!issued.is_empty() && failed > 0, "{} issued, {failed} failed", issued.len());
}

#[tokio::test]
async fn what_tells_of_revocation_is_right_or_asks_to_come_again() {
    let scene = Scene::on(Devices::Faulty).await;
    scene.list("root", 1).await;
    scene.list("fleet", 1).await;
    let mut later = 0;
    for (number, plan) in PLANS.iter().enumerate() {
        eventually("the device is sound", async || scene.t.client(None).ready().await.ok()).await;
        let file = format!("leaf{number}.pem");
        let leaf = scene.leaf(&file, &format!("dns:h{number}.example")).await;
        assert!(scene.ocsp(&file).await.unwrap().contains("good"));
        scene.revoke(&leaf).await;
        // 1. While the device fails: a list that verifies, be it the old one, and no answer that says the certificate were good.
        scene.t.hsm.plan(&format!("{plan}\n"));
        scene.next_list("fleet", 1).await;
        let (good, said) = scene.openssl("crl -in fleet.crl -CAfile fleet.pem -verify -noout").await;
        assert!(good && said.contains("verify OK"), "{plan}: {said}");
        match scene.ocsp(&file).await {
            Some(said) => assert!(said.contains("revoked"), "{plan}: {said}"),
            None => later += 1,
        }
        // 2. Afterwards both say it.
        sound(&scene).await;
        assert!(scene.ocsp(&file).await.unwrap().contains("revoked"), "{plan}");
        scene.next_list("fleet", 1).await;
        let (good, said) = scene.verify(&file).await;
        assert!(!good && said.contains("certificate revoked"), "{plan}: {said}");
    }
    assert!(later >= 3, "only {later} answers were put off");
}
