//! One method per operation, and the only way in.
//!
//! Each method admits, acts and closes: what it returns is [`Released`], which exists only once the audit record is durable.
//! A protocol turns its own words into a call here and the answer back, and decides nothing.

pub mod acme;
mod announcements;
mod archive;
mod audit;
mod authenticate;
mod certificates;
mod est;
mod heads;
mod idempotency;
mod identities;
mod issuers;
mod keys;
mod mac;
mod own;
mod pki;
pub mod policies;
mod profiles;
mod prune;
mod restored;
mod sign;
mod system;
mod tokens;
mod wrap;

// The words of the engines that stand in the calls: a protocol speaks to this module alone.
pub use crate::admission::Released;
pub use crate::audit::SinkStatus;
pub use crate::audit::WitnessStatus;
pub use crate::audit::tile::Tile;
pub use crate::auth::certificate::Match as CertificateRule;
pub use crate::auth::registry::{IdentityRecord, TokenRecord};
pub use crate::ca::announcement::{Announcement, Known as KnownAnnouncement, What as Announced};
pub use crate::ca::inventory::{Entry, State as CertificateState};
pub use crate::ca::issuer::{
    Issuer, IssuerUpdate, IssuerVersion, NewIssuer, Parent, Rules as IssuerRules, VersionState as IssuerState,
};
pub use crate::ca::profile::Profile;
pub use crate::ca::profiles::Known as KnownProfile;
pub use crate::ca::published::Published;
pub use crate::ca::renewal::{Renewal, Window};
pub use crate::ca::request::{Request as CertificateRequest, Source as KeySource};
pub use crate::ca::status::{MAX_REQUEST as MAX_OCSP_REQUEST, StatusAnswer};
pub use crate::envelope::{Blobs, Opened, Plain, Sealed};
pub use crate::jose::Jwk;
pub use crate::keyring::{Key, KeyUpdate, KeyVersion, NewKey};
pub use crate::ledger::AnchorStatus;
pub use crate::signing::{Input, Verdict};
pub use crate::store::certificates::{Cursor as CertificateCursor, Search as CertificateSearch};

pub use audit::{MAX_RECORD_BYTES, MAX_RECORDS, Records, SignedHead};
pub use authenticate::{Arrival, Presented};
pub use certificates::{CertificatePage, Certified, Right as RevocationRight};
pub use est::Enrolment;
pub use heads::{HeadKey, Heads};
pub use idempotency::{Idempotency, MAX_KEY, Outcome, PATIENCE};
pub use issuers::IssuerPage;
pub use keys::{KeyPage, VersionStep, Versions};
pub use own::{CertificateSource, Held as OwnCertificate, OwnKey, OwnWish, Served, Shown as ShownCertificate};
pub use prune::{PruneWish, Pruning, Retention};
pub use restored::Restoration;
pub use sign::{SignatureMade, VerifyRequest};
pub use system::{Bound, BoundVersion, DeviceState, MAX_BOUND, Manifest, Status};
pub use tokens::{NewToken, TokenMade};
pub use wrap::{DataKeyMade, RewrapItem};

use std::sync::Arc;

use crate::admission::{Admission, Permit};
use crate::audit::{Item, Log, News};
use crate::auth::registry::Registry;
use crate::ca::Authority;
use crate::ca::status::Status as RevocationStatus;
use crate::envelope::Envelope;
use crate::error::{Error, Kind, Result};
use crate::keyring::{Keyring, resource};
use crate::ledger::Ledger;
use crate::policy::{Facts, Target};
use crate::signing::Signing;
use crate::telemetry::Metrics;
use crate::types::operation::Operation;
use crate::types::{Caller, Context, KeyName, Name, Resource, Turns, Version};

/// The most items of a batch.
pub const MAX_BATCH: usize = 1000;
/// The most items of a page, and how many there are unless asked otherwise.
pub const MAX_PAGE: usize = 1000;
/// As said.
pub const DEFAULT_PAGE: usize = 100;
/// How the names of our own begin in [`Parts::scratch`].
pub const SCRATCH_PREFIX: &str = "backup-";

/// What the service is made of. Made by `server` alone.
#[derive(Debug)]
pub struct Parts {
    /// Keys.
    pub keyring: Arc<Keyring>,
    /// Issuers and certificates.
    pub authority: Arc<Authority>,
    /// Permits.
    pub admission: Arc<Admission>,
    /// Changes.
    pub ledger: Arc<Ledger>,
    /// The audit log.
    pub log: Arc<Log>,
    /// Signs the heads of the log.
    pub heads: Arc<Heads>,
    /// What may be removed from the log; nothing where absent.
    pub retention: Option<Retention>,
    /// Tokens and identities.
    pub registry: Arc<Registry>,
    /// What ACME keeps in memory.
    pub acme: acme::Desk,
    /// The certificate that the service wants for itself; none where it has one from elsewhere.
    pub own: Option<OwnWish>,
    /// Metrics.
    pub metrics: Metrics,
    /// The random id of this installation.
    pub instance: String,
    /// The device of keys that name none.
    pub default_device: Name,
    /// The folder where a backup is put together.
    pub scratch: std::path::PathBuf,
    /// What start-up found and mended.
    pub recovered: Vec<String>,
    /// What an operator should look at.
    pub problems: Vec<String>,
}

/// The operations of Signet.
#[derive(Debug)]
pub struct Service {
    parts: Parts,
    envelope: Envelope,
    signing: Signing,
    status: Arc<RevocationStatus>,
    own: own::Own,
    /// Changes whose idempotency key is being worked on.
    in_flight: Turns<String>,
    /// Held from the reading of a token's record to the commit of its change: a use that is charged and a revocation at the
    /// same moment come one after the other.
    token_changes: tokio::sync::Mutex<()>,
    /// Whether the service is going down.
    draining: std::sync::atomic::AtomicBool,
}

impl Service {
    /// Puts the parts together.
    #[must_use]
    pub fn new(mut parts: Parts) -> Self {
        Self {
            own: own::Own::new(parts.own.take()),
            envelope: Envelope::new(parts.keyring.clone()),
            signing: Signing::new(parts.keyring.clone()),
            status: Arc::new(RevocationStatus::new(parts.authority.clone())),
            parts,
            in_flight: Turns::default(),
            token_changes: tokio::sync::Mutex::default(),
            draining: false.into(),
        }
    }

    /// The keys, for the background jobs.
    #[must_use]
    pub fn keyring(&self) -> Arc<Keyring> {
        self.parts.keyring.clone()
    }

    /// What relying parties are told of revocation, for the background jobs.
    #[must_use]
    pub fn revocation_status(&self) -> Arc<RevocationStatus> {
        self.status.clone()
    }

    /// The issuers, for the background jobs.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        self.parts.authority.clone()
    }

    /// Has the audit log record what it could not when it was made.
    ///
    /// # Errors
    /// Where it still cannot be written.
    pub async fn settle(&self) -> Result<()> {
        let log = &self.parts.log;
        log.mend();
        self.parts.ledger.settle().await?;
        let caller = Caller::system("log", "log");
        while let Some(News { what, trouble, reopened }) = log.news() {
            match trouble {
                None => self.parts.admission.recovered(&caller, &Resource::Service, &what).await?,
                Some(kind) => self.parts.admission.alarmed(&caller, &Resource::Service, kind, &what).await?,
            }
            log.news_is_recorded();
            self.parts.metrics.audit_reopened(reopened);
        }
        Ok(())
    }

    /// What the anchors did not vouch for when the service started, and an operator accepted.
    #[must_use]
    pub fn gap(&self) -> Option<String> {
        self.parts.ledger.gap()
    }

    /// Has the witnesses follow the log, and shows how they stand.
    pub async fn follow(&self) {
        self.parts.ledger.follow().await;
        for witness in self.parts.ledger.witnesses() {
            self.parts.metrics.witness(&witness.name, witness.size, witness.time, witness.trouble.is_none());
        }
    }

    /// Has the anchors of the store hold where it and the log stand now.
    ///
    /// # Errors
    /// Where the store or an anchor cannot be written.
    pub async fn checkpoint(&self) -> Result<()> {
        self.parts.ledger.checkpoint().await
    }

    /// The metrics, for the listener.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// Turns readiness off: the service is going down.
    pub fn drain(&self) {
        self.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The device of keys that name none.
    #[must_use]
    pub const fn default_device(&self) -> &Name {
        &self.parts.default_device
    }

    /// A permit for one operation on a key, whether or not the key exists.
    async fn admit_key<O: Operation>(&self, caller: &Caller, name: &KeyName, facts: &[Facts<'_>]) -> Result<Permit<O>> {
        let key = self.parts.keyring.find(name).ok();
        let target = Target { resource: resource(name), key: key.as_ref().map(|key| key.facts()) };
        self.parts.admission.admit_all(caller, &target, facts).await
    }

    /// A permit for one operation on something that is not a key.
    async fn admit<O: Operation>(&self, caller: &Caller, resource: Resource) -> Result<Permit<O>> {
        self.parts.admission.admit(caller, &Target::named(resource), &Facts::default()).await
    }
}

/// The facts of each item that has a context; the same context is asked about once.
fn context_facts<'a>(contexts: impl Iterator<Item = &'a Context>) -> Vec<Facts<'a>> {
    let mut seen = std::collections::HashSet::new();
    contexts
        .filter(|context| seen.insert(context.entries()))
        .map(|context| Facts { context: Some(context), ..Facts::default() })
        .collect()
}

/// Refuses a batch that is empty or too large.
fn check_batch(items: usize) -> Result<()> {
    match items {
        0 => Err(Error::new(Kind::Invalid, "the batch is empty")),
        1..=MAX_BATCH => Ok(()),
        _ => Err(Error::new(Kind::Limit, format!("a batch has at most {MAX_BATCH} items"))),
    }
}

/// How one item of a batch is recorded.
fn item<T>(result: &Result<T>, version: Option<Version>, context: Option<&Context>) -> Item {
    let (outcome, reason) = match result {
        Ok(_) => ("ok".to_owned(), String::new()),
        Err(error) => (error.kind().code().to_owned(), error.chain()),
    };
    Item {
        outcome,
        reason,
        version: version.map_or(0, Version::number),
        context: context.map(|context| context.entries().clone()).unwrap_or_default(),
    }
}

/// The only result of a batch of one.
fn only<T>(mut results: Vec<Result<T>>) -> Result<T> {
    results.pop().unwrap_or_else(|| Err(Error::internal("an operation gave no result")))
}
