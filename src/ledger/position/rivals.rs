//! As `model`, with two services at once on copies of one installation, which share both anchors: every order of their steps.
//!
//! ```text
//! start        with its own or any earlier database, of either
//! commit       of a change, named after the service
//! anchor       one of the two: done, done and reported as failed, torn, or not done
//!              acknowledged once both anchors were tried, one holds and nobody else was met
//! end          at any moment
//! ```
//!
//! What must hold: a database without something that either acknowledged is never accepted at a start; and while every anchor
//! answers, two that do not follow one upon the other are never both acknowledged. Where one anchor is out of reach for one service and the other
//! anchor for the other, both may acknowledge, and then neither starts again.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::device::{AnchorPlace, AnchorWrite};
use crate::types::SecretBytes;

const ANCHORS: [&str; 2] = ["a", "b"];

#[derive(Clone, PartialEq, Eq, Hash)]
struct Database {
    content: String,
    state: Option<State>,
}

/// What a service knows of an anchor while it runs.
#[derive(Clone, Hash)]
struct Known {
    seen: Seen,
    others: Vec<[u8; ANCHOR_SLOT]>,
    /// Written, or tried in vain, since the last commit.
    tried: bool,
}

#[derive(Clone, Hash)]
struct Service {
    database: Database,
    /// Of each anchor, while it runs.
    runs: Option<[Known; 2]>,
    /// It met somebody else, and acknowledges nothing.
    foreign: bool,
}

#[derive(Clone, Hash)]
struct World {
    services: [Service; 2],
    anchors: [[[u8; ANCHOR_SLOT]; 2]; 2],
    acknowledged: Vec<String>,
    copies: Vec<Database>,
    /// How many failures and exchanges are still to come.
    faults: u8,
    exchanges: u8,
    /// An anchor failed once.
    faulty: bool,
    /// Whether what stands beside the known slot is looked at before it is replaced.
    careful: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Done,
    DoneAndLost,
    Torn,
    NotDone,
}

#[derive(Default)]
struct Tally {
    worlds: usize,
    refused: usize,
    met: usize,
    lost: usize,
    split: usize,
}

fn known(seen: Seen, slots: &[[u8; ANCHOR_SLOT]; 2]) -> Known {
    let others = seen.beside(slots.map(AnchorSlot).to_vec()).iter().map(|slot| slot.0).collect();
    Known { seen, others, tried: false }
}

impl World {
    /// Starts a service on a database. Whether it was accepted.
    fn start(&mut self, who: usize, database: Database) -> bool {
        let look = |at: usize| {
            let seen = compare(database.state.as_ref(), ANCHORS[at], &self.anchors[at].map(AnchorSlot)).ok()?;
            Some(known(seen, &self.anchors[at]))
        };
        let runs = look(0).zip(look(1)).map(|(first, second)| [first, second]);
        let accepted = runs.is_some();
        self.services[who] = Service { database, runs, foreign: false };
        accepted
    }

    fn commits(&mut self, who: usize) {
        let service = &mut self.services[who];
        let Some(runs) = &mut service.runs else { return };
        if !self.copies.contains(&service.database) {
            self.copies.push(service.database.clone());
        }
        service.database.content.push(['a', 'b'][who]);
        service.database.state = Some(State {
            epoch: service.database.state.as_ref().map_or(0, |state| state.epoch) + 1,
            map: sha256(&[service.database.content.as_bytes()]),
            head: None,
            away: BTreeMap::new(),
            anchors: (0..2).map(|at| (ANCHORS[at].to_owned(), runs[at].seen.clone())).collect(),
        });
        runs.iter_mut().for_each(|known| known.tried = false);
    }

    /// Writes an anchor under the contract of `Anchor`, as `Watched::write` does. Whether somebody else was met.
    fn anchor(&mut self, who: usize, at: usize, how: Write) -> bool {
        let service = &mut self.services[who];
        let (Some(runs), Some(mark)) = (&mut service.runs, service.database.state.as_ref().map(State::mark)) else {
            return false;
        };
        let (mine, slots) = (&mut runs[at], &mut self.anchors[at]);
        mine.tried = true;
        if !mine.seen.unsure.is_empty() {
            let Some(seen) = mine.seen.after(&slots.map(AnchorSlot)) else {
                service.foreign = true;
                return true;
            };
            *mine = Known { tried: true, ..known(seen, slots) };
            if mine.seen.known == Some(mark) {
                return false;
            }
        }
        let before = mine.seen.slot().0;
        let write = AnchorWrite {
            place: AnchorPlace { instance: [0; 8], auth: SecretBytes::new(Vec::new()) },
            known: AnchorSlot(before),
            others: mine.others.iter().copied().map(AnchorSlot).collect(),
            value: mark.slot(),
        };
        let careless = || slots.iter().position(|slot| *slot == before);
        let Some(stays) = write.known_in(&slots.map(AnchorSlot)).or_else(|| careless().filter(|_| !self.careful))
        else {
            service.foreign = true;
            return true;
        };
        if how == Write::Done {
            slots[1 - stays] = mark.slot().0;
            *mine = Known { seen: Seen::of(Some(mark)), others: vec![before], tried: true };
            return false;
        }
        mine.seen.unsure.push(mark);
        if how != Write::NotDone {
            slots[1 - stays] = mark.slot().0;
            slots[1 - stays][ANCHOR_SLOT - 1] ^= u8::from(how == Write::Torn);
        }
        false
    }

    /// Acknowledges what a service committed last, if it may. Whether that contradicts what was acknowledged before, though every
    /// anchor answered.
    fn answer(&mut self, who: usize) -> bool {
        let Service { database, runs: Some(runs), foreign: false } = &self.services[who] else { return false };
        let mark = database.state.as_ref().map(State::mark);
        let holds = |known: &Known| known.seen.known == mark && known.seen.unsure.is_empty();
        let content = &database.content;
        if !runs.iter().all(|known| known.tried) || !runs.iter().any(holds) || self.acknowledged.contains(content) {
            return false;
        }
        let follows = self.acknowledged.iter().all(|known| content.starts_with(known));
        self.acknowledged.push(content.clone());
        !follows && !self.faulty
    }

    fn next(&self, tally: &mut Tally) -> Vec<Self> {
        let mut worlds = Vec::new();
        for who in 0..2 {
            let service = &self.services[who];
            // 1. Ended, whatever it was at, and started on its own database or another one.
            let own = std::iter::once((&service.database, self.exchanges));
            let others = self.copies.iter().filter(|_| self.exchanges > 0);
            for (database, exchanges) in own.chain(others.map(|copy| (copy, self.exchanges.saturating_sub(1)))) {
                let mut world = Self { exchanges, ..self.clone() };
                if !world.start(who, database.clone()) {
                    tally.refused += 1;
                } else if !self.acknowledged.iter().all(|known| database.content.starts_with(known)) {
                    tally.lost += 1;
                }
                worlds.push(world);
            }
            let Some(runs) = &service.runs else { continue };
            if service.foreign {
                continue;
            }
            // 2. A change.
            let mut world = self.clone();
            world.commits(who);
            worlds.push(world);
            // 3. An anchor.
            for at in (0..2).filter(|at| !runs[*at].tried) {
                for how in [Write::Done, Write::DoneAndLost, Write::Torn, Write::NotDone] {
                    let fault = how != Write::Done;
                    if fault && self.faults == 0 {
                        continue;
                    }
                    let mut world = self.clone();
                    world.faults -= u8::from(fault);
                    world.faulty |= fault;
                    tally.met += usize::from(world.anchor(who, at, how));
                    tally.split += usize::from(world.answer(who));
                    worlds.push(world);
                }
            }
        }
        worlds
    }
}

/// Two services on copies of one installation, after a change that both have.
fn copied(careful: bool) -> World {
    let database = Database { content: String::new(), state: None };
    let service = Service { database, runs: None, foreign: false };
    let mut first = World {
        services: [service.clone(), service],
        anchors: [[[0; ANCHOR_SLOT]; 2]; 2],
        acknowledged: Vec::new(),
        copies: Vec::new(),
        faults: 0,
        exchanges: 0,
        faulty: false,
        careful,
    };
    // One change that both have: the folder was copied after it.
    let database = first.services[0].database.clone();
    assert!(first.start(0, database));
    first.commits(0);
    first.anchor(0, 0, Write::Done);
    first.anchor(0, 1, Write::Done);
    let database = first.services[0].database.clone();
    first.acknowledged.push(database.content.clone());
    assert!(first.start(0, database.clone()) && first.start(1, database));
    first
}

fn explore(first: &World, bounds: &[(u8, u8, usize)]) -> Tally {
    let mut tally = Tally::default();
    for &(faults, exchanges, steps) in bounds {
        let first = World { faults, exchanges, ..first.clone() };
        let (mut known, mut front) = (HashSet::from([digest(&first)]), vec![first]);
        for _ in 0..steps {
            let mut reached = Vec::new();
            for world in front {
                let next = world.next(&mut tally).into_iter().filter(|world| known.insert(digest(world)));
                reached.extend(next);
            }
            front = reached;
        }
        tally.worlds += known.len();
    }
    tally
}

#[test]
fn of_two_services_with_one_anchor_never_both_acknowledge() {
    let tally = explore(&copied(true), &BOUNDS);
    println!(
        "{} worlds of two writers, {} refused, {} met, {} lost, {} split",
        tally.worlds, tally.refused, tally.met, tally.lost, tally.split
    );
    assert!(tally.worlds > 1000 && tally.refused > 1000 && tally.met > 1000, "too little was tried");
    assert_eq!((tally.lost, tally.split), (0, 0));
}

/// What a write looks at is needed: without it both acknowledge, and what one of them acknowledged is missing at a start.
#[test]
fn whoever_replaces_what_it_does_not_know_loses_what_was_acknowledged() {
    let tally = explore(&copied(false), &[(0, 0, 7)]);
    assert!(tally.split > 0 && tally.lost > 0, "{} split, {} lost", tally.split, tally.lost);
}

/// How many failures and exchanges there are, and in how many steps: both change and write both anchors in six, and then one starts.
const BOUNDS: [(u8, u8, usize); 3] = [(0, 1, 7), (1, 1, 6), (2, 0, 6)];

/// To know a world again.
fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}
