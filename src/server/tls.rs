//! The server's certificate: from files, or self-made.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::listen;
use super::read_file;
use crate::config::Config;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::Clock;

/// The certificate and who may sign client certificates.
#[derive(Debug)]
pub(super) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    clients: Option<PathBuf>,
    own_authority: Option<PathBuf>,
}

impl Certificate {
    /// The configured certificate, or a self-made one that leads to a self-made authority in the data folder.
    pub(super) fn load(config: &Config, clock: &Clock) -> Result<Self> {
        let clients = config.client_authorities.clone();
        if let Some(files) = &config.certificate {
            return Ok(Self { chain: files.chain.clone(), key: files.key.clone(), clients, own_authority: None });
        }
        let folder = config.data.join("tls");
        let (authority, chain, key) = (folder.join("ca.pem"), folder.join("server.pem"), folder.join("server.key"));
        if !chain.exists() {
            let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", folder.display()));
            std::fs::create_dir_all(&folder).map_err(unwritable)?;
            let made = listen::self_signed(&config.names, clock)?;
            write(&authority, made.authority.as_bytes(), 0o644)?;
            write(&key, made.key.expose(), 0o600)?;
            // Last, because its presence says that all three are there.
            write(&chain, made.chain.as_bytes(), 0o644)?;
        }
        Ok(Self { chain, key, clients, own_authority: Some(authority) })
    }

    pub(super) fn server_config(&self) -> Result<rustls::ServerConfig> {
        let clients = self.clients.as_deref().map(read_file).transpose()?;
        let key = crate::types::SecretBytes::new(read_file(&self.key)?);
        listen::tls_config(&read_file(&self.chain)?, &key, clients.as_deref())
    }

    pub(super) fn own_authority(&self) -> Option<&Path> {
        self.own_authority.as_deref()
    }
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
