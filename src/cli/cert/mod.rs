//! `signet cert`: certificates.

mod issue;
mod key;
mod many;
mod revoke;
mod show;

use clap::Args;

use super::{App, verbs};
use crate::error::Result;
pub(super) use revoke::{REASONS, SUPERSEDED};
pub(super) use show::moment;

/// Issue, find, renew and revoke certificates.
#[derive(Args, Debug)]
pub(super) struct Cert {
    #[command(subcommand)]
    verb: Verb,
}

impl Cert {
    pub(super) fn run(self, app: &App) -> Result<()> {
        self.verb.run(app)
    }
}

verbs! {
    /// What can be done to certificates.
    Verb {
        Issue(issue::Issue),
        IssueMany(many::IssueMany),
        List(show::List),
        Show(show::Show),
        Due(show::Due),
        Renew(issue::Renew),
        Revoke(revoke::Revoke),
    }
}
