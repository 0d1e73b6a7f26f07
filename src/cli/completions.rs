//! `signet completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{App, Cli};
use crate::error::Result;

/// Write the completions of a shell.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet completions bash > /etc/bash_completion.d/signet")]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "signet", &mut script);
        app.out.bytes(&script)
    }
}
