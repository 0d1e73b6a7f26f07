//! As `model`, with a required witness in the place of devices that nobody can touch: here the attacker puts back store, log and
//! anchor, each to any copy, alone or together, and a second service runs on a clone of all three. The witness alone is out of
//! reach.
//!
//! ```text
//! start       every store beside every log beside every anchor, from all that ever stood there
//! change      at once or to wait, a use, a checkpoint; ended after each step, anchor and witness in either order
//! the other   the second service makes its change first, to the end or not
//! ```
//!
//! What must hold: nothing that was acknowledged to a client of either service is missing in a store that starts, and where nobody
//! was at work but crashes, it starts. Leaves have numbers of their own, as those of the log have random parts.

use std::collections::HashSet;

use super::*;
use crate::audit::merkle::{Hash, consistency_proof, leaf_hash, root, verify_consistency};

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Database {
    /// The changes that it holds, in order.
    history: Vec<u8>,
    /// How the log stood before the last commit.
    beside: Vec<u8>,
    /// The leaf of the last commit.
    open: Option<u8>,
    state: Option<State>,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Log {
    leaves: Vec<u8>,
    /// The sizes of its signed heads.
    heads: Vec<usize>,
}

impl Log {
    fn head(&self) -> Option<Mark> {
        let size = *self.heads.last()?;
        Some(Mark { number: size as u64, hash: root(&hashes(&self.leaves[..size])) })
    }

    fn sign(&mut self) {
        if !self.heads.contains(&self.leaves.len()) {
            self.heads.push(self.leaves.len());
        }
    }
}

fn hashes(leaves: &[u8]) -> Vec<Hash> {
    leaves.iter().map(|leaf| leaf_hash(&[*leaf])).collect()
}

type Slots = [[u8; ANCHOR_SLOT]; 2];

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Installation {
    database: Database,
    log: Log,
    anchor: Option<Slots>,
    /// What the running service knows of the anchor.
    seen: Option<Seen>,
}

impl Installation {
    fn slots(&self) -> Slots {
        self.anchor.unwrap_or([[0; ANCHOR_SLOT]; 2])
    }

    fn change(&mut self, leaf: Option<u8>) {
        let state = State {
            epoch: self.database.state.as_ref().map_or(0, |state| state.epoch) + 1,
            map: sha256(&[&self.database.history, &[leaf.unwrap_or(0)]]),
            head: self.log.head(),
            away: BTreeMap::new(),
            anchors: [("a".to_owned(), self.seen.clone().unwrap_or_default())].into(),
        };
        self.database.beside = self.log.leaves.clone();
        self.database.history.extend(leaf);
        self.database.open = leaf;
        self.database.state = Some(state);
    }

    fn write_anchor(&mut self) {
        let (Some(state), Some(seen)) = (&self.database.state, &self.seen) else { return };
        let mut slots = self.slots();
        let known = slots.iter().position(|slot| *slot == seen.slot().0).expect("the known slot is there");
        slots[1 - known] = state.mark().slot().0;
        self.seen = Some(Seen::of(Some(state.mark())));
        self.anchor = Some(slots);
    }
}

/// What the witness cosigned last. It compares and moves on in one step, as `signet::witness` does.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Witness(Vec<u8>);

impl Witness {
    /// Whether it cosigns the last head of a log.
    fn add(&mut self, log: &Log) -> bool {
        let size = *log.heads.last().expect("the first start signed one");
        let old = self.0.len();
        if old > size {
            return false;
        }
        let (leaves, known) = (hashes(&log.leaves[..size]), root(&hashes(&self.0)));
        let proof = consistency_proof(leaves.as_slice(), old as u64, size as u64).unwrap();
        let good = verify_consistency(old as u64, &known, size as u64, &root(&leaves), &proof);
        if good {
            self.0 = log.leaves[..size].to_vec();
        }
        good
    }
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct World {
    now: Installation,
    copies: Vec<Installation>,
    witness: Witness,
    acknowledged: Vec<u8>,
    /// The next number of a leaf.
    next: u8,
    touched: bool,
}

impl World {
    fn leaf(&mut self) -> u8 {
        self.next += 1;
        self.next
    }
}

/// The checks of a start, in the order of the real one.
fn start(at: &Installation, witness: &mut Witness) -> Result<Installation> {
    let refused = |what: &'static str| Err(Error::new(Kind::Tampered, what));
    let mut at = at.clone();
    let Installation { database, log, .. } = &at;
    let after = database.beside.len();
    // 1. The store goes with this log, and the log holds no later change.
    if log.leaves.get(..after) != Some(&database.beside[..]) {
        return refused("another log");
    }
    if log.leaves[after..].iter().any(|leaf| is_change(*leaf) && Some(*leaf) != database.open) {
        return refused("later changes");
    }
    // 2. The anchor.
    let seen = compare(database.state.as_ref(), "a", &at.slots().map(AnchorSlot))?;
    // 3. The head that the store knows.
    if let Some(known) = database.state.as_ref().and_then(|state| state.head) {
        let size = usize::try_from(known.number).unwrap();
        let held = log.heads.contains(&size) && root(&hashes(&log.leaves[..size])) == known.hash;
        if !held {
            return refused("another head");
        }
    }
    // 4. The witness.
    if !witness.add(log) {
        return refused("the witness");
    }
    at.seen = Some(seen);
    Ok(at)
}

/// Numbers of uses are in the upper half.
const fn is_change(leaf: u8) -> bool {
    leaf < 128
}

#[derive(Clone, Copy)]
enum Act {
    Urgent,
    Waiting,
    Use,
    Checkpoint,
}

const ACTS: [Act; 4] = [Act::Urgent, Act::Waiting, Act::Use, Act::Checkpoint];

/// What a running service comes to after each step of an act. The last one was carried through, unless the witness refused.
fn act(world: &World, act: Act) -> (Vec<World>, bool) {
    let (mut world, mut steps) = (world.clone(), Vec::new());
    world.copies.push(world.now.clone());
    match act {
        Act::Use => {
            let leaf = world.leaf() | 128;
            world.now.log.leaves.push(leaf);
            steps.push(world);
        }
        Act::Checkpoint => {
            world.now.log.sign();
            steps.push(world.clone());
            world.now.change(None);
            steps.push(world.clone());
            world.now.write_anchor();
            steps.push(world);
        }
        Act::Waiting | Act::Urgent => {
            let leaf = world.leaf();
            world.now.change(Some(leaf));
            steps.push(world.clone());
            world.now.log.leaves.push(leaf);
            steps.push(world.clone());
            if matches!(act, Act::Waiting) {
                return (steps, true);
            }
            world.now.log.sign();
            steps.push(world.clone());
            let mut anchored = world.clone();
            anchored.now.write_anchor();
            steps.push(anchored.clone());
            if !world.witness.add(&world.now.log) {
                return (steps, false);
            }
            steps.push(world.clone());
            world.now.write_anchor();
            steps.push(world.clone());
            world.acknowledged.push(leaf);
            steps.push(world);
        }
    }
    (steps, true)
}

#[derive(Default)]
struct Tally {
    worlds: usize,
    starts: usize,
    refused: usize,
    lost: usize,
    false_alarms: usize,
}

fn explore(world: &World, depth: usize, known: &mut HashSet<(World, usize)>, tally: &mut Tally) {
    if !known.insert((world.clone(), depth)) {
        return;
    }
    tally.worlds += 1;
    let mut all = world.copies.clone();
    all.push(world.now.clone());
    let own = all.len() - 1;
    for store in 0..all.len() {
        for log in 0..all.len() {
            for anchor in 0..all.len() {
                let present = store == own && log == own && anchor == own;
                let at = Installation {
                    database: all[store].database.clone(),
                    log: all[log].log.clone(),
                    anchor: all[anchor].anchor,
                    seen: None,
                };
                tally.starts += 1;
                let mut world = world.clone();
                let started = match start(&at, &mut world.witness) {
                    Ok(started) => started,
                    Err(_) if present && !world.touched => {
                        tally.false_alarms += 1;
                        continue;
                    }
                    Err(_) => {
                        tally.refused += 1;
                        continue;
                    }
                };
                if !world.acknowledged.iter().all(|leaf| started.database.history.contains(leaf)) {
                    if tally.lost == 0 {
                        println!(
                            "lost of {:?}: {:?} beside {:?} with {:?}, heads {:?}, witness {:?}",
                            world.acknowledged,
                            started.database.history,
                            started.database.beside,
                            started.log.leaves,
                            started.log.heads,
                            world.witness.0
                        );
                    }
                    tally.lost += 1;
                    continue;
                }
                if depth == 0 {
                    continue;
                }
                if !present {
                    world.touched = true;
                    world.copies.push(world.now.clone());
                }
                world.now = started;
                run(&world, depth - 1, known, tally);
            }
        }
    }
}

/// A service that has started: what a crash left open is rolled forward, or not yet; then it acts, twice at most.
fn run(world: &World, depth: usize, known: &mut HashSet<(World, usize)>, tally: &mut Tally) {
    explore(world, depth, known, tally);
    let mut world = world.clone();
    if let Some(open) = world.now.database.open.filter(|open| !world.now.log.leaves.contains(open)) {
        world.now.log.leaves.push(open);
        explore(&world, depth, known, tally);
    }
    world.now.write_anchor();
    let mut begun = vec![world.clone()];
    // The second service, on a clone: what it leaves is there for the attacker.
    for other in [Act::Urgent, Act::Waiting] {
        for step in act(&world, other).0 {
            let (witness, acknowledged, next) = (step.witness, step.acknowledged, step.next);
            let copies = [step.copies, vec![step.now]].concat();
            begun.push(World { now: world.now.clone(), copies, witness, acknowledged, next, touched: true });
        }
    }
    for world in begun {
        for first in ACTS {
            let (steps, through) = act(&world, first);
            for step in &steps {
                explore(step, depth, known, tally);
            }
            let Some(last) = steps.last().filter(|_| through) else { continue };
            for step in act(last, Act::Urgent).0 {
                explore(&step, depth.saturating_sub(1), known, tally);
            }
        }
    }
}

#[test]
fn with_a_witness_nothing_is_lost_though_everything_else_is_put_back() {
    let mut tally = Tally::default();
    // What `signet init` leaves: nothing else makes a store, and one without it is refused before all this.
    let mut world = World::default();
    // It starts the service once to make the first token, so there is a head.
    world.now.log.sign();
    world.now.change(None);
    explore(&world, 1, &mut HashSet::new(), &mut tally);
    let Tally { worlds, starts, refused, lost, false_alarms } = tally;
    println!("{worlds} worlds, {starts} starts, {refused} refused, {lost} lost, {false_alarms} false alarms");
    assert!(worlds > 100 && refused > 1000, "too little was tried");
    assert_eq!((lost, false_alarms), (0, 0));
}
