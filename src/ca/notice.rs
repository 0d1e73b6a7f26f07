//! Notices: what a receiver outside is told of certificates that end and have no successor.
//!
//! A certificate is told once it is late, and before that when as much of its life is left as the configuration says. Each notice
//! is a record before it is sent, and holds the very bytes; so a receiver gets it at least once, under one id, over every restart.
//! Certificates that come up together share notices, so that their number and size are bounded. The record stays, without the bytes,
//! until the last of its certificates is over: so nothing is told twice.
//!
//! ```text
//! found ─▶ written ─▶ sent, again and again ─▶ taken ───▶ removed with the end of its last certificate
//!                              └─ for three days ─▶ given up ┘
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::expiry::late_at;
use super::{Authority, FORMAT, parse, put};
use crate::audit::Record;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::store::certificates::Ending;
use crate::store::{Change, Expected, Store};
use crate::telemetry::Metrics;
use crate::types::Period;
use crate::webhook::{Message, Webhook};
use crate::x509::Serial;

/// The most certificates of one notice.
const PAGE: usize = 100;
/// The most notices that wait for the receiver: no more are made before some are taken.
const MOST_WAITING: usize = 100;
/// The most certificates that are remembered as told; of more, notices say how many there are.
const MOST_TOLD: usize = 10_000;
/// The most names of one certificate that are told.
const MOST_NAMES: usize = 10;
/// How long the receiver is tried with one notice.
const PATIENCE: SignedDuration = SignedDuration::from_hours(3 * 24);
/// The wait after a first failure, and the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// What part of a life may be left where something is told before the certificate is late: whoever renews in good time has done so.
const LIFE_PART: i32 = 3;

/// Who is told, and what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The receiver.
    pub webhook: Webhook,
    /// How much of a life is left where something is told, beside that it is late.
    pub before: Vec<Period>,
    /// The name of this installation.
    pub instance: String,
}

/// The notices, and how the receiver does.
#[derive(Debug)]
pub(super) struct Notices {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was told of a certificate: how much of its life was left then, or more; and when it ends.
    told: BTreeMap<Serial, (SignedDuration, Timestamp)>,
    /// How often each notice was tried that nobody has taken yet, by when it was made.
    waiting: BTreeMap<Key, u32>,
    /// Notices that are over once the last of their certificates is.
    kept: BTreeMap<String, Kept>,
    trouble: Option<Trouble>,
}

/// When a notice was made, and its id.
type Key = (Timestamp, String);

#[derive(Debug)]
struct Kept {
    revision: u64,
    ends: Timestamp,
}

/// The receiver does not take notices.
#[derive(Clone, Debug)]
struct Trouble {
    since: Timestamp,
    failures: u32,
    next: Timestamp,
    why: String,
}

/// What is stored of a notice.
#[derive(Debug, Serialize, Deserialize)]
struct Notice {
    format: u32,
    /// What the receiver knows it by.
    id: String,
    /// When it was made.
    made: Timestamp,
    /// Its certificates.
    told: Vec<Told>,
    /// What is sent, until it is taken or given up.
    body: Option<String>,
}

/// What is remembered of a certificate that was told.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    serial: Serial,
    /// For how much of its life that was left.
    left: SignedDuration,
    ends: Timestamp,
}

/// A certificate that is to be told.
#[derive(Clone, Debug)]
pub(super) struct Untold {
    ending: Ending,
    left: SignedDuration,
    late: bool,
}

/// What a receiver reads.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    instance: &'a str,
    /// How many certificates are late in all, told by this notice or not.
    late: usize,
    certificates: Vec<About<'a>>,
}

#[derive(Serialize)]
struct About<'a> {
    serial: Serial,
    issuer: String,
    version: u32,
    profile: &'a str,
    names: &'a [String],
    /// How many names are left out.
    more_names: usize,
    not_before: Timestamp,
    not_after: Timestamp,
    late: bool,
}

impl Notices {
    /// Reads what was told and what waits.
    pub(super) fn load(store: &dyn Store, settings: Settings) -> Result<Self> {
        let mut state = State::default();
        for record in store.scan("notices/")? {
            let notice: Notice = parse(&record)?;
            state.keep(&notice, record.revision);
        }
        Ok(Self { settings, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many certificates can be told now.
    pub(super) fn room(&self) -> usize {
        let state = self.state();
        let pages = MOST_WAITING.saturating_sub(state.waiting.len());
        MOST_TOLD.saturating_sub(state.told.len()).min(pages * PAGE)
    }

    /// What is to be told of a certificate at `now`, where that was not told before.
    pub(super) fn untold(&self, ending: &Ending, now: Timestamp) -> Option<Untold> {
        let left = reached(ending, &self.settings.before, now)?;
        let serial = Serial::from_bytes(ending.serial);
        let told = self.state().told.get(&serial).is_some_and(|(told, _)| *told <= left);
        (!told).then(|| Untold { ending: ending.clone(), left, late: now >= late_at(ending) })
    }

    fn notice(&self, page: &[Untold], late: usize, now: Timestamp) -> Result<Notice> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        let data = Data { instance: &self.settings.instance, late, certificates: page.iter().map(about).collect() };
        let body = Body { r#type: "certificates.ending", timestamp: now, data };
        let body = serde_json::to_string(&body).map_err(|e| Error::internal(format!("a notice: {e}")))?;
        let told = page.iter().map(|one| Told {
            serial: Serial::from_bytes(one.ending.serial),
            left: one.left,
            ends: one.ending.not_after,
        });
        let id = format!("msg_{}", hex::encode(id));
        Ok(Notice { format: FORMAT, id, made: now, told: told.collect(), body: Some(body) })
    }

    /// The notice that is to be sent at `now`, and when it was made: of those that were tried least the oldest, so that one that is
    /// never taken does not hold up the others.
    fn due(&self, now: Timestamp) -> Option<Key> {
        let state = self.state();
        if state.trouble.as_ref().is_some_and(|trouble| now < trouble.next) {
            return None;
        }
        state.waiting.iter().min_by_key(|(_, attempts)| **attempts).map(|(key, _)| key.clone())
    }

    fn failed(&self, key: &Key, now: Timestamp, why: &Error) {
        let mut state = self.state();
        if let Some(attempts) = state.waiting.get_mut(key) {
            *attempts = attempts.saturating_add(1);
        }
        let (since, failures) = state.trouble.as_ref().map_or((now, 0), |trouble| (trouble.since, trouble.failures));
        let wait = SignedDuration::try_from(wait(failures)).unwrap_or(SignedDuration::from_hours(1));
        let next = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        state.trouble =
            Some(Trouble { since, failures: failures.saturating_add(1), next, why: why.public().to_owned() });
    }

    /// What an operator should know of the receiver, as a sentence.
    pub(super) fn problem(&self) -> Option<String> {
        let state = self.state();
        let Trouble { since, failures, next: _, why } = state.trouble.as_ref()?;
        let waiting = state.waiting.len();
        Some(format!(
            "{waiting} notices wait for their receiver, which has failed {failures} times since {since}: {why}"
        ))
    }

    fn count_waiting(&self, metrics: &Metrics) {
        metrics.notices_waiting(self.state().waiting.len());
    }
}

impl State {
    /// Remembers a notice as it is stored.
    fn keep(&mut self, notice: &Notice, revision: u64) {
        let Notice { format: _, id, made, told, body } = notice;
        for Told { serial, left, ends } in told {
            let known = self.told.entry(*serial).or_insert((*left, *ends));
            known.0 = known.0.min(*left);
        }
        let key = (*made, id.clone());
        if body.is_some() {
            self.waiting.insert(key, 0);
        } else {
            self.waiting.remove(&key);
            let ends = told.iter().map(|one| one.ends).max().unwrap_or(*made);
            self.kept.insert(id.clone(), Kept { revision, ends });
        }
    }
}

impl Authority {
    /// Writes notices of what is to be told, and removes those that are over.
    pub(super) async fn write_notices(&self, notices: &Notices, untold: &[Untold], late: usize) -> Result<()> {
        let now = self.now();
        self.forget_notices(notices, now).await?;
        for page in untold.chunks(PAGE) {
            let notice = notices.notice(page, late, now)?;
            let leaf = self.notice_leaf(&notice, "written");
            let change = put(path(&notice.id), Expected::Absent, &notice)?;
            crash_point!("notice.before_write");
            let revision = self.parts.ledger.commit(leaf, vec![change]).await?;
            crash_point!("notice.written");
            notices.state().keep(&notice, revision);
        }
        notices.count_waiting(&self.parts.metrics);
        Ok(())
    }

    async fn forget_notices(&self, notices: &Notices, now: Timestamp) -> Result<()> {
        let over: Vec<_> = {
            let state = notices.state();
            let over = state.kept.iter().filter(|(_, kept)| kept.ends < now);
            over.map(|(id, kept)| (id.clone(), kept.revision)).collect()
        };
        if over.is_empty() {
            return Ok(());
        }
        let removal = |(id, revision): &(String, u64)| Change {
            path: path(id),
            expected: Expected::Revision(*revision),
            value: None,
        };
        crash_point!("notice.before_removal");
        self.parts
            .ledger
            .commit(self.parts.admission.record_tidying("notice"), over.iter().map(removal).collect())
            .await?;
        crash_point!("notice.removed");
        let mut state = notices.state();
        for (id, _) in &over {
            state.kept.remove(id);
        }
        // What is over is not looked at again, whichever notice told of it.
        state.told.retain(|_, (_, ends)| *ends >= now);
        Ok(())
    }

    /// Sends the notices that wait, one after the other, until the receiver fails; then it has a while of rest.
    pub async fn send_notices(&self) {
        let Some(notices) = &self.notices else { return };
        while let Some(key) = notices.due(self.now()) {
            if let Err(error) = self.send_notice(notices, &key).await {
                tracing::warn!(notice = key.1, cause = error.chain(), "a notice was not taken");
                self.parts.metrics.notice("failed");
                notices.failed(&key, self.now(), &error);
            }
        }
        notices.count_waiting(&self.parts.metrics);
    }

    async fn send_notice(&self, notices: &Notices, key: &Key) -> Result<()> {
        let id = &key.1;
        let wanted = path(id);
        let record = self.read(move |store| store.get(&wanted)).await?;
        let record = record.ok_or_else(|| Error::new(Kind::Tampered, format!("the notice {id} is gone")))?;
        let mut notice: Notice = parse(&record)?;
        let Some(body) = notice.body.take() else {
            notices.state().keep(&notice, record.revision);
            return Ok(());
        };
        let webhook = &notices.settings.webhook;
        let sent = webhook.send(Message { id, at: self.now(), body: &body }).await;
        let outcome = match sent {
            Ok(()) => "delivered",
            Err(error) if self.now().duration_since(notice.made) < PATIENCE => return Err(error),
            Err(error) => {
                tracing::error!(notice = id, cause = error.chain(), "a notice is given up");
                "given_up"
            }
        };
        let change = put(path(id), Expected::Revision(record.revision), &notice)?;
        crash_point!("notice.before_end");
        let revision = self.parts.ledger.commit(self.notice_leaf(&notice, outcome), vec![change]).await?;
        crash_point!("notice.ended");
        self.parts.metrics.notice(outcome);
        let mut state = notices.state();
        state.keep(&notice, revision);
        if outcome == "delivered" {
            state.trouble = None;
        }
        Ok(())
    }

    fn notice_leaf(&self, notice: &Notice, state: &str) -> Record {
        let mut leaf = self.parts.admission.record_tidying("notice");
        leaf.facts.insert("notice".to_owned(), notice.id.clone());
        leaf.facts.insert("certificates".to_owned(), notice.told.len().to_string());
        leaf.facts.insert("state".to_owned(), state.to_owned());
        leaf
    }
}

fn about(one: &Untold) -> About<'_> {
    let Untold { ending, left: _, late } = one;
    let (names, more) = ending.names.split_at(ending.names.len().min(MOST_NAMES));
    About {
        serial: Serial::from_bytes(ending.serial),
        issuer: ending.issuer.to_string(),
        version: ending.version.number(),
        profile: &ending.profile,
        names,
        more_names: more.len(),
        not_before: ending.not_before,
        not_after: ending.not_after,
        late: *late,
    }
}

/// For how much of its life that is left a certificate is told at `now`: the last of the moments that have come.
fn reached(ending: &Ending, before: &[Period], now: Timestamp) -> Option<SignedDuration> {
    let life = ending.not_after.duration_since(ending.not_before);
    let left = ending.not_after.duration_since(now);
    let wanted = before.iter().map(|before| before.as_signed()).filter(|before| *before <= life / LIFE_PART);
    let late = ending.not_after.duration_since(late_at(ending));
    wanted.chain([late]).filter(|moment| left <= *moment).min()
}

fn path(id: &str) -> String {
    // The alphabet of paths has no underscore.
    format!("notices/{}", id.replace('_', "-"))
}

/// The wait after so many failures, doubled with each of them, and up to a quarter more.
fn wait(failures: u32) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
    let mut byte = [0];
    // Without randomness the wait has no jitter, which is no reason to fail.
    let _ = getrandom::fill(&mut byte);
    wait + wait.mul_f64(f64::from(u8::from_le_bytes(byte)) / 1020.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::certificates::Cursor;
    use crate::types::Version;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    #[test]
    fn each_moment_comes_once_and_the_last_one_counts() {
        let days = |days: u64| Period::seconds(days * 86_400);
        let ending = |hours: i64| Ending {
            cursor: Cursor { number: 1, not_after: hours * 3600 },
            serial: [0; 20],
            issuer: "default:fleet".parse().unwrap(),
            version: Version::FIRST,
            profile: "default:server".to_owned(),
            names: vec!["dns:a.example".to_owned()],
            not_before: at(0),
            not_after: at(hours),
            successor: None,
        };
        let reached =
            |hours, now| reached(&ending(hours), &[days(30), days(7), days(1)], at(now)).map(|left| left.as_hours());
        // Ninety days: thirty before the end, then late for an eighth of them (11 d 6 h), then a week, then a day.
        let life = 90 * 24;
        for (left, moment) in [
            (721, None),
            (720, Some(720)),
            (271, Some(720)),
            (270, Some(270)),
            (168, Some(168)),
            (24, Some(24)),
            (1, Some(24)),
        ] {
            assert_eq!(reached(life, life - left), moment, "{left} hours left");
        }
        // A day: it is late for three hours, and nothing else is worth a word.
        for (left, moment) in [(24, None), (4, None), (3, Some(3)), (1, Some(3))] {
            assert_eq!(reached(24, 24 - left), moment, "{left} hours left");
        }
    }

    #[test]
    fn waits_grow_up_to_an_hour() {
        for (failures, seconds) in [(0, 5), (1, 10), (5, 160), (10, 3600), (u32::MAX, 3600)] {
            let wait = wait(failures).as_secs_f64();
            assert!((f64::from(seconds)..=f64::from(seconds) * 1.25).contains(&wait), "{failures}: {wait}");
        }
    }
}
