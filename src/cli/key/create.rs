//! `signet key create`: one key, or a job that makes many.
//!
//! A job asks for its keys in batches, each under an id made of the job's own and the number of the batch: who gives the same command with
//! the same job again is answered what came of the batches that were made, and has the others made.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::show::shown;
use crate::cli::App;
use crate::cli::input::{map, one_of, pair, parsed};
use crate::cli::output::note;
use crate::error::{Error, Result};
use crate::types::{Algorithm, Domain, KeyName, Name, Pcrs, Period, Residency, Retention, Role, Rotation};
use crate::wire::{Batch, CreateKey};

/// Make a key and its first version, or many keys at once.
///
/// Algorithm and domain are chosen here for good. With `--count` it makes wrapped keys, named KEY-0000001 and so on, each by a
/// policy and with a record of its own.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key create payments:card-data --algorithm aes256-gcm-derived --rotate-every 90d
  signet key create release --algorithm ecdsa-p256-sha256 --domain raw --label team=build
  signet key create disk --algorithm aes256-gcm-derived --device tpm --pcr sha256:0,2,7
  signet key create tenants:data --algorithm aes256-gcm-derived --count 100000 --job first-tenants")]
pub(in crate::cli) struct Create {
    /// The new key: NAME, or NAMESPACE:NAME.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// What it does.
    #[arg(long, value_name = "ALGORITHM", value_parser = one_of(Algorithm::ALL, Algorithm::as_str))]
    algorithm: Algorithm,
    /// The device that keeps it, instead of the server's default.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    device: Option<Name>,
    /// Where the private part stays, instead of the device's default.
    #[arg(long, value_name = "WHERE", value_parser = one_of(Residency::ALL, Residency::as_str))]
    residency: Option<Residency>,
    /// In a TPM: bind each version to what stands in these registers of the machine at its birth. It works while that stands there,
    /// and only then.
    #[arg(long = "pcr", value_name = "BANK:N,N", value_parser = parsed::<Pcrs>)]
    pcrs: Option<Pcrs>,
    /// What a signing key may sign: `artifact` where not given; `raw` signs digests of files of any size.
    #[arg(long, value_name = "DOMAIN", value_parser = one_of(Domain::ALL, Domain::as_str))]
    domain: Option<Domain>,
    #[command(flatten)]
    rules: Rules,
    /// A label that policies can read.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Allow the key to be destroyed from the start.
    #[arg(long)]
    no_deletion_protection: bool,
    #[command(flatten)]
    many: Many,
}

/// How many keys, and how.
#[derive(Args, Debug)]
struct Many {
    /// Make that many wrapped keys: KEY-0000001, KEY-0000002 and so on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9_999_999))]
    count: Option<u32>,
    /// The number of the first of them.
    #[arg(long, value_name = "N", default_value = "1", requires = "count", value_parser = clap::value_parser!(u32).range(1..=9_999_999))]
    first: u32,
    /// How many are made together, 1 to 1,000: all of them or none.
    #[arg(long, value_name = "N", requires = "count", value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: Option<u32>,
    /// A name for this job: the same command with the same name goes on where it stopped, within two days.
    #[arg(long, value_name = "NAME", requires = "count", value_parser = parsed::<Name>)]
    job: Option<Name>,
}

/// How many keys are made together where nobody says: what the slowest of tokens makes in some seconds.
const fn together(algorithm: Algorithm) -> u32 {
    match algorithm.role() {
        Role::Mac | Role::Cipher => 1000,
        Role::Agree | Role::Decapsulate => 100,
        Role::Sign | Role::Decrypt => 20,
    }
}

/// What a job has made.
#[derive(Serialize)]
struct Made {
    keys: u32,
    first: KeyName,
    last: KeyName,
}

impl Many {
    /// Makes `count` keys like `one`.
    fn make(self, app: &App, one: &CreateKey, count: u32) -> Result<()> {
        let Self { first, batch, job, count: _ } = self;
        let job = match job {
            Some(job) => job,
            None => drawn()?,
        };
        let (size, end) = (batch.unwrap_or_else(|| together(one.algorithm)), first.saturating_add(count));
        note(format_args!("job {job}: where it is cut short, the same command with --job {job} goes on"));
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta}");
        let bar = ProgressBar::new(count.into()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut next = first;
        let made = app.online(async |client| {
            while next < end {
                let until = next.saturating_add(size).min(end);
                let items: Result<Vec<_>> = (next..until).map(|number| numbered(one, number)).collect();
                client.create_keys(&Batch { items: items? }, Some(&format!("{job}.{next}"))).await?;
                bar.inc((until - next).into());
                next = until;
            }
            Ok(())
        });
        bar.finish_and_clear();
        made.map_err(|error| error.context(format_args!("{} of {count} keys are made", next - first)))?;
        let made = Made { keys: count, first: numbered(one, first)?.name, last: numbered(one, end - 1)?.name };
        app.out.answer(&made, |Made { keys, first, last }| format!("{keys} keys made: {first} to {last}"))
    }
}

/// A name that no other job has.
fn drawn() -> Result<Name> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
    Name::new(&hex::encode(bytes))
}

/// The key of that number.
fn numbered(one: &CreateKey, number: u32) -> Result<CreateKey> {
    let name: KeyName = format!("{}-{number:07}", one.name).parse()?;
    Ok(CreateKey { name, ..one.clone() })
}

impl Create {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { name, algorithm, device, residency, pcrs, domain, rules, labels, no_deletion_protection, many } =
            self;
        let body = CreateKey {
            name,
            algorithm,
            device,
            residency,
            pcrs,
            domain,
            rotation: rules.rotation(Rotation::default()),
            retention: rules.retention(Retention::default()),
            labels: map(labels, "--label")?,
            deletion_protection: !no_deletion_protection,
        };
        if let Some(count) = many.count {
            return many.make(app, &body, count);
        }
        let key = app.online(async |client| client.create_key(&body).await)?;
        app.out.answer(&key, shown)
    }
}

/// When new versions come and old ones go.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Rules {
    /// Rotate after that time, such as 90d.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    rotate_every: Option<Period>,
    /// Rotate after that many uses to protect.
    #[arg(long, value_name = "N")]
    rotate_after_uses: Option<u64>,
    /// Rotate after that many bytes protected.
    #[arg(long, value_name = "N")]
    rotate_after_bytes: Option<u64>,
    /// Keep that many versions besides the primary one, and schedule older ones for destruction.
    #[arg(long, value_name = "N")]
    keep_versions: Option<u32>,
    /// Keep each version for that time after it was superseded.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    keep_for: Option<Period>,
}

impl Rules {
    /// `base`, with what was given here in place of its own.
    pub(super) fn rotation(&self, base: Rotation) -> Rotation {
        let Rotation { every, after_uses, after_bytes } = base;
        Rotation {
            every: self.rotate_every.or(every),
            after_uses: self.rotate_after_uses.or(after_uses),
            after_bytes: self.rotate_after_bytes.or(after_bytes),
        }
    }

    /// The same for retention.
    pub(super) fn retention(&self, base: Retention) -> Retention {
        let Retention { versions, period } = base;
        Retention { versions: self.keep_versions.or(versions), period: self.keep_for.or(period) }
    }
}
