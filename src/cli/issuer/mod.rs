//! `signet issuer`: authorities that issue certificates.

mod change;
mod create;
mod show;
mod version;

use clap::Args;

use super::{App, verbs};
use crate::error::Result;

/// Make, show, renew and change authorities.
#[derive(Args, Debug)]
pub(super) struct Issuer {
    #[command(subcommand)]
    verb: Verb,
}

impl Issuer {
    pub(super) fn run(self, app: &App) -> Result<()> {
        self.verb.run(app)
    }
}

verbs! {
    /// What can be done to issuers.
    Verb {
        Create(create::Create),
        List(show::List),
        Show(show::Show),
        Bundle(show::Bundle),
        Request(show::Request),
        Import(version::Import),
        Update(change::Update),
        Rotate(version::Rotate),
        Activate(version::Activate),
        CrossSign(version::CrossSign),
        Revoke(change::Revoke),
    }
}
