//! How a node is named to others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::id::{Capacity, Id, Incarnation};

/// A node: where it is on the circle, where it is on the network, and who it is.
///
/// The id is not sent between peers: it follows from the address, so nobody can claim a place on the circle that its
/// address does not give it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact {
    /// SHA-1 of the advertised address, reduced to the ring's capacity.
    pub id: Id,
    /// The advertised address.
    pub addr: SocketAddr,
    /// Who it is.
    pub incarnation: Incarnation,
}

impl Contact {
    /// The contact of `incarnation` at `addr` in a ring of this capacity.
    pub fn new(capacity: Capacity, addr: SocketAddr, incarnation: Incarnation) -> Self {
        Self { id: Self::id_of(capacity, addr), addr, incarnation }
    }

    /// The id of a node that advertises `addr`.
    pub fn id_of(capacity: Capacity, addr: SocketAddr) -> Id {
        capacity.hash(addr.to_string().as_bytes())
    }
}

/// Makes contacts of addresses, and remembers the ids of some: hashing an address costs more than reading a message.
#[derive(Debug)]
pub struct Ids {
    capacity: Capacity,
    // Direct-mapped: an address has one place, and the latest one there stays.
    places: Vec<Option<(SocketAddr, Id)>>,
}

impl Ids {
    /// Remembers at most 2^`bits` addresses of a ring of this capacity; `None`: none.
    pub fn new(capacity: Capacity, bits: Option<u32>) -> Self {
        Self { capacity, places: vec![None; bits.map_or(0, |bits| 1 << bits)] }
    }

    /// The ring's capacity.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// As [`Contact::new`].
    pub fn contact(&mut self, addr: SocketAddr, incarnation: Incarnation) -> Contact {
        if self.places.is_empty() {
            return Contact::new(self.capacity, addr, incarnation);
        }
        let at = scatter(addr) & (self.places.len() - 1);
        let id = match self.places[at] {
            Some((known, id)) if known == addr => id,
            _ => {
                let id = Contact::id_of(self.capacity, addr);
                self.places[at] = Some((addr, id));
                id
            }
        };
        Contact { id, addr, incarnation }
    }
}

/// Spreads addresses over the places. Whoever chooses addresses that meet slows us down by a hash a message, no more.
fn scatter(addr: SocketAddr) -> usize {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            let [high, low] = [(bits >> 64) & u128::from(u64::MAX), bits & u128::from(u64::MAX)];
            u64::try_from(high ^ low).unwrap_or(0)
        }
    };
    let mixed = (ip ^ (u64::from(addr.port()) << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 40).unwrap_or(0)
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.addr, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_ids_are_those_of_the_addresses_also_where_places_are_shared() {
        let mut ids = Ids::new(Capacity::MAX, Some(2));
        for round in 0..2 {
            for port in 1..=20_u16 {
                for addr in
                    [SocketAddr::from(([10, 0, 0, 1], port)), SocketAddr::from(([0xfe80, 0, 0, 0, 0, 0, 0, 1], port))]
                {
                    let who = Incarnation(round);
                    assert_eq!(ids.contact(addr, who), Contact::new(Capacity::MAX, addr, who));
                }
            }
        }
    }
}
