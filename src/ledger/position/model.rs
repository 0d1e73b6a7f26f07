//! Every crash at every step, and every exchange of the database, against the functions that decide at a start.
//!
//! The world: one store, two anchors of which the second may fail to be written, an attacker who may put any earlier database in the
//! place of the present one whenever the service is down, and cannot touch the devices. From each world everything that can
//! happen is tried, up to a depth:
//!
//! ```text
//! commit of a or b, at once or to wait      ended after each step, or carried through
//! checkpoint                                likewise
//! restart                                   with the present or any earlier database, ended while the anchors are moved on
//! ```
//!
//! What must hold: a database without something acknowledged and anchored is never accepted, and the present one always is.

use std::collections::HashSet;

use super::*;

const ANCHORS: [&str; 2] = ["a", "b"];

/// What a database holds: its contents in the order they came, and the state in `ledger/open`.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Database {
    content: String,
    state: Option<State>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    database: Database,
    /// The slots of each anchor.
    anchors: [[[u8; ANCHOR_SLOT]; 2]; 2],
    /// What must never be lost again.
    acknowledged: String,
    /// The earlier databases, in order.
    copies: Vec<Database>,
    /// Whether the attacker was here.
    touched: bool,
}

/// The service while it runs: what [`compare`] gave it.
struct Running {
    state: Option<State>,
    seen: [Seen; 2],
}

#[derive(Default)]
struct Tally {
    worlds: usize,
    lost: usize,
    false_alarms: usize,
    refused: usize,
}

fn slots(bytes: &[[u8; ANCHOR_SLOT]; 2]) -> [AnchorSlot; 2] {
    bytes.map(AnchorSlot)
}

/// The start: both anchors are compared, in the order of the real one.
fn start(database: &Database, anchors: &[[[u8; ANCHOR_SLOT]; 2]; 2]) -> Result<Running> {
    let seen = |at: usize| compare(database.state.as_ref(), ANCHORS[at], &slots(&anchors[at]));
    Ok(Running { seen: [seen(0)?, seen(1)?], state: database.state.clone() })
}

/// A commit of the real shape.
fn commit(running: &mut Running, world: &mut World, what: char) {
    world.copies.push(world.database.clone());
    world.database.content.push(what);
    let state = State {
        epoch: running.state.as_ref().map_or(0, |state| state.epoch) + 1,
        map: sha256(&[world.database.content.as_bytes()]),
        head: None,
        away: BTreeMap::new(),
        anchors: (0..2).map(|at| (ANCHORS[at].to_owned(), running.seen[at].clone())).collect(),
    };
    world.database.state = Some(state.clone());
    running.state = Some(state);
}

/// How the writing of an anchor can end.
#[derive(Clone, Copy)]
enum Write {
    Done,
    /// Reported as failed, and done all the same.
    DoneAndLost,
    /// Not done, but for a torn slot.
    Torn,
}

/// Writes one anchor as the real code does: beside the slot that is known.
fn anchor(running: &mut Running, world: &mut World, at: usize, how: Write) {
    let Some(mark) = running.state.as_ref().map(State::mark) else { return };
    let seen = &mut running.seen[at];
    if !seen.unsure.is_empty() {
        *seen = seen.after(&slots(&world.anchors[at])).expect("nobody else writes this anchor");
    }
    let known = world.anchors[at].iter().position(|slot| *slot == seen.slot().0).expect("the known slot is there");
    let place = &mut world.anchors[at][1 - known];
    match how {
        Write::Done => {
            *place = mark.slot().0;
            *seen = Seen::of(Some(mark));
        }
        Write::DoneAndLost => {
            *place = mark.slot().0;
            seen.unsure.push(mark);
        }
        Write::Torn => {
            *place = mark.slot().0;
            place[ANCHOR_SLOT - 1] ^= 1;
            seen.unsure.push(mark);
        }
    }
}

fn explore(world: World, depth: usize, known: &mut HashSet<(World, usize)>, tally: &mut Tally) {
    if !known.insert((world.clone(), depth)) {
        return;
    }
    tally.worlds += 1;
    // 1. The service starts: on the present database, and on each that the attacker has.
    let mut databases = world.copies.clone();
    databases.push(world.database.clone());
    for (number, database) in databases.iter().enumerate() {
        let own = number + 1 == databases.len();
        let running = match start(database, &world.anchors) {
            Ok(running) => running,
            Err(_) if own && !world.touched => {
                tally.false_alarms += 1;
                continue;
            }
            Err(_) => {
                tally.refused += 1;
                continue;
            }
        };
        if !database.content.starts_with(&world.acknowledged) {
            tally.lost += 1;
            continue;
        }
        if depth == 0 {
            continue;
        }
        let mut world = World { touched: world.touched || !own, ..world.clone() };
        if !own {
            world.copies.push(world.database.clone());
            world.database = database.clone();
        }
        run(&world, &running, depth - 1, known, tally);
    }
}

/// What a service can do after its start, and where it can end.
fn run(world: &World, started: &Running, depth: usize, known: &mut HashSet<(World, usize)>, tally: &mut Tally) {
    let again = || Running { state: started.state.clone(), seen: started.seen.clone() };
    // Anchors that are behind are moved on first, or not all of them.
    for moved in 0..=2 {
        let (mut world, mut running) = (world.clone(), again());
        for at in 0..moved {
            anchor(&mut running, &mut world, at, Write::Done);
        }
        explore(world.clone(), depth, known, tally);
        if moved < 2 {
            continue;
        }
        for what in ['a', 'b'] {
            let (mut world, mut running) =
                (world.clone(), Running { state: running.state.clone(), seen: running.seen.clone() });
            commit(&mut running, &mut world, what);
            explore(world.clone(), depth, known, tally);
            for first in [Write::Done, Write::DoneAndLost, Write::Torn] {
                for second in [Write::Done, Write::DoneAndLost, Write::Torn] {
                    let (mut world, mut running) =
                        (world.clone(), Running { state: running.state.clone(), seen: running.seen.clone() });
                    anchor(&mut running, &mut world, 0, first);
                    explore(world.clone(), depth, known, tally);
                    anchor(&mut running, &mut world, 1, second);
                    explore(world.clone(), depth, known, tally);
                    // One that holds it is enough to acknowledge.
                    let mark = running.state.as_ref().map(State::mark);
                    if running.seen.iter().any(|seen| seen.known == mark) {
                        world.acknowledged = world.database.content.clone();
                        explore(world.clone(), depth, known, tally);
                    }
                    // The next commit of the same service, while an anchor is unsure, anchored where that goes well.
                    commit(&mut running, &mut world, 'c');
                    explore(world.clone(), depth, known, tally);
                    anchor(&mut running, &mut world, 0, Write::Done);
                    world.acknowledged = world.database.content.clone();
                    explore(world.clone(), depth, known, tally);
                }
            }
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_unnoticed_and_nothing_good_is_refused() {
    let world = World {
        database: Database { content: String::new(), state: None },
        anchors: [[[0; ANCHOR_SLOT]; 2]; 2],
        acknowledged: String::new(),
        copies: Vec::new(),
        touched: false,
    };
    let mut tally = Tally::default();
    explore(world, 3, &mut HashSet::new(), &mut tally);
    println!(
        "{} worlds, {} refused, {} lost, {} false alarms",
        tally.worlds, tally.refused, tally.lost, tally.false_alarms
    );
    assert!(tally.worlds > 1000 && tally.refused > 1000, "too little was tried");
    assert_eq!((tally.lost, tally.false_alarms), (0, 0));
}
