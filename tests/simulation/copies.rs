//! Whole nodes that keep several copies of each key.

use chordkv::base::Span;
use chordkv::node::Wishes;
use chordkv::sim::clients::Clients;
use chordkv::sim::{Check, DiskConfig, HostId, World, WorldConfig};

use crate::rings::grow;
use crate::seeds::{for_fresh_seeds, for_seeds};

/// A world of hosts whose disks take up to so long for each piece of work.
fn world(seed: u64, work_max: Span, durable: bool) -> World {
    let mut config = WorldConfig::new(seed);
    config.wishes = Wishes { successors: Some(4), slot_bits: Some(3), ..Wishes::default() };
    config.check = Check::Nodes;
    config.disk = DiskConfig { work_max, durable };
    config.copies = true;
    World::new(config)
}

fn write_for_a_while(world: &mut World, clients: &mut Clients, hosts: &[HostId], operations: u64) {
    for _ in 0..operations {
        let host = hosts[world.rng().index(hosts.len())];
        clients.act(world, host, 60);
        let pause = world.rng().below(5_000);
        world.run_for(Span(pause));
        clients.judge(world);
    }
}

fn rest(world: &mut World, limit: Span) {
    let ideal = world.run_until(limit, |world| world.is_ideal());
    assert!(ideal, "{}", world.describe());
}

fn read_all(world: &mut World, clients: &mut Clients, host: HostId) {
    world.run_until(Span::secs(12), |_| false);
    clients.judge(world);
    clients.read_all(world, host);
    let asked = clients.waiting();
    world.run_for(Span::secs(12));
    clients.judge(world);
    assert!(asked > 0 && clients.waiting() == 0, "{} of {asked} reads without an answer", clients.waiting());
}

/// Nobody fails: nodes come in and leave in order while users read and write.
#[test]
fn join_between_under_load_and_leaver_drains() {
    for_seeds("join_between_under_load_and_leaver_drains", 20, |seed| {
        let mut world = world(seed, Span::millis([0, 1, 5][usize::try_from(seed % 3).expect("below 3")]), false);
        let mut hosts = grow(&mut world, 1);
        let mut clients = Clients::default();
        for _ in 0..5 {
            let seeds = [hosts[world.rng().index(hosts.len())]];
            hosts.push(world.start(&seeds));
            let through = hosts[..hosts.len() - 1].to_vec();
            write_for_a_while(&mut world, &mut clients, &through, 100);
            rest(&mut world, Span::secs(30));
        }
        read_all(&mut world, &mut clients, hosts[0]);
        for _ in 0..4 {
            let leaver = hosts.remove(world.rng().index(hosts.len()));
            world.leave(leaver);
            write_for_a_while(&mut world, &mut clients, &hosts.clone(), 100);
            let left = world.run_until(Span::secs(30), |world| world.node(leaver).is_none());
            assert!(left, "{}", world.describe());
            rest(&mut world, Span::secs(30));
            read_all(&mut world, &mut clients, hosts[0]);
        }
        assert!(clients.tally.reads_failed + clients.tally.writes_failed == 0, "{:?}", clients.tally);
        assert!(clients.tally.writes > 200, "{:?}", clients.tally);
    });
}

/// One of five dies for good, then another, when its copies are replaced: nothing is lost, whatever they held.
#[test]
fn members_die_one_after_the_other_and_nothing_is_lost() {
    for_seeds("members_die_one_after_the_other_and_nothing_is_lost", 20, |seed| {
        let mut world = world(seed, Span::ZERO, false);
        let mut hosts = grow(&mut world, 5);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 200);
        for _ in 0..3 {
            let victim = hosts.remove(world.rng().index(hosts.len()));
            world.crash(victim);
            clients.forget_unanswered();
            write_for_a_while(&mut world, &mut clients, &hosts.clone(), 200);
            read_all(&mut world, &mut clients, hosts[0]);
            rest(&mut world, Span::secs(120));
            read_all(&mut world, &mut clients, hosts[0]);
        }
        assert!(clients.tally.reads_failed + clients.tally.writes_failed < 10, "{:?}", clients.tally);
    });
}

#[test]
fn everybody_is_killed_in_the_midst_of_writes_and_copies_are_there_again() {
    for_seeds("everybody_is_killed_in_the_midst_of_writes_and_copies_are_there_again", 20, |seed| {
        let mut world = world(seed, Span::millis([1, 5, 30][usize::try_from(seed % 3).expect("below 3")]), true);
        let count = 1 + world.rng().index(6);
        let hosts = grow(&mut world, count);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        for _ in 0..4 {
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
            rest(&mut world, Span::secs(5));
            read_all(&mut world, &mut clients, hosts[0]);
        }
        assert!(clients.tally.reads_failed == 0 && clients.tally.writes > 20, "{:?}", clients.tally);
    });
}

/// Views change all the time, and their members are killed in the midst of it.
#[test]
fn members_are_killed_in_the_midst_of_changes_and_nothing_acknowledged_is_lost() {
    // A member of old was at rest in a view that others had followed, and nobody told it for a minute and a half.
    const FOUND: [u64; 1] = [1_795_694_734_405_286_297];
    let name = "members_are_killed_in_the_midst_of_changes_and_nothing_acknowledged_is_lost";
    for_fresh_seeds(name, &FOUND, 40, |seed| {
        let mut world = world(seed, Span::millis([1, 5, 30][usize::try_from(seed % 3).expect("below 3")]), true);
        let mut hosts = grow(&mut world, 3);
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 60);
        for _ in 0..6 {
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
            rest(&mut world, Span::secs(90));
            read_all(&mut world, &mut clients, hosts[1]);
        }
        assert!(clients.tally.writes > 10, "{:?}", clients.tally);
    });
}
