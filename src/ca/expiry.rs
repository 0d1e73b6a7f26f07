//! Certificates that end while nothing stands ready in their place.
//!
//! A certificate is covered by one for the same names from the same profile that was made later and ends later. What is not covered
//! is counted for each issuer and profile; once an eighth of its life is left it is *late*, which is said once in the log and
//! stands in the status until it has a successor, is revoked or is over; a receiver outside is told by [`super::notice`]. A certificate
//! without alternative names is not looked at, because nothing tells what takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use jiff::{SignedDuration, Timestamp};

use super::Authority;
use super::notice::Notices;
use crate::error::Result;
use crate::store::certificates::{Cursor, Ending as Found};
use crate::telemetry::{CertificateSet, Ending};
use crate::x509::Serial;

/// How far it is looked ahead.
const AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);
/// What part of a life is left where a certificate is late.
const LAST_PART: i32 = 8;
/// How many certificates are read at once.
const PAGE: usize = 1000;
/// The most late certificates that are remembered one by one, and the most lines in the log of one look.
const MOST: usize = 10_000;
const MOST_LINES: usize = 100;

/// What the last look found late.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Their serial numbers: each was said in the log.
    said: BTreeSet<Serial>,
    /// How many there are.
    count: usize,
    /// The one that ends first, as a sentence names it.
    first: Option<String>,
}

impl Authority {
    /// Looks at all certificates that end soon: counts those that nothing covers, and says which are late.
    pub async fn look_at_ends(&self) {
        if let Err(error) = self.try_look_at_ends().await {
            tracing::warn!(cause = error.chain(), "certificates that end soon could not be looked at");
        }
    }

    async fn try_look_at_ends(&self) -> Result<()> {
        let now = self.now();
        let until = now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
        let mut after = Cursor { number: 0, not_after: now.as_second() };
        let (mut sets, mut late, mut count) = (BTreeMap::<CertificateSet, Ending>::new(), Vec::new(), 0);
        let (mut untold, room) = (Vec::new(), self.notices.as_ref().map_or(0, Notices::room));
        loop {
            let page = self.read(move |store| store.endings(after, until, PAGE)).await?;
            for one in page.iter().filter(|one| !self.is_covered(one)) {
                let set = CertificateSet { issuer: one.issuer.to_string(), profile: one.profile.clone() };
                add(sets.entry(set).or_default(), one.not_after, now);
                if let Some(notices) = self.notices.as_ref().filter(|_| untold.len() < room) {
                    untold.extend(notices.untold(one, now));
                }
                if late_at(one) <= now {
                    count += 1;
                    if late.len() < MOST {
                        late.push(one.clone());
                    }
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = last.cursor,
                Some(_) | None => break,
            }
        }
        self.parts.metrics.certificates_ending(&sets);
        self.say_late(&late, count);
        match &self.notices {
            Some(notices) => self.write_notices(notices, &untold, count).await,
            None => Ok(()),
        }
    }

    /// Whether nobody has to care: it is revoked, or a good one has taken its place.
    fn is_covered(&self, one: &Found) -> bool {
        let revoked = |serial: [u8; 20]| self.is_serial_revoked(&Serial::from_bytes(serial));
        one.successor.is_some_and(|successor| !revoked(successor)) || revoked(one.serial)
    }

    /// Says in the log what was not said before.
    fn say_late(&self, found: &[Found], count: usize) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let new = found.iter().filter(|one| !late.said.contains(&Serial::from_bytes(one.serial)));
        for one in new.clone().take(MOST_LINES) {
            let (serial, ends) = (Serial::from_bytes(one.serial), one.not_after);
            let (issuer, profile, names) = (&one.issuer, &one.profile, one.names.join(" "));
            tracing::warn!(%issuer, profile, names, %serial, %ends, "a certificate ends soon and has no successor");
        }
        let unsaid = new.count().saturating_sub(MOST_LINES);
        if unsaid > 0 {
            tracing::warn!(unsaid, "further certificates end soon and have no successors");
        }
        *late = Late {
            said: found.iter().map(|one| Serial::from_bytes(one.serial)).collect(),
            count,
            first: found.first().map(|one| format!("{} of {} at {}", one.names.join(" "), one.issuer, one.not_after)),
        };
    }

    /// What an operator should know of late certificates, as a sentence.
    pub(super) fn late_certificates(&self) -> Option<String> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let Late { said: _, count, first } = &*late;
        first.as_ref().map(|first| {
            format!("{count} certificates end soon and have no successor, first {first}: renew them, or revoke what is not needed")
        })
    }
}

/// When a certificate is late.
pub(super) fn late_at(one: &Found) -> Timestamp {
    let life = one.not_after.duration_since(one.not_before);
    one.not_after.checked_sub(life / LAST_PART).unwrap_or(one.not_after)
}

fn add(ending: &mut Ending, end: Timestamp, now: Timestamp) {
    let left = end.duration_since(now);
    let within = |hours| u64::from(left <= SignedDuration::from_hours(hours));
    ending.in_1d += within(24);
    ending.in_7d += within(7 * 24);
    ending.in_30d += 1;
    // They come in the order of their ends.
    if ending.next == 0 {
        ending.next = end.as_second();
    }
}
