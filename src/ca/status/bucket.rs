//! How many of something there may be: some at once, and so many per second in the long run.

use jiff::Timestamp;

/// A bucket that fills at a rate. It counts in thousandths, so that a millisecond of one per second is one of them.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u32,
    most: u64,
    left: u64,
    seen: Timestamp,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(per_second: u32, most: u32, now: Timestamp) -> Self {
        let most = u64::from(most) * 1000;
        Self { per_second, most, left: most, seen: now }
    }

    /// Takes one, where there is one.
    pub(super) fn take(&mut self, now: Timestamp) -> bool {
        // A clock that was put back fills nothing.
        let millis = u64::try_from(now.duration_since(self.seen).as_millis()).unwrap_or(0);
        self.seen = now;
        self.left = self.left.saturating_add(millis.saturating_mul(self.per_second.into())).min(self.most);
        let enough = self.left >= 1000;
        if enough {
            self.left -= 1000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn some_at_once_and_so_many_per_second() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut bucket = Bucket::new(2, 3, start);
        let mut takes = |millis| {
            let now = start + SignedDuration::from_millis(millis);
            std::iter::from_fn(|| bucket.take(now).then_some(())).take(10).count()
        };
        assert_eq!([takes(0), takes(400), takes(500), takes(1000)], [3, 0, 1, 1]);
        assert_eq!(takes(-60_000), 0, "a clock that was put back");
        assert_eq!(takes(600_000), 3, "no more than it holds");
    }
}
