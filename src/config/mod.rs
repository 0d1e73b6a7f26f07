//! What the operator writes ([`File`]) becomes what is true ([`Config`]): checked, with every default in this one place.
//!
//! A file with an unknown option is refused. No secret stands in it: a PIN is named by where it is.

mod file;
mod witness;

pub use file::File;
pub use witness::{WatchedLog, WitnessConfig};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use file::{AcmeFile, ArchiveFile, AuditFile, DeviceFile, RetentionFile, SinkFile, TlsFile, WebhookFile, WitnessFile};

use crate::bucket::Settings as BucketSettings;
use crate::device::{PinSource, Pkcs11Settings, Settings, TokenSelector, TpmSettings};
use crate::error::{Error, Kind, Result};
use crate::otlp::Settings as CollectorSettings;
use crate::outbound::{Address, Place};
use crate::types::{EstLabel, IssuerName, Name, NoteKey, Period, ProfileName};
use crate::webhook::Settings as WebhookSettings;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the store, the audit log and what opens them.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The names of a self-made server certificate.
    pub names: Vec<String>,
    /// The server's own certificate; self-made where absent.
    pub certificate: Option<CertificateFiles>,
    /// The certificate that one of the service's own issuers is to give it, in place of a self-made one.
    pub own_certificate: Option<OwnCertificate>,
    /// Who signs client certificates; none are accepted where absent.
    pub client_authorities: Option<PathBuf>,
    /// The device that holds the root key and the key of the audit log.
    pub root_device: Name,
    /// The device of keys that name none.
    pub default_device: Name,
    /// All devices.
    pub devices: BTreeMap<Name, Settings>,
    /// How often the scheduler looks at the clock.
    pub tick: Period,
    /// How ACME reaches the network.
    pub acme: Acme,
    /// What an address of EST without a label means; nothing where absent.
    pub est: Option<EstLabel>,
    /// Where relying parties find what belongs to issuers.
    pub pki: Pki,
    /// Who is told of certificates that end and have no successor.
    pub ending: Option<Ending>,
    /// Further places of the audit log.
    pub sinks: Vec<Sink>,
    /// A segment of the audit log that reached so many bytes is closed.
    pub segment_bytes: u64,
    /// What may be removed from the audit log; nothing where absent.
    pub retention: Option<Retention>,
    /// Who cosigns the heads of the audit log.
    pub witnesses: Vec<Cosigner>,
}

/// A further place of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: SinkKind,
    /// Whether a record counts only once it is durable there.
    pub required: bool,
}

/// What may be removed from the audit log: what its archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The archive that holds it.
    pub archive: Archive,
    /// How old a record is at least when it goes.
    pub keep: Option<Period>,
    /// Whether the service removes by itself what is older.
    pub automatic: bool,
}

/// What a further place of the audit log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// A folder on another disk, which must be there.
    Folder(PathBuf),
    /// A collector of OpenTelemetry.
    Otlp(CollectorSettings),
    /// An archive of closed segments.
    Archive(Archive),
}

/// Where an archive of the audit log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archive {
    /// In a folder, which must be there.
    Folder(PathBuf),
    /// In a bucket.
    Bucket(BucketSettings),
}

/// A witness of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigner {
    /// What its cosignatures are verified with.
    pub key: NoteKey,
    /// Where it is.
    pub place: Place,
    /// Whether changes are acknowledged only once it holds them.
    pub required: bool,
    /// How long it may take.
    pub patience: Period,
}

/// Who is told of certificates that end, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The receiver.
    pub webhook: WebhookSettings,
    /// How much of a life is left where something is told, beside that it is late.
    pub before: Vec<Period>,
}

/// How ACME reaches the network, and is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acme {
    /// What stands before `/acme/` in all addresses, such as `https://ca.example`; the host that a client asks for where absent.
    pub url: Option<String>,
    /// Who is asked for names; the system's own resolvers where empty.
    pub resolvers: Vec<SocketAddr>,
    /// Where http-01 looks: 80 where absent.
    pub http_port: Option<u16>,
    /// Where tls-alpn-01 looks: 443 where absent.
    pub https_port: Option<u16>,
}

/// Where revocation lists, OCSP answers, certificates of issuers and trust bundles are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pki {
    /// Where to listen for plain HTTP; nowhere where absent. The TLS listener answers these routes, too.
    pub listen: Option<SocketAddr>,
    /// What stands before `/pki/` in the URLs that certificates carry; they carry none where absent.
    pub url: Option<String>,
}

/// A certificate from one of the service's own issuers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The issuer.
    pub issuer: IssuerName,
    /// The profile.
    pub profile: ProfileName,
    /// Its names: hosts and addresses.
    pub names: Vec<String>,
    /// The device that keeps its key; the sealed store where absent.
    pub device: Option<Name>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first, in PEM.
    pub chain: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

impl Config {
    /// Where the data of a system-wide service is.
    pub const DEFAULT_DATA: &'static str = "/var/lib/signet";
    /// Where it listens unless told otherwise: on this machine only.
    pub const DEFAULT_LISTEN: &'static str = "127.0.0.1:8443";
    /// The file that is read unless told otherwise.
    pub const DEFAULT_FILE: &'static str = "/etc/signet/signet.toml";

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the option that is wrong and what it should be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::new(Kind::Invalid, format!("the configuration {} cannot be read: {e}", path.display()))
                .hint("name it with --config, or write it: `hsm-config/` holds a stanza for each device")
        })?;
        Self::parse(&text).map_err(|e| e.context(path.display()))
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self> {
        Self::check(read_toml(text)?)
    }

    fn check(file: File) -> Result<Self> {
        let File { server, storage, keys, acme, est, pki, tls, expiry, mut audit, witness, devices } = file;
        let devices = devices
            .into_iter()
            .map(|(name, device)| {
                let settings = check_device(device).map_err(|e| e.context(format!("devices.{name}")))?;
                Ok((name, settings))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let first = devices.keys().next().cloned().ok_or_else(|| {
            Error::new(Kind::Invalid, "no device is configured")
                .hint("add a [devices.NAME] section: `hsm-config/` holds one for each device")
        })?;
        let root_device = known(&devices, "storage.root_device", storage.root_device.unwrap_or_else(|| first.clone()))?;
        let default_device = known(&devices, "keys.default_device", keys.default_device.unwrap_or(first))?;
        let certificate = match (server.certificate, server.key) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Error::new(Kind::Invalid, "server.certificate and server.key go together"));
            }
        };
        let names = server.names.unwrap_or_else(|| vec!["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let own_certificate = check_tls(tls, &names, certificate.is_some(), &devices)?;
        let tick = keys.tick.unwrap_or(Period::seconds(1));
        if tick.as_secs() == 0 {
            return Err(Error::new(Kind::Invalid, "keys.tick is at least 1s"));
        }
        let listen = match server.listen {
            Some(listen) => listen,
            None => Self::DEFAULT_LISTEN.parse().map_err(|e| Error::internal(format!("default address: {e}")))?,
        };
        let data = storage.data.unwrap_or_else(|| Self::DEFAULT_DATA.into());
        let retention = audit.retention.take();
        let segment_bytes = check_segment_bytes(audit.segment_bytes)?;
        let sinks = check_sinks(audit, &data)?;
        Ok(Self {
            segment_bytes,
            retention: retention.map(|retention| check_retention(retention, &sinks, &data)).transpose()?,
            sinks,
            data,
            listen,
            names,
            certificate,
            own_certificate,
            client_authorities: server.client_authorities,
            root_device,
            default_device,
            devices,
            tick,
            acme: check_acme(acme)?,
            est: est.default,
            pki: Pki { listen: pki.listen, url: pki.url.map(check_url).transpose()? },
            ending: expiry.webhook.map(check_webhook).transpose().map_err(|e| e.context("expiry.webhook"))?,
            witnesses: check_witnesses(witness).map_err(|e| e.context("witness"))?,
        })
    }
}

/// The most further places of the audit log.
const MAX_SINKS: usize = 8;

/// A segment is closed at 64 MiB, unless told otherwise; and one is in memory while it goes to a bucket.
const SEGMENT_BYTES: (u64, std::ops::RangeInclusive<u64>) = (64 * 1024 * 1024, 64 * 1024..=256 * 1024 * 1024);

fn check_segment_bytes(bytes: Option<u64>) -> Result<u64> {
    let (usual, allowed) = SEGMENT_BYTES;
    let bytes = bytes.unwrap_or(usual);
    if allowed.contains(&bytes) {
        return Ok(bytes);
    }
    Err(Error::new(Kind::Invalid, format!("audit.segment_bytes is {} to {}", allowed.start(), allowed.end())))
}

/// What the archive is called among the sinks.
const ARCHIVE: &str = "archive";
/// The longest time for one request to a bucket, which carries a segment.
const MAX_TRANSFER: Period = Period::seconds(600);

fn check_archive(archive: ArchiveFile, data: &Path) -> Result<Sink> {
    let name: Name = ARCHIVE.parse()?;
    let archive = match archive {
        ArchiveFile::Folder { folder } => {
            check_folder(&name, &folder, data)?;
            Archive::Folder(folder)
        }
        ArchiveFile::S3 { bucket, prefix, region, endpoint, credentials_file, ca, timeout } => {
            let patience = check_timeout(timeout, Period::seconds(60), MAX_TRANSFER)?.as_duration();
            let address = format!("s3://{bucket}/{prefix}");
            let settings = BucketSettings::new(&address, region, endpoint, ca, credentials_file)?;
            Archive::Bucket(BucketSettings { patience, ..settings })
        }
    };
    Ok(Sink { name, kind: SinkKind::Archive(archive), required: false })
}

fn check_sinks(audit: AuditFile, data: &Path) -> Result<Vec<Sink>> {
    let AuditFile { sinks, archive, segment_bytes: _, retention: _ } = audit;
    let mut checked = check_further(sinks, data).map_err(|e| e.context("audit.sinks"))?;
    let archive =
        archive.map(|archive| check_archive(archive, data)).transpose().map_err(|e| e.context("audit.archive"))?;
    if let Some(archive) = archive {
        if checked.iter().any(|other| other.name == archive.name) {
            return Err(Error::new(Kind::Invalid, "audit.sinks: archive is the name of the archive"));
        }
        checked.push(archive);
    }
    Ok(checked)
}

fn check_further(sinks: Vec<SinkFile>, data: &Path) -> Result<Vec<Sink>> {
    let mut checked: Vec<Sink> = Vec::new();
    for sink in sinks {
        let sink = match sink {
            SinkFile::Folder { name, folder, required } => {
                check_folder(&name, &folder, data)?;
                Sink { name, kind: SinkKind::Folder(folder), required }
            }
            SinkFile::Otlp { name, url, ca, headers_file, timeout } => {
                let place = check_place(&url, ca, "the collector").map_err(|e| e.context(&name))?;
                let patience = check_timeout(timeout, Period::seconds(10), MAX_TIMEOUT)?.as_duration();
                let settings = CollectorSettings { place, headers_file, patience };
                Sink { name, kind: SinkKind::Otlp(settings), required: false }
            }
        };
        if checked.iter().any(|other| other.name == sink.name || other.kind == sink.kind) {
            return Err(Error::new(Kind::Invalid, format!("{} or its place is there twice", sink.name)));
        }
        checked.push(sink);
    }
    if checked.len() > MAX_SINKS {
        return Err(Error::new(Kind::Invalid, format!("at most {MAX_SINKS} are possible")));
    }
    Ok(checked)
}

fn check_retention(retention: RetentionFile, sinks: &[Sink], data: &Path) -> Result<Retention> {
    let RetentionFile { archive, keep, automatic } = retention;
    if automatic && keep.is_none() {
        return Err(Error::new(
            Kind::Invalid,
            "audit.retention.automatic needs keep: how old a record is at least when it goes",
        ));
    }
    let followed = sinks.iter().find_map(|sink| match &sink.kind {
        SinkKind::Archive(archive) => Some(archive.clone()),
        SinkKind::Folder(_) | SinkKind::Otlp(_) => None,
    });
    let archive = match archive {
        Some(folder) if !folder.is_absolute() || folder.starts_with(data) => {
            return Err(Error::new(Kind::Invalid, "audit.retention.archive is an absolute path outside storage.data")
                .hint("an archive is worth something on another disk only"));
        }
        Some(folder) => Archive::Folder(folder),
        None => followed.ok_or_else(|| {
            Error::new(Kind::Invalid, "audit.retention: no archive holds what is to go").hint(
                "configure [audit.archive], or name the folder of `signet audit archive` as audit.retention.archive",
            )
        })?,
    };
    Ok(Retention { archive, keep, automatic })
}

fn check_folder(name: &Name, folder: &Path, data: &Path) -> Result<()> {
    if folder.is_absolute() && !folder.starts_with(data) {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("the folder of {name} is an absolute path outside storage.data"))
        .hint("a copy is worth something on another disk only"))
}

/// Somebody at a url, `who` in a sentence, and those that may certify him.
fn check_place(url: &str, ca: Option<PathBuf>, who: &str) -> Result<Place> {
    let address: Address = url.parse().map_err(|e: Error| e.context("url"))?;
    if url.starts_with("https") == ca.is_some() {
        return Ok(Place { address, anchors: ca });
    }
    Err(Error::new(Kind::Invalid, "ca and an https url go together").hint(format!(
        "ca is the file of those that may certify {who}: /etc/ssl/certs/ca-certificates.crt holds the public ones"
    )))
}

/// How long one attempt may take.
fn check_timeout(timeout: Option<Period>, usual: Period, most: Period) -> Result<Period> {
    let timeout = timeout.unwrap_or(usual);
    if timeout > most || timeout.as_secs() == 0 {
        return Err(Error::new(Kind::Invalid, format!("timeout is 1s to {most}")));
    }
    Ok(timeout)
}

/// What a file says, or the line that is wrong.
fn read_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| {
        let place = e.span().map(|span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
        let line = place.map(|line| format!("line {line}: ")).unwrap_or_default();
        Error::new(Kind::Invalid, format!("{line}{}", e.message()))
    })
}

fn known(devices: &BTreeMap<Name, Settings>, option: &str, name: Name) -> Result<Name> {
    if devices.contains_key(&name) {
        return Ok(name);
    }
    let names: Vec<_> = devices.keys().map(Name::as_str).collect();
    Err(Error::new(Kind::Invalid, format!("{option} names {name}, which is no device of this file"))
        .hint(format!("one of: {}", names.join(", "))))
}

fn check_acme(acme: AcmeFile) -> Result<Acme> {
    let AcmeFile { url, resolvers, http_port, https_port } = acme;
    if let Some(url) = &url {
        let host = url.strip_prefix("https://").unwrap_or_default();
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)) {
            return Err(Error::new(
                Kind::Invalid,
                "acme.url is https:// and a host, perhaps with a port, and nothing after it",
            ));
        }
    }
    Ok(Acme { url, resolvers: resolvers.unwrap_or_default(), http_port, https_port })
}

fn check_tls(
    tls: TlsFile,
    own: &[String],
    from_files: bool,
    devices: &BTreeMap<Name, Settings>,
) -> Result<Option<OwnCertificate>> {
    let TlsFile { issuer, profile, names, device } = tls;
    let Some(issuer) = issuer else {
        if profile.is_some() || names.is_some() || device.is_some() {
            return Err(Error::new(Kind::Invalid, "tls.profile, tls.names and tls.device belong to tls.issuer")
                .hint("name the issuer that is to give the service its certificate"));
        }
        return Ok(None);
    };
    if from_files {
        return Err(Error::new(Kind::Invalid, "tls.issuer and server.certificate exclude each other")
            .hint("the certificate comes from files, or from one of the service's own issuers"));
    }
    let profile = match profile {
        Some(profile) => profile,
        None => format!("{}:server", issuer.namespace).parse()?,
    };
    let device = device.map(|device| known(devices, "tls.device", device)).transpose()?;
    Ok(Some(OwnCertificate { issuer, profile, names: names.unwrap_or_else(|| own.to_vec()), device }))
}

/// The most moments at which a certificate that ends is told, and how long before its end: no look goes further.
const MAX_BEFORE: (usize, Period) = (4, Period::seconds(30 * 86_400));
/// The longest time for one attempt to tell it.
const MAX_TIMEOUT: Period = Period::seconds(60);

fn check_webhook(webhook: WebhookFile) -> Result<Ending> {
    let WebhookFile { url, secret_file, ca, before, timeout } = webhook;
    let place = check_place(&url, ca, "the receiver")?;
    let (most, longest) = MAX_BEFORE;
    if before.len() > most || before.iter().any(|period| *period > longest || period.as_secs() == 0) {
        return Err(Error::new(Kind::Invalid, format!("before holds at most {most} periods of at most {longest}")));
    }
    let timeout = check_timeout(timeout, Period::seconds(10), MAX_TIMEOUT)?;
    let webhook = WebhookSettings { place, secret_file, patience: timeout.as_duration() };
    Ok(Ending { webhook, before })
}

/// The most witnesses.
const MAX_WITNESSES: usize = 8;

fn check_witnesses(files: Vec<WitnessFile>) -> Result<Vec<Cosigner>> {
    if files.len() > MAX_WITNESSES {
        return Err(Error::new(Kind::Invalid, format!("at most {MAX_WITNESSES} witnesses can be configured")));
    }
    let mut all: Vec<Cosigner> = Vec::new();
    for WitnessFile { url, key, ca, required, timeout } in files {
        let key: NoteKey = key.parse()?;
        if !key.cosigns() {
            return Err(Error::new(Kind::Invalid, "key is that of a log, and a witness signs with another kind")
                .hint("`signet witness key` prints that of a witness"));
        }
        if all.iter().any(|other| other.key.id() == key.id()) {
            return Err(Error::new(Kind::Invalid, format!("{} stands there twice", key.name())));
        }
        let place = check_place(&url, ca, "the witness")?;
        all.push(Cosigner { key, place, required, patience: check_timeout(timeout, Period::seconds(5), MAX_TIMEOUT)? });
    }
    Ok(all)
}

/// The longest URL that is put before `/pki/`.
const MAX_URL: usize = 200;

/// "CAs SHOULD NOT include URIs that specify https": what is fetched is signed, and TLS would need it first
/// ([RFC 5280, 8](https://www.rfc-editor.org/rfc/rfc5280#section-8)).
fn check_url(url: String) -> Result<String> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'/' | b'_' | b'[' | b']');
    let rest = url.strip_prefix("http://").filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if rest.is_some_and(|rest| !rest.ends_with('/') && rest.bytes().all(plain)) && url.len() <= MAX_URL {
        return Ok(url);
    }
    Err(Error::new(
        Kind::Invalid,
        format!("pki.url is an http:// URL of at most {MAX_URL} characters, without a slash at its end"),
    )
    .hint(
        "as in url = \"http://pki.example.com\": certificates carry it, and clients need no TLS to read what is signed",
    ))
}

fn check_device(device: DeviceFile) -> Result<Settings> {
    match device {
        DeviceFile::Pkcs11 {
            module,
            token_label,
            token_serial,
            pin_file,
            pin_env,
            pin_credential,
            threads,
            loaded_keys,
            sync_dir,
            environment,
            network,
            anchor_writes_per_day,
        } => {
            let token = match (token_serial, token_label) {
                (Some(serial), None) => TokenSelector::Serial(serial),
                (None, Some(label)) => TokenSelector::Label(label),
                (None, None) | (Some(_), Some(_)) => {
                    return Err(Error::new(Kind::Invalid, "give one of token_serial and token_label")
                        .hint("`pkcs11-tool --module MODULE --list-token-slots` shows both"));
                }
            };
            let threads = threads.unwrap_or(2);
            if !(1..=32).contains(&threads) {
                return Err(Error::new(Kind::Invalid, "threads is 1 to 32: more than the cores only costs"));
            }
            Ok(Settings::Pkcs11(Pkcs11Settings {
                module,
                token,
                pin: check_pin(pin_file, pin_env, pin_credential)?,
                threads,
                loaded_keys: loaded_keys.unwrap_or(10_000).max(16),
                sync_dir,
                environment: environment.into_iter().collect(),
                network,
                anchor_writes_per_day: anchor_writes_per_day.map(check_writes).transpose()?,
            }))
        }
        DeviceFile::Tpm { tcti, sessions, anchor_writes_per_day } => {
            let known = tcti.starts_with("device:") || tcti.starts_with("swtpm:");
            if !known {
                return Err(Error::new(Kind::Invalid, "tcti is neither device:... nor swtpm:...")
                    .hint("device:/dev/tpmrm0, or swtpm:host=127.0.0.1,port=2321"));
            }
            // What a software TPM writes to wears out no sooner than the disk.
            let usual = tcti.starts_with("device:").then_some(TPM_WRITES_PER_DAY);
            let anchor_writes_per_day = anchor_writes_per_day.map(check_writes).transpose()?.or(usual);
            Ok(Settings::Tpm(TpmSettings { tcti, sessions: sessions.unwrap_or(true), anchor_writes_per_day }))
        }
    }
}

/// How often a day the anchor in a hardware TPM may be written: makers promise some 100,000 writes and more of one cell.
const TPM_WRITES_PER_DAY: u32 = 200;

fn check_writes(per_day: u32) -> Result<u32> {
    if per_day >= 10 {
        return Ok(per_day);
    }
    Err(Error::new(Kind::Invalid, "anchor_writes_per_day is 10 or more").hint(
        "with fewer an older state of the store could be put back unnoticed for hours; to have no limit, leave it out of a pkcs11 device",
    ))
}

fn check_pin(file: Option<PathBuf>, environment: Option<String>, credential: Option<String>) -> Result<PinSource> {
    match (file, environment, credential) {
        (Some(path), None, None) => Ok(PinSource::File(path)),
        (None, Some(name), None) => Ok(PinSource::Environment(name)),
        (None, None, Some(name)) => Ok(PinSource::Credential(name)),
        (None, None, None) | (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            Err(Error::new(Kind::Invalid, "give one of pin_file, pin_env and pin_credential")
                .hint("the PIN itself never stands in the configuration"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTHSM: &str = include_str!("../../hsm-config/softhsm.toml");
    const SWTPM: &str = include_str!("../../hsm-config/swtpm.toml");
    const TPM: &str = include_str!("../../hsm-config/tpm-linux.toml");
    /// Written from documents: no test has such a device.
    const UNTESTED: &[&str] = &[
        include_str!("../../hsm-config/cloudhsm.toml"),
        include_str!("../../hsm-config/luna.toml"),
        include_str!("../../hsm-config/nitrokey-hsm2.toml"),
        include_str!("../../hsm-config/nshield.toml"),
        include_str!("../../hsm-config/tpm2-pkcs11.toml"),
        include_str!("../../hsm-config/utimaco.toml"),
        include_str!("../../hsm-config/yubihsm2.toml"),
    ];

    #[test]
    fn the_stanzas_of_hsm_config_are_true() {
        for stanza in [SOFTHSM, SWTPM, TPM].iter().chain(UNTESTED) {
            let config = Config::parse(stanza).unwrap();
            assert_eq!(config.devices.len(), 1);
            assert_eq!(config.listen.to_string(), Config::DEFAULT_LISTEN);
        }
    }

    #[test]
    fn an_own_certificate_has_names_and_a_profile_by_itself() {
        let config =
            Config::parse(&format!("[server]\nnames = [\"kms.example\"]\n[tls]\nissuer = \"pki:fleet\"\n{TPM}"));
        let own = config.unwrap().own_certificate.unwrap();
        assert_eq!((own.issuer.to_string().as_str(), own.profile.to_string().as_str()), ("pki:fleet", "pki:server"));
        assert_eq!(own.names, ["kms.example"]);
        assert_eq!(Config::parse(TPM).unwrap().own_certificate, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "no device is configured"),
            ("[server]\nlisten = \"nowhere\"", "line 2"),
            ("[servers]", "unknown field `servers`"),
            ("[devices.a]\nkind = \"pkcs11\"\nmodule = \"/x\"\npin_file = \"/y\"", "token_serial and token_label"),
            ("[devices.a]\nkind = \"pkcs11\"\nmodule = \"/x\"\ntoken_label = \"t\"", "pin_file, pin_env"),
            (
                "[devices.a]\nkind = \"pkcs11\"\nmodule = \"/x\"\ntoken_label = \"t\"\npin = \"1234\"",
                "unknown field `pin`",
            ),
            ("[devices.a]\nkind = \"tpm\"\ntcti = \"mssim:\"", "tcti is neither"),
            (
                "[pki]\nurl = \"https://a.example\"\n[devices.a]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"",
                "pki.url",
            ),
            (
                "[pki]\nurl = \"http://a.example/\"\n[devices.a]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"",
                "pki.url",
            ),
            (
                "[tls]\nprofile = \"a\"\n[devices.a]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"",
                "belong to tls.issuer",
            ),
            (
                "[server]\ncertificate = \"/c\"\nkey = \"/k\"\n[tls]\nissuer = \"a\"\n\
                 [devices.a]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"",
                "exclude each other",
            ),
            ("[devices.a]\nkind = \"tpm\"\ntcti = \"device:/dev/tpmrm0\"\n[keys]\ndefault_device = \"b\"", "names b"),
        ];
        for (text, part) in cases {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_witness_has_a_key_and_proves_who_it_is() {
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let public = crate::types::PublicKey::ed25519(&hex::decode(public).unwrap()).unwrap();
        let key = NoteKey::of_witness("w/1", &public).unwrap();
        let parse = |text: &str| {
            Config::parse(&format!("{TPM}\n{}", text.replace("KEY", &format!("[[witness]]\nkey = \"{key}\""))))
                .map(|config| config.witnesses)
                .map_err(|error| error.to_string())
        };
        let all = parse("KEY\nurl = \"https://w.example/a\"\nca = \"/c\"\nrequired = true").unwrap();
        assert_eq!((all.len(), all[0].required, all[0].patience), (1, true, Period::seconds(5)));
        assert!(parse("").unwrap().is_empty());
        let cases = [
            ("KEY\nurl = \"http://w.example\"", "not the address"),
            ("KEY\nurl = \"https://w.example\"", "go together"),
            ("KEY\nurl = \"http://localhost\"\ntimeout = \"61s\"", "timeout is 1s to 1m"),
            ("KEY\nurl = \"http://localhost\"\nKEY\nurl = \"http://localhost\"", "twice"),
            ("[[witness]]\nkey = \"a+b+c\"\nurl = \"http://localhost\"", "not the key of a log or a witness"),
        ];
        for (text, part) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_sink_is_a_folder_or_a_collector() {
        let parse = |text: &str| {
            Config::parse(&format!("{TPM}\n[[audit.sinks]]\nname = \"a\"\n{text}"))
                .map(|config| config.sinks)
                .map_err(|error| error.to_string())
        };
        let all = parse(
            "kind = \"otlp\"\nurl = \"https://c.example/v1/logs?hidden\"\nca = \"/c\"\nheaders_file = \"/h\"\n\
             [[audit.sinks]]\nname = \"b\"\nkind = \"folder\"\nfolder = \"/b\"\nrequired = true",
        );
        let all = all.unwrap();
        assert!(matches!(&all[0].kind, SinkKind::Otlp(settings) if settings.patience.as_secs() == 10));
        assert!(!format!("{all:?}").contains("hidden") && all[1].required);
        let cases = [
            ("kind = \"otlp\"\nurl = \"http://c.example/v1/logs\"", "not the address"),
            ("kind = \"otlp\"\nurl = \"https://c.example/v1/logs\"", "go together"),
            ("kind = \"otlp\"\nurl = \"http://localhost/v1/logs\"\nrequired = true", "unknown field `required`"),
            ("kind = \"otlp\"\nurl = \"http://localhost/v1/logs\"\ntimeout = \"61s\"", "timeout is 1s to 1m"),
            ("kind = \"folder\"\nfolder = \"b\"", "an absolute path"),
            (
                "kind = \"folder\"\nfolder = \"/b\"\n[[audit.sinks]]\nname = \"b\"\nkind = \"folder\"\nfolder = \"/b\"",
                "twice",
            ),
            ("kind = \"kafka\"", "unknown variant"),
        ];
        for (text, part) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_archive_is_a_folder_or_a_bucket() {
        let parse = |text: &str| {
            let text = text.replace("S3", "kind = \"s3\"\nbucket = \"logs-1\"\ncredentials_file = \"/s\"");
            Config::parse(&format!("{TPM}\n[audit.archive]\n{text}"))
                .map(|config| config.sinks.into_iter().next().unwrap().kind)
                .map_err(|error| error.to_string())
        };
        let SinkKind::Archive(Archive::Bucket(bucket)) =
            parse("S3\nca = \"/c\"\nregion = \"eu-1\"\nprefix = \"a/b\"").unwrap()
        else {
            panic!("a bucket")
        };
        assert_eq!(
            (bucket.place.address.to_string().as_str(), bucket.prefix.as_str()),
            ("https://s3.eu-1.amazonaws.com", "a/b/")
        );
        assert_eq!(bucket.patience.as_secs(), 60);
        assert_eq!(
            parse("kind = \"folder\"\nfolder = \"/a\"").unwrap(),
            SinkKind::Archive(Archive::Folder("/a".into()))
        );
        let cases = [
            ("S3", "go together"),
            ("S3\nendpoint = \"http://minio.example\"", "not the address"),
            ("S3\nendpoint = \"http://localhost:9000/minio\"", "endpoint has no path"),
            ("S3\nendpoint = \"http://localhost:9000\"\nprefix = \"a b\"", "not the address of a bucket"),
            ("S3\nendpoint = \"http://localhost:9000\"\ntimeout = \"11m\"", "timeout is 1s to 10m"),
            ("S3\nendpoint = \"http://localhost:9000\"\nregion = \"a/b\"", "region"),
            ("S3\nsecret = \"x\"", "unknown field"),
            ("kind = \"folder\"\nfolder = \"a\"", "an absolute path"),
        ];
        for (text, part) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        let small = Config::parse(&format!("{TPM}\n[audit]\nsegment_bytes = 1")).unwrap_err().to_string();
        assert!(small.contains("audit.segment_bytes is 65536 to"), "{small}");
    }

    #[test]
    fn what_is_pruned_is_in_an_archive() {
        let parse = |text: &str| {
            Config::parse(&format!("{TPM}\n{text}"))
                .map(|config| config.retention.unwrap())
                .map_err(|error| error.to_string())
        };
        let own = "[audit.archive]\nkind = \"folder\"\nfolder = \"/a\"\n[audit.retention]\n";
        let same = parse(own).unwrap();
        assert_eq!((&same.archive, same.automatic), (&Archive::Folder("/a".into()), false));
        let other = parse(&format!("{own}archive = \"/b\"\nkeep = \"90d\"\nautomatic = true")).unwrap();
        assert_eq!((&other.archive, other.automatic), (&Archive::Folder("/b".into()), true));
        let cases = [
            ("[audit.retention]".to_owned(), "no archive holds what is to go"),
            (format!("{own}automatic = true"), "needs keep"),
            (format!("{own}archive = \"b\""), "an absolute path"),
            (format!("{own}every = \"1h\""), "unknown field"),
        ];
        for (text, part) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_receiver_is_told_in_the_clear_only_on_this_machine() {
        let parse = |text: &str| {
            Config::parse(&format!("{TPM}\n[expiry.webhook]\nsecret_file = \"/s\"\n{text}"))
                .map(|config| config.ending.unwrap())
                .map_err(|error| error.to_string())
        };
        let here = parse("url = \"http://localhost:9000/x\"\nbefore = [\"30d\", \"7d\"]").unwrap();
        assert_eq!((here.before.len(), here.webhook.patience.as_secs()), (2, 10));
        parse("url = \"https://hooks.example/x\"\nca = \"/c\"\ntimeout = \"60s\"").unwrap();
        assert_eq!(Config::parse(TPM).unwrap().ending, None);
        let cases = [
            ("url = \"http://hooks.example/x\"", "expiry.webhook: url: not the address of a receiver"),
            ("url = \"https://hooks.example/x\"", "go together"),
            ("url = \"http://localhost/x\"\nca = \"/c\"", "go together"),
            ("url = \"http://localhost/x\"\nbefore = [\"31d\"]", "at most 4 periods"),
            ("url = \"http://localhost/x\"\nbefore = [\"0s\"]", "at most 4 periods"),
            ("url = \"http://localhost/x\"\ntimeout = \"61s\"", "timeout is 1s to 1m"),
            ("url = \"http://localhost/x\"\nsecret = \"whsec_\"", "unknown field `secret`"),
            ("before = []", "missing field `url`"),
        ];
        for (text, part) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
