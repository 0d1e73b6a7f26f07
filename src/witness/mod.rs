//! A witness: says of other people's logs that they only grew, so that neither they nor who has all their keys can show two histories
//! ([C2SP tlog-witness](https://c2sp.org/tlog-witness)).
//!
//! It stands on a machine of its own, with a device of its own, and knows nothing of a service but the key that signs its log. What it
//! promises: of each log it cosigns one history only, each checkpoint of which goes on from the one before; and it never forgets that
//! by a crash. What it does not: that what is in the log is right, or that it notices when its own folder is put back. That the
//! logs notice, which hold its later cosignatures.
//!
//! ```text
//! data folder
//!   witness.json   which key cosigns, and what is pinned of its device: see `key`
//!   logs           of each log the newest checkpoint: see `book`
//!   lock           one witness at a time
//! ```

mod book;
mod front;
mod key;
mod request;

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::book::Book;
use self::front::Front;
use self::key::{Cosigner, Pinned};
use crate::config::{CertificateFiles, WitnessConfig};
use crate::crash_point;
use crate::device::Worker;
use crate::error::{Error, Kind, Result};
use crate::server::{Options, listen};
use crate::telemetry::Metrics;
use crate::types::{NoteKey, SecretBytes};

/// What the device is called in metrics.
const DEVICE: &str = "witness";

/// Makes a witness: enrols its device, makes its key, and begins its book. Answers what its cosignatures are verified with.
///
/// # Errors
/// `Conflict` where the folder is not empty; `Unsupported` for a device without Ed25519; those of the device.
pub async fn init(config: &WitnessConfig, options: &Options) -> Result<NoteKey> {
    let data = &config.data;
    let unusable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", data.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(unusable)?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).map_err(unusable)?;
    if std::fs::read_dir(data).map_err(unusable)?.next().is_some() {
        return Err(Error::new(Kind::Conflict, format!("{} is not empty", data.display())).hint(
            "a witness is made once: `signet witness serve` starts it; a folder without witness.json was cut short and can go",
        ));
    }
    let guard = lock(data).await?;
    let (program, settings) = (options.program.clone(), config.device.clone());
    let bare = Worker::start(DEVICE, settings.clone(), None, program.clone(), Metrics::new());
    let enrolled = async {
        bare.settled().await?;
        crash_point!("witness.before_enrol");
        let identity = bare.enrol().await;
        crash_point!("witness.enrolled");
        identity
    };
    let enrolled = enrolled.await;
    bare.shutdown().await;
    let identity = enrolled?;
    let worker = Worker::start(DEVICE, settings, Some(identity.clone()), program, Metrics::new());
    let made = async {
        worker.settled().await?;
        Pinned::create(&config.name, identity, &worker).await
    };
    let made = made.await;
    worker.shutdown().await;
    let pinned = made?;
    let key = pinned.verifier_key()?;
    Book::create(data)?;
    pinned.write(data)?;
    drop(guard);
    Ok(key)
}

/// What the cosignatures of the witness in a folder are verified with.
///
/// # Errors
/// `NotFound` where there is none.
pub fn verifier_key(config: &WitnessConfig) -> Result<NoteKey> {
    Pinned::read(&config.data)?.verifier_key()
}

/// A running witness.
#[derive(Debug)]
pub struct Witness {
    key: NoteKey,
    address: SocketAddr,
    worker: Arc<Worker>,
    certificate: Option<(CertificateFiles, Arc<ArcSwap<listen::Tls>>)>,
    stop: watch::Sender<bool>,
    listener: JoinHandle<Result<()>>,
    _lock: File,
}

impl Witness {
    /// Opens the folder, starts the device, and listens.
    ///
    /// # Errors
    /// Whatever keeps it from cosigning, with the mend.
    pub async fn start(config: &WitnessConfig, options: &Options) -> Result<Self> {
        let pinned = Pinned::read(&config.data)?;
        let lock = lock(&config.data).await?;
        let key = pinned.verifier_key()?;
        if key.name() != config.name {
            return Err(front::another_name(&config.name, key.name()));
        }
        let book = Book::open(&config.data, &key)?;
        let metrics = Metrics::new();
        let guard = lock.try_clone().map_err(|e| Error::internal(format!("the lock of the witness: {e}")))?;
        let worker = Arc::new(Worker::start_in(
            DEVICE,
            config.device.clone(),
            Some(pinned.device.clone()),
            options.program.clone(),
            Some((guard, config.data.clone())),
            metrics.clone(),
        ));
        let started = async {
            worker.settled().await?;
            let certificate = match &config.certificate {
                Some(files) => Some((files.clone(), Arc::new(ArcSwap::from_pointee(tls(files)?)))),
                None => None,
            };
            let tcp = TcpListener::bind(config.listen).await.map_err(|e| {
                Error::new(Kind::Unavailable, format!("cannot listen on {}: {e}", config.listen))
                    .hint("choose another witness.listen, or end what listens there")
            })?;
            let address = tcp.local_addr().map_err(|e| Error::internal(format!("own address: {e}")))?;
            Ok((certificate, tcp, address))
        };
        let (certificate, tcp, address) = match started.await {
            Ok(started) => started,
            Err(error) => {
                worker.shutdown().await;
                return Err(error);
            }
        };
        let cosigner = Cosigner::new(worker.clone(), &pinned)?;
        let front = Front::new(cosigner, config.logs.clone(), book, options.clock.clone(), metrics.clone());
        let transport = match &certificate {
            Some((_, current)) => listen::Transport::Tls(current.clone()),
            None => listen::Transport::Plain,
        };
        let (stop, mut ending) = watch::channel(false);
        let ended = async move {
            let _ = ending.wait_for(|stop| *stop).await;
        };
        let app = Arc::new(front).router();
        let listener = tokio::spawn(listen::serve(tcp, transport, app, options.limits.clone(), metrics, ended));
        Ok(Self { key, address, worker, certificate, stop, listener, _lock: lock })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its cosignatures are verified with.
    #[must_use]
    pub const fn verifier_key(&self) -> &NoteKey {
        &self.key
    }

    /// Reads the certificate from its files again, and tries to reach a device that is down.
    ///
    /// # Errors
    /// `Invalid` where the files do not hold; then the old certificate stays.
    pub fn reload(&self) -> Result<()> {
        self.worker.retry();
        if let Some((files, current)) = &self.certificate {
            current.store(Arc::new(tls(files)?));
        }
        Ok(())
    }

    /// Ends in order: what is in flight finishes.
    ///
    /// # Errors
    /// Where the listener was lost.
    pub async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        let listened = self.listener.await.map_err(|e| Error::internal(format!("a listener was lost: {e}"))).flatten();
        self.worker.shutdown().await;
        listened
    }
}

/// One witness at a time on one folder.
async fn lock(data: &Path) -> Result<File> {
    crate::device::lock(data, "witness", "signet witness init").await
}

fn tls(files: &CertificateFiles) -> Result<listen::Tls> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| Error::new(Kind::Invalid, format!("{} cannot be read: {e}", path.display())))
    };
    listen::tls_config(&read(&files.chain)?, &SecretBytes::new(read(&files.key)?), None)
}
