//! Where the store stands, and whether its anchors agree. Pure: no store, no device.
//!
//! ```text
//! state  = epoch · map root · last signed head of the log · for each anchor, what was known of it before
//! digest = SHA-256("signet state v1" || epoch (8) || map root (32) || size (8) and root (32) of the head, zeros for none)
//! mark   = epoch (8) || digest (32)                                                                  big-endian
//! slot   = mark (40) || first 8 bytes of SHA-256("signet anchor v1" || mark)                         see `device`
//! ```
//!
//! Each commit has the next epoch, so no two states are the same, and holds its own state in the sealed `ledger/open`. An
//! anchor is written after the commit and before the acknowledgement, or within a second for what may wait. What its newest
//! slot says at a start:
//!
//! ```text
//! the mark of the store's state        in order
//! what was known of it before          a crash came between commit and anchor: the anchor is moved on
//! a later epoch                        rollback: the store is older than what was anchored
//! anything else, or nothing            another history, or another device
//! ```
//!
//! Two commits may come to have one epoch, where the first was never anchored and the store was put back before it. Then the
//! anchor tells them apart by their content, which a counter could not. `model` tries every crash and every exchange.

#[cfg(test)]
mod model;
#[cfg(test)]
mod rivals;
#[cfg(test)]
mod witnessed;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::device::{ANCHOR_SLOT, AnchorSlot};
use crate::error::{Error, Kind, Result};
use crate::types::{lower_hex, sha256};

/// A place in a history: how far, and the hash of what was there. As text `1042:ab12…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mark {
    /// The epoch of a state, or the size of a log.
    pub number: u64,
    /// The digest of the state, or the root of the log.
    pub hash: [u8; 32],
}

/// Where the store stands after a commit: part of `ledger/open`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) epoch: u64,
    /// The root of the map.
    #[serde(with = "hex::serde")]
    pub(super) map: [u8; 32],
    /// The last head of the log that was signed by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) head: Option<Mark>,
    /// What was known of each anchor before this commit.
    pub(super) anchors: BTreeMap<String, Seen>,
    /// What was last known of those that were not configured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) away: BTreeMap<String, Seen>,
}

impl State {
    /// What an anchor holds of it.
    pub(super) fn mark(&self) -> Mark {
        let (size, root) = self.head.map_or((0, [0; 32]), |head| (head.number, head.hash));
        let (epoch, size) = (self.epoch.to_be_bytes(), size.to_be_bytes());
        let hash = sha256(&[b"signet state v1", &epoch, &self.map, &size, &root]);
        Mark { number: self.epoch, hash }
    }

    /// What is known of the anchors that are not among `present`: they hold what they held when they went away.
    pub(super) fn away_but(&self, present: &[&str]) -> BTreeMap<String, Seen> {
        let mut away = self.away.clone();
        for (name, seen) in &self.anchors {
            let mut seen = seen.clone();
            // They may have been moved on to this very state.
            seen.unsure.push(self.mark());
            away.insert(name.clone(), seen);
        }
        away.retain(|name, _| !present.contains(&name.as_str()));
        away
    }
}

/// What is known of an anchor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    /// The newest mark that is known to stand there; `None` where it was blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) known: Option<Mark>,
    /// Newer ones whose writing failed: one of them may stand there all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unsure: Vec<Mark>,
}

impl Seen {
    /// Of an anchor that holds `mark`, or is blank.
    pub(super) const fn of(mark: Option<Mark>) -> Self {
        Self { known: mark, unsure: Vec::new() }
    }

    /// The slot that stays when the anchor is written.
    pub(super) fn slot(&self) -> AnchorSlot {
        self.known.map_or(AnchorSlot::BLANK, |mark| mark.slot())
    }

    /// What stands among `slots` beside that one.
    pub(super) fn beside(&self, mut slots: Vec<AnchorSlot>) -> Vec<AnchorSlot> {
        if let Some(at) = slots.iter().position(|slot| *slot == self.slot()) {
            slots.remove(at);
        }
        slots
    }

    /// What it is now known to hold, after its slots were read; `None` where that is nothing that we wrote.
    pub(super) fn after(&self, slots: &[AnchorSlot]) -> Option<Self> {
        let newest = newest(slots);
        let ours = newest == self.known || newest.is_some_and(|mark| self.unsure.contains(&mark));
        ours.then(|| Self::of(newest))
    }
}

/// The newest mark that is whole.
pub(super) fn newest(slots: &[AnchorSlot]) -> Option<Mark> {
    slots.iter().filter_map(Mark::of).max_by_key(|mark| mark.number)
}

/// Compares an anchor with the state of the store, if it has one: what is known of the anchor from then on.
///
/// # Errors
/// `Tampered` where they are not of one history, with both positions and the mend.
pub(super) fn compare(state: Option<&State>, anchor: &str, slots: &[AnchorSlot]) -> Result<Seen> {
    let found = newest(slots);
    let Some(state) = state else {
        return found.map_or_else(|| Ok(Seen::of(None)), |found| Err(rollback(anchor, found, 0)));
    };
    let before = state.anchors.get(anchor).or_else(|| state.away.get(anchor));
    if found.is_some_and(|found| found == state.mark()) {
        return Ok(Seen::of(found));
    }
    if let Some(seen) = before.and_then(|before| before.after(slots)) {
        return Ok(seen);
    }
    match found {
        Some(found) if found.number > state.epoch => Err(rollback(anchor, found, state.epoch)),
        Some(found) => {
            Err(another(format!("{found} of another history than the store, which is at {}", state.mark()), anchor))
        }
        None => Err(another(format!("nothing, and the store is at epoch {}", state.epoch), anchor)),
    }
}

fn rollback(anchor: &str, found: Mark, epoch: u64) -> Error {
    let text = format!(
        "rollback: the anchor in {anchor} is at epoch {}, the store at epoch {epoch}: what came after that is missing",
        found.number
    );
    Error::new(Kind::Tampered, text).hint(MEND)
}

fn another(what: String, anchor: &str) -> Error {
    Error::new(Kind::Tampered, format!("the anchor in {anchor} holds {what}")).hint(MEND)
}

pub(super) const MEND: &str = "put the newest signet.db, root.json and audit folder back, with the device they belong to; where they are lost, \
                    `signet restore --accept-rollback` goes on from what is here and records the gap for ever";

impl Mark {
    /// As it stands in an anchor.
    pub(super) fn slot(&self) -> AnchorSlot {
        let number = self.number.to_be_bytes();
        let check = sha256(&[b"signet anchor v1", &number, &self.hash]);
        let mut slot = [0; ANCHOR_SLOT];
        slot.iter_mut().zip(number.iter().chain(&self.hash).chain(&check)).for_each(|(place, byte)| *place = *byte);
        AnchorSlot(slot)
    }

    /// What a slot says; `None` for one that is blank or torn.
    pub(super) fn of(slot: &AnchorSlot) -> Option<Self> {
        let (number, rest) = slot.0.split_first_chunk()?;
        let mark = Self { number: u64::from_be_bytes(*number), hash: *rest.first_chunk()? };
        (mark.slot() == *slot).then_some(mark)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, hex::encode(self.hash))
    }
}

impl FromStr for Mark {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once(':').and_then(|(number, hash)| Some((number.parse().ok()?, lower_hex(hash)?)));
        let (number, hash) = parts.ok_or_else(|| Error::new(Kind::Invalid, "not a mark of a state"))?;
        Ok(Self { number, hash })
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.to_string()
    }
}

impl TryFrom<String> for Mark {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_that_was_away_is_known_when_it_comes_back() {
        let state = |epoch, anchors: &[(&str, Seen)], away| State {
            epoch,
            map: [0; 32],
            head: None,
            anchors: anchors.iter().map(|(name, seen)| ((*name).to_owned(), seen.clone())).collect(),
            away,
        };
        // Both are moved on to the fifth state; then one of them is taken away for three starts.
        let fifth = state(5, &[("a", Seen::of(None)), ("b", Seen::of(None))], BTreeMap::new());
        let sixth = state(6, &[("a", Seen::of(Some(fifth.mark())))], fifth.away_but(&["a"]));
        let seventh = state(7, &[("a", Seen::of(Some(sixth.mark())))], sixth.away_but(&["a"]));
        let slots = [AnchorSlot::BLANK, fifth.mark().slot()];
        assert_eq!(compare(Some(&seventh), "b", &slots).unwrap(), Seen::of(Some(fifth.mark())));
        // What it never held is another history.
        let other = [Mark { number: 5, hash: [9; 32] }.slot()];
        assert_eq!(compare(Some(&seventh), "b", &other).unwrap_err().kind(), Kind::Tampered);
        assert!(seventh.away_but(&["a", "b"]).is_empty());
    }

    #[test]
    fn a_torn_slot_says_nothing_and_the_other_one_counts() {
        let (old, new) = (Mark { number: 8, hash: [1; 32] }, Mark { number: 9, hash: [2; 32] });
        assert_eq!(Mark::of(&new.slot()), Some(new));
        assert_eq!(new.to_string().parse::<Mark>().unwrap(), new);
        for at in 0..ANCHOR_SLOT {
            let mut torn = new.slot();
            torn.0[at] ^= 1;
            assert_eq!(newest(&[torn, old.slot()]), Some(old), "byte {at}");
        }
        assert_eq!(newest(&[AnchorSlot::BLANK, AnchorSlot::BLANK]), None);
    }
}
