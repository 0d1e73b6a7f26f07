//! `signet init`: the only maker of a data folder, and the only one who enrols a device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::root::Root;
use super::{Options, ROOT_RECORD, Server, lock, stop_workers};
use crate::audit::{Log, Origin, Settings as LogSettings};
use crate::config::Config;
use crate::crash_point;
use crate::device::{Identity, Worker};
use crate::error::{Error, Kind, Result};
use crate::policy::{ADMINISTRATORS, ADMINISTRATORS_TEXT};
use crate::store::{Change, Expected, Sealed, Sqlite, Store};
use crate::telemetry::Metrics;
use crate::types::Name;

/// What a new installation needs to be told once.
pub struct Created {
    /// The token of the first administrator: for one request, within an hour.
    pub token: Zeroizing<String>,
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
    stop_workers(&workers).await;
    made?;
    drop(locked);
    Ok(Created { token: new_administrator(config, options).await? })
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

/// Enrols one more device in an existing installation that is not running.
///
/// # Errors
/// `Conflict` where it is enrolled already or the service runs.
pub async fn enrol(config: &Config, options: &Options, name: &Name) -> Result<()> {
    let _locked = lock(&config.data).await?;
    let mut root = Root::read(&config.data)?;
    if root.devices.contains_key(name) {
        return Err(Error::new(Kind::Conflict, format!("device {name} is enrolled already"))
            .hint("a token that was replaced is another device: give it another name"));
    }
    let settings = config.devices.get(name);
    let settings = settings.ok_or_else(|| Error::new(Kind::Invalid, format!("there is no device {name}")))?;
    let house_settings = config.devices.get(&root.device);
    let house_settings = house_settings
        .ok_or_else(|| Error::new(Kind::Invalid, format!("the root device {} is not configured", root.device)))?;
    let house = Worker::start(
        root.device.as_str(),
        house_settings.clone(),
        root.devices.get(&root.device).cloned(),
        options.program.clone(),
        Metrics::new(),
    );
    let result = async {
        house.settled().await?;
        let key = root.unseal(&house).await?;
        let store = Sealed::new(Sqlite::open(&config.data.join("signet.db"))?, key);
        super::check_root(&store, &root.fingerprint()?)?;
        let identity = enrol_one(name, settings, options).await?;
        let before = root.fingerprint()?;
        root.devices.insert(name.clone(), identity);
        // For as long as the file is being replaced the store vouches for both: whichever a crash leaves, the service starts.
        vouch(&store, &[before, root.fingerprint()?])?;
        root.write(&config.data)?;
        vouch(&store, &[root.fingerprint()?])
    };
    let result = result.await;
    house.shutdown().await;
    result
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

async fn enrol_one(name: &Name, settings: &crate::device::Settings, options: &Options) -> Result<Identity> {
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
) -> Result<()> {
    let house = workers.get(&config.root_device).ok_or_else(|| Error::internal("the root device was not started"))?;
    house.settled().await?;
    let (root, storage_key) = Root::create(config.root_device.clone(), house, identities).await?;
    let store = Sealed::new(Sqlite::create(&config.data.join("signet.db"))?, storage_key);
    let policy = Change {
        path: format!("policies/{ADMINISTRATORS}"),
        expected: Expected::Absent,
        value: Some(ADMINISTRATORS_TEXT.as_bytes().to_vec()),
    };
    crash_point!("init.before_store");
    store.commit(&[policy])?;
    vouch(&store, &[root.fingerprint()?])?;
    crash_point!("init.stored");
    drop(Log::create(LogSettings::new(config.data.join("audit"), Origin::of_instance(&root.instance)?))?);
    root.write(&config.data)
}

/// Has the sealed store vouch for a `root.json` with one of these fingerprints.
fn vouch(store: &dyn Store, fingerprints: &[[u8; 32]]) -> Result<()> {
    let change = Change { path: ROOT_RECORD.to_owned(), expected: Expected::Any, value: Some(fingerprints.concat()) };
    crash_point!("init.before_vouch");
    store.commit(&[change])?;
    crash_point!("init.vouched");
    Ok(())
}
