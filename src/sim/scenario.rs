//! Runs that tests and tools share: random churn, and the quiet after it.

use super::clients::{Clients, Tally};
use super::counters::Counters;
use super::network::Latency;
use super::world::{World, WorldConfig};
use crate::base::{Rng, Span};
use crate::node::Wishes;
use crate::overlay::{OverlayConfig, Standing};

/// What a run of [`churn`] does.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Everything is drawn from it.
    pub seed: u64,
    /// The ring has at most so many nodes.
    pub nodes_max: usize,
    /// Joins, leaves and crashes.
    pub events: usize,
    /// Nodes crash. They have no disks, and more of a key's may crash than it has copies: users are only judged without.
    pub crashes: bool,
    /// Operations of users between two events.
    pub operations: usize,
    /// Copies of each key, if not as many as rings have that nobody has wished anything of.
    pub replicas: Option<usize>,
}

/// What a run showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of the whole run.
    pub trace_hash: u64,
    /// What happened.
    pub counters: Counters,
    /// How the users fared.
    pub tally: Tally,
}

/// Joins, leaves and crashes at random moments; then quiet, in which the ring must become ideal.
///
/// # Panics
/// Something that must hold does not.
pub fn churn(run: &Churn) -> Summary {
    churn_of(run, OverlayConfig::default())
}

/// The same with nodes of these settings.
pub(super) fn churn_of(run: &Churn, overlay: OverlayConfig) -> Summary {
    // The world's own draws must not depend on what the script draws.
    let mut script = Rng::new(run.seed ^ 0x5eed);
    let mut config = WorldConfig { overlay, ..WorldConfig::new(run.seed) };
    let successors = [2, 3, 4, 16][script.index(4)];
    let slot_bits = [0, 3, 6][script.index(3)];
    config.wishes = Wishes {
        successors: Some(successors),
        slot_bits: Some(slot_bits),
        replicas: run.replicas,
        ..Wishes::default()
    };
    let max = Span::millis([1, 5, 40][script.index(3)]);
    config.network.latency = Latency::Uniform { min: Span(100), max };
    if run.operations > 0 {
        // Of its own, as those who have no users need no disks either.
        config.disk.work_max = Span::millis([0, 1, 5, 30][Rng::new(run.seed ^ 0xd15c).index(4)]);
    }
    let mut world = World::new(config);
    let mut clients = Clients::default();
    world.start(&[]);
    for _ in 0..run.events {
        disturb(&mut world, &mut script, run);
        for _ in 0..run.operations {
            let pause = Span::millis(script.below(20));
            world.run_for(pause);
            let running = world.members();
            if !running.is_empty() {
                let host = running[script.index(running.len())];
                clients.act(&mut world, host, 40);
            }
            if !run.crashes {
                clients.judge(&mut world);
            }
        }
        let longest = [20, 400, 3_000][script.index(3)];
        world.run_for(Span::millis(script.below(longest)));
    }
    readmit(&mut world, &mut script);
    let quiet = world.run_until(Span::secs(120), |world| world.is_ideal());
    assert!(quiet, "the ring is not ideal two minutes after the last event: {}", world.describe());
    if !run.crashes {
        settle_accounts(&mut world, &mut clients);
    }
    Summary { trace_hash: world.trace_hash(), counters: world.counters(), tally: clients.tally }
}

/// A node whose seeds all left while it joined has nobody to ask: its operator names others.
fn readmit(world: &mut World, script: &mut Rng) {
    world.run_for(Span::secs(15));
    // One that leaves may be gone before anybody comes in through it.
    let inside: Vec<u32> = world.members().into_iter().filter(|host| stays(world, *host)).collect();
    for host in outsiders(world).into_iter().filter(|_| !inside.is_empty()) {
        world.crash(host);
        world.restart(host, &[inside[script.index(inside.len())]]);
    }
}

/// Whether it is a member and does not leave.
fn stays(world: &World, host: u32) -> bool {
    world.node(host).and_then(|node| node.overlay()).is_some_and(|overlay| overlay.standing() == Standing::Member)
}

fn outsiders(world: &World) -> Vec<u32> {
    let inside = world.members();
    world.running().into_iter().filter(|host| !inside.contains(host)).collect()
}

/// One join, leave or crash.
fn disturb(world: &mut World, script: &mut Rng, run: &Churn) {
    let running = world.members();
    if running.is_empty() {
        return;
    }
    let seeds: Vec<_> = (0..3).map(|_| running[script.index(running.len())]).collect();
    let victim = running[script.index(running.len())];
    // Those that stay take what the leavers hold: if all leave at once, the data goes with the last.
    let staying = running.iter().filter(|host| stays(world, **host)).count();
    let crowded = world.running().len() >= run.nodes_max;
    match script.below(10) {
        // Bursts of joins, up to several at the same moment.
        0..=5 if !crowded => {
            for _ in 0..=script.below(3) {
                world.start(&seeds);
            }
        }
        // An operator who loses patience with a node that does not get in, perhaps because its seeds are gone.
        9 if !outsiders(world).is_empty() => {
            let outside = outsiders(world);
            let host = outside[script.index(outside.len())];
            world.crash(host);
            world.restart(host, &seeds);
        }
        6 | 7 if run.crashes && running.len() > 2 && world.may_crash(victim) => world.crash(victim),
        _ if staying > 2 => world.leave(victim),
        _ => {}
    }
}

/// Every write that was acknowledged is there, read through every node.
fn settle_accounts(world: &mut World, clients: &mut Clients) {
    let answered = world.run_until(Span::secs(20), |world| {
        clients.judge(world);
        clients.waiting() == 0
    });
    // A node that left took the questions of its own users with it.
    if !answered {
        clients.forget_unanswered();
    }
    for host in world.members() {
        clients.read_all(world, host);
        world.run_until(Span::secs(20), |world| {
            clients.judge(world);
            clients.waiting() == 0
        });
        assert_eq!(clients.waiting(), 0, "a read through host {host} has no answer");
    }
}
