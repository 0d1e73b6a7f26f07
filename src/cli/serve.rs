//! `signet serve`.

use std::path::PathBuf;

use clap::Args;

use super::output::note;
use super::{App, service_runtime};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::server::{Options, Server};

/// Run the service until it is asked to end.
///
/// SIGTERM and SIGINT end it in order: what is in flight finishes, within 10 seconds. SIGHUP reads the certificate again and
/// tries devices that are down once more, a refused PIN included.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet serve
  signet serve --config /etc/signet/signet.toml")]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
}

/// Where the configuration of the service is.
#[derive(Args, Debug)]
pub(super) struct ConfigFile {
    /// The configuration of the service.
    #[arg(long, env = "SIGNET_CONFIG", value_name = "FILE", default_value = Config::DEFAULT_FILE)]
    config: PathBuf,
}

impl ConfigFile {
    pub(super) fn read(&self) -> Result<Config> {
        Config::read(&self.config)
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.config
    }
}

impl Serve {
    pub(super) fn run(self, _: &App) -> Result<()> {
        let config = self.config.read()?;
        crate::telemetry::start_logs();
        service_runtime(async {
            let server = Server::start(&config, Options::new()?).await;
            // The sentence below is for everybody; whoever reads the log of the service may know which call failed with which code.
            let server =
                server.inspect_err(|error| tracing::error!(cause = error.chain(), "the service does not start"))?;
            note(format!("signet serves on https://{}", server.address()));
            serve_until_asked(server).await
        })
    }
}

/// Waits for the signals that the help names.
pub(super) async fn serve_until_asked(server: Server) -> Result<()> {
    let hangup = || {
        server.retry_devices();
        server.reload_certificate()
    };
    asked_to_end(hangup).await?;
    note("signet ends: what is in flight finishes");
    server.stop().await
}

/// Waits until the process is asked to end. What `hangup` does at SIGHUP may fail, and is told.
pub(super) async fn asked_to_end(mut hangup: impl FnMut() -> Result<()>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| Error::internal(format!("signals: {e}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hung_up = listen(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hung_up.recv() => if let Err(error) = hangup() {
                tracing::warn!(cause = error.chain(), "the certificate could not be read again");
            },
        }
    }
}
