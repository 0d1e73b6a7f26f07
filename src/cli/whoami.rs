//! `signet whoami`.

use clap::Args;

use super::App;
use super::output::{facts, joined};
use crate::error::Result;
use crate::wire::WhoAmI;

/// Show who the server takes this caller for.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet whoami")]
pub(super) struct Whoami {}

impl Whoami {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self {} = self;
        let who = app.online(async |client| client.whoami().await)?;
        app.out.answer(&who, shown)
    }
}

/// For people.
pub(super) fn shown(who: &WhoAmI) -> String {
    let WhoAmI { principal, groups, credential } = who;
    facts([("principal", principal.clone()), ("groups", joined(groups)), ("credential", credential.clone())])
}
