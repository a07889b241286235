//! Which of the nodes around its owner hold a slot: advice, which every owner can work out by itself.
//!
//! Those who may are the r+1 nodes from the owner on: itself and its successor list. Each draws a number for each slot, and
//! the best R hold it: rendezvous (Thaler and Ravishankar 1998), where the ranks are those of Pareto sampling (Rosen 1997),
//! so that each is chosen as often as its weight calls for. A node that comes takes its share from all others, one that
//! goes gives it to all others, and little else moves. Where the whole ring is known nobody gets a fifth more than
//! its share (Mirrokni et al. 2018): what would be too much goes to the next best.

use crate::base::{Contact, Weight};
use crate::data::{KeySpace, Slot};

/// How much more than its share a node may hold or coordinate, in percent of the share.
const BOUND_PERCENT: u64 = 20;
/// Loads are bounded among so many at most: one byte names each.
const CANDIDATES_MAX: usize = 256;
/// A share of this is a copy of everything.
const ALL: u32 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Placement {
    space: KeySpace,
    candidates: Vec<Candidate>,
    replicas: usize,
    reach: Option<usize>,
    // Of each slot, where in the list its holders are; only where the whole ring is known.
    rows: Vec<u8>,
}

#[derive(Debug)]
struct Candidate {
    contact: Contact,
    weight: Weight,
    // How likely it is to hold a slot.
    chance: f64,
}

impl Placement {
    /// Among these. `reach`: how many of them from a slot's place on may hold it; `None`: they are the whole ring, so that
    /// all owners come to the same.
    pub fn new(space: KeySpace, replicas: usize, candidates: &[(Contact, Weight)], reach: Option<usize>) -> Self {
        let mut candidates = candidates.to_vec();
        candidates.sort_unstable_by_key(|(contact, _)| contact.incarnation);
        let replicas = replicas.min(candidates.len());
        let weights: Vec<u64> = candidates.iter().map(|(_, weight)| weight.get().into()).collect();
        let chances = shares(&weights, ALL.into(), replicas).into_iter();
        let chances = chances.map(|share| f64::from(u32::try_from(share).unwrap_or(ALL)) / f64::from(ALL));
        let candidate = |((contact, weight), chance)| Candidate { contact, weight, chance };
        let candidates: Vec<Candidate> = candidates.into_iter().zip(chances).map(candidate).collect();
        let mut placement = Self { space, candidates, replicas, reach, rows: Vec::new() };
        if reach.is_none() && (1..=CANDIDATES_MAX).contains(&placement.candidates.len()) {
            placement.bound_loads(&weights);
        }
        placement
    }

    /// Whether these are the nodes that it is among.
    pub fn is_among(&self, candidates: &[(Contact, Weight)], reach: Option<usize>) -> bool {
        let has = |(contact, weight): &(Contact, Weight)| {
            self.candidates.iter().any(|of| of.contact == *contact && of.weight == *weight)
        };
        self.candidates.len() == candidates.len() && self.reach == reach && candidates.iter().all(has)
    }

    /// Who is to hold a slot, the one that coordinates first.
    pub fn of(&self, slot: Slot) -> Vec<Contact> {
        let contact = |at: usize| self.candidates[at].contact;
        if self.rows.is_empty() {
            let mut row: Vec<usize> = self.ranked(slot).into_iter().take(self.replicas).collect();
            self.put_in_order(&mut row, slot);
            return row.into_iter().map(contact).collect();
        }
        let from = slot.0 as usize * self.replicas;
        self.rows[from..from + self.replicas].iter().map(|at| contact(usize::from(*at))).collect()
    }

    /// Who is to hold a slot in the place of those who cannot, the best first.
    pub fn instead(&self, slot: Slot) -> impl Iterator<Item = Contact> {
        self.ranked(slot).into_iter().map(|at| self.candidates[at].contact)
    }

    /// All that may hold a slot, the best first.
    fn ranked(&self, slot: Slot) -> Vec<usize> {
        let place = self.space.last_id(slot);
        let mut all: Vec<usize> = (0..self.candidates.len()).collect();
        if let Some(reach) = self.reach {
            all.sort_unstable_by_key(|at| self.space.capacity().distance(place, self.candidates[*at].contact.id));
            all.truncate(reach);
        }
        let odds = |chance: f64| chance / (1.0 - chance);
        // Whoever is to hold everything has infinite odds.
        let rank = |at: usize| odds(drawn(&self.candidates[at].contact, slot)) / odds(self.candidates[at].chance);
        let mut ranks: Vec<(f64, usize)> = all.into_iter().map(|at| (rank(at), at)).collect();
        ranks.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        ranks.into_iter().map(|(_, at)| at).collect()
    }

    /// Holders of a slot: first who should coordinate. Each does as often as its weight calls for (Efraimidis and Spirakis
    /// 2006).
    fn put_in_order(&self, row: &mut [usize], slot: Slot) {
        let lot = |at: &usize| {
            let of = &self.candidates[*at];
            -libm::log(1.0 - drawn(&of.contact, slot)) / f64::from(of.weight.get())
        };
        row.sort_unstable_by(|a, b| lot(a).total_cmp(&lot(b)).then(a.cmp(b)));
    }

    fn bound_loads(&mut self, weights: &[u64]) {
        let slots = u64::from(self.space.slots());
        let [holds_share, leads_share] = [self.replicas, 1].map(|copies| shares(weights, slots, copies));
        let (mut holds, mut leads) = (vec![0; weights.len()], vec![0; weights.len()]);
        let mut rows = Vec::with_capacity(self.space.slots() as usize * self.replicas);
        for slot in self.space.all_slots() {
            // A part of what is too much may be used up at any time, the rest only as the slots go by: nobody should be full
            // who is needed for the last of them.
            let bound = |share: u64| {
                let by_now = share * u64::from(slot.0 + 1) * (100 + BOUND_PERCENT / 2) / slots;
                (by_now + share * BOUND_PERCENT / 2).div_ceil(100)
            };
            let may_hold = |at: &usize| holds[*at] < bound(holds_share[*at]);
            let (fit, full): (Vec<usize>, Vec<usize>) = self.ranked(slot).into_iter().partition(may_hold);
            let mut row: Vec<usize> = fit.into_iter().chain(full).take(self.replicas).collect();
            self.put_in_order(&mut row, slot);
            let first = row.iter().position(|at| leads[*at] < bound(leads_share[*at])).unwrap_or(0);
            row[..=first].rotate_right(1);
            leads[row[0]] += 1;
            for at in row {
                holds[at] += 1;
                rows.push(u8::try_from(at).unwrap_or(u8::MAX));
            }
        }
        self.rows = rows;
    }
}

/// How many of these slots each holds by its weight, where each slot has so many holders; rounded up.
fn shares(weights: &[u64], slots: u64, replicas: usize) -> Vec<u64> {
    let mut shares = vec![slots; weights.len()];
    // Whose share would be more than one copy of everything has that, and the others share the rest.
    let mut capped = vec![false; weights.len()];
    loop {
        let seats = (replicas - capped.iter().filter(|is| **is).count().min(replicas)) as u64 * slots;
        let total: u64 = weights.iter().zip(&capped).filter(|(_, capped)| !**capped).map(|(weight, _)| weight).sum();
        let mut is_done = true;
        for (at, weight) in weights.iter().enumerate().filter(|_| total > 0) {
            if capped[at] {
                continue;
            }
            shares[at] = (seats * weight).div_ceil(total);
            if seats * weight > slots * total {
                (capped[at], shares[at]) = (true, slots);
                is_done = false;
            }
        }
        if is_done {
            return shares;
        }
    }
}

/// What a node has drawn for a slot, uniform in (0, 1).
fn drawn(contact: &Contact, slot: Slot) -> f64 {
    let who = contact.incarnation.0;
    let [high, low] = [who >> 64, who & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
    let bits = mixed(mixed(mixed(high) ^ low) ^ u64::from(slot.0)) >> 32;
    (f64::from(u32::try_from(bits).unwrap_or(0)) + 0.5) / (f64::from(u32::MAX) + 1.0)
}

/// The last steps of splitmix64.
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::{Capacity, Incarnation, Rng};

    fn ring(seed: u64, weights: &[u32]) -> Vec<(Contact, Weight)> {
        let mut rng = Rng::new(seed);
        let mut who = |at: usize| {
            let port = u16::try_from(4_000 + at).unwrap();
            Contact::new(Capacity::MAX, ([10, 0, 0, 1], port).into(), Incarnation(rng.next_u128()))
        };
        weights.iter().enumerate().map(|(at, weight)| (who(at), Weight::new(*weight).unwrap())).collect()
    }

    fn space(slot_bits: u32) -> KeySpace {
        KeySpace::new(Capacity::MAX, slot_bits).unwrap()
    }

    /// How many slots each holds, and coordinates.
    fn loads(space: KeySpace, placement: &Placement, ring: &[(Contact, Weight)]) -> (Vec<u64>, Vec<u64>) {
        let mut holds: BTreeMap<Contact, u64> = BTreeMap::new();
        let mut leads: BTreeMap<Contact, u64> = BTreeMap::new();
        for slot in space.all_slots() {
            let holders = placement.of(slot);
            *leads.entry(holders[0]).or_default() += 1;
            let distinct: std::collections::BTreeSet<&Contact> = holders.iter().collect();
            assert_eq!(distinct.len(), holders.len());
            for holder in holders {
                *holds.entry(holder).or_default() += 1;
            }
        }
        let of = |loads: &BTreeMap<Contact, u64>| {
            ring.iter().map(|(contact, _)| loads.get(contact).copied().unwrap_or(0)).collect()
        };
        (of(&holds), of(&leads))
    }

    #[test]
    fn nobody_holds_or_coordinates_more_than_its_bounded_share() {
        for (slot_bits, weights) in [
            (10, [1, 1, 1, 1, 1].as_slice()),
            (10, &[1, 1, 1, 1, 4]),
            (10, &[3, 3, 1, 1, 1]),
            (10, &[29, 29, 10, 10, 10]),
            (10, &[5, 3, 2, 2, 1, 1]),
            (10, &[100, 1, 1, 1, 1]),
            (10, &[1; 17]),
            (5, &[1, 1, 1, 1, 1]),
            (10, &[2, 1]),
            (10, &[7]),
            (0, &[1, 1, 1, 1]),
        ] {
            for seed in 0..20 {
                let ring = ring(seed, weights);
                let space = space(slot_bits);
                let placement = Placement::new(space, 3, &ring, None);
                let (holds, leads) = loads(space, &placement, &ring);
                let weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight)).collect();
                let copies = 3.min(ring.len());
                for (loads, copies) in [(holds, copies), (leads, 1)] {
                    assert_eq!(loads.iter().sum::<u64>(), u64::from(space.slots()) * copies as u64);
                    for (load, share) in loads.iter().zip(shares(&weights, u64::from(space.slots()), copies)) {
                        // What does not fit anywhere, as the holders of a slot are distinct, goes to anybody.
                        let bound = share * 125 / 100 + 1;
                        assert!(*load <= bound, "{load} of {share} with weights {weights:?}, seed {seed}");
                    }
                }
            }
        }
    }

    #[test]
    fn shares_are_by_weight_up_to_a_copy_of_everything() {
        assert_eq!(shares(&[1, 1, 1, 1, 1], 1_000, 3), [600; 5]);
        assert_eq!(shares(&[2, 1, 1], 1_000, 1), [500, 250, 250]);
        assert_eq!(shares(&[4, 1, 1, 1, 1], 1_000, 3), [1_000, 500, 500, 500, 500]);
        assert_eq!(shares(&[9, 8, 1, 1], 1_000, 3), [1_000, 1_000, 500, 500]);
        assert_eq!(shares(&[5, 1], 1_000, 2), [1_000, 1_000]);
    }

    #[test]
    fn a_heavier_node_holds_more() {
        let ring = ring(1, &[1, 1, 1, 1, 1, 1, 1, 3]);
        let (holds, leads) = loads(space(10), &Placement::new(space(10), 3, &ring, None), &ring);
        let times = |loads: &[u64]| 70 * loads[7] / loads[..7].iter().sum::<u64>();
        assert!((27..=33).contains(&times(&holds)), "{holds:?}");
        assert!((25..=35).contains(&times(&leads)), "{leads:?}");
    }

    /// One node more or less moves what is its own, and little besides: only what did not fit elsewhere.
    #[test]
    fn who_comes_or_goes_moves_its_own_share() {
        for seed in 0..20 {
            let six = ring(seed, &[1; 6]);
            let space = space(10);
            let [with, without] = [&six[..], &six[..5]].map(|ring| Placement::new(space, 3, ring, None));
            let mut elsewhere = 0;
            for slot in space.all_slots() {
                let (with, without) = (with.of(slot), without.of(slot));
                let new = with.iter().filter(|holder| !without.contains(holder) && **holder != six[5].0).count();
                elsewhere += new;
            }
            assert!(elsewhere < 60, "{elsewhere} of 3,072 copies move between nodes that were there before");
        }
    }

    /// Owners that know different parts of the ring come to the same for a slot if both know those that may hold it.
    #[test]
    fn without_the_whole_ring_those_from_the_slot_on_hold_it() {
        let mut all = ring(3, &[1; 30]);
        all.sort_unstable_by_key(|(contact, _)| contact.id);
        let [left, right] = [&all[..20], &all[5..]].map(|part| Placement::new(space(10), 3, part, Some(8)));
        let place = |slot| space(10).last_id(slot);
        let both: Vec<Slot> =
            space(10).all_slots().filter(|slot| all[5].0.id < place(*slot) && place(*slot) < all[12].0.id).collect();
        assert!(both.len() > 50);
        for slot in both {
            let from = all.partition_point(|(contact, _)| contact.id < place(slot));
            let holders = left.of(slot);
            assert_eq!(holders, right.of(slot));
            assert!(holders.iter().all(|holder| all[from..from + 8].iter().any(|(contact, _)| contact == holder)));
        }
    }

    #[test]
    fn it_knows_whom_it_is_among() {
        let (ring, other) = (ring(1, &[1, 1, 2]), ring(1, &[1, 1, 1]));
        let placement = Placement::new(space(3), 3, &ring, None);
        let mut turned = ring.clone();
        turned.rotate_left(1);
        assert!(placement.is_among(&turned, None));
        assert!(!placement.is_among(&ring, Some(3)) && !placement.is_among(&ring[1..], None));
        assert!(!placement.is_among(&other, None), "other weights");
    }
}
