//! When a device that failed is asked again: the circuit breaker between callers and a device.
//!
//! ```text
//! closed ── it is gone, or fails again and again ──▶ open ── the pause is over ──▶ half-open: one new worker, whose sentinel must prove itself
//!    ▲                                                ▲                                │                                │
//!    │                                                └──────────── it does not ───────┘                                │
//!    └──────────────────────────────────────────────────────────────────────────────────────────────── it does ─────────┘
//! ```
//!
//! Open and half-open, calls are refused at once. The supervisor in `worker` is what acts on it; here stands only how it counts and how long
//! it waits. A worker that dies is replaced in milliseconds and costs nobody anything: it counts only where it dies young. One that hangs costs
//! its callers all the time they have, and counts twice. What counted is forgotten once the device has worked for [`FORGIVEN`] since: time in
//! which it did not work makes nothing good.

use std::time::Duration;

/// A worker that lived as long did not die of its start.
const STEADY: Duration = Duration::from_secs(1);
/// How long a device must work until a failure no longer counts.
const FORGIVEN: Duration = Duration::from_secs(60);
/// How much must have come together for a device to be called a failing one.
const FAILING: u32 = 6;
/// The first pause and the longest one, before a device that is away is looked for: nobody waits for that, and it is to be back at once.
const AWAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// The same before a device is tried that comes back each time, and then fails its callers.
const FAILS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How a worker that worked ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process died.
    Died,
    /// A call did not come back.
    Hung,
    /// The device was gone, or its sentinel did not prove itself.
    Gone,
}

impl End {
    const fn weight(self) -> u32 {
        match self {
            Self::Died | Self::Gone => 1,
            Self::Hung => 2,
        }
    }
}

/// What becomes of callers after the end of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// They wait for the next one.
    Wait,
    /// They are refused.
    Refused,
}

/// How a device did lately.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// For how long it has worked, all in all.
    worked: Duration,
    /// What counts, and after how much work that was.
    counted: Vec<(Duration, End)>,
    /// Failures in a row.
    row: u32,
}

impl Breaker {
    /// A worker ended that had worked for `lived`.
    pub(super) fn ended(&mut self, end: End, lived: Duration) -> Callers {
        let was_failing = self.is_failing();
        self.worked += lived;
        self.counted.retain(|(at, _)| self.worked.saturating_sub(*at) < FORGIVEN);
        let steady = lived > STEADY;
        if end == End::Died && steady {
            self.counted.retain(|(_, end)| *end != End::Died);
        } else {
            self.counted.push((self.worked, end));
        }
        let failing = self.is_failing();
        if (steady && !failing) || (failing && !was_failing) {
            self.row = 0;
        }
        self.row += u32::from(failing || end != End::Died || !steady);
        if failing || end == End::Gone { Callers::Refused } else { Callers::Wait }
    }

    /// A worker could not be started, or its sentinel did not prove itself.
    pub(super) fn did_not_start(&mut self) {
        self.row = self.row.saturating_add(1);
    }

    /// Somebody knows better: nothing counts any more.
    pub(super) fn forget(&mut self) {
        (self.counted, self.row) = (Vec::new(), 0);
    }

    /// How long to wait now. `chance`, any number, spreads those who wait for the same device: by up to half.
    pub(super) fn pause(&self, chance: u32) -> Duration {
        let Some(doublings) = self.row.checked_sub(1) else { return Duration::ZERO };
        let (first, most) = if self.is_failing() { FAILS } else { AWAY };
        let whole = first.saturating_mul(1 << doublings.min(16)).min(most);
        whole / 2 + (whole / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    fn is_failing(&self) -> bool {
        self.counted.iter().map(|(_, end)| end.weight()).sum::<u32>() >= FAILING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Duration = Duration::from_millis(50);
    const OLD: Duration = Duration::from_secs(3);

    fn ends(breaker: &mut Breaker, end: End, lived: Duration, times: usize) -> Vec<Callers> {
        (0..times).map(|_| breaker.ended(end, lived)).collect()
    }

    #[test]
    fn a_worker_that_dies_in_its_prime_is_replaced_at_once_and_for_ever() {
        let mut breaker = Breaker::default();
        assert!(ends(&mut breaker, End::Died, OLD, 1000).iter().all(|callers| *callers == Callers::Wait));
        assert_eq!(breaker.pause(u32::MAX), Duration::ZERO);
        // Every other one young, as under a killer.
        for _ in 0..1000 {
            assert_eq!(breaker.ended(End::Died, YOUNG), Callers::Wait);
            assert!(breaker.pause(u32::MAX) <= Duration::from_millis(20));
            assert_eq!(breaker.ended(End::Died, OLD), Callers::Wait);
        }
    }

    #[test]
    fn what_fails_again_and_again_is_refused_and_tried_ever_more_seldom() {
        for (end, lived, times) in [(End::Died, YOUNG, 6), (End::Hung, OLD, 3), (End::Gone, OLD, 6)] {
            let mut breaker = Breaker::default();
            let callers = ends(&mut breaker, end, lived, times);
            let away = if end == End::Gone { Callers::Refused } else { Callers::Wait };
            assert!(callers[..times - 1].iter().all(|callers| *callers == away), "{end:?}: {callers:?}");
            assert_eq!(callers[times - 1], Callers::Refused, "{end:?}");
            // Doubled from one second to half a minute, whether it comes back or not, and never less than half of it.
            for (n, most) in [1, 2, 4, 8, 16, 30, 30].into_iter().map(Duration::from_secs).enumerate() {
                assert_eq!((breaker.pause(0), breaker.pause(u32::MAX)), (most / 2, most), "{end:?}");
                if n % 2 == 0 {
                    breaker.did_not_start()
                } else {
                    let _ = breaker.ended(end, lived);
                }
            }
        }
    }

    #[test]
    fn a_device_that_is_away_is_looked_for_twice_a_second() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.ended(End::Gone, OLD), Callers::Refused);
        assert_eq!(breaker.pause(u32::MAX), Duration::from_millis(20));
        (0..100).for_each(|_| breaker.did_not_start());
        assert_eq!(breaker.pause(u32::MAX), Duration::from_millis(500));
    }

    #[test]
    fn what_worked_for_a_minute_is_forgiven_and_what_was_away_is_not() {
        let mut breaker = Breaker::default();
        ends(&mut breaker, End::Hung, OLD, 2);
        breaker.ended(End::Hung, FORGIVEN + OLD);
        assert_eq!(breaker.ended(End::Hung, OLD), Callers::Wait);
        assert_eq!(breaker.ended(End::Hung, OLD), Callers::Refused);
        breaker.forget();
        assert_eq!(breaker.pause(u32::MAX), Duration::ZERO);
        assert_eq!(breaker.ended(End::Hung, OLD), Callers::Wait);
    }
}
