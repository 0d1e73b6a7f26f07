//! How a service is told that it has a new certificate.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use serde::Deserialize;
use tokio::process::Command;

use crate::error::{Error, Kind, Result};
use crate::types::words;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

words! {
    /// What is sent to a process.
    Signal: "signal" {
        /// Usual for reading files again: nginx, PostgreSQL, HAProxy.
        Hup = "hup",
        /// As some do.
        Usr1 = "usr1",
        /// As others do.
        Usr2 = "usr2",
    }
}

/// By a command, by a signal, by both, or not at all: Envoy and others see for themselves that a link has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tell {
    /// A command for `/bin/sh`, such as `systemctl reload nginx`. It finds the folder in `SIGNET_FOLDER`.
    pub command: Option<String>,
    /// The file with the number of the process that is signalled.
    pub pid_file: Option<PathBuf>,
    /// What is sent; `hup` where absent.
    pub signal: Option<Signal>,
}

impl Tell {
    /// That it makes sense.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a signal to nobody.
    pub fn check(&self) -> Result<()> {
        if self.signal.is_some() && self.pid_file.is_none() {
            return Err(
                Error::new(Kind::Invalid, "a signal needs the process that it is sent to").hint("give a pid_file")
            );
        }
        Ok(())
    }

    /// Tells the service, and waits until the command has ended.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where the command fails or takes longer than a minute, or the process is not there.
    pub async fn run(&self, folder: &Path) -> Result<()> {
        let Self { command, pid_file, signal } = self;
        if let Some(command) = command {
            run(command, folder).await?;
        }
        if let Some(file) = pid_file {
            send(file, signal.unwrap_or(Signal::Hup))?;
        }
        Ok(())
    }
}

fn untold(text: String) -> Error {
    Error::new(Kind::Unavailable, format!("the new certificate is in place, but {text}"))
        .hint("the service goes on with the last one until it is told; the next look tells it again")
}

async fn run(command: &str, folder: &Path) -> Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).env("SIGNET_FOLDER", folder).env_remove("SIGNET_TOKEN");
    // What it prints goes where our own log goes.
    shell.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, shell.status()).await;
    match ended {
        Err(_) => Err(untold(format!("the command took longer than {} s", PATIENCE.as_secs()))),
        Ok(Err(e)) => Err(untold(format!("the command cannot be run: {e}"))),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(untold(format!("the command failed: {status}"))),
    }
}

fn send(file: &Path, signal: Signal) -> Result<()> {
    let text = std::fs::read_to_string(file).map_err(|e| untold(format!("{}: {e}", file.display())))?;
    let number = text.lines().next().and_then(|line| line.trim().parse().ok()).filter(|number| *number > 1);
    let process =
        number.and_then(Pid::from_raw).ok_or_else(|| untold(format!("{} holds no process", file.display())))?;
    let signal = match signal {
        Signal::Hup => rustix::process::Signal::HUP,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
    };
    kill_process(process, signal)
        .map_err(|e| untold(format!("process {} cannot be signalled: {e}", process.as_raw_nonzero())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_fails_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let by = |command: &str| Tell { command: Some(command.to_owned()), ..Tell::default() };
        by("test -d \"$SIGNET_FOLDER\" && touch \"$SIGNET_FOLDER/done\"").run(folder.path()).await.unwrap();
        assert!(folder.path().join("done").exists());
        let error = by("exit 3").run(folder.path()).await.unwrap_err();
        assert!(error.public().contains("exit status: 3"), "{error}");
        Tell::default().run(folder.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_signal_goes_to_the_process_of_the_file_and_to_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        // Not SIGHUP, the usual one: under nohup all children ignore it.
        let by = Tell { pid_file: Some(file.clone()), signal: Some(Signal::Usr1), ..Tell::default() };
        for nobody in ["", "0", "1", "-1", "x", "99999999999"] {
            std::fs::write(&file, nobody).unwrap();
            assert_eq!(by.run(folder.path()).await.unwrap_err().kind(), Kind::Unavailable, "{nobody}");
        }
        let mut child = Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
        std::fs::write(&file, format!("{}\n", child.id().unwrap())).unwrap();
        by.run(folder.path()).await.unwrap();
        assert!(!child.wait().await.unwrap().success());
        let alone = Tell { signal: Some(Signal::Usr1), ..Tell::default() };
        assert_eq!(alone.check().unwrap_err().kind(), Kind::Invalid);
    }
}
