//! What relying parties are told of revocation, over HTTP and by a key in a token, judged by OpenSSL and pkilint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

#[path = "support/skip.rs"]
mod skip;
#[path = "support/softhsm.rs"]
#[allow(unused_macros, reason = "the macro is for other tests")]
mod softhsm;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use signet::admission::Admission;
use signet::audit::{Log, Origin, Settings as LogSettings};
use signet::auth::registry::Registry;
use signet::ca::issuer::{NewIssuer, Parent, Rules};
use signet::ca::{Authority, Parts as AuthorityParts};
use signet::device::{KeyRef, Locator, Settings, Worker};
use signet::keyring::Keyring;
use signet::ledger::Ledger;
use signet::policy::{ADMINISTRATORS, ADMINISTRATORS_TEXT, Facts, Target};
use signet::server::listen::{Limits, Transport, serve};
use signet::service::{Heads, Parts, Service, policies};
use signet::signing::Signing;
use signet::store::{Change, Expected, Sealed, Sqlite, StorageKey, Store};
use signet::telemetry::Metrics;
use signet::types::operation::{CreateIssuer, Operation, RevokeCertificate, SignIntermediate};
use signet::types::{
    Algorithm, Caller, Clock, Credential, IssuerName, KeyId, ManualClock, Principal, PublicKey, Resource, Version,
};
use signet::x509::crl::Reason;
use signet::x509::ocsp::{CertificateId, IssuerHash, IssuerId};
use signet::x509::{Serial, Subject};
use softhsm::SoftHsm;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A root and an issuer below it, in a token, and the plain listener before them.
struct House {
    hsm: SoftHsm,
    folder: TempDir,
    clock: ManualClock,
    admission: Arc<Admission>,
    service: Arc<Service>,
    worker: Arc<Worker>,
    address: SocketAddr,
}

/// Status, headers, body.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl House {
    async fn start() -> Self {
        // The HTTP client wants one, though it speaks no TLS here.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        #[expect(clippy::disallowed_methods, reason = "OpenSSL judges by its own clock")]
        let clock = ManualClock::at(Timestamp::from_second(Timestamp::now().as_second()).unwrap());
        let metrics = Metrics::new();
        let log = LogSettings::new(folder.path().join("audit"), Origin::of_instance("test").unwrap());
        let log = Arc::new(Log::create(log).unwrap());
        let driver = Sqlite::create(&folder.path().join("signet.db")).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sealed::new(driver, StorageKey::generate().unwrap()));
        let path = format!("policies/{ADMINISTRATORS}");
        store.commit(&[Change { path, expected: Expected::Absent, value: Some(ADMINISTRATORS_TEXT.into()) }]).unwrap();
        let manual = Clock::Manual(clock.clone());
        let ledger = Arc::new(Ledger::open(store.clone(), log.clone(), manual.clone()).await.unwrap().0);
        let stored = policies::read_all(&*store).unwrap().into_iter().map(|(name, text, _)| (name, text)).collect();
        let admission = Arc::new(Admission::new(stored, log.clone(), manual, metrics.clone()).unwrap());
        let settings = Settings::Pkcs11(hsm.settings());
        let worker = Worker::start("hsm", settings, None, env!("CARGO_BIN_EXE_signet").into(), metrics.clone());
        let worker = Arc::new(worker);
        worker.settled().await.unwrap();
        let devices = BTreeMap::from([("hsm".parse().unwrap(), worker.clone())]);
        let keyring = Keyring::load(ledger.clone(), admission.clone(), devices, vec![], metrics.clone()).unwrap();
        let keyring = Arc::new(keyring);
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let authority = Authority::load(AuthorityParts {
            ledger: ledger.clone(),
            admission: admission.clone(),
            keyring: keyring.clone(),
            signing: Arc::new(Signing::new(keyring.clone())),
            metrics: metrics.clone(),
            url: Some(format!("http://{address}")),
        });
        // The heads of the log are not signed here.
        let head = KeyRef {
            id: KeyId::from_bytes([0; 16]),
            version: Version::FIRST,
            algorithm: Algorithm::EcdsaP256,
            locator: Locator::Resident,
        };
        let own = rcgen::KeyPair::generate().unwrap();
        let public = PublicKey::ec(signet::types::Curve::P256, own.public_key_raw()).unwrap();
        let service = Arc::new(Service::new(Parts {
            keyring,
            authority: Arc::new(authority.unwrap()),
            admission: admission.clone(),
            ledger,
            log: log.clone(),
            log_key: public.clone(),
            heads: Arc::new(Heads::new(log, worker.clone(), head, public).unwrap()),
            registry: Arc::new(Registry::load(&*store).unwrap()),
            metrics: metrics.clone(),
            instance: "test".into(),
            default_device: "hsm".parse().unwrap(),
            scratch: folder.path().to_owned(),
            recovered: Vec::new(),
            problems: Vec::new(),
        }));
        let app = signet::api::pki::router(service.clone());
        let limits = Limits { drain: Duration::from_millis(10), ..Limits::default() };
        tokio::spawn(serve(tcp, Transport::Plain, app, limits, metrics, std::future::pending()));
        let house = Self { hsm, folder, clock, admission, service, worker, address };
        house.make("root", Parent::Itself).await;
        house.make("fleet", Parent::Issuer(issuer("root"))).await;
        house.service.revocation_status().tick().await;
        house
    }

    async fn permit<O: Operation>(&self, name: &IssuerName) -> signet::admission::Permit<O> {
        let caller = Caller {
            principal: Principal::Identity("ann".parse().unwrap()),
            groups: Arc::from([ADMINISTRATORS.parse().unwrap()]),
            credential: Credential::Process,
            address: None,
            request_id: "test".into(),
        };
        self.admission.admit(&caller, &Target::named(Resource::Issuer(name.clone())), &Facts::default()).await.unwrap()
    }

    async fn make(&self, name: &str, parent: Parent) {
        let name = issuer(name);
        let permit = self.permit::<CreateIssuer>(&name).await;
        let above = match &parent {
            Parent::Issuer(above) => Some(self.permit::<SignIntermediate>(above).await),
            Parent::Itself | Parent::Outside => None,
        };
        let new = NewIssuer {
            subject: Subject { common_name: Some(format!("Example {name}")), ..Subject::default() },
            name,
            parent,
            algorithm: Algorithm::EcdsaP256,
            device: "hsm".parse().unwrap(),
            residency: None,
            rules: Rules {
                lifetime: "365d".parse().unwrap(),
                powers: signet::x509::Authority::default(),
                policies: Vec::new(),
                distribution: None,
                rollover: None,
            },
        };
        let made = self.service.authority().create(&permit, above.as_ref(), new, None).await.unwrap();
        let pem = made.versions()[0].certificate().unwrap().to_pem().unwrap();
        fs::write(self.folder.path().join(format!("{}.pem", made.record.name.name)), pem).unwrap();
        if let Some(above) = above {
            let _ = above.close(Ok(()), signet::admission::Details::default()).await.unwrap();
        }
        let _ = permit.close(Ok(()), signet::admission::Details::default()).await.unwrap();
    }

    fn serial(&self) -> Serial {
        *self.service.authority().issuer(&issuer("fleet")).unwrap().versions()[0].certificate().unwrap().serial()
    }

    async fn revoke(&self) {
        let root = issuer("root");
        let permit = self.permit::<RevokeCertificate>(&root).await;
        let revoked =
            self.service.authority().revoke(&permit, &root, &[self.serial()], Reason::KeyCompromise, None).await;
        assert_eq!(permit.close(revoked, signet::admission::Details::default()).await.unwrap().into_inner(), 1);
    }

    async fn tick_after(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
        self.service.revocation_status().tick().await;
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, Vec::new()).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let method = method.parse().unwrap();
        let mut request = client.request(method, format!("http://{}/pki/{path}", self.address)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    /// Fetches the list of the root and leaves it in a file for OpenSSL.
    async fn list(&self) -> Answer {
        let answer = self.get("default/root/1.crl", &[]).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        fs::write(self.folder.path().join("root.crl"), &answer.body).unwrap();
        self.openssl("crl -inform DER -in root.crl -out root.crl.pem").await;
        answer
    }

    /// What OpenSSL says of the issuer below the root, and whether it was content.
    async fn openssl(&self, args: &str) -> (bool, String) {
        let (folder, args) = (self.folder.path().to_owned(), args.to_owned());
        let run = move || {
            let done = Command::new("openssl").current_dir(folder).args(args.split_whitespace()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            (done.status.success(), said)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn ocsp(&self, what: &str) -> String {
        let url = format!("http://{}/pki/default/root/ocsp", self.address);
        let ask = format!("ocsp -issuer root.pem -CAfile root.pem -url {url} {what}");
        let (_, said) = self.openssl(&ask).await;
        assert!(said.contains("Response verify OK"), "{said}");
        said
    }

    fn request(&self, serial: &Serial) -> Vec<u8> {
        let root = self.service.authority().issuer(&issuer("root")).unwrap();
        let id = IssuerId::new(IssuerHash::Sha256, root.versions()[0].view().unwrap()).unwrap();
        CertificateId::new(id, serial).request().unwrap()
    }

    async fn post(&self, request: Vec<u8>) -> Vec<u8> {
        let answer =
            self.ask("POST", "default/root/ocsp", &[("content-type", "application/ocsp-request")], request).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/ocsp-response"));
        answer.body
    }

    fn lint(&self, judge: &str, options: &[&str], name: &str) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/judges/bin").join(judge);
        if !program.exists() {
            return skip::skipped("pkilint is not installed: tests/judges/install");
        }
        let file = self.folder.path().join(name);
        let done = Command::new(program).arg("lint").args(options).args(["--severity", "WARNING"]).arg(file).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stdout));
    }

    async fn stop(self) {
        self.worker.shutdown().await;
    }
}

fn issuer(name: &str) -> IssuerName {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_told_by_ocsp_at_once_and_by_the_next_list() {
    let house = House::start().await;
    let verify = "verify -CAfile root.pem -crl_check -CRLfile root.crl.pem fleet.pem";
    // 1. Before it: the list is there and empty, the answer is good, with and without a nonce.
    let first = house.list().await;
    assert_eq!(first.headers["content-type"], "application/pkix-crl");
    let (_, said) = house.openssl("crl -inform DER -in root.crl -CAfile root.pem -verify -noout -text").await;
    assert!(said.contains("verify OK") && said.contains("No Revoked Certificates"), "{said}");
    assert_eq!(house.openssl(verify).await, (true, "fleet.pem: OK\n".to_owned()));
    for nonce in ["-nonce", "-no_nonce"] {
        let said = house.ocsp(&format!("{nonce} -cert fleet.pem -respout answer")).await;
        assert!(said.contains("fleet.pem: good"), "{said}");
        assert!(nonce == "-no_nonce" || !said.contains("WARNING"), "{said}");
    }
    let said = house.ocsp("-serial 0x1234").await;
    assert!(said.contains("0x1234: unknown"), "{said}");
    // 2. OCSP says it at once.
    house.revoke().await;
    let said = house.ocsp("-no_nonce -cert fleet.pem -respout revoked").await;
    assert!(said.contains("fleet.pem: revoked") && said.contains("Reason: keyCompromise"), "{said}");
    // 3. The list says it after its gap and a tick, under a greater number.
    house.tick_after(1).await;
    assert_eq!(house.list().await.body, first.body);
    house.tick_after(10).await;
    let second = house.list().await;
    assert_ne!(second.body, first.body);
    let (fine, said) = house.openssl(verify).await;
    assert!(!fine && said.contains("certificate revoked"), "{said}");
    // 4. Both judges agree, and whoever has the list is not sent it again.
    house.lint("lint_crl", &["--type", "CRL", "--profile", "PKIX"], "root.crl");
    house.lint("lint_ocsp_response", &[], "answer");
    house.lint("lint_ocsp_response", &[], "revoked");
    let again = house.get("default/root/1.crl", &[("if-none-match", &second.headers["etag"])]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_given_while_the_token_is_away() {
    let house = House::start().await;
    let good = house.post(house.request(&house.serial())).await;
    house.hsm.take_out();
    // 1. Until it ends, a list is given, and so is an answer, once it could be newer.
    house.tick_after(13 * 3600).await;
    house.list().await;
    let house_again = || async { house.post(house.request(&house.serial())).await };
    assert_eq!(house_again().await, [0x30, 3, 0x0a, 1, 3], "an answer that has ended: try later");
    house.tick_after(11 * 3600).await;
    let ended = house.get("default/root/1.crl", &[]).await;
    assert_eq!((ended.status, ended.headers.contains_key("retry-after")), (503, true));
    // 2. With the token everything is back, without anybody's help.
    house.hsm.put_back();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while house.get("default/root/1.crl", &[]).await.status != 200 {
        assert!(std::time::Instant::now() < until, "the list is not back");
        house.tick_after(1).await;
    }
    let back = house_again().await;
    assert!(back.len() > 100 && back != good);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_is_the_same_for_all_and_says_how_long() {
    let house = House::start().await;
    let request = house.request(&house.serial());
    let first = house.post(request.clone()).await;
    assert_eq!(house.post(request.clone()).await, first);
    let path = format!("default/root/ocsp/{}", STANDARD.encode(&request).replace('+', "%2B").replace('/', "%2F"));
    let answer = house.get(&path, &[]).await;
    assert_eq!((answer.status, &answer.body), (200, &first));
    let headers = &answer.headers;
    assert_eq!(headers["cache-control"], "public, max-age=3600, no-transform, must-revalidate");
    assert!(["etag", "last-modified", "expires"].iter().all(|name| headers.contains_key(*name)), "{headers:?}");
    assert_eq!(house.get(&path, &[("if-none-match", &headers["etag"])]).await.status, 304);
    // The same bytes, whose slashes stand in the address as they are.
    let plain = format!("default/root/ocsp/{}", STANDARD.encode(&request));
    assert_eq!(house.get(&plain, &[]).await.body, first);
    // Half of its time later there is a newer one.
    house.tick_after(1801).await;
    assert_ne!(house.post(request).await, first);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_gets_the_answer_of_the_standard() {
    let house = House::start().await;
    let failure = |code: u8| vec![0x30, 3, 0x0a, 1, code];
    // 1. Not a request; a certificate of another issuer.
    assert_eq!(house.post(vec![1, 2, 3]).await, failure(1));
    let elsewhere = house.ask(
        "POST",
        "default/fleet/ocsp",
        &[("content-type", "application/ocsp-request")],
        house.request(&house.serial()),
    );
    assert_eq!(elsewhere.await.body, failure(6));
    assert_eq!(house.get("default/root/ocsp/%21%21", &[]).await.body, failure(1));
    // 2. What HTTP has words for.
    let ask = |kind: &'static str, body| house.ask("POST", "default/root/ocsp", kind_header(kind), body);
    assert_eq!(ask("text/plain", vec![0; 10]).await.status, 415);
    assert_eq!(ask("application/ocsp-request", vec![0; 4097]).await.status, 413);
    let missing = [
        "default/nobody/ocsp/MAA=",
        "default/root/2.crl",
        "default/root/01.crl",
        "default/root/1.pem",
        "default/x.y/bundle.pem",
    ];
    for path in missing {
        assert_eq!(house.get(path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(house.ask("DELETE", "default/root/1.crl", &[], Vec::new()).await.status, 405);
    // 3. Those who make up serial numbers run out of signatures; those who ask for what there is do not.
    let mut refused = 0;
    for _ in 0..=signet::ca::status::FRESH_BURST {
        refused += usize::from(house.post(house.request(&Serial::random().unwrap())).await == failure(3));
    }
    assert_eq!(refused, 1);
    assert!(house.post(house.request(&house.serial())).await.len() > 100);
    house.stop().await;
}

fn kind_header(kind: &'static str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "text/plain" => &[("content-type", "text/plain")],
        _ => &[("content-type", "application/ocsp-request")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_bundles_are_public() {
    let house = House::start().await;
    let own = |name: &str| fs::read_to_string(house.folder.path().join(format!("{name}.pem"))).unwrap();
    let bundle = house.get("default/fleet/bundle.pem", &[]).await;
    assert_eq!((bundle.status, String::from_utf8(bundle.body).unwrap()), (200, own("root")));
    let certificate = house.get("default/fleet/1.cer", &[]).await;
    assert_eq!(certificate.headers["content-type"], "application/pkix-cert");
    fs::write(house.folder.path().join("fleet.cer"), certificate.body).unwrap();
    house.openssl("x509 -inform DER -in fleet.cer -out fetched.pem").await;
    assert_eq!(own("fetched"), own("fleet"));
    let spiffe = house.get("default/fleet/bundle.json", &[]).await;
    let spiffe: serde_json::Value = serde_json::from_slice(&spiffe.body).unwrap();
    let key = &spiffe["keys"][0];
    assert_eq!((&key["use"], &key["kty"], &key["crv"]), (&"x509-svid".into(), &"EC".into(), &"P-256".into()));
    let root = own("root").lines().filter(|line| !line.starts_with("---")).collect::<String>();
    assert_eq!(key["x5c"], serde_json::json!([root]));
    house.stop().await;
}
