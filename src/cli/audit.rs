//! `signet audit`: the log of who did what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::ask::confirm;
use super::output::{facts, note, table};
use super::syslog::message;
use super::{App, noun};
use crate::audit::checkpoint::{public_key_from_pem, public_keys_from_pem};
use crate::audit::{CHECKPOINT, Cosigned, Gone, HeadKeys, Problem, Receipts, Signed, checkpoint, proof, verify_export};
use crate::bucket::{Bucket, SCHEME, Settings as BucketSettings};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::types::{Clock, NoteKey, Period, PublicKey};
use crate::wire::{AuditPruned, AuditRecords, PruneAudit};

/// The most records of one request.
const PAGE: u32 = 1000;

noun! {
    /// Read the audit log.
    Audit: Verb {
        Show(Show),
        Tail(Tail),
        Head(Head),
        Proof(Proof),
        Consistency(Consistency),
        Export(Export),
        Archive(Archive),
        Fetch(Fetch),
        Prune(Prune),
        Verify(Verify),
    }
}

/// Verify offline, without the service: a log folder, an export of it, or the proof of one record or of two heads.
///
/// Of a folder every record, every head and its signature are checked. Exits with 6 where anything does not hold. The public
/// key is what `signet audit head --public-key` printed when it was last trusted; without it the signatures are not checked.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit verify /var/lib/signet/audit --public-key log.pem
  signet audit verify copy-of-audit --json
  signet audit verify /mnt/archive/signet --public-key log.pem
  signet audit verify s3://logs/signet --region eu-central-1 --ca ca.pem --credentials s3.credentials --public-key log.pem
  signet audit verify /var/lib/signet/audit --public-key log.pem --receipts receipts.txt
  signet audit verify /var/lib/signet/audit --public-key log.pem --archive /mnt/archive/signet
  signet audit verify 4711.tlog-proof --public-key log.pem
  signet audit verify since-monday.txt --since monday.txt --public-key log.pem
  signet audit verify /srv/www/log --public-key log.pem --witness witness.example/w1+1f2e3d4c+BGfmC6QD...")]
struct Verify {
    /// A folder of the log, an archive or an export of it, an archive in a bucket as s3://BUCKET/PREFIX, or the file that `signet audit proof` or `consistency` wrote.
    what: PathBuf,
    /// The public keys that sign heads, in PEM: ECDSA P-256, Ed25519, or both in one file. Each of them must have signed.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Receipts that a client kept by --keep-receipts: each record that an answer named must be there, and be the same.
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    /// The archive that holds what was pruned: it is read as well, and held against the log.
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// The earlier head that a proof of two heads begins with.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// A witness that must have cosigned, as `signet witness key` prints it; as often as there are witnesses.
    #[arg(long, value_name = "KEY")]
    witness: Vec<String>,
    #[command(flatten)]
    store: Store,
}

/// How an S3-compatible store is reached, where a place is s3://BUCKET/PREFIX.
#[derive(Args, Debug)]
#[command(next_help_heading = "For s3://BUCKET/PREFIX")]
struct Store {
    /// The file of credentials, mode 600: aws_access_key_id = .. and aws_secret_access_key = .. on lines of their own.
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// The region; us-east-1 where absent.
    #[arg(long)]
    region: Option<String>,
    /// The store, such as https://minio.example:9000; that of AWS in the region where absent.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Those that may certify the store, in PEM; with https.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Store {
    /// The bucket that `place` names, where it names one.
    fn bucket(&self, place: &Path) -> Result<Option<Bucket>> {
        let Some(address) = place.to_str().filter(|place| place.starts_with(SCHEME)) else { return Ok(None) };
        let Self { credentials, region, endpoint, ca } = self;
        let credentials = credentials.clone().ok_or_else(|| {
            Error::new(Kind::Invalid, "which credentials?").hint("give the file that holds them: --credentials FILE")
        })?;
        let settings = BucketSettings::new(address, region.clone(), endpoint.clone(), ca.clone(), credentials)?;
        Bucket::new(settings).map(Some)
    }
}

/// What a witness vouches for, for people.
struct Vouched {
    name: String,
    size: u64,
    /// In seconds since 1970.
    time: u64,
}

impl Vouched {
    fn new(key: &NoteKey, cosigned: &Cosigned) -> Self {
        Self { name: key.name().to_owned(), size: cosigned.head.size(), time: cosigned.time }
    }

    fn json(&self) -> Value {
        serde_json::json!({"name": self.name, "size": self.size, "time": self.time})
    }

    fn text(&self) -> String {
        let now = u64::try_from(Clock::System.now().as_second()).unwrap_or(0);
        let age = Period::seconds(now.saturating_sub(self.time));
        format!("{}: {} records, {age} ago", self.name, self.size)
    }
}

/// The keys of a log in a PEM file; none where no file is given.
fn keys(path: Option<&Path>) -> Result<Vec<PublicKey>> {
    path.map_or_else(|| Ok(Vec::new()), |path| public_keys_from_pem(&text(path)?))
}

/// A file of text.
fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::new(Kind::Invalid, format!("{}: {e}", path.display())))
}

impl Verify {
    fn run(mut self, app: &App) -> Result<()> {
        // What lies in a bucket is brought here first: what was checked is what was there.
        let mut fetched = None;
        if let Some(bucket) = self.store.bucket(&self.what)? {
            let folder = tempfile::tempdir().map_err(|e| super::output::unwritable("a folder for the archive", &e))?;
            crate::audit::fetch(bucket, folder.path())?;
            folder.path().clone_into(&mut self.what);
            fetched = Some(folder);
        }
        let verified = self.verify(app);
        drop(fetched);
        verified
    }

    fn verify(self, app: &App) -> Result<()> {
        let keys = keys(self.public_key.as_deref())?;
        let witnesses = self.witness.iter().map(|text| text.parse()).collect::<Result<Vec<NoteKey>>>()?;
        if let Some(other) = witnesses.iter().find(|key| !key.cosigns()) {
            return Err(Error::new(Kind::Invalid, format!("{} is the key of a log, not of a witness", other.name())));
        }
        if !self.what.is_dir() {
            return self.proof(app, HeadKeys::given(&keys)?.as_ref(), &witnesses);
        }
        let receipts = match &self.receipts {
            Some(path) => Receipts::parse(&path.display().to_string(), &text(path)?)?,
            None => Receipts::default(),
        };
        let is_export = self.what.join(CHECKPOINT).exists();
        let mut report = if is_export {
            if self.receipts.is_some() {
                return Err(Error::new(
                    Kind::Invalid,
                    "receipts are held against a folder of the log, not against an export",
                ));
            }
            verify_export(&self.what, HeadKeys::given(&keys)?.as_ref())?
        } else {
            crate::audit::verify_archived(&self.what, &keys, receipts, self.archive.as_deref())?
        };
        let mut vouching = Vec::new();
        for witness in &witnesses {
            let vouched = match &report.head {
                Some(head) if is_export => vouched_head(head, witness),
                Some(_) | None => crate::audit::vouched(&self.what, witness),
            };
            match vouched {
                Ok(cosigned) => vouching.push(Vouched::new(witness, &cosigned)),
                Err(error) if error.kind() == Kind::DoesNotOpen => {
                    let file = if is_export { CHECKPOINT } else { "heads" };
                    report.problems.push(Problem {
                        file: file.to_owned(),
                        line: None,
                        what: error.public().to_owned(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        let problems: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        let body = serde_json::json!({
            "records": report.records,
            "heads": report.heads,
            "root": report.root.map(hex::encode),
            "signatures_checked": report.signatures_checked,
            "signatures": signatures_json(&report.signatures),
            "unsigned_tail": report.unsigned_tail,
            "receipts": report.receipts,
            "pruned": report.gone.as_ref().map(|gone| serde_json::json!({"records": gone.records, "by": gone.by,
                "time": gone.time, "head": gone.head, "archived": gone.archived})),
            "witnesses": vouching.iter().map(Vouched::json).collect::<Vec<_>>(),
            "unfinished_bytes": report.unfinished_bytes,
            "problems": problems,
            "notes": report.notes,
        });
        app.out.answer(&body, |_| {
            let mut text = facts([
                ("records", report.records.to_string()),
                ("heads", report.heads.to_string()),
                ("signatures", signatures(report.signatures_checked, &report.signatures)),
                ("below no head yet", report.unsigned_tail.to_string()),
                ("receipts", report.receipts.to_string()),
                ("verdict", if report.is_good() { "WHOLE".to_owned() } else { "BROKEN".to_owned() }),
            ]);
            if let Some(gone) = &report.gone {
                let Gone { records, by, time, head, archived } = gone;
                let what = if *archived { "read from the archive" } else { "their hashes were checked" };
                text.push_str(&format!(
                    "\npruned: the first {records} records, by {by} at {time}, below the head of {head}: {what}"
                ));
            }
            for witness in &vouching {
                text.push_str(&format!("\nwitness {}", witness.text()));
            }
            for problem in &problems {
                text.push_str(&format!("\nproblem: {problem}"));
            }
            for what in &report.notes {
                text.push_str(&format!("\nnote: {what}"));
            }
            text
        })?;
        if report.is_good() {
            return Ok(());
        }
        Err(Error::new(Kind::DoesNotOpen, "the audit log does not hold")
            .hint("keep this copy as evidence, and compare it with another one"))
    }

    /// A file with a proof.
    fn proof(&self, app: &App, keys: Option<&HeadKeys>, witnesses: &[NoteKey]) -> Result<()> {
        let text = text(&self.what)?;
        // All that were given: a proof by less was refused before.
        let signatures = keys.map_or_else(|| NOT_CHECKED.to_owned(), ToString::to_string);
        if text.starts_with(proof::Consistency::MAGIC) {
            let proof = proof::Consistency::parse(&text)?;
            let since = self.since.as_deref().ok_or_else(|| {
                Error::new(Kind::Invalid, "which earlier head?").hint("give the file that holds it: --since FILE")
            })?;
            proof.verify(&head(since)?, keys)?;
            all_vouch(&proof.head, witnesses)?;
            let body = serde_json::json!({"old": proof.old, "size": proof.head.size(), "origin": proof.head.origin().as_str(),
                "signatures_checked": keys.is_some()});
            return app.out.answer(&body, |_| {
                facts([
                    ("log", proof.head.origin().to_string()),
                    ("signatures", signatures.clone()),
                    (
                        "verdict",
                        format!(
                            "GROWN: from {} to {} records, and none of the first was changed",
                            proof.old,
                            proof.head.size()
                        ),
                    ),
                ])
            });
        }
        let proof = proof::Proof::parse(&text)?;
        proof.verify(keys)?;
        all_vouch(&proof.head, witnesses)?;
        let record: Value = serde_json::from_slice(&proof.record)
            .map_err(|_| Error::new(Kind::DoesNotOpen, "what is proven is no record of an audit log"))?;
        let body = serde_json::json!({"index": proof.index, "size": proof.head.size(), "origin": proof.head.origin().as_str(),
            "signatures_checked": keys.is_some(), "record": record});
        app.out.answer(&body, |_| {
            facts([
                ("log", proof.head.origin().to_string()),
                ("record", format!("{} of {}", proof.index, proof.head.size())),
                ("signatures", signatures.clone()),
                ("verdict", "RECORDED".to_owned()),
            ]) + "\n"
                + &String::from_utf8_lossy(&proof.record)
        })
    }
}

const NOT_CHECKED: &str = "not checked: no key was given";

/// What was signed by which key.
fn signatures(checked: bool, signed: &[Signed]) -> String {
    let each = signed
        .iter()
        .map(|Signed { algorithm, heads, from }| format!("{heads} by {algorithm}, from the head of {from} records on"));
    match each.collect::<Vec<_>>() {
        _ if !checked => NOT_CHECKED.to_owned(),
        each if each.is_empty() => "none".to_owned(),
        each => each.join("; "),
    }
}

fn signatures_json(signed: &[Signed]) -> Vec<Value> {
    let each = |Signed { algorithm, heads, from }: &Signed| serde_json::json!({"algorithm": algorithm, "heads": heads, "from": from});
    signed.iter().map(each).collect()
}

/// What a witness says of this very head.
fn vouched_head(head: &checkpoint::Head, witness: &NoteKey) -> Result<Cosigned> {
    Cosigned::of(head.clone(), witness).ok_or_else(|| {
        let text = format!("the head of {} records is not cosigned by witness {}", head.size(), witness.name());
        Error::new(Kind::DoesNotOpen, text)
    })
}

fn all_vouch(head: &checkpoint::Head, witnesses: &[NoteKey]) -> Result<()> {
    witnesses.iter().try_for_each(|witness| vouched_head(head, witness).map(drop))
}

/// The head in a file.
fn head(path: &Path) -> Result<checkpoint::Head> {
    let text = text(path)?;
    // What `signet audit head` printed has the public key behind the note.
    let end = text.find("-----BEGIN").unwrap_or(text.len());
    let note = text.get(..end).unwrap_or_default().trim_end();
    checkpoint::Head::parse(&format!("{note}\n")).map_err(|e| e.context(path.display().to_string()))
}

/// Print one record with the proof that it is in the log: a file that needs neither the log nor the service.
///
/// The format is C2SP tlog-proof. A record of this second may take another one until a head is signed above it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit proof 4711 > 4711.tlog-proof
  signet audit verify 4711.tlog-proof --public-key log.pem")]
struct Proof {
    /// The index of the record.
    index: u64,
}

impl Proof {
    fn run(self, app: &App) -> Result<()> {
        let proof = app.online(async |client| client.audit_proof(self.index).await)?;
        // What a service says of itself is checked here as well: a proof that does not hold helps nobody.
        let key = HeadKeys::new([&public_key_from_pem(&proof.public_key)?])?;
        proof::Proof::parse(&proof.proof)?.verify(Some(&key))?;
        if app.out.json { app.out.body(&proof) } else { app.out.bytes(proof.proof.as_bytes()) }
    }
}

/// Print the proof that the log only grew since an earlier head, which was kept in a file.
///
/// The earlier head is what `signet audit head` printed. Exits with 6 where the log of today is not that one any more.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit head > monday.txt
  signet audit consistency monday.txt > since-monday.txt
  signet audit verify since-monday.txt --since monday.txt --public-key log.pem
  signet audit verify /srv/www/log --public-key log.pem --witness witness.example/w1+1f2e3d4c+BGfmC6QD...")]
struct Consistency {
    /// The file with the earlier head.
    since: PathBuf,
}

impl Consistency {
    fn run(self, app: &App) -> Result<()> {
        let earlier = head(&self.since)?;
        let proof = app.online(async |client| client.audit_consistency(earlier.size()).await).map_err(|e| {
            if e.kind() == Kind::NotFound {
                Error::new(
                    Kind::DoesNotOpen,
                    format!(
                        "the log is shorter than the {} records of the earlier head: it was cut or put back",
                        earlier.size()
                    ),
                )
            } else {
                e
            }
        })?;
        let key = HeadKeys::new([&public_key_from_pem(&proof.public_key)?])?;
        proof::Consistency::parse(&proof.proof)?.verify(&earlier, Some(&key))?;
        if app.out.json { app.out.body(&proof) } else { app.out.bytes(proof.proof.as_bytes()) }
    }
}

/// Write a log folder as a tiled log (C2SP tlog-tiles), which any web server can show and other tools can read.
///
/// Works offline, on the folder of a running service or on a copy. Over an older export it writes what is new.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit export /var/lib/signet/audit /srv/www/log --public-key log.pem
  signet audit verify /srv/www/log --public-key log.pem")]
struct Export {
    /// The folder of the log.
    folder: PathBuf,
    /// Where to. The records are not encrypted: whoever can read this reads the log.
    to: PathBuf,
    /// The public keys that sign heads, in PEM.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

impl Export {
    fn run(self, app: &App) -> Result<()> {
        let keys = HeadKeys::given(&keys(self.public_key.as_deref())?)?;
        let done = crate::audit::export(&self.folder, &self.to, keys.as_ref())?;
        for index in &done.too_long {
            note(format!("record {index} is too long for a bundle, so its bundle was left out"));
        }
        let (origin, size) = (done.head.origin().to_string(), done.head.size());
        let body =
            serde_json::json!({"origin": origin, "size": size, "written": done.written, "too_long": done.too_long});
        app.out.answer(&body, |_| {
            facts([("log", origin.clone()), ("records", size.to_string()), ("files written", done.written.to_string())])
        })
    }
}

/// Compress the closed segments of a log folder into another folder, which `signet audit verify` checks as it checks the log.
///
/// Works offline, on the folder of a running service or on a copy, and can be repeated at any time: it adds what is new, goes on
/// after a crash, and compares what is there with the log. An archive that is another's or was changed is never written over.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit archive /var/lib/signet/audit /mnt/archive/signet --public-key log.pem
  signet audit archive /var/lib/signet/audit s3://logs/signet --region eu-central-1 --ca ca.pem --credentials s3.credentials
  signet audit verify /mnt/archive/signet --public-key log.pem
  zcat /mnt/archive/signet/log-00000000000000000000.jsonl.gz | jq 'select(.outcome == \"forbidden\")'")]
struct Archive {
    /// The folder of the log.
    folder: PathBuf,
    /// Where to: a folder that is there, or s3://BUCKET/PREFIX, with nothing but the archive of this log.
    to: PathBuf,
    /// The public keys that sign heads, in PEM.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    #[command(flatten)]
    store: Store,
}

/// Bring an archive from an S3-compatible bucket into a folder, where `signet audit verify` checks it. Repeated, it goes on.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit fetch s3://logs/signet archive --region eu-central-1 --ca ca.pem --credentials s3.credentials
  signet audit verify archive --public-key log.pem")]
struct Fetch {
    /// The bucket, as s3://BUCKET/PREFIX.
    from: PathBuf,
    /// Where to: a folder that is there.
    to: PathBuf,
    #[command(flatten)]
    store: Store,
}

impl Fetch {
    fn run(self, app: &App) -> Result<()> {
        let bucket = self.store.bucket(&self.from)?.ok_or_else(|| {
            Error::new(Kind::Invalid, format!("{} is not the address of a bucket", self.from.display()))
                .hint("s3://BUCKET/PREFIX; an archive in a folder needs no fetching")
        })?;
        let segments = crate::audit::fetch(bucket, &self.to)?;
        app.out.answer(&serde_json::json!({"segments": segments}), |_| facts([("segments", segments.to_string())]))
    }
}

impl Archive {
    fn run(self, app: &App) -> Result<()> {
        let keys = keys(self.public_key.as_deref())?;
        let done = match self.store.bucket(&self.to)? {
            Some(bucket) => crate::audit::archive_in_bucket(&self.folder, bucket, &keys)?,
            None => crate::audit::archive(&self.folder, &self.to, &keys)?,
        };
        let body = serde_json::json!({"segments": done.segments, "written": done.written, "records": done.records,
            "signed": done.signed, "plain_bytes": done.plain_bytes, "packed_bytes": done.packed_bytes});
        app.out.answer(&body, |_| {
            facts([
                ("segments", format!("{}, of which {} are new", done.segments, done.written)),
                ("records", format!("{}, of which {} below a signed head", done.records, done.signed)),
                ("bytes", format!("{}, of {} in the log", done.packed_bytes, done.plain_bytes)),
            ])
        })
    }
}

/// Remove old records from the log of the service, which its archive holds: prints what would go, and does it by --yes.
///
/// The hashes of all records stay, so proofs, receipts, witnesses and anchors hold as before. Whole segments go, that are closed, that the
/// archive of the configuration ([audit.retention]) was just found to hold, and that are below a signed head; where there are
/// witnesses, below one that they cosigned. Each step of at most 16 segments is a record of the log.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit archive /var/lib/signet/audit /mnt/archive/signet --public-key log.pem
  signet audit prune --keep 90d
  signet audit prune --keep 90d --yes
  signet audit verify /var/lib/signet/audit --public-key log.pem --archive /mnt/archive/signet")]
struct Prune {
    /// Only records below that index.
    #[arg(long, value_name = "INDEX")]
    below: Option<u64>,
    /// Only records that are older.
    #[arg(long, value_name = "PERIOD", required_unless_present = "below")]
    keep: Option<Period>,
    /// Do it, without a question.
    #[arg(long)]
    yes: bool,
}

impl Prune {
    fn run(self, app: &App) -> Result<()> {
        let mut body = PruneAudit { below: self.below, keep: self.keep, dry_run: true };
        let mut last = app.online(async |client| client.audit_prune(&body).await)?;
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
        if last.segments == 0 || !(self.yes || terminal) {
            if last.segments > 0 {
                note("nothing was removed: add --yes");
            }
            return app.out.answer(&last, pruned);
        }
        if !self.yes {
            note(pruned(&last));
        }
        confirm(
            &format!("removing records {} to {} from the log", last.first, last.below - 1),
            &last.below.to_string(),
            self.yes,
        )?;
        body.dry_run = false;
        if !self.yes {
            // What was confirmed, and no more.
            body.below = Some(last.below);
        }
        loop {
            let first = last.first;
            last = app.online(async |client| client.audit_prune(&body).await)?;
            last.segments = if last.done { last.segments } else { 0 };
            app.out.answer(&last, pruned)?;
            if !(last.done && last.more && last.below > first) {
                return Ok(());
            }
        }
    }
}

/// What went, or would go, for people.
fn pruned(pruned: &AuditPruned) -> String {
    let AuditPruned { first, below, segments, bytes, head, limits, archive, more, done } = pruned;
    let mut text = if *segments == 0 {
        format!("nothing goes: the log begins with record {first}")
    } else {
        let verb = if *done { "removed" } else { "would remove" };
        let records = below - first;
        format!(
            "{verb} records {first} to {} ({records} in {segments} segments, {bytes} bytes), which {archive} holds, below the head of {head}",
            below - 1
        )
    };
    if *more {
        text.push_str("; there is more");
    }
    for (what, from) in limits {
        text.push_str(&format!("\nkept from record {from} on by: {what}"));
    }
    text
}

/// Show records from an index on.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit show 0
  signet audit show 4711 --limit 1 --json")]
struct Show {
    /// The index of the first record.
    first: u64,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE)))]
    limit: u32,
}

/// The records from `first` on, by as many requests as it takes: an answer is bounded by its bytes as well.
async fn several(client: &Client, first: u64, limit: u32) -> Result<AuditRecords> {
    let end = first.saturating_add(u64::from(limit));
    let mut all = client.audit_records(first, Some(limit)).await?;
    while all.next < end.min(all.size) {
        let rest = u32::try_from(end - all.next).unwrap_or(limit);
        let AuditRecords { records, next, size, .. } = client.audit_records(all.next, Some(rest)).await?;
        if next <= all.next {
            break;
        }
        all.records.extend(records);
        (all.next, all.size) = (next, size);
    }
    Ok(all)
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let records = app.online(async |client| several(client, self.first, self.limit).await)?;
        app.out.answer(&records, |records| shown(records, app.out.terminal))
    }
}

/// Show the newest records.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit tail -n 50
  signet audit tail --follow --json | jq 'select(.outcome == \"forbidden\")'
  signet audit tail --syslog --follow --from 4711 | socat - TCP:collector.example:514")]
struct Tail {
    /// How many.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(PAGE)))]
    count: u32,
    /// Go on with each new record; by --json, one on each line.
    #[arg(short, long)]
    follow: bool,
    /// From this index on instead: where an export that stopped goes on.
    #[arg(long, value_name = "INDEX", conflicts_with = "count")]
    from: Option<u64>,
    /// Each record as a message of syslog (RFC 5424), one on each line.
    #[arg(long, conflicts_with = "json")]
    syslog: bool,
}

impl Tail {
    fn run(self, app: &App) -> Result<()> {
        app.online(async |client| {
            // The size comes with any page.
            let size = client.audit_records(0, Some(1)).await?.size;
            let mut next = self.from.unwrap_or_else(|| size.saturating_sub(u64::from(self.count)));
            loop {
                let records = if next < size || self.follow { read(client, next).await? } else { return Ok(()) };
                if records.first > next {
                    note(format!("records {next} to {} were pruned", records.first - 1));
                }
                next = self.print(app, &records)?.max(next);
                if !self.follow && next >= size {
                    return Ok(());
                }
                if next >= records.size {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        })
    }
}

impl Tail {
    /// Writes records, and returns the index behind the last.
    fn print(&self, app: &App, records: &AuditRecords) -> Result<u64> {
        if self.syslog {
            for (index, record) in (records.first..).zip(&records.records) {
                app.out.bytes(format!("{}\n", message(index, record)?).as_bytes())?;
            }
        } else if app.out.json {
            for record in &records.records {
                app.out.bytes(&super::output::json(record, false)?)?;
            }
        } else {
            app.out.text(&shown(records, app.out.terminal))?;
        }
        Ok(records.next)
    }
}

async fn read(client: &Client, first: u64) -> Result<AuditRecords> {
    client.audit_records(first, Some(PAGE)).await
}

fn shown(records: &AuditRecords, terminal: bool) -> String {
    if records.records.is_empty() {
        return String::new();
    }
    let rows = (records.first..).zip(&records.records).map(|(index, record)| {
        let mut row = vec![index.to_string()];
        row.extend(
            ["time", "principal", "action", "resource", "phase", "outcome", "request"].map(|name| cell(record, name)),
        );
        row
    });
    let header = ["INDEX", "TIME", "PRINCIPAL", "ACTION", "RESOURCE", "PHASE", "OUTCOME", "REQUEST"];
    table(&header, rows, terminal)
}

fn cell(record: &Value, name: &str) -> String {
    match record.get(name) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::String(_) | Value::Null) | None => "-".to_owned(),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => other.to_string(),
    }
}

/// Show the newest signed head of the log.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet audit head
  signet audit head --public-key > log.pem
  signet audit head --verifier-key")]
struct Head {
    /// Only the public keys that sign heads, in PEM: keep them for `signet audit verify`.
    #[arg(long)]
    public_key: bool,
    /// Only those keys with the name of the log, in one line each: what a witness is told (C2SP signed-note).
    #[arg(long, conflicts_with = "public_key")]
    verifier_key: bool,
}

impl Head {
    fn run(self, app: &App) -> Result<()> {
        let head = app.online(async |client| client.audit_head().await)?;
        let second = head.ed25519_public_key.as_deref().unwrap_or_default();
        let pem = format!("{}{second}", head.public_key);
        if self.public_key {
            return app.out.text(pem.trim_end());
        }
        if self.verifier_key {
            let origin = checkpoint::Head::parse(&head.note)?.origin().to_string();
            let keys =
                public_keys_from_pem(&pem)?.into_iter().map(|key| Ok(NoteKey::of_log(&origin, &key)?.to_string()));
            return app.out.text(&keys.collect::<Result<Vec<_>>>()?.join("\n"));
        }
        app.out.answer(&head, |head| format!("{}\n{}", head.note.trim_end(), pem.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_numbered_from_the_first() {
        let record = serde_json::json!({"time": "t", "phase": "done", "request": "r", "principal": "identity/ci",
            "action": "Sign", "resource": "key/default:a", "outcome": "ok"});
        let records =
            AuditRecords { first: 41, records: vec![record, serde_json::json!({"time": "u"})], next: 43, size: 43 };
        let text = shown(&records, false);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("41     t     identity/ci  Sign"), "{text}");
        assert!(lines[2].starts_with("42     u     -"), "{text}");
        assert_eq!(shown(&AuditRecords { first: 0, records: vec![], next: 0, size: 0 }, false), "");
    }
}
