//! The anchor of a token: two private data objects, replaced in turn.
//!
//! ```text
//! CKO_DATA, TOKEN, PRIVATE, not MODIFIABLE
//!   CKA_APPLICATION   signet anchor 5f0c2a4199b1d2e3      whose: the id of the installation
//!   CKA_LABEL         signet anchor 5f0c2a4199b1d2e3      for whoever lists the token
//!   CKA_VALUE         the slot
//! ```
//!
//! A slot is replaced by destroying the object with the older value and making a new one. Cut short in between, the other one
//! stays, and the next write finds one object and makes the second again. Objects are found once and then held by their
//! handles: a search costs many times a write on a token with thousands of objects.

use std::sync::Arc;

use pkcs11_raw::{Attribute, Object, Session, ck};

use crate::device::pkcs11::codes::Effect;
use crate::device::pkcs11::lane::Lane;
use crate::device::{ANCHOR_SLOT, AnchorPlace, AnchorSlot, AnchorWrite, Class, Fault};

/// An object of an anchor, and what it was last seen to hold.
type Held = (Object, AnchorSlot);

/// The anchor that this process works with: whose, and its objects.
#[derive(Debug, Default)]
pub(super) struct Cached(Option<([u8; 8], Vec<Held>)>);

impl Lane {
    /// See [`crate::device::Device::make_anchor`].
    pub(super) fn make_anchor_objects(&mut self, place: &AnchorPlace) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut cached = shared.lock_anchor();
        cached.0 = None;
        let changing = shared.changing();
        if !self.look(|session| session.find(&search(place)))?.is_empty() {
            return Err(Fault::new(Class::Refused, "the token holds the anchor of this installation already"));
        }
        for _ in 0..2 {
            self.call(|session| session.create(&template(place, AnchorSlot::BLANK)))
                .map_err(|error| shared.fault(error, Effect::Change))?;
        }
        drop(changing);
        shared.sync()
    }

    /// See [`crate::device::Device::read_anchor`].
    pub(super) fn anchor_slots(&mut self, place: &AnchorPlace) -> Result<Vec<AnchorSlot>, Fault> {
        let held = self.find_anchor(place)?;
        let slots = held.iter().map(|(_, slot)| *slot).collect();
        let shared = Arc::clone(&self.shared);
        shared.lock_anchor().0 = Some((place.instance, held));
        Ok(slots)
    }

    /// See [`crate::device::Device::write_anchor`].
    pub(super) fn replace_anchor_slot(&mut self, write: &AnchorWrite) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let mut cached = shared.lock_anchor();
        let known = |held: &Vec<Held>| write.known_in(&held.iter().map(|(_, slot)| *slot).collect::<Vec<_>>());
        let held = match cached.0.take() {
            Some((instance, held)) if instance == write.place.instance && known(&held).is_some() => held,
            Some(_) | None => self.find_anchor(&write.place)?,
        };
        let Some(at) = known(&held) else { return Err(moved()) };
        // 1. All must be there, and as we know it: whoever else writes this anchor has destroyed one of them.
        for (object, slot) in &held {
            match self.look(|session| value(session, *object)) {
                Ok(found) if found.unwrap_or(AnchorSlot::BLANK) == *slot => {}
                Err(fault) if fault.class != Class::KeyGone => return Err(fault),
                Ok(_) | Err(_) => {
                    self.prove_sentinel()?;
                    return Err(moved());
                }
            }
        }
        let (kept, others): (Vec<_>, Vec<_>) = held.into_iter().enumerate().partition(|(place, _)| *place == at);
        let (object, _) = kept.first().map(|(_, held)| *held).ok_or_else(moved)?;
        // 2. The older one makes room; 3. for the new one.
        let changing = shared.changing();
        let change = |error| shared.fault(error, Effect::Change);
        for (_, (older, _)) in others {
            self.call(|session| session.destroy(older)).map_err(change)?;
        }
        let new = self.call(|session| session.create(&template(&write.place, write.value))).map_err(change)?;
        drop(changing);
        shared.sync()?;
        cached.0 = Some((write.place.instance, vec![(object, write.known), (new, write.value)]));
        Ok(())
    }

    /// Finds the objects and reads them. None is no anchor only where the sentinel shows that the token is there.
    fn find_anchor(&mut self, place: &AnchorPlace) -> Result<Vec<Held>, Fault> {
        let shared = Arc::clone(&self.shared);
        let finding = shared.finding()?;
        let held = self.look(|session| {
            let objects = session.find(&search(place))?;
            // A torn object may have no value, or one of another length: it holds nothing.
            let read = |object| Ok((object, value(session, object)?.unwrap_or(AnchorSlot::BLANK)));
            objects.into_iter().map(read).collect::<pkcs11_raw::Result<Vec<Held>>>()
        })?;
        drop(finding);
        if held.is_empty() {
            self.prove_sentinel()?;
            return Err(Fault::new(Class::KeyGone, "the token holds no anchor of this installation"));
        }
        Ok(held)
    }
}

fn moved() -> Fault {
    Fault::new(Class::Refused, "the anchor in the token is not where this service left it")
}

fn name(place: &AnchorPlace) -> String {
    format!("signet anchor {}", hex::encode(place.instance))
}

fn search(place: &AnchorPlace) -> [Attribute; 3] {
    [
        Attribute::number(ck::CKA_CLASS, ck::CKO_DATA),
        Attribute::flag(ck::CKA_TOKEN, true),
        Attribute::bytes(ck::CKA_APPLICATION, name(place).as_bytes()),
    ]
}

fn template(place: &AnchorPlace, slot: AnchorSlot) -> Vec<Attribute> {
    let mut template = search(place).to_vec();
    template.push(Attribute::flag(ck::CKA_PRIVATE, true));
    template.push(Attribute::flag(ck::CKA_MODIFIABLE, false));
    template.push(Attribute::bytes(ck::CKA_LABEL, name(place).as_bytes()));
    template.push(Attribute::bytes(ck::CKA_VALUE, &slot.0));
    template
}

fn value(session: &Session, object: Object) -> pkcs11_raw::Result<Option<AnchorSlot>> {
    let mut values = session.attributes(object, &[ck::CKA_VALUE])?;
    let bytes = values.pop().flatten().and_then(|bytes| <[u8; ANCHOR_SLOT]>::try_from(bytes).ok());
    Ok(bytes.map(AnchorSlot))
}
