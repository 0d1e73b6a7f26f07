//! The audit log.

use super::answer::{Note, Octets, Reply};
use super::call::{Call, number};
use crate::error::{Error, Kind, Result};
use crate::service::{DEFAULT_PAGE, MAX_RECORDS, PruneWish, Pruning, Records, Released, SignedHead, Tile};
use crate::wire::{AuditConsistency, AuditHead, AuditProof, AuditPruned, AuditRecords, PruneAudit};

pub(super) async fn records(call: Call) -> Result<Released<Reply<AuditRecords>>> {
    let first = call.query("first", number)?;
    let limit = call.query("limit", number)?.map_or(DEFAULT_PAGE, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if !(1..=MAX_RECORDS).contains(&limit) {
        return Err(Error::new(Kind::Invalid, format!("limit is 1 to {MAX_RECORDS}")));
    }
    let read = call.service.read_audit(&call.caller, first, limit).await?;
    read.try_map(|read| {
        let Records { first, records, size } = read;
        let next = first + records.len() as u64;
        let records = records.iter().map(serde_json::to_value).collect::<std::result::Result<_, _>>();
        let records = records.map_err(|e| Error::internal(format!("writing a record: {e}")))?;
        Ok(AuditRecords { first, records, next, size }.into())
    })
}

pub(super) async fn head(call: Call) -> Result<Released<Reply<AuditHead>>> {
    let head = call.service.read_audit_head(&call.caller).await?;
    head.try_map(|SignedHead { note, key, second }| {
        let ed25519_public_key = second.map(|second| second.to_pem()).transpose()?;
        Ok(AuditHead { note, public_key: key.to_pem()?, ed25519_public_key }.into())
    })
}

pub(super) async fn proof(call: Call) -> Result<Released<Reply<AuditProof>>> {
    let index = number(call.path("index")?)?;
    let public_key = call.service.log_key().to_pem()?;
    let proof = call.service.prove_record(&call.caller, index).await?;
    Ok(proof.map(|proof| AuditProof { index, size: proof.head.size(), proof: proof.encode(), public_key }.into()))
}

pub(super) async fn consistency(call: Call) -> Result<Released<Reply<AuditConsistency>>> {
    let old = number(call.path("size")?)?;
    let public_key = call.service.log_key().to_pem()?;
    let proof = call.service.prove_consistency(&call.caller, old).await?;
    Ok(proof.map(|proof| AuditConsistency { old, size: proof.head.size(), proof: proof.encode(), public_key }.into()))
}

pub(super) async fn prune(call: Call, body: PruneAudit) -> Result<Released<Reply<AuditPruned>>> {
    let PruneAudit { below, keep, dry_run } = body;
    let pruned = call.service.prune_audit(&call.caller, PruneWish { below, keep, dry_run }).await?;
    Ok(pruned.map(|Pruning { plan, done }| {
        AuditPruned {
            first: plan.first(),
            below: plan.below(),
            segments: plan.segments() as u64,
            bytes: plan.bytes(),
            head: plan.head(),
            limits: plan.limits().clone(),
            archive: plan.archive().to_string(),
            more: plan.more(),
            done,
        }
        .into()
    }))
}

pub(super) async fn checkpoint(call: Call) -> Result<Released<Reply<Note>>> {
    Ok(call.service.read_checkpoint(&call.caller).await?.map(|note| Note(note).into()))
}

pub(super) async fn tile(call: Call) -> Result<Released<Reply<Octets>>> {
    let tile: Tile = format!("tile/{}/{}", call.path("level")?, call.path("tile")?).parse()?;
    Ok(call.service.read_tile(&call.caller, tile).await?.map(|bytes| Octets(bytes).into()))
}
