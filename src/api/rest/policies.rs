//! Policies: stored, explained.

use super::answer::{Nothing, Reply};
use super::call::Call;
use super::identities::same_name;
use crate::error::{Error, Kind, Result};
use crate::service::Released;
use crate::service::policies::{About, Stored};
use crate::wire::{self, Explanation, Page, Policy};

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<Policy>>>> {
    let page = call.page()?;
    let policies = call.service.list_policies(&call.caller).await?;
    policies.try_map(|mut policies| {
        policies.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let (policies, next_page_token) = page.cut(policies, |(name, ..)| name.clone())?;
        Ok(Page { items: policies.into_iter().map(words).collect(), next_page_token }.into())
    })
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<Policy>>> {
    let policy = call.service.read_policy(&call.caller, &call.name()?).await?;
    Ok(policy.map(reply))
}

pub(super) async fn write(call: Call, body: Policy) -> Result<Released<Reply<Policy>>> {
    let Policy { name: written, text, etag } = body;
    let name = call.name()?;
    same_name(&name, written.as_ref())?;
    let etag = expected(call.if_match()?, etag.as_deref())?;
    let policy = call.service.write_policy(&call.caller, name, text, etag, &call.idempotency).await?;
    Ok(policy.map(reply))
}

pub(super) async fn delete(call: Call) -> Result<Released<Reply<Nothing>>> {
    let gone = call.service.delete_policy(&call.caller, &call.name()?, &call.idempotency).await?;
    Ok(gone.map(|()| Nothing.into()))
}

pub(super) async fn explain(call: Call, body: wire::Explain) -> Result<Released<Reply<Explanation>>> {
    let wire::Explain { identity, groups, action, key, issuer, profile, name } = body;
    let name = name.map(|name| name.parse()).transpose()?;
    let about = match (key, issuer, profile, name) {
        (None, None, None, None) => About::Service,
        (Some(key), None, None, None) => About::Key(key),
        (None, Some(issuer), profile, name) => About::Issuer { issuer, profile, name },
        (None, None, Some(profile), None) => About::Profile(profile),
        (Some(_), ..) | (None, None, _, Some(_)) => {
            return Err(Error::new(Kind::Invalid, "a question is about one thing")
                .hint("a key, or an issuer with the profile and one name of a certificate, or a profile"));
        }
    };
    let explained = call.service.explain(&call.caller, identity, groups, action.parse()?, &about).await?;
    Ok(explained.map(|explained| {
        let decision = explained.decision;
        Explanation {
            allowed: decision.allow,
            because: decision.because,
            candidates: explained.candidates.into_iter().map(|candidate| candidate.id).collect(),
            errors: decision.errors,
        }
        .into()
    }))
}

/// The revision that is replaced. A body that was read and changed carries its ETag, which counts like the header's.
fn expected(header: Option<&str>, body: Option<&str>) -> Result<Option<u64>> {
    let body = body.map(|etag| etag.trim_matches('"'));
    if let (Some(header), Some(body)) = (header, body)
        && header != body
    {
        return Err(Error::new(Kind::Invalid, "If-Match and the etag of the body are not the same"));
    }
    let none_of_ours = || Error::new(Kind::Stale, "the policy has another etag by now").hint("read it again");
    header.or(body).map(|etag| etag.parse().map_err(|_| none_of_ours())).transpose()
}

fn reply(stored: Stored) -> Reply<Policy> {
    let etag = stored.2.to_string();
    Reply::from(words(stored)).etag(&etag)
}

fn words((name, text, revision): Stored) -> Policy {
    Policy { name: Some(name), text, etag: Some(revision.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_of_header_and_body_say_the_same() {
        assert_eq!(expected(None, None).unwrap(), None);
        for (header, body) in [(Some("7"), None), (None, Some("7")), (Some("7"), Some("\"7\""))] {
            assert_eq!(expected(header, body).unwrap(), Some(7));
        }
        assert_eq!(expected(Some("7"), Some("8")).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(expected(Some("e1"), None).unwrap_err().kind(), Kind::Stale);
    }
}
