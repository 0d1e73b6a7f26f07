//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::telemetry::Metrics;

/// The seats of a listener.
#[derive(Debug)]
pub(super) struct Seats {
    all: usize,
    per_address: usize,
    metrics: Metrics,
    /// Who sits, by network. The lock protects the counts and is held for one look or change.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// The right to a connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Seats {
    pub(super) fn new(all: usize, per_address: usize, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { all, per_address, metrics, taken: Mutex::default() })
    }

    /// A seat for a connection from `address`, where there is one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_network.get(&network(address)).copied().unwrap_or(0);
        if taken.all >= self.all || own >= self.per_address {
            return None;
        }
        taken.all += 1;
        taken.by_network.insert(network(address), own + 1);
        self.metrics.connection(1);
        Some(Seat { seats: self.clone(), address })
    }
}

impl Seat {
    /// From where: an IPv4 address stands as such, also on a listener of both families.
    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        let network = network(self.address);
        match taken.by_network.get_mut(&network) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(taken.by_network.remove(&network)),
        }
        self.seats.metrics.connection(-1);
    }
}

/// One customer has one IPv4 address, or 2^64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_in_all_and_by_network() {
        let seats = Seats::new(3, 2, Metrics::new());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = seats.take(address("192.0.2.1")).unwrap();
        // The same address, as a listener of both families sees it.
        let _second = seats.take(address("::ffff:192.0.2.1")).unwrap();
        assert!(seats.take(address("192.0.2.1")).is_none());
        let third = seats.take(address("2001:db8::1")).unwrap();
        assert!(seats.take(address("2001:db9::1")).is_none(), "all seats are taken");
        drop(first);
        let _fourth = seats.take(address("2001:db8::2:3:4:5")).unwrap();
        drop(third);
        assert!(seats.take(address("2001:db8::ffff")).is_some());
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left() {
        let seats = Seats::new(10, 10, Metrics::new());
        drop((seats.take("192.0.2.1".parse().unwrap()), seats.take("192.0.2.1".parse().unwrap())));
        let taken = seats.taken.lock().unwrap();
        assert_eq!((taken.all, taken.by_network.len()), (0, 0));
    }
}
