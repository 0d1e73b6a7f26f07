//! The device without the service: what a program would get that links the device's library itself.
//!
//! It runs in a process of its own, because a PKCS#11 library reads its environment once and keeps one state per process,
//! and so that its processor time is its own. It makes keys in a token or TPM that no server uses, and then measures on
//! demand, so that raw and service can take turns: one line of its standard input is `KEY THREADS MILLISECONDS`, one line of
//! its standard output the [`Sample`] in JSON.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pkcs11_raw::{Attribute, Mechanism, Module, Object, Session, Slot, ck};
use serde::{Deserialize, Serialize};
use signet::device::{Device, Driver, KeyRef, KeySpec, TpmSettings};
use signet::types::{Algorithm, CipherCall, Direction, Encapsulated, KeyId, Residency, Role, Version};

use crate::process::own_cpu;
use crate::softhsm::{LABEL, MODULE, SoftHsm};
use crate::{percentile, rate};

/// Tells a copy of this program that it is the raw device, and which.
const ROLE: &str = "SIGNET_BENCH_RAW";
/// How long a key is used before it is measured.
const WARM_UP: Duration = Duration::from_millis(20);

/// What is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Uses per second.
    pub(crate) rate: f64,
    /// Microseconds of processor time per use.
    pub(crate) cpu: f64,
    /// The median of the latency in microseconds.
    pub(crate) p50: f64,
    /// Its 99th percentile.
    pub(crate) p99: f64,
}

/// A raw device at work in another process.
pub(crate) struct Raw {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Raw {
    /// On a token of its own.
    pub(crate) fn softhsm(hsm: &SoftHsm) -> Self {
        let mut command = copy(&format!("softhsm {}", hsm.folder().display()));
        command.envs(hsm.environment());
        Self::start(command)
    }

    /// On a TPM of its own.
    pub(crate) fn tpm(settings: &TpmSettings) -> Self {
        Self::start(copy(&format!("tpm {} {}", settings.tcti, settings.sessions)))
    }

    fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program starts again");
        let (ask, answers) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let mut raw = Self { child, ask, answers: BufReader::new(answers) };
        assert_eq!(raw.line().trim(), "ready", "the raw device did not open");
        raw
    }

    /// Measures one key.
    pub(crate) fn measure(&mut self, key: &str, threads: usize, time: Duration) -> Sample {
        self.begin(key, threads, time);
        self.end()
    }

    /// Measures one key in two processes at once, on one thread each.
    pub(crate) fn measure_two(&mut self, other: &mut Self, key: &str, time: Duration) -> Sample {
        self.begin(key, 1, time);
        other.begin(key, 1, time);
        let (one, other) = (self.end(), other.end());
        Sample {
            rate: one.rate + other.rate,
            cpu: f64::midpoint(one.cpu, other.cpu),
            p50: f64::midpoint(one.p50, other.p50),
            p99: one.p99.max(other.p99),
        }
    }

    fn begin(&mut self, key: &str, threads: usize, time: Duration) {
        let ask = self.ask.as_mut().expect("it is not ended");
        writeln!(ask, "{key} {threads} {}", time.as_millis()).expect("the raw device listens");
    }

    fn end(&mut self) -> Sample {
        serde_json::from_str(&self.line()).expect("a sample")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the raw device answers");
        line
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        drop(self.ask.take());
        let _ = self.child.wait();
    }
}

fn copy(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program knows where it is"));
    command.env(ROLE, role).env("TSS2_LOG", "all+NONE");
    command
}

/// Plays the raw device where this process is to be one.
pub(crate) fn played() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    match role.split(' ').collect::<Vec<_>>().as_slice() {
        ["softhsm", folder] => softhsm(Path::new(folder)),
        ["tpm", tcti, sessions] => tpm((*tcti).to_owned(), *sessions == "true"),
        _ => panic!("{role}: no such device"),
    }
    true
}

/// Answers until nobody asks any more. `run` uses a key again and again until the time is over, and gives all latencies.
fn serve(mut run: impl FnMut(&str, usize, Duration) -> Vec<Duration>) {
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        let [key, threads, millis] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?} asks nothing") };
        let threads = threads.parse().expect("a number of threads");
        run(key, threads, WARM_UP);
        let (cpu, began) = (own_cpu(), Instant::now());
        let mut latencies = run(key, threads, Duration::from_millis(millis.parse().expect("a time")));
        let (cpu, elapsed) = (own_cpu() - cpu, began.elapsed());
        latencies.sort_unstable();
        let sample = Sample {
            rate: rate(latencies.len(), elapsed),
            cpu: cpu.as_secs_f64() * 1e6 / latencies.len() as f64,
            p50: percentile(&latencies, 50),
            p99: percentile(&latencies, 99),
        };
        println!("{}", serde_json::to_string(&sample).expect("JSON"));
    }
}

/// Does `act` until the time is over, at least once.
fn repeat(time: Duration, mut act: impl FnMut()) -> Vec<Duration> {
    let end = Instant::now() + time;
    let mut latencies = Vec::with_capacity(100_000);
    loop {
        let began = Instant::now();
        act();
        let now = Instant::now();
        latencies.push(now - began);
        if now >= end {
            return latencies;
        }
    }
}

/// One PKCS#11 key and how it is used.
struct Pkcs11Key {
    object: Object,
    act: Act,
}

/// What is done with a key.
enum Act {
    Sign(Mechanism, Vec<u8>),
    Agree,
    Seal,
}

impl Pkcs11Key {
    fn run(&self, session: &Session) {
        let object = self.object;
        let done = match &self.act {
            Act::Sign(mechanism, input) => session.sign(*mechanism, object, input),
            Act::Agree => session.agree(object, &generator(), &agreed()),
            // As long as a data key of 32 bytes is with its sum, bound to a header and a context.
            Act::Seal => session.seal(object, &[7; 12], &[7; 68], &[7; 64]),
        };
        drop(done.expect("a result"));
    }
}

/// What is read of an agreement and destroyed again.
fn agreed() -> [Attribute; 6] {
    [
        Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY),
        Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_GENERIC_SECRET),
        Attribute::number(ck::CKA_VALUE_LEN, 32),
        Attribute::flag(ck::CKA_TOKEN, false),
        Attribute::flag(ck::CKA_SENSITIVE, false),
        Attribute::flag(ck::CKA_EXTRACTABLE, true),
    ]
}

/// The keys of a token, as `RESIDENCY/ALGORITHM`.
fn softhsm(folder: &Path) {
    let hsm = SoftHsm::at(folder.to_owned());
    let module = Module::load(Path::new(MODULE)).expect("SoftHSM is installed");
    let slot = slot(&module);
    let keeper = Session::open(&module, slot).expect("a session");
    let pin = std::fs::read(hsm.pin_file()).expect("the PIN").trim_ascii().to_vec();
    keeper.login(pin.into()).expect("the PIN is right");
    let mut keys = BTreeMap::new();
    for residency in [Residency::Resident, Residency::Wrapped] {
        // A wrapped key in use is a session object.
        let token = residency == Residency::Resident;
        for algorithm in [
            Algorithm::EcdsaP256,
            Algorithm::Ed25519,
            Algorithm::Rsa2048Pkcs1,
            Algorithm::Aes256GcmDerived,
            Algorithm::Aes256Gcm,
            Algorithm::HpkeP256,
        ] {
            keys.insert(format!("{residency}/{algorithm}"), make(&keeper, algorithm, token));
        }
    }
    serve(|key, threads, time| {
        let key = &keys[key];
        std::thread::scope(|scope| {
            let start = || {
                let session = Session::open(&module, slot).expect("a session");
                repeat(time, move || key.run(&session))
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(start)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
        })
    });
}

fn slot(module: &Arc<Module>) -> Slot {
    let slots = module.slots().expect("slots").into_iter();
    let ours = |slot: &Slot| module.token_info(*slot).is_ok_and(|info| info.label == LABEL);
    slots.into_iter().find(ours).expect("our token")
}

fn make(session: &Session, algorithm: Algorithm, token: bool) -> Pkcs11Key {
    // The curves' names in DER: P-256 and Ed25519.
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    let private = |role| {
        [
            Attribute::flag(ck::CKA_TOKEN, token),
            Attribute::flag(ck::CKA_PRIVATE, true),
            Attribute::flag(ck::CKA_SENSITIVE, true),
            Attribute::flag(ck::CKA_EXTRACTABLE, false),
            Attribute::flag(role, true),
        ]
    };
    let pair = |generator, role, public_role, size: &[Attribute]| {
        let public = [&[Attribute::flag(ck::CKA_TOKEN, false), Attribute::flag(public_role, true)], size].concat();
        session.generate_pair(generator, &public, &private(role)).expect("a key pair").1
    };
    let signing = |generator, size: &[Attribute]| pair(generator, ck::CKA_SIGN, ck::CKA_VERIFY, size);
    let secret = |generator, role, kind| {
        let mut template = private(role).to_vec();
        template.push(Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY));
        template.push(Attribute::number(ck::CKA_KEY_TYPE, kind));
        template.push(Attribute::number(ck::CKA_VALUE_LEN, 32));
        session.generate(generator, &template).expect("a secret key")
    };
    let curve = |oid| [Attribute::bytes(ck::CKA_EC_PARAMS, oid)];
    let digest = vec![7; 32];
    let (object, act) = match algorithm {
        Algorithm::EcdsaP256 => (signing(Mechanism::EcKeyPairGen, &curve(P256)), Act::Sign(Mechanism::Ecdsa, digest)),
        Algorithm::Ed25519 => {
            (signing(Mechanism::EdwardsKeyPairGen, &curve(ED25519)), Act::Sign(Mechanism::Eddsa, digest))
        }
        Algorithm::Rsa2048Pkcs1 => {
            let size =
                [Attribute::number(ck::CKA_MODULUS_BITS, 2048), Attribute::bytes(ck::CKA_PUBLIC_EXPONENT, &[1, 0, 1])];
            // A `DigestInfo` is 19 bytes longer than its digest.
            (signing(Mechanism::RsaPkcsKeyPairGen, &size), Act::Sign(Mechanism::RsaPkcs, vec![7; 51]))
        }
        // As long as what an envelope asks for: label, header, hash of the context.
        Algorithm::Aes256GcmDerived => (
            secret(Mechanism::GenericSecretKeyGen, ck::CKA_SIGN, ck::CKK_GENERIC_SECRET),
            Act::Sign(Mechanism::Sha256Hmac, vec![7; 102]),
        ),
        Algorithm::Aes256Gcm => (secret(Mechanism::AesKeyGen, ck::CKA_ENCRYPT, ck::CKK_AES), Act::Seal),
        Algorithm::HpkeP256 => {
            (pair(Mechanism::EcKeyPairGen, ck::CKA_DERIVE, ck::CKA_DERIVE, &curve(P256)), Act::Agree)
        }
        _ => panic!("{algorithm} is not measured"),
    };
    Pkcs11Key { object, act }
}

/// The keys of a TPM, as `wrapped/ALGORITHM`: the driver itself, in this process.
fn tpm(tcti: String, sessions: bool) {
    let driver =
        signet::device::tpm::open(&TpmSettings { tcti, sessions, anchor_writes_per_day: None }, None).expect("a TPM");
    let mut device = driver.session().expect("a session");
    let mut keys = BTreeMap::new();
    let algorithms = [
        Algorithm::EcdsaP256,
        Algorithm::Rsa2048Pkcs1,
        Algorithm::Aes256GcmDerived,
        Algorithm::HpkeP256,
        Algorithm::Rsa2048Oaep,
    ];
    for algorithm in algorithms {
        let id = KeyId::random().expect("an id");
        let spec = KeySpec { id, version: Version::FIRST, algorithm, residency: Residency::Wrapped, pcrs: None };
        let made = device.generate(&spec).expect("a key");
        let key = KeyRef { id, version: Version::FIRST, algorithm, locator: made.locator };
        // What it decrypts or decapsulates, where that is its role.
        let sent = matches!(algorithm.role(), Role::Decrypt | Role::Decapsulate).then(|| {
            let public = made.public.as_ref().expect("a public key");
            Encapsulated::to(algorithm, public).expect("a secret for it").sent
        });
        keys.insert(format!("wrapped/{algorithm}"), (key, sent));
    }
    serve(|key, _, time| {
        let (key, sent) = &keys[key];
        repeat(time, || use_key(device.as_mut(), key, sent.as_deref()))
    });
    drop(device);
    driver.shutdown();
}

/// A point to agree with: the generator of P-256 (SP 800-186, 3.2.1.3).
fn generator() -> Vec<u8> {
    const X: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
    const Y: &str = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    hex::decode(format!("04{X}{Y}")).expect("digits")
}

fn use_key(device: &mut dyn Device, key: &KeyRef, sent: Option<&[u8]>) {
    let used = match key.algorithm.role() {
        Role::Sign => device.sign(key, &[7; 32]),
        Role::Mac => device.mac(key, &[7; 102]),
        Role::Decrypt => device.decrypt(key, sent.expect("a ciphertext")),
        Role::Decapsulate => device.decapsulate(key, sent.expect("a ciphertext")),
        // As long as a data key of 32 bytes is with its sum, bound to a header and a context.
        Role::Cipher => device
            .cipher(key, &CipherCall { nonce: &[7; 12], aad: &[7; 68], data: &[7; 64] }.encode(Direction::Encrypt)),
        Role::Agree => device.agree(key, &generator()),
    };
    drop(used.expect("a result"));
}
