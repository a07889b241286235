//! `status`: one node, its neighbours, fingers and store.

use std::io::{self, Write};

use super::args::JsonArgs;
use super::client::Client;
use super::failure::Failure;
use super::table::{Align, Table};
use super::text::{bytes, micros, one_line, seconds, short_id};
use crate::node::report::{NodeReport, PeerName};

/// `chordkv status`.
pub(super) fn status(client: &Client, args: &JsonArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (json, report): (_, NodeReport) = client.document("/v1/node")?;
    if args.json {
        out.write_all(&json)?;
        return Ok(writeln!(out)?);
    }
    Ok(show(&report, out)?)
}

fn show(report: &NodeReport, out: &mut dyn Write) -> io::Result<()> {
    for (name, value) in facts(report) {
        writeln!(out, "{name:<12} {}", one_line(&value))?;
    }
    let head = [("NODE", Align::Left), ("ADDRESS", Align::Left), ("RTT", Align::Right), ("STATE", Align::Left)];
    let mut successors = Table::new(&head);
    for peer in &report.successors {
        successors.push([short_id(&peer.id), one_line(&peer.addr), rtt(peer), state(peer)]);
    }
    writeln!(out, "\nsuccessors")?;
    successors.write(out)?;
    let mut fingers = Table::new(&[[("FINGERS", Align::Right)].as_slice(), &head].concat());
    for finger in &report.fingers {
        let peer = &finger.peer;
        let run = if finger.first == finger.last {
            finger.first.to_string()
        } else {
            format!("{}-{}", finger.first, finger.last)
        };
        fingers.push([run, short_id(&peer.id), one_line(&peer.addr), rtt(peer), state(peer)]);
    }
    writeln!(out, "\nfingers")?;
    fingers.write(out)
}

fn facts(report: &NodeReport) -> [(&'static str, String); 12] {
    let missing = || "-".to_owned();
    let store = &report.store;
    [
        ("id", report.id.clone()),
        ("address", report.addr.clone()),
        ("http", report.http.clone().unwrap_or_else(missing)),
        ("incarnation", report.incarnation.clone()),
        ("ring", format!("{} (ids of {} bits)", report.ring, report.capacity)),
        ("standing", report.standing.clone()),
        ("predecessor", report.predecessor.as_ref().map_or_else(missing, named)),
        ("contacts", report.contacts.to_string()),
        ("store", format!("{}, {} keys, {}", store.kind, store.keys, bytes(store.bytes))),
        ("slots", format!("{}, {} changing, {} to move", store.slots, store.slots_changing, store.slots_to_move)),
        ("uptime", seconds(report.uptime_seconds)),
        ("version", report.version.clone()),
    ]
}

fn named(peer: &PeerName) -> String {
    format!("{} {} {} {}", short_id(&peer.id), peer.addr, rtt(peer), state(peer)).trim_end().to_owned()
}

fn rtt(peer: &PeerName) -> String {
    peer.rtt_us.map_or_else(|| "-".to_owned(), micros)
}

fn state(peer: &PeerName) -> String {
    if peer.suspect { "does not answer".to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::report::{Finger, StoreReport};

    #[test]
    fn a_node_is_shown_with_its_neighbours_and_runs_of_fingers() {
        let peer = |n: u8, rtt_us, suspect| PeerName {
            id: format!("{n:02x}").repeat(20),
            addr: format!("127.0.0.1:{}", 4_000 + u16::from(n)),
            rtt_us,
            suspect,
        };
        let report = NodeReport {
            id: "aa".repeat(20),
            addr: "127.0.0.1:4000".to_owned(),
            http: None,
            incarnation: "1f".to_owned(),
            ring: "77".to_owned(),
            capacity: 160,
            standing: "member".to_owned(),
            predecessor: Some(peer(2, Some(1_259), false)),
            successors: vec![peer(1, Some(85), false), peer(2, None, true)],
            fingers: vec![
                Finger { first: 1, last: 158, peer: peer(1, Some(85), false) },
                Finger { first: 159, last: 159, peer: peer(2, None, true) },
            ],
            contacts: 2,
            store: StoreReport {
                kind: "memory".to_owned(),
                keys: 3,
                bytes: 2_048,
                commit: 0,
                slots: 9,
                slots_changing: 1,
                slots_to_move: 0,
            },
            uptime_seconds: 59,
            version: "0.1.0".to_owned(),
        };
        let mut out = Vec::new();
        show(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "http         -",
            "predecessor  0202020202 127.0.0.1:4002 1.25 ms",
            "store        memory, 3 keys, 2.0 KiB",
            "slots        9, 1 changing, 0 to move",
            "0101010101  127.0.0.1:4001  85 µs",
            "0202020202  127.0.0.1:4002      -  does not answer",
            "  1-158  0101010101  127.0.0.1:4001  85 µs",
            "    159  0202020202  127.0.0.1:4002      -  does not answer",
        ] {
            assert!(text.lines().any(|it| it == line), "{line:?} is not in\n{text}");
        }
    }
}
