//! One connection to the TPM, with all that hangs on it: the storage key, the session and the loaded keys.
//!
//! A [`Link`] is made whole by [`Link::open`] or not at all, and is thrown away whole at the first error; nothing in it
//! can be mended, since the library stays stuck after a broken transmission, and handles may stand for other keys after
//! a restart of the TPM.
//!
//! A TPM promises room for three loaded objects: the storage key, and two keys of which the one used longest ago makes
//! room. Making a key takes a place too.
//!
//! After a restart, or when a stranger flushes our keys, a handle may stand for another key. Three things keep us from
//! using it:
//! * with `sessions` of the settings, a salted HMAC session: authorisation values and results are encrypted on the bus,
//!   and the Name of the key goes into the HMAC, so that the TPM itself refuses another key;
//! * without, the Name behind a handle is read before each use, of the storage key too;
//! * with a key that is bound to registers of the machine, a policy session of its own for each use, whose HMAC holds the Name too;
//! * in all, each key has a random authorisation value of its own, which no other key takes. This alone would do, but
//!   for keys of strangers that count wrong values towards lockout, and for the storage key, which has no value.

use tss_esapi::Context;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, DefaultKey, ek};
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::{CapabilityType, CommandCode, PropertyTag, SessionType, StartupType};
use tss_esapi::handles::{AuthHandle, KeyHandle, NvIndexHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Attest, Auth, CapabilityData, CreatePrimaryKeyResult, Data, Digest, EncryptedSecret, IdObject, Nonce,
    PcrSelectSize, PcrSelectionList, PcrSlot, Private, Public, PublicParameters, Signature, SignatureScheme,
    SymmetricDefinition,
};
use zeroize::Zeroizing;

use super::codes::{REBIND, Trouble, during};
use super::tcti::Address;
use super::template;
use crate::device::{Class, Fault, Generated, KeyRef, Locator, TpmChallenge};
use crate::types::{Algorithm, Hash, KeyId, PcrValues, Pcrs, SecretBytes, Version, sha256};

/// The length of an authorisation value: nobody guesses 256 bits, which is why `noDA` costs nothing.
const AUTH_BYTES: usize = 32;

/// The endorsement key that is asked for: each TPM 2.0 has one.
const ENDORSEMENT: AsymmetricAlgorithmSelection = AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048);

/// The most keys beside the storage key. A TPM must have room for three objects.
const ROOM: usize = 2;

/// Without these nothing works. HMAC is not among them: some TPMs lack it, and sign all the same.
const NEEDED: &[CommandCode] = &[
    CommandCode::Create,
    CommandCode::CreatePrimary,
    CommandCode::FlushContext,
    CommandCode::GetRandom,
    CommandCode::Load,
    CommandCode::ReadPublic,
    CommandCode::Sign,
    CommandCode::StartAuthSession,
];

/// A connection: see the module.
pub(super) struct Link {
    context: Context,
    storage: KeyHandle,
    name: Vec<u8>,
    session: AuthSession,
    /// The key used longest ago comes first.
    loaded: Vec<Loaded>,
    /// The index of an anchor, and whose it is.
    anchor: Option<([u8; 8], NvIndexHandle)>,
}

/// What a TPM needs to load a key.
pub(super) struct Blobs<'a> {
    pub(super) parent: &'a [u8],
    pub(super) public: &'a [u8],
    private: &'a [u8],
    auth: &'a SecretBytes,
}

impl<'a> Blobs<'a> {
    /// Those of a key.
    pub(super) fn of(key: &'a KeyRef) -> Result<Self, Fault> {
        match &key.locator {
            Locator::Tpm { parent, public, private, auth }
            | Locator::TpmBound { parent, public, private, auth, pcrs: _ } => {
                Ok(Self { parent, public, private, auth })
            }
            Locator::Resident | Locator::Wrapped { .. } | Locator::Shared { .. } => {
                Err(Fault::new(Class::Unsupported, "this key is not a TPM's: it has no TPM blobs"))
            }
        }
    }
}

/// A key in the TPM.
struct Loaded {
    id: KeyId,
    version: Version,
    /// Of the whole reference, so that another blob or authorisation value under the same id is another key.
    fingerprint: [u8; 32],
    name: Vec<u8>,
    handle: KeyHandle,
}

impl Link {
    /// Connects and builds all that a key needs. With `pinned`, another storage key is another TPM.
    pub(super) fn open(address: &Address, sessions: bool, pinned: Option<&[u8]>) -> Result<Self, Trouble> {
        // 1. Reach the TPM and see that it can do what we need.
        let mut context = Context::new(address.conf()).map_err(during("connecting"))?;
        require(&mut context)?;
        // 2. A software TPM keeps what a killed client left in it, until its three places are full.
        if address.unmanaged {
            flush_leftovers(&mut context);
        }
        // 3. The storage key: the same one each time, as long as it is the same TPM and nobody cleared it.
        let made = derive(&mut context, template::storage()?)?;
        let name = template::name(&made.out_public)?;
        if pinned.is_some_and(|pinned| pinned != name) {
            return Err(another_tpm().into());
        }
        // 4. The session is salted to that key, so whoever sits on the bus had to be there at enrolment.
        let session = if sessions { concealing(&mut context, made.key_handle)? } else { AuthSession::Password };
        Ok(Self { context, storage: made.key_handle, name, session, loaded: Vec::new(), anchor: None })
    }

    /// The Name of the storage key.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// How many objects are in the TPM on our behalf.
    pub(super) fn objects(&self) -> usize {
        self.loaded.len() + 1
    }

    /// Runs a command that the session authorises, and encrypts if it can.
    pub(super) fn authorised<T>(
        &mut self,
        command: &'static str,
        run: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Trouble> {
        self.context.execute_with_session(Some(self.session), run).map_err(during(command))
    }

    /// Runs a command that a key authorises: by the session, or, where it is bound to registers of the machine, by a policy session of
    /// its own, satisfied just now. The TPM looks at the registers again when it runs the command.
    pub(super) fn using<T>(
        &mut self,
        key: &KeyRef,
        command: &'static str,
        run: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Trouble> {
        let Some(bound) = key.locator.pcrs() else { return self.authorised(command, run) };
        let session = self.policy_session()?;
        let done = self
            .satisfy(session, bound.registers())
            .and_then(|()| self.context.execute_with_session(Some(session), run).map_err(during(command)));
        let flushed = flush(&mut self.context, session_object(session));
        match done {
            Ok(done) => flushed.map(|()| done),
            Err(trouble) if trouble.is_policy_failure() => Err(self.why_not(bound)?),
            Err(trouble) => Err(trouble),
        }
    }

    /// A session whose policy is still empty. Where the other one conceals what goes over the bus, so does this.
    fn policy_session(&mut self) -> Result<AuthSession, Trouble> {
        match self.session {
            AuthSession::Password => begin(&mut self.context, None, SessionType::Policy, false),
            AuthSession::HmacSession(_) | AuthSession::PolicySession(_) => {
                begin(&mut self.context, Some(self.storage), SessionType::Policy, true)
            }
        }
    }

    /// Has the session hold the present values of the registers, and ask for the authorisation value: [`PcrValues::policy`].
    fn satisfy(&mut self, session: AuthSession, registers: Pcrs) -> Result<(), Trouble> {
        let session = PolicySession::try_from(session).map_err(during("TPM2_PolicyPCR"))?;
        let list = selection(registers.bank(), registers.registers())?;
        self.context
            .execute_without_session(|tpm| tpm.policy_pcr(session, Digest::default(), list))
            .map_err(during("TPM2_PolicyPCR"))?;
        self.context
            .execute_without_session(|tpm| tpm.policy_auth_value(session))
            .map_err(during("TPM2_PolicyAuthValue"))
    }

    /// Why the policy of a bound key does not hold: where the registers are as they should be, the handle is not.
    fn why_not(&mut self, bound: &PcrValues) -> Result<Trouble, Trouble> {
        let changed = bound.changed(&self.pcrs(bound.registers())?);
        if changed.is_empty() {
            return Ok(Trouble::Stale);
        }
        let which: Vec<_> = changed.iter().map(ToString::to_string).collect();
        let text = format!(
            "the machine's PCRs are not what the key was bound to: of {}, something else stands in {}",
            bound.registers(),
            which.join(", ")
        );
        Ok(Fault { code: Some("TPM_RC_POLICY_FAIL".to_owned()), ..Fault::new(Class::PcrsChanged, text).hint(REBIND) }
            .into())
    }

    /// What stands in registers of the machine. Nothing authenticates that answer: whoever falsifies it on the bus makes a key that
    /// fails its probe, or a wrong text of an error.
    pub(super) fn pcrs(&mut self, wanted: Pcrs) -> Result<PcrValues, Trouble> {
        const COMMAND: &str = "TPM2_PCR_Read";
        /// As many as one answer holds.
        const AT_ONCE: usize = 8;
        let lacks = || {
            let text = format!("this TPM does not keep all of {wanted}");
            Fault::new(Class::Unsupported, text)
                .hint("`tpm2_getcap pcrs` lists the banks that it keeps, and their PCRs")
        };
        let registers: Vec<_> = wanted.registers().collect();
        let mut values = Vec::new();
        for some in registers.chunks(AT_ONCE) {
            let list = selection(wanted.bank(), some.iter().copied())?;
            let read = self.context.execute_without_session(|tpm| tpm.pcr_read(list.clone()));
            let (_, shown, digests) = read.map_err(during(COMMAND))?;
            if shown != list {
                return Err(lacks().into());
            }
            values.extend(digests.value().iter().map(|digest| digest.value().to_vec()));
        }
        Ok(PcrValues::new(wanted, values).ok_or_else(lacks)?)
    }

    /// Runs a command that needs no authorisation; a session encrypts its answer all the same.
    pub(super) fn concealed<T>(
        &mut self,
        command: &'static str,
        run: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Trouble> {
        let session = Some(self.session).filter(|session| !matches!(session, AuthSession::Password));
        self.context.execute_with_session(session, run).map_err(during(command))
    }

    /// The handle of a key, loading it if need be.
    pub(super) fn handle(&mut self, key: &KeyRef) -> Result<KeyHandle, Trouble> {
        self.handle_of(key, |algorithm| template::key(algorithm, key.locator.pcrs()))
    }

    /// The handle of a key that is made by this template.
    fn handle_of(
        &mut self,
        key: &KeyRef,
        template: impl FnOnce(Algorithm) -> Result<Public, Trouble>,
    ) -> Result<KeyHandle, Trouble> {
        let Blobs { parent, public, private, auth } = Blobs::of(key)?;
        let (algorithm, policy) = (key.algorithm.as_str().as_bytes(), key.locator.pcrs().map(PcrValues::policy));
        let blobs = [parent, public, private, policy.as_ref().map_or([].as_slice(), <[u8; 32]>::as_slice)];
        let [parent_sum, public_sum, private_sum, policy_sum] = blobs.map(|blob| sha256(&[blob]));
        let fingerprint = sha256(&[algorithm, &parent_sum, &public_sum, &private_sum, &policy_sum, auth.expose()]);
        if let Some(handle) = self.loaded_handle(key.id, key.version, &fingerprint)? {
            return Ok(handle);
        }
        if parent != self.name {
            return Err(foreign_key().into());
        }
        self.load(key, &template(key.algorithm)?, fingerprint, public, private, auth)
    }

    fn loaded_handle(&mut self, id: KeyId, version: Version, print: &[u8; 32]) -> Result<Option<KeyHandle>, Trouble> {
        let Some(place) = self.loaded.iter().position(|one| one.id == id && one.version == version) else {
            return Ok(None);
        };
        let found = self.loaded.remove(place);
        if found.fingerprint != *print {
            self.flush(found.handle)?;
            return Ok(None);
        }
        let (handle, name) = (found.handle, found.name.clone());
        self.loaded.push(found);
        self.confirm(handle, &name)?;
        Ok(Some(handle))
    }

    fn load(
        &mut self,
        key: &KeyRef,
        template: &Public,
        fingerprint: [u8; 32],
        public: &[u8],
        private: &[u8],
        auth: &SecretBytes,
    ) -> Result<KeyHandle, Trouble> {
        // The TPM binds the private half to the Name of the public one, so what is checked here is what is loaded.
        let area = template::read_public(public)?;
        template::check(key.algorithm, template, &area)?;
        let name = template::name(&area)?;
        let private = Private::try_from(template::unsized_bytes(private)?)
            .map_err(|_| Fault::new(Class::KeyDamaged, "the key's private blob is too long"))?;
        let auth = Auth::try_from(auth.expose())
            .map_err(|_| Fault::new(Class::KeyDamaged, "the key's authorisation value is too long"))?;
        self.make_room(ROOM - 1)?;
        self.confirm_storage()?;
        let storage = self.storage;
        let handle = self.authorised("TPM2_Load", |context| context.load(storage, private, area))?;
        self.loaded.push(Loaded { id: key.id, version: key.version, fingerprint, name, handle });
        self.context.tr_set_auth(handle.into(), auth).map_err(during("Esys_TR_SetAuth"))?;
        Ok(handle)
    }

    /// Whether a handle still stands for the key it was made for. A session does this by itself, in each command.
    fn confirm(&mut self, handle: KeyHandle, name: &[u8]) -> Result<(), Trouble> {
        if !matches!(self.session, AuthSession::Password) {
            return Ok(());
        }
        let read = self.context.execute_without_session(|context| context.read_public(handle));
        let (_, found, _) = read.map_err(during("TPM2_ReadPublic"))?;
        if found.value() == name { Ok(()) } else { Err(Trouble::Stale) }
    }

    fn confirm_storage(&mut self) -> Result<(), Trouble> {
        let name = self.name.clone();
        self.confirm(self.storage, &name)
    }

    /// Makes a key, perhaps bound to what stands in these registers now, and loads what was made. Nothing of it stays in the TPM but the
    /// loaded handle.
    pub(super) fn create(
        &mut self,
        id: KeyId,
        version: Version,
        algorithm: Algorithm,
        pcrs: Option<Pcrs>,
    ) -> Result<Generated, Trouble> {
        let bound = pcrs.map(|pcrs| self.pcrs(pcrs)).transpose()?;
        self.create_by(|algorithm| template::key(algorithm, bound.as_ref()), id, version, algorithm, bound.clone())
    }

    /// Makes the attestation key, as [`Self::create`].
    pub(super) fn create_attestation_key(&mut self, id: KeyId) -> Result<Generated, Trouble> {
        self.create_by(|_| template::attestation_key(), id, Version::FIRST, Algorithm::EcdsaP256, None)
    }

    fn create_by(
        &mut self,
        template: impl Fn(Algorithm) -> Result<Public, Trouble>,
        id: KeyId,
        version: Version,
        algorithm: Algorithm,
        bound: Option<PcrValues>,
    ) -> Result<Generated, Trouble> {
        let area = template(algorithm)?;
        let auth = draw_auth()?;
        let value = Auth::try_from(auth.expose()).map_err(during("authorisation value"))?;
        self.make_room(ROOM - 1)?;
        self.confirm_storage()?;
        let storage = self.storage;
        let made =
            self.authorised("TPM2_Create", |context| context.create(storage, area, Some(value), None, None, None))?;
        template::check(algorithm, &template(algorithm)?, &made.out_public)?;
        let (parent, public) = (self.name.clone(), template::write_public(&made.out_public)?);
        let private = template::sized(made.out_private.value())?;
        let locator = match bound {
            None => Locator::Tpm { parent, public, private, auth },
            Some(pcrs) => Locator::TpmBound { parent, public, private, auth, pcrs },
        };
        let public = template::public_key(algorithm, &made.out_public)?;
        let key = KeyRef { id, version, algorithm, locator };
        self.handle_of(&key, template)?;
        Ok(Generated { locator: key.locator, public })
    }

    /// Has the attestation key certify another one: TPM2_Certify, whose two authorisations are a session each.
    pub(super) fn certify(
        &mut self,
        key: &KeyRef,
        by: &KeyRef,
        binding: [u8; 32],
    ) -> Result<(Attest, Signature), Trouble> {
        let object = self.handle(key)?;
        let signer = self.attestation_handle(by)?;
        let binding = Data::try_from(binding.to_vec()).map_err(during("TPM2_Certify"))?;
        let second = self.second_session()?;
        let sessions = (Some(self.session), Some(second), None);
        let certified = self
            .context
            .execute_with_sessions(sessions, |tpm| tpm.certify(object.into(), signer, binding, SignatureScheme::Null))
            .map_err(during("TPM2_Certify"))?;
        self.end_second(second)?;
        Ok(certified)
    }

    /// Has the TPM open a credential that was made for its endorsement key and the Name of the attestation key:
    /// TPM2_ActivateCredential. The endorsement key of template L-1 is used by a policy: "PolicySecret (TPM_RH_ENDORSEMENT)".
    pub(super) fn activate(&mut self, by: &KeyRef, challenge: &TpmChallenge) -> Result<SecretBytes, Trouble> {
        const COMMAND: &str = "TPM2_ActivateCredential";
        let credential = IdObject::try_from(challenge.credential.clone()).map_err(during(COMMAND))?;
        let seed = EncryptedSecret::try_from(challenge.seed.clone()).map_err(during(COMMAND))?;
        self.make_room(0)?;
        let signer = self.attestation_handle(by)?;
        let endorsement =
            ek::create_ek_object_2(&mut self.context, ENDORSEMENT, DefaultKey).map_err(during(COMMAND))?;
        let policy = begin(&mut self.context, None, SessionType::Policy, false)?;
        let session = PolicySession::try_from(policy).map_err(during(COMMAND))?;
        self.context
            .execute_with_session(Some(AuthSession::Password), |tpm| {
                let (none, empty) = (Nonce::default(), Digest::default());
                tpm.policy_secret(session, AuthHandle::Endorsement, none.clone(), empty, none, None)
            })
            .map_err(during("TPM2_PolicySecret"))?;
        let opened = self
            .context
            .execute_with_sessions((Some(self.session), Some(policy), None), |tpm| {
                tpm.activate_credential(signer, endorsement, credential, seed)
            })
            .map_err(during(COMMAND))?;
        flush(&mut self.context, session_object(policy))?;
        self.flush(endorsement)?;
        Ok(SecretBytes::new(opened.value().to_vec()))
    }

    /// What the TPM keeps as the certificate of that endorsement key.
    pub(super) fn endorsement(&mut self) -> Result<Vec<u8>, Trouble> {
        ek::retrieve_ek_pubcert(&mut self.context, ENDORSEMENT).map_err(during("TPM2_NV_Read")).map_err(|trouble| {
            if trouble.is_no_handle() {
                return Fault::new(
                    Class::Unsupported,
                    "this TPM keeps no certificate of an endorsement key of RSA 2048",
                )
                .hint("some makers give it out on a web site instead: `tpm2_getekcertificate` asks there")
                .into();
            }
            trouble
        })
    }

    fn attestation_handle(&mut self, key: &KeyRef) -> Result<KeyHandle, Trouble> {
        self.handle_of(key, |_| template::attestation_key())
    }

    /// A session for the second authorisation of a command: a session may stand in a command once.
    fn second_session(&mut self) -> Result<AuthSession, Trouble> {
        match self.session {
            AuthSession::Password => Ok(AuthSession::Password),
            AuthSession::HmacSession(_) | AuthSession::PolicySession(_) => {
                begin(&mut self.context, Some(self.storage), SessionType::Hmac, false)
            }
        }
    }

    fn end_second(&mut self, second: AuthSession) -> Result<(), Trouble> {
        if matches!(second, AuthSession::Password) {
            return Ok(());
        }
        flush(&mut self.context, session_object(second))
    }

    /// Drops a key from the TPM's working memory.
    pub(super) fn forget(&mut self, id: KeyId, version: Version) -> Result<(), Trouble> {
        while let Some(place) = self.loaded.iter().position(|one| one.id == id && one.version == version) {
            let gone = self.loaded.remove(place);
            self.flush(gone.handle)?;
        }
        Ok(())
    }

    fn make_room(&mut self, keep: usize) -> Result<(), Trouble> {
        while self.loaded.len() > keep {
            let gone = self.loaded.remove(0);
            self.flush(gone.handle)?;
        }
        Ok(())
    }

    fn flush(&mut self, handle: KeyHandle) -> Result<(), Trouble> {
        flush(&mut self.context, handle.into())
    }

    /// Asks whether the TPM takes such a key, without making one.
    pub(super) fn takes(&mut self, parameters: PublicParameters) -> Result<(), Trouble> {
        self.context.execute_without_session(|context| context.test_parms(parameters)).map_err(during("TPM2_TestParms"))
    }

    /// The index of an anchor that was used before.
    pub(super) fn known_anchor(&self, instance: [u8; 8]) -> Option<NvIndexHandle> {
        self.anchor.filter(|(whose, _)| *whose == instance).map(|(_, index)| index)
    }

    /// Remembers the index of an anchor, for as long as the link lives.
    pub(super) const fn remember_anchor(&mut self, instance: [u8; 8], index: NvIndexHandle) {
        self.anchor = Some((instance, index));
    }

    /// Makes a handle of the TPM's known to the library, with its public area.
    pub(super) fn public_of(&mut self, handle: TpmHandle) -> Result<ObjectHandle, Trouble> {
        self.context
            .execute_without_session(|context| context.tr_from_tpm_public(handle))
            .map_err(during("TPM2_NV_ReadPublic"))
    }

    /// Tells the library the authorisation value of an object.
    pub(super) fn set_auth(&mut self, object: ObjectHandle, auth: Auth) -> Result<(), Trouble> {
        self.context.tr_set_auth(object, auth).map_err(during("Esys_TR_SetAuth"))
    }

    /// A number the TPM tells about itself.
    pub(super) fn property(&mut self, tag: PropertyTag) -> Result<Option<u32>, Trouble> {
        // One at a time and never from the crate's cache: it refuses a whole list for one tag it does not know.
        let answer = capability(&mut self.context, CapabilityType::TpmProperties, tag.into())?;
        let CapabilityData::TpmProperties(list) = answer else { return Ok(None) };
        Ok(list.find(tag).map(tss_esapi::structures::TaggedProperty::value))
    }

    /// The orderly end: everything is flushed, and the TPM told so by its last command.
    pub(super) fn close(mut self) -> Result<(), Trouble> {
        self.make_room(0)?;
        self.flush(self.storage)?;
        if let AuthSession::HmacSession(_) = self.session {
            flush(&mut self.context, session_object(self.session))?;
        }
        self.context
            .execute_without_session(|context| context.shutdown(StartupType::Clear))
            .map_err(during("TPM2_Shutdown"))
    }
}

/// Derives a storage key: the same one for the same template, as long as nobody clears the TPM.
pub(super) fn derive(context: &mut Context, template: Public) -> Result<CreatePrimaryKeyResult, Trouble> {
    let made = context.execute_with_session(Some(AuthSession::Password), |context| {
        context.create_primary(Hierarchy::Owner, template, None, None, None, None)
    });
    made.map_err(during("TPM2_CreatePrimary")).map_err(|trouble| {
        if !trouble.is_wrong_value() {
            return trouble;
        }
        Fault::new(Class::Config, "the owner hierarchy of this TPM has a password")
            .hint("empty it with `tpm2_changeauth --object-context owner --object-auth <password>`")
            .into()
    })
}

fn another_tpm() -> Fault {
    Fault::new(Class::DeviceGone, "this is another TPM than the one enrolled, or it was cleared: its storage key differs")
        .hint("put the enrolled TPM back; where it is lost or was cleared, so are its keys: take its stanza out, and enrol the new one by another name")
}

fn foreign_key() -> Fault {
    Fault::new(Class::KeyGone, "this key was made under the storage key of another TPM, or before this one was cleared")
        .hint("use the TPM that made the key; only that one can open its blob")
}

/// An authorisation value whose last byte is not zero: the TPM cuts zeros off the end, and some libraries do not.
fn draw_auth() -> Result<SecretBytes, Fault> {
    let mut bytes = Zeroizing::new([0; AUTH_BYTES]);
    while bytes.last() == Some(&0) {
        getrandom::fill(bytes.as_mut_slice()).map_err(|e| Fault::new(Class::Internal, format!("random bytes: {e}")))?;
    }
    Ok(SecretBytes::new(bytes.to_vec()))
}

/// A session that is salted to the storage key and encrypts what goes over the bus.
fn concealing(context: &mut Context, storage: KeyHandle) -> Result<AuthSession, Trouble> {
    begin(context, Some(storage), SessionType::Hmac, true)
}

/// A session, salted to `salt` where there is one. Without a salt it must encrypt nothing.
fn begin(
    context: &mut Context,
    salt: Option<KeyHandle>,
    kind: SessionType,
    conceals: bool,
) -> Result<AuthSession, Trouble> {
    let session = context
        .execute_without_session(|context| {
            let (cipher, hash) = (SymmetricDefinition::AES_256_CFB, HashingAlgorithm::Sha256);
            context.start_auth_session(salt, None, None, kind, cipher, hash)
        })
        .map_err(during("TPM2_StartAuthSession"))?
        .ok_or_else(|| Fault::new(Class::Internal, "TPM2_StartAuthSession gave no session"))?;
    let attributes = SessionAttributesBuilder::new().with_decrypt(conceals).with_encrypt(conceals);
    let (attributes, mask) = attributes.with_continue_session(true).build();
    context.tr_sess_set_attributes(session, attributes, mask).map_err(during("Esys_TRSess_SetAttributes"))?;
    Ok(session)
}

/// Registers of a bank, by the names that the wrapper crate has for them.
fn selection(bank: Hash, registers: impl IntoIterator<Item = u8>) -> Result<PcrSelectionList, Trouble> {
    let slots = registers.into_iter().map(|register| PcrSlot::try_from(1_u32 << register));
    let slots = slots.collect::<tss_esapi::Result<Vec<_>>>().map_err(during("PCRs"))?;
    let list = PcrSelectionList::builder().with_size_of_select(PcrSelectSize::ThreeOctets);
    list.with_selection(template::hash_of(bank), &slots).build().map_err(during("PCRs"))
}

fn session_object(session: AuthSession) -> ObjectHandle {
    tss_esapi::handles::SessionHandle::from(session).into()
}

pub(super) fn flush(context: &mut Context, handle: ObjectHandle) -> Result<(), Trouble> {
    context.execute_without_session(|context| context.flush_context(handle)).map_err(during("TPM2_FlushContext"))
}

fn capability(context: &mut Context, kind: CapabilityType, first: u32) -> Result<CapabilityData, Trouble> {
    context
        .execute_without_session(|context| context.get_capability(kind, first, 1))
        .map(|(data, _)| data)
        .map_err(during("TPM2_GetCapability"))
}

/// Refuses a TPM that lacks a command we cannot do without.
fn require(context: &mut Context) -> Result<(), Trouble> {
    for &command in NEEDED {
        let CapabilityData::Commands(list) = capability(context, CapabilityType::Command, command.into())? else {
            return Err(Fault::new(Class::Internal, "the TPM gave another list than its commands").into());
        };
        let index = u16::try_from(u32::from(command)).ok();
        if index.and_then(|index| list.find(index)).is_none() {
            let text = format!("this TPM lacks the command {command:?}, without which nothing works");
            return Err(Fault::new(Class::Unsupported, text).into());
        }
    }
    Ok(())
}

/// Flushes what killed clients left behind. Errors mean that somebody was faster.
fn flush_leftovers(context: &mut Context) {
    const TRANSIENT: u32 = 0x8000_0000;
    const LOADED_SESSION: u32 = 0x0200_0000;
    const AT_ONCE: u32 = 64;
    for first in [TRANSIENT, LOADED_SESSION] {
        let list = context.execute_without_session(|c| c.get_capability(CapabilityType::Handles, first, AT_ONCE));
        let Ok((CapabilityData::Handles(handles), _)) = list else { continue };
        for &handle in handles.iter() {
            let object = context.execute_without_session(|c| c.tr_from_tpm_public(handle));
            if let Ok(object) = object {
                let _ = flush(context, object);
            }
        }
    }
}
