//! Networks and hosts that misbehave (`protocol.md` section 6, *Ring* and *Host*).

use chordkv::base::Span;
use chordkv::sim::{Check, HostId, LookupReport, World, WorldConfig};

use crate::listing::stocked;
use crate::rings::{grow, hosts_in_order, wild_world};
use crate::seeds::{for_fixed_seeds, for_seeds};

/// After a fault is over, the ring must be whole within so long.
const WHOLE_AGAIN: Span = Span::secs(30);

#[track_caller]
fn becomes_whole(world: &mut World, limit: Span) {
    let whole = world.run_until(limit, |world| world.is_whole());
    assert!(whole, "no ring after {limit}: {}", world.describe());
}

/// Looks ids up through every member: each answer is the true owner.
#[track_caller]
fn every_lookup_is_right(world: &mut World) {
    world.take_answers();
    for host in world.members() {
        let target = world.capacity().random(world.rng());
        world.look_up(host, target);
    }
    assert!(world.run_until(Span::secs(15), |world| world.lookups_waiting() == 0), "lookups wait for ever");
    for report in world.take_answers() {
        let owner = report.result.ok().map(|answer| answer.owner);
        assert_eq!(owner, world.ring().owner(report.target), "{report:?}");
    }
}

#[test]
fn one_way_link() {
    for_seeds("one_way_link", 10, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 10);
        let ordered = hosts_in_order(&world, &hosts);
        // From a node to its successor, and from another to its predecessor.
        world.block(ordered[0], ordered[1]);
        world.block(ordered[6], ordered[5]);
        world.run_for(Span::secs(40));
        assert_eq!(world.members().len(), 10, "nobody leaves the ring for it");
        world.mend();
        becomes_whole(&mut world, WHOLE_AGAIN);
        every_lookup_is_right(&mut world);
    });
}

#[test]
fn non_transitive_5_percent() {
    for_seeds("non_transitive_5_percent", 5, |seed| {
        let mut world = wild_world(seed, 8);
        grow(&mut world, 40);
        world.network_mut().severed_per_mille = 50;
        world.run_for(Span::secs(60));
        world.take_answers();
        for host in world.members() {
            let target = world.capacity().random(world.rng());
            world.look_up(host, target);
        }
        world.run_until(Span::secs(15), |world| world.lookups_waiting() == 0);
        // An owner that cannot reach whoever asks cannot tell it so.
        let all = world.members();
        let reports = world.take_answers();
        let mut of = |report: &LookupReport| {
            let owner = world.ring().owner(report.target);
            let owner = all.iter().find(|host| Some(world.contact(**host)) == owner);
            owner.is_none_or(|owner| world.reaches(*owner, report.host))
        };
        let reports: Vec<LookupReport> = reports.into_iter().filter(|report| of(report)).collect();
        let answered = reports.iter().filter(|report| report.result.is_ok()).count();
        assert!(answered + 1 >= reports.len(), "only {answered} of {} lookups are answered", reports.len());
        world.mend();
        becomes_whole(&mut world, WHOLE_AGAIN);
        every_lookup_is_right(&mut world);
    });
}

/// Half of all frames are lost, for 6 s, and again: many are suspected, nobody is dead.
#[test]
fn false_suspicion_storm() {
    for_seeds("false_suspicion_storm", 5, |seed| {
        let mut world = wild_world(seed, 8);
        let hosts = grow(&mut world, 40);
        let before = world.counters();
        for _ in 0..3 {
            world.network_mut().loss_per_mille = 500;
            world.run_for(Span::secs(6));
            world.network_mut().loss_per_mille = 0;
            world.run_for(Span::secs(4));
        }
        becomes_whole(&mut world, WHOLE_AGAIN);
        every_lookup_is_right(&mut world);
        let after = world.counters();
        assert!(after.lost > before.lost + 1_000, "no storm");
        assert_eq!(world.members().len(), hosts.len());
    });
}

/// Stopped for 30 s and let go on, in each role around a node that stays: predecessor, successor, seed, anybody.
#[test]
fn stopped_30s() {
    for_seeds("stopped_30s", 4, |seed| {
        for role in 0..4 {
            let mut world = wild_world(seed * 4 + role, 4);
            let hosts = grow(&mut world, 8);
            let ordered = hosts_in_order(&world, &hosts);
            let at = ordered.iter().position(|host| *host == hosts[3]).expect("it is there");
            let stopped = match role {
                0 => ordered[(at + 7) % 8],
                1 => ordered[(at + 1) % 8],
                2 => hosts[0],
                _ => ordered[(at + 4) % 8],
            };
            world.freeze(stopped);
            world.run_for(Span::secs(30));
            every_other_lookup_is_answered(&mut world, stopped);
            world.thaw(stopped);
            becomes_whole(&mut world, Span::secs(15));
            assert_eq!(world.members().len(), 8);
            every_lookup_is_right(&mut world);
        }
    });
}

#[track_caller]
fn every_other_lookup_is_answered(world: &mut World, stopped: HostId) {
    world.take_answers();
    for host in world.members().into_iter().filter(|host| *host != stopped) {
        let target = world.capacity().random(world.rng());
        world.look_up(host, target);
    }
    assert!(world.run_until(Span::secs(15), |world| world.lookups_waiting() == 0), "lookups wait for ever");
    assert!(world.take_answers().iter().all(|report| report.result.is_ok()));
}

#[test]
fn wall_clock_plus_minus_1h() {
    for_seeds("wall_clock_plus_minus_1h", 5, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 8);
        for (n, host) in hosts.iter().enumerate() {
            world.jump_wall(*host, Span::secs(3_600), n % 2 == 0);
            let pause = world.rng().below(2_000_000);
            world.run_for(Span(pause));
            assert!(world.is_whole(), "a clock is no reason to change the ring");
        }
        assert_eq!(world.counters().gone, 0);
        every_lookup_is_right(&mut world);
    });
}

#[test]
fn slow_peer_10x() {
    for_seeds("slow_peer_10x", 5, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 10);
        world.slow_down(hosts[3], 10);
        world.run_for(Span::secs(60));
        becomes_whole(&mut world, WHOLE_AGAIN);
        every_lookup_is_right(&mut world);
        assert_eq!(world.counters().orphaned, 0);
    });
}

/// A dark host is out of the ring, and back with what its disk remembers while every seed of its is dead.
#[test]
fn a_node_comes_back_through_members_that_it_remembers() {
    for_seeds("a_node_comes_back_through_members_that_it_remembers", 10, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 8);
        world.run_for(Span::secs(5));
        world.vanish(hosts[5]);
        world.run_for(Span::secs(20));
        world.crash(hosts[0]);
        world.restart_remembering(hosts[5], &[hosts[0]]);
        let back = world.run_until(Span::secs(15), |world| world.members().contains(&hosts[5]));
        assert!(back, "{}", world.describe());
        becomes_whole(&mut world, WHOLE_AGAIN);
    });
}

/// After a total kill the remembered members form the ring again, one ring, with the id that it had.
#[test]
fn after_a_total_kill_remembered_members_form_their_ring_again() {
    for_seeds("after_a_total_kill_remembered_members_form_their_ring_again", 10, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 6);
        world.run_for(Span::secs(5));
        let ring = world.node(hosts[1]).and_then(|node| node.params()).map(|params| params.ring);
        for host in &hosts {
            world.vanish(*host);
        }
        for host in &hosts {
            world.restart_remembering(*host, &[]);
            let pause = world.rng().below(500_000);
            world.run_for(Span(pause));
        }
        becomes_whole(&mut world, Span::secs(60));
        let again = world.node(hosts[4]).and_then(|node| node.params()).map(|params| params.ring);
        assert_eq!((world.members().len(), again), (6, ring));
    });
}

/// An orphan and one that comes back and remembers it: one of them carries the ring on, and the other joins it.
#[test]
fn an_orphan_and_one_that_comes_back_carry_on_one_ring() {
    for_seeds("an_orphan_and_one_that_comes_back_carry_on_one_ring", 40, |seed| {
        let mut world = wild_world(seed, 4);
        let hosts = grow(&mut world, 4);
        world.run_for(Span::secs(5));
        hosts[..3].iter().for_each(|host| world.crash(*host));
        let pause = world.rng().below(3_000_000);
        world.run_for(Span(pause));
        world.restart_remembering(hosts[2], &[hosts[0]]);
        let whole = world.run_until(Span::secs(15), |world| world.is_whole() && world.members().len() == 2);
        assert!(whole, "{}", world.describe());
        // None at all, if the one came back before the other had given up.
        assert!(world.counters().reformed <= 1, "both carried the ring on: {}", world.describe());
    });
}

/// What each node sends in a second of so long, on average: bytes of payload, nobody asking for anything.
fn bytes_of_a_second(world: &mut World, span: Span) -> u64 {
    let (before, nodes) = (world.counters().bytes, world.members().len() as u64);
    world.run_for(span);
    (world.counters().bytes - before) / (nodes * span.0 / 1_000_000)
}

/// With records, 1,024 slots and three copies of each: also what the copies say of themselves.
#[test]
fn an_idle_node_of_five_sends_less_than_400_bytes_a_second_and_one_of_1000_less_than_1000() {
    for_fixed_seeds("an_idle_node_of_five_sends_less", 1, |seed| {
        let (mut world, _) = stocked(seed, 5);
        world.run_for(Span::secs(120));
        let of_five = bytes_of_a_second(&mut world, Span::secs(600));
        assert!((50..400).contains(&of_five), "{of_five} B of one of five");
        let mut world = World::new(WorldConfig { check: Check::Nodes, ..WorldConfig::new(seed) });
        grow(&mut world, 1_000);
        world.run_for(Span::secs(40));
        let of_many = bytes_of_a_second(&mut world, Span::secs(20));
        assert!((50..1_000).contains(&of_many), "{of_many} B of one of 1,000");
        println!("{of_five} B of one of five, {of_many} B of one of 1,000");
    });
}

/// A stranger offers thousands of nodes that are not there: tables stay bounded and the ring stays as it is.
#[test]
fn offer_flood() {
    use chordkv::base::{Contact, Incarnation, Rng, Time};
    use chordkv::overlay::{Overlay, OverlayConfig, RingMessage};
    let at = |host: u32| ([10, 0, u8::try_from(host >> 8).expect("low"), u8::try_from(host & 255).expect("low")], 1);
    let config = OverlayConfig { contacts_max: 64, ..OverlayConfig::default() };
    let contact = |host: u32| Contact::new(config.capacity, at(host).into(), Incarnation(u128::from(host)));
    let mut node = Overlay::new(contact(0), config.clone(), Rng::new(1));
    node.create(Time(0));
    let mut sent = 0;
    for n in 0..20_000 {
        node.handle_message(
            Time(n),
            contact(1),
            RingMessage::Offer { contact: contact(2 + u32::try_from(n).expect("low")) },
        );
        while node.poll_effect().is_some() {
            sent += 1;
        }
        node.check_invariants();
    }
    // All within 20 ms, by one peer.
    assert!(sent < 100, "most are not looked at: {sent}");
    assert!(node.contacts().count() <= 65 && node.is_alone(), "{}", node.contacts().count());
}
