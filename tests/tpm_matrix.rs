//! The TPM matrix: each operation of the driver, and what can befall it on the way, one command after the other: a restart of the TPM, a
//! connection that is cut before or after the TPM did it, a bit that is turned over on the wire. Then what others do to a TPM: power cuts
//! without TPM2_Shutdown until it is locked, and a process that takes all its places.
//!
//! An operation gives the right result or an error; after it, with nothing in the way, it works.
//!
//! `make test` tries a part of the cells, spread over all of them; `SIGNET_TEST_CELLS` says how many bits are turned, and with more than
//! the usual number each mishap is tried at each command.
#![cfg(feature = "tpm")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail, and says what it found"
)]

#[path = "support/proof.rs"]
mod proof;
#[path = "support/swtpm.rs"]
mod swtpm;
#[path = "support/tpm_proxy.rs"]
mod tpm_proxy;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use proof::proven;
use signet::device::tpm;
use signet::device::{
    ANCHOR_SLOT, AnchorPlace, AnchorSlot, AnchorWrite, Attest, Class, Device, Driver, Fault, Identity, KeyRef, KeySpec,
};
use signet::types::{Agreed, Algorithm, KeyId, Pcrs, PublicKey, Residency, SecretBytes, Verifier, Version};
use swtpm::Swtpm;
use tpm_proxy::{Mishap, Proxy};

/// How many bits are turned over where nobody says.
const SAMPLE: usize = 400;

/// The attributes of a key that counts wrong passwords, and power cuts.
const COUNTS: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";

/// Commands that a service never sends: whoever owns the TPM does.
const NEVER: [(u32, &str); 7] = [
    (0x126, "TPM2_Clear"),
    (0x127, "TPM2_ClearControl"),
    (0x139, "TPM2_DictionaryAttackLockReset"),
    (0x13a, "TPM2_DictionaryAttackParameters"),
    (0x122, "TPM2_NV_UndefineSpace"),
    (0x129, "TPM2_HierarchyChangeAuth"),
    (0x182, "TPM2_PCR_Extend"),
];

/// Held by each test: a TPM that one of them starts inherits what sockets the library has open for another, and would keep them open.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is asked of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Open,
    Sign,
    SignUnloaded,
    SignBound,
    Mac,
    MacBound,
    Agree,
    Decrypt,
    Make,
    MakeBound,
    Random,
    Health,
    Attest,
    AttestBound,
    Pcrs,
    ReadAnchor,
    WriteAnchor,
    MakeAnchor,
}

impl Operation {
    const ALL: [Self; 18] = [
        Self::Open,
        Self::Sign,
        Self::SignUnloaded,
        Self::SignBound,
        Self::Mac,
        Self::MacBound,
        Self::Agree,
        Self::Decrypt,
        Self::Make,
        Self::MakeBound,
        Self::Random,
        Self::Health,
        Self::Attest,
        Self::AttestBound,
        Self::Pcrs,
        Self::ReadAnchor,
        Self::WriteAnchor,
        Self::MakeAnchor,
    ];

    /// Those whose results show whether they are right, so that a falsified one is seen.
    const JUDGED: [Self; 12] = [
        Self::Open,
        Self::Sign,
        Self::SignUnloaded,
        Self::SignBound,
        Self::Mac,
        Self::MacBound,
        Self::Agree,
        Self::Decrypt,
        Self::Make,
        Self::MakeBound,
        Self::Attest,
        Self::ReadAnchor,
    ];
}

/// A key and its public half.
struct Pair {
    key: KeyRef,
    public: Option<PublicKey>,
}

impl Pair {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = self.public.as_ref().unwrap();
        Verifier::new(self.key.algorithm, public).unwrap().verifies(message, signature)
    }
}

/// A TPM behind a wire, a driver, and a key of each kind with what it must answer.
struct Rig {
    tpm: Arc<Mutex<Swtpm>>,
    wire: Proxy,
    sessions: bool,
    identity: Identity,
    device: Box<dyn Device>,
    signer: Pair,
    bound: Pair,
    mac: (KeyRef, Vec<u8>),
    bound_mac: (KeyRef, Vec<u8>),
    agrees: (KeyRef, Agreed),
    decrypts: (KeyRef, Vec<u8>),
    /// What was written last, and what stands beside it.
    anchor: (AnchorSlot, AnchorSlot),
    instances: u8,
}

const MESSAGE: &[u8] = b"the message";
const SECRET: &[u8] = b"thirty-two bytes of a secret key";

fn spec(algorithm: Algorithm, pcrs: Option<Pcrs>) -> KeySpec {
    KeySpec { id: KeyId::random().unwrap(), version: Version::FIRST, algorithm, residency: Residency::Wrapped, pcrs }
}

fn make(device: &mut dyn Device, algorithm: Algorithm, pcrs: Option<Pcrs>) -> Result<Pair, Fault> {
    let spec = spec(algorithm, pcrs);
    let made = device.generate(&spec)?;
    let key = KeyRef { id: spec.id, version: spec.version, algorithm, locator: made.locator };
    Ok(Pair { key, public: made.public })
}

fn registers() -> Pcrs {
    "sha256:0,7".parse().unwrap()
}

fn place(instance: u8) -> AnchorPlace {
    AnchorPlace { instance: [instance; 8], auth: SecretBytes::new(vec![instance; 32]) }
}

impl Rig {
    fn new(sessions: bool) -> Self {
        let tpm = Swtpm::start();
        let wire = Proxy::before(&tpm);
        let tpm = Arc::new(Mutex::new(tpm));
        let restarted = Arc::clone(&tpm);
        wire.restarts(move || restarted.lock().unwrap().restart());
        let settings = wire.settings(sessions);
        let identity = tpm::open(&settings, None).unwrap().enrol().unwrap();
        let driver = tpm::open(&settings, Some(&identity)).unwrap();
        let mut device = driver.session().unwrap();
        let own = &mut *device;
        let signer = make(own, Algorithm::EcdsaP256, None).unwrap();
        let bound = make(own, Algorithm::EcdsaP256, Some(registers())).unwrap();
        let mut code = |pcrs| {
            let key = make(own, Algorithm::HmacSha256, pcrs).unwrap().key;
            let tag = own.mac(&key, MESSAGE).unwrap();
            (key, tag)
        };
        let (mac, bound_mac) = (code(None), code(Some(registers())));
        let agreeing = make(own, Algorithm::HpkeP256, None).unwrap();
        let known = Agreed::with(agreeing.public.as_ref().unwrap()).unwrap();
        let decrypting = make(own, Algorithm::Rsa2048Oaep, None).unwrap();
        let sent = encrypted(decrypting.public.as_ref().unwrap());
        own.make_anchor(&place(1)).unwrap();
        Self {
            tpm,
            wire,
            sessions,
            identity,
            signer,
            bound,
            mac,
            bound_mac,
            agrees: (agreeing.key, known),
            decrypts: (decrypting.key, sent),
            anchor: (AnchorSlot([0; ANCHOR_SLOT]), AnchorSlot([0; ANCHOR_SLOT])),
            instances: 1,
            device,
        }
    }

    /// Has everything loaded that the operation uses, and no more planned.
    fn ready(&mut self, operation: Operation) {
        self.wire.clear();
        let beside = matches!(operation, Operation::MakeAnchor | Operation::WriteAnchor);
        let warm = if beside { Operation::ReadAnchor } else { operation };
        let warm = if operation == Operation::SignUnloaded { Operation::Mac } else { warm };
        self.perform(warm).unwrap_or_else(|fault| panic!("{operation:?} with nothing in the way: {fault:?}"));
        if operation == Operation::SignUnloaded {
            self.device.forget(self.signer.key.id, Version::FIRST).unwrap();
        }
        self.wire.passed();
    }

    /// Does it. What comes back is right: otherwise this panics.
    fn perform(&mut self, operation: Operation) -> Result<(), Fault> {
        let digest = Algorithm::EcdsaP256.hash().unwrap().digest(MESSAGE);
        let device = &mut *self.device;
        let right = match operation {
            Operation::Open => {
                let driver = tpm::open(&self.wire.settings(self.sessions), Some(&self.identity))?;
                let signature = driver.session()?.sign(&self.signer.key, &digest)?;
                self.signer.verifies(MESSAGE, &signature)
            }
            Operation::Sign | Operation::SignUnloaded => {
                self.signer.verifies(MESSAGE, &device.sign(&self.signer.key, &digest)?)
            }
            Operation::SignBound => self.bound.verifies(MESSAGE, &device.sign(&self.bound.key, &digest)?),
            Operation::Mac => device.mac(&self.mac.0, MESSAGE)? == self.mac.1,
            Operation::MacBound => device.mac(&self.bound_mac.0, MESSAGE)? == self.bound_mac.1,
            Operation::Agree => device.agree(&self.agrees.0, &self.agrees.1.point)? == self.agrees.1.secret.expose(),
            Operation::Decrypt => device.decrypt(&self.decrypts.0, &self.decrypts.1)? == SECRET,
            Operation::Make | Operation::MakeBound => {
                let pcrs = (operation == Operation::MakeBound).then(registers);
                let made = make(device, Algorithm::EcdsaP256, pcrs)?;
                // The front has a new key prove itself before it counts.
                made.verifies(MESSAGE, &device.sign(&made.key, &digest)?)
            }
            Operation::Random => device.random(40)?.expose().len() == 40,
            Operation::Health => {
                let health = device.health(&[7; 32])?;
                let verifier = Verifier::new(Algorithm::EcdsaP256, &self.identity.sentinel_public).unwrap();
                verifier.verifies(&[7; 32], &health.signature) && health.warning.is_none()
            }
            Operation::Attest => attested(device, &self.identity, &self.signer)?,
            Operation::AttestBound => attested(device, &self.identity, &self.bound)?,
            Operation::Pcrs => device.pcrs(registers())?.registers() == registers(),
            Operation::ReadAnchor => device.read_anchor(&place(1))?.contains(&self.anchor.0),
            Operation::WriteAnchor => {
                let (known, other) = self.anchor;
                let value = AnchorSlot([known.0[0].wrapping_add(1); ANCHOR_SLOT]);
                device.write_anchor(&AnchorWrite { place: place(1), known, others: vec![other], value })?;
                self.anchor = (value, known);
                device.read_anchor(&place(1))?.contains(&value)
            }
            Operation::MakeAnchor => {
                self.instances += 1;
                device.make_anchor(&place(self.instances))?;
                let blank = AnchorSlot([0; ANCHOR_SLOT]);
                device.read_anchor(&place(self.instances))? == [blank, blank]
            }
        };
        assert!(right, "a wrong result of {operation:?}");
        Ok(())
    }
}

fn attested(device: &mut dyn Device, identity: &Identity, pair: &Pair) -> Result<bool, Fault> {
    let wanted = Attest { key: pair.key.clone(), public: pair.public.clone(), binding: [9; 32] };
    let signet::attestation::Evidence::Tpm(said) = device.attest(&wanted)? else { panic!("not a TPM's") };
    let own = &identity.attestation_key.as_ref().unwrap().public;
    let verifier = Verifier::new(Algorithm::EcdsaP256, own).unwrap();
    Ok(verifier.verifies(&said.attest.0, &said.signature.0))
}

/// The secret, for whoever has the private half.
fn encrypted(public: &PublicKey) -> Vec<u8> {
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public.as_der()).unwrap()).unwrap();
    let mut sent = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, SECRET, &mut sent, None).unwrap();
    sent
}

fn cells() -> usize {
    std::env::var("SIGNET_TEST_CELLS").map_or(SAMPLE, |text| text.parse().unwrap())
}

/// Runs one of tpm2-tools.
fn tool(tpm: &Swtpm, folder: &Path, line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let command = command.args(words).current_dir(folder).env("TPM2TOOLS_TCTI", tpm.settings(false).tcti);
    let output = command.output().expect("tpm2-tools are installed");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The Nth command of each operation, and the next one until none is reached.
#[test]
fn a_mishap_at_any_command_costs_time_and_nothing_else() {
    const MISHAPS: [Mishap; 3] = [Mishap::Restart, Mishap::Cut, Mishap::HangUp];
    let _turn = turn();
    let all = cells() > SAMPLE;
    let (mut tried, mut errors) = (0, BTreeSet::new());
    for sessions in [true, false] {
        let mut rig = Rig::new(sessions);
        for (at, operation) in Operation::ALL.into_iter().enumerate() {
            for nth in 0.. {
                let mut reached = false;
                for (kind, mishap) in MISHAPS.into_iter().enumerate() {
                    if !all && (nth + at) % MISHAPS.len() != kind {
                        continue;
                    }
                    rig.ready(operation);
                    rig.wire.plan_after(nth, mishap);
                    let result = rig.perform(operation);
                    reached |= rig.wire.left() == 0;
                    rig.wire.clear();
                    tried += 1;
                    let cell = format!("{operation:?}, sessions {sessions}, command {nth}, {mishap:?}");
                    match result {
                        Ok(()) => {}
                        // The room of an anchor that was made and not reported stands in the way of the second try.
                        Err(fault) if operation == Operation::MakeAnchor && fault.class == Class::Refused => {}
                        Err(fault) => {
                            errors.insert(format!("{cell}: {:?}", fault.class));
                        }
                    }
                    rig.perform(operation).unwrap_or_else(|fault| panic!("afterwards, {cell}: {fault:?}"));
                }
                if !reached {
                    break;
                }
            }
        }
    }
    // One mishap is made good within the call: the second try meets none.
    assert!(errors.is_empty(), "{errors:#?}");
    proven(
        "mishaps of a TPM at the Nth command of an operation",
        tried,
        "each made good within the call, 0 wrong results",
    );
}

/// An interposer turns over bits of commands and of answers. A session's HMAC is over both; what has none is not believed.
#[test]
fn no_bit_turned_over_on_the_wire_makes_a_wrong_result() {
    let _turn = turn();
    let mut rig = Rig::new(true);
    // 1. All bits of all that goes over the wire.
    let mut bits = Vec::new();
    for operation in Operation::JUDGED {
        rig.ready(operation);
        rig.perform(operation).unwrap();
        for (nth, passed) in rig.wire.passed().into_iter().enumerate() {
            bits.extend((0..passed.command * 8).map(|bit| (operation, nth, Mishap::SpoilCommand(bit))));
            bits.extend((0..passed.answer * 8).map(|bit| (operation, nth, Mishap::SpoilAnswer(bit))));
        }
    }
    // 2. Some of them, or all.
    let (many, wanted) = (bits.len(), cells().min(bits.len()));
    let (mut refused, mut mended) = (0, 0);
    for number in 0..wanted {
        let (operation, nth, mishap) = bits[number * many / wanted];
        rig.ready(operation);
        rig.wire.plan_after(nth, mishap);
        match rig.perform(operation) {
            Ok(()) => mended += 1,
            Err(fault) => {
                // Registers that were falsified at a birth make a key that fails its probe.
                let of_birth = operation == Operation::MakeBound && fault.class == Class::PcrsChanged;
                let elsewhere = !matches!(fault.class, Class::PinLocked | Class::PcrsChanged);
                assert!(of_birth || elsewhere, "{operation:?} {nth} {mishap:?}: {fault:?}");
                refused += 1;
            }
        }
        rig.wire.clear();
        rig.perform(operation).unwrap_or_else(|fault| panic!("after {operation:?} {nth} {mishap:?}: {fault:?}"));
    }
    println!("{wanted} of {many} bits: {mended} right all the same, {refused} refused");
    proven("bits turned over between driver and TPM", wanted, "0 wrong results, and it works afterwards");
}

/// Power cuts without TPM2_Shutdown while somebody else's key, one that counts, is in use: after three of them the TPM is locked. We say
/// so, work on, make keys, and leave the lock to whoever owns the TPM.
#[test]
fn a_tpm_that_power_cuts_locked_is_told_of_worked_with_and_left_locked() {
    let _turn = turn();
    for sessions in [true, false] {
        let mut rig = Rig::new(sessions);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut command = Command::new("tpm2_load");
        {
            let mut tpm = rig.tpm.lock().unwrap();
            // Each leaves its key in a place of a TPM that nobody manages.
            let run = |tpm: &Swtpm, line: &str| {
                tool(tpm, folder, line);
                tool(tpm, folder, "tpm2_flushcontext -t");
            };
            std::fs::write(folder.join("message"), MESSAGE).unwrap();
            tool(&tpm, folder, "tpm2_flushcontext -t");
            run(&tpm, "tpm2_createprimary -C o -c parent");
            run(
                &tpm,
                &format!("tpm2_create -C parent -G ecc256:ecdsa-sha256 -p secret -u public -r private -a {COUNTS}"),
            );
            for _ in 0..3 {
                run(&tpm, "tpm2_createprimary -C o -c parent");
                run(&tpm, "tpm2_load -C parent -u public -r private -c key");
                run(&tpm, "tpm2_sign -c key -g sha256 -p secret -o signature message");
                tpm.restart();
            }
            run(&tpm, "tpm2_createprimary -C o -c parent");
            command.env("TPM2TOOLS_TCTI", tpm.settings(false).tcti);
        }
        command.args(["-C", "parent", "-u", "public", "-r", "private", "-c", "key"]).current_dir(folder);
        let said = command.output().unwrap();
        assert!(
            !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("0x921"),
            "not locked: {said:?}"
        );
        tool(&rig.tpm.lock().unwrap(), folder, "tpm2_flushcontext -t");

        // All that is ours works on, old and new, and it is said.
        rig.wire.passed();
        let warning = rig.device.health(&[1; 32]).unwrap().warning.unwrap();
        assert!(
            warning.contains("dictionary-attack lockout") && warning.contains("tpm2_dictionarylockout"),
            "{warning}"
        );
        for operation in Operation::ALL.into_iter().filter(|one| *one != Operation::Health) {
            rig.perform(operation).unwrap_or_else(|fault| panic!("{operation:?} of a locked TPM: {fault:?}"));
        }
        let sent: BTreeSet<_> = rig.wire.passed().into_iter().map(|one| one.number).collect();
        for (number, name) in NEVER {
            assert!(!sent.contains(&number), "{name} was sent");
        }
        // Its owner unlocks it, and nothing is said any more.
        tool(&rig.tpm.lock().unwrap(), folder, "tpm2_dictionarylockout --clear-lockout");
        assert_eq!(rig.device.health(&[1; 32]).unwrap().warning, None);
    }
}

/// Another process takes all places for keys and all numbers of sessions, and gives them back.
#[test]
fn places_that_another_process_took_are_missed_by_name_and_no_longer_than_that() {
    let _turn = turn();
    for sessions in [true, false] {
        let mut rig = Rig::new(sessions);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // 1. Places for keys. Of a software TPM, which has no resource manager, what others left is taken out.
        {
            let tpm = rig.tpm.lock().unwrap();
            tool(&tpm, folder, "tpm2_flushcontext -t");
            (0..3).for_each(|_| drop(tool(&tpm, folder, "tpm2_createprimary -C o -c stranger")));
            assert_eq!(tool(&tpm, folder, "tpm2_getcap handles-transient").lines().count(), 3);
        }
        for operation in Operation::ALL {
            rig.perform(operation).unwrap_or_else(|fault| panic!("{operation:?} beside a stranger: {fault:?}"));
        }
        // 2. Numbers of sessions: 64 in all, those that were saved included, which nobody but their owner can give back.
        let mut taken = 0;
        loop {
            let mut start = Command::new("tpm2_startauthsession");
            start.args(["-S", &format!("session-{taken}")]).current_dir(folder);
            let tcti = rig.tpm.lock().unwrap().settings(false).tcti;
            if !start.env("TPM2TOOLS_TCTI", tcti).output().unwrap().status.success() {
                break;
            }
            taken += 1;
            assert!(taken <= 64, "a TPM without end");
        }
        assert!(taken > 32, "{taken} sessions");
        // What needs one more is refused by name; what has one, or needs none, works on.
        let fault = rig.perform(Operation::SignBound).unwrap_err();
        assert_eq!(fault.class, Class::Busy, "{fault:?}");
        assert!(fault.hint.as_ref().unwrap().contains("resource manager"), "{fault:?}");
        rig.perform(Operation::Sign).unwrap();
        tool(&rig.tpm.lock().unwrap(), folder, "tpm2_flushcontext -s");
        for operation in Operation::ALL {
            rig.perform(operation).unwrap_or_else(|fault| panic!("{operation:?} after a stranger: {fault:?}"));
        }
        println!("sessions {sessions}: {taken} were taken by another process");
    }
}
