//! What a start finds: store, log, anchors and witnesses must tell one story, or an operator accepts that they do not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::anchors::{Anchors, Gap, Watched};
use super::map::{Edit, Leaves};
use super::open::{self, OPEN, Open, opened};
use super::{FACT, Turn, WITNESSES, position};
use crate::audit::{Log, Witnesses};
use crate::error::{Error, Kind, Result};
use crate::store::Store;
use crate::types::blocking;

/// Reads the store, the log and the anchors, and compares them.
pub(super) async fn take_over(store: &Arc<dyn Store>, log: &Log, anchors: Anchors) -> Result<(Turn, Vec<Gap>)> {
    let reading = store.clone();
    let (map, stored) = blocking(move || {
        let mut leaves = Leaves::default();
        reading.visit("", &mut |record| {
            if record.path != OPEN {
                leaves.add(&Edit::new(&record.path, Some(&record.value)), record.revision);
            }
            Ok(())
        })?;
        Ok((leaves.into_map(), opened(&*reading)?))
    })
    .await?;
    let Anchors { list, accept_rollback, witnesses } = anchors;
    let mut gaps = Vec::new();
    let state = stored.as_ref().and_then(|(_, open)| open.state.clone());
    if state.as_ref().is_some_and(|state| state.map != map.root()) {
        let error = Error::new(Kind::Tampered, "the records of the store are not those of its last change")
            .hint("one was put back, added or removed in the database: put the newest one back, or restore a backup");
        gaps.push(accepted(error, accept_rollback)?);
    }
    let present: Vec<_> = list.iter().map(|anchor| anchor.name()).collect();
    let away = state.as_ref().map(|state| state.away_but(&present)).unwrap_or_default();
    let mut turn = Turn { map, state, away, ..Turn::default() };
    for anchor in list {
        let (watched, gap) = Watched::open(anchor, turn.state.as_ref(), accept_rollback).await?;
        turn.anchors.push(watched);
        gaps.extend(gap);
    }
    if let Some(known) = turn.state.as_ref().and_then(|state| state.head)
        && let Err(error) = log.knows(known.number, &known.hash)
    {
        gaps.push(accepted(error, accept_rollback)?);
    }
    if let Some((_, open)) = &stored {
        if witnesses.as_ref().is_some_and(|witnesses| !witnesses.is_empty())
            && let Err(error) = same_log(log, open).await
        {
            gaps.push(accepted(error, accept_rollback)?);
        }
        if let Err(error) = no_later_changes(log, open).await {
            gaps.push(accepted(error, accept_rollback)?);
        }
    }
    if let Err(error) = all_configured(store, witnesses.as_deref()).await {
        gaps.push(accepted(error, accept_rollback)?);
    }
    if let Some(witnesses) = witnesses {
        let contradictions = witnesses.compare(accept_rollback).await?;
        gaps.extend(contradictions.into_iter().map(|what| Gap { found: None, what }));
    }
    Ok((turn, gaps))
}

/// The log goes on from where it was before the last change of the store. Together with the next check the log, and with it whoever
/// vouches for the log, vouches for the store.
async fn same_log(log: &Log, open: &Open) -> Result<()> {
    if open::is_none(&open.root) || open.after > log.size() || log.goes_on_from(open.after, &open.root).await? {
        return Ok(());
    }
    let text = format!(
        "rollback: the store was last changed beside another audit log, or this one was edited after record {}",
        open.after
    );
    Err(Error::new(Kind::Tampered, text).hint(position::MEND))
}

/// The log holds no changes that came after the last one of the store: that would be an older store beside a newer log.
async fn no_later_changes(log: &Log, open: &Open) -> Result<()> {
    let known: BTreeSet<_> = open.leaves.iter().filter_map(|leaf| leaf.facts.get(FACT).cloned()).collect();
    let (folder, after) = (log.folder().to_owned(), open.after);
    if after > log.size() {
        return Ok(());
    }
    // Nothing is pruned before the store has seen what comes after it.
    if after < log.first() {
        let text = format!(
            "rollback: the store was last changed when the audit log had {after} records, and the first {} were pruned since",
            log.first()
        );
        return Err(Error::new(Kind::Tampered, text).hint(position::MEND));
    }
    let later = blocking(move || {
        let records = crate::audit::read(&folder, after)?.flatten();
        let changes = records.filter_map(|(_, mut record)| record.facts.remove(FACT));
        Ok(changes.filter(|change| !known.contains(change)).count())
    });
    let later = later.await?;
    if later == 0 {
        return Ok(());
    }
    let text = format!("rollback: the audit log holds {later} changes that came after the last one of the store");
    Err(Error::new(Kind::Tampered, text).hint(position::MEND))
}

/// The keys of the witnesses that changes wait for, as they are put on record.
pub(super) fn required(witnesses: Option<&Witnesses>) -> BTreeSet<String> {
    let keys = witnesses.map(Witnesses::required).unwrap_or_default();
    keys.iter().map(ToString::to_string).collect()
}

/// Those that are on record.
pub(super) fn recorded_witnesses(store: &dyn Store) -> Result<BTreeSet<String>> {
    let Some(record) = store.get(WITNESSES)? else { return Ok(BTreeSet::new()) };
    serde_json::from_slice(&record.value)
        .map_err(|e| Error::new(Kind::Tampered, "the record of witnesses cannot be read").because(e))
}

/// No witness that changes waited for was left out of the configuration: who can put the store back can write that, too.
async fn all_configured(store: &Arc<dyn Store>, witnesses: Option<&Witnesses>) -> Result<()> {
    let reading = store.clone();
    let recorded = blocking(move || recorded_witnesses(&*reading)).await?;
    let missing: Vec<_> = recorded.difference(&required(witnesses)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text =
        format!("changes waited for a witness that is not configured as required any more: {}", missing.join(", "));
    Err(Error::new(Kind::Tampered, text).hint(
        "put its [[witness]] stanza back; to go on without it, `signet restore --accept-rollback`, which records that for ever",
    ))
}

/// What does not hold, where an operator accepts that.
fn accepted(error: Error, accept: bool) -> Result<Gap> {
    if accept { Ok(Gap { found: None, what: error.public().to_owned() }) } else { Err(error) }
}
