//! The anchor of a TPM: one ordinary NV index with two slots, written in turn.
//!
//! ```text
//! handle      0x01800000 + 22 bits of the id of the installation             owner's range
//! attributes  AUTHREAD, AUTHWRITE, NO_DA                                      nobody without its authorisation value
//! data        slot (48) || slot (48)
//! ```
//!
//! The authorisation value is what makes it ours: whoever owns the TPM can remove the index and define another in its place,
//! but not one that takes the same value, which only the storage key tells. A TPM writes an index whole or not at all
//! ([TPM 2.0 Library, Part 1, 37.2.6](https://trustedcomputinggroup.org/resource/tpm-library-specification/)); two slots
//! cost nothing and do not lean on that.

use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{Auth, MaxNvBuffer, NvPublicBuilder};

use super::codes::{Trouble, during};
use super::link::Link;
use crate::device::{ANCHOR_SLOT, AnchorPlace, AnchorSlot, AnchorWrite, Class, Fault};

/// The first handle of the owner's range ([TPM 2.0 Library, Part 2, 7.4](https://trustedcomputinggroup.org/resource/tpm-library-specification/);
/// registry of reserved handles: 0x01C00000 and above are others').
const FIRST: u32 = 0x0180_0000;
/// How many handles the range has.
const RANGE: u32 = 0x0040_0000;
/// Of a slot, as the TPM counts.
const SLOT: u16 = 48;
const _: () = assert!(SLOT as usize == ANCHOR_SLOT);
/// Both slots.
const SIZE: u16 = 2 * SLOT;

/// Makes the index, blank.
pub(super) fn make(link: &mut Link, place: &AnchorPlace) -> Result<(), Trouble> {
    let attributes = NvIndexAttributesBuilder::new()
        .with_auth_read(true)
        .with_auth_write(true)
        .with_no_da(true)
        .with_nv_index_type(NvIndexType::Ordinary)
        .build()
        .map_err(during("TPM2_NV_DefineSpace"))?;
    let public = NvPublicBuilder::new()
        .with_nv_index(handle(place)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(usize::from(SIZE))
        .build()
        .map_err(during("TPM2_NV_DefineSpace"))?;
    let auth = auth(place)?;
    let index =
        link.authorised("TPM2_NV_DefineSpace", |tpm| tpm.nv_define_space(Provision::Owner, Some(auth), public))?;
    let blank = MaxNvBuffer::try_from(vec![0; usize::from(SIZE)]).map_err(during("TPM2_NV_Write"))?;
    link.authorised("TPM2_NV_Write", |tpm| tpm.nv_write(NvAuth::NvIndex(index), index, blank, 0))?;
    link.remember_anchor(place.instance, index);
    Ok(())
}

/// Reads both slots.
pub(super) fn read(link: &mut Link, place: &AnchorPlace) -> Result<Vec<AnchorSlot>, Trouble> {
    let index = index(link, place)?;
    let data = link.authorised("TPM2_NV_Read", |tpm| tpm.nv_read(NvAuth::NvIndex(index), index, SIZE, 0))?;
    let (slots, _) = data.value().as_chunks::<ANCHOR_SLOT>();
    Ok(slots.iter().copied().map(AnchorSlot).collect())
}

/// Writes the slot beside the known one.
pub(super) fn write(link: &mut Link, write: &AnchorWrite) -> Result<(), Trouble> {
    let slots = read(link, &write.place)?;
    // Tried once more after a broken transmission: then it may stand there already.
    if slots.contains(&write.value) {
        return Ok(());
    }
    let Some(known) = write.known_in(&slots) else {
        return Err(Fault::new(Class::Refused, "the anchor in the TPM is not where this service left it").into());
    };
    let offset = if known == 0 { SLOT } else { 0 };
    let index = index(link, &write.place)?;
    let value = MaxNvBuffer::try_from(write.value.0.to_vec()).map_err(during("TPM2_NV_Write"))?;
    link.authorised("TPM2_NV_Write", |tpm| tpm.nv_write(NvAuth::NvIndex(index), index, value, offset))
}

/// The index, with its authorisation value.
fn index(link: &mut Link, place: &AnchorPlace) -> Result<NvIndexHandle, Trouble> {
    if let Some(index) = link.known_anchor(place.instance) {
        return Ok(index);
    }
    let found = link.public_of(handle(place)?.into()).map_err(|trouble| {
        if trouble.is_no_handle() {
            return Fault::new(Class::KeyGone, "the TPM holds no anchor of this installation").into();
        }
        trouble
    })?;
    let index = NvIndexHandle::from(found);
    link.set_auth(found, auth(place)?)?;
    link.remember_anchor(place.instance, index);
    Ok(index)
}

fn handle(place: &AnchorPlace) -> Result<NvIndexTpmHandle, Trouble> {
    let [a, b, c, d, ..] = place.instance;
    let number = FIRST + u32::from_be_bytes([a, b, c, d]) % RANGE;
    NvIndexTpmHandle::new(number).map_err(during("the handle of the anchor"))
}

fn auth(place: &AnchorPlace) -> Result<Auth, Trouble> {
    Auth::try_from(place.auth.expose()).map_err(during("authorisation value"))
}
