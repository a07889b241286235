//! How long a node takes to get into a ring, and two or three rings to become one.

use super::grow::{NoRing, grow};
use super::run::{Plan, world_of};
use super::stats::Tally;
use crate::base::Span;
use crate::node::ChordNode;
use crate::sim::{HostId, World};

/// How long joiners took, in µs each.
#[derive(Clone, Debug)]
pub struct Joins {
    /// From the start of the process until it was a member.
    pub member: Tally,
    /// Until every pointer of the ring was right again.
    pub whole: Tally,
}

/// How the sides of a split ring lie on the circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// One arc each.
    Arcs(usize),
    /// Turn by turn.
    Interleaved(usize),
}

/// A joiner that is not in by then never will be.
const JOIN_MAX: Span = Span::secs(60);
/// Long enough for every side to take the others for gone, and to forget how it was.
const APART: Span = Span::secs(90);

/// Lets so many nodes join a ring of this plan, one after the other.
pub fn joins(plan: &Plan, count: usize) -> Result<Joins, NoRing> {
    let mut world = world_of(plan);
    let hosts = grow(&mut world, plan.nodes, &mut |_| {})?;
    world.run_for(plan.settle);
    let (mut member, mut whole) = (Vec::new(), Vec::new());
    for n in 0..count {
        let begun = world.now();
        let seed = world.rng().index(hosts.len());
        let joiner = world.start(&[hosts[seed]]);
        let is_in = |world: &World| {
            world.node(joiner).and_then(ChordNode::overlay).is_some_and(|overlay| overlay.standing().is_member())
        };
        let fault = NoRing { started: hosts.len() + n + 1, joined: world.ring().len() };
        if !world.run_until(JOIN_MAX, |world| is_in(world)) {
            return Err(fault);
        }
        member.push(world.now().since(begun).0);
        if !world.run_until(JOIN_MAX, |world| world.is_whole()) {
            return Err(fault);
        }
        whole.push(world.now().since(begun).0);
    }
    Ok(Joins { member: Tally::of(member), whole: Tally::of(whole) })
}

/// From the moment at which the sides of a ring can reach each other again until it is one; `None` if it takes longer
/// than `limit`.
pub fn merge(plan: &Plan, split: Split, limit: Span) -> Result<Option<Span>, NoRing> {
    let mut world = world_of(plan);
    let hosts = grow(&mut world, plan.nodes, &mut |_| {})?;
    for (k, host) in in_order(&world, &hosts).into_iter().enumerate() {
        let side = match split {
            Split::Arcs(sides) => k * sides / hosts.len(),
            Split::Interleaved(sides) => k % sides,
        };
        world.put_on_side(host, u8::try_from(side).unwrap_or(u8::MAX));
    }
    world.run_for(APART);
    world.heal();
    let healed = world.now();
    let whole = world.run_until(limit, |world| world.is_whole());
    Ok(whole.then(|| world.now().since(healed)))
}

/// The hosts as they lie on the circle.
fn in_order(world: &World, hosts: &[HostId]) -> Vec<HostId> {
    let id = |host: &HostId| world.node(*host).and_then(ChordNode::overlay).map(|overlay| overlay.me().id);
    let mut ordered = hosts.to_vec();
    ordered.sort_by_key(id);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joiners_are_members_before_the_ring_is_whole() {
        let joins = joins(&Plan { settle: Span::secs(1), ..Plan::new(1, 10) }, 3).unwrap();
        assert_eq!((joins.member.count(), joins.whole.count()), (3, 3));
        assert!(joins.member.max() <= joins.whole.max() && joins.whole.max() < 10_000_000, "{joins:?}");
    }

    #[test]
    fn a_ring_that_was_split_in_two_becomes_one() {
        for split in [Split::Arcs(2), Split::Interleaved(3)] {
            let took = merge(&Plan { slot_bits: 3, ..Plan::new(1, 24) }, split, Span::secs(250)).unwrap();
            assert!(took.is_some_and(|took| took > Span::ZERO), "{split:?}");
        }
    }
}
