//! Whole nodes that keep several copies of each key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chordkv::base::Span;
use chordkv::data::{Command, Condition, Failure, Key, Outcome, Put, UserReply, UserRequest};
use chordkv::node::Wishes;
use chordkv::node::report::RecoverReport;
use chordkv::sim::clients::Clients;
use chordkv::sim::{Check, DiskConfig, HostId, Latency, World, WorldConfig};

use crate::rings::{grow, read_all, write_for_a_while};
use crate::seeds::{for_fresh_seeds, for_seeds};

/// A world of hosts whose disks take up to so long for each piece of work.
fn world(seed: u64, work_max: Span, durable: bool) -> World {
    let mut config = WorldConfig::new(seed);
    config.wishes = Wishes { successors: Some(4), slot_bits: Some(3), ..Wishes::default() };
    config.check = Check::Nodes;
    config.disk = DiskConfig { work_max, durable };
    World::new(config)
}

fn rest(world: &mut World, limit: Span) {
    let ideal = world.run_until(limit, |world| world.is_ideal());
    assert!(ideal, "{}", world.describe());
}

/// One more node comes in while users do so many things through the others.
fn join_under_load(world: &mut World, clients: &mut Clients, hosts: &mut Vec<HostId>, operations: u64) {
    let through = hosts.clone();
    let seeds = [hosts[world.rng().index(hosts.len())]];
    hosts.push(world.start(&seeds));
    write_for_a_while(world, clients, &through, operations);
    rest(world, Span::secs(30));
}

/// Nobody fails: nodes come in and leave in order while users read and write.
#[test]
fn join_between_under_load_and_leaver_drains() {
    for_seeds("join_between_under_load_and_leaver_drains", 20, |seed| {
        let mut world = world(seed, Span::millis([0, 1, 5][usize::try_from(seed % 3).expect("below 3")]), false);
        let mut hosts = grow(&mut world, 1);
        let mut clients = Clients::default();
        for _ in 0..5 {
            join_under_load(&mut world, &mut clients, &mut hosts, 100);
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

/// Neither a join nor a kill holds anybody up for longer than a view takes to change: silence is waited for nowhere.
#[test]
fn nobody_waits_for_long_while_views_change() {
    for_seeds("nobody_waits_for_long_while_views_change", 20, |seed| {
        let mut config = WorldConfig::new(seed);
        config.wishes = Wishes { slot_bits: Some(6), ..Wishes::default() };
        config.check = Check::Nodes;
        config.disk = DiskConfig { work_max: Span::millis(1), durable: true };
        config.network.latency = Latency::Uniform { min: Span(50), max: Span::millis(1) };
        let mut world = World::new(config);
        let mut hosts = grow(&mut world, 5);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        let through = hosts.clone();
        hosts.push(world.start(&[through[0]]));
        write_for_a_while(&mut world, &mut clients, &through, 1_500);
        rest(&mut world, Span::secs(30));
        let victim = hosts.remove(world.rng().index(hosts.len()));
        world.crash(victim);
        clients.forget_unanswered();
        write_for_a_while(&mut world, &mut clients, &hosts, 2_000);
        assert!(clients.tally.slowest < Span::millis(250), "{:?}", clients.tally);
        assert!(clients.tally.reads_failed + clients.tally.writes_failed == 0, "{:?}", clients.tally);
        println!("seed {seed} {:?}", clients.tally.slowest);
    });
}

/// Where each key has one copy only, whoever is asked in vain while it moves is asked again after the owner.
#[test]
fn the_only_copy_of_a_key_is_asked_again() {
    for_seeds("the_only_copy_of_a_key_is_asked_again", 10, |seed| {
        let mut config = WorldConfig::new(seed);
        config.wishes = Wishes { replicas: Some(1), slot_bits: Some(5), ..Wishes::default() };
        config.check = Check::Nodes;
        config.disk = DiskConfig { work_max: Span::millis(60), durable: false };
        let mut world = World::new(config);
        let mut hosts = grow(&mut world, 4);
        let mut clients = Clients::default();
        for _ in 0..4 {
            join_under_load(&mut world, &mut clients, &mut hosts, 300);
        }
        read_all(&mut world, &mut clients, hosts[0]);
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
        assert!(clients.tally.writes > 3, "{:?}", clients.tally);
    });
}

/// The side with a majority of a slot's members serves it, whatever becomes of the ring; the other one does not. Views
/// go on changing on both sides, and when the two meet again there is one truth.
#[test]
fn reconfigure_during_majorities_ring() {
    for_seeds("reconfigure_during_majorities_ring", 20, |seed| {
        let mut world = world(seed, Span::millis([0, 1, 5][usize::try_from(seed % 3).expect("below 3")]), true);
        let hosts = grow(&mut world, 6);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        for round in 0..3 {
            for host in &hosts {
                let side = u8::from(world.rng().below(3) == 0);
                world.put_on_side(*host, side);
            }
            // Long enough for neighbours to be given up, and in the last round for what they hold.
            let until = world.now() + Span::secs(if round == 2 { 100 } else { 20 });
            while world.now() < until {
                write_for_a_while(&mut world, &mut clients, &hosts, 10);
                let pause = world.rng().below(2_000_000);
                world.run_for(Span(pause));
                clients.judge(&mut world);
            }
            world.heal();
            rest(&mut world, Span::secs(90));
            read_all(&mut world, &mut clients, hosts[0]);
        }
        assert!(clients.tally.writes > 100, "{:?}", clients.tally);
    });
}

/// Two of three are gone: nobody says what is not certain, and users are told who is missing. When they come back
/// everything is there.
#[test]
fn majority_lost() {
    for_seeds("majority_lost", 10, |seed| {
        let mut world = world(seed, Span::millis(1), true);
        let hosts = grow(&mut world, 3);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 100);
        read_all(&mut world, &mut clients, hosts[0]);
        let before = clients.tally;
        let survivor = hosts[world.rng().index(3)];
        for host in hosts.iter().filter(|host| **host != survivor) {
            world.crash(*host);
        }
        clients.forget_unanswered();
        world.run_for(Span::secs(150));
        let key = Key::new(*b"key 1").expect("a key");
        world.ask(survivor, u64::MAX, UserRequest::Kv { key, command: Command::Get });
        let answered = world.run_until(Span::secs(12), |world| {
            world.take_replies().iter().any(|(_, _, reply)| match reply {
                UserReply::Failed(Failure::Unavailable(why)) => {
                    why.contains("missing") && why.matches(":4000").count() == 2
                }
                other => panic!("an answer without a majority: {other:?}"),
            })
        });
        assert!(answered, "nobody said who is missing");
        // Whoever does not need the latest is told what is there.
        let key = Key::new(*b"key 1").expect("a key");
        world.ask(survivor, u64::MAX, UserRequest::ReadAny(key));
        let answered = world.run_until(Span::secs(1), |world| {
            world.take_replies().iter().any(|(_, _, reply)| match reply {
                // Since the others died, and before that for as long as a comparison is apart from the next.
                UserReply::Stale { age, .. } => age.is_none_or(|age| Span::secs(140) < age && age < Span::secs(190)),
                other => panic!("an answer to a read of any copy: {other:?}"),
            })
        });
        assert!(answered, "no copy can be read");
        for host in hosts.iter().filter(|host| **host != survivor) {
            world.restart_remembering(*host, &[survivor]);
        }
        rest(&mut world, Span::secs(60));
        read_all(&mut world, &mut clients, survivor);
        assert!(clients.tally.reads_failed == before.reads_failed, "{:?}", clients.tally);
    });
}

/// A coordinator that is stopped keeps nobody waiting for longer than it takes to ask another member, and says nothing
/// untrue when it goes on.
#[test]
fn stopped_30s_as_coordinator() {
    for_seeds("stopped_30s_as_coordinator", 20, |seed| {
        let mut world = world(seed, Span::ZERO, false);
        let hosts = grow(&mut world, 5);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        for _ in 0..3 {
            write_for_a_while(&mut world, &mut clients, &hosts, 50);
            let stopped = hosts[world.rng().index(hosts.len())];
            world.freeze(stopped);
            let others: Vec<HostId> = hosts.iter().copied().filter(|host| *host != stopped).collect();
            for _ in 0..15 {
                write_for_a_while(&mut world, &mut clients, &others, 10);
                world.run_for(Span::secs(2));
                clients.judge(&mut world);
            }
            world.thaw(stopped);
            write_for_a_while(&mut world, &mut clients, &hosts, 50);
            rest(&mut world, Span::secs(60));
            read_all(&mut world, &mut clients, hosts[0]);
        }
        assert!(clients.tally.reads_failed + clients.tally.writes_failed < 20, "{:?}", clients.tally);
        assert!(clients.tally.writes > 200, "{:?}", clients.tally);
    });
}

/// The answer to one request through a host.
fn answer(world: &mut World, host: HostId, request: UserRequest) -> UserReply {
    world.take_replies();
    world.ask(host, u64::MAX, request);
    let mut told = None;
    let answered = world.run_until(Span::secs(12), |world| {
        told = world.take_replies().pop().map(|(_, _, reply)| reply);
        told.is_some()
    });
    assert!(answered, "no answer");
    told.expect("an answer")
}

/// What is to be recovered, or was: slots out of reach, who is missing, and slots that begin empty.
fn recover(world: &mut World, host: HostId, lost: Option<Vec<String>>) -> Result<(u32, Vec<String>, u32), String> {
    match answer(world, host, UserRequest::Recover { lost }) {
        UserReply::Json(document) => {
            let report: RecoverReport = serde_json::from_slice(&document).expect("a report");
            let empty = report.copies_left.iter().filter(|left| left.left == 0).map(|left| left.slots).sum();
            let missing = report.missing.into_iter().map(|node| node.addr).collect();
            Ok((report.recovered.unwrap_or(report.unavailable), missing, empty))
        }
        UserReply::Failed(Failure::Conflict(why)) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// Two of five are gone for good, at once: slots that have lost the majority of their members go on with the copy that is
/// left once an operator has said so, and not before. Those who were gone come back all the same: nothing old is told.
#[test]
fn majority_lost_for_good() {
    for_seeds("majority_lost_for_good", 20, |seed| {
        let mut world = world(seed, Span::millis([0, 1, 5][usize::try_from(seed % 3).expect("below 3")]), true);
        let mut hosts = grow(&mut world, 5);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 150);
        read_all(&mut world, &mut clients, hosts[0]);
        assert_eq!(recover(&mut world, hosts[0], None), Ok((0, vec![], 0)), "nothing is to be done");
        // Two that have a slot in common.
        let holders = world.holders().swap_remove(0);
        let is_gone = |host: &HostId| holders[..2].contains(&world.contact(*host));
        let gone: Vec<HostId> = hosts.iter().copied().filter(is_gone).collect();
        hosts.retain(|host| !gone.contains(host));
        for host in &gone {
            world.crash(*host);
        }
        clients.forget_unanswered();
        // Those with two members left find a third by themselves.
        world.run_for(Span::secs(150));
        let (slots, missing, empty) = recover(&mut world, hosts[0], None).expect("a dry run");
        assert!(slots > 0 && missing.len() == 2 && empty == 0, "{slots} {missing:?} {empty}");
        let refused = recover(&mut world, hosts[1], Some(missing[..1].to_vec()));
        assert!(refused.is_err_and(|why| why.contains(&missing[1])), "not all were named");
        assert_eq!(recover(&mut world, hosts[2], None), Ok((slots, missing.clone(), 0)), "nothing was changed");
        // Two operators at once do it once.
        world.ask(hosts[0], u64::MAX - 1, UserRequest::Recover { lost: Some(missing.clone()) });
        assert_eq!(recover(&mut world, hosts[1], Some(missing.clone())), Ok((slots, missing, 0)));
        rest(&mut world, Span::secs(30));
        read_all(&mut world, &mut clients, hosts[0]);
        write_for_a_while(&mut world, &mut clients, &hosts, 150);
        for host in &gone {
            world.restart_remembering(*host, &[hosts[0]]);
            write_for_a_while(&mut world, &mut clients, &hosts, 20);
        }
        rest(&mut world, Span::secs(60));
        hosts.extend(&gone);
        read_all(&mut world, &mut clients, gone[0]);
        assert_eq!(recover(&mut world, gone[1], None), Ok((0, vec![], 0)));
        assert!(clients.tally.reads_failed + clients.tally.writes_failed < 10, "{:?}", clients.tally);
    });
}

/// Three of five are gone for good: what no copy is left of begins empty, and everything can be written and read again.
#[test]
fn all_copies_lost_for_good() {
    let emptied = AtomicU32::new(0);
    for_seeds("all_copies_lost_for_good", 20, |seed| {
        let mut world = world(seed, Span::millis(1), true);
        let mut hosts = grow(&mut world, 5);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 50);
        for _ in 0..3 {
            let gone = hosts.remove(world.rng().index(hosts.len()));
            world.crash(gone);
        }
        world.run_for(Span::secs(150));
        let (slots, missing, empty) = recover(&mut world, hosts[0], None).expect("a dry run");
        // Of a slot whose owner is gone, too, nobody may know who held it.
        let named = missing.iter().filter(|name| *name != "unknown").count();
        assert!(slots > 0 && named <= 3 && !missing.is_empty(), "{slots} {missing:?}");
        emptied.fetch_add(empty, Ordering::Relaxed);
        assert_eq!(recover(&mut world, hosts[1], Some(missing.clone())), Ok((slots, missing, empty)));
        rest(&mut world, Span::secs(30));
        // Whoever was there before may be gone: others judge from now on.
        let mut clients = Clients::default();
        for n in 0..60 {
            let key = Key::new(format!("key {n}").into_bytes()).expect("a key");
            let command = Command::Delete(Condition::default());
            let reply = answer(&mut world, hosts[0], UserRequest::Kv { key, command });
            assert!(matches!(reply, UserReply::Kv(Outcome::Deleted | Outcome::NotFound)), "{reply:?}");
        }
        write_for_a_while(&mut world, &mut clients, &hosts, 100);
        read_all(&mut world, &mut clients, hosts[1]);
        assert!(clients.tally.reads_failed + clients.tally.writes_failed == 0, "{:?}", clients.tally);
    });
    let is_replay = std::env::var_os("CHORDKV_SEED").is_some();
    assert!(is_replay || emptied.into_inner() > 0, "in no run was there a slot without any copy");
}

/// Of five copies two are left, and one of them has missed what was written last: what the other one has is not lost.
#[test]
fn majority_lost_and_survivors_differ() {
    for_seeds("majority_lost_and_survivors_differ", 20, |seed| {
        let mut config = WorldConfig::new(seed);
        config.wishes = Wishes { successors: Some(4), slot_bits: Some(3), replicas: Some(5), ..Wishes::default() };
        config.check = Check::Nodes;
        config.disk = DiskConfig { work_max: Span::millis(1), durable: true };
        let mut world = World::new(config);
        let mut hosts = grow(&mut world, 5);
        rest(&mut world, Span::secs(30));
        let mut clients = Clients::default();
        write_for_a_while(&mut world, &mut clients, &hosts, 50);
        let behind = hosts.remove(world.rng().index(hosts.len()));
        world.put_on_side(behind, 1);
        write_for_a_while(&mut world, &mut clients, &hosts, 400);
        world.run_for(Span::secs(6));
        clients.judge(&mut world);
        assert_eq!(clients.waiting(), 0, "all is said before anybody dies");
        // Three of five may have accepted something without the one that lives on, and would take it with them.
        let agree = |world: &World| hosts[1..].iter().all(|host| world.records(*host) == world.records(hosts[0]));
        assert!(world.run_until(Span::secs(30), |world| agree(world)), "comparing does not tell who missed something");
        let before = clients.tally;
        for host in &hosts[1..] {
            world.crash(*host);
        }
        world.heal();
        world.run_for(Span::secs(60));
        let (slots, missing, empty) = recover(&mut world, behind, None).expect("a dry run");
        assert!((slots, missing.len(), empty) == (8, 3, 0), "{slots} {missing:?} {empty}");
        assert_eq!(recover(&mut world, hosts[0], Some(missing.clone())), Ok((8, missing, 0)));
        rest(&mut world, Span::secs(30));
        read_all(&mut world, &mut clients, behind);
        assert!(before.writes > 100 && clients.tally.reads_failed == before.reads_failed, "{:?}", clients.tally);
    });
}

/// The survivor has missed what was written last. Those who have it come back after the ring went on without it: what users
/// saw meanwhile stays true.
#[test]
fn what_was_given_up_does_not_come_to_light_again() {
    for_seeds("what_was_given_up_does_not_come_to_light_again", 20, |seed| {
        let mut world = world(seed, Span::millis(1), true);
        let hosts = grow(&mut world, 3);
        rest(&mut world, Span::secs(30));
        let keys: Vec<Key> = (0..20).map(|n| Key::new(format!("key {n}").into_bytes()).expect("a key")).collect();
        let put = |world: &mut World, host: HostId, text: &str| {
            for key in &keys {
                let value = Arc::from(text.as_bytes());
                let put = Put { value, content_type: None, ttl_ms: None, condition: Condition::default() };
                let reply = answer(world, host, UserRequest::Kv { key: key.clone(), command: Command::Put(put) });
                assert!(matches!(reply, UserReply::Kv(_)), "{reply:?}");
            }
        };
        let is_everywhere = |world: &mut World, host: HostId, text: &str| {
            for key in &keys {
                match answer(world, host, UserRequest::Kv { key: key.clone(), command: Command::Get }) {
                    UserReply::Kv(Outcome::Found(record)) => assert_eq!(&*record.value, text.as_bytes(), "{key:?}"),
                    other => panic!("{other:?}"),
                }
            }
        };
        put(&mut world, hosts[0], "old");
        world.run_for(Span::secs(2));
        let survivor = hosts[world.rng().index(3)];
        let others: Vec<HostId> = hosts.iter().copied().filter(|host| *host != survivor).collect();
        world.put_on_side(survivor, 1);
        put(&mut world, others[0], "new");
        for host in &others {
            world.crash(*host);
        }
        world.heal();
        world.run_for(Span::secs(60));
        let (slots, missing, _) = recover(&mut world, survivor, None).expect("a dry run");
        assert_eq!(recover(&mut world, survivor, Some(missing.clone())), Ok((slots, missing, 0)));
        is_everywhere(&mut world, survivor, "old");
        for host in &others {
            world.restart_remembering(*host, &[survivor]);
        }
        rest(&mut world, Span::secs(60));
        is_everywhere(&mut world, others[0], "old");
    });
}

/// Keys are put and deleted while a member is away, and nodes come and go. When all is quiet nothing of them is left on any
/// disk, and none of them comes back.
#[test]
fn deletes_leave_nothing_behind() {
    for_seeds("deletes_leave_nothing_behind", 10, |seed| {
        let mut world = world(seed, Span::millis(1), true);
        let mut hosts = grow(&mut world, 4);
        rest(&mut world, Span::secs(30));
        let keys: Vec<Key> = (0..700).map(|n| Key::new(format!("key {n}").into_bytes()).expect("a key")).collect();
        let away = hosts[world.rng().index(hosts.len())];
        for (at, key) in keys.iter().enumerate() {
            if at == 100 {
                assert!(world.rows() >= 200, "{} rows", world.rows());
                world.crash(away);
            }
            let host = *hosts.iter().find(|host| **host != away).expect("four hosts");
            let put =
                Put { value: Arc::from(*b"v"), content_type: None, ttl_ms: None, condition: Condition::default() };
            for command in [Command::Put(put), Command::Delete(Condition::default())] {
                let reply = answer(&mut world, host, UserRequest::Kv { key: key.clone(), command });
                assert!(matches!(reply, UserReply::Kv(Outcome::Created(_) | Outcome::Deleted)), "{reply:?}");
            }
        }
        let seeds = [*hosts.iter().find(|host| **host != away).expect("four hosts")];
        world.restart_remembering(away, &seeds);
        hosts.push(world.start(&seeds));
        let is_empty = world.run_until(Span::secs(600), |world| world.rows() < 8 * 64 * 3);
        assert!(is_empty, "{} rows", world.rows());
        // What is too little for a view of its own goes after an hour.
        let is_empty = world.run_until(Span::secs(5_000), |world| world.rows() == 0);
        assert!(is_empty, "{} rows", world.rows());
        for key in &keys {
            let reply = answer(&mut world, away, UserRequest::Kv { key: key.clone(), command: Command::Get });
            assert_eq!(reply, UserReply::Kv(Outcome::NotFound));
        }
    });
}
