//! The finger table: entry k is the successor of `me + 2^k`. In a ring of N nodes only about log2 N entries differ, so
//! the m entries are kept as runs.

use crate::base::{Capacity, Contact, Id, Incarnation, in_arc};

/// The finger table of one node, compressed.
#[derive(Clone, Debug)]
pub struct FingerTable {
    capacity: Capacity,
    me: Id,
    // (first k, contact), k ascending; entries below the first k are not known.
    runs: Vec<(u32, Contact)>,
}

impl FingerTable {
    /// Nothing known yet.
    pub fn new(capacity: Capacity, me: Id) -> Self {
        Self { capacity, me, runs: Vec::new() }
    }

    /// Where finger `k` starts.
    pub fn start(&self, k: u32) -> Id {
        self.capacity.finger_start(self.me, k)
    }

    /// Finger `k`, if known.
    pub fn get(&self, k: u32) -> Option<Contact> {
        let after = self.runs.partition_point(|&(first, _)| first <= k);
        after.checked_sub(1).map(|at| self.runs[at].1)
    }

    /// The distinct entries with the first k of each, nearest first.
    pub fn runs(&self) -> &[(u32, Contact)] {
        &self.runs
    }

    /// Records that `owner` is the successor of the start of finger `k`, and so of every later start up to `owner`.
    /// Returns the first k that this says nothing about, m if none is left.
    pub fn learn(&mut self, k: u32, owner: Contact) -> u32 {
        let m = self.capacity.bits();
        let from = self.start(k);
        // start(k + j) moves clockwise from start(k) towards me; it shares the owner while it has not passed it.
        let mut end = k + 1;
        while end < m && owner.id != self.me && in_arc(from, self.start(end), owner.id) && from != owner.id {
            end += 1;
        }
        if owner.id == self.me {
            end = m;
        }
        let following = (end < m).then(|| self.get(end)).flatten();
        self.runs.retain(|&(first, _)| first < k || first > end);
        let at = self.runs.partition_point(|&(first, _)| first < k);
        let keeps_run = at > 0 && self.runs[at - 1].1 == owner;
        if owner.id != self.me && !keeps_run {
            self.runs.insert(at, (k, owner));
        }
        if let Some(following) = following {
            let at = self.runs.partition_point(|&(first, _)| first < end);
            if at == 0 || self.runs[at - 1].1 != following {
                self.runs.insert(at, (end, following));
            }
        }
        end
    }

    /// Forgets a member; the entry before it stands in until the next repair.
    pub fn remove(&mut self, incarnation: Incarnation) {
        self.runs.retain(|(_, contact)| contact.incarnation != incarnation);
        self.runs.dedup_by(|later, earlier| later.1 == earlier.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    #[test]
    fn a_full_pass_gives_every_finger_its_successor_with_few_lookups() {
        let capacity = Capacity::new(32).unwrap();
        let mut rng = Rng::new(3);
        let mut nodes: Vec<Contact> = (0..200)
            .map(|n| Contact {
                id: Id::from_u128(u128::from(rng.below(1 << 32))),
                addr: ([127, 0, 0, 1], 1).into(),
                incarnation: Incarnation(n),
            })
            .collect();
        nodes.sort();
        let me = nodes[17];
        let successor = |id: Id| *nodes.iter().find(|node| node.id >= id).unwrap_or(&nodes[0]);
        let mut table = FingerTable::new(capacity, me.id);
        for pass in 0..2 {
            let (mut k, mut lookups) = (0, 0);
            while k < 32 {
                k = table.learn(k, successor(table.start(k)));
                lookups += 1;
            }
            assert!(lookups <= 12, "{lookups} lookups in pass {pass}");
            for k in 0..32 {
                let expected = Some(successor(table.start(k))).filter(|node| node.id != me.id);
                assert_eq!(table.get(k), expected, "finger {k}");
            }
            assert!(table.runs().windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
        }
        let last = table.get(31).unwrap();
        table.remove(last.incarnation);
        assert_ne!(table.get(31), Some(last));
    }
}
