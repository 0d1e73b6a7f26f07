//! Profiles of certificates.

use super::{Idempotency, Outcome, Service};
use crate::admission::{Details, Released};
use crate::ca::profile::Profile;
use crate::ca::profiles::Known;
use crate::error::Result;
use crate::policy::{Facts, Target};
use crate::types::operation::{DeleteProfile, ReadProfile, WriteProfile};
use crate::types::{Action, Caller, Name, ProfileName, Resource};

impl Service {
    /// Stores a profile, in place of one with that name. `replaces` is the revision of that one.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::write_profile`].
    pub async fn write_profile(
        &self,
        caller: &Caller,
        name: &ProfileName,
        profile: Profile,
        replaces: Option<u64>,
        idempotency: &Idempotency,
    ) -> Result<Released<Known>> {
        let permit = self.admit::<WriteProfile>(caller, Resource::Profile(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return self.parts.authority.profile(name) };
            let also = turn.record(Outcome::Profile(name.clone()))?;
            self.parts.authority.write_profile(&permit, name, profile, replaces, also).await
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_profile(&self, caller: &Caller, name: &ProfileName) -> Result<Released<Known>> {
        let permit = self.admit::<ReadProfile>(caller, Resource::Profile(name.clone())).await?;
        permit.close(self.parts.authority.profile(name), Details::default()).await
    }

    /// Lists the profiles that the caller may read, of one namespace or of all.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn list_profiles(&self, caller: &Caller, namespace: Option<Name>) -> Result<Released<Vec<Known>>> {
        let resource_of = namespace.clone().map_or(Resource::Service, Resource::Namespace);
        let permit = self.admit::<ReadProfile>(caller, resource_of).await?;
        let policies = self.parts.admission.policies();
        let facts = Facts { time: Some(self.parts.ledger.clock().now()), ..Facts::default() };
        let readable = |known: &Known| {
            let target = Target::named(Resource::Profile(known.name.clone()));
            policies.decide(caller, Action::ReadProfile, &target, &facts).allow
        };
        let all = self.parts.authority.all_profiles(namespace.as_ref()).into_iter().filter(readable).collect();
        permit.close(Ok(all), Details::default()).await
    }

    /// Removes a profile.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_profile(
        &self,
        caller: &Caller,
        name: &ProfileName,
        idempotency: &Idempotency,
    ) -> Result<Released<()>> {
        let permit = self.admit::<DeleteProfile>(caller, Resource::Profile(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return Ok(()) };
            let also = turn.record(Outcome::Profile(name.clone()))?;
            self.parts.authority.delete_profile(&permit, name, also).await
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }
}
