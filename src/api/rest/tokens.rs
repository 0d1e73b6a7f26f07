//! Bearer tokens.

use super::answer::Reply;
use super::call::Call;
use crate::error::{Error, Kind, Result};
use crate::service::{NewToken, Released, TokenMade, TokenRecord};
use crate::wire::{self, Page, SecretText, TokenCreated, TokenInfo};

pub(super) async fn create(call: Call, body: wire::CreateToken) -> Result<Released<Reply<TokenCreated>>> {
    let wire::CreateToken { identity, groups, ttl, uses } = body;
    let new = NewToken { identity, groups, ttl, uses };
    let made = call.service.create_token(&call.caller, new, &call.idempotency).await?;
    Ok(made.map(|TokenMade { text, record }| {
        let info = words(&record);
        let path = format!("/api/v1/tokens/{}", info.id);
        let token = text.map(|text| SecretText(text.as_str().to_owned()));
        Reply::from(TokenCreated { token, info }).location(path)
    }))
}

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<TokenInfo>>>> {
    let page = call.page()?;
    let tokens = call.service.list_tokens(&call.caller).await?;
    tokens.try_map(|tokens| {
        let (tokens, next_page_token) = page.cut(tokens, TokenRecord::id)?;
        Ok(Page { items: tokens.iter().map(words).collect(), next_page_token }.into())
    })
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<TokenInfo>>> {
    let token = call.service.read_token(&call.caller, id(&call)?).await?;
    Ok(token.map(|token| words(&token).into()))
}

pub(super) async fn revoke(call: Call) -> Result<Released<Reply<TokenInfo>>> {
    let token = call.service.revoke_token(&call.caller, id(&call)?, &call.idempotency).await?;
    Ok(token.map(|token| words(&token).into()))
}

/// The public id of a token: what is none goes no further, least of all into the audit log, because it may be a token.
fn id(call: &Call) -> Result<&str> {
    let id = call.path("id")?;
    if id.len() == 20 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(id);
    }
    Err(Error::new(Kind::Invalid, "the id of a token is 20 hexadecimal digits")
        .hint("signet token list shows the ids; an id is not the secret"))
}

fn words(record: &TokenRecord) -> TokenInfo {
    TokenInfo {
        id: record.id(),
        identity: record.identity.clone(),
        groups: record.groups.to_vec(),
        created: record.created,
        expires: record.expires,
        uses_left: record.uses_left,
        revoked: record.revoked,
    }
}
