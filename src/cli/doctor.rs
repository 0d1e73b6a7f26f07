//! `signet doctor`.

use clap::Args;

use super::output::facts;
use super::serve::ConfigFile;
use super::{App, service_runtime};
use crate::doctor::{self, Finding, Verdict};
use crate::error::{Error, Kind, Result};
use crate::server::Options;

/// Find what is wrong with an installation, and print the mend.
///
/// Looks at the configuration, the data folder, the audit log and, where the service is not running, at each device. With
/// `--code` it explains a return code of PKCS#11 or a response code of a TPM.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet doctor --config signet.toml
  signet doctor --code CKR_PIN_LOCKED
  signet doctor --code 0x921")]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    /// Explain a code, such as CKR_DEVICE_ERROR or 0x921, and do nothing else.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
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
        let findings = service_runtime(async { Ok(doctor::examine(&config, &Options::new()?.program).await) })?;
        app.out.answer(&findings, |findings| findings.iter().map(shown).collect::<Vec<_>>().join("\n"))?;
        let wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
        if wrong == 0 {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, format!("{wrong} things are wrong")).hint("each is followed by its mend"))
    }
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
