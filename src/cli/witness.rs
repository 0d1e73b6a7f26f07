//! `signet witness`: the witness of other logs.

use std::path::PathBuf;

use clap::Args;

use super::output::note;
use super::serve::asked_to_end;
use super::{App, noun, service_runtime};
use crate::config::WitnessConfig;
use crate::error::Result;
use crate::server::Options;
use crate::witness;

noun! {
    /// Watch over the logs of other installations, on a machine of its own.
    Witness: Verb {
        Init(Init),
        Key(Key),
        Serve(Serve),
    }
}

/// Where the configuration of the witness is.
#[derive(Args, Debug)]
struct ConfigFile {
    /// The configuration of the witness.
    #[arg(long, env = "SIGNET_WITNESS_CONFIG", value_name = "FILE", default_value = WitnessConfig::DEFAULT_FILE)]
    config: PathBuf,
}

impl ConfigFile {
    fn read(&self) -> Result<WitnessConfig> {
        WitnessConfig::read(&self.config)
    }
}

/// Set up a witness in an empty folder: makes its key in the device, and prints what verifies its cosignatures.
///
/// Logs name that line in their configuration, and auditors keep it. Nothing else ever makes the key: a witness that lost its
/// folder or its token is another one.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet witness init --config witness.toml")]
struct Init {
    #[command(flatten)]
    config: ConfigFile,
}

impl Init {
    fn run(self, app: &App) -> Result<()> {
        let config = self.config.read()?;
        let key = service_runtime(witness::init(&config, &Options::new()?))?;
        note(format!("{} is set up; next:", config.data.display()));
        note(format!("  signet witness serve --config {}", self.config.config.display()));
        app.out.bytes(format!("{key}\n").as_bytes())
    }
}

/// Print what verifies the cosignatures of the witness.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet witness key --config witness.toml")]
struct Key {
    #[command(flatten)]
    config: ConfigFile,
}

impl Key {
    fn run(self, app: &App) -> Result<()> {
        let key = witness::verifier_key(&self.config.read()?)?;
        app.out.bytes(format!("{key}\n").as_bytes())
    }
}

/// Run the witness until it is asked to end.
///
/// It takes the checkpoints of the logs in its configuration at POST /add-checkpoint (C2SP tlog-witness), cosigns each that goes on
/// from the one before, and refuses all others. SIGTERM and SIGINT end it in order; SIGHUP reads its certificate again and tries a
/// device that is down once more.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet witness serve
  signet witness serve --config witness.toml")]
struct Serve {
    #[command(flatten)]
    config: ConfigFile,
}

impl Serve {
    fn run(self, _: &App) -> Result<()> {
        let config = self.config.read()?;
        crate::telemetry::start_logs();
        service_runtime(async {
            let witness = witness::Witness::start(&config, &Options::new()?).await?;
            let scheme = if config.certificate.is_some() { "https" } else { "http" };
            note(format!("signet serves on {scheme}://{} as {}", witness.address(), witness.verifier_key()));
            asked_to_end(|| witness.reload()).await?;
            note("the witness ends: what is in flight finishes");
            witness.stop().await
        })
    }
}
