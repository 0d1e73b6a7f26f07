//! The only place that builds: a configuration becomes parts, the parts a service, the service a listener.
//!
//! ```text
//! data folder
//!   root.json      how the store is unsealed, what is pinned of each device
//!   signet.db      the sealed store
//!   audit/         the audit log
//!   tls/           the self-made server certificate and what clients trust, where no certificate is configured
//!   scratch/       backups on their way out; those of a service that died are removed at the next start
//!   lock           one service at a time
//! ```

mod attest;
mod background;
mod create;
pub mod listen;
mod restore;
mod root;
mod share;
mod tls;

pub use attest::{answer, attestation_key, endorsement};
pub use create::{Created, Upgraded, accept_rollback, create, enrol, new_administrator, upgrade};
pub use restore::{Restored, restore};
pub use share::{Shared, share};

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use root::Root;

use crate::admission::Admission;
use crate::audit::{Log, WitnessSettings, Witnesses};
use crate::auth::registry::Registry;
use crate::ca::notice::Settings as NoticeSettings;
use crate::ca::{Authority, Parts as AuthorityParts};
use crate::config::{Config, Cosigner};
use crate::crash_point;
use crate::device::{Class, KeyRef, Worker};
use crate::error::{Error, Kind, Result};
use crate::keyring::Keyring;
use crate::ledger::{Anchor, Anchors, DeviceAnchor, Ledger};
use crate::service::acme::Desk;
use crate::service::{HeadKey, Heads, OwnWish, Parts, Retention, SCRATCH_PREFIX, Service, policies};
use crate::signing::Signing;
use crate::store::{Sealed, Sqlite, StorageKey, Store};
use crate::telemetry::Metrics;
use crate::types::{Caller, Clock, Name, Period, PublicKey, Resource};
use crate::validation::{Ports, Resolver, Validator};
use crate::webhook::Webhook;

/// Where a record vouches for `root.json`.
const ROOT_RECORD: &str = "house/root";
/// Made by a restore, and gone once its consequences are drawn.
const RESTORED_MARK: &str = "restored";

/// How long operations may go on after the last connection is closed.
const LAST_OPERATIONS: Duration = Duration::from_secs(15);

/// What a server is started with beside its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// This very program, which is also the device worker.
    pub program: PathBuf,
    /// The time.
    pub clock: Clock,
    /// How clients are limited.
    pub limits: listen::Limits,
    /// Whether the scheduler runs by itself; a test moves it by hand.
    pub unattended: bool,
    /// Whether to go on from a store that its anchors do not vouch for, and to record that gap: what an operator says once.
    pub accept_rollback: bool,
}

impl Options {
    /// The usual ones.
    ///
    /// # Errors
    /// [`Kind::Internal`] where the program does not know where it is.
    pub fn new() -> Result<Self> {
        let program = std::env::current_exe().map_err(|e| Error::internal(format!("the program's own path: {e}")))?;
        Ok(Self {
            program,
            clock: Clock::System,
            limits: listen::Limits::default(),
            unattended: true,
            accept_rollback: false,
        })
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    service: Arc<Service>,
    address: SocketAddr,
    certificate: Arc<tls::Certificate>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    pki_address: Option<SocketAddr>,
    listeners: Vec<JoinHandle<Result<()>>>,
    running: [crate::api::Running; 3],
    workers: BTreeMap<Name, Arc<Worker>>,
    log: Arc<Log>,
    heads: Arc<Heads>,
    _lock: File,
}

impl Server {
    /// Opens the data folder, starts the devices, reconciles, and listens.
    ///
    /// # Errors
    /// Whatever keeps it from serving, with the mend. Nothing is made anew: only [`create`] does that.
    pub async fn start(config: &Config, options: Options) -> Result<Self> {
        let lock = lock(&config.data).await?;
        restore::restored_from(&config.data)?;
        let root = Root::read(&config.data)?;
        let metrics = Metrics::new();
        let workers = start_workers(config, &root, &options, &lock, &metrics)?;
        let opened = open(config, &options, root, &workers, &metrics).await;
        let parts = match opened {
            Ok(parts) => parts,
            Err(error) => {
                stop_workers(&workers).await;
                return Err(error);
            }
        };
        let (log, heads) = (parts.log.clone(), parts.heads.clone());
        let service = Arc::new(Service::new(parts));
        restore::draw_consequences(&config.data, &service).await?;
        service.open_own_certificate().await?;
        let certificate = Arc::new(tls::Certificate::load(config, service.clone(), &options.clock)?);
        let (stop, _) = watch::channel(false);
        let tasks = background::start(&service, &certificate, &heads, &log, config, &options, &stop);
        let tcp = TcpListener::bind(config.listen).await.map_err(|e| {
            Error::new(Kind::Unavailable, format!("cannot listen on {}: {e}", config.listen))
                .hint("choose another server.listen, or end what listens there")
        })?;
        let address = tcp.local_addr().map_err(|e| Error::internal(format!("own address: {e}")))?;
        let plain = Plain::bind(config, &service).await?;
        let pki_address = plain.as_ref().map(|plain| plain.address);
        let (native, by_native) = crate::api::rest::router(service.clone(), crate::api::rest::BodyLimits::default());
        let (acme, by_acme) = crate::api::acme::router(service.clone(), config.acme.url.clone());
        let (est, by_est) = crate::api::est::router(service.clone(), config.est.clone());
        let app = native.merge(acme).merge(est).merge(crate::api::pki::router(service.clone()));
        let running = [by_native, by_acme, by_est];
        let mut listeners = Vec::new();
        if let Some(Plain { tcp, app, .. }) = plain {
            let (transport, limits) = (listen::Transport::Plain, options.limits.clone());
            listeners.push(tokio::spawn(listen::serve(tcp, transport, app, limits, metrics.clone(), ended(&stop))));
        }
        let transport = listen::Transport::Tls(certificate.current());
        listeners.push(tokio::spawn(listen::serve(tcp, transport, app, options.limits, metrics, ended(&stop))));
        Ok(Self {
            service,
            address,
            certificate,
            stop,
            tasks,
            pki_address,
            listeners,
            running,
            workers,
            log,
            heads,
            _lock: lock,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for plain HTTP, where it does.
    #[must_use]
    pub const fn pki_address(&self) -> Option<SocketAddr> {
        self.pki_address
    }

    /// What clients on this machine trust, in PEM, where the server made it: its own authority, and the anchors of the issuer
    /// that gives it its certificate.
    #[must_use]
    pub fn own_authority(&self) -> Option<PathBuf> {
        self.certificate.trusted()
    }

    /// Gets another certificate from its own issuer where one is due; the scheduler does so by itself.
    pub async fn renew_certificate(&self) {
        self.certificate.tick().await;
    }

    /// Reads the certificate from its files again; connections that are open keep the old one.
    ///
    /// # Errors
    /// `Invalid` where the files do not hold; then the old certificate stays.
    pub fn reload_certificate(&self) -> Result<()> {
        self.certificate.reload()
    }

    /// The operations, for tests that look behind the front.
    #[must_use]
    pub const fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Makes a token of an administrator, for `signet dev`: whoever has a running server in hand needs no credential.
    ///
    /// # Errors
    /// Where it cannot be recorded.
    pub async fn administrator(&self, identity: Name, ttl: Period) -> Result<Zeroizing<String>> {
        self.service.create_administrator("dev", identity, ttl, None).await
    }

    /// Tries again to reach devices that are down.
    pub fn retry_devices(&self) {
        for worker in self.workers.values() {
            worker.retry();
        }
    }

    /// Ends in order: no new requests, those in flight finish, a last head is signed, the devices are closed.
    ///
    /// # Errors
    /// Where something failed on the way; all of it is tried all the same.
    pub async fn stop(self) -> Result<()> {
        self.service.drain();
        self.stop.send_replace(true);
        let mut listened = Ok(());
        for listener in self.listeners {
            let lost = |e| Error::internal(format!("a listener was lost: {e}"));
            listened = listened.and(listener.await.map_err(lost).flatten());
        }
        // Operations whose client has hung up are finished all the same; their device calls have deadlines.
        let running = futures_util::future::join_all(self.running.map(crate::api::Running::finished));
        if tokio::time::timeout(LAST_OPERATIONS, running).await.is_err() {
            tracing::warn!("operations were still under way: what they were about is reconciled at the next start");
        }
        for task in self.tasks {
            let _ = task.await;
        }
        let signed = self.heads.sign().await.map(drop);
        let anchored = self.service.checkpoint().await;
        stop_workers(&self.workers).await;
        drop(self.log);
        listened.and(signed).and(anchored)
    }
}

/// The listener for what is public and signed.
struct Plain {
    tcp: TcpListener,
    address: SocketAddr,
    app: axum::Router,
}

impl Plain {
    async fn bind(config: &Config, service: &Arc<Service>) -> Result<Option<Self>> {
        let Some(listen) = config.pki.listen else { return Ok(None) };
        let tcp = TcpListener::bind(listen).await.map_err(|e| {
            Error::new(Kind::Unavailable, format!("cannot listen on {listen}: {e}"))
                .hint("choose another pki.listen, or end what listens there")
        })?;
        let address = tcp.local_addr().map_err(|e| Error::internal(format!("own address: {e}")))?;
        Ok(Some(Self { tcp, address, app: crate::api::pki::router(service.clone()) }))
    }
}

/// Comes to pass when the server ends.
fn ended(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut ending = stop.subscribe();
    async move {
        let _ = ending.wait_for(|stop| *stop).await;
    }
}

/// Takes the lock of the data folder.
async fn lock(data: &Path) -> Result<File> {
    crate::device::lock(data, "service", "signet init").await
}

fn start_workers(
    config: &Config,
    root: &Root,
    options: &Options,
    lock: &File,
    metrics: &Metrics,
) -> Result<BTreeMap<Name, Arc<Worker>>> {
    let mut workers = BTreeMap::new();
    for (name, settings) in &config.devices {
        let Some(identity) = root.devices.get(name) else {
            return Err(Error::new(Kind::Invalid, format!("device {name} was never enrolled"))
                .hint(format!("`signet init --enrol {name}` makes its sentinel and pins it; nothing else does")));
        };
        let guard = lock.try_clone().map_err(|e| Error::internal(format!("the lock of the data folder: {e}")))?;
        let worker = Worker::start_in(
            name.as_str(),
            settings.clone(),
            Some(identity.clone()),
            options.program.clone(),
            Some((guard, config.data.clone())),
            metrics.clone(),
        );
        workers.insert(name.clone(), Arc::new(worker));
    }
    Ok(workers)
}

async fn stop_workers(workers: &BTreeMap<Name, Arc<Worker>>) {
    futures_util::future::join_all(workers.values().map(|worker| worker.shutdown())).await;
}

/// Unseals the store and opens everything that stands on it.
async fn open(
    config: &Config,
    options: &Options,
    root: Root,
    workers: &BTreeMap<Name, Arc<Worker>>,
    metrics: &Metrics,
) -> Result<Parts> {
    let house = workers.get(&root.device).ok_or_else(|| {
        Error::new(Kind::Invalid, format!("the root key is in device {}, which is not configured", root.device))
            .hint("configure that device again")
    })?;
    for worker in workers.values() {
        if let Err(fault) = worker.settled().await {
            let error: Error = fault.clone().into();
            let text = format!("device {}: {fault}", worker.name());
            return Err(Error::new(error.kind(), text).hint(error.mend().unwrap_or("look at the device").to_owned()));
        }
    }
    let storage_key = root.unseal(house).await?;
    let database = config.data.join("signet.db");
    let fingerprint = root.fingerprint()?;
    let anchors = anchors(&root, &storage_key, workers, options.accept_rollback).await?;
    let store: Arc<dyn Store> = Arc::new(Sealed::new(Sqlite::open(&database)?, storage_key));
    check_root(&*store, &fingerprint)?;
    let opened = Log::open(create::log_settings(config, &root)?, Some(&root.log_public))?;
    let log = Arc::new(opened.log);
    let mut recovered = opened.recovered;
    let heads = Arc::new(heads(&root, log.clone(), workers)?);
    let anchors = anchors.witnessed(witnesses(config, &log, &heads, &options.clock));
    let (ledger, rolled) = Ledger::open(store.clone(), log.clone(), options.clock.clone(), anchors).await?;
    recovered.extend(rolled);
    let ledger = Arc::new(ledger);
    let stored = policies::read_all(&*store)?.into_iter().map(|(name, text, _)| (name, text)).collect();
    let admission = Admission::new(stored, log.clone(), options.clock.clone(), metrics.clone())?;
    let admission = Arc::new(admission);
    let second = root.log_ed25519.as_ref().map(|second| second.key.id);
    let house_keys = [root.root_key.id, root.log_key.id].into_iter().chain(second).collect();
    let keyring = Keyring::load(ledger.clone(), admission.clone(), workers.clone(), house_keys, metrics.clone())?;
    let mut report = keyring.reconcile(restore::restored_from(&config.data)?.is_some()).await?;
    report.problems.extend(missing_anchors(&root, workers));
    recovered.extend(report.mended);
    let caller = Caller::system("start", "start");
    for what in &recovered {
        tracing::warn!(what, "recovered");
        admission.recovered(&caller, &Resource::Service, what).await?;
    }
    for what in &report.problems {
        tracing::warn!(what, "an operator should look at this");
    }
    let keyring = Arc::new(keyring);
    let authority = Authority::load(AuthorityParts {
        ledger: ledger.clone(),
        admission: admission.clone(),
        keyring: keyring.clone(),
        signing: Arc::new(Signing::new(keyring.clone())),
        metrics: metrics.clone(),
        url: config.pki.url.clone(),
        notices: notices(config, &root.instance)?,
    })?;
    recovered.extend(authority.close_reservations().await?);
    let scratch = config.data.join("scratch");
    clear(&scratch)
        .map_err(|e| Error::new(Kind::Unavailable, format!("{} cannot be cleared: {e}", scratch.display())))?;
    Ok(Parts {
        keyring,
        authority: Arc::new(authority),
        admission,
        ledger,
        log,
        heads,
        retention: retention(config),
        registry: Arc::new(Registry::load(&*store)?),
        acme: Desk::new(validator(config))?,
        own: own_wish(config)?,
        metrics: metrics.clone(),
        instance: root.instance,
        default_device: config.default_device.clone(),
        scratch,
        recovered,
        problems: report.problems,
    })
}

/// Who signs the heads of the log: with all its keys, or not at all.
fn heads(root: &Root, log: Arc<Log>, workers: &BTreeMap<Name, Arc<Worker>>) -> Result<Heads> {
    let key = |device: &Name, key: &KeyRef, public: &PublicKey| {
        let worker = workers.get(device).ok_or_else(|| {
            Error::new(Kind::Invalid, format!("a key of the audit log is in device {device}, which is not configured"))
                .hint("configure that device again; where it is lost, `signet init --upgrade` goes on without that key")
        })?;
        HeadKey::new(worker.clone(), key.clone(), public.clone())
    };
    let first = key(&root.device, &root.log_key, &root.log_public)?;
    let second =
        root.log_ed25519.as_ref().map(|second| key(&second.device, &second.key, &second.public)).transpose()?;
    Ok(Heads::new(log, first, second))
}

/// The anchors of an installation in the devices that are configured. One that was removed from its device is made again only
/// where an operator accepts that.
async fn anchors(
    root: &Root,
    key: &StorageKey,
    workers: &BTreeMap<Name, Arc<Worker>>,
    accept_rollback: bool,
) -> Result<Anchors> {
    let mut list: Vec<Arc<dyn Anchor>> = Vec::new();
    for name in &root.anchors {
        let Some(worker) = workers.get(name) else { continue };
        let place = root.anchor_place(key, name)?;
        if accept_rollback && worker.read_anchor(&place).await.is_err_and(|fault| fault.class == Class::KeyGone) {
            crash_point!("start.before_make_anchor");
            worker.make_anchor(place.duplicate()).await?;
            crash_point!("start.anchor_made");
        }
        list.push(Arc::new(DeviceAnchor::new(worker.clone(), place)));
    }
    if list.is_empty() && !root.anchors.is_empty() {
        let text =
            format!("none of the devices that hold an anchor of the store is configured: {}", joined(&root.anchors));
        return Err(Error::new(Kind::Invalid, text)
            .hint("configure one of them: without it nobody knows whether the store was put back"));
    }
    Ok(Anchors::new(list).accept_rollback(accept_rollback))
}

/// The witnesses of the log that are configured.
fn witnesses(config: &Config, log: &Arc<Log>, heads: &Arc<Heads>, clock: &Clock) -> Arc<Witnesses> {
    let settings = config.witnesses.iter().map(|Cosigner { key, place, required, patience }| WitnessSettings {
        key: key.clone(),
        place: place.clone(),
        required: *required,
        patience: patience.as_duration(),
    });
    Arc::new(Witnesses::new(log.clone(), heads.clone(), clock.clone(), settings.collect()))
}

/// What an operator should know of anchors that are not there.
fn missing_anchors(root: &Root, workers: &BTreeMap<Name, Arc<Worker>>) -> Option<String> {
    let missing: Vec<_> = root.anchors.iter().filter(|name| !workers.contains_key(*name)).collect();
    if root.anchors.is_empty() {
        return Some("no device holds an anchor: an older store that is put back is not noticed".to_owned());
    }
    (!missing.is_empty()).then(|| format!("not configured, so its anchor is not compared: device {}", joined(missing)))
}

fn joined<'a>(names: impl IntoIterator<Item = &'a Name>) -> String {
    names.into_iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// The certificate that the configuration wants of one of the service's own issuers.
fn own_wish(config: &Config) -> Result<Option<OwnWish>> {
    let Some(own) = &config.own_certificate else { return Ok(None) };
    OwnWish::new(own.issuer.clone(), own.profile.clone(), &own.names, own.device.clone()).map(Some)
}

/// Whom the configuration wants to be told of certificates that end.
fn notices(config: &Config, instance: &str) -> Result<Option<NoticeSettings>> {
    let Some(ending) = &config.ending else { return Ok(None) };
    let webhook = Webhook::new(ending.webhook.clone()).map_err(|e| e.context("expiry.webhook"))?;
    Ok(Some(NoticeSettings { webhook, before: ending.before.clone(), instance: instance.to_owned() }))
}

/// Who looks for the proofs of ACME, as the configuration says.
fn validator(config: &Config) -> Validator {
    let resolver = if config.acme.resolvers.is_empty() {
        // A system without one has no names: each look for one says so.
        Resolver::of_system(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    } else {
        Resolver::new(config.acme.resolvers.clone())
    };
    let usual = Ports::default();
    let http = config.acme.http_port.unwrap_or(usual.http);
    Validator::new(resolver, Ports { http, https: config.acme.https_port.unwrap_or(usual.https) })
}

/// What may be removed from the audit log.
fn retention(config: &Config) -> Option<Retention> {
    let crate::config::Retention { archive, keep, automatic } = config.retention.clone()?;
    Some(Retention { archive: create::archive_place(archive), keep, automatic })
}

/// Makes the folder of backups, or removes from it what a service left there that died: copies as large as the store. What is
/// not ours stays, since the folder may be the root of another disk.
fn clear(scratch: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(scratch)?;
    for entry in std::fs::read_dir(scratch)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Refuses a `root.json` that is not the one this store was made with.
fn check_root(store: &dyn Store, fingerprint: &[u8; 32]) -> Result<()> {
    let record = store.get(ROOT_RECORD)?;
    if record.is_some_and(|record| record.value.chunks(fingerprint.len()).any(|one| one == fingerprint)) {
        return Ok(());
    }
    Err(Error::new(Kind::Tampered, "root.json is not the one that this store vouches for")
        .hint("it was changed, or belongs to another folder: put back the one that came with signet.db"))
}

/// Reads a file of a configuration.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::new(Kind::Invalid, format!("{} cannot be read: {e}", path.display())))
}
