//! When the server says that a certificate should be renewed before its time, and the moment that was drawn for that.
//!
//! The moment is drawn once and kept beside the pair, so that neither a restart nor another question moves it: many agents are
//! then spread evenly over the time that the server gives them.

use jiff::{SignedDuration, Timestamp};

use crate::wire::Renewal;

/// Advice that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// When the window ends: another end is other advice.
    end: Timestamp,
    /// The moment that was drawn.
    pub(super) moment: Timestamp,
}

impl Advice {
    /// What follows of an answer: nothing where it is by age, what was drawn before where it is the same advice.
    pub(super) fn of(renewal: &Renewal, kept: Option<Self>) -> Option<Self> {
        let Renewal { start, end, early, .. } = *renewal;
        let same = kept.filter(|kept| kept.end == end);
        early.then(|| same.unwrap_or_else(|| Self { end, moment: between(start, end) }))
    }

    /// As it is kept.
    pub(super) fn written(&self) -> String {
        format!("{} {}\n", self.moment, self.end)
    }

    /// What was kept; what cannot be read is drawn again.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (moment, end) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { end: end.parse().ok()?, moment: moment.parse().ok()? })
    }
}

/// Some moment of a window.
fn between(start: Timestamp, end: Timestamp) -> Timestamp {
    let span = end.duration_since(start).as_secs().max(0);
    // Without chance it is the first moment: early rather than late.
    let drawn = i64::from(getrandom::u32().unwrap_or_default());
    let part = span / 0x1_0000 * (drawn >> 16) + span % 0x1_0000 * (drawn >> 16) / 0x1_0000;
    start.checked_add(SignedDuration::from_secs(part)).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal(start: i64, end: i64, early: bool) -> Renewal {
        let time = |second| Timestamp::from_second(1_000_000 + second).unwrap();
        Renewal { start: time(start), end: time(end), early, ask_again: 60, explanation: None }
    }

    #[test]
    fn a_moment_is_drawn_once_for_each_advice() {
        assert_eq!(Advice::of(&renewal(0, 100, false), None), None);
        let first = Advice::of(&renewal(0, 100_000, true), None).unwrap();
        assert!((renewal(0, 0, true).start..=first.end).contains(&first.moment));
        // The window begins whenever it is asked for.
        assert_eq!(Advice::of(&renewal(50, 100_000, true), Some(first)), Some(first));
        let other = Advice::of(&renewal(50, 90_000, true), Some(first)).unwrap();
        assert!(other.end != first.end && other.moment >= renewal(50, 0, true).start);
        assert_eq!(Advice::of(&renewal(50, 90_000, false), Some(other)), None, "taken back");
        assert_eq!(Advice::read(&first.written()), Some(first));
        for torn in ["", "2026", &first.written()[..40]] {
            assert_eq!(Advice::read(torn), None, "{torn}");
        }
    }

    #[test]
    fn moments_are_spread_over_the_window() {
        for span in [10, 3600, 100_000_000] {
            let all: Vec<_> = (0..200).map(|_| Advice::of(&renewal(0, span, true), None).unwrap()).collect();
            let middle = renewal(span / 2, 0, true).start;
            let late = all.iter().filter(|one| one.moment > middle).count();
            assert!((40..160).contains(&late), "{late} of 200 in the second half of {span} s");
            assert!(all.iter().all(|one| one.moment <= one.end));
        }
    }
}
