//! What each device was found able to do, on record: `trials/DEVICE` in the store.
//!
//! A device is tried whenever it was opened anew: after a start, after it was away, after it was exchanged. The record changes only
//! where the findings do, however long each took, so that a restart writes nothing; a change is in the audit log with what it was.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Keyring;
use super::record::{FORMAT, put, read};
use crate::device::{Ability, Description, Settings, Worker};
use crate::error::Result;
use crate::store::Expected;
use crate::types::{Name, blocking};

/// What a device was found able to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub(super) format: u32,
    /// When that was first found so.
    pub tried: Timestamp,
    /// Maker, model, and version of the firmware.
    pub model: String,
    /// The library it was reached through.
    pub library: Option<String>,
    /// One row per algorithm and residency.
    pub abilities: Vec<Ability>,
    /// How it differs from the one before it; empty for the first.
    pub changes: Vec<String>,
}

impl Trial {
    fn new(worker: &Worker, description: &Description, tried: Timestamp) -> Self {
        let Description { manufacturer, model, version, max_mac_input: _, abilities } = description;
        let library = match worker.settings() {
            Settings::Pkcs11(settings) => Some(settings.module.display().to_string()),
            Settings::Tpm(_) => None,
        };
        let model = format!("{manufacturer} {model} {version}");
        Self { format: FORMAT, tried, model, library, abilities: abilities.clone(), changes: Vec::new() }
    }

    /// How it differs from an earlier one.
    fn since(&self, earlier: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.model != earlier.model {
            changes.push(format!("it is {}, and was {}", self.model, earlier.model));
        }
        if self.library != earlier.library {
            let shown = |library: &Option<String>| library.clone().unwrap_or_else(|| "none".to_owned());
            changes.push(format!("its library is {}, and was {}", shown(&self.library), shown(&earlier.library)));
        }
        for now in &self.abilities {
            let same = |row: &&Ability| row.algorithm == now.algorithm && row.residency == now.residency;
            let before = earlier.abilities.iter().find(same);
            if before.is_some_and(|before| before.is_as(now)) {
                continue;
            }
            let before =
                before.map_or_else(|| "was not tried".to_owned(), |before| format!("before: {}", before.verdict()));
            changes.push(format!("{} ({}): {}; {before}", now.algorithm, now.residency, now.verdict()));
        }
        changes
    }
}

impl Keyring {
    /// What is on record of a device.
    ///
    /// # Errors
    /// `Tampered` where the record does not hold; `Unavailable` where the store cannot be read.
    pub async fn trial(&self, device: &Name) -> Result<Option<Trial>> {
        let (store, path) = (self.ledger.store(), path(device.as_str()));
        blocking(move || store.get(&path)?.map(|record| read(&record)).transpose()).await
    }

    /// Looks at each device that answers, and puts on record what is new. It asks a device once for each time it was opened.
    pub async fn record_trials(&self) {
        for (device, worker) in &self.devices {
            if worker.state().is_err() {
                continue;
            }
            if let Err(error) = self.record_trial(device, worker).await {
                tracing::warn!(device = device.as_str(), cause = error.chain(), "the device could not be tried");
            }
        }
    }

    async fn record_trial(&self, device: &Name, worker: &Worker) -> Result<()> {
        let description = worker.describe().await?;
        let mut trial = Trial::new(worker, &description, self.ledger.clock().now());
        let mut leaf = self.admission.record_tidying("trial");
        leaf.facts.insert("device".to_owned(), device.to_string());
        match self.trial(device).await? {
            None => "the first trial of this device".clone_into(&mut leaf.reason),
            Some(earlier) => {
                trial.changes = trial.since(&earlier);
                if trial.changes.is_empty() {
                    return Ok(());
                }
                leaf.reason = trial.changes.join("; ");
            }
        }
        for what in &trial.changes {
            tracing::warn!(device = device.as_str(), what, "the device is not what it was");
        }
        let change = put(path(device.as_str()), Expected::Any, &trial)?;
        self.ledger.commit(leaf, vec![change]).await.map(drop)
    }
}

fn path(device: &str) -> String {
    format!("trials/{device}")
}
