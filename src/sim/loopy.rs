//! A ring that goes round the circle several times before it meets itself: every pointer agrees with its neighbours', so
//! that stabilisation alone finds nothing wrong. Nothing in the protocol leads there; the nodes are put there.

use super::world::{Check, HostId, World, WorldConfig};
use crate::base::{Contact, Span};
use crate::node::{ChordNode, Wishes};
use crate::overlay::Overlay;

const NODES: usize = 61;
const R: usize = 4;

/// Puts every node so that the `step`-th next is its successor, the `step`-th before it its predecessor.
fn wind(world: &mut World, step: usize) {
    let me = |world: &World, host: HostId| world.node(host).and_then(ChordNode::overlay).map(Overlay::me);
    let mut places: Vec<(Contact, HostId)> =
        world.members().into_iter().map(|host| (me(world, host).expect("a member"), host)).collect();
    places.sort();
    let at = |k: usize| places[k % NODES].0;
    for (k, (_, host)) in places.iter().enumerate() {
        let list: Vec<Contact> = (1..=R).map(|n| at(k + n * step)).collect();
        world.with_node(*host, |node, now| node.place(now, at(k + NODES - step), &list));
    }
}

#[test]
fn loopy_start() {
    for (seed, step) in (1..).zip([2, 3, 5, 7]) {
        let wishes = Wishes { successors: Some(R), slot_bits: Some(0), ..Wishes::default() };
        let mut world = World::new(WorldConfig { wishes, check: Check::Nodes, ..WorldConfig::new(seed) });
        let first = world.start(&[]);
        (1..NODES).for_each(|_| _ = world.start(&[first]));
        assert!(world.run_until(Span::secs(60), |world| world.is_whole()), "no ring of {NODES}");
        wind(&mut world, step);
        assert!(!world.is_whole(), "it goes round once");
        let start = world.now();
        // A round is a second; published are 7 for the median of loopy starts.
        let whole = world.run_until(Span::secs(20), |world| world.is_whole());
        let took = world.now().since(start);
        assert!(whole, "{step} times round the circle, and no ring after {took}: {}", world.describe());
        println!("{step} times round the circle: one ring after {took}");
    }
}
