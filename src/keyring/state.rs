//! The one table of states, after [NIST SP 800-57 part 1, section 7](https://doi.org/10.6028/NIST.SP.800-57pt1r5).

use crate::error::{Error, Kind, Result};
use crate::types::{State, Version};

/// What moves a version from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A prepared version becomes the primary one.
    Activate,
    /// Use for now is stopped.
    Suspend,
    /// A suspended version is used again.
    Resume,
    /// It was superseded, or its time to protect is over.
    Deactivate,
    /// Its secrecy is in doubt.
    Compromise,
    /// Its waiting period before destruction begins.
    ScheduleDestruction,
    /// The waiting period is stopped.
    CancelDestruction,
    /// It is destroyed.
    Destroy,
}

impl Step {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Activate,
        Self::Suspend,
        Self::Resume,
        Self::Deactivate,
        Self::Compromise,
        Self::ScheduleDestruction,
        Self::CancelDestruction,
        Self::Destroy,
    ];

    const fn verb(self) -> &'static str {
        match self {
            Self::Activate => "activated",
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
            Self::Deactivate => "deactivated",
            Self::Compromise => "declared compromised",
            Self::ScheduleDestruction => "scheduled for destruction",
            Self::CancelDestruction => "brought back",
            Self::Destroy => "destroyed",
        }
    }
}

/// The state after `step`, for a version in `state` that was in `before` when it was suspended or scheduled.
///
/// # Errors
/// [`Kind::State`] where the table has no such way.
pub fn after(version: Version, state: State, before: Option<State>, step: Step) -> Result<State> {
    use State::{Active, Compromised, Deactivated, DestroyScheduled, Destroyed, PreActive, Suspended};
    let refused = || {
        Err(Error::new(Kind::State, format!("version {version} is {state} and cannot be {}", step.verb()))
            .hint("the states and the ways between them are drawn in docs/keys.md"))
    };
    match (step, state) {
        (Step::Activate, PreActive) => Ok(Active),
        (Step::Suspend, Active | Deactivated | PreActive) => Ok(Suspended),
        (Step::Resume, Suspended) => Ok(before.unwrap_or(Deactivated)),
        (Step::Deactivate, Active) => Ok(Deactivated),
        (Step::Compromise, PreActive | Active | Suspended | Deactivated | DestroyScheduled) => Ok(Compromised),
        (Step::ScheduleDestruction, PreActive | Active | Suspended | Deactivated | Compromised) => Ok(DestroyScheduled),
        // What was active has been superseded or has no successor yet: either way it no longer protects.
        (Step::CancelDestruction, DestroyScheduled) => match before {
            Some(Compromised) => Ok(Compromised),
            Some(Suspended) => Ok(Suspended),
            Some(PreActive | Active | Deactivated | DestroyScheduled | Destroyed) | None => Ok(Deactivated),
        },
        (Step::Destroy, DestroyScheduled) => Ok(Destroyed),
        (
            Step::Activate
            | Step::Suspend
            | Step::Resume
            | Step::Deactivate
            | Step::Compromise
            | Step::ScheduleDestruction
            | Step::CancelDestruction
            | Step::Destroy,
            _,
        ) => refused(),
    }
}

/// Refuses to open a ciphertext with a version in `state`.
///
/// # Errors
/// [`Kind::State`], saying which.
pub fn may_open(version: Version, state: State, allow_compromised: bool) -> Result<()> {
    let refused = |hint: &'static str| {
        Err(Error::new(Kind::State, format!("version {version} is {state} and opens nothing")).hint(hint))
    };
    match state {
        State::Active | State::Deactivated => Ok(()),
        State::Compromised if allow_compromised => Ok(()),
        State::Compromised => refused("pass danger_allow_compromised, with the right to UnwrapCompromised"),
        State::PreActive => refused("activate it first"),
        State::Suspended => refused("resume it first"),
        State::DestroyScheduled => refused("cancel its destruction first"),
        State::Destroyed => refused("it is gone for good"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All ways of the table, written out: a change of the table is a change of this.
    #[test]
    fn the_table_has_these_ways_and_no_others() {
        let mut ways = Vec::new();
        for step in Step::ALL {
            for state in State::ALL {
                if let Ok(to) = after(Version::FIRST, *state, Some(State::Active), *step) {
                    ways.push(format!("{step:?}: {state} -> {to}"));
                }
            }
        }
        let expected = [
            "Activate: pre-active -> active",
            "Suspend: pre-active -> suspended",
            "Suspend: active -> suspended",
            "Suspend: deactivated -> suspended",
            "Resume: suspended -> active",
            "Deactivate: active -> deactivated",
            "Compromise: pre-active -> compromised",
            "Compromise: active -> compromised",
            "Compromise: suspended -> compromised",
            "Compromise: deactivated -> compromised",
            "Compromise: destroy-scheduled -> compromised",
            "ScheduleDestruction: pre-active -> destroy-scheduled",
            "ScheduleDestruction: active -> destroy-scheduled",
            "ScheduleDestruction: suspended -> destroy-scheduled",
            "ScheduleDestruction: deactivated -> destroy-scheduled",
            "ScheduleDestruction: compromised -> destroy-scheduled",
            "CancelDestruction: destroy-scheduled -> deactivated",
            "Destroy: destroy-scheduled -> destroyed",
        ];
        assert_eq!(ways, expected);
    }

    #[test]
    fn only_active_and_deactivated_versions_open_without_more() {
        let opens: Vec<_> = State::ALL.iter().filter(|s| may_open(Version::FIRST, **s, false).is_ok()).collect();
        assert_eq!(opens, [&State::Active, &State::Deactivated]);
        let opens: Vec<_> = State::ALL.iter().filter(|s| may_open(Version::FIRST, **s, true).is_ok()).collect();
        assert_eq!(opens, [&State::Active, &State::Deactivated, &State::Compromised]);
    }
}
