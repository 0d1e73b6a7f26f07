//! The service's own certificate comes from its own issuers, and nobody notices when it is exchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jiff::SignedDuration;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use signet::client::{CertificateQuery, PageRequest, Transition};
use signet::config::{Config, OwnCertificate};
use signet::error::Kind;
use signet::types::{Clock, Domain, ManualClock};
use signet::wire::{
    ActivateIssuer, Base64, Certificate, Policy, Profile, RevokeCertificate, RotateIssuer, RotateKey,
    ServerCertificate, Sign, UpdateIssuer,
};
use tokio::net::TcpStream;

use crate::issuers::{new_issuer, root};
use crate::process::{Installation, eventually};
use crate::server::{Devices, TestServer, name};

/// Asks for a certificate from `issuer`, in the configuration.
fn from(issuer: &str, profile: &str) -> impl FnOnce(&mut Config) {
    let (issuer, profile) = (issuer.parse().unwrap(), profile.parse().unwrap());
    move |config| {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        config.own_certificate = Some(OwnCertificate { issuer, profile, names, device: None });
    }
}

/// A root and an issuer below it.
async fn issuers(t: &TestServer) {
    root(t, "root").await;
    let mut below = new_issuer("ca", "hsm", "ecdsa-p256-sha256");
    below.parent = Some("root".parse().unwrap());
    t.client.create_issuer(&below).await.unwrap();
}

/// A client that believes what the server's clock says.
#[derive(Debug)]
struct ServerTime(ManualClock);

impl TimeProvider for ServerTime {
    fn current_time(&self) -> Option<UnixTime> {
        let now = Clock::Manual(self.0.clone()).now().as_second();
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.try_into().unwrap())))
    }
}

/// A TLS client that trusts what stands in `ca.pem` now.
fn tls_client(t: &TestServer) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for one in CertificateDer::pem_file_iter(t.server().own_authority().unwrap()).unwrap() {
        roots.add(one.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(ServerTime(t.clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Connects, judges, and answers the chain that the server sent.
async fn handshake(t: &TestServer, config: Arc<ClientConfig>) -> std::io::Result<Vec<Vec<u8>>> {
    let tcp = TcpStream::connect(t.server().address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    Ok(chain.iter().map(|one| one.to_vec()).collect())
}

/// The serial number of what the server shows to who trusts `ca.pem`, and how many certificates it sent.
async fn shown(t: &TestServer) -> (String, usize) {
    let chain = handshake(t, tls_client(t)).await.unwrap();
    let leaf = signet::x509::Certificate::parse(&chain[0]).unwrap();
    (leaf.serial().to_string(), chain.len())
}

async fn status(t: &TestServer) -> (ServerCertificate, Vec<String>) {
    let status = t.client.status().await.unwrap();
    (status.certificate.unwrap(), status.problems)
}

/// What the service asked for itself, newest first.
async fn own(t: &TestServer) -> Vec<Certificate> {
    let query = CertificateQuery { requester: Some("system/tls".to_owned()), ..CertificateQuery::default() };
    t.client.certificates(&query, &PageRequest::default()).await.unwrap().items
}

async fn revoke(t: &TestServer, serial: &str) {
    t.client.revoke(serial, &RevokeCertificate::default()).await.unwrap();
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn the_service_has_a_certificate_of_its_own_issuer_all_its_life() {
    let mut t = TestServer::configured(Devices::SoftHsm, from("ca", "server")).await;
    // 1. There is no issuer yet: the self-made certificate opens the door, and the status says what is missing.
    t.server().renew_certificate().await;
    let (certificate, problems) = status(&t).await;
    assert_eq!(certificate.source, "self-made");
    assert!(problems.iter().any(|one| one.contains("there is no issuer default:ca")), "{problems:?}");
    let self_made = shown(&t).await;
    assert_eq!(self_made.1, 1);
    // 2. Once it is there the service switches over, and who connected before goes on.
    let before = tls_client(&t);
    issuers(&t).await;
    t.server().renew_certificate().await;
    let (certificate, problems) = status(&t).await;
    assert_eq!((certificate.source.as_str(), problems.len()), ("issued", 0), "{problems:?}");
    let (first, sent) = shown(&t).await;
    assert_eq!((Some(&first), sent), (certificate.serial.as_ref(), 2));
    assert_eq!(certificate.names, ["dns:localhost", "ip:127.0.0.1"]);
    let entry = t.client.certificate(&first).await.unwrap();
    assert_eq!((entry.profile.as_str(), entry.requester.as_str()), ("default:server", "system/tls"));
    // A client that trusts the self-made authority alone has to be told of the other one.
    assert!(handshake(&t, before).await.is_err());
    let metrics = t.client.metrics().await.unwrap();
    assert!(metrics.contains("signet_own_certificate_ends_seconds{source=\"issued\"}"), "{metrics}");
    assert!(metrics.contains("signet_own_certificates_total{outcome=\"issued\"} 1"), "{metrics}");
    judged_by_openssl(&t, &[]).await;
    // 3. Neither a tick nor a restart asks for another one.
    t.server().renew_certificate().await;
    t.restart().await;
    t.server().renew_certificate().await;
    assert_eq!((shown(&t).await.0, own(&t).await.len()), (first.clone(), 1));
    // 4. Other names are another certificate.
    t.config.own_certificate.as_mut().unwrap().names.push("kms.example".to_owned());
    t.restart().await;
    assert_eq!(shown(&t).await.0, first);
    t.server().renew_certificate().await;
    let (certificate, _) = status(&t).await;
    assert!(certificate.names.contains(&"dns:kms.example".to_owned()), "{certificate:?}");
    let (second, _) = shown(&t).await;
    // 5. Around two thirds of its day it is renewed, and not before.
    t.clock.advance(hours(14));
    t.server().renew_certificate().await;
    assert_eq!(shown(&t).await.0, second);
    t.clock.advance(hours(3));
    t.server().renew_certificate().await;
    let (third, _) = shown(&t).await;
    assert_ne!(third, second);
    // 6. One that is revoked is replaced at once.
    revoke(&t, &third).await;
    t.server().renew_certificate().await;
    let (fourth, _) = shown(&t).await;
    assert!(fourth != third && own(&t).await.len() == 4);
    // 7. Without the wish the self-made one serves again, and nobody else is trusted.
    t.config.own_certificate = None;
    t.restart().await;
    assert_eq!(shown(&t).await, self_made);
    assert_eq!(anchors(&t), 1);
}

/// How many certificates clients on this machine trust.
fn anchors(t: &TestServer) -> usize {
    std::fs::read_to_string(t.server().own_authority().unwrap()).unwrap().matches("BEGIN").count()
}

/// openssl connects, with the trust that the server wrote down.
async fn judged_by_openssl(t: &TestServer, more: &[&str]) {
    let address = t.server().address().to_string();
    let trusted = t.server().own_authority().unwrap();
    let output = tokio::process::Command::new("openssl")
        .args([
            "s_client",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-x509_strict",
            "-connect",
            &address,
        ])
        .arg("-CAfile")
        .arg(trusted)
        .args(more)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("Verify return code: 0 (ok)"), "{said}");
}

#[tokio::test]
async fn a_rollover_of_its_issuers_does_not_break_it() {
    let t = TestServer::configured(Devices::SoftHsm, from("ca", "server")).await;
    issuers(&t).await;
    t.server().renew_certificate().await;
    let (first, _) = shown(&t).await;
    assert_eq!(anchors(&t), 2);
    for issuer in ["root", "ca"] {
        let issuer_name = issuer.parse().unwrap();
        let rotated = t.client.rotate_issuer(&issuer_name, &RotateIssuer::default()).await.unwrap();
        t.server().renew_certificate().await;
        // What is only prepared is trusted before it signs.
        assert_eq!((shown(&t).await.0, anchors(&t)), (first.clone(), 3), "{issuer}");
        let version = rotated.versions.last().unwrap().version;
        t.client.activate_issuer(&issuer_name, &ActivateIssuer { version }).await.unwrap();
        // Without another certificate the chain of the old one still leads up.
        assert_eq!(shown(&t).await.0, first, "{issuer}");
    }
    // A certificate of a retired version is replaced.
    t.server().renew_certificate().await;
    let (second, sent) = shown(&t).await;
    assert_eq!((second != first, sent), (true, 2));
    assert_eq!(t.client.certificate(&second).await.unwrap().version.number(), 2);
    // Where the key of the version that signed it is compromised, at once.
    let version = signet::types::Version::new(2).unwrap();
    t.client.rotate_issuer(&"ca".parse().unwrap(), &RotateIssuer::default()).await.unwrap();
    t.client
        .activate_issuer(&"ca".parse().unwrap(), &ActivateIssuer { version: signet::types::Version::new(3).unwrap() })
        .await
        .unwrap();
    t.client.change_version(&name("ca"), version, Transition::Compromise).await.unwrap();
    t.server().renew_certificate().await;
    let (third, _) = shown(&t).await;
    assert_eq!(t.client.certificate(&third).await.unwrap().version.number(), 3);
}

#[tokio::test]
async fn what_cannot_be_had_is_told_and_changes_nothing() {
    let mut t = TestServer::start().await;
    issuers(&t).await;
    let narrow = serde_json::json!({"kind": "server", "names": ["dns:*.example"]});
    let narrow = Profile { name: None, profile: narrow, built_in: false, etag: None };
    t.client.put_profile(&"narrow".parse().unwrap(), None, &narrow).await.unwrap();
    let rsa = serde_json::json!({"kind": "server", "names": ["dns:*", "ip:*"], "keys": ["rsa-2048"]});
    let rsa = Profile { name: None, profile: rsa, built_in: false, etag: None };
    t.client.put_profile(&"rsa".parse().unwrap(), None, &rsa).await.unwrap();
    // 1. Each kind of obstacle, each with its own words; the self-made certificate serves on.
    for (issuer, profile, words, tried) in [
        ("nobody", "server", "there is no issuer default:nobody", false),
        ("ca", "nobody", "there is no profile default:nobody", false),
        ("ca", "client", "is not for servers", false),
        ("ca", "intermediate", "is not for servers", false),
        ("ca", "rsa", "certifies no key that the server could have", false),
        ("ca", "narrow", "name", true),
    ] {
        from(issuer, profile)(&mut t.config);
        t.restart().await;
        t.server().renew_certificate().await;
        let (certificate, problems) = status(&t).await;
        assert_eq!(certificate.source, "self-made", "{issuer} {profile}");
        assert!(problems.iter().any(|one| one.contains(words)), "{issuer} {profile}: {problems:?}");
        let failed = t.client.metrics().await.unwrap().contains("own_certificates_total{outcome=\"failed\"} 1");
        assert_eq!(failed, tried, "{issuer} {profile}");
        shown(&t).await;
    }
    assert_eq!(own(&t).await.len(), 0);
    // 2. A policy of the administrator's stands above the house's own.
    let text = r#"forbid (principal == Signet::System::"tls", action == Signet::Action::"IssueCertificate", resource)
        when { context has name && context.name == "ip:127.0.0.1" };"#;
    let policy = Policy { name: None, text: text.to_owned(), etag: None };
    t.client.put_policy(&"no-tls".parse().unwrap(), None, &policy).await.unwrap();
    from("ca", "server")(&mut t.config);
    t.restart().await;
    t.server().renew_certificate().await;
    let (certificate, problems) = status(&t).await;
    assert_eq!(certificate.source, "self-made");
    assert!(problems.iter().any(|one| one.contains("no policy permits IssueCertificate")), "{problems:?}");
    // A failure is not tried again at each tick: after 5 s, then after 10 s more.
    t.client.delete_policy(&"no-tls".parse().unwrap()).await.unwrap();
    t.server().renew_certificate().await;
    assert_eq!(status(&t).await.0.source, "self-made");
    t.clock.advance(SignedDuration::from_secs(5));
    t.server().renew_certificate().await;
    assert_eq!(status(&t).await.0.source, "issued");
    let (first, _) = shown(&t).await;
    // 3. A stopped issuer: the old certificate serves to its end, then the self-made one, so that somebody can get in and mend it.
    let name = "ca".parse().unwrap();
    let etag = t.client.issuer(&name).await.unwrap().etag;
    let update = |enabled| UpdateIssuer { enabled: Some(enabled), rules: None };
    t.client.update_issuer(&name, &etag, &update(false)).await.unwrap();
    t.clock.advance(hours(18));
    t.server().renew_certificate().await;
    let (_, problems) = status(&t).await;
    assert!(problems.iter().any(|one| one.contains("is stopped")), "{problems:?}");
    assert_eq!(shown(&t).await.0, first);
    t.clock.advance(hours(7));
    t.server().renew_certificate().await;
    assert_eq!(status(&t).await.0.source, "self-made");
    shown(&t).await;
    let etag = t.client.issuer(&name).await.unwrap().etag;
    t.client.update_issuer(&name, &etag, &update(true)).await.unwrap();
    t.server().renew_certificate().await;
    let (certificate, problems) = status(&t).await;
    assert_eq!((certificate.source.as_str(), problems.len()), ("issued", 0), "{problems:?}");
    shown(&t).await;
}

#[tokio::test]
async fn the_device_of_its_issuer_may_fail_while_it_renews() {
    let t = TestServer::configured(Devices::Faulty, from("ca", "server")).await;
    issuers(&t).await;
    t.server().renew_certificate().await;
    let (first, _) = shown(&t).await;
    revoke(&t, &first).await;
    // 1. The device refuses: the old certificate serves on, and the serial number is lost and never used.
    t.hsm.plan("C_Sign pre=0x30\n");
    t.server().renew_certificate().await;
    assert_eq!(shown(&t).await.0, first);
    t.hsm.plan("");
    eventually("the device is sound", async || t.client(None).ready().await.ok()).await;
    let (certificate, problems) = status(&t).await;
    assert_eq!(certificate.serial, Some(first.clone()));
    assert!(problems.iter().any(|one| one.contains("no certificate for the service itself")), "{problems:?}");
    let tries = own(&t).await.len();
    // 2. A failure of the moment costs one step of the back-off.
    t.server().renew_certificate().await;
    assert_eq!(own(&t).await.len(), tries);
    // 3. The worker dies in the middle of the signature: another one takes over.
    t.clock.advance(SignedDuration::from_secs(5));
    t.hsm.plan("C_Sign once abort\n");
    t.server().renew_certificate().await;
    t.hsm.plan("");
    eventually("the device is sound", async || t.client(None).ready().await.ok()).await;
    t.clock.advance(SignedDuration::from_secs(300));
    t.server().renew_certificate().await;
    let (second, _) = shown(&t).await;
    assert_ne!(second, first);
    let all = own(&t).await;
    let mut serials: Vec<_> = all.iter().map(|one| one.serial.clone()).collect();
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), all.len());
    let issued = all.iter().filter(|one| one.state == "issued" && one.revoked.is_none()).count();
    assert_eq!(issued, 1, "{all:?}");
}

#[tokio::test]
async fn no_handshake_fails_while_certificates_are_exchanged() {
    let t = Arc::new(TestServer::configured(Devices::SoftHsm, from("ca", "server")).await);
    issuers(&t).await;
    t.server().renew_certificate().await;
    let (over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let config = tls_client(&t);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (t, config, over, seen) = (t.clone(), config.clone(), over.clone(), seen.clone());
            tokio::spawn(async move {
                let mut serials = std::collections::BTreeSet::new();
                while !over.load(Ordering::SeqCst) || seen.load(Ordering::SeqCst) < 200 {
                    let chain = handshake(&t, config.clone()).await.unwrap();
                    serials.insert(signet::x509::Certificate::parse(&chain[0]).unwrap().serial().to_string());
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                serials
            })
        })
        .collect();
    for _ in 0..8 {
        let before = status(&t).await.0.serial.unwrap();
        revoke(&t, &before).await;
        t.server().renew_certificate().await;
        assert_ne!(status(&t).await.0.serial.unwrap(), before);
    }
    over.store(true, Ordering::SeqCst);
    let mut serials = std::collections::BTreeSet::new();
    for client in clients {
        serials.extend(client.await.unwrap());
    }
    assert!(seen.load(Ordering::SeqCst) >= 200 && serials.len() > 4, "{serials:?}");
}

/// As [`from`], with its key in the token.
fn in_device(issuer: &str) -> impl FnOnce(&mut Config) {
    let plain = from(issuer, "server");
    move |config| {
        plain(config);
        config.own_certificate.as_mut().unwrap().device = Some("hsm".parse().unwrap());
    }
}

#[tokio::test]
async fn its_key_may_stay_in_a_device_and_signs_nothing_else() {
    let mut t = TestServer::configured(Devices::SoftHsm, in_device("ca")).await;
    issuers(&t).await;
    t.server().renew_certificate().await;
    let (first, _) = shown(&t).await;
    let (certificate, problems) = status(&t).await;
    assert_eq!((certificate.source.as_str(), problems.len()), ("issued", 0), "{problems:?}");
    // 1. The key is a key like others, of a domain that nobody can ask for, neither to make nor to sign.
    let key = t.client.key(&name("signet:tls.hsm")).await.unwrap();
    assert_eq!((key.domain, key.device.as_str()), (Some(Domain::Tls), "hsm"));
    let handshake_of_ours = [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat();
    for message in [&handshake_of_ours[..], b"anything else"] {
        let sign = Sign { message: Some(Base64(message.to_vec())), ..Sign::default() };
        assert_eq!(t.client.sign(&name("signet:tls.hsm"), &sign).await.unwrap_err().kind(), Kind::Invalid);
    }
    let mut another = crate::server::new_key("mine", "ecdsa-p256-sha256");
    another.domain = Some(Domain::Tls);
    assert_eq!(t.client.create_key(&another).await.unwrap_err().kind(), Kind::Invalid);
    // 2. openssl likes it, also where it has to be asked for another group first.
    judged_by_openssl(&t, &[]).await;
    judged_by_openssl(&t, &["-groups", "P-521:P-256"]).await;
    // 3. A restart goes on with it; a new version of the key is a new certificate, and the old one serves until then.
    t.restart().await;
    assert_eq!(shown(&t).await.0, first);
    t.client.rotate_key(&name("signet:tls.hsm"), &RotateKey::default()).await.unwrap();
    assert_eq!(shown(&t).await.0, first);
    t.server().renew_certificate().await;
    let (second, _) = shown(&t).await;
    assert_ne!(second, first);
    // 4. Back to a key in the store.
    t.config.own_certificate.as_mut().unwrap().device = None;
    t.restart().await;
    t.server().renew_certificate().await;
    let (third, _) = shown(&t).await;
    assert_ne!(third, second);
    // No handshake stands in the log, and the log is whole.
    let records = serde_json::to_string(&t.client.audit_records(0, Some(1000)).await.unwrap().records).unwrap();
    assert!(records.contains("signet:tls.hsm") && !records.contains("CertificateVerify"));
}

#[tokio::test]
async fn a_hung_device_costs_the_handshakes_that_need_it_and_nothing_else() {
    let t = TestServer::configured(Devices::FaultyWithTpm, in_device("ca")).await;
    issuers(&t).await;
    let mut other = crate::server::new_key("other", "ecdsa-p256-sha256");
    other.device = Some("tpm".parse().unwrap());
    t.client.create_key(&other).await.unwrap();
    t.server().renew_certificate().await;
    let (first, _) = shown(&t).await;
    let config = tls_client(&t);
    t.hsm.plan("C_Sign hang\n");
    let handshakes = (0..64).map(|_| handshake(&t, config.clone()));
    let handshakes = futures_util::future::join_all(handshakes);
    // Everything here runs on one thread: if a handshake held it, nothing else would get on.
    let others = async {
        let mut done = 0;
        for _ in 0..5 {
            let sign = Sign { message: Some(Base64(b"x".to_vec())), ..Sign::default() };
            t.client.sign(&name("other"), &sign).await.unwrap();
            done += 1;
        }
        (done, std::time::Instant::now())
    };
    let begun = std::time::Instant::now();
    let (ended, (done, at)) = tokio::join!(handshakes, others);
    assert_eq!((done, ended.iter().filter(|one| one.is_ok()).count()), (5, 0));
    assert!(at.duration_since(begun) < std::time::Duration::from_secs(4), "{:?}", at.duration_since(begun));
    t.hsm.plan("");
    let again = async || handshake(&t, config.clone()).await.ok();
    let chain = eventually("handshakes work again", again).await;
    assert_eq!(signet::x509::Certificate::parse(&chain[0]).unwrap().serial().to_string(), first);
}

#[tokio::test]
async fn a_death_around_the_exchange_leaves_one_certificate_that_serves() {
    let mut base = Installation::bare(Devices::SoftHsm);
    let token = base.command(&["init", "--config", base.config().to_str().unwrap()], None).succeeds().await;
    base.token = token.trim().to_owned();
    let service = base.serve().await;
    base.token = crate::server::lasting(&base.client(Some(&base.token))).await;
    let client = base.client(Some(&base.token));
    eventually("the service is ready", async || client.ready().await.ok()).await;
    client.create_issuer(&new_issuer("ca", "hsm", "ecdsa-p256-sha256")).await.unwrap();
    service.kill().await;
    for point in [
        "issue.reserved:1",
        "issue.reserved:2",
        "issue.signed:1",
        "issue.before_end:2",
        "issue.recorded:1",
        "issue.recorded:2",
        "ledger.committed:1",
        "ledger.committed:2",
        "ledger.committed:3",
        "tls.before_write:1",
        "tls.written:1",
        "tls.before_write:2",
        "tls.written:2",
    ] {
        let here = base.copy();
        let mut text = std::fs::read_to_string(here.config()).unwrap();
        text.push_str("[tls]\nissuer = \"ca\"\n");
        std::fs::write(here.config(), text).unwrap();
        here.serve_until(point).dies(point).await;
        let service = here.serve().await;
        let issued = async || {
            let status = here.client(Some(&here.token)).status().await.ok()?;
            status.certificate.filter(|one| one.source == "issued")
        };
        let before = eventually("the issuer's certificate serves", issued).await;
        service.kill().await;
        let service = here.serve().await;
        let after = eventually("it serves again", issued).await;
        assert_eq!(after.serial, before.serial, "{point}");
        service.kill().await;
        here.audit_is_good();
    }
}
