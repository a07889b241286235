//! Rules that are broken on purpose: a checker must notice each (`protocol.md` section 1), and without the breach the same
//! scenario must pass. What chance shows too seldom is shown in `overlay/tests.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::checker::RingFault;
use super::scenario::{Churn, churn_of};
use super::world::{Check, HostId, World, WorldConfig};
use crate::base::Span;
use crate::node::{ChordNode, Wishes};
use crate::overlay::OverlayConfig;
use crate::overlay::mutation::Mutation;

/// Length of the successor lists.
const R: usize = 3;

type Broken = Option<Mutation>;

/// What the checkers say of a run; empty if nothing.
fn verdict(run: impl FnOnce()) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return String::new() };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// Every seed passes with the rule in force; without it, at least so many are found to be wrong as `fault` says.
fn notice(mutation: Mutation, fault: &str, seeds: &[u64], at_least: usize, run: impl Fn(u64, Broken)) {
    let caught = seeds.iter().filter(|&&seed| {
        run(seed, None);
        let text = verdict(|| run(seed, Some(mutation)));
        assert!(
            text.is_empty() || text.contains(fault),
            "{mutation:?} with seed {seed} is wrong in another way: {text}"
        );
        !text.is_empty()
    });
    let caught = caught.count();
    println!("{mutation:?}: {caught} of {} seeds notice ({fault})", seeds.len());
    assert!(caught >= at_least, "{mutation:?} survives: {caught} of {} seeds notice", seeds.len());
}

const SEEDS: &[u64] = &[1, 2, 3, 4, 5];

fn world(seed: u64, broken: Broken, check: Check) -> World {
    let overlay = OverlayConfig { mutation: broken, ..OverlayConfig::default() };
    // One slot and one copy: what their members say to each other must not bring together what the ring has lost.
    let wishes = Wishes { successors: Some(R), slot_bits: Some(0), replicas: Some(1), ..Wishes::default() };
    World::new(WorldConfig { wishes, overlay, check, ..WorldConfig::new(seed) })
}

/// An ideal ring, as the hosts in the order of the circle.
fn ring_of(world: &mut World, count: u32) -> Vec<HostId> {
    let first = world.start(&[]);
    (1..count).for_each(|_| _ = world.start(&[first]));
    assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "no ring of {count}");
    in_order(world)
}

fn in_order(world: &World) -> Vec<HostId> {
    let id = |host: &HostId| world.node(*host).and_then(ChordNode::overlay).map(|overlay| overlay.me().id);
    let mut hosts = world.members();
    hosts.sort_by_key(id);
    hosts
}

fn is_member(world: &World, host: HostId) -> bool {
    world.members().contains(&host)
}

/// Steps until the node is in the ring.
fn until_member(world: &mut World, host: HostId) {
    while !is_member(world, host) {
        world.step();
    }
}

fn successor(world: &World, host: HostId) -> HostId {
    let ordered = in_order(world);
    let at = ordered.iter().position(|other| *other == host).expect("a member");
    ordered[(at + 1) % ordered.len()]
}

#[test]
fn below_base_start() {
    for seed in 1..=5 {
        let mut world = world(seed, None, Check::Ring);
        let first = world.start(&[]);
        let second = world.start(&[first]);
        until_member(&mut world, second);
        assert!(!world.may_crash(first), "two are no base for lists of three");
        let text = verdict(|| {
            world.crash(first);
            world.run_for(Span::secs(1));
        });
        assert!(text.contains("NoLiveSuccessor"), "seed {seed}: {text:?}");
    }
}

#[test]
fn fewer_than_r_plus_1_principals() {
    let run = |seed, asks_first: bool| {
        let mut world = world(seed, None, Check::Ring);
        for host in ring_of(&mut world, 8).into_iter().take(R) {
            while asks_first && !world.may_crash(host) {
                world.run_for(Span::millis(100));
            }
            world.crash(host);
        }
        assert!(world.run_until(Span::secs(30), |world| world.is_whole()), "{}", world.describe());
    };
    for seed in 1..=5 {
        run(seed, true);
        let text = verdict(|| run(seed, false));
        assert!(text.contains("NoLiveSuccessor"), "seed {seed}: {text:?}");
    }
}

#[test]
fn join_copying_one_pointer() {
    notice(Mutation::JoinCopiesOnePointer, "NoLiveSuccessor", SEEDS, 5, |seed, broken| {
        let mut world = world(seed, broken, Check::Ring);
        let hosts = ring_of(&mut world, 8);
        let joiner = world.start(&[hosts[0]]);
        until_member(&mut world, joiner);
        let next = successor(&world, joiner);
        world.crash(next);
        assert!(world.run_until(Span::secs(30), |world| world.is_whole()), "{}", world.describe());
    });
}

#[test]
fn unasked_predecessor() {
    notice(
        Mutation::UnaskedPredecessor,
        "it goes round in circles",
        &[1, 2, 3, 4, 5, 6, 7, 8, 9],
        3,
        |seed, broken| {
            let mut world = world(seed, broken, Check::Ring);
            let hosts = ring_of(&mut world, 8);
            let joiner = world.start(&[hosts[0]]);
            until_member(&mut world, joiner);
            // Its successor has heard of it, and nobody else: the word that it is there for its predecessor is lost.
            let next = successor(&world, joiner);
            for host in &hosts {
                if *host != next {
                    world.block(joiner, *host);
                }
            }
            world.run_until(Span::secs(1), |world| {
                let me = world.contact(joiner);
                world.node(next).and_then(ChordNode::overlay).is_some_and(|overlay| overlay.predecessor() == Some(me))
            });
            world.crash(joiner);
            let before = world.counters().checks;
            assert!(world.run_until(Span::secs(30), |world| world.is_whole()), "{}", world.describe());
            // Two pointers have to change; whoever takes the dead one unasked drops it and takes it again.
            assert!(world.counters().checks - before <= 4, "it goes round in circles");
        },
    );
}

#[test]
fn restart_with_old_pointers() {
    notice(Mutation::RestartWithOldPointers, "Skipped", SEEDS, 5, |seed, broken| {
        let mut world = world(seed, broken, Check::Ring);
        let hosts = ring_of(&mut world, 6);
        world.run_for(Span::secs(5));
        world.crash(hosts[2]);
        (0..10).for_each(|_| _ = world.start(&[hosts[0]]));
        assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
        world.run_for(Span::secs(5));
        world.restart_remembering(hosts[2], &[hosts[0]]);
        assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
    });
}

#[test]
fn two_rings_after_a_list_runs_out() {
    notice(Mutation::OrphanIsTheRing, "two rings", SEEDS, 5, |seed, broken| {
        // A list runs out only where Zave's assumption was broken before, so the cycles are counted here.
        let mut world = world(seed, broken, Check::Nodes);
        let hosts = ring_of(&mut world, 10);
        hosts[1..=R].iter().for_each(|host| world.crash(*host));
        let two = world.run_until(Span::secs(30), |world| {
            let (ring, ..) = world.ring().snapshot(world.now());
            match ring.check(&[].into(), &[].into()) {
                Ok(verdict) => verdict.cycle.len() == 1,
                Err(fault) => matches!(fault, RingFault::Cycles(_)),
            }
        });
        assert!(!two, "two rings");
        assert!(world.run_until(Span::secs(30), |world| world.is_whole()), "{}", world.describe());
    });
}

#[test]
fn a_lookup_answered_for_a_dead_successor() {
    notice(Mutation::AnswersForSuccessor, "WrongOwner", SEEDS, 5, |seed, broken| {
        let mut world = world(seed, broken, Check::Ring);
        let hosts = ring_of(&mut world, 8);
        let target = world.contact(hosts[3]).id;
        world.vanish(hosts[3]);
        world.run_for(Span::millis(1));
        // Those whose lists do not reach it; they try it themselves first, and then the member before it.
        hosts[4..].iter().for_each(|host| world.look_up(*host, target));
        assert!(world.run_until(Span::secs(10), |world| world.lookups_waiting() == 0), "no answer");
    });
}

#[test]
fn a_stopped_process_that_blames_others() {
    notice(Mutation::IgnoresGaps, "it blames others", SEEDS, 1, |seed, broken| {
        let mut world = world(seed, broken, Check::Nodes);
        let hosts = ring_of(&mut world, 8);
        // One is away for so short that it is suspected and no more; meanwhile another one is stopped.
        world.put_on_side(hosts[1], 1);
        world.run_for(Span::secs(5));
        world.freeze(hosts[0]);
        world.put_on_side(hosts[1], 0);
        world.run_for(Span::secs(30));
        let gone = world.counters().gone;
        world.thaw(hosts[0]);
        world.run_for(Span::secs(5));
        assert_eq!(world.counters().gone, gone, "it blames others");
    });
}

// Members of the one slot speak of it to each other, and so may bring the two rings together all the same.
#[test]
fn two_rings_that_forgot_each_other() {
    notice(Mutation::ForgetsTheGone, "still two rings", &(1..=60).collect::<Vec<u64>>(), 2, |seed, broken| {
        let mut world = world(seed, broken, Check::Nodes);
        let hosts = ring_of(&mut world, 9);
        // Its address is the only seed of all.
        world.leave(0);
        world.run_for(Span::secs(5));
        for (n, host) in hosts.iter().enumerate() {
            world.put_on_side(*host, u8::from(n % 2 == 0));
        }
        world.run_for(Span::secs(90));
        world.heal();
        assert!(world.run_until(Span::secs(120), |world| world.is_whole()), "still two rings");
    });
}

/// Random joins, leaves and crashes.
fn churned(seed: u64, broken: Broken) {
    let overlay = OverlayConfig { mutation: broken, ..OverlayConfig::default() };
    let nodes_max = 3 + usize::try_from(seed % 30).expect("below 30");
    churn_of(&Churn { seed, nodes_max, events: 60, crashes: true, operations: 0, replicas: Some(1) }, overlay);
}

#[test]
fn two_joiners_at_once() {
    notice(Mutation::AdmitsTwo, "the ring invariant is broken", &[1, 7, 65, 113, 150, 151], 1, churned);
}
