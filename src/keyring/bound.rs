//! Versions that are bound to registers of the machine (PCRs): whether there still stands what they were bound to.
//!
//! Only the device decides whether a version is used; what is said here is for people, and for the house, which binds no key anew by
//! itself: a machine that was tampered with would have its state made good by the next rotation.

use std::collections::BTreeMap;

use super::{Key, KeyVersion, Keyring};
use crate::device::Worker;
use crate::error::{Error, Kind, Result};
use crate::types::{PcrValues, Pcrs, Version};

/// The most keys that are named.
const MAX_NAMED: usize = 16;

/// What stands in registers, asked of each device once.
#[derive(Default)]
struct Asked(BTreeMap<(String, Pcrs), Option<PcrValues>>);

impl Asked {
    /// The registers of the version in which something else stands now; `None` for a version that is bound to none, or whose device
    /// cannot be asked.
    async fn changed(&mut self, version: &KeyVersion) -> Option<Vec<u8>> {
        let (place, worker) = version.place().ok()?;
        let bound = place.locator.pcrs()?;
        let now = self.now(worker, bound.registers()).await?;
        Some(bound.changed(now))
    }

    async fn now(&mut self, worker: &Worker, registers: Pcrs) -> Option<&PcrValues> {
        let which = (worker.name().to_owned(), registers);
        if !self.0.contains_key(&which) {
            let found = worker.pcrs(registers).await.ok();
            self.0.insert(which.clone(), found);
        }
        self.0.get(&which)?.as_ref()
    }
}

impl Keyring {
    /// For each bound version of a key the registers in which something else stands now. One whose device cannot be asked is left out.
    pub async fn changed_pcrs(&self, key: &Key) -> BTreeMap<Version, Vec<u8>> {
        let (mut asked, mut found) = (Asked::default(), BTreeMap::new());
        for version in key.versions() {
            if let Some(changed) = asked.changed(version).await {
                found.insert(version.number(), changed);
            }
        }
        found
    }

    /// Keys whose primary version the device refuses, because the machine is another one than at its birth.
    pub async fn unusable(&self) -> Vec<String> {
        if !self.devices().values().any(|worker| worker.has_pcrs()) {
            return Vec::new();
        }
        let (mut asked, mut lines, mut more) = (Asked::default(), Vec::new(), 0_usize);
        for key in self.all().iter().filter(|key| key.record.pcrs.is_some()) {
            let Ok(primary) = key.primary() else { continue };
            let Some(changed) = asked.changed(primary).await.filter(|changed| !changed.is_empty()) else { continue };
            if lines.len() == MAX_NAMED {
                more += 1;
                continue;
            }
            let which: Vec<_> = changed.iter().map(ToString::to_string).collect();
            lines.push(format!(
                "version {} of {} is bound to a machine in another state: something else stands in PCR {}",
                primary.number(),
                key.record.name,
                which.join(", ")
            ));
        }
        if more > 0 {
            lines.push(format!("and {more} more keys are bound to a machine in another state"));
        }
        lines
    }

    /// Refuses to bind a key anew where nobody asked for it.
    ///
    /// # Errors
    /// `State`.
    pub(super) async fn stays_bound(&self, key: &Key) -> Result<()> {
        let Ok(primary) = key.primary() else { return Ok(()) };
        match Asked::default().changed(primary).await {
            Some(changed) if !changed.is_empty() => {
                let text = format!("{} is not bound to the present state of the machine by itself", key.record.name);
                Err(Error::new(Kind::State, text).hint(
                    "once you know why its PCRs changed, `signet key rotate` makes a version that is bound to them",
                ))
            }
            Some(_) | None => Ok(()),
        }
    }
}
