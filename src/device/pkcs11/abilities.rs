//! What a token can do, found out by doing it.
//!
//! Lists of mechanisms promise more than tokens keep (and less: Ed25519 can be signed with and not be wrapped on SoftHSM
//! 2.6.1). So for each kind of key one is made as a session object, signs, is wrapped, unwrapped and signs again, and each
//! signature is verified. A token that has no session objects is tried with a token object, destroyed at once. RSA 3072 and
//! 4096 take seconds to make: they are inferred from RSA 2048 and the key sizes of the generator.
//!
//! Only an answer counts. A token that fails while it is asked has not answered: nothing is remembered, and the next question
//! begins anew. An answer that may have come of the moment counts where it comes twice, from a token whose sentinel works.

use std::sync::Arc;

use pkcs11_raw::{Mechanism, Object, Session};

use crate::device::pkcs11::codes::{self, Effect, Remedy};
use crate::device::pkcs11::lane::Lane;
use crate::device::pkcs11::make::{self, Newborn};
use crate::device::pkcs11::recipe;
use crate::device::pkcs11::shared::Shared;
use crate::device::pkcs11::template::{self, Life};
use crate::device::{Ability, Class, Fault, Identity, KekRole, timed};
use crate::types::{Algorithm, CipherCall, Encapsulated, KeyId, PublicKey, Residency, Role, Verifier, Version, same};

/// What is signed in a probe.
const MESSAGE: &[u8] = b"signet probe";
/// Why a token wraps no keys of a role that came after its enrolment.
const NO_KEK: &str =
    "this token was enrolled without a key-encryption key for such keys: `signet init --upgrade` makes one";

/// Why a token shares no keys of a role, though it shares others.
const NO_COMMON_KEK: &str = "the tokens that share keys could not all wrap such keys when they began to";

/// All abilities, probed at the first question.
pub(super) fn all(shared: &Arc<Shared>) -> Result<Arc<[Ability]>, Fault> {
    let mut known = shared.lock_abilities();
    if let Some(known) = known.as_ref() {
        return Ok(Arc::clone(known));
    }
    let abilities: Arc<[Ability]> = probe_all(shared)?.into();
    *known = Some(Arc::clone(&abilities));
    Ok(abilities)
}

/// Refuses what the token cannot do.
pub(super) fn require(shared: &Arc<Shared>, algorithm: Algorithm, residency: Residency) -> Result<(), Fault> {
    let all = all(shared)?;
    let ability = all.iter().find(|ability| ability.algorithm == algorithm && ability.residency == residency);
    let Some(refusal) = ability.and_then(|ability| ability.refusal.as_ref()) else { return Ok(()) };
    let can: Vec<_> = all
        .iter()
        .filter(|ability| ability.residency == residency && ability.refusal.is_none())
        .map(|ability| ability.algorithm.as_str())
        .collect();
    let fault = Fault::new(Class::Unsupported, format!("{algorithm} ({residency}): {refusal}"));
    let can = if can.is_empty() { "nothing".to_owned() } else { can.join(", ") };
    Err(fault.hint(format!("{residency} keys this device can keep: {can}")))
}

/// The roles of keys that the token could wrap, had it been enrolled with a key-encryption key for them.
pub(super) fn roles_without_kek(shared: &Arc<Shared>) -> Result<Vec<KekRole>, Fault> {
    let all = all(shared)?;
    let lacks = |role: &KekRole| {
        let mut rows = all.iter().filter(|ability| ability.refusal.as_deref() == Some(NO_KEK));
        rows.any(|ability| recipe::kek_role(ability.algorithm) == *role)
    };
    Ok(KekRole::ALL.into_iter().filter(lacks).collect())
}

/// What one kind of key can do: how long it takes, or why not.
#[derive(Clone)]
struct Finding {
    resident: Result<Time, Refusal>,
    wrapped: Result<Time, Refusal>,
}

/// How long one use took, in microseconds; `None` where it was concluded from that of another key.
type Time = Option<u64>;

impl Finding {
    fn refusals(&self) -> [Option<&Refusal>; 2] {
        [self.resident.as_ref().err(), self.wrapped.as_ref().err()]
    }

    fn is_doubtful(&self) -> bool {
        self.refusals().into_iter().flatten().any(|refusal| refusal.doubtful)
    }

    /// As it is of a larger key that was not tried.
    fn inferred(self) -> Self {
        Self { resident: self.resident.map(|_| None), wrapped: self.wrapped.map(|_| None) }
    }
}

/// What a token cannot do.
#[derive(Clone, PartialEq, Eq)]
struct Refusal {
    clause: String,
    /// The token's own code.
    code: Option<String>,
    /// Whether it may have been the moment.
    doubtful: bool,
}

impl Refusal {
    const fn sure(clause: String) -> Self {
        Self { clause, code: None, doubtful: false }
    }

    const fn doubtful(clause: String) -> Self {
        Self { clause, code: None, doubtful: true }
    }
}

/// Why a probe ended.
enum Stop {
    /// The token cannot.
    Cannot(Refusal),
    /// The token failed; nothing was found out.
    Failed(Fault),
}

fn probe_all(shared: &Arc<Shared>) -> Result<Vec<Ability>, Fault> {
    let mut findings: Vec<(Algorithm, Finding)> = Vec::new();
    for algorithm in Algorithm::ALL.iter().copied() {
        let model = model(algorithm);
        let finding = match findings.iter().find(|(done, _)| *done == model) {
            Some((_, finding)) if algorithm.rsa_bits() != model.rsa_bits() => finding.clone().inferred(),
            Some((_, finding)) => finding.clone(),
            None => probe(shared, model)?,
        };
        findings.push((algorithm, fits(shared, algorithm, finding)));
    }
    let rows = |(algorithm, Finding { resident, wrapped }): (Algorithm, Finding)| {
        let common = as_shared(shared, algorithm, &wrapped).map(|found| (Residency::Shared, found));
        let own = [(Residency::Resident, resident), (Residency::Wrapped, wrapped)];
        own.into_iter().chain(common).map(move |(residency, found)| Ability {
            algorithm,
            residency,
            micros: found.as_ref().ok().copied().flatten(),
            code: found.as_ref().err().and_then(|refusal| refusal.code.clone()),
            refusal: found.err().map(|refusal| refusal.clause),
        })
    };
    Ok(findings.into_iter().flat_map(rows).collect())
}

/// A shared key is as a wrapped one, where the token shares a key-encryption key for it. `None` in a token that shares none.
fn as_shared(shared: &Shared, algorithm: Algorithm, wrapped: &Result<Time, Refusal>) -> Option<Result<Time, Refusal>> {
    let identity = shared.identity()?;
    identity.shared_keks().next()?;
    if !identity.keks.iter().any(|kek| kek.shared && kek.role == recipe::kek_role(algorithm)) {
        return Some(Err(Refusal::sure(NO_COMMON_KEK.to_owned())));
    }
    Some(match wrapped {
        Err(Refusal { clause, .. }) if clause == NO_KEK => Ok(None),
        other => other.clone(),
    })
}

/// The algorithm that is probed in the place of another.
const fn model(algorithm: Algorithm) -> Algorithm {
    match algorithm {
        Algorithm::Rsa2048Pkcs1 | Algorithm::Rsa3072Pkcs1 | Algorithm::Rsa4096Pkcs1 => Algorithm::Rsa2048Pkcs1,
        Algorithm::Rsa2048Pss | Algorithm::Rsa3072Pss | Algorithm::Rsa4096Pss => Algorithm::Rsa2048Pss,
        Algorithm::HmacSha256 | Algorithm::Aes256GcmDerived => Algorithm::HmacSha256,
        Algorithm::EcdsaP256
        | Algorithm::EcdsaP384
        | Algorithm::EcdsaP521
        | Algorithm::Ed25519
        | Algorithm::MlDsa65
        | Algorithm::HmacSha384
        | Algorithm::HmacSha512
        | Algorithm::Aes256Gcm
        | Algorithm::HpkeP256
        | Algorithm::MlKem768 => algorithm,
        Algorithm::Rsa2048Oaep | Algorithm::Rsa3072Oaep | Algorithm::Rsa4096Oaep => Algorithm::Rsa2048Oaep,
    }
}

/// Adds the limit of RSA sizes, which some tokens draw at 2048, and what an enrolment by an older program left out.
fn fits(shared: &Shared, algorithm: Algorithm, finding: Finding) -> Finding {
    let has_kek =
        |identity: &Identity| identity.keks.iter().any(|kek| kek.role == recipe::kek_role(algorithm) && !kek.shared);
    if finding.wrapped.is_ok() && shared.identity().is_some_and(|identity| !has_kek(&identity)) {
        let clause = NO_KEK.to_owned();
        return Finding { wrapped: Err(Refusal::sure(clause)), ..finding };
    }
    let Some(bits) = algorithm.rsa_bits() else { return finding };
    let Ok(sizes) = shared.module.key_sizes(shared.slot, Mechanism::RsaPkcsKeyPairGen.number()) else { return finding };
    if (sizes.min..=sizes.max).contains(&u64::from(bits)) {
        return finding;
    }
    let refusal = Refusal::sure(format!("this token makes RSA keys of {} to {} bits", sizes.min, sizes.max));
    Finding { resident: Err(refusal.clone()), wrapped: Err(refusal) }
}

fn probe(shared: &Arc<Shared>, algorithm: Algorithm) -> Result<Finding, Fault> {
    let first = attempt(shared, algorithm)?;
    if !first.is_doubtful() {
        return Ok(first);
    }
    // Before its enrolment a token has no sentinel that could prove itself.
    if shared.identity().is_some() {
        Lane::new(Arc::clone(shared)).prove_sentinel()?;
    }
    let second = attempt(shared, algorithm)?;
    if second.is_doubtful() && second.refusals() != first.refusals() {
        return Err(Fault::new(Class::Retry, format!("the token fails with {algorithm} keys, each time otherwise")));
    }
    Ok(second)
}

fn attempt(shared: &Arc<Shared>, algorithm: Algorithm) -> Result<Finding, Fault> {
    let id = KeyId::random().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
    // The lane's session is closed at the end, and all that was made in it goes with it.
    let mut probe = Probe { lane: Lane::new(Arc::clone(shared)), id, algorithm };
    let born = match probe.begin(Life::Unborn) {
        Ok(born) => born,
        Err(Stop::Failed(fault)) => return Err(fault),
        // No session objects, or no such key at all.
        Err(Stop::Cannot(refusal)) => {
            return Ok(Finding { resident: found(probe.with_token_object())?, wrapped: Err(refusal) });
        }
    };
    if let Some(refusal) = probe.kept(&born.0)? {
        return Ok(Finding { resident: found(probe.with_token_object())?, wrapped: Err(refusal) });
    }
    let stated = probe.is_as_stated(&born.0, Life::Unborn);
    let resident = found(stated.and_then(|()| probe.uses(born.0.key, born.1.as_ref())))?;
    if resident.is_err() {
        return Ok(Finding { wrapped: resident.clone(), resident });
    }
    let wrapped = found(probe.goes_out_and_in(&born.0, born.1.as_ref()))?;
    Ok(Finding { resident, wrapped })
}

fn found(result: Result<Time, Stop>) -> Result<Result<Time, Refusal>, Fault> {
    match result {
        Ok(time) => Ok(Ok(time)),
        Err(Stop::Cannot(refusal)) => Ok(Err(refusal)),
        Err(Stop::Failed(fault)) => Err(fault),
    }
}

/// One algorithm on trial.
struct Probe {
    lane: Lane,
    id: KeyId,
    algorithm: Algorithm,
}

impl Probe {
    /// Does one step; `cannot` is what is said of the token where it refuses.
    fn step<T>(&mut self, cannot: &str, work: impl FnOnce(&Session) -> pkcs11_raw::Result<T>) -> Result<T, Stop> {
        self.lane.call(work).map_err(|error| {
            let fault = self.lane.shared.fault(error, Effect::Idle);
            let refuses =
                matches!(fault.class, Class::Unsupported | Class::Refused | Class::KeyDamaged | Class::Internal);
            // Tokens that lack something often say no more than that they failed, or lose what they have just made.
            let doubtful = matches!(codes::remedy(error), Remedy::Doubt | Remedy::Reload);
            if !refuses && !doubtful {
                return Stop::Failed(fault);
            }
            let code = fault.code;
            let shown = code.as_deref().unwrap_or_default();
            let clause = format!("this token cannot {cannot} {} keys ({shown})", self.algorithm);
            Stop::Cannot(Refusal { clause, code, doubtful })
        })
    }

    fn begin(&mut self, life: Life) -> Result<(Newborn, Option<PublicKey>), Stop> {
        let (id, algorithm) = (self.id, self.algorithm);
        let born = self.step("make", |session| make::newborn(session, id, Version::FIRST, algorithm, life))?;
        let public = self
            .lane
            .run(|error| codes::fault(error, Effect::Idle), |session| make::take_public(session, &born, algorithm));
        let fault = match public {
            Ok(public) => return Ok((born, public)),
            Err(fault) => fault,
        };
        if life == Life::Resident {
            self.step("destroy", |session| session.destroy(born.key))?;
        }
        let cannot = fault.class == Class::Internal;
        Err(if cannot { Stop::Cannot(Refusal::sure(fault.text)) } else { Stop::Failed(fault) })
    }

    /// Whether the token keeps what was to be a session object, as smart cards do: then it is destroyed by hand.
    fn kept(&mut self, born: &Newborn) -> Result<Option<Refusal>, Fault> {
        let algorithm = self.algorithm;
        let fault = |error| codes::fault(error, Effect::Idle);
        if self.lane.call(|session| template::goes_with_its_session(session, born.key)).map_err(fault)? {
            return Ok(None);
        }
        self.lane.call(|session| session.destroy(born.key)).map_err(fault)?;
        Ok(Some(Refusal::sure(format!("this token keeps {algorithm} keys that were to go with their session"))))
    }

    /// Has the key sign, judges the result, and says how long that took.
    fn uses(&mut self, key: Object, public: Option<&PublicKey>) -> Result<Time, Stop> {
        let algorithm = self.algorithm;
        if matches!(algorithm.role(), Role::Agree | Role::Decrypt | Role::Decapsulate) {
            return self.finds(key, public);
        }
        if algorithm.role() == Role::Cipher {
            return self.opens_what_it_seals(key);
        }
        let mechanism = recipe::mechanism(algorithm);
        let digest = algorithm.hash().map(|hash| hash.digest(MESSAGE));
        let Some(public) = public else {
            let mut mac = |message| self.step("use", |session| session.sign(mechanism, key, message));
            let (one, same) = (mac(MESSAGE)?, mac(MESSAGE)?);
            let (other, time) = timed(|| mac(b"another"))?;
            let right = one == same && one != other && algorithm.secret_len() == Some(one.len());
            return judge(right, algorithm).map(|()| time);
        };
        let input = recipe::sign_input(algorithm, digest.as_deref().unwrap_or(MESSAGE)).map_err(Stop::Failed)?;
        let (signature, time) = timed(|| self.step("sign with", |session| session.sign(mechanism, key, &input)))?;
        let verifier = Verifier::new(algorithm, public);
        judge(verifier.is_ok_and(|verifier| verifier.verifies(MESSAGE, &signature)), algorithm)?;
        // The mechanism demands fresh randomness of the token, without which a fault in it may give the key away (FIPS 204, 3.4).
        if algorithm == Algorithm::MlDsa65
            && self.step("sign with", |session| session.sign(mechanism, key, &input))? == signature
        {
            let clause = format!("this token draws no randomness for {algorithm} signatures, though it was told to");
            return Err(Stop::Cannot(Refusal::sure(clause)));
        }
        Ok(time)
    }

    /// Has the key encrypt and decrypt, and refuse what was changed.
    fn opens_what_it_seals(&mut self, key: Object) -> Result<Time, Stop> {
        let (one, other) = ([1; CipherCall::NONCE], [2; CipherCall::NONCE]);
        let mut seal = |nonce, aad| self.step("encrypt with", |session| session.seal(key, nonce, aad, MESSAGE));
        let (sealed, same) = (seal(&one, b"one")?, seal(&one, b"one")?);
        let others = [seal(&other, b"one")?, seal(&one, b"other")?];
        let (opened, time) =
            timed(|| self.step("decrypt with", |session| session.open_sealed(key, &one, b"one", &sealed)))?;
        let right = opened == MESSAGE && sealed == same && !others.contains(&sealed);
        judge(right && sealed.len() == MESSAGE.len() + CipherCall::TAG, self.algorithm)?;
        let mut flipped = sealed.clone();
        flipped.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        for (aad, bad) in [(b"one".as_slice(), &flipped), (b"other", &sealed)] {
            // In a session of its own, since one that fails is thrown away, and with it what was made in it.
            let mut aside = Lane::new(Arc::clone(&self.lane.shared));
            match aside.call(|session| session.open_sealed(key, &one, aad, bad)) {
                Ok(_) => {
                    let clause = format!("this token decrypts {} ciphertexts that were changed", self.algorithm);
                    return Err(Stop::Cannot(Refusal::sure(clause)));
                }
                Err(error) => {
                    let fault = self.lane.shared.fault(error, Effect::Idle);
                    if matches!(fault.class, Class::DeviceGone | Class::PinRefused | Class::PinLocked) {
                        return Err(Stop::Failed(fault));
                    }
                }
            }
        }
        Ok(time)
    }

    /// Has the key find a secret that we know.
    fn finds(&mut self, key: Object, public: Option<&PublicKey>) -> Result<Time, Stop> {
        let algorithm = self.algorithm;
        let failed = |why: String| Stop::Failed(Fault::new(Class::Internal, why));
        let public = public.ok_or_else(|| failed(format!("{algorithm} keys are pairs")))?;
        let known = Encapsulated::to(algorithm, public).map_err(|error| failed(error.chain()))?;
        let (secret, time) = timed(|| self.step("use", |session| recipe::act(session, algorithm, key, &known.sent)))?;
        judge(same(&secret, known.secret.expose()), algorithm).map(|()| time)
    }

    /// Reads a new key back: a token that leaves attributes out keeps no keys.
    fn is_as_stated(&mut self, born: &Newborn, life: Life) -> Result<(), Stop> {
        let (key, algorithm) = (born.key, self.algorithm);
        let stated = template::key(self.id, Version::FIRST, algorithm, life);
        match self.step("read back", |session| template::compare_key(session, key, algorithm, &stated, life))? {
            None => Ok(()),
            Some(wrong) => {
                let clause = format!("this token makes {algorithm} keys otherwise than it was told: {wrong}");
                Err(Stop::Cannot(Refusal::doubtful(clause)))
            }
        }
    }

    /// Wraps the key, unwraps it, and uses what came back.
    fn goes_out_and_in(&mut self, born: &Newborn, public: Option<&PublicKey>) -> Result<Time, Stop> {
        let (id, algorithm) = (self.id, self.algorithm);
        let wrapping = self.lane.shared.wrapping().map_err(Stop::Failed)?;
        let kek = template::kek(id, recipe::kek_role(algorithm), wrapping, Life::Loaded);
        let mechanism = recipe::wrapping(wrapping);
        let stated = template::key(id, Version::FIRST, algorithm, Life::Loaded);
        let wrapper = self.step("make a key to wrap", |session| session.generate(Mechanism::AesKeyGen, &kek))?;
        let read = |session: &Session| template::compare_kek(session, wrapper, &kek, Life::Loaded);
        if let Some(wrong) = self.step("read back what wraps", read)? {
            let clause = format!("this token makes what wraps {algorithm} keys otherwise than it was told: {wrong}");
            return Err(Stop::Cannot(Refusal::doubtful(clause)));
        }
        let blob = self.step("wrap", |session| session.wrap(mechanism, wrapper, born.key))?;
        let key = self.step("unwrap", |session| session.unwrap(mechanism, wrapper, &blob, &stated))?;
        let wrong =
            self.step("read back", |session| template::compare_key(session, key, algorithm, &stated, Life::Loaded))?;
        if let Some(wrong) = wrong {
            let clause = format!("this token unwraps {algorithm} keys otherwise than it was told: {wrong}");
            return Err(Stop::Cannot(Refusal::doubtful(clause)));
        }
        self.uses(key, public)
    }

    /// The trial with a token object, for tokens without session objects.
    fn with_token_object(&mut self) -> Result<Time, Stop> {
        let shared = Arc::clone(&self.lane.shared);
        let _changing = shared.changing();
        let (born, public) = self.begin(Life::Resident)?;
        let stated = self.is_as_stated(&born, Life::Resident);
        let used = stated.and_then(|()| self.uses(born.key, public.as_ref()));
        let destroyed = self.step("destroy", |session| session.destroy(born.key));
        used.and_then(|time| destroyed.map(|()| time))
    }
}

fn judge(right: bool, algorithm: Algorithm) -> Result<(), Stop> {
    if right {
        return Ok(());
    }
    let what = match algorithm.role() {
        Role::Sign => "signatures",
        Role::Mac => "MACs",
        Role::Agree | Role::Decrypt | Role::Decapsulate => "secrets",
        Role::Cipher => "ciphertexts",
    };
    Err(Stop::Cannot(Refusal::doubtful(format!("this token makes wrong {algorithm} {what}"))))
}
