//! Brings the log to a collector of OpenTelemetry: each record as a log record, in order, at least once.
//!
//! A record keeps its id over all repeats (`log.record.uid`), which names the log, the index and the leaf hash: a receiver that drops
//! what it has seen gets each one once. Its body is the line of the log, byte for byte, so that the leaf hash can be made of it again.
//! What a receiver does not take for its content is sent without it, and counted, so that no record can hold up those after it; where it
//! takes not even that, the fault is not the record's, and nothing is passed over.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio::runtime::{Builder, Runtime};

use super::checkpoint::Origin;
use super::merkle::{Hash, leaf_hash};
use super::point::tampered;
use super::pruned;
use super::queue::Reached;
use super::read::Lined;
use super::sent::{self, Sent};
use super::severity::Severity;
use super::sink::{Follower, rest_after};
use crate::error::{Error, Kind, Result};
use crate::otlp::{self, Attribute, Batch, Collector, Cure, LogRecord, Resource, Settings, Value};
use crate::types::{Clock, Name};

/// The most records of one request.
const MOST_RECORDS: usize = 512;
/// The most bytes of their lines; one record in any case.
const MOST_BYTES: usize = 1024 * 1024;
/// So many failures in a row, of the kind that passes, are no news.
const PASSING: u32 = 3;
/// How often the place is written down while much is sent.
const KEEP: Duration = Duration::from_secs(1);

/// A collector, and how far it is.
#[derive(Debug)]
pub(super) struct Feed {
    log: PathBuf,
    name: Name,
    origin: Origin,
    resource: Resource,
    collector: Collector,
    runtime: Runtime,
    /// None before the file was read.
    at: Option<Sent>,
    /// What was written down last, and when.
    kept: (Sent, Instant),
    lines: Option<Lined>,
    /// What was read and is not taken yet: index and line.
    pending: VecDeque<(u64, Vec<u8>)>,
    /// How many records are sent at once: fewer where the collector did not take so many.
    most: usize,
    failures: u32,
    last_cure: Option<Cure>,
}

impl Feed {
    /// Nothing is read or sent yet.
    pub(super) fn new(log: PathBuf, name: Name, origin: Origin, settings: Settings) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::new(Kind::Unavailable, "a sink of the audit log cannot start").because(e))?;
        let resource = Resource {
            attributes: vec![
                Attribute::text("service.name", "signet"),
                Attribute::text("service.version", env!("CARGO_PKG_VERSION")),
                Attribute::text("service.instance.id", origin.as_str()),
            ],
        };
        Ok(Self {
            log,
            name,
            origin,
            resource,
            collector: Collector::new(settings),
            runtime,
            at: None,
            kept: (Sent::default(), Instant::now()),
            lines: None,
            pending: VecDeque::new(),
            most: MOST_RECORDS,
            failures: 0,
            last_cure: None,
        })
    }

    fn advance(&mut self, to: &Reached) -> Result<bool> {
        let Some(at) = self.at else {
            let (at, begin) = (sent::sent(&self.log, &self.name)?, pruned::begin(&self.log)?.size());
            if at.size < begin {
                let text = format!("records {} to {} were pruned before the collector had them", at.size, begin - 1);
                return Err(Error::new(Kind::Unavailable, text)
                    .hint(format!("remove sent-{}: then it goes on with the first record that is there", self.name)));
            }
            (self.at, self.kept.0) = (Some(at), at);
            return Ok(true);
        };
        let durable = to.point.size();
        if at.size > durable {
            return Err(tampered(format!("a receiver was given {} records, and the log has {durable}", at.size)));
        }
        self.fill(at.size, durable)?;
        if self.pending.is_empty() {
            self.keep(at)?;
            return Ok(false);
        }
        let (at, taken) = (at, self.send()?);
        let Some((count, rejected, last)) = taken else { return Ok(true) };
        self.pending.drain(..count);
        let at = Sent { size: at.size + count as u64, rejected: at.rejected + rejected, last };
        self.at = Some(at);
        if self.kept.1.elapsed() >= KEEP {
            self.keep(at)?;
        }
        Ok(true)
    }

    /// Reads what comes next, up to what is durable.
    fn fill(&mut self, from: u64, durable: u64) -> Result<()> {
        let mut bytes: usize = self.pending.iter().map(|(_, line)| line.len()).sum();
        let mut next = from + self.pending.len() as u64;
        while next < durable && self.pending.len() < MOST_RECORDS && bytes < MOST_BYTES {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                none => none.insert(Lined::open(&self.log, next)?),
            };
            let line = lines.next()?.ok_or_else(|| tampered(format!("record {next} is missing")))?;
            bytes += line.len();
            self.pending.push_back((next, line.to_vec()));
            next += 1;
        }
        Ok(())
    }

    /// Sends the first of what is pending. How many were taken, how many of them rejected, and the leaf hash of the last; `None` where
    /// fewer are to be tried.
    fn send(&mut self) -> Result<Option<(usize, u64, Hash)>> {
        let count = self.pending.len().min(self.most);
        let Some((_, last)) = self.pending.get(count.saturating_sub(1)) else { return Ok(None) };
        let last = leaf_hash(last);
        let records = self.pending.iter().take(count);
        let records: Vec<_> = records.map(|(index, line)| log_record(&self.origin, *index, line)).collect();
        match self.attempt(&records) {
            Ok(taken) => {
                self.most = (self.most * 2).min(MOST_RECORDS);
                Ok(Some((count, taken.rejected.min(count as u64), last)))
            }
            Err(refusal) if refusal.cure != Cure::Other => Err(self.failed(refusal)),
            Err(_) if count > 1 => {
                self.most = count / 2;
                Ok(None)
            }
            Err(_) => {
                let bare: Vec<_> = records.into_iter().map(without_content).collect();
                let taken = self.attempt(&bare).map_err(|refusal| self.failed(refusal))?;
                tracing::warn!(sink = %self.name, "a collector did not take the content of a record");
                Ok(Some((count, taken.rejected.max(1), last)))
            }
        }
    }

    fn attempt(&mut self, records: &[LogRecord]) -> Result<otlp::Taken, otlp::Refusal> {
        let batch = Batch { resource: &self.resource, records };
        let taken = self.runtime.block_on(self.collector.send(&batch, Clock::System.now()))?;
        (self.failures, self.last_cure) = (0, None);
        Ok(taken)
    }

    fn failed(&mut self, refusal: otlp::Refusal) -> Error {
        self.failures = self.failures.saturating_add(1);
        self.last_cure = Some(refusal.cure);
        refusal.error
    }

    fn keep(&mut self, at: Sent) -> Result<()> {
        if self.kept.0 != at {
            sent::keep(&self.log, &self.name, &at)?;
        }
        self.kept = (at, Instant::now());
        Ok(())
    }
}

impl Follower for Feed {
    fn step(&mut self, to: &Reached) -> Result<bool> {
        let step = self.advance(to);
        if step.as_ref().is_err_and(|_| self.last_cure.is_none()) {
            // What was wrong is here, and is looked at afresh.
            (self.at, self.lines) = (None, None);
            self.pending.clear();
        }
        step
    }

    fn size(&self) -> u64 {
        self.at.map_or(0, |at| at.size)
    }

    fn rejected(&self) -> u64 {
        self.at.map_or(0, |at| at.rejected)
    }

    fn rest(&self, _took: Duration) -> Duration {
        let usual = rest_after(self.failures);
        match self.last_cure {
            Some(Cure::Again(Some(asked))) => usual.max(asked),
            Some(Cure::Again(None) | Cure::Other | Cure::Mend) | None => usual,
        }
    }

    fn is_news(&self) -> bool {
        !matches!(self.last_cure, Some(Cure::Again(_))) || self.failures >= PASSING
    }
}

/// A record of the log as one of OpenTelemetry, with the attributes that its
/// [conventions](https://opentelemetry.io/docs/specs/semconv/registry/attributes/) name, and our own below `signet`.
fn log_record(origin: &Origin, index: u64, line: &[u8]) -> LogRecord {
    let leaf = hex::encode(leaf_hash(line));
    let record: Json = serde_json::from_slice(line).unwrap_or_default();
    let text = |name: &str| record.get(name).and_then(Json::as_str).unwrap_or_default();
    let time = text("time").parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_nanosecond);
    let mut attributes = vec![
        Attribute::text("log.record.uid", format!("{origin}/{index}/{}", leaf.get(..32).unwrap_or_default())),
        Attribute::number("signet.index", index),
        Attribute::text("signet.leaf", leaf),
    ];
    let named = [
        ("user.id", "principal"),
        ("client.address", "address"),
        ("signet.request", "request"),
        ("signet.credential", "credential"),
        ("signet.action", "action"),
        ("signet.resource", "resource"),
        ("signet.phase", "phase"),
        ("signet.outcome", "outcome"),
        ("signet.decision", "decision"),
        ("signet.key.id", "key_id"),
    ];
    let named = named.into_iter().filter(|(_, name)| !text(name).is_empty());
    attributes.extend(named.map(|(key, name)| Attribute::text(key, text(name))));
    if let Some(version) = record.get("version").and_then(Json::as_u64) {
        attributes.push(Attribute::number("signet.key.version", version));
    }
    // "error.type SHOULD NOT be set" where nothing failed.
    if !matches!(text("outcome"), "" | "ok") {
        attributes.push(Attribute::text("error.type", text("outcome")));
    }
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity: match Severity::of(text("phase"), text("outcome")) {
            Severity::Info => otlp::Severity::Info,
            Severity::Notice => otlp::Severity::Notice,
            Severity::Warning => otlp::Severity::Warning,
            Severity::Error => otlp::Severity::Error,
        },
        event_name: "signet.audit",
        body: Value::Text(String::from_utf8_lossy(line).into_owned()),
        attributes,
        trace_id: trace_id(text("request")),
    }
}

/// "32 lowercase hex characters … all zeroes is invalid": a client that gives the id of its trace as the id of the request is found in
/// both ([W3C trace context](https://www.w3.org/TR/trace-context/#trace-id)).
fn trace_id(request: &str) -> String {
    let is_one = request.len() == 32
        && request.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        && request.bytes().any(|byte| byte != b'0');
    if is_one { request.to_owned() } else { String::new() }
}

/// What is left where a collector does not take what a record says: that it is there, and its hash.
fn without_content(record: LogRecord) -> LogRecord {
    let LogRecord {
        time_unix_nano,
        observed_time_unix_nano,
        severity,
        event_name,
        body: _,
        mut attributes,
        trace_id: _,
    } = record;
    attributes.truncate(3);
    let body = Value::Text("the content of this record was not accepted: it is in the log, by its index".to_owned());
    let trace_id = String::new();
    LogRecord { time_unix_nano, observed_time_unix_nano, severity, event_name, body, attributes, trace_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_bears_the_id_of_a_trace_is_found_by_it() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(id), id);
        for other in ["", "4bf92f3577b34da6", &id.to_uppercase(), &"0".repeat(32), &id.replace('4', "g")] {
            assert_eq!(trace_id(other), "", "{other}");
        }
    }

    #[test]
    fn what_a_collector_does_not_take_leaves_its_place() {
        let origin = Origin::of_instance("a1b2c3d4").unwrap();
        let line = br#"{"time":"2026-01-02T03:04:05.678901Z","phase":"refused","outcome":"forbidden","address":"::1"}"#;
        let record = log_record(&origin, 4711, line);
        assert_eq!((record.severity, record.time_unix_nano), (otlp::Severity::Warning, 1_767_323_045_678_901_000));
        let text = serde_json::to_string(&record).unwrap();
        for part in ["client.address", "error.type", "signet.outcome"] {
            assert!(text.contains(part), "{text}");
        }
        let text = serde_json::to_string(&without_content(record)).unwrap();
        assert!(text.contains(&hex::encode(leaf_hash(line))) && text.contains("4711"), "{text}");
        assert!(!text.contains("forbidden") && !text.contains("::1"), "{text}");
    }
}
