//! `signet key`: keys and their versions.

mod change;
mod create;
mod show;
mod version;

use clap::Args;

use super::{App, verbs};
use crate::error::Result;
pub(super) use change::version;

/// Make, show, change and destroy keys.
#[derive(Args, Debug)]
pub(super) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

impl Key {
    pub(super) fn run(self, app: &App) -> Result<()> {
        self.verb.run(app)
    }
}

verbs! {
    /// What can be done to keys and versions.
    Verb {
        Create(create::Create),
        List(show::List),
        Show(show::Show),
        Update(change::Update),
        Rotate(change::Rotate),
        Versions(version::Versions),
        Activate(version::Activate),
        Suspend(version::Suspend),
        Resume(version::Resume),
        Deactivate(version::Deactivate),
        Compromise(version::Compromise),
        Destroy(version::Destroy),
        Restore(version::Restore),
        Delete(change::Delete),
        PublicKey(show::PublicKey),
    }
}
