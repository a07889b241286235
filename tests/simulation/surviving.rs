//! Hosts with disks: what was acknowledged is there after any of them, or all, were killed at any moment.

use chordkv::base::Span;
use chordkv::node::Wishes;
use chordkv::sim::clients::Clients;
use chordkv::sim::{Check, DiskConfig, HostId, World, WorldConfig};

use crate::rings::{grow, read_all, write_for_a_while};
use crate::seeds::{for_fresh_seeds, for_seeds};

/// A world of hosts whose disks take up to so long for each piece of work.
fn world(seed: u64, work_max: Span) -> World {
    let mut config = WorldConfig::new(seed);
    config.wishes = Wishes { successors: Some(4), slot_bits: Some(3), ..Wishes::default() };
    config.check = Check::Nodes;
    config.disk = DiskConfig { work_max, durable: true };
    World::new(config)
}

#[test]
fn everybody_is_killed_in_the_midst_of_writes_and_nothing_acknowledged_is_lost() {
    for_seeds("everybody_is_killed_in_the_midst_of_writes_and_nothing_acknowledged_is_lost", 20, |seed| {
        let mut world = world(seed, Span::millis([1, 5, 30][usize::try_from(seed % 3).expect("below 3")]));
        let count = 1 + world.rng().index(6);
        let hosts = grow(&mut world, count);
        let ideal = world.run_until(Span::secs(30), |world| world.is_ideal());
        assert!(ideal, "{}", world.describe());
        let mut clients = Clients::default();
        for round in 0..4 {
            write_for_a_while(&mut world, &mut clients, &hosts, 80);
            for host in &hosts {
                world.crash(*host);
            }
            clients.forget_unanswered();
            let mut order = hosts.clone();
            while !order.is_empty() {
                let next = world.rng().index(order.len());
                let host = order.swap_remove(next);
                world.restart_remembering(host, &[]);
                let pause = world.rng().below(300_000);
                world.run_for(Span(pause));
            }
            let last = world.now();
            // Nine in ten are within 0.75 s.
            let ideal = world.run_until(Span::secs(3), |world| world.is_ideal());
            println!("seed {seed}, {count} nodes: ideal {} after the last start", world.now().since(last));
            assert!(ideal, "round {round}: {}", world.describe());
            read_all(&mut world, &mut clients, hosts[0]);
        }
        assert_eq!(world.counters().slots_claimed, 0, "a slot was given up though its holder came back");
        assert!(clients.tally.reads_failed == 0 && clients.tally.writes > 20, "{:?}", clients.tally);
    });
}

/// Slots change hands all the time, and both ends of the handovers are killed.
#[test]
fn holders_are_killed_in_the_midst_of_handovers_and_nothing_acknowledged_is_lost() {
    // Two rings for a while, and a member of the one that had missed nobody when they met.
    const FOUND: [u64; 1] = [1_795_675_368_726_253_032];
    let name = "holders_are_killed_in_the_midst_of_handovers_and_nothing_acknowledged_is_lost";
    for_fresh_seeds(name, &FOUND, 40, |seed| {
        let mut world = world(seed, Span::millis([1, 5, 30][usize::try_from(seed % 3).expect("below 3")]));
        let mut hosts = grow(&mut world, 3);
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 60);
        for _ in 0..6 {
            // Somebody joins, and slots begin to move; in the middle of it some are killed, and come back.
            let seeds = [hosts[world.rng().index(hosts.len())]];
            hosts.push(world.start(&seeds));
            let joined = hosts.clone();
            let pause = world.rng().below(200);
            write_for_a_while(&mut world, &mut clients, &joined[..3], pause);
            let killed: Vec<HostId> = hosts.iter().copied().filter(|_| world.rng().below(2) == 0).collect();
            let killed: Vec<HostId> = killed.into_iter().filter(|host| world.remembers(*host)).collect();
            for host in &killed {
                world.crash(*host);
            }
            clients.forget_unanswered();
            let pause = world.rng().below(2_000_000);
            world.run_for(Span(pause));
            for host in &killed {
                world.restart_remembering(*host, &seeds);
            }
            let ideal = world.run_until(Span::secs(60), |world| world.is_ideal());
            assert!(ideal, "{}", world.describe());
            read_all(&mut world, &mut clients, hosts[1]);
        }
        assert_eq!(world.counters().slots_claimed, 0, "a slot was given up though its holder came back");
        assert!(clients.tally.writes > 10, "{:?}", clients.tally);
    });
}

/// A flipped bit is an error, never a value that nobody wrote, and no other key suffers. Whoever puts or deletes the key is
/// rid of it.
#[test]
fn bit_flip_record() {
    for_seeds("bit_flip_record", 20, |seed| {
        let mut world = world(seed, Span::millis([1, 5, 30][usize::try_from(seed % 3).expect("below 3")]));
        let hosts = grow(&mut world, 4);
        let ideal = world.run_until(Span::secs(30), |world| world.is_ideal());
        assert!(ideal, "{}", world.describe());
        let mut clients = Clients::default();
        let mut failed = 0;
        for _ in 0..4 {
            write_for_a_while(&mut world, &mut clients, &hosts, 120);
            read_all(&mut world, &mut clients, hosts[0]);
            let before = clients.tally.reads_failed;
            let flipped: Vec<_> = hosts.iter().filter_map(|host| world.flip_bit(*host)).collect();
            let again = hosts[world.rng().index(hosts.len())];
            world.crash(again);
            world.restart_remembering(again, &[]);
            let ideal = world.run_until(Span::secs(30), |world| world.is_ideal());
            assert!(ideal, "{}", world.describe());
            read_all(&mut world, &mut clients, hosts[0]);
            let unread = clients.tally.reads_failed - before;
            assert_eq!(usize::try_from(unread), Ok(flipped.len()), "errors for other keys than {flipped:?}, or none");
            failed += unread;
            for key in flipped {
                clients.rewrite(&mut world, hosts[0], &key);
            }
        }
        assert!(failed > 8, "hardly a bit was flipped: {failed}");
    });
}
