//! Hosts that are not of the ring, and knock again and again: only between hosts do addresses tell who is who.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::hosts::{HTTP, Hosts, peer_addr};
use super::net::Net;
use super::support::client::Client;
use super::support::wait_until;

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
    assert!(counted(&hosts, turned_away) > 0 && counted(&hosts, "chordkv_peers_refused_total{reason=\"no_key\"}") >= 9);
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
fn counted(hosts: &Hosts, metric: &str) -> u64 {
    let metrics = hosts.within(0, || Client::new(HTTP).get("/metrics").expect("it answers").text());
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)).unwrap_or_else(|| panic!("{metrics}"));
    line.trim().parse().expect("a number")
}
