//! Two rings that meet become one (`protocol.md` section 6, *Merge*). A round is the mean time between two stabilisations.

use chordkv::base::Span;
use chordkv::sim::{HostId, World};

use crate::rings::{grow, hosts_in_order, wild_world};
use crate::seeds::for_seeds;

/// Mean time between two rounds of stabilisation of a ring that is not at rest.
const ROUND: Span = Span::secs(1);

/// Puts every host on the side that `side_of` gives the k-th on the circle, until each side is a ring of its own.
fn part(world: &mut World, hosts: &[HostId], side_of: impl Fn(usize) -> u8) {
    let ordered = hosts_in_order(world, hosts);
    for (k, host) in ordered.iter().enumerate() {
        world.put_on_side(*host, side_of(k));
    }
    // Long enough for everybody to take the other side for gone, and to forget how it was.
    world.run_for(Span::secs(45));
    assert!(!world.is_whole(), "the sides do not know each other");
}

fn rounds_until_whole(world: &mut World, rounds: u64) -> u64 {
    world.heal();
    let healed = world.now();
    let whole = world.run_until(ROUND * rounds, |world| world.is_whole());
    let took = world.now().since(healed).0 / ROUND.0;
    assert!(whole, "no ring after {took} rounds: {:?} of {} members", world.flaw(), world.ring().len());
    took
}

#[test]
fn split_50_50_heal() {
    for_seeds("split_50_50_heal", 1, |seed| {
        let mut world = wild_world(seed, 16);
        let hosts = grow(&mut world, 1_024);
        let interleaved = seed % 2 == 0;
        part(&mut world, &hosts, |k| u8::from(if interleaved { k % 2 == 0 } else { k < 512 }));
        let rounds = rounds_until_whole(&mut world, 150);
        println!("seed {seed}: two rings of 512, interleaved {interleaved}: one after {rounds} rounds");
    });
}

#[test]
fn three_way_heal() {
    for_seeds("three_way_heal", 1, |seed| {
        let mut world = wild_world(seed, 16);
        let hosts = grow(&mut world, 384);
        part(&mut world, &hosts, |k| u8::try_from(k % 3).expect("below 3"));
        let rounds = rounds_until_whole(&mut world, 250);
        println!("seed {seed}: three rings of 128, interleaved: one after {rounds} rounds");
    });
}

/// `loopy_start`, one ring that goes round the circle several times, is in `src/sim/loopy.rs`.
#[test]
fn three_interleaved_rings_whose_members_know_each_other() {
    for_seeds("three_interleaved_rings_whose_members_know_each_other", 3, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 60);
        part(&mut world, &hosts, |k| u8::try_from(k % 3).expect("below 3"));
        // One of each ring knows one of the next: their ways cross when they meet.
        let rounds = rounds_until_whole(&mut world, 60);
        println!("seed {seed}: three interleaved rings of 20 are one after {rounds} rounds");
    });
}

/// The only member of one ring that a member of the other remembers dies before they meet again.
#[test]
fn lost_crossing_contact() {
    for_seeds("lost_crossing_contact", 5, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 20);
        part(&mut world, &hosts, |k| u8::from(k < 10));
        let ordered = hosts_in_order(&world, &hosts);
        world.vanish(ordered[0]);
        world.vanish(ordered[10]);
        world.run_for(Span::secs(5));
        rounds_until_whole(&mut world, 60);
    });
}

#[test]
fn two_clusters_meet() {
    let mut world = wild_world(4, 4);
    let first = grow(&mut world, 5);
    let other = world.start(&[]);
    world.run_for(Span::secs(1));
    world.start(&[other, first[2]]);
    let lost = world.start(&[first[1], other]);
    world.run_for(Span::secs(120));
    let ring_of =
        |world: &World, host: HostId| world.node(host).and_then(|node| node.params()).map(|params| params.ring);
    assert_ne!(ring_of(&world, first[0]), ring_of(&world, other), "rings of two origins stay two");
    let ring = ring_of(&world, lost);
    assert!(ring == ring_of(&world, first[0]) || ring == ring_of(&world, other), "a joiner is in one of them");
}
