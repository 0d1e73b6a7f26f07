//! When a certificate should be renewed: by its age, or earlier because it was revoked, because somebody announced that it will be,
//! or because its issuer has a new version. One answer for all, whatever a client speaks; ACME tells it as renewal information
//! ([RFC 9773](https://www.rfc-editor.org/rfc/rfc9773)).
//!
//! ```text
//! life                  0 ───────────────────── 15/24 ── 17/24 ───────── 24/24
//! by age                                          [usual ]
//! until a time T        now [·················· T - margin]              where that is before the usual end
//! revoked at T          [T - 1h .. T]                                    renew at once
//! ```
//!
//! A window that was announced begins whenever it is asked for. A client that draws a moment anew at each question, as certbot does,
//! and one that keeps the moment it drew are then both spread evenly over the time that is left.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Authority;
use super::inventory::Entry;
use super::issuer::VersionState;
use crate::error::Result;
use crate::types::State;
use crate::x509::Validity;

/// The least time between two questions.
const OFTEN: Duration = Duration::from_secs(60);
/// The most.
const SELDOM: Duration = Duration::from_secs(6 * 3600);

/// When a certificate should be renewed, and when to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// When to renew.
    pub window: Window,
    /// When to ask again.
    pub ask_again: Duration,
    /// Whether that is before its time: not by its age.
    pub early: bool,
    /// Where people read why, if that was announced.
    pub explanation: Option<String>,
}

/// When to renew: a client draws a moment in between, which spreads many clients. It is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub start: Timestamp,
    /// The last one.
    pub end: Timestamp,
}

impl Window {
    /// By age: a twelfth of the lifetime, around its second third.
    #[must_use]
    pub fn usual(validity: &Validity) -> Self {
        let lifetime = validity.not_after.duration_since(validity.not_before);
        let at = |part: SignedDuration| validity.not_before.checked_add(part).unwrap_or(validity.not_after);
        let (start, end) = (at(lifetime / 24 * 15), at(lifetime / 24 * 17));
        Self { start, end: end.max(second_after(start)) }
    }

    /// All of the time until `end`; where that has come, "attempt renewal immediately".
    #[must_use]
    pub fn until(end: Timestamp, now: Timestamp) -> Self {
        let start = if now < end { now } else { end.checked_sub(SignedDuration::from_hours(1)).unwrap_or(end) };
        Self { start, end: end.max(second_after(start)) }
    }
}

/// When to ask again: a 24th of the lifetime, or a quarter of the time that is left.
fn ask_again(validity: &Validity, left: Option<SignedDuration>) -> Duration {
    let lifetime = validity.not_after.duration_since(validity.not_before).unsigned_abs();
    let usual = (lifetime / 24).clamp(OFTEN, SELDOM);
    left.map_or(usual, |left| usual.min(left.unsigned_abs() / 4)).max(OFTEN)
}

/// The last moment to renew where something happens to the certificate at `at`: an eighth of the time since it was told remains
/// for those who come late.
pub(super) fn before(told: Timestamp, at: Timestamp) -> Timestamp {
    at.checked_sub(at.duration_since(told) / 8).unwrap_or(at)
}

fn second_after(time: Timestamp) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(1)).unwrap_or(time)
}

impl Authority {
    /// When a certificate should be renewed.
    ///
    /// # Errors
    /// `NotFound` for one whose issuer or key is gone.
    pub fn renewal(&self, entry: &Entry) -> Result<Renewal> {
        let (now, validity) = (self.now(), &entry.validity);
        let announced = self.announced(entry);
        let explanation = || announced.as_ref().and_then(|one| one.explanation.clone());
        if let Some(gone) = self.gone(entry, now)? {
            let window = Window::until(gone, now);
            return Ok(Renewal {
                window,
                ask_again: ask_again(validity, None),
                early: true,
                explanation: explanation(),
            });
        }
        let told = announced.as_ref().map(|one| before(one.told, one.at));
        let rollover = self.replaced(entry)?;
        let usual = Window::usual(validity);
        match told.into_iter().chain(rollover).min().filter(|end| *end < usual.end) {
            Some(end) => Ok(Renewal {
                window: Window::until(end, now),
                ask_again: ask_again(validity, Some(end.duration_since(now)).filter(|left| left.is_positive())),
                early: true,
                explanation: if told == Some(end) { explanation() } else { None },
            }),
            None => {
                Ok(Renewal { window: usual, ask_again: ask_again(validity, None), early: false, explanation: None })
            }
        }
    }

    /// Since when a certificate counts no more: it is revoked, as all are whose issuer's key is compromised, or that key is gone.
    fn gone(&self, entry: &Entry, now: Timestamp) -> Result<Option<Timestamp>> {
        if let Some(revoked) = self.revocation(&entry.issuer, entry.version, &entry.serial) {
            return Ok(Some(revoked.at));
        }
        let key = self.parts.keyring.find(&entry.issuer.key())?;
        Ok(match key.version(entry.version)?.state() {
            State::Compromised | State::DestroyScheduled | State::Destroyed => Some(now),
            State::PreActive | State::Active | State::Suspended | State::Deactivated => None,
        })
    }

    /// Where its issuer has a new version: until when it should have moved there, half of what was left.
    fn replaced(&self, entry: &Entry) -> Result<Option<Timestamp>> {
        let issuer = self.issuer(&entry.issuer)?;
        let version = &issuer.version(entry.version)?.record;
        Ok(match (version.state, version.retired) {
            (VersionState::Retired | VersionState::Ended, Some(retired)) => {
                let left = entry.validity.not_after.duration_since(retired) / 2;
                Some(retired.checked_add(left).unwrap_or(retired))
            }
            (VersionState::Requested | VersionState::Prepared | VersionState::Active, _)
            | (VersionState::Retired | VersionState::Ended, None) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(hours: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + hours * 3600).unwrap()
    }

    #[test]
    fn windows_follow_age_and_what_is_to_come() {
        let validity = Validity { not_before: time(0), not_after: time(24) };
        assert_eq!(Window::usual(&validity), Window { start: time(15), end: time(17) });
        assert_eq!(Window::until(time(10), time(2)), Window { start: time(2), end: time(10) });
        assert_eq!(Window::until(time(10), time(10)), Window { start: time(9), end: time(10) });
        assert_eq!(Window::until(time(3), time(20)), Window { start: time(2), end: time(3) });
        assert_eq!(before(time(0), time(8)), time(7));
        assert_eq!(ask_again(&validity, None), Duration::from_secs(3600));
        assert_eq!(ask_again(&validity, Some(SignedDuration::from_hours(2))), Duration::from_secs(1800));
        assert_eq!(ask_again(&validity, Some(SignedDuration::from_secs(2))), OFTEN);
    }

    #[test]
    fn no_window_is_empty() {
        let short = Validity { not_before: time(0), not_after: time(0) };
        for window in [Window::usual(&short), Window::until(time(0), time(0))] {
            assert!(window.start < window.end, "{window:?}");
        }
    }
}
