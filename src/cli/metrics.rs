//! `signet metrics`.

use clap::Args;

use super::App;
use crate::error::Result;

/// Show the metrics of the server, in the text form of Prometheus.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet metrics")]
pub(super) struct Metrics {}

impl Metrics {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self {} = self;
        app.out.text(&app.online(async |client| client.metrics().await)?)
    }
}
