//! Message authentication codes.

use super::answer::Reply;
use super::batch::results;
use super::call::Call;
use super::sign::verified;
use crate::error::Result;
use crate::service::Released;
use crate::types::Version;
use crate::wire::{self, Base64, Batch, BatchResults, MacMade, Verified};

pub(super) async fn mac(call: Call, body: wire::MakeMac) -> Result<Released<Reply<MacMade>>> {
    let made = call.service.mac(&call.caller, &call.key()?, body.message.0).await?;
    Ok(made.map(|(code, version)| words(code, version).into()))
}

pub(super) async fn mac_batch(
    call: Call,
    body: Batch<wire::MakeMac>,
) -> Result<Released<Reply<BatchResults<MacMade>>>> {
    let messages = body.items.into_iter().map(|item| item.message.0).collect();
    let made = call.service.mac_batch(&call.caller, &call.key()?, messages).await?;
    Ok(made.map(|(version, codes)| results(&call, codes, |code| words(code, version)).into()))
}

pub(super) async fn verify(call: Call, body: wire::VerifyMac) -> Result<Released<Reply<Verified>>> {
    let wire::VerifyMac { message, mac, version } = body;
    let verdict = call.service.verify_mac(&call.caller, &call.key()?, version, message.0, &mac.0).await?;
    Ok(verdict.map(|verdict| verified(&verdict).into()))
}

pub(super) async fn verify_batch(
    call: Call,
    body: Batch<wire::VerifyMac>,
) -> Result<Released<Reply<BatchResults<Verified>>>> {
    let requests = body.items.into_iter().map(|item| {
        let wire::VerifyMac { message, mac, version } = item;
        (version, message.0, mac.0)
    });
    let verdicts = call.service.verify_mac_batch(&call.caller, &call.key()?, requests.collect()).await?;
    Ok(verdicts.map(|verdicts| results(&call, verdicts, |verdict| verified(&verdict)).into()))
}

fn words(code: Vec<u8>, version: Version) -> MacMade {
    MacMade { mac: Base64(code), version }
}
