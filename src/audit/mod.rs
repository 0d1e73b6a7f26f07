//! The tamper-evident audit log: every operation is a record, every record a leaf of a Merkle tree, and the tree's heads
//! are signed by a key in the device.
//!
//! What is promised: an acknowledged record is durable; a record that is edited, dropped, moved or put in afterwards is
//! noticed, by the running service at once where the files show it, and by anybody with the public key at any time. What is
//! not: that records after the last signed head are vouched for, or that a whole folder put back to an older state is
//! noticed from within. For that the last head is kept elsewhere too, see [`Opened::head`].
//!
//! * [`record`] what a record says · [`merkle`] the tree and its proofs · [`checkpoint`] signed heads
//! * [`note`] signed notes of any log · [`Witnesses`] who cosigns the heads · [`cosigned`] what they said
//! * [`receipt`] what an answer says of its record
//! * [`proof`] proofs as files · [`tile`], [`Tree`] the log as other tools read it
//! * [`Log`] writes, to further places too ([`SinkSettings`]) · [`read()`] reads · [`verify()`] checks without the service
//! * [`archive()`] keeps records for the years · [`Prune`] what may go from here then

mod archive;
mod archiving;
pub mod checkpoint;
mod cosigned;
mod export;
mod feed;
mod files;
mod heads;
mod log;
pub mod merkle;
mod mirror;
pub mod note;
mod open;
mod point;
pub mod proof;
mod prune;
mod pruned;
mod queue;
mod read;
pub mod receipt;
pub mod record;
mod segment;
mod sent;
mod severity;
mod sink;
pub mod tile;
mod tiles;
mod tree;
mod vault;
mod verify;
mod witness;
mod writer;

pub use archive::{Archived, archive};
pub use checkpoint::{Head, HeadKeys, HeadSigner, Origin, public_key_from_pem, public_keys_from_pem};
pub use cosigned::{Cosigned, cosigned, vouched, witnessed};
pub use export::{CHECKPOINT, Exported, export, verify_export};
pub use log::{Log, Opened, SecondKey, Settings};
pub use prune::{Prune, Wanted};
pub use pruned::{BELOW as PRUNED_BELOW, kept_hashes};
pub use queue::News;
pub use read::{Records, count, read};
pub use receipt::{Receipt, Receipts};
pub use record::{Item, Phase, Record};
pub use sent::{Sent, sent};
pub use severity::Severity;
pub use sink::{ArchivePlace, SinkKind, SinkSettings, SinkStatus};
pub use tiles::PREFIX as TILES;
pub use tree::{Tree, entries};
pub use vault::{archive_in_bucket, fetch};
pub use verify::{Gone, Problem, Report, Signed, leaves, verify, verify_archived, verify_with};
pub use witness::{WitnessSettings, WitnessStatus, Witnesses};
