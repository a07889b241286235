//! Hosts with disks: what was acknowledged is there after any of them, or all, were killed at any moment.

use chordkv::base::Span;
use chordkv::node::Wishes;
use chordkv::sim::clients::Clients;
use chordkv::sim::{Check, DiskConfig, World, WorldConfig};

use crate::rings::{grow, read_all, write_for_a_while};
use crate::seeds::for_seeds;

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
            let whole = world.run_until(Span::secs(3), |world| world.is_whole());
            assert!(whole, "round {round}: {}", world.describe());
            println!("seed {seed}, {count} nodes: whole {} after the last start", world.now().since(last));
            // All are served before that; a change of view that was under way may be left alone for a while.
            let ideal = world.run_until(Span::secs(20), |world| world.is_ideal());
            assert!(ideal, "round {round}: {}", world.describe());
            read_all(&mut world, &mut clients, hosts[0]);
        }
        assert!(clients.tally.reads_failed == 0 && clients.tally.writes > 20, "{:?}", clients.tally);
    });
}

/// A flipped bit is found out and never told as a value, and no read fails for it: the other members have the record.
#[test]
fn bit_flip_record() {
    for_seeds("bit_flip_record", 20, |seed| {
        let mut world = world(seed, Span::millis([1, 5, 30][usize::try_from(seed % 3).expect("below 3")]));
        let hosts = grow(&mut world, 4);
        let ideal = world.run_until(Span::secs(30), |world| world.is_ideal());
        assert!(ideal, "{}", world.describe());
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 300);
        read_all(&mut world, &mut clients, hosts[0]);
        for round in 0..4 {
            let worn = hosts[world.rng().index(hosts.len())];
            assert!(world.flip_bit(worn).is_some(), "nothing is stored there");
            match round {
                // Somebody meets it.
                0 => hosts.iter().for_each(|host| read_all(&mut world, &mut clients, *host)),
                // Nobody does, but views change.
                1 => _ = world.start(&[hosts[0]]),
                // Nor does the process that has it from the one before.
                2 => {
                    world.crash(worn);
                    world.restart_remembering(worn, &hosts);
                }
                // Nor anybody but the rescan.
                _ => {}
            }
            let mended = world.run_until(Span::secs(900), |world| world.damaged() == 0 && world.is_ideal());
            assert!(mended, "round {round}: {}", world.describe());
            write_for_a_while(&mut world, &mut clients, &hosts, 50);
            read_all(&mut world, &mut clients, worn);
        }
        assert_eq!(clients.tally.reads_failed, 0, "{:?}", clients.tally);
    });
}

/// A disk that is gone makes another member of whoever comes back at that address: it votes for nothing that it has
/// forgotten, and is given its copies anew.
#[test]
fn disk_wiped_member() {
    for_seeds("disk_wiped_member", 20, |seed| {
        let mut world = world(seed, Span::millis([1, 5, 30][usize::try_from(seed % 3).expect("below 3")]));
        let hosts = grow(&mut world, 4);
        let mut clients = Clients::default();
        for round in 0..4 {
            let ideal = world.run_until(Span::secs(120), |world| world.is_ideal());
            assert!(ideal, "round {round}: {}", world.describe());
            write_for_a_while(&mut world, &mut clients, &hosts, 50);
            let wiped = hosts[world.rng().index(hosts.len())];
            world.crash(wiped);
            clients.forget_unanswered();
            let pause = world.rng().below(3_000_000);
            world.run_for(Span(pause));
            world.restart(wiped, &hosts);
            write_for_a_while(&mut world, &mut clients, &hosts, 50);
        }
        let ideal = world.run_until(Span::secs(120), |world| world.is_ideal());
        assert!(ideal, "{}", world.describe());
        let failed = clients.tally.reads_failed;
        for host in &hosts {
            read_all(&mut world, &mut clients, *host);
        }
        assert!(clients.tally.reads_failed == failed && clients.tally.writes > 100, "{:?}", clients.tally);
    });
}
