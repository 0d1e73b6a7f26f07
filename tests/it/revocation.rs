//! What relying parties are told of revocation by a whole server, judged by OpenSSL, rustls-webpki and pkilint.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::SignedDuration;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use signet::client::{CertificateQuery, PageRequest};
use signet::types::Distribution;
use signet::wire::{ActivateIssuer, Certificate, IssuerRules, RevokeCertificate, RotateIssuer, UpdateIssuer};

use crate::issuers::{new_issuer, root, server};
use crate::pkilint::{Subject, pkilint};
use crate::server::{Devices, TestServer};

/// Where certificates say that lists are; they are fetched from the server itself.
const URL: &str = "http://pki.example";

/// A server with a root and `fleet` below it, and whoever checks their certificates.
pub(crate) struct Scene {
    pub(crate) t: TestServer,
    folder: tempfile::TempDir,
    asked: AtomicUsize,
}

impl Scene {
    pub(crate) async fn on(devices: Devices) -> Self {
        let t = TestServer::configured(devices, |config| config.pki.url = Some(URL.to_owned())).await;
        root(&t, "root").await;
        let mut below = new_issuer("fleet", "hsm", "ecdsa-p256-sha256");
        below.parent = Some("root".parse().unwrap());
        t.client.create_issuer(&below).await.unwrap();
        let scene = Self { t, folder: tempfile::tempdir().unwrap(), asked: AtomicUsize::new(0) };
        for issuer in ["root", "fleet"] {
            let certificate = scene.t.client.issuer(&issuer.parse().unwrap()).await.unwrap().versions.remove(0);
            scene.put(&format!("{issuer}.pem"), certificate.certificate.unwrap().as_bytes());
        }
        scene
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    pub(crate) async fn leaf(&self, file: &str, name: &str) -> Certificate {
        let made = server(&self.t, "fleet", name).await;
        self.put(file, made.certificate.as_deref().unwrap().as_bytes());
        made
    }

    async fn fetch(&self, path: &str) -> (u16, Vec<u8>) {
        let url = format!("https://{}/pki/default/{path}", self.t.server().address());
        let answer = self.t.http().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    /// Fetches a list, and leaves it in PEM beside the certificates.
    pub(crate) async fn list(&self, issuer: &str, version: u32) -> Vec<u8> {
        let (status, der) = self.fetch(&format!("{issuer}/{version}.crl")).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&der));
        let pem = der::pem::encode_string("X509 CRL", der::pem::LineEnding::LF, &der).unwrap();
        self.put(&format!("{issuer}.crl"), pem.as_bytes());
        der
    }

    /// The list of a version after the scheduler has looked.
    pub(crate) async fn next_list(&self, issuer: &str, version: u32) -> Vec<u8> {
        self.t.clock.advance(SignedDuration::from_secs(11));
        self.t.server().service().revocation_status().tick().await;
        self.list(issuer, version).await
    }

    pub(crate) async fn openssl(&self, words: &str) -> (bool, String) {
        let (folder, words) = (self.folder.path().to_owned(), words.to_owned());
        let run = move || {
            let done = Command::new("openssl").current_dir(folder).args(words.split_whitespace()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            (done.status.success(), said)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// Whether a certificate counts by the lists that were fetched: its own alone, and all.
    pub(crate) async fn verify(&self, file: &str) -> (bool, String) {
        let files = "-CAfile root.pem -untrusted fleet.pem -CRLfile fleet.crl -CRLfile root.crl";
        let (own, said) = self.openssl(&format!("verify -crl_check {files} {file}")).await;
        let (all, more) = self.openssl(&format!("verify -crl_check_all {files} {file}")).await;
        assert_eq!(own, all, "{said}{more}");
        (own, said + &more)
    }

    /// What openssl says of an OCSP answer, or nothing where there is no answer but a failure.
    pub(crate) async fn ocsp(&self, file: &str) -> Option<String> {
        // Several may ask at once.
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (asked, said) =
            self.openssl(&format!("ocsp -no_nonce -issuer fleet.pem -cert {file} -reqout {number}.req")).await;
        assert!(asked, "{said}");
        let url = format!("https://{}/pki/default/fleet/ocsp", self.t.server().address());
        let body = std::fs::read(self.folder.path().join(format!("{number}.req"))).unwrap();
        let request = self.t.http().post(url).header("content-type", "application/ocsp-request").body(body);
        let answer = request.send().await.unwrap().bytes().await.unwrap();
        if answer.len() == 5 {
            // internalError or tryLater: both say that it is to be asked again.
            assert!(matches!(answer[..], [0x30, 3, 0x0a, 1, 2 | 3]), "{answer:?}");
            return None;
        }
        self.put(&format!("{number}.answer"), &answer);
        let files =
            format!("-issuer fleet.pem -cert {file} -CAfile root.pem -verify_other fleet.pem -respin {number}.answer");
        let (_, said) = self.openssl(&format!("ocsp -no_nonce {files}")).await;
        assert!(said.contains("Response verify OK"), "{said}");
        Some(said)
    }

    pub(crate) async fn revoke(&self, certificate: &Certificate) {
        let body = RevokeCertificate { reason: Some("key-compromise".to_owned()), proof: None };
        self.t.client.revoke(&certificate.serial, &body).await.unwrap();
    }

    /// How many certificates the responders of `fleet` have.
    async fn responders(&self) -> usize {
        let query = CertificateQuery {
            issuer: Some("fleet".parse().unwrap()),
            profile: Some("[ocsp]".to_owned()),
            ..CertificateQuery::default()
        };
        self.t.client.certificates(&query, &PageRequest::default()).await.unwrap().items.len()
    }
}

fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

/// What rustls says of a certificate with lists for it and for what is above it.
fn rustls_says(scene: &Scene, leaf: &Certificate, name: &str, lists: &[Vec<u8>]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    let root = std::fs::read_to_string(scene.folder.path().join("root.pem")).unwrap();
    roots.add(CertificateDer::from(der(&root))).unwrap();
    let lists = lists.iter().map(|list| CertificateRevocationListDer::from(list.clone()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists).build().unwrap();
    let chain = CertificateDer::from(der(&leaf.chain));
    let own = CertificateDer::from(der(leaf.certificate.as_deref().unwrap()));
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(scene.t.clock_now().as_second()).unwrap(),
    ));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&own, &[chain], &name, &[], now).map(drop).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_new_issuer_answers_at_once_and_a_restart_makes_no_new_responder() {
    let mut scene = Scene::on(Devices::SoftHsm).await;
    scene.leaf("web.pem", "dns:web.example").await;
    // 1. Nobody has looked after it yet. Many ask at once, and one responder is made for them.
    let all = futures_util::future::join_all((0..8).map(|_| scene.ocsp("web.pem"))).await;
    assert!(all.iter().all(|said| said.as_ref().is_some_and(|said| said.contains("web.pem: good"))), "{all:?}");
    scene.list("fleet", 1).await;
    scene.list("root", 1).await;
    assert!(scene.verify("web.pem").await.0);
    assert_eq!(scene.responders().await, 1);
    assert_eq!(scene.fetch("fleet/2.crl").await.0, 404);
    // 2. After a restart it is the same one, with and without the scheduler.
    scene.t.restart().await;
    assert!(scene.ocsp("web.pem").await.unwrap().contains("web.pem: good"));
    scene.t.restart().await;
    scene.t.server().service().revocation_status().tick().await;
    assert_eq!(scene.responders().await, 1);
    // 3. Of a certificate that was revoked it is not used again; and half of its time later there is another one.
    scene.t.clock.advance(SignedDuration::from_hours(4 * 24));
    scene.t.restart().await;
    scene.t.server().service().revocation_status().tick().await;
    assert_eq!(scene.responders().await, 2);
}

#[tokio::test]
async fn lists_name_the_places_of_their_certificates() {
    let scene = Scene::on(Devices::SoftHsm).await;
    let (t, fleet) = (&scene.t, "fleet".parse().unwrap());
    let (web, gone) =
        (scene.leaf("web.pem", "dns:web.example").await, scene.leaf("gone.pem", "dns:gone.example").await);
    scene.revoke(&gone).await;
    // 1. The list of the intermediate names its place, that of the root, whose own certificate has none, names none.
    let root_list = scene.list("root", 1).await;
    let list = scene.next_list("fleet", 1).await;
    let text = async |name: &str| scene.openssl(&format!("crl -in {name}.crl -noout -text")).await.1;
    let said = text("fleet").await;
    assert!(
        said.contains("X509v3 Issuing Distribution Point: critical")
            && said.contains(&format!("{URL}/pki/default/fleet/1.crl")),
        "{said}"
    );
    assert!(!text("root").await.contains("Issuing Distribution Point"));
    // 2. Every judge takes the good one and refuses the revoked one.
    let (good, said) = scene.verify("web.pem").await;
    assert!(good, "{said}");
    let (good, said) = scene.verify("gone.pem").await;
    assert!(!good && said.contains("certificate revoked"), "{said}");
    let lists = [list.clone(), root_list.clone()];
    rustls_says(&scene, &web, "web.example", &lists).unwrap();
    let refused = rustls_says(&scene, &gone, "gone.example", &lists).unwrap_err();
    assert!(refused.contains("Revoked"), "{refused}");
    let subjects = [("fleet", &list), ("root", &root_list)];
    let subjects = subjects.map(|(name, list)| (name.to_owned(), Subject::List(list.clone())));
    if let Some(said) = pkilint(&subjects) {
        assert!(said.values().flatten().all(|complaint| !complaint.is_error()), "{said:?}");
    }
    // 3. Places that the rules name from now on are added; certificates of both kinds count by the one list.
    let places = |crl: Vec<String>| Distribution { crl, ocsp: vec![], issuer: vec![] };
    let change = async |distribution: Distribution| {
        let issuer = t.client.issuer(&fleet).await.unwrap();
        let rules = IssuerRules { distribution: Some(distribution), ..issuer.rules };
        let body = UpdateIssuer { enabled: None, rules: Some(rules) };
        t.client.update_issuer(&fleet, &issuer.etag, &body).await.unwrap();
    };
    change(places(vec!["http://other.example/{version}.crl".to_owned()])).await;
    let other = scene.leaf("other.pem", "dns:other.example").await;
    let both = scene.next_list("fleet", 1).await;
    let said = text("fleet").await;
    assert!(
        said.contains("http://other.example/1.crl") && said.contains(&format!("{URL}/pki/default/fleet/1.crl")),
        "{said}"
    );
    for (file, certificate, name) in [("web.pem", &web, "web.example"), ("other.pem", &other, "other.example")] {
        assert!(scene.verify(file).await.0);
        rustls_says(&scene, certificate, name, &[both.clone(), root_list.clone()]).unwrap();
    }
    // With the list from before it would not count.
    assert!(rustls_says(&scene, &other, "other.example", &lists).is_err());
    // 4. The list of another version says nothing of it.
    t.client.rotate_issuer(&fleet, &RotateIssuer::default()).await.unwrap();
    let version = signet::types::Version::new(2).unwrap();
    t.client.activate_issuer(&fleet, &ActivateIssuer { version }).await.unwrap();
    let newer = scene.leaf("newer.pem", "dns:newer.example").await;
    assert!(rustls_says(&scene, &newer, "newer.example", &[both, root_list.clone()]).is_err());
    let second = scene.next_list("fleet", 2).await;
    rustls_says(&scene, &newer, "newer.example", &[second, root_list]).unwrap();
    // 5. Where a certificate names no place, the list names none any more, for the sake of that one.
    change(places(vec![])).await;
    let bare = scene.leaf("bare.pem", "dns:bare.example").await;
    let bare_list = scene.next_list("fleet", 2).await;
    assert!(!text("fleet").await.contains("Issuing Distribution Point"));
    for (certificate, name) in [(&newer, "newer.example"), (&bare, "bare.example")] {
        rustls_says(&scene, certificate, name, &[bare_list.clone(), scene.list("root", 1).await]).unwrap();
    }
}
