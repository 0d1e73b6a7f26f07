//! `signet init`: the only maker of a data folder, and the only one who enrols a device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::root::{Root, SecondLogKey};
use super::{Options, ROOT_RECORD, Server, lock, stop_workers};
use crate::audit::{
    ArchivePlace, Log, Origin, Phase, Record, SecondKey, Settings as LogSettings, SinkKind as LogSinkKind, SinkSettings,
};
use crate::config::{Archive, Config, Sink, SinkKind};
use crate::crash_point;
use crate::device::{AnchorPlace, Class, Identity, Settings, Worker};
use crate::error::{Error, Kind, Result};
use crate::ledger::{DeviceAnchor, Ledger};
use crate::policy::{ADMINISTRATORS, ADMINISTRATORS_TEXT};
use crate::store::{Change, Expected, Sealed, Sqlite, Store};
use crate::telemetry::Metrics;
use crate::types::{Action, Caller, Name, Resource};

/// What a new installation needs to be told once.
pub struct Created {
    /// The token of the first administrator: for one request, within an hour.
    pub token: Zeroizing<String>,
    /// The devices that hold an anchor of the store.
    pub anchors: BTreeSet<Name>,
    /// Those of them that are software, so that it proves nothing.
    pub software: BTreeSet<Name>,
}

impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Created")
    }
}

/// Makes a new installation: enrols every device, makes the root key, the key of the log and the storage key, the store, the
/// log, the first policy and the first administrator's token.
///
/// # Errors
/// `Conflict` where the data folder is not empty, and whatever the devices say. What was cut short is not half an
/// installation: without `root.json`, which is written last, nothing starts.
pub async fn create(config: &Config, options: &Options) -> Result<Created> {
    make_folder(&config.data)?;
    let locked = lock(&config.data).await?;
    let (identities, workers) = enrol_all(config, options).await?;
    let made = create_with(config, &workers, identities).await;
    let mut software = BTreeSet::new();
    for (name, worker) in &workers {
        if worker.describe().await.is_ok_and(|one| one.is_software()) {
            software.insert(name.clone());
        }
    }
    stop_workers(&workers).await;
    let anchors = made?;
    software.retain(|name| anchors.contains(name));
    drop(locked);
    Ok(Created { token: new_administrator(config, options).await?, anchors, software })
}

/// Makes a token for an administrator of an installation that is not running: for the one who holds the data folder and the
/// device. The service itself makes it, so it is admitted and recorded as everything else.
///
/// # Errors
/// Those of a start.
pub async fn new_administrator(config: &Config, options: &Options) -> Result<Zeroizing<String>> {
    let quiet = Config { listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)), ..config.clone() };
    let server = Server::start(&quiet, Options { unattended: false, ..options.clone() }).await?;
    let token = server.service().create_first_token().await;
    server.stop().await?;
    token
}

/// Has the anchors follow the store as it is, in an installation that is not running, and records the gap. Answers what was
/// accepted; `None` where the anchors agree with the store.
///
/// # Errors
/// Those of a start.
pub async fn accept_rollback(config: &Config, options: &Options) -> Result<Option<String>> {
    let quiet = Config { listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)), ..config.clone() };
    let options = Options { unattended: false, accept_rollback: true, ..options.clone() };
    let server = Server::start(&quiet, options).await?;
    let gap = server.service().gap();
    server.stop().await?;
    Ok(gap)
}

/// Enrols one more device in an existing installation that is not running.
///
/// # Errors
/// `Conflict` where it is enrolled already or the service runs.
pub async fn enrol(config: &Config, options: &Options, name: &Name) -> Result<()> {
    let locked = lock(&config.data).await?;
    let mut root = Root::read(&config.data)?;
    if root.devices.contains_key(name) {
        return Err(Error::new(Kind::Conflict, format!("device {name} is enrolled already"))
            .hint("a token that was replaced is another device: give it another name"));
    }
    let settings = config.devices.get(name);
    let settings = settings.ok_or_else(|| Error::new(Kind::Invalid, format!("there is no device {name}")))?;
    let workers = start_enrolled(config, options, &root, &locked)?;
    let result = enrol_with(config, options, &mut root, &workers, (name, settings)).await;
    stop_workers(&workers).await;
    result
}

/// What an upgrade made, by device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgraded {
    /// The devices that have an attestation key now.
    pub attestation_keys: BTreeSet<Name>,
    /// The devices that have key-encryption keys now for keys that they could not wrap before.
    pub key_encryption_keys: BTreeSet<Name>,
    /// The devices that hold an anchor now.
    pub anchors: BTreeSet<Name>,
    /// The device that has an Ed25519 key of the audit log now.
    pub log_key: Option<Name>,
    /// The device of such a key that is not configured any more: heads are signed without it from now on.
    pub lost_log_key: Option<Name>,
}

/// Gives an installation that is not running what newer ones are born with: an attestation key, key-encryption keys and an
/// anchor in each device that is configured, and an Ed25519 key of the audit log in one of them. Done again, it makes nothing.
///
/// # Errors
/// `Conflict` where the service runs, and whatever the devices say. What was cut short is made by the next try.
pub async fn upgrade(config: &Config, options: &Options) -> Result<Upgraded> {
    let locked = lock(&config.data).await?;
    let mut root = Root::read(&config.data)?;
    let workers = start_enrolled(config, options, &root, &locked)?;
    let result = upgrade_with(config, options, &mut root, &workers).await;
    stop_workers(&workers).await;
    result
}

async fn upgrade_with(
    config: &Config,
    options: &Options,
    root: &mut Root,
    workers: &BTreeMap<Name, Arc<Worker>>,
) -> Result<Upgraded> {
    let (before, mut made) = (root.fingerprint()?, Upgraded::default());
    // Its device is not there any more, so nothing is signed with it.
    let lost = root.log_ed25519.take_if(|second| !workers.contains_key(&second.device));
    made.lost_log_key = lost.map(|second| second.device);
    let (ledger, mut places, log) = open_store(config, options, root, &before, workers, workers.keys()).await?;
    for (name, worker) in workers {
        let pinned = root.devices.get_mut(name).ok_or_else(|| Error::internal("a device without identity"))?;
        if pinned.attestation_key.is_none() {
            crash_point!("upgrade.before_attestation_key");
            let born = worker.make_attestation_key().await;
            crash_point!("upgrade.attestation_key_made");
            pinned.attestation_key = Some(born?);
            made.attestation_keys.insert(name.clone());
        }
        crash_point!("upgrade.before_missing_keks");
        let born = worker.make_missing_keks().await;
        crash_point!("upgrade.missing_keks_made");
        let born = born?;
        if !born.is_empty() {
            pinned.keks.extend(born);
            made.key_encryption_keys.insert(name.clone());
        }
        let Some(place) = places.remove(name).filter(|_| !root.anchors.contains(name)) else { continue };
        if make_anchor(worker, place.duplicate()).await? {
            ledger.add_anchor(Arc::new(DeviceAnchor::new(worker.clone(), place))).await?;
            root.anchors.insert(name.clone());
            made.anchors.insert(name.clone());
        }
    }
    if root.log_ed25519.is_none() {
        // The records of this change itself may get heads of the old key alone.
        let since = log.size() + 2;
        root.log_ed25519 = SecondLogKey::create(&root.device, workers, since).await?;
        made.log_key = root.log_ed25519.as_ref().map(|second| second.device.clone());
    }
    if made != Upgraded::default() {
        replace_root(
            config,
            &ledger,
            root,
            before,
            ["the installation is being upgraded", "the installation is upgraded"],
        )
        .await?;
    }
    Ok(made)
}

/// The devices that are enrolled: the root key is in one of them, and some hold anchors.
pub(super) fn start_enrolled(
    config: &Config,
    options: &Options,
    root: &Root,
    locked: &std::fs::File,
) -> Result<BTreeMap<Name, Arc<Worker>>> {
    let enrolled = config.devices.iter().filter(|(name, _)| root.devices.contains_key(*name));
    let enrolled = Config { devices: enrolled.map(|(n, s)| (n.clone(), s.clone())).collect(), ..config.clone() };
    super::start_workers(&enrolled, root, options, locked, &Metrics::new())
}

/// The store with its log and its anchors, as at a start, and where the anchors of `devices` are or would be. The store vouches for a
/// `root.json` of that fingerprint.
pub(super) async fn open_store<'a>(
    config: &Config,
    options: &Options,
    root: &Root,
    fingerprint: &[u8; 32],
    workers: &BTreeMap<Name, Arc<Worker>>,
    devices: impl Iterator<Item = &'a Name>,
) -> Result<(Ledger, BTreeMap<Name, AnchorPlace>, Arc<Log>)> {
    let house = workers.get(&root.device);
    let house =
        house.ok_or_else(|| Error::new(Kind::Invalid, format!("the root device {} is not configured", root.device)))?;
    for worker in workers.values() {
        worker.settled().await?;
    }
    let key = root.unseal(house).await?;
    let anchors = super::anchors(root, &key, workers, false).await?;
    let places = devices.map(|name| Ok((name.clone(), root.anchor_place(&key, name)?))).collect::<Result<_>>()?;
    let store: Arc<dyn Store> = Arc::new(Sealed::new(Sqlite::open(&config.data.join("signet.db"))?, key));
    super::check_root(&*store, fingerprint)?;
    let log = Arc::new(Log::open(log_settings(config, root)?, Some(&root.log_public))?.log);
    let heads = super::heads(root, log.clone(), workers)?;
    let anchors = anchors.witnessed(super::witnesses(config, &log, &Arc::new(heads), &options.clock));
    let (ledger, _) = Ledger::open(store, log.clone(), options.clock.clone(), anchors).await?;
    Ok((ledger, places, log))
}

/// Replaces `root.json`. For as long as that is under way the store vouches for both: whichever a crash leaves, the service starts.
pub(super) async fn replace_root(
    config: &Config,
    ledger: &Ledger,
    root: &Root,
    before: [u8; 32],
    [doing, done]: [&str; 2],
) -> Result<()> {
    let leaf = |reason: &str| Record {
        reason: reason.to_owned(),
        ..Record::of(&Caller::system("init", "init"), Action::Start, &Resource::Service, Phase::Change)
    };
    let now = root.fingerprint()?;
    ledger.commit(leaf(doing), vec![vouching(&[before, now])]).await?;
    root.write(&config.data)?;
    ledger.commit(leaf(done), vec![vouching(&[now])]).await.map(drop)
}

async fn enrol_with(
    config: &Config,
    options: &Options,
    root: &mut Root,
    workers: &BTreeMap<Name, Arc<Worker>>,
    (name, settings): (&Name, &Settings),
) -> Result<()> {
    // 1. The store.
    let before = root.fingerprint()?;
    let (ledger, mut places, _) = open_store(config, options, root, &before, workers, std::iter::once(name)).await?;
    let place = places.remove(name).ok_or_else(|| Error::internal("an anchor without a place"))?;
    // 2. The device, and an anchor in it.
    let identity = enrol_one(name, settings, options).await?;
    let (program, pinned) = (options.program.clone(), Some(identity.clone()));
    let worker = Arc::new(Worker::start(name.as_str(), settings.clone(), pinned, program, Metrics::new()));
    let result = async {
        worker.settled().await?;
        root.devices.insert(name.clone(), identity);
        if make_anchor(&worker, place.duplicate()).await? {
            ledger.add_anchor(Arc::new(DeviceAnchor::new(worker.clone(), place))).await?;
            root.anchors.insert(name.clone());
        }
        let said = [format!("device {name} is being enrolled"), format!("device {name} is enrolled")];
        replace_root(config, &ledger, root, before, said.each_ref().map(String::as_str)).await
    };
    let result = result.await;
    worker.shutdown().await;
    result
}

/// Where an archive of the log is.
pub(super) fn archive_place(archive: Archive) -> ArchivePlace {
    match archive {
        Archive::Folder(folder) => ArchivePlace::Folder(folder),
        Archive::Bucket(bucket) => ArchivePlace::Bucket(bucket),
    }
}

/// Where the log of an installation is.
pub(super) fn log_settings(config: &Config, root: &Root) -> Result<LogSettings> {
    let settings = LogSettings::new(config.data.join("audit"), Origin::of_instance(&root.instance)?);
    let sink = |sink: &Sink| {
        let Sink { name, kind, required } = sink.clone();
        let kind = match kind {
            SinkKind::Folder(folder) => LogSinkKind::Folder(folder),
            SinkKind::Otlp(collector) => LogSinkKind::Otlp(collector),
            SinkKind::Archive(archive) => LogSinkKind::Archive(archive_place(archive)),
        };
        SinkSettings { name, kind, required }
    };
    let second_key = root.log_ed25519.as_ref();
    let second_key = second_key.map(|second| SecondKey { public: second.public.clone(), since: second.since });
    let sinks = config.sinks.iter().map(sink).collect();
    Ok(LogSettings { sinks, second_key, segment_bytes: config.segment_bytes, ..settings })
}

fn make_folder(data: &Path) -> Result<()> {
    let unusable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", data.display()));
    std::fs::create_dir_all(data).map_err(unusable)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(data, private).map_err(unusable)?;
    let mut entries = std::fs::read_dir(data).map_err(unusable)?;
    if entries.next().is_some() {
        let text = format!("{} is not empty", data.display());
        return Err(Error::new(Kind::Conflict, text)
            .hint("an installation is made once: `signet serve` starts it; a folder without root.json was cut short and can go"));
    }
    Ok(())
}

type Enrolled = (BTreeMap<Name, Identity>, BTreeMap<Name, Arc<Worker>>);

/// Enrols each device, and starts it again with what was pinned of it.
async fn enrol_all(config: &Config, options: &Options) -> Result<Enrolled> {
    let (mut identities, mut workers) = (BTreeMap::new(), BTreeMap::new());
    for (name, settings) in &config.devices {
        let enrolled = enrol_one(name, settings, options).await;
        let identity = match enrolled {
            Ok(identity) => identity,
            Err(error) => {
                stop_workers(&workers).await;
                return Err(error.context(format!("device {name}")));
            }
        };
        let program = options.program.clone();
        let pinned = Some(identity.clone());
        let worker = Worker::start(name.as_str(), settings.clone(), pinned, program, Metrics::new());
        workers.insert(name.clone(), Arc::new(worker));
        identities.insert(name.clone(), identity);
    }
    Ok((identities, workers))
}

async fn enrol_one(name: &Name, settings: &Settings, options: &Options) -> Result<Identity> {
    let worker = Worker::start(name.as_str(), settings.clone(), None, options.program.clone(), Metrics::new());
    let enrolled = async {
        worker.settled().await?;
        crash_point!("init.before_enrol");
        let identity = worker.enrol().await;
        crash_point!("init.enrolled");
        identity
    };
    let enrolled = enrolled.await;
    worker.shutdown().await;
    enrolled.map_err(|fault| {
        let (text, hint) = (fault.to_string(), fault.hint.clone());
        let error: Error = fault.into();
        let error = Error::new(error.kind(), text);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

async fn create_with(
    config: &Config,
    workers: &BTreeMap<Name, Arc<Worker>>,
    identities: BTreeMap<Name, Identity>,
) -> Result<BTreeSet<Name>> {
    let (mut root, storage_key) = Root::create(config.root_device.clone(), workers, identities).await?;
    for (name, worker) in workers {
        if make_anchor(worker, root.anchor_place(&storage_key, name)?).await? {
            root.anchors.insert(name.clone());
        }
    }
    let store = Sealed::new(Sqlite::create(&config.data.join("signet.db"))?, storage_key);
    let policy = Change {
        path: format!("policies/{ADMINISTRATORS}"),
        expected: Expected::Absent,
        value: Some(ADMINISTRATORS_TEXT.as_bytes().to_vec()),
    };
    crash_point!("init.before_store");
    store.commit(&[policy, vouching(&[root.fingerprint()?])])?;
    crash_point!("init.stored");
    drop(Log::create(log_settings(config, &root)?)?);
    root.write(&config.data)?;
    Ok(root.anchors)
}

/// Makes an anchor in a device; false where it keeps no data.
async fn make_anchor(worker: &Worker, place: AnchorPlace) -> Result<bool> {
    crash_point!("init.before_make_anchor");
    let made = worker.make_anchor(place).await;
    crash_point!("init.anchor_made");
    match made {
        Ok(()) => Ok(true),
        // Of an attempt that was cut short: it is taken over.
        Err(fault) if fault.class == Class::Refused => Ok(true),
        Err(fault) if fault.class == Class::Unsupported => {
            tracing::warn!(device = worker.name(), cause = %fault, "the device can hold no anchor");
            Ok(false)
        }
        Err(fault) => Err(Error::from(fault).context(format!("the anchor in device {}", worker.name()))),
    }
}

/// Has the sealed store vouch for a `root.json` with one of these fingerprints.
fn vouching(fingerprints: &[[u8; 32]]) -> Change {
    Change { path: ROOT_RECORD.to_owned(), expected: Expected::Any, value: Some(fingerprints.concat()) }
}
