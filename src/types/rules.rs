//! The rules of a key that act without being asked.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Algorithm, Period, Uses};
use crate::error::{Error, Kind, Result};

/// When a new version is made by itself. All absent: only by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// After that time: at least `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "90d")]
    pub every: Option<Period>,
    /// After that many uses to protect (wrap, sign or MAC). A version never serves more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_uses: Option<u64>,
    /// After that many bytes protected. A version never serves more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_bytes: Option<u64>,
}

/// Which old versions are scheduled for destruction by themselves. All absent: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Keep that many versions besides the primary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<u32>,
    /// Keep each version for that time after it was superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "365d")]
    pub period: Option<Period>,
}

/// When the next version of an issuer of certificates is made and put in force by itself, in hundredths of the active one's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollover {
    /// When it is made, and published.
    pub prepare: u8,
    /// When it begins to issue.
    pub activate: u8,
}

impl Default for Rollover {
    fn default() -> Self {
        Self { prepare: 50, activate: 67 }
    }
}

impl Rotation {
    /// The shortest time between two rotations by age.
    pub const MIN_EVERY: Period = Period::seconds(60);

    /// Refuses rules that would rotate all the time.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a period under a minute, or a limit of 0.
    pub fn check(&self) -> Result<()> {
        let Self { every, after_uses, after_bytes } = self;
        if every.is_some_and(|every| every < Self::MIN_EVERY) {
            return Err(Error::new(Kind::Invalid, "a key rotates at most once a minute").hint("say every = 1m or more"));
        }
        if *after_uses == Some(0) || *after_bytes == Some(0) {
            return Err(Error::new(Kind::Invalid, "a key cannot rotate after 0 uses or bytes"));
        }
        Ok(())
    }

    /// The same within what keys of `algorithm` bear.
    #[must_use]
    pub fn within(&self, algorithm: Algorithm) -> Self {
        let stops = algorithm.uses().map(|Uses { stops, .. }| stops);
        Self { after_uses: self.after_uses.into_iter().chain(stops).min(), ..self.clone() }
    }

    /// Whether uses have to be counted.
    #[must_use]
    pub const fn counts(&self) -> bool {
        self.after_uses.is_some() || self.after_bytes.is_some()
    }
}
