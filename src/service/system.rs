//! The state of the service, metrics, readiness, backups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::{MAX_PAGE, SCRATCH_PREFIX, Served, Service};
use crate::admission::{Details, Released};
use crate::audit::SinkStatus;
use crate::audit::WitnessStatus;
use crate::crash_point;
use crate::device::{Ability, Event, Locator, Settings, What, Worker};
use crate::error::{Error, Kind, Result};
use crate::keyring::Trial;
use crate::ledger::AnchorStatus;
use crate::types::operation::{Backup, ReadMetrics, ReadStatus, WhoAmI};
use crate::types::{Algorithm, Caller, KeyName, Name, Resource, State, Version, blocking};

/// How old the last proof of a device, and the last head of the log, may be for the service to be ready.
const FRESH: Duration = Duration::from_secs(5);

/// How many versions a problem names.
const NAMED: usize = 5;

/// The state of the service.
#[derive(Debug)]
pub struct Status {
    /// Whether it serves everything it should.
    pub ready: bool,
    /// Why not, and what an operator should look at.
    pub problems: Vec<String>,
    /// What start-up found and mended.
    pub recovered: Vec<String>,
    /// The random id of this installation.
    pub instance: String,
    /// The certificate that the listener shows; none in a service without TLS.
    pub certificate: Option<Served>,
    /// The devices.
    pub devices: Vec<DeviceState>,
    /// How many keys there are.
    pub keys: usize,
    /// Keys whose rotation is overdue: [`MAX_PAGE`] of them at most.
    pub overdue: Vec<KeyName>,
    /// Records in the audit log.
    pub audit_size: u64,
    /// Records below the newest signed head.
    pub audit_signed: u64,
    /// The keys that sign each head: the device and the algorithm.
    pub audit_keys: Vec<(String, Algorithm)>,
    /// The further places of the log.
    pub sinks: Vec<SinkStatus>,
    /// The witnesses of the log.
    pub witnesses: Vec<WitnessStatus>,
}

/// The state of a device.
#[derive(Debug)]
pub struct DeviceState {
    /// Its name.
    pub name: Name,
    /// `pkcs11` or `tpm`.
    pub kind: &'static str,
    /// Maker, model and version.
    pub model: String,
    /// Serial number, or the Name of the storage key.
    pub serial: String,
    /// Whether it answers.
    pub up: bool,
    /// Why not, or a warning.
    pub problem: Option<String>,
    /// How its breaker stands: `closed`, `open` or `half-open`.
    pub breaker: &'static str,
    /// How often its worker process was replaced.
    pub restarts: u64,
    /// What it can keep.
    pub abilities: Vec<Ability>,
    /// When it was first found to be so, and how it differed from before.
    pub trial: Option<Trial>,
    /// The anchor of the store in it; `None` where it holds none.
    pub anchor: Option<AnchorStatus>,
    /// Whether it is software, so that its anchor proves nothing.
    pub software: bool,
}

/// What a backup holds.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Manifest {
    /// The form of the archive.
    pub format: u32,
    /// The installation.
    pub instance: String,
    /// When it was taken.
    pub taken: jiff::Timestamp,
    /// Records in the audit log.
    pub audit_size: u64,
    /// SHA-256 of each file, in hex.
    pub files: BTreeMap<String, String>,
    /// The versions that only their own device can bring back: [`MAX_BOUND`] at most of each device and reason.
    pub bound_to_device: Vec<BoundVersion>,
    /// How many there are of each. A program before this one wrote none, and named all versions.
    #[serde(default)]
    pub bound: Vec<Bound>,
}

/// How many versions are named of each device and reason: a manifest is read as a whole, however many keys there are.
pub const MAX_BOUND: u64 = 1000;

/// How many versions only one device can bring back.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Bound {
    /// The device.
    pub device: Name,
    /// Why.
    pub reason: String,
    /// How many.
    pub versions: u64,
}

/// A version that a backup alone cannot bring back.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct BoundVersion {
    /// The key.
    pub key: KeyName,
    /// The version.
    pub version: Version,
    /// The device.
    pub device: Name,
    /// Why.
    pub reason: String,
}

impl Service {
    /// Whether the service can do what it should: each device proved itself, and a head of the log was made durable, within
    /// the last seconds. Never asks a device by itself.
    ///
    /// # Errors
    /// `Unavailable`, naming what is missing; the sentence names no key.
    pub fn ready(&self) -> Result<()> {
        let problems = self.readiness();
        match problems.first() {
            None => Ok(()),
            Some(first) => Err(Error::new(Kind::Unavailable, first.clone())),
        }
    }

    fn readiness(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            problems.push("the service is going down".to_owned());
        }
        for (name, worker) in self.parts.keyring.devices() {
            if let Err(fault) = worker.state() {
                problems.push(format!("device {name}: {fault}"));
            } else if !proved(worker) {
                problems.push(format!("device {name} has not proved itself in the last {} s", FRESH.as_secs()));
            }
        }
        for AnchorStatus { name, trouble, .. } in self.parts.ledger.anchors() {
            if let Some(trouble) = trouble {
                problems.push(format!("anchor in {name}: {trouble}"));
            }
        }
        let witnesses = self.parts.ledger.witnesses().into_iter().filter(|witness| witness.required);
        problems.extend(witnesses.filter_map(|witness| witness.trouble));
        if let Err(error) = self.parts.log.health() {
            problems.push(format!("audit log: {error}"));
        } else if self.parts.heads.age().is_none_or(|age| age > FRESH) {
            problems.push(format!("no head of the audit log was signed in the last {} s", FRESH.as_secs()));
        }
        problems
    }

    /// The state of the service, in full.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn status(&self, caller: &Caller) -> Result<Released<Status>> {
        let permit = self.admit::<ReadStatus>(caller, Resource::Service).await?;
        let (mut devices, mut unread, anchors) = (Vec::new(), Vec::new(), self.parts.ledger.anchors());
        for (name, worker) in self.parts.keyring.devices() {
            let anchor = anchors.iter().find(|anchor| anchor.name == name.as_str()).cloned();
            let trial = self.parts.keyring.trial(name).await;
            unread.extend(trial.as_ref().err().map(|error| error.public().to_owned()));
            devices.push(device_state(name, worker, anchor, trial.ok().flatten()).await);
        }
        let mut problems = self.readiness();
        let ready = problems.is_empty();
        problems.extend(unread);
        let witnesses = self.parts.ledger.witnesses();
        let following = witnesses.iter().filter(|witness| !witness.required);
        problems.extend(following.filter_map(|witness| witness.trouble.clone()));
        problems.extend(witnesses.iter().filter_map(|witness| witness.forgot.clone()));
        problems.extend(self.parts.problems.iter().cloned());
        problems.extend(single_copies(&self.parts.keyring.single_copies()));
        // One that is required is what keeps the log from being ready.
        let sinks = self.parts.log.sinks();
        problems.extend(sinks.iter().filter(|sink| !sink.required).filter_map(|sink| sink.trouble.clone()));
        let rejecting = sinks.iter().filter(|sink| sink.rejected > 0);
        problems.extend(rejecting.map(|sink| format!("sink {} did not accept {} records", sink.name, sink.rejected)));
        problems.extend(self.parts.authority.problems());
        problems.extend(self.own_problems());
        problems.extend(self.parts.keyring.unusable().await);
        let status = Status {
            ready,
            problems,
            recovered: self.parts.recovered.clone(),
            instance: self.parts.instance.clone(),
            certificate: self.served(),
            devices,
            keys: self.parts.keyring.len(),
            overdue: self.parts.keyring.overdue(MAX_PAGE).1,
            audit_size: self.parts.log.size(),
            audit_signed: self.parts.log.last_head().map_or(0, |head| head.size()),
            audit_keys: self.parts.heads.keys().map(|(device, algorithm)| (device.to_owned(), algorithm)).collect(),
            sinks,
            witnesses,
        };
        permit.close(Ok(status), Details::default()).await
    }

    /// Puts on record what became of a device.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be recorded.
    pub async fn record_device(&self, device: &Name, event: &Event) -> Result<()> {
        let Event { what, why } = event;
        let failed = match what {
            What::Closed => None,
            What::Opened | What::Replaced | What::PinRefused => Some(Kind::Unavailable),
        };
        self.parts.admission.told_of_device(device, what.as_str(), failed, why).await
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn read_metrics(&self, caller: &Caller) -> Result<Released<String>> {
        let permit = self.admit::<ReadMetrics>(caller, Resource::Service).await?;
        permit.close(Ok(self.parts.metrics.text()), Details::default()).await
    }

    /// Who the service takes the caller for.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be recorded.
    pub async fn who_am_i(&self, caller: &Caller) -> Result<Released<Caller>> {
        let permit = self.admit::<WhoAmI>(caller, Resource::Service).await?;
        permit.close(Ok(caller.clone()), Details::default()).await
    }

    /// Puts a backup together, a tar archive in the service's own folder: a consistent copy of the store, the audit log up to
    /// a signed head, and a manifest. Whoever sends it removes it afterwards by dropping it.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be written.
    pub async fn backup(&self, caller: &Caller) -> Result<Released<tempfile::NamedTempFile>> {
        let permit = self.admit::<Backup>(caller, Resource::Service).await?;
        let (bound_to_device, bound) = self.bound_versions();
        let manifest = Manifest {
            format: 1,
            instance: self.parts.instance.clone(),
            taken: self.parts.ledger.clock().now(),
            audit_size: 0,
            files: BTreeMap::new(),
            bound_to_device,
            bound,
        };
        let (store, folder) = (self.parts.ledger.store(), self.parts.log.folder().to_owned());
        let scratch = self.parts.scratch.clone();
        let heads = self.parts.heads.clone();
        let _staying = self.parts.log.stay().await;
        // The order matters: a log that is newer than the store is complete, one that is older has been cut.
        let result = async {
            let own = scratch.clone();
            let database = blocking(move || copy_store(&*store, &own)).await?;
            heads.sign().await?;
            let build = move || super::archive::build(manifest, database, &folder, &scratch);
            blocking(build).await
        };
        let result = result.await;
        let details = Details::default();
        permit.close(result, details).await
    }

    /// The versions that a backup alone cannot bring back: all but destroyed ones, because each needs a device; those of a
    /// token's objects need that very token.
    fn bound_versions(&self) -> (Vec<BoundVersion>, Vec<Bound>) {
        let (mut named, mut counts) = (Vec::new(), BTreeMap::new());
        for key in self.parts.keyring.all() {
            for version in key.versions().iter().filter(|version| version.state() != State::Destroyed) {
                for copy in &version.record.copies {
                    let place = copy.key_ref(key.record.id, version.number(), key.record.algorithm);
                    let reason = match place.locator {
                        Locator::Resident => "a token object, which is in no backup",
                        Locator::Wrapped { .. } => "a blob that only the key-encryption key of the token opens",
                        Locator::Shared { .. } => "a blob that only the tokens open which share its key-encryption key",
                        Locator::Tpm { .. } => "a blob that only this TPM loads",
                        Locator::TpmBound { .. } => {
                            "a blob that only this TPM loads, and uses while the machine is in the state of its birth"
                        }
                    };
                    let count = counts.entry((copy.device.clone(), reason)).or_insert(0);
                    *count += 1;
                    if *count <= MAX_BOUND {
                        named.push(BoundVersion {
                            key: key.record.name.clone(),
                            version: version.number(),
                            device: copy.device.clone(),
                            reason: reason.to_owned(),
                        });
                    }
                }
            }
        }
        let bound =
            |((device, reason), versions): ((Name, &str), u64)| Bound { device, reason: reason.to_owned(), versions };
        (named, counts.into_iter().map(bound).collect())
    }
}

/// A copy of the store in a folder of its own, removed with it.
fn copy_store(store: &dyn crate::store::Store, scratch: &Path) -> Result<(tempfile::TempDir, PathBuf)> {
    let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, "the backup cannot be written").because(e);
    let folder = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(scratch).map_err(unwritable)?;
    let file = folder.path().join("signet.db");
    store.copy_to(&file)?;
    crash_point!("backup.copied");
    Ok((folder, file))
}

/// What an operator should know of versions that were to have two copies.
fn single_copies(found: &[(KeyName, Version)]) -> Option<String> {
    let some: Vec<_> = found.iter().take(NAMED).map(|(key, version)| format!("{key} version {version}")).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!found.is_empty()).then(|| {
        let some = some.join(", ");
        format!("of shared keys, these versions are in fewer than two devices: {some}{more}; `signet init --share` brings them into another one")
    })
}

fn proved(worker: &Worker) -> bool {
    worker.proved().is_some_and(|(at, _)| at.elapsed() < FRESH)
}

async fn device_state(
    name: &Name,
    worker: &Arc<Worker>,
    anchor: Option<AnchorStatus>,
    trial: Option<Trial>,
) -> DeviceState {
    let (kind, serial) = match worker.settings() {
        Settings::Pkcs11(_) => ("pkcs11", worker.identity()),
        Settings::Tpm(_) => ("tpm", worker.identity()),
    };
    let mut problem = worker.state().err().map(|fault| fault.to_string());
    let up = problem.is_none();
    let description = if up { worker.describe().await.ok() } else { None };
    let warning = worker.proved().and_then(|(_, health)| health.warning);
    problem = problem.or(warning);
    DeviceState {
        name: name.clone(),
        kind,
        model: description
            .as_ref()
            .map(|one| format!("{} {} {}", one.manufacturer, one.model, one.version))
            .unwrap_or_default(),
        serial: serial.map(|identity| identity.serial.clone()).unwrap_or_default(),
        up,
        problem,
        restarts: worker.restarts(),
        breaker: worker.breaker(),
        software: description.as_ref().is_some_and(|one| one.is_software()),
        // Of one that is away, what is on record.
        abilities: description
            .map(|one| one.abilities.clone())
            .or_else(|| trial.as_ref().map(|trial| trial.abilities.clone()))
            .unwrap_or_default(),
        trial,
        anchor,
    }
}
