//! Policies: stored, explained.

use super::{Idempotency, Outcome, Service};
use crate::admission::{Details, HOUSE_POLICY, Released};
use crate::audit::Phase;
use crate::error::{Error, Kind, Result};
use crate::keyring::resource;
use crate::policy::{Explanation, Facts, Target, validate};
use crate::store::{Change, Expected, Store};
use crate::types::operation::{DeletePolicy, ReadPolicy, WritePolicy};
use crate::types::{Action, Caller, Credential, IssuerName, KeyName, Name, Principal, ProfileName, Resource, blocking};
use crate::x509::San;

/// A policy as it is stored, and its revision.
pub type Stored = (Name, String, u64);

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The service itself.
    Service,
    /// A key.
    Key(KeyName),
    /// An issuer, and one name of a certificate of it.
    Issuer {
        /// The issuer.
        issuer: IssuerName,
        /// The profile that the certificate would be asked from.
        profile: Option<ProfileName>,
        /// The name that it would be asked for.
        name: Option<San>,
    },
    /// A profile.
    Profile(ProfileName),
}

/// All stored policies.
///
/// # Errors
/// `Tampered` for a record that does not hold.
pub fn read_all(store: &dyn Store) -> Result<Vec<Stored>> {
    store
        .scan("policies/")?
        .into_iter()
        .map(|record| {
            let broken = || Error::new(Kind::Tampered, format!("the record {} cannot be read", record.path));
            let name = record.path.strip_prefix("policies/").and_then(|name| Name::new(name).ok());
            let text = String::from_utf8(record.value.clone()).map_err(|_| broken())?;
            Ok((name.ok_or_else(broken)?, text, record.revision))
        })
        .collect()
}

impl Service {
    /// Stores a policy and puts it in force. `etag` is that of the policy it replaces.
    ///
    /// # Errors
    /// `Invalid` where it does not hold against the schema, with line and column; `Stale` for another etag.
    pub async fn write_policy(
        &self,
        caller: &Caller,
        name: Name,
        text: String,
        etag: Option<u64>,
        idempotency: &Idempotency,
    ) -> Result<Released<Stored>> {
        let permit = self.admit::<WritePolicy>(caller, Resource::Policy(name.clone())).await?;
        let result = async {
            if name.as_str() == HOUSE_POLICY {
                return Err(Error::new(Kind::Invalid, "that name belongs to the service itself"));
            }
            let (checked, own) = (text.clone(), name.clone());
            blocking(move || validate(&own, &checked)).await?;
            let Err(turn) = self.once(caller, idempotency).await? else { return self.find_policy(&name).await };
            let expected = etag.map_or(Expected::Any, Expected::Revision);
            let value = Some(text.clone().into_bytes());
            let mut changes = vec![Change { path: path(&name), expected, value }];
            changes.extend(turn.record(Outcome::Policy(name.clone()))?);
            let details = Details::default().fact("sha256", hex::encode(crate::types::sha256(&[text.as_bytes()])));
            let revision = self.parts.ledger.commit(permit.record(Phase::Change, &details), changes).await?;
            self.renew_policies().await?;
            Ok((name.clone(), text, revision))
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }

    /// Lists policies.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn list_policies(&self, caller: &Caller) -> Result<Released<Vec<Stored>>> {
        let permit = self.admit::<ReadPolicy>(caller, Resource::Service).await?;
        permit.close(self.stored_policies().await, Details::default()).await
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_policy(&self, caller: &Caller, name: &Name) -> Result<Released<Stored>> {
        let permit = self.admit::<ReadPolicy>(caller, Resource::Policy(name.clone())).await?;
        permit.close(self.find_policy(name).await, Details::default()).await
    }

    /// Removes a policy. From the answer on, it permits and forbids nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_policy(&self, caller: &Caller, name: &Name, idempotency: &Idempotency) -> Result<Released<()>> {
        let permit = self.admit::<DeletePolicy>(caller, Resource::Policy(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return Ok(()) };
            let (_, _, revision) = self.find_policy(name).await?;
            let mut changes = vec![Change { path: path(name), expected: Expected::Revision(revision), value: None }];
            changes.extend(turn.record(Outcome::Policy(name.clone()))?);
            self.parts.ledger.commit(permit.record(Phase::Change, &Details::default()), changes).await?;
            self.renew_policies().await
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }

    /// Why an identity may, or may not.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn explain(
        &self,
        caller: &Caller,
        identity: Name,
        groups: Vec<Name>,
        action: Action,
        about: &About,
    ) -> Result<Released<Explanation>> {
        let permit = self.admit::<ReadPolicy>(caller, Resource::Service).await?;
        let assumed = Caller {
            principal: Principal::Identity(identity),
            groups: groups.into(),
            credential: Credential::Process,
            address: caller.address,
            request_id: caller.request_id.clone(),
        };
        let found = if let About::Key(name) = about { self.parts.keyring.find(name).ok() } else { None };
        let mut facts = Facts { time: Some(self.parts.ledger.clock().now()), ..Facts::default() };
        let asked: Option<String>;
        let resource = match about {
            About::Service => Resource::Service,
            About::Key(name) => resource(name),
            About::Issuer { issuer, profile, name } => {
                asked = name.as_ref().map(ToString::to_string);
                (facts.profile, facts.name) = (profile.as_ref(), asked.as_deref());
                Resource::Issuer(issuer.clone())
            }
            About::Profile(name) => Resource::Profile(name.clone()),
        };
        let target = Target { resource, key: found.as_ref().map(|key| key.facts()) };
        let explanation = self.parts.admission.policies().explain(&assumed, action, &target, &facts);
        permit.close(Ok(explanation), Details::default()).await
    }

    async fn stored_policies(&self) -> Result<Vec<Stored>> {
        let store = self.parts.ledger.store();
        blocking(move || read_all(&*store)).await
    }

    async fn find_policy(&self, name: &Name) -> Result<Stored> {
        let none = || Error::new(Kind::NotFound, format!("there is no policy {name}"));
        self.stored_policies().await?.into_iter().find(|(own, ..)| own == name).ok_or_else(none)
    }

    /// Puts what is stored in force. Reading it back, rather than adding to what is known, keeps two changes at once right.
    async fn renew_policies(&self) -> Result<()> {
        let stored = self.stored_policies().await?;
        let admission = self.parts.admission.clone();
        blocking(move || admission.renew(stored.into_iter().map(|(name, text, _)| (name, text)).collect())).await
    }
}

fn path(name: &Name) -> String {
    format!("policies/{name}")
}
