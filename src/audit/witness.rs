//! Witnesses as the log sees them: each is sent the newest signed head with the proof that it goes on from what that witness knows,
//! and answers a cosignature ([C2SP tlog-witness](https://c2sp.org/tlog-witness)).
//!
//! ```text
//! POST add-checkpoint, from what it cosigned last
//!   200   the cosignature is checked and kept: see `cosigned`
//!   409   it knows another size. A smaller one: again, from there. A larger one, or the same with another root: CONTRADICTION
//!   422   what it knows is no beginning of ours: CONTRADICTION
//!   else  trouble: it is asked again
//! ```
//!
//! A contradiction means that a part of this log was lost or another service writes one of the same name: a head is durable here
//! before it is sent, so no crash makes a witness know more than the log. It is for good, until the next start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::time::timeout;

use super::checkpoint::{Head, HeadSigner};
use super::cosigned::{Cosigned, cosigned, keep};
use super::log::Log;
use super::note::Signature;
use super::proof::Consistency;
use crate::error::{Error, Kind, Result};
use crate::outbound::{Line, Place};
use crate::types::{Clock, NoteKey, blocking};

/// The longest answer that is read: some 30 lines of cosignatures.
const MAX_ANSWER: usize = 8 * 1024;
/// How often one submission is begun afresh because the witness knows another size.
const TRIES: usize = 3;
/// How old a cosignature becomes before it is asked for again, though the log has not grown.
const REFRESH: u64 = 60;

/// What the operator says of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessSettings {
    /// What its cosignatures are verified with.
    pub key: NoteKey,
    /// Where it is: what stands before `/add-checkpoint`.
    pub place: Place,
    /// Whether changes are acknowledged only once it holds them.
    pub required: bool,
    /// How long a submission may take.
    pub patience: Duration,
}

/// How a witness stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessStatus {
    /// Its name.
    pub name: String,
    /// Whether changes wait for it.
    pub required: bool,
    /// The records that it cosigned last.
    pub size: Option<u64>,
    /// When, in seconds since 1970.
    pub time: Option<u64>,
    /// Why it does not cosign.
    pub trouble: Option<String>,
    /// That it knew less than it had cosigned, once since the start.
    pub forgot: Option<String>,
}

/// The witnesses of a log.
pub struct Witnesses {
    log: Arc<Log>,
    signer: Arc<dyn HeadSigner>,
    clock: Clock,
    list: Vec<Witness>,
}

/// One of them.
#[derive(Debug)]
struct Witness {
    settings: WitnessSettings,
    /// Held for a submission, so that they come one after the other.
    line: tokio::sync::Mutex<Option<Line>>,
    standing: Mutex<Standing>,
    /// An operator goes on without what it knows: it is not asked any more.
    aside: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    held: Option<Cosigned>,
    trouble: Option<String>,
    forgot: Option<String>,
    contradiction: Option<String>,
}

impl std::fmt::Debug for Witnesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|one| one.settings.key.name())).finish()
    }
}

impl Witnesses {
    /// The witnesses of `log`, whose heads `signer` signs.
    #[must_use]
    pub fn new(log: Arc<Log>, signer: Arc<dyn HeadSigner>, clock: Clock, settings: Vec<WitnessSettings>) -> Self {
        let folder = log.folder().to_owned();
        let list = settings.into_iter().map(|settings| {
            let held = cosigned(&folder, &settings.key);
            let standing = Mutex::new(Standing { held, ..Standing::default() });
            Witness { settings, line: tokio::sync::Mutex::default(), standing, aside: AtomicBool::new(false) }
        });
        Self { list: list.collect(), log, signer, clock }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The keys of those that changes wait for.
    #[must_use]
    pub fn required(&self) -> Vec<NoteKey> {
        self.list.iter().filter(|one| one.settings.required).map(|one| one.settings.key.clone()).collect()
    }

    /// Asks each of them, at a start, whether the log goes on from what it knows. Answers what they contradict where `accept` says
    /// to go on all the same; those are not asked any more.
    ///
    /// # Errors
    /// `Tampered` where one of them contradicts the log, with both sizes; `Unavailable` where a required one cannot be asked.
    pub async fn compare(&self, accept: bool) -> Result<Vec<String>> {
        if self.list.is_empty() || self.log.last_head().is_none() {
            return Ok(Vec::new());
        }
        self.log.tend().await?;
        let asked = futures_util::future::join_all(self.list.iter().map(|one| one.submit(&self.log))).await;
        let mut contradictions = Vec::new();
        for (witness, outcome) in self.list.iter().zip(asked) {
            match outcome {
                Err(error) if error.kind() == Kind::Tampered && accept => {
                    witness.aside.store(true, Ordering::Relaxed);
                    contradictions.push(error.public().to_owned());
                }
                Err(error) if error.kind() == Kind::Tampered => return Err(error),
                Err(error) if witness.settings.required => {
                    return Err(error.hint(
                        "bring it back: without it nobody knows whether the store was put back; \
                         or configure it without required = true, which is put on record",
                    ));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(contradictions)
    }

    /// Signs a head over all that is in the log, and has each witness that is required hold it.
    ///
    /// # Errors
    /// `Unavailable` where one of them cannot be asked, `Tampered` where one of them contradicts the log.
    pub async fn hold(&self) -> Result<()> {
        let required = || self.list.iter().filter(|one| one.settings.required && !one.is_aside());
        if required().next().is_none() {
            return Ok(());
        }
        let head = self.log.sign_head(&*self.signer).await?;
        let held = required().map(|one| async {
            if one.holds(&head) {
                return Ok(());
            }
            self.reach(head.size()).await?;
            one.submit(&self.log).await?;
            if one.holds(&head) { Ok(()) } else { Err(one.failed("has not cosigned the newest head")) }
        });
        futures_util::future::try_join_all(held).await.map(drop).map_err(|error| match error.mend() {
            Some(_) => error,
            None => {
                error.hint("bring the witness back: the change is made and counts, and the service goes on by itself")
            }
        })
    }

    /// Has each of them follow the newest head. What goes wrong shows in [`Self::standing`].
    pub async fn follow(&self) {
        let Ok(tree) = self.log.tree() else { return };
        let now = u64::try_from(self.clock.now().as_second()).unwrap_or(0);
        let behind = self.list.iter().filter(|one| !one.is_aside() && one.is_behind(tree.head(), now));
        futures_util::future::join_all(behind.map(async |one| {
            if let Err(error) = one.submit(&self.log).await {
                tracing::warn!(cause = error.chain(), "a witness did not cosign");
            }
        }))
        .await;
    }

    /// Whether none of them contradicts the log.
    ///
    /// # Errors
    /// `Tampered` with what it knows.
    pub fn agree(&self) -> Result<()> {
        let contradicting = self.list.iter().filter(|one| !one.is_aside());
        match contradicting.filter_map(|one| one.standing().contradiction).next() {
            Some(what) => Err(Error::new(Kind::Tampered, what).hint(MEND)),
            None => Ok(()),
        }
    }

    /// How they stand.
    #[must_use]
    pub fn standing(&self) -> Vec<WitnessStatus> {
        let one = |witness: &Witness| {
            let Standing { held, trouble, forgot, contradiction } = witness.standing();
            WitnessStatus {
                name: witness.settings.key.name().to_owned(),
                required: witness.settings.required,
                size: held.as_ref().map(|held| held.head.size()),
                time: held.map(|held| held.time),
                trouble: contradiction.or(trouble),
                forgot,
            }
        };
        self.list.iter().map(one).collect()
    }

    /// Waits until proofs can be made of the first `size` records.
    async fn reach(&self, size: u64) -> Result<()> {
        // Another thread may be at it, and this one finds it done.
        if self.log.tree().is_ok_and(|tree| tree.head().size() >= size) { Ok(()) } else { self.log.tend().await }
    }
}

const MEND: &str = "put the newest signet.db, root.json and audit folder back, or end the other service of this installation. A witness \
                    does not forget: where they are lost, `signet restore --accept-rollback` goes on without this one, and a witness \
                    with a new key takes its place (docs/witness.md)";

impl Witness {
    /// Nothing is left half-done under this lock, so a panic elsewhere does not spoil it.
    fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn is_aside(&self) -> bool {
        self.aside.load(Ordering::Relaxed)
    }

    fn holds(&self, head: &Head) -> bool {
        self.standing().held.is_some_and(|held| held.head.size() >= head.size())
    }

    fn is_behind(&self, head: &Head, now: u64) -> bool {
        let Standing { held, trouble, contradiction, .. } = self.standing();
        let fresh = held.is_some_and(|held| held.head.size() >= head.size() && held.time.abs_diff(now) < REFRESH);
        contradiction.is_none() && (!fresh || trouble.is_some())
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Unavailable, format!("witness {} {why}", self.settings.key.name()))
    }

    /// Has it cosign the newest head of which proofs can be made.
    async fn submit(&self, log: &Log) -> Result<()> {
        let patience = self.settings.patience;
        let late = || self.failed(format!("gave no answer within {} s", patience.as_secs_f64()));
        let submitted = timeout(patience, self.exchange(log)).await.unwrap_or_else(|_| Err(late()));
        match &submitted {
            Ok(forgot) => self.change(|standing| {
                standing.trouble = None;
                if let Some(what) = forgot {
                    tracing::error!(what, "a witness was put back");
                    standing.forgot = Some(what.clone());
                }
            }),
            Err(error) if error.kind() == Kind::Tampered => {
                tracing::error!(cause = error.chain(), "a witness contradicts the audit log");
                self.change(|standing| standing.contradiction = Some(error.public().to_owned()));
            }
            Err(error) => self.change(|standing| standing.trouble = Some(error.public().to_owned())),
        }
        submitted.map(drop)
    }

    /// One submission, with as many requests as it takes. Answers what is to be said of the witness though it cosigned.
    async fn exchange(&self, log: &Log) -> Result<Option<String>> {
        let mut line = self.line.lock().await;
        let held = self.standing().held.map_or(0, |held| held.head.size());
        let (mut old, mut forgot) = (held, None);
        for _ in 0..TRIES {
            let from = old;
            let proof = log.with_tree(move |tree| {
                // What was cosigned of a log that is no longer here is asked for below, where it is told apart.
                tree.consistency(if from > tree.head().size() { 0 } else { from })
            });
            let Consistency { old: sent, path, head } = proof.await?;
            let body = Consistency { old: sent, path, head: head.clone() }.encode();
            let answer = self.post(&mut line, body).await?;
            let ours = head.size();
            match answer.status() {
                StatusCode::OK => {
                    self.take(log, head, answer.body()).await?;
                    return Ok(forgot);
                }
                StatusCode::CONFLICT => {
                    let known = known_size(&answer).ok_or_else(|| self.failed("answers 409 without a size"))?;
                    if known > ours {
                        return Err(self.contradiction(format!(
                            "has cosigned {known} records of this log, which holds {ours} below its last head: what came \
                             after that is missing"
                        )));
                    }
                    if known == ours && sent == ours {
                        return Err(
                            self.contradiction(format!("has cosigned {known} other records than those of this log"))
                        );
                    }
                    if known == sent {
                        return Err(self.failed(format!("refuses what goes on from the {known} records that it knows")));
                    }
                    if known < held {
                        forgot = Some(format!(
                            "witness {} was put back itself: it had cosigned {held} records, and knew {known}",
                            self.settings.key.name()
                        ));
                    }
                    old = known;
                }
                StatusCode::UNPROCESSABLE_ENTITY => {
                    return Err(
                        self.contradiction(format!("has cosigned {sent} records that are no beginning of this log"))
                    );
                }
                StatusCode::NOT_FOUND => {
                    return Err(
                        self.failed(format!("does not watch {}: its operator has to add the log", head.origin()))
                    );
                }
                StatusCode::FORBIDDEN => {
                    return Err(
                        self.failed("does not know the key that signs this log: its operator has to correct it")
                    );
                }
                other => return Err(self.failed(format!("answers with status {}", other.as_u16()))),
            }
        }
        Err(self.failed("knows another size each time that it is asked"))
    }

    fn contradiction(&self, what: String) -> Error {
        Error::new(Kind::Tampered, format!("rollback: witness {} {what}", self.settings.key.name())).hint(MEND)
    }

    /// Checks the cosignature and keeps it.
    async fn take(&self, log: &Log, head: Head, lines: &[u8]) -> Result<()> {
        let wrong = || self.failed("answers without a cosignature by its key that verifies");
        let lines =
            std::str::from_utf8(lines).ok().and_then(|lines| Signature::parse_all(lines).ok()).ok_or_else(wrong)?;
        let text = Head::text(head.origin(), head.size(), head.root());
        let key = self.settings.key.clone();
        let good = lines.iter().find(|line| line.cosigns(&text, &key).is_some()).ok_or_else(wrong)?;
        let head = Head::parse(&format!("{}{}", head.note(), Signature::line(&key, good.bytes())))?;
        let cosigned = Cosigned::of(head.clone(), &key).ok_or_else(wrong)?;
        let folder = log.folder().to_owned();
        // It is a matter of the witness, and only kept for others here: a full disk stands in nobody's way.
        if let Err(error) = blocking(move || keep(&folder, &key, &head)).await {
            tracing::warn!(cause = error.chain(), "a cosignature was not kept");
        }
        self.change(|standing| standing.held = Some(cosigned));
        Ok(())
    }

    /// Sends a request on the line that is open, or on a new one.
    async fn post(&self, line: &mut Option<Line>, body: String) -> Result<Response<Bytes>> {
        let Place { address, .. } = &self.settings.place;
        let path = format!("{}/add-checkpoint", address.path().trim_end_matches('/'));
        let request = || {
            Request::post(path.as_str())
                .header(header::HOST, address.authority())
                .header(header::USER_AGENT, concat!("signet/", env!("CARGO_PKG_VERSION")))
                .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
                .map_err(|e| Error::internal(format!("a request to a witness: {e}")))
        };
        // Taken out while it is used, so that one that is given up half-way is not used again.
        if let Some(mut open) = line.take().filter(|open| !open.is_closed())
            && let Ok(answer) = open.ask_all(request()?, MAX_ANSWER).await
        {
            *line = Some(open);
            return Ok(answer);
        }
        let mut open =
            self.settings.place.connect().await.map_err(|e| self.failed("cannot be reached").because(e.chain()))?;
        let answer = open.ask_all(request()?, MAX_ANSWER).await;
        let answer = answer.map_err(|e| self.failed("gave no answer that can be read").because(e.chain()))?;
        *line = Some(open);
        Ok(answer)
    }
}

/// "the tree size of the latest cosigned checkpoint in decimal, followed by a newline", where it is said to be that.
fn known_size(answer: &Response<Bytes>) -> Option<u64> {
    let kind = answer.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let digits = std::str::from_utf8(answer.body()).ok()?.strip_suffix('\n')?;
    let size: u64 = digits.parse().ok()?;
    (kind == "text/x.tlog.size" && digits == size.to_string()).then_some(size)
}
