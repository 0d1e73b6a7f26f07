//! Wrap, unwrap, rewrap, data keys.

use super::answer::Reply;
use super::batch::{items, results};
use super::call::Call;
use crate::error::{Error, Kind, Result};
use crate::service::{DataKeyMade, Opened, Plain, Released, Sealed};
use crate::types::{KeyName, Version};
use crate::wire::{self, Base64, Batch, BatchResults, DataKey, SecretBase64, Unwrapped, Wrapped};

pub(super) async fn wrap(call: Call, body: wire::Wrap) -> Result<Released<Reply<Wrapped>>> {
    let wrapped = call.service.wrap(&call.caller, &call.key()?, plain(body)).await?;
    Ok(wrapped.map(|(blob, version)| wrapped_words(blob, version).into()))
}

pub(super) async fn wrap_batch(call: Call, body: Batch<wire::Wrap>) -> Result<Released<Reply<BatchResults<Wrapped>>>> {
    let items = body.items.into_iter().map(plain).collect();
    let blobs = call.service.wrap_batch(&call.caller, &call.key()?, items).await?;
    Ok(blobs.map(|blobs| {
        let version = blobs.version;
        results(&call, blobs.results, |blob| wrapped_words(blob, version)).into()
    }))
}

pub(super) async fn unwrap(call: Call, body: wire::Unwrap) -> Result<Released<Reply<Unwrapped>>> {
    let wire::Unwrap { ciphertext, context, danger_allow_compromised } = body;
    let sealed = Sealed { blob: ciphertext.0, context };
    let opened = call.service.unwrap(&call.caller, &call.key()?, sealed, danger_allow_compromised).await?;
    Ok(opened.map(|opened| unwrapped_words(opened).into()))
}

pub(super) async fn unwrap_batch(
    call: Call,
    body: Batch<wire::Unwrap>,
) -> Result<Released<Reply<BatchResults<Unwrapped>>>> {
    let sealed = items(body.items, |item| {
        let wire::Unwrap { ciphertext, context, danger_allow_compromised } = item;
        if danger_allow_compromised {
            return Err(Error::new(Kind::Invalid, "compromised versions are not opened in a batch")
                .hint("unwrap such a ciphertext by itself"));
        }
        Ok(Sealed { blob: ciphertext.0, context })
    })?;
    let opened = call.service.unwrap_batch(&call.caller, &call.key()?, sealed).await?;
    Ok(opened.map(|opened| results(&call, opened, unwrapped_words).into()))
}

pub(super) async fn rewrap(call: Call, body: wire::Rewrap) -> Result<Released<Reply<Wrapped>>> {
    let wire::Rewrap { ciphertext, context, to } = body;
    let sealed = Sealed { blob: ciphertext.0, context };
    let moved = call.service.rewrap(&call.caller, &call.key()?, sealed, to).await?;
    Ok(moved.map(|(blob, version)| wrapped_words(blob, version).into()))
}

pub(super) async fn rewrap_batch(
    call: Call,
    body: Batch<wire::Rewrap>,
) -> Result<Released<Reply<BatchResults<Wrapped>>>> {
    let mut target: Option<Option<KeyName>> = None;
    let sealed = items(body.items, |item| {
        let wire::Rewrap { ciphertext, context, to } = item;
        if *target.get_or_insert_with(|| to.clone()) != to {
            return Err(Error::new(Kind::Invalid, "the items of a batch all move to the same key")
                .hint("send one batch for each target"));
        }
        Ok(Sealed { blob: ciphertext.0, context })
    })?;
    let moved = call.service.rewrap_batch(&call.caller, &call.key()?, sealed, target.flatten()).await?;
    Ok(moved.map(|blobs| {
        let version = blobs.version;
        results(&call, blobs.results, |blob| wrapped_words(blob, version)).into()
    }))
}

pub(super) async fn data_key(call: Call, body: wire::GenerateDataKey) -> Result<Released<Reply<DataKey>>> {
    let wire::GenerateDataKey { length, context, plaintext } = body;
    let made = call.service.generate_data_key(&call.caller, &call.key()?, length, context, plaintext).await?;
    Ok(made.map(|(made, version)| data_key_words(made, version).into()))
}

pub(super) async fn data_key_batch(
    call: Call,
    body: Batch<wire::GenerateDataKey>,
) -> Result<Released<Reply<BatchResults<DataKey>>>> {
    let wanted = body.items.into_iter().map(|item| {
        let wire::GenerateDataKey { length, context, plaintext } = item;
        (length, context, plaintext)
    });
    let made = call.service.generate_data_keys(&call.caller, &call.key()?, wanted.collect()).await?;
    Ok(made.map(|(version, made)| results(&call, made, |made| data_key_words(made, version)).into()))
}

fn plain(body: wire::Wrap) -> Plain {
    let wire::Wrap { plaintext, context } = body;
    Plain { plaintext: plaintext.0, context }
}

fn wrapped_words(blob: Vec<u8>, version: Version) -> Wrapped {
    Wrapped { ciphertext: Base64(blob), version }
}

fn unwrapped_words(opened: Opened) -> Unwrapped {
    let Opened { plaintext, version } = opened;
    Unwrapped { plaintext: SecretBase64(plaintext), version }
}

fn data_key_words(made: DataKeyMade, version: Version) -> DataKey {
    let DataKeyMade { plaintext, blob } = made;
    DataKey { plaintext: plaintext.map(SecretBase64), ciphertext: Base64(blob), version }
}
