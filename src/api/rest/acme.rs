//! ACME endpoints and binding keys, for those who run them. The protocol itself is `api::acme`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::answer::{Nothing, Reply};
use super::call::Call;
use crate::error::Result;
use crate::service::Released;
use crate::service::acme::{EabKey, Endpoint, Networks, NewEabKey, Speaker};
use crate::types::EndpointName;
use crate::wire::{self, AcmeEndpoint, EabKeyCreated, EabKeyInfo, Page, SecretText};

pub(super) async fn create(call: Call, body: wire::CreateAcmeEndpoint) -> Result<Released<Reply<AcmeEndpoint>>> {
    let mut endpoint = call.service.new_acme_endpoint(body.name, body.issuer, body.profiles);
    let parse = |texts: Vec<String>| texts.iter().map(|text| text.parse()).collect::<Result<_>>();
    let challenges = body.challenges.map(|kinds| kinds.iter().map(|kind| kind.parse()).collect::<Result<_>>());
    endpoint.open_to = body.identity.map(|identity| Speaker { identity, groups: body.groups.into() });
    if let Some(challenges) = challenges.transpose()? {
        endpoint.challenges = challenges;
    }
    endpoint.networks = Networks::new(parse(body.networks)?)?;
    endpoint.terms = body.terms;
    endpoint.website = body.website;
    endpoint.caa = body.caa;
    let made = call.service.create_acme_endpoint(&call.caller, endpoint, &call.idempotency).await?;
    Ok(made.map(|endpoint| {
        let path = format!("/api/v1/acme/endpoints/{}", endpoint.name);
        Reply::from(words(&endpoint)).location(path)
    }))
}

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<AcmeEndpoint>>>> {
    let (page, namespace) = (call.page()?, call.query("namespace", |text| text.parse())?);
    let endpoints = call.service.list_acme_endpoints(&call.caller, namespace.as_ref()).await?;
    endpoints.try_map(|endpoints| {
        let (endpoints, next_page_token) = page.cut(endpoints, |endpoint| endpoint.name.clone())?;
        Ok(Page { items: endpoints.iter().map(words).collect(), next_page_token }.into())
    })
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<AcmeEndpoint>>> {
    let endpoint = call.service.read_acme_endpoint(&call.caller, &name(&call)?).await?;
    Ok(endpoint.map(|endpoint| words(&endpoint).into()))
}

pub(super) async fn delete(call: Call) -> Result<Released<Reply<Nothing>>> {
    let done = call.service.delete_acme_endpoint(&call.caller, &name(&call)?, &call.idempotency).await?;
    Ok(done.map(|()| Nothing.into()))
}

pub(super) async fn create_eab(call: Call, body: wire::CreateEabKey) -> Result<Released<Reply<EabKeyCreated>>> {
    let wire::CreateEabKey { identity, groups, ttl, uses } = body;
    let new = NewEabKey { speaker: Speaker { identity, groups: groups.into() }, ttl, uses };
    let made = call.service.create_eab_key(&call.caller, &name(&call)?, new, &call.idempotency).await?;
    Ok(made.map(|(key, fresh)| {
        let text = fresh.then(|| SecretText(URL_SAFE_NO_PAD.encode(key.secret().expose())));
        EabKeyCreated { key: text, info: known(&key) }.into()
    }))
}

pub(super) async fn list_eab(call: Call) -> Result<Released<Reply<Page<EabKeyInfo>>>> {
    let page = call.page()?;
    let keys = call.service.list_eab_keys(&call.caller, &name(&call)?).await?;
    keys.try_map(|keys| {
        let (keys, next_page_token) = page.cut(keys, |key| key.id)?;
        Ok(Page { items: keys.iter().map(known).collect(), next_page_token }.into())
    })
}

pub(super) async fn revoke_eab(call: Call) -> Result<Released<Reply<EabKeyInfo>>> {
    let id = call.path("id")?.parse()?;
    let key = call.service.revoke_eab_key(&call.caller, &name(&call)?, id, &call.idempotency).await?;
    Ok(key.map(|key| known(&key).into()))
}

fn name(call: &Call) -> Result<EndpointName> {
    call.path("endpoint")?.parse()
}

fn words(endpoint: &Endpoint) -> AcmeEndpoint {
    let speaker = endpoint.open_to.as_ref();
    AcmeEndpoint {
        directory: format!("/acme/{}/{}/directory", endpoint.name.namespace, endpoint.name.name),
        created: endpoint.created,
        endpoint: wire::CreateAcmeEndpoint {
            name: endpoint.name.clone(),
            issuer: endpoint.issuer.clone(),
            profiles: endpoint.profiles.clone(),
            identity: speaker.map(|speaker| speaker.identity.clone()),
            groups: speaker.map(|speaker| speaker.groups.to_vec()).unwrap_or_default(),
            challenges: Some(endpoint.challenges.iter().map(ToString::to_string).collect()),
            networks: endpoint.networks.list().iter().map(ToString::to_string).collect(),
            terms: endpoint.terms.clone(),
            website: endpoint.website.clone(),
            caa: endpoint.caa.clone(),
        },
    }
}

fn known(key: &EabKey) -> EabKeyInfo {
    EabKeyInfo {
        id: key.id.to_string(),
        identity: key.speaker.identity.clone(),
        groups: key.speaker.groups.to_vec(),
        created: key.created,
        expires: key.expires,
        uses_left: key.uses_left,
        revoked: key.revoked,
    }
}
