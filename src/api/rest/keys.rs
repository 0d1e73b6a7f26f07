//! Keys.

use std::sync::Arc;

use super::answer::{JsonText, Reply, Text};
use super::call::{Call, token, version};
use crate::attestation::Nonce;
use crate::error::{Error, Kind, Result};
use crate::service::{Jwk, Key, KeyUpdate, NewKey, Released};
use crate::types::{Name, Period, Protection};
use crate::wire::{self, Batch, Page, PublicKeyInfo};

pub(super) async fn create(call: Call, body: wire::CreateKey) -> Result<Released<Reply<wire::Key>>> {
    let made = call.service.create_key(&call.caller, new(&call, body), &call.idempotency).await?;
    Ok(made.map(|key| {
        let path = format!("/api/v1/keys/{}", key.record.name);
        reply(&call, &key).location(path)
    }))
}

pub(super) async fn create_batch(call: Call, body: Batch<wire::CreateKey>) -> Result<Released<Reply<Page<wire::Key>>>> {
    let wanted = body.items.into_iter().map(|item| new(&call, item)).collect();
    let made = call.service.create_keys(&call.caller, wanted, &call.idempotency).await?;
    Ok(made.map(|keys| {
        let items = keys.iter().map(|key| words(&call, key)).collect();
        Page { items, next_page_token: None }.into()
    }))
}

fn new(call: &Call, body: wire::CreateKey) -> NewKey {
    let wire::CreateKey {
        name,
        algorithm,
        device,
        residency,
        pcrs,
        domain,
        rotation,
        retention,
        labels,
        deletion_protection,
    } = body;
    let device = device.unwrap_or_else(|| call.service.default_device().clone());
    NewKey { name, algorithm, device, residency, pcrs, domain, rotation, retention, labels, deletion_protection }
}

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<wire::Key>>>> {
    let namespace = call.query("namespace", Name::new)?;
    let page = call.page()?;
    let found = call.service.list_keys(&call.caller, namespace, page.after()?, page.size).await?;
    Ok(found.map(|found| {
        let items = found.keys.iter().map(|key| words(&call, key)).collect();
        Page { items, next_page_token: found.next.as_ref().map(token) }.into()
    }))
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<wire::Key>>> {
    let key = call.service.read_key(&call.caller, &call.key()?).await?;
    Ok(key.map(|key| reply(&call, &key)))
}

pub(super) async fn update(call: Call, body: wire::UpdateKey) -> Result<Released<Reply<wire::Key>>> {
    let etag = call.if_match()?.ok_or_else(|| {
        Error::new(Kind::Invalid, "a change of a key needs the header If-Match")
            .hint("read the key first, and send its etag in double quotes")
    })?;
    let etag = format!("\"{etag}\"");
    let wire::UpdateKey { rotation, retention, labels, deletion_protection } = body;
    let update = KeyUpdate { rotation, retention, labels, deletion_protection };
    let key = call.key()?;
    let key = call.service.update_key(&call.caller, &key, Some(&etag), update, &call.idempotency).await?;
    Ok(key.map(|key| reply(&call, &key)))
}

pub(super) async fn delete(call: Call) -> Result<Released<Reply<wire::Key>>> {
    let after = call.query("after", str::parse::<Period>)?;
    let key = call.service.delete_key(&call.caller, &call.key()?, after, &call.idempotency).await?;
    Ok(key.map(|key| reply(&call, &key)))
}

pub(super) async fn rotate(call: Call, body: wire::RotateKey) -> Result<Released<Reply<wire::Key>>> {
    let wire::RotateKey { expected_version, prepare } = body;
    let key = call.key()?;
    let key = call.service.rotate_key(&call.caller, &key, expected_version, prepare, &call.idempotency).await?;
    Ok(key.map(|key| reply(&call, &key)))
}

pub(super) async fn public_key(call: Call) -> Result<Released<Reply<PublicKeyInfo>>> {
    let wanted = call.query("version", version)?;
    let read = call.service.read_public_key(&call.caller, &call.key()?, wanted).await?;
    read.try_map(|(key, version)| {
        let (algorithm, public) = (key.record.algorithm, version.public_key()?);
        let jwk = serde_json::to_value(Jwk::new(algorithm, &public)?)
            .map_err(|e| Error::internal(format!("writing a JWK: {e}")))?;
        let (name, id) = (key.record.name.clone(), key.record.id);
        Ok(PublicKeyInfo { key: name, id, version: version.number(), algorithm, pem: public.to_pem()?, jwk }.into())
    })
}

pub(super) async fn attestation(call: Call) -> Result<Released<Reply<JsonText>>> {
    let (wanted, nonce) = (call.query("version", version)?, call.query("nonce", str::parse::<Nonce>)?);
    let read = call.service.attest_key(&call.caller, &call.key()?, wanted, nonce).await?;
    Ok(read.map(|text| Text(text).into()))
}

fn reply(call: &Call, key: &Arc<Key>) -> Reply<wire::Key> {
    let words = words(call, key);
    let etag = words.etag.clone();
    Reply::from(words).etag(&etag)
}

/// A key in the words of the API. The ETag stands without its quotes, which belong to the header.
fn words(call: &Call, key: &Key) -> wire::Key {
    let shown = key.primary().ok().or_else(|| key.versions().last());
    let record = &key.record;
    wire::Key {
        name: record.name.clone(),
        id: record.id,
        purpose: record.algorithm.purpose(),
        algorithm: record.algorithm,
        domain: record.domain,
        device: record.device.clone(),
        protection: shown.map_or(Protection::Hsm, |version| version.protection()),
        pcrs: record.pcrs,
        primary: record.primary,
        latest: record.latest,
        rotation: record.rotation.clone(),
        rotates_at: key.rotates_at(),
        rotation_overdue: call.service.keyring().is_overdue(&record.name),
        retention: record.retention.clone(),
        labels: record.labels.clone(),
        deletion_protection: record.deletion_protection,
        created: record.created,
        etag: key.etag().trim_matches('"').to_owned(),
    }
}
