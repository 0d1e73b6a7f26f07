//! Where profiles are kept. Those to start with are in every namespace until another one takes their name.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::profile::Profile;
use super::{Authority, FORMAT, parse, put};
use crate::admission::{Details, Permit, no_profile};
use crate::audit::Phase;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected, Store};
use crate::types::operation::{DeleteProfile, WriteProfile};
use crate::types::{Name, ProfileName, sha256};

/// A profile at one moment.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its full name.
    pub name: ProfileName,
    /// What it says.
    pub profile: Arc<Profile>,
    /// The commit that wrote it; 0 for one that is built in.
    pub revision: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    name: ProfileName,
    profile: Profile,
}

/// Reads all profiles.
pub(super) fn read_all(store: &dyn Store) -> Result<BTreeMap<ProfileName, Known>> {
    let mut known = BTreeMap::new();
    for record in store.scan("profiles/")? {
        let Stored { format: _, name, profile } = parse(&record)?;
        known.insert(name.clone(), Known { name, profile: Arc::new(profile), revision: record.revision });
    }
    Ok(known)
}

impl Authority {
    /// The profile with that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn profile(&self, name: &ProfileName) -> Result<Known> {
        let stored = self.profiles.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let built_in = || Profile::built_in().iter().find(|(own, _)| *own == name.name.as_str());
        let found = stored.or_else(|| {
            built_in().map(|(_, profile)| Known { name: name.clone(), profile: profile.clone(), revision: 0 })
        });
        found.ok_or_else(|| no_profile(name))
    }

    /// The profiles that are stored, of one namespace or of all, and those that are built in, in the order of their names.
    #[must_use]
    pub fn all_profiles(&self, namespace: Option<&Name>) -> Vec<Known> {
        let stored = self.profiles.read().unwrap_or_else(PoisonError::into_inner).clone();
        let own = namespace.map_or(ProfileName::DEFAULT_NAMESPACE, Name::as_str);
        let built_in = Profile::built_in().iter().filter_map(|(name, profile)| {
            let name: ProfileName = format!("{own}:{name}").parse().ok()?;
            Some((name.clone(), Known { name, profile: profile.clone(), revision: 0 }))
        });
        let mut all: BTreeMap<_, _> = built_in.collect();
        all.extend(stored.into_iter().filter(|(name, _)| namespace.is_none_or(|one| name.namespace == *one)));
        all.into_values().collect()
    }

    /// Stores a profile, in place of one with that name. What was issued from that stays.
    ///
    /// # Errors
    /// `Invalid` for one that makes no sense, `Stale` where the stored one is not the one that is replaced.
    pub async fn write_profile(
        &self,
        permit: &Permit<WriteProfile>,
        name: &ProfileName,
        profile: Profile,
        replaces: Option<u64>,
        also: Option<Change>,
    ) -> Result<Known> {
        profile.check()?;
        let expected = match replaces {
            None => Expected::Any,
            Some(0) => Expected::Absent,
            Some(revision) => Expected::Revision(revision),
        };
        let stored = Stored { format: FORMAT, name: name.clone(), profile };
        let change = put(path(name), expected, &stored)?;
        let hash = change.value.as_ref().map(|value| hex::encode(sha256(&[value]))).unwrap_or_default();
        let leaf = permit.record(Phase::Change, &Details::default().fact("sha256", hash));
        crash_point!("profile.before_write");
        let revision = self.parts.ledger.commit(leaf, [change].into_iter().chain(also).collect()).await?;
        crash_point!("profile.written");
        let known = Known { name: name.clone(), profile: Arc::new(stored.profile), revision };
        self.profiles.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), known.clone());
        Ok(known)
    }

    /// Removes a stored profile; one that is built in shows again where it had its name.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for one that is built in.
    pub async fn delete_profile(
        &self,
        permit: &Permit<DeleteProfile>,
        name: &ProfileName,
        also: Option<Change>,
    ) -> Result<()> {
        let Known { revision, .. } = self.profile(name)?;
        if revision == 0 {
            return Err(Error::new(Kind::Invalid, format!("{name} is built in"))
                .hint("store another one with its name to replace it; what nobody may use is said in policies"));
        }
        let change = Change { path: path(name), expected: Expected::Revision(revision), value: None };
        let leaf = permit.record(Phase::Change, &Details::default());
        crash_point!("profile.before_removal");
        self.parts.ledger.commit(leaf, [change].into_iter().chain(also).collect()).await?;
        crash_point!("profile.removed");
        self.profiles.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }
}

fn path(name: &ProfileName) -> String {
    format!("profiles/{}/{}", name.namespace, name.name)
}
