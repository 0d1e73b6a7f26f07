//! `signet status`.

use clap::Args;

use super::App;
use super::output::{facts, joined, table, yes_no};
use crate::device::Ability;
use crate::error::{Error, Kind, Result};
use crate::types::Algorithm;
use crate::wire::{
    AnchorPosition, AuditKey, DeviceAbility, DeviceStatus, ServerCertificate, SinkPosition, Status as Body,
    WitnessPosition,
};

/// Show the state of the service and its devices; exits with 7 where it is not ready.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet status
  signet status --json")]
pub(super) struct Status {
    /// List what each device can and cannot keep, by trial, and how long one use takes.
    #[arg(long)]
    abilities: bool,
}

impl Status {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let status = app.online(async |client| client.status().await)?;
        app.out.answer(&status, |status| shown(status, self.abilities, app.out.terminal))?;
        if status.ready {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, "the service is not ready").hint("the problems above say what is missing"))
    }
}

fn shown(status: &Body, abilities: bool, terminal: bool) -> String {
    let overdue = joined(&status.rotations_overdue);
    let mut text = facts([
        ("version", status.version.clone()),
        ("instance", status.instance.clone()),
        ("ready", yes_no(status.ready).to_owned()),
        ("keys", status.keys.to_string()),
        ("rotations overdue", overdue),
        ("certificate", certificate(status.certificate.as_ref())),
        ("audit records", format!("{}, of which {} below a signed head", status.audit_size, status.audit_signed)),
        ("heads", heads(&status.audit_keys)),
    ]);
    for (title, lines) in [("problem", &status.problems), ("recovered", &status.recovered)] {
        for line in lines {
            text.push_str(&format!("\n{title}: {line}"));
        }
    }
    if !status.audit_sinks.is_empty() {
        text.push_str("\n\n");
        text.push_str(&sinks(&status.audit_sinks, terminal));
    }
    text.push_str("\n\n");
    text.push_str(&devices(&status.devices, terminal));
    let software = |device: &&DeviceStatus| device.software && device.anchor.is_some();
    for device in status.devices.iter().filter(software) {
        text.push_str(&format!(
            "\nnote: {} is software: its anchor proves nothing to whoever can put its files back",
            device.name
        ));
    }
    if !status.witnesses.is_empty() {
        text.push_str("\n\n");
        text.push_str(&witnesses(&status.witnesses, terminal));
    }
    if abilities {
        text.push_str("\n\n");
        text.push_str(&ability_table(&status.devices, terminal));
        for DeviceStatus { name, tried, changes, .. } in &status.devices {
            if let Some(tried) = tried {
                text.push_str(&format!("\n{name}: so since {tried}"));
            }
            changes.iter().for_each(|what| text.push_str(&format!("\n{name}: changed then: {what}")));
        }
    }
    text
}

fn certificate(shown: Option<&ServerCertificate>) -> String {
    let Some(ServerCertificate { source, serial, names, expires }) = shown else { return "-".to_owned() };
    let serial = serial.as_ref().map(|serial| format!(" {serial}")).unwrap_or_default();
    let expires = expires.map(|at| format!(" until {at}")).unwrap_or_default();
    format!("{source}{serial}{expires} for {}", joined(names))
}

/// Who signs the heads of the log.
fn heads(keys: &[AuditKey]) -> String {
    match keys {
        [] => "-".to_owned(),
        [AuditKey { algorithm: Algorithm::EcdsaP256, device }] => format!("ECDSA only, in {device}"),
        keys => keys.iter().map(|key| format!("{} in {}", key.algorithm, key.device)).collect::<Vec<_>>().join(", "),
    }
}

fn sinks(sinks: &[SinkPosition], terminal: bool) -> String {
    let rows = sinks.iter().map(|SinkPosition { name, kind, required, size, behind, rejected, problem }| {
        vec![
            name.to_string(),
            kind.clone(),
            yes_no(*required).to_owned(),
            size.to_string(),
            behind.to_string(),
            rejected.to_string(),
            super::output::or_dash(problem.as_ref()),
        ]
    });
    table(&["SINK", "KIND", "REQUIRED", "RECORDS", "BEHIND", "REJECTED", "PROBLEM"], rows, terminal)
}

fn devices(devices: &[DeviceStatus], terminal: bool) -> String {
    let rows = devices.iter().map(|device| {
        vec![
            device.name.to_string(),
            device.kind.clone(),
            device.model.clone(),
            device.serial.clone(),
            yes_no(device.up).to_owned(),
            device.breaker.clone(),
            device.restarts.to_string(),
            anchor(device.anchor.as_ref()),
            super::output::or_dash(device.problem.as_ref()),
        ]
    });
    table(&["DEVICE", "KIND", "MODEL", "SERIAL", "UP", "BREAKER", "RESTARTS", "ANCHOR", "PROBLEM"], rows, terminal)
}

fn witnesses(witnesses: &[WitnessPosition], terminal: bool) -> String {
    let rows = witnesses.iter().map(|witness| {
        vec![
            witness.name.clone(),
            yes_no(witness.required).to_owned(),
            super::output::or_dash(witness.size.as_ref()),
            super::output::or_dash(witness.cosigned.as_ref()),
            super::output::or_dash(witness.problem.as_ref()),
        ]
    });
    table(&["WITNESS", "REQUIRED", "RECORDS", "COSIGNED", "PROBLEM"], rows, terminal)
}

/// The commit that a device vouches for.
fn anchor(position: Option<&AnchorPosition>) -> String {
    match position {
        None => "-".to_owned(),
        Some(AnchorPosition { epoch: None, .. }) => "blank".to_owned(),
        Some(AnchorPosition { epoch: Some(epoch), behind: 0, .. }) => epoch.to_string(),
        Some(AnchorPosition { epoch: Some(epoch), behind, .. }) => format!("{epoch}, {behind} behind"),
    }
}

fn ability_table(devices: &[DeviceStatus], terminal: bool) -> String {
    let rows = devices.iter().flat_map(|device| {
        device.abilities.iter().map(|ability| {
            vec![
                device.name.to_string(),
                ability.algorithm.to_string(),
                ability.residency.to_string(),
                time(ability),
                verdict(ability),
            ]
        })
    });
    table(&["DEVICE", "ALGORITHM", "RESIDENCY", "ONE USE", "VERDICT"], rows, terminal)
}

/// How long one use took, where it was tried.
fn time(ability: &DeviceAbility) -> String {
    match (&ability.refusal, ability.micros) {
        (None, Some(micros)) => format!("{:?}", std::time::Duration::from_micros(micros)),
        (None, None) => "not tried".to_owned(),
        (Some(_), _) => "-".to_owned(),
    }
}

fn verdict(ability: &DeviceAbility) -> String {
    let DeviceAbility { algorithm, residency, refusal, code, micros } = ability.clone();
    Ability { algorithm, residency, refusal, code, micros }.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stand_between_the_facts_and_the_devices() {
        let status: Body = serde_json::from_value(serde_json::json!({
            "version": "0.1.0", "instance": "i", "ready": false, "problems": ["device tpm is down"], "keys": 2,
            "rotations_overdue": ["default:a"], "audit_size": 9, "audit_signed": 8,
            "devices": [{"name": "tpm", "kind": "tpm", "model": "swtpm", "serial": "s", "up": false, "restarts": 3,
                "abilities": [{"algorithm": "ed25519", "residency": "wrapped", "refusal": "no such curve"}]}],
        }))
        .unwrap();
        let text = shown(&status, true, false);
        assert!(text.contains("ready              no\n"), "{text}");
        assert!(text.contains("\nproblem: device tpm is down\n\nDEVICE"), "{text}");
        assert!(
            text.ends_with("tpm     ed25519    wrapped    -        refused by this program: no such curve"),
            "{text}"
        );
    }
}
