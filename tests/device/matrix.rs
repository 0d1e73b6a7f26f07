//! The fault matrix: each return code that is treated in a way of its own, at each call that the driver makes, twice: *not done*,
//! and *done but reported failed*. And processes that die in the call, calls that hang, and outputs that are spoilt.
//!
//! `make test` tries [`SAMPLE`] cells; `SIGNET_TEST_CELLS` says how many others try, and `SIGNET_FAULT_MATRIX` names the file that gets
//! the table of them. `make prove` leaves one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, SystemTime};

use signet::device::pkcs11::codes;
use signet::device::{ANCHOR_SLOT, AnchorPlace, AnchorSlot, AnchorWrite, Class, Fault, Inventory};
use signet::types::{Algorithm, KeyId, Residency, SecretBytes};

use crate::bench::{Bench, Key, eventually, softhsm};
use crate::proof::proven;
use crate::softhsm::SoftHsm;

/// How many cells are tried where nobody says.
const SAMPLE: usize = 240;
/// Tokens that cells are tried on at once.
const RIGS: usize = 10;
/// The health check, once a second, makes calls of its own. A cell is begun this soon after one at the latest ...
const FRESH: Duration = Duration::from_millis(400);
/// ... and its fault must have been met this soon after it: then it was not the next health check that met it.
const UNDISTURBED: Duration = Duration::from_millis(800);

const RIGHT: &str = "the right answer";
const REST: &str = "all others";

/// What is asked of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Operation {
    Start,
    MakeResident,
    MakeWrapped,
    Sign,
    SignUnloaded,
    SignUnwrapped,
    Destroy,
    Inventory,
    Random,
    WriteAnchor,
}

impl Operation {
    const ALL: [Self; 10] = [
        Self::Start,
        Self::MakeResident,
        Self::MakeWrapped,
        Self::Sign,
        Self::SignUnloaded,
        Self::SignUnwrapped,
        Self::Destroy,
        Self::Inventory,
        Self::Random,
        Self::WriteAnchor,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::MakeResident => "make a resident key",
            Self::MakeWrapped => "make a wrapped key",
            Self::Sign => "sign",
            Self::SignUnloaded => "sign, key not loaded",
            Self::SignUnwrapped => "sign, key wrapped",
            Self::Destroy => "destroy",
            Self::Inventory => "list",
            Self::Random => "random bytes",
            Self::WriteAnchor => "write the anchor",
        }
    }
}

/// What happens to the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Bad {
    /// The token does nothing and says this.
    NotDone(&'static str),
    /// The token does it and says this.
    Done(&'static str),
    /// The library takes the process with it, or never returns.
    Ends(&'static str),
    /// The token says yes and gives something else.
    Spoils(&'static str),
}

/// A return code that is its maker's own.
const MAKERS_OWN: &str = "0x80000123";
/// Codes that the driver itself does something about.
const MENDED: [&str; 10] = [
    "CKR_GENERAL_ERROR",
    "CKR_FUNCTION_FAILED",
    "CKR_KEY_HANDLE_INVALID",
    "CKR_OBJECT_HANDLE_INVALID",
    "CKR_OPERATION_ACTIVE",
    "CKR_OPERATION_NOT_INITIALIZED",
    "CKR_SESSION_CLOSED",
    "CKR_SESSION_HANDLE_INVALID",
    "CKR_UNWRAPPING_KEY_HANDLE_INVALID",
    "CKR_WRAPPING_KEY_HANDLE_INVALID",
];
/// How many are tried of the codes that the table of codes treats as one.
const OF_A_KIND: usize = 2;

/// Each code that is treated in a way of its own, and a few of each kind that is treated alike.
fn codes_that_matter() -> Vec<&'static str> {
    let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for row in codes::ROWS.iter().filter(|row| row.name != "CKR_OK" && !MENDED.contains(&row.name)) {
        // What an attribute that cannot be read says of a key is another thing than what one that cannot be set says.
        let attribute = row.name.contains("ATTRIBUTE") || row.name.contains("TEMPLATE");
        kinds.entry(format!("{:?} {:?} {attribute}", row.idle, row.change)).or_default().push(row.name);
    }
    let few = kinds.into_values().flat_map(|names| names.into_iter().take(OF_A_KIND));
    few.chain(MENDED).chain([MAKERS_OWN]).collect()
}

impl Bad {
    /// All that can happen to a call.
    fn all(function: &str) -> Vec<Self> {
        let codes = codes_that_matter();
        let spoilt: &[_] = match function {
            "C_Sign" | "C_Encrypt" | "C_Decrypt" | "C_WrapKey" => &["flip", "short", "empty"],
            "C_GetAttributeValue" => &["flip"],
            "C_FindObjects" => &["empty"],
            _ => &[],
        };
        let not_done = codes.iter().map(|code| Self::NotDone(code));
        let done = codes.iter().map(|code| Self::Done(code));
        let ends = ["abort", "abort_after", "hang"].map(Self::Ends);
        not_done.chain(done).chain(ends).chain(spoilt.iter().map(|how| Self::Spoils(how))).collect()
    }

    /// The rule of the fault module.
    fn rule(self, function: &str) -> String {
        let number = |name: &str| {
            pkcs11_raw::CODES
                .iter()
                .find(|(_, known)| *known == name)
                .map_or(name.to_owned(), |(code, _)| format!("{code:#x}"))
        };
        match self {
            Self::NotDone(code) => format!("{function} once pre={}", number(code)),
            Self::Done(code) => format!("{function} once post={}", number(code)),
            Self::Ends(how) | Self::Spoils(how) => format!("{function} once {how}"),
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::NotDone(_) => "not done",
            Self::Done(_) => "done",
            Self::Ends(_) => "process",
            Self::Spoils(_) => "output",
        }
    }

    /// How it is listed.
    fn word(self) -> String {
        match self {
            Self::NotDone(MAKERS_OWN) | Self::Done(MAKERS_OWN) => "the maker's own".to_owned(),
            Self::NotDone(code) | Self::Done(code) => code.trim_start_matches("CKR_").to_owned(),
            Self::Ends("abort") => "dies before it".to_owned(),
            Self::Ends("abort_after") => "dies after it".to_owned(),
            Self::Ends(_) => "hangs".to_owned(),
            Self::Spoils("flip") => "one bit flipped".to_owned(),
            Self::Spoils("short") => "one byte short".to_owned(),
            Self::Spoils(_) => "nothing".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Cell {
    operation: Operation,
    function: &'static str,
    bad: Bad,
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    seen: String,
    after: String,
}

/// A token with a few keys, and the fault module before it.
struct Rig {
    hsm: SoftHsm,
    bench: Bench,
    resident: Key,
    wrapped: Key,
    place: AnchorPlace,
    anchored: u8,
    /// What the token holds between two cells.
    inventory: Inventory,
    complaints: Vec<String>,
}

/// What an operation gave, and the object that it was about.
struct Done {
    result: Result<bool, Fault>,
    object: Option<KeyId>,
    /// A new key, not tried yet.
    made: Option<Key>,
}

impl Rig {
    async fn new(hsm: SoftHsm) -> Self {
        let bench = Bench::faulty(&hsm).await;
        let resident = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
        let wrapped = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
        let place = AnchorPlace { instance: [7; 8], auth: SecretBytes::new(vec![9; 32]) };
        bench.worker.make_anchor(place.duplicate()).await.unwrap();
        let inventory = bench.worker.inventory().await.unwrap();
        Self { hsm, bench, resident, wrapped, place, anchored: 0, inventory, complaints: Vec::new() }
    }

    const fn slot(number: u8) -> AnchorSlot {
        AnchorSlot([number; ANCHOR_SLOT])
    }

    /// Everything up to the operation itself. A key to destroy is made here.
    async fn prepare(&mut self, operation: Operation) -> Option<Key> {
        // The faults of other cells are none of this one's.
        self.bench.worker.retry();
        // What a worker asks its device once in its life is asked now.
        self.bench.warm().await;
        self.bench.works(&self.resident).await;
        self.bench.works(&self.wrapped).await;
        let worker = &self.bench.worker;
        match operation {
            Operation::SignUnloaded => worker.forget(self.resident.key.id, self.resident.key.version).await.unwrap(),
            Operation::SignUnwrapped => worker.forget(self.wrapped.key.id, self.wrapped.key.version).await.unwrap(),
            Operation::Destroy => return Some(self.bench.make(Algorithm::EcdsaP256, Residency::Resident).await),
            Operation::Start => worker.shutdown().await,
            Operation::WriteAnchor => self.mend_anchor().await,
            Operation::MakeResident | Operation::MakeWrapped | Operation::Sign => {}
            Operation::Inventory | Operation::Random => {}
        }
        None
    }

    /// Makes both slots whole, whatever was left of them.
    async fn mend_anchor(&mut self) {
        for _ in 0..2 {
            let mut others = self.bench.worker.read_anchor(&self.place).await.unwrap();
            let known = others.iter().position(|slot| *slot == Self::slot(self.anchored)).unwrap();
            others.remove(known);
            self.replace_anchor(others).await.unwrap();
            self.anchored = self.anchored.wrapping_add(1);
        }
    }

    /// Of an anchor that is as [`Self::mend_anchor`] left it.
    async fn write_anchor(&self) -> Result<(), Fault> {
        self.replace_anchor(vec![Self::slot(self.anchored.wrapping_sub(1))]).await
    }

    async fn replace_anchor(&self, others: Vec<AnchorSlot>) -> Result<(), Fault> {
        let (known, value) = (Self::slot(self.anchored), Self::slot(self.anchored.wrapping_add(1)));
        self.bench.worker.write_anchor(AnchorWrite { place: self.place.duplicate(), known, others, value }).await
    }

    /// Waits until the health check has just been.
    async fn undisturbed(&self, operation: Operation) {
        if operation != Operation::Start {
            let proved = || self.bench.worker.proved().map_or(FRESH, |(at, _)| at.elapsed());
            eventually("the health check has been", async || proved() < FRESH).await;
        }
    }

    async fn make(&self, residency: Residency) -> Done {
        match self.bench.try_make(Algorithm::EcdsaP256, residency).await {
            Ok(key) => Done { result: Ok(true), object: None, made: Some(key) },
            Err((id, fault)) => Done { result: Err(fault), object: Some(id), made: None },
        }
    }

    async fn run(&mut self, operation: Operation, doomed: Option<&Key>) -> Done {
        let worker = &self.bench.worker;
        let plain = |result| Done { result, object: None, made: None };
        match operation {
            Operation::Start => {
                self.bench.worker = Bench::open(self.bench.settings.clone(), &self.bench.identity).into();
                plain(self.bench.worker.settled().await.map(|()| true))
            }
            Operation::MakeResident => self.make(Residency::Resident).await,
            Operation::MakeWrapped => self.make(Residency::Wrapped).await,
            Operation::Sign | Operation::SignUnloaded => {
                plain(self.bench.sign(&self.resident).await.map(|signature| self.resident.verifies(&signature)))
            }
            Operation::SignUnwrapped => {
                plain(self.bench.sign(&self.wrapped).await.map(|signature| self.wrapped.verifies(&signature)))
            }
            Operation::Destroy => {
                let doomed = doomed.unwrap();
                let result = worker.destroy((*doomed.key).clone()).await.map(|()| true);
                Done { result, object: Some(doomed.key.id), made: None }
            }
            Operation::Inventory => plain(worker.inventory().await.map(|found| found == self.inventory)),
            Operation::Random => plain(worker.random(32).await.map(|bytes| bytes.expose().len() == 32)),
            Operation::WriteAnchor => plain(self.write_anchor().await.map(|()| true)),
        }
    }

    /// Ends the fault, and waits until the device works again by itself; only a PIN is put in place as its owner would.
    async fn recover(&self) {
        self.hsm.plan("");
        eventually("the device works again", async || {
            let refused = |fault: &Fault| matches!(fault.class, Class::PinRefused | Class::PinLocked);
            if self.bench.worker.state().is_err_and(|fault| refused(&fault)) {
                let pin = fs::read(self.hsm.pin_file()).unwrap();
                let new = self.hsm.folder().join("pin.new");
                fs::write(&new, pin).unwrap();
                fs::set_permissions(&new, fs::metadata(self.hsm.pin_file()).unwrap().permissions()).unwrap();
                fs::rename(&new, self.hsm.pin_file()).unwrap();
            }
            let mut works = true;
            for key in [&self.resident, &self.wrapped] {
                works &= match self.bench.sign(key).await {
                    Ok(signature) => {
                        assert!(key.verifies(&signature), "a wrong signature after the fault");
                        true
                    }
                    Err(_) => false,
                };
            }
            works
        })
        .await;
    }

    /// A new key either works or is found not to; then it is destroyed.
    async fn try_made(&self, done: &mut Done) {
        let Some(key) = done.made.take() else { return };
        done.result = Ok(self.bench.sign(&key).await.is_ok_and(|signature| key.verifies(&signature)));
        self.bench.worker.destroy((*key.key).clone()).await.unwrap();
    }

    /// When the fault was met, by the mark that the module leaves.
    fn met(&self) -> Option<SystemTime> {
        let marks = fs::read_dir(self.hsm.folder()).unwrap().map(|entry| entry.unwrap());
        let marks = marks.filter(|entry| entry.file_name().to_str().unwrap().starts_with("plan."));
        let times = marks.map(|mark| {
            let at = mark.metadata().unwrap().modified().unwrap();
            fs::remove_file(mark.path()).unwrap();
            at
        });
        times.max()
    }

    /// One cell: what the caller saw, and how things stood afterwards.
    async fn cell(&mut self, cell: Cell) -> Outcome {
        let Cell { operation, function, bad } = cell;
        loop {
            let doomed = self.prepare(operation).await;
            self.undisturbed(operation).await;
            let before = self.bench.worker.restarts();
            let age = self.bench.worker.proved().map_or(Duration::ZERO, |(at, _)| at.elapsed());
            // An earlier fault that was met too late.
            self.met();
            self.hsm.plan(&bad.rule(function));
            let planned = fs::metadata(self.hsm.plan_file()).unwrap().modified().unwrap();
            let mut done = self.run(operation, doomed.as_ref()).await;
            let met = self.met();
            self.recover().await;
            self.try_made(&mut done).await;
            let anew = operation != Operation::Start && self.bench.worker.restarts() > before;
            let after = self.after(cell, &done, anew).await;
            let Some(met) = met else {
                self.complaints.push(format!("{cell:?}: the call was not made"));
                return Outcome { seen: self.seen(cell, &done), after };
            };
            let waited = met.duration_since(planned).unwrap_or_default();
            if operation == Operation::Start || age + waited < UNDISTURBED {
                return Outcome { seen: self.seen(cell, &done), after };
            }
            println!("{cell:?}: the machine is slow, once more");
        }
    }

    fn seen(&mut self, cell: Cell, done: &Done) -> String {
        match (&done.result, cell.bad) {
            (Ok(true), _) => RIGHT.to_owned(),
            // The front judges signatures and tries keys before it hands them out.
            (Ok(false), Bad::Spoils(_)) => "for the check to find".to_owned(),
            (Ok(false), _) => {
                self.complaints.push(format!("{cell:?}: a wrong answer"));
                "wrong".to_owned()
            }
            (Err(fault), _) => format!("`{:?}`", fault.class),
        }
    }

    /// How things stand after a cell. What is left of it is cleared away.
    async fn after(&mut self, cell: Cell, done: &Done, anew: bool) -> String {
        let mut words = vec![if anew { "a new worker" } else { "works" }];
        if cell.operation == Operation::WriteAnchor {
            words.extend(self.anchor(cell, done).await);
        }
        if let Some(id) = done.object {
            let there = self.bench.has(id).await;
            match (cell.operation, there) {
                (Operation::Destroy, true) => words.push("the key is still there"),
                (Operation::Destroy, false) => words.push("the key is gone"),
                (_, true) => words.push("the key was made"),
                (_, false) => {}
            }
            let changed = there != (cell.operation == Operation::Destroy);
            self.honest(cell, done, changed);
            if there {
                let mut orphan = (*self.resident.key).clone();
                orphan.id = id;
                self.bench.worker.destroy(orphan).await.unwrap();
            }
        }
        let inventory = self.bench.worker.inventory().await.unwrap();
        if inventory != self.inventory {
            self.complaints.push(format!("{cell:?}: the token holds {inventory:?}"));
            self.inventory = inventory;
        }
        words.join(", ")
    }

    /// What changed the token is never called safe, unless the token says what no token may say after it has acted.
    fn honest(&mut self, cell: Cell, done: &Done, changed: bool) {
        let Err(fault) = &done.result else { return };
        let unsure = matches!(fault.class, Class::Ambiguous | Class::DeviceGone | Class::WorkerLost);
        let lied = match cell.bad {
            Bad::Done(code) => codes::find(code).is_some_and(|row| row.change != Class::Ambiguous),
            Bad::NotDone(_) | Bad::Ends(_) | Bad::Spoils(_) => false,
        };
        if changed && !unsure && !lied {
            self.complaints.push(format!("{cell:?}: changed, and called {fault:?}"));
        }
    }

    /// One slot of the anchor holds what it held, and the other what was written, or what it held too.
    async fn anchor(&mut self, cell: Cell, done: &Done) -> Option<&'static str> {
        let slots = self.bench.worker.read_anchor(&self.place).await.unwrap();
        let next = self.anchored.wrapping_add(1);
        assert!(slots.contains(&Self::slot(self.anchored)), "{cell:?}: the anchor was lost");
        let written = slots.contains(&Self::slot(next));
        assert!(written || done.result.is_err(), "{cell:?}: not written, and called so");
        if written {
            self.anchored = next;
        }
        self.mend_anchor().await;
        done.result.is_err().then_some(if written { "written" } else { "not written" })
    }
}

/// The calls that the driver makes for each operation.
async fn calls(rig: &mut Rig) -> BTreeMap<Operation, BTreeSet<&'static str>> {
    let mut all = BTreeMap::new();
    for operation in Operation::ALL {
        let doomed = rig.prepare(operation).await;
        rig.undisturbed(operation).await;
        rig.hsm.calls();
        let mut done = rig.run(operation, doomed.as_ref()).await;
        let calls = rig.hsm.calls();
        rig.try_made(&mut done).await;
        assert!(matches!(done.result, Ok(true)), "{operation:?}");
        if operation == Operation::WriteAnchor {
            rig.anchored += 1;
        }
        let named = calls.into_keys().map(|name| &*name.leak());
        all.insert(operation, named.collect());
    }
    all
}

/// The cells in an order of their own, so that the first few are of all kinds.
fn shuffled(calls: &BTreeMap<Operation, BTreeSet<&'static str>>) -> Vec<Cell> {
    let each = calls.iter().flat_map(|(operation, functions)| functions.iter().map(|function| (*operation, *function)));
    let mut cells: Vec<_> = each
        .flat_map(|(operation, function)| {
            Bad::all(function).into_iter().map(move |bad| Cell { operation, function, bad })
        })
        .collect();
    cells.sort_by_key(|cell| {
        let mut hasher = DefaultHasher::new();
        cell.hash(&mut hasher);
        hasher.finish()
    });
    cells
}

#[tokio::test(flavor = "multi_thread")]
async fn each_code_at_each_call_is_answered_safely() {
    let Some(hsm) = softhsm() else { return };
    let mut rigs = vec![Rig::new(hsm).await];
    let cells = shuffled(&calls(&mut rigs[0]).await);
    let sample = std::env::var("SIGNET_TEST_CELLS").map_or(SAMPLE, |text| text.parse().unwrap());
    let tried = sample.min(cells.len());
    while rigs.len() < RIGS {
        rigs.push(Rig::new(softhsm().unwrap()).await);
    }
    let shares = rigs.into_iter().enumerate().map(|(first, mut rig)| {
        let share: Vec<_> = cells[..tried].iter().skip(first).step_by(RIGS).copied().collect();
        async move {
            let mut outcomes = Vec::new();
            for cell in share {
                outcomes.push((cell, rig.cell(cell).await));
            }
            (outcomes, rig.complaints)
        }
    });
    let (mut outcomes, mut complaints) = (BTreeMap::new(), Vec::new());
    for (share, of_share) in futures_util::future::join_all(shares).await {
        outcomes.extend(share);
        complaints.extend(of_share);
    }
    println!("{tried} of {} cells", cells.len());
    if let Some(file) = std::env::var_os("SIGNET_FAULT_MATRIX") {
        fs::write(file, page(&outcomes, cells.len())).unwrap();
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    proven("fault matrix: a code at a call of the driver", tried, "0 wrong, 0 unreported orphans, 0 restarts by hand");
}

/// The cells of one call by what came of them; the largest group is the rest.
fn page(outcomes: &BTreeMap<Cell, Outcome>, all: usize) -> String {
    let mut rows: BTreeMap<_, BTreeMap<&Outcome, Vec<String>>> = BTreeMap::new();
    for (cell, outcome) in outcomes {
        let row = (cell.operation, cell.function, cell.bad.column());
        rows.entry(row).or_default().entry(outcome).or_default().push(cell.bad.word());
    }
    let mut page = INTRODUCTION.replace("CELLS", &format!("{} of {all} cells", outcomes.len()));
    let mut operation = None;
    for ((of, function, column), groups) in rows {
        if operation.replace(of) != Some(of) {
            write!(page, "\n## {}\n\n| call | happens | code | the caller sees | afterwards |\n", capital(of.name()))
                .unwrap();
            page.push_str("| --- | --- | --- | --- | --- |\n");
        }
        let largest = groups.iter().max_by_key(|(_, words)| words.len()).map(|(outcome, _)| *outcome);
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(outcome, words)| (Some(*outcome) == largest, words.len()));
        for (outcome, words) in groups {
            let rest = Some(outcome) == largest && words.len() > 3;
            let words = if rest { REST.to_owned() } else { words.join(", ") };
            let Outcome { seen, after } = outcome;
            writeln!(page, "| `{function}` | {column} | {words} | {seen} | {after} |").unwrap();
        }
    }
    page
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

const INTRODUCTION: &str = "\
# The fault matrix

CELLS, on SoftHSM with a module before it that fails. Each return code of the standard that the driver treats in a way of its own,
and two of each kind that it treats alike, at each call that it makes, twice: *not done*, the token did nothing; *done*, it did it and
reports that it failed. *process*: the library takes its process with it, or never returns. *output*: it reports success
and gives something else. Each fault is met once.

What the caller sees is the class of the error, or the right answer, where the driver tried again by itself. *Afterwards* all keys
worked again without anybody's doing, on the same worker process or on a new one; after a refused PIN, when one was put in place.
No cell gave a wrong answer, and none left an object that the list of the token's keys does not show. *For the check to
find*: each signature is verified, and each new key tried, before anybody gets it.

A key that *was made* though its making is not called `Ambiguous` comes of a token that gives out, after it acted, a code that the
standard gives only before. Its pending row has it found and destroyed all the same.
";
