//! The finger table: entry k is the successor of `me + 2^k`. In a ring of N nodes only about log2 N entries differ, so
//! the m entries are kept as runs. Each knows who came right before its start too, who stands in if the entry is silent:
//! otherwise a dead entry costs half of the way.

use crate::base::{Capacity, Contact, Id, Incarnation, between, in_arc};

/// The finger table of one node, compressed.
#[derive(Clone, Debug)]
pub struct FingerTable {
    capacity: Capacity,
    me: Id,
    // By first k, ascending; entries below the first k are not known.
    runs: Vec<Run>,
}

/// Entries in a row that are the same member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    contact: Contact,
    before: Option<Contact>,
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
        let after = self.runs.partition_point(|run| run.first <= k);
        after.checked_sub(1).map(|at| self.runs[at].contact)
    }

    /// The distinct entries with the first k of each, nearest first.
    pub fn runs(&self) -> impl Iterator<Item = (u32, Contact)> {
        self.runs.iter().map(|run| (run.first, run.contact))
    }

    /// Everybody in the table, farthest first.
    pub fn farthest_first(&self) -> impl Iterator<Item = Contact> {
        self.runs.iter().rev().flat_map(|run| [Some(run.contact), run.before]).flatten()
    }

    /// Records that `owner` is the successor of the start of finger `k`, and so of every later start up to `owner`.
    /// `before` is the member before that one, if known. Returns the first k that this says nothing about, m if none is left.
    pub fn learn(&mut self, k: u32, owner: Contact, before: Option<Contact>) -> u32 {
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
        let after = self.runs.partition_point(|run| run.first <= end);
        let following = after.checked_sub(1).filter(|_| end < m).map(|at| Run { first: end, ..self.runs[at] });
        self.runs.retain(|run| run.first < k || run.first > end);
        let at = self.runs.partition_point(|run| run.first < k);
        let keeps_run = at > 0 && self.runs[at - 1].contact == owner;
        if owner.id != self.me && !keeps_run {
            let before = before.filter(|before| between(self.me, before.id, from) && *before != owner);
            self.runs.insert(at, Run { first: k, contact: owner, before });
        }
        if let Some(following) = following {
            let at = self.runs.partition_point(|run| run.first < end);
            if at == 0 || self.runs[at - 1].contact != following.contact {
                self.runs.insert(at, following);
            }
        }
        end
    }

    /// Forgets a member; whoever comes before it stands in until the next repair.
    pub fn remove(&mut self, incarnation: Incarnation) {
        for run in &mut self.runs {
            run.before = run.before.filter(|before| before.incarnation != incarnation);
            if run.contact.incarnation == incarnation
                && let Some(before) = run.before.take()
            {
                run.contact = before;
            }
        }
        self.runs.retain(|run| run.contact.incarnation != incarnation);
        self.runs.dedup_by(|later, earlier| later.contact == earlier.contact);
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
                k = table.learn(k, successor(table.start(k)), None);
                lookups += 1;
            }
            assert!(lookups <= 12, "{lookups} lookups in pass {pass}");
            for k in 0..32 {
                let expected = Some(successor(table.start(k))).filter(|node| node.id != me.id);
                assert_eq!(table.get(k), expected, "finger {k}");
            }
            let runs: Vec<_> = table.runs().collect();
            assert!(runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
        }
        let last = table.get(31).unwrap();
        table.remove(last.incarnation);
        assert_ne!(table.get(31), Some(last));
    }
}
