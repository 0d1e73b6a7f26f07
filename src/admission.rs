//! The only maker of permits.
//!
//! ```text
//! admit ──▶ Permit<Op> ──▶ (intent) ──▶ the act ──▶ close ──▶ Released<T>
//!    └────▶ refused: recorded, then Forbidden or NotFound
//! ```
//!
//! A [`Permit`] is made only here, after policy allowed it, and names its operation in its type. It is not `Clone`; engines
//! borrow it, and [`Permit::close`] consumes it. `close` returns only when the audit record is durable, and only it makes a
//! [`Released`], which is all that a protocol can send. Dropping an open permit writes an `abandoned` record.

use std::marker::PhantomData;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::audit::{Item, Log, Phase, Receipt, Record};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::policy::{Decision, Facts, Policies, Target};
use crate::telemetry::Metrics;
use crate::types::operation::{Includes, Operation};
use crate::types::{Action, Caller, Clock, Context, IssuerName, KeyId, KeyName, Name, ProfileName, Resource, Version};

/// What the house allows itself, and everybody whom it knows: to ask who they are, to read what the API is, to revoke a
/// certificate whose key they hold, and to ask when to renew one that they asked for. Always in force beside the stored policies.
const HOUSE: &str = r#"
permit (
  principal is Signet::System,
  action in [
    Signet::Action::"RotateKey", Signet::Action::"DestroyVersion", Signet::Action::"ScheduleDestruction",
    Signet::Action::"Start", Signet::Action::"CreateToken", Signet::Action::"RevokeToken",
    Signet::Action::"RotateIssuer", Signet::Action::"SignIntermediate", Signet::Action::"SignStatus",
    Signet::Action::"PruneAudit"
  ],
  resource
);

// The service's own certificate, from the issuer and the profile that the configuration names, and a key for it in a device.
permit (
  principal == Signet::System::"tls",
  action in [Signet::Action::"ReadIssuer", Signet::Action::"IssueCertificate"],
  resource
);
permit (principal == Signet::System::"tls", action == Signet::Action::"CreateKey", resource)
when { resource has domain && resource.domain == "tls" };

permit (principal is Signet::Identity, action == Signet::Action::"WhoAmI", resource);

// An ACME account exists because its endpoint says so, or a key that was made for its identity. It says nothing of names.
permit (principal is Signet::Identity, action == Signet::Action::"UseAcme", resource);

// Somebody who might announced it, and now its time has come.
permit (principal == Signet::System::"announcement", action == Signet::Action::"RevokeCertificate", resource is Signet::Issuer);

permit (principal, action == Signet::Action::"RevokeCertificate", resource is Signet::Issuer)
when { context has proven && context.proven };

permit (principal is Signet::Identity, action == Signet::Action::"ReadRenewal", resource is Signet::Issuer)
when { context has requested && context.requested };
"#;

/// Decides, and makes permits.
#[derive(Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policies: ArcSwap<Policies>,
    log: Arc<Log>,
    clock: Clock,
    metrics: Metrics,
}

/// How many questions of one request are decided before others have their turn.
const QUESTIONS_IN_A_ROW: usize = 32;
/// How many records of one request are on their way into the log at once.
pub const RECORDS_AT_ONCE: usize = 250;

/// The right to do one operation once.
#[derive(Debug)]
pub struct Permit<O: Operation> {
    shared: Arc<Shared>,
    caller: Caller,
    resource: Resource,
    decision: String,
    open: bool,
    operation: PhantomData<O>,
}

/// A result whose audit record is durable: the only thing that may leave the service.
#[derive(Debug)]
#[must_use = "a result that was recorded should be sent"]
pub struct Released<T> {
    result: T,
    receipt: Receipt,
}

impl<T> Released<T> {
    /// The result, to be sent.
    pub fn into_inner(self) -> T {
        self.result
    }

    /// The result, and the place of its record in the log.
    pub fn with_receipt(self) -> (T, Receipt) {
        (self.result, self.receipt)
    }

    /// The same release in other words.
    pub fn map<U>(self, words: impl FnOnce(T) -> U) -> Released<U> {
        Released { result: words(self.result), receipt: self.receipt }
    }

    /// The same release in other words, where they can fail.
    ///
    /// # Errors
    /// Those of `words`.
    pub fn try_map<U>(self, words: impl FnOnce(T) -> Result<U>) -> Result<Released<U>> {
        words(self.result).map(|result| Released { result, receipt: self.receipt })
    }
}

/// What the audit record of an operation says beyond who, what and whether.
#[derive(Debug, Default)]
pub struct Details {
    /// The key.
    pub key_id: Option<KeyId>,
    /// The version that was used or made.
    pub version: Option<Version>,
    /// The encryption context.
    pub context: Option<Context>,
    /// The items of a batch.
    pub items: Vec<Item>,
    /// Further facts.
    pub facts: Vec<(&'static str, String)>,
}

impl Details {
    /// Those of one version of a key.
    #[must_use]
    pub fn of(key_id: KeyId, version: Version) -> Self {
        Self { key_id: Some(key_id), version: Some(version), ..Self::default() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }
}

impl Admission {
    /// Admits by `policies`, and records in `log`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where a policy does not hold.
    pub fn new(policies: Vec<(Name, String)>, log: Arc<Log>, clock: Clock, metrics: Metrics) -> Result<Self> {
        let policies = ArcSwap::from_pointee(Policies::new(with_house(policies)?)?);
        Ok(Self { shared: Arc::new(Shared { policies, log, clock, metrics }) })
    }

    /// Puts other stored policies in force, from the next decision on.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where a policy does not hold; then nothing changes.
    pub fn renew(&self, policies: Vec<(Name, String)>) -> Result<()> {
        let renewed = self.shared.policies.load().renewed(with_house(policies)?)?;
        self.shared.policies.store(Arc::new(renewed));
        Ok(())
    }

    /// The policies in force, to explain.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        self.shared.policies.load_full()
    }

    /// A permit, or *not found* where the caller may not even read the key, or *forbidden*. A refusal is recorded before it
    /// is answered.
    ///
    /// # Errors
    /// As said; `Unavailable` where the refusal cannot be recorded.
    pub async fn admit<O: Operation>(
        &self,
        caller: &Caller,
        target: &Target<'_>,
        facts: &Facts<'_>,
    ) -> Result<Permit<O>> {
        self.admit_all(caller, target, std::slice::from_ref(facts)).await
    }

    /// As [`Self::admit`] for a batch: one permit where every one of `facts` is allowed, and a refusal where one is not.
    ///
    /// # Errors
    /// As [`Self::admit`]; [`Kind::Invalid`] for an empty batch.
    pub async fn admit_all<O: Operation>(
        &self,
        caller: &Caller,
        target: &Target<'_>,
        facts: &[Facts<'_>],
    ) -> Result<Permit<O>> {
        let now = self.shared.clock.now();
        let mut allowed = None;
        for (number, facts) in facts.iter().enumerate() {
            // A batch may have a question for each of many names.
            if number % QUESTIONS_IN_A_ROW == QUESTIONS_IN_A_ROW - 1 {
                tokio::task::yield_now().await;
            }
            let facts = Facts { time: Some(now), ..*facts };
            let decision = self.shared.policies.load().decide(caller, O::ACTION, target, &facts);
            if !decision.allow {
                return Err(self.refuse::<O>(caller, target, &facts, &decision).await);
            }
            allowed = Some(decision);
        }
        let decision = allowed.ok_or_else(|| Error::new(Kind::Invalid, "the batch is empty"))?;
        Ok(self.permit(caller, target, &decision))
    }

    /// As [`Self::admit`] for many targets: a permit for each, in order, where every one is allowed; where one is not, its refusal and
    /// no permit.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn admit_each<O: Operation>(
        &self,
        caller: &Caller,
        wanted: &[(Target<'_>, Facts<'_>)],
    ) -> Result<Vec<Permit<O>>> {
        let now = self.shared.clock.now();
        let mut decisions = Vec::new();
        for (number, (target, facts)) in wanted.iter().enumerate() {
            if number % QUESTIONS_IN_A_ROW == QUESTIONS_IN_A_ROW - 1 {
                tokio::task::yield_now().await;
            }
            let facts = Facts { time: Some(now), ..*facts };
            let decision = self.shared.policies.load().decide(caller, O::ACTION, target, &facts);
            if !decision.allow {
                return Err(self.refuse::<O>(caller, target, &facts, &decision).await);
            }
            decisions.push(decision);
        }
        Ok(wanted.iter().zip(decisions).map(|((target, _), decision)| self.permit(caller, target, &decision)).collect())
    }

    fn permit<O: Operation>(&self, caller: &Caller, target: &Target<'_>, decision: &Decision) -> Permit<O> {
        Permit {
            shared: self.shared.clone(),
            caller: caller.clone(),
            resource: target.resource.clone(),
            decision: decision.because.join(","),
            open: true,
            operation: PhantomData,
        }
    }

    /// Records a refusal and makes its answer.
    async fn refuse<O: Operation>(
        &self,
        caller: &Caller,
        target: &Target<'_>,
        facts: &Facts<'_>,
        decision: &Decision,
    ) -> Error {
        let may = |action| self.shared.policies.load().decide(caller, action, target, facts).allow;
        let visible = match target.resource {
            Resource::Key(_) => may(Action::ReadKey),
            Resource::Issuer(_) => may(Action::ReadIssuer),
            Resource::Profile(_) => may(Action::ReadProfile),
            Resource::AcmeEndpoint(_)
            | Resource::Namespace(_)
            | Resource::Policy(_)
            | Resource::Identity(_)
            | Resource::Token(_)
            | Resource::Service => true,
        };
        let mut why = [decision.because.as_slice(), decision.errors.as_slice()].concat().join("; ");
        if why.is_empty() {
            "nothing permits it".clone_into(&mut why);
        }
        let mut error = refusal(O::ACTION, &target.resource, visible);
        let mut record = self.shared.record(caller, O::ACTION, &target.resource, Phase::Refused);
        record.decision = why;
        for (fact, value) in facts.in_words() {
            record.facts.insert(fact.to_owned(), value);
        }
        if let (true, Some(name)) = (error.kind() == Kind::Forbidden, facts.name) {
            error = error.context(format!("the name {name}"));
        }
        error.kind().code().clone_into(&mut record.outcome);
        self.shared.metrics.request(O::ACTION.as_str(), error.kind().code());
        match self.shared.log.append(&record).await {
            Ok(_) => error,
            Err(unrecorded) => unrecorded,
        }
    }

    /// Records a request whose credential was refused. Its answer waits for this.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be recorded.
    pub async fn unauthenticated(&self, request: &str, address: &str, what: &str, why: &Error) -> Result<()> {
        let record = Record {
            time: self.shared.clock.now().to_string(),
            request: request.to_owned(),
            principal: "anonymous".to_owned(),
            address: address.to_owned(),
            action: "Authenticate".to_owned(),
            resource: what.to_owned(),
            outcome: why.kind().code().to_owned(),
            reason: why.chain(),
            ..Record::blank(Phase::Refused)
        };
        self.shared.metrics.request("Authenticate", why.kind().code());
        self.shared.log.append(&record).await.map(drop)
    }

    /// The leaf of a use that is taken off a token before the request is looked at.
    #[must_use]
    pub fn record_charge(&self, caller: &Caller, token: &str) -> Record {
        let mut record = self.shared.record(caller, Action::WhoAmI, &Resource::Token(token.to_owned()), Phase::Change);
        "one use taken off the token".clone_into(&mut record.decision);
        record
    }

    /// The leaf of the house's own tidying.
    #[must_use]
    pub fn record_tidying(&self, job: &'static str) -> Record {
        self.shared.record(&Caller::system(job, job), Action::Start, &Resource::Service, Phase::Change)
    }

    /// Records what a background job found, and cannot mend.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be recorded.
    pub async fn alarmed(&self, caller: &Caller, resource: &Resource, kind: Kind, what: &str) -> Result<()> {
        let mut record = self.shared.record(caller, Action::Start, resource, Phase::Done);
        kind.code().clone_into(&mut record.outcome);
        what.clone_into(&mut record.reason);
        self.shared.log.append(&record).await.map(drop)
    }

    /// Records what became of a device: `failed` where it is not as it should be.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be recorded.
    pub async fn told_of_device(&self, device: &Name, event: &str, failed: Option<Kind>, why: &str) -> Result<()> {
        let caller = Caller::system("device", "device");
        let mut record = self.shared.record(&caller, Action::Start, &Resource::Service, Phase::Done);
        record.facts.insert("device".to_owned(), device.to_string());
        record.facts.insert("event".to_owned(), event.to_owned());
        failed.map_or("ok", Kind::code).clone_into(&mut record.outcome);
        why.clone_into(&mut record.reason);
        self.shared.log.append(&record).await.map(drop)
    }

    /// Records what start-up or a background job found and mended.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be recorded.
    pub async fn recovered(&self, caller: &Caller, resource: &Resource, what: &str) -> Result<()> {
        let mut record = self.shared.record(caller, Action::Start, resource, Phase::Recovered);
        "ok".clone_into(&mut record.outcome);
        what.clone_into(&mut record.reason);
        self.shared.log.append(&record).await.map(drop)
    }
}

fn with_house(mut policies: Vec<(Name, String)>) -> Result<Vec<(Name, String)>> {
    // No stored policy can take this name: it is longer than any other rule would allow a person to forget.
    policies.push((Name::new("signet.house")?, HOUSE.to_owned()));
    Ok(policies)
}

/// The name that no stored policy may have.
pub const HOUSE_POLICY: &str = "signet.house";

fn refusal(action: Action, resource: &Resource, visible: bool) -> Error {
    match resource {
        Resource::Key(name) if !visible => no_key(name),
        Resource::Issuer(name) if !visible => no_issuer(name),
        Resource::Profile(name) if !visible => no_profile(name),
        Resource::Key(_)
        | Resource::Issuer(_)
        | Resource::Profile(_)
        | Resource::AcmeEndpoint(_)
        | Resource::Namespace(_)
        | Resource::Policy(_)
        | Resource::Identity(_)
        | Resource::Token(_)
        | Resource::Service => Error::new(Kind::Forbidden, format!("no policy permits {action} on {resource}"))
            .hint("`signet policy explain` tells which policies were looked at; an administrator can add one"),
    }
}

/// The one answer for a key that does not exist and for one that the caller may not know of.
#[must_use]
pub fn no_key(name: &KeyName) -> Error {
    Error::new(Kind::NotFound, format!("there is no key {name}"))
        .hint("`signet key list` shows the keys you may read; namespace and name are written namespace:name")
}

/// The one answer for an issuer that does not exist and for one that the caller may not know of.
#[must_use]
pub fn no_issuer(name: &IssuerName) -> Error {
    Error::new(Kind::NotFound, format!("there is no issuer {name}"))
        .hint("`signet issuer list` shows the issuers you may read; namespace and name are written namespace:name")
}

/// The one answer for a profile that does not exist and for one that the caller may not know of.
#[must_use]
pub fn no_profile(name: &ProfileName) -> Error {
    Error::new(Kind::NotFound, format!("there is no profile {name}"))
        .hint("`signet profile list` shows the profiles you may read; namespace and name are written namespace:name")
}

impl Shared {
    fn record(&self, caller: &Caller, action: Action, resource: &Resource, phase: Phase) -> Record {
        Record { time: self.clock.now().to_string(), ..Record::of(caller, action, resource, phase) }
    }
}

impl<O: Operation> Permit<O> {
    /// Who was admitted.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether this permit allows `Part` on `name`: engines ask before they act.
    ///
    /// # Errors
    /// [`Kind::Internal`]: a permit for another key is a defect of ours.
    pub fn covers<Part: Operation>(&self, name: &KeyName) -> Result<()>
    where
        O: Includes<Part>,
    {
        match &self.resource {
            Resource::Key(own) if own == name => Ok(()),
            // An issuer's keys have the issuer's name, and `Includes` says what of a key its operations may do.
            Resource::Issuer(own) if own.key() == *name => Ok(()),
            Resource::Issuer(own)
                if O::ACTION == Action::SignStatus && own.responder().is_ok_and(|key| key == *name) =>
            {
                Ok(())
            }
            Resource::Key(_)
            | Resource::Issuer(_)
            | Resource::Profile(_)
            | Resource::AcmeEndpoint(_)
            | Resource::Namespace(_)
            | Resource::Policy(_)
            | Resource::Identity(_)
            | Resource::Token(_)
            | Resource::Service => Err(Error::internal(format!("a permit for {} was spent on {name}", self.resource))),
        }
    }

    /// Whether this permit is one for `issuer`: engines ask before they act.
    ///
    /// # Errors
    /// [`Kind::Internal`]: a permit for another issuer is a defect of ours.
    pub fn covers_issuer(&self, issuer: &IssuerName) -> Result<()> {
        if matches!(&self.resource, Resource::Issuer(own) if own == issuer) {
            return Ok(());
        }
        Err(Error::internal(format!("a permit for {} was spent on issuer {issuer}", self.resource)))
    }

    /// The record of this operation in one phase, with `details`; what `ledger` needs as the leaf of a change.
    #[must_use]
    pub fn record(&self, phase: Phase, details: &Details) -> Record {
        let Details { key_id, version, context, items, facts } = details;
        Record {
            decision: self.decision.clone(),
            key_id: key_id.map(|id| id.to_string()).unwrap_or_default(),
            version: version.map_or(0, Version::number),
            context: context.as_ref().map(|context| context.entries().clone()).unwrap_or_default(),
            items: items.clone(),
            facts: facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            ..self.shared.record(&self.caller, O::ACTION, &self.resource, phase)
        }
    }

    /// Records what is about to be changed for good. Durable on return; answers the index of that record.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be recorded: then the act must not happen.
    pub async fn intent(&self, details: &Details) -> Result<u64> {
        crash_point!("admission.before_intent");
        let index = self.shared.log.append(&self.record(Phase::Intent, details)).await?;
        crash_point!("admission.intended");
        Ok(index)
    }

    /// Records how the operation ended, waits until that is durable, and releases the result.
    ///
    /// # Errors
    /// The result's own error, once it is recorded; `Unavailable` where the record cannot be written: then nothing leaves.
    pub async fn close<T>(mut self, result: Result<T>, details: Details) -> Result<Released<T>> {
        let record = self.end(result.as_ref().err(), &details);
        if let Err(error) = &result {
            log_failure(error, &record);
        }
        crash_point!("admission.before_close");
        // All parts are on their way before the first is waited for.
        let mut parts: Vec<_> = record.parts().iter().map(|part| self.shared.log.append_for(part)).collect();
        let last = parts.pop().ok_or_else(|| Error::internal("an operation without a record"))?;
        for part in parts {
            part.await?;
        }
        let receipt = last.await?;
        crash_point!("admission.closed");
        result.map(|result| Released { result, receipt })
    }

    /// As [`Self::close`] for the permits of [`Admission::admit_each`], each with a record of its own, and what is said of it. The receipt is
    /// that of the last.
    ///
    /// # Errors
    /// As [`Self::close`].
    pub async fn close_each<T>(permits: Vec<Self>, result: Result<T>, details: Vec<Details>) -> Result<Released<T>> {
        crash_point!("admission.before_close_each");
        let mut details = details.into_iter();
        let mut last = None;
        let (mut permits, error) = (permits.into_iter().peekable(), result.as_ref().err());
        while permits.peek().is_some() {
            // Not all at once: others have records to write, too, and so many may wait.
            let together = permits.by_ref().take(RECORDS_AT_ONCE).map(|mut permit| {
                let record = permit.end(error, &details.next().unwrap_or_default());
                if last.is_none()
                    && let Some(error) = error
                {
                    log_failure(error, &record);
                }
                permit.shared.log.append_for(&record)
            });
            for record in together.collect::<Vec<_>>() {
                last = Some(record.await?);
            }
        }
        crash_point!("admission.closed_each");
        let receipt = last.ok_or_else(|| Error::internal("an operation without a record"))?;
        result.map(|result| Released { result, receipt })
    }

    /// The record of the end.
    fn end(&mut self, error: Option<&Error>, details: &Details) -> Record {
        self.open = false;
        let outcome = error.map_or("ok", |error| error.kind().code());
        self.shared.metrics.request(O::ACTION.as_str(), outcome);
        let reason = error.map(Error::chain).unwrap_or_default();
        Record { outcome: outcome.to_owned(), reason, ..self.record(Phase::Done, details) }
    }
}

fn log_failure(error: &Error, record: &Record) {
    match error.kind() {
        Kind::Internal | Kind::Tampered => {
            tracing::error!(request = record.request, action = record.action, cause = error.chain(), "failed");
        }
        Kind::Unavailable | Kind::Busy => {
            tracing::warn!(request = record.request, action = record.action, cause = error.chain(), "failed");
        }
        Kind::Invalid | Kind::Unauthenticated | Kind::Forbidden | Kind::NotFound | Kind::Conflict | Kind::Stale => {}
        Kind::State | Kind::Limit | Kind::DoesNotOpen | Kind::Unsupported => {}
    }
}

impl<O: Operation> Drop for Permit<O> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let record = self.record(Phase::Abandoned, &Details::default());
        let log = self.shared.log.clone();
        // Without a runtime the process is ending, and the intent, if any, stands in the log.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = log.append(&record).await {
                    tracing::error!(cause = error.chain(), "an abandoned permit could not be recorded");
                }
            });
        }
    }
}
