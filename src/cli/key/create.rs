//! `signet key create`.

use clap::Args;

use super::show::shown;
use crate::cli::App;
use crate::cli::input::{map, one_of, pair, parsed};
use crate::error::Result;
use crate::types::{Algorithm, Domain, KeyName, Name, Pcrs, Period, Residency, Retention, Rotation};
use crate::wire::CreateKey;

/// Make a key and its first version.
///
/// Algorithm and domain are chosen here for good.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key create payments:card-data --algorithm aes256-gcm-derived --rotate-every 90d
  signet key create release --algorithm ecdsa-p256-sha256 --domain raw --label team=build
  signet key create disk --algorithm aes256-gcm-derived --device tpm --pcr sha256:0,2,7")]
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
}

impl Create {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { name, algorithm, device, residency, pcrs, domain, rules, labels, no_deletion_protection } = self;
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
