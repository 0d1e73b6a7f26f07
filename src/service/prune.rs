//! Removes records from the audit log that its archive holds.
//!
//! ```text
//! limits ─▶ the archive is read, and compared with the signed head ─▶ intent recorded ─▶ a head signed above it
//!        ─▶ the store takes that head in ─▶ the log begins behind what goes ─▶ segments removed ─▶ done
//! ```
//!
//! Where the archive is, and how old a record must be at least, is for the configuration to say: whoever has a token cannot have records
//! removed that the operator does not keep elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Service;
use crate::admission::{Details, Permit, Released};
use crate::audit::{ArchivePlace, PRUNED_BELOW, Prune, Wanted};
use crate::error::{Error, Kind, Result};
use crate::keyring::job_id;
use crate::types::operation::PruneAudit;
use crate::types::{Caller, Period, Resource, blocking};

/// How often the stored hashes are looked at until they reach a head, and how long in between.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(100);

/// What may be removed from the audit log at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The archive that holds what goes.
    pub archive: ArchivePlace,
    /// How old a record is at least when it goes.
    pub keep: Option<Period>,
    /// Whether what is older goes by itself.
    pub automatic: bool,
}

/// What is asked to go.
#[derive(Clone, Debug, Default)]
pub struct PruneWish {
    /// Nothing from that record on.
    pub below: Option<u64>,
    /// Nothing that is younger.
    pub keep: Option<Period>,
    /// Whether it is only said what would go.
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Clone, Debug)]
pub struct Pruning {
    /// What was found.
    pub plan: Prune,
    /// Whether it was done.
    pub done: bool,
}

impl Service {
    /// Removes segments of the log that the archive of the configuration holds, at most so many as are read in some seconds. Each
    /// limit is the first record that something keeps; nothing goes where they leave nothing.
    ///
    /// # Errors
    /// `Forbidden`; `Unsupported` where no archive is configured; `Tampered` where the archive is not that of the log: then nothing
    /// goes; `Unavailable` where a disk refuses or no head can be signed.
    pub async fn prune_audit(&self, caller: &Caller, wish: PruneWish) -> Result<Released<Pruning>> {
        let permit = self.admit::<PruneAudit>(caller, Resource::Service).await?;
        let pruned = match self.plan(&wish).await {
            Ok(plan) if wish.dry_run => self.check(&plan).await.map(|()| Pruning { plan, done: false }),
            Ok(plan) => self.act(&permit, plan).await,
            Err(error) => Err(error),
        };
        let details = match &pruned {
            Ok(Pruning { plan, done: true }) => removed(plan),
            Ok(_) | Err(_) => Details::default().fact("dry_run", wish.dry_run),
        };
        permit.close(pruned, details).await
    }

    /// Removes what is old enough, one act of it, where the configuration says that this is done by itself. Whether more may be due.
    ///
    /// # Errors
    /// As [`Self::prune_audit`].
    pub async fn retain_audit(&self) -> Result<bool> {
        if !self.parts.retention.as_ref().is_some_and(|retention| retention.automatic) {
            return Ok(false);
        }
        let plan = self.plan(&PruneWish::default()).await?;
        if plan.segments() == 0 {
            // That nothing is due is no record.
            return Ok(false);
        }
        let caller = Caller::system("retain", job_id());
        let permit = self.admit::<PruneAudit>(&caller, Resource::Service).await?;
        let pruned = self.act(&permit, plan).await;
        let details = pruned.as_ref().map_or_else(|_| Details::default(), |pruned| removed(&pruned.plan));
        let Pruning { plan, .. } = permit.close(pruned, details).await?.into_inner();
        tracing::info!(below = plan.below(), "old records of the audit log were removed: the archive holds them");
        Ok(plan.more())
    }

    /// What may go. Nothing of the archive is read yet but what is in it.
    async fn plan(&self, wish: &PruneWish) -> Result<Prune> {
        let Some(Retention { archive, keep, automatic: _ }) = self.parts.retention.clone() else {
            return Err(Error::new(Kind::Unsupported, "no archive is configured, so nothing is pruned")
                .hint("configure [audit.archive], where each segment goes once it is closed, and [audit.retention]"));
        };
        let now = self.parts.ledger.clock().now();
        let keep = keep.max(wish.keep).map(Period::as_signed);
        let before = keep.map(|keep| now.checked_sub(keep)).transpose();
        let before = before.map_err(|_| Error::new(Kind::Invalid, "no record is as old as that"))?;
        let wanted = Wanted { archive, before, limits: self.limits(wish.below) };
        // Just after a start the hashes are not there yet.
        self.reach(0).await?;
        let log = self.parts.log.clone();
        blocking(move || Prune::plan(&log, wanted)).await
    }

    /// Whether the archive holds what may go.
    async fn check(&self, plan: &Prune) -> Result<()> {
        let plan = plan.clone();
        self.parts.log.with_tree(move |tree| plan.check(tree)).await
    }

    async fn act(&self, permit: &Permit<PruneAudit>, plan: Prune) -> Result<Pruning> {
        // 1. Whether the archive holds it.
        self.check(&plan).await?;
        if plan.segments() == 0 {
            return Ok(Pruning { plan, done: false });
        }

        // 2. The record that says so, a head above it, and a store that goes on from there.
        let act = permit.intent(&facts(&plan)).await?;
        self.parts.heads.sign().await?;
        self.reach(act).await?;
        self.parts.ledger.checkpoint().await?;

        // 3. The act.
        self.parts.log.prune(&plan, act).await?;
        Ok(Pruning { plan, done: true })
    }

    /// The first record that each of these keeps.
    fn limits(&self, below: Option<u64>) -> BTreeMap<String, u64> {
        let mut limits: BTreeMap<_, _> = below.map(|below| ("request".to_owned(), below)).into_iter().collect();
        let witnesses = self.parts.ledger.witnesses();
        // Where changes wait for witnesses, these vouch for the log; else whoever there is.
        let required = witnesses.iter().any(|witness| witness.required);
        for witness in witnesses.into_iter().filter(|witness| witness.required == required) {
            limits.insert(format!("witness {}", witness.name), witness.size.unwrap_or_default());
        }
        for sink in self.parts.log.sinks() {
            limits.insert(format!("sink {}", sink.name), sink.size);
        }
        limits
    }

    /// Waits until the stored hashes reach a head above that record.
    async fn reach(&self, index: u64) -> Result<()> {
        for _ in 0..LOOKS {
            self.parts.log.tend().await?;
            if self.parts.log.tree().is_ok_and(|tree| tree.head().size() > index) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::new(Kind::Unavailable, "the hashes of the audit log are not stored yet")
            .hint("try again in a moment"))
    }
}

fn removed(plan: &Prune) -> Details {
    facts(plan).fact("segments", plan.segments())
}

fn facts(plan: &Prune) -> Details {
    let details = Details::default().fact(PRUNED_BELOW, plan.below()).fact("from", plan.first());
    details.fact("head", plan.head()).fact("archive", plan.archive())
}
