//! `signet device-worker`.

use clap::Args;

use super::App;
use crate::error::Result;

/// Serve one device to the service that started this process. Not for people: `signet serve` starts it.
#[derive(Args, Debug)]
#[command(hide = true, after_help = "Example:\n  signet device-worker")]
pub(super) struct DeviceWorker {}

impl DeviceWorker {
    pub(super) fn run(self, _: &App) -> Result<()> {
        let Self {} = self;
        crate::device::run_worker()
    }
}
