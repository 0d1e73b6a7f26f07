//! One suite for all devices. It walks the list by itself, so that none is left out; what a device cannot do is declared,
//! and the declaration is tested too. The matrix of declarations is `tests/golden/device-matrix.txt`.

use std::fmt::Write as _;
use std::fs;

use signet::device::{
    ANCHOR_SLOT, Ability, AnchorPlace, AnchorSlot, AnchorWrite, Class, Fault, KekRole, Locator, Settings, Worker,
};
use signet::types::{Agreed, Algorithm, CipherCall, Direction, Encapsulated, Residency, Role, SecretBytes, Verifier};

use crate::bench::{Bench, Key, MESSAGE, softhsm};
use crate::kryoptic::Kryoptic;
use crate::proof::proven;
use crate::softhsm::SoftHsm;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/device-matrix.txt");

/// The devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    SoftHsm,
    Kryoptic,
    /// With a newer OpenSSL: not in the matrix, since few build it.
    KryopticFull,
    #[cfg(feature = "tpm")]
    Swtpm,
    #[cfg(feature = "tpm")]
    SwtpmWithoutSessions,
}

impl Device {
    /// Those of the matrix.
    const ALL: &[Self] = &[
        Self::SoftHsm,
        Self::Kryoptic,
        #[cfg(feature = "tpm")]
        Self::Swtpm,
        #[cfg(feature = "tpm")]
        Self::SwtpmWithoutSessions,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::SoftHsm => "softhsm",
            Self::Kryoptic => "kryoptic",
            Self::KryopticFull => "kryoptic with ML-DSA and ML-KEM",
            #[cfg(feature = "tpm")]
            Self::Swtpm => "swtpm",
            #[cfg(feature = "tpm")]
            Self::SwtpmWithoutSessions => "swtpm without sessions",
        }
    }

    /// Starts it, with what keeps it alive.
    fn start(self) -> Option<(Alive, Settings)> {
        match self {
            Self::SoftHsm => {
                let hsm = softhsm()?;
                let settings = Settings::Pkcs11(hsm.settings());
                Some((Alive::SoftHsm(hsm), settings))
            }
            Self::Kryoptic | Self::KryopticFull => {
                let token = if self == Self::Kryoptic { Kryoptic::new()? } else { Kryoptic::full()? };
                let settings = Settings::Pkcs11(token.settings());
                Some((Alive::Kryoptic(token), settings))
            }
            #[cfg(feature = "tpm")]
            Self::Swtpm | Self::SwtpmWithoutSessions => {
                let tpm = crate::bench::swtpm()?;
                let settings = Settings::Tpm(tpm.settings(self == Self::Swtpm));
                Some((Alive::Swtpm(tpm), settings))
            }
        }
    }

    /// Which RSA sizes are made: the larger ones cost seconds, and once is enough.
    const fn makes_rsa(self, bits: u32, residency: Residency) -> bool {
        match self {
            Self::SoftHsm => bits < 4096 || matches!(residency, Residency::Resident),
            // It answers nothing else while it makes or takes in a larger one: on a busy machine longer than a use may take.
            Self::Kryoptic | Self::KryopticFull => bits < 3072,
            #[cfg(feature = "tpm")]
            Self::Swtpm => bits < 4096,
            #[cfg(feature = "tpm")]
            Self::SwtpmWithoutSessions => bits < 3072,
        }
    }
}

/// Ends the device when it is dropped.
#[expect(dead_code, reason = "held for its drop")]
enum Alive {
    SoftHsm(SoftHsm),
    Kryoptic(Kryoptic),
    #[cfg(feature = "tpm")]
    Swtpm(crate::swtpm::Swtpm),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_keeps_the_contract() {
    let walks = futures_util::future::join_all(Device::ALL.iter().map(|&device| keeps_the_contract(device))).await;
    let walked = Device::ALL.iter().copied().zip(walks);
    let Some(matrix) = walked.map(|(device, abilities)| Some((device, abilities?))).collect::<Option<Vec<_>>>() else {
        return;
    };
    let table = table(&matrix);
    println!("{table}");
    if std::env::var_os("SIGNET_RENEW_GOLDEN").is_some() {
        fs::write(GOLDEN, &table).unwrap();
    }
    // A build without the TPM driver has fewer columns.
    let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(table == golden || cfg!(not(feature = "tpm")), "{GOLDEN} differs; SIGNET_RENEW_GOLDEN=1 renews it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_ml_dsa_and_ml_kem_keeps_the_contract() {
    let Some(abilities) = keeps_the_contract(Device::KryopticFull).await else { return };
    let refused: Vec<_> = abilities.iter().filter(|one| one.refusal.is_some()).collect();
    let [one, two] = refused[..] else { panic!("{refused:?}") };
    for (one, algorithm) in [(one, Algorithm::MlDsa65), (two, Algorithm::MlKem768)] {
        assert_eq!((one.algorithm, one.residency), (algorithm, Residency::Wrapped));
        let refusal = one.refusal.as_deref().unwrap();
        assert!(refusal.starts_with(&format!("this token cannot wrap {algorithm} keys")), "{refusal}");
    }
    let what = "kinds of keys in a token with ML-DSA and ML-KEM that keep the contract";
    proven(what, abilities.len() - 2, one.refusal.as_deref().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_that_somebody_else_wrote_is_left_as_it_is() {
    for device in Device::ALL {
        let Some((_alive, settings)) = device.start() else { continue };
        let bench = Bench::enrol(settings.clone()).await;
        bench.worker.make_anchor(anchor()).await.unwrap();
        write_anchor(&bench.worker, 0, &[0], 1).await.unwrap();
        // 1. Whoever knows another state writes nothing: one who missed the last write, and one who takes a slot for another.
        for (known, others) in [(0, &[0][..]), (1, &[7]), (7, &[0]), (1, &[]), (1, &[0, 0]), (0, &[])] {
            let fault = write_anchor(&bench.worker, known, others, 2).await.unwrap_err();
            assert_eq!(fault.class, Class::Refused, "{}: {known} beside {others:?}: {fault}", device.name());
            assert_eq!(numbers_in_anchor(&bench.worker).await, [0, 1], "{}", device.name());
        }
        write_anchor(&bench.worker, 1, &[0], 2).await.unwrap();
        // 2. Nor does a process that still holds what it read before another process wrote.
        if *device == Device::SoftHsm {
            let other = Bench::open(settings, &bench.identity);
            assert_eq!(numbers_in_anchor(&other).await, [1, 2]);
            write_anchor(&bench.worker, 2, &[1], 3).await.unwrap();
            assert_eq!(write_anchor(&other, 2, &[1], 4).await.unwrap_err().class, Class::Refused);
            assert_eq!(numbers_in_anchor(&bench.worker).await, [2, 3]);
            other.shutdown().await;
        }
    }
}

fn anchor() -> AnchorPlace {
    AnchorPlace { instance: [7; 8], auth: SecretBytes::new(vec![9; 32]) }
}

/// Writes an anchor whose slots are each one number over and over.
async fn write_anchor(worker: &Worker, known: u8, others: &[u8], value: u8) -> Result<(), Fault> {
    let slot = |number| AnchorSlot([number; ANCHOR_SLOT]);
    let others = others.iter().copied().map(slot).collect();
    worker.write_anchor(AnchorWrite { place: anchor(), known: slot(known), others, value: slot(value) }).await
}

async fn numbers_in_anchor(worker: &Worker) -> Vec<u8> {
    let mut numbers: Vec<_> = worker.read_anchor(&anchor()).await.unwrap().iter().map(|slot| slot.0[0]).collect();
    numbers.sort_unstable();
    numbers
}

async fn keeps_the_contract(device: Device) -> Option<Vec<Ability>> {
    let (_alive, settings) = device.start()?;
    let bench = Bench::enrol(settings).await;
    let abilities = bench.worker.describe().await.unwrap().abilities.clone();
    declares_everything_once(&abilities);
    for ability in &abilities {
        match &ability.refusal {
            Some(refusal) => refuses(&bench, ability, refusal).await,
            None => {
                let bits = ability.algorithm.rsa_bits();
                // The two paddings share the way a key is made.
                let slow = bits == Some(4096) && ability.algorithm.is_pss();
                if !slow && bits.is_none_or(|bits| device.makes_rsa(bits, ability.residency)) {
                    lives_and_dies(&bench, ability.algorithm, ability.residency).await;
                }
            }
        }
    }
    gives_random_bytes(&bench).await;
    proves_its_sentinel(&bench).await;
    forgets(&bench, &abilities).await;
    refuses_the_key_of_another_device(&bench, &abilities).await;
    assert_eq!(bench.worker.restarts(), 0, "{}: none of this costs a worker", device.name());
    bench.worker.shutdown().await;
    Some(abilities)
}

fn declares_everything_once(abilities: &[Ability]) {
    for &algorithm in Algorithm::ALL {
        for residency in Residency::ALONE {
            let rows = abilities.iter().filter(|one| one.algorithm == algorithm && one.residency == residency).count();
            assert_eq!(rows, 1, "{algorithm} {residency}");
        }
    }
    assert_eq!(abilities.len(), Algorithm::ALL.len() * Residency::ALONE.len());
}

async fn refuses(bench: &Bench, ability: &Ability, refusal: &str) {
    let (_, fault) = bench.try_make(ability.algorithm, ability.residency).await.err().unwrap();
    assert_eq!(fault.class, Class::Unsupported, "{ability:?}");
    assert!(fault.text.contains(refusal), "{ability:?}: {fault}");
}

/// A key is made, seen, used, judged, fed with wrong lengths, and destroyed.
async fn lives_and_dies(bench: &Bench, algorithm: Algorithm, residency: Residency) {
    // 1. Made as it was asked for, and listed where the device stores it.
    let key = bench.make(algorithm, residency).await;
    assert_eq!(key.key.locator.residency(), residency);
    assert_eq!(key.public.is_some(), !matches!(algorithm.role(), Role::Mac | Role::Cipher));
    let stored = matches!(key.key.locator, Locator::Resident);
    assert_eq!(bench.has(key.key.id).await, stored, "{algorithm} {residency}");
    // 2. Used and judged.
    does_its_one_thing(bench, &key, residency).await;
    // 3. Destroyed, and again: gone already is success.
    for _ in 0..2 {
        bench.worker.destroy((*key.key).clone()).await.unwrap();
    }
    assert!(!bench.has(key.key.id).await);
    if stored {
        assert_eq!(bench.class(&key).await, Some(Class::KeyGone), "{algorithm}");
    }
}

async fn does_its_one_thing(bench: &Bench, key: &Key, residency: Residency) {
    match key.key.algorithm.role() {
        Role::Sign => signs(bench, key).await,
        Role::Mac => macs(bench, key, residency).await,
        Role::Agree => agrees(bench, key).await,
        Role::Decrypt => decrypts(bench, key).await,
        Role::Decapsulate => decapsulates(bench, key).await,
        Role::Cipher => ciphers(bench, key, residency).await,
    }
}

async fn signs(bench: &Bench, key: &Key) {
    let (algorithm, verifier) = (key.key.algorithm, key.verifier.as_ref().unwrap());
    bench.works(key).await;
    let many = [b"one".as_slice(), b"two", b"three"];
    let inputs = many.iter().map(|message| key.input(message)).collect();
    for (message, signature) in many.iter().zip(bench.worker.use_key_batch(&key.key, inputs).await) {
        assert!(verifier.verifies(message, signature.unwrap().expose()), "{algorithm}: in order");
    }
    if let Some(hash) = algorithm.hash() {
        for length in [0, 1, hash.size() - 1, hash.size() + 1, 2 * hash.size()] {
            let fault = bench.worker.use_key(&key.key, vec![7; length]).await.unwrap_err();
            assert_eq!(fault.class, Class::Refused, "{algorithm} and {length} bytes: {fault}");
        }
        bench.works(key).await;
    }
}

async fn macs(bench: &Bench, key: &Key, residency: Residency) {
    let algorithm = key.key.algorithm;
    let other = bench.make(algorithm, residency).await;
    let most = bench.worker.describe().await.unwrap().max_mac_input;
    let mac = async |key: &Key, message: &[u8]| bench.worker.use_key(&key.key, message.to_vec()).await;
    let tag = mac(key, MESSAGE).await.unwrap();
    assert_eq!(tag.expose().len(), algorithm.hash().unwrap().size(), "{algorithm}");
    assert_eq!(mac(key, MESSAGE).await.unwrap().expose(), tag.expose(), "{algorithm}");
    assert_ne!(mac(&other, MESSAGE).await.unwrap().expose(), tag.expose(), "{algorithm}");
    assert_ne!(mac(key, b"").await.unwrap().expose(), tag.expose(), "{algorithm}");
    assert_eq!(mac(key, &vec![1; most]).await.unwrap().expose().len(), tag.expose().len(), "{algorithm}");
    assert_eq!(mac(key, &vec![1; most + 1]).await.unwrap_err().class, Class::Refused, "{algorithm}");
    bench.worker.destroy((*other.key).clone()).await.unwrap();
}

/// It agrees with a thousand points on what software says, and with nothing that is not a point of its curve.
async fn agrees(bench: &Bench, key: &Key) {
    let known: Vec<_> = (0..1000).map(|_| Agreed::with(key.public.as_ref().unwrap()).unwrap()).collect();
    // A secret with leading zeros comes once in 256.
    let inputs = known.iter().map(|one| one.point.to_vec()).collect();
    for (known, secret) in known.iter().zip(bench.worker.use_key_batch(&key.key, inputs).await) {
        assert_eq!(secret.unwrap().expose(), known.secret.expose());
    }
    let good = known[0].point;
    let (mut off, mut compressed) = (good, good);
    off[64] ^= 1;
    compressed[0] = 3;
    let none: [&[u8]; 6] = [b"", &good[..64], &[&good[..], &[0]].concat(), &off, &compressed[..33], &[0; 65]];
    for bad in none {
        let fault = bench.worker.use_key(&key.key, bad.to_vec()).await.unwrap_err();
        assert_eq!(fault.class, Class::Refused, "{fault}");
    }
    assert_eq!(bench.worker.use_key(&key.key, good.to_vec()).await.unwrap().expose(), known[0].secret.expose());
}

/// It finds what was encrypted to its public half, and refuses everything else, whatever is wrong with it.
async fn decrypts(bench: &Bench, key: &Key) {
    let algorithm = key.key.algorithm;
    let known: Vec<_> = (0..3).map(|_| Encapsulated::to(algorithm, key.public.as_ref().unwrap()).unwrap()).collect();
    let inputs = known.iter().map(|one| one.sent.clone()).collect();
    for (known, secret) in known.iter().zip(bench.worker.use_key_batch(&key.key, inputs).await) {
        assert_eq!(secret.unwrap().expose(), known.secret.expose(), "{algorithm}");
    }
    let good = &known[0].sent;
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    for bad in [Vec::new(), vec![1], good[1..].to_vec(), vec![0; good.len()], vec![255; good.len()], flipped] {
        let fault = bench.worker.use_key(&key.key, bad.clone()).await.unwrap_err();
        assert_eq!(fault.class, Class::Refused, "{algorithm}, {} bytes: {fault}", bad.len());
    }
    let again = bench.worker.use_key(&key.key, good.clone()).await.unwrap();
    assert_eq!(again.expose(), known[0].secret.expose(), "{algorithm}");
}

/// It finds what was encapsulated to its public half, as software says. What was changed gives another secret, always the same (FIPS 203, 6.3),
/// and what has another length none.
async fn decapsulates(bench: &Bench, key: &Key) {
    let algorithm = key.key.algorithm;
    let known: Vec<_> = (0..1000).map(|_| Encapsulated::to(algorithm, key.public.as_ref().unwrap()).unwrap()).collect();
    let inputs = known.iter().map(|one| one.sent.clone()).collect();
    for (known, secret) in known.iter().zip(bench.worker.use_key_batch(&key.key, inputs).await) {
        assert_eq!(secret.unwrap().expose(), known.secret.expose(), "{algorithm}");
    }
    let good = &known[0].sent;
    for at in [0, 500, good.len() - 1] {
        let bad = flipped(good, at);
        let [one, two] = [bench.worker.use_key(&key.key, bad.clone()).await, bench.worker.use_key(&key.key, bad).await];
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!((one.expose(), one.expose().len()), (two.expose(), Encapsulated::SECRET), "{algorithm}");
        assert_ne!(one.expose(), known[0].secret.expose(), "{algorithm}");
    }
    for bad in [Vec::new(), vec![1], good[1..].to_vec(), [good.as_slice(), &[0]].concat()] {
        let fault = bench.worker.use_key(&key.key, bad.clone()).await.unwrap_err();
        assert_eq!(fault.class, Class::Refused, "{algorithm}, {} bytes: {fault}", bad.len());
    }
    let again = bench.worker.use_key(&key.key, good.clone()).await.unwrap();
    assert_eq!(again.expose(), known[0].secret.expose(), "{algorithm}");
}

/// It decrypts what it encrypted, and refuses everything else, whatever is wrong with it.
async fn ciphers(bench: &Bench, key: &Key, residency: Residency) {
    let algorithm = key.key.algorithm;
    let other = bench.make(algorithm, residency).await;
    let call = |nonce: u8, aad: &[u8], data: &[u8], direction| {
        CipherCall { nonce: &[nonce; CipherCall::NONCE], aad, data }.encode(direction)
    };
    let ask = async |key: &Key, input: Vec<u8>| bench.worker.use_key(&key.key, input).await;
    let sealed = ask(key, call(1, b"beside", MESSAGE, Direction::Encrypt)).await.unwrap();
    assert_eq!(sealed.expose().len(), MESSAGE.len() + CipherCall::TAG);
    let opened = ask(key, call(1, b"beside", sealed.expose(), Direction::Decrypt)).await.unwrap();
    assert_eq!(opened.expose(), MESSAGE);
    // 1. Nonce, key and what stands beside it count.
    for (key, nonce, aad) in [(key, 2, b"beside".as_slice()), (key, 1, b"other"), (&other, 1, b"beside")] {
        let sealed_otherwise = ask(key, call(nonce, aad, MESSAGE, Direction::Encrypt)).await.unwrap();
        assert_ne!(sealed_otherwise.expose(), sealed.expose());
        let fault = ask(key, call(nonce, aad, sealed.expose(), Direction::Decrypt)).await.unwrap_err();
        assert_eq!(fault.class, Class::Refused, "{fault}");
    }
    // 2. Each byte counts, and the length.
    let whole = sealed.expose();
    let mut bad: Vec<Vec<u8>> = [0, MESSAGE.len(), whole.len() - 1].map(|at| flipped(whole, at)).into();
    bad.extend([0, 1, 15, whole.len() - 1].map(|length| whole[..length].to_vec()));
    bad.push([whole, &[0]].concat());
    for bad in bad {
        let fault = ask(key, call(1, b"beside", &bad, Direction::Decrypt)).await.unwrap_err();
        assert_eq!(fault.class, Class::Refused, "{} bytes: {fault}", bad.len());
    }
    // 3. From nothing to the longest, many at once; and no call at all.
    let lengths = [0, 1, 16, 65_536 + 32];
    let calls = lengths.iter().map(|length| call(3, b"", &vec![9; *length], Direction::Encrypt)).collect();
    let many: Vec<_> = bench.worker.use_key_batch(&key.key, calls).await.into_iter().map(Result::unwrap).collect();
    let calls = many.iter().map(|sealed| call(3, b"", sealed.expose(), Direction::Decrypt)).collect();
    for (length, opened) in lengths.iter().zip(bench.worker.use_key_batch(&key.key, calls).await) {
        assert_eq!(opened.unwrap().expose(), vec![9; *length]);
    }
    for none in [Vec::new(), vec![2; 40], vec![1; 14], call(1, b"", &[0; 65_536 + 49], Direction::Encrypt)] {
        assert_eq!(ask(key, none).await.unwrap_err().class, Class::Refused);
    }
    let opened = ask(key, call(1, b"beside", sealed.expose(), Direction::Decrypt)).await.unwrap();
    assert_eq!(opened.expose(), MESSAGE);
    bench.worker.destroy((*other.key).clone()).await.unwrap();
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1;
    flipped
}

async fn gives_random_bytes(bench: &Bench) {
    for length in [0, 1, 16, 33, 1024] {
        assert_eq!(bench.worker.random(length).await.unwrap().expose().len(), length);
    }
    assert_ne!(bench.worker.random(32).await.unwrap().expose(), bench.worker.random(32).await.unwrap().expose());
    assert_eq!(bench.worker.random(1025).await.unwrap_err().class, Class::Refused);
}

async fn proves_its_sentinel(bench: &Bench) {
    crate::bench::eventually("the sentinel proved itself", async || bench.worker.proved().is_some()).await;
    // The sentinel is a key like any other, so a judge of our own can ask it.
    let sentinel = Key {
        key: std::sync::Arc::new(bench.identity.sentinel.clone()),
        verifier: Some(std::sync::Arc::new(
            Verifier::new(bench.identity.sentinel.algorithm, &bench.identity.sentinel_public).unwrap(),
        )),
        public: Some(bench.identity.sentinel_public.clone()),
    };
    bench.works(&sentinel).await;
}

/// What was forgotten works all the same.
async fn forgets(bench: &Bench, abilities: &[Ability]) {
    for residency in Residency::ALONE {
        let able = |one: &&Ability| one.algorithm == Algorithm::EcdsaP256 && one.residency == residency;
        if abilities.iter().find(able).is_some_and(|one| one.refusal.is_none()) {
            let key = bench.make(Algorithm::EcdsaP256, residency).await;
            bench.worker.forget(key.key.id, key.key.version).await.unwrap();
            bench.works(&key).await;
            bench.worker.destroy((*key.key).clone()).await.unwrap();
        }
    }
    let inventory = bench.worker.inventory().await.unwrap();
    assert!(inventory.halves.is_empty() && inventory.foreign == 0, "{inventory:?}");
}

async fn refuses_the_key_of_another_device(bench: &Bench, abilities: &[Ability]) {
    let able = abilities.iter().find(|one| one.algorithm == Algorithm::EcdsaP256 && one.refusal.is_none()).unwrap();
    let key = bench.make(able.algorithm, able.residency).await;
    let mut other = (*key.key).clone();
    other.id = signet::types::KeyId::random().unwrap();
    other.locator = match &bench.settings {
        Settings::Tpm(_) => Locator::Resident,
        Settings::Pkcs11(_) => {
            let auth = SecretBytes::new(vec![1; 32]);
            Locator::Tpm { parent: vec![0; 34], public: vec![0; 88], private: vec![0; 126], auth }
        }
    };
    let fault = bench.worker.use_key(&std::sync::Arc::new(other), key.input(MESSAGE)).await.unwrap_err();
    assert!(matches!(fault.class, Class::Refused | Class::Unsupported), "{fault}");
    bench.works(&key).await;
}

/// What one makes, the other one does as well: tokens that share keys keep the contract together.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_share_keep_the_contract_together() {
    for [maker, other] in
        [[Device::SoftHsm, Device::SoftHsm], [Device::SoftHsm, Device::Kryoptic], [Device::Kryoptic, Device::SoftHsm]]
    {
        let (Some((_alive, one)), Some((_too, another))) = (maker.start(), other.start()) else { continue };
        let [maker, other] = share(Bench::enrol(one).await, Bench::enrol(another).await).await;
        let able = |abilities: &[Ability], algorithm| {
            let mut rows = abilities.iter();
            let row = rows.find(|row| row.algorithm == algorithm && row.residency == Residency::Shared).unwrap();
            row.refusal.is_none()
        };
        let [ours, theirs] =
            [&maker, &other].map(|bench| async { bench.worker.describe().await.unwrap().abilities.clone() });
        let (ours, theirs) = (ours.await, theirs.await);
        let mut shared = 0;
        for &algorithm in Algorithm::ALL {
            let slow = algorithm.rsa_bits().is_some_and(|bits| bits > 2048);
            if slow || !able(&ours, algorithm) || !able(&theirs, algorithm) {
                continue;
            }
            let key = maker.make(algorithm, Residency::Shared).await;
            assert!(!maker.has(key.key.id).await, "nothing of it stays in the token");
            for bench in [&maker, &other] {
                does_its_one_thing(bench, &key, Residency::Shared).await;
            }
            for bench in [&maker, &other] {
                bench.worker.destroy((*key.key).clone()).await.unwrap();
            }
            shared += 1;
        }
        assert!(shared >= 9, "only {shared} kinds of keys");
        for bench in [maker, other] {
            assert_eq!(bench.worker.restarts(), 0);
            bench.worker.shutdown().await;
        }
    }
}

/// Has two devices share, and opens them with what is pinned then.
async fn share(one: Bench, other: Bench) -> [Bench; 2] {
    let unsupported = one.try_make(Algorithm::EcdsaP256, Residency::Shared).await.err().unwrap().1;
    assert_eq!(unsupported.class, Class::Unsupported);
    let transports = vec![one.worker.open_transport().await.unwrap(), other.worker.open_transport().await.unwrap()];
    let made = one.worker.make_shared(KekRole::ALL.to_vec(), transports).await.unwrap();
    let [ours, theirs]: [Vec<_>; 2] = made.try_into().unwrap();
    // 1. What is for one transport does not open with another, and that leaves nothing; a transport serves once.
    let before = other.worker.inventory().await.unwrap();
    other.worker.take_shared(ours.clone()).await.unwrap_err();
    assert_eq!(other.worker.inventory().await.unwrap(), before);
    assert_eq!(other.worker.take_shared(theirs).await.unwrap_err().class, Class::Refused, "it was used");
    one.worker.take_shared(ours).await.unwrap();
    let again = one.worker.open_transport().await.unwrap();
    let refused = one.worker.make_shared(KekRole::ALL.to_vec(), vec![again]).await.unwrap_err();
    assert_eq!(refused.class, Class::Refused, "it shares already");
    // 2. On two devices that are opened anew, it goes well.
    let (mut one, mut other) = (opened_anew(one).await, opened_anew(other).await);
    let transports = vec![one.worker.open_transport().await.unwrap(), other.worker.open_transport().await.unwrap()];
    let made = one.worker.make_shared(KekRole::ALL.to_vec(), transports).await.unwrap();
    for (bench, keks) in [&mut one, &mut other].into_iter().zip(made) {
        bench.identity.keks.extend(bench.worker.take_shared(keks).await.unwrap());
    }
    [opened_anew(one).await, opened_anew(other).await]
}

async fn opened_anew(bench: Bench) -> Bench {
    let Bench { worker, settings, identity } = bench;
    worker.shutdown().await;
    let worker = Bench::open(settings.clone(), &identity);
    worker.settled().await.unwrap();
    Bench { worker: worker.into(), settings, identity }
}

/// The matrix as a text: `yes`, or the number of a reason below.
fn table(matrix: &[(Device, Vec<Ability>)]) -> String {
    let columns: Vec<_> = matrix
        .iter()
        .flat_map(|(device, abilities)| {
            Residency::ALONE.into_iter().map(move |residency| (device, abilities, residency))
        })
        .collect();
    let (mut out, mut reasons) = (String::new(), Vec::new());
    write!(out, "{:<22}", "").unwrap();
    for (device, _, residency) in &columns {
        write!(out, "{:<34}", format!("{}, {residency}", device.name())).unwrap();
    }
    out = format!("{}\n", out.trim_end());
    for &algorithm in Algorithm::ALL {
        let mut line = format!("{:<22}", algorithm.as_str());
        for (_, abilities, residency) in &columns {
            let row = abilities.iter().find(|one| one.algorithm == algorithm && one.residency == *residency).unwrap();
            let word = row.refusal.as_ref().map_or_else(
                || "yes".to_owned(),
                |refusal| {
                    let place = reasons.iter().position(|one| one == refusal).unwrap_or_else(|| {
                        reasons.push(refusal.clone());
                        reasons.len() - 1
                    });
                    format!("no ({})", place + 1)
                },
            );
            write!(line, "{word:<34}").unwrap();
        }
        writeln!(out, "{}", line.trim_end()).unwrap();
    }
    out.push('\n');
    for (number, reason) in (1..).zip(&reasons) {
        writeln!(out, "({number}) {reason}").unwrap();
    }
    out
}
