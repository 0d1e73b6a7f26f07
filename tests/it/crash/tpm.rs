//! Deaths of a service whose keys are a TPM's, those of the house among them.
//!
//! A TPM keeps nothing of a key: what a death may lose or leave is in the store alone, and in the TPM's working memory,
//! which the next worker clears.

use super::past::{self, Past};
use super::{BIRTH, Change, DESTRUCTION, MENDING, cut_short, destruction, mending};
use crate::server::Devices;

#[tokio::test]
async fn a_version_in_a_tpm_that_is_cut_short_is_whole_or_not_there() {
    let past = Past::make_on(Devices::Tpm, false).await;
    let changes = [Change::Create, Change::Rotate].into_iter();
    let cases: Vec<_> =
        changes.flat_map(|change| BIRTH.iter().map(move |(point, left)| (change, *point, *left))).collect();
    past::all(cases, async |(change, point, left)| cut_short(&past, change, point, left).await).await;
    past::all(MENDING.to_vec(), async |points| mending(&past, points).await).await;
}

#[tokio::test]
async fn a_destruction_in_a_tpm_that_is_cut_short_is_ended_by_the_next_start() {
    let past = Past::make_on(Devices::Tpm, true).await;
    past::all(DESTRUCTION.to_vec(), async |point| destruction(&past, point).await).await;
}
