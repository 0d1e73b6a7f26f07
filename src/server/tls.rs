//! The server's certificate: from files, from one of its own issuers, or self-made.
//!
//! ```text
//! tls/ca.pem       what clients on this machine trust: the self-made authority, and below it the anchors of the issuer
//! tls/server.pem   the self-made certificate, which serves while there is none from the issuer
//! tls/server.key   its key
//! tls/served.pem   a copy of what is shown now, for people and for `doctor`
//! ```
//!
//! A certificate from an issuer is exchanged for another one between two connections: each handshake takes what is there when
//! it begins.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::listen;
use super::read_file;
use crate::config::Config;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::service::{CertificateSource, OwnCertificate, OwnKey, Service};
use crate::types::{Clock, KeyName, SecretBytes, Version};

/// Where a PEM block of a certificate ends.
const END: &str = "-----END CERTIFICATE-----\n";

/// The certificate and who may sign client certificates.
#[derive(Debug)]
pub(super) struct Certificate {
    service: Arc<Service>,
    chain: PathBuf,
    key: PathBuf,
    clients: Option<PathBuf>,
    /// The folder of the self-made authority, where there is one.
    own: Option<PathBuf>,
    current: Arc<ArcSwap<listen::Tls>>,
    /// What is shown and what is trusted now. Held while that is exchanged.
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    issued: Option<Arc<OwnCertificate>>,
    anchors: String,
}

impl Certificate {
    /// The certificate to begin with: the configured one, the one that was issued before, or a self-made one that leads to a
    /// self-made authority in the data folder.
    pub(super) fn load(config: &Config, service: Arc<Service>, clock: &Clock) -> Result<Self> {
        let (chain, key, own) = match &config.certificate {
            Some(files) => (files.chain.clone(), files.key.clone(), None),
            None => {
                let folder = config.data.join("tls");
                make(&folder, &config.names, clock)?;
                (folder.join("server.pem"), folder.join("server.key"), Some(folder))
            }
        };
        let clients = config.client_authorities.clone();
        let current = Arc::new(ArcSwap::from_pointee(from_files(&chain, &key, clients.as_deref())?));
        let this = Self { service, chain, key, clients, own, current, shown: Mutex::default() };
        this.show(&mut this.shown())?;
        Ok(this)
    }

    /// What new connections are served with.
    pub(super) fn current(&self) -> Arc<ArcSwap<listen::Tls>> {
        self.current.clone()
    }

    /// Gets another certificate where one is due, and shows it.
    pub(super) async fn tick(&self) {
        self.service.renew_own_certificate().await;
        let mut shown = self.shown();
        let issued = self.service.own_certificate();
        if same(issued.as_ref(), shown.issued.as_ref()) && self.service.own_anchors() == shown.anchors {
            return;
        }
        if let Err(error) = self.show(&mut shown) {
            tracing::warn!(cause = error.chain(), "the server goes on with the certificate that it has");
        }
    }

    /// Reads all files again.
    pub(super) fn reload(&self) -> Result<()> {
        self.show(&mut self.shown())
    }

    /// What clients on this machine trust, where the server made it.
    pub(super) fn trusted(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|folder| folder.join("ca.pem"))
    }

    /// Has a device sign the handshakes.
    fn signer(&self, key: &KeyName, version: Version) -> listen::Sign {
        let (service, key) = (self.service.clone(), key.clone());
        Arc::new(move |message| {
            let (service, key) = (service.clone(), key.clone());
            Box::pin(async move { service.sign_handshake(&key, version, message).await })
        })
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows to new connections what should be shown now. Who is to trust it is told before.
    fn show(&self, shown: &mut Shown) -> Result<()> {
        if let Some(folder) = &self.own {
            let anchors = self.service.own_anchors();
            trust(&folder.join("ca.pem"), &anchors)?;
            shown.anchors = anchors;
        }
        let issued = self.service.own_certificate();
        let (source, chain, tls) = match &issued {
            Some(issued) => {
                let clients = self.clients.as_deref().map(read_file).transpose()?;
                let chain = issued.chain.as_bytes();
                let tls = match &issued.key {
                    OwnKey::Stored(key) => listen::tls_config(chain, key, clients.as_deref())?,
                    OwnKey::Device { name, version, public } => {
                        let key = listen::DeviceKey::new(public.clone(), self.signer(name, *version));
                        listen::Tls::by_device(chain, key, clients.as_deref())?
                    }
                };
                (CertificateSource::Issued, chain.to_vec(), tls)
            }
            None => {
                let source = if self.own.is_some() { CertificateSource::SelfMade } else { CertificateSource::Files };
                let tls = from_files(&self.chain, &self.key, self.clients.as_deref())?;
                (source, read_file(&self.chain)?, tls)
            }
        };
        self.current.store(Arc::new(tls));
        let leaf = CertificateDer::from_pem_slice(&chain).map(|leaf| leaf.to_vec()).unwrap_or_default();
        self.service.shows(source, &leaf);
        if source != CertificateSource::Files && !same(issued.as_ref(), shown.issued.as_ref()) {
            tracing::info!(%source, trusted = ?self.trusted(), "the server shows another certificate");
        }
        shown.issued = issued;
        match &self.own {
            Some(folder) => write_other(&folder.join("served.pem"), &chain),
            None => Ok(()),
        }
    }
}

fn same(one: Option<&Arc<OwnCertificate>>, other: Option<&Arc<OwnCertificate>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn from_files(chain: &Path, key: &Path, clients: Option<&Path>) -> Result<listen::Tls> {
    let clients = clients.map(read_file).transpose()?;
    listen::tls_config(&read_file(chain)?, &SecretBytes::new(read_file(key)?), clients.as_deref())
}

/// Makes a certificate for `names` and its authority, where the folder has none.
fn make(folder: &Path, names: &[String], clock: &Clock) -> Result<()> {
    let chain = folder.join("server.pem");
    if chain.exists() {
        return Ok(());
    }
    let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", folder.display()));
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    let made = listen::self_signed(names, clock)?;
    write(&folder.join("ca.pem"), made.authority.as_bytes(), 0o644)?;
    write(&folder.join("server.key"), made.key.expose(), 0o600)?;
    // Last, because its presence says that all three are there.
    write(&chain, made.chain.as_bytes(), 0o644)
}

/// Writes what is trusted: the self-made authority, which is the first certificate of the file, and `anchors`.
fn trust(path: &Path, anchors: &str) -> Result<()> {
    let before = read_file(path)?;
    let before = String::from_utf8_lossy(&before);
    let own = before.find(END).and_then(|at| before.get(..at + END.len())).unwrap_or(&before);
    write_other(path, format!("{own}{anchors}").as_bytes())
}

/// Writes a file that everybody may read, where it does not hold that already.
fn write_other(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|before| before == content) {
        return Ok(());
    }
    write(path, content, 0o644)
}

/// Writes a file whole or not at all.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", path.display()));
    let folder = path.parent().unwrap_or(Path::new("."));
    let permissions: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder).map_err(unwritable)?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
    crash_point!("tls.before_write");
    file.persist(path).map_err(|e| unwritable(e.error))?;
    crash_point!("tls.written");
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)
}
