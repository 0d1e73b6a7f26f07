//! What may be written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::types::{EstLabel, IssuerName, Name, Period, ProfileName};

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub(super) server: ServerFile,
    pub(super) storage: StorageFile,
    pub(super) keys: KeysFile,
    pub(super) acme: AcmeFile,
    pub(super) est: EstFile,
    pub(super) pki: PkiFile,
    pub(super) tls: TlsFile,
    pub(super) expiry: ExpiryFile,
    pub(super) audit: AuditFile,
    pub(super) witness: Vec<WitnessFile>,
    pub(super) devices: BTreeMap<Name, DeviceFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServerFile {
    pub(super) listen: Option<SocketAddr>,
    pub(super) names: Option<Vec<String>>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_authorities: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsFile {
    pub(super) issuer: Option<IssuerName>,
    pub(super) profile: Option<ProfileName>,
    pub(super) names: Option<Vec<String>>,
    pub(super) device: Option<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StorageFile {
    pub(super) data: Option<PathBuf>,
    pub(super) root_device: Option<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KeysFile {
    pub(super) default_device: Option<Name>,
    pub(super) tick: Option<Period>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AcmeFile {
    pub(super) url: Option<String>,
    pub(super) resolvers: Option<Vec<SocketAddr>>,
    pub(super) http_port: Option<u16>,
    pub(super) https_port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EstFile {
    pub(super) default: Option<EstLabel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PkiFile {
    pub(super) listen: Option<SocketAddr>,
    pub(super) url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExpiryFile {
    pub(super) webhook: Option<WebhookFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookFile {
    pub(super) url: String,
    pub(super) secret_file: PathBuf,
    pub(super) ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) before: Vec<Period>,
    pub(super) timeout: Option<Period>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditFile {
    pub(super) sinks: Vec<SinkFile>,
    pub(super) archive: Option<ArchiveFile>,
    pub(super) segment_bytes: Option<u64>,
    pub(super) retention: Option<RetentionFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionFile {
    pub(super) archive: Option<PathBuf>,
    pub(super) keep: Option<Period>,
    #[serde(default)]
    pub(super) automatic: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub(super) enum ArchiveFile {
    Folder {
        folder: PathBuf,
    },
    S3 {
        bucket: String,
        #[serde(default)]
        prefix: String,
        region: Option<String>,
        endpoint: Option<String>,
        credentials_file: PathBuf,
        ca: Option<PathBuf>,
        timeout: Option<Period>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub(super) enum SinkFile {
    Folder {
        name: Name,
        folder: PathBuf,
        #[serde(default)]
        required: bool,
    },
    Otlp {
        name: Name,
        url: String,
        ca: Option<PathBuf>,
        headers_file: Option<PathBuf>,
        timeout: Option<Period>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WitnessFile {
    pub(super) url: String,
    pub(super) key: String,
    pub(super) ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) required: bool,
    pub(super) timeout: Option<Period>,
}

/// One flat table; `kind` says which.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub(super) enum DeviceFile {
    Pkcs11 {
        module: PathBuf,
        token_label: Option<String>,
        token_serial: Option<String>,
        pin_file: Option<PathBuf>,
        pin_env: Option<String>,
        pin_credential: Option<String>,
        threads: Option<u8>,
        loaded_keys: Option<u32>,
        sync_dir: Option<PathBuf>,
        #[serde(default)]
        environment: BTreeMap<String, String>,
        #[serde(default)]
        network: bool,
        anchor_writes_per_day: Option<u32>,
    },
    Tpm {
        tcti: String,
        sessions: Option<bool>,
        anchor_writes_per_day: Option<u32>,
    },
}
