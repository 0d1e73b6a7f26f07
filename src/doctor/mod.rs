//! Finds what is wrong and says the mend.
//!
//! Works without the service, on its configuration, its data folder and, while nobody else uses them, its devices. It changes
//! nothing and prints no secret.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;

use crate::audit::{HeadKeys, cosigned, count, sent, verify, vouched};
use crate::config::{Archive, Config, Cosigner, SinkKind};
use crate::device::{Ability, Attempt, Class, Effect, Identity, PinSource, Row, Settings, Worker};
use crate::error::{Error, Kind, Result};
use crate::otlp::Settings as CollectorSettings;
use crate::telemetry::Metrics;
use crate::types::{Clock, Name, Period, PublicKey};
use crate::webhook::{Settings as WebhookSettings, Webhook};
use crate::x509::Certificate;

/// What was found of one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// The thing.
    pub what: String,
    /// What was seen.
    pub text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Not as it should be.
    Wrong,
}

/// What a code of a device means: one row of the tables the drivers use themselves.
#[derive(Clone, Debug, Serialize)]
pub struct Meaning {
    /// Its name.
    pub code: String,
    /// What it says.
    pub meaning: String,
    /// What the service makes of it.
    pub class: String,
    /// What the operator does.
    pub mend: String,
}

/// Explains a return code of PKCS#11 by its name, a response code of a TPM by its number, or a class of errors by its name.
///
/// # Errors
/// `NotFound` for what is neither.
pub fn explain(code: &str) -> Result<Meaning> {
    if let Some(row) = crate::device::pkcs11::codes::find(code) {
        let class = format!("{:?}; while something was being made or destroyed: {:?}", row.idle, row.change);
        let (code, meaning, mend) = (row.name.to_owned(), row.meaning.to_owned(), row.mend.to_owned());
        return Ok(Meaning { code, meaning, class, mend });
    }
    if let Some(class) = Class::ALL.into_iter().find(|class| format!("{class:?}") == code) {
        let Row { meaning, again, breaker, mend } = class.row();
        let breaker = match breaker {
            Effect::Nothing => "does nothing to the breaker of its device",
            Effect::Counts => "counts for the breaker of its device",
            Effect::AtStart => "opens the breaker of its device where it keeps a worker from starting",
            Effect::Opens => "opens the breaker of its device",
        };
        return Ok(Meaning {
            code: code.to_owned(),
            meaning: meaning.to_owned(),
            class: format!("{breaker}; done again by: {again}"),
            mend: mend.to_owned(),
        });
    }
    #[cfg(feature = "tpm")]
    if let Some(number) = code.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        let row = crate::device::tpm::codes::row(number);
        return Ok(Meaning {
            code: row.name.to_owned(),
            meaning: row.meaning.to_owned(),
            class: format!("{:?}", row.class),
            mend: row.mend.to_owned(),
        });
    }
    Err(Error::new(Kind::NotFound, "no such code")
        .hint("a name such as CKR_PIN_LOCKED, a number such as 0x921, or a class such as DeviceGone"))
}

/// Examines an installation. `program` is this very program, to open devices with.
pub async fn examine(config: &Config, program: &Path) -> Vec<Finding> {
    let mut findings = vec![folder(&config.data)];
    findings.extend(audit(&config.data, config));
    findings.extend(certificate(config));
    let running = is_running(&config.data);
    if running {
        findings.push(note("service", "it is running: ask it for its devices with `signet status`"));
    }
    findings.extend(config.witnesses.iter().map(|one| witness(&config.data.join("audit"), one)));
    findings.extend(config.ending.as_ref().map(|ending| receiver(&ending.webhook)));
    findings.extend(sharing(config));
    for (name, settings) in &config.devices {
        findings.extend(paths(name, settings));
        if !running {
            findings.extend(device(name, settings, program).await);
        }
    }
    findings
}

/// Tries the known attacks on the interface of a device, on scratch keys, while no service uses it.
///
/// # Errors
/// `NotFound` for a device that is not configured, `State` while the service runs, and those of the device.
pub async fn attack(config: &Config, device: &Name, program: &Path) -> Result<Vec<Attempt>> {
    let Some(settings) = config.devices.get(device) else {
        return Err(Error::new(Kind::NotFound, format!("there is no device {device} in the configuration")));
    };
    if is_running(&config.data) {
        return Err(Error::new(Kind::State, "the service is running, and one process alone uses a device")
            .hint("stop it first"));
    }
    let worker = Worker::start(device.as_str(), settings.clone(), None, program.to_owned(), Metrics::new());
    let attempts = match worker.settled().await {
        Ok(()) => worker.attack().await,
        Err(fault) => Err(fault),
    };
    worker.shutdown().await;
    Ok(attempts?)
}

fn good(what: impl Into<String>, text: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Good, what: what.into(), text: text.into(), mend: None }
}

fn note(what: impl Into<String>, text: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Note, what: what.into(), text: text.into(), mend: None }
}

fn wrong(what: impl Into<String>, text: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Wrong, what: what.into(), text: text.into(), mend: Some(mend.into()) }
}

fn folder(data: &Path) -> Finding {
    let what = format!("data folder {}", data.display());
    match std::fs::metadata(data) {
        Err(e) => wrong(what, e.to_string(), "`signet init` makes it; its parent must exist and be writable"),
        Ok(seen) if seen.permissions().mode() & 0o077 != 0 => {
            wrong(what, "others can look into it", format!("chmod 700 {}", data.display()))
        }
        Ok(_) if !data.join("root.json").exists() => {
            wrong(what, "it is not an installation: no root.json", "`signet init` makes one, in an empty folder")
        }
        Ok(_) => good(what, "an installation, closed to others"),
    }
}

/// Whether another process holds the lock of the folder.
fn is_running(data: &Path) -> bool {
    let Ok(file) = std::fs::File::open(data.join("lock")) else { return false };
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
}

/// The audit log and its further places.
fn audit(data: &Path, config: &Config) -> Vec<Finding> {
    let folder = data.join("audit");
    if !folder.exists() {
        return Vec::new();
    }
    let keys = std::fs::read(data.join("root.json")).ok().map(|text| log_keys(&text)).unwrap_or_default();
    let mut findings = log("audit log", &folder, &keys);
    for sink in &config.sinks {
        let what = format!("sink {}", sink.name);
        match &sink.kind {
            SinkKind::Folder(place) if place.is_dir() => findings.extend(log(&what, place, &keys)),
            SinkKind::Folder(place) => {
                let text = format!("there is no folder {}", place.display());
                findings.push(wrong(what, text, "mount its disk, or make it: an empty folder gets all of the log"));
            }
            SinkKind::Archive(Archive::Folder(place)) if holds_nothing(place) => {
                findings.push(note(what, format!("{} holds no segment yet", place.display())));
            }
            SinkKind::Archive(Archive::Folder(place)) => findings.extend(log(&what, place, &keys)),
            SinkKind::Archive(Archive::Bucket(bucket)) => findings.push(match bucket.check() {
                Ok(()) => good(what, format!("{}: `signet audit verify {0}` checks it", bucket.shown())),
                Err(error) => wrong(what, error.public(), error.mend().unwrap_or("correct [audit.archive]")),
            }),
            SinkKind::Otlp(collector) => findings.push(self::collector(what, &folder, &sink.name, collector)),
        }
    }
    findings
}

fn holds_nothing(folder: &Path) -> bool {
    folder.read_dir().is_ok_and(|mut entries| entries.next().is_none())
}

/// How far a collector is, and whether it can be asked: without asking it.
fn collector(what: String, folder: &Path, name: &Name, settings: &CollectorSettings) -> Finding {
    let known = settings.check().and_then(|()| Ok((sent(folder, name)?, count(folder)?)));
    match known {
        Err(error) => wrong(what, error.chain(), error.mend().unwrap_or("correct its [[audit.sinks]] stanza")),
        Ok((sent, _)) if sent.rejected > 0 => {
            let text = format!("{} did not accept {} records", settings.place.address, sent.rejected);
            note(what, format!("{text}: they are in the log"))
        }
        Ok((sent, all)) => good(what, format!("{} was given {} of {all} records", settings.place.address, sent.size)),
    }
}

fn log(what: &str, folder: &Path, keys: &[PublicKey]) -> Vec<Finding> {
    match verify(folder, keys) {
        Ok(report) if report.is_good() => {
            let gone = report.gone.map(|gone| format!(", the first {} pruned", gone.records)).unwrap_or_default();
            let heads = report.signatures.iter().map(|one| format!("{} by {}", one.heads, one.algorithm));
            let heads = heads.collect::<Vec<_>>().join(", ");
            let whole = format!("{} records, {} heads ({heads}), whole{gone}", report.records, report.heads);
            let mut findings = vec![good(what, whole)];
            findings.extend(report.notes.into_iter().map(|text| note(what, text)));
            findings
        }
        Ok(report) => report
            .problems
            .iter()
            .map(|problem| wrong(what, problem.to_string(), "keep a copy as evidence; restore the log from a backup"))
            .collect(),
        Err(error) => vec![wrong(what, error.chain(), "restore the log from a backup")],
    }
}

/// The certificate that the server shows, or will where it does not run.
fn certificate(config: &Config) -> Option<Finding> {
    let what = "server certificate";
    let own = config.data.join("tls");
    let path = match &config.certificate {
        Some(files) => files.chain.clone(),
        None => [own.join("served.pem"), own.join("server.pem")].into_iter().find(|path| path.exists())?,
    };
    let leaf = std::fs::read(&path).map_err(|e| Error::new(Kind::Invalid, e.to_string())).and_then(|pem| {
        let (_, der) = der::pem::decode_vec(first_block(&pem)).map_err(|e| Error::new(Kind::Invalid, e.to_string()))?;
        Certificate::parse(&der)
    });
    let leaf = match leaf {
        Ok(leaf) => leaf,
        Err(error) => return Some(note(what, format!("{} cannot be read: {error}", path.display()))),
    };
    let names: Vec<_> = leaf.sans().iter().map(ToString::to_string).collect();
    let until = leaf.validity().not_after;
    let text = format!("{}, for {}, until {until}", path.display(), names.join(" "));
    let self_made =
        std::fs::read(own.join("server.pem")).is_ok_and(|own| std::fs::read(&path).is_ok_and(|one| one == own));
    Some(match &config.own_certificate {
        _ if until < Clock::System.now() => wrong(
            what,
            format!("{text}: it is over"),
            "`signet status` tells why there is no other one; SIGHUP reads files again",
        ),
        Some(wish) if self_made => note(
            what,
            format!(
                "{text}: self-made, until issuer {} gives one; `signet status` tells what it waits for",
                wish.issuer
            ),
        ),
        Some(_) | None => good(what, text),
    })
}

/// The first block of a PEM file, without what stands around it.
fn first_block(pem: &[u8]) -> &[u8] {
    const BEGIN: &[u8] = b"-----BEGIN";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let from = pem.windows(BEGIN.len()).position(|part| part == BEGIN).unwrap_or(0);
    let until = pem.windows(END.len()).position(|part| part == END).map_or(pem.len(), |at| at + END.len());
    pem.get(from..until).unwrap_or_default()
}

/// The keys that sign heads, as `root.json` pins them.
fn log_keys(root: &[u8]) -> Vec<PublicKey> {
    let root: serde_json::Value = serde_json::from_slice(root).unwrap_or_default();
    let pinned = ["/log_public", "/log_ed25519/public"].into_iter().filter_map(|path| root.pointer(path));
    let keys = pinned.filter_map(|key| serde_json::from_value::<PublicKey>(key.clone()).ok());
    keys.filter(|key| HeadKeys::new([key]).is_ok()).collect()
}

/// Whether notices can be signed, and their receiver be known.
fn receiver(settings: &WebhookSettings) -> Finding {
    let what = format!("receiver {}", settings.place.address);
    match Webhook::new(settings.clone()) {
        Ok(_) => good(what, "its secret file is closed to others"),
        Err(error) => wrong(what, error.public(), error.mend().unwrap_or("correct [expiry.webhook]")),
    }
}

/// What is kept of a witness, and whether it can be asked: without asking it.
fn witness(folder: &Path, cosigner: &Cosigner) -> Finding {
    let what = format!("witness {}", cosigner.key.name());
    if let Err(error) = cosigner.place.check() {
        return wrong(what, error.public(), "correct its [[witness]] stanza");
    }
    match vouched(folder, &cosigner.key) {
        Ok(kept) => {
            let now = u64::try_from(Clock::System.now().as_second()).unwrap_or(0);
            let age = Period::seconds(now.saturating_sub(kept.time));
            good(what, format!("it cosigned {} records, {age} ago", kept.head.size()))
        }
        Err(error) if cosigned(folder, &cosigner.key).is_none() => note(what, error.public()),
        Err(error) => wrong(what, error.public(), "keep both as evidence; put the newest log back"),
    }
}

/// Which devices share key-encryption keys, and which of them with no other that is configured.
fn sharing(config: &Config) -> Vec<Finding> {
    let text = std::fs::read(config.data.join("root.json")).unwrap_or_default();
    let root: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let pinned = root.get("devices").cloned().unwrap_or_default();
    let mut pinned: BTreeMap<Name, Identity> = serde_json::from_value(pinned).unwrap_or_default();
    pinned.retain(|name, _| config.devices.contains_key(name));
    let of = |(name, own): (&Name, &Identity)| {
        let first = own.shared_keks().next()?;
        let others = pinned.iter().filter(|(other, identity)| *other != name && identity.shares(first));
        let others: Vec<_> = others.map(|(other, _)| other.to_string()).collect();
        let what = format!("device {name}");
        Some(if others.is_empty() {
            let text = "no other device of the configuration has the key-encryption keys that it shares: with it, all shared keys would be lost";
            let mend = format!("enrol another one, then `signet init --share {name} --share OTHER --officer-pin FILE`");
            wrong(what, text, mend)
        } else {
            good(what, format!("shares key-encryption keys with {}", others.join(", ")))
        })
    };
    pinned.iter().filter_map(of).collect()
}

fn paths(name: &Name, settings: &Settings) -> Vec<Finding> {
    let what = format!("device {name}");
    let Settings::Pkcs11(settings) = settings else { return Vec::new() };
    let mut findings = Vec::new();
    if !settings.module.exists() {
        let text = format!("there is no module {}", settings.module.display());
        findings.push(wrong(&what, text, "install the vendor's package, or correct `module`"));
    }
    if let PinSource::File(path) = &settings.pin {
        findings.push(match std::fs::metadata(path) {
            Err(e) => wrong(&what, format!("PIN file {}: {e}", path.display()), "write the PIN there, mode 600"),
            Ok(seen) if seen.permissions().mode() & 0o077 != 0 => {
                let text = format!("others can read the PIN file {}", path.display());
                wrong(&what, text, format!("chmod 600 {}", path.display()))
            }
            Ok(_) => good(&what, "the PIN file is closed to others"),
        });
    }
    findings
}

async fn device(name: &Name, settings: &Settings, program: &Path) -> Vec<Finding> {
    let what = format!("device {name}");
    let worker = Worker::start(name.as_str(), settings.clone(), None, program.to_owned(), Metrics::new());
    let described = match worker.settled().await {
        Ok(()) => worker.describe().await,
        Err(fault) => Err(fault),
    };
    worker.shutdown().await;
    let description = match described {
        Ok(description) => description,
        Err(fault) => {
            let mend = fault.hint.clone().unwrap_or_else(|| fault.class.row().mend.to_owned());
            return vec![wrong(&what, fault.to_string(), mend)];
        }
    };
    let model = format!("{} {} {}", description.manufacturer, description.model, description.version);
    let mut findings = vec![good(&what, format!("answers: {model}"))];
    if description.is_software() {
        findings.push(note(&what, "it is software: an anchor in it proves nothing to whoever can put its files back"));
    } else {
        // SoftHSM and swtpm are what the tests run on.
        let text =
            "untested on this device: what it can do was found out by doing it just now, and nothing else is known";
        findings.push(note(&what, format!("{text}; docs/devices.md tells what its maker's documents say")));
    }
    for ability in &description.abilities {
        let Ability { algorithm, residency, refusal, micros, .. } = ability;
        let verdict = ability.verdict();
        findings.push(match (refusal, micros) {
            (Some(_), _) => note(&what, format!("no {algorithm} keys ({residency}): {verdict}")),
            (None, Some(micros)) => {
                let time = std::time::Duration::from_micros(*micros);
                good(&what, format!("{algorithm} keys ({residency}): {verdict}, {time:?} for one use"))
            }
            (None, None) => good(&what, format!("{algorithm} keys ({residency}): {verdict}, as others do; not tried")),
        });
    }
    findings
}
