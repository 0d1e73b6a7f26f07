//! Identities that prove themselves by client certificates.

use super::answer::{Nothing, Reply};
use super::batch::items;
use super::call::Call;
use crate::error::{Error, Kind, Result};
use crate::service::{CertificateRule, IdentityRecord, Released};
use crate::types::Name;
use crate::wire::{CertificateMatch, Identity, Page};

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<Identity>>>> {
    let page = call.page()?;
    let identities = call.service.list_identities(&call.caller).await?;
    identities.try_map(|identities| {
        let (identities, next_page_token) = page.cut(identities, |identity| identity.name.clone())?;
        Ok(Page { items: identities.into_iter().map(words).collect(), next_page_token }.into())
    })
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<Identity>>> {
    let identity = call.service.read_identity(&call.caller, &call.name()?).await?;
    Ok(identity.map(|identity| words(identity).into()))
}

pub(super) async fn write(call: Call, body: Identity) -> Result<Released<Reply<Identity>>> {
    let Identity { name: written, groups, certificates } = body;
    let name = call.name()?;
    same_name(&name, written.as_ref())?;
    let certificates = items(certificates, rule).map_err(|e| e.context("certificates"))?;
    let once = &call.idempotency;
    let identity = call.service.write_identity(&call.caller, name, groups, certificates, once).await?;
    Ok(identity.map(|identity| words(identity).into()))
}

pub(super) async fn delete(call: Call) -> Result<Released<Reply<Nothing>>> {
    let gone = call.service.delete_identity(&call.caller, &call.name()?, &call.idempotency).await?;
    Ok(gone.map(|()| Nothing.into()))
}

/// A name in the body may be left out, and must not be another one.
pub(super) fn same_name(name: &Name, written: Option<&Name>) -> Result<()> {
    if written.is_none_or(|written| written == name) {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, "the body names another one than the address"))
}

fn rule(rule: CertificateMatch) -> Result<CertificateRule> {
    Ok(match rule {
        CertificateMatch::Spiffe(id) => CertificateRule::Spiffe(id.parse()?),
        CertificateMatch::Dns(name) => CertificateRule::Dns(name.parse()?),
        CertificateMatch::PublicKey(pin) => CertificateRule::PublicKey(pin.parse()?),
    })
}

fn words(identity: IdentityRecord) -> Identity {
    let certificates = identity.certificates.iter().map(|rule| match rule {
        CertificateRule::Spiffe(id) => CertificateMatch::Spiffe(id.to_string()),
        CertificateRule::Dns(name) => CertificateMatch::Dns(name.to_string()),
        CertificateRule::PublicKey(pin) => CertificateMatch::PublicKey(pin.to_string()),
    });
    Identity { certificates: certificates.collect(), groups: identity.groups.to_vec(), name: Some(identity.name) }
}
