//! Versions of keys, and their states.

use std::collections::BTreeMap;

use super::answer::Reply;
use super::call::Call;
use crate::error::Result;
use crate::service::{Key, KeyVersion, Released, VersionStep};
use crate::types::Version;
use crate::wire::{self, Page};

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<wire::KeyVersion>>>> {
    let page = call.page()?;
    let read = call.service.read_versions(&call.caller, &call.key()?).await?;
    read.try_map(|(key, changed)| {
        let (versions, next_page_token) = page.cut(key.versions(), |version| version.number().number())?;
        let items = versions.into_iter().map(|version| words(&key, version, &changed)).collect();
        Ok(Page { items, next_page_token }.into())
    })
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<wire::KeyVersion>>> {
    let wanted = call.version()?;
    let read = call.service.read_versions(&call.caller, &call.key()?).await?;
    read.try_map(|(key, changed)| one(&key, wanted, &changed))
}

pub(super) async fn activate(call: Call) -> Result<Released<Reply<wire::KeyVersion>>> {
    step(call, VersionStep::Activate).await
}

pub(super) async fn suspend(call: Call) -> Result<Released<Reply<wire::KeyVersion>>> {
    step(call, VersionStep::Suspend).await
}

pub(super) async fn resume(call: Call) -> Result<Released<Reply<wire::KeyVersion>>> {
    step(call, VersionStep::Resume).await
}

pub(super) async fn deactivate(call: Call) -> Result<Released<Reply<wire::KeyVersion>>> {
    step(call, VersionStep::Deactivate).await
}

pub(super) async fn compromise(call: Call) -> Result<Released<Reply<wire::KeyVersion>>> {
    step(call, VersionStep::Compromise).await
}

pub(super) async fn cancel_destruction(call: Call) -> Result<Released<Reply<wire::KeyVersion>>> {
    step(call, VersionStep::CancelDestruction).await
}

pub(super) async fn schedule_destruction(
    call: Call,
    body: wire::ScheduleDestruction,
) -> Result<Released<Reply<wire::KeyVersion>>> {
    step(call, VersionStep::ScheduleDestruction(body.after)).await
}

async fn step(call: Call, step: VersionStep) -> Result<Released<Reply<wire::KeyVersion>>> {
    let (name, wanted) = (call.key()?, call.version()?);
    let key = call.service.change_version(&call.caller, &name, wanted, step, &call.idempotency).await?;
    key.try_map(|key| one(&key, wanted, &BTreeMap::new()))
}

fn one(key: &Key, wanted: Version, changed: &BTreeMap<Version, Vec<u8>>) -> Result<Reply<wire::KeyVersion>> {
    Ok(words(key, key.version(wanted)?, changed).into())
}

/// A version in the words of the API. What is not counted is not shown.
fn words(key: &Key, version: &KeyVersion, changed: &BTreeMap<Version, Vec<u8>>) -> wire::KeyVersion {
    let (record, rule) = (&version.record, key.rotation());
    let (uses, bytes) = version.counted();
    wire::KeyVersion {
        version: record.version,
        state: record.state,
        primary: key.record.primary == Some(record.version),
        protection: version.protection(),
        devices: record.copies.iter().map(|copy| copy.device.clone()).collect(),
        pcrs: record.copies.iter().find_map(|copy| copy.pcrs().cloned()),
        pcrs_changed: changed.get(&record.version).cloned(),
        created: record.created,
        changed: record.changed,
        destroy_at: record.destroy_at,
        uses: rule.after_uses.map(|_| uses),
        bytes: rule.after_bytes.map(|_| bytes),
        public_key: version.public_key().and_then(|key| key.to_pem()).ok(),
    }
}
