//! Deaths of `signet init` and `signet restore`.
pub(super) const POINTS: &[&str] = &[];
