//! `signet restore`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::output::{note, table};
use super::serve::ConfigFile;
use super::{App, service_runtime};
use crate::error::Result;
use crate::server::{self, Options};

/// Restore a backup into an empty folder, or go on from an older state that was put back on purpose.
///
/// Every file is checked against the manifest. At the first start from the folder all bearer tokens are revoked, because the
/// backup cannot know which were revoked after it, every counted key gets a new version, and a record of the gap is written.
/// The versions that are listed need the very device they were made in.
///
/// A service whose store is older than the anchor in its device does not start: what came after is missing, and only an
/// operator can say that this is wanted. --accept-rollback says it once, for the state that is there now: the anchors follow it,
/// and a record of the gap stays for ever in the store and in the audit log.
#[derive(Args, Debug)]
#[command(
    group(ArgGroup::new("act").required(true).args(["from", "accept_rollback"])),
    after_help = "\
Examples:
  signet restore --from signet.tar --data /var/lib/signet
  signet restore --accept-rollback --config /etc/signet/signet.toml"
)]
pub(super) struct Restore {
    /// The archive that `signet backup` wrote.
    #[arg(long, value_name = "FILE", requires = "data")]
    from: Option<PathBuf>,
    /// The folder to restore into: empty or missing.
    #[arg(long, value_name = "FOLDER", conflicts_with = "accept_rollback")]
    data: Option<PathBuf>,
    /// Go on from the data folder of the configuration, though the anchors do not vouch for it. The service must not be running.
    #[arg(long)]
    accept_rollback: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Restore {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let (Some(from), Some(data)) = (&self.from, &self.data) else { return self.accept() };
        let restored = server::restore(from, data)?;
        let manifest = restored.manifest;
        app.out.answer(&manifest, |manifest| {
            let rows = manifest.bound_to_device.iter().map(|bound| {
                vec![bound.key.to_string(), bound.version.to_string(), bound.device.to_string(), bound.reason.clone()]
            });
            let needs = table(&["KEY", "VERSION", "DEVICE", "NEEDS ITS DEVICE BECAUSE IT IS"], rows, app.out.terminal);
            let sums = manifest.bound.iter().map(|one| format!("\n{} in {}: {}", one.versions, one.device, one.reason));
            let sums: String = sums.collect();
            format!("restored the backup of {} of {}\n\n{needs}\n{sums}", manifest.instance, manifest.taken)
        })?;
        note(
            "next: point storage.data to this folder, and where anything changed after the backup, say that you know it:",
        );
        note("  signet restore --accept-rollback --config FILE");
        note("then start the service, and make a token with");
        note("  signet init --new-administrator --config FILE");
        Ok(())
    }

    fn accept(&self) -> Result<()> {
        let config = self.config.read()?;
        match service_runtime(server::accept_rollback(&config, &Options::new()?))? {
            Some(gap) => note(format!("accepted and recorded: {gap}")),
            None => note("the anchors agree with the store: there was nothing to accept, and nothing was recorded"),
        }
        Ok(())
    }
}
