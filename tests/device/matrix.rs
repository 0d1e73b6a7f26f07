//! The fault matrix: each return code that is treated in a way of its own, at each call that the driver makes, twice: *not done*,
//! and *done but reported failed*. And processes that die in the call, calls that hang, tokens that end all sessions or are stuck from
//! there on, and outputs that are spoilt.
//!
//! `make test` tries [`SAMPLE`] cells; `SIGNET_TEST_CELLS` says how many others try, `SIGNET_TEST_CELL_MINUTES` how long, and
//! `SIGNET_FAULT_MATRIX` names the file that gets the table of them. `make prove` makes one, and `docs/fault-matrix.md` is what it made last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use signet::device::pkcs11::codes;
use signet::device::{
    ANCHOR_SLOT, AnchorPlace, AnchorSlot, AnchorWrite, Class, Fault, Inventory, Pkcs11Settings, Settings, Worker,
};
use signet::types::{Algorithm, CipherCall, Direction, Encapsulated, KeyId, Residency, SecretBytes};

use crate::bench::{Bench, Key, MESSAGE, eventually, softhsm};
use crate::kryoptic::Kryoptic;
use crate::proof::proven;
use crate::softhsm::{SoftHsm, fault_module};

/// How many cells are tried where nobody says.
const SAMPLE: usize = 240;
/// Tokens that cells are tried on at once, more where there are many cells, and those that open RSA-OAEP.
const RIGS: usize = 10;
const MORE_RIGS: usize = 20;
const OPENERS: usize = 6;
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
    Encrypt,
    Decrypt,
    Agree,
    Open,
    Destroy,
    Inventory,
    Random,
    WriteAnchor,
}

impl Operation {
    const ALL: [Self; 14] = [
        Self::Start,
        Self::MakeResident,
        Self::MakeWrapped,
        Self::Sign,
        Self::SignUnloaded,
        Self::SignUnwrapped,
        Self::Encrypt,
        Self::Decrypt,
        Self::Agree,
        Self::Open,
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
            Self::Encrypt => "encrypt by AES-GCM",
            Self::Decrypt => "decrypt by AES-GCM",
            Self::Agree => "find the secret of HPKE",
            Self::Open => "open RSA-OAEP",
            Self::Destroy => "destroy",
            Self::Inventory => "list",
            Self::Random => "random bytes",
            Self::WriteAnchor => "write the anchor",
        }
    }

    /// Whether it is asked of Kryoptic, since SoftHSM cannot do it.
    fn is_for_an_opener(self) -> bool {
        self == Self::Open
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
    /// The token ends all sessions before the call, or is stuck from there on.
    Stops(&'static str),
    /// The token says yes and gives something else.
    Spoils(&'static str),
}

/// A return code that is its maker's own.
const MAKERS_OWN: &str = "0x80000123";
/// Codes that are tried whatever the table of codes says of them: they are the ones that operators meet.
const MET: [&str; 5] =
    ["CKR_DEVICE_MEMORY", "CKR_DEVICE_REMOVED", "CKR_PIN_EXPIRED", "CKR_SESSION_COUNT", "CKR_USER_NOT_LOGGED_IN"];
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
    let named = |name: &str| MENDED.contains(&name) || MET.contains(&name) || name == "CKR_OK";
    for row in codes::ROWS.iter().filter(|row| !named(row.name)) {
        // What an attribute that cannot be read says of a key is another thing than what one that cannot be set says.
        let attribute = row.name.contains("ATTRIBUTE") || row.name.contains("TEMPLATE");
        kinds.entry(format!("{:?} {:?} {attribute}", row.idle, row.change)).or_default().push(row.name);
    }
    let few = kinds.into_values().flat_map(|names| names.into_iter().take(OF_A_KIND));
    few.chain(MENDED).chain(MET).chain([MAKERS_OWN]).collect()
}

impl Bad {
    /// All that can happen to a call.
    fn all(function: &str) -> Vec<Self> {
        let codes = codes_that_matter();
        let spoilt: &[_] = match function {
            "C_Sign" | "C_Encrypt" | "C_Decrypt" | "C_WrapKey" => &["flip", "short", "empty"],
            "C_GetAttributeValue" => &["flip"],
            "C_FindObjects" | "C_GetSlotList" | "C_GetMechanismList" => &["empty"],
            _ => &[],
        };
        // Before there is a library there are no sessions of it.
        let stops: &[_] = match function {
            "C_GetFunctionList" | "C_Initialize" | "C_Finalize" => &[],
            _ => &["close_sessions", "stuck=0x30"],
        };
        let not_done = codes.iter().map(|code| Self::NotDone(code));
        let done = codes.iter().map(|code| Self::Done(code));
        let ends = ["abort", "abort_after", "hang"].map(Self::Ends);
        let stops = stops.iter().map(|how| Self::Stops(how));
        not_done.chain(done).chain(ends).chain(stops).chain(spoilt.iter().map(|how| Self::Spoils(how))).collect()
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
            Self::Ends(how) | Self::Stops(how) | Self::Spoils(how) => format!("{function} once {how}"),
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::NotDone(_) => "not done",
            Self::Done(_) => "done",
            Self::Ends(_) => "process",
            Self::Stops(_) => "token",
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
            Self::Stops("close_sessions") => "has ended all sessions".to_owned(),
            Self::Stops(_) => "stuck until it is finalised".to_owned(),
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
    /// The folder of plan, trace and PIN, whatever the token is.
    hsm: SoftHsm,
    /// The token that opens RSA-OAEP, where it is one.
    opener: Option<Kryoptic>,
    bench: Bench,
    resident: Key,
    wrapped: Key,
    /// Keys that encrypt or find secrets, each with what it was once asked and answered.
    users: BTreeMap<Operation, User>,
    place: AnchorPlace,
    anchored: u8,
    /// What the token holds between two cells.
    inventory: Inventory,
    complaints: Vec<String>,
}

/// A key in use.
struct User {
    key: Key,
    input: Vec<u8>,
    answer: Vec<u8>,
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
        let mut rig = Self::with(Bench::faulty(&hsm).await, hsm, None).await;
        let cipher = rig.bench.make(Algorithm::Aes256Gcm, Residency::Resident).await;
        let call = CipherCall { nonce: &[1; 12], aad: b"beside", data: MESSAGE };
        let input = call.encode(Direction::Encrypt);
        let sealed = rig.ask(&cipher, &input).await.unwrap();
        let back = CipherCall { data: &sealed, ..call }.encode(Direction::Decrypt);
        rig.users.insert(Operation::Decrypt, User { key: cipher.clone(), input: back, answer: MESSAGE.to_vec() });
        rig.users.insert(Operation::Encrypt, User { key: cipher, input, answer: sealed });
        rig.has(Operation::Agree, Algorithm::HpkeP256, Residency::Wrapped).await;
        rig.counted().await
    }

    /// A token that opens RSA-OAEP, which SoftHSM cannot.
    async fn opener(token: Kryoptic) -> Self {
        let hsm = SoftHsm::at(token.folder().to_owned());
        let settings = token.settings();
        let mut environment = hsm.environment();
        environment.retain(|(name, _)| name != "SIGNET_FAULT_REAL");
        environment.push(("SIGNET_FAULT_REAL".to_owned(), settings.module.to_str().unwrap().to_owned()));
        environment.extend(settings.environment.iter().cloned());
        let settings = Pkcs11Settings { module: fault_module(), environment, ..settings };
        let bench = Bench::enrol(Settings::Pkcs11(settings)).await;
        let mut rig = Self::with(bench, hsm, Some(token)).await;
        rig.has(Operation::Open, Algorithm::Rsa2048Oaep, Residency::Resident).await;
        rig.counted().await
    }

    async fn with(bench: Bench, hsm: SoftHsm, opener: Option<Kryoptic>) -> Self {
        let resident = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
        let wrapped = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
        let place = AnchorPlace { instance: [7; 8], auth: SecretBytes::new(vec![9; 32]) };
        bench.worker.make_anchor(place.duplicate()).await.unwrap();
        let inventory = bench.worker.inventory().await.unwrap();
        let users = BTreeMap::new();
        Self { hsm, opener, bench, resident, wrapped, users, place, anchored: 0, inventory, complaints: Vec::new() }
    }

    /// Makes a key that finds secrets, and has one for it.
    async fn has(&mut self, operation: Operation, algorithm: Algorithm, residency: Residency) {
        let key = self.bench.make(algorithm, residency).await;
        let Encapsulated { sent, secret } = Encapsulated::to(algorithm, key.public.as_ref().unwrap()).unwrap();
        self.users.insert(operation, User { key, input: sent, answer: secret.expose().to_vec() });
    }

    async fn counted(mut self) -> Self {
        self.inventory = self.bench.worker.inventory().await.unwrap();
        self
    }

    async fn ask(&self, key: &Key, input: &[u8]) -> Result<Vec<u8>, Fault> {
        self.bench.worker.use_key(&key.key, input.to_vec()).await.map(|answer| answer.expose().to_vec())
    }

    /// Whether the answer is the one that it was.
    async fn answers(&self, operation: Operation) -> Result<bool, Fault> {
        let User { key, input, answer } = &self.users[&operation];
        self.ask(key, input).await.map(|found| found == *answer)
    }

    /// Whether this token can do it.
    fn can(&self, operation: Operation) -> bool {
        operation.is_for_an_opener() == self.opener.is_some()
    }

    const fn slot(number: u8) -> AnchorSlot {
        AnchorSlot([number; ANCHOR_SLOT])
    }

    /// Everything up to the operation itself. A key to destroy is made here.
    async fn prepare(&mut self, operation: Operation) -> Option<Key> {
        // The faults of other cells are none of this one's.
        self.recover().await;
        self.bench.worker.retry();
        // What a worker asks its device once in its life is asked now.
        let warmed = async || self.bench.try_make(Algorithm::HmacSha256, Residency::Wrapped).await.is_ok();
        eventually("the device is described", warmed).await;
        let worker = &self.bench.worker;
        match operation {
            Operation::SignUnloaded => worker.forget(self.resident.key.id, self.resident.key.version).await.unwrap(),
            Operation::SignUnwrapped => worker.forget(self.wrapped.key.id, self.wrapped.key.version).await.unwrap(),
            Operation::Destroy => return Some(self.bench.make(Algorithm::EcdsaP256, Residency::Resident).await),
            Operation::Start => worker.shutdown().await,
            Operation::WriteAnchor => self.mend_anchor().await,
            Operation::MakeResident | Operation::MakeWrapped | Operation::Sign => {}
            Operation::Inventory | Operation::Random => {}
            // A wrapped key is loaded at its first use.
            Operation::Encrypt | Operation::Decrypt | Operation::Agree | Operation::Open => {
                assert!(self.answers(operation).await.unwrap(), "{operation:?}");
            }
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
            Operation::Encrypt | Operation::Decrypt | Operation::Agree | Operation::Open => {
                plain(self.answers(operation).await)
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

    /// Asks until there is an answer: on a busy machine a worker may be replaced once more.
    async fn surely<T>(&self, ask: impl AsyncFn(&Worker) -> Result<T, Fault>) -> T {
        let mut answer = None;
        eventually("an answer", async || {
            answer = ask(&self.bench.worker).await.ok();
            answer.is_some()
        })
        .await;
        answer.unwrap()
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
        self.surely(async |worker| worker.destroy((*key.key).clone()).await).await;
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
            (Err(fault), bad) => {
                // The key is there, and the token shows none.
                if fault.class == Class::KeyGone && matches!(bad, Bad::Stops(_)) {
                    self.complaints.push(format!("{cell:?}: called gone"));
                }
                format!("`{:?}`", fault.class)
            }
        }
    }

    /// How things stand after a cell. What is left of it is cleared away.
    async fn after(&mut self, cell: Cell, done: &Done, anew: bool) -> String {
        let mut words = vec![if anew { "a new worker" } else { "works" }];
        if self.users.contains_key(&cell.operation) {
            let User { key, input, answer } = &self.users[&cell.operation];
            let found = self.surely(async |_| self.ask(key, input).await).await;
            if found != *answer {
                self.complaints.push(format!("{cell:?}: afterwards another answer"));
            }
        }
        if cell.operation == Operation::WriteAnchor {
            words.extend(self.anchor(cell, done).await);
        }
        if let Some(id) = done.object {
            let held = self.surely(async |worker| worker.inventory().await).await;
            let there = held.keys.iter().any(|(key, _)| *key == id);
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
                self.surely(async |worker| worker.destroy(orphan.clone()).await).await;
            }
        }
        let inventory = self.surely(async |worker| worker.inventory().await).await;
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
            Bad::NotDone(_) | Bad::Ends(_) | Bad::Stops(_) | Bad::Spoils(_) => false,
        };
        if changed && !unsure && !lied {
            self.complaints.push(format!("{cell:?}: changed, and called {fault:?}"));
        }
    }

    /// One slot of the anchor holds what it held, and the other what was written, or what it held too.
    async fn anchor(&mut self, cell: Cell, done: &Done) -> Option<&'static str> {
        let slots = self.surely(async |worker| worker.read_anchor(&self.place).await).await;
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
    for operation in Operation::ALL.into_iter().filter(|operation| rig.can(*operation)).collect::<Vec<_>>() {
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

/// The cells in an order of their own, so that the first few are of all kinds: those of one row are far apart.
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
    // One of each row of the page, then a second, and so on.
    let mut taken = BTreeMap::new();
    let mut in_turn: Vec<_> = cells
        .into_iter()
        .map(|cell| {
            let of_row: &mut usize = taken.entry((cell.operation, cell.function, cell.bad.column())).or_default();
            *of_row += 1;
            (*of_row, cell)
        })
        .collect();
    in_turn.sort_by_key(|(turn, _)| *turn);
    in_turn.into_iter().map(|(_, cell)| cell).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_code_at_each_call_is_answered_safely() {
    let Some(hsm) = softhsm() else { return };
    let mut rigs = vec![Rig::new(hsm).await];
    let mut openers = Vec::new();
    let mut of_each = calls(&mut rigs[0]).await;
    if let Some(token) = Kryoptic::new() {
        openers.push(Rig::opener(token).await);
        of_each.extend(calls(&mut openers[0]).await);
        while openers.len() < OPENERS {
            openers.push(Rig::opener(Kryoptic::new().unwrap()).await);
        }
    }
    let cells = shuffled(&of_each);
    let sample = std::env::var("SIGNET_TEST_CELLS").map_or(SAMPLE, |text| text.parse().unwrap());
    let tried = sample.min(cells.len());
    let (for_openers, others): (Vec<_>, Vec<_>) =
        cells[..tried].iter().copied().partition(|cell| cell.operation.is_for_an_opener());
    while rigs.len() < if tried > SAMPLE { MORE_RIGS } else { RIGS } {
        rigs.push(Rig::new(softhsm().unwrap()).await);
    }
    let minutes = std::env::var("SIGNET_TEST_CELL_MINUTES").map_or(u64::MAX / 60, |text| text.parse().unwrap());
    let until = Instant::now().checked_add(Duration::from_secs(minutes * 60));
    let shares = [(rigs, others), (openers, for_openers)].into_iter().flat_map(|(rigs, cells)| {
        let step = rigs.len();
        let share = move |first| cells.iter().skip(first).step_by(step).copied().collect();
        rigs.into_iter().enumerate().map(move |(first, rig)| play(rig, share(first), until))
    });
    let (mut outcomes, mut complaints) = (BTreeMap::new(), Vec::new());
    for (share, of_share) in futures_util::future::join_all(shares).await {
        outcomes.extend(share);
        complaints.extend(of_share);
    }
    let out_of_time = until.is_some_and(|until| Instant::now() > until);
    assert!(outcomes.len() == tried || out_of_time || !complaints.is_empty());
    let tried = outcomes.len();
    println!("{tried} of {} cells", cells.len());
    if let Some(file) = std::env::var_os("SIGNET_FAULT_MATRIX") {
        fs::write(file, page(&outcomes, cells.len())).unwrap();
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    proven("fault matrix: a code at a call of the driver", tried, "0 wrong, 0 unreported orphans, 0 restarts by hand");
}

/// One cell after the other, as long as there is time, and what was wrong with them.
async fn play(mut rig: Rig, cells: Vec<Cell>, until: Option<Instant>) -> (Vec<(Cell, Outcome)>, Vec<String>) {
    let mut outcomes = Vec::new();
    for cell in cells {
        if until.is_some_and(|until| Instant::now() > until) {
            break;
        }
        // One that panics ends its token's part, and not what the others find.
        match AssertUnwindSafe(rig.cell(cell)).catch_unwind().await {
            Ok(outcome) => outcomes.push((cell, outcome)),
            Err(_) => {
                rig.complaints.push(format!("{cell:?}: it panicked"));
                break;
            }
        }
    }
    (outcomes, rig.complaints)
}

/// The cells of one call by what came of them; the largest group is the rest.
fn page(outcomes: &BTreeMap<Cell, Outcome>, all: usize) -> String {
    let mut rows: BTreeMap<_, BTreeMap<&Outcome, Vec<String>>> = BTreeMap::new();
    for (cell, outcome) in outcomes {
        let row = (cell.operation, cell.function, cell.bad.column());
        rows.entry(row).or_default().entry(outcome).or_default().push(cell.bad.word());
    }
    let mut page = INTRODUCTION.replace("CELLS", &format!("{} of {all} cells", outcomes.len()));
    writeln!(page, "\n{}\n\n## Tried by tests of their own\n\n| what | test |\n| --- | --- |", code_list()).unwrap();
    for (what, tests) in ELSEWHERE {
        page.push_str(&elsewhere(what, tests));
    }
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

/// The codes that each call is answered with.
fn code_list() -> String {
    let codes: BTreeSet<_> = codes_that_matter().into_iter().filter(|code| *code != MAKERS_OWN).collect();
    let codes: Vec<_> = codes.into_iter().map(|code| format!("`{}`", code.trim_start_matches("CKR_"))).collect();
    format!("The codes, and one of a maker's own: {}.", codes.join(", "))
}

fn elsewhere(what: &str, tests: &[&str]) -> String {
    let tests: Vec<_> = tests
        .iter()
        .map(|test| test.split_once(' ').map_or_else(String::new, |(file, name)| format!("`{name}` in `{file}`")))
        .collect();
    format!("| {what} | {} |\n", tests.join(", "))
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

/// What no single call shows, and where it is tried: file and test.
const ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "the first call fails, the second, and so on until none is reached",
        &["tests/pkcs11_driver.rs each_call_may_fail_in_its_turn"],
    ),
    (
        "a key that was made and reported as failed; a destruction, likewise",
        &[
            "tests/it/faults.rs a_key_is_made_once_whatever_fails_on_the_way",
            "tests/it/faults.rs a_version_is_destroyed_whatever_fails_on_the_way",
        ],
    ),
    (
        "a token that ignores an attribute of the template",
        &[
            "tests/device/quirks.rs a_token_that_ignores_an_attribute_keeps_no_key_of_it",
            "tests/device/strict.rs a_token_that_does_not_heed_the_template_keeps_no_key",
        ],
    ),
    (
        "idle sessions that the token ends, again and again",
        &["tests/device/quirks.rs sessions_that_end_again_and_again_are_made_again"],
    ),
    (
        "a library that works again only when it was finalised",
        &["tests/device/quirks.rs a_library_that_is_stuck_is_replaced"],
    ),
    ("no session left", &["tests/device/quirks.rs a_token_with_too_few_sessions_costs_answers_and_nothing_else"]),
    (
        "a full token",
        &[
            "tests/pkcs11_driver.rs a_failed_generation_is_ambiguous",
            "tests/device/quirks.rs a_full_token_refuses_new_keys_and_serves_the_old",
        ],
    ),
    (
        "a PIN that is wrong, locked, on its last try",
        &[
            "tests/device/away.rs a_refused_pin_is_tried_once",
            "tests/device/away.rs a_locked_pin_is_not_tried_again",
            "tests/pkcs11_driver.rs the_last_try_of_a_pin_is_not_spent",
        ],
    ),
    (
        "a PIN that expires, or is changed by another program, while the service runs",
        &["tests/device/quirks.rs a_pin_that_expires_or_is_changed_costs_nothing_before_the_next_login"],
    ),
    (
        "two tokens with one label",
        &[
            "tests/pkcs11_driver.rs what_cannot_be_opened_says_why",
            "tests/device/away.rs another_token_under_the_same_label_is_not_the_enrolled_one",
        ],
    ),
    (
        "two objects with one id, an object that another program destroyed",
        &["tests/pkcs11_driver.rs a_key_deleted_by_another_program_is_gone_and_its_twin_is_noticed"],
    ),
    (
        "a token that shows nothing, or is taken out",
        &[
            "tests/pkcs11_driver.rs a_token_that_shows_nothing_is_gone",
            "tests/device/away.rs a_token_taken_out_is_missed_within_moments_and_taken_up_again",
        ],
    ),
    (
        "answers that are spoilt, emptied or those of an earlier call",
        &[
            "tests/it/faults/falsified.rs of_a_thousand_results_that_are_falsified_at_random_none_is_wrong",
            "tests/it/gcm.rs a_token_that_spoils_what_it_encrypts_or_decrypts_is_found_out",
        ],
    ),
    (
        "a slow library, one that hangs again and again",
        &[
            "tests/device/faults.rs a_slow_library_is_asked_once",
            "tests/device/breaker.rs a_device_that_hangs_again_and_again_keeps_nobody_waiting",
        ],
    ),
    ("a worker that is killed under load", &["tests/device/kills.rs fifty_kills_under_load_lose_nothing"]),
    (
        "memory, descriptors, threads and sessions after many recoveries and much use",
        &["tests/device/flat.rs nothing_grows_with_recoveries_or_use"],
    ),
    (
        "a file of the token that is damaged",
        &["tests/device/damage.rs a_damaged_object_file_never_makes_a_wrong_signature_pass"],
    ),
];

const INTRODUCTION: &str = "\
# The fault matrix

CELLS, on SoftHSM, and where it cannot do it on Kryoptic, with a module before it that fails. Each return code of the standard that the
driver treats in a way of its own, and two of each kind that it treats alike, at each call that it makes, twice: *not done*, the token did
nothing; *done*, it did it and reports that it failed. *process*: the library takes its process with it, or never returns. *token*: it has
ended all sessions of the process and its login, or fails from this call on until the library is finalised. *output*: it reports success and
gives something else. Each fault is met once.

What the caller sees is the class of the error, or the right answer, where the driver tried again by itself. *Afterwards* all keys
worked again without anybody's doing, on the same worker process or on a new one; after a refused PIN, when one was put in place.
No cell gave a wrong answer, and none left an object that the list of the token's keys does not show. *For the check to
find*: each signature is verified, each ciphertext decrypted and each new key tried before anybody gets it.

A key that *was made* though its making is not called `Ambiguous` comes of a token that gives out, after it acted, a code that the
standard gives only before. Its pending row has it found and destroyed all the same.
";
