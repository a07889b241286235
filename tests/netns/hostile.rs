//! Hosts that are not of the ring, and knock again and again: only between hosts do addresses tell who is who.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chordkv::node::Message;
use chordkv::overlay::RingMessage;

use super::hosts::{HTTP, Hosts, peer_addr};
use super::net::{Net, report};
use super::support::peer::Peer;
use super::support::{Client, Process, wait_until, whole};

/// Until a ring has formed, or serves again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until a stranger that says nothing is sent away takes longer than this by far.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn a_host_that_is_refused_again_and_again_is_turned_away_for_a_while_and_no_other() {
    let Some(hosts) = Hosts::start("hostile", Net::of(5), 3, PATIENCE) else { return };
    let (offender, other) = (3, 4);
    assert!(!is_turned_away(&hosts, offender));
    let mut offences = 0;
    wait_until("it is turned away", PATIENCE, || {
        knock(&hosts, offender);
        offences += 1;
        is_turned_away(&hosts, offender)
    });
    let start = Instant::now();
    assert!((9..=12).contains(&offences), "{offences}: eight are borne");
    assert!(!is_turned_away(&hosts, other), "its neighbour has done nothing");
    let turned_away = "chordkv_peers_refused_total{reason=\"turned_away\"}";
    assert!(
        counted(&hosts.net, turned_away) > 0
            && counted(&hosts.net, "chordkv_peers_refused_total{reason=\"no_key\"}") >= 9
    );
    hosts.serve(&[0, 1, 2], "meanwhile", PATIENCE);
    wait_until("it may try again", PATIENCE, || !is_turned_away(&hosts, offender));
    hosts.say(&format!("turned away after {offences} offences, let in {:.1?} later", start.elapsed()));
    // Once more, and it is for longer.
    knock(&hosts, offender);
    let start = Instant::now();
    assert!(is_turned_away(&hosts, offender));
    wait_until("it may try again", PATIENCE, || !is_turned_away(&hosts, offender));
    assert!(start.elapsed() > Duration::from_millis(1_500), "{:?}: twice as long as at first", start.elapsed());
    // The ring has noticed nothing.
    hosts.becomes_whole("after", &[0, 1, 2], PATIENCE);
    hosts.have_not_panicked();
}

/// Members without a key believe whoever says hello; a host that says it often takes no place that another host needs.
#[test]
fn a_host_that_is_a_crowd_of_peers_and_never_quiet_makes_room_for_another_host() {
    let net = match Net::of(3) {
        Ok(net) => net,
        Err(missing) => return report(&format!("crowd: SKIPPED, {missing}")),
    };
    let node = |host: usize, more: &[&str]| {
        let listen = peer_addr(host).to_string();
        let args = [&["--listen", &listen, "--http", "127.0.0.1:8000", "--insecure"], more].concat();
        // A quarter of the descriptors is for peers.
        net.within(host, || Process::node_with_descriptors(400, &args).listening())
    };
    let first = node(0, &[]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            net.within(1, || {
                let own = |n| ([10, 77, 0, 2], n).into();
                let greet = |n| Peer::greeted(first.peers, own(n)).0;
                let mut crowd: Vec<Option<Peer>> = (1..=100).map(greet).map(Some).collect();
                let full = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    assert!(full.elapsed() < PATIENCE, "nobody comes in");
                    for peer in &mut crowd {
                        let question = || Message::Ring(RingMessage::GetNeighbours { request: 1 });
                        peer.take_if(|peer| peer.say(question()).is_err());
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            });
        });
        // Only once there is no place left.
        wait_until("the crowd is there", PATIENCE, || counted(&net, "chordkv_peer_connections") >= 100);
        let second = node(2, &["--join", &peer_addr(0).to_string()]);
        let is_settled = || net.within(2, || whole(&mut Client::new(HTTP), 2).is_some());
        wait_until("the other host's node is a member", PATIENCE, is_settled);
        stop.store(true, Ordering::Relaxed);
        crowd.join().expect("no panic");
        assert!(counted(&net, "chordkv_peers_refused_total{reason=\"busy\"}") > 0, "some of the crowd are cut off");
        second.has_not_panicked();
    });
    first.has_not_panicked();
}

/// Sends what no node would, and waits until that was noticed.
fn knock(hosts: &Hosts, from: usize) {
    hosts.within(from, || {
        let mut stream = TcpStream::connect(peer_addr(0)).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        // It may be turned away already.
        let _ = stream.write_all(&[b'?'; 256]);
        let closed = stream.read(&mut [0; 256]);
        assert!(!matches!(&closed, Err(error) if error.kind() == ErrorKind::WouldBlock), "the connection stays");
    });
}

/// Whether a connection from that host ends before it has said anything.
fn is_turned_away(hosts: &Hosts, from: usize) -> bool {
    hosts.within(from, || {
        let mut stream = TcpStream::connect(peer_addr(0)).expect("somebody listens");
        stream.set_read_timeout(Some(AT_ONCE)).expect("a time");
        match stream.read(&mut [0; 1]) {
            Ok(0) => true,
            Ok(_) => panic!("a stranger is told something"),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    })
}

/// What the first node has counted.
fn counted(net: &Net, metric: &str) -> u64 {
    let metrics = net.within(0, || Client::new(HTTP).get("/metrics").expect("it answers").text());
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)).unwrap_or_else(|| panic!("{metrics}"));
    line.trim().parse().expect("a number")
}
