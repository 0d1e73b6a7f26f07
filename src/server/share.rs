//! `signet init --share`: has two devices share key-encryption keys, so that a key which is lost with neither can be made in either.
//!
//! Between two devices that share with nobody, new keys are made. Where one of them shares already, the other one gets the same, by
//! leave of the security officer of the first: then it opens all that was ever wrapped under them, and no version is touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::create::{open_store, replace_root, start_enrolled};
use super::root::Root;
use super::{Options, lock, stop_workers};
use crate::config::Config;
use crate::crash_point;
use crate::device::{Identity, Kek, KekRole, PinSource, SharedKek, Worker};
use crate::error::{Error, Kind, Result};
use crate::types::{Name, PublicKey};

/// What sharing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The two share keys that are new.
    Anew,
    /// The second got what the first one had.
    PassedOn,
    /// They did so already.
    Already,
}

/// Has two devices of an installation that is not running share key-encryption keys. `officer` is where the PIN of the security
/// officer stands of that device which shares some already.
///
/// # Errors
/// `Conflict` where the service runs or the devices share with others, `Invalid` where the officer's PIN is needed, `Unsupported` for a
/// device that cannot, and whatever the devices say. What was cut short leaves keys in a device that nothing points to.
pub async fn share(
    config: &Config,
    options: &Options,
    devices: [&Name; 2],
    officer: Option<PinSource>,
) -> Result<Shared> {
    let locked = lock(&config.data).await?;
    let mut root = Root::read(&config.data)?;
    let workers = start_enrolled(config, options, &root, &locked)?;
    let result = share_with(config, options, &mut root, &workers, devices, officer).await;
    stop_workers(&workers).await;
    result
}

async fn share_with(
    config: &Config,
    options: &Options,
    root: &mut Root,
    workers: &BTreeMap<Name, Arc<Worker>>,
    [one, other]: [&Name; 2],
    officer: Option<PinSource>,
) -> Result<Shared> {
    if one == other {
        return Err(Error::new(Kind::Invalid, format!("device {one} has nobody to share with but itself")));
    }
    let before = root.fingerprint()?;
    let (ledger, ..) = open_store(config, options, root, &before, workers, std::iter::empty()).await?;
    let (first, second) = (worker(workers, one)?, worker(workers, other)?);
    let own = |name: &Name| root.devices.get(name).map(|identity| identity.shared_keks().collect::<Vec<_>>());
    let (ours, theirs) = (own(one).unwrap_or_default(), own(other).unwrap_or_default());
    let shared = match (ours.is_empty(), theirs.is_empty()) {
        (true, true) => {
            let roles = common_roles(root, one, other)?;
            let [ours, theirs] = make(first, second, roles).await?;
            pinned(root, one)?.keks.extend(ours);
            pinned(root, other)?.keks.extend(theirs);
            Shared::Anew
        }
        (false, false) if ours == theirs => return Ok(Shared::Already),
        (false, false) => {
            let text = format!("devices {one} and {other} share keys already, each with another device");
            return Err(Error::new(Kind::Conflict, text).hint("a device shares with those of one circle"));
        }
        (has_none, _) => {
            let (giver, receiver, name) = if has_none { (second, first, one) } else { (first, second, other) };
            let taken = pass_on(giver, receiver, officer).await?;
            pinned(root, name)?.keks.extend(taken);
            Shared::PassedOn
        }
    };
    let said = [
        format!("devices {one} and {other} are about to share key-encryption keys"),
        format!("devices {one} and {other} share key-encryption keys"),
    ];
    replace_root(config, &ledger, root, before, said.each_ref().map(String::as_str)).await?;
    Ok(shared)
}

fn worker<'a>(workers: &'a BTreeMap<Name, Arc<Worker>>, name: &Name) -> Result<&'a Worker> {
    workers.get(name).map(Arc::as_ref).ok_or_else(|| {
        Error::new(Kind::Invalid, format!("device {name} is not configured and enrolled"))
            .hint(format!("`signet init --enrol {name}` enrols it, once its stanza is in the configuration"))
    })
}

fn pinned<'a>(root: &'a mut Root, name: &Name) -> Result<&'a mut Identity> {
    root.devices.get_mut(name).ok_or_else(|| Error::internal("a device without identity"))
}

/// The kinds of keys that both can wrap.
fn common_roles(root: &Root, one: &Name, other: &Name) -> Result<Vec<KekRole>> {
    let has = |name, role: &KekRole| {
        let pinned = root.devices.get(name);
        pinned.is_some_and(|identity| identity.keks.iter().any(|kek| kek.role == *role))
    };
    let roles: Vec<_> = KekRole::ALL.into_iter().filter(|role| has(one, role) && has(other, role)).collect();
    if roles.is_empty() {
        return Err(Error::new(Kind::Unsupported, "there is no kind of keys that both devices can wrap")
            .hint("`signet status --abilities` shows what each can; a TPM shares nothing"));
    }
    Ok(roles)
}

/// Has both take in keys that the first one makes.
async fn make(first: &Worker, second: &Worker, roles: Vec<KekRole>) -> Result<[Vec<Kek>; 2]> {
    let transports: Vec<PublicKey> = vec![first.open_transport().await?, second.open_transport().await?];
    crash_point!("share.before_make");
    let made = first.make_shared(roles, transports).await;
    crash_point!("share.made");
    let mut made = made?.into_iter();
    let (ours, theirs) = (made.next().unwrap_or_default(), made.next().unwrap_or_default());
    Ok([take(first, ours).await?, take(second, theirs).await?])
}

/// Has the second one take in what the first one has.
async fn pass_on(giver: &Worker, receiver: &Worker, officer: Option<PinSource>) -> Result<Vec<Kek>> {
    let officer = officer.ok_or_else(|| {
        let text = format!(
            "device {} gives its shared keys to another one only by leave of its security officer",
            giver.name()
        );
        Error::new(Kind::Invalid, text).hint("name the file with the officer's PIN: `--officer-pin FILE`")
    })?;
    let transport = receiver.open_transport().await?;
    crash_point!("share.before_pass_on");
    let given = giver.pass_on_shared(transport, officer).await;
    crash_point!("share.passed_on");
    take(receiver, given?).await
}

async fn take(receiver: &Worker, keks: Vec<SharedKek>) -> Result<Vec<Kek>> {
    crash_point!("share.before_take");
    let taken = receiver.take_shared(keks).await;
    crash_point!("share.taken");
    Ok(taken?)
}
