//! One audit record: a line of JSON, and the leaf of the Merkle tree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::tile::MAX_ENTRY;

/// What an audit record says. No secret, plaintext or token; client strings are escaped by JSON and cut by their limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When, in RFC 3339 with microseconds, UTC.
    pub time: String,
    /// Which part of an operation this is.
    pub phase: Phase,
    /// The request it belongs to.
    pub request: String,
    /// Who: `identity/NAME`, `system/JOB`, or `anonymous` where authentication failed.
    pub principal: String,
    /// By which credential: `token/ID`, `certificate/HASH`, `process`, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub credential: String,
    /// From which address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The operation, one of [`crate::types::Action`].
    pub action: String,
    /// On what, as [`crate::types::Resource`] prints it.
    pub resource: String,
    /// Why it was allowed or refused: the names of the policies that decided, or a reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub decision: String,
    /// How it ended: `ok`, or the kind of the error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// The precise reason of a failure: for the auditor, never sent to the caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The key's id in hex, where one took part.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_id: String,
    /// The key version, where one took part; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u32,
    /// The encryption context.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
    /// The items of a batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Further facts, such as the digest that was signed or the hash of the records that changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// What `facts.part`, commas and brackets take of a line beside the items.
const MARGIN: usize = 64;

impl Record {
    /// This record, or several with its items in order where they would make a line that no bundle of a tiled log holds: then
    /// each says in `facts` which part it is, as `2/3`. A single item always fits.
    #[must_use]
    pub fn parts(mut self) -> Vec<Self> {
        if self.items.iter().map(Item::most_bytes).sum::<usize>() < MAX_ENTRY / 2 {
            return vec![self];
        }
        let items = std::mem::take(&mut self.items);
        let room = MAX_ENTRY.saturating_sub(length(&self) + MARGIN);
        let (mut parts, mut part, mut used) = (Vec::new(), Vec::new(), 0);
        for item in items {
            let bytes = length(&item) + 1;
            if used + bytes > room && !part.is_empty() {
                parts.push(std::mem::take(&mut part));
                used = 0;
            }
            used += bytes;
            part.push(item);
        }
        parts.push(part);
        let count = parts.len();
        let make = |(number, items)| {
            let mut record = Self { items, ..self.clone() };
            if count > 1 {
                record.facts.insert("part".to_owned(), format!("{number}/{count}"));
            }
            record
        };
        (1..).zip(parts).map(make).collect()
    }
}

/// The bytes of something as it stands in a line.
fn length(value: &impl Serialize) -> usize {
    // A record can always be written.
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

/// Which part of an operation a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Written before an act that changes a device.
    Intent,
    /// A change of state that is committed: its facts hold the hash of what changed.
    Change,
    /// The end of an operation.
    Done,
    /// An operation that was not allowed.
    Refused,
    /// An operation whose permit was dropped without an end: a crash or a defect.
    Abandoned,
    /// What start-up found and mended.
    Recovered,
}

/// One item of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// `ok`, or the kind of the error.
    pub outcome: String,
    /// The precise reason of a failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The key version; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u32,
    /// The encryption context.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
}

impl Item {
    /// No fewer bytes than it takes in a line: quick, and far too many where nothing is escaped.
    fn most_bytes(&self) -> usize {
        let Self { outcome, reason, version: _, context } = self;
        let context: usize = context.iter().map(|(key, value)| 6 * (key.len() + value.len()) + 6).sum();
        64 + 6 * (outcome.len() + reason.len()) + context
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_items_of_a_batch_are_parted_so_that_each_line_fits() {
        let text = "{\"time\":\"t\",\"phase\":\"done\",\"request\":\"r\",\"principal\":\"p\",\"action\":\"a\",\"resource\":\"s\"}";
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.clone().parts(), vec![record.clone()]);
        // As much as a context can hold, escaped as much as it can be.
        let worst = BTreeMap::from([("k".to_owned(), "\u{1}".repeat(8000))]);
        for (context, count, least) in [(BTreeMap::new(), 1000, 1), (worst, 40, 40)] {
            let item =
                |version| Item { outcome: "ok".into(), reason: String::new(), version, context: context.clone() };
            let whole = Record { items: (1..=count).map(item).collect(), ..record.clone() };
            let parts = whole.clone().parts();
            assert!(parts.len() >= least, "{}", parts.len());
            assert!(parts.iter().all(|part| length(part) <= MAX_ENTRY));
            let items: Vec<_> = parts.iter().flat_map(|part| part.items.clone()).collect();
            assert_eq!(items, whole.items);
            let named = format!("2/{}", parts.len());
            assert_eq!(parts.get(1).map(|part| &part.facts["part"]), parts.get(1).map(|_| &named));
        }
    }
}
