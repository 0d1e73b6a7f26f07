//! What is committed beside a change: the leaves that the log is to take, and where the store stands with it.
//!
//! It is one record, `ledger/open`, and the last of its batch: it is filled in within the transaction, because the revision, and with it the root
//! of the map, is known only there.

use std::cell::RefCell;

use serde::{Deserialize, Deserializer, Serialize};

use super::map::{Edit, Map};
use super::position::State;
use super::to_json;
use crate::audit::Record;
use crate::error::{Error, Kind, Result};
use crate::store::certificates::Row;
use crate::store::{Change, Store};

/// Where it stands.
pub(super) const OPEN: &str = "ledger/open";
/// The fact of a leaf that says where the store stands with it: the mark of the state.
const MARK: &str = "mark";

/// Leaves on their way into the log.
#[derive(Serialize, Deserialize)]
pub(super) struct Open {
    /// How many records the log had before.
    pub(super) after: u64,
    /// The root over them. A program before this one wrote none.
    #[serde(default, with = "hex::serde", skip_serializing_if = "is_none")]
    pub(super) root: [u8; 32],
    /// The leaves, in order. A program before this one wrote a `leaf` alone.
    #[serde(alias = "leaf", deserialize_with = "one_or_more")]
    pub(super) leaves: Vec<Record>,
    /// Where the store stands with this. A program before this one wrote none.
    #[serde(default)]
    pub(super) state: Option<State>,
}

/// What is to be true after a commit.
pub(super) struct Next {
    pub(super) open: Open,
    pub(super) map: Map,
}

/// What is to be committed, but for the revision.
pub(super) struct Draft {
    pub(super) map: Map,
    pub(super) edits: Vec<Edit>,
    pub(super) state: State,
    pub(super) after: u64,
    pub(super) root: [u8; 32],
    pub(super) leaves: Vec<Record>,
}

impl Draft {
    /// Commits `changes`, the last of which is filled in here. What was to be true after it is answered also where the commit
    /// failed.
    pub(super) fn commit(self, store: &dyn Store, changes: &[Change], rows: &[Row]) -> (Result<u64>, Option<Next>) {
        let (draft, next) = (RefCell::new(Some(self)), RefCell::new(None));
        let committed = store.commit_with(changes, rows, &|path, revision, value| {
            let Some(draft) = (if path == OPEN { draft.take() } else { None }) else { return Ok(value.to_vec()) };
            let made = draft.at(revision);
            let bytes = to_json(OPEN, &made.open)?;
            next.replace(Some(made));
            Ok(bytes)
        });
        (committed, next.into_inner())
    }

    fn at(self, revision: u64) -> Next {
        let Self { map, edits, mut state, after, root, mut leaves } = self;
        let map = map.after(&edits, revision);
        state.map = map.root();
        for leaf in &mut leaves {
            leaf.facts.insert(MARK.to_owned(), state.mark().to_string());
        }
        Next { open: Open { after, root, leaves, state: Some(state) }, map }
    }
}

/// What the store says of its last commit, and the revision of that.
pub(super) fn opened(store: &dyn Store) -> Result<Option<(u64, Open)>> {
    let Some(record) = store.get(OPEN)? else { return Ok(None) };
    let open = serde_json::from_slice(&record.value)
        .map_err(|e| Error::new(Kind::Tampered, "the open change of the ledger cannot be read").because(e))?;
    Ok(Some((record.revision, open)))
}

/// No tree has this root.
pub(super) fn is_none(root: &[u8; 32]) -> bool {
    *root == [0; 32]
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Record>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Leaves {
        One(Box<Record>),
        More(Vec<Record>),
    }
    Leaves::deserialize(deserializer).map(|leaves| match leaves {
        Leaves::One(leaf) => vec![*leaf],
        Leaves::More(leaves) => leaves,
    })
}
