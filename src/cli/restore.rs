//! `signet restore`.

use std::path::PathBuf;

use clap::Args;

use super::App;
use super::output::{note, table};
use crate::error::Result;
use crate::server;

/// Restore a backup into an empty folder.
///
/// Every file is checked against the manifest. At the first start from the folder all bearer tokens are revoked, because the
/// backup cannot know which were revoked after it, every counted key gets a new version, and a record of the gap is written.
/// The versions that are listed need the very device they were made in.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet restore --from signet.tar --data /var/lib/signet")]
pub(super) struct Restore {
    /// The archive that `signet backup` wrote.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The folder to restore into: empty or missing.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
}

impl Restore {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let restored = server::restore(&self.from, &self.data)?;
        let manifest = restored.manifest;
        app.out.answer(&manifest, |manifest| {
            let rows = manifest.bound_to_device.iter().map(|bound| {
                vec![bound.key.to_string(), bound.version.to_string(), bound.device.to_string(), bound.reason.clone()]
            });
            let needs = table(&["KEY", "VERSION", "DEVICE", "NEEDS ITS DEVICE BECAUSE IT IS"], rows, app.out.terminal);
            format!("restored the backup of {} of {}\n\n{needs}", manifest.instance, manifest.taken)
        })?;
        note("next: point storage.data to this folder, start the service, and make a token with");
        note("  signet init --new-administrator --config FILE");
        Ok(())
    }
}
