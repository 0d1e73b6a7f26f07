//! Deaths while a version that failed is cleaned up, and versions that are finished after the death of their service.
pub(super) const POINTS: &[&str] = &["keyring.before_cleanup", "keyring.cleaned_up"];
