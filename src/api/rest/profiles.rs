//! Profiles of certificates.

use super::answer::{Nothing, Reply};
use super::call::Call;
use crate::error::{Error, Kind, Result};
use crate::service::{KnownProfile, Profile, Released};
use crate::types::Name;
use crate::wire::{self, Page};

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<wire::Profile>>>> {
    let namespace = call.query("namespace", Name::new)?;
    let page = call.page()?;
    let profiles = call.service.list_profiles(&call.caller, namespace).await?;
    profiles.try_map(|profiles| {
        let (profiles, next_page_token) = page.cut(profiles, |known| known.name.clone())?;
        Ok(Page { items: profiles.iter().map(words).collect::<Result<_>>()?, next_page_token }.into())
    })
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<wire::Profile>>> {
    let known = call.service.read_profile(&call.caller, &call.profile()?).await?;
    known.try_map(|known| reply(&known))
}

pub(super) async fn write(call: Call, body: wire::Profile) -> Result<Released<Reply<wire::Profile>>> {
    let wire::Profile { name: written, profile, built_in: _, etag: _ } = body;
    let name = call.profile()?;
    if written.is_some_and(|written| written != name) {
        return Err(Error::new(Kind::Invalid, "the body names another one than the address"));
    }
    let profile: Profile = serde_json::from_value(profile).map_err(|e| {
        // The words of serde name fields and kinds, and quote what was sent at most.
        let why: String = e.to_string().chars().take(200).collect();
        Error::new(Kind::Invalid, format!("this is no profile: {why}")).hint("docs/profiles.md tells all fields")
    })?;
    let replaces = match call.if_match()? {
        None => None,
        Some(etag) => Some(etag.parse().map_err(|_| {
            Error::new(Kind::Stale, format!("{name} was changed in the meantime")).hint("read it again")
        })?),
    };
    let known = call.service.write_profile(&call.caller, &name, profile, replaces, &call.idempotency).await?;
    known.try_map(|known| reply(&known))
}

pub(super) async fn delete(call: Call) -> Result<Released<Reply<Nothing>>> {
    let gone = call.service.delete_profile(&call.caller, &call.profile()?, &call.idempotency).await?;
    Ok(gone.map(|()| Nothing.into()))
}

fn reply(known: &KnownProfile) -> Result<Reply<wire::Profile>> {
    Ok(Reply::from(words(known)?).etag(&known.revision.to_string()))
}

fn words(known: &KnownProfile) -> Result<wire::Profile> {
    let KnownProfile { name, profile, revision } = known;
    let profile = serde_json::to_value(&**profile).map_err(|e| Error::internal(format!("writing a profile: {e}")))?;
    Ok(wire::Profile { name: Some(name.clone()), profile, built_in: *revision == 0, etag: Some(revision.to_string()) })
}
