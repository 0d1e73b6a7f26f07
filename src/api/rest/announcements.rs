//! Announcements.

use super::answer::{Nothing, Reply};
use super::call::Call;
use crate::error::Result;
use crate::service::{Announced, Announcement, KnownAnnouncement, Released};
use crate::wire::{self, Page};

pub(super) async fn create(call: Call, body: wire::Announce) -> Result<Released<Reply<wire::Announcement>>> {
    let wire::Announce { version, profile, serials, at, revoke, explanation } = body;
    let what = Announced {
        version,
        profile,
        serials: serials.iter().map(|serial| serial.parse()).collect::<Result<_>>()?,
        at,
        revoke: revoke.map(|reason| reason.parse()).transpose()?,
        explanation,
    };
    let made = call.service.announce(&call.caller, &call.issuer()?, what, &call.idempotency).await?;
    Ok(made.map(|known| {
        let words = words(&known);
        let path = format!("/api/v1/issuers/{}/announcements/{}", words.issuer, words.id);
        Reply::from(words).location(path)
    }))
}

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<wire::Announcement>>>> {
    let page = call.page()?;
    let found = call.service.list_announcements(&call.caller, &call.issuer()?).await?;
    found.try_map(|found| {
        let (found, next_page_token) = page.cut(found, |known| known.announcement.id.clone())?;
        Ok(Page { items: found.iter().map(|known| words(known)).collect(), next_page_token }.into())
    })
}

pub(super) async fn cancel(call: Call) -> Result<Released<Reply<Nothing>>> {
    let (issuer, id) = (call.issuer()?, call.path("id")?);
    let gone = call.service.cancel_announcement(&call.caller, &issuer, id, &call.idempotency).await?;
    Ok(gone.map(|()| Nothing.into()))
}

fn words(known: &KnownAnnouncement) -> wire::Announcement {
    let Announcement { id, issuer, what, told, by, ended, .. } = known.announcement.clone();
    let Announced { version, profile, serials, at, revoke, explanation } = what;
    wire::Announcement {
        id,
        issuer,
        version,
        profile,
        serials: serials.iter().map(ToString::to_string).collect(),
        at,
        revoke: revoke.map(|reason| reason.to_string()),
        explanation,
        told,
        by,
        done: ended.is_some(),
    }
}
