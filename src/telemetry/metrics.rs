//! The metrics of the service: one value, made once, handed to those who count.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What a device did.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Operation {
    /// The device.
    pub device: Arc<str>,
    /// The mechanism: an algorithm, or `generate`, `destroy`, `health` ...
    pub mechanism: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Device {
    device: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeviceEvent {
    device: Arc<str>,
    event: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Fetch {
    what: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    how: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SinkOfLog {
    sink: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Made {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Validated {
    challenge: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    problem: &'static str,
}

/// The certificates of one issuer from one profile.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub struct CertificateSet {
    /// The issuer.
    pub issuer: String,
    /// The profile.
    pub profile: String,
}

/// How many certificates of a set end soon, and nothing stands ready in their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Within a day.
    pub in_1d: u64,
    /// Within a week.
    pub in_7d: u64,
    /// Within thirty days.
    pub in_30d: u64,
    /// When the next one ends, in seconds since 1970.
    pub next: i64,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Origin {
    source: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Within {
    issuer: String,
    profile: String,
    within: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Submitted {
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Watched {
    log: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WitnessName {
    witness: String,
}

/// All metrics. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Outcome, Counter>,
    device_seconds: Family<Operation, Histogram>,
    device_in_flight: Family<Device, Gauge>,
    device_up: Family<Device, Gauge>,
    device_breaker: Family<Device, Gauge>,
    device_events: Family<DeviceEvent, Counter>,
    device_restarts: Family<Device, Counter>,
    device_retries: Family<Device, Counter>,
    device_stood_in: Family<Device, Counter>,
    device_sessions: Family<Device, Gauge>,
    rotations_due: Gauge,
    rotations_overdue: Gauge,
    rotations: Counter,
    certificates: Family<Made, Counter>,
    certificates_ending: Family<Within, Gauge>,
    certificates_next_end: Family<CertificateSet, Gauge>,
    notices: Family<Made, Counter>,
    notices_waiting: Gauge,
    issuers_overdue: Gauge,
    audit_records: Gauge<u64, AtomicU64>,
    audit_signed: Gauge<u64, AtomicU64>,
    audit_up: Gauge,
    audit_reopened: Counter,
    audit_sink_up: Family<SinkOfLog, Gauge>,
    audit_sink_behind: Family<SinkOfLog, Gauge>,
    audit_sink_rejected: Family<SinkOfLog, Gauge>,
    connections: Gauge,
    fetches: Family<Fetch, Counter>,
    ocsp_answers: Family<Answered, Counter>,
    status_overdue: Gauge,
    acme_orders: Counter,
    acme_validations: Family<Validated, Counter>,
    acme_refusals: Family<Refused, Counter>,
    own_certificate_ends: Family<Origin, Gauge>,
    own_certificate_overdue: Gauge,
    own_certificates: Family<Made, Counter>,
    add_checkpoints: Family<Submitted, Counter>,
    witnessed: Family<Watched, Gauge<u64, AtomicU64>>,
    witness_up: Family<WitnessName, Gauge>,
    witness_records: Family<WitnessName, Gauge<u64, AtomicU64>>,
    witness_cosigned: Family<WitnessName, Gauge<u64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut all = Self {
            registry: Arc::default(),
            requests: Family::default(),
            device_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 18))),
            device_in_flight: Family::default(),
            device_up: Family::default(),
            device_breaker: Family::default(),
            device_events: Family::default(),
            device_restarts: Family::default(),
            device_retries: Family::default(),
            device_stood_in: Family::default(),
            device_sessions: Family::default(),
            rotations_due: Gauge::default(),
            rotations_overdue: Gauge::default(),
            rotations: Counter::default(),
            certificates: Family::default(),
            certificates_ending: Family::default(),
            certificates_next_end: Family::default(),
            notices: Family::default(),
            notices_waiting: Gauge::default(),
            issuers_overdue: Gauge::default(),
            audit_records: Gauge::default(),
            audit_signed: Gauge::default(),
            audit_up: Gauge::default(),
            audit_reopened: Counter::default(),
            audit_sink_up: Family::default(),
            audit_sink_behind: Family::default(),
            audit_sink_rejected: Family::default(),
            connections: Gauge::default(),
            fetches: Family::default(),
            ocsp_answers: Family::default(),
            status_overdue: Gauge::default(),
            acme_orders: Counter::default(),
            acme_validations: Family::default(),
            acme_refusals: Family::default(),
            own_certificate_ends: Family::default(),
            own_certificate_overdue: Gauge::default(),
            own_certificates: Family::default(),
            add_checkpoints: Family::default(),
            witnessed: Family::default(),
            witness_up: Family::default(),
            witness_records: Family::default(),
            witness_cosigned: Family::default(),
        };
        let mut r = Registry::with_prefix("signet");
        r.register("requests", "Operations by action and outcome", all.requests.clone());
        let help = "Time a device took, by mechanism, with its queue";
        r.register_with_unit("device_operation", help, Unit::Seconds, all.device_seconds.clone());
        r.register("device_in_flight", "Jobs at a device or in its queue", all.device_in_flight.clone());
        r.register("device_up", "Whether a device answers", all.device_up.clone());
        r.register("device_breaker", "Breaker of a device: 0 closed, 1 half-open, 2 open", all.device_breaker.clone());
        r.register("device_events", "What became of a device", all.device_events.clone());
        r.register("device_restarts", "Replacements of a device's worker process", all.device_restarts.clone());
        r.register("device_retries", "Jobs that were done again after a failure", all.device_retries.clone());
        r.register(
            "device_stood_in",
            "Uses of shared keys that a device made in the place of another one",
            all.device_stood_in.clone(),
        );
        r.register("device_sessions", "Open sessions or loaded handles of a device", all.device_sessions.clone());
        r.register("rotations_due", "Keys whose rotation falls due within a day", all.rotations_due.clone());
        r.register(
            "rotations_overdue",
            "Keys whose rotation is due and was not possible",
            all.rotations_overdue.clone(),
        );
        r.register("rotations", "Rotations done", all.rotations.clone());
        r.register("certificates", "Certificates by what became of them", all.certificates.clone());
        let help = "Certificates that end within a time and have no successor, by issuer and profile";
        r.register("certificates_ending", help, all.certificates_ending.clone());
        let help = "When the next of these certificates ends, in seconds since 1970";
        r.register("certificates_next_end", help, all.certificates_next_end.clone());
        let help = "Attempts to tell a receiver of such certificates, by what came of them";
        r.register("notices", help, all.notices.clone());
        r.register("notices_waiting", "Notices that the receiver has not taken yet", all.notices_waiting.clone());
        r.register(
            "issuers_overdue",
            "Issuers whose next version is due and is not there",
            all.issuers_overdue.clone(),
        );
        r.register("audit_records", "Records in the audit log", all.audit_records.clone());
        r.register("audit_signed_records", "Records below the newest signed head", all.audit_signed.clone());
        r.register("audit_up", "Whether the audit log takes records", all.audit_up.clone());
        r.register(
            "audit_reopened",
            "How often a refused audit log was read again and went on",
            all.audit_reopened.clone(),
        );
        let (up, behind) = (all.audit_sink_up.clone(), all.audit_sink_behind.clone());
        r.register("audit_sink_up", "Whether a further place of the audit log follows it", up);
        r.register("audit_sink_behind_records", "Records that a further place of the audit log lacks", behind);
        let help = "Records that a further place of the audit log was given and did not accept";
        r.register("audit_sink_rejected_records", help, all.audit_sink_rejected.clone());
        r.register("connections", "Open client connections", all.connections.clone());
        r.register("public_fetches", "Answers to relying parties, by what and HTTP status", all.fetches.clone());
        r.register("ocsp_answers", "OCSP requests, by how they were answered", all.ocsp_answers.clone());
        let help = "Revocation lists and OCSP responders that are due and could not be made";
        r.register("status_overdue", help, all.status_overdue.clone());
        r.register("acme_orders", "Orders that ACME clients made", all.acme_orders.clone());
        r.register("acme_validations", "Ends of ACME challenges, by kind and outcome", all.acme_validations.clone());
        r.register("acme_refusals", "ACME requests that were refused, by type of problem", all.acme_refusals.clone());
        let help = "When the certificate ends that the server shows, in Unix time, by where it comes from";
        r.register_with_unit("own_certificate_ends", help, Unit::Seconds, all.own_certificate_ends.clone());
        let help = "Whether the server should have another certificate of its own and cannot have it";
        r.register("own_certificate_overdue", help, all.own_certificate_overdue.clone());
        let help = "Certificates that the service asked for itself, by what came of it";
        r.register("own_certificates", help, all.own_certificates.clone());
        let help = "Checkpoints that were sent to this witness, by HTTP status";
        r.register("witness_requests", help, all.add_checkpoints.clone());
        let help = "Whether a witness of the audit log cosigned when it was last asked";
        r.register("audit_witness_up", help, all.witness_up.clone());
        r.register("audit_witness_records", "Records that a witness cosigned last", all.witness_records.clone());
        let help = "When a witness cosigned last, in Unix time";
        r.register_with_unit("audit_witness_cosigned", help, Unit::Seconds, all.witness_cosigned.clone());
        r.register("witness_log_records", "Records of a log that this witness cosigned", all.witnessed.clone());
        all.registry = Arc::new(r);
        all
    }

    /// The OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// Counts an operation.
    pub fn request(&self, action: &'static str, outcome: &'static str) {
        self.requests.get_or_create(&Outcome { action, outcome }).inc();
    }

    /// Counts a job of a device.
    pub fn device_operation(&self, operation: &Operation, took: Duration) {
        self.device_seconds.get_or_create(operation).observe(took.as_secs_f64());
    }

    /// Says how many jobs a device has.
    pub fn device_in_flight(&self, device: &Arc<str>, jobs: usize) {
        let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
        self.device_in_flight.get_or_create(&Device { device: device.clone() }).set(jobs);
    }

    /// Says whether a device answers.
    pub fn device_up(&self, device: &Arc<str>, up: bool) {
        self.device_up.get_or_create(&Device { device: device.clone() }).set(i64::from(up));
    }

    /// Says how the breaker of a device stands: 0 closed, 1 half-open, 2 open.
    pub fn device_breaker(&self, device: &Arc<str>, state: i64) {
        self.device_breaker.get_or_create(&Device { device: device.clone() }).set(state);
    }

    /// Counts what became of a device.
    pub fn device_event(&self, device: &Arc<str>, event: &'static str) {
        self.device_events.get_or_create(&DeviceEvent { device: device.clone(), event }).inc();
    }

    /// Counts the replacement of a worker.
    pub fn device_restarted(&self, device: &Arc<str>) {
        self.device_restarts.get_or_create(&Device { device: device.clone() }).inc();
    }

    /// Counts a job that is done again.
    pub fn device_retried(&self, device: &Arc<str>) {
        self.device_retries.get_or_create(&Device { device: device.clone() }).inc();
    }

    /// Counts uses of shared keys that a device made in the place of another one.
    pub fn device_stood_in(&self, device: &Arc<str>, uses: usize) {
        self.device_stood_in.get_or_create(&Device { device: device.clone() }).inc_by(uses as u64);
    }

    /// Says how many sessions or handles a device has.
    pub fn device_sessions(&self, device: &Arc<str>, sessions: u64) {
        let sessions = i64::try_from(sessions).unwrap_or(i64::MAX);
        self.device_sessions.get_or_create(&Device { device: device.clone() }).set(sessions);
    }

    /// Says how many rotations are near, and how many are late.
    pub fn rotations(&self, due: usize, overdue: usize) {
        self.rotations_due.set(i64::try_from(due).unwrap_or(i64::MAX));
        self.rotations_overdue.set(i64::try_from(overdue).unwrap_or(i64::MAX));
    }

    /// Counts a rotation.
    pub fn rotated(&self) {
        self.rotations.inc();
    }

    /// Counts certificates that were signed, and serial numbers that were lost on the way.
    pub fn issued(&self, issued: usize, lost: usize) {
        for (outcome, count) in [("issued", issued), ("lost", lost)] {
            self.certificates.get_or_create(&Made { outcome }).inc_by(count as u64);
        }
    }

    /// Says how many certificates of each set end soon. Sets that are not named any more are gone.
    pub fn certificates_ending<'a>(&self, sets: impl IntoIterator<Item = (&'a CertificateSet, &'a Ending)>) {
        self.certificates_ending.clear();
        self.certificates_next_end.clear();
        for (set, Ending { in_1d, in_7d, in_30d, next }) in sets {
            let CertificateSet { issuer, profile } = set.clone();
            for (within, count) in [("1d", in_1d), ("7d", in_7d), ("30d", in_30d)] {
                let labels = Within { issuer: issuer.clone(), profile: profile.clone(), within };
                self.certificates_ending.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
            }
            self.certificates_next_end.get_or_create(set).set(*next);
        }
    }

    /// Counts an attempt to deliver a notice: `delivered`, `failed`, or `given_up` with the last one.
    pub fn notice(&self, outcome: &'static str) {
        self.notices.get_or_create(&Made { outcome }).inc();
    }

    /// Says how many notices wait.
    pub fn notices_waiting(&self, waiting: usize) {
        self.notices_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Counts an order of ACME.
    pub fn acme_ordered(&self) {
        self.acme_orders.inc();
    }

    /// Counts the end of an ACME challenge: `valid`, or the type of the problem.
    pub fn acme_validated(&self, challenge: &'static str, outcome: &'static str) {
        self.acme_validations.get_or_create(&Validated { challenge, outcome }).inc();
    }

    /// Counts an ACME request that was refused.
    pub fn acme_refused(&self, problem: &'static str) {
        self.acme_refusals.get_or_create(&Refused { problem }).inc();
    }

    /// Says how many issuers should have a new version and have none.
    pub fn issuers_overdue(&self, overdue: usize) {
        self.issuers_overdue.set(i64::try_from(overdue).unwrap_or(i64::MAX));
    }

    /// Counts a log that was refused, and was read again and went on.
    pub fn audit_reopened(&self, reopened: bool) {
        self.audit_reopened.inc_by(u64::from(reopened));
    }

    /// Says how a further place of the audit log stands.
    pub fn audit_sink(&self, sink: &str, up: bool, behind: u64, rejected: u64) {
        let labels = SinkOfLog { sink: sink.to_owned() };
        self.audit_sink_up.get_or_create(&labels).set(i64::from(up));
        self.audit_sink_behind.get_or_create(&labels).set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.audit_sink_rejected.get_or_create(&labels).set(i64::try_from(rejected).unwrap_or(i64::MAX));
    }

    /// Says whether the audit log takes records, how long it is, and how much of it is signed.
    pub fn audit(&self, up: bool, records: u64, signed: u64) {
        self.audit_up.set(i64::from(up));
        self.audit_records.set(records);
        self.audit_signed.set(signed);
    }

    /// Says how a witness of the audit log stands.
    pub fn witness(&self, name: &str, size: Option<u64>, time: Option<u64>, up: bool) {
        let labels = WitnessName { witness: name.to_owned() };
        self.witness_up.get_or_create(&labels).set(i64::from(up));
        self.witness_records.get_or_create(&labels).set(size.unwrap_or(0));
        self.witness_cosigned.get_or_create(&labels).set(time.unwrap_or(0));
    }

    /// Counts a checkpoint that was sent to this witness.
    pub fn add_checkpoint(&self, status: u16) {
        self.add_checkpoints.get_or_create(&Submitted { status }).inc();
    }

    /// Says how much of a log this witness cosigned.
    pub fn witnessed(&self, log: &str, size: u64) {
        self.witnessed.get_or_create(&Watched { log: log.to_owned() }).set(size);
    }

    /// Counts a connection in (`1`) or out (`-1`).
    pub fn connection(&self, change: i64) {
        self.connections.inc_by(change);
    }

    /// Counts an answer to a relying party: a list, a certificate, a bundle, an OCSP answer.
    pub fn fetched(&self, what: &'static str, status: u16) {
        self.fetches.get_or_create(&Fetch { what, status }).inc();
    }

    /// Counts an OCSP request by how it was answered: `cached`, `signed`, `kept` while the device is away, `refused` for want of
    /// signatures, `failure`.
    pub fn ocsp_answered(&self, how: &'static str) {
        self.ocsp_answers.get_or_create(&Answered { how }).inc();
    }

    /// Says which certificate the server shows, and when it ends in Unix time where that is known.
    pub fn own_certificate_ends(&self, source: &'static str, until: Option<i64>) {
        self.own_certificate_ends.clear();
        if let Some(until) = until {
            self.own_certificate_ends.get_or_create(&Origin { source }).set(until);
        }
    }

    /// Says whether the server should have another certificate and cannot have it.
    pub fn own_certificate_overdue(&self, overdue: bool) {
        self.own_certificate_overdue.set(i64::from(overdue));
    }

    /// Counts a certificate that the service asked for itself: `issued` or `failed`.
    pub fn own_certificate_renewed(&self, outcome: &'static str) {
        self.own_certificates.get_or_create(&Made { outcome }).inc();
    }

    /// Says how many lists and responders are due and could not be made.
    pub fn status_overdue(&self, overdue: usize) {
        self.status_overdue.set(i64::try_from(overdue).unwrap_or(i64::MAX));
    }
}
