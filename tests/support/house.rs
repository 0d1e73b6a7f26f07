//! A root and an issuer below it, whose keys are in a token, and the plain listener before them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::softhsm::SoftHsm;
use jiff::{SignedDuration, Timestamp};
use signet::admission::Admission;
use signet::audit::{Log, Origin, Settings as LogSettings};
use signet::auth::registry::Registry;
use signet::ca::issuer::{NewIssuer, Parent, Rules};
use signet::ca::{Authority, Parts as AuthorityParts};
use signet::device::{KeyRef, Locator, Settings, Worker};
use signet::keyring::Keyring;
use signet::ledger::{Anchors, Ledger};
use signet::policy::{ADMINISTRATORS, ADMINISTRATORS_TEXT, Facts, Target};
use signet::server::listen::{Limits, Transport, serve};
use signet::service::acme::Desk;
use signet::service::{HeadKey, Heads, Parts, Service, policies};
use signet::signing::Signing;
use signet::store::{Change, Expected, Sealed, Sqlite, StorageKey, Store};
use signet::telemetry::Metrics;
use signet::types::operation::{CreateIssuer, Operation, RevokeCertificate, SignIntermediate};
use signet::types::{
    Algorithm, Caller, Clock, Credential, IssuerName, KeyId, ManualClock, Principal, PublicKey, Resource, Version,
};
use signet::validation::{Ports, Resolver, Validator};
use signet::x509::crl::Reason;
use signet::x509::ocsp::{CertificateId, IssuerHash, IssuerId};
use signet::x509::{Serial, Subject};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A root and an issuer below it, in a token, and the plain listener before them.
pub(crate) struct House {
    pub(crate) hsm: SoftHsm,
    pub(crate) folder: TempDir,
    pub(crate) clock: ManualClock,
    pub(crate) admission: Arc<Admission>,
    pub(crate) service: Arc<Service>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) address: SocketAddr,
}

impl House {
    pub(crate) async fn start() -> Self {
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
        let ledger =
            Arc::new(Ledger::open(store.clone(), log.clone(), manual.clone(), Anchors::none()).await.unwrap().0);
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
            notices: None,
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
            heads: Arc::new(Heads::new(log, HeadKey::new(worker.clone(), head, public).unwrap(), None)),
            retention: None,
            registry: Arc::new(Registry::load(&*store).unwrap()),
            metrics: metrics.clone(),
            instance: "test".into(),
            own: None,
            acme: Desk::new(Validator::new(Resolver::new(Vec::new()), Ports::default())).unwrap(),
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

    pub(crate) async fn permit<O: Operation>(&self, name: &IssuerName) -> signet::admission::Permit<O> {
        let caller = Caller {
            principal: Principal::Identity("ann".parse().unwrap()),
            groups: Arc::from([ADMINISTRATORS.parse().unwrap()]),
            credential: Credential::Process,
            address: None,
            request_id: "test".into(),
        };
        self.admission.admit(&caller, &Target::named(Resource::Issuer(name.clone())), &Facts::default()).await.unwrap()
    }

    pub(crate) async fn make(&self, name: &str, parent: Parent) {
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

    pub(crate) fn serial(&self) -> Serial {
        *self.service.authority().issuer(&issuer("fleet")).unwrap().versions()[0].certificate().unwrap().serial()
    }

    pub(crate) async fn revoke(&self) {
        let root = issuer("root");
        let permit = self.permit::<RevokeCertificate>(&root).await;
        let revoked =
            self.service.authority().revoke(&permit, &root, &[self.serial()], Reason::KeyCompromise, None).await;
        assert_eq!(permit.close(revoked, signet::admission::Details::default()).await.unwrap().into_inner(), 1);
    }

    pub(crate) async fn tick_after(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
        self.service.revocation_status().tick().await;
    }

    pub(crate) fn request(&self, serial: &Serial) -> Vec<u8> {
        let root = self.service.authority().issuer(&issuer("root")).unwrap();
        let id = IssuerId::new(IssuerHash::Sha256, root.versions()[0].view().unwrap()).unwrap();
        CertificateId::new(id, serial).request().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.worker.shutdown().await;
    }
}

pub(crate) fn issuer(name: &str) -> IssuerName {
    name.parse().unwrap()
}
