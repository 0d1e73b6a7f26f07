//! `signet doctor`.

use std::io::IsTerminal;

use clap::Args;

use super::output::{facts, table};
use super::serve::ConfigFile;
use super::{App, service_runtime};
use crate::device::{Attempt, Outcome};
use crate::doctor::{self, Finding, Verdict};
use crate::error::{Error, Kind, Result};
use crate::server::Options;
use crate::types::Name;

/// Find what is wrong with an installation, and print the mend.
///
/// Looks at the configuration, the data folder, the audit log and, where the service is not running, at each device. With
/// `--code` it explains a return code of PKCS#11, a response code of a TPM or a class of errors. With `--attack` it tries the known attacks on the
/// interface of a PKCS#11 token, as somebody who stole the PIN would: on keys as most programs make them, and on keys as this
/// service makes them. They are scratch keys, and none stays.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet doctor --config signet.toml
  signet doctor --code CKR_PIN_LOCKED
  signet doctor --code 0x921
  signet doctor --config signet.toml --attack hsm")]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    /// Explain a code, such as CKR_DEVICE_ERROR, 0x921 or DeviceGone, and do nothing else.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Try the known attacks on this device, and do nothing else.
    #[arg(long, value_name = "DEVICE", conflicts_with = "code")]
    attack: Option<Name>,
}

impl Doctor {
    pub(super) fn run(self, app: &App) -> Result<()> {
        if let Some(code) = &self.code {
            let meaning = doctor::explain(code)?;
            return app.out.answer(&meaning, |meaning| {
                facts([
                    ("code", meaning.code.clone()),
                    ("meaning", meaning.meaning.clone()),
                    ("class", meaning.class.clone()),
                    ("mend", meaning.mend.clone()),
                ])
            });
        }
        let config = self.config.read()?;
        if let Some(device) = &self.attack {
            let attempts = service_runtime(async { doctor::attack(&config, device, &Options::new()?.program).await })?;
            app.out.answer(&attempts, |attempts| attacked(attempts))?;
            let holes: Vec<_> = attempts.iter().filter(|one| one.ours == Outcome::Works && !one.owned).collect();
            if holes.is_empty() {
                return Ok(());
            }
            return Err(Error::new(
                Kind::Unavailable,
                format!("{} attacks work on our keys on this device", holes.len()),
            )
            .hint("the device does not heed the template of its keys: trust it only as far as its PIN is kept"));
        }
        let findings = service_runtime(async { Ok(doctor::examine(&config, &Options::new()?.program).await) })?;
        app.out.answer(&findings, |findings| findings.iter().map(shown).collect::<Vec<_>>().join("\n"))?;
        let wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
        if wrong == 0 {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, format!("{wrong} things are wrong")).hint("each is followed by its mend"))
    }
}

fn attacked(attempts: &[Attempt]) -> String {
    let outcome = |outcome: &Outcome, owned: bool| match outcome {
        Outcome::Works if owned => "works, by design".to_owned(),
        Outcome::Works => "WORKS".to_owned(),
        Outcome::Ignored => "no effect".to_owned(),
        Outcome::Refused(by) => format!("refused, {by}"),
    };
    let row =
        |one: &Attempt| vec![one.attack.clone(), outcome(&one.ordinary, one.owned), outcome(&one.ours, one.owned)];
    let count = |pick: fn(&Attempt) -> &Outcome| attempts.iter().filter(|one| *pick(one) == Outcome::Works).count();
    format!(
        "{}\n{} of {} work on an ordinary key, {} on ours",
        table(&["ATTACK", "ORDINARY KEY", "OUR KEY"], attempts.iter().map(row), std::io::stdout().is_terminal()),
        count(|one| &one.ordinary),
        attempts.len(),
        count(|one| &one.ours)
    )
}

fn shown(finding: &Finding) -> String {
    let mark = match finding.verdict {
        Verdict::Good => "ok     ",
        Verdict::Note => "note   ",
        Verdict::Wrong => "WRONG  ",
    };
    let mut text = format!("{mark}{}: {}", finding.what, finding.text);
    if let Some(mend) = &finding.mend {
        text.push_str(&format!("\n       mend: {mend}"));
    }
    text
}
