//! `signet key list`, `show` and `public-key`.

use clap::Args;

use super::change::version;
use crate::cli::input::parsed;
use crate::cli::output::{facts, joined, or_dash, time, yes_no};
use crate::cli::{App, all};
use crate::error::Result;
use crate::types::{KeyName, Name, Retention, Rotation, Version};
use crate::wire::Key;

/// List keys.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key list --namespace payments
  signet key list --json | jq -r '.items[].name'")]
pub(in crate::cli) struct List {
    /// Only the keys of this namespace.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    namespace: Option<Name>,
}

impl List {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let keys =
            app.online(async |client| all(async |page| client.keys(self.namespace.as_ref(), page).await).await)?;
        let header = ["NAME", "ALGORITHM", "DOMAIN", "DEVICE", "PROTECTION", "PRIMARY", "LATEST", "ROTATES"];
        app.out.list(&keys, &keys.items, &header, row)
    }
}

fn row(key: &Key) -> Vec<String> {
    vec![
        key.name.to_string(),
        key.algorithm.to_string(),
        or_dash(key.domain),
        key.device.to_string(),
        key.protection.to_string(),
        or_dash(key.primary),
        key.latest.to_string(),
        rotates(key),
    ]
}

fn rotates(key: &Key) -> String {
    if key.rotation_overdue { "overdue".to_owned() } else { or_dash(key.rotates_at.map(time)) }
}

/// Show a key.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet key show payments:card-data")]
pub(in crate::cli) struct Show {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
}

impl Show {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let key = app.online(async |client| client.key(&self.name).await)?;
        app.out.answer(&key, shown)
    }
}

/// A key for people.
pub(super) fn shown(key: &Key) -> String {
    facts([
        ("name", key.name.to_string()),
        ("id", key.id.to_string()),
        ("purpose", key.purpose.to_string()),
        ("algorithm", key.algorithm.to_string()),
        ("domain", or_dash(key.domain)),
        ("device", key.device.to_string()),
        ("protection", key.protection.to_string()),
        ("bound to PCRs", or_dash(key.pcrs)),
        ("primary version", or_dash(key.primary)),
        ("latest version", key.latest.to_string()),
        ("rotation", rotation(&key.rotation)),
        ("next rotation", rotates(key)),
        ("retention", retention(&key.retention)),
        ("labels", joined(key.labels.iter().map(|(name, value)| format!("{name}={value}")))),
        ("deletion protection", yes_no(key.deletion_protection).to_owned()),
        ("created", time(key.created)),
        ("etag", key.etag.clone()),
    ])
}

fn rotation(rule: &Rotation) -> String {
    let Rotation { every, after_uses, after_bytes } = rule;
    let parts = [
        every.map(|every| format!("every {every}")),
        after_uses.map(|uses| format!("after {uses} uses")),
        after_bytes.map(|bytes| format!("after {bytes} bytes")),
    ];
    let text = joined(parts.into_iter().flatten());
    if text == "-" { "by hand".to_owned() } else { text }
}

fn retention(rule: &Retention) -> String {
    let Retention { versions, period } = rule;
    let parts =
        [versions.map(|count| format!("{count} versions besides the primary one")), period.map(|p| format!("for {p}"))];
    let text = joined(parts.into_iter().flatten());
    if text == "-" { "all versions".to_owned() } else { text }
}

/// Write the public key of a version in PEM; by --json as JWK too, with all that `wrap --public-key` needs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key public-key release > release.pem
  signet key public-key release --version 3 --json")]
pub(in crate::cli) struct PublicKey {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// Of this version, instead of the primary one.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version)]
    version: Option<Version>,
}

impl PublicKey {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let key = app.online(async |client| client.public_key(&self.name, self.version).await)?;
        app.out.answer(&key, |key| key.pem.clone())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::key) fn example() -> Key {
        serde_json::from_value(serde_json::json!({
            "name": "default:release", "id": "00112233445566778899aabbccddeeff", "purpose": "sign",
            "algorithm": "ecdsa-p256-sha256", "domain": "raw", "device": "softhsm", "protection": "hsm (wrapped)",
            "primary": 2, "latest": 3, "rotation": {"every": "90d", "after_uses": 5}, "retention": {},
            "labels": {"team": "build"}, "deletion_protection": true, "created": "2026-01-02T03:04:05Z", "etag": "e1",
        }))
        .unwrap()
    }

    #[test]
    fn a_key_is_shown_in_words() {
        let text = shown(&example());
        assert!(text.contains("\nrotation             every 90d, after 5 uses\n"), "{text}");
        assert!(text.contains("\nretention            all versions\n"), "{text}");
        assert!(text.contains("\nlabels               team=build\n"), "{text}");
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        assert_eq!(row(&example()).len(), 8);
        let overdue = Key { rotation_overdue: true, ..example() };
        assert_eq!(row(&overdue).last().unwrap(), "overdue");
    }
}
